//! Our registry, below others' clients.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use isolab_runtime::image::Digest;
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::checks::{has, same, wait_within};
use super::lab::{CTR, Lab, done, refused, skopeo};
use super::needs::{busybox, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("skopeo_copies_in_and_out", &["skopeo", "umoci"], copies),
        trial("a_password_is_asked_for_and_read_only_is_read_only", &["skopeo", "umoci", "htpasswd"], guarded),
        trial("podman_pushes_and_pulls", &["root", "podman", "busybox"], podman),
        trial("dockerd_pushes_and_pulls", &["root", "cgroup", "docker", "dockerd", "busybox"], docker),
        trial("an_upload_goes_on_after_the_registry_was_killed", &[], killed),
        trial("an_upload_that_was_given_up_ends_by_itself", &[], given_up),
        trial("garbage_is_what_no_manifest_needs", &["skopeo", "umoci"], garbage),
        trial("a_large_blob_for_many_at_once_takes_little_memory", &[], small),
    ]
}

fn copies() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (host, image) = (lab.serve(&[])?, lab.image()?);
    let remote = format!("docker://{host}/team/app:1");
    done(&mut skopeo(&[&image, &remote]))?;
    done(&mut skopeo(&[&remote, &format!("oci:{}:back", lab.text("back"))]))?;
    for format in ["v2s2", "oci"] {
        done(&mut skopeo(&["--format", format, &image, &format!("docker://{host}/team/{format}:1")]))?;
    }
    let digest = |name: &str| {
        let mut inspect = Command::new("skopeo");
        done(inspect.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Layers}}", name]))
    };
    let local = done(Command::new("skopeo").args(["inspect", "--format", "{{.Digest}} {{.Layers}}", &image]))?;
    same(digest(&remote)?, local)
}

fn guarded() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (users, image) = (lab.htpasswd()?, lab.image()?);
    let (certificate, key) = lab.certificate()?;
    let host = lab.serve(&["--htpasswd", &users, "--tls-cert", &certificate, "--tls-key", &key])?;
    let remote = format!("docker://{host}/app:1");
    has(&refused(&mut skopeo(&[&image, &remote]))?, "authentication required")?;
    has(&refused(&mut skopeo(&["--dest-creds", "ann:wrong", &image, &remote]))?, "authentication required")?;
    done(&mut skopeo(&["--dest-creds", "ann:secret", &image, &remote]))?;
    let (certs, name) = (lab.text("certs"), format!("{host}/app:1"));
    lab.told(&["login", "-u", "ann", "--password-stdin", "--cert-dir", &certs, &host], "secret")?;
    has(&refused(&mut lab.ctr("store", &["pull", &name]))?, "certificate")?;
    done(&mut lab.ctr("store", &["pull", "--cert-dir", &certs, &name]))?;
    let host = lab.serve(&["--read-only"])?;
    done(&mut skopeo(&[&format!("docker://{host}/app:1"), &format!("oci:{}:x", lab.text("back"))]))?;
    let said = refused(&mut skopeo(&[&image, &format!("docker://{host}/other:1")]))?;
    has(&said, "read-only").or_else(|_| has(&said, "405"))
}

fn podman() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let host = lab.serve(&[])?;
    let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    fs::write(lab.path("policy.json"), policy)?;
    let settings =
        format!("[engine]\nevents_logger = \"file\"\nlock_type = \"file\"\ntmp_dir = \"{}\"\n", lab.text("tmp"));
    fs::write(lab.path("containers.conf"), settings)?;
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--cgroup-manager=cgroupfs", "--storage-driver=vfs"]);
        command.arg("--root").arg(lab.path("store")).arg("--runroot").arg(lab.path("run")).args(arguments);
        command.env("CONTAINERS_CONF", lab.path("containers.conf")).stdin(Stdio::null());
        command
    };
    archive(&lab)?;
    let name = format!("{host}/team/busybox:1");
    done(&mut podman(&["import", &lab.text("image.tar"), &name]))?;
    done(&mut podman(&["push", "--tls-verify=false", &name]))?;
    done(&mut podman(&["rmi", "--force", &name]))?;
    let id = done(&mut podman(&["pull", "--quiet", "--tls-verify=false", &name]))?;
    done(&mut podman(&["rmi", "--force", &id])).map(drop)
}

fn docker() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let host = lab.serve(&[])?;
    archive(&lab)?;
    let socket = format!("unix://{}", lab.text("docker.sock"));
    fs::write(lab.path("daemon.json"), "{}")?;
    let log = fs::File::create(lab.path("dockerd.log"))?;
    let mut command = Command::new("dockerd");
    command.args(["--bridge=none", "--iptables=false", "--storage-driver=vfs", "--host", &socket]);
    for (option, name) in
        [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid"), ("--config-file", "daemon.json")]
    {
        command.arg(option).arg(lab.path(name));
    }
    let mut daemon = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["--host", &socket]).args(arguments).env("DOCKER_CONFIG", lab.path("client"));
        command.env_remove("DOCKER_HOST").stdin(Stdio::null());
        command
    };
    let name = format!("{host}/team/busybox:1");
    let outcome = wait_within(Duration::from_mins(1), Duration::from_millis(100), "dockerd", || {
        docker(&["version"]).output().is_ok_and(|output| output.status.success())
    })
    .and_then(|()| {
        let id = done(&mut docker(&["import", &lab.text("image.tar"), &name]))?;
        done(&mut docker(&["push", &name]))?;
        done(&mut docker(&["rmi", &name]))?;
        done(&mut docker(&["pull", &name]))?;
        same(done(&mut docker(&["images", "--quiet", "--no-trunc"]))?, id)
    });
    let _ = kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM);
    daemon.wait()?;
    outcome
}

/// A root file system of one program.
fn archive(lab: &Lab) -> Result<(), Failed> {
    let mut archive = tar::Builder::new(fs::File::create(lab.path("image.tar"))?);
    archive.append_path_with_name(busybox()?, "bin/busybox")?;
    Ok(archive.finish()?)
}

/// Speaks HTTP by hand. Answers the head of the reply.
fn exchange(host: &str, request: &str, body: &[u8]) -> Result<String, Failed> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let head =
        format!("{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

fn field(reply: &str, name: &str) -> Result<String, Failed> {
    let line = reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.map(str::to_owned).ok_or_else(|| format!("no {name} in {reply}").into())
}

fn killed() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let host = lab.serve(&[])?;
    let to = field(&exchange(&host, "POST /v2/app/blobs/uploads/", b"")?, "location")?;
    let reply = exchange(&host, &format!("PATCH {to}"), b"hel")?;
    same(field(&reply, "range")?.as_str(), "0-2")?;
    // Half of a chunk, and then no more: what has arrived is what the file has.
    let mut stream = TcpStream::connect(&host)?;
    stream.write_all(format!("PATCH {to} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 100\r\n\r\nl").as_bytes())?;
    std::thread::sleep(Duration::from_millis(300));
    lab.kill()?;
    let host = lab.serve(&[])?;
    let reply = exchange(&host, &format!("GET {to}"), b"")?;
    has(&reply, "204 No Content")?;
    same(field(&reply, "range")?.as_str(), "0-3")?;
    // The sha256 of "hello" (`printf hello | sha256sum`).
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    has(&exchange(&host, &format!("GET /v2/app/blobs/{digest}"), b"")?, "404 Not Found")?;
    has(&exchange(&host, &format!("PUT {to}?digest={digest}"), b"o")?, "201 Created")?;
    let reply = exchange(&host, &format!("GET /v2/app/blobs/{digest}"), b"")?;
    same(reply.ends_with("\r\n\r\nhello"), true)
}

/// Two days later, and the repository has nothing else.
fn given_up() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let begin = |host: &str| -> Result<String, Failed> {
        let begun = exchange(host, "POST /v2/new/app/blobs/uploads/", b"")?.to_ascii_lowercase();
        let place = begun.lines().find_map(|line| line.strip_prefix("location: "));
        Ok(place.ok_or_else(|| format!("no upload in {begun}"))?.to_owned())
    };
    let host = lab.serve(&[])?;
    let (old, fresh) = (begin(&host)?, begin(&host)?);
    lab.kill()?;
    let uploads = lab.path("registry/repositories/new/app/_uploads");
    let (_, id) = old.rsplit_once('/').ok_or("an upload without an id")?;
    let days = Duration::from_hours(48);
    fs::File::open(uploads.join(id))?.set_modified(SystemTime::now() - days)?;
    let host = lab.serve(&[])?;
    wait_within(Duration::from_secs(5), Duration::from_millis(20), "an end of the upload", || {
        !uploads.join(id).exists()
    })?;
    has(&exchange(&host, &format!("GET {old}"), b"")?, "404 Not Found")?;
    has(&exchange(&host, &format!("GET {fresh}"), b"")?, "204 No Content")
}

fn garbage() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (host, image) = (lab.serve(&[])?, lab.image()?);
    done(&mut skopeo(&[&image, &format!("docker://{host}/kept:1")]))?;
    done(&mut skopeo(&[&image, &format!("docker://{host}/gone:1")]))?;
    has(
        &exchange(
            &host,
            "POST /v2/kept/blobs/uploads/?digest=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            b"hello",
        )?,
        "201 Created",
    )?;
    done(Command::new("skopeo").args(["delete", "--tls-verify=false", &format!("docker://{host}/gone:1")]))?;
    let collect = || {
        let mut command = Command::new(CTR);
        command.args(["registry", "gc"]).arg(lab.path("registry"));
        command
    };
    has(&refused(&mut collect())?, "is in use")?;
    let (mut looking, mut collect) = (collect(), collect());
    lab.kill()?;
    // To look changes nothing.
    looking.arg("--dry-run");
    for _ in 0..2 {
        same(done(&mut looking)?.as_str(), "would remove 1 blobs and 0 abandoned uploads: 5B")?;
    }
    same(done(&mut collect)?.as_str(), "removed 1 blobs and 0 abandoned uploads: 5B")?;
    let host = lab.serve(&[])?;
    done(&mut skopeo(&[&format!("docker://{host}/kept:1"), &format!("oci:{}:x", lab.text("back"))])).map(drop)
}

fn small() -> Result<(), Failed> {
    const CLIENTS: usize = 16;
    let mut lab = Lab::new()?;
    let host = lab.serve(&[])?;
    let at_rest = lab.peak()?;
    let content = vec![7; 32 << 20];
    let digest = Digest::of(&content);
    has(&exchange(&host, &format!("POST /v2/a/blobs/uploads/?digest={digest}"), &content)?, "201 Created")?;
    let fetch = || -> std::io::Result<u64> {
        let mut stream = TcpStream::connect(&host)?;
        write!(stream, "GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        std::io::copy(&mut stream, &mut std::io::sink())
    };
    let fetched = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(fetch)).collect();
        clients.into_iter().map(|client| client.join().map_or(0, |read| read.unwrap_or(0))).collect::<Vec<_>>()
    });
    same(fetched.iter().all(|read| *read > content.len() as u64), true)?;
    // Of a build that is not optimized the code alone is some megabytes, which come in as they are needed.
    let more = lab.peak()? - at_rest;
    same(more < content.len() as u64 / 2, true).map_err(|_| format!("{more} bytes more than at rest").into())
}
