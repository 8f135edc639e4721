//! Interfaces of the host that become a container's.

use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::lab::{Lab, has, same, text};
use super::needs::trial;

const NEEDS: [&str; 3] = ["root", "busybox", "ip"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_interface_of_the_host_moves_with_its_addresses", &NEEDS, moves),
        trial("the_kernel_can_choose_the_number_of_an_interface", &NEEDS, template),
        trial("an_interface_that_cannot_be_had_is_named_and_stays", &NEEDS, refused),
    ]
}

/// A cable of two interfaces on the host, gone with this value.
struct Cable(String);

impl Cable {
    fn new(number: u32) -> Result<Self, Failed> {
        let cable = Self(format!("ilt{}x{number}", std::process::id() % 1_000_000));
        ip(&["link", "add", &cable.near(), "type", "veth", "peer", "name", &cable.far()])?;
        Ok(cable)
    }

    fn near(&self) -> String {
        format!("{}a", self.0)
    }

    fn far(&self) -> String {
        format!("{}b", self.0)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // One end takes the other along; with the container's they may be gone.
        let _ = Command::new("ip").args(["link", "delete", &self.far()]).output();
    }
}

fn ip(arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr).into()) }
}

fn moves() -> Result<(), Failed> {
    let cable = Cable::new(0)?;
    let near = cable.near();
    ip(&["link", "set", &near, "mtu", "1400", "address", "02:00:00:12:34:56"])?;
    ip(&["addr", "add", "198.18.77.1/24", "dev", &near])?;
    ip(&["addr", "add", "2001:db8:77::1/64", "nodad", "dev", &near])?;
    ip(&["addr", "add", "169.254.77.1/16", "scope", "link", "dev", &near])?;
    let mut lab = Lab::new("ip addr show dev inner0");
    lab.set("/linux/netDevices", json!({ near.as_str(): { "name": "inner0" } }));
    let seen = lab.output()?;
    for part in [",UP", "mtu 1400", "02:00:00:12:34:56", "198.18.77.1/24", "2001:db8:77::1/64"] {
        has(&seen, part)?;
    }
    // Of a link only: not meant to be known elsewhere.
    same(seen.contains("169.254.77.1"), false)?;
    lab.is_clean()
}

fn template() -> Result<(), Failed> {
    let cables = [Cable::new(1)?, Cable::new(2)?];
    let mut lab = Lab::new("ip link");
    let [first, second] = [cables[0].near(), cables[1].near()];
    lab.set("/linux/netDevices", json!({ first: { "name": "card%d" }, second: { "name": "card%d" } }));
    let seen = lab.output()?;
    has(&seen, " card0@")?;
    has(&seen, " card1@")
}

fn refused() -> Result<(), Failed> {
    let cable = Cable::new(3)?;
    let near = cable.near();
    for (devices, expected) in [
        (json!({ "ilnone0": {} }), "cannot look for interface ilnone0"),
        (json!({ near.as_str(): { "name": "lo" } }), "cannot move an interface into the container as lo"),
        (json!({ near.as_str(): { "name": "a b" } }), "linux.netDevices: \"a b\" can be no interface's name"),
    ] {
        let mut lab = Lab::new("touch /tmp/ran");
        lab.set("/linux/netDevices", devices);
        let output = lab.run();
        same(output.status.code(), Some(1))?;
        has(&text(&output.stderr), expected)?;
        same(lab.root().join("tmp/ran").exists(), false)?;
        ip(&["link", "show", &near])?;
        lab.is_clean()?;
    }
    let mut lab = Lab::new("true");
    lab.set("/linux/namespaces", json!([{ "type": "mount" }])).set("/linux/netDevices", json!({ near.as_str(): {} }));
    has(&text(&lab.run().stderr), "there is no network namespace to move them to")?;
    ip(&["link", "show", &near]).map(drop)
}
