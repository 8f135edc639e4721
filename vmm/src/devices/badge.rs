//! Who this machine is, for whoever asks inside: two ports.
//!
//! A machine that goes on from a snapshot is another one, and its guest can't see that: nothing in its memory has changed.
//! A kernel with a driver for the generation ID is told by an interrupt ([`super::acpi`]). For all others the first process
//! of the guest looks at a port now and then: it holds how often the machine has gone on. Where that has changed, the other
//! port tells all that is new, a byte at a time: [`Renewed`] in JSON, and a zero.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::guest::linux::init::{Card, Renewed};
use crate::snapshot::raw::hex;

/// A byte written here begins the text anew; each read is its next byte.
pub const BADGE: u16 = 0xf5;
/// How often the machine has gone on from a snapshot, modulo 256; 0 where it was booted.
pub const GENERATION: u16 = 0xf6;

/// The ports.
#[derive(Debug, Default)]
pub(super) struct Badge {
    generation: u32,
    uuid: String,
    cards: Vec<Card>,
    text: Vec<u8>,
    next: usize,
}

impl Badge {
    /// From now on the machine is this one.
    pub(super) fn issue(&mut self, generation: u32, uuid: String, cards: Vec<Card>) {
        *self = Self { generation, uuid, cards, ..Self::default() };
    }

    /// How often it has gone on.
    pub(super) fn generation(&self) -> u8 {
        self.generation as u8
    }

    /// Begins the text anew, with the time of now and random bytes that nobody else is given.
    pub(super) fn rewind(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Where the host has no random bytes the guest gets none, and can tell.
        let seed = crate::random::bytes::<32>().map(|bytes| hex(&bytes)).unwrap_or_default();
        let told = Renewed {
            generation: self.generation,
            uuid: self.uuid.clone(),
            time: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            seed,
            cards: self.cards.clone(),
        };
        self.text = serde_json::to_vec(&told).unwrap_or_default();
        self.next = 0;
    }

    /// The next byte of the text; zeroes after it.
    pub(super) fn read(&mut self) -> u8 {
        let byte = self.text.get(self.next).copied();
        self.next = self.next.saturating_add(1);
        byte.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_reads_who_its_machine_is_and_a_new_seed_each_time() {
        let mut badge = Badge::default();
        assert_eq!((badge.generation(), badge.read()), (0, 0));
        badge.issue(257, "a-uuid".to_owned(), Vec::new());
        assert_eq!((badge.generation(), badge.read()), (1, 0), "nobody has asked yet");
        let mut seeds = Vec::new();
        for _ in 0..2 {
            badge.rewind();
            let text: Vec<u8> = std::iter::from_fn(|| Some(badge.read()).filter(|byte| *byte != 0)).collect();
            let told: Renewed = serde_json::from_slice(&text).unwrap();
            assert_eq!((told.generation, told.uuid.as_str(), told.seed.len()), (257, "a-uuid", 64));
            seeds.push(told.seed);
        }
        assert_ne!(seeds[0], seeds[1]);
    }
}
