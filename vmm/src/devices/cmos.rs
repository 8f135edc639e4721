//! The clock of a PC that runs while it is off: time of day in the registers of a chip with a battery (Motorola MC146818).
//!
//! A Linux guest of KVM has a better one and reads this at most once. It can't be set: its time is the host's.

use std::time::{SystemTime, UNIX_EPOCH};

/// The two ports: which register is meant, and its value.
pub(super) const SELECT: u16 = 0x70;
pub(super) const VALUE: u16 = 0x71;

/// The bit of the select register that has nothing to do with it (it masks the non-maskable interrupt).
const REGISTER: u8 = 0x7f;
/// "24 hours", and numbers in decimal digits.
const STATUS_B: u8 = 0x02;
/// "The battery has not failed."
const STATUS_D: u8 = 0x80;
/// Where the century lies; the ACPI tables say so.
pub(super) const CENTURY: u8 = 0x32;

/// The chip.
#[derive(Debug, Default)]
pub(super) struct Cmos {
    register: u8,
}

impl Cmos {
    /// Which register the guest means.
    pub(super) fn select(&mut self, register: u8) {
        self.register = register & REGISTER;
    }

    /// Which one it is.
    pub(super) fn selected(&self) -> u8 {
        self.register
    }

    /// What is in it now.
    pub(super) fn value(&self) -> u8 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        value(self.register, now)
    }
}

/// What a register holds so many seconds after 1970.
fn value(register: u8, now: u64) -> u8 {
    let days = now / 86_400;
    let (year, month, day) = civil(days);
    let number = match register {
        0x00 => now % 60,
        0x02 => now / 60 % 60,
        0x04 => now / 3600 % 24,
        0x06 => (days + 4) % 7 + 1, // 1 is Sunday, and 1970 began on a Thursday
        0x07 => day,
        0x08 => month,
        0x09 => year % 100,
        CENTURY => year / 100,
        0x0b => return STATUS_B,
        0x0d => return STATUS_D,
        _ => return 0,
    };
    // Two decimal digits, four bits each.
    (number / 10 * 16 + number % 10) as u8
}

/// Year, month and day of a day counted from 1970, by the calendar of 1582: a year is taken to begin in March, so that the
/// odd day of leap years is its last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from the 1st of March of year 0
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (era * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_the_time_in_decimal_digits() {
        let all = |now| [CENTURY, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00].map(|register| value(register, now));
        assert_eq!(all(0), [0x19, 0x70, 0x01, 0x01, 5, 0, 0, 0], "a Thursday");
        assert_eq!(all(951_782_399), [0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59]);
        assert_eq!(all(951_782_400), [0x20, 0x00, 0x02, 0x29, 3, 0, 0, 0], "the odd day of 2000");
        assert_eq!(all(1_767_225_600), [0x20, 0x26, 0x01, 0x01, 5, 0, 0, 0]);
        assert_eq!(all(4_107_542_400), [0x21, 0x00, 0x03, 0x01, 2, 0, 0, 0], "2100 has none");
    }

    #[test]
    fn it_says_that_it_works_and_how_it_counts() {
        let mut cmos = Cmos::default();
        cmos.select(0x8d);
        assert_eq!(cmos.value(), 0x80);
        cmos.select(0x0b);
        assert_eq!(cmos.value() & 0x06, 0x02, "24 hours, decimal digits");
        cmos.select(0x0a);
        assert_eq!(cmos.value() & 0x80, 0, "never in the middle of an update");
    }
}
