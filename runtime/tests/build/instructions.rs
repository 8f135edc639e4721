//! Instructions that buildah's own image format has no place for, which of several stages are built, and what of the build's
//! folder is not there.

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{BASE, Lab, has, same, succeed};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 4] = [
        ("a_shell_is_that_of_every_line_after_it", shell),
        ("a_trigger_waits_for_the_image_that_is_built_upon", trigger),
        ("only_what_the_target_needs_is_built", target),
        ("what_dockerignore_names_is_not_copied", ignored),
    ];
    let needs = ["root", "overlay", "busybox"];
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect()
}

/// What an image says of its containers.
fn config(lab: &Lab, name: &str) -> Result<Value, Failed> {
    let told: Value = serde_json::from_str(&succeed(&lab.run(&["inspect", name])?)?.0)?;
    Ok(told[0]["Config"].clone())
}

/// What a container of an image prints.
fn printed(lab: &Lab, name: &str, script: &str) -> Result<String, Failed> {
    Ok(succeed(&lab.run(&["run", "--rm", "--entrypoint", "/bin/sh", name, "-c", script])?)?.0)
}

fn shell() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let text = format!(
        "{BASE}RUN echo $- > /before\nSHELL [\"/bin/sh\", \"-u\", \"-c\"]\nRUN echo $- > /after\n\
         HEALTHCHECK --interval=3s --retries=2 CMD test -e /after\nCMD echo $HOME\n"
    );
    lab.build("app", &text, &[])?;
    same(&printed(&lab, "app", "grep -c u /before /after || true")?.as_str(), &"/before:0\n/after:1\n")?;
    let config = config(&lab, "app")?;
    same(&config["Shell"], &json!(["/bin/sh", "-u", "-c"]))?;
    same(&config["Cmd"], &json!(["/bin/sh", "-u", "-c", "echo $HOME"]))?;
    same(&config["Healthcheck"]["Test"], &json!(["CMD-SHELL", "test -e /after"]))?;
    same(
        &[&config["Healthcheck"]["Interval"], &config["Healthcheck"]["Retries"]],
        &[&json!(3_000_000_000_u64), &json!(2)],
    )?;
    lab.build("calm", "FROM app\nHEALTHCHECK NONE\n", &[])?;
    same(&self::config(&lab, "calm")?["Healthcheck"]["Test"], &json!(["NONE"]))
}

fn trigger() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.write("page", "a page\n")?;
    lab.build("parent", &format!("{BASE}ONBUILD COPY page /srv/\nONBUILD RUN cp /srv/page /made\n"), &[])?;
    same(&printed(&lab, "parent", "ls /srv/page /made 2>/dev/null || true")?.as_str(), &"")?;
    same(&config(&lab, "parent")?["OnBuild"], &json!(["COPY page /srv/", "RUN cp /srv/page /made"]))?;
    lab.build("child", "FROM parent\nRUN cat /made > /own\n", &[])?;
    same(&printed(&lab, "child", "cat /srv/page /made /own")?.as_str(), &"a page\na page\na page\n")?;
    // It is for children and not for theirs.
    same(&config(&lab, "child")?["OnBuild"].as_array().map_or(0, Vec::len), &0)
}

fn target() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let text = format!(
        "{BASE}RUN echo 1 > /first\nFROM base AS broken\nRUN false\nFROM base AS Second\nRUN echo 2 > /second\n\
         FROM broken\nCOPY --from=second /second /\n"
    );
    has(&String::from_utf8_lossy(&lab.try_build("all", &text, &[])?.stderr), "RUN false")?;
    for (target, files) in [("second", "/first\n/second\n"), ("2", "/first\n/second\n"), ("base", "/first\n")] {
        let (_, told) = lab.build("app", &text, &["--target", target])?;
        same(&told.contains("RUN false"), &false)?;
        same(&printed(&lab, "app", "ls /first /second 2>/dev/null || true")?.as_str(), &files)?;
    }
    let none = lab.try_build("app", &text, &["--target", "nowhere"])?;
    same(&none.status.success(), &false)?;
    has(&String::from_utf8_lossy(&none.stderr), "nowhere")
}

fn ignored() -> Result<(), Failed> {
    let lab = Lab::new()?;
    for name in ["a.log", "keep.log", "deep/b.log", "deep/er/c.tmp", "deep/er/d", "secret/key", "page"] {
        lab.write(name, name)?;
    }
    lab.write(".dockerignore", "# not for others\n*.log\n!keep.log\n**/*.tmp\nsecret\n.dockerignore\n")?;
    lab.build("app", &format!("{BASE}COPY . /srv/\n"), &[])?;
    let found = printed(&lab, "app", "cd /srv && find . -type f | sort")?;
    same(&found.as_str(), &"./busybox\n./deep/b.log\n./deep/er/d\n./keep.log\n./page\n")?;
    let hidden = lab.try_build("app", &format!("{BASE}COPY secret/key /\n"), &[])?;
    same(&hidden.status.success(), &false)?;
    has(&String::from_utf8_lossy(&hidden.stderr), ".dockerignore")
}
