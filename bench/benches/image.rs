//! Images: fetched, unpacked and made, beside podman, skopeo with umoci, and tar.
//!
//! `pull` is a command with an empty store that has the image unpacked at its end, from a registry of ours on loopback;
//! `unpack` has the layer's archive on the disk already; `layer` makes the archive of a changed folder, unpacked. One
//! iteration does each of them in turn, and criterion is given the one that it asks for: so a drifting machine bends all
//! of them alike, and medians of one group may be divided. A line at the group's end does so, over all of its rounds: to
//! compare all ways of a slow group, ask for one of them (`-- pull/isolab-ctr`).
//!
//! The image is made up of files, the same everywhere; `ISOLAB_IMAGE_TAR` names an archive of a root to be used instead,
//! such as that of Debian by debootstrap.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use isolab_bench::siblings;
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
    act: Box<dyn Fn() -> Duration + 'a>,
}

impl Way<'_> {
    /// One time. Before it, all that others have written goes to the disk: who syncs what it made would pay for theirs too.
    fn once(&self) -> Duration {
        (self.clear)();
        timed(&mut Command::new("sync"));
        (self.act)()
    }
}

fn image(criterion: &mut Criterion) {
    siblings::build().expect("cargo builds the engines");
    let lab = Lab::new().expect("an image in a registry");
    group(criterion, "pull", &lab.pulls());
    group(criterion, "unpack", &lab.unpacks());
    group(criterion, "layer", &lab.layers());
}

fn group(criterion: &mut Criterion, name: &str, ways: &[Way<'_>]) {
    let mut group = criterion.benchmark_group(name);
    // Only one way of each round counts for criterion, so that a second of its time is several of yours.
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(2));
    let mut all: Vec<Vec<Duration>> = vec![Vec::new(); ways.len()];
    for (asked, way) in ways.iter().enumerate() {
        group.bench_function(way.name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    for (number, (way, times)) in ways.iter().zip(&mut all).enumerate() {
                        let took = way.once();
                        times.push(took);
                        if number == asked {
                            total += took;
                        }
                    }
                }
                total
            });
        });
    }
    group.finish();
    tell(name, ways, &mut all);
}

/// What all rounds come to, whichever way criterion asked for; nothing where it asked for none.
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
                timed(tar.arg("-xpf").arg(archive).args(["--numeric-owner", "-C"]).arg(lab.path("tree")));
            }
            None => write_tree(&lab.path("tree"))?,
        }
        timed(Command::new("tar").args(["-C"]).arg(lab.path("tree")).args(["-cf"]).arg(lab.path("root.tar")).arg("."));
        timed(lab.own("first").arg("import").arg(lab.path("root.tar")).arg(&lab.name));
        timed(lab.own("first").args(["push", &lab.name]));
        // What others begin with: the layers as the registry has them, in an OCI layout.
        if has("skopeo") {
            timed(&mut lab.skopeo("layout"));
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
            act: Box::new(|| timed(self.own("store").args(["pull", "--quiet", &self.name]))),
        }];
        if has("podman") {
            ways.push(Way {
                name: "podman",
                clear: Box::new(|| {
                    timed(&mut self.podman(&["rmi", "--all", "--force"]));
                }),
                act: Box::new(|| timed(&mut self.podman(&["pull", "--quiet", "--tls-verify=false", &self.name]))),
            });
        }
        if has("skopeo") && has("umoci") {
            ways.push(Way {
                name: "skopeo and umoci",
                clear: Box::new(|| ["copied", "bundle"].iter().for_each(|name| self.without(name))),
                act: Box::new(|| timed(&mut self.skopeo("copied")) + timed(&mut self.umoci("copied", "bundle"))),
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
                    start.elapsed()
                }),
            },
            Way {
                name: "tar",
                clear: Box::new(|| self.without("untarred")),
                act: Box::new(move || {
                    fs::create_dir(self.path("untarred")).expect("a folder");
                    timed(Command::new("tar").arg("-xzf").arg(&tar).arg("-C").arg(self.path("untarred")))
                }),
            },
        ];
        if has("skopeo") && has("umoci") {
            ways.push(Way {
                name: "umoci",
                clear: Box::new(|| self.without("bundle")),
                act: Box::new(|| timed(&mut self.umoci("layout", "bundle"))),
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
                    start.elapsed()
                }),
            },
            Way {
                name: "tar",
                clear: Box::new(|| {}),
                act: Box::new(|| {
                    let mut tar = Command::new("tar");
                    timed(tar.arg("-C").arg(self.path("tree")).arg("-cf").arg(self.path("other.tar")).arg("."))
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

/// Runs a command, which must succeed, and times it from before its start until it is reaped.
fn timed(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.output().expect("the command starts");
    let took = start.elapsed();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
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
