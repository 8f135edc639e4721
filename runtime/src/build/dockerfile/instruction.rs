//! What a line asks for.

use std::time::Duration;

use super::error::Problem;
use super::lines::{HereDocument, Line, first_word};
use super::mount::RunMount;
use super::words;

/// All there are, for guessing what was meant.
pub(super) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction; texts have their quotes and variables still in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Begins a stage.
    From {
        /// The image or stage to begin with.
        image: String,
        /// The platform that is asked for.
        platform: Option<String>,
        /// What the stage is called, in lower case.
        name: Option<String>,
    },
    /// Variables of the build, some with a value to use where none is given.
    Arg(Vec<(String, Option<String>)>),
    /// Variables of the build and of the image.
    Env(Vec<(String, String)>),
    /// Notes about the image.
    Label(Vec<(String, String)>),
    /// A program to run in the image so far.
    Run(Run),
    /// Files to add.
    Copy(Copy),
    /// Where programs run.
    Workdir(String),
    /// As whom they run.
    User(String),
    /// What a container runs.
    Entrypoint(Command),
    /// What it runs, or with which arguments, if nothing else is said.
    Cmd(Command),
    /// Ports that are served.
    Expose(Vec<String>),
    /// Folders that are kept apart from the container's other changes.
    Volume(Vec<String>),
    /// What runs commands that are written as for a shell.
    Shell(Vec<String>),
    /// The signal that asks a container to end.
    StopSignal(String),
    /// How to find out whether a container works.
    Healthcheck(Health),
    /// An instruction for images that are built upon this one.
    Onbuild(String),
    /// Who made it (an old form of LABEL).
    Maintainer(String),
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A line for a shell.
    Shell(String),
    /// Word by word (`["a", "b"]`).
    Exec(Vec<String>),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to run.
    pub command: Command,
    /// What a shell reads behind it.
    pub documents: Vec<HereDocument>,
    /// Whether it may use the network.
    pub network: bool,
    /// What it sees besides the image.
    pub mounts: Vec<RunMount>,
}

/// COPY, and ADD, which also unpacks archives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// Whether it is ADD.
    pub add: bool,
    /// The stage or image that files come from; the build's folder where it is absent.
    pub from: Option<String>,
    /// The new owner.
    pub chown: Option<String>,
    /// The new mode, in octal.
    pub chmod: Option<String>,
    /// Patterns of what to leave out.
    pub exclude: Vec<String>,
    /// What the file behind an address has to be: its digest.
    pub checksum: Option<String>,
    /// What to copy.
    pub sources: Vec<String>,
    /// Files that are written in the Dockerfile itself.
    pub documents: Vec<HereDocument>,
    /// Where to.
    pub to: String,
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// The test; nothing for `NONE`.
    pub command: Option<Command>,
    /// Time between two tests.
    pub interval: Option<Duration>,
    /// How long a test may take.
    pub timeout: Option<Duration>,
    /// How long failures don't count.
    pub start_period: Option<Duration>,
    /// The time between tests in that period.
    pub start_interval: Option<Duration>,
    /// So many failures in a row are one.
    pub retries: Option<u32>,
}

impl Instruction {
    pub(super) fn read(line: &Line, escape: char) -> Result<Self, Problem> {
        let known = KEYWORDS.iter().copied().find(|known| *known == line.keyword);
        let keyword = known.ok_or_else(|| Problem::Unknown { keyword: line.keyword.clone() })?;
        if !matches!(keyword, "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK")
            && let Some((flag, _)) = line.flags.first()
        {
            return Err(Problem::Flag { keyword, flag: format!("--{flag}") });
        }
        let rest = line.rest.as_str();
        if rest.is_empty() && !matches!(keyword, "CMD" | "ENTRYPOINT") {
            return Err(Problem::Form { keyword, form: "an argument" });
        }
        let read = Words { keyword, rest, escape };
        Ok(match keyword {
            "FROM" => from(line, &read)?,
            "ARG" => Self::Arg(read.arguments()?),
            "ENV" => Self::Env(read.pairs()?),
            "LABEL" => Self::Label(read.pairs()?),
            "RUN" => Self::Run(run(line)?),
            "COPY" | "ADD" => Self::Copy(copy(line, &read)?),
            "WORKDIR" => Self::Workdir(rest.to_owned()),
            "USER" => Self::User(rest.to_owned()),
            "ENTRYPOINT" => Self::Entrypoint(command(rest)),
            "CMD" => Self::Cmd(command(rest)),
            "EXPOSE" => Self::Expose(read.words()?),
            "VOLUME" => Self::Volume(read.list()?),
            "SHELL" => match json(rest) {
                Some(words) if !words.is_empty() => Self::Shell(words),
                _ => return Err(Problem::Form { keyword, form: "a list of quoted words: [\"/bin/sh\", \"-c\"]" }),
            },
            "STOPSIGNAL" => Self::StopSignal(read.one()?),
            "HEALTHCHECK" => Self::Healthcheck(health(line)?),
            "ONBUILD" => onbuild(line)?,
            _ => Self::Maintainer(rest.to_owned()),
        })
    }
}

/// Arguments to be split.
struct Words<'a> {
    keyword: &'static str,
    rest: &'a str,
    escape: char,
}

impl Words<'_> {
    fn words(&self) -> Result<Vec<String>, Problem> {
        words::split(self.rest, self.escape)
    }

    fn one(&self) -> Result<String, Problem> {
        match <[String; 1]>::try_from(self.words()?) {
            Ok([word]) => Ok(word),
            Err(_) => Err(Problem::Form { keyword: self.keyword, form: "exactly one argument" }),
        }
    }

    /// `["a", "b"]`, or words.
    fn list(&self) -> Result<Vec<String>, Problem> {
        json(self.rest).map_or_else(|| self.words(), Ok)
    }

    fn arguments(&self) -> Result<Vec<(String, Option<String>)>, Problem> {
        let split = |word: String| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let all: Vec<_> = self.words()?.into_iter().map(split).collect();
        if all.iter().any(|(name, _)| name.is_empty()) {
            return Err(Problem::Form { keyword: self.keyword, form: "NAME or NAME=VALUE" });
        }
        Ok(all)
    }

    /// `a=1 b="2 3"`, or the old form `a 1`, whose value is the rest of the line.
    fn pairs(&self) -> Result<Vec<(String, String)>, Problem> {
        let form = Problem::Form { keyword: self.keyword, form: "NAME=VALUE, with quotes around blanks" };
        let (first, behind) = first_word(self.rest);
        if !first.contains('=') {
            return if behind.is_empty() { Err(form) } else { Ok(vec![(first.to_owned(), behind.to_owned())]) };
        }
        let split = |word: String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs: Option<Vec<_>> = self.words()?.into_iter().map(split).collect();
        pairs.filter(|pairs| pairs.iter().all(|(name, _)| !name.is_empty())).ok_or(form)
    }
}

/// A list of words as JSON; nothing where it is none, which is then a line for a shell.
fn json(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

fn command(text: &str) -> Command {
    json(text).map_or_else(|| Command::Shell(text.to_owned()), Command::Exec)
}

fn from(line: &Line, read: &Words<'_>) -> Result<Instruction, Problem> {
    let mut platform = None;
    for (flag, value) in &line.flags {
        match flag.as_str() {
            "platform" => platform.clone_from(value),
            _ => return Err(Problem::Flag { keyword: "FROM", flag: format!("--{flag}") }),
        }
    }
    let words = read.words()?;
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, between, name] if between.eq_ignore_ascii_case("as") => (image, Some(name.to_ascii_lowercase())),
        _ => return Err(Problem::Form { keyword: "FROM", form: "IMAGE or IMAGE AS NAME" }),
    };
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    match name {
        Some(name) if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || !name.chars().all(allowed) => {
            Err(Problem::StageName { name })
        }
        name => Ok(Instruction::From { image: image.clone(), platform, name }),
    }
}

fn run(line: &Line) -> Result<Run, Problem> {
    let mut run =
        Run { command: command(&line.rest), documents: line.documents.clone(), network: true, mounts: Vec::new() };
    for (flag, value) in &line.flags {
        match (flag.as_str(), value.as_deref()) {
            ("network", Some("none")) => run.network = false,
            ("network", Some("default" | "host")) | ("security", Some("sandbox")) => {}
            ("mount", Some(text)) => run.mounts.push(RunMount::read(text)?),
            ("network", value) => {
                let value = value.unwrap_or_default().to_owned();
                return Err(Problem::Value { flag: "--network", value, form: "default, host or none" });
            }
            _ => return Err(Problem::Flag { keyword: "RUN", flag: format!("--{flag}") }),
        }
    }
    Ok(run)
}

fn copy(line: &Line, read: &Words<'_>) -> Result<Copy, Problem> {
    let mut copy = Copy { add: read.keyword == "ADD", documents: line.documents.clone(), ..Copy::default() };
    for (flag, value) in &line.flags {
        match (flag.as_str(), value) {
            ("from", Some(_)) if !copy.add => copy.from.clone_from(value),
            ("chown", Some(_)) => copy.chown.clone_from(value),
            ("chmod", Some(_)) => copy.chmod.clone_from(value),
            ("checksum", Some(_)) if copy.add => copy.checksum.clone_from(value),
            ("exclude", Some(pattern)) => copy.exclude.push(pattern.clone()),
            // Its files are a layer that would be the same on any other: so is every layer here.
            ("link", _) => {}
            _ => return Err(Problem::Flag { keyword: read.keyword, flag: format!("--{flag}") }),
        }
    }
    let mut words = read.list()?;
    let to = words.pop().unwrap_or_default();
    words.retain(|word| !copy.documents.iter().any(|document| document.word == *word));
    if words.is_empty() && copy.documents.is_empty() {
        return Err(Problem::Form { keyword: read.keyword, form: "SOURCE... DESTINATION" });
    }
    (copy.sources, copy.to) = (words, to);
    Ok(copy)
}

fn onbuild(line: &Line) -> Result<Instruction, Problem> {
    let keyword = first_word(&line.rest).0.to_ascii_uppercase();
    if matches!(keyword.as_str(), "FROM" | "ONBUILD" | "MAINTAINER") {
        return Err(Problem::Onbuild { keyword });
    }
    if !KEYWORDS.contains(&keyword.as_str()) {
        return Err(Problem::Unknown { keyword });
    }
    let mut text = line.rest.clone();
    for document in &line.documents {
        text.push_str(&document.below());
    }
    Ok(Instruction::Onbuild(text))
}

fn health(line: &Line) -> Result<Health, Problem> {
    let mut health = Health::default();
    for (flag, value) in &line.flags {
        let value = value.as_deref().unwrap_or_default();
        let place = match flag.as_str() {
            "interval" => &mut health.interval,
            "timeout" => &mut health.timeout,
            "start-period" => &mut health.start_period,
            "start-interval" => &mut health.start_interval,
            "retries" => {
                let form = "a number";
                let wrong = |_| Problem::Value { flag: "--retries", value: value.to_owned(), form };
                health.retries = Some(value.parse().map_err(wrong)?);
                continue;
            }
            _ => return Err(Problem::Flag { keyword: "HEALTHCHECK", flag: format!("--{flag}") }),
        };
        let wrong = || Problem::Value { flag: "a time", value: value.to_owned(), form: "a time such as 30s or 1m30s" };
        *place = Some(duration(value).ok_or_else(wrong)?);
    }
    let form = Problem::Form { keyword: "HEALTHCHECK", form: "NONE or CMD and a command" };
    match first_word(&line.rest) {
        (word, "") if word.eq_ignore_ascii_case("none") => Ok(health),
        (word, rest) if word.eq_ignore_ascii_case("cmd") && !rest.is_empty() => {
            health.command = Some(command(rest));
            Ok(health)
        }
        _ => Err(form),
    }
}

/// A time as Go writes it: numbers, each with its unit.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|letter: char| !matches!(letter, '0'..='9' | '.'))?);
        let unit = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = next;
    }
    Duration::try_from_secs_f64(total).ok().filter(|_| !text.is_empty())
}
