//! The home of the container's user, for a process whose environment has none.
//!
//! The specification leaves HOME to whoever writes the configuration, and engines leave it to the runtime: it is looked up
//! in the container's own list of users, once the container's root is in place, and before a filter could forbid that.
//! Between clone and exec nothing may be allocated, so the list is read through buffers of a fixed size.

use std::ffi::CStr;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::read;

/// The longest line of the list that is looked at, in bytes.
const LINE: usize = 1024;
const VARIABLE: &[u8] = b"HOME=";
/// Where a user lives of whom the list knows nothing.
const NOWHERE: &CStr = c"HOME=/";

/// A variable of the environment: `HOME=...`.
pub(crate) struct Home {
    text: [u8; LINE],
}

impl Home {
    /// The home of `user`, as /etc/passwd has it (passwd(5)); `/` where that knows none.
    pub(crate) fn of(user: u32) -> Self {
        let mut home = Self { text: [0; LINE] };
        // What cannot be read has no homes; a program can do without.
        let _ = home.look_up(c"/etc/passwd", user);
        home
    }

    /// As `execve` takes it.
    pub(crate) fn variable(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.text).ok().filter(|text| !text.is_empty()).unwrap_or(NOWHERE)
    }

    fn look_up(&mut self, list: &CStr, user: u32) -> nix::Result<()> {
        // An image may have anything there: a pipe must not hold us up, nor a terminal become ours.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = open(list, flags, Mode::empty())?;
        if SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Ok(());
        }
        let (mut buffer, mut line, mut length) = ([0_u8; 4096], [0_u8; LINE], 0);
        loop {
            let count = read(&file, &mut buffer)?;
            for byte in buffer.get(..count).unwrap_or_default() {
                if *byte != b'\n' {
                    // One that is too long is read past, and cut where it is looked at: its home is not whole then.
                    if let Some(free) = line.get_mut(length) {
                        *free = *byte;
                    }
                    length += 1;
                } else if self.take(line.get(..length).unwrap_or_default(), user) {
                    return Ok(());
                } else {
                    length = 0;
                }
            }
            if count == 0 {
                self.take(line.get(..length).unwrap_or_default(), user);
                return Ok(());
            }
        }
    }

    /// Takes the home of a line, if that is the user's.
    fn take(&mut self, line: &[u8], user: u32) -> bool {
        let mut fields = line.split(|byte| *byte == b':').skip(2);
        let (number, home) = (fields.next(), fields.nth(2));
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
        let (Some(home), true) = (home.filter(|home| home.starts_with(b"/")), number == Some(user)) else {
            return false;
        };
        let whole = VARIABLE.iter().chain(home);
        // One byte stays 0: the end.
        if VARIABLE.len() + home.len() >= self.text.len() {
            return false;
        }
        self.text.iter_mut().zip(whole).for_each(|(to, from)| *to = *from);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Home, LINE};
    use std::ffi::CString;

    fn found(list: &str, user: u32) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("passwd");
        std::fs::write(&path, list).expect("a list");
        let path = CString::new(path.to_str().expect("its path")).expect("no NUL in it");
        let mut home = Home { text: [0; LINE] };
        home.look_up(&path, user).expect("it can be read");
        home.variable().to_str().expect("a text").to_owned()
    }

    #[test]
    fn a_user_lives_where_the_list_says() {
        let list = "root:x:0:0:root:/root:/bin/sh\n# a comment\n\nweb:x:33:33::/srv:/bin/sh\nother:x:33:33::/late:";
        assert_eq!(found(list, 0), "HOME=/root");
        assert_eq!(found(list, 33), "HOME=/srv");
        assert_eq!(found("last:x:7:7::/home/last", 7), "HOME=/home/last");
    }

    #[test]
    fn who_is_not_in_the_list_lives_at_the_root() {
        for list in ["", "root", "root:x:0", "root:x:zero:0:r:/root:sh", "root:x:0:0:r:root:sh", "::::::", "\n\n"] {
            assert_eq!(found(list, 0), "HOME=/", "{list:?}");
        }
        assert_eq!(Home { text: [0; LINE] }.variable().to_bytes(), b"HOME=/");
    }

    #[test]
    fn a_list_of_any_length_is_read() {
        let user = |user: u32| format!("user{user}:x:{user}:{user}:{}:/home/{user}:", "x".repeat(90));
        let users = |count| (1..=count).map(user).collect::<Vec<_>>().join("\n");
        assert_eq!(found(&users(500), 499), "HOME=/home/499");
        let long = format!("root:x:0:0:r:/{}:sh\nroot:x:0:0:r:/root:sh\n", "x".repeat(2 * LINE));
        assert_eq!(found(&long, 0), "HOME=/root");
    }
}
