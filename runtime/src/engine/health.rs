//! Health checks: a command that is run in the container again and again, whose status says whether it works
//! (`HEALTHCHECK` of an image, `--health-cmd`).

use std::io::Read;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::Engine;
use super::document::Healthcheck;
use super::error::{EngineError, io_error};
use super::record::{Health, Probe, Record, now};
use crate::container::rfc3339;

/// docker's defaults: the time between two checks, between two in the start period, and for one, in nanoseconds; how many failures in a row are one.
pub(super) const INTERVAL: u64 = 30_000_000_000;
pub(super) const START_INTERVAL: u64 = 5_000_000_000;
const TIMEOUT: u64 = 30_000_000_000;
const RETRIES: u64 = 3;
/// How many checks are remembered, and how much each may print.
const REMEMBERED: usize = 5;
const PRINTED: u64 = 4096;
const STEP: Duration = Duration::from_millis(10);

impl Engine {
    /// Runs a container's health check once, and notes what it said.
    pub fn probe(&self, text: &str) -> Result<(), EngineError> {
        let record = self.find(text)?;
        let Some(check) = record.healthcheck() else { return Ok(()) };
        let probe = self.run_check(&record, &check)?;
        let mut locked = self.lock(&record.id)?;
        // One that was started again meanwhile is not the one that was asked.
        if locked.record.life.started == record.life.started && locked.record.life.running.is_some() {
            note(&mut locked.record, &check, probe);
            locked.write()?;
        }
        Ok(())
    }

    fn run_check(&self, record: &Record, check: &Healthcheck) -> Result<Probe, EngineError> {
        let failed = io_error("run", "the health check");
        let start = now();
        let mut command = self.own_command();
        command.args(["exec", &record.id]);
        match check.test.split_first() {
            Some((kind, words)) if kind == "CMD" => command.args(words),
            Some((_, line)) => command.args(["/bin/sh", "-c"]).args(line.first()),
            None => return Err(failed(std::io::ErrorKind::InvalidInput.into())),
        };
        // In the container it dies with this child.
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(failed)?;
        let printed = child.stdout.take().map(|output| {
            thread::spawn(move || {
                let text = read_some(output).unwrap_or_default();
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        let limit = Duration::from_nanos(if check.timeout == 0 { TIMEOUT } else { check.timeout });
        let until = Instant::now() + limit;
        let code = loop {
            match child.try_wait().map_err(io_error("wait for", "the health check"))? {
                Some(status) => break status.code().unwrap_or(-1),
                None if Instant::now() >= until => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break -1;
                }
                None => thread::sleep(STEP),
            }
        };
        let output = printed.and_then(|thread| thread.join().ok()).unwrap_or_default();
        let output = if code == -1 { format!("Health check exceeded timeout ({limit:?}){output}") } else { output };
        let time = |since| rfc3339(Duration::from_nanos(since));
        Ok(Probe { start: time(start), end: time(now()), exit_code: code, output })
    }
}

/// Reads the beginning into memory, and the rest to nowhere: or who prints would wait for room.
fn read_some(mut from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.by_ref().take(PRINTED).read_to_end(&mut text)?;
    std::io::copy(&mut from, &mut std::io::sink())?;
    Ok(text)
}

/// Adds what a check said to what is known.
fn note(record: &mut Record, check: &Healthcheck, probe: Probe) {
    let age = now().saturating_sub(record.life.started.unwrap_or(0));
    let health = record.life.health.get_or_insert_with(starting);
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        "healthy".clone_into(&mut health.status);
    } else if health.status != "starting" || age >= check.start_period {
        health.failing_streak += 1;
        if health.failing_streak >= if check.retries == 0 { RETRIES } else { check.retries } {
            "unhealthy".clone_into(&mut health.status);
        }
    }
    health.log.push(probe);
    let surplus = health.log.len().saturating_sub(REMEMBERED);
    health.log.drain(..surplus);
}

/// What is known before the first check.
pub(super) fn starting() -> Health {
    Health { status: "starting".to_owned(), ..Health::default() }
}
