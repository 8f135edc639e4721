//! Compiles the payload on its own, freestanding, and hands it to the library to embed: whatever flags the caller
//! built with, every subject of every run starts the same bytes.

use std::env;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = "payload/main.rs";

/// For the linker, here and where cargo builds the command `isolab-payload` from the same source. Static and at a fixed
/// address: a file that asks for no loader and no relocation, as there is nobody in it to apply one.
const LINK: [&str; 4] = ["-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none"];

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    for argument in LINK {
        println!("cargo::rustc-link-arg-bin=isolab-payload={argument}");
    }
    let output = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("isolab-payload");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-name", "isolab_payload", "--crate-type", "bin"])
        .args(["--target", &env::var("TARGET").expect("cargo sets TARGET")])
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "target-feature=+crt-static", "-C", "relocation-model=static"])
        .args(LINK.iter().flat_map(|argument| ["-C".into(), format!("link-arg={argument}")]))
        .arg("-o")
        .arg(&output)
        .arg(SOURCE);
    let status = rustc.status().expect("rustc starts");
    assert!(status.success(), "rustc could not build {SOURCE}");
}
