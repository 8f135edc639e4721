//! Requests: sent with what lets them in, sent again where that may help, and led on where the registry says so.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Request, Response, Uri};
use ureq::{Body, SendBody};

use super::{Client, ClientError, LARGEST_MANIFEST};
use crate::image::Telling;

/// How often a request is sent, at most.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// However long the registry would like.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Nobody honest needs more; browsers stop at 20.
const REDIRECTS: usize = 5;
/// What is read of an error.
const LARGEST_ERROR: u64 = 64 << 10;

/// What a request brings along.
#[derive(Clone, Copy)]
pub(super) enum Load<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// A whole file, its size, and who hears how much of it has been sent.
    File(&'a File, u64, &'a dyn Fn(u64)),
}

/// A request before it is sent.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) method: &'a str,
    /// A path of the registry, or what it has given for one.
    pub(super) to: &'a str,
    /// What a token must be good for, such as `repository:NAME:pull`.
    pub(super) scope: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) load: Load<'a>,
}

/// A reply whose body was read.
pub(super) type Small = (Response<()>, Vec<u8>);

impl Client {
    /// Sends a request until it is answered well or for good. Answers 2xx, 404 and 416; all else is an error.
    pub(super) fn send(&self, asking: Asking<'_>) -> Result<Response<Body>, ClientError> {
        let mut pause = FIRST_PAUSE;
        for left in (0..TRIES).rev() {
            let outcome = self.send_once(asking);
            let wait = match &outcome {
                Ok(response) if !passes(response.status().as_u16()) => return self.judge(asking, outcome?),
                Ok(response) => asked_pause(response).unwrap_or(pause),
                Err(ClientError::Reach { source, .. }) if may_pass(source) => pause,
                Err(_) => return outcome,
            };
            if left == 0 {
                return outcome.and_then(|response| self.judge(asking, response));
            }
            sleep(wait.min(LONGEST_PAUSE));
            pause *= 2;
        }
        Err(self.nonsense("it never answers"))
    }

    /// A GET whose body is small. `None` for what is not there.
    pub(super) fn get(&self, to: &str, scope: &str, accept: Option<&str>) -> Result<Option<Small>, ClientError> {
        let accept = accept.map(|kinds| ("accept", kinds));
        let headers = accept.as_slice();
        let response = self.send(Asking { method: "GET", to, scope, headers, load: Load::Nothing })?;
        if response.status().as_u16() == 404 {
            return Ok(None);
        }
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        // One byte more than is allowed tells that there is more.
        let read = body.into_reader().take(LARGEST_MANIFEST + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.unreachable(error.into()))?;
        if bytes.len() as u64 > LARGEST_MANIFEST {
            return Err(self.nonsense(format!("a manifest of more than {LARGEST_MANIFEST} bytes")));
        }
        Ok(Some((Response::from_parts(parts, ()), bytes)))
    }

    /// Asks without a password whether a registry is there.
    pub(super) fn probe(&self, base: &str) -> Result<u16, ClientError> {
        let response = self.agent.get(format!("{base}/v2/")).call().map_err(|error| self.unreachable(error))?;
        Ok(response.status().as_u16())
    }

    pub(super) fn unreachable(&self, source: ureq::Error) -> ClientError {
        ClientError::Reach { host: self.registry.clone(), source: Box::new(source) }
    }

    /// The whole address of what a registry calls a location.
    pub(super) fn address(&self, to: &str) -> String {
        if to.starts_with('/') { format!("{}{to}", self.base) } else { to.to_owned() }
    }

    /// Sends, lets itself in when asked to, and follows redirects.
    fn send_once(&self, asking: Asking<'_>) -> Result<Response<Body>, ClientError> {
        let mut to = self.address(asking.to);
        let mut asked = false;
        for _ in 0..=REDIRECTS {
            // What proves who asks goes to the registry and to nobody that it sends us to.
            let known = self.is_own(&to).then(|| self.authorization(asking.scope)).flatten();
            let response = self.exchange(asking, &to, known.as_deref())?;
            match response.status().as_u16() {
                401 if self.is_own(&to) && !asked => {
                    let headers = response.headers().get_all("www-authenticate");
                    let headers: Vec<String> =
                        headers.iter().filter_map(|header| Some(header.to_str().ok()?.to_owned())).collect();
                    self.authorize(&headers, asking.scope)?;
                    asked = true;
                }
                301 | 302 | 303 | 307 | 308 if matches!(asking.method, "GET" | "HEAD") => {
                    let location = header(&response, "location").unwrap_or_default();
                    let next = self.address(location);
                    if to.starts_with("https://") && !next.starts_with("https://") {
                        return Err(self.redirects("to an address without TLS"));
                    }
                    if !next.starts_with("http://") && !next.starts_with("https://") {
                        return Err(self.redirects("to something that is no address"));
                    }
                    to = next;
                }
                _ => return Ok(response),
            }
        }
        Err(self.redirects("without end"))
    }

    fn exchange(&self, asking: Asking<'_>, to: &str, known: Option<&str>) -> Result<Response<Body>, ClientError> {
        let mut request = Request::builder().method(asking.method).uri(to);
        for (name, value) in asking.headers {
            request = request.header(*name, *value);
        }
        if let Some(known) = known {
            request = request.header("authorization", known);
        }
        let wrong = |_| self.nonsense(format!("{to:?} is no address"));
        let outcome = match asking.load {
            Load::Nothing if matches!(asking.method, "GET" | "HEAD") => {
                self.agent.run(request.body(()).map_err(wrong)?)
            }
            Load::Nothing => {
                let request = request.header("content-length", "0").body(SendBody::none()).map_err(wrong)?;
                self.agent.run(request)
            }
            Load::Bytes(bytes) => self.agent.run(request.body(bytes).map_err(wrong)?),
            Load::File(file, size, tell) => {
                let mut file = file;
                file.seek(SeekFrom::Start(0)).map_err(|error| self.unreachable(error.into()))?;
                let request = request.header("content-length", size.to_string());
                self.agent.run(request.body(SendBody::from_reader(&mut Telling::new(file, tell))).map_err(wrong)?)
            }
        };
        outcome.map_err(|error| self.unreachable(error))
    }

    /// Whether an address is the registry's own: the same scheme, host and port.
    fn is_own(&self, to: &str) -> bool {
        let origin = |text: &str| {
            let uri: Uri = text.parse().ok()?;
            Some((uri.scheme_str()?.to_owned(), uri.authority()?.to_string().to_ascii_lowercase()))
        };
        origin(to).is_some_and(|to| Some(to) == origin(&self.base))
    }

    fn redirects(&self, reason: &'static str) -> ClientError {
        ClientError::Redirect { host: self.registry.clone(), reason }
    }

    /// Makes an error of a status that is one.
    fn judge(&self, asking: Asking<'_>, response: Response<Body>) -> Result<Response<Body>, ClientError> {
        let status = response.status().as_u16();
        if matches!(status, 200..=299 | 404 | 416) {
            return Ok(response);
        }
        let host = self.registry.clone();
        if status == 401 {
            return Err(ClientError::Unauthorized { host, known: self.credentials.is_some() });
        }
        let request = format!("{} {}", asking.method, asking.to.split('?').next().unwrap_or_default());
        Err(ClientError::Refused { host, status, request, said: said(response) })
    }
}

/// A header as text.
pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The registry's own words, fit for a terminal.
fn said(response: Response<Body>) -> String {
    let mut bytes = Vec::new();
    // What cannot be read of an error is not worth another one.
    drop(response.into_body().into_reader().take(LARGEST_ERROR).read_to_end(&mut bytes));
    let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let errors = document.get("errors").and_then(Value::as_array).into_iter().flatten();
    let words = errors.filter_map(|error| error.get("message")?.as_str()).collect::<Vec<_>>().join("; ");
    let words: String = words.chars().filter(|letter| !letter.is_control()).take(300).collect();
    if words.is_empty() { words } else { format!(": {words}") }
}

/// Statuses that may be others in a moment.
fn passes(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

/// How long the registry would like us to wait.
fn asked_pause(response: &Response<Body>) -> Option<Duration> {
    header(response, "retry-after")?.parse().ok().map(Duration::from_secs)
}

/// Whether trying again may help. A certificate does not get better; a registry that is silent was waited for already.
fn may_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() != std::io::ErrorKind::ConnectionRefused,
        ureq::Error::Protocol(_) | ureq::Error::BodyStalled => true,
        _ => false,
    }
}
