//! `build`: an image from a Dockerfile.

mod teller;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use clap::Args;
use isolab_runtime::build::{self, BuildError, Context, Request};
use isolab_runtime::container::{Runtime, default_root};
use isolab_runtime::engine::EngineError;
use isolab_runtime::image::{Reference, Store};

use crate::print;
use crate::voice::Failure;
use teller::Teller;

#[derive(Args)]
pub(crate) struct Build {
    /// What the image is called; can be given several times
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<Reference>,
    /// The Dockerfile, `-` for standard input [default: DIR/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Give an ARG its value; a name alone takes the caller's variable
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    arguments: Vec<String>,
    /// Give a file, or a variable, to `RUN --mount=type=secret`; it gets into no image
    #[arg(long = "secret", value_name = "id=NAME[,src=FILE|,env=VARIABLE]")]
    secrets: Vec<String>,
    /// Build this stage and what it needs
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do every step again
    #[arg(long)]
    no_cache: bool,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// The folder that files come from
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn obey(wanted: &Build, store: &Store) -> Result<u8, Failure> {
    let request = wanted.request()?;
    let file = wanted.file.as_deref().filter(|file| *file != Path::new("-"));
    let context = Context::open(&wanted.folder, file)?;
    // Programs of a build are asked nothing and answer nobody.
    crate::containers::close_input()?;
    let root = default_root().map_err(EngineError::from)?;
    let runtime = Runtime::new(&root, |text| eprintln!("warning: {text}"));
    let teller = Teller::new(wanted.quiet);
    let built = build::build(store, &runtime, &context, &request, &teller);
    teller.end();
    let id = built?;
    if !wanted.quiet {
        for name in &wanted.tags {
            eprintln!("named {}", name.familiar());
        }
    }
    print::text(&format!("{id}\n"))?;
    Ok(0)
}

impl Build {
    fn request(&self) -> Result<Request, Failure> {
        let mut arguments = BTreeMap::new();
        for pair in &self.arguments {
            match pair.split_once('=') {
                Some((name, value)) => drop(arguments.insert(name.to_owned(), value.to_owned())),
                None => arguments.extend(std::env::var(pair).ok().map(|value| (pair.clone(), value))),
            }
        }
        let epoch = match std::env::var("SOURCE_DATE_EPOCH").ok().filter(|text| !text.is_empty()) {
            Some(text) => Some(text.parse().map_err(|_| Failure::Epoch { text })?),
            None => None,
        };
        let (names, target) = (self.tags.clone(), self.target.clone());
        let secrets = self.secrets.iter().map(|text| secret(text)).collect::<Result<_, _>>()?;
        Ok(Request { text: self.text()?, names, arguments, target, fresh: self.no_cache, secrets, epoch })
    }

    fn text(&self) -> Result<String, Failure> {
        let path = self.file.clone().unwrap_or_else(|| self.folder.join("Dockerfile"));
        let read = if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(&path)
        };
        read.map_err(|source| BuildError::Io { attempt: "read", path, source }.into())
    }
}

/// Reads what a secret is: a file, which is called like the secret if nothing is said, or a variable.
fn secret(text: &str) -> Result<(String, Vec<u8>), Failure> {
    let field = |name: &str| text.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let known =
        |pair: &str| ["id", "src", "source", "env", "type"].contains(&pair.split('=').next().unwrap_or_default());
    let id = field("id").filter(|id| !id.is_empty() && text.split(',').all(known));
    let id = id.ok_or_else(|| Failure::Secret { text: text.to_owned() })?;
    let content = match (field("src").or_else(|| field("source")), field("env")) {
        (None, Some(variable)) => std::env::var_os(variable).map(OsString::into_vec),
        (path, _) => {
            let path = path.unwrap_or(id);
            let read = std::fs::read(path);
            Some(read.map_err(|source| Failure::Read { from: path.to_owned(), source })?)
        }
    };
    let content = content.ok_or_else(|| Failure::Secret { text: text.to_owned() })?;
    Ok((id.to_owned(), content))
}
