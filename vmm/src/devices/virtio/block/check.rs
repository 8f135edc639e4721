//! A look through an image's tables before a guest may write to it.
//!
//! An image keeps count of which of its clusters are in use. A writer that believes wrong counts puts data over tables, or
//! looks for a free cluster for ever. So each cluster that the tables name has to be in the file, to be counted, and to be
//! either a table or data. What is counted and not named (a leak, as a crash leaves it) does no harm. The layout is that of
//! `docs/interop/qcow2.txt` in QEMU's sources.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The offset in an entry of the first-level or second-level table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// A second-level entry whose cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// Incompatible features: data in another file; entries of 128 bits.
const EXTERNAL: u64 = 1 << 2;
const EXTENDED: u64 = 1 << 4;
/// The most that QEMU allows for the tables, in bytes.
const LARGEST_L1: u64 = 32 << 20;
const LARGEST_REFTABLE: u64 = 8 << 20;

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: qemu-img check -r all may repair it"))
}

/// One bit a cluster.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: u64) -> Self {
        Self(vec![0; count.div_ceil(64) as usize])
    }

    fn has(&self, index: u64) -> bool {
        self.0.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 != 0)
    }

    fn set(&mut self, index: u64) {
        if let Some(word) = self.0.get_mut((index / 64) as usize) {
            *word |= 1 << (index % 64);
        }
    }
}

struct Check<'f> {
    file: &'f File,
    bits: u32,
    clusters: u64,
    counted: Bits,
    tables: Bits,
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(number(bytes, at)) << 32 | u64::from(number(bytes, at + 4))
}

/// Looks through the tables of an image.
pub(super) fn check(file: &File) -> io::Result<()> {
    let mut header = [0; 104];
    let length = file.metadata()?.len();
    file.read_exact_at(header.get_mut(..72).unwrap_or_default(), 0)?;
    let version = number(&header, 4);
    if version >= 3 {
        file.read_exact_at(&mut header, 0)?;
    }
    let bits = number(&header, 20);
    let order = if version >= 3 { number(&header, 96) } else { 4 };
    if !header.starts_with(b"QFI\xfb") || !(9..=21).contains(&bits) || order > 6 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its header is not one of a qcow2 image"));
    }
    let features = if version >= 3 { long(&header, 72) } else { 0 };
    if features & EXTERNAL != 0 {
        return Ok(()); // refused when that file is to be opened
    }
    let clusters = length.div_ceil(1 << bits);
    let mut check = Check { file, bits, clusters, counted: Bits::new(clusters), tables: Bits::new(clusters) };
    let l1 = (long(&header, 40), u64::from(number(&header, 36)) * 8);
    let reftable = (long(&header, 48), u64::from(number(&header, 56)) << bits);
    if l1.1 > LARGEST_L1 || reftable.1 > LARGEST_REFTABLE || reftable.1 == 0 {
        return Err(broken("its tables have no possible size"));
    }
    check.table(0, 1)?;
    check.table(reftable.0, reftable.1)?;
    check.count(&check.read(reftable.0, reftable.1)?, order)?;
    check.table(l1.0, l1.1)?;
    check.is_counted(0, 1)?;
    check.is_counted(reftable.0, reftable.1)?;
    check.is_counted(l1.0, l1.1)?;
    check.entries(&check.read(l1.0, l1.1)?, features & EXTENDED != 0)
}

impl Check<'_> {
    fn read(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// The clusters of a range; all of them are in the file.
    fn range(&self, at: u64, length: u64) -> io::Result<std::ops::Range<u64>> {
        let end = at.checked_add(length).map(|end| end.div_ceil(1 << self.bits));
        match end {
            Some(end) if end <= self.clusters => Ok(at >> self.bits..end),
            _ => Err(broken("a table names what is not in the file")),
        }
    }

    /// Notes that a table is there. Nothing else may be.
    fn table(&mut self, at: u64, length: u64) -> io::Result<()> {
        if !at.is_multiple_of(1 << self.bits) {
            return Err(broken("a table is not where a cluster begins"));
        }
        for cluster in self.range(at, length)? {
            if self.tables.has(cluster) {
                return Err(broken("two tables are in the same place"));
            }
            self.tables.set(cluster);
        }
        Ok(())
    }

    fn is_counted(&self, at: u64, length: u64) -> io::Result<()> {
        for cluster in self.range(at, length)? {
            if !self.counted.has(cluster) {
                return Err(broken("a cluster that is in use is counted as free"));
            }
        }
        Ok(())
    }

    /// Reads all counts: `1 << order` bits each.
    fn count(&mut self, reftable: &[u8], order: u32) -> io::Result<()> {
        let size = 1 << self.bits;
        let per_block = (size * 8) >> order;
        let mut blocks = Vec::new();
        for (index, entry) in reftable.chunks_exact(8).enumerate() {
            let at = long(entry, 0) & !0x1ff;
            if at == 0 {
                continue;
            }
            self.table(at, size)?;
            blocks.push(at);
            let block = self.read_cluster(at)?;
            let first = index as u64 * per_block;
            for (place, cluster) in (first..(first + per_block).min(self.clusters)).enumerate() {
                let counted = if order < 3 {
                    let bit = place << order;
                    let mask = (1 << (1 << order)) - 1;
                    block.get(bit / 8).is_some_and(|byte| u32::from(*byte) >> (bit % 8) & mask != 0)
                } else {
                    let width = 1 << (order - 3);
                    let count = block.get(place * width..(place + 1) * width);
                    count.is_some_and(|count| count.iter().any(|byte| *byte != 0))
                };
                if counted {
                    self.counted.set(cluster);
                }
            }
        }
        blocks.iter().try_for_each(|at| self.is_counted(*at, size))
    }

    /// A cluster; what the file has not of its last one is zeroes.
    fn read_cluster(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 1 << self.bits];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(bytes)
    }

    /// Looks at every second-level table, and at every cluster that one names.
    fn entries(&mut self, l1: &[u8], extended: bool) -> io::Result<()> {
        let size = 1 << self.bits;
        let seconds: Vec<u64> = l1.chunks_exact(8).map(|entry| long(entry, 0) & OFFSET).filter(|at| *at != 0).collect();
        for at in &seconds {
            self.table(*at, size)?;
            self.is_counted(*at, size)?;
        }
        let step = if extended { 16 } else { 8 };
        for at in seconds {
            for entry in self.read_cluster(at)?.chunks_exact(step).map(|entry| long(entry, 0)) {
                let (at, length) = if entry & COMPRESSED != 0 {
                    // Bits 0 to x - 1 are where it begins, the others to 61 how many sectors more it has.
                    let x = 62 - (self.bits - 8);
                    let at = entry & ((1 << x) - 1);
                    let sectors = (entry & (COMPRESSED - 1)) >> x;
                    (at, (at & !511) + (sectors + 1) * 512 - at)
                } else {
                    (entry & OFFSET, size)
                };
                if at == 0 {
                    continue;
                }
                self.is_counted(at, length)?;
                if self.range(at, length)?.any(|cluster| self.tables.has(cluster)) {
                    return Err(broken("data is where a table is"));
                }
                if entry & COMPRESSED == 0 && !at.is_multiple_of(size) {
                    return Err(broken("data is not where a cluster begins"));
                }
            }
        }
        Ok(())
    }
}
