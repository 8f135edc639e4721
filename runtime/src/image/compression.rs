//! How archives are packed: not at all, by gzip or by zstd. The first bytes tell which; media types say it too, and are
//! wrong often enough that nobody relies on them.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// Large reads: there is a system call, or a lock, behind each.
const BUFFER: usize = 256 << 10;

/// The archive in what may be packed.
pub(super) fn decompress<'a>(packed: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
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
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        _ => Box::new(packed),
    })
}
