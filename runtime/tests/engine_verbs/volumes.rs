//! Volumes: files that outlive a container.

use std::fs;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, NEEDS, has, same, tree};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_new_volume_begins_with_what_the_image_has_there", &NEEDS, begins),
        trial("a_volume_outlives_its_containers_and_is_not_removed_under_one", &NEEDS, outlives),
        trial("a_volume_without_a_name_goes_with_its_container", &NEEDS, anonymous),
        trial("a_container_sees_another_s_volumes", &NEEDS, from_another),
        trial("files_and_folders_of_the_host_are_seen_where_they_fit", &NEEDS, bound),
        trial("a_mount_that_cannot_be_is_refused_and_leaves_nothing", &NEEDS, refused),
        trial("prune_removes_the_volumes_that_nobody_has", &NEEDS, prune),
    ]
}

fn begins() -> Result<(), Failed> {
    let lab = Lab::new()?;
    // By its own path and through a link of the image.
    for (name, place) in [("one", "/srv/site"), ("two", "/var/link/site")] {
        same(
            &lab.sh(&["-v", &format!("{name}:{place}")], &format!("cat {place}/page; echo more > {place}/new"))?,
            "page\n",
        )?;
        let data = lab.ctr(&["volume", "inspect", "--format", "{{.Mountpoint}}", name])?;
        same(&tree(data.trim().as_ref())?, " d 750 33:33 \nnew f 644 0:0 \npage f 640 33:33 \n")?;
    }
    // What is in it stays, and the image's is not copied over it again.
    same(&lab.sh(&["-v", "one:/srv/site"], "cat /srv/site/new; rm /srv/site/page")?, "more\n")?;
    same(&lab.sh(&["-v", "one:/srv/site"], "ls /srv/site")?, "new\n")?;
    same(&lab.sh(&["-v", "bare:/srv/site:nocopy"], "ls /srv/site")?, "")?;
    same(
        &lab.sh(&["--mount", "type=volume,src=bare,dst=/new/place,readonly"], "touch /new/place/x || echo no")?,
        "no\n",
    )
}

fn outlives() -> Result<(), Failed> {
    let lab = Lab::new()?;
    same(&lab.ctr(&["volume", "create", "--label", "a=1", "data"])?, "data\n")?;
    same(&lab.ctr(&["volume", "create", "data"])?, "data\n")?;
    lab.sleeper("web", &["-v", "data:/data"])?;
    lab.sh(&["-v", "data:/data"], "echo kept > /data/file")?;
    has(&lab.refused(&["volume", "rm", "data"])?, "volume data is in use by web")?;
    lab.ctr(&["stop", "-t", "0", "web"])?;
    has(&lab.refused(&["volume", "rm", "data"])?, "volume data is in use by web")?;
    let mounts =
        lab.ctr(&["inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}", "web"])?;
    same(&mounts, "volume data /data true\n")?;
    lab.ctr(&["rm", "-v", "web"])?;
    same(&lab.sh(&["-v", "data:/d"], "cat /d/file")?, "kept\n")?;
    same(&lab.ctr(&["volume", "ls"])?, "DRIVER   VOLUME NAME\nlocal    data\n")?;
    same(&lab.ctr(&["volume", "ls", "--format", "{{.Name}} {{.Labels}}", "--filter", "label=a=1"])?, "data a=1\n")?;
    same(&lab.ctr(&["volume", "rm", "data"])?, "data\n")?;
    has(&lab.refused(&["volume", "inspect", "data"])?, "there is no volume data")
}

fn anonymous() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let volumes = || lab.ctr(&["volume", "ls", "--quiet"]).map(|text| text.lines().count());
    lab.sh(&["-v", "/srv/site"], "cat /srv/site/page")?;
    assert_eq!(volumes()?, 0, "it outlives a container that was removed with its end");
    lab.sleeper("web", &["-v", "/srv/site", "-v", "named:/named"])?;
    assert_eq!(volumes()?, 2);
    lab.ctr(&["rm", "--force", "--volumes", "web"])?;
    same(&lab.ctr(&["volume", "ls", "--quiet"])?, "named\n")?;
    // An image's own.
    fs::write(lab.path("Dockerfile"), "FROM sample:1\nVOLUME /srv/site\n")?;
    lab.ctr(&["build", "-q", "-t", "kept:1", "-f", &lab.text("Dockerfile"), &lab.text("root")])?;
    lab.ctr(&["create", "--name", "made", "kept:1", "true"])?;
    assert_eq!(volumes()?, 2, "VOLUME made none");
    lab.ctr(&["create", "--name", "other", "-v", "named:/srv/site", "kept:1", "true"])?;
    assert_eq!(volumes()?, 2, "the user's own was to be taken in its place");
    lab.ctr(&["rm", "made"])?;
    assert_eq!(volumes()?, 2, "without --volumes it stays, as docker's does");
    Ok(())
}

fn from_another() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.sleeper("web", &["-v", "data:/data", "-v", "/srv/site"])?;
    let see = "echo x > /data/x && ls /data /srv/site";
    same(&lab.sh(&["--volumes-from", "web"], see)?, "/data:\nx\n\n/srv/site:\npage\n")?;
    let output = lab.run(&["run", "--rm", "--volumes-from", "web:ro", "sample:1", "sh", "-c", see])?;
    assert!(!output.status.success(), "it could write");
    // The volume that it saw without a name is still the other's.
    same(&lab.sh(&["--volumes-from", "web"], "cat /srv/site/page")?, "page\n")?;
    has(&lab.refused(&["run", "--volumes-from", "nobody", "sample:1", "true"])?, "nobody")
}

fn bound() -> Result<(), Failed> {
    let lab = Lab::new()?;
    fs::write(lab.path("conf"), "mine\n")?;
    let (file, missing) = (lab.text("conf"), lab.text("not/there"));
    same(
        &lab.sh(&["-v", &format!("{file}:/etc/conf:ro")], "cat /etc/conf; echo x > /etc/conf || echo no")?,
        "mine\nno\n",
    )?;
    lab.sh(&["-v", &format!("{missing}:/data")], "echo x > /data/x")?;
    assert!(lab.path("not/there/x").is_file(), "-v makes a folder where none is");
    let tmpfs = ["--mount", "type=tmpfs,target=/mem,tmpfs-size=1m,tmpfs-mode=1770"];
    same(
        &lab.sh(&tmpfs, "stat -c %a /mem; dd if=/dev/zero of=/mem/x bs=1k count=2000 2>/dev/null || echo full")?,
        "1770\nfull\n",
    )
}

fn refused() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let (file, folder) = (lab.text("root.tar"), lab.text("root"));
    let table = [
        (vec!["-v", "data:/etc/conf"], "cannot mount the volume data on /etc/conf, which is a file in the image"),
        (vec!["-v", "/etc/conf"], "cannot mount the volume without a name on /etc/conf"),
        (vec!["--mount", "type=bind,src=/not/there,dst=/x"], "cannot mount /not/there, which is not there"),
        (vec!["-v", "a:/x", "-v", "b:/x/"], "two things are to be mounted at /x"),
        (vec!["-v", "a:/x", "--tmpfs", "/x"], "two things are to be mounted at /x"),
        (vec!["-v", "a/b:/x"], "a volume's name"),
        (vec!["-v", "x"], "an absolute path below / in the container"),
        (vec!["--mount", "type=nfs,dst=/x"], "type=bind, type=volume or type=tmpfs"),
    ];
    for (flags, expected) in table {
        let told = lab.refused(&[&["run", "--rm"], &flags[..], &["-v", "/anonymous", "sample:1", "true"]].concat())?;
        has(&told, expected)?;
    }
    for (from, to, expected) in
        [(&folder, "/etc/conf", "cannot mount the folder"), (&file, "/srv/site", "cannot mount the file")]
    {
        has(&lab.refused(&["run", "--rm", "-v", &format!("{from}:{to}"), "sample:1", "true"])?, expected)?;
    }
    same(&lab.ctr(&["ps", "--all", "--quiet"])?, "")?;
    let left = lab.ctr(&["volume", "ls", "--quiet"])?;
    assert!(left.lines().all(|name| name.len() < 64), "a volume without a name is left: {left}");
    Ok(())
}

fn prune() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr(&["create", "--name", "web", "-v", "used:/used", "-v", "/srv/site", "sample:1", "true"])?;
    lab.ctr(&["volume", "create", "unused"])?;
    lab.ctr(&["volume", "create"])?;
    has(&lab.ctr(&["volume", "prune"])?, "Space reclaimed: 0B")?;
    assert_eq!(lab.ctr(&["volume", "ls", "-q"])?.lines().count(), 3);
    same(&lab.ctr(&["volume", "ls", "-q", "-f", "dangling=true"])?, "unused\n")?;
    has(&lab.ctr(&["volume", "prune", "--all"])?, "Deleted: unused\n")?;
    assert_eq!(lab.ctr(&["volume", "ls", "-q"])?.lines().count(), 2);
    Ok(())
}
