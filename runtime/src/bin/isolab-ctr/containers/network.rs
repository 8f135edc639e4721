//! The flags of `run` and `create` that say which network a container has, and what of it leads inside.

use std::net::{IpAddr, Ipv4Addr};

use clap::Args;
use isolab_runtime::engine::{EngineError, Network, Networking};
use isolab_runtime::network::{Carrier, DEFAULT, Endpoint, ExtraHost, Mac, NetworkError, PortWish, Resolver};

use crate::voice::Failure;

/// The variable that says which network is meant where none is named.
const VARIABLE: &str = "ISOLAB_NETWORK";

#[derive(Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkFlags {
    /// Its network: bridge, none, host, container:NAME, or one that was made; several for a card in each
    /// [default: `$ISOLAB_NETWORK`, or bridge]
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Lead a port of the host to a port of the container
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/udp]")]
    publish: Vec<String>,
    /// Lead ports of the host to all that the image exposes
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Say that it listens on a port
    #[arg(long, value_name = "PORT[/udp]")]
    expose: Vec<String>,
    /// Another name that it has in its network
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// The address that it shall have, in a network that was made
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// The address that its card shall have
    #[arg(long, value_name = "MAC")]
    mac_address: Option<Mac>,
    /// Whom it asks for names, in place of the host's servers
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// What it tries behind short names
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of its name lookups (resolv.conf(5))
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Let it know a name; the address host-gateway is the host's
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<ExtraHost>,
}

impl NetworkFlags {
    /// What the flags come to.
    pub(crate) fn wishes(&self) -> Result<(Network, Networking), Failure> {
        let names = if self.network.is_empty() { vec![usual_network()] } else { self.network.clone() };
        let mut networking = Networking {
            publish_all: self.publish_all,
            exposed: self.expose.clone(),
            resolver: Resolver {
                servers: self.dns.clone(),
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
            },
            extra_hosts: self.add_host.clone(),
            ..Networking::default()
        };
        for text in &self.publish {
            networking.ports.extend(PortWish::parse(text).map_err(refused)?);
        }
        for text in &self.expose {
            PortWish::exposed(text).map_err(refused)?;
        }
        let kind = self.choose(&names, &mut networking)?;
        let wanted = !networking.ports.is_empty() || networking.publish_all;
        match kind {
            Network::Host if wanted => {
                eprintln!("warning: with the host's network every port is the host's own; none is published");
            }
            Network::None | Network::Container if wanted => return Err(Failure::NoPorts { network: names.join(", ") }),
            _ => {}
        }
        Ok((kind, networking))
    }

    /// Which kind of network is meant, and where.
    fn choose(&self, names: &[String], networking: &mut Networking) -> Result<Network, Failure> {
        let alone = |kind| if names.len() == 1 { Ok(kind) } else { Err(Failure::NotAlone { names: names.join(", ") }) };
        for name in names {
            match name.as_str() {
                "none" => return alone(Network::None),
                "host" => return alone(Network::Host),
                other if other.starts_with("container:") => {
                    networking.shared_with = other.strip_prefix("container:").map(str::to_owned);
                    return alone(Network::Container);
                }
                other => networking.endpoints.push(endpoint(other)?),
            }
        }
        if let Some(first) = networking.endpoints.first_mut() {
            first.address = self.ip.or(first.address);
            first.mac = self.mac_address.or(first.mac);
            first.aliases.extend(self.network_alias.iter().cloned());
        }
        Ok(Network::Bridge)
    }
}

/// The network of who names none. An ordinary user without a program that carries it has none, and is told so.
fn usual_network() -> String {
    if let Some(name) = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty()) {
        return name;
    }
    if nix::unistd::geteuid().is_root() || Carrier::find().is_ok() {
        return DEFAULT.to_owned();
    }
    eprintln!(
        "warning: the container has no network: an ordinary user's needs pasta or slirp4netns, and neither is here"
    );
    "none".to_owned()
}

/// A network's name, or `name=NAME,alias=NAME,ip=ADDRESS,mac-address=MAC`.
fn endpoint(text: &str) -> Result<Endpoint, Failure> {
    if !text.contains('=') {
        let network = if text == "default" { DEFAULT } else { text };
        return Ok(Endpoint { network: network.to_owned(), ..Endpoint::default() });
    }
    let failed = || Failure::NetworkText { text: text.to_owned() };
    let mut endpoint = Endpoint::default();
    for part in text.split(',') {
        match part.split_once('=').ok_or_else(failed)? {
            ("name", name) => name.clone_into(&mut endpoint.network),
            ("alias", name) => endpoint.aliases.push(name.to_owned()),
            ("ip", address) => endpoint.address = Some(address.parse().map_err(|_| failed())?),
            ("mac-address", mac) => endpoint.mac = Some(mac.parse().map_err(|_| failed())?),
            _ => return Err(failed()),
        }
    }
    if endpoint.network.is_empty() { Err(failed()) } else { Ok(endpoint) }
}

fn refused(error: impl Into<NetworkError>) -> EngineError {
    error.into().into()
}

#[cfg(test)]
mod tests {
    use super::{NetworkFlags, endpoint};
    use clap::Parser;
    use isolab_runtime::engine::Network;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: NetworkFlags,
    }

    fn kind(words: &[&str]) -> Result<Network, String> {
        let line = Line::try_parse_from([&["x"], words].concat()).map_err(|error| error.to_string())?;
        line.flags.wishes().map(|(kind, _)| kind).map_err(|error| error.to_string())
    }

    #[test]
    fn a_network_is_named_as_docker_names_it() {
        assert_eq!(kind(&["--network", "none"]), Ok(Network::None));
        assert_eq!(kind(&["--net", "host"]), Ok(Network::Host));
        assert_eq!(kind(&["--network", "container:web"]), Ok(Network::Container));
        assert_eq!(kind(&["--network", "a", "--network", "b", "-p", "80", "-P"]), Ok(Network::Bridge));
        assert!(kind(&["--network", "none", "--network", "a"]).is_err());
        assert!(kind(&["--network", "none", "-p", "80"]).is_err());
        assert!(kind(&["--network", "a", "-p", "80:x"]).is_err());
        assert!(kind(&["--network", "a", "--ip", "x"]).is_err());
    }

    #[test]
    fn a_network_can_say_how_it_is_entered() {
        let it = endpoint("name=a,alias=x,alias=y,ip=10.0.0.9,mac-address=02:00:00:00:00:01").expect("one");
        assert_eq!(
            (it.network.as_str(), it.aliases.len(), it.address.is_some(), it.mac.is_some()),
            ("a", 2, true, true)
        );
        for text in ["alias=x", "name=a,b", "name=a,ip=x", "name=a,x=y"] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
