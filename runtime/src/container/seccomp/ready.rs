//! The default profile's filter, compiled already.
//!
//! Most containers bring no profile of their own. To write 350 names down for them, to read them again and to compile them
//! took a quarter of a millisecond of each start, and always came to the same program. That program stands in a file beside
//! this one, an instruction a line (code, two jumps and an operand, in hexadecimal), and becomes a table when this is
//! compiled. A test compiles the profile and compares; `ISOLAB_RENEW=1` has it write the file anew.

use std::borrow::Cow;

use oci_spec::runtime::{LinuxSeccomp, Spec};

use super::{Census, Filter, SeccompError, census, default_profile};

/// The annotation by which a configuration without `linux.seccomp` asks for the profile that this runtime brings: `default`.
pub const SECCOMP: &str = "org.isolab.seccomp";
/// Its one value.
pub const DEFAULT: &str = "default";

static TEXT: &str = include_str!("default.bpf");
/// `cccc tt ff kkkkkkkk` and the end of the line.
const LINE: usize = 20;
static READY: [libc::sock_filter; TEXT_LINES] = parse();
const TEXT_LINES: usize = include_str!("default.bpf").len() / LINE;

/// A profile as a configuration asks for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Profile<'a> {
    /// The one that this runtime brings.
    Default,
    /// One of its own.
    Given(&'a LinuxSeccomp),
}

impl<'a> Profile<'a> {
    /// What a configuration asks for; nothing where every call may be made.
    pub fn of(spec: &'a Spec) -> Option<Self> {
        let given = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let asks = || spec.annotations().as_ref().is_some_and(|all| all.get(SECCOMP).is_some_and(|it| it == DEFAULT));
        given.map(Self::Given).or_else(|| asks().then_some(Self::Default))
    }

    /// Its filter. Nothing is installed yet.
    pub fn compile(self) -> Result<Filter, SeccompError> {
        match self {
            Self::Default => Ok(Filter { program: Cow::Borrowed(&READY), flags: 0, notifies: false }),
            Self::Given(profile) => Filter::compile(profile),
        }
    }

    /// How much it allows.
    pub fn census(self) -> Result<Census, SeccompError> {
        match self {
            Self::Default => census(&default_profile()),
            Self::Given(profile) => census(profile),
        }
    }
}

const fn parse() -> [libc::sock_filter; TEXT_LINES] {
    let mut program = [libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; TEXT_LINES];
    let mut line = 0;
    while line < TEXT_LINES {
        let at = line * LINE;
        program[line] = libc::sock_filter {
            code: number(at, 4) as u16,
            jt: number(at + 5, 2) as u8,
            jf: number(at + 8, 2) as u8,
            k: number(at + 11, 8),
        };
        line += 1;
    }
    program
}

/// A number of so many digits.
const fn number(at: usize, digits: usize) -> u32 {
    let text = TEXT.as_bytes();
    let (mut value, mut index) = (0, at);
    while index < at + digits {
        let digit = match text[index] {
            byte @ b'0'..=b'9' => byte - b'0',
            byte @ b'a'..=b'f' => byte - b'a' + 10,
            _ => panic!("default.bpf has something that is no digit"),
        };
        value = value << 4 | digit as u32;
        index += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::{Filter, Profile, TEXT, default_profile};

    #[test]
    fn the_filter_that_is_ready_is_what_the_default_profile_compiles_to() {
        let compiled = Filter::compile(&default_profile()).expect("it can be compiled");
        let line = |it: &libc::sock_filter| format!("{:04x} {:02x} {:02x} {:08x}\n", it.code, it.jt, it.jf, it.k);
        let text: String = compiled.instructions().iter().map(line).collect();
        if std::env::var_os("ISOLAB_RENEW").is_some() {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/container/seccomp/default.bpf");
            return std::fs::write(file, text).expect("it can be written");
        }
        assert_eq!(
            TEXT, text,
            "the profile, the tables of calls or the compiler changed: ISOLAB_RENEW=1 renews the file"
        );
        let ready = Profile::Default.compile().expect("it is");
        let ready: String = ready.instructions().iter().map(line).collect();
        assert_eq!(ready, text);
        assert_eq!((compiled.flags, compiled.notifies), (0, false));
    }
}
