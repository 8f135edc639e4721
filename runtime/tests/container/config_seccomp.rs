//! `config.json` about seccomp: what a filter does to the program, and a listener that decides in its stead.

use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use libtest_mimic::{Failed, Trial};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_listener_decides_about_a_call", &NEEDS, listener),
        trial("a_listener_that_is_not_there_is_told_of", &NEEDS, no_listener),
        trial("a_listener_that_cannot_work_is_refused", &NEEDS, refused),
        trial("a_listener_that_nothing_is_left_to_is_passed_over", &NEEDS, unused_listener),
        trial("each_flag_of_a_filter_is_taken_by_the_kernel", &NEEDS, flags),
        trial("errors_are_those_of_the_profile", &NEEDS, errors),
        trial("each_operator_compares_an_argument", &NEEDS, operators),
        trial("a_call_that_kills_ends_the_program_with_sigsys", &NEEDS, kills),
    ]
}

fn profile(rules: &Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": rules })
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND` of linux/seccomp.h.
const RECEIVE: libc::Ioctl = 0xc050_2100;
const SEND: libc::Ioctl = 0xc018_2101;
/// What the listener lets the call fail with; no file system does that by itself.
const ANSWER: i32 = libc::ENOMSG;

/// Listens once: takes the state and the descriptor, and answers one call with an error. Returns the state.
fn listen(lab: &Lab) -> Result<JoinHandle<Result<Value, String>>, Failed> {
    let listener = UnixListener::bind(lab.path("listener"))?;
    Ok(std::thread::spawn(move || {
        let (connection, _) = listener.accept().map_err(|error| error.to_string())?;
        let (state, filter) = take(connection)?;
        answer(&filter)?;
        Ok(state)
    }))
}

/// Reads to the end: the connection must be closed after one state.
fn take(mut connection: UnixStream) -> Result<(Value, OwnedFd), String> {
    let mut bytes = vec![0; 8192];
    let mut space = nix::cmsg_space!([i32; 4]);
    let (length, filter) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .map_err(|errno| errno.to_string())?;
        let descriptors: Vec<i32> = message
            .cmsgs()
            .map_err(|errno| errno.to_string())?
            .filter_map(|control| match control {
                ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let [filter] = descriptors.as_slice() else { return Err(format!("{} descriptors", descriptors.len())) };
        // SAFETY: the message brought it, and nobody else owns it.
        (message.bytes, unsafe { OwnedFd::from_raw_fd(*filter) })
    };
    bytes.truncate(length);
    connection.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok((serde_json::from_slice(&bytes).map_err(|error| error.to_string())?, filter))
}

fn answer(filter: &OwnedFd) -> Result<(), String> {
    let failed = || std::io::Error::last_os_error().to_string();
    // SAFETY: structures of integers, which the calls fill and read; both outlive them.
    unsafe {
        let mut asked: libc::seccomp_notif = std::mem::zeroed();
        if libc::ioctl(filter.as_raw_fd(), RECEIVE, &raw mut asked) != 0 {
            return Err(failed());
        }
        let answer = libc::seccomp_notif_resp { id: asked.id, val: 0, error: -ANSWER, flags: 0 };
        if libc::ioctl(filter.as_raw_fd(), SEND, &raw const answer) != 0 {
            return Err(failed());
        }
    }
    Ok(())
}

fn listener() -> Result<(), Failed> {
    // Before the last right is given up, or just before the program: both ways of installing a filter.
    for no_new_privileges in [true, false] {
        let mut lab = Lab::new("mkdir /tmp/x; echo $?; sleep 0.1");
        let mut seccomp = profile(&json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]));
        seccomp["listenerPath"] = json!(lab.path("listener"));
        seccomp["listenerMetadata"] = json!("about \"this\" one");
        seccomp["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
        lab.set("/linux/seccomp", seccomp).set("/process/noNewPrivileges", json!(no_new_privileges));
        lab.set("/annotations", json!({ "a": "b" }));
        let listener = listen(&lab)?;
        let output = lab.run();
        has(&text(&output.stderr), "No message of desired type")?;
        same(text(&output.stdout).as_str(), "1\n")?;
        let state = listener.join().map_err(|_| "the listener panicked")??;
        same(state["ociVersion"].as_str(), Some("1.0.2"))?;
        same(&state["fds"], &json!(["seccompFd"]))?;
        same(state["metadata"].as_str(), Some("about \"this\" one"))?;
        same(state["pid"].as_u64().is_some_and(|pid| pid > 1), true)?;
        same(&state["state"]["pid"], &state["pid"])?;
        same(state["state"]["id"].as_str(), Some(lab.id.as_str()))?;
        same(&state["state"]["annotations"], &json!({ "a": "b" }))?;
        same(lab.root().join("tmp/x").exists(), false)?;
        lab.is_clean()?;
    }
    Ok(())
}

fn no_listener() -> Result<(), Failed> {
    let mut lab = Lab::new("touch /tmp/ran");
    let mut seccomp = profile(&json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]));
    seccomp["listenerPath"] = json!(lab.path("nobody"));
    lab.set("/linux/seccomp", seccomp);
    let output = lab.run();
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "error: cannot connect to ")?;
    same(lab.root().join("tmp/ran").exists(), false)?;
    lab.is_clean()
}

fn refused() -> Result<(), Failed> {
    let notify = |name: &str| profile(&json!([{ "names": [name], "action": "SCMP_ACT_NOTIFY" }]));
    let with = |mut profile: Value, key: &str, value: Value| {
        profile[key] = value;
        profile
    };
    let path = json!("/run/none");
    for (seccomp, expected) in [
        (notify("mkdir"), "has no listenerPath"),
        (with(profile(&json!([])), "listenerMetadata", json!("x")), "has listenerMetadata, but no listenerPath"),
        (with(notify("sendmsg"), "listenerPath", path.clone()), "SCMP_ACT_NOTIFY for sendmsg"),
        (json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": path }), "SCMP_ACT_NOTIFY for every other call"),
        (with(profile(&json!([])), "flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), "has no listenerPath"),
    ] {
        let mut lab = Lab::new("true");
        lab.set("/linux/seccomp", seccomp);
        let output = lab.run();
        same((expected, output.status.code()), (expected, Some(1)))?;
        has(&text(&output.stderr), expected)?;
        has(&text(&output.stderr), "hint: ")?;
    }
    Ok(())
}

fn unused_listener() -> Result<(), Failed> {
    let mut lab = Lab::new("echo up");
    let mut seccomp = profile(&json!([]));
    seccomp["listenerPath"] = json!("/none/such");
    lab.set("/linux/seccomp", seccomp);
    same(lab.output()?.as_str(), "up\n")
}

fn flags() -> Result<(), Failed> {
    for flags in [
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]),
    ] {
        let mut lab = Lab::new("grep Seccomp: /proc/self/status");
        let mut seccomp = profile(&json!([]));
        seccomp["flags"] = flags;
        lab.set("/linux/seccomp", seccomp);
        same(lab.output()?.as_str(), "Seccomp:\t2\n")?;
    }
    Ok(())
}

fn errors() -> Result<(), Failed> {
    let mut lab = Lab::new("mkdir /tmp/x; mkdir /tmp/y; busybox rmdir /tmp/x; hostname x");
    // All that is needed, and then some with errors of their own.
    let mut seccomp = profile(&json!([
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 },
        { "names": ["rmdir", "unlinkat"], "action": "SCMP_ACT_ERRNO" }
    ]));
    lab.set("/linux/seccomp", seccomp.clone());
    let said = text(&lab.run().stderr);
    has(&said, "'/tmp/x': No message of desired type")?;
    has(&said, "'/tmp/x': Operation not permitted")?;
    // The other way round: what isn't named has the default's error. (What the C library and the shell need is allowed.)
    seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    seccomp["syscalls"] = json!([{ "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }]);
    lab.set("/linux/seccomp", seccomp);
    has(&text(&lab.run().stderr), "Function not implemented")
}

fn operators() -> Result<(), Failed> {
    // The mode is the argument: 0640 is 416.
    for (operator, value, two, refused) in [
        ("SCMP_CMP_EQ", 416, 0, true),
        ("SCMP_CMP_EQ", 417, 0, false),
        ("SCMP_CMP_NE", 417, 0, true),
        ("SCMP_CMP_NE", 416, 0, false),
        ("SCMP_CMP_LT", 417, 0, true),
        ("SCMP_CMP_LT", 416, 0, false),
        ("SCMP_CMP_LE", 416, 0, true),
        ("SCMP_CMP_LE", 415, 0, false),
        ("SCMP_CMP_GE", 416, 0, true),
        ("SCMP_CMP_GE", 417, 0, false),
        ("SCMP_CMP_GT", 415, 0, true),
        ("SCMP_CMP_GT", 416, 0, false),
        ("SCMP_CMP_MASKED_EQ", 0o700, 0o600, true),
        ("SCMP_CMP_MASKED_EQ", 0o700, 0o400, false),
    ] {
        let mut lab = Lab::new("busybox chmod 640 /tmp/f; stat -c %a /tmp/f");
        std::fs::write(lab.root().join("tmp/f"), "")?;
        std::fs::set_permissions(lab.root().join("tmp/f"), std::os::unix::fs::PermissionsExt::from_mode(0o604))?;
        let argument = |index: u32| json!([{ "index": index, "value": value, "valueTwo": two, "op": operator }]);
        lab.set(
            "/linux/seccomp",
            profile(&json!([
                { "names": ["chmod", "fchmod"], "action": "SCMP_ACT_ERRNO", "args": argument(1) },
                { "names": ["fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "args": argument(2) }
            ])),
        );
        let expected = if refused { "604\n" } else { "640\n" };
        same((operator, value, text(&lab.run().stdout).as_str()), (operator, value, expected))?;
    }
    Ok(())
}

fn kills() -> Result<(), Failed> {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let mut lab = Lab::new("");
        lab.set("/process/args", json!(["mkdir", "/tmp/x"]));
        lab.set("/linux/seccomp", profile(&json!([{ "names": ["mkdir", "mkdirat"], "action": action }])));
        // Without a PID namespace, whose first process no signal of its own would end.
        lab.set("/linux/namespaces", json!([{ "type": "mount" }]));
        let output = lab.run();
        same((action, output.status.code()), (action, Some(128 + libc::SIGSYS)))?;
        same(lab.root().join("tmp/x").exists(), false)?;
        lab.is_clean()?;
    }
    Ok(())
}
