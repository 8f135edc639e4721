//! What a snapshot costs: to take it, to go on from it, and to touch again what was in memory.
//!
//! Two lines are drawn. Over the *size* of the machine: what was never touched should cost nothing. Over what is *touched* after going
//! on: what is saved at the start is paid then. Of containers the changes are made an image (`commit`), and CRIU is asked for
//! their processes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use isolab_reports::model::{Act, Copies, CopyCell, Cost, Sweep};
use isolab_vmm::machine::WORKING_SET;
use isolab_vmm::serve::Home;

use super::measure::{MIB, PAGE, disk, machine, with_disk};
use super::{Group, Outcomes, Single, Terms, all_failed, measure, outcome, singles};
use crate::clock;
use crate::host::{memory, tools};
use crate::subject::family::{Family, Files, ORIGIN};
use crate::subject::original::{Monitor, Original, save};
use crate::subject::template::Template;
use crate::subject::{Held, Lab, Nonce, Subject, command, errand, next_number};

/// The suite's name.
pub const NAME: &str = "snapshot";

/// Memory of machines, in mebibytes.
const SIZES: [u32; 4] = [64, 128, 256, 1024];
/// The shares of it that they have written, one in so many; and how many of the sizes are measured so, all in all or quickly. The
/// large ones that have written half would take two thirds of the time, and leave too few rounds for any interval.
const SHARES: [(u32, usize, usize); 2] = [(8, 4, 2), (2, 2, 1)];
/// The memory of machines that have written nothing, in mebibytes; and when there is little time.
const UNTOUCHED: [u32; 4] = [64, 256, 1024, 4096];
const UNTOUCHED_QUICK: [u32; 2] = [64, 4096];
/// A machine that goes on, in mebibytes: its memory, what it has written, and what of that is written again.
#[derive(Clone, Copy)]
struct Touching {
    size: u32,
    dirty: u32,
    touches: &'static [u32],
}
const TOUCHED: Touching = Touching { size: 128, dirty: 64, touches: &[0, 8, 16, 64] };
const CHANGED: Touching = Touching { size: 128, dirty: 64, touches: &[1, 8, 64] };
const TOUCHED_QUICK: Touching = Touching { size: 64, dirty: 32, touches: &[0, 8, 32] };
const CHANGED_QUICK: Touching = Touching { size: 64, dirty: 32, touches: &[1, 8, 32] };
/// What a container has written before it is committed, in mebibytes.
const WRITTEN: [u32; 4] = [1, 4, 16, 64];

/// Measures it with what is there of the two kinds; none where neither is.
pub fn measure_all(lab: &Lab, subjects: &[Box<dyn Subject + '_>], terms: &Terms) -> Option<Copies> {
    let named = |name: &str| subjects.iter().find(|subject| subject.about().name == name).map(|subject| &**subject);
    let monitor = named("microvm-app").and_then(|_| command("isolab-vm"));
    let engine = named("container").and_then(|_| command("isolab-ctr"));
    let mut groups = Vec::new();
    if let Some(program) = &monitor {
        let monitor = Monitor { lab, program };
        for (share, all, quick) in SHARES {
            let sizes = SIZES.iter().take(if terms.quick { quick } else { all });
            groups.extend(sizes.map(|size| sized(monitor, *size, size / share)));
        }
        let untouched_sizes = if terms.quick { &UNTOUCHED_QUICK[..] } else { &UNTOUCHED };
        groups.extend(untouched_sizes.iter().map(|size| untouched(monitor, *size)));
        let (touching, changing) = if terms.quick { (TOUCHED_QUICK, CHANGED_QUICK) } else { (TOUCHED, CHANGED) };
        groups.extend([touched(monitor, touching), changed(monitor, changing)]);
    }
    if let Some(program) = &engine {
        let written = WRITTEN.iter().take(if terms.quick { 3 } else { WRITTEN.len() });
        groups.extend(written.map(|mib| committed(lab, program, *mib)));
        groups.push(checkpointed(lab, named("runc")));
    }
    if groups.is_empty() { None } else { Some(measure(NAME, groups, terms)) }
}

/// A snapshot of a small machine, and going on from it; going on with little and much memory; and two hundred clones, all alive in
/// the end: for benchmarks. Nothing where there is no monitor.
pub fn benches(lab: &Lab) -> Vec<Single<'_>> {
    let Some(program) = command("isolab-vm") else { return Vec::new() };
    // For the rest of the process: a benchmark's program ends with its benchmarks.
    let program = Box::leak(Box::new(program));
    let monitor = Monitor { lab, program };
    let untouched = UNTOUCHED_QUICK.map(|size| untouched(monitor, size));
    let mut all = singles([sized(monitor, 64, 8)].into_iter().chain(untouched));
    all.push(hundreds(monitor));
    all
}

/// How many clones a server shall hand out in a second.
const HUNDREDS: usize = 200;

/// So many clones of a server, one after the other, until all have proved themselves and live.
fn hundreds(monitor: Monitor<'_>) -> Single<'_> {
    let mut settled = None;
    let act = move || {
        if settled.is_none() {
            settled = Some(Untouched::settle(monitor, TOUCHED.size)?);
        }
        let Some(untouched) = &settled else { return Err("there is no server".to_owned()) };
        let held: Vec<Held> = (0..HUNDREDS).map(|_| untouched.lent()).collect::<Result<_, _>>()?;
        let all = held.iter().map(Held::ready_ns).sum();
        for mut held in held {
            held.dismiss();
            held.end()?;
        }
        Ok(all)
    };
    (format!("microvm-app served: {HUNDREDS} clones"), Box::new(act))
}

/// A cell of machines.
fn cell(act: Act, sweep: Sweep, [size, dirty, touch]: [u32; 3]) -> CopyCell {
    let bytes = |mib: u32| u64::from(mib) * MIB;
    let (word, about, command) = match act {
        Act::Lazy => (
            "lazy",
            "Goes on from a snapshot whose memory is mapped: a page is found when it is touched.",
            &["isolab-vm", "restore", "--lazy", "{}"][..],
        ),
        Act::Eager => (
            "eager",
            "Goes on from a snapshot after all that it holds of memory was read.",
            &["isolab-vm", "restore", "--eager", "{}"][..],
        ),
        Act::Prefetched => (
            "prefetched",
            "Goes on after those pages were read that a machine before it has touched.",
            &["isolab-vm", "restore", "--recorded", "{}"][..],
        ),
        Act::Served => (
            "served",
            "Goes on as the child of a server that keeps the snapshot in memory.",
            &["isolab-vm", "restore", "--server", "{}"][..],
        ),
        Act::Diff => (
            "changes",
            "A machine that went on from a snapshot and wrote is stopped, and what has changed since is saved on top of that.",
            &["isolab-vm", "ask", "{}", "snapshot", "--diff", "{}"][..],
        ),
        Act::Plain => (
            "plain write",
            "As many bytes as the machine has written, in one file on the same disk, synced: what any save has to do.",
            &["write(2), fdatasync(2)"][..],
        ),
        _ => (
            "create",
            "A running machine is stopped, saved whole to two files on the disk, and runs on.",
            &["isolab-vm", "ask", "{}", "snapshot", "{}"][..],
        ),
    };
    let saves = matches!(act, Act::Create | Act::Plain | Act::Diff);
    let over = match (sweep, saves) {
        (Sweep::Touch, true) => format!(" · {touch} MiB written since"),
        (Sweep::Touch, false) => format!(" · {touch} MiB touched"),
        _ => String::new(),
    };
    CopyCell {
        name: format!("microvm-app {word}: {dirty} of {size} MiB{over}"),
        subject: "microvm-app".to_owned(),
        act,
        sweep,
        size_bytes: bytes(size),
        dirty_bytes: bytes(dirty),
        touch_bytes: bytes(touch),
        // What is written before a save is on nobody's clock.
        writes: if saves { 0 } else { (bytes(touch) / PAGE) as u32 },
        depth: 1,
        together: 1,
        about: about.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
    }
}

/// One size: a snapshot is taken, as many bytes are written plainly, and the snapshot is gone on from lazily and eagerly.
fn sized(monitor: Monitor<'_>, size: u32, dirty: u32) -> Group<'_> {
    let acts = [Act::Create, Act::Lazy, Act::Eager, Act::Plain];
    let touch = |act| if matches!(act, Act::Create | Act::Plain) { 0 } else { dirty };
    let cells = acts.map(|act| cell(act, Sweep::Size, [size, dirty, touch(act)])).into();
    let act = move |original: &Original<'_>| {
        let folder = folder(monitor.lab);
        let created = original.snapshot(&folder.0).map(|ready_ns| {
            let (disk, apparent) = disk(&folder.0);
            Cost { ready_ns, disk_bytes: Some(disk), apparent_bytes: Some(apparent), ..Cost::default() }
        });
        if let Err(reason) = created {
            return all_failed(acts.len(), &reason);
        }
        let pages = u64::from(dirty) * MIB / PAGE;
        let again = |how| outcome(original.restored(how, folder.name()).and_then(|held| machine(held, pages, None)));
        let gone_on = [(0, outcome(created)), (1, again("--lazy")), (2, again("--eager"))];
        monitor.lab.settle_disk();
        let plain = write_plainly(&folder, u64::from(dirty) * MIB).map_err(|error| error.to_string());
        gone_on.into_iter().chain([(3, outcome(plain))]).collect()
    };
    Group::on(cells, move || begin(monitor, size, dirty), act)
}

/// Writes so many bytes to a file beside a snapshot's.
fn write_plainly(folder: &Folder, bytes: u64) -> io::Result<Cost> {
    let path = folder.0.join("plain");
    let piece = vec![1; MIB as usize];
    let begun = clock::now();
    let mut file = File::create(&path)?;
    for _ in 0..bytes / MIB {
        file.write_all(&piece)?;
    }
    file.sync_data()?;
    let ready_ns = clock::now() - begun;
    fs::remove_file(&path)?;
    Ok(Cost { ready_ns, ..Cost::default() })
}

/// A machine that has written nothing, its snapshot, and a server of that.
struct Untouched<'a> {
    original: Original<'a>,
    folder: Folder,
    template: Template,
}

impl<'a> Untouched<'a> {
    fn settle(monitor: Monitor<'a>, size: u32) -> Result<Self, String> {
        let (original, folder) = (begin(monitor, size, 0)?, folder(monitor.lab));
        original.snapshot(&folder.0)?;
        let template = Template::of(monitor.program, folder.0.clone(), original.nonce().clone());
        Ok(Self { original, folder, template })
    }

    /// Another of its server's.
    fn lent(&self) -> Result<Held, String> {
        self.original.lent(&self.template.served(Home::Processes)?)
    }
}

/// One size of which nothing was written: gone on from lazily, and as a clone of a server that is asked for it directly.
fn untouched(monitor: Monitor<'_>, size: u32) -> Group<'_> {
    let served = CopyCell {
        about:
            "Goes on as the child of a server that keeps the snapshot in memory; no command is started to ask for it."
                .to_owned(),
        command: vec!["isolab-vm".to_owned(), "serve".to_owned()],
        ..cell(Act::Served, Sweep::Size, [size, 0, 0])
    };
    let cells = vec![cell(Act::Lazy, Sweep::Size, [size, 0, 0]), served];
    let act = |untouched: &Untouched<'_>| {
        let lazy = untouched.original.restored("--lazy", untouched.folder.name());
        let cost = |held: Result<Held, String>| outcome(held.and_then(|held| machine(held, 0, None)));
        vec![(0, cost(lazy)), (1, cost(untouched.lent()))]
    };
    Group::on(cells, move || Untouched::settle(monitor, size), act)
}

/// One size, and more and more of it touched again, in each way of going on.
fn touched(monitor: Monitor<'_>, touching: Touching) -> Group<'_> {
    let Touching { size, dirty, touches } = touching;
    let ways =
        [(Act::Lazy, "--lazy"), (Act::Prefetched, "--recorded"), (Act::Eager, "--eager"), (Act::Served, "--server")];
    let cells: Vec<CopyCell> = ways
        .iter()
        .flat_map(|(act, _)| touches.iter().map(|touch| cell(*act, Sweep::Touch, [size, dirty, *touch])))
        .collect();
    let count = cells.len();
    let act = move |original: &Original<'_>| {
        let folder = folder(monitor.lab);
        if let Err(reason) = original.snapshot(&folder.0) {
            return all_failed(count, &reason);
        }
        let template = Template::of(monitor.program, folder.0.clone(), original.nonce().clone());
        let mut outcomes = Outcomes::new();
        for (way, (_, how)) in ways.iter().enumerate() {
            for (place, touch) in touches.iter().enumerate() {
                let from = match *how {
                    "--server" => template.served(Home::Processes).map(PathBuf::into_os_string),
                    "--recorded" => record(original, &folder, *touch).map(|()| folder.name()),
                    _ => Ok(folder.name()),
                };
                let held = from.and_then(|from| original.restored(how, from));
                let cost = held.and_then(|held| machine(held, u64::from(*touch) * MIB / PAGE, None));
                outcomes.push((way * touches.len() + place, outcome(cost.map(|cost| without_memory(how, cost)))));
            }
        }
        outcomes
    };
    Group::on(cells, move || begin(monitor, size, dirty), act)
}

/// Leaves a record of the pages that a machine touches which goes on and writes to so much again.
fn record(original: &Original<'_>, folder: &Folder, touch: u32) -> Result<(), String> {
    match fs::remove_file(folder.0.join(WORKING_SET)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.to_string()),
        _ => {}
    }
    machine(original.restored("--recorded", folder.name())?, u64::from(touch) * MIB / PAGE, None)?;
    Ok(())
}

/// A machine goes on, writes more and more, and is saved: only what changed, or all.
fn changed(monitor: Monitor<'_>, changing: Touching) -> Group<'_> {
    let Touching { size, dirty, touches } = changing;
    let acts = [Act::Diff, Act::Create];
    let plans: Vec<(Act, u32)> = acts.iter().flat_map(|act| touches.iter().map(|touch| (*act, *touch))).collect();
    let cells = plans.iter().map(|(act, touch)| cell(*act, Sweep::Touch, [size, dirty, *touch])).collect();
    let begin = move || {
        let original = begin(monitor, size, dirty)?;
        let base = folder(monitor.lab);
        original.snapshot(&base.0)?;
        Ok((original, base))
    };
    let act = move |(original, base): &(Original<'_>, Folder)| {
        let one = |(place, (act, touch)): (usize, &(Act, u32))| {
            (place, outcome(saved_since(original, base, *act == Act::Diff, u64::from(*touch) * MIB / PAGE)))
        };
        plans.iter().enumerate().map(one).collect()
    };
    Group::on(cells, begin, act)
}

/// One such save, and a machine that goes on from it.
fn saved_since(original: &Original<'_>, base: &Folder, diff: bool, pages: u64) -> Result<Cost, String> {
    let (mut held, socket) = original.listening(base.name())?;
    held.again(pages)?;
    let to = folder(original.lab());
    let ready_ns = save(original.lab(), &socket, &to.0, diff)?;
    held.dismiss();
    held.end()?;
    let (disk, apparent) = disk(&to.0);
    // It has the nonce, or it is not held.
    let mut proof = original.restored("--lazy", to.name())?;
    proof.dismiss();
    proof.end()?;
    Ok(Cost { ready_ns, disk_bytes: Some(disk), apparent_bytes: Some(apparent), ..Cost::default() })
}

/// A served machine is its server's child: what the command that asked for it has is not its memory.
fn without_memory(how: &str, cost: Cost) -> Cost {
    if how == "--server" { Cost { memory_bytes: None, ..cost } } else { cost }
}

/// Starts an original, if the host has room for it, its snapshot in the page cache, and a copy.
fn begin(monitor: Monitor<'_>, size: u32, dirty: u32) -> Result<Original<'_>, String> {
    let available = memory::meminfo().get("MemAvailable").copied().unwrap_or(u64::MAX);
    let wanted = 3 * u64::from(dirty) * MIB + memory::total() / 10;
    if available < wanted {
        return Err(format!("{} MiB are available, and {} MiB are wanted", available / MIB, wanted / MIB));
    }
    Original::start(monitor, size, dirty)
}

/// A folder that goes when this does.
struct Folder(PathBuf);

impl Folder {
    fn name(&self) -> OsString {
        self.0.clone().into_os_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn folder(lab: &Lab) -> Folder {
    Folder(lab.scratch().path().join(format!("snapshot-{}", next_number())))
}

/// What a container has written is made an image; a container of that starts.
fn committed<'a>(lab: &'a Lab, program: &'a std::path::Path, mib: u32) -> Group<'a> {
    const FILE: u64 = MIB / 4;
    let files = Files { count: mib * 4, bytes: FILE };
    let of = |act, word: &str, about: &str, command: &[&str]| CopyCell {
        name: format!("container {word}: {mib} MiB written"),
        subject: "container".to_owned(),
        act,
        sweep: Sweep::Size,
        size_bytes: u64::from(mib) * MIB,
        dirty_bytes: u64::from(mib) * MIB,
        touch_bytes: 0,
        writes: 0,
        depth: 1,
        together: 1,
        about: about.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
    };
    let cells = vec![
        of(
            Act::Commit,
            "commit",
            "What a running container has changed becomes a layer and an image.",
            &["isolab-ctr", "commit", "{}", "{}"],
        ),
        of(
            Act::Lazy,
            "run",
            "A container of that image starts; it proves itself by a file that the first one wrote.",
            &["isolab-ctr", "run", "-i", "{}", "/isolab-payload", "{}"],
        ),
    ];
    let begin = move || {
        let family = Family::with_image(lab, program, files)?;
        let nonce = Nonce::new();
        let mut held = family.run(ORIGIN, &nonce)?;
        held.write("/proof")?;
        for number in 0..files.count {
            held.write(&Files::path(number))?;
        }
        Ok((family, held, nonce))
    };
    let act = move |(family, _, nonce): &(Family<'_>, Held, Nonce)| {
        lab.settle_disk();
        let before = disk(family.root());
        let image = format!("copy{}", next_number());
        let committed = family
            .commit(ORIGIN, &image)
            .map(|ready_ns| with_disk(Cost { ready_ns, ..Cost::default() }, before, disk(family.root())));
        if let Err(reason) = committed {
            return all_failed(2, &reason);
        }
        let started = family.go_on(&image, &image, nonce).and_then(|mut held| {
            let cost = Cost { ready_ns: held.ready_ns(), ..Cost::default() };
            held.dismiss();
            held.end().map(|()| cost)
        });
        let gone = family.remove(&image).and_then(|()| family.remove_image(&image));
        vec![(0, outcome(committed)), (1, outcome(started.and_then(|cost| gone.map(|()| cost))))]
    };
    Group::on(cells, begin, act)
}

/// A container is written to files by CRIU, whom runc asks: a row, with the reason where that can't be.
fn checkpointed<'a>(lab: &'a Lab, runc: Option<&'a dyn Subject>) -> Group<'a> {
    let cells = vec![CopyCell {
        name: "runc checkpoint: CRIU".to_owned(),
        subject: "runc".to_owned(),
        act: Act::Checkpoint,
        sweep: Sweep::Size,
        size_bytes: 0,
        dirty_bytes: 0,
        touch_bytes: 0,
        writes: 0,
        depth: 1,
        together: 1,
        about: "The payload's container is written to files by CRIU, memory and all, and goes on.".to_owned(),
        command: ["runc", "checkpoint", "--leave-running", "--image-path", "{}", "{}"].map(str::to_owned).into(),
    }];
    let begin = move || criu_can().and_then(|()| runc.ok_or("runc is not here")?.hold());
    Group::on(cells, begin, move |held| vec![(0, outcome(checkpoint(lab, held)))])
}

fn checkpoint(lab: &Lab, held: &Held) -> Result<Cost, String> {
    // The runtime keeps its container's state in a folder of the container's name.
    let state = held.owned().last().ok_or("it has no state")?;
    let (root, id) = (state.parent().ok_or("no root")?, state.file_name().ok_or("no name")?);
    let folder = folder(lab);
    let runc = tools::find("runc").ok_or("runc is not on PATH")?;
    let words = [
        "--root".into(),
        root.as_os_str().to_owned(),
        "checkpoint".into(),
        "--leave-running".into(),
        "--image-path".into(),
        folder.name(),
        id.to_owned(),
    ];
    let ready_ns = errand::run(&runc, &words, lab.scratch().path())?;
    let (disk, apparent) = disk(&folder.0);
    Ok(Cost { ready_ns, disk_bytes: Some(disk), apparent_bytes: Some(apparent), ..Cost::default() })
}

/// CRIU's own word on whether it can save processes here.
fn criu_can() -> Result<(), String> {
    let path = tools::find("criu").ok_or("criu is not on PATH")?;
    let version = tools::version_of(&path).unwrap_or_else(|| "of unknown version".to_owned());
    let checked = errand::run(&path, &["check"], std::path::Path::new("/"));
    checked.map(drop).map_err(|reason| format!("criu {version} can't save processes here: {reason}"))
}
