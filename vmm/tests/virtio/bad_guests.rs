//! Guests that do anything, by chance and by what fuzzers have found.

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::chaos;
use crate::needs::{Done, trial};
use crate::sure;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        sure("a_driver_that_does_anything_harms_nobody", anything),
        sure("an_image_with_anything_in_it_harms_nobody", any_image),
        trial("a_kernel_with_anything_changed_in_it_harms_nobody", &[], any_kernel),
        trial("what_fuzzers_have_found_harms_nobody_any_more", &[], corpus),
    ]
}

fn by_chance(cases: u32, run: fn(&[u8])) {
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let bytes = prop::collection::vec(any::<u8>(), 1..2000);
    runner
        .run(&bytes, |bytes| {
            run(&bytes);
            Ok(())
        })
        .unwrap();
}

fn anything() {
    by_chance(300, chaos::drive);
}

fn any_image() {
    by_chance(300, chaos::image);
}

/// Files that are nearly kernels: in each some bytes are others, mostly in its headers, or its end is missing.
fn any_kernel() -> Done {
    let mut seeds = Vec::new();
    for file in std::fs::read_dir(folder().join("kernel"))? {
        seeds.push(std::fs::read(file?.path())?);
    }
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1..9_usize), 0..6);
    let cases = (prop::sample::select(seeds), changes, prop::option::weighted(0.2, any::<prop::sample::Index>()));
    let outcome = runner.run(&cases, |(mut bytes, changes, cut)| {
        for (place, value, length) in changes {
            let at = place.index(bytes.len());
            bytes.iter_mut().skip(at).take(length).for_each(|byte| *byte = value);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        chaos::kernel(&bytes);
        Ok(())
    });
    outcome.map_err(|error| error.to_string().into())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn corpus() -> Done {
    for (name, run) in [("virtio", chaos::drive as fn(&[u8])), ("qcow2", chaos::image), ("kernel", chaos::kernel)] {
        let mut count = 0;
        for file in std::fs::read_dir(folder().join(name))? {
            run(&std::fs::read(file?.path())?);
            count += 1;
        }
        assert!(count > 0, "there is no corpus of {name}");
    }
    Ok(())
}
