//! `ps`: the host's own ps(1), of whose lines those about the container are kept; a plain table where there is none.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::process::{Command, Stdio};

use crate::print;
use crate::voice::Failure;

/// Prints the processes with these numbers, as ps(1) with `options` does.
pub(crate) fn table(pids: &[i32], options: &[String]) -> Result<(), Failure> {
    let failed = |source| Failure::Read { from: "the host's ps".to_owned(), source };
    let usual = ["-ef".to_owned()];
    let options = if options.is_empty() { &usual } else { options };
    match Command::new("ps").args(options).stderr(Stdio::inherit()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => print::text(&plain(pids)),
        Err(error) => Err(failed(error)),
        Ok(output) if !output.status.success() => {
            Err(failed(io::Error::other(format!("ps {}: {}", options.join(" "), output.status))))
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let kept = kept(&text, pids)
                .ok_or_else(|| failed(io::Error::other("it printed no column PID, by which lines are chosen")))?;
            print::text(&kept)
        }
    }
}

/// The heading, and the lines whose column `PID` has one of the numbers; nothing where there is no such column.
fn kept(text: &str, pids: &[i32]) -> Option<String> {
    let wanted: HashSet<String> = pids.iter().map(ToString::to_string).collect();
    let mut lines = text.lines();
    let heading = lines.next()?;
    let column = heading.split_whitespace().position(|word| word == "PID")?;
    let ours = lines.filter(|line| line.split_whitespace().nth(column).is_some_and(|number| wanted.contains(number)));
    Some(print::lines([heading].into_iter().chain(ours)))
}

/// Number, parent's number and command of each process, from /proc.
fn plain(pids: &[i32]) -> String {
    let mut rows = vec![["PID", "PPID", "CMD"].map(str::to_owned).to_vec()];
    for pid in pids {
        let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // One that has ended since has no line.
        let Some(parent) =
            read("stat").rsplit_once(") ").and_then(|(_, rest)| Some(rest.split(' ').nth(1)?.to_owned()))
        else {
            continue;
        };
        let command = read("cmdline").trim_end_matches('\0').replace('\0', " ");
        let command = if command.is_empty() { format!("[{}]", read("comm").trim_end()) } else { command };
        rows.push(vec![pid.to_string(), parent, command]);
    }
    print::columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::{kept, plain};

    #[test]
    fn only_lines_of_the_container_are_kept() {
        let text = "UID   PID  PPID CMD\nroot    1     0 init\nroot   10     1 sh 1\nroot   11    10 sleep\n";
        assert_eq!(kept(text, &[10]).as_deref(), Some("UID   PID  PPID CMD\nroot   10     1 sh 1\n"));
        assert_eq!(kept("UID CMD\n", &[10]), None);
    }

    #[test]
    fn a_table_of_our_own_names_the_command() {
        let own = std::process::id() as i32;
        assert!(plain(&[own]).lines().nth(1).is_some_and(|line| line.starts_with(&own.to_string())));
    }
}
