//! The system calls of a monitor whose machine stands, each with its reason.

use libc::{PR_SET_NAME, PROT_EXEC};

/// A system call, or one use of it.
pub(super) struct Call {
    pub(super) number: i64,
    /// Which monitors make it.
    pub(super) who: Who,
    /// Nothing but this use of it.
    pub(super) only: Option<Only>,
    /// What for.
    #[cfg_attr(not(test), expect(dead_code, reason = "it is for readers, and a test sees that it is there"))]
    pub(super) why: &'static str,
}

/// Which monitors make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Everybody,
    /// One with threads of processors and devices.
    Threads,
    /// One that may be asked to save its machine.
    Saves,
    /// Both of these: disks are files, and so are snapshots, which may bring a machine's pages.
    Files,
    /// One with threads of devices, or of clones.
    Meets,
    /// One that makes processes, of which each has a machine.
    Forks,
    /// One with any threads besides the first: those of processors, devices, clones, or of who asks.
    Spawns,
}

/// An argument, those bits of it that matter, and what they must be. Only the lower 32 bits of an argument are looked at: the
/// kernel looks at no more of these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Only {
    pub(super) argument: u8,
    pub(super) mask: u64,
    pub(super) value: u64,
}

const fn call(number: i64, who: Who, why: &'static str) -> Call {
    Call { number, who, only: None, why }
}

/// One use of a call: an argument that is this value.
const fn only(number: i64, who: Who, argument: u8, value: u64, why: &'static str) -> Call {
    Call { number, who, only: Some(Only { argument, mask: 0xffff_ffff, value }), why }
}

/// Memory that nobody can run.
const fn no_code(number: i64, why: &'static str) -> Call {
    Call { number, who: Everybody, only: Some(Only { argument: 2, mask: PROT_EXEC as u64, value: 0 }), why }
}

use Who::{Everybody, Files, Forks, Meets, Saves, Spawns, Threads};

/// What ioctl(2) is asked for. All of KVM's requests have this type, in bits 8 to 15.
const KVM: Only = Only { argument: 1, mask: 0xff00, value: 0xae00 };
/// All of userfaultfd's have this one.
const USERFAULTFD: Only = Only { argument: 1, mask: 0xff00, value: 0xaa00 };
const TCGETS: u64 = 0x5401;
const TCSETS: u64 = 0x5402;
const TCGETS2: u64 = 0x802c_542a;
const TCSETS2: u64 = 0x402c_542b;
const FIONBIO: u64 = 0x5421;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const FICLONE: u64 = 0x4004_9409;

/// All of them, in groups of one purpose.
#[rustfmt::skip]
pub(super) const TABLE: &[Call] = &[
    // ---- the machine
    Call { number: libc::SYS_ioctl, who: Everybody, only: Some(KVM), why: "KVM_RUN, the processor's registers, interrupts; a machine once more after it has rested" },
    only(libc::SYS_ioctl, Threads, 1, TCGETS, "whether a terminal is typed at, where Ctrl-A speaks to the monitor"),
    only(libc::SYS_ioctl, Threads, 1, TCSETS, "the terminal is as it was once the machine has ended"),
    only(libc::SYS_ioctl, Threads, 1, TCGETS2, "the same, as a C library of 2025 asks"),
    only(libc::SYS_ioctl, Threads, 1, TCSETS2, "the same"),
    Call { number: libc::SYS_ioctl, who: Files, only: Some(USERFAULTFD), why: "a page of a snapshot is brought when it is touched" },
    only(libc::SYS_kill, Files, 1, libc::SIGBUS as u64, "the end, where such a page can't be brought"),
    only(libc::SYS_ioctl, Threads, 1, FIONBIO, "a connection of a vsock does not wait"),
    only(libc::SYS_ioctl, Threads, 1, TUNSETOFFLOAD, "the guest's driver says what its network card may leave to the host"),
    only(libc::SYS_ioctl, Saves, 1, FICLONE, "a snapshot's disk shares its blocks with the machine's, where the file system can"),

    // ---- what guests print and read, and what threads tell each other by eventfds
    call(libc::SYS_read, Everybody, "standard input; eventfds, timers, signals"),
    call(libc::SYS_write, Everybody, "standard output and error; eventfds"),
    call(libc::SYS_readv, Everybody, "into the guest's buffers, several at once"),
    call(libc::SYS_writev, Everybody, "out of the guest's buffers, several at once"),
    call(libc::SYS_poll, Everybody, "wait for one of several files"),
    call(libc::SYS_ppoll, Everybody, "the same, on behalf of a guest"),
    call(libc::SYS_lseek, Everybody, "where a file is that a guest was given as standard input; a disk's end"),
    call(libc::SYS_fstat, Everybody, "what standard input is; a disk's size"),
    call(libc::SYS_newfstatat, Everybody, "the same, as this C library asks"),
    call(libc::SYS_statx, Everybody, "the same, as Rust's library asks"),
    call(libc::SYS_fcntl, Everybody, "whether a file is open, before it is closed; not to wait for one, and whether a guest waits for one"),
    call(libc::SYS_close, Everybody, "files, in the end the machine itself"),

    // ---- time and chance, on behalf of a guest
    call(libc::SYS_clock_gettime, Everybody, "the time, where it can't be read without the kernel"),
    call(libc::SYS_clock_getres, Everybody, "how fine a clock is"),
    call(libc::SYS_clock_nanosleep, Everybody, "a guest that sleeps; a thread that waits a little"),
    call(libc::SYS_nanosleep, Everybody, "the same, the older call"),
    call(libc::SYS_pause, Everybody, "a guest that waits for a signal"),
    call(libc::SYS_getrandom, Everybody, "random bytes for a guest, and for hash tables"),

    // ---- memory: never any that could be run
    no_code(libc::SYS_mmap, "the monitor's own memory, threads' stacks"),
    no_code(libc::SYS_mprotect, "a page below a stack that nobody may touch"),
    call(libc::SYS_munmap, Everybody, "the guest's memory goes in the end"),
    call(libc::SYS_mremap, Everybody, "a buffer grows"),
    call(libc::SYS_madvise, Everybody, "memory that the guest lends back; a stack that is done with"),
    call(libc::SYS_brk, Everybody, "the allocator"),

    // ---- threads and signals
    call(libc::SYS_futex, Everybody, "locks, and threads that are waited for"),
    call(libc::SYS_sched_yield, Everybody, "a lock that is held for an instant"),
    call(libc::SYS_rt_sigaction, Everybody, "signals end the machine, and afterwards do what they did before"),
    call(libc::SYS_rt_sigprocmask, Everybody, "which thread hears a signal"),
    call(libc::SYS_rt_sigreturn, Everybody, "the end of a signal's handler"),
    call(libc::SYS_sigaltstack, Everybody, "where a thread's handler runs that has no stack left"),
    call(libc::SYS_restart_syscall, Everybody, "a wait goes on after the monitor was stopped and continued"),
    call(libc::SYS_getpid, Everybody, "a signal to a thread of one's own; the reply to `status`"),
    call(libc::SYS_gettid, Everybody, "whose timer it is"),
    call(libc::SYS_tgkill, Everybody, "a processor is called out of its guest; abort(3)"),
    call(libc::SYS_timer_create, Everybody, "the end of --timeout"),
    call(libc::SYS_timer_settime, Everybody, "the same: it is set, and repeats"),
    call(libc::SYS_timer_delete, Everybody, "the same: it is over"),
    call(libc::SYS_exit, Everybody, "the end of a thread"),
    call(libc::SYS_exit_group, Everybody, "the end of the monitor"),
    call(libc::SYS_clone3, Spawns, "threads of processors and devices; one for each who asks, one for each clone"),
    call(libc::SYS_clone, Spawns, "the same, on older kernels"),
    call(libc::SYS_rseq, Spawns, "what the C library sets up for a thread"),
    call(libc::SYS_set_robust_list, Spawns, "the same"),
    call(libc::SYS_sched_getaffinity, Spawns, "the same, where it looks for its own stack"),
    only(libc::SYS_prctl, Spawns, 0, PR_SET_NAME as u64, "a thread has a name"),
    only(libc::SYS_prctl, Spawns, 0, libc::PR_SET_VMA as u64, "a thread's stack has one, where the C library was told to give it"),
    call(libc::SYS_capset, Spawns, "a thread gives up what capabilities it has; by this nobody gets one"),
    call(libc::SYS_signalfd4, Threads, "signals as a file, beside which others can be waited for"),

    // ---- devices
    call(libc::SYS_eventfd2, Meets, "a bell, and the word to stop; the word that a clone has ended"),
    call(libc::SYS_epoll_create1, Threads, "a device's thread waits for its bells and files"),
    call(libc::SYS_epoll_ctl, Threads, "the same"),
    call(libc::SYS_epoll_wait, Threads, "the same"),
    call(libc::SYS_epoll_pwait, Threads, "the same"),
    call(libc::SYS_timerfd_create, Threads, "a device that is held to a rate"),
    call(libc::SYS_timerfd_settime, Threads, "the same"),
    call(libc::SYS_preadv, Threads, "a disk is read"),
    call(libc::SYS_pwritev, Threads, "a disk is written"),
    call(libc::SYS_fallocate, Threads, "a disk forgets, or is zeroed"),
    only(libc::SYS_socket, Threads, 0, libc::AF_UNIX as u64, "a guest connects to a service of the host, by a Unix socket"),
    call(libc::SYS_connect, Threads, "the same"),
    call(libc::SYS_shutdown, Threads, "one direction of a connection ends"),
    call(libc::SYS_getsockopt, Threads, "whether a connection came about"),
    call(libc::SYS_accept4, Spawns, "the host connects to a guest, asks the monitor, or wants a clone"),
    call(libc::SYS_recvfrom, Spawns, "what comes by a connection, or by the wire of a network card"),
    call(libc::SYS_sendto, Spawns, "what goes"),
    call(libc::SYS_recvmsg, Meets, "the same, several buffers, or with open files for a clone"),
    call(libc::SYS_sendmsg, Meets, "the same"),
    call(libc::SYS_unlink, Spawns, "the name of a socket goes with it"),

    // ---- a server and its children: none of these is left to a child
    call(libc::SYS_wait4, Forks, "how a child has ended"),
    call(libc::SYS_pidfd_open, Forks, "a file that says when it has"),
    only(libc::SYS_kill, Forks, 1, libc::SIGKILL as u64, "it ends with who asked for it"),
    call(libc::SYS_getppid, Forks, "a child whose server is gone already ends"),
    call(libc::SYS_dup2, Forks, "a child's standard files are those of who asked for it"),
    only(libc::SYS_prctl, Forks, 0, libc::PR_SET_PDEATHSIG as u64, "a child ends with its server"),
    only(libc::SYS_prctl, Forks, 0, libc::PR_SET_NO_NEW_PRIVS as u64, "said once more with each filter"),
    only(libc::SYS_seccomp, Forks, 0, libc::SECCOMP_SET_MODE_FILTER as u64, "the child's own walls, within its server's"),

    // ---- files of a snapshot, and disks
    call(libc::SYS_pread64, Files, "a part of a file"),
    call(libc::SYS_pwrite64, Files, "the same"),
    call(libc::SYS_ftruncate, Files, "a file's size"),
    call(libc::SYS_fsync, Files, "what was written is there after a power cut"),
    call(libc::SYS_fdatasync, Files, "the same"),
    call(libc::SYS_openat, Saves, "a snapshot's files; /dev/kvm, for what of a processor is to be kept; which pages were touched"),
    call(libc::SYS_mkdir, Saves, "its folder"),
    call(libc::SYS_mkdirat, Saves, "the same"),
    call(libc::SYS_rename, Saves, "it gets its name when it is whole"),
    call(libc::SYS_renameat2, Saves, "the same"),
    call(libc::SYS_unlinkat, Saves, "one that was not finished is removed"),
    call(libc::SYS_rmdir, Saves, "the same"),
    call(libc::SYS_readlink, Saves, "where the snapshot lies that one of changes stands on"),
    call(libc::SYS_flock, Saves, "that one is in use from here on"),
    call(libc::SYS_getdents64, Saves, "what is in such a folder"),
    call(libc::SYS_fchmod, Saves, "a snapshot is its owner's"),
    call(libc::SYS_chmod, Saves, "the same"),
    call(libc::SYS_copy_file_range, Saves, "its bytes, without going through the monitor"),
    call(libc::SYS_sendfile, Saves, "the same, on older kernels"),
    call(libc::SYS_dup, Saves, "a folder that is looked through"),
    call(libc::SYS_umask, Saves, "who may read it"),
    call(libc::SYS_uname, Saves, "which kernel it was taken on"),
    call(libc::SYS_getcwd, Saves, "where a relative name begins"),
];
