//! A terminal (virtio 1.2, section 5.3): what the guest prints goes to a file of the host, and what is typed comes from one.
//!
//! The host's ends are usually the monitor's own standard input and output, which it shares with whoever started it. So
//! they are never made non-blocking: each is asked whether it is ready, and read or written once.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::debug;

use super::events::{Events, Interest};
use super::queue::{Chain, Ring};
use super::{Fault, Kind, VirtioDevice};

const INPUT: u32 = 0;
const OUTPUT: u32 = 1;
/// A pipe that is ready takes so many bytes at once without waiting (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// A terminal with one port.
pub struct Console {
    input: Option<File>,
    output: Option<File>,
    /// The input is waited for.
    listening: bool,
    /// What the guest prints, while it is passed on.
    printing: Option<Chain>,
    /// The output is full, and waited for.
    full: bool,
}

impl Console {
    /// A terminal that is typed to from `input`, where there is one, and prints to `output`.
    pub fn new(input: Option<OwnedFd>, output: OwnedFd) -> Self {
        let input = input.map(File::from);
        Self { input, output: Some(output.into()), listening: false, printing: None, full: false }
    }

    /// Hands what is typed to the guest, for as long as it has room and there is something.
    fn type_in(&mut self, ring: &mut Ring, events: &Events) -> Result<(), Fault> {
        while let Some(input) = &self.input {
            let Some(chain) = ring.pop()? else {
                // Nobody reads: then nobody is to be woken by what is typed.
                if std::mem::take(&mut self.listening) {
                    events.remove(input).map_err(Fault::host("wait no longer for input"))?;
                }
                if ring.listen(true)? {
                    continue;
                }
                break;
            };
            if chain.writable.is_empty() {
                return Err(Fault::Request("for input with no room for any"));
            }
            if !is_ready(input, PollFlags::POLLIN) {
                ring.put_back(chain);
                if !self.listening {
                    events.add(input, INPUT, Interest::Read).map_err(Fault::host("wait for input"))?;
                    self.listening = true;
                }
                break;
            }
            let read = chain.writable.vectors(ring.memory()).read(input);
            match read {
                Ok(0) => {
                    ring.put_back(chain);
                    self.input = None; // closed with it, it is waited for no longer
                }
                Ok(count) => ring.push(chain, count as u32)?,
                Err(error) => {
                    ring.put_back(chain);
                    debug!("virtio console: cannot read input: {error}");
                    self.input = None;
                }
            }
        }
        ring.notify()
    }

    /// Passes on what the guest prints, for as long as the output takes it.
    fn print(&mut self, ring: &mut Ring, events: &Events) -> Result<(), Fault> {
        ring.listen(false)?;
        let mut left = 64; // requests, before others have their turn
        loop {
            let next = match self.printing.take() {
                Some(chain) => Some(chain),
                None => ring.pop()?,
            };
            let Some(mut chain) = next else {
                if ring.listen(true)? {
                    continue;
                }
                break;
            };
            if !self.pass_on(ring, &mut chain, events)? {
                self.printing = Some(chain);
                break;
            }
            ring.push(chain, 0)?;
            left -= 1;
            if left == 0 {
                ring.ring_again()?;
                break;
            }
        }
        ring.notify()
    }

    /// Passes on a chain; whether it is done.
    fn pass_on(&mut self, ring: &Ring, chain: &mut Chain, events: &Events) -> Result<bool, Fault> {
        let mut bytes = [0; PIECE];
        while !chain.readable.is_empty() {
            let Some(output) = &mut self.output else { return Ok(true) };
            if !is_ready(output, PollFlags::POLLOUT) {
                if !self.full {
                    events.add(output, OUTPUT, Interest::Write).map_err(Fault::host("wait for output"))?;
                    self.full = true;
                }
                return Ok(false);
            }
            let count = chain.readable.read(ring.memory(), &mut bytes);
            let piece = bytes.get(..count).unwrap_or_default();
            if let Err(error) = output.write_all(piece).and_then(|()| output.flush()) {
                debug!("virtio console: nobody takes what the guest prints any more: {error}");
                self.output = None;
            }
        }
        Ok(true)
    }
}

/// Whether a call would not wait. An end that is gone is ready: the call says so.
fn is_ready(file: &impl AsFd, what: PollFlags) -> bool {
    let mut wanted = [PollFd::new(file.as_fd(), what)];
    poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

impl VirtioDevice for Console {
    fn kind(&self) -> Kind {
        Kind::Console
    }

    /// What is typed, what is printed.
    fn queue_sizes(&self) -> &[u16] {
        &[64, 64]
    }

    fn activate(&mut self, _: u64, _: &Events) -> io::Result<()> {
        (self.listening, self.full) = (false, false); // a new list of what is waited for
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize, rings: &mut [Ring], events: &Events) -> Result<(), Fault> {
        match (queue, rings) {
            (0, [typed, ..]) => self.type_in(typed, events),
            (1, [_, printed, ..]) => self.print(printed, events),
            _ => Ok(()),
        }
    }

    fn file_ready(&mut self, token: u32, rings: &mut [Ring], events: &Events) -> Result<(), Fault> {
        if token == OUTPUT
            && std::mem::take(&mut self.full)
            && let Some(output) = &self.output
        {
            events.remove(output).map_err(Fault::host("wait no longer for output"))?;
        }
        match (token, rings) {
            (INPUT, [typed, ..]) => self.type_in(typed, events),
            (OUTPUT, [_, printed, ..]) => self.print(printed, events),
            _ => Ok(()),
        }
    }

    /// What is printed in part is printed again as a whole, rather than not.
    fn settle(&mut self, rings: &mut [Ring]) {
        if let (Some(chain), [_, printed, ..]) = (self.printing.take(), rings) {
            printed.put_back(chain);
        }
    }

    fn reset(&mut self) {
        self.printing = None;
    }
}
