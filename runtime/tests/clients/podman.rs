//! `podman --runtime isolab-oci`, with a store of its own.

use std::fs;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use super::needs::trial;
use super::scratch::{FILES, IMAGE, OCI, Scratch, has, output, printed, reading, same, text};

const NEEDS: [&str; 5] = ["root", "cgroup", "busybox", "podman", "conmon"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("podman_shows_output_and_status", &NEEDS, run),
        trial("podman_pauses_updates_and_kills", &NEEDS, lifecycle),
    ]
}

struct Podman {
    scratch: Scratch,
}

impl Podman {
    fn new() -> Result<Self, Failed> {
        let scratch = Scratch::new()?;
        // Everything that podman would else put into the host's /run, /dev/shm and /var/lib.
        let settings = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
             tmp_dir = \"{0}/tmp\"\nvolume_path = \"{0}/volumes\"\n[network]\nnetwork_config_dir = \"{0}/networks\"\n",
            scratch.text("")
        );
        fs::write(scratch.path("containers.conf"), settings)?;
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        fs::write(scratch.path("policy.json"), policy)?;
        let podman = Self { scratch };
        let image = podman.scratch.text("image.tar");
        printed(&mut podman.podman(&["import", "--change", "ENV PATH=/bin", &image, IMAGE]))?;
        Ok(podman)
    }

    fn podman(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.arg("--runtime").arg(OCI).args(["--cgroup-manager=cgroupfs", "--storage-driver=vfs"]);
        command.arg("--root").arg(self.scratch.path("store")).arg("--runroot").arg(self.scratch.path("run"));
        command.args(arguments).env("CONTAINERS_CONF", self.scratch.path("containers.conf")).stdin(Stdio::null());
        command.env("TMPDIR", self.scratch.path("tmp"));
        command
    }

    fn run(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.podman(&["run", "--network", "none", "--ulimit", FILES, "--ulimit", "nproc=1024:1024"]);
        command.arg("--cgroup-parent").arg(format!("/{}", self.scratch.cgroup()));
        command.args(options).args([IMAGE, "sh", "-c", script]);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Those that still run; the rest ends with the scratch folder.
        drop(self.podman(&["rm", "--all", "--force", "--time", "0"]).output());
    }
}

fn run() -> Result<(), Failed> {
    let podman = Podman::new()?;
    let script = format!("echo $WORD; {}; id -u; exit 7", reading("memory/memory.limit_in_bytes", "memory.max"));
    let options = ["--rm", "--env", "WORD=hello", "--memory", "64m", "--user", "1234"];
    let got = output(&mut podman.run(&options, &script))?;
    same((text(&got.stderr).as_str(), text(&got.stdout).as_str()), ("", "hello\n67108864\n1234\n"))?;
    same(got.status.code(), Some(7))?;
    let got = output(
        podman
            .podman(&["run", "--rm", "--network=none", "--ulimit", FILES, "--ulimit=nproc=1024:1024"])
            .args([IMAGE, "none-such"]),
    )?;
    same(got.status.code(), Some(127))
}

fn lifecycle() -> Result<(), Failed> {
    let podman = Podman::new()?;
    let id = printed(&mut podman.run(&["--detach", "--memory", "64m", "--memory-swap", "64m"], "sleep 100"))?;
    let status = || printed(&mut podman.podman(&["inspect", "--format", "{{.State.Status}}", &id]));
    same(status()?.as_str(), "running")?;
    let got = output(&mut podman.podman(&["exec", "--user", "1234", &id, "sh", "-c", "id -u; exit 5"]))?;
    same((got.status.code(), text(&got.stdout).as_str(), text(&got.stderr).as_str()), (Some(5), "1234\n", ""))?;
    printed(&mut podman.podman(&["pause", &id]))?;
    same(status()?.as_str(), "paused")?;
    printed(&mut podman.podman(&["unpause", &id]))?;
    same(status()?.as_str(), "running")?;
    has(&printed(&mut podman.podman(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &id]))?, "67.11MB")?;
    printed(&mut podman.podman(&["update", "--memory", "48m", "--memory-swap", "48m", &id]))?;
    // podman's own figures are those of its configuration; the cgroup has the one that holds.
    same(podman.scratch.limit(&id, "memory.limit_in_bytes", "memory.max")?.as_str(), "50331648")?;
    printed(&mut podman.podman(&["kill", &id]))?;
    same(printed(&mut podman.podman(&["wait", &id]))?.as_str(), "137")?;
    printed(&mut podman.podman(&["rm", "--force", &id])).map(drop)
}
