//! Passwords, where docker keeps them: in `config.json`, or with a program that it names.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::ClientError;

/// What docker calls its own registry in that file.
const DOCKERS: &str = "https://index.docker.io/v1/";

/// What docker's credential helpers call the user where the secret is an identity token.
const NOBODY: &str = "<token>";

/// A user and a password, or a token that a registry's authority has given for them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password, or a token that stands for it.
    pub password: String,
}

impl Credentials {
    /// A token that stands for a user who has logged in: only the registry's authority understands it.
    pub(super) fn identity(token: &str) -> Self {
        Self { user: NOBODY.to_owned(), password: token.to_owned() }
    }

    /// The identity token, if it is one.
    pub(super) fn as_identity(&self) -> Option<&str> {
        (self.user == NOBODY).then_some(self.password.as_str())
    }

    /// The header that tells a registry.
    pub(super) fn header(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// The file.
#[derive(Debug, Clone)]
pub struct Config {
    path: PathBuf,
}

impl Config {
    /// That of the calling user: in `$DOCKER_CONFIG`, or `~/.docker`.
    pub fn of_user() -> Option<Self> {
        let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
        let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
        Some(Self { path: folder.join("config.json") })
    }

    /// The password for a registry.
    pub fn find(&self, registry: &str) -> Result<Option<Credentials>, ClientError> {
        let document = self.read()?;
        if let Some(helper) = helper(&document, registry) {
            return ask(&helper, registry);
        }
        let auths = document.get("auths").and_then(Value::as_object);
        let entry = auths.and_then(|auths| keys(registry).iter().find_map(|key| auths.get(key.as_str())));
        let token = entry.and_then(|entry| entry.get("identitytoken")?.as_str()).filter(|token| !token.is_empty());
        if let Some(token) = token {
            return Ok(Some(Credentials::identity(token)));
        }
        let encoded = entry.and_then(|entry| entry.get("auth")?.as_str()).and_then(|text| STANDARD.decode(text).ok());
        let text = encoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
        Ok(pair.map(|(user, password)| Credentials { user: user.to_owned(), password: password.to_owned() }))
    }

    /// Keeps a password. Answers whether it can be read in the file now.
    pub fn keep(&self, registry: &str, credentials: &Credentials) -> Result<bool, ClientError> {
        let mut document = self.read()?;
        if let Some(helper) = helper(&document, registry) {
            let input =
                json!({ "ServerURL": key(registry), "Username": credentials.user, "Secret": credentials.password });
            run(&helper, "store", &input.to_string())?;
            return Ok(false);
        }
        let entry = match credentials.as_identity() {
            Some(token) => json!({ "auth": STANDARD.encode(format!("{NOBODY}:")), "identitytoken": token }),
            None => json!({ "auth": STANDARD.encode(format!("{}:{}", credentials.user, credentials.password)) }),
        };
        let auths = document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(key(registry), entry);
        }
        self.write(&document)?;
        Ok(true)
    }

    /// Forgets a password. Answers whether there was one.
    pub fn forget(&self, registry: &str) -> Result<bool, ClientError> {
        let mut document = self.read()?;
        if let Some(helper) = helper(&document, registry) {
            let known = ask(&helper, registry)?.is_some();
            if known {
                run(&helper, "erase", &key(registry))?;
            }
            return Ok(known);
        }
        let mut found = false;
        if let Some(auths) = document.get_mut("auths").and_then(Value::as_object_mut) {
            for key in keys(registry) {
                found |= auths.remove(&key).is_some();
            }
        }
        if found {
            self.write(&document)?;
        }
        Ok(found)
    }

    fn read(&self) -> Result<Map<String, Value>, ClientError> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
            Err(error) => Err(self.failed("read", error)),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| self.failed("understand", error.into())),
        }
    }

    /// Replaces the file at once, readable by nobody else.
    fn write(&self, document: &Map<String, Value>) -> Result<(), ClientError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let new = self.path.with_extension(format!("json.{}", std::process::id()));
        let written = DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
            let text = serde_json::to_string_pretty(document).map_err(io::Error::from)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        });
        written.map_err(|error| self.failed("write", error))
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> ClientError {
        ClientError::Config { attempt, path: self.path.clone(), source }
    }
}

/// The key that a registry's password is written under.
fn key(registry: &str) -> String {
    if registry == "docker.io" { DOCKERS.to_owned() } else { registry.to_owned() }
}

/// The keys that it may be found under: older clients wrote addresses.
fn keys(registry: &str) -> [String; 4] {
    let address = |scheme| format!("{scheme}://{registry}");
    [key(registry), registry.to_owned(), address("https"), address("http")]
}

/// The program that keeps passwords for a registry, if one does.
fn helper(document: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = document.get("credHelpers").and_then(|helpers| helpers.get(key(registry))).and_then(Value::as_str);
    let name = own.or_else(|| document.get("credsStore").and_then(Value::as_str)).filter(|name| !name.is_empty())?;
    // A name of a program, and no path to anything else.
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        .then(|| format!("docker-credential-{name}"))
}

fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>, ClientError> {
    let answer = match run(helper, "get", &key(registry)) {
        // The protocol has no other way to say that there is none.
        Err(ClientError::Helper { reason, .. }) if reason.contains("credentials not found") => return Ok(None),
        other => other?,
    };
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    let text = |field: &str| answer.get(field).and_then(Value::as_str).map(str::to_owned);
    Ok(text("Username").zip(text("Secret")).map(|(user, password)| Credentials { user, password }))
}

/// Speaks docker's protocol of credential helpers: a verb, something on standard input, something on standard output.
fn run(helper: &str, verb: &str, input: &str) -> Result<String, ClientError> {
    let failed = |reason: String| ClientError::Helper { helper: helper.to_owned(), reason };
    let mut child = Command::new(helper)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that reads nothing may still answer.
        drop(pipe.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(failed(text.trim().to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::{Config, Credentials};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_password_is_kept_beside_what_else_is_there_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { path: folder.path().join("below/config.json") };
        let credentials = Credentials { user: "ann".to_owned(), password: "se:cret".to_owned() };
        assert!(config.find("localhost:5000").unwrap().is_none());
        assert!(config.keep("localhost:5000", &credentials).unwrap());
        assert!(config.keep("docker.io", &credentials).unwrap());
        assert!(config.find("localhost:5000").unwrap() == Some(credentials.clone()));
        assert!(config.find("docker.io").unwrap() == Some(credentials));
        assert!(std::fs::read_to_string(&config.path).unwrap().contains("https://index.docker.io/v1/"));
        assert_eq!(std::fs::metadata(&config.path).unwrap().permissions().mode() & 0o777, 0o600);
        let token = Credentials::identity("a token");
        assert!(config.keep("there:1", &token).unwrap());
        assert_eq!(config.find("there:1").unwrap().unwrap().as_identity(), Some("a token"));
        assert!(config.forget("localhost:5000").unwrap());
        assert!(!config.forget("localhost:5000").unwrap());
        assert!(config.find("docker.io").unwrap().is_some());
    }
}
