//! What is told of a container: all of it, in the form that docker's users and their tools read.

use serde_json::{Value, json};
use std::time::Duration;

use super::error::EngineError;
use super::limits::{DiskKind, Limits};
use super::prepare::arguments;
use super::record::{Record, State, log_path};
use super::users::Users;
use super::wishes::{Log, Restart, Seccomp};
use super::{Engine, networking};
use crate::container::rfc3339;

/// docker's way to write "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// All that is known of a container, as docker's `inspect` names it. A status that nobody saw is `null`.
    pub fn inspect(&self, record: &Record) -> Result<Value, EngineError> {
        let state = self.state(record)?;
        let folder = self.folder(record);
        let words = arguments(&record.config, &record.wishes).unwrap_or_default();
        let log = if record.wishes.log == Log::Json { log_path(&folder).display().to_string() } else { String::new() };
        Ok(json!({
            "Id": record.id,
            "Created": time(Some(record.created)),
            "Path": words.first(),
            "Args": words.get(1..).unwrap_or_default(),
            "State": state_of(record, state),
            "Image": record.image.id,
            "ResolvConfPath": folder.join("resolv.conf"),
            "HostnamePath": folder.join("hostname"),
            "HostsPath": folder.join("hosts"),
            "LogPath": log,
            "Name": format!("/{}", record.name),
            "RestartCount": record.life.restarts,
            "Driver": "overlay",
            "Platform": "linux",
            "HostConfig": host_config(record),
            "GraphDriver": { "Name": "overlay", "Data": {
                "LowerDir": self.layers(record)?,
                "UpperDir": folder.join("upper"),
                "WorkDir": folder.join("work"),
            } },
            "Mounts": record.wishes.mounts.iter().map(mount).collect::<Vec<_>>(),
            "Config": config(record, &words),
            "NetworkSettings": networking::settings(record),
        }))
    }
}

fn state_of(record: &Record, state: State) -> Value {
    let life = &record.life;
    let pid = life.running.as_ref().filter(|_| state.is_up()).map_or(0, |running| running.init.pid);
    let code = if state == State::Created && life.error.is_none() { Some(0) } else { life.code };
    let mut all = json!({
        "Status": state.word(),
        "Running": state.is_up(),
        "Paused": state == State::Paused,
        "Restarting": state == State::Restarting,
        "OOMKilled": life.out_of_memory,
        "Dead": state == State::Dead,
        "Pid": pid,
        "ExitCode": if state.is_up() { Some(0) } else { code },
        "Error": life.error.clone().unwrap_or_default(),
        "StartedAt": time(life.started),
        "FinishedAt": time(life.finished),
    });
    if let Some(health) = &life.health {
        all["Health"] = json!(health);
    }
    all
}

fn time(nanoseconds: Option<u64>) -> String {
    nanoseconds.map_or_else(|| NEVER.to_owned(), |since| rfc3339(Duration::from_nanos(since)))
}

fn mount(mount: &super::Mount) -> Value {
    let mode = if mount.read_only { "ro" } else { "" };
    match &mount.volume {
        None => json!({
            "Type": "bind", "Source": mount.from, "Destination": mount.to,
            "Mode": mode, "RW": !mount.read_only, "Propagation": "rprivate",
        }),
        Some(name) => json!({
            "Type": "volume", "Name": name, "Source": mount.from, "Destination": mount.to, "Driver": "local",
            "Mode": mode, "RW": !mount.read_only, "Propagation": "",
        }),
    }
}

fn config(record: &Record, words: &[String]) -> Value {
    let (config, wishes) = (&record.config, &record.wishes);
    let mut labels = config.labels.clone();
    labels.extend(wishes.labels.clone());
    let mut env = config.env.clone();
    for (name, value) in &wishes.environment {
        super::document::set_variable(&mut env, name, value);
    }
    let entrypoint = wishes.entrypoint.clone().or_else(|| config.entrypoint.clone());
    let command = words.get(entrypoint.as_ref().map_or(0, Vec::len)..).unwrap_or_default();
    let mut all = json!({
        "Hostname": wishes.hostname.as_deref().unwrap_or(record.short_id()),
        "Domainname": wishes.domainname.clone().unwrap_or_default(),
        "User": wishes.user.as_ref().unwrap_or(&config.user),
        "Tty": wishes.terminal,
        "OpenStdin": wishes.interactive,
        "Env": env,
        "Cmd": command,
        "Image": record.image.name,
        "Volumes": config.volumes,
        "WorkingDir": wishes.folder.as_ref().unwrap_or(&config.working_dir),
        "Entrypoint": entrypoint,
        "ExposedPorts": config.exposed_ports,
        "Labels": labels,
        "StopSignal": record.stop_signal(),
        "StopTimeout": wishes.stop_timeout,
    });
    if let Some(check) = record.healthcheck() {
        all["Healthcheck"] = json!(check);
    }
    all
}

/// docker's options of a log.
fn log_options(record: &Record) -> Value {
    match record.wishes.rotation {
        None => json!({}),
        Some(it) => json!({ "max-size": it.size.to_string(), "max-file": it.files.to_string() }),
    }
}

fn host_config(record: &Record) -> Value {
    let wishes = &record.wishes;
    let (limits, rights) = (&wishes.limits, &wishes.rights);
    let (policy, count) = match wishes.restart {
        Restart::OnFailure(count) => ("on-failure".to_owned(), count.unwrap_or(0)),
        other => (other.to_string(), 0),
    };
    let mut security: Vec<String> = Vec::new();
    match rights.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => security.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(_) => security.push("seccomp=profile".to_owned()),
    }
    if rights.no_new_privileges {
        security.push("no-new-privileges".to_owned());
    }
    let mut all = json!({
        "AutoRemove": wishes.remove,
        "Privileged": rights.privileged,
        "ReadonlyRootfs": wishes.read_only,
        "RestartPolicy": { "Name": policy, "MaximumRetryCount": count },
        "LogConfig": { "Type": if wishes.log == Log::Json { "json-file" } else { "none" }, "Config": log_options(record) },
        "NetworkMode": networking::mode(record),
        "PortBindings": networking::wished_ports(&wishes.networking),
        "PublishAllPorts": wishes.networking.publish_all,
        "Dns": wishes.networking.resolver.servers,
        "DnsSearch": wishes.networking.resolver.search,
        "DnsOptions": wishes.networking.resolver.options,
        "ExtraHosts": wishes.networking.extra_hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "PidMode": wishes.pid.to_string(),
        "IpcMode": wishes.ipc.to_string(),
        "UTSMode": wishes.uts.to_string(),
        "GroupAdd": wishes.groups,
        "Annotations": wishes.annotations,
        "UsernsMode": if wishes.users == Users::Host { "" } else { "auto" },
        "CgroupnsMode": wishes.cgroup.as_ref().map_or_else(String::new, ToString::to_string),
        "CapAdd": rights.add,
        "CapDrop": rights.drop,
        "SecurityOpt": security,
        "Devices": rights.devices.iter().map(|device| json!({
            "PathOnHost": device.from, "PathInContainer": device.to, "CgroupPermissions": device.access,
        })).collect::<Vec<_>>(),
        "Ulimits": rights.ulimits.iter().map(|limit| json!({
            "Name": limit.name, "Soft": limit.soft, "Hard": limit.hard,
        })).collect::<Vec<_>>(),
        "OomScoreAdj": rights.oom_score.unwrap_or(0),
        "Tmpfs": wishes.tmpfs,
        "ShmSize": wishes.shm_size.unwrap_or(64 << 20),
        "Sysctls": wishes.sysctls,
        "Init": wishes.init,
    });
    if let (Value::Object(all), Value::Object(limits)) = (&mut all, limits_told(limits)) {
        all.extend(limits);
    }
    all
}

fn limits_told(limits: &Limits) -> Value {
    let number = |value: Option<i64>| value.unwrap_or(0);
    let disks = |kind: DiskKind| {
        let all = limits.disks.iter().filter(|disk| disk.kind == kind);
        all.map(|disk| json!({ "Path": disk.device, "Rate": disk.rate })).collect::<Vec<_>>()
    };
    json!({
        "Memory": number(limits.memory),
        "MemorySwap": number(limits.memory_swap.or(limits.memory.map(|memory| memory.saturating_mul(2)))),
        "MemoryReservation": number(limits.memory_reservation),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "PidsLimit": limits.pids,
        "BlkioDeviceReadBps": disks(DiskKind::ReadBytes),
        "BlkioDeviceWriteBps": disks(DiskKind::WriteBytes),
        "BlkioDeviceReadIOps": disks(DiskKind::Reads),
        "BlkioDeviceWriteIOps": disks(DiskKind::Writes),
    })
}
