//! The course's chapter about images.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, done};
use super::needs::trial;
use super::printed::{base_archive, is_printed, printed};

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
    base_archive(&lab.path("base.tar"), &["sh", "cat", "echo", "ls", "wc"])?;
    fs::create_dir(lab.path("web"))?;
    done(Command::new("htpasswd").args(["-Bbc", "-C", "5", &lab.text("users"), "teacher", "secret"]))?;
    // A port of four digits, as the chapter's: the columns of a table are as wide as what is in them.
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (5056..9000).find(free).ok_or("no port is free")?;
    let host = lab.serve_at(&format!("127.0.0.1:{port}"), &["--htpasswd", &lab.text("users")])?;
    for (name, text) in FILES {
        fs::write(lab.path("web").join(name), text.replace(PORT, &host))?;
    }
    let client = lab.text("client");
    is_printed("images.md", |command| {
        let environment = [("DOCKER_CONFIG", client.as_str()), ("ISOLAB_NETWORK", "none")];
        Ok(printed(&lab.path(""), &command.replace(PORT, &host), &environment)?.replace(&host, PORT))
    })
}
