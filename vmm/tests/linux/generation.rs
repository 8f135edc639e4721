//! A kernel that hears of it when its machine has become another one.
//!
//! Debian's kernel for clouds is built without the driver for the generation ID; the lab's own (`vmm/kernel`) has it. That one
//! is named by `ISOLAB_TEST_SMALL_KERNEL`. It takes a quarter of an hour to build, so where nobody has, this is ignored.

use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};

use super::guests::{Guest, Made, Root, UUID};
use super::{Done, stock, trial};

/// How often the kernel says that it has drawn new random numbers because its machine is another one (`add_vmfork_randomness`).
const RESEEDED: &str = "busybox dmesg | busybox grep -c 'crng reseeded due to virtual machine fork'";

pub(super) fn trials() -> Vec<Trial> {
    let needs = &["small-kernel", "busybox"];
    vec![trial("a_kernel_with_the_driver_draws_new_random_numbers_whenever_its_machine_is_another", needs, told)]
}

fn told() -> Done {
    let root = Root::new()?;
    let web = small(&root)?;
    web.start()?;
    web.expect("READY")?;
    let mut seen = BTreeSet::from([web.ask(&format!("busybox cat {UUID}"))?]);
    root.does(&["snapshot", "web", "base"])?;
    assert_eq!(web.ask(RESEEDED)?, "0", "it is the machine that it was");
    web.go_back("base")?;
    reseeded(&web, 1, &mut seen)?;
    // Once for each time: what went on from "again" has gone on twice.
    root.does(&["snapshot", "web", "again"])?;
    web.go_back("again")?;
    reseeded(&web, 2, &mut seen)?;
    root.does(&["clone", "--count", "2", "web@base", "linked"])?;
    root.does(&["clone", "--full", "web@again", "full"])?;
    for (name, times) in [("linked-1", 1), ("linked-2", 1), ("full", 2)] {
        let clone = root.guest(name);
        clone.start()?;
        reseeded(&clone, times, &mut seen)?;
        clone.stop()?;
    }
    web.stop()
}

/// A guest with nothing that would bring it random numbers.
fn small(root: &Root) -> Result<Guest<'_>, Failed> {
    let (kernel, busybox) = (stock::small().ok_or("no kernel")?, stock::busybox().ok_or("no busybox")?);
    let init = serde_json::json!({});
    let made = Made {
        kernel: &kernel,
        modules: None,
        init,
        programs: &[(&*busybox, "bin/busybox")],
        options: &["--memory", "128"],
    };
    root.create("web", &made)
}

/// Fails where its kernel does not say soon that it has drawn new numbers so often, or they are not new.
fn reseeded(guest: &Guest<'_>, times: u32, seen: &mut BTreeSet<String>) -> Done {
    guest.until(RESEEDED, &times.to_string())?;
    assert!(seen.insert(guest.ask(&format!("busybox cat {UUID}"))?), "another machine has drawn the same");
    Ok(())
}
