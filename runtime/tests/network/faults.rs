//! Commands that are killed at a step of the network: the next one finds its way, and nothing stays or is lost.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use super::checks::{has, same};
use super::engine::{CTR, Shop, hear};
use super::lab::run;
use super::needs;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "busybox", "cgroup", "ip", "nft"];
    vec![
        needs::trial("a_start_killed_at_any_step_of_the_network_leaves_nothing", &needs, starts),
        needs::trial("a_verb_of_networks_killed_at_any_step_can_be_said_again", &needs, verbs),
    ]
}

/// The command, killed at the entry of a step; that it was is checked.
pub(crate) fn killed(shop: &Shop, step: &str, words: &[&str]) -> Result<(), Failed> {
    let mut command = Command::new(CTR);
    command.arg("--root").arg(shop.lab.path(shop.root)).args(words).env_remove("ISOLAB_NETWORK");
    let output = command.env("ISOLAB_FAULT", format!("{step}:kill")).stdin(Stdio::null()).output()?;
    same((step, words, output.status.success()), (step, words, false))
}

fn starts() -> Result<(), Failed> {
    let shop = Shop::new()?;
    let steps = [
        "network.lock",
        "network.sweep",
        "network.forward",
        "network.bridge",
        "network.loopback",
        "network.firewall",
        "network.claim",
        "network.address",
        "network.veth",
        "network.configure",
        "network.publish",
        "network.hosts",
        "container.record",
        "network.detach",
    ];
    let line: [&[&str]; 2] = [&["run", "-d", "--name", "xx"], &["run", "--rm", "--name", "xx"]];
    for step in steps {
        for words in line {
            let mut all = [words, &["-p", "8080:80", "shop", "sh", "-c", "sleep 0.1"]].concat();
            if step == "network.forward" {
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
            }
            // A detached container's end is its keeper's, of which nobody hears.
            if step == "network.detach" && all[1] == "-d" {
                continue;
            }
            killed(&shop, step, &all)?;
            // The next command has the name and the port, whatever became of the one before.
            let _ = shop.try_run(&["rm", "-f", "xx"]);
            all.truncate(all.len() - 3);
            all[1] = "-d";
            shop.ok(&[&all[..], &["sh", "-c", "while true; do echo me | nc -l -p 80 -w 5 > /dev/null; done"]].concat())
                .map_err(|error| format!("after {step} of {words:?}: {}", error.message().unwrap_or_default()))?;
            hear(Ipv4Addr::LOCALHOST, 8080, "me")?;
            shop.ok(&["rm", "-f", "xx"])?;
            shop.ok(&["prune"])?;
            Shop::is_clean()?;
            same(shop.ok(&["ps", "-aq"])?.as_str(), "")?;
            // So that bridge and rules are made anew, and can be killed at.
            shop.ok(&["network", "prune"])?;
            same(run(&["nft", "list", "ruleset"])?.as_str(), "")?;
        }
    }
    Ok(())
}

fn verbs() -> Result<(), Failed> {
    let shop = Shop::new()?;
    // Each with what has to be before, and the command that shows that all is well.
    for step in ["network.lock", "network.sweep", "network.define"] {
        killed(&shop, step, &["network", "create", "back"])?;
        shop.ok(&["network", "create", "back"])?;
        shop.ok(&["network", "rm", "back"])?;
    }
    shop.ok(&["network", "create", "back"])?;
    shop.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "shop", "sleep", "1000"])?;
    let steps =
        ["network.lock", "network.bridge", "network.address", "network.veth", "network.configure", "network.hosts"];
    for step in steps {
        killed(&shop, step, &["network", "connect", "back", "web"])?;
        // Said again it is done, however far it had come.
        shop.ok(&["network", "connect", "back", "web"])
            .map_err(|error| format!("after {step}: {}", error.message().unwrap_or_default()))?;
        shop.ok(&["exec", "web", "ip", "-o", "-4", "address", "show", "eth1"])?;
        shop.ok(&["network", "disconnect", "back", "web"])?;
        has(&shop.ok(&["network", "inspect", "back"])?, "\"Containers\": {}")?;
        shop.ok(&["network", "prune"])?;
        shop.ok(&["network", "create", "back"])?;
    }
    for step in ["engine.lock", "engine.signal", "engine.remove"] {
        killed(&shop, step, &["rm", "-f", "web"])?;
        let _ = shop.try_run(&["rm", "-f", "web"]);
        shop.ok(&["prune"])?;
        same(shop.ok(&["ps", "-aq"])?.as_str(), "")?;
        Shop::is_clean()?;
        shop.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "shop", "sleep", "1000"])?;
    }
    shop.ok(&["rm", "-f", "web"])?;
    for step in ["network.down", "network.lock"] {
        shop.ok(&["run", "--rm", "--network", "back", "shop", "true"])?;
        killed(&shop, step, &["network", "rm", "back"])?;
        shop.ok(&["network", "rm", "back"])?;
        shop.ok(&["network", "create", "back"])?;
    }
    shop.ok(&["network", "prune"])?;
    same(run(&["nft", "list", "ruleset"])?.as_str(), "")
}
