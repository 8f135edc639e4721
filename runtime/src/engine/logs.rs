//! What a container has printed, as its keeper wrote it down: a line of JSON for each line, with stream and time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;

use super::Engine;
use super::error::{EngineError, io_error};
use super::log_file::{open_newer, open_oldest};
use super::record::{State, log_path};
use super::wishes::{Log, WishError, parse_duration, refused};
use crate::container::{rfc3339, since_epoch};

/// How soon a new line is seen by who follows.
const STEP: Duration = Duration::from_millis(30);

/// Which lines are wanted, and how.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Whether to wait for more, until the container has ended.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<usize>,
    /// Only what was printed then or later (RFC 3339, UTC, nine digits of a second).
    pub since: Option<String>,
    /// Only what was printed then or before.
    pub until: Option<String>,
    /// Whether each line begins with its time.
    pub times: bool,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
}

impl Engine {
    /// Writes what a container has printed to two places: its output and its errors.
    pub fn logs(
        &self,
        text: &str,
        reading: &Reading,
        output: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> Result<(), EngineError> {
        let record = self.find(text)?;
        if record.wishes.log == Log::None {
            return Err(EngineError::NoLog { name: record.name });
        }
        let path = log_path(&self.folder(&record));
        let mut file = match open_oldest(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && record.life.started.is_some() => {
                return Err(EngineError::NoLog { name: record.name });
            }
            // It was never started.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => BufReader::new(other.map_err(io_error("open", &path))?),
        };
        // The file that continues it, which is read once all of this one is.
        let mut newer: Option<File> = None;
        let mut half = Vec::new();
        let mut last: VecDeque<Line> = VecDeque::new();
        let (mut first_pass, mut done) = (true, false);
        loop {
            let ended = !reading.follow || !self.goes_on(&record.id)?;
            while file.read_until(b'\n', &mut half).map_err(io_error("read", &path))? > 0 {
                // A line that its writer has not finished is read on later.
                if half.last() != Some(&b'\n') {
                    break;
                }
                let line = serde_json::from_slice::<Line>(&half).ok();
                half.clear();
                let Some(line) = line.filter(|line| reading.since.as_ref().is_none_or(|since| line.time >= *since))
                else {
                    continue;
                };
                if reading.until.as_ref().is_some_and(|until| line.time > *until) {
                    done = true;
                    break;
                }
                match reading.tail.filter(|_| first_pass) {
                    None => show(&line, reading, output, errors)?,
                    Some(most) => {
                        last.push_back(line);
                        if last.len() > most {
                            last.pop_front();
                        }
                    }
                }
            }
            if let Some(next) = newer.take() {
                file = BufReader::new(next);
                half.clear();
                continue;
            }
            if !done {
                newer = open_newer(&path, file.get_ref()).map_err(io_error("open", &path))?;
            }
            if newer.is_some() {
                // Its last lines may have come after the look, and before the next file was begun.
                continue;
            }
            if first_pass {
                last.drain(..).try_for_each(|line| show(&line, reading, output, errors))?;
                first_pass = false;
            }
            let late = reading.until.as_ref().is_some_and(|until| rfc3339(since_epoch()) > *until);
            if ended || done || late {
                return Ok(());
            }
            sleep(STEP);
        }
    }

    /// Whether more may be printed.
    fn goes_on(&self, id: &str) -> Result<bool, EngineError> {
        let Some(record) = self.shelf.read(id)? else { return Ok(false) };
        match self.state(&record)? {
            State::Running | State::Paused | State::Restarting => Ok(true),
            // Its keeper may be about to write the last lines.
            _ => Ok(record.life.running.is_some_and(|it| it.keeper.is_some_and(|keeper| keeper.is_alive()))),
        }
    }
}

fn show(line: &Line, reading: &Reading, output: &mut dyn Write, errors: &mut dyn Write) -> Result<(), EngineError> {
    let to: &mut dyn Write = if line.stream == "stderr" { &mut *errors } else { &mut *output };
    let time = if reading.times { format!("{} ", line.time) } else { String::new() };
    let written = to.write_all(format!("{time}{}", line.log).as_bytes()).and_then(|()| to.flush());
    written.map_err(io_error("write to", "standard output"))
}

/// Reads a moment: a time in UTC (`2026-11-25`, `2026-11-25T10:00:00Z`), seconds since 1970, or so long ago (`10m`). As it
/// stands in the log.
pub fn parse_moment(text: &str) -> Result<String, WishError> {
    const EXPECTED: &str = "a time in UTC such as 2026-11-25T10:00:00Z, seconds since 1970, or a span such as 10m";
    if let Ok(ago) = parse_duration(text) {
        return Ok(rfc3339(since_epoch().saturating_sub(Duration::from_nanos(ago))));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return match Duration::try_from_secs_f64(seconds) {
            Ok(since) => Ok(rfc3339(since)),
            Err(_) => refused(text, EXPECTED),
        };
    }
    let bare = text.strip_suffix('Z').unwrap_or(text);
    let pattern = "0000-00-00T00:00:00.000000000";
    let shaped = bare.len() <= pattern.len()
        && bare.len() >= "0000-00-00".len()
        && bare.bytes().zip(pattern.bytes()).all(|(given, wanted)| match wanted {
            b'0' => given.is_ascii_digit(),
            other => given == other,
        });
    if !shaped {
        return refused(text, EXPECTED);
    }
    Ok(format!("{bare}{}Z", pattern.get(bare.len()..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::parse_moment;

    #[test]
    fn a_moment_is_told_in_several_ways() {
        assert_eq!(parse_moment("2026-11-25").as_deref(), Ok("2026-11-25T00:00:00.000000000Z"));
        assert_eq!(parse_moment("2026-11-25T10:11:12.5Z").as_deref(), Ok("2026-11-25T10:11:12.500000000Z"));
        assert_eq!(parse_moment("0.5").as_deref(), Ok("1970-01-01T00:00:00.500000000Z"));
        assert!(parse_moment("10m").is_ok_and(|text| text.starts_with("20")));
        assert!(
            ["", "x", "2026", "26-11-25", "2026-11-25T10:00:00+01:00"]
                .iter()
                .all(|it| { parse_moment(it).is_err() || *it == "2026" })
        );
    }
}
