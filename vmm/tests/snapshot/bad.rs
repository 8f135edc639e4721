//! What can't be gone on from, and snapshots that can't be taken: each refused, with what and why.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use isolab_vmm::api::{Request, ask};
use isolab_vmm::snapshot::format;
use libtest_mimic::{Failed, Trial};

use crate::machines::{Live, isolab_vm, place, refused, snapshot};
use crate::named::Root;
use crate::needs::{Done, trial};

const NEEDS: &[&str] = &["kvm", "gcc"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_folder_that_is_no_snapshot_is_refused", &[], no_snapshot),
        trial("a_state_that_was_cut_or_changed_is_refused_by_its_field", NEEDS, a_changed_state),
        trial("a_memory_that_is_too_short_is_refused", NEEDS, a_short_memory),
        trial("a_processor_that_this_host_lacks_is_refused", NEEDS, another_processor),
        trial("a_device_that_cannot_be_is_refused", NEEDS, an_impossible_device),
        trial("a_snapshot_is_never_written_over", NEEDS, never_written_over),
        trial("a_full_disk_is_told_and_nothing_is_left", &["kvm", "gcc", "root"], a_full_disk),
        trial("a_full_disk_costs_no_machine_and_no_snapshot", &["kvm", "gcc", "root"], a_full_folder),
        trial("a_snapshot_that_is_removed_meanwhile_is_gone_on_from_or_refused", NEEDS, removed_meanwhile),
        trial("a_request_that_is_none_is_answered_and_the_machine_goes_on", NEEDS, no_request),
        trial("a_forged_state_hurts_nobody_but_its_own_guest", NEEDS, forged_states),
    ]
}

/// A good snapshot, taken once.
fn good() -> Result<&'static Path, Failed> {
    static GOOD: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let taken = GOOD.get_or_init(|| {
        let take = || {
            let (_machine, socket) = Live::teller("good", &["--memory", "4"])?;
            let at = place("good-snapshot");
            snapshot(&socket, &at).map(|_| at)
        };
        take().map_err(|error: Failed| format!("{error:?}"))
    });
    taken.as_deref().map_err(|error| error.clone().into())
}

/// A copy of the good snapshot whose state is another.
fn with_state(name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<PathBuf, Failed> {
    let (good, at) = (good()?, place(name));
    fs::create_dir(&at)?;
    fs::copy(good.join("memory"), at.join("memory"))?;
    fs::write(at.join("state"), change(fs::read(good.join("state"))?))?;
    Ok(at)
}

/// The same, with a part of the text replaced under a checksum that is right.
fn forged(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> Result<PathBuf, Failed> {
    with_state(name, |bytes| {
        let mut value = serde_json::from_slice(&bytes[48..]).expect("the state is JSON");
        change(&mut value);
        format::seal(value.to_string().as_bytes())
    })
}

fn restore(at: &Path) -> Command {
    let mut command = isolab_vm(["restore", "--timeout", "20"]);
    command.arg(at);
    command
}

fn no_snapshot() -> Done {
    refused(restore(&place("nowhere")), &["cannot open the snapshot", "No such file", "hint: a snapshot is a folder"])?;
    let empty = place("empty");
    fs::create_dir(&empty)?;
    refused(restore(&empty), &["cannot open", "empty/state", "No such file"])?;
    fs::write(empty.join("state"), b"#!/bin/sh\necho this is no state, but long enough to be one\n")?;
    refused(restore(&empty), &["cannot use the state in", "magic: "])?;
    fs::remove_file(empty.join("state"))?;
    nix::unistd::mkfifo(&empty.join("state"), nix::sys::stat::Mode::S_IRWXU)?;
    refused(restore(&empty), &["cannot open", "empty/state"])?;
    let file = place("file");
    fs::write(&file, b"")?;
    refused(restore(&file), &["cannot open", "Not a directory"])
}

fn a_changed_state() -> Done {
    let cut = with_state("cut", |bytes| bytes[..bytes.len() - 1].to_vec())?;
    refused(restore(&cut), &["cut/state", "length: it says", "hint: it was changed or cut short"])?;
    let version = with_state("version", |mut bytes| {
        bytes[8] = 9;
        bytes
    })?;
    refused(restore(&version), &["version: it is 9, and this monitor reads 1", "hint: take it again"])?;
    let flipped = with_state("flipped", |mut bytes| {
        bytes[1000] ^= 4;
        bytes
    })?;
    refused(restore(&flipped), &["checksum: the bytes are not those that were written"])?;
    let field = forged("field", |state| state["vcpus"][0]["regs"] = "00".into())?;
    refused(restore(&field), &["vcpus[0].regs: it has 1 bytes, not 144"])
}

fn a_short_memory() -> Done {
    let at = with_state("short", |bytes| bytes)?;
    let memory = at.join("memory");
    fs::set_permissions(&memory, Permissions::from_mode(0o600))?;
    File::options().write(true).open(&memory)?.set_len((4 << 20) - 4096)?;
    refused(restore(&at), &["cannot use the memory", "4190208 bytes long", "4194304"])?;
    fs::remove_file(&memory)?;
    refused(restore(&at), &["cannot open", "short/memory"])
}

fn another_processor() -> Done {
    // Leaf 0's EBX, EDX and ECX are the maker's name; in the text each register is 8 digits, after function, index, flags.
    let maker = forged("maker", |state| {
        let leaf = state["vcpus"][0]["cpuid"][0].as_str().expect("a text").to_owned();
        state["vcpus"][0]["cpuid"][0] = format!("{}{}{}", &leaf[..32], "58585858".repeat(3), &leaf[56..]).into();
    })?;
    refused(restore(&maker), &["it was made on a processor of XXXXXXXXXXXX", "hint: use a host"])?;
    let more = forged("more", |state| {
        let list = state["vcpus"][0]["cpuid"].as_array_mut().expect("a list");
        let leaf = list.iter_mut().find(|leaf| leaf.as_str().is_some_and(|text| text.starts_with("01000000")));
        let leaf = leaf.expect("every processor has leaf 1");
        let text = leaf.as_str().expect("a text").to_owned();
        // All features there can be. ECX is the third register.
        *leaf = format!("{}ffffffff{}", &text[..40], &text[48..]).into();
    })?;
    refused(restore(&more), &["which this host lacks", "CPUID 0x1.0 ecx bit"])
}

fn an_impossible_device() -> Done {
    let gone = forged("gone", |state| state["devices"] = serde_json::json!({}))?;
    refused(restore(&gone), &["cannot restore the device serial: it is missing"])?;
    let full = forged("full", |state| state["devices"]["serial"]["received"] = vec![0; 65].into())?;
    refused(restore(&full), &["cannot restore the device serial: it holds more bytes than the chip"])
}

fn never_written_over() -> Done {
    let (mut machine, socket) = Live::teller("over", &[])?;
    let at = place("over-snapshot");
    snapshot(&socket, &at)?;
    let state = fs::read(at.join("state"))?;
    let error = snapshot(&socket, &at).unwrap_err();
    assert!(format!("{error:?}").contains("is there already"), "{error:?}");
    assert_eq!(fs::read(at.join("state"))?, state);
    for to in ["relative", "/proc/nowhere/snapshot"] {
        assert!(ask(&socket, &Request::Snapshot { to: to.into(), diff: false }).is_err());
    }
    machine.answers("nonce", "nonce over")
}

/// A file system of its own, gone with this value.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

impl Small {
    fn make(name: &str, size: &str) -> Result<Self, Failed> {
        let at = place(name);
        fs::create_dir(&at)?;
        nix::mount::mount(Some("isolab"), &at, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(size))?;
        Ok(Self(at))
    }
}

fn a_full_disk() -> Done {
    let small = Small::make("small", "size=2m")?;
    let (mut machine, socket) = Live::teller("disk", &[])?;
    machine.answers("touch 8", "touched 8")?;
    let error = format!("{:?}", snapshot(&socket, &small.0.join("snapshot")).unwrap_err());
    assert!(error.contains("No space left on device") && error.contains("memory"), "{error}");
    assert_eq!(fs::read_dir(&small.0)?.count(), 0, "nothing is left");
    machine.answers("nonce", "nonce disk")
}

/// Verbs of named machines that find no room: refused with that, and what was there stays.
fn a_full_folder() -> Done {
    let small = Small::make("small-folder", "size=8m")?;
    let root = Root(small.0.join("root"));
    root.create("web")?;
    let mut machine = root.start("web")?;
    machine.expect("ISOLAB-READY web")?;
    root.does("snapshot web base")?;
    let layout = place("small-layout");
    root.does(&format!("export web@base {}:v1", layout.display()))?;
    let filler = small.0.join("filler");
    let full = std::io::copy(&mut std::io::repeat(7), &mut File::create(&filler)?).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let import = format!("import {}:v1 come", layout.display());
    for line in ["snapshot web two", "clone --full web@base copy", "clone --count 3 web@base many", &import] {
        root.refuses(line, &["No space left on device"])?;
    }
    machine.answers("nonce", "nonce web")?;
    fs::remove_file(&filler)?;
    for line in ["snapshot web two", "clone --full web@base copy", &import] {
        root.does(line)?;
    }
    for name in ["copy", "come"] {
        root.start(name)?.answers("nonce", "nonce web")?;
    }
    let mut left: Vec<_> = fs::read_dir(root.0.join("vm"))?.flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, [".lock", "come", "copy", "web"]);
    Ok(())
}

/// Whoever is first has it: either goes on and it can't be removed, or it is gone and there is nothing to go on from.
fn removed_meanwhile() -> Done {
    let root = Root::new("meanwhile");
    root.create("web")?;
    let mut machine = root.start("web")?;
    machine.expect("ISOLAB-READY web")?;
    let (said, mut both) = (place("meanwhile-said"), [0, 0]);
    fs::write(&said, "nonce\nexit 3\n")?;
    for turn in 0..16 {
        root.does(&format!("snapshot web s{turn}"))?;
        let mut going_on = restore(&root.machine("web").join(format!("snapshots/s{turn}")));
        let going_on = going_on.stdin(File::open(&said)?).spawn()?;
        std::thread::sleep(std::time::Duration::from_micros(turn * 500));
        let removed = root.vm(&["rm-snapshot", "web", &format!("s{turn}")]).output()?;
        let why = String::from_utf8_lossy(&removed.stderr);
        assert!(removed.status.success() || why.contains("a machine that runs shows its memory"), "{why}");
        let output = going_on.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(3) => assert_eq!(output.stdout, b"nonce web\n"),
            Some(125) => assert!(errors.contains("cannot open") && errors.contains("No such file"), "{errors}"),
            other => return Err(format!("turn {turn}: {other:?} {errors}").into()),
        }
        both[usize::from(output.status.code() == Some(3))] += 1;
    }
    println!("removed while it was gone on from: {} refused, {} went on", both[0], both[1]);
    Ok(())
}

fn no_request() -> Done {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let (mut machine, socket) = Live::teller("request", &[])?;
    let says = |bytes: &[u8]| -> Result<String, Failed> {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(bytes)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    assert!(says(b"{\"do\":\"dance\"}\n")?.starts_with("{\"error\":\"it is no request"));
    assert!(says(b"\xff\xfe\n\n")?.contains("it is no request"));
    assert!(says(b"{\"do\":\"status\"}")?.contains("a request is one line"), "without an end of line");
    assert!(says(&vec![b' '; 100_000])?.contains("a request is one line"));
    assert_eq!(says(b"")?, "");
    let two = says(b"{\"do\":\"status\"}\n{\"do\":\"status\"}\n")?;
    assert_eq!(two.lines().filter(|line| line.contains("\"running\"")).count(), 2, "{two}");
    machine.answers("nonce", "nonce request")
}

/// The next of a row of numbers that look like chance and are the same every time.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn forged_states() -> Done {
    let text = fs::read(good()?.join("state"))?[48..].to_vec();
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for turn in 0..60 {
        // Digits become other digits: the state can be read, and says something else.
        let mut body = text.clone();
        for _ in 0..=next(&mut seed) % 8 {
            let at = (next(&mut seed) % body.len() as u64) as usize;
            if body[at].is_ascii_hexdigit() {
                body[at] = b"0123456789abcdef"[(next(&mut seed) % 16) as usize];
            }
        }
        let at = with_state(&format!("forged-{turn}"), |_| format::seal(&body))?;
        let output = isolab_vm(["restore", "--timeout", "0.3"]).arg(&at).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        // Any status will do but that of a monitor that died; and whoever fails says why.
        let status = output.status.code().ok_or_else(|| format!("turn {turn}: the monitor was killed"))?;
        assert!(status < 125 || errors.starts_with("error: "), "turn {turn}: {status} {errors}");
        assert!(!errors.contains("panicked"), "turn {turn}: {errors}");
        fs::remove_dir_all(&at)?;
    }
    Ok(())
}
