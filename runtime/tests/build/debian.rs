//! A real image: Debian by debootstrap, and a service installed upon it in a build. It fetches some 200 MB, so it runs
//! only where `ISOLAB_REQUIRE` names `debian`.

use std::process::Command;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, has, succeed};
use super::needs;

pub(crate) fn trials() -> Vec<Trial> {
    let name = "a_service_of_debian_is_installed_in_a_build_and_runs";
    let wanted = std::env::var("ISOLAB_REQUIRE").is_ok_and(|all| all.split(',').any(|need| need == "debian"));
    let trial = needs::trial(name, &["root", "overlay", "debootstrap", "cgroup"], service);
    vec![if wanted { trial } else { trial.with_kind("needs debian").with_ignored_flag(true) }]
}

fn service() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let root = lab.path("debian");
    let mut bootstrap = Command::new("debootstrap");
    succeed(&bootstrap.args(["--variant=minbase", "bookworm"]).arg(&root).output()?)?;
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--exclude=./dev/*", "--exclude=./var/cache/apt/archives/*.deb", "-cf"]);
    succeed(&tar.arg(lab.context().join("debian.tar")).arg("-C").arg(&root).arg(".").output()?)?;
    lab.build("debian", "FROM scratch\nADD debian.tar /\nCMD [\"bash\"]\n", &[])?;
    let text = "FROM debian\nRUN apt-get update && apt-get install -y --no-install-recommends redis-server \
        && rm -rf /var/lib/apt/lists/*\nUSER redis\nEXPOSE 6379\nCMD [\"redis-server\", \"--save\", \"\"]\n";
    lab.build("redis", text, &[])?;
    let script = "redis-server --save '' --daemonize yes > /dev/null; sleep 1; redis-cli ping; id -un";
    let out = succeed(&lab.run(&["run", "--rm", "redis", "sh", "-c", script])?)?.0;
    has(&out, "PONG")?;
    has(&out, "redis")
}
