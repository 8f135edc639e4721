//! Images: fetched, unpacked and made, beside podman, skopeo with umoci, and tar.
//!
//! `pull` is a command with an empty store that has the image unpacked at its end, from a registry of ours on loopback;
//! `unpack` has the layer's archive on the disk already; `layer` makes the archive of a changed folder, unpacked. A round
//! does each of them in turn, and criterion is given of each round what it asks for: so a drifting machine bends all
//! of them alike, and medians of one group may be divided. Each round counts for every way, so a slow peer is waited for once a round and
//! not once for each. A line at the group's end divides the medians.
//!
//! A program that hangs is killed after its time-out. One that fails in the first round is left out, with its reason.
//!
//! The image is made up of files, the same everywhere; `ISOLAB_IMAGE_TAR` names an archive of a root to be used instead,
//! such as that of Debian by debootstrap.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use isolab_bench::siblings;
use isolab_bench::subject;
use tempfile::TempDir;

/// The image's files: as many and as large as those of a small distribution's package or two.
const FILES: u32 = 2000;
const FOLDERS: u32 = 100;
/// 20 MB altogether.
const LARGEST: u32 = 20_000;

/// One way to do a thing: what it is called, what takes away what it made before, and what is timed.
struct Way<'a> {
    name: &'static str,
    clear: Box<dyn Fn() + 'a>,
    act: Box<dyn Fn() -> Result<Duration, String> + 'a>,
}

/// How long criterion lets each way run before it counts.
const WARM: Duration = Duration::from_millis(100);

/// How long a program may take. The slowest, podman with Debian, takes seconds; only what hangs meets it.
const PATIENCE: Duration = Duration::from_mins(2);

impl Way<'_> {
    /// One time. Before it, all that others have written goes to the disk: who syncs what it made would pay for theirs too.
    fn once(&self) -> Result<Duration, String> {
        (self.clear)();
        must(&mut Command::new("sync"));
        (self.act)()
    }

    /// The same of a way that has done it before.
    fn again(&self) -> Duration {
        self.once().unwrap_or_else(|reason| panic!("{} failed after it had worked: {reason}", self.name))
    }
}

fn image(criterion: &mut Criterion) {
    siblings::build().expect("cargo builds the engines");
    let lab = Lab::new().expect("an image in a registry");
    group(criterion, "pull", lab.pulls());
    group(criterion, "unpack", lab.unpacks());
    group(criterion, "layer", lab.layers());
}

/// The rounds of a group so far: of each way, how long it took in each of them.
struct Rounds<'a> {
    ways: Vec<Way<'a>>,
    all: Vec<Vec<Duration>>,
}

impl<'a> Rounds<'a> {
    /// Of the ways that work: each is tried once.
    fn of(name: &str, ways: Vec<Way<'a>>) -> Self {
        let works = |way: &Way<'_>| {
            let tried = way.once();
            if let Err(reason) = &tried {
                eprintln!("left out: {name}/{}: {reason}", way.name);
            }
            tried.is_ok()
        };
        let ways: Vec<_> = ways.into_iter().filter(works).collect();
        Self { all: vec![Vec::new(); ways.len()], ways }
    }

    /// How long a way took in a round, which is gone through now if it wasn't yet.
    fn get(&mut self, round: usize, way: usize) -> Duration {
        while self.all.first().is_some_and(|times| times.len() <= round) {
            for (way, times) in self.ways.iter().zip(&mut self.all) {
                times.push(way.again());
            }
        }
        self.all.get(way).and_then(|times| times.get(round)).copied().unwrap_or_default()
    }
}

fn group(criterion: &mut Criterion, name: &str, ways: Vec<Way<'_>>) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(WARM).measurement_time(Duration::from_secs(2));
    let mut rounds = Rounds::of(name, ways);
    for asked in 0..rounds.ways.len() {
        let way = rounds.ways.get(asked).map_or("", |way| way.name);
        // Criterion warms up until its time is over, by the clock: no round of before can be handed to it then.
        let (mut warm, mut round) = (Duration::ZERO, 0);
        group.bench_function(way, |bencher| {
            bencher.iter_custom(|iterations| {
                if warm <= WARM {
                    let took: Duration = (0..iterations).filter_map(|_| rounds.ways.get(asked)).map(Way::again).sum();
                    warm += took;
                    return took;
                }
                let from = round;
                round += iterations as usize;
                (from..round).map(|round| rounds.get(round, asked)).sum()
            });
        });
    }
    group.finish();
    tell(name, &rounds.ways, &mut rounds.all);
}

/// What all rounds come to; nothing where criterion asked for none.
fn tell(name: &str, ways: &[Way<'_>], all: &mut [Vec<Duration>]) {
    let mut medians = Vec::new();
    for times in all.iter_mut() {
        times.sort_unstable();
        medians.extend(times.get(times.len() / 2).copied());
    }
    let (Some(first), Some(rounds)) = (medians.first(), all.first().map(Vec::len)) else { return };
    println!("{name}: medians of {rounds} rounds, each of all ways");
    for ((way, median), times) in ways.iter().zip(&medians).zip(all.iter()) {
        let (least, most) = (times.first().copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
        let ratio = median.as_secs_f64() / first.as_secs_f64();
        println!("  {:20} {median:>9.3?} (from {least:.3?} to {most:.3?}), {ratio:.2} of {}", way.name, ways[0].name);
    }
}

/// A registry with an image in it, and the same image in files.
struct Lab {
    ctr: PathBuf,
    registry: Child,
    name: String,
    folder: TempDir,
}

impl Lab {
    fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("isolab-bench-").tempdir()?;
        // Our own is beside this benchmark, one folder up.
        let beside = env::current_exe()?.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        let ctr = beside.join("isolab-ctr");
        let mut serve = Command::new(&ctr);
        serve.args(["registry", "serve", "--listen", "127.0.0.1:0"]).arg(folder.path().join("registry"));
        let mut registry = serve.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(out) = registry.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let host = line.trim().trim_start_matches("http://").to_owned();
        let lab = Self { ctr, registry, name: format!("{host}/bench/image:1"), folder };
        match env::var_os("ISOLAB_IMAGE_TAR") {
            Some(archive) => {
                fs::create_dir(lab.path("tree"))?;
                let mut tar = Command::new("tar");
                must(tar.arg("-xpf").arg(archive).args(["--numeric-owner", "-C"]).arg(lab.path("tree")));
            }
            None => write_tree(&lab.path("tree"))?,
        }
        must(Command::new("tar").args(["-C"]).arg(lab.path("tree")).args(["-cf"]).arg(lab.path("root.tar")).arg("."));
        must(lab.own("first").arg("import").arg(lab.path("root.tar")).arg(&lab.name));
        must(lab.own("first").args(["push", &lab.name]));
        // What others begin with: the layers as the registry has them, in an OCI layout.
        if has("skopeo") {
            must(&mut lab.skopeo("layout"));
        }
        Ok(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn without(&self, name: &str) {
        if self.path(name).exists() {
            fs::remove_dir_all(self.path(name)).expect("what was there is removed");
        }
    }

    fn own(&self, store: &str) -> Command {
        let mut command = Command::new(&self.ctr);
        command.arg("--root").arg(self.path(store)).env("ISOLAB_NETWORK", "none");
        command
    }

    fn podman(&self, words: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.path("podman")).arg("--runroot").arg(self.path("podman-run"));
        command.args(["--cgroup-manager=cgroupfs", "--events-backend=none"]).args(words);
        command
    }

    fn skopeo(&self, layout: &str) -> Command {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--src-tls-verify=false", &format!("docker://{}", self.name)]);
        command.arg(format!("oci:{}:image", self.path(layout).display()));
        command
    }

    fn umoci(&self, layout: &str, to: &str) -> Command {
        let mut command = Command::new("umoci");
        command.args(["unpack", "--image", &format!("{}:image", self.path(layout).display())]).arg(self.path(to));
        command
    }

    fn pulls(&self) -> Vec<Way<'_>> {
        let mut ways = vec![Way {
            name: "isolab-ctr",
            clear: Box::new(|| self.without("store")),
            act: Box::new(|| run(self.own("store").args(["pull", "--quiet", &self.name]))),
        }];
        if has("podman") {
            ways.push(Way {
                name: "podman",
                clear: Box::new(|| {
                    // What it can't do shows in the pull.
                    let _ = run(&mut self.podman(&["rmi", "--all", "--force"]));
                }),
                act: Box::new(|| run(&mut self.podman(&["pull", "--quiet", "--tls-verify=false", &self.name]))),
            });
        }
        if has("skopeo") && has("umoci") {
            ways.push(Way {
                name: "skopeo and umoci",
                clear: Box::new(|| ["copied", "bundle"].iter().for_each(|name| self.without(name))),
                act: Box::new(|| Ok(run(&mut self.skopeo("copied"))? + run(&mut self.umoci("copied", "bundle"))?)),
            });
        }
        ways
    }

    fn unpacks(&self) -> Vec<Way<'_>> {
        let layer = self.layer();
        let tar = layer.clone();
        let mut ways = vec![
            Way {
                name: "isolab",
                clear: Box::new(|| self.without("unpacked")),
                act: Box::new(move || {
                    let into = self.path("unpacked");
                    fs::create_dir(&into).expect("a folder");
                    let start = Instant::now();
                    let packed = BufReader::with_capacity(256 << 10, File::open(&layer).expect("the layer"));
                    isolab_runtime::image::unpack_packed(packed, &into).expect("it is unpacked");
                    Ok(start.elapsed())
                }),
            },
            Way {
                name: "tar",
                clear: Box::new(|| self.without("untarred")),
                act: Box::new(move || {
                    fs::create_dir(self.path("untarred")).expect("a folder");
                    run(Command::new("tar").arg("-xzf").arg(&tar).arg("-C").arg(self.path("untarred")))
                }),
            },
        ];
        if has("skopeo") && has("umoci") {
            ways.push(Way {
                name: "umoci",
                clear: Box::new(|| self.without("bundle")),
                act: Box::new(|| run(&mut self.umoci("layout", "bundle"))),
            });
        }
        ways
    }

    fn layers(&self) -> Vec<Way<'_>> {
        vec![
            Way {
                name: "isolab",
                clear: Box::new(|| {}),
                act: Box::new(|| {
                    let out = BufWriter::with_capacity(256 << 10, File::create(self.path("made.tar")).expect("a file"));
                    let start = Instant::now();
                    isolab_runtime::image::diff(&[], &self.path("tree"), None, out).expect("an archive");
                    Ok(start.elapsed())
                }),
            },
            Way {
                name: "tar",
                clear: Box::new(|| {}),
                act: Box::new(|| {
                    let mut tar = Command::new("tar");
                    run(tar.arg("-C").arg(self.path("tree")).arg("-cf").arg(self.path("other.tar")).arg("."))
                }),
            },
        ]
    }

    /// The only large blob that the registry has: the layer as it was pushed.
    fn layer(&self) -> PathBuf {
        let all = fs::read_dir(self.path("registry").join("blobs/sha256")).expect("the registry's blobs");
        let sizes = all.flatten().map(|entry| (entry.metadata().map_or(0, |data| data.len()), entry.path()));
        sizes.max().map(|(_, path)| path).expect("a layer")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.registry.kill());
        drop(self.registry.wait());
        // podman may have mounted its store's folder there.
        if self.path("podman").exists() {
            let folder = self.path("podman").join("overlay");
            drop(Command::new("umount").arg(folder).stderr(Stdio::null()).status());
        }
    }
}

fn has(program: &str) -> bool {
    let found = env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|at| at.join(program).is_file()));
    if !found {
        eprintln!("left out: {program}: not on PATH");
    }
    found
}

/// Runs a command and times it.
fn run(command: &mut Command) -> Result<Duration, String> {
    subject::timed(PATIENCE, command).map(Duration::from_nanos)
}

/// The same of a command that must succeed, since nothing is measured without it.
fn must(command: &mut Command) {
    run(command).unwrap_or_else(|reason| panic!("{command:?}: {reason}"));
}

/// Files of all sizes, half of whose bytes pack well and half not at all.
fn write_tree(tree: &Path) -> io::Result<()> {
    for folder in 0..FOLDERS {
        fs::create_dir_all(tree.join(format!("usr/share/{folder}")))?;
    }
    let mut noise = 1_u32;
    for number in 0..FILES {
        let size = number.wrapping_mul(2_654_435_761) % LARGEST;
        let mut file = BufWriter::new(File::create(tree.join(format!("usr/share/{}/{number}", number % FOLDERS)))?);
        for at in 0..size {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            file.write_all(&[if at % 2 == 0 { (noise >> 24) as u8 } else { b'a' }])?;
        }
        file.flush()?;
    }
    Ok(())
}

criterion_group!(benches, image);
criterion_main!(benches);
