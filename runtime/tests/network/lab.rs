//! A host of one trial's own, and containers in it that are nothing but a network namespace and a thread.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use isolab_runtime::network::{Attachment, Endpoint, Guest, Lease, Namespace, Networks, PortWish};
use libtest_mimic::{Failed, Trial};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

use super::checks::text;
use super::needs;

/// How long a connection may take that is expected, and how long one is waited for that is not.
const PATIENCE: Duration = Duration::from_secs(5);
const IMPATIENCE: Duration = Duration::from_millis(400);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A trial that needs what these all do.
pub(crate) fn trial(name: &str, test: fn() -> Result<(), Failed>) -> Trial {
    needs::trial(name, &["root", "ip", "nft"], test)
}

/// A host. The calling thread lives on it from here on.
pub(crate) struct Lab {
    folder: TempDir,
    pub(crate) networks: Networks,
    here: OwnedFd,
}

/// A container: its network, and the file with its names.
pub(crate) struct Container<'a> {
    pub(crate) attachment: Attachment<'a>,
    pub(crate) namespace: Namespace,
    pub(crate) hosts: PathBuf,
}

impl Lab {
    pub(crate) fn new() -> Result<Self, Failed> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        run(&["ip", "link", "set", "lo", "up"])?;
        let folder = tempfile::Builder::new().prefix("isolab-network-").tempdir()?;
        let networks = Networks::below(&folder.path().join("data"), &folder.path().join("run"), true);
        Ok(Self { networks, folder, here: own_namespace()? })
    }

    /// A host with a cable to another one, which is returned: `192.0.2.1` here, `192.0.2.2` there.
    pub(crate) fn with_world() -> Result<(Self, OwnedFd), Failed> {
        let lab = Self::new()?;
        let world =
            thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).map_err(Failed::from).and_then(|()| own_namespace()));
        let world = world.join().map_err(|_| "the thread ended early")??;
        run(&["ip", "link", "add", "outward", "type", "veth", "peer", "name", "inward"])?;
        run(&["ip", "address", "add", "192.0.2.1/24", "dev", "outward"])?;
        run(&["ip", "link", "set", "outward", "up"])?;
        // ip(8) takes a namespace by the number of a process in it, or by a file.
        let there = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&world));
        run(&["ip", "link", "set", "inward", "netns", &there])?;
        inside(&world, || {
            run(&["ip", "address", "add", "192.0.2.2/24", "dev", "inward"])?;
            run(&["ip", "link", "set", "inward", "up"])
        })?;
        Ok((lab, world))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The host, to run something there from another thread.
    pub(crate) fn here(&self) -> &OwnedFd {
        &self.here
    }

    /// A container in the default network.
    pub(crate) fn container(&self, name: &str, ports: &[&str]) -> Result<Container<'_>, Failed> {
        self.container_in(name, &[on("bridge")], ports)
    }

    /// A container in these networks.
    pub(crate) fn container_in(
        &self,
        name: &str,
        endpoints: &[Endpoint],
        ports: &[&str],
    ) -> Result<Container<'_>, Failed> {
        let (id, hosts) = self.prepare(name)?;
        let guest = Guest { container: &id, name, hostname: "box", hosts: &hosts, extra: &[] };
        let namespace = Namespace::create()?;
        let attachment = self.networks.attach(guest, &namespace, endpoints, &wishes(ports)?);
        Ok(Container { attachment: attachment.map_err(|error| isolab_runtime::chain(&error))?, namespace, hosts })
    }

    /// An id, and a file for names.
    pub(crate) fn prepare(&self, name: &str) -> Result<(String, PathBuf), Failed> {
        let id = format!("{:064x}", COUNT.fetch_add(1, Ordering::Relaxed) + 1);
        let hosts = self.path(&format!("{name}-{}", &id[56..]));
        fs::write(&hosts, "")?;
        Ok((id, hosts))
    }

    /// What is left on the host of containers: cables, elements of the rules, files.
    pub(crate) fn remains(&self) -> Result<Vec<String>, Failed> {
        let links = run(&["ip", "-oneline", "link"])?;
        let mut all: Vec<String> = links.lines().filter(|line| line.contains("veth")).map(str::to_owned).collect();
        for map in ["ports", "ports_at"] {
            let listed = Command::new("nft").args(["list", "map", "ip", "isolab", map]).output()?;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            all.extend(listed.contains("elements").then_some(listed));
        }
        for folder in ["ports", "leases/bridge"] {
            let entries = fs::read_dir(self.path("run/network").join(folder)).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            all.extend(names.filter(|name| !name.starts_with('.')));
        }
        Ok(all)
    }
}

impl Container<'_> {
    pub(crate) fn lease(&self) -> &Lease {
        &self.attachment.leases()[0]
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.lease().address
    }

    /// The host's port that leads to the container's first one.
    pub(crate) fn port(&self) -> u16 {
        self.lease().ports[0].host_port
    }

    /// Does something in it.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T, Failed> + Send) -> Result<T, Failed> {
        inside(&self.namespace, act)
    }

    /// Answers connections to a port with `name` and the address that they come from.
    pub(crate) fn serve(&self, port: u16, name: &str) -> Result<(), Failed> {
        serve(&self.namespace, port, name)
    }

    pub(crate) fn names(&self) -> Result<String, Failed> {
        Ok(fs::read_to_string(&self.hosts)?)
    }
}

/// An endpoint in a network, with nothing special.
pub(crate) fn on(network: &str) -> Endpoint {
    Endpoint { network: network.to_owned(), ..Endpoint::default() }
}

pub(crate) fn wishes(texts: &[&str]) -> Result<Vec<PortWish>, Failed> {
    let parsed: Result<Vec<_>, _> = texts.iter().map(|text| PortWish::parse(text)).collect();
    Ok(parsed?.concat())
}

/// Does something in a namespace, on a thread that goes with it.
pub(crate) fn inside<T: Send>(
    namespace: &impl AsFd,
    act: impl FnOnce() -> Result<T, Failed> + Send,
) -> Result<T, Failed> {
    let namespace = namespace.as_fd().try_clone_to_owned()?;
    let work = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        act()
    };
    thread::scope(|scope| scope.spawn(work).join().map_err(|_| Failed::from("the thread panicked"))?)
}

/// Answers each connection to a port in a namespace; ends with the trial's process, or with its listener's last client.
pub(crate) fn serve(namespace: &impl AsFd, port: u16, name: &str) -> Result<(), Failed> {
    let listener = inside(namespace, move || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
    let name = name.to_owned();
    let _: JoinHandle<()> = thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let from = stream.peer_addr().map(|address| address.ip().to_string()).unwrap_or_default();
            let mut word = [0; 1];
            if matches!(stream.read(&mut word), Ok(1)) && word == *b"!" {
                return;
            }
            let _ = write!(stream, "{name} {from}");
        }
    });
    Ok(())
}

/// Asks a server which it is, and from where it sees us.
pub(crate) fn ask(address: Ipv4Addr, port: u16) -> Result<String, Failed> {
    ask_within(address, port, PATIENCE)
}

/// Whether nobody answers there.
pub(crate) fn is_unreachable(address: Ipv4Addr, port: u16) -> Result<(), Failed> {
    match ask_within(address, port, IMPATIENCE) {
        Err(_) => Ok(()),
        Ok(answer) => Err(format!("{address}:{port} answers {answer:?}").into()),
    }
}

fn ask_within(address: Ipv4Addr, port: u16, patience: Duration) -> Result<String, Failed> {
    let failed = |error: std::io::Error| Failed::from(format!("{address}:{port}: {error}"));
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), patience).map_err(failed)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"?").map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    Ok(answer)
}

/// Ends a server, and with it the thread that keeps a namespace.
pub(crate) fn stop(address: Ipv4Addr, port: u16) -> Result<(), Failed> {
    Ok(TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE)?.write_all(b"!")?)
}

/// Sends a datagram and returns the answer.
pub(crate) fn ask_by_datagram(address: Ipv4Addr, port: u16) -> Result<String, Failed> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((address, port))?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// What a program prints; an error with its complaint if it fails.
pub(crate) fn run(words: &[&str]) -> Result<String, Failed> {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{words:?}: {}{}", text(&output.stdout), text(&output.stderr)).into())
    }
}

fn own_namespace() -> Result<OwnedFd, Failed> {
    Ok(fs::File::open(Path::new("/proc/thread-self/ns/net"))?.into())
}
