//! Configurations that nobody would write: a good one, changed at random. Each must give a plan or an error, never a panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::rehearse::rehearse;

/// A configuration with something in every section.
fn good() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "hostname": "h", "domainname": "d",
        "root": { "path": "rootfs", "readonly": true },
        "process": {
            "user": { "uid": 1, "gid": 2, "umask": 18, "additionalGids": [5] },
            "args": ["sh", "-c", "true"], "env": ["PATH=/bin", "A=B"], "cwd": "/",
            "capabilities": { "bounding": ["CAP_KILL"], "effective": [], "inheritable": [], "permitted": ["CAP_KILL"], "ambient": [] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
            "scheduler": { "policy": "SCHED_BATCH", "nice": 3, "priority": 0, "flags": [], "runtime": 0, "deadline": 0, "period": 0 },
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 4 },
            "execCPUAffinity": { "initial": "0-1", "final": "1" },
            "noNewPrivileges": true, "oomScoreAdj": 100, "apparmorProfile": "", "selinuxLabel": ""
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] },
            { "destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "size=1k", "rro", "rshared"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["gid=5", "newinstance"] },
            { "destination": "/cg", "type": "cgroup", "source": "cgroup" },
            { "destination": "/b", "source": "rootfs", "options": ["rbind", "rprivate", "noatime"] }
        ],
        "hooks": {
            "prestart": [{ "path": "/bin/true", "args": ["true"], "env": ["A=B"], "timeout": 3 }],
            "createRuntime": [{ "path": "/bin/true" }], "createContainer": [], "startContainer": [],
            "poststart": [{ "path": "/bin/true" }], "poststop": []
        },
        "annotations": { "a": "b", "org.isolab.overlay.lower": "/usr:/etc" },
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" }, { "type": "user" },
                { "type": "network", "path": "/proc/self/ns/net" }, { "type": "time" }, { "type": "cgroup" }],
            "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 10 }],
            "gidMappings": [{ "containerID": 0, "hostID": 1000, "size": 10 }],
            "timeOffsets": { "boottime": { "secs": 1, "nanosecs": 2 } },
            "devices": [{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0 }],
            "cgroupsPath": "/isolab/mutated",
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "memory": { "limit": 1_000_000, "swap": 2_000_000 }, "cpu": { "shares": 10, "quota": 1000, "period": 1000, "cpus": "0" },
                "pids": { "limit": 5 }, "blockIO": { "weight": 10 }, "unified": { "memory.high": "1" }
            },
            "sysctl": { "kernel.msgmax": "1", "kernel/domainname": "x" },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls": [{ "names": ["read", "write"], "action": "SCMP_ACT_ALLOW",
                    "args": [{ "index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ" }] }]
            },
            "rootfsPropagation": "rslave", "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "personality": { "domain": "LINUX", "flags": [] }, "mountLabel": "",
            "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0-1,3", "flags": [] }
        }
    })
}

/// The JSON pointers of all values below `value`.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut below = |name: &str, value: &Value| {
        let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        found.push(pointer.clone());
        pointers(value, &pointer, found);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| below(name, value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| below(&index.to_string(), value)),
        _ => {}
    }
}

fn strange() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "/",
        ".",
        "..",
        "../../..",
        "\0",
        "a\0b",
        "=",
        ":",
        ",",
        "-",
        "0-",
        "99999999999",
        "rbind",
        "r",
        "size=",
        "/proc/self/ns/user",
        "/proc/self/ns/uts",
        "/dev/null",
        "CAP_NONE",
        "SCMP_ACT_NOTIFY",
        "MPOL_PREFERRED",
        "\u{1f980}",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::sample::select(vec![-1_i64, 0, 1, 1023, 1024, 4096, i64::from(u32::MAX), i64::MIN])
            .prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(texts.to_vec()).prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        (1_usize..5000).prop_map(|length| Value::from("x".repeat(length))),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, 1, "x", {}, []])),
        Just(json!({ "path": "/x", "type": "user", "destination": "", "": 1 })),
    ]
}

#[derive(Debug, Clone)]
enum Change {
    /// Another value at one of the places.
    Value(prop::sample::Index, Value),
    /// A value from elsewhere in the configuration.
    Moved(prop::sample::Index, prop::sample::Index),
    /// Left out.
    Gone(prop::sample::Index),
    /// A list that has its items many times.
    Repeated(prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), strange()).prop_map(|(place, value)| Change::Value(place, value)),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(to, from)| Change::Moved(to, from)),
        1 => any::<prop::sample::Index>().prop_map(Change::Gone),
        1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(place, times)| Change::Repeated(place, times)),
    ]
}

fn changed(changes: &[Change]) -> Value {
    let mut config = good();
    for change in changes {
        let mut all = Vec::new();
        pointers(&config, "", &mut all);
        let (place, value) = match change {
            Change::Value(place, value) => (place.get(&all).clone(), value.clone()),
            Change::Moved(to, from) => {
                let from: &String = from.get(&all);
                (to.get(&all).clone(), config.pointer(from).cloned().unwrap_or_default())
            }
            Change::Repeated(place, times) => {
                let place = place.get(&all).clone();
                let items = config.pointer(&place).and_then(Value::as_array).cloned().unwrap_or_default();
                (place, Value::Array(items.iter().cycle().take(items.len() * usize::from(*times)).cloned().collect()))
            }
            Change::Gone(place) => {
                let place = place.get(&all);
                let (parent, name) = place.rsplit_once('/').unwrap_or_default();
                match config.pointer_mut(parent) {
                    Some(Value::Object(members)) => drop(members.remove(&name.replace("~1", "/").replace("~0", "~"))),
                    Some(Value::Array(items)) => {
                        if let Ok(index) = name.parse::<usize>() {
                            items.remove(index);
                        }
                    }
                    _ => {}
                }
                continue;
            }
        };
        if let Some(there) = config.pointer_mut(&place) {
            *there = value;
        }
    }
    config
}

/// Reads and plans. Says how far it came; nothing is made.
fn plan(text: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    std::fs::create_dir(folder.path().join("rootfs")).map_err(|error| error.to_string())?;
    std::fs::write(folder.path().join("config.json"), text).map_err(|error| error.to_string())?;
    let id = "mutated".parse().map_err(|_| "an id".to_owned())?;
    rehearse(&id, folder.path()).map(drop).map_err(|error| format!("{error} {:?}", error.hint()))
}

#[test]
fn the_configuration_to_be_mutated_is_a_good_one() {
    assert_eq!(plan(good().to_string().as_bytes()), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_configuration_gives_a_plan_or_an_error(changes in proptest::collection::vec(change(), 1..5)) {
        if let Err(told) = plan(changed(&changes).to_string().as_bytes()) {
            prop_assert!(!told.is_empty());
        }
    }

    #[test]
    fn mutated_bytes_give_a_plan_or_an_error(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(), cut in any::<bool>(),
    ) {
        let mut text = good().to_string().into_bytes();
        for (place, byte) in &edits {
            let index = place.index(text.len());
            text[index] = *byte;
        }
        if cut {
            text.truncate(end.index(text.len()));
        }
        if let Err(told) = plan(&text) {
            prop_assert!(!told.is_empty());
        }
    }
}
