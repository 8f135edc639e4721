//! Filters in the real kernel, each in a process of its own, since a filter can never be taken off again.

use std::time::{Duration, Instant};

use isolab_runtime::container::seccomp::{Filter, default_profile};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use serde_json::{Value, json};

type Done = Result<(), Failed>;

fn main() {
    let trials = vec![
        Trial::test("a_denied_call_returns_the_profile_s_error", a_denied_call_returns_the_error),
        Trial::test("a_condition_looks_at_the_argument", a_condition_looks_at_the_argument),
        Trial::test("a_kill_ends_the_process_with_sigsys", a_kill_ends_the_process),
        Trial::test("without_no_new_privs_an_ordinary_user_is_refused", without_no_new_privs_it_is_refused),
        Trial::test("the_default_profile_keeps_namespaces_out_of_reach", the_default_profile_keeps_namespaces_out),
        Trial::test("a_tree_installs_faster_than_a_list", a_tree_installs_faster_than_a_list),
    ];
    // One after another: each forks, and one measures.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}

/// Runs `inside` in a copy of this process and answers how that ended. `inside` must neither allocate nor return
/// anything but a number.
fn in_a_copy(inside: impl FnOnce() -> i32) -> Result<WaitStatus, Failed> {
    // SAFETY: the copy calls `inside`, made of system calls alone, and `_exit`.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let code = inside();
            // SAFETY: ends this process, and nothing of the test harness's with it.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => Ok(waitpid(child, None)?),
    }
}

/// The exit code after the filter was installed and `inside` ran under it.
fn under(filter: &Filter, inside: impl FnOnce() -> i32) -> Result<WaitStatus, Failed> {
    in_a_copy(|| {
        if !no_new_privileges() || filter.install().is_err() {
            return 100;
        }
        inside()
    })
}

fn no_new_privileges() -> bool {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 }
}

/// The error of a system call with one argument that is a number; 0 for none.
fn error_of(call: libc::c_long, argument: u64) -> i32 {
    // SAFETY: the calls made here take a number first, and no pointer that they would read before the filter refuses.
    if unsafe { libc::syscall(call, argument, 0, 0, 0, 0) } >= 0 { 0 } else { nix::errno::Errno::last_raw() }
}

fn compile(value: Value) -> Result<Filter, Failed> {
    Ok(Filter::compile(&serde_json::from_value(value)?)?)
}

fn exited(status: WaitStatus) -> Option<i32> {
    match status {
        WaitStatus::Exited(_, code) => Some(code),
        _ => None,
    }
}

fn a_denied_call_returns_the_error() -> Done {
    let filter = compile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["getppid"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }
    ] }))?;
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_getppid, 0))?), Some(libc::EPERM));
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_getpgid, 0))?), Some(libc::ENOSYS));
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_getsid, 0))?), Some(0));
    Ok(())
}

fn a_condition_looks_at_the_argument() -> Done {
    let filter = compile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
        "names": ["personality"], "action": "SCMP_ACT_ERRNO",
        "args": [{ "index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_NE" }]
    }] }))?;
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_personality, 0xffff_ffff))?), Some(0));
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_personality, 8))?), Some(libc::EPERM));
    Ok(())
}

fn a_kill_ends_the_process() -> Done {
    let filter = compile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS" }
    ] }))?;
    let status = under(&filter, || error_of(libc::SYS_getppid, 0))?;
    assert!(matches!(status, WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGSYS, _)), "{status:?}");
    Ok(())
}

fn without_no_new_privs_it_is_refused() -> Done {
    let filter = compile(json!({ "defaultAction": "SCMP_ACT_ALLOW" }))?;
    let status = in_a_copy(|| {
        // SAFETY: numbers only. An ordinary user is nobody; who is one already can't change and needn't.
        unsafe { libc::setresuid(65534, 65534, 65534) };
        filter.install().map_or_else(|errno| errno as i32, |()| 0)
    })?;
    assert_eq!(exited(status), Some(libc::EACCES));
    Ok(())
}

fn the_default_profile_keeps_namespaces_out() -> Done {
    let filter = Filter::compile(&default_profile())?;
    let user_namespace = libc::CLONE_NEWUSER as u64;
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_unshare, user_namespace))?), Some(libc::EPERM));
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_clone, user_namespace))?), Some(libc::EPERM));
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_clone3, 0))?), Some(libc::ENOSYS));
    assert_eq!(exited(under(&filter, || error_of(libc::SYS_getppid, 0))?), Some(0));
    Ok(())
}

/// The default profile as a list, one comparison after another: what it costs not to have a tree.
fn list() -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt, k| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let allow = instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_ALLOW);
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for number in 0..400 {
        program.push(libc::sock_filter { jf: 1, ..instruction(libc::BPF_JMP | libc::BPF_JEQ, 0, number) });
        program.push(allow);
    }
    program.push(allow);
    program
}

fn a_tree_installs_faster_than_a_list() -> Done {
    let tree = Filter::compile(&default_profile())?;
    let list = list();
    let by_hand = || {
        let program = libc::sock_fprog { len: list.len() as u16, filter: list.as_ptr().cast_mut() };
        // SAFETY: length and address of one array, which the kernel only reads.
        let done =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&program)) };
        done == 0
    };
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..21 {
        times[0].push(time_of(|| tree.install().is_ok())?);
        times[1].push(time_of(by_hand)?);
    }
    let [tree_time, list_time] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    eprintln!("install: tree of {} {tree_time:?}, list of {} {list_time:?}", tree.instructions().len(), list.len());
    assert!(tree_time * 2 < list_time, "tree {tree_time:?}, list {list_time:?}");
    Ok(())
}

/// How long `install` takes in a copy of this process, told through a pipe.
fn time_of(install: impl FnOnce() -> bool) -> Result<Duration, Failed> {
    let (read, write) = nix::unistd::pipe()?;
    let status = in_a_copy(|| {
        let ready = no_new_privileges();
        let begin = Instant::now();
        let installed = install();
        let nanoseconds = begin.elapsed().as_nanos() as u64;
        let told = nix::unistd::write(&write, &nanoseconds.to_ne_bytes());
        i32::from(!(ready && installed && told == Ok(8)))
    })?;
    if exited(status) != Some(0) {
        return Err(format!("the filter was not installed: {status:?}").into());
    }
    let mut bytes = [0; 8];
    nix::unistd::read(&read, &mut bytes)?;
    Ok(Duration::from_nanos(u64::from_ne_bytes(bytes)))
}
