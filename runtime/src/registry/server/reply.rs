//! Replies: their headers, their bodies in small pieces, and errors in the form that the specification gives them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// What a file is read in: large enough for few system calls, small enough for many clients at once.
const PIECE: u64 = 64 << 10;

/// The body of a reply.
pub(super) enum Content {
    /// Some bytes, handed out once.
    Bytes(Option<Bytes>),
    /// A part of a file, read when the client is ready for it.
    Part { file: File, at: u64, end: u64 },
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = match &mut *self {
            Self::Bytes(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok),
            Self::Part { file, at, end } => (*at < *end).then(|| piece(file, at, *end)),
        };
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

impl Content {
    fn left(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Part { at, end, .. } => end.saturating_sub(*at),
        }
    }
}

/// Reads on in a file. What is missing of it is an error: the client was promised a length.
fn piece(file: &File, at: &mut u64, end: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; PIECE.min(end - *at) as usize];
    let read = file.read_at(&mut buffer, *at)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.truncate(read);
    *at += read as u64;
    Ok(buffer.into())
}

/// A reply that is being put together.
pub(super) struct Reply(Response<Content>);

impl Reply {
    /// One without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self::of(status, Content::Bytes(None))
    }

    /// One with a body of a kind.
    pub(super) fn text(status: StatusCode, kind: &str, text: impl Into<Bytes>) -> Self {
        Self::of(status, Content::Bytes(Some(text.into()))).with(CONTENT_TYPE, kind)
    }

    /// A document, 200.
    pub(super) fn json(kind: &str, document: &Value) -> Self {
        Self::text(StatusCode::OK, kind, document.to_string())
    }

    /// One with any body.
    pub(super) fn of(status: StatusCode, content: Content) -> Self {
        let mut response = Response::new(content);
        *response.status_mut() = status;
        Self(response)
    }

    /// Adds a header. Values are names and numbers of ours; one that could not be sent is left out.
    pub(super) fn with(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.0.headers_mut().append(name, value);
        }
        self
    }

    /// Adds a header that HTTP itself does not know.
    pub(super) fn header(self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.with(HeaderName::from_static(name), value)
    }

    /// The whole, with its length said also where the body is left out (HEAD).
    pub(super) fn finish(mut self) -> Response<Content> {
        let length = self.0.body().left();
        // RFC 9110, 8.6: a reply that has no content by its status has no length of one.
        let none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&self.0.status());
        if !none {
            self.0.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        self.0
    }
}

/// An error as a client hears of it (distribution-spec, "Error Codes").
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    errors: Vec<Value>,
    headers: Vec<(HeaderName, String)>,
}

impl Problem {
    /// One with a code of the specification.
    pub(super) fn new(status: StatusCode, code: &str, message: &str) -> Self {
        Self { status, errors: vec![json!({ "code": code, "message": message })], headers: Vec::new() }
    }

    /// The request cannot be meant so.
    pub(super) fn bad(code: &str, message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// What was asked for is not here.
    pub(super) fn missing(code: &str, message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// No such address.
    pub(super) fn no_such_page() -> Self {
        Self::missing("UNSUPPORTED", "nothing of a registry has this address")
    }

    /// Says what it is about; several problems at once are told in one reply.
    pub(super) fn about(mut self, detail: Value) -> Self {
        if let Some(error) = self.errors.last_mut().and_then(Value::as_object_mut) {
            error.insert("detail".to_owned(), detail);
        }
        self
    }

    /// Joins another to it.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.errors.extend(other.errors);
        self
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As a reply.
    pub(super) fn reply(self) -> Reply {
        let body = json!({ "errors": self.errors }).to_string();
        let reply = Reply::text(self.status, "application/json", body);
        self.headers.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value))
    }
}

/// The registry itself fails. Which file it was is the operator's to know, not the client's.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        let (status, message) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (StatusCode::INSUFFICIENT_STORAGE, "the registry has no room left")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "the registry cannot read or write its files"),
        };
        eprintln!("error: {message}: {error}");
        Self::new(status, "UNKNOWN", message)
    }
}
