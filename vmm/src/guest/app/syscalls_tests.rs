use super::*;
use crate::guest::app::rights::Rights;
use crate::guest::app::space::{Placement, Space};
use crate::guest::app::task::PID;
use crate::units::Mib;
use proptest::prelude::*;

/// A program with two pages at `DATA` that it may write and one after them that it may not touch.
struct World {
    memory: Memory,
    task: Task,
}

const DATA: u64 = 0x50_0000;

impl World {
    fn new() -> Self {
        let memory = Memory::map(Mib(4)).unwrap();
        let mut space = Space::new([0x3000..memory.size(), 0..0]).unwrap();
        space.mmap(&memory, 0x2000, Rights::READ_WRITE, Placement::Fixed(DATA)).unwrap();
        space.mmap(&memory, 0x1000, Rights::NONE, Placement::Fixed(DATA + 0x2000)).unwrap();
        space.start_heap(0x60_0000);
        let task = Task::new(space, b"/bin/program".to_vec(), &(0..0x1000));
        Self { memory, task }
    }

    fn reply(&mut self, call: Sysno, args: [u64; 6]) -> Result<Reply, AppError> {
        serve(call as u64, Call { task: &mut self.task, memory: &self.memory, args })
    }

    /// RAX after the call.
    fn call(&mut self, call: Sysno, args: &[u64]) -> i64 {
        let mut six = [0; 6];
        six[..args.len()].copy_from_slice(args);
        match self.reply(call, six) {
            Ok(Reply::Return(value)) => value as i64,
            other => panic!("{call} ended in {other:?}"),
        }
    }

    fn user(&self) -> User<'_> {
        User::new(self.memory.guest(), self.task.space.tables())
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.user().write_value(at, &value).unwrap();
    }

    fn get<T: vm_memory::ByteValued + Default>(&self, at: u64) -> T {
        self.user().read_value(at).unwrap()
    }
}

fn error(errno: Errno) -> i64 {
    -i64::from(errno as i32)
}

#[test]
fn exit_hands_over_the_low_eight_bits() {
    assert!(matches!(World::new().reply(Sysno::exit_group, [0x1_03, 0, 0, 0, 0, 0]), Ok(Reply::Exit(3))));
    assert!(matches!(World::new().reply(Sysno::exit, [255, 0, 0, 0, 0, 0]), Ok(Reply::Exit(255))));
}

#[test]
fn what_is_not_served_is_enosys_counted_and_named() {
    let mut world = World::new();
    assert_eq!(world.call(Sysno::openat, &[]), error(Errno::ENOSYS));
    assert_eq!(world.call(Sysno::getcwd, &[]), error(Errno::ENOSYS));
    assert_eq!(world.call(Sysno::getcwd, &[]), error(Errno::ENOSYS));
    for number in [9999, u64::MAX] {
        let call = Call { task: &mut world.task, memory: &world.memory, args: [0; 6] };
        assert!(matches!(serve(number, call), Ok(Reply::Return(value)) if value as i64 == error(Errno::ENOSYS)));
    }
    assert_eq!(world.task.unserved_line().unwrap(), "getcwd (79) 2 times, openat (257) once, unknown numbers 2 times");
    assert_eq!(World::new().task.unserved_line(), None);
}

#[test]
fn no_descriptor_of_the_host_is_in_reach() {
    let mut world = World::new();
    for fd in [3, 4, 100, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(world.call(Sysno::write, &[fd, DATA, 1]), error(Errno::EBADF));
        assert_eq!(world.call(Sysno::read, &[fd, DATA, 1]), error(Errno::EBADF));
        assert_eq!(world.call(Sysno::fstat, &[fd, DATA]), error(Errno::EBADF));
        assert_eq!(world.call(Sysno::ioctl, &[fd, 0x5401, DATA]), error(Errno::EBADF));
    }
    assert_eq!(world.call(Sysno::ioctl, &[1, 0x5401, DATA]), error(Errno::ENOTTY));
    assert_eq!(world.call(Sysno::close, &[2]), 0);
    assert_eq!(world.call(Sysno::write, &[2, DATA, 0]), error(Errno::EBADF));
    assert_eq!(world.call(Sysno::close, &[2]), error(Errno::EBADF));
}

#[test]
fn bad_pointers_are_efault() {
    let mut world = World::new();
    for pointer in [0, 1, DATA + 0x2000, 1 << 62, u64::MAX] {
        for (call, args) in [
            (Sysno::write, [1, pointer, 1, 0, 0]),
            (Sysno::writev, [1, pointer, 1, 0, 0]),
            (Sysno::uname, [pointer, 0, 0, 0, 0]),
            (Sysno::clock_gettime, [1, pointer, 0, 0, 0]),
            (Sysno::getrandom, [pointer, 8, 0, 0, 0]),
            (Sysno::fstat, [1, pointer, 0, 0, 0]),
            (Sysno::nanosleep, [pointer, 0, 0, 0, 0]),
            (Sysno::poll, [pointer, 1, 0, 0, 0]),
            (Sysno::readlink, [pointer, DATA, 10, 0, 0]),
            (Sysno::rt_sigaction, [1, pointer | 1, 0, 8, 0]),
            (Sysno::prlimit64, [0, 3, 0, pointer | 1, 0]),
        ] {
            assert_eq!(world.call(call, &args), error(Errno::EFAULT), "{call} with {pointer:#x}");
        }
    }
}

#[test]
fn the_only_link_leads_to_the_program() {
    let mut world = World::new();
    world.put(DATA, *b"/proc/self/exe\0\0");
    assert_eq!(world.call(Sysno::readlink, &[DATA, DATA + 64, 100]), 12);
    assert_eq!(&world.get::<[u8; 12]>(DATA + 64), b"/bin/program");
    assert_eq!(world.call(Sysno::readlinkat, &[u64::MAX, DATA, DATA + 64, 4]), 4);
    assert_eq!(world.call(Sysno::readlink, &[DATA, DATA + 64, 0]), error(Errno::EINVAL));
    world.put(DATA, *b"/etc/passwd\0");
    assert_eq!(world.call(Sysno::readlink, &[DATA, DATA + 64, 100]), error(Errno::ENOENT));
}

#[test]
fn time_is_returned_and_stored() {
    let mut world = World::new();
    let now = world.call(Sysno::time, &[DATA]);
    assert!(now > 1_700_000_000);
    assert_eq!(world.get::<i64>(DATA), now);
    assert_eq!(world.call(Sysno::clock_gettime, &[0, DATA]), 0);
    assert!((world.get::<i64>(DATA) - now).abs() <= 1);
    for bad in [8, 12, 100, u64::MAX] {
        assert_eq!(world.call(Sysno::clock_gettime, &[bad, DATA]), error(Errno::EINVAL));
    }
}

#[test]
fn a_sleep_lasts_and_a_wrong_time_is_einval() {
    let mut world = World::new();
    world.put(DATA, [0_i64, 20_000_000]);
    let start = std::time::Instant::now();
    assert_eq!(world.call(Sysno::nanosleep, &[DATA]), 0);
    assert!(start.elapsed() >= std::time::Duration::from_millis(20));
    // An absolute time that is past.
    assert_eq!(world.call(Sysno::clock_nanosleep, &[1, 1, DATA]), 0);
    assert_eq!(world.call(Sysno::clock_nanosleep, &[2, 0, DATA]), error(Errno::EINVAL));
    for bad in [[-1_i64, 0], [0, -1], [0, 1_000_000_000]] {
        world.put(DATA, bad);
        assert_eq!(world.call(Sysno::nanosleep, &[DATA]), error(Errno::EINVAL));
    }
}

#[test]
fn poll_answers_for_three_files_and_no_others() {
    let mut world = World::new();
    // stdout for writing, descriptor 7, descriptor -1.
    let entries = [1_u32, 4, 7, 1, u32::MAX, 1];
    world.put(DATA, entries);
    assert!(world.call(Sysno::poll, &[DATA, 3, 0]) >= 1);
    let [_, _, _, seen, _, ignored] = world.get::<[u32; 6]>(DATA);
    assert_eq!((seen >> 16, ignored >> 16), (libc::POLLNVAL as u32, 0));
    assert_eq!(world.call(Sysno::poll, &[0, 0, 5]), 0, "nothing to watch is a sleep");
    assert_eq!(world.call(Sysno::poll, &[DATA, 5000, 0]), error(Errno::EINVAL));
}

#[test]
fn a_futex_never_hangs() {
    let mut world = World::new();
    world.put(DATA, 5_u32);
    assert_eq!(world.call(Sysno::futex, &[DATA, 0, 4, 0]), error(Errno::EAGAIN));
    assert_eq!(world.call(Sysno::futex, &[DATA, 129, 1]), 0);
    world.put(DATA + 16, [0_i64, 1_000_000]);
    assert_eq!(world.call(Sysno::futex, &[DATA, 128, 5, DATA + 16]), error(Errno::ETIMEDOUT));
    assert_eq!(world.call(Sysno::futex, &[DATA + 1, 0, 5, 0]), error(Errno::EINVAL));
    let hung = world.reply(Sysno::futex, [DATA, 0, 5, 0, 0, 0]);
    assert!(matches!(hung, Err(AppError::Deadlock { address: DATA, word: 5 })));
}

#[test]
fn signals_are_kept_and_the_default_action_is_taken() {
    let mut world = World::new();
    world.put(DATA, [0x40_1234_u64, 1, 2, 3]);
    assert_eq!(world.call(Sysno::rt_sigaction, &[10, DATA, 0, 8]), 0);
    assert_eq!(world.call(Sysno::rt_sigaction, &[10, 0, DATA + 64, 8]), 0);
    assert_eq!(world.get::<[u64; 4]>(DATA + 64), [0x40_1234, 1, 2, 3]);
    for (number, size) in [(9, 8), (19, 8), (0, 8), (65, 8), (10, 4)] {
        assert_eq!(world.call(Sysno::rt_sigaction, &[number, DATA, 0, size]), error(Errno::EINVAL));
    }
    // A handler cannot be called: the signal is refused, not lost.
    assert_eq!(world.call(Sysno::kill, &[PID, 10]), error(Errno::ENOSYS));
    assert_eq!(world.call(Sysno::kill, &[PID, 17]), 0);
    assert_eq!(world.call(Sysno::kill, &[77, 15]), error(Errno::ESRCH));
    let died = world.reply(Sysno::tgkill, [PID, PID, 6, 0, 0, 0]).unwrap_err();
    assert_eq!((died.status(), died.to_string().as_str()), (Some(134), "the program ended itself by SIGABRT"));

    world.put(DATA, u64::MAX);
    assert_eq!(world.call(Sysno::rt_sigprocmask, &[2, DATA, 0, 8]), 0);
    assert_eq!(world.call(Sysno::rt_sigprocmask, &[0, 0, DATA, 8]), 0);
    assert_eq!(world.get::<u64>(DATA), !(1 << 8 | 1 << 18), "SIGKILL and SIGSTOP cannot be blocked");
}

#[test]
fn limits_can_be_lowered_and_never_raised() {
    let mut world = World::new();
    assert_eq!(world.call(Sysno::prlimit64, &[0, 3, 0, DATA]), 0);
    assert_eq!(world.get::<[u64; 2]>(DATA), [0x1000; 2]);
    world.put(DATA, [1_u64, 2]);
    assert_eq!(world.call(Sysno::prlimit64, &[PID, 7, DATA, 0]), 0);
    world.put(DATA, [3_u64, 3]);
    assert_eq!(world.call(Sysno::prlimit64, &[0, 7, DATA, 0]), error(Errno::EPERM));
    world.put(DATA, [2_u64, 1]);
    assert_eq!(world.call(Sysno::prlimit64, &[0, 7, DATA, 0]), error(Errno::EINVAL));
    assert_eq!(world.call(Sysno::prlimit64, &[0, 16, 0, DATA]), error(Errno::EINVAL));
    assert_eq!(world.call(Sysno::prlimit64, &[2, 7, 0, DATA]), error(Errno::ESRCH));
    assert_eq!(world.call(Sysno::getrlimit, &[7, DATA]), 0);
    assert_eq!(world.get::<[u64; 2]>(DATA), [1, 2]);
}

#[test]
fn unknown_prctl_and_arch_prctl_are_einval() {
    let mut world = World::new();
    assert_eq!(world.call(Sysno::prctl, &[999]), error(Errno::EINVAL));
    assert_eq!(world.call(Sysno::arch_prctl, &[0x3001, DATA]), error(Errno::EINVAL));
    assert_eq!(world.call(Sysno::arch_prctl, &[0x1002, 1 << 62]), error(Errno::EPERM));
    assert_eq!(world.call(Sysno::arch_prctl, &[0x1002, DATA]), 0);
    assert_eq!(world.task.bases.fs, DATA);
    assert_eq!(world.call(Sysno::arch_prctl, &[0x1003, DATA]), 0);
    assert_eq!(world.get::<u64>(DATA), DATA);
}

#[test]
fn the_name_can_be_changed_and_is_cut() {
    let mut world = World::new();
    assert_eq!(world.call(Sysno::prctl, &[16, DATA]), 0);
    assert_eq!(&world.get::<[u8; 16]>(DATA), b"program\0\0\0\0\0\0\0\0\0");
    world.put(DATA, *b"a name that is far too long\0\0\0\0\0");
    assert_eq!(world.call(Sysno::prctl, &[15, DATA]), 0);
    assert_eq!(world.call(Sysno::prctl, &[16, DATA]), 0);
    assert_eq!(&world.get::<[u8; 16]>(DATA), b"a name that is \0");
}

#[test]
fn a_restartable_sequence_is_registered_once() {
    let mut world = World::new();
    world.put(DATA, [u64::MAX; 4]);
    assert_eq!(world.call(Sysno::rseq, &[DATA, 32, 0, 7]), 0);
    assert_eq!(world.get::<u64>(DATA), 0);
    assert_eq!(world.call(Sysno::rseq, &[DATA, 32, 0, 7]), error(Errno::EBUSY));
    assert_eq!(world.call(Sysno::rseq, &[DATA, 32, 1, 7]), 0);
    assert_eq!(world.call(Sysno::rseq, &[DATA + 8, 32, 0, 7]), error(Errno::EINVAL));
}

#[test]
fn random_bytes_are_random() {
    let mut world = World::new();
    assert_eq!(world.call(Sysno::getrandom, &[DATA, 32, 0]), 32);
    assert_eq!(world.call(Sysno::getrandom, &[DATA + 32, 32, 1]), 32);
    assert_ne!(world.get::<[u8; 32]>(DATA), world.get::<[u8; 32]>(DATA + 32));
    assert_eq!(world.call(Sysno::getrandom, &[DATA, 32, 64]), error(Errno::EINVAL));
}

#[test]
fn mappings_of_files_are_refused() {
    let mut world = World::new();
    assert_eq!(world.call(Sysno::mmap, &[0, 0x1000, 3, 2, 0, 0]), error(Errno::ENODEV));
    assert_eq!(world.call(Sysno::mmap, &[0, 0x1000, 3, 2, 5, 0]), error(Errno::EBADF));
    assert_eq!(world.call(Sysno::mmap, &[0, 0x1000, 0x100, 0x22, 0, 0]), error(Errno::EINVAL));
    assert_eq!(world.call(Sysno::mmap, &[0, 0x1000, 3, 0x20, 0, 0]), error(Errno::EINVAL));
    let at = world.call(Sysno::mmap, &[0, 0x1000, 3, 0x22, u64::MAX, 0]) as u64;
    world.put(at, 7_u8);
    assert_eq!(world.call(Sysno::munmap, &[at, 0x1000]), 0);
    assert_eq!(world.call(Sysno::write, &[1, at, 1]), error(Errno::EFAULT));
}

/// Every call that neither waits nor reaches the test's own standard files.
fn harmless() -> impl Strategy<Value = u64> {
    let waits = [
        Sysno::read,
        Sysno::readv,
        Sysno::write,
        Sysno::writev,
        Sysno::poll,
        Sysno::ppoll,
        Sysno::pause,
        Sysno::nanosleep,
        Sysno::clock_nanosleep,
        Sysno::futex,
    ];
    (0_u64..600).prop_filter("it may wait or print", move |number| !waits.iter().any(|call| *call as u64 == *number))
}

fn argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0_u64..64,
        DATA - 16..DATA + 0x2010,
        (0_u64..8).prop_map(|page| DATA + page * 0x1000),
        Just(u64::MAX)
    ]
}

proptest! {
    /// Whatever a program asks for, the monitor answers: no panic, no error of the machine, and memory stays as large.
    #[test]
    fn no_system_call_hurts_the_monitor(calls in prop::collection::vec((harmless(), prop::array::uniform6(argument())), 1..40)) {
        let mut world = World::new();
        let size = world.task.space.available();
        for (number, args) in calls {
            match serve(number, Call { task: &mut world.task, memory: &world.memory, args }) {
                Ok(_) | Err(AppError::Signal(_)) => {}
                Err(other) => prop_assert!(false, "{number} {args:x?}: {other}"),
            }
            prop_assert!(world.task.space.available() <= size + 0x2000);
        }
    }
}
