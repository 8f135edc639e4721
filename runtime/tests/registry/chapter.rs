//! The course's chapter about images is what its commands print: each of them is run again and has to say the same, but for
//! digests, dates, sizes and times. `ISOLAB_RENEW=1` writes down what they say now.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use super::lab::{CTR, Lab, done};
use super::life::base_archive;
use super::needs::trial;

const CHAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/images.md");
/// Where the chapter's registry listens.
const PORT: &str = "127.0.0.1:5056";
const FILES: [(&str, &str); 3] = [
    (
        "Dockerfile",
        "FROM base:1\nWORKDIR /srv\nCOPY page.html .\nRUN wc -c < page.html > size\nCMD [\"cat\", \"page.html\", \"size\"]\n",
    ),
    ("page.html", "<h1>A page</h1>\n"),
    ("Second", "FROM 127.0.0.1:5056/course/web:1\nRUN echo more >> page.html\n"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "busybox", "htpasswd"];
    vec![trial("the_chapter_about_images_is_what_its_commands_print", &needs, chapter)]
}

fn chapter() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    base_archive(&lab, &["sh", "cat", "echo", "ls", "wc"])?;
    fs::create_dir(lab.path("web"))?;
    done(Command::new("htpasswd").args(["-Bbc", "-C", "5", &lab.text("users"), "teacher", "secret"]))?;
    // A port of four digits, as the chapter's: the columns of a table are as wide as what is in them.
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (5056..9000).find(free).ok_or("no port is free")?;
    let host = lab.serve_at(&format!("127.0.0.1:{port}"), &["--htpasswd", &lab.text("users")])?;
    for (name, text) in FILES {
        fs::write(lab.path("web").join(name), text.replace(PORT, &host))?;
    }
    let written = fs::read_to_string(CHAPTER)?;
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
                said.push_str(&printed(&lab, &command.replace(PORT, &host))?.replace(&host, PORT));
            }
        }
    }
    if env::var_os("ISOLAB_RENEW").is_some() {
        return Ok(fs::write(CHAPTER, said)?);
    }
    let different = written.lines().zip(said.lines()).find(|(written, said)| shape(written) != shape(said));
    match different {
        None if written.lines().count() == said.lines().count() => Ok(()),
        None => Err("the commands print more lines, or fewer".into()),
        Some((written, said)) => Err(format!("the chapter has\n  {written}\nand the command says\n  {said}").into()),
    }
}

/// All that a line of a shell prints, with the command under test on its path.
fn printed(lab: &Lab, line: &str) -> Result<String, Failed> {
    let folder = Path::new(CTR).parent().unwrap_or(Path::new("/"));
    let path = format!("{}:{}", folder.display(), env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1; {line}")]).current_dir(lab.path("")).stdin(Stdio::null());
    shell.env("PATH", path).env("DOCKER_CONFIG", lab.path("client")).env("ISOLAB_NETWORK", "none");
    let output = shell.env_remove("SOURCE_DATE_EPOCH").output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect())
}

/// A line without what another run, or another busybox, makes otherwise.
fn shape(line: &str) -> String {
    let hex = |text: &str| text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let word = |word: &str| {
        let core = word.trim_end_matches([',', ':', '…']);
        let core = core.strip_prefix("sha256:").unwrap_or(core);
        let size = core.trim_end_matches(['B', 'k', 'M', 'G']);
        let date = core.split('-').count() == 3 && core.split('-').all(number);
        let changes = hex(core) || date || number(size) && (size != core || core.contains('.') || core.len() > 2);
        if changes { "*".to_owned() } else { word.to_owned() }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}
