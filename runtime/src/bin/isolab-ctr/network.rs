//! `network` and `port`: networks with a name, who is in them, and what of the host's leads where.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use isolab_runtime::engine::{Engine, EngineError};
use isolab_runtime::network::{DEFAULT, Endpoint, NetworkError, NetworkWish, Occupied, PortWish, Subnet};
use serde_json::{Map, Value, json};

use crate::format::{Listing, documents, labels, row};
use crate::print;
use crate::voice::{self, Failure};

/// Networks without a bridge: their names are the names of their kinds.
const SIMPLE: [&str; 2] = ["host", "none"];
/// Digits of an id in a table.
const SHORT: usize = 12;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a network: a bridge with addresses of its own, on which containers find each other by name
    Create(Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Tell all of networks, and who is in them
    Inspect {
        /// By a template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove networks in which nobody is
    #[command(visible_alias = "remove")]
    Rm {
        /// One that is not there is fine
        #[arg(short, long)]
        force: bool,
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove all networks in which nobody is, and bridges and packet rules that nobody needs now
    Prune {
        /// For docker's scripts: nothing is asked
        #[arg(short, long)]
        force: bool,
    },
    /// Have networks ready before a container wants one, which then starts sooner
    Pool {
        /// How many; 0 for none [default: as many as before, which is made up for]
        count: Option<usize>,
    },
    /// Put a container into one more network
    Connect(Connect),
    /// Take a container out of a network
    Disconnect {
        /// For docker's scripts: it is taken out in any case
        #[arg(short, long)]
        force: bool,
        /// The network
        network: String,
        /// The container
        container: String,
    },
}

#[derive(Args)]
pub(crate) struct Ls {
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
    /// By a template, or `json`
    #[arg(long)]
    format: Option<String>,
}

#[derive(Args)]
pub(crate) struct Create {
    /// What the network is made of; there is only: bridge
    #[arg(short, long, default_value = "bridge", value_parser = ["bridge"])]
    driver: String,
    /// Its addresses, such as 192.168.7.0/24 [default: a range that nobody has]
    #[arg(long, value_name = "RANGE")]
    subnet: Option<Subnet>,
    /// The bridge's address [default: the first of the range]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// Note something about it
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Its name
    name: String,
}

#[derive(Args)]
pub(crate) struct Connect {
    /// Another name that the container has there
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// The address that it shall have
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// The network
    network: String,
    /// The container
    container: String,
}

#[derive(Args)]
pub(crate) struct Port {
    /// The container
    container: String,
    /// One of its ports, such as 80 or 53/udp [default: all that are published]
    #[arg(value_name = "PORT[/udp]")]
    port: Option<String>,
}

pub(crate) fn obey(verb: &Verb, engine: &Engine) -> Result<u8, Failure> {
    match verb {
        Verb::Create(create) => create.obey(engine),
        Verb::Ls(ls) => ls.obey(engine),
        Verb::Inspect { format, networks } => inspect(engine, format.as_deref(), networks),
        Verb::Rm { force, networks } => remove(engine, *force, networks),
        Verb::Prune { .. } => prune(engine),
        Verb::Pool { count } => pool(engine, *count),
        Verb::Connect(connect) => connect.obey(engine),
        Verb::Disconnect { network, container, .. } => {
            engine.disconnect(container, network)?;
            Ok(0)
        }
    }
}

impl Create {
    fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        let labels: BTreeMap<String, String> = self.label.iter().map(pair).collect();
        let wish = NetworkWish { name: self.name.clone(), subnet: self.subnet, gateway: self.gateway, labels };
        let made = engine.networks().create(&wish)?;
        print::text(&format!("{}\n", made.id))?;
        Ok(0)
    }
}

impl Connect {
    fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let endpoint =
            Endpoint { network: self.network.clone(), address: self.ip, mac: None, aliases: self.alias.clone() };
        engine.connect(&self.container, &endpoint)?;
        Ok(0)
    }
}

impl Ls {
    fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let all = engine.networks().list()?;
        let id = |id: &str| if self.no_trunc { id.to_owned() } else { id.get(..SHORT).unwrap_or(id).to_owned() };
        if self.quiet {
            let ids: Vec<String> = all.iter().map(|network| id(&network.id) + "\n").collect();
            return print::text(&ids.concat()).map(|()| 0);
        }
        let simple = |name: &str, driver: &str| {
            let none = || "-".to_owned();
            fields(none(), name, driver, none(), none(), String::new())
        };
        // The default one's addresses are chosen when the first container comes.
        let to_come = (!all.iter().any(|network| network.name == DEFAULT)).then(|| simple(DEFAULT, "bridge"));
        let made = all.iter().map(|it| {
            fields(id(&it.id), &it.name, "bridge", it.subnet.to_string(), it.bridge.clone(), labels(&it.labels))
        });
        let rows = to_come.into_iter().chain(made).chain(SIMPLE.map(|name| simple(name, name))).collect();
        let columns = &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Subnet", "SUBNET")];
        let more = &[("Bridge", "BRIDGE"), ("Labels", "LABELS"), ("Scope", "SCOPE")];
        Listing { columns, more, rows }.print(self.format.as_deref())?;
        Ok(0)
    }
}

fn fields(id: String, name: &str, driver: &str, subnet: String, bridge: String, labels: String) -> Map<String, Value> {
    row(&[
        ("ID", id),
        ("Name", name.to_owned()),
        ("Driver", driver.to_owned()),
        ("Subnet", subnet),
        ("Bridge", bridge),
        ("Labels", labels),
        ("Scope", "local".to_owned()),
    ])
}

fn inspect(engine: &Engine, format: Option<&str>, names: &[String]) -> Result<u8, Failure> {
    let networks = engine.networks();
    let mut all = Vec::new();
    let mut code = 0;
    for name in names {
        if SIMPLE.contains(&name.as_str()) {
            all.push(json!({ "Name": name, "Scope": "local", "Driver": name }));
            continue;
        }
        match networks.inspect(name) {
            Ok(found) => all.push(told(&found)),
            Err(error) => {
                voice::complain(&error.into());
                code = 1;
            }
        }
    }
    documents(format, all)?;
    Ok(code)
}

/// In docker's words.
fn told(found: &Occupied) -> Value {
    let network = &found.network;
    let containers: Map<String, Value> = found
        .leases
        .iter()
        .map(|lease| {
            let one = json!({
                "Name": lease.name,
                "MacAddress": lease.mac,
                "IPv4Address": format!("{}/{}", lease.address, lease.bits),
                "Interface": lease.cable,
            });
            (lease.container.clone(), one)
        })
        .collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": "bridge",
        "IPAM": { "Driver": "default", "Config": [{ "Subnet": network.subnet, "Gateway": network.gateway }] },
        "Containers": containers,
        "Options": { "bridge": network.bridge },
        "Labels": network.labels,
    })
}

fn remove(engine: &Engine, force: bool, names: &[String]) -> Result<u8, Failure> {
    let networks = engine.networks();
    let mut code = 0;
    for name in names {
        match networks.remove(name) {
            Ok(_) => print::text(&format!("{name}\n"))?,
            Err(NetworkError::Missing { .. }) if force => {}
            Err(error) => {
                voice::complain(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

pub(crate) fn prune(engine: &Engine) -> Result<u8, Failure> {
    let pruned = engine.networks().prune()?;
    let lines = |names: &[String]| names.iter().flat_map(|name| [name.as_str(), "\n"]).collect::<String>();
    if !pruned.networks.is_empty() {
        print::text(&format!("Deleted networks:\n{}", lines(&pruned.networks)))?;
    }
    if !pruned.containers.is_empty() {
        print::text(&format!("Freed what containers left:\n{}", lines(&pruned.containers)))?;
    }
    Ok(0)
}

fn pool(engine: &Engine, count: Option<usize>) -> Result<u8, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(EngineError::from(NetworkError::Rootless { what: "a network that is ready" }).into());
    }
    let pool = engine.networks().keep_ready(count)?;
    print::text(&format!("{} of {} ready\n", pool.ready, pool.wanted))?;
    Ok(0)
}

impl Port {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let record = engine.find(&self.container)?;
        let published: &[_] = if record.life.running.is_some() { &record.life.published } else { &[] };
        let Some(text) = &self.port else {
            let line = |it: &isolab_runtime::network::Published| {
                format!("{}/{} -> {}:{}\n", it.container_port, it.protocol, it.host_address, it.host_port)
            };
            return print::text(&published.iter().map(line).collect::<String>()).map(|()| 0);
        };
        let wishes = PortWish::exposed(text).map_err(NetworkError::from).map_err(EngineError::from)?;
        let asked = |it: &&isolab_runtime::network::Published| {
            wishes.iter().any(|wish| (wish.container_port, wish.protocol) == (it.container_port, it.protocol))
        };
        let lines = published.iter().filter(asked).map(|it| format!("{}:{}\n", it.host_address, it.host_port));
        let lines: String = lines.collect();
        if lines.is_empty() {
            return Err(Failure::NotPublished { container: record.name, port: text.clone() });
        }
        print::text(&lines)?;
        Ok(0)
    }
}
