//! Bytes that make no sense: what fuzzers have found, and some by chance.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use super::needs::trial;
use super::{Done, chaos};

type Taker = fn(&[u8]);

/// Each kind of input: its corpus, and what takes it.
const KINDS: [(&str, Taker); 5] = [
    ("layer", chaos::layer),
    ("manifest", chaos::manifest),
    ("reference", chaos::reference),
    ("dockerfile", chaos::dockerfile),
    ("request", chaos::request),
];

pub(crate) fn trials() -> Vec<Trial> {
    let each = KINDS.into_iter().map(|(name, run)| {
        trial(&format!("what_fuzzers_have_found_harms_nobody::{name}"), &[], move || corpus(name, run))
    });
    each.collect()
}

fn corpus(name: &str, run: Taker) -> Done {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for file in fs::read_dir(folder)? {
        let bytes = fs::read(file?.path())?;
        run(&bytes);
        // And broken off in the middle.
        run(bytes.get(..bytes.len() / 2).unwrap_or_default());
        count += 1;
    }
    assert!(count > 0, "there is no corpus of {name}");
    Ok(())
}
