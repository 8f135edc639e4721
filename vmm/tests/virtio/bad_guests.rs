//! Guests that do anything, by chance and by what fuzzers have found.

use std::path::Path;

use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::chaos;
use crate::needs::{Done, sure, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        sure("a_driver_that_does_anything_harms_nobody", anything),
        sure("an_image_with_anything_in_it_harms_nobody", any_image),
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

fn corpus() -> Done {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, run) in [("virtio", chaos::drive as fn(&[u8])), ("qcow2", chaos::image)] {
        let mut count = 0;
        for file in std::fs::read_dir(folder.join(name))? {
            run(&std::fs::read(file?.path())?);
            count += 1;
        }
        assert!(count > 0, "there is no corpus of {name}");
    }
    Ok(())
}
