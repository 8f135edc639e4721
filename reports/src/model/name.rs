//! Names that many samples share, and samples as they stand in `run.json`.
//!
//! A long run has a million phases and some fifty names for them. So each name is kept once, and a phase points to it. And what one
//! sample holds is read in one pass: the way in which serde takes a tagged enum apart would first make a copy of every phase.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Outcome, Phase, Sample, Timing};

/// A name; all that were read and are alike share one text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// So many names are remembered while runs are read: a file that names every phase otherwise gains nothing by more.
const REMEMBERED: usize = 1024;

thread_local! {
    static KNOWN: RefCell<HashSet<Arc<str>>> = RefCell::new(HashSet::new());
}

impl Name {
    /// The name of this text, shared with those that this thread read before.
    fn shared(text: &str) -> Self {
        KNOWN.with_borrow_mut(|known| {
            if let Some(name) = known.get(text) {
                return Self(name.clone());
            }
            let name: Arc<str> = text.into();
            if known.len() < REMEMBERED {
                known.insert(name.clone());
            }
            Self(name)
        })
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, out)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a name")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                Ok(Name::shared(text))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// A sample as it stands in the file: what it has beside place and outcome depends on the outcome.
#[derive(Deserialize)]
pub(super) struct Flat {
    cell: usize,
    round: u32,
    instance: u32,
    outcome: Came,
    reason: Option<String>,
    ready_ns: Option<u64>,
    teardown_ns: Option<u64>,
    phases: Option<Vec<Phase>>,
    peak_rss_bytes: Option<u64>,
    user_ns: Option<u64>,
    system_ns: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Came {
    Ready,
    Failed,
}

impl TryFrom<Flat> for Sample {
    type Error = String;

    fn try_from(flat: Flat) -> Result<Self, String> {
        let Flat { cell, round, instance, .. } = flat;
        let missing = |name: &str| format!("missing field `{name}` of a sample");
        let outcome = match flat.outcome {
            Came::Failed => Outcome::Failed { reason: flat.reason.ok_or_else(|| missing("reason"))? },
            Came::Ready => {
                let mut phases = flat.phases.ok_or_else(|| missing("phases"))?;
                phases.shrink_to_fit();
                Outcome::Ready(Timing {
                    ready_ns: flat.ready_ns.ok_or_else(|| missing("ready_ns"))?,
                    teardown_ns: flat.teardown_ns.ok_or_else(|| missing("teardown_ns"))?,
                    phases,
                    peak_rss_bytes: flat.peak_rss_bytes.ok_or_else(|| missing("peak_rss_bytes"))?,
                    user_ns: flat.user_ns.ok_or_else(|| missing("user_ns"))?,
                    system_ns: flat.system_ns.ok_or_else(|| missing("system_ns"))?,
                })
            }
        };
        Ok(Self { cell, round, instance, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = r#"{"cell":1,"round":2,"instance":0,"outcome":"ready","ready_ns":9,"teardown_ns":3,"phases":
        [{"name":"a.b","start_ns":0,"duration_ns":4,"depth":0,"pid":7}],"peak_rss_bytes":1,"user_ns":1,"system_ns":1}"#;

    fn read(text: &str) -> Result<Sample, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_sample_is_read_as_it_is_written() {
        let failed = r#"{"cell":1,"round":2,"instance":3,"outcome":"failed","reason":"it hung"}"#;
        for text in [READY, failed] {
            let sample = read(text).unwrap();
            let written = serde_json::to_value(&sample).unwrap();
            assert_eq!(written, serde_json::from_str::<serde_json::Value>(text).unwrap());
        }
    }

    #[test]
    fn what_a_start_must_have_is_missed_by_name() {
        let error = |text: &str| read(text).expect_err("a field is missing");
        assert!(error(&READY.replace("user_ns", "other_ns")).contains("missing field `user_ns`"));
        assert!(error(&READY.replace("ready\",", "failed\",")).contains("missing field `reason`"));
        assert!(error(&READY.replace("\"ready\",", "\"asleep\",")).contains("unknown variant `asleep`"));
    }

    #[test]
    fn names_that_are_alike_are_kept_once() {
        let names: Vec<Name> = serde_json::from_str(r#"["area.step", "other", "area.step"]"#).unwrap();
        assert!(Arc::ptr_eq(&names[0].0, &names[2].0) && !Arc::ptr_eq(&names[0].0, &names[1].0));
        assert_eq!((&*names[0], format!("{:?}", names[1])), ("area.step", "\"other\"".to_owned()));
    }
}
