//! Statements of the specification about a configuration that its types can't express, each checked before anything is
//! done (OCI runtime specification, config.md).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{Hook, Linux, LinuxDeviceType, LinuxNamespaceType, Process, Spec};

use super::bundle::{Refusal, refuse};
use super::mounts::propagation;

/// Checks all of them.
pub(super) fn check(spec: &Spec, process: &Process, linux: &Linux) -> Result<(), Refusal> {
    check_annotations(spec)?;
    check_rlimits(process)?;
    check_hooks(spec)?;
    check_mappings(spec)?;
    check_devices(linux)?;
    check_paths(linux)?;
    check_rdma(linux)?;
    check_propagation(linux)?;
    check_shared_with_host(spec, linux)
}

/// config.md, "Annotations": keys must not be empty.
fn check_annotations(spec: &Spec) -> Result<(), Refusal> {
    let nameless = spec.annotations().as_ref().is_some_and(|all| all.contains_key(""));
    if nameless { refuse("annotations", "one has an empty name") } else { Ok(()) }
}

/// config.md, "POSIX process": "If `rlimits` contains duplicated entries with same `type`, the runtime MUST generate an
/// error."
fn check_rlimits(process: &Process) -> Result<(), Refusal> {
    let limits = process.rlimits().as_deref().unwrap_or_default();
    for (index, limit) in limits.iter().enumerate() {
        if limits.iter().take(index).any(|earlier| earlier.typ() == limit.typ()) {
            return refuse("process.rlimits", format!("{} is listed twice", limit.typ()));
        }
    }
    Ok(())
}

/// config.md, "POSIX-platform Hooks": a path is absolute, a timeout is more than nothing.
fn check_hooks(spec: &Spec) -> Result<(), Refusal> {
    let Some(all) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated, reason = "other programs still write prestart hooks")]
    let moments: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", all.prestart()),
        ("createRuntime", all.create_runtime()),
        ("createContainer", all.create_container()),
        ("startContainer", all.start_container()),
        ("poststart", all.poststart()),
        ("poststop", all.poststop()),
    ];
    for (moment, hooks) in moments {
        for (index, hook) in hooks.iter().flatten().enumerate() {
            if !hook.path().is_absolute() {
                let problem = format!("{}, but it must be an absolute path", hook.path().display());
                return refuse(&format!("hooks.{moment}[{index}].path"), problem);
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return refuse(&format!("hooks.{moment}[{index}].timeout"), "must be greater than zero");
            }
        }
    }
    Ok(())
}

/// config.md, "Linux mount options": a mount has both maps or none.
fn check_mappings(spec: &Spec) -> Result<(), Refusal> {
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let has = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if has(mount.uid_mappings()) != has(mount.gid_mappings()) {
            return refuse(&format!("mounts[{index}]"), "uidMappings and gidMappings must be given together");
        }
    }
    Ok(())
}

/// config-linux.md, "Devices": what can be made with mknod(2), at an absolute path.
fn check_devices(linux: &Linux) -> Result<(), Refusal> {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        if device.typ() == LinuxDeviceType::A {
            return refuse(&format!("linux.devices[{index}].type"), "a stands for all devices, and one cannot be all");
        }
        if !device.path().is_absolute() {
            return refuse(&format!("linux.devices[{index}].path"), "must be an absolute path");
        }
    }
    Ok(())
}

/// config-linux.md, "Namespaces", "Masked Paths", "Readonly Paths": each of these paths is absolute.
fn check_paths(linux: &Linux) -> Result<(), Refusal> {
    for namespace in linux.namespaces().iter().flatten() {
        if let Some(path) = namespace.path().as_ref().filter(|path| !path.is_absolute()) {
            let problem = format!("{} of the {} namespace must be an absolute path", path.display(), namespace.typ());
            return refuse("linux.namespaces", problem);
        }
    }
    for (field, paths) in [("linux.maskedPaths", linux.masked_paths()), ("linux.readonlyPaths", linux.readonly_paths())]
    {
        if let Some(path) = paths.iter().flatten().find(|path| !path.starts_with('/')) {
            return refuse(field, format!("{path:?}, but it must be an absolute path"));
        }
    }
    Ok(())
}

/// config-linux.md, "RDMA": "You MUST specify at least one of the `hcaHandles` or `hcaObjects` in a given entry".
fn check_rdma(linux: &Linux) -> Result<(), Refusal> {
    let devices = linux.resources().as_ref().and_then(|resources| resources.rdma().as_ref());
    for (name, limits) in devices.into_iter().flatten() {
        if limits.hca_handles().is_none() && limits.hca_objects().is_none() {
            return refuse(&format!("linux.resources.rdma.{name}"), "has neither hcaHandles nor hcaObjects");
        }
    }
    Ok(())
}

/// config-linux.md, "Rootfs Mount Propagation": one of four, or its recursive form.
fn check_propagation(linux: &Linux) -> Result<(), Refusal> {
    match linux.rootfs_propagation().as_deref() {
        Some(word) if !word.is_empty() && propagation(word).is_none() => {
            refuse("linux.rootfsPropagation", format!("{word:?}, but only private, shared, slave and unbindable exist"))
        }
        _ => Ok(()),
    }
}

/// A namespace that is joined may be the host's own; what is set in there would be set on the host.
fn check_shared_with_host(spec: &Spec, linux: &Linux) -> Result<(), Refusal> {
    let names = spec.hostname().is_some() || spec.domainname().is_some();
    let parameters = || linux.sysctl().iter().flatten().map(|(name, _)| name.replace('/', "."));
    for namespace in linux.namespaces().iter().flatten() {
        let Some(path) = namespace.path() else { continue };
        if namespace.typ() == LinuxNamespaceType::Time && linux.time_offsets().is_some() {
            return refuse("linux.timeOffsets", "set, but the time namespace is a joined one, whose clocks are set");
        }
        let sets = match namespace.typ() {
            LinuxNamespaceType::Uts => names || parameters().any(|name| name.ends_with("name")),
            LinuxNamespaceType::Network => parameters().any(|name| name.starts_with("net.")),
            LinuxNamespaceType::Ipc => parameters().any(|name| !name.starts_with("net.") && !name.ends_with("name")),
            _ => false,
        };
        if sets && is_own(path, namespace.typ()) {
            let problem = format!(
                "the {} namespace {} is the host's, and it would change the host",
                namespace.typ(),
                path.display()
            );
            return refuse("linux.namespaces", problem);
        }
    }
    Ok(())
}

/// Whether the path is the namespace that the runtime itself is in.
fn is_own(path: &Path, kind: LinuxNamespaceType) -> bool {
    let file = match kind {
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Ipc => "ipc",
        _ => "uts",
    };
    let same = |found: fs::Metadata, own: fs::Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
    fs::metadata(path)
        .is_ok_and(|found| fs::metadata(format!("/proc/self/ns/{file}")).is_ok_and(|own| same(found, own)))
}
