//! Names for containers that were given none: two words that a person can say.

use super::error::EngineError;
use super::shelf::random_id;

const FIRST: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clear", "crisp", "deft", "eager", "early", "fair", "fleet", "fond", "frank",
    "glad", "grand", "keen", "kind", "light", "lucid", "merry", "mild", "neat", "noble", "plain", "proud", "quick",
    "quiet", "sharp", "sober", "solid", "swift", "warm",
];
const SECOND: [&str; 32] = [
    "alder", "badger", "beech", "brook", "cedar", "comet", "crane", "delta", "ember", "falcon", "fern", "fjord",
    "glacier", "harbor", "heron", "island", "juniper", "lagoon", "lark", "maple", "meadow", "otter", "pebble", "pine",
    "quarry", "raven", "ridge", "sparrow", "summit", "thistle", "tundra", "willow",
];

/// A name that nobody else is likely to have; `digits` adds some where a shorter one was taken.
pub(super) fn invent(digits: bool) -> Result<String, EngineError> {
    let random = random_id()?;
    let number = |at: usize| random.get(at..at + 2).and_then(|text| usize::from_str_radix(text, 16).ok()).unwrap_or(0);
    let word = |list: &[&'static str; 32], at| list.get(number(at) % 32).copied().unwrap_or_default();
    let name = format!("{}_{}", word(&FIRST, 0), word(&SECOND, 2));
    Ok(if digits { format!("{name}_{}", random.get(8..14).unwrap_or_default()) } else { name })
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_invented_name_is_a_name() {
        for digits in [false, true] {
            let name = super::invent(digits).expect("there is chance");
            assert!(crate::engine::shelf::check_name(&name).is_ok(), "{name}");
        }
    }
}
