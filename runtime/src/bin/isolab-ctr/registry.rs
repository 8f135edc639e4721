//! The verbs of registries.

mod mirror;
mod password;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use isolab_runtime::image::{Packing, Platform, Reference, Store};
use isolab_runtime::registry::client::{
    Client, ClientError, Config, Credentials, Options, Pulled, pull, pull_whole, push, push_whole,
};
use isolab_runtime::registry::server::{Settings, collect_garbage, serve};

use crate::bars::Bars;
use crate::cli::Global;
use crate::print;
use crate::voice::Failure;
use mirror::Mirror;

/// What docker's verbs take for the registry where none is said.
const DEFAULT: &str = "docker.io";
/// How many seconds a registry may say nothing.
const PATIENCE: u64 = 30;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Fetch an image from a registry
    Pull {
        /// Which of an index: OS/ARCHITECTURE[/VARIANT] [default: this machine's]
        #[arg(long)]
        platform: Option<Platform>,
        /// The whole index, with the images of all platforms
        #[arg(long, conflicts_with = "platform")]
        all_platforms: bool,
        #[command(flatten)]
        way: Way,
        /// Look here first for images of docker.io, or of REGISTRY; can be given several times. Without it,
        /// `$ISOLAB_REGISTRY_MIRROR` names them, with commas between
        #[arg(long = "registry-mirror", value_name = "[REGISTRY=]HOST[:PORT]")]
        mirrors: Vec<Mirror>,
        /// Print the image's id only
        #[arg(long, short)]
        quiet: bool,
        /// [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
        image: Reference,
    },
    /// Bring an image to a registry
    Push {
        #[command(flatten)]
        way: Way,
        /// How to pack layers that are not: gzip, zstd or none
        #[arg(long, value_name = "FORMAT", default_value = "gzip")]
        compression_format: Format,
        /// The whole index, with the images of all platforms that are here, as they are
        #[arg(long, conflicts_with = "compression_format")]
        all_platforms: bool,
        /// Print the manifest's digest only
        #[arg(long, short)]
        quiet: bool,
        /// [REGISTRY/]REPOSITORY[:TAG]
        image: Reference,
    },
    /// Keep a password for a registry, once it was found right
    Login {
        /// The user; asked for in a terminal where it is not said
        #[arg(long, short)]
        username: Option<String>,
        /// The password, for everyone to see who lists processes
        #[arg(long, short, conflicts_with = "password_stdin")]
        password: Option<String>,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        way: Way,
        /// The registry
        #[arg(default_value = DEFAULT)]
        registry: String,
    },
    /// Forget the password for a registry
    Logout {
        /// The registry
        #[arg(default_value = DEFAULT)]
        registry: String,
    },
    /// Keep images for others to fetch
    #[command(subcommand)]
    Registry(Registry),
}

/// How layers are packed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Gzip,
    Zstd,
    None,
}

impl From<Format> for Packing {
    fn from(format: Format) -> Self {
        match format {
            Format::Gzip => Self::Gzip,
            Format::Zstd => Self::Zstd,
            Format::None => Self::Plain,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Registry {
    /// Serve a registry from a folder, until SIGTERM or SIGINT
    Serve(Serve),
    /// Remove what no manifest needs; the registry must not be served meanwhile
    Gc {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// The registry's folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// A certificate chain (PEM): speak TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let in only the users of this file, which `htpasswd -B` makes
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Refuse whatever would change something
    #[arg(long)]
    read_only: bool,
    /// The folder to keep it in
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// How to get to a registry.
#[derive(Args)]
pub(crate) struct Way {
    /// Trust the certificates (*.crt) in this folder too
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Take any certificate, and do without TLS where there is none
    #[arg(long)]
    insecure: bool,
    /// How many seconds a registry may say nothing
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE)]
    timeout: u64,
}

impl Way {
    fn options(&self) -> Options {
        let patience = Duration::from_secs(self.timeout.max(1));
        Options { certificates: self.cert_dir.clone(), insecure: self.insecure, patience }
    }

    /// Connects with the password that is kept for a registry, if one is.
    pub(crate) fn connect(&self, registry: &str) -> Result<Client, Failure> {
        let known = Config::of_user().map(|config| config.find(registry)).transpose()?.flatten();
        Ok(Client::connect(registry, &self.options(), known)?)
    }

    /// Fetches an image from the first of its registry's mirrors that has it, or from the registry itself.
    fn pull(
        &self,
        mirrors: &[Mirror],
        store: &Store,
        image: &Reference,
        platform: &Platform,
        bars: &Bars,
    ) -> Result<Pulled, Failure> {
        self.first(mirrors, &image.registry, |client| pull(client, store, image, platform, bars))
    }

    /// Asks the mirrors of a registry, one after another, and then the registry itself.
    fn first<T>(
        &self,
        mirrors: &[Mirror],
        registry: &str,
        ask: impl Fn(&Client) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        for mirror in mirrors.iter().filter(|mirror| mirror.registry == registry) {
            match self.connect(&mirror.host).and_then(|client| Ok(ask(&client)?)) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    eprintln!("warning: not from the mirror {}: {}", mirror.host, isolab_runtime::chain(&error));
                }
            }
        }
        Ok(ask(&self.connect(registry)?)?)
    }
}

pub(crate) fn obey(verb: &Verb, global: &Global) -> Result<u8, Failure> {
    match verb {
        Verb::Registry(Registry::Serve(options)) => options.obey()?,
        Verb::Registry(Registry::Gc { dry_run, folder }) => {
            let collected = collect_garbage(folder, *dry_run)?;
            let (blobs, uploads, size) = (collected.blobs, collected.uploads, print::size(collected.bytes));
            let word = if *dry_run { "would remove" } else { "removed" };
            print::text(&format!("{word} {blobs} blobs and {uploads} abandoned uploads: {size}\n"))?;
        }
        Verb::Pull { platform, all_platforms, way, mirrors, quiet, image } => {
            let platform = platform.clone().unwrap_or_else(Platform::of_host);
            let (store, bars) = (global.store()?, Bars::new(*quiet));
            let mirrors = if mirrors.is_empty() { mirror::of_environment()? } else { mirrors.clone() };
            let (id, digest) = if *all_platforms {
                let digest = way.first(&mirrors, &image.registry, |client| pull_whole(client, &store, image, &bars))?;
                (digest, digest)
            } else {
                let pulled = way.pull(&mirrors, &store, image, &platform, &bars)?;
                (pulled.id, pulled.digest)
            };
            print::text(&if *quiet { format!("{id}\n") } else { format!("Digest: {digest}\n{image}\n") })?;
        }
        Verb::Push { way, compression_format, all_platforms, quiet, image } => {
            let (store, client, bars) = (global.store()?, way.connect(&image.registry)?, Bars::new(*quiet));
            let source = image.to_string();
            let pushed = if *all_platforms {
                push_whole(&client, &store, &source, image, &bars)?
            } else {
                push(&client, &store, &source, image, (*compression_format).into(), &bars)?
            };
            let (digest, size, tag) = (pushed.digest, pushed.size, image.tag_or_latest());
            let told = format!("{tag}: digest: {digest} size: {size}\n");
            print::text(&if *quiet { format!("{digest}\n") } else { told })?;
        }
        Verb::Login { username, password, password_stdin, way, registry } => {
            let user = username.clone().map_or_else(password::ask_user, Ok)?;
            let password = password::read(password.as_ref(), *password_stdin)?;
            log_in(registry, way, &Credentials { user, password })?;
        }
        Verb::Logout { registry } => {
            let found = Config::of_user().ok_or(Failure::NoHome)?.forget(registry)?;
            let told = if found { "Forgot the password for" } else { "There is no password for" };
            print::text(&format!("{told} {registry}\n"))?;
        }
    }
    Ok(0)
}

/// Fetches an image in the usual way, for a verb that needs it.
pub(crate) fn fetch(store: &Store, image: &str, quiet: bool) -> Result<(), Failure> {
    let image: Reference = image.parse()?;
    let way = Way { cert_dir: None, insecure: false, timeout: PATIENCE };
    way.pull(&mirror::of_environment()?, store, &image, &Platform::of_host(), &Bars::new(quiet))?;
    Ok(())
}

fn log_in(registry: &str, way: &Way, credentials: &Credentials) -> Result<(), Failure> {
    let config = Config::of_user().ok_or(Failure::NoHome)?;
    let identity = Client::connect(registry, &way.options(), Some(credentials.clone()))?.log_in()?;
    let what = if identity.is_some() { "token" } else { "password" };
    if config.keep(registry, identity.as_ref().unwrap_or(credentials))? {
        eprintln!("warning: whoever can read docker's config.json can read the {what}: a credential helper hides it");
    }
    print::text("Login Succeeded\n")
}

impl Serve {
    fn obey(&self) -> Result<(), Failure> {
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        if tls.is_none() && !self.listen.ip().is_loopback() {
            eprintln!("warning: without TLS, images and passwords can be read and changed on their way");
        }
        let settings = Settings {
            folder: self.folder.clone(),
            listen: self.listen,
            tls,
            htpasswd: self.htpasswd.clone(),
            read_only: self.read_only,
        };
        // On standard output, for a script that let the kernel choose the port.
        let ready = |address| drop(print::text(&format!("{scheme}://{address}\n")));
        Ok(serve(&settings, ready)?)
    }
}
