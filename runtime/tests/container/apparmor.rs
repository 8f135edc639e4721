//! A profile of `AppArmor`, on a host whose kernel has it: it holds for the program and for whatever `exec` brings.

use std::io::Write;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 4] = ["root", "busybox", "apparmor", "apparmor_parser"];
/// Says what confines it, and tries both what the profile allows and what it forbids.
const TRIES: &str = "cat /proc/self/attr/current; echo x > /tmp/open && echo open; echo x > /tmp/locked || echo locked";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_profile_confines_the_program_and_what_exec_brings", &NEEDS, confines),
        trial("a_profile_that_is_not_loaded_is_named", &NEEDS, not_loaded),
    ]
}

/// A profile in the kernel that forbids one file, gone with this value.
struct Profile(String);

impl Profile {
    fn load() -> Result<Self, Failed> {
        let profile = Self(format!("isolab-trial-{}", std::process::id()));
        profile.tell("--replace")?;
        Ok(profile)
    }

    /// Gives the profile to the kernel, or takes it away.
    fn tell(&self, verb: &str) -> Result<(), Failed> {
        let mut parser = Command::new("apparmor_parser");
        parser.args([verb, "--skip-cache", "--abort-on-error"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut parser = parser.spawn()?;
        let rules = "capability, file, network, signal, unix, deny /tmp/locked w,";
        let source = format!("profile {} flags=(attach_disconnected) {{ {rules} }}\n", self.0);
        parser.stdin.take().ok_or("no standard input")?.write_all(source.as_bytes())?;
        let output = parser.wait_with_output()?;
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr).into()) }
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = self.tell("--remove");
    }
}

fn confines() -> Result<(), Failed> {
    let profile = Profile::load()?;
    let seen = format!("{} (enforce)\nopen\nlocked\n", profile.0);
    let mut lab = Lab::new(TRIES);
    lab.set("/process/apparmorProfile", json!(profile.0));
    same(text(&lab.run().stdout), seen.clone())?;
    lab.is_clean()?;

    let mut lab = Lab::new("sleep 1000");
    lab.set("/process/apparmorProfile", json!(profile.0));
    same(lab.oci(&["run", "--detach", &lab.id]).status.code(), Some(0))?;
    let output = lab.oci(&["exec", &lab.id, "sh", "-c", TRIES]);
    same(text(&output.stdout), seen)?;
    same(lab.oci(&["delete", "--force", &lab.id]).status.code(), Some(0))?;
    lab.is_clean()
}

fn not_loaded() -> Result<(), Failed> {
    let mut lab = Lab::new("true");
    lab.set("/process/apparmorProfile", json!("isolab-never-loaded"));
    let output = lab.run();
    same(output.status.code(), Some(1))?;
    has(&text(&output.stderr), "isolab-never-loaded")?;
    lab.is_clean()
}
