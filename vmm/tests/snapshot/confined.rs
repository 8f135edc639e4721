//! Whichever way a program comes into a machine, its monitor is confined, and does all that it is asked for nevertheless.

use isolab_vmm::api::{Answer, Request, ask};
use libtest_mimic::{Failed, Trial};

use crate::machines::{Live, isolab_vm, place, snapshot, teller};
use crate::named::Root;
use crate::needs::{Done, trial};
use crate::served::{children, clone_of, end, served_with};
use crate::walls;

const NEEDS: &[&str] = &["kvm", "gcc"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_program_that_boots_or_goes_on_has_walls_around_it", NEEDS, boots_and_goes_on),
        trial("a_monitor_that_brings_pages_is_walled_in", &["kvm", "gcc", "userfaultfd"], brings_pages),
        trial("a_machine_with_a_name_does_each_verb_behind_its_walls", NEEDS, named),
        trial("each_clone_of_a_server_is_walled_in", NEEDS, served),
    ]
}

fn around(live: &Live) -> Result<usize, Failed> {
    walls::stand_around(live.pid())
}

fn boots_and_goes_on() -> Done {
    let mut command = isolab_vm(["run", "--app"]);
    command.arg(teller()).args(["--", "alone"]);
    let mut alone = Live::start(command)?;
    alone.expect("ISOLAB-READY alone")?;
    assert_eq!(around(&alone)?, 1, "nobody can ask it");
    let (machine, socket) = Live::teller("walls", &[])?;
    assert!(around(&machine)? > 1, "somebody can");
    let at = place("walls-snapshot");
    snapshot(&socket, &at)?;
    for way in ["--lazy", "--eager"] {
        let mut restored = Live::restored(&at, &[way])?;
        restored.answers("nonce", "nonce walls")?;
        assert_eq!(around(&restored)?, 1, "{way}");
        restored.say("exit 7")?;
        assert_eq!(restored.ends()?, Some(7));
    }
    // Who goes on and can be asked saves again, and what that is goes on.
    let api = place("walls-2.sock");
    let mut second = Live::restored(&at, &["--api", &api.display().to_string()])?;
    second.answers("count", "count 1 0.5")?;
    around(&second)?;
    let again = place("walls-again");
    snapshot(&api, &again)?;
    ask(&api, &Request::Stop)?;
    assert_eq!(second.ends()?, Some(143));
    Live::restored(&again, &["--timeout", "20"])?.answers("count", "count 2 1.0")
}

fn brings_pages() -> Done {
    let (machine, socket) = Live::teller("walls-recorded", &[])?;
    let at = place("walls-recorded");
    snapshot(&socket, &at)?;
    drop(machine);
    for turn in ["writes down what is touched", "brings that"] {
        let mut restored = Live::restored(&at, &["--recorded"])?;
        restored.answers("touch 2", "touched 2")?;
        assert_eq!(around(&restored)?, 2, "{turn}");
        restored.say("exit 3")?;
        assert_eq!(restored.ends()?, Some(3), "{turn}");
        assert!(at.join("working-set").exists(), "{turn}");
    }
    Ok(())
}

fn named() -> Done {
    let root = Root::new("walled");
    root.create("web")?;
    let mut web = root.start("web")?;
    web.expect("ISOLAB-READY web")?;
    around(&web)?;
    web.answers("count", "count 1 0.5")?;
    root.does("snapshot web one")?;
    web.answers("count", "count 2 1.0")?;
    root.does("snapshot web two --diff")?;
    root.does("pause web")?;
    around(&web)?;
    root.does("resume web")?;
    root.does("stop web")?;
    assert_eq!(web.ends()?, Some(143));
    for (snapshot, next) in [("one", 2), ("two", 3)] {
        root.does(&format!("rollback web {snapshot}"))?;
        let mut web = root.start("web")?;
        web.answers("count", &format!("count {next} {:.1}", f64::from(next) / 2.0))?;
        around(&web)?;
        root.does(&format!("snapshot web from-{snapshot} --diff"))?;
        web.answers("nonce", "nonce web")?;
    }
    // Clones of both kinds, in processes that nobody talks to.
    for (name, kind) in [("linked", "clone web@two linked"), ("full", "clone --full web@two full")] {
        root.does(kind)?;
        root.does(&format!("start --detach {name}"))?;
        let Answer::Status(status) = ask(&root.machine(name).join("socket"), &Request::Status)? else {
            return Err("no status".into());
        };
        walls::stand_around(status.pid)?;
        root.does(&format!("snapshot {name} own"))?;
        root.does(&format!("stop {name}"))?;
    }
    // A built-in guest goes the same ways.
    root.does("create bare --memory 16 --bare counter -- 1000000000000")?;
    let bare = root.start("bare")?;
    root.until_it_answers("bare")?;
    around(&bare)?;
    root.does("snapshot bare one")?;
    root.does("stop bare")?;
    root.does("rollback bare one")?;
    let bare = root.start("bare")?;
    root.until_it_answers("bare")?;
    around(&bare)?;
    root.does("stop bare")?;
    Ok(())
}

fn served() -> Done {
    let (server, _, listens) = served_with("walled-processes", &[])?;
    assert_eq!(walls::stand_around(server.pid())?, 1, "once it says that it serves");
    let mut clone = clone_of(&listens, &[])?;
    clone.answers("count", "count 3 1.5")?;
    let [child] = children(server.pid())?[..] else { return Err("one clone is one process".into()) };
    assert_eq!(walls::stand_around(child)?, 1);
    clone.say("exit 4")?;
    assert_eq!(clone.ends()?, Some(4));

    // Threads share all that they have with their server, so it is confined with them, and before them.
    let (mut server, _, listens) = served_with("walled-threads", &["--in-process"])?;
    let alone = walls::stand_around(server.pid())?;
    let mut clones = (0..12).map(|_| clone_of(&listens, &["--timeout", "60"])).collect::<Result<Vec<_>, _>>()?;
    for clone in &mut clones {
        clone.answers("touch 4", "touched 4")?;
    }
    assert!(walls::stand_around(server.pid())? >= alone + 12);
    end(&server, nix::sys::signal::Signal::SIGTERM)?;
    assert_eq!(server.ends()?, Some(143));
    Ok(())
}
