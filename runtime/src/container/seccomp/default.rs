//! The profile for a container that brings none: what ordinary programs need, and nothing that reaches the whole host.
//!
//! It is a list of what is allowed, so that a call which a future kernel adds is refused until somebody has thought
//! about it. What is missing is missing for one of these reasons:
//! - it changes the host, whoever asks: `reboot`, `kexec_load`, `init_module`, `swapon`, `settimeofday`, `acct`,
//!   `quotactl`, `iopl`, `nfsservctl`;
//! - it changes what a process sees, the very thing a container is made of: `mount` and the calls of the new mount
//!   interface, `pivot_root`, `setns`, `unshare`, `clone` with a new namespace, `sethostname`;
//! - it looks at, or into, what belongs to others: `perf_event_open`, `bpf`, `syslog`, `kcmp`, `lookup_dcookie`, keys
//!   (`keyctl`: the kernel's keyrings are not in namespaces), files by handle (`open_by_handle_at`);
//! - it is a large door into the kernel through which many exploits came, and few programs need it: `userfaultfd`,
//!   `io_uring_setup`, `fanotify_init`;
//! - it has been nothing but a relic for decades: `_sysctl`, `sysfs`, `ustat`, `uselib`, `vm86`.
//!
//! Capabilities guard many of these already. The filter stands in front of them: also when one is granted, also inside a
//! user namespace, where a process has all of them, and also against a mistake in the kernel's own check.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

/// Every flag of clone(2) that makes a namespace: mount, cgroup, UTS, IPC, user, PID, network.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// The address family of sockets between a virtual machine and its host: from inside of a container on such a machine
/// they reach past every network namespace.
const AF_VSOCK: u64 = 40;
/// Execution domains of personality(2): Linux, Linux with the version told as 2.6, both also in 32 bits; and the question
/// which one it is. Others switch off address randomization or other protections.
const PERSONALITIES: [u64; 5] = [0x0, 0x2_0000, 0x8, 0x2_0008, 0xffff_ffff];

const FILES: &str = "\
    access chdir chmod chown chown32 chroot close close_range copy_file_range creat dup dup2 dup3 faccessat \
    faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl \
    fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fremovexattr fsetxattr fstat fstat64 \
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat \
    listxattr listxattrat llistxattr lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat \
    name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead \
    readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr \
    setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate \
    truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev";

/// A program's own memory. `mbind` and its kin are missing: where memory lies is the host's decision.
const MEMORY: &str = "\
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
    mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages";

/// Processes and threads; `clone` has conditions and stands by itself. `ptrace` and its kin reach only processes that
/// the caller may trace, in its own PID namespace.
const PROCESSES: &str = "\
    arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid \
    getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid \
    getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self modify_ldt nice pidfd_getfd pidfd_open pidfd_send_signal prctl \
    prlimit64 process_madvise process_mrelease process_vm_readv process_vm_writev ptrace restart_syscall rseq \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 \
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid \
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 ugetrlimit uretprobe \
    vfork wait4 waitid waitpid";

const SIGNALS: &str = "\
    alarm kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack signal signalfd signalfd4 \
    sigpending sigprocmask sigreturn sigsuspend tgkill tkill";

/// Clocks are read here, never set: `adjtimex` and `clock_adjtime` only tell, for a process without `CAP_SYS_TIME`.
const TIME: &str = "\
    adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64 times";

/// Waiting for descriptors, pipes, and what System V and POSIX have for talking inside one IPC namespace.
const COMMUNICATION: &str = "\
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ipc \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
    mq_unlink msgctl msgget msgrcv msgsnd _newselect pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 \
    select semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget";

/// `socket` has a condition and stands by itself. i386's `socketcall` hides its arguments from a filter, so there the
/// condition cannot hold; the family that it is about has no 32-bit users.
const NETWORK: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair";

const SYSTEM: &str = "\
    getrandom lsm_get_self_attr lsm_list_modules lsm_set_self_attr olduname oldolduname sysinfo uname";

/// The default profile, as a configuration would say it: whoever wants another begins with this one.
pub fn default_profile() -> LinuxSeccomp {
    let mut syscalls: Vec<LinuxSyscall> = [FILES, MEMORY, PROCESSES, SIGNALS, TIME, COMMUNICATION, NETWORK, SYSTEM]
        .map(|names| allow(names, None))
        .into();
    let personality = |value| allow("personality", Some(first(LinuxSeccompOperator::ScmpCmpEq, value)));
    syscalls.extend(PERSONALITIES.map(personality));
    syscalls.push(allow("socket", Some(first(LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK))));
    // Masked with all those flags nothing must be left: `valueTwo` is 0.
    syscalls.push(allow("clone", Some(first(LinuxSeccompOperator::ScmpCmpMaskedEq, NEW_NAMESPACES))));
    // The flags of clone3 lie in memory, where a filter cannot look. "There is no such call" sends a C library back to
    // clone, whose flags can be looked at; EPERM would end the program.
    let mut clone3 = rule("clone3", LinuxSeccompAction::ScmpActErrno);
    clone3.set_errno_ret(Some(libc::ENOSYS.cast_unsigned()));
    syscalls.push(clone3);

    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM.cast_unsigned()))
        .set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]))
        .set_syscalls(Some(syscalls));
    profile
}

fn allow(names: &str, condition: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut allowed = rule(names, LinuxSeccompAction::ScmpActAllow);
    allowed.set_args(condition.map(|condition| vec![condition]));
    allowed
}

fn rule(names: &str, action: LinuxSeccompAction) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_whitespace().map(str::to_owned).collect()).set_action(action);
    rule
}

/// A condition on the first argument.
fn first(op: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(0_usize).op(op).value(value).value_two(0_u64);
    // It fails only for fields that were left out and have no default, and there are none.
    builder.build().unwrap_or_default()
}
