use super::*;
use crate::guest::app::user::User;
use crate::units::Mib;
use proptest::prelude::*;

fn world() -> (Memory, Space) {
    let memory = Memory::map(Mib(4)).unwrap();
    let space = Space::new([0x3000..memory.size(), 0..0]).unwrap();
    (memory, space)
}

fn errno<T: std::fmt::Debug>(result: Result<T, SpaceError>) -> Errno {
    match result {
        Err(SpaceError::Refused(errno)) => errno,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

fn store(memory: &Memory, space: &Space, address: u64, value: u8) -> Result<(), Errno> {
    User::new(memory.guest(), space.tables()).write(address, &[value])
}

fn load(memory: &Memory, space: &Space, address: u64) -> Result<u8, Errno> {
    User::new(memory.guest(), space.tables()).read_value(address)
}

#[test]
fn what_is_unmapped_comes_back_as_zeroes() {
    let (memory, mut space) = world();
    let before = space.available();
    let at = space.mmap(&memory, 0x3000, Rights::READ_WRITE, Placement::Hint(0)).unwrap();
    let tables = before - space.available() - 0x3000;
    store(&memory, &space, at + 0x1fff, 7).unwrap();
    space.munmap(&memory, at + 0x1000, 0x1000).unwrap();
    assert_eq!(load(&memory, &space, at + 0x1fff), Err(Errno::EFAULT));
    assert_eq!(space.mmap(&memory, 0x1000, Rights::READ_WRITE, Placement::Hint(0)).unwrap(), at + 0x1000);
    assert_eq!(load(&memory, &space, at + 0x1fff), Ok(0));
    space.munmap(&memory, at, 0x3000).unwrap();
    assert_eq!(space.available(), before - tables, "every frame but those of tables is free again");
}

#[test]
fn protection_is_per_page_and_keeps_the_contents() {
    let (memory, mut space) = world();
    let at = space.mmap(&memory, 0x3000, Rights::READ_WRITE, Placement::Hint(0)).unwrap();
    store(&memory, &space, at + 0x1000, 7).unwrap();
    space.mprotect(&memory, at + 0x1000, 1, Rights::READ).unwrap();
    assert_eq!(store(&memory, &space, at + 0x1000, 8), Err(Errno::EFAULT));
    assert_eq!(load(&memory, &space, at + 0x1000), Ok(7));
    space.mprotect(&memory, at + 0x1000, 0x1000, Rights::NONE).unwrap();
    assert_eq!(load(&memory, &space, at + 0x1000), Err(Errno::EFAULT));
    assert_eq!(store(&memory, &space, at, 1), Ok(()));
    assert_eq!(store(&memory, &space, at + 0x2000, 1), Ok(()));
    space.mprotect(&memory, at + 0x1000, 0x1000, Rights::READ_WRITE).unwrap();
    assert_eq!(load(&memory, &space, at + 0x1000), Ok(7));
}

#[test]
fn a_reservation_takes_no_memory_until_it_is_used() {
    let (memory, mut space) = world();
    let before = space.available();
    let at = space.mmap(&memory, 1 << 40, Rights::NONE, Placement::Hint(0)).unwrap();
    assert_eq!(space.available(), before);
    space.mprotect(&memory, at + (1 << 30), 0x2000, Rights::READ_WRITE).unwrap();
    store(&memory, &space, at + (1 << 30) + 0x1fff, 1).unwrap();
    assert_eq!(store(&memory, &space, at + (1 << 30) + 0x2000, 1), Err(Errno::EFAULT));
    space.munmap(&memory, at, 1 << 40).unwrap();
    assert_eq!(load(&memory, &space, at + (1 << 30)), Err(Errno::EFAULT));
}

#[test]
fn too_much_is_enomem_and_changes_nothing() {
    let (memory, mut space) = world();
    let before = space.available();
    assert_eq!(errno(space.mmap(&memory, 5 << 20, Rights::READ_WRITE, Placement::Hint(0))), Errno::ENOMEM);
    assert_eq!(errno(space.mmap(&memory, u64::MAX, Rights::READ_WRITE, Placement::Hint(0))), Errno::ENOMEM);
    assert_eq!(errno(space.mmap(&memory, 1 << 47, Rights::NONE, Placement::Hint(0))), Errno::ENOMEM);
    assert_eq!(space.available(), before);
    let at = space.mmap(&memory, 1 << 30, Rights::NONE, Placement::Hint(0)).unwrap();
    assert_eq!(errno(space.mprotect(&memory, at, 1 << 30, Rights::READ)), Errno::ENOMEM);
    assert_eq!(space.available(), before);
}

#[test]
fn wrong_arguments_get_the_errors_of_linux() {
    let (memory, mut space) = world();
    let rights = Rights::READ_WRITE;
    assert_eq!(errno(space.mmap(&memory, 0, rights, Placement::Hint(0))), Errno::EINVAL);
    assert_eq!(errno(space.mmap(&memory, 1, rights, Placement::Fixed(0x20_0001))), Errno::EINVAL);
    assert_eq!(errno(space.mmap(&memory, 1, rights, Placement::Fixed(0x2000))), Errno::EPERM);
    assert_eq!(errno(space.mmap(&memory, 1, rights, Placement::Fixed(USER_END))), Errno::ENOMEM);
    assert_eq!(space.mmap(&memory, 1, rights, Placement::Fixed(0x20_0000)).unwrap(), 0x20_0000);
    assert_eq!(errno(space.mmap(&memory, 1, rights, Placement::FixedNoReplace(0x20_0000))), Errno::EEXIST);
    assert_eq!(space.mmap(&memory, 1, rights, Placement::FixedNoReplace(0x20_1000)).unwrap(), 0x20_1000);
    assert_ne!(space.mmap(&memory, 1, rights, Placement::Hint(0x20_0000)).unwrap(), 0x20_0000);
    for (address, length) in [(0x20_0001, 1), (0x20_0000, 0), (0x2000, 0x1000), (USER_END, 1), (0x20_0000, u64::MAX)] {
        assert_eq!(errno(space.munmap(&memory, address, length)), Errno::EINVAL, "{address:#x} {length:#x}");
    }
    assert_eq!(errno(space.mprotect(&memory, 0x20_0001, 1, rights)), Errno::EINVAL);
    assert_eq!(errno(space.mprotect(&memory, 0x20_0000, 0x3000, rights)), Errno::ENOMEM);
    assert_eq!(errno(space.mprotect(&memory, 0x2000, 0x1000, rights)), Errno::ENOMEM);
    space.mprotect(&memory, 0x7000_0000, 0, rights).unwrap();
}

#[test]
fn the_heap_grows_shrinks_and_is_zero_again() {
    let (memory, mut space) = world();
    space.start_heap(0x40_0000);
    assert_eq!(space.brk(&memory, 0).unwrap(), 0x40_0000);
    assert_eq!(space.brk(&memory, 0x40_0010).unwrap(), 0x40_0010);
    store(&memory, &space, 0x40_0fff, 5).unwrap();
    assert_eq!(space.brk(&memory, 0x40_2010).unwrap(), 0x40_2010);
    store(&memory, &space, 0x40_2fff, 6).unwrap();
    assert_eq!(space.brk(&memory, 0x40_0020).unwrap(), 0x40_0020);
    assert_eq!(store(&memory, &space, 0x40_1000, 1), Err(Errno::EFAULT));
    assert_eq!(space.brk(&memory, 0x40_3000).unwrap(), 0x40_3000);
    assert_eq!((load(&memory, &space, 0x40_0fff), load(&memory, &space, 0x40_2fff)), (Ok(5), Ok(0)));
    for refused in [u64::MAX, 1 << 40, 0x3f_ffff] {
        assert_eq!(space.brk(&memory, refused).unwrap(), 0x40_3000);
    }
    space.mmap(&memory, 1, Rights::READ, Placement::Fixed(0x40_4000)).unwrap();
    assert_eq!(space.brk(&memory, 0x40_5000).unwrap(), 0x40_3000, "the heap never grows over a mapping");
}

#[test]
fn nothing_is_ever_put_right_below_the_stack() {
    let (memory, mut space) = world();
    let stack = space.make_stack(&memory, false).unwrap();
    assert_eq!(stack, 0x2ff8_0000..0x3000_0000);
    store(&memory, &space, stack.start, 1).unwrap();
    assert_eq!(store(&memory, &space, stack.start - 1, 1), Err(Errno::EFAULT));
    assert_ne!(space.mmap(&memory, 1, Rights::READ, Placement::Hint(stack.start - PAGE)).unwrap(), stack.start - PAGE);
}

#[test]
fn a_program_in_the_stacks_place_moves_the_stack() {
    let (memory, mut space) = world();
    space.give_run(&memory, &(0x2fff_0000..0x2fff_2000), Rights::READ).unwrap();
    assert!(space.make_stack(&memory, false).unwrap().start >= 0x3000_0000);
}

/// What the random steps below do, on 16 pages from a megabyte on.
#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64, Rights),
    Unmap(u64, u64),
    Protect(u64, u64, Rights),
    Store(u64, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let rights = prop::sample::select(vec![Rights::NONE, Rights::READ, Rights::READ_WRITE]);
    prop_oneof![
        (0_u64..16, 1_u64..6, rights.clone()).prop_map(|(page, count, rights)| Step::Map(page, count, rights)),
        (0_u64..16, 1_u64..6).prop_map(|(page, count)| Step::Unmap(page, count)),
        (0_u64..16, 1_u64..6, rights).prop_map(|(page, count, rights)| Step::Protect(page, count, rights)),
        (0_u64..16, 1_u8..).prop_map(|(page, value)| Step::Store(page, value)),
    ]
}

proptest! {
    /// Against an array of pages, each with rights and one byte of contents.
    #[test]
    fn memory_is_an_array_of_pages(steps in prop::collection::vec(step(), 0..60)) {
        let (memory, mut space) = world();
        let start = space.available();
        let mut model: Vec<Option<(Rights, u8)>> = vec![None; 32];
        let address = |page: u64| 0x10_0000 + page * PAGE;
        for step in steps {
            match step {
                Step::Map(page, count, rights) => {
                    space.mmap(&memory, count * PAGE, rights, Placement::Fixed(address(page))).unwrap();
                    model[page as usize..(page + count) as usize].fill(Some((rights, 0)));
                }
                Step::Unmap(page, count) => {
                    space.munmap(&memory, address(page), count * PAGE).unwrap();
                    model[page as usize..(page + count) as usize].fill(None);
                }
                Step::Protect(page, count, rights) => {
                    let pages = &mut model[page as usize..(page + count) as usize];
                    let all = pages.iter().all(Option::is_some);
                    let done = space.mprotect(&memory, address(page), count * PAGE, rights);
                    prop_assert_eq!(done.is_ok(), all);
                    if all {
                        pages.iter_mut().flatten().for_each(|page| page.0 = rights);
                    }
                }
                Step::Store(page, value) => {
                    let allowed = model[page as usize].is_some_and(|(rights, _)| rights.write);
                    prop_assert_eq!(store(&memory, &space, address(page), value).is_ok(), allowed);
                    if let Some(page) = model[page as usize].as_mut().filter(|_| allowed) {
                        page.1 = value;
                    }
                }
            }
            for (page, expected) in model.iter().enumerate() {
                let readable = expected.filter(|(rights, _)| rights.read).map(|(_, value)| value);
                prop_assert_eq!(load(&memory, &space, address(page as u64)).ok(), readable, "page {}", page);
            }
        }
        space.munmap(&memory, address(0), 32 * PAGE).unwrap();
        prop_assert!(start - space.available() <= 3 * PAGE, "only tables stay");
    }
}
