//! Mirrors: other registries that have the same images, nearer by.

use std::str::FromStr;

use crate::voice::Failure;

/// Whose images a mirror has where that is not said: those that most names mean.
const DOCKERS: &str = "docker.io";
/// The mirrors that every verb which fetches looks at.
const VARIABLE: &str = "ISOLAB_REGISTRY_MIRROR";

/// A mirror, and the registry whose images it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(super) registry: String,
    pub(super) host: String,
}

impl FromStr for Mirror {
    type Err = Failure;

    /// `[REGISTRY=]HOST[:PORT]`; an address is taken too, as docker's daemon.json has them.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let (registry, host) = text.split_once('=').unwrap_or((DOCKERS, text));
        let host = ["https://", "http://"].iter().find_map(|scheme| host.strip_prefix(scheme)).unwrap_or(host);
        let host = host.trim_end_matches('/');
        if registry.is_empty() || host.is_empty() || host.contains(['/', ' ']) {
            return Err(Failure::Mirror { text: text.to_owned() });
        }
        Ok(Self { registry: registry.to_owned(), host: host.to_owned() })
    }
}

/// The mirrors that the environment names.
pub(super) fn of_environment() -> Result<Vec<Mirror>, Failure> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::Mirror;

    #[test]
    fn a_mirror_is_of_dockers_registry_unless_another_is_named() {
        let mirror = |registry: &str, host: &str| Mirror { registry: registry.to_owned(), host: host.to_owned() };
        assert_eq!("near:5000".parse::<Mirror>().unwrap(), mirror("docker.io", "near:5000"));
        assert_eq!("https://near/".parse::<Mirror>().unwrap(), mirror("docker.io", "near"));
        assert_eq!("quay.io=near".parse::<Mirror>().unwrap(), mirror("quay.io", "near"));
        for text in ["", "=near", "quay.io=", "near/path", "https://"] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }
}
