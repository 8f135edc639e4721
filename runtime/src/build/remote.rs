//! `ADD` of an address: the file that lies behind it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tracing::info_span;

use super::error::{BuildError, io_error};
use crate::image::{Digest, Hashing};
use crate::registry::client;

/// A file that was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    /// What it is called where it goes to a folder.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    /// Seconds since 1970, where the server says when it was changed.
    pub(super) modified: Option<i64>,
}

/// Whether a source is an address and not a path.
pub(super) fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Fetches a file to a folder, under a number of its own.
pub(super) fn fetch(address: &str, folder: &Path, number: usize) -> Result<Fetched, BuildError> {
    let _span = info_span!(
        "build.fetch",
        call = "connect(2), read(2), write(2)",
        why =
            "what lies elsewhere is fetched each time, since only its bytes tell whether the step has been done before"
    )
    .entered();
    let path = folder.join(format!("fetched-{number}"));
    let failed = |source| BuildError::Fetch { address: address.to_owned(), source };
    let (modified, mut body) = client::get_file(address).map_err(failed)?;
    let file = File::create(&path).map_err(io_error("make", &path))?;
    let mut out = Hashing::new(file);
    io::copy(&mut body, &mut out).map_err(io_error("fetch to", &path))?;
    let digest = out.finish().1;
    let bare = address.split(['?', '#']).next().unwrap_or_default();
    let name = bare.splitn(4, '/').nth(3).and_then(|path| path.rsplit('/').next()).unwrap_or_default().to_owned();
    let modified = modified.as_deref().and_then(seconds);
    Ok(Fetched { name, path, digest, modified })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7) as seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? as i64 + 1;
    let [day, year, hour, minute, second] = [day, year, hour, minute, second].map(|text| text.parse::<i64>().ok());
    // Days since 1970 of the proleptic Gregorian calendar, its years begun in March: leap days come last then.
    let shifted = year? - i64::from(month <= 2);
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day? - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour? * 3600 + minute? * 60 + second?)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_date_of_http_is_seconds() {
        // `date --date="Sun, 06 Nov 1994 08:49:37 GMT" +%s`
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:01 GMT"), Some(1));
        assert_eq!(seconds("yesterday"), None);
    }
}
