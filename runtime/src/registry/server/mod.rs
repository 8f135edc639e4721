//! A registry in a folder: the OCI distribution specification 1.1 over HTTP.
//!
//! A client pushes blobs, then a manifest that names them by their digests, and gives it a tag; another fetches the
//! manifest by the tag, and the blobs by what it says. Everything is kept once, whoever has it, in files that `ls` shows
//! ([`storage`]); nothing is kept in memory but what is being computed. `http` takes requests, `route` understands their
//! addresses, and `blobs`, `manifests` and `lists` answer them.

mod auth;
mod blobs;
mod gc;
mod http;
mod lists;
mod manifests;
mod names;
mod page;
mod reply;
mod route;
mod storage;
mod uploads;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::Flock;
use tokio::signal::unix::{SignalKind, signal};

pub use gc::{Collected, collect_garbage};

use auth::Users;
use storage::Storage;
use uploads::Uploads;

/// Threads that bytes pass through. Each request's work is short: a piece of a file, a piece of a body.
const THREADS: usize = 4;
/// Threads for what takes long: hashing again, syncing, passwords.
const SLOW_THREADS: usize = 8;

/// How a registry is to be served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder that it is kept in.
    pub folder: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate chain and the key, as PEM files, for TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A file of users and bcrypt hashes; without it everyone may come in.
    pub htpasswd: Option<PathBuf>,
    /// Refuses whatever would change something.
    pub read_only: bool,
}

/// Why a registry cannot be served, or its garbage not be collected.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file or folder.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The port is taken, or forbidden.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
    /// Threads or signals.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The file of users is none.
    #[error("line {line} of {} is no user: {reason}", path.display())]
    Password {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A certificate or key is none.
    #[error("{} holds no certificate or key that can be read", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What the parser says.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate does not fit its key.
    #[error("cannot use the certificate {}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What the library says.
        source: rustls::Error,
    },
    /// Others use the folder in a way that does not go together with this.
    #[error("the registry in {} is in use", path.display())]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
    /// What is no registry must not be cleaned up as one.
    #[error("there is no registry in {}", path.display())]
    NoRegistry {
        /// Which folder.
        path: PathBuf,
    },
}

impl ServeError {
    /// What to try next, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("choose another address with --listen; port 0 takes a free one")
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 are for root: choose another with --listen")
            }
            Self::Password { .. } => Some("make the file with `htpasswd -cB FILE USER`"),
            Self::InUse { .. } => Some(
                "stop the registry first: garbage is what nobody needs, and a push that is under way says nobody what",
            ),
            Self::NoRegistry { .. } => Some("give the folder that `registry serve` was given"),
            _ => None,
        }
    }
}

/// A registry that is being served.
pub(crate) struct Registry {
    storage: Storage,
    uploads: Uploads,
    users: Option<Users>,
    read_only: bool,
    /// Tells those who collect garbage that this is in use; not needed by one that adds nothing.
    _claim: Option<Flock<std::fs::File>>,
}

/// Serves a registry until the process is asked to end (SIGINT, SIGTERM). `ready` is told where it listens.
pub fn serve(settings: &Settings, ready: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    let registry = Arc::new(Registry::open(settings)?);
    let tls = settings.tls.as_ref().map(|(certificate, key)| http::tls(certificate, key)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(SLOW_THREADS)
        .enable_io()
        .enable_time()
        .build()
        .map_err(ServeError::Start)?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).map_err(ServeError::Start)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(ServeError::Start)?;
        let listener = http::listen(settings.listen).await?;
        ready(listener.local_addr().map_err(ServeError::Start)?);
        let expiring = (!registry.read_only).then(|| tokio::spawn(expire(Arc::clone(&registry))));
        let accepting = tokio::spawn(http::accept(registry, listener, tls));
        std::future::poll_fn(|context| {
            let ended = terminated.poll_recv(context).is_ready() || interrupted.poll_recv(context).is_ready();
            if ended { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        accepting.abort();
        if let Some(expiring) = expiring {
            expiring.abort();
        }
        Ok(())
    })
}

/// Looks now and then for uploads that nobody will go on with.
async fn expire(registry: Arc<Registry>) {
    let mut hours = tokio::time::interval(Duration::from_hours(1));
    loop {
        hours.tick().await;
        let registry = Arc::clone(&registry);
        let outcome = tokio::task::spawn_blocking(move || gc::expire_uploads(&registry.storage)).await;
        if let Ok(Err(error)) = outcome {
            eprintln!("warning: cannot look for uploads that were given up: {error}");
        }
    }
}

impl Registry {
    fn open(settings: &Settings) -> Result<Self, ServeError> {
        let folder = &settings.folder;
        let io = |attempt, path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::Io { attempt, path, source }
        };
        let storage = if settings.read_only {
            if !folder.join("repositories").is_dir() {
                return Err(ServeError::NoRegistry { path: folder.clone() });
            }
            Storage::existing(folder)
        } else {
            Storage::open(folder).map_err(io("make", folder))?
        };
        let claim = if settings.read_only {
            None
        } else {
            let claim = Storage::claim(folder, false).map_err(io("lock", folder))?;
            Some(claim.ok_or_else(|| ServeError::InUse { path: folder.clone() })?)
        };
        let users = settings.htpasswd.as_deref().map(Users::read).transpose()?;
        Ok(Self { storage, uploads: Uploads::default(), users, read_only: settings.read_only, _claim: claim })
    }
}
