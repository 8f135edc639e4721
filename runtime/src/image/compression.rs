//! How archives are packed: not at all, by gzip or by zstd. The first bytes tell which; media types say it too, and are
//! wrong often enough that nobody relies on them.

use std::io::{self, BufReader, Read, Seek};

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::MediaType;

/// Large reads: there is a system call, or a lock, behind each.
const BUFFER: usize = 256 << 10;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
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
    pub(super) fn media_type(self) -> MediaType {
        match self {
            Self::Plain => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
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
    Ok(match Packing::told_by(&start) {
        Packing::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(packed))),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        Packing::Plain => Box::new(packed),
    })
}
