//! What a trial needs of the host.

use libtest_mimic::{Failed, Trial};

pub(crate) type Done = Result<(), Failed>;

/// A trial that is ignored where one of its needs is missing and not required.
pub(crate) fn trial(name: &str, needs: &[&str], test: fn() -> Done) -> Trial {
    let required = std::env::var("ISOLAB_REQUIRE").unwrap_or_default();
    let missing: Vec<&str> = needs.iter().copied().filter(|need| !is_here(need)).collect();
    let forgiven = missing.iter().all(|need| !required.split(',').any(|other| other == *need));
    let ignored = forgiven && !missing.is_empty();
    let kind = if ignored { format!("needs {}", missing.join(", ")) } else { String::new() };
    Trial::test(name, test).with_kind(kind).with_ignored_flag(ignored)
}

/// A trial that needs nothing and can fail only by a panic.
pub(crate) fn sure(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn is_here(need: &str) -> bool {
    match need {
        "root" => nix::unistd::geteuid().is_root(),
        "tun" => std::path::Path::new("/dev/net/tun").exists(),
        program => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
        }
    }
}
