//! Bytes that make no sense: what fuzzers have found, and some by chance.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use super::needs::trial;
use super::{Done, chaos};

type Taker = fn(&[u8]);

/// Each kind of input that needs nothing beside it: its corpus, and what takes it.
const KINDS: [(&str, Taker); 5] = [
    ("layer", chaos::layer),
    ("manifest", chaos::manifest),
    ("reference", chaos::reference),
    ("dockerfile", chaos::dockerfile),
    ("config", chaos::config),
];

pub(crate) fn trials() -> Vec<Trial> {
    let each = KINDS.into_iter().map(|(name, run)| found(name, move || corpus(name, run)));
    let requests = found("request", || {
        let served = chaos::Served::start();
        corpus("request", |bytes| served.request(bytes))
    });
    each.chain([requests]).collect()
}

fn found(name: &str, run: impl FnOnce() -> Done + Send + 'static) -> Trial {
    trial(&format!("what_fuzzers_have_found_harms_nobody::{name}"), &[], run)
}

fn corpus(name: &str, run: impl Fn(&[u8])) -> Done {
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
