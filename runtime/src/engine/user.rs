//! Who a program runs as: names mean what the image's own lists say, not the host's.

use std::path::PathBuf;

use super::error::EngineError;
use super::layered;

/// A user, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The first group's.
    pub gid: u32,
    /// The other groups'.
    pub groups: Vec<u32>,
    /// The home folder.
    pub home: String,
}

/// A line of passwd(5).
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Finds `user[:group]` in the lists of an image; `layers` are its folders, the uppermost first.
pub fn identify(text: &str, layers: &[PathBuf]) -> Result<Identity, EngineError> {
    let passwd = layered::read(layers, "etc/passwd").unwrap_or_default();
    let group = layered::read(layers, "etc/group").unwrap_or_default();
    resolve(text, &passwd, &group)
}

/// Adds groups, by name or number, to those of a user.
pub(super) fn join_groups(identity: &mut Identity, wanted: &[String], layers: &[PathBuf]) -> Result<(), EngineError> {
    let group = if wanted.is_empty() { None } else { layered::read(layers, "etc/group") }.unwrap_or_default();
    for name in wanted {
        let number = group_number(name, &group)?;
        if number != identity.gid && !identity.groups.contains(&number) {
            identity.groups.push(number);
        }
    }
    Ok(())
}

fn resolve(text: &str, passwd: &str, group: &str) -> Result<Identity, EngineError> {
    let (user, wanted_group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let accounts = || passwd.lines().filter_map(account);
    let number = user.parse::<u32>().ok();
    // A name made of digits is a name first, as in chown(1).
    let found = accounts().find(|it| it.name == user).or_else(|| accounts().find(|it| Some(it.uid) == number));
    let (uid, gid, name, home) = match (&found, number) {
        (Some(it), _) => (it.uid, it.gid, it.name, it.home),
        (None, Some(number)) => (number, 0, "", "/"),
        (None, None) => return Err(EngineError::NoUser { name: user.to_owned() }),
    };
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    if let Some(wanted) = wanted_group.filter(|wanted| !wanted.is_empty()) {
        return Ok(Identity { uid, gid: group_number(wanted, group)?, groups: Vec::new(), home });
    }
    let member = |members: &str| members.split(',').any(|member| !name.is_empty() && member == name);
    let mut groups: Vec<u32> = groups(group).filter(|it| member(it.2)).map(|it| it.1).collect();
    groups.retain(|other| *other != gid);
    Ok(Identity { uid, gid, groups, home })
}

/// The number of a group, given by name or number.
fn group_number(wanted: &str, group: &str) -> Result<u32, EngineError> {
    let named = groups(group).find(|it| it.0 == wanted).map(|it| it.1);
    named.or_else(|| wanted.parse().ok()).ok_or_else(|| EngineError::NoGroup { name: wanted.to_owned() })
}

fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let home = fields.nth(1).unwrap_or_default();
    Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
}

/// Name, number and members of each line of group(5).
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, number.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::{Identity, resolve};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n7:x:70:70::/seven:\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlog:x:4:web,other\nweb2:x:34:web\n";

    #[test]
    fn names_and_numbers_are_found_in_the_image() {
        let table = [
            ("", 0, 0, vec![], "/root"),
            ("web", 33, 33, vec![4, 34], "/srv"),
            ("33", 33, 33, vec![4, 34], "/srv"),
            ("7", 70, 70, vec![], "/seven"),
            ("1000", 1000, 0, vec![], "/"),
            ("web:log", 33, 4, vec![], "/srv"),
            ("1000:1001", 1000, 1001, vec![], "/"),
            (":web", 0, 33, vec![], "/root"),
        ];
        for (text, uid, gid, groups, home) in table {
            let expected = Identity { uid, gid, groups, home: home.to_owned() };
            assert_eq!(resolve(text, PASSWD, GROUP).ok(), Some(expected), "{text:?}");
        }
        for text in ["nobody", "web:none", "1000abc", "-1", "4294967296"] {
            assert!(resolve(text, PASSWD, GROUP).is_err(), "{text:?}");
        }
    }
}
