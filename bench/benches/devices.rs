//! A disk and a network card of `isolab-vm` beside those of QEMU's machine for microVMs: the same kernel, the same initial file
//! system, the same file behind the disk, a tap behind the card, and on neither side a part of the host's kernel that does
//! the device's work (`vhost`).
//!
//! A guest moves so many bytes and says how long that took. The monitors take turns, so a drifting machine bends both alike, and
//! what is told at the end are medians and their ratio. Where a guest's kernel does not run, or is interpreted, all of it
//! happens in the testbed, where only the ratios mean anything. What each monitor has in memory beside its guest's is told too.

#[path = "devices/guest.rs"]
mod guest;
#[path = "devices/host.rs"]
mod host;
#[path = "devices/monitor.rs"]
mod monitor;
#[path = "../../vmm/tests/linux/smaps.rs"]
mod smaps;
#[path = "devices/testbed.rs"]
mod testbed;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use isolab_bench::host::guest_speed::{self, INTERPRETED, Mode};
use isolab_bench::{siblings, subject};
use kvm_ioctls::Kvm;

use guest::IN_THE_GUEST;
use host::Cable;
use monitor::{Ground, MONITORS};

type Done<T> = Result<T, Box<dyn Error>>;

/// What this program is called with where it measures.
const BESIDE: &str = "beside";
/// What the memory of a monitor beside its guest's is called among the deeds.
const BESIDE_GUEST: &str = "memory";
/// How often each monitor has its turn.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [IN_THE_GUEST, source, sink] => in_the_guest(source, sink),
        [BESIDE, kernel, modules] => compare(&Ground { kernel: kernel.into(), modules: modules.into() }),
        _ => begin(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", isolab_bench::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn in_the_guest(source: &str, sink: &str) -> Done<()> {
    Ok(guest::work(source.parse()?, sink.parse()?)?)
}

/// Here, or in the testbed.
fn begin() -> Done<()> {
    siblings::build()?;
    let speed = Kvm::new().ok().and_then(|kvm| guest_speed::measure(&kvm, Mode::Kernel).ok());
    let ground = Ground::of_the_testbed()?;
    if speed.is_some_and(|speed| speed > INTERPRETED) { compare(&ground) } else { testbed::compare(&ground) }
}

/// The file of one of the lab's commands, or of another program.
fn command(name: &str) -> Done<PathBuf> {
    subject::command(name).ok_or_else(|| format!("there is no {name}, neither beside this program nor on PATH").into())
}

/// What each deed took in the machines of one monitor, in nanoseconds; and the memory beside the guest's, in KiB.
type Times = BTreeMap<String, Vec<u64>>;

fn compare(ground: &Ground) -> Done<()> {
    let folder = tempfile::Builder::new().prefix("isolab-devices-").tempdir()?;
    let (source, sink) = (host::source()?, host::sink()?);
    let cable = Cable::of_this_run();
    let initrd = ground.pack(folder.path(), &cable, [source.port(), sink.port()])?;
    let disk = host::disk(folder.path())?;
    let mut all: [Times; 2] = Default::default();
    for round in 0..ROUNDS {
        // Each of them comes first as often as the other, or once more.
        let mut turns: Vec<_> = MONITORS.iter().zip(&mut all).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (monitor, times) in turns {
            eprintln!("round {} of {ROUNDS}: {monitor:?}", round + 1);
            let (deeds, memory) = monitor.run(ground, &initrd, &disk, &cable)?;
            for (deed, took) in deeds {
                times.entry(deed).or_default().push(took);
            }
            times.entry(BESIDE_GUEST.to_owned()).or_default().push(memory);
        }
    }
    tell(&all);
    Ok(())
}

fn tell([ours, others]: &[Times; 2]) {
    println!("{:16} {:>12} {:>13} {:>17}", "", "isolab-vm", "qemu-microvm", "isolab-vm's speed");
    for (deed, times) in ours {
        let Some(peers) = others.get(deed) else { continue };
        let (own, other) = (median(times), median(peers));
        if deed == BESIDE_GUEST {
            println!("beside guest's RAM {own:>8} KiB {other:>9} KiB in memory");
            continue;
        }
        println!(
            "{deed:16} {:>9} ms {:>10} ms {:>15.2} x",
            own / 1_000_000,
            other / 1_000_000,
            other as f64 / own as f64
        );
    }
    let machines = ROUNDS * MONITORS.len();
    println!("medians of {} times each, in {machines} machines, the monitors in turn", ROUNDS * guest::TIMES);
}

fn median(times: &[u64]) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(1).max(1)
}

/// The file's path as a word of a command.
fn word(path: &Path) -> String {
    path.display().to_string()
}
