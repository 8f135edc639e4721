//! The verbs that talk to containers: `attach`, `logs`, `exec`, `top`, and `start -a`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use isolab_runtime::engine::{self, Engine, KEYS, Manner, Other, Parting, Reading, WishError};

use super::flags::environment;
use crate::checkpoint::Place;
use crate::print;
use crate::voice::Failure;

/// How to leave a container, and what goes to it meanwhile.
#[derive(Args)]
pub(crate) struct Way {
    /// The keys that leave the container running
    #[arg(long, value_name = "KEYS", default_value = KEYS)]
    detach_keys: String,
    /// Whether signals go on to the container
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
}

impl Way {
    pub(crate) fn manner(&self, input: bool) -> Result<Manner, WishError> {
        let keys = engine::parse_keys(&self.detach_keys)?;
        Ok(Manner { input, output: true, errors: true, signals: self.sig_proxy, keys })
    }
}

#[derive(Args)]
pub(crate) struct Start {
    /// Talk to it, and end with its status
    #[arg(short, long)]
    attach: bool,
    /// Let it hear what is typed
    #[arg(short, long)]
    interactive: bool,
    /// Bring it back from what `checkpoint create` has written of it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["attach", "interactive"])]
    checkpoint: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    way: Way,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Start {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        if let Some(checkpoint) = &self.checkpoint {
            let back = |name: &str| engine.start_from(name, checkpoint, self.place.folder.as_deref()).map(drop);
            return super::each(&self.containers, back);
        }
        if !self.attach && !self.interactive {
            return super::each(&self.containers, |name| engine.start(name).map(drop));
        }
        let [container] = self.containers.as_slice() else {
            let text = self.containers.join(" ");
            return Err(WishError { text, expected: "one container: there is one place to talk at" }.into());
        };
        let record = engine.find(container)?;
        if !record.wants_keeper() {
            engine.start(container)?;
            return Ok(engine.wait(container)?.unwrap_or(255) as u8);
        }
        Ok(code(engine.start_and_attach(container, &self.way.manner(self.interactive)?)?))
    }
}

#[derive(Args)]
pub(crate) struct Attach {
    /// Don't let it hear what is typed
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    way: Way,
    /// Its name or id
    container: String,
}

impl Attach {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        Ok(code(engine.attach_to(&self.container, &self.way.manner(!self.no_stdin)?)?))
    }
}

fn code(parting: Parting) -> u8 {
    match parting {
        Parting::Ended(code) => code as u8,
        Parting::Left => 0,
        Parting::Lost => 1,
    }
}

#[derive(Args)]
pub(crate) struct Logs {
    /// Wait for more, until the container has ended
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines; `all` for all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// Only what was printed since a time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = engine::parse_moment)]
    since: Option<String>,
    /// Only what was printed until a time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = engine::parse_moment)]
    until: Option<String>,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Its name or id
    container: String,
}

impl Logs {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let tail = match self.tail.as_str() {
            "all" => None,
            text => Some(text.parse().map_err(|_| WishError { text: text.to_owned(), expected: "a number, or all" })?),
        };
        let reading = Reading {
            follow: self.follow,
            tail,
            since: self.since.clone(),
            until: self.until.clone(),
            times: self.timestamps,
        };
        match engine.logs(&self.container, &reading, &mut io::stdout().lock(), &mut io::stderr().lock()) {
            Err(engine::EngineError::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(0),
            other => other.map(|()| 0).map_err(Failure::from),
        }
    }
}

#[derive(Args)]
pub(crate) struct Exec {
    /// Let it run in the background
    #[arg(short, long)]
    detach: bool,
    /// Let it hear what is typed
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; a name alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set variables, one a line of a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// As whom it runs
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Where it runs
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The container's name or id
    container: String,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        if self.tty && !self.detach && !io::stdin().is_terminal() {
            return Err(Failure::NoTerminal);
        }
        if !self.interactive {
            // As docker does: a program that was given no input reads its end.
            super::close_input()?;
        }
        let other = Other {
            command: self.command.clone(),
            environment: environment(&self.env_file, &self.env)?,
            user: self.user.clone(),
            folder: self.workdir.clone(),
            terminal: self.tty,
            detach: self.detach,
        };
        Ok(engine.exec(&self.container, &other)?.map_or(0, |ending| ending.code() as u8))
    }
}

/// `top`: the processes of a container.
pub(crate) fn top(engine: &Engine, container: &str) -> Result<u8, Failure> {
    let mut rows = vec![["UID", "PID", "PPID", "TIME", "CMD"].map(str::to_owned).to_vec()];
    for process in engine.top(container)? {
        let seconds = process.used.as_secs();
        let used = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let numbers = [process.uid.to_string(), process.pid.to_string(), process.parent.to_string()];
        rows.push(numbers.into_iter().chain([used, process.command]).collect());
    }
    print::text(&print::columns(&rows))?;
    Ok(0)
}
