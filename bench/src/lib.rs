//! Processes, containers and microVMs on one clock.
//!
//! | module | noun |
//! |---|---|
//! | [`subject`] | what can be started, one file a thing; the clock of one start |
//! | [`suite`] | what is measured: cells, and how they are told of afterwards |
//! | [`plan`], [`runner`] | which start comes when, and making them so |
//! | [`record`], [`output`] | `run.json`, and the folder that the report lies in |
//! | [`host`] | the host's record, its noise, and what killed runs left on it |

use std::error::Error;

pub mod clock;
pub mod host;
pub mod payload;
pub mod scratch;
pub mod subject;

/// An error with all that caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some errors tell their cause themselves.
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
