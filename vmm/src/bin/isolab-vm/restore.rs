//! The verb `restore`: a machine that goes on from a snapshot.

use std::io;

use isolab_vmm::confine::{Duties, confine};
use isolab_vmm::machine::pc::{Pc, Renewal};
use isolab_vmm::machine::{Machine, Template};
use isolab_vmm::memory::Loading;
use isolab_vmm::serve::clone_here;
use isolab_vmm::snapshot::Snapshot;

use crate::cli::Restore;
use crate::failure::Failure;
use crate::run::{GRACE, attendant, live_as_pc, status};

/// Makes the machine, runs it on, and returns the status to end with.
pub(crate) fn restore(wanted: &Restore) -> Result<u8, Failure> {
    let from = match (&wanted.server, &wanted.from) {
        (Some(server), _) => return Ok(clone_here(server, wanted.timeout)?),
        (None, Some(from)) => from,
        (None, None) => unreachable!("clap requires one of the two"),
    };
    let template = Template::new(Snapshot::open(from)?)?;
    let loading = wanted.loading.loading();
    if template.is_pc() {
        let renewal = Renewal {
            cards: wanted.net.iter().map(|card| card.0.clone()).collect(),
            sockets: wanted.vsock.as_ref().map(|sockets| sockets.0.clone()),
            ..Renewal::default()
        };
        let pc = Pc::restore(&template, loading, wanted.timeout, Box::new(io::stdout()), &renewal)?;
        return live_as_pc(pc, true, wanted.api.as_deref(), loading == Loading::Recorded, GRACE);
    }
    let (_socket, mut attendant) = attendant(wanted.api.as_deref())?;
    let machine = Machine::restore(&template, loading, wanted.timeout, io::stdout())?;
    let saves = wanted.api.is_some() || loading == Loading::Recorded;
    confine(Duties { saves, ..Duties::default() })?;
    Ok(status(machine.resume_under(&mut attendant)?))
}
