//! Ranges of IPv4 addresses: `10.144.0.0/16` and who is who in it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of addresses that share their first bits. The first address is the range's own name and the last one speaks
/// to all, so neither is ever given to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    first: Ipv4Addr,
    bits: u8,
}

/// A text that is no range.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no range of IPv4 addresses for containers: {problem}")]
pub struct SubnetError {
    text: String,
    problem: &'static str,
}

impl Subnet {
    /// The addresses that have their first `bits` in common with `inside`.
    pub fn around(inside: Ipv4Addr, bits: u8) -> Self {
        let bits = bits.min(32);
        Self { first: Ipv4Addr::from_bits(inside.to_bits() & mask(bits)), bits }
    }

    /// How many bits its addresses have in common.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Its first address.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// Its last address, which all in it hear.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | !mask(self.bits))
    }

    /// The first address that somebody can have: that of the bridge, where nothing else is said.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits().saturating_add(1))
    }

    /// Whether the address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.bits) == self.first.to_bits()
    }

    /// Whether somebody in it can have the address.
    pub fn has_place_for(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.first && address != self.broadcast()
    }

    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The addresses that somebody can have, from the one behind `last` to the end and then from the beginning.
    pub fn places_behind(self, last: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> {
        let (low, high) = (self.first.to_bits().saturating_add(1), self.broadcast().to_bits().saturating_sub(1));
        let last = last.to_bits().clamp(low.saturating_sub(1), high);
        (last.saturating_add(1)..=high).chain(low..=last).map(Ipv4Addr::from_bits)
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let failed = |problem| SubnetError { text: text.to_owned(), problem };
        let (address, bits) = text.split_once('/').ok_or_else(|| failed("write it as 10.0.0.0/24"))?;
        let address: Ipv4Addr = address.parse().map_err(|_| failed("the part before the slash is no IPv4 address"))?;
        let bits: u8 = bits.parse().map_err(|_| failed("the part behind the slash is no number of bits"))?;
        if !(8..=30).contains(&bits) {
            return Err(failed("it must have from 8 to 30 bits in common, so that there is room for a container"));
        }
        let subnet = Self::around(address, bits);
        if subnet.first != address {
            return Err(failed("its address has bits behind those in common"));
        }
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
            return Err(failed("these addresses have a meaning of their own"));
        }
        Ok(subnet)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::Subnet;
    use std::net::Ipv4Addr;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a range")
    }

    #[test]
    fn places_are_gone_through_in_a_circle_and_never_the_ends() {
        let subnet = subnet("10.1.2.0/29");
        let last = |place: u8| Ipv4Addr::new(10, 1, 2, place);
        let digits = |last| subnet.places_behind(last).map(|it| it.octets()[3]).collect::<Vec<_>>();
        assert_eq!(digits(last(3)), [4, 5, 6, 1, 2, 3]);
        assert_eq!(digits(last(6)), [1, 2, 3, 4, 5, 6]);
        assert_eq!(digits(last(0)), [1, 2, 3, 4, 5, 6]);
        assert_eq!(digits(Ipv4Addr::new(192, 168, 0, 1)), [1, 2, 3, 4, 5, 6]);
        assert!(!subnet.has_place_for(last(7)) && !subnet.has_place_for(last(0)) && subnet.has_place_for(last(6)));
    }

    #[test]
    fn ranges_overlap_where_one_is_in_the_other() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.9.0.0/16")));
        assert!(subnet("10.9.0.0/16").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.9.0.0/16").overlaps(subnet("10.10.0.0/16")));
        assert!(Subnet::around(Ipv4Addr::UNSPECIFIED, 0).overlaps(subnet("10.10.0.0/16")));
    }

    #[test]
    fn a_text_is_a_range_or_an_error() {
        assert_eq!(subnet("10.144.0.0/16").gateway(), Ipv4Addr::new(10, 144, 0, 1));
        for text in
            ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/2", "::/64", "127.0.0.0/8", "224.0.0.0/8", "x/24"]
        {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
