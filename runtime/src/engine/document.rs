//! An image's configuration: what it is made of and what it runs (image-spec, config.md), with docker's own additions,
//! which the specification does not name and images have nevertheless: health check, shell, and what is put off for
//! images that are built upon this one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The whole document. The order of its fields is that of the text: the same image is the same text.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct Document {
    /// When it was made (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// For which processors, as Go names them.
    pub architecture: String,
    /// And which of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// For which kernel.
    pub os: String,
    /// What a container of it runs.
    #[serde(deserialize_with = "absent")]
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: Layers,
    /// How each came about.
    #[serde(deserialize_with = "absent")]
    pub history: Vec<Step>,
}

/// What a container runs, and how, if nothing else is said.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// As whom: `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "absent")]
    pub user: String,
    /// The ports that are served, such as `80/tcp`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "absent")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `NAME=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "absent")]
    pub env: Vec<String>,
    /// The program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program where no entry point is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Folders that are kept apart.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "absent")]
    pub volumes: BTreeMap<String, Value>,
    /// Where it runs.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "absent")]
    pub working_dir: String,
    /// Notes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "absent")]
    pub labels: BTreeMap<String, String>,
    /// What asks it to end.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "absent")]
    pub stop_signal: String,
    /// How to see whether it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for images that are built upon this one.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "absent")]
    pub on_build: Vec<String>,
    /// What runs commands that are written as for a shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// A health check; times in nanoseconds, 0 for the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, or `CMD` and words, or `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// Between two tests.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// For one.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// In which failures don't count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between tests in that period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// So many failures in a row are one.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

/// The layers, the lowest first.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Layers {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of their archives, uncompressed.
    pub diff_ids: Vec<String>,
}

/// How a layer came about, or a change that needed none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct Step {
    /// When (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What was said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether no file changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Default for Layers {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

impl Document {
    /// The image without a layer.
    pub fn scratch() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), ..Self::default() }
    }
}

impl RunConfig {
    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|pair| pair.1)
    }
}

/// Sets a variable in a list of `NAME=VALUE`, at its place if it has one.
pub fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name)) {
        Some(old) => *old = pair,
        None => env.push(pair),
    }
}

/// `null` is as good as nothing: Go writes it for what is empty.
fn absent<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::{Document, set_variable};

    #[test]
    fn what_go_writes_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["a"],"Volumes":{"/x":{}},
            "OnBuild":null,"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":[]},"history":null}"#;
        let document: Document = serde_json::from_str(text).expect("it is a configuration");
        assert_eq!(document.config.cmd.as_deref(), Some(["a".to_owned()].as_slice()));
        let again = serde_json::to_string(&document).expect("it can be written");
        assert_eq!(serde_json::from_str::<Document>(&again).expect("and read"), document);
    }

    #[test]
    fn a_variable_keeps_its_place() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_variable(&mut env, "A", "3");
        set_variable(&mut env, "C", "");
        assert_eq!(env, ["A=3", "B=2", "C="]);
    }
}
