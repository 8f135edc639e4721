//! What a container may do, in the runtime's words: capabilities, system calls, devices, limits of each process.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::error::{EngineError, io_error};
use super::users;
use super::wishes::{Device, Rights, Seccomp, Sharing, WishError, Wishes, refused};
use crate::container::parse_signal;

/// What root may do in a container by default: docker's list. Enough to install packages and to drop what is left.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Refuses what could only fail at the container's start.
pub(super) fn check(wishes: &Wishes) -> Result<(), EngineError> {
    wishes.limits.check()?;
    users::check(wishes)?;
    if let Some(signal) = &wishes.stop_signal {
        parse_signal(signal)?;
    }
    if let Some(folder) = wishes.folder.as_ref().filter(|folder| !folder.starts_with('/')) {
        return refused(folder, "an absolute path, for the folder that the program begins in")
            .map_err(EngineError::from);
    }
    let rights = &wishes.rights;
    for name in rights.add.iter().chain(&rights.drop) {
        if whole(name) != "CAP_ALL" && !every_capability().contains(&whole(name)) {
            return Err(refused::<()>(name, "a capability as capabilities(7) names it, or ALL").unwrap_err().into());
        }
    }
    for device in &rights.devices {
        let found = fs::metadata(&device.from).map_err(io_error("find", &device.from))?;
        if !found.file_type().is_char_device() && !found.file_type().is_block_device() {
            let text = device.from.display().to_string();
            return Err(WishError { text, expected: "a device" }.into());
        }
    }
    if wishes.uts != Sharing::Private && wishes.hostname.is_some() {
        let text = wishes.hostname.clone().unwrap_or_default();
        return Err(WishError { text, expected: "no --hostname beside --uts of another: it would rename that" }.into());
    }
    Ok(())
}

/// The five sets. Root needs them named in each; anybody else gets them only by a file that grants them, unless they were
/// asked for.
pub(super) fn capabilities(rights: &Rights, root: bool) -> Value {
    let names = |list: &[String]| list.iter().map(|name| whole(name)).collect::<Vec<String>>();
    let (add, drop) = (names(&rights.add), names(&rights.drop));
    let all = |list: &[String]| list.iter().any(|name| name == "CAP_ALL");
    let mut held: Vec<String> = match (rights.privileged || all(&add), all(&drop)) {
        (true, _) => own_capabilities(),
        (false, true) => Vec::new(),
        (false, false) => CAPABILITIES.map(str::to_owned).to_vec(),
    };
    held.extend(add.into_iter().filter(|name| name != "CAP_ALL"));
    held.retain(|name| !drop.contains(name));
    held.sort();
    held.dedup();
    let effective: &[String] = if root { &held } else { &[] };
    json!({ "bounding": held, "effective": effective, "permitted": effective })
}

/// The name with its prefix, in capitals: `net_admin` and `CAP_NET_ADMIN` are one.
fn whole(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    format!("CAP_{}", upper.strip_prefix("CAP_").unwrap_or(&upper))
}

/// All that this command could give: where it lacks one itself, as in a container, that is no reason for a warning.
fn own_capabilities() -> Vec<String> {
    let held = caps::read(None, caps::CapSet::Permitted).unwrap_or_default();
    // An ordinary user has none here, and all of them in a user namespace.
    let every = held.is_empty();
    let own = caps::all().into_iter().filter(|capability| every || held.contains(capability));
    own.map(|capability| capability.to_string()).collect()
}

fn every_capability() -> Vec<String> {
    caps::all().into_iter().map(|capability| capability.to_string()).collect()
}

/// The limits of each process (config.md, "POSIX process").
pub(super) fn rlimits(rights: &Rights) -> Value {
    let limit = |limit: &super::wishes::Ulimit| json!({ "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()), "soft": limit.soft, "hard": limit.hard });
    rights.ulimits.iter().map(limit).collect()
}

/// Reads a profile of system calls: the runtime's form, or docker's, which lists the names of architectures in another way
/// and says for some rules which capability they go with.
pub fn read_seccomp(path: &Path) -> Result<Seccomp, EngineError> {
    let text = fs::read(path).map_err(io_error("read", path))?;
    let failed = |source| EngineError::Profile { path: path.to_owned(), source };
    let mut profile: Value = serde_json::from_slice(&text).map_err(failed)?;
    if let Some(all) = profile.as_object_mut() {
        if let Some(map) = all.remove("archMap") {
            let names = map.as_array().into_iter().flatten().flat_map(|one| {
                let own = one.get("architecture").into_iter();
                own.chain(one.get("subArchitectures").and_then(Value::as_array).into_iter().flatten())
            });
            let names: Vec<Value> = names.cloned().collect();
            all.entry("architectures").or_insert_with(|| Value::Array(names));
        }
        for rule in all.get_mut("syscalls").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(rule) = rule.as_object_mut() else { continue };
            // Docker's older files name one call a rule.
            if let Some(name) = rule.remove("name") {
                rule.entry("names").or_insert_with(|| json!([name]));
            }
            rule.retain(|_, value| !value.is_null());
        }
        if let Some(rules) = all.get_mut("syscalls").and_then(Value::as_array_mut) {
            rules.retain(applies);
        }
    }
    serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(profile.clone()).map_err(failed)?;
    Ok(Seccomp::Profile(profile))
}

/// Whether a rule of docker's form holds here: some go only with a capability, which is taken for absent (that allows less),
/// or with another kind of processor.
fn applies(rule: &Value) -> bool {
    let list = |key: &str, of: &str| rule.pointer(&format!("/{key}/{of}")).and_then(Value::as_array).cloned();
    let names_us = |list: &Vec<Value>| list.iter().any(|name| matches!(name.as_str(), Some("amd64" | "x86_64")));
    let some = |list: &Vec<Value>| !list.is_empty();
    !list("includes", "caps").as_ref().is_some_and(some)
        && list("includes", "arches").as_ref().filter(|all| some(all)).is_none_or(names_us)
        && !list("excludes", "arches").as_ref().is_some_and(names_us)
}

/// The device files that are made in the container.
pub(super) fn devices(rights: &Rights) -> Vec<Value> {
    let mut all: Vec<Value> = rights.devices.iter().filter_map(node).collect();
    if rights.privileged {
        all.extend(of_the_host().iter().filter_map(node));
    }
    all
}

/// Which devices the cgroup lets through.
pub(super) fn device_rules(rights: &Rights) -> Value {
    if rights.privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(rights.devices.iter().filter_map(|device| {
        let (kind, major, minor) = number(&device.from)?;
        Some(json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": device.access }))
    }));
    rules.extend(rights.device_rules.iter().map(|rule| {
        let mut all = json!({ "allow": true, "type": rule.kind.to_string(), "access": rule.access });
        for (key, number) in [("major", rule.major), ("minor", rule.minor)] {
            if let Some(number) = number {
                all[key] = json!(number);
            }
        }
        all
    }));
    Value::Array(rules)
}

fn node(device: &Device) -> Option<Value> {
    let (kind, major, minor) = number(&device.from)?;
    let found = fs::metadata(&device.from).ok()?;
    Some(json!({
        "path": device.to, "type": kind, "major": major, "minor": minor,
        "fileMode": found.mode() & 0o7777, "uid": found.uid(), "gid": found.gid(),
    }))
}

fn number(path: &Path) -> Option<(&'static str, u64, u64)> {
    let found = fs::metadata(path).ok()?;
    let kind = if found.file_type().is_block_device() { "b" } else { "c" };
    (found.file_type().is_block_device() || found.file_type().is_char_device())
        .then(|| (kind, major(found.rdev()), minor(found.rdev())))
}

/// The device files of the host's /dev, but for those that every container has anyway.
fn of_the_host() -> Vec<Device> {
    const OWN: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "core"];
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let devices = entries.filter(|entry| {
        let kind = entry.file_type();
        let name = entry.file_name();
        kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
            && !OWN.iter().any(|own| name.as_encoded_bytes() == own.as_bytes())
    });
    devices.map(|entry| Device { from: entry.path(), to: entry.path(), access: "rwm".to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::{capabilities, whole};
    use crate::engine::wishes::Rights;

    #[test]
    fn rules_that_go_with_something_else_are_left_out() {
        let holds = |text: &str| super::applies(&serde_json::from_str(text).expect("a rule"));
        assert!(holds(r#"{"names":["read"]}"#) && holds(r#"{"includes":{},"excludes":{"caps":["CAP_SYS_ADMIN"]}}"#));
        assert!(holds(r#"{"includes":{"arches":["amd64"]}}"#) && holds(r#"{"includes":{"minKernel":"4.8"}}"#));
        assert!(!holds(r#"{"includes":{"arches":["s390"]}}"#) && !holds(r#"{"includes":{"caps":["CAP_BPF"]}}"#));
        assert!(!holds(r#"{"excludes":{"arches":["amd64"]}}"#));
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let held = |add: &str, drop: &str| {
            let sets = capabilities(&Rights { add: words(add), drop: words(drop), ..Rights::default() }, true);
            sets["bounding"].as_array().map(Vec::len)
        };
        assert_eq!(held("", ""), Some(14));
        assert_eq!(held("net_admin", "CAP_CHOWN KILL"), Some(13));
        assert_eq!(held("chown", "all"), Some(1));
        assert!(held("ALL", "net_raw") > Some(35));
        assert_eq!(whole("net_admin"), "CAP_NET_ADMIN");
    }
}
