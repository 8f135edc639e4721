//! blkio (v1) and io (v2): shares of a disk's time, and ceilings on bytes and operations a second.

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice};

use super::controller::{Controller, Names};
use super::folder::{Absent, Folder, Setting};
use super::layout::Version;
use super::stats::DeviceIo;
use super::{CgroupError, Stats};

/// The controller.
pub(super) struct Io;

impl Controller for Io {
    fn names(&self) -> Names {
        Names { v1: Some("blkio"), v2: Some("io") }
    }

    fn settings(
        &self,
        version: Version,
        asked: &LinuxResources,
        _: Option<&Folder>,
    ) -> Result<Vec<Setting>, CgroupError> {
        let Some(io) = asked.block_io() else { return Ok(Vec::new()) };
        let mut settings = Vec::new();
        match version {
            Version::V1 => {
                settings.extend(v1_weights(io));
                for (devices, _, file) in throttles(io) {
                    let line = |device: &LinuxThrottleDevice| {
                        Setting::new(file, &format!("{}:{} {}", device.major(), device.minor(), device.rate()))
                    };
                    settings.extend(devices.iter().flatten().map(line));
                }
            }
            Version::V2 => {
                settings.extend(v2_weights(io)?);
                for (devices, key, _) in throttles(io) {
                    settings.extend(devices.iter().flatten().map(|device| v2_throttle(device, key)));
                }
            }
        }
        Ok(settings)
    }

    fn measure(&self, folder: &Folder, stats: &mut Stats) -> Result<(), CgroupError> {
        match folder.version {
            Version::V1 => {
                let bytes = folder.read_optional("blkio.throttle.io_service_bytes")?.unwrap_or_default();
                let operations = folder.read_optional("blkio.throttle.io_serviced")?.unwrap_or_default();
                v1_counts(&bytes, &operations, stats);
            }
            Version::V2 => v2_counts(&folder.read_optional("io.stat")?.unwrap_or_default(), stats),
        }
        Ok(())
    }
}

/// The four ceilings: what is asked, what v2's `io.max` calls it, and v1's file.
fn throttles(io: &LinuxBlockIo) -> [(&Option<Vec<LinuxThrottleDevice>>, &'static str, &'static str); 4] {
    [
        (io.throttle_read_bps_device(), "rbps", "blkio.throttle.read_bps_device"),
        (io.throttle_write_bps_device(), "wbps", "blkio.throttle.write_bps_device"),
        (io.throttle_read_iops_device(), "riops", "blkio.throttle.read_iops_device"),
        (io.throttle_write_iops_device(), "wiops", "blkio.throttle.write_iops_device"),
    ]
}

/// A rate of 0 lifts a ceiling in v1; v2 says `max` for that.
fn v2_throttle(device: &LinuxThrottleDevice, key: &str) -> Setting {
    let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
    Setting::new("io.max", &format!("{}:{} {key}={rate}", device.major(), device.minor()))
}

/// Which scheduler serves weights decides the file: CFQ (gone in Linux 5.0) `blkio.weight`, BFQ `blkio.bfq.weight`.
fn v1_weights(io: &LinuxBlockIo) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        settings.push(Setting::new("blkio.weight", &weight).or(Setting::new("blkio.bfq.weight", &weight)));
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        settings.push(Setting::new("blkio.leaf_weight", &weight));
    }
    for device in io.weight_device().iter().flatten() {
        let line = |weight| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            let bfq = Setting::new("blkio.bfq.weight_device", &line(weight));
            settings.push(Setting::new("blkio.weight_device", &line(weight)).or(bfq));
        }
        if let Some(weight) = device.leaf_weight() {
            settings.push(Setting::new("blkio.leaf_weight_device", &line(weight)));
        }
    }
    settings
}

/// BFQ keeps v1's range, 1 to 1000; io.cost has v2's, 1 to 10000 with 100 as default.
fn v2_weights(io: &LinuxBlockIo) -> Result<Vec<Setting>, CgroupError> {
    let leaf = |device: &LinuxWeightDevice| device.leaf_weight().is_some();
    if io.leaf_weight().is_some_and(|weight| weight != 0) || io.weight_device().iter().flatten().any(leaf) {
        return Err(CgroupError::Unsupported { field: "linux.resources.blockIO.leafWeight".to_owned(), version: "v2" });
    }
    let setting = |whose: &str, weight: u16| Setting {
        absent: Absent::Instead(Box::new(Setting::new("io.weight", &format!("{whose} {}", io_weight(weight))))),
        ..Setting::new("io.bfq.weight", &format!("{whose} {weight}"))
    };
    let all = io.weight().filter(|weight| *weight != 0).map(|weight| setting("default", weight));
    let devices = io.weight_device().iter().flatten().filter_map(|device| {
        device.weight().map(|weight| setting(&format!("{}:{}", device.major(), device.minor()), weight))
    });
    Ok(all.into_iter().chain(devices).collect())
}

/// v1's 10 to 1000 on v2's 1 to 10000, by the line through their ends.
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9_999 / 990
}

fn v1_counts(bytes: &str, operations: &str, stats: &mut Stats) {
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        // `8:0 Read 4096`; the last line, `Total 4096`, is about no device.
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [device, kind, count] = fields.as_slice() else { continue };
            let Ok(count) = count.parse() else { continue };
            let entry = device_entry(stats, device);
            match (*kind, is_bytes) {
                ("Read", true) => entry.read_bytes = count,
                ("Write", true) => entry.written_bytes = count,
                ("Read", false) => entry.reads = count,
                ("Write", false) => entry.writes = count,
                _ => {}
            }
        }
    }
}

fn v2_counts(text: &str, stats: &mut Stats) {
    // `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`
    for line in text.lines() {
        let Some((device, counts)) = line.split_once(' ') else { continue };
        let entry = device_entry(stats, device);
        for (key, count) in counts.split(' ').filter_map(|pair| pair.split_once('=')) {
            let Ok(count) = count.parse() else { continue };
            match key {
                "rbytes" => entry.read_bytes = count,
                "wbytes" => entry.written_bytes = count,
                "rios" => entry.reads = count,
                "wios" => entry.writes = count,
                _ => {}
            }
        }
    }
}

fn device_entry<'a>(stats: &'a mut Stats, device: &str) -> &'a mut DeviceIo {
    stats.io.entry(device.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use super::{Stats, io_weight, v1_counts, v2_counts};

    #[test]
    fn the_ends_of_one_range_are_the_ends_of_the_other() {
        assert_eq!([10, 500, 1000, 1, u16::MAX].map(io_weight), [1, 4950, 10_000, 1, 10_000]);
    }

    #[test]
    fn both_versions_tell_the_same_counts() {
        let (mut v1, mut v2) = (Stats::default(), Stats::default());
        v1_counts("8:0 Read 4096\n8:0 Write 512\nTotal 4608\n", "8:0 Read 2\n8:0 Write 1\nTotal 3\n", &mut v1);
        v2_counts("8:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=0\n7:0 \n", &mut v2);
        assert_eq!(v1.io["8:0"], v2.io["8:0"]);
        assert_eq!(v1.io["8:0"].written_bytes, 512);
    }
}
