//! The cleaner on this very host: what a killed bench left is gone, and what a living one has is not.
//!
//! As root, since it mounts, makes control groups and starts processes; everything is undone, also where a trial fails.

mod needs;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use isolab_bench::host::clean::{Kind, clean};
use isolab_bench::host::owner::Owner;
use isolab_bench::host::roots::Roots;
use isolab_bench::payload::PAYLOAD;
use libtest_mimic::{Arguments, Failed};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use needs::{Done, ensure, trial};

fn main() {
    let trials = vec![
        trial("a_dead_benchs_process_mount_and_folder_are_removed", &["root"], dead_scratch),
        trial("a_living_benchs_process_mount_and_folder_are_left_alone", &["root"], living_scratch),
        trial("an_editor_opened_in_a_dead_scratch_folder_lives_on", &["root"], bystander),
        trial("a_dead_benchs_control_group_goes_with_who_is_in_it", &["cgroup"], dead_group),
    ];
    // One at a time: the control groups are the host's.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}

/// The lab's folders in a place of the trial's own, and a scratch folder of `owner` there.
struct Place {
    roots: Roots,
    scratch: PathBuf,
    _folder: TempDir,
}

impl Place {
    fn of(owner: Owner) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let roots = Roots { runtime: folder.path().join("run"), data: folder.path().join("data") };
        let scratch = owner.scratch(&roots.runtime);
        fs::create_dir_all(&scratch)?;
        Ok(Self { roots, scratch, _folder: folder })
    }
}

fn me() -> Result<Owner, Failed> {
    Owner::me().ok_or_else(|| "no /proc here".into())
}

/// This process' pid, at a time when somebody else had it.
fn dead() -> Result<Owner, Failed> {
    let me = me()?;
    Ok(Owner { start: me.start - 1, ..me })
}

/// A tmpfs, unmounted at the latest when the trial ends.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn on(point: PathBuf) -> Result<Self, Failed> {
        fs::create_dir_all(&point)?;
        mount(Some("isolab-test"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        Ok(Self(point))
    }

    fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        table.lines().any(|line| line.split(' ').nth(1).is_some_and(|point| Path::new(point) == self.0))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH); // gone already, where the cleaner did its work
    }
}

/// A child, killed and reaped at the latest when the trial ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self, Failed> {
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    }

    /// The payload, waiting for ever, in `folder`.
    fn payload_in(folder: &Path) -> Result<Self, Failed> {
        let program = folder.join("isolab-payload");
        fs::write(&program, PAYLOAD)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Self::start(Command::new(program).args(["nonce", "idle"]).current_dir(folder))
    }

    fn runs(&mut self) -> Result<bool, Failed> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // ended already, where the cleaner did its work
        let _ = self.0.wait();
    }
}

fn dead_scratch() -> Done {
    let place = Place::of(dead()?)?;
    let tmpfs = Tmpfs::on(place.scratch.join("rootfs"))?;
    let mut payload = Running::payload_in(&place.scratch)?;
    let cleaned = clean(&place.roots);
    ensure(cleaned.left.is_empty(), format!("left: {:?}", cleaned.left))?;
    for kind in [Kind::Process, Kind::Mount, Kind::Scratch] {
        let count = cleaned.removed.iter().filter(|item| item.kind == kind).count();
        ensure(count == 1, format!("{count} of kind {kind:?}: {cleaned}"))?;
    }
    ensure(!payload.runs()?, "the payload still runs")?;
    ensure(!tmpfs.is_mounted(), "the tmpfs is still mounted")?;
    ensure(!place.scratch.exists(), "the scratch folder is still there")?;
    ensure(clean(&place.roots).removed.is_empty(), "a second cleaning found something")
}

fn living_scratch() -> Done {
    let place = Place::of(me()?)?;
    let tmpfs = Tmpfs::on(place.scratch.join("rootfs"))?;
    let mut payload = Running::payload_in(&place.scratch)?;
    let cleaned = clean(&place.roots);
    ensure(cleaned.removed.is_empty() && cleaned.left.is_empty(), cleaned.to_string())?;
    ensure(payload.runs()? && tmpfs.is_mounted(), "a living bench lost its process or its mount")
}

fn bystander() -> Done {
    let place = Place::of(dead()?)?;
    let mut editor = Running::start(Command::new("sleep").arg("60").current_dir(&place.scratch))?;
    let cleaned = clean(&place.roots);
    ensure(editor.runs()?, format!("a bystander was killed: {cleaned}"))
}

/// A control group that is gone at the latest when the trial ends.
struct Group(PathBuf);

impl Group {
    /// In the first hierarchy that is mounted.
    fn make(name: &str) -> Result<Self, Failed> {
        let table = fs::read_to_string("/proc/self/mounts")?;
        let mut fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let hierarchy = fields.find(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))));
        let point = hierarchy.and_then(|fields| fields.get(1).copied()).ok_or("no cgroup hierarchy is mounted")?;
        let group = Path::new(point).join("isolab").join(name);
        fs::create_dir_all(&group)?;
        Ok(Self(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

fn dead_group() -> Done {
    let place = Place::of(me()?)?;
    let group = Group::make(&format!("bench-{}-1", dead()?))?;
    let others = Group::make(&format!("bench-{}-1", me()?))?;
    let mut member = Running::start(Command::new("sleep").arg("60"))?;
    fs::write(group.0.join("cgroup.procs"), member.0.id().to_string())?;
    let cleaned = clean(&place.roots);
    ensure(!member.runs()?, format!("the member still runs: {cleaned}"))?;
    ensure(!group.0.exists(), format!("the group is still there: {cleaned}"))?;
    ensure(others.0.exists(), format!("a living bench lost its group: {cleaned}"))
}
