//! From container to container, and to the world and back.

use std::net::Ipv4Addr;

use isolab_runtime::network::{Endpoint, NetworkError, NetworkWish};
use libtest_mimic::{Failed, Trial};

use super::checks::{has, same};
use super::lab::{Lab, ask, inside, is_unreachable, on, run, serve, trial};

const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("two_containers_listen_on_the_same_port_and_reach_each_other", neighbours),
        trial("the_world_sees_the_hosts_address_and_has_no_way_in", world),
        trial("networks_do_not_see_each_other", apart),
        trial("containers_of_a_users_network_are_found_by_name", names),
        trial("a_container_is_in_two_networks_and_leaves_one", two_networks),
        trial("an_address_and_a_cards_address_can_be_chosen", chosen),
    ]
}

fn wish(name: &str) -> NetworkWish {
    NetworkWish { name: name.to_owned(), ..NetworkWish::default() }
}

fn neighbours() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let (one, two) = (lab.container("one", &[])?, lab.container("two", &[])?);
    one.serve(80, "one")?;
    two.serve(80, "two")?;
    let (first, second) = (one.address(), two.address());
    same(one.inside(move || ask(second, 80))?, format!("two {first}"))?;
    same(two.inside(move || ask(first, 80))?, format!("one {second}"))?;
    // From the host, whose bridge is in the same network.
    same(ask(first, 80)?, format!("one {}", one.lease().gateway))?;
    let interfaces = one.inside(|| run(&["ip", "-brief", "address"]))?;
    has(&interfaces, &format!("{first}/16"))?;
    has(&one.inside(|| run(&["ip", "route"]))?, &format!("default via {} dev eth0", one.lease().gateway))?;
    // The loopback interface is on.
    one.inside(|| ask(Ipv4Addr::LOCALHOST, 80)).and_then(|answer| same(answer.as_str(), "one 127.0.0.1"))
}

fn world() -> Result<(), Failed> {
    let (lab, world) = Lab::with_world()?;
    serve(&world, 80, "world")?;
    let container = lab.container("one", &[])?;
    container.serve(80, "one")?;
    same(container.inside(|| ask(WORLD, 80))?.as_str(), "world 192.0.2.1")?;
    // Somebody out there who knows the way still doesn't come in.
    let address = container.address();
    inside(&world, move || {
        run(&["ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.1"])?;
        is_unreachable(address, 80)
    })
}

fn apart() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.networks.create(&wish("red"))?;
    lab.networks.create(&wish("blue"))?;
    let red = lab.container_in("red-one", &[on("red")], &[])?;
    let blue = lab.container_in("blue-one", &[on("blue")], &["9000:80"])?;
    blue.serve(80, "blue")?;
    blue.serve(81, "blue")?;
    let (address, gateway) = (blue.address(), red.lease().gateway);
    red.inside(move || is_unreachable(address, 80))?;
    red.inside(move || is_unreachable(address, 81))?;
    // But what is published is for everybody.
    red.inside(move || ask(gateway, 9000)).and_then(|answer| has(&answer, "blue "))
}

fn names() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.networks.create(&wish("n"))?;
    let web = lab.container_in("web", &[on("n")], &[])?;
    let alone = "\t# network n\n";
    same(web.names()?.matches(alone).count(), 1)?;
    let endpoint = Endpoint { aliases: vec!["sql".to_owned()], ..on("n") };
    let db = lab.container_in("db", &[endpoint], &[])?;
    let (first, second) = (web.address(), db.address());
    let short = &db.lease().container[..12];
    has(&web.names()?, &format!("\n{second}\tdb {short} sql\t# network n\n"))?;
    has(&db.names()?, &format!("\n{first}\tweb "))?;
    has(&db.names()?, &format!("\n{second}\tbox db {short} sql\t"))?;
    drop(db);
    same(web.names()?.contains("sql"), false)?;
    // The default network has no names, as docker's has none: only the container's own.
    let (one, _two) = (lab.container("one", &[])?, lab.container("two", &[])?);
    same(one.names()?.matches("# network bridge").count(), 1)?;
    let refused = lab.container_in("x", &[Endpoint { aliases: vec!["a b".to_owned()], ..on("n") }], &[]);
    let refused = refused.err().ok_or("an alias with a blank")?;
    has(refused.message().unwrap_or_default(), "a b")
}

fn two_networks() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.networks.create(&wish("back"))?;
    let front = lab.container("front", &[])?;
    let back = lab.container_in("back-one", &[on("back")], &[])?;
    back.serve(80, "back")?;
    let address = back.address();
    front.inside(move || is_unreachable(address, 80))?;
    let id = front.lease().container.clone();
    let guest = isolab_runtime::network::Guest {
        container: &id,
        name: "front",
        hostname: "box",
        hosts: &front.hosts,
        extra: &[],
    };
    let lease = lab.networks.connect(guest, &on("back"), &front.namespace)?;
    same(lease.interface.as_str(), "eth1")?;
    same(front.inside(move || ask(address, 80))?, format!("back {}", lease.address))?;
    has(&front.names()?, "\tback-one ")?;
    has(&back.names()?, "\tfront ")?;
    let again = lab.networks.connect(guest, &on("back"), &front.namespace);
    same(matches!(again, Err(NetworkError::Attached { .. })), true)?;
    same(lab.networks.leases_of(&id)?.len(), 2)?;
    lab.networks.disconnect(&id, "front", "back", &front.namespace)?;
    same(front.inside(|| run(&["ip", "-brief", "link"]))?.contains("eth1"), false)?;
    same(front.names()?.contains("network back"), false)?;
    same(back.names()?.contains("\tfront "), false)?;
    let again = lab.networks.disconnect(&id, "front", "back", &front.namespace);
    same(matches!(again, Err(NetworkError::NotAttached { .. })), true)?;
    // Without the first one, the second is the way out.
    let lease = lab.networks.connect(guest, &on("back"), &front.namespace)?;
    lab.networks.disconnect(&id, "front", "bridge", &front.namespace)?;
    has(&front.inside(|| run(&["ip", "route"]))?, &format!("default via {} dev eth1", lease.gateway))
}

fn chosen() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let subnet = Some("10.77.1.0/28".parse()?);
    lab.networks.create(&NetworkWish { subnet, ..wish("n") })?;
    let at = |last| Endpoint { address: Some(Ipv4Addr::new(10, 77, 1, last)), ..on("n") };
    let mac = "02:aa:bb:cc:dd:ee";
    let one = lab.container_in("one", &[Endpoint { mac: Some(mac.parse()?), ..at(9) }], &[])?;
    same(one.address(), Ipv4Addr::new(10, 77, 1, 9))?;
    has(&one.inside(|| run(&["ip", "link", "show", "eth0"]))?, mac)?;
    for (last, expected) in [(9, "is taken by one"), (1, "is taken by the bridge"), (15, "can have"), (16, "can have")]
    {
        let refused = lab.container_in("two", &[at(last)], &[]).err().ok_or("refused")?;
        has(refused.message().unwrap_or_default(), expected)?;
    }
    // The address of one that has just gone can be had at once.
    drop(one);
    same(lab.container_in("two", &[at(9)], &[])?.address(), Ipv4Addr::new(10, 77, 1, 9))?;
    let refused = lab.container_in("x", &[Endpoint { network: "bridge".to_owned(), ..at(9) }], &[]);
    same(refused.is_err(), true)
}
