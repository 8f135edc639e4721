//! What trials say of what they got.

use std::time::{Duration, Instant};

use libtest_mimic::Failed;

/// Bytes that are text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks until it is so, with a pause between two looks, for as long as there is patience.
pub(crate) fn wait_within(
    patience: Duration,
    pause: Duration,
    what: &str,
    mut so: impl FnMut() -> bool,
) -> Result<(), Failed> {
    let begin = Instant::now();
    while !so() {
        if begin.elapsed() > patience {
            return Err(format!("waited {} s for {what}", patience.as_secs()).into());
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Fails with both where they differ.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<(), Failed> {
    match [got, expected] {
        [got, expected] if got != expected => Err(format!("got {got:?}, expected {expected:?}").into()),
        _ => Ok(()),
    }
}

/// Fails with the text where it lacks a part.
pub(crate) fn has(text: &str, part: &str) -> Result<(), Failed> {
    if text.contains(part) { Ok(()) } else { Err(format!("{part:?} is not in {text:?}").into()) }
}
