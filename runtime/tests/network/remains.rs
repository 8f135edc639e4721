//! What is left behind: nothing, whoever dies when.

use std::net::Ipv4Addr;

use isolab_runtime::network::{NetworkError, NetworkWish, Pruned};
use libtest_mimic::{Failed, Trial};

use super::checks::{same, wait_within};
use super::lab::{Lab, ask, is_unreachable, on, run, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_container_that_is_gone_leaves_nothing", gone),
        trial("what_a_killed_container_had_is_free_for_the_next", killed),
        trial("networks_are_removed_when_nobody_is_in_them", removed),
        trial("rules_that_somebody_flushed_come_again_with_the_next_container", flushed),
        trial("a_step_that_fails_takes_back_those_before_it", failed),
    ]
}

fn clean(lab: &Lab) -> Result<(), Failed> {
    // A namespace ends after its last process, in the kernel's own time.
    let gone = wait_within(
        std::time::Duration::from_secs(20),
        std::time::Duration::from_millis(20),
        "the last trace to go",
        || lab.remains().is_ok_and(|all| all.is_empty()),
    );
    gone.map_err(|_| format!("left: {:#?}", lab.remains()).into())
}

fn gone() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let one = lab.container("one", &["8080:80", "127.0.0.1:8081:81", "53/udp"])?;
    let two = lab.container("two", &[])?;
    same(lab.remains()?.len() > 4, true)?;
    drop(one);
    is_unreachable(Ipv4Addr::LOCALHOST, 8080)?;
    // It goes on for the other one, which is told of twice.
    let id = two.lease().container.clone();
    drop(two);
    lab.networks.detach(&id)?;
    clean(&lab)?;
    // Bridge and rules stay for the next one, until they are not wanted.
    same(run(&["ip", "-brief", "link"])?.contains("isolab0"), true)?;
    lab.networks.prune()?;
    same(run(&["ip", "-brief", "link"])?.contains("isolab0"), false)?;
    same(run(&["nft", "list", "ruleset"])?.as_str(), "")?;
    same(lab.path("run/network").exists(), false)?;
    lab.networks.prune().map(drop)?;
    lab.container("again", &["8080:80"]).map(drop)
}

fn killed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let first = lab.container("first", &["8080:80"])?;
    // Nobody gives anything back: the namespace just ends.
    let leases = first.attachment.keep();
    drop(first.namespace);
    wait_within(std::time::Duration::from_secs(20), std::time::Duration::from_millis(5), "the cable to go", || {
        run(&["ip", "-brief", "link"]).is_ok_and(|links| !links.contains("veth"))
    })?;
    same(lab.remains()?.is_empty(), false)?;
    let second = lab.container("second", &["8080:80"])?;
    same(second.address() == leases[0].address, false)?;
    second.serve(80, "second")?;
    same(ask(Ipv4Addr::LOCALHOST, 8080)?.split(' ').next(), Some("second"))?;
    second.attachment.keep();
    drop(second.namespace);
    wait_within(
        std::time::Duration::from_secs(20),
        std::time::Duration::from_millis(50),
        "the leases to be nobody's",
        || {
            // A server's thread holds a socket of that namespace, which ends with its next client.
            let _ = super::lab::stop(Ipv4Addr::LOCALHOST, 8080);
            lab.networks.prune().is_ok_and(|pruned| !pruned.containers.is_empty())
        },
    )?;
    clean(&lab)
}

fn removed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let wish = |name: &str| NetworkWish { name: name.to_owned(), ..NetworkWish::default() };
    lab.networks.create(&wish("used"))?;
    lab.networks.create(&wish("unused"))?;
    let container = lab.container_in("one", &[on("used")], &["8080:80"])?;
    let refused = lab.networks.remove("used").expect_err("somebody is in it");
    same(refused.to_string().as_str(), "network used is in use by one")?;
    same(lab.networks.inspect("used")?.leases.len(), 1)?;
    for name in ["bridge", "host", "none"] {
        same(matches!(lab.networks.remove(name), Err(NetworkError::Predefined { .. })), true)?;
    }
    same(lab.networks.prune()?, Pruned { networks: vec!["unused".to_owned()], containers: Vec::new() })?;
    container.serve(80, "one")?;
    same(ask(Ipv4Addr::LOCALHOST, 8080)?.is_empty(), false)?;
    drop(container);
    lab.networks.remove("used")?;
    same(matches!(lab.networks.find("used"), Err(NetworkError::Missing { .. })), true)?;
    same(run(&["ip", "-brief", "link"])?.contains("isolab1"), false)?;
    same(run(&["nft", "list", "set", "ip", "isolab", "subnets"])?.contains("elements"), false)
}

fn flushed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let first = lab.container("first", &["8080:80"])?;
    first.serve(80, "first")?;
    run(&["nft", "flush", "ruleset"])?;
    is_unreachable(Ipv4Addr::LOCALHOST, 8080)?;
    let _second = lab.container("second", &["8081:80"])?;
    same(ask(Ipv4Addr::LOCALHOST, 8080)?.split(' ').next(), Some("first"))?;
    run(&["nft", "flush", "ruleset"])?;
    drop(first);
    Ok(())
}

fn failed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let nowhere = lab.container_in("one", &[on("bridge"), on("nowhere")], &["8080:80"]);
    same(nowhere.is_err(), true)?;
    clean(&lab)
}
