//! On a host where docker has its rules, too.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use super::checks::{has, same};
use super::lab::{Lab, ask, inside, is_unreachable, run, serve};
use super::needs;

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// docker's, as far as they matter: what is not for its own networks is dropped, after the chain that is left to others.
const DOCKER: &str = "table ip filter {
    chain DOCKER-USER { counter return; }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        counter jump DOCKER-USER
    }
}";

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "ip", "nft", "iptables-nft"];
    vec![needs::trial("what_docker_would_drop_goes_through_the_chain_that_it_leaves_to_others", &needs, passed)]
}

fn passed() -> Result<(), Failed> {
    let (lab, world) = Lab::with_world()?;
    serve(&world, 80, "world")?;
    rules(&lab, DOCKER)?;
    let one = lab.container("one", &["8080:80"])?;
    one.serve(80, "one")?;
    inside(&world, || ask(HOST, 8080)).and_then(|answer| has(&answer, "one "))?;
    one.inside(|| ask(WORLD, 80)).and_then(|answer| has(&answer, "world "))?;
    let chain = || run(&["nft", "list", "chain", "ip", "filter", "DOCKER-USER"]);
    // One of docker's own networks is docker's to open.
    has(&chain()?, "oifname \"br-*\" return")?;
    // Docker's own command still reads and writes its table.
    let listed = run(&["iptables-nft", "-S", "DOCKER-USER"])?;
    has(&listed, "-A DOCKER-USER -o isolab0 ")?;
    has(&listed, "-A DOCKER-USER -i isolab0 -o br-+ ")?;
    run(&["iptables-nft", "-I", "DOCKER-USER", "-s", "192.0.2.77", "-j", "DROP"])?;
    // A second container adds nothing; docker, started anew, has it again with the next one.
    let ours = || Ok::<_, Failed>(chain()?.matches("isolab0").count());
    let many = ours()?;
    let two = lab.container("two", &[])?;
    same(ours()?, many)?;
    run(&["nft", "flush", "chain", "ip", "filter", "DOCKER-USER"])?;
    inside(&world, || is_unreachable(HOST, 8080))?;
    let three = lab.container("three", &[])?;
    inside(&world, || ask(HOST, 8080)).and_then(|answer| has(&answer, "one "))?;
    drop((one, two, three));
    lab.networks.prune()?;
    same(ours()?, 0)?;
    has(&run(&["nft", "list", "chain", "ip", "filter", "FORWARD"])?, "jump DOCKER-USER")
}

fn rules(lab: &Lab, text: &str) -> Result<(), Failed> {
    let path = lab.path("docker.nft");
    std::fs::write(&path, text)?;
    let output = Command::new("nft").arg("-f").arg(&path).stdin(Stdio::null()).output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}
