//! Our client, on Debian's registry and on ours.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use isolab_runtime::image::Digest;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::checks::{has, same};
use super::lab::{Lab, done, refused, skopeo};
use super::needs::{busybox, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let debians = ["docker-registry", "htpasswd", "openssl", "skopeo", "umoci"];
    vec![
        trial("our_client_gets_along_with_debians_registry", &debians, debians_registry),
        trial("a_built_layer_is_packed_on_its_way_and_only_once", &["root", "overlay", "busybox", "skopeo"], packed),
        trial("an_image_goes_round_and_stays_the_same", &["skopeo", "umoci"], round),
        trial("an_index_goes_round_whole", &["skopeo", "umoci"], whole),
        trial("a_helper_keeps_the_password", &["htpasswd"], helper),
    ]
}

fn debians_registry() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (image, users, (certificate, key)) = (lab.image()?, lab.htpasswd()?, lab.certificate()?);
    let host = lab.serve_debians(&format!(
        "  tls: {{certificate: {certificate}, key: {key}}}\nauth: {{htpasswd: {{realm: here, path: {users}}}}}\n"
    ))?;
    done(&mut skopeo(&["--dest-creds", "ann:secret", &image, &format!("docker://{host}/app:1")]))?;
    let (name, certs) = (format!("{host}/app:1"), lab.text("certs"));
    let said = refused(&mut lab.ctr("store", &["pull", &name]))?;
    has(&said, "certificate")?;
    has(&said, "hint: for a certificate that the system does not know use --cert-dir DIR")?;
    let said = refused(&mut lab.ctr("store", &["pull", "--cert-dir", &certs, &name]))?;
    has(&said, "hint: log in: isolab-ctr login")?;
    let login = ["login", "--username", "ann", "--password-stdin", "--cert-dir", &certs, &host];
    same(lab.told(&login, "wrong\n").is_err(), true)?;
    lab.told(&login, "secret\n")?;
    done(&mut lab.ctr("store", &["pull", "--cert-dir", &certs, &name]))?;
    let other = format!("{host}/other/app:2");
    done(&mut lab.ctr("store", &["tag", &name, &other]))?;
    let output = lab.ctr("store", &["push", "--cert-dir", &certs, &other]).output()?;
    same(output.status.code(), Some(0))?;
    has(&super::checks::text(&output.stderr), "Mounted")?;
    done(&mut lab.ctr("empty", &["pull", "--insecure", &other]))?;
    done(&mut lab.ctr("store", &["logout", &host]))?;
    has(&refused(&mut lab.ctr("store", &["pull", "--insecure", &other]))?, "log in")
}

fn round() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (host, image) = (lab.serve(&[])?, lab.image()?);
    let (name, other) = (format!("{host}/app:1"), format!("{host}/other:1"));
    done(&mut skopeo(&[&image, &format!("docker://{name}")]))?;
    let id = done(&mut lab.ctr("one", &["pull", "--quiet", &name]))?;
    done(&mut lab.ctr("one", &["tag", &name, &other]))?;
    let digest = done(&mut lab.ctr("one", &["push", "--quiet", &other]))?;
    same(done(&mut lab.ctr("two", &["pull", "--quiet", &format!("{host}/other@{digest}")]))?, id)?;
    let said = refused(&mut lab.ctr("two", &["pull", &format!("{host}/other:none")]))?;
    has(&said, "answers 404")?;
    has(&said, "hint: look at the name and the tag")
}

fn whole() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (host, image) = (lab.serve(&[])?, lab.image()?);
    let name = |repository: &str| format!("{host}/{repository}:1");
    // Two platforms and one that is nowhere, listed by hand: umoci makes images, and no indexes.
    for (platform, repository) in [("amd64", "app"), ("arm64", "app")] {
        let source = format!("{}:{platform}", lab.text("layout"));
        done(Command::new("umoci").args(["tag", "--image", image.trim_start_matches("oci:"), platform]))?;
        done(Command::new("umoci").args(["config", "--image", &source, "--architecture", platform]))?;
        done(&mut skopeo(&[&format!("oci:{source}"), &format!("docker://{host}/{repository}:{platform}")]))?;
    }
    let mut listed = Vec::new();
    for platform in ["amd64", "arm64"] {
        let target = format!("docker://{host}/app:{platform}");
        // To the last byte: some manifests end with a line's end.
        let raw = Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &target]).output()?.stdout;
        listed.push((platform, Digest::of(&raw), raw.len()));
    }
    listed.push(("riscv64", Digest::of(b"nowhere"), 7));
    let manifests: Vec<Value> = listed
        .iter()
        .map(|(platform, digest, size)| {
            json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(),
                "size": size, "platform": { "os": "linux", "architecture": platform } })
        })
        .collect();
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests }).to_string();
    let mut stream = TcpStream::connect(&host)?;
    write!(
        stream,
        "PUT /v2/app/manifests/1 HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\n\r\n{index}",
        index.len()
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    has(&reply, "201 Created")?;
    let digest = Digest::of(index.as_bytes()).to_string();
    same(done(&mut lab.ctr("store", &["pull", "--quiet", "--all-platforms", &name("app")]))?, digest.clone())?;
    has(&done(&mut lab.ctr("store", &["fsck"]))?, "all well")?;
    done(&mut lab.ctr("store", &["tag", &name("app"), &name("other")]))?;
    same(done(&mut lab.ctr("store", &["push", "--quiet", "--all-platforms", &name("other")]))?, digest.clone())?;
    // Both platforms are there, and each is what it was.
    for platform in ["amd64", "arm64"] {
        let config = |repository: &str| {
            let mut command = Command::new("skopeo");
            command.args(["inspect", "--config", "--raw", "--tls-verify=false", "--override-arch", platform]);
            done(command.arg(format!("docker://{host}/{repository}:1")))
        };
        let told = config("other")?;
        has(&told, platform)?;
        same(told, config("app")?)?;
        let chosen = format!("linux/{platform}");
        done(&mut lab.ctr("empty", &["pull", "--platform", &chosen, &name("other")]))?;
    }
    // What is removed by its name takes all of it along.
    done(&mut lab.ctr("store", &["rmi", &name("app"), &name("other")]))?;
    same(fs::read_dir(lab.path("store/blobs/sha256"))?.count(), 0)
}

fn packed() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let host = lab.serve(&[])?;
    fs::create_dir(lab.path("context"))?;
    fs::write(
        lab.path("context/Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/busybox\nCMD [\"/bin/busybox\", \"pwd\"]\n",
    )?;
    fs::copy(busybox()?, lab.path("context/busybox"))?;
    let name = |repository: &str| format!("{host}/{repository}:1");
    let built = done(&mut lab.ctr("store", &["build", "-t", &name("gzip"), &lab.text("context")]))?;
    let push = |repository: &str, more: &[&str]| -> Result<String, Failed> {
        done(&mut lab.ctr("store", &["tag", &name("gzip"), &name(repository)]))?;
        let output = lab.ctr("store", &[&["push"], more, &[&name(repository)]].concat()).output()?;
        same(output.status.code(), Some(0))?;
        Ok(super::checks::text(&output.stderr))
    };
    let manifest = |repository: &str| {
        let target = format!("docker://{}", name(repository));
        done(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &target]))
    };
    has(&push("gzip", &[])?, "Pushed")?;
    has(&manifest("gzip")?, "layer.v1.tar+gzip")?;
    // The note of the first time is enough to know that there is nothing to bring, and that another repository has it.
    same(push("gzip", &[])?.contains("Pushed"), false)?;
    has(&push("again", &[])?, "Mounted")?;
    push("zstd", &["--compression-format", "zstd"])?;
    has(&manifest("zstd")?, "layer.v1.tar+zstd")?;
    push("plain", &["--compression-format", "none"])?;
    has(&manifest("plain")?, "layer.v1.tar\"")?;
    // However it went, it is the same image, and a program of it runs.
    for repository in ["gzip", "again", "zstd", "plain"] {
        let store = format!("of-{repository}");
        let id = done(&mut lab.ctr(&store, &["pull", "--quiet", &name(repository)]))?;
        same(&id, &built)?;
        same(done(&mut lab.ctr(&store, &["run", "--rm", &name(repository)]))?.as_str(), "/")?;
        has(&done(&mut lab.ctr(&store, &["fsck"]))?, "all well")?;
    }
    Ok(())
}

/// What docker calls a credential helper: here one that keeps what it is told in a file.
const HELPER: &str = r#"#!/bin/sh
kept="$0.kept"
case "$1" in
    store) cat > "$kept";;
    get) cat "$kept" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; };;
    erase) rm "$kept";;
esac
"#;

fn helper() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let users = lab.htpasswd()?;
    let host = lab.serve(&["--htpasswd", &users])?;
    let program = lab.path("docker-credential-trial");
    fs::write(&program, HELPER)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::create_dir(lab.path("client"))?;
    let config = json!({ "credHelpers": { &host: "trial" } }).to_string();
    fs::write(lab.path("client/config.json"), &config)?;
    let path = format!("{}:{}", lab.text(""), std::env::var("PATH")?);
    let ctr = |arguments: &[&str]| {
        let mut command = lab.ctr("store", arguments);
        command.env("PATH", &path);
        command
    };
    let missing = ["pull", &format!("{host}/app:1")];
    has(&refused(&mut ctr(&missing))?, "hint: log in")?;
    same(done(&mut ctr(&["login", "-u", "ann", "-p", "secret", &host]))?.as_str(), "Login Succeeded")?;
    same(fs::read_to_string(lab.path("client/config.json"))?, config)?;
    has(&fs::read_to_string(lab.path("docker-credential-trial.kept"))?, "secret")?;
    // Who is let in hears that there is no such image.
    has(&refused(&mut ctr(&missing))?, "answers 404")?;
    has(&done(&mut ctr(&["logout", &host]))?, "Forgot")?;
    same(lab.path("docker-credential-trial.kept").exists(), false)?;
    has(&done(&mut ctr(&["logout", &host]))?, "There is no password")
}
