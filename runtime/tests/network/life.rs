//! The whole life that the lab's first text tells: an image is built, brought to a registry, fetched elsewhere; containers of
//! it serve the world through ports of the host, side by side; one is entered, listened to, kept as an image, and ended.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use libtest_mimic::{Failed, Trial};

use super::checks::{has, same, text};
use super::engine::{CTR, Shop, hear};
use super::needs;
use super::printed::{base_archive, is_printed, printed};

const DOCKERFILE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
    RUN mkdir -p /etc /tmp && echo built > /word\nEXPOSE 80\n\
    CMD [\"sh\", \"-c\", \"while true; do nc -l -p 80 -w 5 < /word > /dev/null && echo served; done\"]\n";
/// The chapter's.
const WEB: &str = "FROM base:1\nRUN mkdir -p /srv && echo '<h1>A page</h1>' > /srv/index.html\nEXPOSE 80\n\
    CMD [\"httpd\", \"-f\", \"-v\", \"-p\", \"80\", \"-h\", \"/srv\"]\n";

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "busybox", "cgroup", "ip", "nft"];
    let chapter = [&needs[..], &["curl"]].concat();
    vec![
        needs::trial("an_image_is_built_pushed_pulled_elsewhere_and_serves_side_by_side_with_itself", &needs, life),
        needs::trial("the_chapter_about_a_whole_life_is_what_its_commands_print", &chapter, told),
    ]
}

/// A registry, ended when dropped.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    fn serve(shop: &Shop, listen: &str) -> Result<Self, Failed> {
        let folder = shop.lab.path("registry");
        let mut command = Command::new(CTR);
        command.args(["registry", "serve", "--listen", listen]).arg(folder).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("no standard output")?;
        let mut registry = Self { child, host: String::new() };
        BufReader::new(out).read_line(&mut line)?;
        line.trim().strip_prefix("http://").ok_or("it does not say where it listens")?.clone_into(&mut registry.host);
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn life() -> Result<(), Failed> {
    let mut shop = Shop::empty()?;
    let context = shop.lab.path("context");
    fs::create_dir(&context)?;
    fs::copy(needs::busybox()?, context.join("busybox"))?;
    fs::write(context.join("Dockerfile"), DOCKERFILE)?;

    // Built, and brought to a registry.
    let registry = Registry::serve(&shop, "127.0.0.1:0")?;
    let name = format!("{}/course/web:1", registry.host);
    shop.ok(&["build", "-t", &name, &context.display().to_string()])?;
    shop.ok(&["push", &name])?;

    // Fetched elsewhere, by the first who wants to run it; both listen on 80.
    shop.root = "elsewhere";
    let id = shop.ok(&["run", "-d", "-p", "8085:80", "--name", "one", &name])?;
    shop.ok(&["run", "-d", "-p", "8086:80", "--name", "two", &name])?;
    hear(Ipv4Addr::LOCALHOST, 8085, "built")?;
    hear(Ipv4Addr::LOCALHOST, 8086, "built")?;
    let listed = shop.ok(&["ps", "--no-trunc"])?;
    has(&listed, &id)?;
    has(&listed, "0.0.0.0:8086->80/tcp")?;

    // Entered and listened to. What one writes the other does not see.
    same(
        shop.ok(&["exec", "one", "sh", "-c", "echo changed > /word; hostname"])?.as_str(),
        id.get(..12).unwrap_or(""),
    )?;
    hear(Ipv4Addr::LOCALHOST, 8085, "changed")?;
    hear(Ipv4Addr::LOCALHOST, 8086, "built")?;
    has(&shop.ok(&["logs", "one"])?, "served")?;

    // Kept as an image, of which another one starts.
    shop.ok(&["commit", "-m", "another word", "one", "web:2"])?;
    has(&shop.ok(&["history", "web:2"])?, "mkdir -p /etc /tmp")?;
    shop.ok(&["stop", "-t", "0", "one", "two"])?;
    shop.ok(&["run", "-d", "-p", "8085:80", "--name", "three", "web:2"])?;
    hear(Ipv4Addr::LOCALHOST, 8085, "changed")?;

    // Ended, and nothing is left.
    let refused = shop.try_run(&["rm", "three"])?;
    same(refused.status.code(), Some(1))?;
    has(&text(&refused.stderr), "hint")?;
    shop.ok(&["rm", "-f", "one", "two", "three"])?;
    same(shop.ok(&["ps", "-aq"])?.as_str(), "")?;
    drop(registry);
    Shop::is_clean()
}

/// The base, the folder `web` and the registry are there, as the chapter says; a client that asks as early as the trial does
/// asks again while nobody listens yet.
fn told() -> Result<(), Failed> {
    let mut shop = Shop::empty()?;
    shop.root = "store";
    let folder = shop.lab.path("");
    base_archive(&folder.join("base.tar"), &["sh", "echo", "mkdir", "httpd"])?;
    fs::create_dir(folder.join("web"))?;
    fs::write(folder.join("web/Dockerfile"), WEB)?;
    fs::write(folder.join(".curlrc"), "retry = 50\nretry-connrefused\nretry-delay = 1\n")?;
    let registry = Registry::serve(&shop, "127.0.0.1:5057")?;
    let home = folder.display().to_string();
    is_printed("life.md", |command| printed(&folder, command, &[("CURL_HOME", &home)]))?;
    drop(registry);
    Shop::is_clean()
}
