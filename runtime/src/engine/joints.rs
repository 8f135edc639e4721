//! Where networks and volumes join in: the moments of a container's life at which something is done for them.

use std::path::PathBuf;

use serde_json::Value;

use super::error::EngineError;
use super::record::Record;
use super::wishes::{Mount, Network};
use super::{Engine, Locked};

impl Engine {
    /// What the container sees of the host's files. Asked when it is made, which is the time for a new volume to be filled
    /// (`layers` are the image's folders, the uppermost first), and again at each start.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "volumes are kept below the engine's root")]
    pub(super) fn mounts_of(&self, record: &Record, _layers: &[PathBuf]) -> Result<Vec<Mount>, EngineError> {
        Ok(record.wishes.mounts.clone())
    }

    /// Gives the container its network. Its first process exists, in its namespaces (`/proc/PID/ns/net`), and waits; nothing
    /// of the image has run. What is answered is kept in the record (`life.running.network`) until [`Engine::detach`].
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the other networks can fail")]
    pub(super) fn attach(&self, locked: &Locked, _pid: i32) -> Result<Option<Value>, EngineError> {
        match locked.record.wishes.network {
            // The runtime brings the loopback interface up; the host's network is there already.
            Network::None | Network::Host => Ok(None),
        }
    }

    /// Takes back what [`Engine::attach`] gave. The container's processes are gone, its namespace with them; after a reboot
    /// everything is. Called once for each attachment, or again where a command was killed meanwhile.
    #[expect(clippy::unused_self, reason = "the other networks keep something below the engine's roots")]
    pub(super) fn detach(&self, record: &Record, _attached: &Value) {
        match record.wishes.network {
            // Nothing was given.
            Network::None | Network::Host => {}
        }
    }
}
