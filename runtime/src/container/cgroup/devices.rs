//! devices: which device nodes may be read, written and made.
//!
//! The configuration is a list in which, for each of read, write and mknod, the last entry that fits a device decides.
//! v1 keeps such a list in the kernel and takes it entry by entry. v2 has no files for it: there, a small program that
//! we assemble ([`program`](super::program)) is asked at each open and mknod.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::controller::{Controller, Names};
use super::folder::{Folder, Setting};
use super::layout::Version;
use super::{CgroupError, program};
use crate::container::sys::bpf;

/// The controller, in v1.
pub(super) struct Devices;

/// What may be done with a device: the bits that the kernel gives a device program (`BPF_DEVCG_ACC_MKNOD` and its kin).
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// The two kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Character,
}

/// One entry of the list. What is `None` fits every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

/// What every container may use, whatever its list denies: the nodes that the specification puts into each /dev
/// (config-linux.md, "Default Devices"), terminals, and making nodes (which says nothing about opening them).
const DEFAULTS: [Rule; 10] = {
    const fn node(major: u32, minor: Option<u32>) -> Rule {
        Rule { allow: true, kind: Some(Kind::Character), major: Some(major), minor, access: ALL }
    }
    const fn make(kind: Kind) -> Rule {
        Rule { allow: true, kind: Some(kind), major: None, minor: None, access: MKNOD }
    }
    [
        make(Kind::Character),
        make(Kind::Block),
        node(1, Some(3)), // null
        node(1, Some(5)), // zero
        node(1, Some(7)), // full
        node(1, Some(8)), // random
        node(1, Some(9)), // urandom
        node(5, Some(0)), // tty
        node(5, Some(2)), // ptmx
        node(136, None),  // pts/*
    ]
};

impl Controller for Devices {
    fn names(&self) -> Names {
        Names { v1: Some("devices"), v2: None }
    }

    fn settings(
        &self,
        version: Version,
        asked: &LinuxResources,
        _: Option<&Folder>,
    ) -> Result<Vec<Setting>, CgroupError> {
        match version {
            Version::V1 => Ok(rules(asked)?.iter().flat_map(v1).collect()),
            Version::V2 => Ok(Vec::new()),
        }
    }
}

/// Has the kernel ask our program about every device that the v2 cgroup uses; one that was there before is replaced.
pub(super) fn restrict(folder: &Folder, asked: &LinuxResources, standing: bool) -> Result<(), CgroupError> {
    let rules = rules(asked)?;
    let (false, Some(cgroup)) = (rules.is_empty(), folder.directory()) else { return Ok(()) };
    let failed = |attempt| move |source| CgroupError::DeviceProgram { attempt, path: folder.path.clone(), source };
    let program = bpf::load_device_program(&program::assemble(&rules)).map_err(failed("load"))?;
    // All programs of a cgroup have to agree, so the old one must go, after the new one is there: never is there none.
    let old = if standing { bpf::device_programs(cgroup).map_err(failed("find"))? } else { Vec::new() };
    bpf::attach_device_program(cgroup, &program).map_err(failed("attach"))?;
    old.iter().try_for_each(|old| bpf::detach_device_program(cgroup, old)).map_err(failed("replace"))
}

/// The list that is asked for, and after it the defaults if anything was denied; empty where nothing is asked.
pub(super) fn rules(asked: &LinuxResources) -> Result<Vec<Rule>, CgroupError> {
    let mut rules = asked.devices().iter().flatten().map(rule).collect::<Result<Vec<Rule>, _>>()?;
    if rules.iter().any(|rule| !rule.allow) {
        rules.extend(DEFAULTS);
    }
    Ok(rules)
}

fn rule(asked: &LinuxDeviceCgroup) -> Result<Rule, CgroupError> {
    let wrong = |value: String, reason| CgroupError::Value { field: "linux.resources.devices", value, reason };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| wrong(number.to_string(), "a device number has 32 bits, or is -1 for any")),
    };
    let kind = match asked.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Character),
        Some(LinuxDeviceType::P) => return Err(wrong("p".to_owned(), "a FIFO is no device, nobody guards it")),
    };
    let text = asked.access().as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm");
    let access = text.chars().try_fold(0, |bits, letter| match letter {
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        'm' => Ok(bits | MKNOD),
        _ => Err(wrong(text.to_owned(), "access is made of r, w and m")),
    })?;
    Ok(Rule { allow: asked.allow(), kind, major: number(asked.major())?, minor: number(asked.minor())?, access })
}

/// An entry as v1's files take it: `c 1:3 rwm`.
///
/// To the kernel an `a` means all devices and all access, whatever is said behind it; an entry that means less is
/// written for both kinds.
fn v1(rule: &Rule) -> Vec<Setting> {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let everything = Rule { allow: rule.allow, kind: None, major: None, minor: None, access: ALL };
    if *rule == everything {
        return vec![Setting::new(file, "a")];
    }
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    let access: String = letters.iter().filter(|(bit, _)| rule.access & bit != 0).map(|(_, letter)| letter).collect();
    let line = |kind| {
        let kind = if kind == Kind::Block { 'b' } else { 'c' };
        Setting::new(file, &format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor)))
    };
    match rule.kind {
        Some(kind) => vec![line(kind)],
        None => vec![line(Kind::Block), line(Kind::Character)],
    }
}
