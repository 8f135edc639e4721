//! What is mounted where, as /proc/PID/mountinfo tells it (proc(5)).

use std::path::PathBuf;

/// A mount.
pub(super) struct Mount {
    pub(super) device: String,
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) kind: String,
}

/// The mounts of a file `mountinfo`, in the order of their making.
pub(super) fn mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        let kind = line.split_once(" - ")?.1.split(' ').next()?;
        let path = |text: &str| PathBuf::from(plain(text));
        Some(Mount { device: device.to_owned(), root: path(root), point: path(point), kind: kind.to_owned() })
    };
    text.lines().filter_map(mount).collect()
}

/// Without the octal numbers that stand for blanks and the like.
pub(super) fn plain(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (number, letter)| text.replace(number, letter))
}
