//! A container's network: what is wanted of it, how it is given when the container starts, and what is told of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{EngineError, io_error};
use super::record::Record;
use super::users::Users;
use super::wishes::{Network, Wishes};
use super::{Engine, Locked};
use crate::container::Bundle;
use crate::image::Store;
use crate::network::{
    Attachment, Carrier, Endpoint, ExtraHost, Guest, Lease, Namespace, NetworkError, Networks, PortWish, Published,
    Resolver, beginning, host_resolver, resolver_text,
};

/// Where the process stands, in what is kept of a network, that carries an ordinary user's packets.
const CARRIER: &str = "Carrier";

/// What a container shall have of the network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Networking {
    /// The networks it is in; the first one is its way out.
    pub endpoints: Vec<Endpoint>,
    /// The container whose network it has, in place of one of its own.
    pub shared_with: Option<String>,
    /// The ports that lead to it.
    pub ports: Vec<PortWish>,
    /// Whether the ports that it exposes lead to it, too.
    pub publish_all: bool,
    /// Ports that it exposes besides those of its image: `80/tcp`.
    pub exposed: Vec<String>,
    /// Who is asked for names.
    pub resolver: Resolver,
    /// Names that it knows.
    pub extra_hosts: Vec<ExtraHost>,
}

impl Engine {
    /// The networks of this root.
    pub fn networks(&self) -> Networks {
        let usual = Store::folder_of_user().is_some_and(|folder| folder == self.store().root());
        Networks::below(self.store().root(), self.run_root(), usual)
    }

    /// Gives a container whose first process waits its place in its networks, and answers what is told of it.
    pub(super) fn attach_to_networks(&self, locked: &mut Locked, pid: i32) -> Result<Value, EngineError> {
        if !geteuid().is_root() {
            let wishes = wished(&locked.record)?;
            // Below the run root: the name of a socket has an end, and a container's folder may have a longer one.
            let door = self.make_door(&format!("{}.net", locked.record.short_id()));
            let note = door.map_err(io_error("make", self.run_root()))?;
            return serve_user(&mut locked.record, pid, &wishes, &note);
        }
        let leases = self.join_networks(locked, &Namespace::open(&namespace_of(pid))?)?;
        self.told_of(&locked.record, pid, &leases)
    }

    /// Gives a container that is about to be made a network that is ready, where one is, and has its bundle join it.
    pub(super) fn take_ready<'a>(
        networks: &'a Networks,
        locked: &mut Locked,
        bundle: &mut Bundle,
    ) -> Result<Option<Ready<'a>>, EngineError> {
        let hosts = locked.folder().join("hosts");
        let record = &mut locked.record;
        // One that was made before belongs to the host's users.
        let can = geteuid().is_root() && record.wishes.users == Users::Host;
        let ([endpoint], Network::Bridge, true) =
            (record.wishes.networking.endpoints.as_slice(), record.wishes.network, can)
        else {
            return Ok(None);
        };
        let ready = networks.attach_ready(guest(record, &hosts), endpoint, &wished(record)?)?;
        Ok(ready.map(|(namespace, attachment)| {
            bundle.lend_network(&namespace.path());
            record.life.published = ports_of(attachment.leases());
            Ready { _namespace: namespace, attachment }
        }))
    }

    /// Has networks made ready again by a process that nobody waits for, where many of them are gone.
    pub fn make_ready(&self) {
        if self.networks().wants_more() {
            let mut command = self.own_command();
            command.args(["network", "pool"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // Without it containers start as they would without ready networks.
            let _ = command.process_group(0).spawn();
        }
    }

    /// Gives a network namespace, which is to be a container's, its place in the container's networks.
    pub(super) fn join_networks(&self, locked: &mut Locked, namespace: &Namespace) -> Result<Vec<Lease>, EngineError> {
        let hosts = locked.folder().join("hosts");
        let record = &mut locked.record;
        let wishes = wished(record)?;
        let guest = guest(record, &hosts);
        let endpoints = &record.wishes.networking.endpoints;
        let leases = self.networks().attach(guest, namespace, endpoints, &wishes)?.keep();
        record.life.published = ports_of(&leases);
        Ok(leases)
    }

    /// What is told of the network of a container that runs.
    pub(super) fn told_of(&self, record: &Record, pid: i32, leases: &[Lease]) -> Result<Value, EngineError> {
        told(&self.networks(), record, pid, leases)
    }

    /// Puts a container into one more network: at once if it runs, and from its next start on.
    pub fn connect(&self, text: &str, endpoint: &Endpoint) -> Result<(), EngineError> {
        let mut locked = self.lock(text)?;
        let networks = self.networks();
        let network = networks.find_or_default(&endpoint.network)?.name;
        let endpoint = Endpoint { network: network.clone(), ..endpoint.clone() };
        check_free(&locked.record)?;
        if locked.record.wishes.networking.endpoints.iter().any(|other| other.network == network) {
            return Err(NetworkError::Attached { container: locked.record.name.clone(), network }.into());
        }
        if let Some(pid) = running(&locked.record) {
            let namespace = Namespace::open(&namespace_of(pid))?;
            let hosts = locked.folder().join("hosts");
            let guest = guest(&locked.record, &hosts);
            match networks.connect(guest, &endpoint, &namespace) {
                Err(NetworkError::Attached { .. }) => {
                    // A command that was killed had begun: the record, which is written last, knows nothing of it.
                    networks.disconnect(&locked.record.id, &locked.record.name, &network, &namespace)?;
                    networks.connect(guest, &endpoint, &namespace)?;
                }
                other => drop(other?),
            }
        }
        locked.record.wishes.networking.endpoints.push(endpoint);
        tell(&networks, &mut locked)
    }

    /// Takes a container out of a network.
    pub fn disconnect(&self, text: &str, network: &str) -> Result<(), EngineError> {
        let mut locked = self.lock(text)?;
        let networks = self.networks();
        check_free(&locked.record)?;
        let network = networks.find_or_default(network)?.name;
        let record = &mut locked.record;
        let endpoints = &mut record.wishes.networking.endpoints;
        let Some(at) = endpoints.iter().position(|endpoint| endpoint.network == network) else {
            return Err(NetworkError::NotAttached { container: record.name.clone(), network }.into());
        };
        endpoints.remove(at);
        if let Some(pid) = running(record) {
            let namespace = Namespace::open(&namespace_of(pid))?;
            networks.disconnect(&record.id, &record.name, &network, &namespace)?;
        }
        tell(&networks, &mut locked)
    }

    /// Gives ports back to the host whose container died and had nobody beside it who would have done so: each command looks.
    pub(super) fn free_ports(&self) {
        if geteuid().is_root() {
            // Whoever needs a network hears of what is wrong with it.
            let _ = self.networks().free_ports();
        }
    }

    /// Gives back whatever a container that does not run has of networks.
    pub(super) fn leave_networks(&self, record: &Record) {
        if record.wishes.network == Network::Bridge && geteuid().is_root() {
            // What cannot be given back now is freed by whoever attaches next, once the namespace is gone.
            let _ = self.networks().detach(&record.id);
        }
    }

    /// Frees what killed containers and commands have left in networks.
    pub(super) fn free_networks(&self) -> Result<(), EngineError> {
        if geteuid().is_root() {
            self.networks().free_the_dead()?;
        }
        Ok(())
    }

    /// Where the files of names are of whose network this container has, if it has another one's.
    pub(super) fn folder_of_shared_network(&self, record: &Record) -> Result<Option<PathBuf>, EngineError> {
        let Some(other) = &record.wishes.networking.shared_with else { return Ok(None) };
        Ok(Some(self.folder(&self.find(other)?)))
    }
}

/// A network that was ready, until the container has it.
pub(super) struct Ready<'a> {
    /// Kept open until the container's first process is in it.
    _namespace: Namespace,
    attachment: Attachment<'a>,
}

impl Ready<'_> {
    /// The container has it from here on.
    pub(super) fn keep(self) -> Vec<Lease> {
        self.attachment.keep()
    }
}

fn ports_of(leases: &[Lease]) -> Vec<Published> {
    leases.first().map(|lease| lease.ports.clone()).unwrap_or_default()
}

/// Keeps a change of the networks of a container.
fn tell(networks: &Networks, locked: &mut Locked) -> Result<(), EngineError> {
    if let Some(pid) = running(&locked.record) {
        let leases = networks.leases_of(&locked.record.id)?;
        let value = told(networks, &locked.record, pid, &leases)?;
        if let Some(running) = &mut locked.record.life.running {
            running.network = Some(value);
        }
    }
    locked.write()
}

/// The network of an ordinary user's container: a program carries the packets.
fn serve_user(record: &mut Record, pid: i32, wishes: &[PortWish], note: &Path) -> Result<Value, EngineError> {
    let plain = |endpoint: &Endpoint| {
        endpoint.network == crate::network::DEFAULT && endpoint.address.is_none() && endpoint.mac.is_none()
    };
    if !record.wishes.networking.endpoints.iter().all(plain) {
        return Err(NetworkError::Rootless { what: "a network of one's own, or an address of one's choice," }.into());
    }
    let carrier = Carrier::find()?;
    let (process, ports) = carrier.serve(pid, wishes, note)?;
    record.life.published.clone_from(&ports);
    let mut all = Map::new();
    all.insert("SandboxKey".to_owned(), json!(namespace_of(pid)));
    all.insert("Ports".to_owned(), ports_told(record, &ports));
    all.insert("PortsText".to_owned(), json!(ports_text(record, &ports)));
    all.insert("Networks".to_owned(), json!({ carrier.name(): {} }));
    all.insert(CARRIER.to_owned(), json!(process));
    Ok(Value::Object(all))
}

/// Ends what serves an ordinary user's container.
pub(super) fn end_service(attached: &Value) {
    let process = attached.get(CARRIER).and_then(|process| serde_json::from_value(process.clone()).ok());
    process.iter().for_each(Carrier::end);
}

fn guest<'a>(record: &'a Record, hosts: &'a Path) -> Guest<'a> {
    let hostname = record.wishes.hostname.as_deref().unwrap_or(record.short_id());
    Guest { container: &record.id, name: &record.name, hostname, hosts, extra: &record.wishes.networking.extra_hosts }
}

fn running(record: &Record) -> Option<i32> {
    record.life.running.as_ref().map(|running| running.init.pid)
}

fn namespace_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// Only a container on bridges can be on more of them.
fn check_free(record: &Record) -> Result<(), EngineError> {
    match record.wishes.network {
        Network::Bridge if geteuid().is_root() => Ok(()),
        Network::Bridge => Err(NetworkError::Rootless { what: "a network of one's own" }.into()),
        _ => Err(EngineError::NetworkFixed { name: record.name.clone(), from: mode(record) }),
    }
}

/// All ports that are wanted, those that it had before first.
fn wished(record: &Record) -> Result<Vec<PortWish>, EngineError> {
    let networking = &record.wishes.networking;
    let mut all = networking.ports.clone();
    if networking.publish_all {
        for text in exposed(record) {
            let wishes = PortWish::exposed(&text).map_err(NetworkError::from)?;
            let new = |wish: &PortWish| {
                let same =
                    |other: &PortWish| (other.container_port, other.protocol) == (wish.container_port, wish.protocol);
                !networking.ports.iter().any(same)
            };
            all.extend(wishes.into_iter().filter(new));
        }
    }
    let mut before = record.life.published.clone();
    for wish in &mut all {
        if let Some(at) = before.iter().position(|port| port.was_for(wish)) {
            wish.preferred = Some(before.remove(at).host_port);
        }
    }
    Ok(all)
}

/// The ports that the image or the user says it listens on.
fn exposed(record: &Record) -> Vec<String> {
    let mut all: Vec<String> = record.config.exposed_ports.keys().cloned().collect();
    all.extend(record.wishes.networking.exposed.iter().cloned());
    all.sort();
    all.dedup();
    all
}

/// /etc/hosts and /etc/resolv.conf, as far as they are known before the container starts.
pub(super) fn files(wishes: &Wishes, hostname: &str) -> (String, String) {
    let networking = &wishes.networking;
    let extra = &networking.extra_hosts;
    let resolver = || resolver_text(&host_resolver(), &networking.resolver);
    match wishes.network {
        Network::Host => {
            let mut hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
            let local = beginning(extra, Some(Ipv4Addr::LOCALHOST));
            // The host's own file has its own lines for itself.
            hosts.extend(local.lines().skip(2).flat_map(|line| [line, "\n"]));
            let plain = networking.resolver == Resolver::default();
            (hosts, if plain { fs::read_to_string("/etc/resolv.conf").unwrap_or_default() } else { resolver() })
        }
        Network::None => (format!("{}127.0.1.1\t{hostname}\n", beginning(extra, None)), String::new()),
        // Whoever attaches it writes its own name and address into it. An ordinary user's has no address of its own.
        Network::Bridge | Network::Container => {
            (format!("{}127.0.1.1\t{hostname}\n", beginning(extra, None)), resolver())
        }
    }
}

/// docker's word for the kind of network.
pub(super) fn mode(record: &Record) -> String {
    let networking = &record.wishes.networking;
    match record.wishes.network {
        Network::None => "none".to_owned(),
        Network::Host => "host".to_owned(),
        Network::Container => format!("container:{}", networking.shared_with.as_deref().unwrap_or_default()),
        Network::Bridge => networking.endpoints.first().map_or("none".to_owned(), |endpoint| endpoint.network.clone()),
    }
}

/// What is told of the network of a container that runs.
fn told(networks: &Networks, record: &Record, pid: i32, leases: &[Lease]) -> Result<Value, EngineError> {
    let ports = &record.life.published;
    let mut all = Map::new();
    all.insert("SandboxKey".to_owned(), json!(namespace_of(pid)));
    all.insert("Ports".to_owned(), ports_told(record, ports));
    all.insert("PortsText".to_owned(), json!(ports_text(record, ports)));
    if let Some(first) = leases.first() {
        all.insert("IPAddress".to_owned(), json!(first.address));
        all.insert("IPPrefixLen".to_owned(), json!(first.bits));
        all.insert("Gateway".to_owned(), json!(first.gateway));
        all.insert("MacAddress".to_owned(), json!(first.mac));
    }
    let mut each = Map::new();
    for lease in leases {
        each.insert(lease.network.clone(), one(lease, &networks.find(&lease.network)?.id));
    }
    all.insert("Networks".to_owned(), Value::Object(each));
    Ok(Value::Object(all))
}

fn one(lease: &Lease, network: &str) -> Value {
    json!({
        "Aliases": lease.aliases,
        "NetworkID": network,
        "Gateway": lease.gateway,
        "IPAddress": lease.address,
        "IPPrefixLen": lease.bits,
        "MacAddress": lease.mac,
        "Interface": lease.interface,
        "HostInterface": lease.cable,
    })
}

/// `NetworkSettings` of a container, whether it runs or not.
pub(super) fn settings(record: &Record) -> Value {
    let running = record.life.running.as_ref().and_then(|running| running.network.clone());
    match running {
        Some(Value::Object(mut all)) => {
            // For the table of containers, and for the container's end.
            all.remove("PortsText");
            all.remove(CARRIER);
            Value::Object(all)
        }
        _ if record.wishes.network == Network::Bridge => {
            let endpoints = record.wishes.networking.endpoints.iter();
            let each: Map<String, Value> = endpoints.map(|endpoint| (endpoint.network.clone(), json!({}))).collect();
            json!({ "Ports": {}, "Networks": each })
        }
        _ => json!({ "Ports": {}, "Networks": { mode(record): {} } }),
    }
}

/// The ports that are exposed and published, as docker tells them.
fn ports_told(record: &Record, published: &[Published]) -> Value {
    let mut all: BTreeMap<String, Option<Vec<Value>>> = BTreeMap::new();
    for text in exposed(record) {
        for wish in PortWish::exposed(&text).unwrap_or_default() {
            all.insert(format!("{}/{}", wish.container_port, wish.protocol), None);
        }
    }
    for port in published {
        let told = json!({ "HostIp": port.host_address, "HostPort": port.host_port.to_string() });
        all.entry(format!("{}/{}", port.container_port, port.protocol)).or_default().get_or_insert_default().push(told);
    }
    json!(all)
}

/// The column of a table: what is published, and what is only exposed.
fn ports_text(record: &Record, published: &[Published]) -> String {
    let led_to = |wish: &PortWish| {
        published.iter().any(|it| (it.container_port, it.protocol) == (wish.container_port, wish.protocol))
    };
    let exposed = exposed(record);
    let exposed = exposed.iter().flat_map(|text| PortWish::exposed(text).unwrap_or_default());
    let rest = exposed.filter(|wish| !led_to(wish)).map(|wish| format!("{}/{}", wish.container_port, wish.protocol));
    published.iter().map(Published::column).chain(rest).collect::<Vec<_>>().join(", ")
}

/// `HostConfig.PortBindings`: what was asked for.
pub(super) fn wished_ports(networking: &Networking) -> Value {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for wish in &networking.ports {
        let port = match wish.host_ports {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let address = Some(wish.host_address).filter(|address| !address.is_unspecified());
        let told = json!({ "HostIp": address.map(|it| it.to_string()).unwrap_or_default(), "HostPort": port });
        all.entry(format!("{}/{}", wish.container_port, wish.protocol)).or_default().push(told);
    }
    json!(all)
}
