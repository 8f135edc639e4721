//! Writing a running container to disk (runc's command line; criu(8)).
//!
//! Everything that its processes are goes into files: memory, registers, descriptors, namespaces. With them it is brought
//! back later, or elsewhere: see [`super::restore`].

use oci_spec::runtime::{ContainerState, LinuxNamespaceType, Spec};
use tracing::info_span;

use super::bundle::{OVERLAY_LOWER, OVERLAY_UPPER, read_kept};
use super::criu::{CheckpointError, Criu, CriuOptions, NETWORK, Outside, mount_key};
use super::error::ContainerError;
use super::exec::ExecError;
use super::id::ContainerId;
use super::lifecycle::{Runtime, end, open_cgroup, status};

/// How a container is written to disk.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// What both ways have in common.
    pub options: CriuOptions,
    /// Whether it goes on after that; otherwise it ends and is removed.
    pub leave_running: bool,
    /// Whether connections that are just being made are left out.
    pub skip_in_flight: bool,
    /// Whether files that have no name any more get one for as long as it takes.
    pub link_remap: bool,
}

impl Runtime {
    /// Writes a running container to disk; it ends by that, and is removed, unless it shall go on.
    pub fn checkpoint(&self, id: &ContainerId, asked: &Checkpoint) -> Result<(), ContainerError> {
        let (folder, record) = self.find(id)?;
        let state = status(&folder, &record);
        let init = match record.init {
            Some(init) if state == ContainerState::Running => init, //         1. there is something to write
            _ => return Err(ContainerError::Status { attempt: "checkpoint", id: id.clone(), status: state }),
        };
        let config = folder.read_config()?.ok_or_else(|| ExecError::NoConfiguration(id.clone()))?;
        let spec = read_kept(&record.bundle, &config)?;
        fit("checkpoint", id, &spec)?; //                                      2. and nothing that could not be
        let (outside, network) = Outside::of(init.pid)?; //                    3. what of it is the host's
        let mut criu = Criu::new("dump", &asked.options)?;
        criu.command.arg("--tree").arg(init.pid.to_string());
        criu.switch(asked.leave_running, "--leave-running");
        criu.switch(asked.skip_in_flight, "--skip-in-flight");
        criu.switch(asked.link_remap, "--link-remap");
        for (point, _) in &outside.mounts {
            criu.pair("--external", mount_key(point), point);
        }
        for stream in outside.streams.iter().filter(|stream| stream.file.is_some()) {
            criu.command.arg("--external").arg(&stream.name);
        }
        if let Some(number) = network {
            criu.pair("--external", format!("net[{number}]"), NETWORK);
        }
        {
            let _span = info_span!(
                "checkpoint.dump",
                call = "criu dump",
                why =
                    "CRIU stops each process, has it tell all it knows of itself, and writes that down with its memory"
            )
            .entered();
            ContainerError::fault("checkpoint.dump")?;
            criu.run()?; //                                                    4. all processes, into files
        }
        outside.write(&asked.options.images)?;
        if asked.leave_running {
            return Ok(());
        }
        let cgroup = open_cgroup(&record)?;
        end(&record, cgroup.as_ref())?;
        self.remove(folder, cgroup, &record) //                                5. it is there now, and no more here
    }
}

/// Refuses what CRIU would lose without a word, or cannot do without more help than it gets here.
pub(super) fn fit(attempt: &'static str, id: &ContainerId, spec: &Spec) -> Result<(), CheckpointError> {
    let namespaces = || spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
    let joins = namespaces().any(|one| one.path().is_some() && one.typ() != LinuxNamespaceType::Network);
    let users = namespaces().any(|one| one.typ() == LinuxNamespaceType::User);
    let mounts = namespaces().any(|one| one.typ() == LinuxNamespaceType::Mount);
    let noted = |key: &str| spec.annotations().as_ref().is_some_and(|all| all.contains_key(key));
    let reason = if spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal) == Some(true) {
        "it has a terminal, whose other end is somebody else's"
    } else if joins {
        "it is in namespaces of others"
    } else if users {
        "it has a user namespace"
    } else if !mounts {
        "it has no mount namespace"
    } else if noted(OVERLAY_LOWER) && !noted(OVERLAY_UPPER) {
        "its changes are in memory, in an overlay that is not its own to take along"
    } else {
        return Ok(());
    };
    Err(CheckpointError::Unfit { attempt, id: id.clone(), reason })
}

#[cfg(test)]
mod tests {
    use super::fit;
    use oci_spec::runtime::Spec;

    #[test]
    fn what_cannot_be_taken_along_is_refused_by_name() {
        let refusal = |text: &str| {
            let spec: Spec = serde_json::from_str(text).expect("the type takes it");
            fit("checkpoint", &"x".parse().expect("an id"), &spec).err().map(|error| error.to_string())
        };
        let said =
            |text: &str, words: &str| assert!(refusal(text).is_some_and(|error| error.contains(words)), "{words}");
        said(r#"{"ociVersion":"1.0.2","process":{"terminal":true,"user":{},"cwd":"/"}}"#, "a terminal");
        said(r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"pid","path":"/x"}]}}"#, "of others");
        said(r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"user"}]}}"#, "user namespace");
        said(r#"{"ociVersion":"1.0.2","linux":{"namespaces":[]}}"#, "no mount namespace");
        said(
            r#"{"ociVersion":"1.0.2","annotations":{"org.isolab.overlay.lower":"/a"},"linux":{"namespaces":[{"type":"mount"}]}}"#,
            "in memory",
        );
        assert_eq!(
            refusal(
                r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"mount"},{"type":"network","path":"/x"}]}}"#
            ),
            None
        );
    }
}
