//! What the command says when something is wrong: on standard error, and in the log that its caller reads.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;

use isolab_runtime::chain;
use isolab_runtime::container::{ContainerError, ShieldError, TemplateError, rfc3339, since_epoch};
use serde_json::json;

use crate::cli::LogFormat;

/// What the command itself can say went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Shield(ShieldError),
    #[error("cannot record steps")]
    Recorder(#[source] io::Error),
    #[error("cannot write {to}")]
    Write { to: String, source: io::Error },
    #[error("cannot read {from}")]
    Read { from: String, source: io::Error },
    #[error("{from} holds no limits")]
    Limits { from: String, source: serde_json::Error },
    #[error("--systemd-cgroup asks for cgroups that systemd makes, and this runtime makes its own")]
    Systemd,
}

impl Failure {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Container(error) => return error.hint(),
            Self::Template(TemplateError::Exists { .. }) => {
                "choose another folder with --bundle, or move the file away"
            }
            Self::Systemd => {
                "choose the cgroupfs driver: `native.cgroupdriver=cgroupfs` for dockerd, `cgroup_manager = \"cgroupfs\"` \
                 for podman, `SystemdCgroup = false` for containerd"
            }
            Self::Limits { .. } => {
                "it must have the form of linux.resources in config.json, such as {\"pids\":{\"limit\":10}}"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// Where errors and warnings go.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    log: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Voice {
    pub(crate) fn new(log: Option<PathBuf>, format: LogFormat, debug: bool) -> Self {
        Self { log, format, debug }
    }

    /// `error:` with the whole chain and, where there is one, `hint:`. The status is runc's: 1, whatever it was.
    pub(crate) fn complain(&self, failure: &Failure) -> u8 {
        let (text, hint) = (chain(failure), failure.hint());
        eprintln!("error: {text}");
        if let Some(hint) = &hint {
            eprintln!("hint: {hint}");
        }
        if let Err(error) = self.append("error", &text, hint.as_deref()) {
            eprintln!("warning: {}", chain(&error));
        }
        super::FAILURE
    }

    pub(crate) fn warn(&self, text: &str) {
        eprintln!("warning: {text}");
        if let Err(error) = self.append("warning", text, None) {
            eprintln!("warning: {}", chain(&error));
        }
    }

    /// Logs what was asked for, where that is wanted. Fails where the log cannot be written: better now than at an error.
    pub(crate) fn debug(&self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.debug { self.append("debug", &text(), None) } else { Ok(()) }
    }

    fn append(&self, level: &str, text: &str, hint: Option<&str>) -> Result<(), Failure> {
        let Some(path) = &self.log else { return Ok(()) };
        let time = rfc3339(since_epoch());
        let line = match self.format {
            LogFormat::Json => {
                let mut line = json!({ "level": level, "msg": text, "time": time });
                if let (Some(hint), Some(object)) = (hint, line.as_object_mut()) {
                    object.insert("hint".to_owned(), hint.into());
                }
                line.to_string()
            }
            LogFormat::Text => {
                let hint = hint.map(|hint| format!(" hint={hint:?}")).unwrap_or_default();
                format!("time={time:?} level={level} msg={text:?}{hint}")
            }
        };
        // One write(2) of a whole line at the end of the file: other commands may be writing there too.
        let opened = OpenOptions::new().append(true).create(true).open(path);
        let written = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|source| Failure::Write { to: path.display().to_string(), source })
    }
}
