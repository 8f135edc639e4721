//! `config.json` about hooks: who runs, when, where, with what, and what becomes of one that fails.

use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{Lab, has, same, text, wait_for};
use super::needs::trial;

const NEEDS: [&str; 2] = ["root", "busybox"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_hook_reads_the_whole_state", &NEEDS, whole_state),
        trial("hooks_of_one_moment_run_in_their_order_with_their_words_and_variables", &NEEDS, order),
        trial("each_hook_runs_in_the_namespaces_that_its_moment_has", &NEEDS, namespaces),
        trial("hooks_after_the_start_see_the_program_run", &NEEDS, after_start),
        trial("a_late_hook_that_fails_is_told_of_and_the_rest_goes_on", &NEEDS, late_failures),
        trial("a_hook_that_takes_too_long_is_ended", &NEEDS, timeout),
        trial("a_start_hook_that_fails_stops_the_container", &NEEDS, failing_start),
        trial("what_the_hooks_of_a_failed_creation_added_those_of_the_end_take_away", &NEEDS, undone),
        trial("since_1_2_1_a_hook_that_fails_after_the_start_ends_the_container", &NEEDS, failing_poststart),
    ]
}

fn shell(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20 })
}

/// A hook that writes the state it reads to a file of the lab.
fn writer(lab: &Lab, name: &str) -> Value {
    shell(&format!("exec cat > {}", lab.path(name).display()))
}

fn read(lab: &Lab, name: &str) -> Result<Value, Failed> {
    Ok(serde_json::from_slice(&fs::read(lab.path(name))?)?)
}

fn whole_state() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    let hooks: serde_json::Map<String, Value> =
        ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
            .map(|moment| (moment.to_owned(), json!([writer(&lab, moment)])))
            .into_iter()
            .collect();
    lab.set("/hooks", Value::Object(hooks)).set("/annotations", json!({ "com.example.key": "a \"value\"" }));
    same(lab.oci(&["create", "--pid-file", "pid", &lab.id]).status.code(), Some(0))?;
    let pid: i32 = fs::read_to_string(lab.path("pid"))?.parse()?;
    same(lab.path("poststart").exists(), false)?;
    same(lab.oci(&["start", &lab.id]).status.code(), Some(0))?;
    same(lab.oci(&["delete", "--force", &lab.id]).status.code(), Some(0))?;
    for (moment, status) in [
        ("prestart", "created"),
        ("createRuntime", "created"),
        ("createContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let state = read(&lab, moment)?;
        same((moment, state["status"].as_str()), (moment, Some(status)))?;
        same(state["ociVersion"].as_str(), Some("1.0.2"))?;
        same(state["id"].as_str(), Some(lab.id.as_str()))?;
        same(state["bundle"].as_str(), lab.bundle().to_str())?;
        same(state["annotations"]["com.example.key"].as_str(), Some("a \"value\""))?;
        let expected = if status == "stopped" { Value::Null } else { json!(pid) };
        same((moment, state["pid"].clone()), (moment, expected))?;
    }
    lab.is_clean()
}

fn order() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    let log = lab.path("log");
    let hook = |name: &str| {
        json!({ "path": "/bin/sh", "args": ["another-name", "-c", "echo $0 $1 $A $PATH $OUTSIDE >> $LOG", "zero", name],
                "env": [format!("LOG={}", log.display()), format!("A={name}a"), "PATH=/only"] })
    };
    lab.set(
        "/hooks",
        json!({ "createRuntime": [hook("1"), hook("2"), hook("3")], "poststop": [hook("4"), hook("5")] }),
    );
    let output = lab.command(&["run", &lab.id]).env("OUTSIDE", "leaked").output()?;
    same(text(&output.stderr).as_str(), "")?;
    let lines = ["1", "2", "3", "4", "5"].map(|number| format!("zero {number} {number}a /only\n")).concat();
    same(fs::read_to_string(lab.path("log"))?, lines)
}

fn namespaces() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    let look =
        |name: &str| shell(&format!("readlink /proc/self/ns/mnt /proc/self/ns/uts > {}", lab.path(name).display()));
    let hooks = json!({
        "prestart": [look("prestart")], "createRuntime": [look("createRuntime")],
        "createContainer": [look("createContainer")], "poststart": [look("poststart")],
        // In the container's root: neither the path nor what it writes is the host's.
        "startContainer": [{ "path": "/bin/busybox", "args": ["sh", "-c",
            "cat > /tmp/state; readlink /proc/self/ns/mnt > /tmp/inside; readlink /proc/self/ns/uts >> /tmp/inside"] }]
    });
    lab.set("/hooks", hooks);
    same(text(&lab.oci(&["create", "--pid-file", "pid", &lab.id]).stderr).as_str(), "")?;
    same(lab.root().join("tmp/inside").exists(), false)?;
    same(text(&lab.oci(&["start", &lab.id]).stderr).as_str(), "")?;
    let pid = fs::read_to_string(lab.path("pid"))?;
    let links = |process: &str| -> Result<String, Failed> {
        let link = |file: &str| fs::read_link(format!("/proc/{process}/ns/{file}"));
        Ok(format!("{}\n{}\n", link("mnt")?.display(), link("uts")?.display()))
    };
    for name in ["prestart", "createRuntime", "poststart"] {
        same((name, fs::read_to_string(lab.path(name))?), (name, links("self")?))?;
    }
    same(fs::read_to_string(lab.path("createContainer"))?, links(&pid)?)?;
    same(fs::read_to_string(lab.root().join("tmp/inside"))?, links(&pid)?)?;
    let state: Value = serde_json::from_slice(&fs::read(lab.root().join("tmp/state"))?)?;
    same((state["status"].as_str(), state["pid"].to_string()), (Some("created"), pid))
}

fn after_start() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    // What the process is at that moment: the runtime's copy, or the program. Within execve(2), after the descriptors are
    // closed, it has no command line for an instant: then look again.
    let look = format!(
        "state=$(cat); pid=${{state##*\\\"pid\\\":}}; pid=${{pid%%[,\\}}]*}}
        until test -s {file} || ! test -e /proc/$pid; do tr '\\0' ' ' < /proc/$pid/cmdline > {file}; done",
        file = lab.path("command").display()
    );
    lab.set("/hooks", json!({ "poststart": [shell(&look)] }));
    same(text(&lab.oci(&["create", &lab.id]).stderr).as_str(), "")?;
    same(lab.path("command").exists(), false)?;
    same(text(&lab.oci(&["start", &lab.id]).stderr).as_str(), "")?;
    has(&fs::read_to_string(lab.path("command"))?, "sleep 60")
}

fn late_failures() -> Result<(), Failed> {
    let mut lab = Lab::new("touch /tmp/up; until test -e /tmp/go; do sleep 0.01; done; exit 4");
    let go = shell(&format!("touch {}", lab.root().join("tmp/go").display()));
    let last = shell(&format!("touch {}", lab.path("last").display()));
    lab.set("/hooks", json!({ "poststart": [shell("exit 9"), go], "poststop": [shell("kill $$"), last] }));
    let output = lab.run();
    same(output.status.code(), Some(4))?;
    let said = text(&output.stderr);
    has(&said, "warning: the poststart hook /bin/sh ended with status 9")?;
    has(&said, "warning: the poststop hook /bin/sh was ended by signal 15")?;
    same(lab.path("last").exists(), true)?;
    lab.is_clean()
}

fn timeout() -> Result<(), Failed> {
    let mut lab = Lab::new("touch /tmp/ran");
    lab.set("/hooks", json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1 }] }));
    let begin = Instant::now();
    let output = lab.run();
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "took longer than its timeout")?;
    same(begin.elapsed() < Duration::from_secs(20) && !lab.root().join("tmp/ran").exists(), true)?;
    lab.is_clean()
}

fn failing_start() -> Result<(), Failed> {
    let mut lab = Lab::new("touch /tmp/ran");
    let last = lab.path("last");
    let hook = json!({ "path": "/bin/busybox", "args": ["false"] });
    lab.set("/hooks", json!({ "startContainer": [hook], "poststop": [shell(&format!("touch {}", last.display()))] }));
    same(lab.oci(&["create", &lab.id]).status.code(), Some(0))?;
    let output = lab.oci(&["start", &lab.id]);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "hook")?;
    same(lab.root().join("tmp/ran").exists(), false)?;
    wait_for("its end", || text(&lab.oci(&["state", &lab.id]).stdout).contains("\"stopped\""))?;
    same(lab.oci(&["delete", &lab.id]).status.code(), Some(0))?;
    same(last.exists(), true)?;
    lab.is_clean()
}

fn undone() -> Result<(), Failed> {
    let bad = |lab: &Lab, moment: &str| {
        let last = shell(&format!("cat > {}", lab.path("last").display()));
        let fails = json!({ "path": "/bin/busybox", "args": ["false"] });
        json!({ "createRuntime": [shell("true")], moment: [fails], "poststop": [last] })
    };
    for moment in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let mut lab = Lab::new("touch /tmp/ran");
        lab.set("/hooks", bad(&lab, moment));
        same((moment, lab.run().status.code()), (moment, Some(1)))?;
        same((moment, read(&lab, "last")?["status"].as_str()), (moment, Some("stopped")))?;
        same(lab.root().join("tmp/ran").exists(), false)?;
        lab.is_clean()?;
        if moment != "startContainer" {
            fs::remove_file(lab.path("last"))?;
            same((moment, lab.oci(&["create", &lab.id]).status.code()), (moment, Some(1)))?;
            same((moment, lab.path("last").exists()), (moment, true))?;
            lab.is_clean()?;
        }
    }
    Ok(())
}

fn failing_poststart() -> Result<(), Failed> {
    let mut lab = Lab::new("sleep 60");
    let never = lab.path("never");
    lab.set("/ociVersion", json!("1.2.1"));
    lab.set("/hooks", json!({ "poststart": [shell("exit 9"), shell(&format!("touch {}", never.display()))] }));
    same(lab.oci(&["create", &lab.id]).status.code(), Some(0))?;
    let output = lab.oci(&["start", &lab.id]);
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "error: the poststart hook /bin/sh ended with status 9")?;
    wait_for("its end", || text(&lab.oci(&["state", &lab.id]).stdout).contains("\"stopped\""))?;
    same(lab.oci(&["delete", &lab.id]).status.code(), Some(0))?;
    same(lab.run().status.code(), Some(1))?;
    same(never.exists(), false)?;
    lab.is_clean()
}
