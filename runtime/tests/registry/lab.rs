//! A registry of a trial's own, an image to put into it, and a client with a store of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;
use tempfile::TempDir;

use super::checks::{text, wait_within};

/// The command under test.
pub(crate) const CTR: &str = env!("CARGO_BIN_EXE_isolab-ctr");

/// A folder with everything of a trial; what runs in it ends before it goes.
pub(crate) struct Lab {
    servers: Vec<Child>,
    folder: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Result<Self, Failed> {
        Ok(Self { servers: Vec::new(), folder: tempfile::Builder::new().prefix("isolab-registry-").tempdir()? })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Our registry, in the folder `registry`. Answers its host and port.
    pub(crate) fn serve(&mut self, options: &[&str]) -> Result<String, Failed> {
        self.serve_at("127.0.0.1:0", options)
    }

    pub(crate) fn serve_at(&mut self, listen: &str, options: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new(CTR);
        command.args(["registry", "serve", "--listen", listen]).args(options).arg(self.path("registry"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        self.servers.push(child);
        let address = line.trim().split_once("://").ok_or_else(|| format!("the registry says {line:?}"))?;
        Ok(address.1.to_owned())
    }

    /// Debian's registry, with options as a piece of its configuration. Answers its host and port.
    pub(crate) fn serve_debians(&mut self, more: &str) -> Result<String, Failed> {
        // It does not say which port it took, so one is chosen for it that is free now.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (address, data) = (format!("127.0.0.1:{port}"), self.text("debians"));
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\n\
             http:\n  addr: {address}\n{more}"
        );
        fs::write(self.path("config.yml"), config)?;
        let log = fs::File::create(self.path("debians.log"))?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(self.path("config.yml")).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.servers.push(command.spawn()?);
        wait_within(Duration::from_secs(20), Duration::from_millis(50), "docker-registry", || {
            std::net::TcpStream::connect(&address).is_ok()
        })?;
        Ok(address)
    }

    /// Kills the first server, as a machine that loses its power would, nearly.
    pub(crate) fn kill(&mut self) -> Result<(), Failed> {
        let mut server = self.servers.remove(0);
        let killed = server.kill();
        server.wait()?;
        Ok(killed?)
    }

    /// The most memory that the first server has had, in bytes.
    pub(crate) fn peak(&self) -> Result<u64, Failed> {
        let server = self.servers.first().ok_or("no server")?.id();
        let status = fs::read_to_string(format!("/proc/{server}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// The command under test, with a store and docker's configuration in the folder.
    pub(crate) fn ctr(&self, store: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(CTR);
        command.arg("--root").arg(self.path(store)).args(arguments).stdin(Stdio::null());
        // No trial here is about networks of containers, and none shall make a bridge on the host.
        command.env("DOCKER_CONFIG", self.path("client")).env("ISOLAB_NETWORK", "none");
        command
    }

    /// Runs it with something on standard input.
    pub(crate) fn told(&self, arguments: &[&str], input: &str) -> Result<(), Failed> {
        let mut child = self.ctr("store", arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr).into()) }
    }

    /// An image with two layers, as an OCI layout. Answers how skopeo names it.
    pub(crate) fn image(&self) -> Result<String, Failed> {
        let layout = self.text("layout");
        done(Command::new("umoci").args(["init", "--layout", &layout]))?;
        let name = format!("{layout}:image");
        done(Command::new("umoci").args(["new", "--image", &name]))?;
        for (number, size) in [100_usize, 3_000_000].into_iter().enumerate() {
            let archive = self.path("layer.tar");
            let mut tar = tar::Builder::new(fs::File::create(&archive)?);
            // Bytes that do not pack, so that the layer takes its time.
            let bytes: Vec<u8> = (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            let mut header = tar::Header::new_gnu();
            header.set_size(size as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            tar.append_data(&mut header, format!("file{number}"), bytes.as_slice())?;
            tar.finish()?;
            done(Command::new("umoci").args(["raw", "add-layer", "--image", &name]).arg(&archive))?;
        }
        Ok(format!("oci:{name}"))
    }

    /// A file of one user, `ann`, whose password is `secret`.
    pub(crate) fn htpasswd(&self) -> Result<String, Failed> {
        let file = self.text("htpasswd");
        done(Command::new("htpasswd").args(["-Bbc", "-C", "5", &file, "ann", "secret"]))?;
        Ok(file)
    }

    /// A certificate for this machine, in `certs/ca.crt`, and its key, in `key.pem`.
    pub(crate) fn certificate(&self) -> Result<(String, String), Failed> {
        fs::create_dir_all(self.path("certs"))?;
        let (certificate, key) = (self.text("certs/ca.crt"), self.text("key.pem"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &certificate]);
        done(&mut command)?;
        Ok((certificate, key))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// skopeo, which takes any image and looks at no certificate.
pub(crate) fn skopeo(arguments: &[&str]) -> Command {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]).args(arguments);
    command
}

/// Runs a command, which must succeed. Answers what it printed.
pub(crate) fn done(command: &mut Command) -> Result<String, Failed> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}{}", output.status, text(&output.stdout), text(&output.stderr)).into());
    }
    Ok(text(&output.stdout).trim_end().to_owned())
}

/// Runs a command, which must fail. Answers what it complained.
pub(crate) fn refused(command: &mut Command) -> Result<String, Failed> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Err(format!("{command:?} succeeded: {}", text(&output.stdout)).into());
    }
    Ok(text(&output.stderr))
}
