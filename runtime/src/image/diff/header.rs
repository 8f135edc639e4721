//! The blocks before each entry of an archive (pax(1), "ustar Interchange Format" and "pax Header Block").
//!
//! Plain headers where they suffice, and an extended one before them where something doesn't fit: a long name, a time
//! before 1970, an attribute. Every reader of layers knows both.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use tar::{EntryType, Header};

use crate::image::described::Described;

const BLOCK: u64 = 512;
/// The longest name in a plain header, in bytes.
const LONGEST: usize = 100;
/// The extended header's own name; nobody reads it.
const EXTENDED: &str = "PaxHeaders/0";

/// Writes all that stands before an entry's content.
pub(in crate::image) fn write(
    out: &mut impl Write,
    entry: &Described,
    path: &OsStr,
    kind: EntryType,
) -> io::Result<()> {
    let records = records(entry, path, kind);
    if !records.is_empty() {
        let mut header = plain(&Described { size: records.len() as u64, ..Described::default() }, EntryType::XHeader)?;
        name(&mut header, EXTENDED.as_bytes(), b"");
        out.write_all(header.as_bytes())?;
        out.write_all(&records)?;
        pad(out, records.len() as u64)?;
    }
    let mut header = plain(entry, kind)?;
    name(&mut header, path.as_bytes(), entry.link.as_deref().unwrap_or_default().as_bytes());
    out.write_all(header.as_bytes())
}

/// Fills the last block of so many bytes.
pub(in crate::image) fn pad(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    let zeros = [0; BLOCK as usize];
    let missing = (BLOCK - bytes % BLOCK) % BLOCK;
    out.write_all(zeros.get(..missing as usize).unwrap_or_default())
}

fn plain(entry: &Described, kind: EntryType) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    // One before 1970 stands in the extended header.
    header.set_mtime(u64::try_from(entry.modified).unwrap_or(0));
    header.set_size(entry.size);
    let (major, minor) = entry.device.unwrap_or_default();
    header.set_device_major(major)?;
    header.set_device_minor(minor)?;
    Ok(header)
}

/// The name and where the link leads, cut where they are too long, and the checksum over all.
fn name(header: &mut Header, path: &[u8], link: &[u8]) {
    let old = header.as_old_mut();
    old.name.iter_mut().zip(path).for_each(|(field, byte)| *field = *byte);
    old.linkname.iter_mut().zip(link).for_each(|(field, byte)| *field = *byte);
    header.set_cksum();
}

fn records(entry: &Described, path: &OsStr, kind: EntryType) -> Vec<u8> {
    let mut records = Vec::new();
    if path.len() > LONGEST {
        record(&mut records, b"path", path.as_bytes());
    }
    if let Some(link) = entry.link.as_ref().filter(|link| link.len() > LONGEST) {
        record(&mut records, b"linkpath", link.as_bytes());
    }
    if entry.modified < 0 {
        record(&mut records, b"mtime", entry.modified.to_string().as_bytes());
    }
    // Of a file with several names the first says it all.
    if kind != EntryType::Link {
        for (name, value) in &entry.xattrs {
            let key = [b"SCHILY.xattr.", name.as_bytes()].concat();
            record(&mut records, &key, value);
        }
    }
    records
}

/// `LENGTH KEY=VALUE` and an end of line. The length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}
