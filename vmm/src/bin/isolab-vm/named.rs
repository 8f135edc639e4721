//! The verbs of machines with names: each calls one function of the library and prints.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use isolab_vmm::api::{Doing, Request};
use isolab_vmm::confine::{Duties, confine};
use isolab_vmm::guest::app::App;
use isolab_vmm::guest::bare::Bare;
use isolab_vmm::guest::linux::Linux;
use isolab_vmm::guest::{Any, GuestError};
use isolab_vmm::machine::pc::{self, Pc};
use isolab_vmm::machine::{Config, Ended, Machine as Boots, Template};
use isolab_vmm::memory::Loading;
use isolab_vmm::named::{Base, Entry, Inside, Kind, Machine, Name, NamedError, Store};
use isolab_vmm::serve::{Home, Server};
use isolab_vmm::snapshot::Snapshot;
use isolab_vmm::travel;
use isolab_vmm::units::Mib;

use crate::devices;
use crate::failure::Failure;
use crate::named_cli::{Clone, Create, Named, Serve, Start};
use crate::run::{GRACE, attendant, environment, live_as_pc, status};

/// Does what was asked for, with the machines beneath `root`; returns the status to end with.
pub(crate) fn obey(root: &Path, named: &Named) -> Result<u8, Failure> {
    let store = Store::open(root)?;
    match named {
        Named::Create(create) => make(&store, create)?,
        Named::Start(wanted) if wanted.detach => detach(root, &store, wanted)?,
        Named::Start(wanted) => return start(&store, wanted),
        Named::Stop { names, grace } => names.iter().try_for_each(|name| store.find(name)?.stop(*grace))?,
        Named::Pause { name } => store.find(name)?.ask(&Request::Pause).map(|_| ())?,
        Named::Resume { name } => store.find(name)?.ask(&Request::Resume).map(|_| ())?,
        Named::Ls { json } => list(&store, *json)?,
        Named::Inspect { name } => print(&json(&store.find(name)?.entry()?))?,
        Named::Snapshot { name, snapshot, diff } => {
            store.find(name)?.snapshot(&store, snapshot, *diff).map(|_| ())?;
        }
        Named::Snapshots { name } => tree(&store.find(name)?)?,
        Named::Rollback { name, snapshot, .. } => store.find(name)?.roll_back(snapshot.as_ref())?,
        Named::Rm { names } => names.iter().try_for_each(|name| store.remove(name))?,
        Named::RmSnapshot { name, snapshot } => store.find(name)?.remove_snapshot(&store, snapshot)?,
        Named::Clone(clone) => make_clones(&store, clone)?,
        Named::Export { from, to } => {
            travel::export(&store, &from.machine, from.snapshot.as_ref(), &to.folder, &to.tag).map(|_| ())?;
        }
        Named::Import { from, name } => travel::import(&store, &from.folder, &from.tag, name)?,
        Named::Push { from, to } => travel::push(&store, &from.machine, from.snapshot.as_ref(), to).map(|_| ())?,
        Named::Pull { from, name } => travel::pull(&store, from, name)?,
        Named::Serve(wanted) => return serve(&store, wanted),
    }
    Ok(0)
}

fn make(store: &Store, create: &Create) -> Result<(), Failure> {
    let text = |word: &std::ffi::OsStr| {
        word.to_str().map(str::to_owned).ok_or_else(|| Failure::NotText(word.to_string_lossy().into_owned()))
    };
    let texts = |words: &[std::ffi::OsString]| words.iter().map(|word| text(word)).collect::<Result<Vec<_>, _>>();
    let arguments = texts(&create.arguments)?;
    // From wherever it will be started.
    let path = |path: &Path| text(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).as_os_str());
    let inside = match (&create.inside.bare, &create.inside.app, &create.inside.kernel) {
        (Some(guest), _, _) => Inside::Bare { guest: guest.clone(), arguments },
        (_, Some(program), _) => {
            Inside::App { program: path(program)?, arguments, environment: texts(&environment(&create.env))? }
        }
        (_, _, Some(kernel)) => Inside::Linux {
            kernel: path(kernel)?,
            initrd: create.linux.initrd.as_deref().map(path).transpose()?,
            command_line: create.linux.cmdline.clone(),
            cpus: create.linux.cpus,
            devices: devices::wirings(&create.linux),
        },
        (None, None, None) => unreachable!("clap requires one of the three"),
    };
    // What can't be put inside is refused now, not at the first start.
    match &inside {
        Inside::Linux { .. } => linux(&inside).map(|_| ())?,
        Inside::App { .. } | Inside::Bare { .. } => guest(&inside).map(|_| ())?,
    }
    store.create(&create.name, create.memory.0, inside)?;
    Ok(())
}

/// What runs inside a machine that boots.
fn guest(inside: &Inside) -> Result<Any, GuestError> {
    Ok(match inside {
        Inside::App { program, arguments, environment } => {
            let words = |list: &[String]| list.iter().map(Into::into).collect::<Vec<_>>();
            Any::App(Box::new(App::open(Path::new(program), &words(arguments), &words(environment))?))
        }
        Inside::Bare { guest, arguments } => {
            Any::Bare(guest.parse().and_then(|name| Bare::new(name, arguments)).map_err(GuestError::from)?)
        }
        Inside::Linux { .. } => return Err(GuestError::NotSaved),
    })
}

/// The kernel of a machine that has one, and how many processors.
fn linux(inside: &Inside) -> Result<(Linux, u8), GuestError> {
    let Inside::Linux { kernel, initrd, command_line, cpus, .. } = inside else { return Err(GuestError::NotSaved) };
    Ok((Linux::open(Path::new(kernel), initrd.as_deref().map(Path::new), command_line)?, *cpus))
}

/// Runs a machine with an operating system to its end: from its boot, or from a snapshot.
fn start_pc(machine: &Machine, base: Option<Snapshot>, wanted: &Start) -> Result<u8, Failure> {
    let console = Box::new(io::stdout());
    let Some(snapshot) = base else {
        let (linux, cpus) = linux(&machine.record.inside)?;
        let (memory, timeout) = (Mib(machine.record.memory), wanted.timeout);
        let config = pc::Config { memory, cpus, timeout, interpreted: pc::Interpreted::Refuse };
        let uuid = machine.record.identity.uuid.parse().map_err(Failure::NotText)?;
        let pc = Pc::boot_as(uuid, &config, &linux, console, machine.wirings()?)?;
        return live_as_pc(pc, true, Some(&machine.socket()), false, GRACE);
    };
    // It holds the snapshot's lock until the machine has ended.
    let template = Template::new(snapshot)?;
    let pc = Pc::restore(&template, wanted.loading.loading(), wanted.timeout, console, &machine.renewal()?)?;
    live_as_pc(pc, true, Some(&machine.socket()), wanted.loading.loading() == Loading::Recorded, GRACE)
}

/// A machine with a name can be asked for snapshots.
const SAVES: Duties = Duties { threads: false, saves: true, serves: false, forks: false };

/// Runs the machine to its end.
fn start(store: &Store, wanted: &Start) -> Result<u8, Failure> {
    let mut machine = store.find(&wanted.name)?;
    let _running = machine.run()?;
    machine.begun()?;
    let base = machine.open_base(store)?;
    if let Inside::Linux { .. } = machine.record.inside {
        return start_pc(&machine, base, wanted);
    }
    if let Some(snapshot) = base {
        let template = Template::new(snapshot)?;
        let (_socket, mut attendant) = attendant(Some(&machine.socket()))?;
        let paused = Boots::restore(&template, wanted.loading.loading(), wanted.timeout, io::stdout())?;
        confine(SAVES)?;
        return Ok(status(paused.resume_under(&mut attendant)?));
    }
    let config = Config { memory: Mib(machine.record.memory), timeout: wanted.timeout };
    let guest = guest(&machine.record.inside)?;
    let (_socket, mut attendant) = attendant(Some(&machine.socket()))?;
    let paused = Boots::boot(&config, guest, io::stdout())?;
    confine(SAVES)?;
    Ok(status(paused.resume_under(&mut attendant)?))
}

/// Lets another process, in a session of its own, run the machine; returns once it can be asked.
fn detach(root: &Path, store: &Store, wanted: &Start) -> Result<(), Failure> {
    let machine = store.find(&wanted.name)?;
    drop(machine.run()?);
    let (console, input) = (machine.console(), machine.input());
    let failed = |path: &Path| {
        let to = path.display().to_string();
        move |source| Failure::Write { to, source }
    };
    let log = File::options().create(true).append(true).open(&console).map_err(failed(&console))?;
    match nix::unistd::mkfifo(&input, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(errno) => return Err(failed(&input)(errno.into())),
    }
    // For reading and writing: so it does not wait for a writer, and never ends.
    let input_end = File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(&input);
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(root).arg("start").arg(wanted.name.to_string());
    command.args(wanted.loading.option());
    if let Some(timeout) = wanted.timeout {
        command.arg("--timeout").arg(timeout.as_secs_f64().to_string());
    }
    command.stdin(input_end.map_err(failed(&input))?);
    command.stdout(log.try_clone().map_err(failed(&console))?).stderr(Stdio::from(log));
    // SAFETY: setsid(2) is async-signal-safe, as what runs between fork and exec must be.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(io::Error::from)) };
    let mut child = command.spawn().map_err(failed(Path::new("a process of its own")))?;
    loop {
        match machine.status() {
            Ok(status) if status.pid == child.id() => return Ok(()),
            Ok(_) | Err(NamedError::DoesNotRun(_) | NamedError::Asked(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Ok(Some(status)) = child.try_wait() {
            // A machine may be quick; one that failed has said why.
            return if status.success() { Ok(()) } else { Err(Failure::EndedAtOnce { status, console }) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn make_clones(store: &Store, clone: &Clone) -> Result<(), Failure> {
    let parent = store.find(&clone.from.machine)?;
    let names: Vec<Name> = match clone.count {
        None => vec![clone.new.clone()],
        Some(count) => {
            let numbered = (1..=count.get()).map(|number| format!("{}-{number}", clone.new).parse());
            numbered.collect::<Result<_, _>>().map_err(Failure::Name)?
        }
    };
    let kind = if clone.full { Kind::Full } else { Kind::Linked };
    store.clone_machines(&parent, clone.from.snapshot.as_ref(), kind, &names, clone.address.as_deref())?;
    Ok(())
}

/// Hands out clones until a signal ends it.
fn serve(store: &Store, wanted: &Serve) -> Result<u8, Failure> {
    let snapshot = match (&wanted.dir, &wanted.from) {
        (Some(folder), _) => Snapshot::open(folder)?,
        (None, Some(at)) => {
            let machine = store.find(&at.machine)?;
            machine.open(&machine.choose(at.snapshot.as_ref())?.0)?
        }
        (None, None) => unreachable!("clap requires one of the two"),
    };
    let home = if wanted.in_process { Home::Threads } else { Home::Processes };
    let server = Server::listen(&wanted.socket, Template::new(snapshot)?, home)?;
    // Whoever started it may wait for this line.
    print(&format!("serving {}", wanted.socket.display()))?;
    Ok(status(Ended::Signal(server.run()?)))
}

fn json(entry: &Entry) -> String {
    serde_json::to_string_pretty(entry).unwrap_or_default()
}

fn print(text: &str) -> Result<(), Failure> {
    let written = writeln!(io::stdout().lock(), "{text}");
    written.map_err(|source| Failure::Write { to: "standard output".to_owned(), source })
}

fn list(store: &Store, as_json: bool) -> Result<(), Failure> {
    let entries: Vec<Entry> = store.all()?.iter().map(Machine::entry).collect::<Result<_, _>>()?;
    if as_json {
        return print(&serde_json::to_string_pretty(&entries).unwrap_or_default());
    }
    let mut lines = vec![["NAME", "STATE", "MEMORY", "SNAPSHOTS", "STARTS FROM"].map(str::to_owned)];
    for entry in &entries {
        let state = match entry.state {
            Doing::Running => "running",
            Doing::Paused => "paused",
            Doing::Stopped => "stopped",
        };
        let memory = Mib(entry.record.memory).to_string();
        let base = base(&entry.name, &entry.record.base);
        lines.push([entry.name.to_string(), state.to_owned(), memory, entry.snapshots.len().to_string(), base]);
    }
    print(&table(&lines))
}

fn base(own: &Name, base: &Base) -> String {
    match base {
        Base::Boot => "boot".to_owned(),
        Base::Snapshot { machine, snapshot, .. } => format!("{}@{snapshot}", machine.as_ref().unwrap_or(own)),
    }
}

/// Columns as wide as what is in them.
fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let widths: Vec<usize> =
        (0..N).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn tree(machine: &Machine) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for branch in machine.tree()? {
        let here = if machine.record.current.as_ref() == Some(&branch.about.id) { "  <- here" } else { "" };
        let indent = "  ".repeat(branch.depth);
        let changes = if branch.about.changes { " of changes" } else { "" };
        lines.push(format!("{indent}{}  {} KiB{changes}{here}", branch.name, branch.about.bytes / 1024));
    }
    if lines.is_empty() { Ok(()) } else { print(&lines.join("\n")) }
}
