//! How the container's first process says what went wrong: a step, an index into the plan, an error number, and the
//! kernel's own words where it had some. All fixed-size, since that process must not allocate.

use nix::errno::Errno;

/// What the container's process was doing. The words are made by the runtime, which has the plan to look in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Protocol,
    Session,
    Sibling,
    OomScore,
    Affinity,
    IdentityInside,
    JoinNamespace,
    TimeNamespace,
    Propagation,
    RootFolder,
    OverlayUpper,
    Overlay,
    MountPoint,
    MountOverProc,
    Mount,
    Remount,
    CopyUp,
    Device,
    Link,
    MaskSource,
    Mask,
    ReadonlyPath,
    ReadonlyRoot,
    Pivot,
    RootPropagation,
    Hostname,
    Domainname,
    Loopback,
    Sysctl,
    Cgroup,
    CgroupNamespace,
    Terminal,
    TerminalSocket,
    Console,
    Keyring,
    CloseDescriptors,
    Label,
    Scheduler,
    IoPriority,
    MemoryPolicy,
    Personality,
    Rlimit,
    BoundingSet,
    User,
    WorkingDirectory,
    WorkingDirectoryOutside,
    Capabilities,
    NoNewPrivileges,
    Seccomp,
    SeccompListener,
    Hook,
    StartSignal,
    ProgramMissing,
    ProgramDenied,
    Execute,
}

impl Step {
    const ALL: [Self; 55] = [
        Self::Protocol,
        Self::Session,
        Self::Sibling,
        Self::OomScore,
        Self::Affinity,
        Self::IdentityInside,
        Self::JoinNamespace,
        Self::TimeNamespace,
        Self::Propagation,
        Self::RootFolder,
        Self::OverlayUpper,
        Self::Overlay,
        Self::MountPoint,
        Self::MountOverProc,
        Self::Mount,
        Self::Remount,
        Self::CopyUp,
        Self::Device,
        Self::Link,
        Self::MaskSource,
        Self::Mask,
        Self::ReadonlyPath,
        Self::ReadonlyRoot,
        Self::Pivot,
        Self::RootPropagation,
        Self::Hostname,
        Self::Domainname,
        Self::Loopback,
        Self::Sysctl,
        Self::Cgroup,
        Self::CgroupNamespace,
        Self::Terminal,
        Self::TerminalSocket,
        Self::Console,
        Self::Keyring,
        Self::CloseDescriptors,
        Self::Label,
        Self::Scheduler,
        Self::IoPriority,
        Self::MemoryPolicy,
        Self::Personality,
        Self::Rlimit,
        Self::BoundingSet,
        Self::User,
        Self::WorkingDirectory,
        Self::WorkingDirectoryOutside,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::Seccomp,
        Self::SeccompListener,
        Self::Hook,
        Self::StartSignal,
        Self::ProgramMissing,
        Self::ProgramDenied,
        Self::Execute,
    ];
}

/// The most that is kept of what the kernel said, in bytes.
const DETAIL: usize = 112;
/// A failure on the wire: tag, step, length of detail, spare, index, error number, detail.
pub(crate) const SIZE: usize = 12 + DETAIL;

/// A step that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    /// Which of several: an index into the list of the plan that the step works through.
    pub(crate) index: u32,
    pub(crate) errno: Errno,
    detail: [u8; DETAIL],
    length: u8,
}

impl Failure {
    pub(crate) fn new(step: Step, index: usize, errno: Errno) -> Self {
        Self { step, index: index as u32, errno, detail: [0; DETAIL], length: 0 }
    }

    /// Adds the kernel's own words.
    pub(crate) fn with_detail(mut self, text: &[u8]) -> Self {
        let length = text.len().min(DETAIL);
        for (kept, byte) in self.detail.iter_mut().zip(text) {
            *kept = *byte;
        }
        self.length = length as u8;
        self
    }

    /// The kernel's own words, or nothing.
    pub(crate) fn detail(&self) -> String {
        let words = self.detail.get(..usize::from(self.length)).unwrap_or_default();
        String::from_utf8_lossy(words).trim().to_owned()
    }

    pub(crate) fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let [index, errno] = [self.index.to_ne_bytes(), (self.errno as i32).to_ne_bytes()];
        let head = [b'F', self.step as u8, self.length, 0].into_iter().chain(index).chain(errno);
        for (byte, value) in bytes.iter_mut().zip(head.chain(self.detail)) {
            *byte = value;
        }
        bytes
    }

    /// The failure that `bytes` hold; nothing where they hold something else.
    pub(crate) fn from_bytes(bytes: &[u8; SIZE]) -> Option<Self> {
        let [b'F', step, length, _, i0, i1, i2, i3, e0, e1, e2, e3, detail @ ..] = bytes else { return None };
        Some(Self {
            step: Step::ALL.into_iter().find(|known| *known as u8 == *step)?,
            index: u32::from_ne_bytes([*i0, *i1, *i2, *i3]),
            errno: Errno::from_raw(i32::from_ne_bytes([*e0, *e1, *e2, *e3])),
            detail: *detail,
            length: *length,
        })
    }
}

/// Names the step that a system call belongs to.
pub(crate) trait At<T> {
    /// On failure: this step.
    fn at(self, step: Step) -> Result<T, Failure>;
    /// On failure: this step, at this place of its list.
    fn at_index(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failure> {
        #[cfg(feature = "fault")]
        if crate::faults::due() {
            return Err(Failure::new(step, index, Errno::EIO));
        }
        self.map_err(|errno| Failure::new(step, index, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, SIZE, Step};
    use nix::errno::Errno;

    #[test]
    fn every_step_survives_the_wire() {
        for (index, step) in Step::ALL.into_iter().enumerate() {
            let sent = Failure::new(step, index, Errno::EPERM).with_detail(b"e tmpfs: no");
            let got = Failure::from_bytes(&sent.to_bytes()).expect("it is a failure");
            assert_eq!((got.step, got.index, got.errno), (step, index as u32, Errno::EPERM));
            assert_eq!(got.detail(), "e tmpfs: no");
        }
        assert!(Failure::from_bytes(&[0; SIZE]).is_none());
    }
}
