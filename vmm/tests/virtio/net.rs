//! Network cards: over a tap in a network namespace of the trial's own, and over a socket where frames are looked at.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use isolab_vmm::devices::virtio::bucket::{Limits, Rate};
use isolab_vmm::devices::virtio::net::{Mac, Net, Tap, TapError, Wire};
use libtest_mimic::{Failed, Trial};

use crate::driver::Driver;
use crate::needs::{Done, trial};
use crate::sure;

const RECEIVE: usize = 0;
const SEND: usize = 1;
/// `VIRTIO_NET_F_MRG_RXBUF`.
const MERGE: u64 = 1 << 15;
const HEADER: [u8; 12] = [0; 12];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("frames_go_both_ways_over_a_tap_with_checksums_left_to_others", &["root", "tun", "ip"], over_a_tap),
        trial("a_tap_that_is_taken_or_none_is_refused", &["root", "tun", "ip"], bad_taps),
        trial("frames_go_both_ways_over_a_socket", &[], over_a_socket),
        trial("a_large_frame_is_put_into_many_buffers", &[], merged),
        trial("all_buffers_of_a_large_frame_are_shown_at_once", &[], merged_at_once),
        trial("a_frame_waits_for_room_and_one_too_large_is_dropped", &[], no_room),
        trial("a_frame_that_needs_more_buffers_than_there_are_waits_for_the_next", &[], some_room),
        trial("a_limited_card_keeps_to_its_rate_both_ways", &[], limited),
        trial("a_fullwire_is_waited_for", &[], fullwire),
        trial("a_saved_card_goes_on_where_it_was", &[], saved),
        sure("a_frame_without_a_header_stops_the_card", no_header),
    ]
}

fn mac() -> Mac {
    "02:00:00:00:00:02".parse().unwrap()
}

/// A card whose wire is a socket, and the other end of it.
fn pair() -> std::io::Result<(Driver, UnixDatagram)> {
    let (ours, theirs) = UnixDatagram::pair()?;
    theirs.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok((Driver::start(Box::new(Net::new(Wire::Socket(ours.into()), mac()))), theirs))
}

fn frame(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place * 7 % 251) as u8).collect()
}

fn over_a_socket() -> Done {
    let (mut driver, wire) = pair()?;
    assert_eq!(driver.config(0), [2, 0, 0, 0, 0, 2]);
    let mut received = vec![0; 70_000];
    for length in [1, 60, 1514, 65_550] {
        let sent = frame(length);
        let (front, back) = sent.split_at(length / 2);
        let parts: Vec<&[u8]> = [&HEADER[..], front, back].into_iter().filter(|part| !part.is_empty()).collect();
        assert_eq!(driver.ask(SEND, &parts, &[]).written, 0);
        let count = wire.recv(&mut received)?;
        assert!(received[..count] == sent, "{length}");
        wire.send(&sent)?;
        let answer = driver.ask(RECEIVE, &[], &[12, 70_000]);
        assert_eq!(answer.written, 12 + length);
        assert_eq!(answer.data[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "one buffer");
        assert!(answer.data[12..answer.written] == sent);
    }
    // More than any frame has: dropped, and the next one goes.
    driver.ask(SEND, &[&HEADER, &frame(66_000)], &[]);
    driver.ask(SEND, &[&HEADER, b"next"], &[]);
    assert_eq!(wire.recv(&mut received)?, 4);
    Ok(())
}

fn merged() -> Done {
    let (mut driver, wire) = pair()?;
    for length in [1488, 1489, 40_000] {
        let sent = frame(length);
        wire.send(&sent)?;
        for _ in 0..40 {
            driver.add(RECEIVE, &[], &[1500]);
        }
        driver.ring(RECEIVE);
        let mut got = driver.wait(RECEIVE);
        let buffers = u16::from_le_bytes([got.data[10], got.data[11]]);
        assert_eq!(usize::from(buffers), (length + 12).div_ceil(1500));
        let mut all = got.data[..got.written].to_vec();
        for _ in 1..buffers {
            got = driver.wait(RECEIVE);
            all.extend(&got.data[..got.written]);
        }
        assert!(all[12..] == sent, "{length}");
        assert_eq!(driver.wait_for(RECEIVE, Duration::from_millis(20)), None);
        driver.bring_up(u64::MAX);
    }
    Ok(())
}

fn merged_at_once() -> Done {
    let (mut driver, wire) = pair()?;
    for _ in 0..300 {
        for _ in 0..30 {
            driver.add(RECEIVE, &[], &[1500]);
        }
        driver.ring(RECEIVE);
        wire.send(&frame(43_000))?;
        // A driver that polls, as Linux does under load.
        let shown = loop {
            match driver.shown(RECEIVE) {
                0 => std::hint::spin_loop(),
                count => break count,
            }
        };
        assert_eq!(shown, 29, "a frame is shown in part");
        driver.wait(RECEIVE);
        driver.bring_up(u64::MAX);
    }
    Ok(())
}

fn no_room() -> Done {
    let (mut driver, wire) = pair()?;
    driver.bring_up(!MERGE);
    wire.send(&frame(100))?;
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.ask(RECEIVE, &[], &[200]).written, 112);
    wire.send(&frame(300))?;
    wire.send(&frame(50))?;
    let answer = driver.ask(RECEIVE, &[], &[200]);
    assert_eq!((answer.written, &answer.data[12..62]), (62, &frame(50)[..]));
    Ok(())
}

/// It says for which buffer the driver shall ring: for the one after those that are there. It would else look at these again
/// and again.
fn some_room() -> Done {
    let (mut driver, wire) = pair()?;
    for _ in 0..3 {
        driver.add(RECEIVE, &[], &[1500]);
    }
    driver.ring(RECEIVE);
    wire.send(&frame(6000))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while driver.rings_at(RECEIVE) != 3 {
        assert!(Instant::now() < deadline, "the driver is to ring at {}", driver.rings_at(RECEIVE));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(driver.shown(RECEIVE), 0);
    for _ in 0..2 {
        driver.add(RECEIVE, &[], &[1500]);
    }
    driver.ring(RECEIVE);
    let got: usize = (0..5).map(|_| driver.wait(RECEIVE).written).sum();
    assert_eq!(got, 6012);
    Ok(())
}

fn limited() -> Done {
    let (ours, theirs) = UnixDatagram::pair()?;
    let limits = Limits { bytes: Some(Rate { per_second: 100_000, burst: 10_000 }), operations: None };
    let net = Net::new(Wire::Socket(ours.into()), mac()).limited(limits, limits)?;
    let mut driver = Driver::start(Box::new(net));
    let mut took = Vec::new();
    let start = Instant::now();
    for _ in 0..40 {
        driver.add(SEND, &[&HEADER, &frame(988)], &[]);
    }
    driver.ring(SEND);
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 2000];
        for _ in 0..40 {
            theirs.recv(&mut bytes).unwrap();
        }
        theirs
    });
    for _ in 0..40 {
        driver.wait(SEND);
    }
    took.push(start.elapsed());
    let theirs = reader.join().map_err(|_| "the other end failed")?;
    let start = Instant::now();
    for _ in 0..40 {
        driver.add(RECEIVE, &[], &[1000]);
    }
    driver.ring(RECEIVE);
    let writer = std::thread::spawn(move || {
        for _ in 0..40 {
            theirs.send(&frame(988)).unwrap();
        }
        theirs
    });
    for _ in 0..40 {
        driver.wait(RECEIVE);
    }
    took.push(start.elapsed());
    drop(writer);
    // 40 000 bytes less the first 10 000 and the last 1000 at 100 000 a second.
    for took in took {
        assert!(took > Duration::from_millis(280) && took < Duration::from_secs(3), "{took:?}");
    }
    Ok(())
}

fn fullwire() -> Done {
    let (mut driver, wire) = pair()?;
    for _ in 0..100 {
        driver.add(SEND, &[&HEADER, &frame(20_000)], &[]);
    }
    driver.ring(SEND);
    std::thread::sleep(Duration::from_millis(50));
    let mut bytes = vec![0; 30_000];
    for _ in 0..100 {
        assert_eq!(wire.recv(&mut bytes)?, 20_000);
        driver.wait(SEND);
    }
    Ok(())
}

fn saved() -> Done {
    let (ours, theirs) = UnixDatagram::pair()?;
    let device = || Box::new(Net::new(Wire::Socket(ours.try_clone().unwrap().into()), mac()));
    let mut driver = Driver::start(device());
    let mut bytes = [0; 100];
    for round in 1..5_usize {
        theirs.send(&frame(round))?;
        assert_eq!(driver.ask(RECEIVE, &[], &[100]).written, 12 + round);
        driver.transport.pause();
        driver.add(SEND, &[&HEADER, &frame(round)], &[]);
        driver.add(RECEIVE, &[], &[100]);
        driver.save_and_restore(|| device());
        driver.wait(SEND);
        assert_eq!(theirs.recv(&mut bytes)?, round);
        theirs.send(&frame(50 + round))?;
        assert_eq!(driver.wait(RECEIVE).written, 62 + round);
    }
    Ok(())
}

fn no_header() {
    let (mut driver, wire) = pair().unwrap();
    for queue in [SEND, RECEIVE] {
        driver.add(queue, &[&[0; 11]], &[]);
        driver.ring(queue);
        if queue == RECEIVE {
            wire.send(b"a frame").unwrap();
        }
        driver.wait_for_break_down();
        driver.bring_up(u64::MAX);
    }
}

/// Runs in a network namespace that is gone with the thread.
fn alone(test: fn() -> Done) -> Done {
    let thread = std::thread::spawn(move || {
        // SAFETY: the thread gets a network of its own; what it starts, threads and programs, is in it too.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        test()
    });
    thread.join().unwrap_or_else(|_| Err(Failed::from("it panicked")))
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}

fn over_a_tap() -> Done {
    alone(|| {
        let tap = Tap::open("isolab0")?;
        ip("address add 10.9.8.1/24 dev isolab0");
        ip("link set isolab0 up");
        ip("neighbour add 10.9.8.2 lladdr 02:00:00:00:00:02 dev isolab0");
        let host = UdpSocket::bind("10.9.8.1:4000")?;
        host.set_read_timeout(Some(Duration::from_secs(10)))?;
        let theirs = link_address();
        let mut driver = Driver::start(Box::new(Net::new(Wire::Tap(tap), mac())));
        let text = b"from the guest";
        // UDP whose checksum is left to whoever knows how: only the pseudo header's sum is there.
        let frame = udp_frame(&theirs, text);
        let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]; // NEEDS_CSUM, from byte 34, at 6 from there
        driver.ask(SEND, &[&header, &frame], &[]);
        let mut bytes = [0; 2000];
        let (count, from) = host.recv_from(&mut bytes)?;
        assert_eq!((&bytes[..count], from.to_string()), (&text[..], "10.9.8.2:5000".to_owned()));
        // A header that makes no sense drops its frame, and nothing else.
        driver.ask(SEND, &[&[1, 1, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0], &frame], &[]);
        host.send_to(b"from the host", "10.9.8.2:5000")?;
        let found = (0..20).find_map(|_| {
            let answer = driver.ask(RECEIVE, &[], &[2000]); // the kernel says other things on a new interface too
            let data = &answer.data[..answer.written];
            data.ends_with(b"from the host").then(|| data.to_vec())
        });
        let found = found.ok_or("nothing came from the host")?;
        assert_eq!(found[..2], [1, 0], "the checksum is left to the guest");
        assert_eq!(found[12..18], [2, 0, 0, 0, 0, 2]);
        // A wire whose other end is down loses frames, as wires do.
        ip("link set isolab0 down");
        driver.ask(SEND, &[&header, &frame], &[]);
        ip("link set isolab0 up");
        driver.ask(SEND, &[&header, &frame], &[]);
        assert_eq!(host.recv(&mut bytes)?, text.len());
        Ok(())
    })
}

/// The tap's own hardware address.
fn link_address() -> Vec<u8> {
    let output = Command::new("ip").args(["-brief", "link", "show", "isolab0"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let address = text.split_whitespace().nth(2).unwrap_or_default();
    address.split(':').filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn udp_frame(to: &[u8], text: &[u8]) -> Vec<u8> {
    let addresses = [10, 9, 8, 2, 10, 9, 8, 1];
    let length = 8 + text.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + length).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(addresses);
    let checksum = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = fold(sum(&addresses) + 17 + u32::from(length));
    let mut frame = [to, &[2, 0, 0, 0, 0, 2], &[8, 0]].concat();
    frame.extend(ip);
    for number in [5000, 4000, length, pseudo] {
        frame.extend(number.to_be_bytes());
    }
    frame.extend(text);
    frame
}

fn bad_taps() -> Done {
    alone(|| {
        let first = Tap::open("isolab0")?;
        assert!(matches!(Tap::open("isolab0"), Err(TapError::Taken(_))));
        assert!(matches!(Tap::open("lo"), Err(TapError::NoTap(_))));
        for name in ["", "a name", "sixteen-letters-", "a/b", "tap%d"] {
            assert!(matches!(Tap::open(name), Err(TapError::Name(_))), "{name}");
        }
        drop(first);
        drop(Tap::open("isolab0")?);
        let output = Command::new("ip").args(["link", "show", "isolab0"]).output()?;
        assert!(!output.status.success(), "it is gone with us");
        Ok(())
    })
}
