//! Our client, on Debian's registry and on ours.

use std::fs;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use super::checks::{has, same};
use super::lab::{Lab, busybox, done, refused, skopeo};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let debians = ["docker-registry", "htpasswd", "openssl", "skopeo", "umoci"];
    vec![
        trial("our_client_gets_along_with_debians_registry", &debians, debians_registry),
        trial("a_built_layer_is_packed_on_its_way_and_only_once", &["root", "overlay", "busybox", "skopeo"], packed),
        trial("an_image_goes_round_and_stays_the_same", &["skopeo", "umoci"], round),
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
