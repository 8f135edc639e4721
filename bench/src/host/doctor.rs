//! `isolab-bench doctor`: what this host can do, and what to do about what it can't.

use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use isolab_reports::model::{Fact, Host, Status};

use super::read::size;

/// The host's record, ready to be printed.
#[derive(Clone, Debug)]
pub struct Examination {
    /// What was found.
    pub host: Host,
    /// How it is to be shown.
    pub form: Form,
}

/// How an examination is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As JSON: the `host` object of a `run.json`.
    Json,
    /// As text, for a reader.
    Text {
        /// Columns to keep to.
        width: usize,
        /// Whether statuses are coloured, with ANSI escape sequences.
        colour: bool,
    },
}

impl Form {
    /// Text that fits standard output: its width where that is a terminal, 80 columns elsewhere; colour in a terminal
    /// whose user did not forbid it (<https://no-color.org>).
    pub fn for_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let columns = terminal_size::terminal_size().filter(|_| terminal).map_or(80, |(width, _)| usize::from(width.0));
        let forbidden = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::Text { width: columns.clamp(40, 100), colour: terminal && !forbidden }
    }
}

/// Examines this host. Takes about a second; never to be called while something is measured.
pub fn run(json: bool) -> Examination {
    Examination { host: super::record(), form: if json { Form::Json } else { Form::for_stdout() } }
}

impl fmt::Display for Examination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Json => {
                let text = serde_json::to_string_pretty(&self.host).map_err(|_| fmt::Error)?;
                writeln!(out, "{text}")
            }
            Form::Text { width, colour } => out.write_str(&render(&self.host, width, colour)),
        }
    }
}

/// Longest name that gets a column of its own; the text of a longer one just begins later.
const NAME_MAX: usize = 21;
/// Two blanks, the sign, a blank, the word, two blanks.
const BEFORE_NAME: usize = 13;

fn render(host: &Host, width: usize, colour: bool) -> String {
    let names = host.facts.iter().map(|fact| fact.name.chars().count()).filter(|length| *length <= NAME_MAX);
    let name_width = names.max().unwrap_or_default();
    let page = Page { width, colour, name_width };
    let mut text = title(host);
    let mut area = "";
    for fact in &host.facts {
        if fact.area != area {
            area = &fact.area;
            let _ = writeln!(text, "\n{}", page.paint("1", area));
        }
        page.fact(&mut text, fact);
    }
    let _ = writeln!(text, "\n{}", summary(&host.facts));
    text
}

fn title(host: &Host) -> String {
    let cpus = if host.cpus == 1 { "CPU" } else { "CPUs" };
    format!("{}, {} {cpus}, {}, Linux {}\n", host.cpu, host.cpus, size(host.memory_bytes), host.kernel)
}

/// What is worth a look, by name; a status is a word as well as a sign, so colour carries nothing alone.
fn summary(facts: &[Fact]) -> String {
    let count = |status| facts.iter().filter(|fact| fact.status == status).count();
    match (count(Status::Warn), count(Status::Missing)) {
        (0, 0) => "Nothing to mend.".into(),
        (warn, missing) => {
            format!("{warn} to know about (warn), {missing} not there (missing); each has a hint above.")
        }
    }
}

struct Page {
    width: usize,
    colour: bool,
    name_width: usize,
}

impl Page {
    fn fact(&self, text: &mut String, fact: &Fact) {
        let (sign, word, code) = match fact.status {
            Status::Ok => ('+', "ok", "32"),
            Status::Info => ('-', "info", "2"),
            Status::Warn => ('!', "warn", "33"),
            Status::Missing => ('x', "missing", "31"),
        };
        let status = self.paint(code, &format!("{sign} {word:<7}"));
        let head = format!("{:<width$}  ", fact.name, width = self.name_width);
        let indent = BEFORE_NAME + self.name_width + 2;
        let first = BEFORE_NAME + head.chars().count();
        let _ = write!(text, "  {status}  {head}");
        self.wrap(text, &fact.value, first, indent);
        if let Some(hint) = &fact.hint {
            let _ = write!(text, "{:indent$}", "");
            self.wrap(text, &format!("-> {hint}"), indent, indent + 3);
        }
    }

    /// Writes words, from column `at`, breaking lines before the edge and going on at column `indent`. A word that is
    /// longer than a line stands whole: a command that is cut in two can't be copied.
    fn wrap(&self, text: &mut String, words: &str, at: usize, indent: usize) {
        let mut column = at;
        for (index, word) in words.split_whitespace().enumerate() {
            let length = word.chars().count();
            if index > 0 && column + 1 + length > self.width {
                let _ = write!(text, "\n{:indent$}", "");
                column = indent;
            } else if index > 0 {
                text.push(' ');
                column += 1;
            }
            text.push_str(word);
            column += length;
        }
        text.push('\n');
    }

    fn paint(&self, code: &str, words: &str) -> String {
        if self.colour { format!("\x1b[{code}m{words}\x1b[0m") } else { words.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(area: &str, name: &str, value: &str, status: Status, hint: Option<&str>) -> Fact {
        Fact { area: area.into(), name: name.into(), value: value.into(), status, hint: hint.map(str::to_owned) }
    }

    fn host(facts: Vec<Fact>) -> Host {
        Host {
            cpu: "Some CPU".into(),
            cpus: 2,
            memory_bytes: 4 << 30,
            kernel: "6.18.0".into(),
            hypervisor: None,
            kvm_driver: None,
            guest_kernel_speed: None,
            cgroup: "v2".into(),
            emulated: false,
            facts,
        }
    }

    fn sample() -> Host {
        host(vec![
            fact("kvm", "/dev/kvm", "not there", Status::Missing, Some("sudo modprobe kvm_intel")),
            fact("memory", "total", "4.0 GiB", Status::Info, None),
            fact(
                "memory",
                "huge pages (THP)",
                "always: a touch of one page may cost 2 MiB, so resident sizes jump and jump",
                Status::Warn,
                Some("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"),
            ),
            fact("memory", "swap", "none", Status::Ok, None),
        ])
    }

    #[test]
    fn a_page_has_areas_aligned_facts_and_hints_beneath() {
        let expected = "\
Some CPU, 2 CPUs, 4.0 GiB, Linux 6.18.0

kvm
  x missing  /dev/kvm          not there
                               -> sudo modprobe kvm_intel

memory
  - info     total             4.0 GiB
  ! warn     huge pages (THP)  always: a touch of one page may cost 2 MiB, so
                               resident sizes jump and jump
                               -> echo madvise | sudo tee
                                  /sys/kernel/mm/transparent_hugepage/enabled
  + ok       swap              none

1 to know about (warn), 1 not there (missing); each has a hint above.
";
        assert_eq!(render(&sample(), 80, false), expected);
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let coloured = render(&sample(), 80, true);
        assert!(coloured.contains("\x1b[31mx missing\x1b[0m"));
        let mut plain = coloured;
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, render(&sample(), 80, false));
    }

    #[test]
    fn a_line_breaks_only_between_words() {
        let long = "a".repeat(120);
        let page = render(&host(vec![fact("x", "y", &format!("{long} b"), Status::Ok, None)]), 60, false);
        assert!(page.contains(&long));
    }

    #[test]
    fn a_host_without_a_flaw_is_told_so() {
        assert!(
            render(&host(vec![fact("x", "y", "z", Status::Ok, None)]), 80, false).ends_with("\nNothing to mend.\n")
        );
    }

    #[test]
    fn json_is_the_host_object_of_a_run() {
        let host = sample();
        let text = Examination { host: host.clone(), form: Form::Json }.to_string();
        assert_eq!(serde_json::from_str::<Host>(&text).unwrap(), host);
    }
}
