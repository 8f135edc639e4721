//! Who is called how: a container's /etc/hosts and /etc/resolv.conf (hosts(5), resolv.conf(5)).
//!
//! Docker answers the names of a network's containers with a server inside its daemon. There is no daemon here, and none
//! is needed: whoever comes into a network, or leaves it, writes the names into the files of all who are in it, under the
//! lock. A lookup then costs a read, works for every program that asks the C library, and can be read with cat(1).

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::NetworkError;
use super::lease::Lease;

/// How docker calls the host itself as its containers see it.
const HOST: &str = "host-gateway";
/// Every container has these.
const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
/// A container may write what it likes into its file; of more than this nothing is kept.
const MOST: u64 = 1 << 20;
/// Short names of containers, as docker has them.
const SHORT: usize = 12;
/// Where systemd-resolved keeps the servers that it asks.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// A name that a user adds: `name:address`, or `name:host-gateway` for the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address; nothing for the host's, as the container sees it.
    pub address: Option<IpAddr>,
}

/// A text that adds no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} adds no host: write NAME:ADDRESS or NAME:host-gateway")]
pub struct ExtraHostError(String);

/// What a user wants of name lookups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// Servers, in place of the host's.
    pub servers: Vec<IpAddr>,
    /// What is tried behind a short name, in place of the host's.
    pub search: Vec<String>,
    /// Options of the lookup, in place of the host's.
    pub options: Vec<String>,
}

impl fmt::Display for ExtraHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}:{address}", self.name),
            None => write!(f, "{}:{HOST}", self.name),
        }
    }
}

impl FromStr for ExtraHost {
    type Err = ExtraHostError;

    fn from_str(text: &str) -> Result<Self, ExtraHostError> {
        let failed = || ExtraHostError(text.to_owned());
        let (name, address) = text.split_once([':', '=']).ok_or_else(failed)?;
        let address = match address {
            HOST => None,
            other => Some(other.trim_matches(['[', ']']).parse().map_err(|_| failed())?),
        };
        let plain = |letter: char| letter.is_ascii_graphic() && letter != '#';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(failed());
        }
        Ok(Self { name: name.to_owned(), address })
    }
}

/// What a file begins with before any network is in it. `host` is the host as the container sees it.
pub fn beginning(extra: &[ExtraHost], host: Option<Ipv4Addr>) -> String {
    let mut text = LOCAL.to_owned();
    for ExtraHost { name, address } in extra {
        let address = address.or(host.map(IpAddr::V4));
        if let Some(address) = address {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    text
}

/// Makes a container's file.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), NetworkError> {
    let failed = NetworkError::io("write", path);
    let options = OpenOptions::new().write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW).open(path);
    options
        .and_then(|mut file| {
            overwrite(&mut file, text)?;
            file.set_permissions(fs::Permissions::from_mode(0o644))
        })
        .map_err(failed)
}

/// Replaces what is in a file by a text. Cutting it to nothing first would cost 14 ms on ext4, which then writes the file to
/// the disk when it is closed, as for a program that forgets fsync(2).
fn overwrite(file: &mut File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// Writes who is in a network into the file of one of them. `everybody` has it too; on a network without names there
/// is nobody else.
pub(super) fn update(
    own: &Lease,
    network: &str,
    everybody: &[Lease],
    hostname: Option<&str>,
) -> Result<(), NetworkError> {
    // The file is mounted into the container, and a mount is of the file and not of its name: it can only be rewritten in
    // place. A reader may meet it in between; the C library then finds a name a little later.
    let path = &own.hosts;
    let failed = |attempt| NetworkError::io(attempt, path);
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let mut file = match opened {
        // The container's folder has just been removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("open"))?,
    };
    let mut text = String::new();
    let read = (&mut file).take(MOST).read_to_string(&mut text);
    if matches!(&read, Err(error) if error.kind() != io::ErrorKind::InvalidData) {
        read.map_err(failed("read"))?;
    }
    let text = rewritten(&text, own, network, everybody, hostname);
    overwrite(&mut file, &text).map_err(failed("write"))
}

/// The text with this network's lines as they are now. What else is in it stays.
fn rewritten(text: &str, own: &Lease, network: &str, everybody: &[Lease], hostname: Option<&str>) -> String {
    let mark = format!("\t# network {network}");
    // The own host name is not in the lease; it is known when the file is new, and stands in it from then on.
    let before = text.lines().find(|line| line.ends_with(&mark) && line.starts_with(&format!("{}\t", own.address)));
    let known = before.and_then(|line| line.strip_suffix(&mark)?.split('\t').nth(1)?.split(' ').next());
    let hostname = hostname.or(known).map(str::to_owned);
    let mut new: String = text.lines().filter(|line| !line.ends_with(&mark)).flat_map(|line| [line, "\n"]).collect();
    for lease in everybody {
        let hostname = hostname.as_deref().filter(|_| lease.container == own.container);
        let _ = writeln!(new, "{}\t{}{mark}", lease.address, names(lease, hostname).join(" "));
    }
    new
}

/// All names of a container, its host name first.
fn names(lease: &Lease, hostname: Option<&str>) -> Vec<String> {
    let short = lease.container.get(..SHORT).unwrap_or(&lease.container).to_owned();
    let mut all: Vec<String> = Vec::new();
    let given = hostname.map(str::to_owned).into_iter().chain([lease.name.clone(), short]);
    for name in given.chain(lease.aliases.iter().cloned()) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// The host's resolv.conf. Where a server on the host itself answers, which a container cannot reach, the file of those
/// whom that server asks.
pub fn host_resolver() -> String {
    let usual = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if servers(&usual).next().is_some() { usual } else { fs::read_to_string(RESOLVED).unwrap_or(usual) }
}

/// A container's resolv.conf, from the host's and a user's wishes.
pub fn resolver_text(host: &str, wishes: &Resolver) -> String {
    let mut text = String::new();
    let line = |text: &mut String, key: &str, value: &str| {
        let _ = writeln!(text, "{key} {value}");
    };
    if wishes.servers.is_empty() {
        servers(host).for_each(|server| line(&mut text, "nameserver", &server.to_string()));
    } else {
        wishes.servers.iter().for_each(|server| line(&mut text, "nameserver", &server.to_string()));
    }
    let host_value = |key: &str| {
        host.lines()
            .filter_map(|it| it.trim().split_once([' ', '\t']))
            .rfind(|(word, _)| *word == key)
            .map(|it| it.1.trim().to_owned())
    };
    for (key, wish) in [("search", &wishes.search), ("options", &wishes.options)] {
        // docker's way to say "none at all"
        if wish.iter().any(|word| word == ".") {
            continue;
        }
        let value = if wish.is_empty() { host_value(key) } else { Some(wish.join(" ")) };
        if let Some(value) = value {
            line(&mut text, key, &value);
        }
    }
    text
}

/// The servers that can be reached from elsewhere than the host itself.
fn servers(text: &str) -> impl Iterator<Item = IpAddr> {
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
    text.lines().filter_map(server).filter(|server| !server.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{ExtraHost, Resolver, beginning, resolver_text, rewritten};
    use crate::network::lease::Lease;
    use std::net::Ipv4Addr;
    use std::path::PathBuf;

    fn lease(name: &str, last: u8, aliases: &[&str]) -> Lease {
        let address = Ipv4Addr::new(10, 0, 0, last);
        Lease {
            container: format!("{name}0123456789abcdef"),
            name: name.to_owned(),
            network: "n".to_owned(),
            interface: "eth0".to_owned(),
            address,
            bits: 24,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            mac: "02:00:00:00:00:01".parse().expect("an address"),
            cable: String::new(),
            ports: Vec::new(),
            aliases: aliases.iter().map(|&it| it.to_owned()).collect(),
            hosts: PathBuf::new(),
            home: 1,
        }
    }

    #[test]
    fn names_come_and_go_and_the_containers_own_lines_stay() {
        let (web, db) = (lease("web", 2, &[]), lease("db", 3, &["sql"]));
        let first = rewritten("127.0.0.1\tlocalhost\n", &web, "n", std::slice::from_ref(&web), Some("box"));
        assert_eq!(first, "127.0.0.1\tlocalhost\n10.0.0.2\tbox web web012345678\t# network n\n");
        let edited = format!("{first}1.2.3.4\tmine\n");
        let both = rewritten(&edited, &web, "n", &[web.clone(), db], None);
        assert_eq!(
            both,
            "127.0.0.1\tlocalhost\n1.2.3.4\tmine\n10.0.0.2\tbox web web012345678\t# network n\n\
             10.0.0.3\tdb db0123456789 sql\t# network n\n"
        );
        let alone = rewritten(&both, &web, "n", std::slice::from_ref(&web), None);
        assert_eq!(alone, "127.0.0.1\tlocalhost\n1.2.3.4\tmine\n10.0.0.2\tbox web web012345678\t# network n\n");
        assert_eq!(rewritten(&alone, &web, "n", &[], None), "127.0.0.1\tlocalhost\n1.2.3.4\tmine\n");
    }

    #[test]
    fn an_extra_host_has_an_address_or_is_the_host() {
        let extra: Vec<ExtraHost> = ["a:1.2.3.4", "b:host-gateway", "c:::1"].map(|it| it.parse().expect("one")).into();
        let text = beginning(&extra, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert!(text.ends_with("1.2.3.4\ta\n10.0.0.1\tb\n::1\tc\n"), "{text}");
        for wrong in ["", "a", ":1.2.3.4", "a:x", "a b:1.2.3.4", "a\nb:1.2.3.4", "#:1.2.3.4"] {
            assert!(wrong.parse::<ExtraHost>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_on_the_host_itself_are_left_away() {
        let host = "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch lan\noptions edns0\n";
        assert_eq!(resolver_text(host, &Resolver::default()), "nameserver 9.9.9.9\nsearch lan\noptions edns0\n");
        let wishes = Resolver {
            servers: vec!["1.1.1.1".parse().expect("an address")],
            search: vec![".".to_owned()],
            options: vec!["ndots:1".to_owned()],
        };
        assert_eq!(resolver_text(host, &wishes), "nameserver 1.1.1.1\noptions ndots:1\n");
    }
}
