//! Capabilities: root's power in some forty pieces, in five sets (capabilities(7)).
//!
//! Bounding is what can ever be had again, permitted what may be used, effective what is used, inheritable and ambient
//! what survives an execve(2).

use nix::errno::Errno;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use super::report::{At, Failure, Step};
use super::sys::credentials::{self, Sets};

/// The five sets, a bit a capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CapabilityPlan {
    bounding: u64,
    sets: Sets,
    ambient: u64,
}

impl CapabilityPlan {
    /// Reads the wishes; without any, the container has no capability at all.
    ///
    /// `held` is what there is to give. What was asked for beyond that is left out, and named in `warnings`: the
    /// specification wants the container to start all the same.
    pub(crate) fn new(asked: Option<&LinuxCapabilities>, held: u64, warnings: &mut Vec<String>) -> Self {
        let Some(asked) = asked else { return Self::default() };
        let mut missing: Vec<String> = Vec::new();
        let mut grant = |names: &Option<Capabilities>| {
            let wished = names.iter().flatten().fold(0, |bits, name| bits | bit(&name.to_string()));
            let lacking = names.iter().flatten().map(ToString::to_string).filter(|name| bit(name) & held == 0);
            missing.extend(lacking);
            wished & held
        };
        let plan = Self {
            bounding: grant(asked.bounding()),
            sets: Sets {
                effective: grant(asked.effective()),
                permitted: grant(asked.permitted()),
                inheritable: grant(asked.inheritable()),
            },
            ambient: grant(asked.ambient()),
        };
        missing.sort();
        missing.dedup();
        warnings.extend(missing.iter().map(|name| format!("capability CAP_{name} cannot be granted and is left out")));
        plan
    }

    /// Gives up for ever what is not in the bounding set. Needs `CAP_SETPCAP`, so it comes before the others.
    pub(crate) fn limit(&self) -> Result<(), Failure> {
        for capability in (0..64).filter(|number| self.bounding >> number & 1 == 0) {
            match credentials::drop_bounding(capability) {
                Err(Errno::EINVAL) => break, // the kernel's last one has been passed
                other => other.at_index(Step::BoundingSet, usize::from(capability))?,
            }
        }
        Ok(())
    }

    /// Takes on the other four sets; the last thing that needs any right.
    pub(crate) fn hold(&self) -> Result<(), Failure> {
        // Effective can only be what is permitted too, as capset(2) wants; the container's author may have been less strict.
        let effective = self.sets.effective & self.sets.permitted;
        credentials::hold(Sets { effective, ..self.sets }).at(Step::Capabilities)?;
        match credentials::clear_ambient() {
            Err(Errno::EINVAL) => {} // before Linux 4.3 there was no such set
            other => other.at(Step::Capabilities)?,
        }
        let possible = self.ambient & self.sets.permitted & self.sets.inheritable;
        for capability in (0..64).filter(|number| possible >> number & 1 == 1) {
            credentials::raise_ambient(capability).at_index(Step::Capabilities, usize::from(capability))?;
        }
        Ok(())
    }
}

/// The bit of a capability by its name without `CAP_`.
fn bit(name: &str) -> u64 {
    format!("CAP_{name}").parse::<caps::Capability>().map_or(0, |capability| capability.bitmask())
}

#[cfg(test)]
mod tests {
    use super::{CapabilityPlan, bit};
    use oci_spec::runtime::{Capability, LinuxCapabilities};

    #[test]
    fn what_cannot_be_granted_is_named_and_left_out() {
        let asked: LinuxCapabilities =
            serde_json::from_str(r#"{"bounding":["CAP_KILL","CAP_SYS_RESOURCE"],"permitted":["CAP_KILL"]}"#)
                .expect("json");
        let mut warnings = Vec::new();
        let plan = CapabilityPlan::new(Some(&asked), bit("KILL"), &mut warnings);
        assert_eq!((plan.bounding, plan.sets.permitted, plan.ambient), (bit("KILL"), bit("KILL"), 0));
        assert_eq!(warnings, ["capability CAP_SYS_RESOURCE cannot be granted and is left out"]);
    }

    #[test]
    fn the_two_libraries_agree_on_names() {
        for capability in [Capability::Chown, Capability::Bpf, Capability::CheckpointRestore, Capability::MacAdmin] {
            assert_ne!(bit(&capability.to_string()), 0, "{capability} has no number");
        }
    }
}
