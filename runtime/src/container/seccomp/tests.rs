//! Filters against a small interpreter of classic BPF, and against the profile read rule by rule.

use std::collections::BTreeSet;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::table::{AUDIT_I386, AUDIT_X86_64, Architecture};
use super::{Filter, SeccompError, default_profile};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO + 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO + 38;
/// Beyond the last call of any table.
const NUMBERS: std::ops::Range<u32> = 0..600;

/// What a filter is shown: `struct seccomp_data` without the instruction pointer, which no profile can ask for.
#[derive(Debug, Clone, Copy)]
struct Call {
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
}

impl Call {
    fn of(name: &str, arguments: [u64; 6]) -> Self {
        let number = Architecture::X86_64.number(name).unwrap();
        Self { architecture: AUDIT_X86_64, number, arguments }
    }

    fn word(&self, at: u32) -> u32 {
        match at {
            0 => self.number,
            4 => self.architecture,
            16.. => (self.arguments[(at as usize - 16) / 8] >> (at % 8 * 8)) as u32,
            _ => panic!("load at {at}"),
        }
    }
}

/// Runs a program as the kernel would: the value returned, and how many instructions that took.
fn run(program: &[libc::sock_filter], call: Call) -> (u32, usize) {
    let (mut register, mut at, mut steps) = (0, 0, 0);
    loop {
        let now = &program[at];
        (at, steps) = (at + 1, steps + 1);
        let holds = match u32::from(now.code) {
            super::tree::RETURN => return (now.k, steps),
            super::tree::LOAD => {
                register = call.word(now.k);
                continue;
            }
            super::tree::AND => {
                register &= now.k;
                continue;
            }
            super::tree::JUMP => {
                at += now.k as usize;
                continue;
            }
            super::tree::EQUAL => register == now.k,
            super::tree::GREATER => register > now.k,
            super::tree::GREATER_OR_EQUAL => register >= now.k,
            code => panic!("code {code:#x}"),
        };
        at += usize::from(if holds { now.jt } else { now.jf });
    }
}

fn verdict(filter: &Filter, call: Call) -> u32 {
    run(filter.instructions(), call).0
}

fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

fn compile(value: Value) -> Filter {
    Filter::compile(&profile(value)).unwrap()
}

fn no_arguments(name: &str) -> Call {
    Call::of(name, [0; 6])
}

/// The profile as its reader understands it: rule after rule, the first that fits.
fn reference(profile: &LinuxSeccomp, call: Call) -> u32 {
    let code = |action, errno| super::action::action(action, errno, false).unwrap();
    let has = |arch| profile.architectures().iter().flatten().any(|other| *other == arch);
    let x32 = call.number & super::table::X32_BIT != 0 && call.number != u32::MAX;
    let table = match call.architecture {
        AUDIT_X86_64 if !x32 => Architecture::X86_64,
        AUDIT_X86_64 if has(oci_spec::runtime::Arch::ScmpArchX32) => Architecture::X32,
        AUDIT_I386 if has(oci_spec::runtime::Arch::ScmpArchX86) => Architecture::I386,
        _ => return KILL,
    };
    for rule in profile.syscalls().iter().flatten() {
        let named = rule.names().iter().any(|name| table.number(name) == Some(call.number));
        let fits = rule.args().iter().flatten().all(|condition| holds(condition, call));
        if named && fits {
            return code(rule.action(), rule.errno_ret());
        }
    }
    code(profile.default_action(), profile.default_errno_ret())
}

fn holds(condition: &LinuxSeccompArg, call: Call) -> bool {
    let (argument, value) = (call.arguments[condition.index()], condition.value());
    match condition.op() {
        LinuxSeccompOperator::ScmpCmpEq => argument == value,
        LinuxSeccompOperator::ScmpCmpNe => argument != value,
        LinuxSeccompOperator::ScmpCmpLt => argument < value,
        LinuxSeccompOperator::ScmpCmpLe => argument <= value,
        LinuxSeccompOperator::ScmpCmpGt => argument > value,
        LinuxSeccompOperator::ScmpCmpGe => argument >= value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => argument & value == condition.value_two().unwrap_or(0),
    }
}

#[test]
fn an_action_is_what_the_kernel_is_told() {
    for (action, expected) in [
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_KILL", libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", KILL),
        ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP),
        ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE | 1),
    ] {
        let by_default = compile(json!({ "defaultAction": action }));
        assert_eq!(verdict(&by_default, no_arguments("read")), expected, "{action} by default");
        let by_name = compile(json!({
            "defaultAction": "SCMP_ACT_LOG", "syscalls": [{ "names": ["read"], "action": action }]
        }));
        assert_eq!(verdict(&by_name, no_arguments("read")), expected, "{action} by name");
        assert_eq!(verdict(&by_name, no_arguments("write")), libc::SECCOMP_RET_LOG);
    }
}

#[test]
fn an_error_number_is_handed_through() {
    let filter = compile(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 }]
    }));
    assert_eq!(verdict(&filter, no_arguments("write")), ENOSYS);
    assert_eq!(verdict(&filter, no_arguments("read")), libc::SECCOMP_RET_ERRNO + 13);
}

#[test]
fn a_profile_that_cannot_be_kept_is_refused() {
    let rule = |rule: Value| profile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
    let error = |profile| Filter::compile(&profile).unwrap_err();
    assert!(matches!(
        error(rule(json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1 }))),
        SeccompError::ErrnoWithoutError { value: 1, .. }
    ));
    assert!(matches!(
        error(rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000 }))),
        SeccompError::Errno { value: 5000, largest: 4095 }
    ));
    assert!(matches!(error(rule(json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" }))), SeccompError::Notify));
    let sixth = json!({ "names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }] });
    assert!(matches!(error(rule(sixth)), SeccompError::Argument { index: 6, .. }));
    let condition = json!({ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" });
    let endless = json!({ "names": ["read"], "action": "SCMP_ACT_TRAP", "args": vec![condition; 1000] });
    assert!(matches!(error(rule(endless)), SeccompError::TooLong(_)));
}

#[test]
fn the_first_rule_that_fits_decides() {
    let filter = compile(json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
        { "names": ["close"], "action": "SCMP_ACT_LOG", "args": [{ "index": 0, "value": 3, "op": "SCMP_CMP_EQ" }] },
        { "names": ["close"], "action": "SCMP_ACT_TRAP", "args": [{ "index": 0, "value": 5, "op": "SCMP_CMP_LE" }] },
        { "names": ["close", "read"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["close", "read"], "action": "SCMP_ACT_ERRNO" },
    ] }));
    let close = |descriptor| verdict(&filter, Call::of("close", [descriptor, 0, 0, 0, 0, 0]));
    assert_eq!([3, 5, 6].map(close), [libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_TRAP, ALLOW]);
    assert_eq!(verdict(&filter, no_arguments("read")), ALLOW);
    assert_eq!(verdict(&filter, no_arguments("write")), KILL);
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let filter = compile(json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{
        "names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 1, "value": 10, "op": "SCMP_CMP_GE" },
            { "index": 1, "value": 0x1_0000_0000_u64, "op": "SCMP_CMP_LT" },
            { "index": 2, "value": 0xf0, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ" }
        ]
    }] }));
    let lseek = |offset, whence| verdict(&filter, Call::of("lseek", [0, offset, whence, 0, 0, 0]));
    assert_eq!(lseek(10, 0x1f), ALLOW);
    assert_eq!(lseek(0xffff_ffff, 0x10), ALLOW);
    for (offset, whence) in [(9, 0x10), (0x1_0000_0000, 0x10), (u64::MAX, 0x10), (10, 0x20)] {
        assert_eq!(lseek(offset, whence), KILL, "{offset:#x} {whence:#x}");
    }
}

#[test]
fn foreign_architectures_are_killed_and_named_ones_judged() {
    let names = json!([{ "names": ["read", "execve", "socketcall"], "action": "SCMP_ACT_ALLOW" }]);
    let native = compile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": names }));
    let all = compile(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "syscalls": names,
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"]
    }));
    let call = |architecture, number| Call { architecture, number, arguments: [0; 6] };
    let x32 = |number| call(AUDIT_X86_64, super::table::X32_BIT | number);
    for (name, call, alone, together) in [
        ("x86-64 read", call(AUDIT_X86_64, 0), ALLOW, ALLOW),
        ("i386 read", call(AUDIT_I386, 3), KILL, ALLOW),
        ("i386 socketcall", call(AUDIT_I386, 102), KILL, ALLOW),
        ("i386 restart_syscall", call(AUDIT_I386, 0), KILL, EPERM),
        ("x32 read", x32(0), KILL, ALLOW),
        ("x32 execve", x32(520), KILL, ALLOW),
        ("x32 of x86-64's execve", x32(59), KILL, EPERM),
        ("aarch64", call(0xc000_00b7, 63), KILL, KILL),
        ("no call", call(AUDIT_X86_64, u32::MAX), EPERM, EPERM),
        ("a call of the future", call(AUDIT_X86_64, 1000), EPERM, EPERM),
    ] {
        assert_eq!(verdict(&native, call), alone, "{name}, alone");
        assert_eq!(verdict(&all, call), together, "{name}, together");
    }
}

#[test]
fn names_that_this_machine_lacks_are_passed_over_and_told() {
    let profile = profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["read", "socketcall", "no_such_call"], "action": "SCMP_ACT_ALLOW" }
    ] }));
    assert_eq!(super::unknown(&profile), ["socketcall", "no_such_call"]);
    let filter = Filter::compile(&profile).unwrap();
    assert_eq!(verdict(&filter, no_arguments("read")), ALLOW);
}

#[test]
fn flags_are_those_of_the_kernel() {
    let flags = |flags: Value| compile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags })).flags;
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 2 | 4);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 1 | 16);
    let waiting = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] });
    assert!(matches!(Filter::compile(&profile(waiting)), Err(SeccompError::Notify)));
}

#[test]
fn the_default_profile_names_calls_that_exist_once_each() {
    let profile = default_profile();
    // `recv` and `send` are calls of other architectures; on these, C libraries make them of `recvfrom` and `sendto`.
    assert_eq!(super::unknown(&profile), ["recv", "send"]);
    let plain = profile.syscalls().iter().flatten().filter(|rule| rule.args().is_none());
    let mut seen = BTreeSet::new();
    for name in plain.flat_map(LinuxSyscall::names) {
        assert!(seen.insert(name.clone()), "{name} stands there twice");
    }
}

#[test]
fn the_default_profile_lets_programs_work_and_keeps_the_host_out_of_reach() {
    let filter = Filter::compile(&default_profile()).unwrap();
    for name in ["read", "write", "execve", "mmap", "futex", "epoll_wait", "fork", "wait4", "rseq", "statx", "chroot"] {
        assert_eq!(verdict(&filter, no_arguments(name)), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "fsopen",
        "mount_setattr",
        "setns",
        "unshare",
        "reboot",
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "swapon",
        "swapoff",
        "settimeofday",
        "clock_settime",
        "acct",
        "quotactl",
        "iopl",
        "ioperm",
        "bpf",
        "perf_event_open",
        "keyctl",
        "add_key",
        "request_key",
        "open_by_handle_at",
        "userfaultfd",
        "io_uring_setup",
        "fanotify_init",
        "syslog",
        "sethostname",
        "setdomainname",
        "kcmp",
        "lookup_dcookie",
        "nfsservctl",
        "uselib",
        "_sysctl",
        "sysfs",
        "ustat",
        "vhangup",
        "mbind",
        "move_pages",
        "statmount",
        "listmount",
        "open_tree_attr",
    ] {
        assert_eq!(verdict(&filter, no_arguments(name)), EPERM, "{name}");
    }
    let first = |name, argument| verdict(&filter, Call::of(name, [argument, 0, 0, 0, 0, 0]));
    assert_eq!(first("clone", 0x0100_0011), ALLOW, "a plain fork");
    for namespace in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(first("clone", namespace | 0x11), EPERM, "{namespace:#x}");
    }
    assert_eq!(first("clone3", 0), ENOSYS);
    assert_eq!([first("socket", 2), first("socket", 40)], [ALLOW, EPERM]);
    assert_eq!([first("personality", 0xffff_ffff), first("personality", 0x0040_0000)], [ALLOW, EPERM]);
}

#[test]
fn a_profile_of_hundreds_of_names_takes_few_steps() {
    let filter = Filter::compile(&default_profile()).unwrap();
    let known = 0..syscalls::x86_64::Sysno::last().id().cast_unsigned();
    let count = known.len();
    let steps: usize = known
        .map(|number| run(filter.instructions(), Call { architecture: AUDIT_X86_64, number, arguments: [0; 6] }).1)
        .sum();
    // Two loads, two comparisons for the architecture, the return; the rest is the tree.
    assert!(steps <= 12 * count, "{} steps on average", steps as f64 / count as f64);
}

#[test]
fn a_tree_too_wide_for_short_jumps_still_decides_right() {
    // Each call its own error: nothing can be joined, so the halves are farther apart than a conditional jump reaches.
    let names: Vec<&str> = syscalls::x86_64::Sysno::iter().map(|call| call.name()).collect();
    let rules: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(index, name)| json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": index + 100 }))
        .collect();
    let profile = profile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
    let filter = Filter::compile(&profile).unwrap();
    assert!(filter.instructions().len() > 700);
    for number in NUMBERS {
        let call = Call { architecture: AUDIT_X86_64, number, arguments: [0; 6] };
        assert_eq!(verdict(&filter, call), reference(&profile, call), "{number}");
    }
}

fn any_action() -> impl Strategy<Value = LinuxSeccompAction> {
    prop_oneof![
        Just(LinuxSeccompAction::ScmpActAllow),
        Just(LinuxSeccompAction::ScmpActErrno),
        Just(LinuxSeccompAction::ScmpActTrap),
        Just(LinuxSeccompAction::ScmpActLog),
        Just(LinuxSeccompAction::ScmpActKillProcess),
    ]
}

/// Values whose halves meet those of others: most mistakes in a comparison of two halves show there.
fn any_value() -> impl Strategy<Value = u64> {
    let half = prop_oneof![
        0..3_u64,
        Just(0x7fff_ffff),
        Just(0x8000_0000),
        Just(0xffff_ffff),
        any::<u32>().prop_map(u64::from)
    ];
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

fn any_condition() -> impl Strategy<Value = Value> {
    let operator = proptest::sample::select(vec![
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ]);
    (0..2_usize, operator, any_value(), any_value())
        .prop_map(|(index, op, value, two)| json!({ "index": index, "op": op, "value": value, "valueTwo": two }))
}

fn any_profile() -> impl Strategy<Value = LinuxSeccomp> {
    let names = proptest::sample::subsequence(
        syscalls::x86_64::Sysno::iter().map(|call| call.name()).collect::<Vec<_>>(),
        1..40,
    );
    let rule = (names, any_action(), proptest::collection::vec(any_condition(), 0..3))
        .prop_map(|(names, action, args)| json!({ "names": names, "action": action, "args": args }));
    let architectures = proptest::sample::subsequence(vec!["SCMP_ARCH_X86", "SCMP_ARCH_X32"], 0..=2);
    (any_action(), architectures, proptest::collection::vec(rule, 0..6)).prop_map(|(action, architectures, rules)| {
        profile(json!({ "defaultAction": action, "architectures": architectures, "syscalls": rules }))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_decides_every_call_as_the_list_does(
        profile in any_profile(),
        arguments in proptest::collection::vec((any_value(), any_value()), 4),
    ) {
        let filter = match Filter::compile(&profile) {
            Err(SeccompError::TooLong(_)) => return Err(TestCaseError::reject("more than a kernel takes")),
            other => other.unwrap(),
        };
        // The conditions' own values are the interesting arguments.
        let conditions = profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten());
        let near = conditions.map(|condition| (condition.value(), condition.value_two().unwrap_or(0)));
        for (first, second) in arguments.into_iter().chain(near) {
            for (architecture, bit) in [(AUDIT_X86_64, 0), (AUDIT_X86_64, super::table::X32_BIT), (AUDIT_I386, 0), (0, 0)] {
                for number in NUMBERS {
                    let arguments = [first, second, 0, 0, 0, 0];
                    let call = Call { architecture, number: number | bit, arguments };
                    prop_assert_eq!(verdict(&filter, call), reference(&profile, call), "{:?}", call);
                }
            }
        }
    }
}
