//! Machines for operating systems that go on from snapshots: their processors, their interrupts, their serial port.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isolab_vmm::api::{Answer, Doing, Request, Socket, ask};
use isolab_vmm::machine::pc::{Config, Paused, Pc, Renewal};
use isolab_vmm::machine::{BootError, Ended, Machine, Standing, Template};
use isolab_vmm::memory::Loading;
use isolab_vmm::snapshot::Snapshot;
use libtest_mimic::{Failed, Trial};

use super::tiny::{CONFIG, boot, map_devices, store, store_64, waits_for_a_key};
use super::{Done, Screen, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_kernel_that_waits_for_a_key_goes_on_from_a_snapshot", &["kvm"], waits),
        trial("several_processors_go_on_from_a_snapshot_each_where_it_was", &["kvm"], several),
        trial("a_machine_for_an_operating_system_can_be_asked_while_it_runs", &["kvm"], asked),
        trial("a_snapshot_of_one_kind_of_machine_makes_no_other_kind", &["kvm"], another_kind),
    ]
}

/// Waits until the screen shows what it should.
fn until(screen: &Screen, shown: impl Fn(&str) -> bool) -> Done {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !shown(&screen.text()) {
        if Instant::now() > deadline {
            return Err(format!("it shows {:?}", screen.text()).into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn restored(at: &Path, loading: Loading) -> Result<(Pc, Screen), Failed> {
    let template = Template::new(Snapshot::open(at)?)?;
    let screen = Screen::default();
    Ok((
        Pc::restore(&template, loading, Some(Duration::from_secs(20)), Box::new(screen.clone()), &Renewal::default())?,
        screen,
    ))
}

/// Types a byte, and returns how the machine ends.
fn types(pc: Pc, byte: u8) -> Result<Ended, Failed> {
    let (reader, mut writer) = std::io::pipe()?;
    writer.write_all(&[byte])?;
    Ok(pc.resume()?.wait(Some(reader.as_fd()))?)
}

/// A machine that was saved while it waited, standing still, and where it was saved.
fn saved_while_it_waits(folder: &Path) -> Result<Pc, Failed> {
    let (pc, screen) = boot(&CONFIG, &waits_for_a_key(b"?\n"))?;
    let running = pc.resume()?;
    until(&screen, |text| text == "?\n")?;
    let Paused::Still(mut pc) = running.pause()? else { return Err("it had ended".into()) };
    pc.save(&folder.join("snapshot"))?;
    Ok(pc)
}

fn waits() -> Done {
    let folder = tempfile::tempdir()?;
    let first = saved_while_it_waits(folder.path())?;
    let at = folder.path().join("snapshot");
    // What is typed comes as an interrupt: through the I/O APIC's routes, the local APIC and the guest's own table.
    for (loading, key) in [(Loading::Lazy, b'x'), (Loading::Eager, b'y'), (Loading::Lazy, b'z')] {
        let (pc, screen) = restored(&at, loading)?;
        assert_eq!(types(pc, key)?, Ended::Status(key));
        assert_eq!(screen.text(), "", "what was printed before was another machine's");
    }
    assert_eq!(types(first, b'k')?, Ended::Status(b'k'), "the first goes on as well");
    Ok(())
}

/// Processor 0 prints `a` for ever, processor 1, in 16-bit mode, `b`.
fn two_printers() -> Vec<u8> {
    let second = u64::from_le_bytes([0xba, 0xf8, 0x03, 0xb0, b'b', 0xee, 0xeb, 0xfd]);
    [
        map_devices(),
        store_64(0x9000, second),
        store(0xfee0_00f0, 0x1ff),
        store(0xfee0_0310, 1 << 24),
        store(0xfee0_0300, 0x4500),
        store(0xfee0_0300, 0x4609),
        vec![0x66, 0xba, 0xf8, 0x03, 0xb0, b'a', 0xee, 0xeb, 0xfd],
    ]
    .concat()
}

fn several() -> Done {
    let folder = tempfile::tempdir()?;
    let both = |text: &str| text.contains('a') && text.contains('b');
    let (pc, screen) = boot(&Config { cpus: 2, ..CONFIG }, &two_printers())?;
    let running = pc.resume()?;
    until(&screen, both)?;
    let Paused::Still(mut pc) = running.pause()? else { return Err("it had ended".into()) };
    pc.save(&folder.path().join("one"))?;
    drop(pc);
    // And once more from what went on.
    let (pc, screen) = restored(&folder.path().join("one"), Loading::Lazy)?;
    let running = pc.resume()?;
    until(&screen, both)?;
    let Paused::Still(mut pc) = running.pause()? else { return Err("it had ended".into()) };
    pc.save(&folder.path().join("two"))?;
    drop(pc);
    let (pc, screen) = restored(&folder.path().join("two"), Loading::Eager)?;
    let running = pc.resume()?;
    until(&screen, both)?;
    running.stop();
    Ok(())
}

fn asked() -> Done {
    let folder = tempfile::tempdir()?;
    let (socket, at) = (folder.path().join("socket"), folder.path().join("snapshot"));
    let (pc, screen) = boot(&CONFIG, &waits_for_a_key(b"?\n"))?;
    let bell = pc.bell();
    let (_listening, mut attendant) = Socket::listen_and_ring(&socket, Arc::new(move || drop(bell.write(1))))?;
    let asker = std::thread::spawn({
        let at = at.clone();
        move || -> Result<Vec<Doing>, String> {
            until(&screen, |text| text == "?\n").map_err(|error| format!("{error:?}"))?;
            let mut seen = Vec::new();
            let snapshot = Request::Snapshot { to: at, diff: false };
            for request in [Request::Status, Request::Pause, snapshot, Request::Resume, Request::Status, Request::Stop]
            {
                match ask(&socket, &request).map_err(|error| error.to_string())? {
                    Answer::Status(status) => seen.push(status.state),
                    Answer::Snapshot { bytes, .. } if bytes > 0 => {}
                    Answer::Snapshot { .. } => return Err("nothing was saved".to_owned()),
                }
            }
            Ok(seen)
        }
    });
    let ended = pc.resume()?.wait_attended(None, &mut attendant)?;
    let seen = asker.join().map_err(|_| "the asker died")??;
    assert_eq!(ended, Ended::Signal(libc::SIGTERM));
    assert_eq!(seen, [Doing::Running, Doing::Paused, Doing::Running, Doing::Running, Doing::Stopped]);
    let (pc, _) = restored(&at, Loading::Lazy)?;
    assert_eq!(types(pc, b'!')?, Ended::Status(b'!'));
    Ok(())
}

fn another_kind() -> Done {
    let folder = tempfile::tempdir()?;
    drop(saved_while_it_waits(folder.path())?);
    let template = Template::new(Snapshot::open(&folder.path().join("snapshot"))?)?;
    assert!(template.is_pc());
    let refused = Machine::restore(&template, Loading::Lazy, None, std::io::sink());
    let Err(BootError::Snapshot(error)) = refused else { return Err("it was not refused".into()) };
    assert!(error.to_string().contains("another kind of machine (linux)"), "{error}");
    Ok(())
}
