//! A container's files: carried in and out, told, made an image, doubled.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, NEEDS, has, same, succeed, tree};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let with_podman = [&NEEDS[..], &["podman"]].concat();
    vec![
        trial("a_copy_lands_where_podman_s_does", &with_podman, as_podman),
        trial("a_copy_goes_to_and_from_containers_that_run_and_that_do_not", &NEEDS, both_ways),
        trial("no_link_leads_a_copy_out_of_its_container", &NEEDS, links),
        trial("changes_are_told_as_docker_tells_them", &NEEDS, changes),
        trial("an_export_is_all_that_the_container_sees", &NEEDS, export),
        trial("a_commit_is_an_image_with_one_layer_more", &NEEDS, commit),
        trial("a_commit_changes_what_the_image_says", &NEEDS, commit_changes),
        trial("a_linked_clone_shares_layers_and_goes_its_own_way", &NEEDS, linked),
        trial("a_full_clone_needs_nothing_of_its_parent", &NEEDS, full),
    ]
}

/// Copies to a container: from, to.
const IN: [(&str, &str); 15] = [
    ("f", "/new1"),
    ("f", "/nodir/"),
    ("f", "/srv/site"),
    ("f", "/srv/site/"),
    ("f", "/etc/conf"),
    ("f", "/etc/conf/"),
    ("d", "/new2"),
    ("d", "/srv/site"),
    ("d/.", "/tmp"),
    ("d", "/etc/conf"),
    ("d/", "/new3"),
    ("d/.", "/new4"),
    ("f", "/nodir/x"),
    ("f", "/var/link"),
    ("nothing", "/new5"),
];
/// And from one.
const OUT: [(&str, &str); 9] = [
    ("/etc/conf", "conf"),
    ("/srv/site", "site"),
    ("/srv/site/.", "there"),
    ("/etc/conf", "there/"),
    ("/etc/conf", "missing/"),
    ("/srv", "f"),
    ("/nothing", "nothing"),
    ("/var/link/site/page", "page"),
    ("/srv/site", "there"),
];

/// A folder to copy from and to.
fn host(lab: &Lab, name: &str) -> Result<(), Failed> {
    let folder = lab.path(name);
    for path in ["d/sub", "there"] {
        fs::create_dir_all(folder.join(path))?;
    }
    for path in ["f", "d/x", "d/sub/y"] {
        fs::write(folder.join(path), path)?;
    }
    Ok(())
}

fn as_podman() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr(&["create", "--name", "box", "sample:1", "true"])?;
    lab.ctr(&["save", "-o", &lab.text("saved.tar"), "sample:1"])?;
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--storage-driver", "vfs", "--root", &lab.text("pod"), "--runroot", &lab.text("podrun")]);
        Ok::<_, Failed>(command.args(arguments).output()?)
    };
    succeed(&podman(&["load", "--input", &lab.text("saved.tar")])?)?;
    succeed(&podman(&["create", "--name", "box", "--network", "none", "sample:1", "true"])?)?;
    for name in ["ours", "theirs"] {
        host(&lab, name)?;
    }
    let at = |name: &str, path: &str| format!("{}/{path}", lab.text(name));
    let cases = IN.iter().map(|(from, to)| (false, *from, *to)).chain(OUT.iter().map(|(from, to)| (true, *from, *to)));
    for (out, from, to) in cases {
        let inside = |path: &str| format!("box:{path}");
        let words = |name: &str| if out { [inside(from), at(name, to)] } else { [at(name, from), inside(to)] };
        let ([our_from, our_to], [their_from, their_to]) = (words("ours"), words("theirs"));
        let ours = lab.run(&["cp", &our_from, &our_to])?;
        let theirs = podman(&["cp", &their_from, &their_to])?;
        let told = String::from_utf8_lossy(&ours.stderr).into_owned();
        assert_eq!(ours.status.success(), theirs.status.success(), "{from} to {to}: {told}");
    }
    let list = |name: &str| -> Result<Vec<String>, Failed> {
        let lines = tree(&lab.path(name))?;
        // What an engine puts there for its own mounts, and modes of folders that were copied over, are no concern here.
        let own = ["dev", "proc", "sys", "run", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"];
        let is_own = |line: &&str| {
            own.iter().any(|own| line.split(' ').next().is_some_and(|path| Path::new(path).starts_with(own)))
        };
        Ok(lines
            .lines()
            .filter(|line| !is_own(line))
            .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect())
    };
    assert_eq!(list("ours")?, list("theirs")?, "on the host");
    lab.ctr(&["export", "-o", &lab.text("ours.tar"), "box"])?;
    succeed(&podman(&["export", "-o", &lab.text("theirs.tar"), "box"])?)?;
    for name in ["ours", "theirs"] {
        let into = lab.path(&format!("{name}.root"));
        fs::create_dir(&into)?;
        succeed(&Command::new("tar").arg("-xf").arg(lab.path(&format!("{name}.tar"))).arg("-C").arg(into).output()?)?;
    }
    assert_eq!(list("ours.root")?, list("theirs.root")?, "in the container");
    Ok(())
}

fn both_ways() -> Result<(), Failed> {
    let lab = Lab::new()?;
    host(&lab, "host")?;
    std::os::unix::fs::chown(lab.path("host/f"), Some(1000), Some(100_000))?;
    // In this order: a new owner takes the set-user-ID bit away.
    fs::set_permissions(lab.path("host/f"), std::os::unix::fs::PermissionsExt::from_mode(0o4751))?;
    lab.sleeper("up", &["-v", "data:/data"])?;
    lab.ctr(&["create", "--name", "down", "-v", "data:/data", "sample:1", "cat", "/new/f", "/data/f"])?;
    for name in ["up", "down"] {
        lab.ctr(&["cp", &lab.text("host/d"), &format!("{name}:/new")])?;
        for place in ["/new", "/data"] {
            lab.ctr(&["cp", "-a", &lab.text("host/f"), &format!("{name}:{place}/f")])?;
        }
        let back = lab.text(&format!("{name}-back"));
        lab.ctr(&["cp", "-a", &format!("{name}:/new"), &back])?;
        let found = tree(Path::new(&back))?;
        has(&found, "f f 4751 1000:100000 \n")?;
        has(&found, "sub/y f 644 0:0 \n")?;
    }
    same(&lab.ctr(&["start", "--attach", "down"])?, "ff")?;
    assert!(
        lab.path("store/volumes/data/_data/f").is_file(),
        "the volume of a container that does not run was passed by"
    );
    // Through pipes, as archives.
    let archive = lab.command(&["cp", "up:/new", "-"]).output()?;
    let file = lab.path("piped.tar");
    fs::write(&file, &archive.stdout)?;
    let names = succeed(&Command::new("tar").arg("-tf").arg(&file).output()?)?;
    same(&names, "new/\nnew/f\nnew/sub/\nnew/sub/y\nnew/x\n")?;
    let mut piped = lab.command(&["cp", "-", "up:/tmp"]);
    succeed(&piped.stdin(fs::File::open(&file)?).output()?)?;
    lab.ctr(&["cp", "up:/tmp/new/sub/y", &lab.text("y")])?;
    same(&fs::read_to_string(lab.path("y"))?, "d/sub/y")?;
    has(&lab.refused(&["cp", "up:/new", "down:/"])?, "of the two ends of a copy one is in a container")?;
    has(&lab.refused(&["cp", &lab.text("host/f"), "up:/srv/site/page/x"])?, "cannot find the folder")?;
    has(&lab.refused(&["cp", &lab.text("host/f"), "nobody:/"])?, "nobody")?;
    // What others talk through is not replaced by a file.
    let pipe = lab.text("pipe");
    nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU)?;
    for (from, to) in [("up:/srv/site/page", pipe.as_str()), (&lab.text("host/f"), "up:/dev/null")] {
        has(&lab.refused(&["cp", from, to])?, "which is a device, a pipe or a socket")?;
    }
    Ok(())
}

fn links() -> Result<(), Failed> {
    let lab = Lab::new()?;
    host(&lab, "host")?;
    let outside = lab.path("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("secret"), "secret")?;
    let far = outside.display();
    // Links to the host's folder, by its absolute path and by more steps up than there are; and one that comes and goes.
    let script = format!(
        "ln -s {far} /abs; ln -s ../../../../../../../..{far} /rel; mkdir /swap; \
         while true; do mv /swap /old; ln -s {far} /swap; rm /swap; mv /old /swap; done"
    );
    lab.ctr(&["run", "-d", "--name", "box", "sample:1", "sh", "-c", &script])?;
    let (file, folder) = (lab.text("host/f"), lab.text("host/d"));
    for name in ["abs", "rel"] {
        lab.refused(&["cp", &format!("box:/{name}/secret"), &lab.text("stolen")])?;
        lab.refused(&["cp", &file, &format!("box:/{name}/planted")])?;
    }
    for _ in 0..40 {
        // Some of these fail, as the folder is just not there. None may reach the host's.
        lab.run(&["cp", &file, "box:/swap/planted"])?;
        lab.run(&["cp", &folder, "box:/swap"])?;
        lab.run(&["cp", "box:/swap/secret", &lab.text("stolen")])?;
    }
    lab.ctr(&["kill", "box"])?;
    lab.ctr(&["wait", "box"])?;
    for name in ["abs", "rel", "swap"] {
        lab.run(&["cp", &file, &format!("box:/{name}/planted")])?;
        lab.run(&["cp", &format!("box:/{name}/secret"), &lab.text("stolen")])?;
    }
    assert!(!lab.path("stolen").exists(), "a file of the host's was taken for the container's");
    same(&tree(&outside)?, &format!(" d {} 0:0 \nsecret f 644 0:0 \n", "755"))
}

fn changes() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let script = "echo x > /etc/new; echo x >> /etc/conf; rm /srv/outside; mkdir /fresh; touch /fresh/file; \
                  chmod 700 /tmp; rm /srv/site/page; mkdir /var/dir";
    lab.ctr(&["run", "--name", "box", "-v", "data:/data", "--tmpfs", "/mem", "sample:1", "sh", "-c", script])?;
    let expected = "C /etc\nC /etc/conf\nA /etc/new\nA /fresh\nA /fresh/file\nC /srv\nD /srv/outside\nC /srv/site\n\
                    D /srv/site/page\nC /tmp\nC /var\nA /var/dir\n";
    same(&lab.ctr(&["diff", "box"])?, expected)?;
    // One that changes nothing has changed nothing, though its engine had to mount things in it.
    lab.ctr(&["run", "--name", "idle", "-v", "data:/a/b", "sample:1", "true"])?;
    same(&lab.ctr(&["diff", "idle"])?, "")?;
    // A folder that was removed and made anew hides what was in it.
    lab.ctr(&["run", "--name", "anew", "sample:1", "sh", "-c", "rm -r /srv; mkdir /srv; touch /srv/x"])?;
    same(&lab.ctr(&["diff", "anew"])?, "C /srv\nD /srv/outside\nD /srv/site\nA /srv/x\n")
}

fn export() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr(&["run", "--name", "box", "sample:1", "sh", "-c", "rm /etc/conf; echo x > /etc/new"])?;
    lab.ctr(&["export", "--output", &lab.text("c.tar"), "box"])?;
    let names = succeed(&Command::new("tar").arg("-tf").arg(lab.path("c.tar")).output()?)?;
    has(&names, "etc/new\n")?;
    has(&names, "srv/site/page\n")?;
    assert!(!names.contains("etc/conf"), "what was removed is in it");
    lab.ctr(&["import", &lab.text("c.tar"), "again:1"])?;
    same(&lab.ctr(&["run", "--rm", "again:1", "cat", "/etc/new"])?, "x\n")
}

fn commit() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.sleeper("box", &["-v", "data:/data", "-e", "A=1"])?;
    lab.ctr(&["cp", &lab.text("root.tar"), "box:/srv/added"])?;
    let id = lab.ctr(&["commit", "-m", "a message", "-a", "somebody", "box", "made:1"])?;
    assert!(id.starts_with("sha256:") && id.trim().len() == 71, "{id}");
    same(&lab.ctr(&["ps", "--format", "{{.State}}"])?, "running\n")?;
    let facts = lab.ctr(&[
        "inspect",
        "-f",
        "{{.Author}} {{len .RootFS.Layers}} {{index .Config.Env 0}} {{.Config.Cmd}}",
        "made:1",
    ])?;
    same(&facts, "somebody 2 A=1 [sleep 1000]\n")?;
    // What was only mounted on is not in the layer.
    let see = "test -s /srv/added && test ! -e /data && echo good";
    same(&lab.ctr(&["run", "--rm", "made:1", "sh", "-c", see])?, "good\n")?;
    // Nothing changed, nothing added.
    lab.ctr(&["create", "--name", "idle", "sample:1", "true"])?;
    lab.ctr(&["commit", "idle", "same:1"])?;
    same(&lab.ctr(&["inspect", "-f", "{{len .RootFS.Layers}}", "same:1"])?, "1\n")?;
    lab.ctr(&["fsck"]).map(drop)
}

fn commit_changes() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr(&["create", "--name", "box", "sample:1", "true"])?;
    let changes = [
        "-c",
        "CMD [\"cat\", \"/etc/conf\"]",
        "--change",
        "ENV B=two",
        "--change",
        "LABEL l=1",
        "--change",
        "WORKDIR /srv",
    ];
    lab.ctr(&[&["commit"], &changes[..], &["box", "made:1"]].concat())?;
    same(&lab.ctr(&["run", "--rm", "made:1"])?, "conf\n")?;
    let facts = lab.ctr(&["inspect", "-f", "{{.Config.Env}} {{.Config.Labels.l}} {{.Config.WorkingDir}}", "made:1"])?;
    same(&facts, "[B=two] 1 /srv\n")?;
    has(&lab.refused(&["commit", "--change", "RUN true", "box"])?, "one of CMD, ENTRYPOINT, ENV")?;
    has(&lab.refused(&["commit", "--change", "NONSENSE", "box"])?, "NONSENSE")
}

fn linked() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let script = "echo own > /etc/own; rm /etc/conf; sleep 1000";
    lab.ctr(&["run", "-d", "--name", "parent", "-v", "/srv/site", "sample:1", "sh", "-c", script])?;
    for _ in 0..100 {
        if lab.ctr(&["diff", "parent"])?.contains("D /etc/conf") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = lab.ctr(&["clone", "parent", "child"])?;
    assert_ne!(id, lab.ctr(&["inspect", "-f", "{{.Id}}", "parent"])?);
    same(&lab.ctr(&["diff", "child"])?, "")?;
    lab.ctr(&["start", "child"])?;
    let read = |name: &str, path: &str| {
        let to = lab.text("read");
        lab.ctr(&["cp", &format!("{name}:{path}"), &to])?;
        Ok::<_, Failed>(fs::read_to_string(to)?)
    };
    same(&read("child", "/etc/own")?, "own\n")?;
    has(&lab.refused(&["cp", "child:/etc/conf", &lab.text("none")])?, "there is nothing at /etc/conf")?;
    assert_ne!(read("parent", "/etc/hostname")?, read("child", "/etc/hostname")?);
    // Each goes its own way, also in the volume that had no name.
    fs::write(lab.path("new"), "parent's")?;
    for path in ["/etc/own", "/srv/site/page"] {
        lab.ctr(&["cp", &lab.text("new"), &format!("parent:{path}")])?;
        assert_ne!(read("child", path)?, "parent's", "{path}");
    }
    // Of the same layers, and a clone of a clone.
    let layers =
        |name: &str| lab.ctr(&["inspect", "-f", "{{range .GraphDriver.Data.LowerDir}}{{println .}}{{end}}", name]);
    let (parents, childs) = (layers("parent")?, layers("child")?);
    assert!(parents.lines().filter(|line| !line.is_empty()).all(|layer| childs.contains(layer)), "{parents}{childs}");
    // The image's, what the parent had changed, and what the child has changed since.
    lab.ctr(&["commit", "child", "made:1"])?;
    same(&lab.ctr(&["inspect", "-f", "{{len .RootFS.Layers}}", "made:1"])?, "3\n")?;
    lab.ctr(&["rm", "-f", "-v", "parent"])?;
    lab.ctr(&["rmi", "-f", "sample:1", "made:1"])?;
    lab.ctr(&["prune"])?;
    lab.ctr(&["clone", "--linked", "child", "grandchild"])?;
    lab.ctr(&["start", "grandchild"])?;
    same(&read("grandchild", "/etc/own")?, "own\n")?;
    has(&lab.refused(&["clone", "child", "grandchild"])?, "grandchild")
}

fn full() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr(&[
        "run",
        "--name",
        "parent",
        "-v",
        "data:/data",
        "sample:1",
        "sh",
        "-c",
        "echo own > /etc/own; echo d > /data/d",
    ])?;
    lab.ctr(&["clone", "--full", "parent", "child"])?;
    lab.ctr(&["rm", "-f", "-v", "parent"])?;
    lab.ctr(&["volume", "rm", "data"])?;
    lab.ctr(&["rmi", "-f", "sample:1"])?;
    lab.ctr(&["prune"])?;
    let layers = fs::read_dir(lab.path("store/layers"))?.count();
    assert_eq!(layers, 0, "the store still has layers, so this shows nothing");
    lab.ctr(&["start", "child"])?;
    lab.ctr(&["wait", "child"])?;
    lab.ctr(&["export", "-o", &lab.text("child.tar"), "child"])?;
    let names = succeed(&Command::new("tar").arg("-tf").arg(lab.path("child.tar")).output()?)?;
    has(&names, "etc/own\n")?;
    lab.ctr(&["cp", "child:/data/d", &lab.text("d")])?;
    has(&lab.refused(&["clone", "--linked", "child", "other"])?, "nothing can share its layer")?;
    lab.ctr(&["commit", "child", "made:1"])?;
    same(&lab.ctr(&["run", "--rm", "made:1", "cat", "/etc/own"])?, "own\n")?;
    same(&lab.ctr(&["inspect", "-f", "{{len .RootFS.Layers}}", "made:1"])?, "1\n")
}
