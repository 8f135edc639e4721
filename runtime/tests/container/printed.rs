//! A chapter of the course is what its commands print: each of them is run again and has to say the same, but for digests,
//! dates, sizes and times. `ISOLAB_RENEW=1` writes down what they say now.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Failed;

use super::needs::busybox;

const CTR: &str = env!("CARGO_BIN_EXE_isolab-ctr");

/// A root with busybox, and links to it, in a tar archive.
pub(crate) fn base_archive(archive: &Path, applets: &[&str]) -> Result<(), Failed> {
    let mut tar = tar::Builder::new(fs::File::create(archive)?);
    tar.append_path_with_name(busybox()?, "bin/busybox")?;
    for applet in applets {
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        link.set_uid(0);
        link.set_gid(0);
        link.set_mtime(0);
        tar.append_link(&mut link, format!("bin/{applet}"), "busybox")?;
    }
    Ok(tar.finish()?)
}

/// Runs the commands of a chapter, a file of the course's, one after the other, and holds it against what they print.
pub(crate) fn is_printed(chapter: &str, run: impl Fn(&str) -> Result<String, Failed>) -> Result<(), Failed> {
    let chapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src").join(chapter);
    let written = fs::read_to_string(&chapter)?;
    let mut said = String::new();
    let mut lines = written.lines().peekable();
    while let Some(line) = lines.next() {
        said.extend([line, "\n"]);
        if line != "```text" || !lines.peek().is_some_and(|line| line.starts_with("$ ")) {
            continue;
        }
        while let Some(line) = lines.next_if(|line| *line != "```") {
            // What stands below a command is what it printed then.
            if let Some(command) = line.strip_prefix("$ ") {
                said.extend([line, "\n"]);
                said.push_str(&run(command)?);
            }
        }
    }
    if env::var_os("ISOLAB_RENEW").is_some() {
        return Ok(fs::write(chapter, said)?);
    }
    let different = written.lines().zip(said.lines()).find(|(written, said)| shape(written) != shape(said));
    match different {
        None if written.lines().count() == said.lines().count() => Ok(()),
        None => Err("the commands print more lines, or fewer".into()),
        Some((written, said)) => Err(format!("the chapter has\n  {written}\nand the command says\n  {said}").into()),
    }
}

/// All that a line of a shell prints in a folder. `isolab-ctr` is the command under test, with a store in that folder that
/// it uses where the line names none.
pub(crate) fn printed(folder: &Path, line: &str, environment: &[(&str, &str)]) -> Result<String, Failed> {
    let commands = folder.join("commands");
    fs::create_dir_all(&commands)?;
    let script = format!("#!/bin/sh\n[ \"$1\" = --root ] || set -- --root store \"$@\"\nexec {CTR} \"$@\"\n");
    let (command, print) = (commands.join("isolab-ctr"), folder.join("print"));
    fs::write(&command, script)?;
    fs::set_permissions(&command, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(folder).stdin(Stdio::null()).env_remove("SOURCE_DATE_EPOCH");
    shell.env("PATH", format!("{}:{}", commands.display(), env::var("PATH").unwrap_or_default()));
    // A file: a container that outlives its command may keep its streams.
    let file = fs::File::create(&print)?;
    shell.envs(environment.iter().copied()).stdout(file.try_clone()?).stderr(file).status()?;
    Ok(fs::read_to_string(print)?.lines().flat_map(|line| [line.trim_end(), "\n"]).collect())
}

/// A line without what another run, or another busybox, makes otherwise.
fn shape(line: &str) -> String {
    let line = line.replace("Less than a second", "0 seconds");
    let words = line.split_whitespace().collect::<Vec<_>>();
    let unit = |word: Option<&&str>| word.is_some_and(|word| matches!(*word, "second" | "seconds"));
    let told = words.iter().enumerate().map(|(at, word)| match word {
        _ if unit(Some(word)) => "seconds".to_owned(),
        _ if unit(words.get(at + 1)) => "*".to_owned(),
        word => kept(word),
    });
    told.collect::<Vec<_>>().join(" ")
}

/// The word, or a star where it is a digest, a date, a size, or the port of a client.
fn kept(word: &str) -> String {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let core = word.trim_end_matches([',', ':', '…']);
    let core = core.strip_prefix("sha256:").unwrap_or(core);
    let hex = core.len() >= 12 && core.bytes().all(|byte| byte.is_ascii_hexdigit());
    let date = core.split('-').count() == 3 && core.split('-').all(number);
    let client = core.rsplit_once(':').is_some_and(|(_, port)| port.len() == 5 && number(port));
    let size = core.trim_end_matches(['B', 'i', 'k', 'K', 'M', 'G', '%']);
    let changes = number(size) && (size != core || core.contains('.') || core.len() > 2);
    if hex || date || client || changes { "*".to_owned() } else { word.to_owned() }
}
