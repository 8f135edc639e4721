//! Users of a container's own: a range of the host's numbers that nobody else has, and that its users stand for inside.
//!
//! In a container like that root is nobody in particular to the host (`user_namespaces(7)`). On the disk nothing is
//! otherwise: the layers, what it writes and its volumes are shown to it through mounts that map ids, so an image and a
//! volume serve containers of either kind. A file or folder of the host that it is given is not mapped: it stays the
//! host's, and what belongs to users outside of the range belongs to nobody inside.

use std::collections::BTreeSet;
use std::fs::File;

use nix::fcntl::Flock;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::error::EngineError;
use super::shelf::random_id;
use super::wishes::{Network, Sharing, WishError, Wishes};

/// How many users a container has: as many as images are made for.
pub(super) const RANGE: u32 = 65_536;
/// The first range that may be given, and how many there are. No distribution gives these numbers to people or services;
/// systemd keeps them for containers (its UIDS-GIDS document).
const FIRST: u32 = 524_288;
const RANGES: u32 = 28_663;
/// Whom the kernel shows for a number that has none inside (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

/// Whose users a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Users {
    /// The host's.
    #[default]
    Host,
    /// Its own; which of the host's numbers they are is chosen when it is made.
    Own,
    /// Its own: this number of the host and those behind it.
    From(u32),
}

impl Users {
    /// The number of the host that its root is, where it is another than the host's root.
    pub fn root(self) -> Option<u32> {
        match self {
            Self::From(first) => Some(first),
            Self::Host | Self::Own => None,
        }
    }

    /// Which of its users a number of the host stands for; nobody for one that is not in its range.
    pub(super) fn inside(self, number: u32) -> u32 {
        let within = |first| number.checked_sub(first).filter(|number| *number < RANGE).unwrap_or(NOBODY);
        self.root().map_or(number, within)
    }

    /// Which number of the host one of its users is.
    pub(super) fn outside(self, number: u32) -> u32 {
        self.root().map_or(number, |first| first + if number < RANGE { number } else { NOBODY })
    }
}

/// What can't be had together with users of one's own: namespaces of others are not theirs.
pub(super) fn check(wishes: &Wishes) -> Result<(), WishError> {
    let refused = |text: &str, expected| Err(WishError { text: format!("--userns auto {text}"), expected });
    if wishes.users == Users::Host {
        return Ok(());
    }
    if !geteuid().is_root() {
        return refused("", "leave it out: the containers of an ordinary user have users of their own anyway");
    }
    if wishes.rights.privileged {
        return refused("--privileged", "one of the two: power over the host takes users of the host");
    }
    let shared = [
        ("--pid", wishes.pid != Sharing::Private),
        ("--ipc", wishes.ipc != Sharing::Private),
        ("--uts", wishes.uts != Sharing::Private),
        ("--network", matches!(wishes.network, Network::Host | Network::Container)),
        ("--cgroupns", wishes.cgroup.as_ref().is_some_and(|it| *it != Sharing::Private)),
    ];
    match shared.iter().find(|(_, shared)| *shared) {
        Some((flag, _)) => refused(flag, "one of the two: what belongs to others can only be shared with their users"),
        None => Ok(()),
    }
}

impl Engine {
    /// Chooses the numbers of a container that is to have users of its own. They are nobody else's as long as the answer
    /// lives, and then because its record says so.
    pub(super) fn choose_users(&self, wishes: &mut Wishes) -> Result<Option<Flock<File>>, EngineError> {
        if wishes.users == Users::Host {
            return Ok(None);
        }
        let lock = self.shelf.lock_users()?;
        let mut taken = BTreeSet::new();
        for id in self.shelf.ids()? {
            taken.extend(self.shelf.read(&id)?.and_then(|record| record.wishes.users.root()));
        }
        let digits = random_id()?;
        let begin = digits.get(..8).and_then(|text| u32::from_str_radix(text, 16).ok()).unwrap_or(0);
        let all = (0..RANGES).map(|step| FIRST + (begin % RANGES + step) % RANGES * RANGE);
        let free = all.into_iter().find(|first| !taken.contains(first));
        wishes.users = Users::From(free.ok_or(EngineError::NoUsers)?);
        Ok(Some(lock))
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, NOBODY, RANGE, RANGES, Users, check};
    use crate::engine::wishes::{Sharing, Wishes};

    #[test]
    fn all_ranges_are_numbers_that_the_kernel_takes() {
        // The upper half is not for everybody: some programs read it as negative.
        assert!(u64::from(FIRST) + u64::from(RANGES) * u64::from(RANGE) < 1 << 31);
    }

    #[test]
    fn a_number_outside_of_the_range_is_nobody() {
        let users = Users::From(FIRST);
        assert_eq!([users.inside(FIRST + 33), users.inside(0), users.inside(FIRST + RANGE)], [33, NOBODY, NOBODY]);
        assert_eq!([users.outside(33), users.outside(RANGE)], [FIRST + 33, FIRST + NOBODY]);
        assert_eq!([Users::Host.inside(7), Users::Host.outside(7)], [7, 7]);
    }

    #[test]
    fn nothing_of_others_is_shared_with_users_of_ones_own() {
        let wishes = Wishes { users: Users::Own, pid: Sharing::Host, ..Wishes::default() };
        assert!(check(&wishes).is_err() && check(&Wishes { users: Users::Host, ..wishes }).is_ok());
    }
}
