//! Networks that are ready before a container wants one.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use isolab_runtime::engine::Engine;
use isolab_runtime::image::Store;
use libtest_mimic::{Failed, Trial};

use super::checks::{has, same, text, wait_within};
use super::engine::{Shop, hear};
use super::faults::killed;
use super::lab::run;
use super::needs;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "busybox", "cgroup", "ip", "nft"];
    vec![
        needs::trial("a_container_takes_a_network_that_is_ready_and_another_one_is_made", &needs, taken),
        needs::trial("of_many_who_want_a_ready_network_each_gets_one_of_its_own", &needs, many),
        needs::trial("whoever_is_killed_over_a_ready_network_leaves_nothing", &needs, over_killed),
    ]
}

/// The addresses of what is ready: the names of the mounts that keep it.
fn ready(shop: &Shop) -> Result<BTreeSet<String>, Failed> {
    let engine = Engine::open(Store::open(shop.lab.path(shop.root))?, |_| {})?;
    let runs = fs::read_dir(engine.run_root())?.flatten().map(|entry| entry.path().join("pool"));
    let own = runs.filter(|pool| is_ours(shop, pool)).flat_map(fs::read_dir).flatten().flatten();
    let names = own.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| !name.starts_with('.')).collect())
}

/// Whether a pool is that of the trial's root: its networks have a name that follows from the root's path.
fn is_ours(shop: &Shop, pool: &Path) -> bool {
    let digits = pool.parent().and_then(|it| it.file_name()?.to_str()?.strip_prefix("network-").map(str::to_owned));
    let listed = shop.ok(&["network", "ls", "--format", "{{.Bridge}}"]).unwrap_or_default();
    digits.is_some_and(|digits| listed.contains(&digits))
}

fn cables() -> Result<usize, Failed> {
    Ok(run(&["ip", "-oneline", "link"])?.matches(": veth").count())
}

/// No cable, no mount, no rule.
fn nothing_is_left(shop: &Shop) -> Result<(), Failed> {
    Shop::is_clean()?;
    same(ready(shop)?.len(), 0)?;
    shop.ok(&["network", "prune"])?;
    same(run(&["nft", "list", "ruleset"])?.as_str(), "")
}

fn taken() -> Result<(), Failed> {
    let shop = Shop::new()?;
    same(shop.ok(&["network", "pool"])?.as_str(), "0 of 0 ready")?;
    same(shop.ok(&["network", "pool", "2"])?.as_str(), "2 of 2 ready")?;
    let before = ready(&shop)?;
    same((before.len(), cables()?), (2, 2))?;
    has(&shop.ok(&["network", "inspect", "bridge"])?, "\"Containers\": {}")?;
    let server = "while true; do echo one | nc -l -p 80 -w 5 >/dev/null || true; done";
    shop.ok(&["run", "-d", "--name", "one", "-p", "8080:80", "shop", "sh", "-c", server])?;
    hear(Ipv4Addr::LOCALHOST, 8080, "one")?;
    let told = shop.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "one"])?;
    same(before.contains(&told), true)?;
    has(&shop.ok(&["exec", "one", "ip", "-o", "-4", "address"])?, &told)?;
    has(&shop.ok(&["exec", "one", "cat", "/etc/hosts"])?, &told)?;
    // It leads out, and the host's names lead in.
    shop.ok(&["exec", "one", "ping", "-c", "1", "-w", "5", "-q", &gateway(&shop)?])?;
    // Half are gone, so a process that nobody waits for makes another one.
    let again = || ready(&shop).is_ok_and(|now| now.len() == 2 && !now.contains(&told));
    wait_within(Duration::from_secs(20), Duration::from_millis(50), "another one", again)?;
    // Taken, it is an ordinary one: it goes with its container, and its address with it.
    shop.ok(&["rm", "-f", "one"])?;
    let gone = || cables().is_ok_and(|count| count == 2);
    wait_within(Duration::from_secs(20), Duration::from_millis(20), "the cable to go", gone)?;
    let refused = shop.try_run(&["network", "pool", "1000"])?;
    has(&text(&refused.stderr), "256 are the most")?;
    same(shop.ok(&["network", "pool", "1"])?.as_str(), "1 of 1 ready")?;
    // A port that is taken: the network that was taken for it is given back.
    shop.ok(&["run", "-d", "--name", "first", "-p", "8080:80", "shop", "sleep", "1000"])?;
    let refused = shop.try_run(&["run", "--rm", "-p", "8080:80", "shop", "true"])?;
    has(&text(&refused.stderr), "leads to container first already")?;
    let missing = shop.try_run(&["run", "--rm", "shop", "missing"])?;
    same(missing.status.code(), Some(127))?;
    shop.ok(&["rm", "-f", "first"])?;
    shop.ok(&["network", "pool", "0"])?;
    nothing_is_left(&shop)
}

fn gateway(shop: &Shop) -> Result<String, Failed> {
    shop.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"])
}

fn many() -> Result<(), Failed> {
    let shop = Shop::new()?;
    shop.ok(&["network", "pool", "4"])?;
    let addresses = std::thread::scope(|scope| {
        let one = || shop.try_apart(&["run", "--rm", "shop", "sh", "-c", "ip -o -4 address show eth0; sleep 1"]);
        let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        let told = all.into_iter().map(|it| it.join().map_err(|_| Failed::from("a panic"))?);
        told.collect::<Result<BTreeSet<String>, Failed>>()
    })?;
    same(addresses.len(), 8)?;
    shop.ok(&["network", "prune"])?;
    nothing_is_left(&shop)
}

fn over_killed() -> Result<(), Failed> {
    let shop = Shop::new()?;
    for step in ["network.ready", "network.namespace", "network.address", "network.veth", "network.configure"] {
        killed(&shop, step, &["network", "pool", "2"])?;
        same(shop.ok(&["network", "pool"])?.as_str(), "2 of 2 ready")?;
        same(ready(&shop)?.len(), 2)?;
        let two = || cables().is_ok_and(|count| count == 2);
        wait_within(Duration::from_secs(20), Duration::from_millis(20), "the half one to go", two)?;
        shop.ok(&["network", "pool", "0"])?;
        nothing_is_left(&shop)?;
    }
    for step in ["network.take", "network.publish", "network.hosts", "container.record"] {
        shop.ok(&["network", "pool", "2"])?;
        killed(&shop, step, &["run", "-d", "--name", "xx", "-p", "8080:80", "shop", "sleep", "1000"])?;
        let _ = shop.try_run(&["rm", "-f", "xx"]);
        let words = ["run", "--rm", "-p", "8080:80", "shop", "ip", "-o", "-4", "address", "show", "eth0"];
        has(&shop.ok(&words)?, "/16 brd ")?;
        shop.ok(&["prune"])?;
        shop.ok(&["network", "prune"])?;
        nothing_is_left(&shop)?;
    }
    Ok(())
}
