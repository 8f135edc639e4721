use super::*;
use crate::guest::app::frames::Frames;
use crate::guest::app::rights::Rights;
use crate::guest::app::tables::Leaf;
use proptest::prelude::*;
use vm_memory::Bytes;

const DATA: u64 = 0x40_0000;

/// Four pages at `DATA`: two writable ones whose frames lie apart, a read-only one, a supervisor one; then nothing.
fn world() -> (GuestMemoryMmap, Tables) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let mut frames = Frames::new(0x1_0000..1 << 20);
    let tables = Tables::new(&mut frames).unwrap();
    let leaves = [
        Leaf::user(0x9000, Rights::READ_WRITE),
        Leaf::user(0x5000, Rights::READ_WRITE),
        Leaf::user(0x6000, Rights::READ),
        Leaf::supervisor(0x7000),
    ];
    tables.map(&memory, &mut frames, DATA, &leaves).unwrap();
    // A page whose frame lies outside of memory, as the doorbell's does.
    tables.map(&memory, &mut frames, DATA + 0x10_0000, &[Leaf::user(1 << 32, Rights::READ_WRITE)]).unwrap();
    (memory, tables)
}

#[test]
fn a_copy_crosses_pages_that_lie_apart() {
    let (memory, tables) = world();
    let user = User::new(&memory, &tables);
    user.write(DATA + 0xffe, b"abcd").unwrap();
    let mut back = [0; 4];
    user.read(DATA + 0xffe, &mut back).unwrap();
    assert_eq!(&back, b"abcd");
    assert_eq!(user.accessible(DATA, 0x3000, Access::Read).unwrap().len(), 2, "side by side is one slice");
}

#[test]
fn every_bad_pointer_is_efault() {
    let (memory, tables) = world();
    let user = User::new(&memory, &tables);
    for address in [0, 8, DATA - 1, DATA + 0x3000, DATA + 0x4000, DATA + 0x10_0000, USER_END, 1 << 63, u64::MAX] {
        assert_eq!(user.write(address, &[1, 2]), Err(Errno::EFAULT), "{address:#x}");
        assert_eq!(user.read_value::<u16>(address), Err(Errno::EFAULT), "{address:#x}");
    }
    assert_eq!(user.write(DATA + 0x2000, &[1]), Err(Errno::EFAULT));
    assert!(user.read_value::<u8>(DATA + 0x2000).is_ok());
    assert_eq!(user.write(DATA + 0x1fff, &[1, 2]), Err(Errno::EFAULT));
    assert_eq!(user.read_value::<u8>(DATA + 0x1fff), Ok(0), "a refused copy has changed nothing");
}

#[test]
fn an_io_stops_before_the_first_bad_page() {
    let (memory, tables) = world();
    let user = User::new(&memory, &tables);
    let length = |access| user.accessible(DATA + 0x1800, 0x4000, access).unwrap().iter().map(Slice::len).sum::<usize>();
    assert_eq!((length(Access::Write), length(Access::Read)), (0x800, 0x1800));
    assert!(user.accessible(0, 0, Access::Read).unwrap().is_empty());
}

#[test]
fn a_string_may_end_at_the_end_of_memory_but_not_after_it() {
    let (memory, tables) = world();
    let user = User::new(&memory, &tables);
    memory.write_slice(b"end\0", GuestAddress(0x6ffc)).unwrap();
    assert_eq!(user.read_string(DATA + 0x2ffc, 4096).unwrap(), b"end");
    memory.write_slice(b"end!", GuestAddress(0x6ffc)).unwrap();
    assert_eq!(user.read_string(DATA + 0x2ffc, 4096), Err(Errno::EFAULT));
    memory.write_slice(&[b'x'; 0x1000], GuestAddress(0x9000)).unwrap();
    assert_eq!(user.read_string(DATA, 64), Err(Errno::ENAMETOOLONG));
}

proptest! {
    /// No pointer leads to a panic, and what is written is what is read.
    #[test]
    fn any_pointer_is_answered(address in prop_oneof![any::<u64>(), DATA - 10..DATA + 0x4010], bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        let (memory, tables) = world();
        let user = User::new(&memory, &tables);
        let mut back = vec![0; bytes.len()];
        if user.write(address, &bytes).is_ok() {
            user.read(address, &mut back).unwrap();
            prop_assert_eq!(back, bytes);
        } else {
            let _ = user.read(address, &mut back);
        }
        let _ = user.read_string(address, 100);
        let _ = user.accessible(address, u64::from(u32::MAX), Access::Read);
    }
}
