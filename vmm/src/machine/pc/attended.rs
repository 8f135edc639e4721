//! A PC that can be asked while it runs: it stands still for each question.

use std::os::fd::BorrowedFd;

use super::Pc;
use super::running::{Paused, Running, Waited};
use crate::api::Attendant;
use crate::machine::overseer::Verdict;
use crate::machine::{Ended, RunError};

impl Running {
    /// Waits as [`Running::wait`] does, and lets `attendant` answer whenever he is asked.
    pub fn wait_attended(self, input: Option<BorrowedFd<'_>>, attendant: &mut Attendant) -> Result<Ended, RunError> {
        let mut running = self;
        loop {
            running = match running.wait_until(input, &|| attendant.is_asked())? {
                Waited::Ended(ended) => return Ok(ended),
                Waited::Asked(running) => {
                    let farewell = running.farewell;
                    let mut pc = match running.pause()? {
                        Paused::Ended(ended) => return Ok(ended),
                        Paused::Still(pc) => pc,
                    };
                    match attendant.serve(&mut pc)? {
                        Verdict::End(ended) => return Ok(ended),
                        Verdict::GoOn => pc.resume()?.taking_leave(farewell),
                    }
                }
            };
        }
    }
}

impl Pc {
    /// What wakes the thread that waits for the machine: for whoever asks, from another thread.
    pub fn bell(&self) -> std::sync::Arc<vmm_sys_util::eventfd::EventFd> {
        self.notice.clone()
    }
}
