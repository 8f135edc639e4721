//! The control socket: asking a machine that runs.
//!
//! One request a line, in JSON, and one reply a line, over a Unix socket that belongs to the machine's owner:
//!
//! ```text
//! {"do":"status"}                      {"ok":{"state":"running","pid":4211,"memory":134217728}}
//! {"do":"pause"}                       {"ok":{"state":"paused",...}}
//! {"do":"resume"}                      {"ok":{"state":"running",...}}
//! {"do":"snapshot","to":"/a/folder"}   {"ok":{"id":"5d0c...","bytes":217088}}
//! {"do":"snapshot","to":"/b","diff":true}
//!                                      {"ok":{"id":"77aa...","bytes":8192}}
//! {"do":"button"}                     {"ok":{"state":"running",...}}
//! {"do":"stop"}                        {"ok":{"state":"stopped",...}}
//! {"do":"dance"}                       {"error":"..."}
//! ```
//!
//! [`server`] listens beside the machine and rings; the machine's own thread answers ([`attendant`]) while the guest
//! stands still. [`client`] asks.

pub mod attendant;
pub mod client;
pub mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use attendant::Attendant;
pub use client::{ClientError, ask};
pub use server::{Ring, Socket};

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How it is.
    Status,
    /// Let it stand still.
    Pause,
    /// Let it run on.
    Resume,
    /// Save it to a folder that is not there yet. It goes on as it was: running, or paused.
    Snapshot {
        /// The folder.
        to: PathBuf,
        /// Whether only what has changed since the last so saved, or since the one that it goes on from.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        diff: bool,
    },
    /// Press its power button: the guest is to end by itself.
    Button,
    /// End it.
    Stop,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// It was done.
    Ok(Answer),
    /// It was not, and why.
    Error(String),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// How the machine is now.
    Status(Status),
    /// The snapshot that was taken.
    Snapshot {
        /// The name that no other has.
        id: String,
        /// How many bytes of memory were written.
        bytes: u64,
    },
}

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What it does.
    pub state: Doing,
    /// Its process.
    pub pid: u32,
    /// How many bytes of memory it has.
    pub memory: u64,
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    /// It runs.
    Running,
    /// It stands still.
    Paused,
    /// It ends.
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_read_as_documented() {
        let request = |text| serde_json::from_str::<Request>(text);
        assert_eq!(request(r#"{"do":"pause"}"#).unwrap(), Request::Pause);
        let to = PathBuf::from("/a/folder");
        assert_eq!(request(r#"{"do":"snapshot","to":"/a/folder"}"#).unwrap(), Request::Snapshot { to, diff: false });
        for wrong in [r#"{"do":"dance"}"#, r#"{"do":"snapshot"}"#, "[]", "", "{"] {
            assert!(request(wrong).is_err(), "{wrong}");
        }
        let status = Status { state: Doing::Paused, pid: 7, memory: 9 };
        let reply = Reply::Ok(Answer::Status(status));
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(text, r#"{"ok":{"state":"paused","pid":7,"memory":9}}"#);
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
    }
}
