use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::raw::Raw;
use super::super::state::{Below, VcpuState};
use super::*;
use crate::guest::GuestState;

/// A small state that no machine had, but that one could have had.
fn state() -> State {
    let vcpu = VcpuState {
        tsc_khz: 2_600_000,
        cpuid: vec![Raw::default()],
        seen: vec![Raw::default()],
        mp_state: Raw::default(),
        regs: Raw::default(),
        sregs: Raw::default(),
        xcrs: Raw::default(),
        xsave: Raw([0; 1024]),
        debugregs: Raw::default(),
        lapic: Raw::default(),
        msrs: vec![(0x10, 77)],
        events: Raw::default(),
    };
    State {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        taken: 1,
        memory: 2 << 20,
        vcpus: vec![vcpu],
        clock: Raw::default(),
        devices: BTreeMap::from([("serial".to_owned(), serde_json::json!({ "scratch": 7 }))]),
        guest: serde_json::from_str::<GuestState>(r#"{"bare":{"guest":{"Counter":5}}}"#).unwrap(),
        below: None,
    }
}

#[test]
fn stretches_that_cannot_have_changed_are_refused() {
    let changed = |changed: &[(u64, u64)]| {
        let below = Below { id: String::new(), folder: "../one".into(), changed: changed.to_vec() };
        decode(&encode(&State { below: Some(below), ..state() }).unwrap()).err().map(|error| error.to_string())
    };
    for good in [&[][..], &[(0, 512)], &[(0, 1), (1, 1), (511, 1)]] {
        assert_eq!(changed(good), None, "{good:?}");
    }
    let many: Vec<_> = (0..3000).map(|page| (2 * page, 1)).collect();
    for bad in [&[(0, 513)][..], &[(512, 1)], &[(4, 1), (3, 1)], &[(3, 2), (4, 1)], &[(3, 0)], &[(1, u64::MAX)], &many]
    {
        assert!(changed(bad).is_some_and(|error| error.starts_with("below.changed: ")), "{bad:?}");
    }
}

fn bytes() -> Vec<u8> {
    encode(&state()).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    decode(bytes).unwrap_err().to_string()
}

/// The state with a part of its text replaced, under a checksum that is right.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let text = serde_json::to_string(&state()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    seal(text.replacen(from, to, 1).as_bytes())
}

#[test]
fn a_state_comes_back_as_it_was() {
    let back = decode(&bytes()).unwrap();
    assert_eq!(serde_json::to_value(&back).unwrap(), serde_json::to_value(state()).unwrap());
}

/// What `fuzz/fuzz_targets/state.rs` does, with what it begins from and what it has found.
#[test]
fn what_a_fuzzer_begins_from_means_something_and_what_it_found_hurts_nobody() {
    let mut seeds = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/state")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let decoded = decode(&seal(&bytes));
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"seed-")) {
            decoded.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            seeds += 1;
        }
        let _ = decode(&bytes);
    }
    assert_eq!(seeds, 2);
}

#[test]
fn a_state_cut_short_anywhere_is_refused() {
    let bytes = bytes();
    for length in 0..bytes.len() {
        let why = refusal(&bytes[..length]);
        assert!(why.starts_with("length: "), "{length}: {why}");
    }
    let longer = [bytes.as_slice(), b" "].concat();
    assert!(refusal(&longer).starts_with("length: "));
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let good = bytes();
    for at in (0..HEADER).chain((HEADER..good.len()).step_by(89)) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let why = refusal(&bad);
        let field = match at {
            0..8 => "magic: ",
            8..12 => "version: ",
            12..16 => "length: ",
            _ => "checksum: ",
        };
        assert!(why.starts_with(field), "byte {at}: {why}");
    }
}

#[test]
fn another_version_is_told_with_the_one_that_can_be_read() {
    let mut bytes = bytes();
    bytes[8] = 2;
    assert_eq!(refusal(&bytes), "version: it is 2, and this monitor reads 1");
}

#[test]
fn a_length_of_four_gigabytes_takes_no_memory() {
    let mut bytes = bytes();
    bytes[12..16].fill(0xff);
    assert_eq!(refusal(&bytes), "length: 4294967295 bytes are more than any state has");
}

#[test]
fn what_means_nothing_is_told_with_its_field() {
    for (from, to, told) in [
        (r#""memory":2097152"#, r#""memory":1"#, "memory: a machine can't have 1 bytes"),
        (r#""memory":2097152"#, r#""memory":2097153"#, "memory: "),
        (r#""memory":2097152"#, r#""memory":-1"#, "memory: "),
        (r#""taken":1"#, r#""taken":"now""#, "taken: "),
        (r#""id":"0"#, r#""id":"x"#, "id: "),
        (r#""vcpus":[{"tsc_khz":2600000"#, r#""vcpus":[{"tsc_khz":99999999999"#, "vcpus[0].tsc_khz: "),
        (r#""mp_state":"00"#, r#""mp_state":""#, "vcpus[0].mp_state: it has 3 bytes, not 4"),
        (r#""regs":"0"#, r#""regs":"z"#, "vcpus[0].regs: it is no even number of hexadecimal digits"),
        (r#""msrs":[[16,77]]"#, r#""msrs":[[16]]"#, "vcpus[0].msrs[0]: "),
        (r#""msrs":[[16,77]]"#, r#""msrs":[[16,77]],"more":1"#, "vcpus[0].more: unknown field"),
        (r#""bare""#, r#""kernel""#, "guest"),
    ] {
        let why = refusal(&changed(from, to));
        assert!(why.starts_with(told), "{to}: {why}");
    }
    let none = serde_json::json!({ "vcpus": [] });
    assert!(refusal(&seal(none.to_string().as_bytes())).contains("missing field"));
}

proptest! {
    /// Whatever is changed, and though the checksum be right: an answer, and never a panic.
    #[test]
    fn no_change_hurts_the_decoder(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..12),
    ) {
        let mut body = serde_json::to_vec(&state()).unwrap();
        for (at, byte, kind) in edits {
            let at = at.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => drop(body.remove(at)),
            }
        }
        if let Ok(state) = decode(&seal(&body)) {
            prop_assert!(encode(&state).is_ok());
        }
    }

    /// No bytes at all are taken for a state by accident.
    #[test]
    fn noise_is_no_state(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
    }
}
