//! `isolab-ctr` with networks: containers of an image that serve the world, find each other, and leave nothing.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::checks::{has, same, text, wait_within};
use super::lab::{Lab, ask, is_unreachable, run, serve, stop};
use super::needs;

pub(crate) const CTR: &str = env!("CARGO_BIN_EXE_isolab-ctr");
/// A server in shell: a line for each connection, without an end.
const SERVER: &str = "while true; do echo \"$NAME\" | nc -l -p 80 -w 5 >/dev/null || true; done";

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 9] = [
        ("two_containers_listen_on_80_side_by_side_behind_published_ports", side_by_side),
        ("containers_of_an_image_find_each_other_by_name_in_a_users_network", by_name),
        ("a_container_can_share_the_network_of_another_one", shared),
        ("inspect_ps_and_port_tell_what_is_published", told),
        ("a_restart_keeps_the_ports_that_were_published", restarted),
        ("a_running_container_enters_a_network_and_leaves_it", connected),
        ("a_container_that_nobody_stood_by_gives_its_port_back_when_it_is_looked_at", looked_at),
        ("users_of_its_own_serve_through_a_published_port_and_in_a_users_network", own_users),
        ("bad_wishes_are_refused_with_a_reason_and_leave_nothing", refused),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup", "ip", "nft"];
    let criu = [&needs[..], &["criu"]].concat();
    let back = needs::trial("a_published_port_leads_to_what_comes_back_from_a_checkpoint", &criu, comes_back);
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).chain([back]).collect()
}

/// A host of the trial's own, with an image of busybox. Dropped, its containers are removed.
pub(crate) struct Shop {
    pub(crate) lab: Lab,
    /// The folder of the store that commands work with.
    pub(crate) root: &'static str,
}

impl Shop {
    /// Without an image.
    pub(crate) fn empty() -> Result<Self, Failed> {
        Ok(Self { lab: Lab::new()?, root: "root" })
    }

    pub(crate) fn new() -> Result<Self, Failed> {
        let shop = Self::empty()?;
        let context = shop.lab.path("context");
        fs::create_dir(&context)?;
        fs::copy(needs::busybox()?, context.join("busybox"))?;
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
            RUN mkdir -p /etc /tmp\nEXPOSE 80 53/udp\n";
        fs::write(context.join("Dockerfile"), dockerfile)?;
        shop.ok(&["build", "-t", "shop", &context.display().to_string()])?;
        Ok(shop)
    }

    pub(crate) fn try_run(&self, words: &[&str]) -> Result<Output, Failed> {
        let (out, err) = (self.lab.path("out"), self.lab.path("err"));
        let file = |path: &PathBuf| fs::File::create(path);
        let mut command = Command::new(CTR);
        command
            .arg("--root")
            .arg(self.lab.path(self.root))
            .args(words)
            .stdin(Stdio::null())
            .env_remove("ISOLAB_NETWORK");
        // Files: a container that outlives the command keeps its streams.
        let status = command.stdout(file(&out)?).stderr(file(&err)?).status()?;
        Ok(Output { status, stdout: fs::read(out)?, stderr: fs::read(err)? })
    }

    /// As [`Shop::ok`], beside others: what is printed goes through a file of its own. For commands that end.
    pub(crate) fn try_apart(&self, words: &[&str]) -> Result<String, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = self.lab.path(&format!("out-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let mut command = Command::new(CTR);
        command
            .arg("--root")
            .arg(self.lab.path(self.root))
            .args(words)
            .stdin(Stdio::null())
            .env_remove("ISOLAB_NETWORK");
        let status =
            command.stdout(fs::File::create(&path)?).stderr(fs::File::options().append(true).open(&path)?).status()?;
        let told = fs::read_to_string(&path)?;
        if status.success() { Ok(told) } else { Err(format!("{words:?}: {told}").into()) }
    }

    pub(crate) fn ok(&self, words: &[&str]) -> Result<String, Failed> {
        let output = self.try_run(words)?;
        if output.status.success() {
            return Ok(text(&output.stdout).trim_end().to_owned());
        }
        Err(format!("{words:?}: {}{}", text(&output.stdout), text(&output.stderr)).into())
    }

    /// A server that tells its name to whoever connects.
    fn serve(&self, name: &str, flags: &[&str]) -> Result<String, Failed> {
        let named = format!("NAME={name}");
        let words = ["run", "-d", "--name", name, "-e", &named];
        self.ok(&[&words, flags, &["shop", "sh", "-c", SERVER]].concat())
    }

    /// What a command in a running container prints.
    fn inspect(&self, name: &str) -> Result<Value, Failed> {
        let found = isolab_runtime::image::Store::open(self.lab.path("root"))?;
        let engine = isolab_runtime::engine::Engine::open(found, |_| {})?;
        Ok(engine.inspect(&engine.find(name)?)?)
    }

    /// What is left of networks on the host.
    pub(crate) fn remains() -> Result<String, Failed> {
        let links = run(&["ip", "-oneline", "link"])?;
        let cables = links.lines().filter(|line| line.contains("veth")).collect::<Vec<_>>().join("\n");
        let rules = run(&["nft", "list", "ruleset"])?;
        let ports = rules.lines().filter(|line| line.contains("tcp . ") || line.contains("udp . ")).collect::<Vec<_>>();
        Ok(cables + &ports.join("\n"))
    }

    pub(crate) fn is_clean() -> Result<(), Failed> {
        let clean = || Self::remains().is_ok_and(|all| all.is_empty());
        wait_within(Duration::from_secs(20), Duration::from_millis(20), "the last trace to go", clean)
            .map_err(|_| format!("left: {:?}", Self::remains()).into())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let all = self.ok(&["ps", "-aq"]).unwrap_or_default();
        for id in all.split_whitespace() {
            let _ = self.try_run(&["rm", "-f", id]);
        }
        let _ = self.try_run(&["network", "prune"]);
    }
}

/// A server that has just been started takes a moment; one that served a client, too.
pub(crate) fn hear(address: Ipv4Addr, port: u16, name: &str) -> Result<(), Failed> {
    let heard = || ask(address, port).is_ok_and(|answer| answer.trim() == name);
    wait_within(Duration::from_secs(10), Duration::from_millis(50), &format!("{name} at {address}:{port}"), heard)
}

fn side_by_side() -> Result<(), Failed> {
    let shop = Shop::new()?;
    shop.serve("one", &["-p", "8081:80"])?;
    shop.serve("two", &["-p", "127.0.0.1:8082:80"])?;
    hear(Ipv4Addr::LOCALHOST, 8081, "one")?;
    hear(Ipv4Addr::LOCALHOST, 8082, "two")?;
    shop.ok(&["stop", "-t", "0", "one"])?;
    is_unreachable(Ipv4Addr::LOCALHOST, 8081)?;
    hear(Ipv4Addr::LOCALHOST, 8082, "two")?;
    shop.ok(&["rm", "-f", "two"])?;
    Shop::is_clean()?;
    // A container that runs to its end gives everything back with it.
    let out = shop.ok(&["run", "--rm", "-p", "8081:80", "shop", "ip", "-o", "-4", "address", "show", "eth0"])?;
    has(&out, "/16 brd ")?;
    Shop::is_clean()
}

fn by_name() -> Result<(), Failed> {
    let shop = Shop::new()?;
    shop.ok(&["network", "create", "--subnet", "10.200.7.0/24", "shops"])?;
    shop.serve("db", &["--network", "shops", "--network-alias", "sql", "--ip", "10.200.7.77"])?;
    let script = "for name in db sql; do echo ? | nc -w 5 $name 80; sleep 0.3; done; cat /etc/resolv.conf";
    let flags = ["run", "--rm", "--network", "shops", "--dns", "192.0.2.53", "--add-host", "me:host-gateway"];
    let script = format!("sleep 0.5; {script}; grep me$ /etc/hosts");
    let out = shop.ok(&[&flags[..], &["shop", "sh", "-c", &script]].concat())?;
    same(out.lines().filter(|line| *line == "db").count(), 2)?;
    has(&out, "nameserver 192.0.2.53")?;
    has(&out, "10.200.7.1\tme")?;
    let listed = shop.ok(&["network", "ls"])?;
    has(&listed, "10.200.7.0/24")?;
    has(&listed, "none")?;
    has(&shop.ok(&["network", "inspect", "shops"])?, "\"IPv4Address\": \"10.200.7.77/24\"")?;
    let refused = shop.try_run(&["network", "rm", "shops"])?;
    has(&text(&refused.stderr), "in use by db")?;
    shop.ok(&["rm", "-f", "db"])?;
    same(shop.ok(&["network", "rm", "shops"])?.as_str(), "shops")
}

fn own_users() -> Result<(), Failed> {
    let shop = Shop::new()?;
    let own = ["--userns", "auto", "-t", "-v", "data:/data"];
    shop.serve("web", &[&own[..], &["-p", "8081:80"]].concat())?;
    hear(Ipv4Addr::LOCALHOST, 8081, "web")?;
    // Its terminal is its own, and so is what it writes into a volume, whoever that is outside.
    let look = "stat -c %u:%g $(readlink -f /proc/1/fd/0); touch /data/new; stat -c %u:%g /data/new; id -u";
    same(shop.ok(&["exec", "web", "sh", "-c", look])?.as_str(), "0:5\n0:0\n0")?;
    let map = shop.ok(&["exec", "web", "cat", "/proc/self/uid_map"])?;
    same(map.split_whitespace().nth(1) == Some("0"), false)?;
    shop.ok(&["restart", "-t", "0", "web"])?;
    hear(Ipv4Addr::LOCALHOST, 8081, "web")?;
    shop.ok(&["network", "create", "--subnet", "10.200.8.0/24", "shops"])?;
    shop.serve("db", &[&own[..2], &["--network", "shops", "--network-alias", "sql"]].concat())?;
    let script = "sleep 0.5; echo ? | nc -w 5 sql 80";
    let words = [&["run", "--rm", "--network", "shops"], &own[..2], &["shop", "sh", "-c", script]].concat();
    same(shop.ok(&words)?.as_str(), "db")?;
    shop.ok(&["rm", "-f", "web", "db"])?;
    Shop::is_clean()
}

fn shared() -> Result<(), Failed> {
    let shop = Shop::new()?;
    shop.serve("one", &[])?;
    let script = "ip -o -4 address show eth0; cat /etc/hosts; sleep 0.5; echo ? | nc -w 5 127.0.0.1 80";
    let out = shop.ok(&["run", "--rm", "--network", "container:one", "shop", "sh", "-c", script])?;
    let address = shop.inspect("one")?["NetworkSettings"]["IPAddress"].as_str().unwrap_or("?").to_owned();
    has(&out, &format!("inet {address}/16"))?;
    has(&out, "# network bridge")?;
    has(&out, "\none")?;
    let missing = shop.try_run(&["run", "--rm", "--network", "container:nobody", "shop", "true"])?;
    same(missing.status.success(), false)?;
    has(&text(&missing.stderr), "nobody")
}

fn told() -> Result<(), Failed> {
    let shop = Shop::new()?;
    shop.serve("web", &["-p", "8080:80", "-p", "127.0.0.1:5353:53/udp", "--expose", "99"])?;
    has(&shop.ok(&["ps"])?, "127.0.0.1:5353->53/udp, 0.0.0.0:8080->80/tcp, 99/tcp")
        .or_else(|_| has(&shop.ok(&["ps"])?, "0.0.0.0:8080->80/tcp, 127.0.0.1:5353->53/udp, 99/tcp"))?;
    same(shop.ok(&["port", "web", "80"])?.as_str(), "0.0.0.0:8080")?;
    has(&shop.ok(&["port", "web"])?, "53/udp -> 127.0.0.1:5353")?;
    same(shop.try_run(&["port", "web", "81"])?.status.code(), Some(1))?;
    let all = shop.inspect("web")?;
    let network = &all["NetworkSettings"];
    same(network["Ports"]["80/tcp"][0]["HostPort"].as_str(), Some("8080"))?;
    same(network["Ports"]["99/tcp"].is_null(), true)?;
    let one = &network["Networks"]["bridge"];
    same(one["IPAddress"].as_str(), network["IPAddress"].as_str())?;
    same(one["MacAddress"].as_str().map(str::len), Some(17))?;
    same(all["HostConfig"]["NetworkMode"].as_str(), Some("bridge"))?;
    shop.ok(&["stop", "-t", "0", "web"])?;
    same(shop.inspect("web")?["NetworkSettings"]["IPAddress"].is_null(), true)
}

fn restarted() -> Result<(), Failed> {
    let shop = Shop::new()?;
    shop.serve("web", &["-P"])?;
    let before = shop.ok(&["port", "web"])?;
    same(before.lines().count(), 2)?;
    let port: u16 = before
        .lines()
        .find(|line| line.starts_with("80/"))
        .and_then(|line| line.rsplit(':').next()?.parse().ok())
        .ok_or("a port")?;
    hear(Ipv4Addr::LOCALHOST, port, "web")?;
    shop.ok(&["restart", "-t", "0", "web"])?;
    same(shop.ok(&["port", "web"])?, before)?;
    hear(Ipv4Addr::LOCALHOST, port, "web")?;
    // Killed from outside, with nobody there to see it: the next start takes it up.
    let pid = shop.inspect("web")?["State"]["Pid"].as_i64().ok_or("a number")?;
    run(&["kill", "-9", &pid.to_string()])?;
    wait_within(Duration::from_secs(10), Duration::from_millis(20), "its end to be seen", || {
        shop.inspect("web").is_ok_and(|all| all["State"]["Running"] == false)
    })?;
    shop.ok(&["start", "web"])?;
    hear(Ipv4Addr::LOCALHOST, port, "web")
}

fn comes_back() -> Result<(), Failed> {
    let shop = Shop::new()?;
    let counter = "i=7000; while true; do i=$((i+1)); echo $i | nc -l -p 80 -w 60 > /dev/null; done";
    shop.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "shop", "sh", "-c", counter])?;
    let count = || -> Result<u32, Failed> {
        let mut told = None;
        wait_within(Duration::from_secs(20), Duration::from_millis(50), "an answer", || {
            told = ask(Ipv4Addr::LOCALHOST, 8080).ok().and_then(|text| text.trim().parse().ok());
            told.is_some()
        })?;
        Ok(told.ok_or("no answer")?)
    };
    let before = count()?;
    same((7001..7100).contains(&before), true)?;
    shop.ok(&["checkpoint", "create", "web", "one"])?;
    is_unreachable(Ipv4Addr::LOCALHOST, 8080)?;
    shop.ok(&["start", "--checkpoint", "one", "web"])?;
    // Only who has kept its memory knows where it was; behind the same port, on an address that is told.
    let after = count()?;
    same((before + 1..before + 100).contains(&after), true)?;
    let address = shop.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"])?;
    has(&shop.ok(&["exec", "web", "ip", "-o", "-4", "address", "show", "eth0"])?, &address)?;
    shop.ok(&["rm", "-f", "web"])?;
    Shop::is_clean()
}

fn connected() -> Result<(), Failed> {
    let shop = Shop::new()?;
    shop.ok(&["network", "create", "back"])?;
    shop.serve("web", &[])?;
    shop.ok(&["network", "connect", "--alias", "front", "back", "web"])?;
    let networks =
        || Ok::<_, Failed>(shop.inspect("web")?["NetworkSettings"]["Networks"].as_object().map(serde_json::Map::len));
    same(networks()?, Some(2))?;
    let out =
        shop.ok(&["run", "--rm", "--network", "back", "shop", "sh", "-c", "sleep 0.5; echo ? | nc -w 5 front 80"])?;
    same(out.as_str(), "web")?;
    let again = shop.try_run(&["network", "connect", "back", "web"])?;
    has(&text(&again.stderr), "is in network back already")?;
    shop.ok(&["network", "disconnect", "back", "web"])?;
    same(networks()?, Some(1))?;
    // What is said while it doesn't run holds from the next start on.
    shop.ok(&["stop", "-t", "0", "web"])?;
    shop.ok(&["network", "connect", "back", "web"])?;
    shop.ok(&["start", "web"])?;
    same(networks()?, Some(2))?;
    shop.ok(&["run", "-d", "--name", "alone", "--network", "none", "shop", "sleep", "100"])?;
    let refused = shop.try_run(&["network", "connect", "back", "alone"])?;
    has(&text(&refused.stderr), "has its network from none")
}

/// Nobody sees its end, and the rules are the kernel's: until somebody looks its port leads nowhere.
fn looked_at() -> Result<(), Failed> {
    let shop = Shop::new()?;
    // Any command will do: one that asks for containers, and one that neither does that nor needs a network.
    let host: &[&str] = &["run", "--rm", "--network", "host", "shop", "true"];
    for look in [&["ps", "-a"], host, &["images"]] {
        let flags = ["run", "-d", "--name", "alone", "--log-driver", "none", "-p", "8080:80", "shop", "sleep", "1000"];
        shop.ok(&flags)?;
        let pid: i32 = shop.ok(&["inspect", "-f", "{{.State.Pid}}", "alone"])?.parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        wait_within(Duration::from_secs(20), Duration::from_millis(5), "its cable's end", || {
            run(&["ip", "-brief", "link"]).is_ok_and(|links| !links.contains("veth"))
        })?;
        serve(shop.lab.here(), 8080, "host")?;
        is_unreachable(Ipv4Addr::LOCALHOST, 8080)?;
        shop.ok(look)?;
        has(&ask(Ipv4Addr::LOCALHOST, 8080)?, "host")?;
        stop(Ipv4Addr::LOCALHOST, 8080)?;
        has(&shop.ok(&["ps", "-a"])?, "Exited (?)")?;
        shop.ok(&["rm", "alone"])?;
        Shop::is_clean()?;
    }
    Ok(())
}

fn refused() -> Result<(), Failed> {
    let shop = Shop::new()?;
    shop.serve("web", &["-p", "8080:80"])?;
    let table: [(&[&str], &str); 8] = [
        (&["-p", "8080:81"], "port 0.0.0.0:8080/tcp of the host leads to container web already"),
        (&["-p", "80:x"], "a port is a number from 1 to 65535"),
        (&["-p", "192.0.2.200:8081:80"], "Cannot assign requested address"),
        (&["--network", "nowhere"], "there is no network nowhere"),
        (&["--network", "none", "-p", "80"], "no port can be published"),
        (&["--network", "none", "--network", "bridge"], "must be the only one"),
        (&["--ip", "10.144.0.9"], "only a network that a user made"),
        (&["--add-host", "x"], "adds no host"),
    ];
    for (flags, expected) in table {
        let output = shop.try_run(&[&["run", "--rm"], flags, &["shop", "true"]].concat())?;
        has(&text(&output.stderr), expected)?;
        same(output.status.success(), false)?;
    }
    same(shop.ok(&["ps", "-aq"])?.lines().count(), 1)?;
    shop.ok(&["rm", "-f", "web"])?;
    Shop::is_clean()
}
