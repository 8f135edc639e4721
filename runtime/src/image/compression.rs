//! How archives are packed: not at all, by gzip or by zstd. The first bytes tell which; media types say it too, and are
//! wrong often enough that nobody relies on them.

use std::io::{self, BufReader, Read, Seek, Write};
use std::thread;

use bzip2::bufread::MultiBzDecoder;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use lzma_rust2::XzReader;
use oci_spec::image::MediaType;

/// Large reads: there is a system call, or a lock, behind each.
const BUFFER: usize = 256 << 10;
/// What is packed in one go, in bytes: large enough to lose next to nothing by beginning anew so often.
const PIECE: u64 = 1 << 20;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// As every registry and engine knows it (RFC 1952).
    Gzip,
    /// Smaller and faster; engines know it since about 2020 (RFC 8878).
    Zstd,
}

impl Packing {
    /// Looks at the beginning of a file, and goes back there.
    pub(super) fn of(file: &mut (impl Read + Seek)) -> io::Result<Self> {
        let mut start = Vec::new();
        file.by_ref().take(4).read_to_end(&mut start)?;
        file.rewind()?;
        Ok(Self::told_by(&start))
    }

    fn told_by(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// What a manifest calls a layer that is packed so.
    pub(crate) fn media_type(self) -> MediaType {
        match self {
            Self::Plain => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

/// Packs what is read. Equal bytes are packed into equal bytes, however many processors do it.
pub(super) fn compress(plain: impl Read, packing: Packing, packed: &mut impl Write) -> io::Result<()> {
    match packing {
        Packing::Plain => io::copy(&mut { plain }, packed).map(drop),
        Packing::Gzip => gzip(plain, packed),
        Packing::Zstd => zstd::stream::copy_encode(plain, packed, zstd::DEFAULT_COMPRESSION_LEVEL),
    }
}

/// Packs pieces side by side. Each is a member of its own: a gzip file may have any number of them (RFC 1952, 2.2).
fn gzip(mut plain: impl Read, packed: &mut impl Write) -> io::Result<()> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut first = true;
    loop {
        let mut pieces = Vec::new();
        while pieces.len() < processors {
            let mut piece = Vec::new();
            plain.by_ref().take(PIECE).read_to_end(&mut piece)?;
            // An archive of nothing has one member all the same.
            if piece.is_empty() && !(first && pieces.is_empty()) {
                break;
            }
            pieces.push(piece);
        }
        if pieces.is_empty() {
            return Ok(());
        }
        first = false;
        let members = thread::scope(|scope| {
            let working: Vec<_> = pieces.iter().map(|piece| scope.spawn(|| member(piece))).collect();
            let joined =
                working.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect::<io::Result<Vec<_>>>()
        })?;
        members.iter().try_for_each(|member| packed.write_all(member))?;
    }
}

/// One member, without a time in its header: the same bytes whenever it is made.
fn member(piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(piece.len() / 2), Compression::default());
    encoder.write_all(piece)?;
    encoder.finish()
}

/// The archive in what may be packed.
pub(crate) fn decompress<'a>(packed: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut packed = BufReader::with_capacity(BUFFER, packed);
    // A reader may give a few bytes first and the rest later, and then the beginning is not seen whole: join it.
    let mut start = [0; 4];
    let mut length = 0;
    while let Some(free) = start.get_mut(length..).filter(|free| !free.is_empty()) {
        match packed.read(free)? {
            0 => break,
            read => length += read,
        }
    }
    let start = start.get(..length).unwrap_or_default().to_vec();
    let packed = io::Cursor::new(start.clone()).chain(packed);
    // No layer of a registry is packed by these two; files that people import and add are.
    match start.as_slice() {
        [0xfd, b'7', b'z', b'X'] => return Ok(Box::new(XzReader::new(packed, true))),
        [b'B', b'Z', b'h', b'1'..=b'9'] => return Ok(Box::new(MultiBzDecoder::new(packed))),
        _ => {}
    }
    Ok(match Packing::told_by(&start) {
        Packing::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(packed))),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        Packing::Plain => Box::new(packed),
    })
}

#[cfg(test)]
mod tests {
    use super::{Packing, compress, decompress};
    use std::io::Read;

    #[test]
    fn archives_of_xz_and_bzip2_are_known() {
        // `printf hello | xz` and `printf hello | bzip2`, each twice: both may have several members.
        let xz = [
            0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46, 2, 0, 0x21, 1, 0x16, 0, 0, 0, 0x74, 0x2f,
            0xe5, 0xa3, 1, 0, 4, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0, 0, 0, 0, 0xb1, 0x37, 0xb9, 0xdb, 0xe5, 0xda, 0x1e,
            0x9b, 0, 1, 0x1d, 5, 0xb8, 0x2d, 0x80, 0xaf, 0x1f, 0xb6, 0xf3, 0x7d, 1, 0, 0, 0, 0, 4, 0x59, 0x5a,
        ];
        let bzip2 = [
            0x42, 0x5a, 0x68, 0x39, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 0x19, 0x31, 0x65, 0x3d, 0, 0, 0, 0x81, 0, 2,
            0x44, 0xa0, 0, 0x21, 0x9a, 0x68, 0x33, 0x4d, 7, 0x33, 0x8b, 0xb9, 0x22, 0x9c, 0x28, 0x48, 0xc, 0x98, 0xb2,
            0x9e, 0x80,
        ];
        for packed in [&xz[..], &bzip2[..]] {
            let mut unpacked = String::new();
            decompress(&*[packed, packed].concat()).unwrap().read_to_string(&mut unpacked).unwrap();
            assert_eq!(unpacked, "hellohello");
        }
    }

    #[test]
    fn what_was_packed_comes_out_as_it_went_in() {
        // A little more than three pieces, and not the same all over.
        let plain: Vec<u8> = (0..3_500_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            for length in [plain.len(), 1 << 20, 1, 0] {
                let plain = &plain[..length];
                let mut packed = Vec::new();
                compress(plain, packing, &mut packed).unwrap();
                let mut again = Vec::new();
                compress(plain, packing, &mut again).unwrap();
                assert_eq!(packed, again, "{packing:?} of {length} bytes");
                assert_eq!(Packing::told_by(packed.get(..4).unwrap_or_default()), packing, "{length} bytes");
                let mut unpacked = Vec::new();
                decompress(&packed[..]).unwrap().read_to_end(&mut unpacked).unwrap();
                assert!(unpacked == plain, "{packing:?} of {length} bytes");
            }
        }
    }
}
