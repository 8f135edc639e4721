//! Many whole containers with published ports: started, reached, stopped, removed. By hand more: `ISOLAB_CROWD=500`.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use isolab_runtime::engine::Engine;
use isolab_runtime::image::Store;
use libtest_mimic::{Failed, Trial};

use super::checks::{same, wait_within};
use super::engine::{Shop, hear};
use super::lab::run;
use super::needs;

const CROWD: usize = 12;
/// Commands at once.
const THREADS: usize = 3;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "busybox", "cgroup", "ip", "nft"];
    vec![needs::trial("a_crowd_of_containers_is_started_reached_stopped_and_leaves_nothing", &needs, crowd)]
}

/// Does something for each number, a few at once. The threads are on the host of the trial.
fn each(count: usize, act: impl Fn(usize) -> Result<(), Failed> + Sync) -> Result<(), Failed> {
    let act = &act;
    thread::scope(|scope| {
        let work = |first: usize| move || (first..count).step_by(THREADS).try_for_each(act);
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(work(first))).collect();
        threads.into_iter().try_for_each(|it| it.join().map_err(|_| Failed::from("a panic"))?)
    })
}

/// Mounts of a store's on the host.
fn mounts(shop: &Shop) -> Result<usize, Failed> {
    let root = shop.lab.path(shop.root).display().to_string();
    Ok(fs::read_to_string("/proc/self/mounts")?.lines().filter(|line| line.contains(&root)).count())
}

/// The cgroups of containers that have these ids.
fn cgroups(ids: &BTreeSet<String>) -> usize {
    let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let below = |path: std::path::PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let named = |name: &str| ids.iter().any(|id| name.contains(id.as_str()));
    trees.flat_map(below).filter(|entry| named(&entry.file_name().to_string_lossy())).count()
}

fn crowd() -> Result<(), Failed> {
    let count = std::env::var("ISOLAB_CROWD").ok().and_then(|text| text.parse().ok()).unwrap_or(CROWD);
    let shop = Shop::new()?;
    let in_folder = |folder: &str| fs::read_dir(shop.lab.path(shop.root).join(folder)).map(Iterator::count);
    // What the build of the image keeps for the next one is pinned too.
    let pinned = in_folder("pins")?;
    let begin = Instant::now();
    each(count, |number| {
        let (name, variable) = (format!("c{number}"), format!("NAME=c{number}"));
        let server = "while true; do echo \"$NAME\" | nc -l -p 80 -w 60 > /dev/null || true; done";
        let words = ["run", "-d", "--name", &name, "-e", &variable, "-p", "80", "shop", "sh", "-c", server];
        shop.try_apart(&words).map(drop)
    })?;
    let started = begin.elapsed();
    let engine = Engine::open(Store::open(shop.lab.path(shop.root))?, |_| {})?;
    let (mut addresses, mut ports, mut ids) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
    for record in engine.list()? {
        let told = engine.inspect(&record)?;
        addresses.insert(told["NetworkSettings"]["IPAddress"].as_str().ok_or("no address")?.to_owned());
        ports.push((record.name.clone(), record.life.published.first().ok_or("no port")?.host_port));
        ids.insert(record.id);
    }
    let different: BTreeSet<_> = ports.iter().map(|(_, port)| *port).collect();
    same((addresses.len(), different.len(), ids.len()), (count, count, count))?;
    for (name, port) in &ports {
        hear(Ipv4Addr::LOCALHOST, *port, name)?;
    }
    let reached = begin.elapsed();
    each(count, |number| shop.try_apart(&["stop", "-t", "0", &format!("c{number}")]).map(drop))?;
    each(count, |number| shop.try_apart(&["rm", &format!("c{number}")]).map(drop))?;
    let gone = begin.elapsed();
    same(shop.ok(&["ps", "-aq"])?.as_str(), "")?;
    let clean = || Shop::remains().is_ok_and(|all| all.is_empty());
    wait_within(Duration::from_mins(3), Duration::from_millis(100), "the last trace to go", clean)
        .map_err(|_| format!("left: {:?}", Shop::remains()))?;
    same((mounts(&shop)?, cgroups(&ids)), (0, 0))?;
    same((in_folder("containers/names")?, in_folder("pins")?), (0, pinned))?;
    shop.ok(&["network", "prune"])?;
    same(run(&["nft", "list", "ruleset"])?.as_str(), "")?;
    let each = |time: Duration| time.as_secs_f64() * 1e3 / count as f64;
    println!(
        "{count} containers, {THREADS} commands at once: started in {:.1} ms each, reached in {:.1}, stopped and removed in {:.1}",
        each(started),
        each(reached.saturating_sub(started)),
        each(gone.saturating_sub(reached)),
    );
    Ok(())
}
