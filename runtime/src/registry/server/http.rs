//! The way in: connections, and what each request is handed to.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{ALLOW, EXPECT, HeaderMap, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::reply::{Content, Problem, Reply};
use super::route::{Query, Route};
use super::{Registry, ServeError};

/// How long a client may send nothing.
pub(super) const SILENCE: Duration = Duration::from_mins(1);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at once; those beyond wait in the kernel's queue.
const MOST: usize = 1024;
/// What hyper reads in.
const BUFFER: usize = 64 << 10;
/// What is read of a body that nobody wants, so that the client gets to read the reply.
const UNWANTED: usize = 8 << 20;

/// A request's headers, and its body until somebody takes it.
pub(super) struct Sent {
    pub(super) headers: HeaderMap,
    body: Option<Incoming>,
}

impl Sent {
    pub(super) fn take_body(&mut self) -> Option<Incoming> {
        self.body.take()
    }

    pub(super) fn body(&mut self) -> Option<&mut Incoming> {
        self.body.as_mut()
    }

    /// Reads past a body that nobody took: a client that is still sending when the connection closes would see a broken
    /// pipe, and not why.
    async fn drain(&mut self) {
        let Some(mut body) = self.take_body().filter(|_| !self.headers.contains_key(EXPECT)) else { return };
        let mut left = UNWANTED;
        while let Ok(Some(Ok(frame))) = timeout(HANDSHAKE, body.frame()).await {
            let length = frame.data_ref().map_or(0, bytes::Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    }
}

/// Takes connections until it is told to stop. Those that are open end with the process.
pub(super) async fn accept(registry: Arc<Registry>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let places = Arc::new(Semaphore::new(MOST));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, for one: that passes.
                eprintln!("warning: cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (registry, tls) = (Arc::clone(&registry), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            converse(registry, stream, tls).await;
        });
    }
}

/// One connection. Its errors are its client's: who goes away in the middle is nobody's business here.
async fn converse(registry: Arc<Registry>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    // Replies are written whole; to wait for more would only make each of them later.
    drop(stream.set_nodelay(true));
    match tls {
        None => exchange(registry, stream).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                exchange(registry, stream).await;
            }
        }
    }
}

async fn exchange(registry: Arc<Registry>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(move |request| {
        let registry = Arc::clone(&registry);
        async move { Ok::<_, Infallible>(registry.answer(request).await) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(SILENCE).max_buf_size(BUFFER);
    // A client that has said all it will (`shutdown`) may still be waiting for the answer.
    connection.half_close(true);
    drop(connection.serve_connection(TokioIo::new(stream), service).await);
}

impl Registry {
    /// Answers a request, whatever it is.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Content> {
        let (parts, body) = request.into_parts();
        let mut sent = Sent { headers: parts.headers, body: Some(body) };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let outcome = self.obey(&parts.method, parts.uri.path(), &query, &mut sent).await;
        sent.drain().await;
        let reply = outcome.unwrap_or_else(Problem::reply);
        reply.header("docker-distribution-api-version", "registry/2.0").finish()
    }

    async fn obey(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        query: &Query,
        sent: &mut Sent,
    ) -> Result<Reply, Problem> {
        if let Some(users) = &self.users {
            users.admit(&sent.headers).await?;
        }
        let route = Route::parse(path)?;
        if *method == Method::HEAD {
            // RFC 9110, 14.2: a range is for GET alone.
            sent.headers.remove(RANGE);
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if self.read_only && !reads {
            let message = "this registry is read-only";
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message).with(ALLOW, "GET, HEAD"));
        }
        match (method.as_str(), &route) {
            ("GET" | "HEAD", Route::Page) => self.page(),
            ("GET" | "HEAD", Route::Base) => Ok(Reply::text(StatusCode::OK, "application/json", "{}")),
            ("GET" | "HEAD", Route::Catalog) => self.list_repositories(query),
            ("GET" | "HEAD", Route::Tags(name)) => self.list_tags(name, query),
            ("GET" | "HEAD", Route::Referrers(name, digest)) => self.list_referrers(name, digest, query),
            ("GET" | "HEAD", Route::Manifest(name, reference)) => self.get_manifest(name, reference, &sent.headers),
            ("PUT", Route::Manifest(name, reference)) => self.put_manifest(name, reference, query, sent).await,
            ("DELETE", Route::Manifest(name, reference)) => self.delete_manifest(name, reference),
            ("GET" | "HEAD", Route::Blob(name, digest)) => self.get_blob(name, digest, &sent.headers),
            ("DELETE", Route::Blob(name, digest)) => self.delete_blob(name, digest),
            ("POST", Route::Uploads(name)) => self.begin_upload(name, query, sent).await,
            ("GET" | "HEAD", Route::Upload(name, id)) => self.upload_status(name, id).await,
            ("PATCH", Route::Upload(name, id)) => self.append(name, id, sent).await,
            ("PUT", Route::Upload(name, id)) => self.complete(name, id, query, sent).await,
            ("DELETE", Route::Upload(name, id)) => self.cancel(name, id).await,
            (_, route) => {
                Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is unsupported")
                    .with(ALLOW, allowed(route)))
            }
        }
    }
}

fn allowed(route: &Route) -> &'static str {
    match route {
        Route::Page | Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => "GET, HEAD",
        Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
        Route::Blob(..) => "GET, HEAD, DELETE",
        Route::Uploads(_) => "POST",
        Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
    }
}

/// Opens the port.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Reads what TLS needs.
pub(super) fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ServeError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| ServeError::Io { attempt: "read", path: path.clone(), source }
    };
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::Pem { path: path.clone(), source }
    };
    let file = BufReader::new(File::open(certificate).map_err(io(certificate))?);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(file).collect();
    let chain = chain.map_err(pem(certificate))?;
    let file = BufReader::new(File::open(key).map_err(io(key))?);
    let secret = PrivateKeyDer::from_pem_reader(file).map_err(pem(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
    let mut config = config.map_err(|source| ServeError::Certificate { path: certificate.to_owned(), source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
