//! The verbs of registries.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use isolab_runtime::registry::server::{Settings, collect_garbage, serve};

use crate::print;
use crate::voice::Failure;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Keep images for others to fetch
    #[command(subcommand)]
    Registry(Registry),
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

pub(crate) fn obey(verb: &Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Registry(Registry::Serve(options)) => options.obey()?,
        Verb::Registry(Registry::Gc { dry_run, folder }) => {
            let collected = collect_garbage(folder, *dry_run)?;
            let (blobs, uploads, size) = (collected.blobs, collected.uploads, print::size(collected.bytes));
            let word = if *dry_run { "would remove" } else { "removed" };
            print::text(&format!("{word} {blobs} blobs and {uploads} abandoned uploads: {size}\n"))?;
        }
    }
    Ok(0)
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
