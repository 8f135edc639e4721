//! Terminals, with pipes at the host's end.

use std::io::{Read, Write, pipe};
use std::time::Duration;

use isolab_vmm::devices::virtio::console::Console;
use libtest_mimic::Trial;

use crate::driver::{Driver, register};
use crate::needs::{Done, trial};

const TYPED: usize = 0;
const PRINTED: usize = 1;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("what_a_guest_prints_and_what_is_typed_goes_through", &[], both_ways),
        trial("what_is_typed_early_waits_and_an_end_is_no_harm", &[], early),
        trial("a_file_is_typed_from_its_beginning_to_its_end", &[], from_a_file),
        trial("a_reader_that_stalls_stops_the_guest_and_not_the_monitor", &[], stalled),
        trial("a_reader_that_is_gone_stops_nobody", &[], gone),
    ]
}

fn both_ways() -> Done {
    let (input, mut keyboard) = pipe()?;
    let (mut screen, output) = pipe()?;
    let mut driver = Driver::start(Box::new(Console::new(Some(input.into()), output.into())));
    driver.add(PRINTED, &[b"one ", b"line\n"], &[]);
    assert_eq!(driver.ask(PRINTED, &[b"and more"], &[]).written, 0);
    let mut read = [0; 17];
    screen.read_exact(&mut read)?;
    assert_eq!(&read, b"one line\nand more");
    driver.add(TYPED, &[], &[3]);
    driver.add(TYPED, &[], &[100]);
    driver.ring(TYPED);
    keyboard.write_all(b"typed")?;
    assert_eq!(driver.wait(TYPED).data, b"typ");
    let answer = driver.wait(TYPED);
    assert_eq!(&answer.data[..answer.written], b"ed");
    Ok(())
}

fn early() -> Done {
    let (input, mut keyboard) = pipe()?;
    let (_screen, output) = pipe()?;
    keyboard.write_all(b"early")?;
    let mut driver = Driver::start(Box::new(Console::new(Some(input.into()), output.into())));
    assert_eq!(driver.ask(TYPED, &[], &[100]).written, 5);
    driver.bring_up(u64::MAX); // another driver takes over
    driver.add(TYPED, &[], &[100]);
    driver.ring(TYPED);
    keyboard.write_all(b"later")?;
    assert_eq!(driver.wait(TYPED).written, 5);
    driver.add(TYPED, &[], &[100]);
    driver.ring(TYPED);
    drop(keyboard);
    assert_eq!(driver.wait_for(TYPED, Duration::from_millis(50)), None);
    assert_eq!(driver.ask(PRINTED, &[b"still here"], &[]).written, 0);
    Ok(())
}

fn from_a_file() -> Done {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&[b'x'; 10_000])?;
    let (_screen, output) = pipe()?;
    let input = std::fs::File::open(file.path())?;
    let mut driver = Driver::start(Box::new(Console::new(Some(input.into()), output.into())));
    let mut all = 0;
    while all < 10_000 {
        all += driver.ask(TYPED, &[], &[4096]).written;
    }
    assert_eq!(all, 10_000);
    Ok(())
}

fn stalled() -> Done {
    let (mut screen, output) = pipe()?;
    let mut driver = Driver::start(Box::new(Console::new(None, output.into())));
    let piece = vec![b'.'; 30_000];
    for _ in 0..5 {
        driver.add(PRINTED, &[&piece], &[]);
    }
    driver.ring(PRINTED);
    driver.wait(PRINTED);
    driver.wait(PRINTED);
    assert_eq!(driver.wait_for(PRINTED, Duration::from_millis(50)), None);
    // The device can be stopped while it can't go on, and loses nothing by it.
    driver.transport.pause();
    driver.transport.resume();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; 150_000];
        screen.read_exact(&mut all).map(|()| screen)
    });
    for _ in 0..3 {
        driver.wait(PRINTED);
    }
    let screen = reader.join().map_err(|_| "the reader failed")??;
    for _ in 0..5 {
        driver.add(PRINTED, &[&piece], &[]);
    }
    driver.ring(PRINTED);
    driver.wait(PRINTED);
    driver.set(register::STATUS, 0); // a reset does not wait for the reader
    drop(screen);
    Ok(())
}

fn gone() -> Done {
    let (screen, output) = pipe()?;
    drop(screen);
    let mut driver = Driver::start(Box::new(Console::new(None, output.into())));
    for _ in 0..100 {
        driver.ask(PRINTED, &[b"to nobody"], &[]);
    }
    Ok(())
}
