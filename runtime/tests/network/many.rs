//! Many containers, one after the other and at once.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use isolab_runtime::network::{Attachment, Guest, Namespace, Published};
use libtest_mimic::{Failed, Trial};
use nix::sched::{CloneFlags, setns};

use super::checks::{has, same, wait_within};
use super::lab::{Container, Lab, ask, on, run, trial, wishes};

/// How many; by hand more: `ISOLAB_MANY=500`.
const MANY: usize = 100;
/// At once.
const THREADS: usize = 4;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("many_with_published_ports_are_reached_and_leave_nothing", many),
        trial("racing_commands_never_get_the_same_address_or_port", race),
    ]
}

fn many() -> Result<(), Failed> {
    let count = std::env::var("ISOLAB_MANY").ok().and_then(|text| text.parse().ok()).unwrap_or(MANY);
    let lab = Lab::new()?;
    let begin = Instant::now();
    let mut all = Vec::new();
    for index in 0..count {
        all.push(lab.container(&format!("c{index}"), &["80"])?);
    }
    let started = begin.elapsed();
    let addresses: BTreeSet<_> = all.iter().map(Container::address).collect();
    let ports: BTreeSet<_> = all.iter().map(Container::port).collect();
    same((addresses.len(), ports.len()), (count, count))?;
    for (index, one) in all.iter().enumerate() {
        one.serve(80, &format!("c{index}"))?;
        has(&ask(Ipv4Addr::LOCALHOST, one.port())?, &format!("c{index} "))?;
        super::lab::stop(Ipv4Addr::LOCALHOST, one.port())?;
    }
    let reached = begin.elapsed();
    drop(all);
    let detached = begin.elapsed();
    wait_within(Duration::from_mins(1), Duration::from_millis(50), "the last trace to go", || {
        lab.remains().is_ok_and(|all| all.is_empty())
    })
    .map_err(|_| format!("left: {:#?}", lab.remains()))?;
    let each = |time: Duration| time.as_secs_f64() * 1e3 / count as f64;
    println!(
        "{count} containers: attached in {:.2} ms each, reached in {:.2}, detached in {:.2}; all gone after {:.1} s",
        each(started),
        each(reached.saturating_sub(started)),
        each(detached.saturating_sub(reached)),
        begin.elapsed().as_secs_f64()
    );
    lab.networks.prune()?;
    same(run(&["nft", "list", "ruleset"])?.as_str(), "")
}

fn race() -> Result<(), Failed> {
    let lab = &Lab::new()?;
    let given = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || starter(lab, number))).collect();
        let join = |it: thread::ScopedJoinHandle<'_, Result<Vec<_>, Failed>>| {
            it.join().map_err(|_| Failed::from("a panic"))?
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>, Failed>>()
    })?;
    let given: Vec<_> = given.into_iter().flatten().collect();
    let addresses: BTreeSet<_> = given.iter().map(|(address, ..)| *address).collect();
    let ports: BTreeSet<_> = given.iter().map(|(_, port, _)| *port).collect();
    same((addresses.len(), ports.len()), (given.len(), given.len()))
}

/// Attaches one after the other, and keeps them all until its end.
fn starter(lab: &Lab, number: usize) -> Result<Vec<(Ipv4Addr, Published, Namespace)>, Failed> {
    setns(lab.here().as_fd(), CloneFlags::CLONE_NEWNET)?;
    let mut all = Vec::new();
    for index in 0..10 {
        let name = format!("r{number}-{index}");
        let (id, hosts) = lab.prepare(&name)?;
        let guest = Guest { container: &id, name: &name, hostname: "box", hosts: &hosts, extra: &[] };
        let namespace = Namespace::create()?;
        let attachment = lab.networks.attach(guest, &namespace, &[on("bridge")], &wishes(&["80"])?)?;
        all.push((attachment.leases()[0].address, attachment.leases()[0].ports[0], attachment, namespace));
    }
    // Their namespaces go on, so that no other thread is given what this one had.
    let keep = |(address, port, attachment, namespace): (_, _, Attachment<'_>, _)| {
        attachment.keep();
        (address, port, namespace)
    };
    Ok(all.into_iter().map(keep).collect())
}
