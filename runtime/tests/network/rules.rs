//! Our packet rules, as nft(8) reads them back.

use libtest_mimic::{Failed, Trial};

use super::checks::same;
use super::lab::{Lab, run, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("nft_prints_our_rules_as_they_were_meant", printed)]
}

/// As it prints them; renewed by running the trial with `ISOLAB_BLESS=1`.
const EXPECTED: &str = include_str!("rules.nft");

fn printed() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let _one = lab.container("one", &["8080:80", "127.0.0.1:53:53/udp"])?;
    let found = run(&["nft", "list", "ruleset"])?;
    if std::env::var_os("ISOLAB_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/rules.nft"), &found)?;
    }
    same(found.as_str(), EXPECTED)
}
