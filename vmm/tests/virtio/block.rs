//! Disks, against files and QEMU's own tools.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use isolab_vmm::devices::virtio::VirtioDevice;
use isolab_vmm::devices::virtio::block::{self, Block, DiskError, Format, Options};
use isolab_vmm::devices::virtio::bucket::{Limits, Rate};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::driver::Driver;
use crate::needs::{Done, trial};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const FAILED: u8 = 1;
const UNKNOWN: u8 = 2;
const SECTORS: u64 = 8192;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("what_is_written_to_a_disk_is_read_from_it_and_is_in_the_file", &[], round_trip),
        trial("a_discard_makes_a_hole_and_zeroes_are_zeroes", &[], discard_and_zero),
        trial("what_is_not_on_the_disk_is_answered_with_an_error", &[], past_the_end),
        trial("a_read_only_disk_is_not_written_to", &[], read_only),
        trial("a_disk_says_its_name_and_its_size", &[], name_and_size),
        trial("a_request_that_is_none_stops_the_disk", &[], no_request),
        trial("what_cannot_be_a_disk_is_refused_with_a_hint", &[], no_disk),
        trial("a_disk_is_written_by_one_machine_or_read_by_many", &[], locks),
        trial("a_limited_disk_keeps_to_its_rate", &[], limited),
        trial("a_saved_disk_goes_on_where_it_was", &[], saved),
        trial("an_image_is_read_written_discarded_and_qemu_finds_it_clean", &["qemu-img"], image),
        trial("an_image_over_another_leaves_that_one_as_it_was", &["qemu-img"], image_over_image),
        trial("an_image_that_names_what_it_should_not_is_refused", &["qemu-img"], bad_images),
        trial("a_broken_image_is_an_error_and_nothing_worse", &["qemu-img"], broken_images),
    ]
}

/// A folder with a disk of random bytes.
fn disk() -> std::io::Result<(TempDir, PathBuf, Vec<u8>)> {
    let folder = TempDir::new()?;
    let path = folder.path().join("disk");
    let mut bytes = vec![0; (SECTORS * 512) as usize];
    let mut state = 1_u64;
    for word in bytes.chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        word.copy_from_slice(&state.to_le_bytes());
    }
    fs::write(&path, &bytes)?;
    Ok((folder, path, bytes))
}

fn options(path: &Path, read_only: bool) -> Options {
    Options { path: path.to_owned(), read_only, format: None }
}

fn device(path: &Path, read_only: bool) -> Box<dyn VirtioDevice> {
    Box::new(Block::new(block::open(&options(path, read_only)).unwrap(), read_only, "a disk with a long name"))
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// A request with data for the disk; its answer.
fn send(driver: &mut Driver, kind: u32, sector: u64, data: &[&[u8]]) -> u8 {
    let header = header(kind, sector);
    let mut readable = vec![&header[..]];
    readable.extend(data);
    let answer = driver.ask(0, &readable, &[1]);
    assert_eq!(answer.written, 1);
    answer.data[0]
}

/// A request for data; its answer, and the data.
fn fetch(driver: &mut Driver, kind: u32, sector: u64, room: &[usize]) -> (u8, Vec<u8>) {
    let room = [room, &[1]].concat();
    let mut answer = driver.ask(0, &[&header(kind, sector)], &room);
    let code = answer.data.pop().unwrap();
    assert_eq!(answer.written, if code == 0 { answer.data.len() + 1 } else { 1 });
    (code, answer.data)
}

fn round_trip() -> Done {
    let (_folder, path, mut bytes) = disk()?;
    let mut driver = Driver::start(device(&path, false));
    assert_eq!(fetch(&mut driver, IN, 3, &[512, 1024, 4096]), (0, bytes[3 * 512..14 * 512].to_vec()));
    let text = [b"what a guest writes ".repeat(512), vec![0; 512]].concat();
    let text = &text[..10240];
    assert_eq!(send(&mut driver, OUT, 100, &[&text[..512], &text[512..513], &text[513..]]), 0);
    assert_eq!(fetch(&mut driver, IN, 100, &[5, 10235]), (0, text.to_vec()));
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), 0);
    bytes[51200..61440].copy_from_slice(text);
    assert!(fs::read(&path)? == bytes, "the file is not what was written");
    // The last sector, and many requests at once.
    assert_eq!(send(&mut driver, OUT, SECTORS - 1, &[&[7; 512]]), 0);
    for sector in 0..80 {
        driver.add(0, &[&header(IN, sector)], &[512, 1]);
    }
    driver.ring(0);
    for sector in 0..80 {
        assert!(driver.wait(0).data[..512] == bytes[sector * 512..(sector + 1) * 512]);
    }
    Ok(())
}

fn discard_and_zero() -> Done {
    let (_folder, path, _) = disk()?;
    let mut driver = Driver::start(device(&path, false));
    let before = fs::metadata(&path)?.blocks();
    let ranges = [range(8, 2048, 0), range(4096, 2048, 0)].concat();
    assert_eq!(send(&mut driver, DISCARD, 0, &[&ranges]), 0);
    File::open(&path)?.sync_all()?;
    assert!(fs::metadata(&path)?.blocks() <= before - 4096, "{} blocks", fs::metadata(&path)?.blocks());
    assert_eq!(fs::metadata(&path)?.size(), SECTORS * 512);
    for (sector, flags) in [(3000, 0), (3100, 1)] {
        assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &[&range(sector, 9, flags)]), 0);
        assert_eq!(fetch(&mut driver, IN, sector, &[9 * 512]), (0, vec![0; 9 * 512]));
        assert_ne!(fetch(&mut driver, IN, sector + 9, &[512]).1, vec![0; 512]);
    }
    // A flag that is not known, a range that is not there, more ranges than are allowed: nothing is done.
    assert_eq!(send(&mut driver, DISCARD, 0, &[&range(3200, 1, 1)]), UNKNOWN);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &[&range(3200, 1, 2)]), UNKNOWN);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &[&[range(3200, 1, 0), range(SECTORS, 1, 0)].concat()]), FAILED);
    assert_eq!(send(&mut driver, DISCARD, 0, &[&range(3200, 1, 0).repeat(33)]), FAILED);
    assert_eq!(send(&mut driver, DISCARD, 0, &[&range(u64::MAX, u32::MAX, 0)]), FAILED);
    assert_ne!(fetch(&mut driver, IN, 3200, &[512]).1, vec![0; 512]);
    Ok(())
}

fn past_the_end() -> Done {
    let (_folder, path, bytes) = disk()?;
    let mut driver = Driver::start(device(&path, false));
    for (sector, length) in [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100)] {
        assert_eq!(fetch(&mut driver, IN, sector, &[length]).0, FAILED, "{sector}");
        assert_eq!(send(&mut driver, OUT, sector, &[&vec![1; length]]), FAILED, "{sector}");
    }
    assert_eq!(send(&mut driver, 99, 0, &[]), UNKNOWN);
    assert_eq!(fetch(&mut driver, IN, 0, &[512]).0, 0);
    assert!(fs::read(&path)? == bytes);
    Ok(())
}

fn read_only() -> Done {
    let (_folder, path, bytes) = disk()?;
    let mut driver = Driver::start(device(&path, true));
    assert_eq!(driver.offered() & (1 << 5 | 1 << 13 | 1 << 14), 1 << 5);
    assert_eq!(send(&mut driver, OUT, 0, &[&[1; 512]]), FAILED);
    assert_eq!(send(&mut driver, DISCARD, 0, &[&range(0, 8, 0)]), FAILED);
    assert_eq!(fetch(&mut driver, IN, 0, &[512]), (0, bytes[..512].to_vec()));
    assert!(fs::read(&path)? == bytes);
    Ok(())
}

fn name_and_size() -> Done {
    let (_folder, path, _) = disk()?;
    let mut driver = Driver::start(device(&path, false));
    assert_eq!(u64::from_le_bytes(driver.config(0)), SECTORS);
    assert_eq!(u32::from_le_bytes(driver.config(20)), 512);
    assert_eq!(fetch(&mut driver, GET_ID, 0, &[20]), (0, b"a disk with a long n".to_vec()));
    Ok(())
}

fn no_request() -> Done {
    let (_folder, path, _) = disk()?;
    let mut driver = Driver::start(device(&path, false));
    let bad: [(&[&[u8]], &[usize]); 3] = [(&[&[0; 15]], &[513]), (&[&[0; 16]], &[]), (&[], &[512])];
    for (readable, writable) in bad {
        driver.add(0, readable, writable);
        driver.ring(0);
        driver.wait_for_break_down();
        driver.bring_up(u64::MAX);
    }
    assert_eq!(fetch(&mut driver, IN, 0, &[512]).0, 0);
    Ok(())
}

fn refused(path: &Path, read_only: bool, format: Option<Format>, parts: &[&str]) {
    let error = block::open(&Options { path: path.to_owned(), read_only, format }).err().expect("it was taken");
    let mut texts = vec![isolab_vmm::chain(&error)];
    texts.extend(error.hint());
    let text = texts.join(": ");
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

fn no_disk() -> Done {
    let folder = TempDir::new()?;
    let path = |name: &str| folder.path().join(name);
    refused(&path("missing"), false, None, &["cannot open the disk", "No such file", "truncate -s 1G"]);
    refused(folder.path(), true, None, &["neither a file nor a block device"]);
    refused(Path::new("/dev/null"), true, None, &["neither a file nor a block device"]);
    fs::write(path("odd"), [1; 513])?;
    refused(&path("odd"), false, None, &["has 513 bytes", "no whole sectors of 512", "truncate -s %512"]);
    fs::write(path("empty"), [])?;
    refused(&path("empty"), false, None, &["is empty", "truncate"]);
    fs::write(path("like"), [&b"QFI\xfb"[..], &[0; 508]].concat())?;
    refused(&path("like"), false, None, &["begins like a qcow2 image", "format=qcow2"]);
    assert!(block::open(&Options { path: path("like"), read_only: true, format: Some(Format::Raw) }).is_ok());
    refused(&path("odd"), true, Some(Format::Qcow2), &["cannot use", "as a qcow2 image"]);
    fs::write(path("odd.qcow2"), [1; 512])?;
    refused(&path("odd.qcow2"), true, None, &["cannot use", "as a qcow2 image"]);
    Ok(())
}

fn locks() -> Done {
    let (_folder, path, _) = disk()?;
    let read = || block::open(&options(&path, true));
    let write = || block::open(&options(&path, false));
    let writer = write()?;
    assert!(matches!(write(), Err(DiskError::InUse { write: true, .. })));
    assert!(matches!(read(), Err(DiskError::InUse { write: false, .. })));
    drop(writer);
    let readers = (read()?, read()?);
    assert!(matches!(write(), Err(DiskError::InUse { write: true, .. })));
    drop(readers);
    write()?;
    Ok(())
}

fn limited() -> Done {
    let (_folder, path, _) = disk()?;
    let rate = |per_second, burst| Some(Rate { per_second, burst });
    let limits =
        [Limits { bytes: rate(1 << 20, 64 << 10), operations: None }, Limits { bytes: None, operations: rate(40, 2) }];
    for limits in limits {
        let block = Block::new(block::open(&options(&path, true))?, true, "").limited(limits)?;
        let mut driver = Driver::start(Box::new(block));
        let start = Instant::now();
        for _ in 0..20 {
            driver.add(0, &[&header(IN, 0)], &[16 << 10, 1]);
        }
        driver.ring(0);
        for _ in 0..20 {
            assert_eq!(driver.wait(0).written, (16 << 10) + 1);
        }
        // 320 KiB less the first 64 and the last 16 at 1 MiB/s; 20 requests less the first two and the last at 40/s.
        let took = start.elapsed();
        assert!(took > Duration::from_millis(210) && took < Duration::from_secs(3), "{limits:?}: {took:?}");
    }
    Ok(())
}

fn saved() -> Done {
    let (_folder, path, bytes) = disk()?;
    let mut driver = Driver::start(device(&path, false));
    for round in 0..5_usize {
        let sector = round as u64;
        assert_eq!(fetch(&mut driver, IN, sector, &[512]).1, bytes[round * 512..(round + 1) * 512]);
        driver.transport.pause();
        driver.add(0, &[&header(IN, 9)], &[512, 1]);
        driver.ring(0);
        driver.save_and_restore(|| device(&path, false));
        assert_eq!(driver.wait(0).data[..512], bytes[9 * 512..10 * 512]);
    }
    Ok(())
}

fn qemu_img(words: &[&str], folder: &Path) -> String {
    let output = Command::new("qemu-img").args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "qemu-img {words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn image() -> Done {
    let (folder, path, mut bytes) = disk()?;
    let folder = folder.path();
    qemu_img(&["convert", "-O", "qcow2", "disk", "image.qcow2"], folder);
    fs::remove_file(path)?;
    let image = folder.join("image.qcow2");
    {
        let mut driver = Driver::start(device(&image, false));
        assert_eq!(u64::from_le_bytes(driver.config(0)), SECTORS);
        assert_eq!(fetch(&mut driver, IN, 77, &[512, 8192, 1024]), (0, bytes[77 * 512..96 * 512].to_vec()));
        let text = b"written into an image.".repeat(1000);
        let text = &text[..20480];
        assert_eq!(send(&mut driver, OUT, 1001, &[&text[..1000], &text[1000..]]), 0);
        bytes[1001 * 512..1041 * 512].copy_from_slice(text);
        assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &[&range(2000, 300, 1)]), 0);
        bytes[2000 * 512..2300 * 512].fill(0);
        assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &[&range(3000, 3, 0)]), 0);
        bytes[3000 * 512..3003 * 512].fill(0);
        assert_eq!(send(&mut driver, DISCARD, 0, &[&range(4096, 1024, 0)]), 0);
        assert_eq!(send(&mut driver, FLUSH, 0, &[]), 0);
        let (code, read) = fetch(&mut driver, IN, 990, &[512 * 80]);
        assert!(code == 0 && read == bytes[990 * 512..1070 * 512]);
    }
    qemu_img(&["check", "image.qcow2"], folder);
    qemu_img(&["convert", "-O", "raw", "image.qcow2", "after"], folder);
    let after = fs::read(folder.join("after"))?;
    assert!(after[..4096 * 512] == bytes[..4096 * 512] && after[5120 * 512..] == bytes[5120 * 512..]);
    Ok(())
}

fn image_over_image() -> Done {
    let (folder, path, bytes) = disk()?;
    let folder = folder.path();
    qemu_img(&["create", "-f", "qcow2", "-b", "disk", "-F", "raw", "middle"], folder);
    qemu_img(&["create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "top.qcow2"], folder);
    let middle = fs::read(folder.join("middle"))?;
    {
        let mut driver = Driver::start(device(&folder.join("top.qcow2"), false));
        assert_eq!(fetch(&mut driver, IN, 5, &[2048]), (0, bytes[5 * 512..9 * 512].to_vec()));
        assert_eq!(send(&mut driver, OUT, 6, &[&[9; 512]]), 0);
        let expected = [&bytes[5 * 512..6 * 512], &[9; 512], &bytes[7 * 512..9 * 512]].concat();
        assert_eq!(fetch(&mut driver, IN, 5, &[2048]), (0, expected));
        // What others stand on is nobody's to write.
        assert!(matches!(block::open(&options(&path, false)), Err(DiskError::InUse { .. })));
    }
    qemu_img(&["check", "top.qcow2"], folder);
    assert!(fs::read(&path)? == bytes && fs::read(folder.join("middle"))? == middle);
    Ok(())
}

fn bad_images() -> Done {
    let folder = TempDir::new()?;
    let folder = folder.path();
    let new = |name: &str, base: &str, format: &str| {
        qemu_img(&["create", "-u", "-f", "qcow2", "-b", base, "-F", format, name, "1M"], folder);
        folder.join(name)
    };
    refused(&new("device.qcow2", "/dev/zero", "raw"), true, None, &["which is no file"]);
    refused(&new("missing.qcow2", "nothing", "raw"), true, None, &["as a qcow2 image", "No such file"]);
    refused(&new("./itself.qcow2", "itself.qcow2", "qcow2"), true, None, &["without an end"]);
    refused(&folder.join("itself.qcow2"), false, None, &["in use"]);
    qemu_img(&["create", "-f", "qcow2", "-o", "data_file=beside", "split.qcow2", "1M"], folder);
    refused(&folder.join("split.qcow2"), true, None, &["denied"]);
    Ok(())
}

fn broken_images() -> Done {
    let (folder, _, _) = disk()?;
    let folder = folder.path();
    qemu_img(&["convert", "-c", "-O", "qcow2", "disk", "good.qcow2"], folder);
    let good = fs::read(folder.join("good.qcow2"))?;
    let broken = folder.join("broken.qcow2");
    let mut state = 7_u64;
    let mut taken = 0;
    for round in 0..200_usize {
        let mut bytes = good.clone();
        // The header and the tables that it names are in the first clusters; each round has other wrong bytes there.
        for _ in 0..=round % 4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (state >> 33) as usize % if round % 2 == 0 { 112 } else { 5 << 16 };
            if let Some(byte) = bytes.get_mut(place) {
                *byte = (state >> 8) as u8;
            }
        }
        if round % 10 == 0 {
            bytes.truncate(bytes.len() * round / 200);
        }
        File::create(&broken)?.write_all(&bytes)?;
        let Ok(disk) = block::open(&options(&broken, false)) else { continue };
        taken += 1;
        let mut driver = Driver::start(Box::new(Block::new(disk, false, "")));
        let sectors = u64::from_le_bytes(driver.config(0));
        for sector in [0, sectors / 2, sectors - 1] {
            fetch(&mut driver, IN, sector, &[512]);
            send(&mut driver, OUT, sector, &[&[1; 512]]);
            send(&mut driver, DISCARD, 0, &[&range(sector, 1, 0)]);
        }
        send(&mut driver, FLUSH, 0, &[]);
    }
    assert!(taken > 20, "{taken} were taken: too few to learn from");
    Ok(())
}
