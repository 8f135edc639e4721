//! How much a profile allows: the sum that a reader wants before the list.

use oci_spec::runtime::LinuxSeccomp;

use super::condition::{Rule, decide};
use super::table::Architecture;
use super::tree::Decision;
use super::{SeccompError, action, rules};

/// The calls of x86-64, by what a profile makes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Census {
    /// Always allowed (or allowed and logged).
    pub allowed: usize,
    /// Allowed or not as their arguments say.
    pub by_arguments: usize,
    /// Never allowed.
    pub refused: usize,
}

/// Counts the calls of this machine's own architecture.
pub fn census(profile: &LinuxSeccomp) -> Result<Census, SeccompError> {
    let listener = profile.listener_path().is_some();
    let default = action::action(profile.default_action(), profile.default_errno_ret(), listener)?;
    let rules = rules(profile, listener)?;
    let calls: Vec<(u32, &[Rule<'_>])> = Architecture::X86_64.numbered(&rules);
    let passes = |value: u32| matches!(value, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG);
    let mut census = Census { allowed: 0, by_arguments: 0, refused: 0 };
    let others = Architecture::X86_64.count() - calls.len();
    *(if passes(default) { &mut census.allowed } else { &mut census.refused }) += others;
    for (_, rules) in calls {
        match decide(rules, default) {
            Decision::Always(value) if passes(value) => census.allowed += 1,
            Decision::Always(_) => census.refused += 1,
            Decision::Asking(_) => census.by_arguments += 1,
        }
    }
    Ok(census)
}

#[cfg(test)]
mod tests {
    use super::{Census, census};
    use crate::container::seccomp::default_profile;

    fn count(profile: &str) -> Census {
        census(&serde_json::from_str(profile).expect("a profile")).expect("it can be compiled")
    }

    #[test]
    fn every_call_is_counted_once() {
        let open = count(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#);
        let some = count(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {"names":["read","write","no_such_call"],"action":"SCMP_ACT_ALLOW"},
                {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
                {"names":["mount"],"action":"SCMP_ACT_KILL"}]}"#,
        );
        assert_eq!((open.by_arguments, open.refused), (0, 0));
        assert_eq!(some, Census { allowed: 2, by_arguments: 1, refused: open.allowed - 3 });
    }

    #[test]
    fn the_default_profile_refuses_some_and_allows_most() {
        let default = census(&default_profile()).expect("it can be compiled");
        assert!(default.allowed > 250 && default.refused > 30 && default.by_arguments >= 3, "{default:?}");
    }
}
