//! A machine that has gone on from a snapshot is another machine, and its guest has to become another guest.
//!
//! Nothing in the guest's memory says so; the monitor does, at two ports ([`isolab_vmm::devices::BADGE`]). Between two
//! looks at them the guest is still who it was: kernels with a driver for the generation ID need no look for their random
//! numbers, others have drawn the same ones as their twins until then.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use isolab_vmm::devices::{BADGE, GENERATION};
use isolab_vmm::guest::linux::init::{Card, Network, Renewed};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::ports::Ports;
use crate::{InitError, complain, network};

/// How often the ports are looked at.
pub(crate) const OFTEN: Duration = Duration::from_millis(100);
/// No text is longer, in bytes.
const LONGEST: usize = 4096;

/// The ports, and what was seen there last.
pub(crate) struct Badge {
    ports: Ports,
    seen: u8,
}

impl Badge {
    /// Looks for the ports. Another monitor than ours has nobody there.
    pub(crate) fn find() -> Option<Self> {
        let ports = Ports::open(BADGE, 2)?;
        let badge = Self { seen: ports.read(GENERATION), ports };
        badge.read().map(|_| badge)
    }

    /// Who the machine is, if it is another one than at the last look.
    pub(crate) fn look(&mut self) -> Option<Renewed> {
        let generation = self.ports.read(GENERATION);
        if generation == self.seen {
            return None;
        }
        self.seen = generation;
        self.read()
    }

    /// Who the machine is.
    pub(crate) fn read(&self) -> Option<Renewed> {
        self.ports.write(BADGE, 0);
        let text: Vec<u8> = (0..LONGEST).map(|_| self.ports.read(BADGE)).take_while(|byte| *byte != 0).collect();
        serde_json::from_slice(&text).ok()
    }
}

/// Becomes who the machine is. What fails is told, and the rest is done.
pub(crate) fn become_another(told: &Renewed, known: Option<&Network>) {
    let tell = |done: Result<(), InitError>| done.unwrap_or_else(|error| complain(&error));
    tell(seed(&told.seed).map_err(|error| InitError::Host("seed the random numbers anew", error)));
    tell(set_clock(told.time).map_err(|error| InitError::Host("set the clock", error)));
    for (number, card) in told.cards.iter().enumerate() {
        tell(network::renew(&wanted(number, card, known), &card.mac));
    }
}

/// What a card shall have: what is not said is as it was.
fn wanted(number: usize, card: &Card, known: Option<&Network>) -> Network {
    let interface = format!("eth{number}");
    let known = known.filter(|known| known.interface == interface);
    Network {
        address: card.address.clone().or_else(|| Some(known?.address.clone())).unwrap_or_default(),
        gateway: card.gateway.or_else(|| known?.gateway),
        interface,
    }
}

/// The address of the first card, where the monitor has one for it.
pub(crate) fn first_network(told: &Renewed) -> Option<Network> {
    let card = told.cards.first().filter(|card| card.address.is_some())?;
    Some(wanted(0, card, None))
}

/// `struct rand_pool_info` (random(4)) with 32 bytes.
#[repr(C)]
struct Entropy {
    bits: libc::c_int,
    length: libc::c_int,
    bytes: [u8; 32],
}

/// `RNDADDENTROPY`, `RNDRESEEDCRNG`
const ADD: libc::Ioctl = 0x4008_5203;
const RESEED: libc::Ioctl = 0x5207;

/// Mixes in the monitor's random bytes, and makes the kernel use them at once.
fn seed(digits: &str) -> io::Result<()> {
    let nothing = || io::Error::other("the monitor had no random bytes");
    let byte = |place: usize| digits.get(place..place + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let found: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
    let bytes = found.and_then(|bytes| bytes.try_into().ok()).ok_or_else(nothing)?;
    let entropy = Entropy { bits: 256, length: 32, bytes };
    let device = File::options().write(true).open("/dev/urandom")?;
    // SAFETY: the structure is the one that the request takes, and lives over the call.
    let added = unsafe { libc::ioctl(device.as_raw_fd(), ADD, &raw const entropy) };
    // SAFETY: the request takes nothing.
    if added != 0 || unsafe { libc::ioctl(device.as_raw_fd(), RESEED) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_clock(nanoseconds: u64) -> io::Result<()> {
    Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(Duration::from_nanos(nanoseconds)))?)
}
