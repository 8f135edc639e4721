//! Where networks and volumes join in: the moments of a container's life at which something is done for them.

use std::path::PathBuf;

use serde_json::Value;

use super::error::EngineError;
use super::networking::{Ready, end_service};
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
    /// `ready` is a network that was taken for it before.
    pub(super) fn attach(
        &self,
        locked: &mut Locked,
        pid: i32,
        ready: Option<Ready<'_>>,
    ) -> Result<Option<Value>, EngineError> {
        if let Some(ready) = ready {
            return self.told_of(&locked.record, pid, &ready.keep()).map(Some);
        }
        match locked.record.wishes.network {
            // The runtime brings the loopback interface up; the others' network is there already.
            Network::None | Network::Host | Network::Container => Ok(None),
            Network::Bridge => self.attach_to_networks(locked, pid).map(Some),
        }
    }

    /// Takes back what [`Engine::attach`] gave. The container's processes are gone, its namespace with them; after a reboot
    /// everything is. Called once for each attachment, or again where a command was killed meanwhile.
    pub(super) fn detach(&self, record: &Record, attached: &Value) {
        match record.wishes.network {
            // Nothing was given.
            Network::None | Network::Host | Network::Container => {}
            Network::Bridge => {
                end_service(attached);
                self.leave_networks(record);
            }
        }
    }
}
