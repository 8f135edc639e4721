//! `isolab-ctr run`: an image's configuration and a user's wishes become one container.

use libtest_mimic::{Failed, Trial};

use super::lab::{BASE, Lab, has, same, succeed};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 5] = [
        ("run_does_what_the_image_says_and_the_user_wants", wishes),
        ("run_ends_with_the_programs_status_or_dockers", statuses),
        ("run_leaves_nothing_behind", nothing_behind),
        ("an_image_that_has_a_layer_twice_is_built_upon_and_runs", twice),
        ("a_second_build_does_nothing_again", cached),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup"];
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect()
}

fn wishes() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.build(
        "app",
        &format!("{BASE}ENV a=1\nWORKDIR /srv\nUSER web\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"pwd\"]\n"),
        &[],
    )?;
    let out = |arguments: &[&str]| Ok::<_, Failed>(succeed(&lab.run(&[&["run", "--rm"], arguments].concat())?)?.0);
    same(&out(&["app"])?.as_str(), &"/srv\n")?;
    same(&out(&["-w", "/tmp", "app"])?.as_str(), &"/tmp\n")?;
    same(&out(&["-e", "a=2", "app", "echo $a $HOME; id -u"])?.as_str(), &"2 /srv\n33\n")?;
    same(
        &out(&["-u", "0", "--hostname", "me", "app", "id -u; hostname; cat /etc/hostname"])?.as_str(),
        &"0\nme\nme\n",
    )?;
    same(&out(&["--entrypoint", "/bin/echo", "app", "x"])?.as_str(), &"x\n")?;
    let shared = format!("{}:/seen:ro", lab.context().display());
    has(&out(&["-v", &shared, "app", "ls /seen; touch /seen/x 2>&1 || true"])?, "Read-only")?;
    has(&out(&["-u", "0", "--read-only", "app", "touch /x 2>&1 || true"])?, "Read-only")?;
    // Docker's list of what root may do: fourteen bits.
    has(&out(&["-u", "0", "app", "grep CapEff /proc/self/status"])?, "00000000a80425fb")?;
    has(&out(&["app", "grep Seccomp: /proc/self/status"])?, "2")
}

fn statuses() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.build("app", &format!("{BASE}CMD [\"sh\", \"-c\", \"exit 7\"]\n"), &[])?;
    let table: [(&[&str], i32); 6] = [
        (&["app"], 7),
        (&["app", "missing"], 127),
        (&["app", "/etc/passwd"], 126),
        (&["none"], 125),
        (&["-u", "nobody", "app"], 125),
        // A first process is not killed by its own signals; one below it is.
        (&["app", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
    ];
    for (arguments, expected) in table {
        let output = lab.run(&[&["run"], arguments].concat())?;
        same(&(arguments, output.status.code()), &(arguments, Some(expected)))?;
    }
    Ok(())
}

fn nothing_behind() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.build("app", BASE, &[])?;
    succeed(&lab.run(&["run", "--rm", "app", "sh", "-c", "echo x > /new"])?)?;
    let again = succeed(&lab.run(&["run", "--rm", "app", "sh", "-c", "ls /new 2>&1 || true"])?)?.0;
    has(&again, "No such file")?;
    same(&succeed(&lab.run(&["ps", "--all", "--quiet"])?)?.0, &String::new())?;
    // Only who has which name is still kept.
    same(&std::fs::read_dir(lab.store().join("containers/names"))?.count(), &0)?;
    let folders = std::fs::read_dir(lab.store().join("containers"))?.flatten().filter(|entry| entry.path().is_dir());
    same(&folders.count(), &1)?;
    same(&std::fs::read_to_string("/proc/mounts")?.contains(&lab.store().display().to_string()), &false)
}

fn cached() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.write("file", "1")?;
    let text = format!("{BASE}COPY file /file\nRUN date > /when\n");
    let (first, _) = lab.build("app", &text, &[])?;
    let (second, told) = lab.build("app", &text, &[])?;
    same(&first, &second)?;
    same(&told.matches("CACHED").count(), &5)?;
    lab.write("file", "2")?;
    let (third, told) = lab.build("app", &text, &[])?;
    same(&(third == first, told.matches("CACHED").count()), &(false, 3))?;
    let (_, told) = lab.build("app", &text, &["--no-cache"])?;
    same(&told.matches("CACHED").count(), &0)
}

fn twice() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.write("page", "a page\n")?;
    let text = format!("{BASE}COPY page /srv/\nRUN rm /srv/page && echo more > /srv/more\nCOPY page /srv/\n");
    std::fs::write(lab.path("Dockerfile"), format!("{text}RUN cat /srv/page > /srv/copy\n"))?;
    let (file, context) = (lab.path("Dockerfile").display().to_string(), lab.context().display().to_string());
    // No time is later than this, so that the second time the folder is the same too.
    let mut build = lab.command(&["build", "-t", "app", "-f", &file, &context]);
    succeed(&build.env("SOURCE_DATE_EPOCH", "1").output()?)?;
    let told: serde_json::Value = serde_json::from_str(&succeed(&lab.run(&["inspect", "app"])?)?.0)?;
    let layers = told[0]["RootFS"]["Layers"].as_array().ok_or("no layers")?;
    let different: std::collections::HashSet<_> = layers.iter().map(ToString::to_string).collect();
    same(&different.len(), &(layers.len() - 1))?;
    let out = succeed(&lab.run(&["run", "--rm", "app", "sh", "-c", "cd /srv; ls; cat page copy more"])?)?.0;
    same(&out.as_str(), &"copy\nmore\npage\na page\na page\nmore\n")
}
