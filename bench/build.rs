//! Two things that a run must be able to swear to: the payload's bytes, and the sources it was built from.
//!
//! The payload is compiled here on its own, freestanding, and embedded by the library: whatever flags the caller built
//! with, every subject of every run starts the same bytes.

use std::env;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = "payload/main.rs";

/// For the linker, here and where cargo builds the command `isolab-payload` from the same source. Static and at a fixed
/// address: a file that asks for no loader and no relocation, as there is nobody in it to apply one.
const LINK: [&str; 4] = ["-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none"];

fn main() {
    compile_payload();
    record_origin();
}

fn compile_payload() {
    println!("cargo::rerun-if-changed={SOURCE}");
    for argument in LINK {
        println!("cargo::rustc-link-arg-bin=isolab-payload={argument}");
    }
    let output = Path::new(&variable("OUT_DIR")).join("isolab-payload");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-name", "isolab_payload", "--crate-type", "bin"])
        .args(["--target", &variable("TARGET")])
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "target-feature=+crt-static", "-C", "relocation-model=static"])
        .args(LINK.iter().flat_map(|argument| ["-C".into(), format!("link-arg={argument}")]))
        .arg("-o")
        .arg(&output)
        .arg(SOURCE)
        .status()
        .expect("rustc starts");
    assert!(status.success(), "rustc could not build {SOURCE}");
}

/// Hands the library the git revision, whether the checkout differs from it, the compiler and the profile.
/// Outside a checkout (a source archive) revision and dirtiness are empty.
fn record_origin() {
    for folder in ["src", "../runtime/src", "../vmm/src", "../reports/src"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    // Not `index`: `git status` itself may renew it, and every build would find it changed.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = output("git", &["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let revision = output("git", &["rev-parse", "HEAD"]);
    let dirty = revision
        .as_ref()
        .and_then(|_| output("git", &["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]));
    let dirty = dirty.map(|changes| (!changes.is_empty()).to_string());
    println!("cargo::rustc-env=ISOLAB_REVISION={}", revision.unwrap_or_default());
    println!("cargo::rustc-env=ISOLAB_DIRTY={}", dirty.unwrap_or_default());
    println!("cargo::rustc-env=ISOLAB_RUSTC={}", output(&variable("RUSTC"), &["--version"]).unwrap_or_default());
    println!("cargo::rustc-env=ISOLAB_PROFILE={}", variable("PROFILE"));
}

/// What a command prints, trimmed; nothing where it can't be started or fails.
fn output(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
