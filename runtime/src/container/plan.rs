//! The plan: all that the container's first process will do, decided while nothing has been done.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use oci_spec::runtime::{Hooks, Process};
use tracing::info_span;

use super::bundle::Bundle;
use super::capabilities::CapabilityPlan;
use super::cgroup_mount::CgroupMount;
use super::error::ContainerError;
use super::hooks::{self, HookPlan};
use super::intel_rdt::RdtPlan;
use super::labels::Labels;
use super::limits::Limits;
use super::listener::Listener;
use super::namespaces::{NamespaceError, Namespaces};
use super::net_devices::NetDevice;
use super::process::ProcessPlan;
use super::rootfs::RootfsPlan;
use super::seccomp::{Filter, Profile};
use super::signals::learn_ignored;
use super::state::Record;
use super::sys::credentials;
use super::sysctl::Sysctl;
use super::terminal::TerminalPlan;
use super::treatment::Treatment;
use super::{outside_binds, outside_overlay};

/// What the process reads; made before it, in the form that the kernel takes.
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    pub(crate) rootfs: RootfsPlan,
    pub(crate) hostname: Option<CString>,
    pub(crate) domainname: Option<CString>,
    pub(crate) loopback: bool,
    /// Interfaces of the host that become its own.
    pub(crate) net_devices: Vec<NetDevice>,
    /// Its share of the processor's cache, where it is to have one.
    pub(crate) rdt: Option<RdtPlan>,
    pub(crate) sysctl: Sysctl,
    pub(crate) process: ProcessPlan,
    pub(crate) treatment: Treatment,
    pub(crate) labels: Labels,
    /// What to write to the process's `oom_score_adj`, from outside.
    pub(crate) oom_score: Option<i32>,
    /// Run by the runtime before the root is entered: the deprecated `prestart` ones, then `createRuntime`.
    pub(crate) create_runtime: [Vec<HookPlan>; 2],
    pub(crate) create_container: Vec<HookPlan>,
    pub(crate) start_container: Vec<HookPlan>,
    /// The container's state for hooks, without its process id: what stands before and after that.
    pub(crate) state: (String, String),
    pub(crate) terminal: Option<TerminalPlan>,
    /// Whether the session keyring of the caller stays.
    pub(crate) session_keyring: bool,
    /// The first descriptor that is not handed over.
    pub(crate) first_closed: u32,
    /// How the program is started.
    pub(crate) start: Start,
    /// Whether there is no program: the process waits, and nobody may start it.
    pub(crate) nothing_to_run: bool,
    /// The signal mask that the program shall have.
    pub(crate) mask: SigSet,
}

/// When the program's first instruction comes.
pub(crate) enum Start {
    /// As soon as all is done; the process dies with the runtime.
    AtOnce,
    /// When somebody connects to this socket and says so; the process outlives the runtime.
    WhenTold(OwnedFd),
}

impl Plan {
    /// Decides everything. What the bundle's author should hear of is added to `warnings`.
    pub(crate) fn new(
        bundle: &Bundle,
        limits: &Limits,
        record: &Record,
        start: Start,
        mask: SigSet,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ContainerError> {
        let _span = info_span!(
            "container.plan",
            call = "none",
            why = "the new process must not even allocate memory, so all that it needs is laid out before it exists"
        )
        .entered();
        ContainerError::fault("container.plan")?;
        learn_ignored();
        let namespaces = Namespaces::plan(bundle)?;
        if record.shared_tree.as_ref().is_some_and(|tree| !tree.is_joined()) {
            if namespaces.in_user_namespace() {
                return Err(NamespaceError::ForeignTree.into());
            }
            warnings.push(
                "there is no mount namespace: the host sees what is mounted for the container, until it is deleted"
                    .to_owned(),
            );
        }
        let held = held(namespaces.has_new(CloneFlags::CLONE_NEWUSER))?;
        let capabilities = CapabilityPlan::new(bundle.process.capabilities().as_ref(), held, warnings);
        let groups_allowed = namespaces.ids.as_ref().is_none_or(|ids| !ids.deny_setgroups);
        if !groups_allowed && bundle.process.user().additional_gids().as_ref().is_some_and(|groups| !groups.is_empty())
        {
            warnings.push("process.user.additionalGids is left out: an ordinary user may not set groups".to_owned());
        }
        let profile = Profile::of(&bundle.spec);
        let process = confined(&bundle.process, capabilities, profile, groups_allowed, record)?;
        let mut rootfs = RootfsPlan::new(bundle, &namespaces, CgroupMount::plan(limits, &namespaces)?)?;
        outside_binds::prepare(&mut rootfs.mounts, bundle, &namespaces)?;
        outside_overlay::prepare(&mut rootfs, bundle, &namespaces)?;
        let hooks = bundle.spec.hooks().as_ref();
        let text = |name: &Option<String>| name.clone().map(CString::new).transpose();
        Ok(Self {
            rootfs,
            hostname: text(bundle.spec.hostname())?,
            domainname: text(bundle.spec.domainname())?,
            loopback: namespaces.has_new(CloneFlags::CLONE_NEWNET),
            net_devices: bundle.net_devices.clone(),
            rdt: RdtPlan::new(&record.id.parse()?, bundle)?,
            sysctl: Sysctl::plan(bundle)?,
            process,
            treatment: bundle.treatment.clone(),
            labels: Labels::plan(&bundle.process)?,
            oom_score: bundle.process.oom_score_adj(),
            create_runtime: [
                hooks::plan(hooks.and_then(prestart))?,
                hooks::plan(hooks.and_then(|all| all.create_runtime().as_ref()))?,
            ],
            create_container: hooks::plan(hooks.and_then(|all| all.create_container().as_ref()))?,
            start_container: hooks::plan(hooks.and_then(|all| all.start_container().as_ref()))?,
            state: record.state_around_pid(),
            terminal: TerminalPlan::new(
                &bundle.process,
                bundle.handed.console_socket.as_deref(),
                matches!(start, Start::AtOnce),
            )?,
            session_keyring: bundle.handed.session_keyring,
            first_closed: bundle.handed.first_closed(),
            start,
            nothing_to_run: bundle.nothing_to_run,
            mask,
            namespaces,
        })
    }

    /// Whether the runtime has hooks to run before the root is entered.
    pub(crate) fn waits_for_hooks(&self) -> bool {
        self.create_runtime.iter().any(|hooks| !hooks.is_empty())
    }
}

/// The capabilities that a process can be given. Whoever makes or joins a user namespace has every one of them in it.
pub(crate) fn held(other_user_namespace: bool) -> Result<u64, ContainerError> {
    if other_user_namespace {
        return Ok(u64::MAX);
    }
    let sets = credentials::held().map_err(ContainerError::system("read the capabilities of", "this process"))?;
    Ok(sets.permitted)
}

/// A process below a profile's filter, connected to the filter's listener where it leaves calls to one.
pub(crate) fn confined(
    process: &Process,
    capabilities: CapabilityPlan,
    profile: Option<Profile<'_>>,
    groups_allowed: bool,
    record: &Record,
) -> Result<ProcessPlan, ContainerError> {
    let filter = profile.map(compile).transpose()?;
    let listens = filter.as_ref().is_some_and(Filter::notifies);
    let mut plan = ProcessPlan::new(process, capabilities, filter, groups_allowed)?;
    if let (true, Some(Profile::Given(profile))) = (listens, profile) {
        plan.listener = Some(Listener::connect(profile, record)?);
    }
    Ok(plan)
}

fn compile(profile: Profile<'_>) -> Result<Filter, ContainerError> {
    let _span = info_span!(
        "seccomp.compile",
        call = "none",
        why = "the profile's list of calls becomes a short program that the kernel can run before each call"
    )
    .entered();
    ContainerError::fault("seccomp.compile")?;
    Ok(profile.compile()?)
}

/// Deprecated, and still what other programs write.
fn prestart(hooks: &Hooks) -> Option<&Vec<oci_spec::runtime::Hook>> {
    hooks.prestart().as_ref()
}
