//! Any verb, killed at any moment: no machine and no snapshot is lost, nothing is left, and nobody runs on.
//!
//! How long a verb takes is looked at first; then it is killed at moments drawn from that time. `ISOLAB_SEED` draws the same
//! moments again, `ISOLAB_KILLS` says how many there are for each verb.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machines::{Live, done, isolab_vm, place};
use crate::named::Root;
use crate::needs::{Done, trial};
use crate::travels::Registry;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &["kvm", "gcc", "docker-registry"];
    vec![
        trial("a_kill_of_any_verb_at_any_moment_loses_no_program", needs, || killed("app", 2)),
        trial("a_kill_of_any_verb_at_any_moment_loses_no_counter", &["kvm", "docker-registry"], || killed("bare", 1)),
    ]
}

/// What is done before, and the verb. `{}` is the turn's number, `REGISTRY` where the registry is.
struct Verb {
    /// Whether the machine runs.
    runs: bool,
    before: &'static str,
    line: &'static str,
}

const fn verb(runs: bool, before: &'static str, line: &'static str) -> Verb {
    Verb { runs, before, line }
}

const VERBS: [Verb; 14] = [
    verb(true, "", "snapshot web s{}"),
    verb(true, "", "snapshot web s{} --diff"),
    verb(false, "rollback web base", "rollback web side"),
    verb(false, "", "clone --full --count 3 web@base c{}"),
    verb(false, "", "clone --linked --count 20 web@base c{}"),
    verb(true, "snapshot web s{}", "rm-snapshot web s{}"),
    verb(false, "clone --full web@side c{}", "rm c{}"),
    verb(false, "", "start web"),
    verb(false, "", "start --detach web"),
    verb(true, "", "stop web"),
    verb(false, "", "export web@base LAYOUT:v{}"),
    verb(false, "", "push web@base REGISTRY:v{}"),
    verb(false, "", "pull REGISTRY:kept c{}"),
    verb(false, "", "serve web@base --socket SERVER"),
];

/// A machine named web with two snapshots, and whoever is killed at it.
struct Lab {
    root: Root,
    registry: Registry,
    /// How far it counts, where it is a counter and not a program that answers.
    counts: Option<u64>,
}

fn killed(kind: &str, kills: u32) -> Done {
    let from_outside = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = from_outside("ISOLAB_KILLS").map_or(Ok(kills), u32::try_from)?;
    // Each hasher of the standard library has a key of its own.
    let mut random = from_outside("ISOLAB_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("killed at moments drawn from ISOLAB_SEED={random} ({kind})");
    let lab = Lab::new(kind)?;
    let mut turn = 0;
    for verb in &VERBS {
        let mut takes = None;
        for _ in 0..=kills {
            turn += 1;
            let moment = takes.map(|takes: Duration| takes.mul_f64(fraction(&mut random)));
            let told = |error: Failed| format!("{:?} in turn {turn}, killed after {moment:?}: {error:?}", verb.line);
            let took = lab.turn(verb, turn, moment).map_err(told)?;
            takes.get_or_insert(took);
            lab.whole().map_err(told)?;
        }
    }
    Ok(())
}

/// From 0 to a little more than 1.
fn fraction(random: &mut u64) -> f64 {
    // "splitmix64"
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*random ^ *random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64 * 1.1
}

impl Lab {
    fn new(kind: &str) -> Result<Self, Failed> {
        let root = Root::new(&format!("kills-{kind}"));
        let registry = Registry::start(&format!("kills-registry-{kind}"), "")?;
        let counts = (kind == "bare").then(|| counts_in(Duration::from_millis(400))).transpose()?;
        let lab = Self { root, registry, counts };
        match counts {
            None => lab.root.create("web")?,
            Some(far) => drop(lab.root.does(&format!("create web --memory 16 --bare counter -- {far}"))?),
        }
        let mut machine = lab.root.start("web")?;
        if counts.is_none() {
            machine.expect("ISOLAB-READY web")?;
        }
        lab.root.until_it_answers("web")?;
        for snapshot in ["base", "side"] {
            lab.root.does(&format!("snapshot web {snapshot}"))?;
        }
        drop(machine);
        lab.root.does("rollback web base")?;
        lab.root.does(&lab.with("push web@base REGISTRY:kept", 0))?;
        Ok(lab)
    }

    fn with(&self, line: &str, turn: u32) -> String {
        let registry = format!("127.0.0.1:{}/lab/web", self.registry.1);
        let of_ours = |what: &str| place(&format!("kills-{what}-{}", self.counts.is_some())).display().to_string();
        line.replace("{}", &turn.to_string())
            .replace("REGISTRY", &registry)
            .replace("LAYOUT", &of_ours("layout"))
            .replace("SERVER", &of_ours("server"))
    }

    /// Does the verb and kills it at its moment, or the machine that it is about; or looks how long it takes. A verb that goes on
    /// for ever is there soon.
    fn turn(&self, verb: &Verb, turn: u32, moment: Option<Duration>) -> Result<Duration, Failed> {
        let line = self.with(verb.line, turn);
        let machine = verb.runs.then(|| self.running()).transpose()?;
        if !verb.before.is_empty() {
            self.root.does(&self.with(verb.before, turn))?;
        }
        let mut command = self.root.vm(&line.split(' ').collect::<Vec<_>>());
        let begun = Instant::now();
        let mut child = command.spawn()?;
        let stays = verb.line == "start web" || verb.line.starts_with("serve");
        let deadline = moment.unwrap_or(Duration::from_secs(if stays { 0 } else { 60 }).max(Duration::from_millis(60)));
        while begun.elapsed() < deadline {
            if let Some(status) = child.try_wait()? {
                // A counter may have come to its end before the verb came to it.
                if moment.is_none() && self.counts.is_none() && !status.success() {
                    let output = child.wait_with_output()?;
                    return Err(format!("failed: {}", String::from_utf8_lossy(&output.stderr)).into());
                }
                break;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        let took = begun.elapsed();
        match &machine {
            Some(machine) if moment.is_some() && turn.is_multiple_of(2) => {
                kill(Pid::from_raw(i32::try_from(machine.pid())?), Signal::SIGKILL)?;
            }
            _ => child.kill()?,
        }
        child.wait()?; // whose machine is gone ends by itself
        // A server's name is its user's, not the folder's.
        let _ = fs::remove_file(self.with("SERVER", turn));
        Ok(took)
    }

    /// The machine, going on from its base.
    fn running(&self) -> Result<Live, Failed> {
        let mut machine = self.root.start("web")?;
        if self.counts.is_none() {
            machine.answers("nonce", "nonce web")?;
        }
        self.root.until_it_answers("web")?;
        Ok(machine)
    }

    /// Proves that a machine has the memory that it should have.
    fn proved(&self, mut machine: Live) -> Done {
        match self.counts {
            None => machine.answers("nonce", "nonce web"),
            Some(far) => machine.expect(&far.to_string()),
        }
    }

    /// Who is listed, and whether he runs.
    fn listed(&self) -> Result<Vec<(String, bool)>, Failed> {
        let entries: Vec<Value> = serde_json::from_str(&self.root.does("ls --json")?)?;
        let of = |entry: &Value| (entry["name"].as_str().unwrap_or_default().to_owned(), entry["state"] != "stopped");
        Ok(entries.iter().map(of).collect())
    }

    /// Waits until no process has to do with the folder, and stops machines that were left to themselves.
    fn quiet(&self) -> Done {
        let ours = self.root.0.display().to_string();
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(20) {
            let lines =
                fs::read_dir("/proc")?.flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
            if !lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(&ours)) {
                return Ok(());
            }
            for (name, _) in self.listed()?.iter().filter(|(_, runs)| *runs) {
                let _ = self.root.does(&format!("stop {name}")); // it may be at its end by itself
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("somebody still runs at {ours}").into())
    }

    /// All that is listed can be gone on from; and when it is removed, nothing is left and nobody runs.
    fn whole(&self) -> Done {
        let root = &self.root;
        self.quiet()?;
        let (web, clones): (Vec<_>, Vec<_>) =
            self.listed()?.into_iter().map(|(name, _)| name).partition(|name| name == "web");
        assert_eq!(web.len(), 1, "the machine is lost");
        self.proved(root.start("web")?)?;
        if let Some(first) = clones.first() {
            self.proved(root.start(first)?)?;
        }
        clones.iter().try_for_each(|clone| root.does(&format!("rm {clone}")).map(drop))?;
        root.does("rollback web base")?;
        let listed = root.does("snapshots web")?;
        let snapshots: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert!(["base", "side"].iter().all(|name| snapshots.contains(name)), "a snapshot is lost: {listed}");
        for snapshot in snapshots.iter().filter(|name| !["base", "side"].contains(name)) {
            self.proved(Live::restored(&root.machine("web").join("snapshots").join(snapshot), &[])?)?;
            root.does(&format!("rm-snapshot web {snapshot}"))?;
        }
        // The next that changes anything removes what the killed has left.
        root.does("clone web@side last")?;
        root.does("rm last")?;
        self.proved(Live::restored(&root.machine("web").join("snapshots/side"), &[])?)?;
        assert_eq!(sorted(&root.0.join("vm"))?, [".lock", "web"]);
        assert_eq!(sorted(&root.machine("web").join("snapshots"))?, ["base", "side"]);
        let of_web = sorted(&root.machine("web"))?;
        assert!(of_web.iter().all(|name| !name.starts_with('.')), "{of_web:?} is left");
        self.quiet()
    }
}

/// How far the counter counts in about so long, which depends on whether KVM interprets it.
fn counts_in(time: Duration) -> Result<u64, Failed> {
    const FAR: u32 = 100_000;
    let since = Instant::now();
    done(isolab_vm(["run", "--bare", "counter", "--", &FAR.to_string()]))?;
    Ok((f64::from(FAR) * time.as_secs_f64() / since.elapsed().as_secs_f64()) as u64)
}

fn sorted(folder: &Path) -> Result<Vec<String>, Failed> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
