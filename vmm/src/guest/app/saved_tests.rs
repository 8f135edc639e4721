use super::*;
use crate::units::Mib;

fn state() -> AppState {
    AppState {
        executable: hex(b"/bin/true"),
        name: hex(&[0; 16]),
        open: [true, false, true],
        limits: [[7, 9]; LIMITS],
        actions: BTreeMap::from([(13, [1, 0, 0, 0]), (64, [0x40_1000, 4, 0x40_2000, 1])]),
        mask: 6,
        alternate_stack: [0, 2, 0],
        fs: 0x40_3000,
        gs: 0,
        rseq: Some(0x40_3020),
        unserved: BTreeMap::from([(105, 2)]),
        ready: true,
        remaining: Some(5_000),
        clocks: serde_json::from_str(r#"{"day":1,"monotonic":2,"boot":3,"process":4,"thread":5}"#).unwrap(),
        random: 0x2fff_ff00,
        space: SpaceState {
            areas: vec![(0x40_0000, 0x40_2000, "r-x".to_owned()), (0x40_2000, 0x40_3000, "rw-".to_owned())],
            free: vec![(0x10_0000, 0x20_0000)],
            root: 0x3000,
            heap: (0x40_3000, 0x40_3000),
        },
    }
}

const MEMORY: u64 = 2 << 20;

#[test]
fn a_program_comes_back_as_it_was_saved() {
    let memory = Memory::map(Mib(2)).unwrap();
    let before = state();
    before.check(MEMORY).unwrap();
    let text = serde_json::to_string(&before).unwrap();
    let read: AppState = serde_json::from_str(&text).unwrap();
    let mut after = Running::restore(&read, &memory).unwrap().save().unwrap();
    assert!(after.clocks.are_possible());
    after.clocks = before.clocks;
    assert_eq!(after, before);
}

#[test]
fn what_no_program_can_be_is_refused_by_its_field() {
    type Spoil = fn(&mut AppState);
    let spoilt: [(&str, Spoil); 14] = [
        ("guest.executable", |state| state.executable = "2f0".to_owned()),
        ("guest.name", |state| state.name = "00".to_owned()),
        ("guest.actions", |state| state.actions.extend([(0, [0; 4])])),
        ("guest.actions", |state| state.actions.extend([(65, [0; 4])])),
        ("guest.fs", |state| state.fs = 1 << 63),
        ("guest.clocks", |state| {
            state.clocks = serde_json::from_str(r#"{"day":-1,"monotonic":2,"boot":3,"process":4,"thread":5}"#).unwrap();
        }),
        ("guest.random", |state| state.random = u64::MAX),
        ("guest.space.areas", |state| state.space.areas[0].2 = "rwxs".to_owned()),
        ("guest.space.areas", |state| state.space.areas[1].0 = 0x40_1000),
        ("guest.space.areas", |state| state.space.areas[0].0 = 0),
        ("guest.space.free", |state| state.space.free[0].1 = MEMORY + PAGE),
        ("guest.space.free", |state| state.space.free.push((0x18_0000, 0x19_0000))),
        ("guest.space.root", |state| state.space.root = u64::MAX - 4095),
        ("guest.space.heap", |state| state.space.heap = (1, 0)),
    ];
    for (field, spoil) in spoilt {
        let mut state = state();
        spoil(&mut state);
        assert_eq!(state.check(MEMORY).unwrap_err().field, field);
    }
}
