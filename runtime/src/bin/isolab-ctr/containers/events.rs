//! `events`: what happened, and what happens.

use clap::Args;
use isolab_runtime::container::{rfc3339, since_epoch};
use isolab_runtime::engine::template::Template;
use isolab_runtime::engine::{Engine, Event, WishError, parse_moment};
use serde_json::{Value, json};

use crate::print;
use crate::voice::Failure;

#[derive(Args)]
pub(crate) struct Events {
    /// Also what happens from now on (as is done where no --until is said)
    #[arg(long)]
    follow: bool,
    /// What happened since: a time, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// And until
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only what happened to these: type, event, container, image, volume, label
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// By a template, or `json`
    #[arg(long)]
    format: Option<String>,
}

impl Events {
    pub(crate) fn obey(&self, engine: &Engine) -> Result<u8, Failure> {
        let now = rfc3339(since_epoch());
        let time = |text: &Option<String>| text.as_deref().map(parse_moment).transpose();
        let (since, until) = (time(&self.since)?, time(&self.until)?);
        let filters = self.filter.iter().map(|text| filter(text)).collect::<Result<Vec<_>, _>>()?;
        let format = match self.format.as_deref() {
            None | Some("json") => None,
            Some(text) => Some(Template::parse(text)?),
        };
        let json = self.format.as_deref() == Some("json");
        let mut failed = None;
        // docker follows unless it is told when to stop; an end that is over by now needs no waiting.
        let follow = self.follow || until.as_ref().is_none_or(|until| *until > now);
        engine.events(since.as_deref(), until.as_deref(), follow, &mut |event| {
            if !fits(event, &filters) {
                return true;
            }
            let line = match &format {
                Some(template) => template.render(&document(event)).map_err(Failure::from),
                None if json => Ok(document(event).to_string()),
                None => Ok(told(event)),
            };
            let written = line.and_then(|line| print::text(&(line + "\n")));
            failed = written.err();
            failed.is_none()
        })?;
        failed.map_or(Ok(0), Err)
    }
}

/// docker's line: when, what to which, and more about it in parentheses.
fn told(event: &Event) -> String {
    let more: Vec<String> = event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let time = event.time();
    format!("{time} {} {} {} ({})", event.kind, event.action, event.id, more.join(", "))
}

/// docker's document.
fn document(event: &Event) -> Value {
    json!({
        "status": event.action, "id": event.id, "from": event.attributes.get("image"),
        "Type": event.kind, "Action": event.action, "ID": event.id,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local", "time": event.time_nano / 1_000_000_000, "timeNano": event.time_nano,
    })
}

fn filter(text: &str) -> Result<(&str, &str), WishError> {
    const KEYS: [&str; 6] = ["type", "event", "container", "image", "volume", "label"];
    match text.split_once('=') {
        Some((key, value)) if KEYS.contains(&key) => Ok((key, value)),
        _ => {
            let expected = "KEY=VALUE with type, event, container, image, volume or label";
            Err(WishError { text: text.to_owned(), expected })
        }
    }
}

/// Values of one key are alternatives, different keys are conditions.
fn fits(event: &Event, filters: &[(&str, &str)]) -> bool {
    let is = |key: &str, value: &str| match key {
        "type" => event.kind == value,
        "event" => event.action == value,
        "image" => event.attributes.get("image").is_some_and(|image| image == value),
        "label" => match value.split_once('=') {
            Some((name, value)) => event.attributes.get(name).is_some_and(|other| other == value),
            None => event.attributes.contains_key(value),
        },
        kind => {
            let named = event.attributes.get("name").is_some_and(|name| name == value);
            event.kind == kind && (named || event.id.starts_with(value))
        }
    };
    filters.iter().all(|(key, _)| filters.iter().any(|(other, value)| other == key && is(key, value)))
}
