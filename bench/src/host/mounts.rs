//! The mount table, as this process sees it: proc(5), `/proc/PID/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::read;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The folder of the file system that is mounted: `/` but for bind mounts and cgroup namespaces.
    pub(crate) root: PathBuf,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Type of file system.
    pub(crate) kind: String,
    /// Options of the file system itself, comma-separated; for cgroup v1 the controllers are among them.
    pub(crate) options: Vec<String>,
}

/// The mounts of this process, in the order in which they were made; none where `/proc` is not mounted.
pub(crate) fn table() -> Vec<Mount> {
    read::text("/proc/self/mountinfo").map(|text| parse(&text)).unwrap_or_default()
}

/// Takes a mount table apart; a line that is none is passed over.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// The mount that `path` lies on: of those above it the nearest, and of those at one place the last made.
pub(crate) fn holding<'a>(table: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    table.iter().filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount> {
    let (place, device) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let mut device = device.split(' ');
    Some(Mount {
        root: unescape(place.next()?),
        point: unescape(place.next()?),
        kind: device.next()?.to_owned(),
        options: device.nth(1)?.split(',').map(str::to_owned).collect(),
    })
}

/// The kernel writes blank, tab, newline and backslash as `\040`, `\011`, `\012` and `\134`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = after.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        40 27 0:50 /sub /run/a\\040b\\134c rw master:2 propagate_from:1 - tmpfs none rw,size=4k\n\
        a line that is none";

    #[test]
    fn a_mount_table_is_taken_apart() {
        let table = parse(TABLE);
        assert_eq!(table.len(), 4);
        assert_eq!(table[2].kind, "cgroup");
        assert_eq!(table[2].options, ["rw", "cpu", "cpuacct"]);
        assert_eq!(table[3].root, Path::new("/sub"));
        assert_eq!(table[3].point, Path::new("/run/a b\\c"));
    }

    #[test]
    fn a_path_lies_on_the_nearest_mount_above_it() {
        let table = parse(TABLE);
        assert_eq!(holding(&table, Path::new("/sys/fs/cgroup/cpu/x")).unwrap().kind, "cgroup");
        assert_eq!(holding(&table, Path::new("/processes")).unwrap().kind, "ext4");
        assert_eq!(holding(&[], Path::new("/")), None);
    }

    #[test]
    fn a_later_mount_hides_an_earlier_one_at_the_same_place() {
        let table = parse("1 0 0:1 / /a rw - tmpfs t rw\n2 1 0:2 / /a rw - proc p rw");
        assert_eq!(holding(&table, Path::new("/a/b")).unwrap().kind, "proc");
    }

    #[test]
    fn a_backslash_that_escapes_nothing_stands_for_itself() {
        assert_eq!(unescape("a\\"), Path::new("a\\"));
        assert_eq!(unescape("a\\9zz"), Path::new("a\\9zz"));
    }
}
