//! Snapshots that travel, by skopeo, from one folder of machines to another.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::machines::{done, place, refused};
use crate::named::Root;
use crate::needs::{Done, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_snapshot_travels_by_skopeo_and_goes_on_elsewhere", &["kvm", "gcc", "skopeo"], by_skopeo),
        trial("a_registry_keeps_a_snapshot", &["kvm", "gcc", "skopeo", "docker-registry"], by_a_registry),
        trial(
            "a_snapshot_is_pushed_pulled_and_handled_by_skopeo",
            &["kvm", "gcc", "skopeo", "docker-registry"],
            pushed,
        ),
        trial(
            "a_registry_with_a_password_takes_what_docker_login_has_kept",
            &["kvm", "gcc", "docker-registry", "htpasswd"],
            with_a_password,
        ),
        trial("pieces_that_snapshots_have_in_common_travel_once", &["kvm", "gcc"], in_common),
        trial("what_was_changed_on_its_way_makes_no_machine", &["kvm", "gcc"], changed),
    ]
}

/// A machine that has counted to two and is saved as `one`.
fn counted(root: &Root) -> Done {
    root.create("web")?;
    let mut machine = root.start("web")?;
    machine.expect("ISOLAB-READY web")?;
    machine.answers("count", "count 1 0.5")?;
    machine.answers("count", "count 2 1.0")?;
    machine.answers("touch 4", "touched 4")?;
    root.does("snapshot web one").map(|_| ())
}

fn skopeo(words: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy"]).args(words);
    done(command)
}

fn by_skopeo() -> Done {
    let (here, there) = (Root::new("travels-here"), Root::new("travels-there"));
    counted(&here)?;
    let (out, way, back) = (place("out"), place("way"), place("back"));
    here.does(&format!("export web@one {}:v1", out.display()))?;
    let inspected: Value = serde_json::from_str(&skopeo(&["inspect", &format!("oci:{}:v1", out.display())])?)?;
    assert_eq!((&inspected["Architecture"], &inspected["Os"]), (&"amd64".into(), &"linux".into()));
    // In the form in which a registry has it, and back.
    skopeo(&["copy", &format!("oci:{}:v1", out.display()), &format!("dir:{}", way.display())])?;
    skopeo(&["copy", &format!("dir:{}", way.display()), &format!("oci:{}:v2", back.display())])?;
    there.does(&format!("import {}:v2 copy", back.display()))?;
    let mut copy = there.start("copy")?;
    copy.answers("count", "count 3 1.5")?;
    copy.answers("nonce", "nonce web")?;
    there.does("snapshot copy two")?;
    let tree = there.does("snapshots copy")?;
    assert!(tree.starts_with("one") && tree.contains("\n  two"), "{tree}");
    let memory = |root: &Root, name: &str| fs::read(root.machine(name).join("snapshots/one/memory"));
    assert!(memory(&here, "web")? == memory(&there, "copy")?, "the memory is another");
    Ok(())
}

/// A registry of this trial's own; gone with this value.
pub(crate) struct Registry(Child, pub(crate) u16);

impl Registry {
    pub(crate) fn start(name: &str, auth: &str) -> Result<Self, Failed> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(); // free a moment ago
        let (folder, config) = (place(name), place(&format!("{name}.yml")));
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: \"127.0.0.1:{port}\"}}\n{auth}",
                folder.display()
            ),
        )?;
        let quiet = || Stdio::null();
        let mut command = Command::new("docker-registry");
        let registry = command.arg("serve").arg(&config).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn()?;
        let registry = Self(registry, port);
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(since.elapsed() < Duration::from_secs(30), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn by_a_registry() -> Done {
    let (here, there) = (Root::new("registry-here"), Root::new("registry-there"));
    counted(&here)?;
    let registry = Registry::start("registry", "")?;
    let (out, back) = (format!("oci:{}:v1", place("registry-out").display()), place("registry-back"));
    let name = format!("docker://127.0.0.1:{}/web:v1", registry.1);
    here.does(&format!("export web@one {}:v1", place("registry-out").display()))?;
    skopeo(&["copy", "--dest-tls-verify=false", &out, &name])?;
    let inspected: Value = serde_json::from_str(&skopeo(&["inspect", "--tls-verify=false", &name])?)?;
    assert!(inspected["Layers"].as_array().is_some_and(|layers| layers.len() > 1), "{inspected}");
    skopeo(&["copy", "--src-tls-verify=false", &name, &format!("oci:{}:v1", back.display())])?;
    there.does(&format!("import {}:v1 copy", back.display()))?;
    there.start("copy")?.answers("count", "count 3 1.5")
}

fn pushed() -> Done {
    let (here, there) = (Root::new("pushed-here"), Root::new("pushed-there"));
    counted(&here)?;
    let registry = Registry::start("pushed", "")?;
    let name = format!("127.0.0.1:{}/lab/web", registry.1);
    here.does(&format!("push web@one {name}:v1"))?;
    here.does(&format!("push web {name}"))?; // the last, as "latest": all of it is there
    let inspected: Value =
        serde_json::from_str(&skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}:v1")])?)?;
    assert!(inspected["Layers"].as_array().is_some_and(|layers| layers.len() > 1), "{inspected}");
    // A tool that knows nothing of machines brings it to another name, from where it is fetched.
    let (from, to) = (format!("docker://{name}:v1"), format!("docker://{name}-copy:v2"));
    skopeo(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to])?;
    there.does(&format!("pull {name}-copy:v2 copy"))?;
    there.start("copy")?.answers("count", "count 3 1.5")?;
    there.does(&format!("pull {name} other"))?;
    there.refuses(&format!("pull {name}:no other-2"), &["has nothing with the tag no"])?;
    there.refuses(&format!("pull {name} copy"), &["there is a machine copy already"])?;
    drop(registry);
    there.refuses(&format!("pull {name} late"), &["cannot reach the registry 127.0.0.1"])
}

fn with_a_password() -> Done {
    let root = Root::new("password");
    counted(&root)?;
    let made = done({
        let mut command = Command::new("htpasswd");
        command.args(["-Bbn", "user", "secret"]);
        command
    })?;
    let passwords = place("passwords");
    fs::write(&passwords, made.trim())?;
    let auth = format!("auth: {{htpasswd: {{realm: lab, path: {}}}}}\n", passwords.display());
    let registry = Registry::start("password-registry", &auth)?;
    let name = format!("127.0.0.1:{}/web:v1", registry.1);
    let config = place("docker-config");
    fs::create_dir(&config)?;
    let with = |line: &str| {
        let mut command = root.vm(&line.split(' ').collect::<Vec<_>>());
        command.env("DOCKER_CONFIG", &config);
        command
    };
    refused(with(&format!("push web@one {name}")), &["does not let us in", "hint: isolab-ctr login"])?;
    // "user:secret" and "user:wrong" in base64, as docker login keeps them.
    let keep = |kept: &str| {
        let text = format!(r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "{kept}"}}}}}}"#, registry.1);
        fs::write(config.join("config.json"), text)
    };
    keep("dXNlcjp3cm9uZw==")?;
    refused(with(&format!("push web@one {name}")), &["does not let us in"])?;
    keep("dXNlcjpzZWNyZXQ=")?;
    done(with(&format!("push web@one {name}")))?;
    done(with(&format!("pull {name} copy")))?;
    root.start("copy")?.answers("count", "count 3 1.5")
}

fn blobs(layout: &Path) -> Result<Vec<PathBuf>, Failed> {
    Ok(fs::read_dir(layout.join("blobs/sha256"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?)
}

fn in_common() -> Done {
    let root = Root::new("travels-common");
    counted(&root)?;
    root.does("rollback web one")?;
    let mut machine = root.start("web")?;
    machine.answers("count", "count 3 1.5")?;
    root.does("snapshot web two")?;
    let out = place("out-common");
    root.does(&format!("export web@one {}:one", out.display()))?;
    let first = blobs(&out)?.len();
    root.does(&format!("export web@one {}:again", out.display()))?;
    assert_eq!(blobs(&out)?.len(), first, "the same travels once");
    root.does(&format!("export web@two {}:two", out.display()))?;
    let both = blobs(&out)?.len();
    assert!(both < 2 * first, "{first} blobs for one, {both} for both");
    for tag in ["one", "again", "two"] {
        root.does(&format!("import {}:{tag} copy-{tag}", out.display()))?;
    }
    root.start("copy-two")?.answers("count", "count 4 2.0")?;
    root.start("copy-again")?.answers("count", "count 3 1.5")
}

fn changed() -> Done {
    let root = Root::new("travels-changed");
    counted(&root)?;
    let out = place("out-changed");
    let layout = out.display();
    root.does(&format!("export web {layout}"))?;
    root.refuses(&format!("import {layout}:other copy"), &["has nothing with the tag other"])?;
    root.refuses(&format!("import {} copy", place("no-layout").display()), &["cannot open", "oci-layout"])?;
    root.refuses(&format!("import {layout} web"), &["there is a machine web already"])?;
    // Each blob in turn, flipped and cut short: whichever it is, no machine comes of it.
    for blob in blobs(&out)? {
        let bytes = fs::read(&blob)?;
        let mut flipped = bytes.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for bad in [&flipped[..], &bytes[..bytes.len() - 1], b""] {
            fs::write(&blob, bad)?;
            root.refuses(&format!("import {layout} copy"), &["blob sha256:", "hint: it was changed or cut short"])?;
        }
        fs::remove_file(&blob)?;
        root.refuses(&format!("import {layout} copy"), &["cannot open", "blobs/sha256"])?;
        fs::write(&blob, &bytes)?;
    }
    assert!(!root.machine("copy").exists());
    root.does(&format!("import {layout} copy"))?;
    root.start("copy")?.answers("count", "count 3 1.5")
}
