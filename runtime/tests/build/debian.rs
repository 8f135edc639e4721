//! A real image: Debian by debootstrap, a service installed upon it in a build, pushed to a registry, pulled into an empty
//! store and run there. It fetches some 200 MB, so it runs only where `ISOLAB_REQUIRE` names `debian`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use super::lab::{CTR, Lab, has, same, succeed};
use super::needs;

pub(crate) fn trials() -> Vec<Trial> {
    let name = "a_service_of_debian_is_installed_in_a_build_pushed_pulled_and_run";
    let wanted = std::env::var("ISOLAB_REQUIRE").is_ok_and(|all| all.split(',').any(|need| need == "debian"));
    let trial = needs::trial(name, &["root", "overlay", "debootstrap", "cgroup"], service);
    vec![if wanted { trial } else { trial.with_kind("needs debian").with_ignored_flag(true) }]
}

/// A command that goes on by itself, and ends with the trial.
struct Going(Child);

impl Drop for Going {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn service() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let (root, archive) = (lab.path("debian"), lab.path("debian.tar"));
    let mut bootstrap = Command::new("debootstrap");
    succeed(&bootstrap.args(["--variant=minbase", "bookworm"]).arg(&root).output()?)?;
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--exclude=./dev/*", "--exclude=./var/cache/apt/archives/*.deb", "-cf"]);
    succeed(&tar.arg(&archive).arg("-C").arg(&root).arg(".").output()?)?;
    succeed(&lab.run(&["import", &archive.display().to_string(), "debian"])?)?;
    let text = "FROM debian\nRUN apt-get update && apt-get install -y --no-install-recommends redis-server \
        && rm -rf /var/lib/apt/lists/*\nUSER redis\nWORKDIR /var/lib/redis\nEXPOSE 6379\n\
        CMD [\"redis-server\", \"--save\", \"\"]\n";
    lab.build("redis", text, &[])?;
    let (_registry, host) = serve(&lab.path("registry"))?;
    let remote = format!("{host}/course/redis:1");
    succeed(&lab.run(&["tag", "redis", &remote])?)?;
    succeed(&lab.run(&["push", "--quiet", &remote])?)?;
    let other = |arguments: &[&str]| {
        let mut command = Command::new(CTR);
        command.arg("--root").arg(lab.path("other")).args(arguments).stdin(Stdio::null());
        command.env("ISOLAB_NETWORK", "none");
        command
    };
    let begun = Instant::now();
    succeed(&other(&["pull", "--quiet", &remote]).output()?)?;
    println!("pulled into an empty store in {:?}", begun.elapsed());
    foreground(&other, &remote)?;
    succeed(&other(&["fsck"]).output()?).map(drop)
}

/// The image's own command in the foreground, asked by another process in its container, and stopped.
fn foreground(ctr: &dyn Fn(&[&str]) -> Command, image: &str) -> Result<(), Failed> {
    let mut run = ctr(&["run", "--rm", "--name", "service", image]);
    let mut service = Going(run.stdout(Stdio::piped()).spawn()?);
    let begun = Instant::now();
    loop {
        let asked = ctr(&["exec", "service", "redis-cli", "ping"]).output()?;
        if asked.stdout == b"PONG\n" {
            break;
        }
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(format!("no answer of the service: {}", String::from_utf8_lossy(&asked.stderr)).into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let who = succeed(&ctr(&["exec", "service", "id", "-un"]).output()?)?.0;
    same(&who.as_str(), &"redis\n")?;
    succeed(&ctr(&["stop", "service"]).output()?)?;
    let mut said = String::new();
    if let Some(out) = service.0.stdout.take() {
        said = std::io::read_to_string(out)?;
    }
    has(&said, "Ready to accept connections")?;
    same(&service.0.wait()?.code(), &Some(0))
}

/// A registry in a folder. Answers its host and port.
fn serve(folder: &Path) -> Result<(Going, String), Failed> {
    let mut command = Command::new(CTR);
    command.args(["registry", "serve", "--listen", "127.0.0.1:0"]).arg(folder);
    let mut registry = Going(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    if let Some(out) = registry.0.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    let host = line.trim().split_once("://").ok_or_else(|| format!("the registry says {line:?}"))?.1.to_owned();
    Ok((registry, host))
}
