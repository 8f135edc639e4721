//! Images in files.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use isolab_runtime::build;
use isolab_runtime::image::{self, Reference, Store};
use oci_spec::image::Config;

use crate::print;
use crate::voice::Failure;
use crate::whole::WholeFile;

/// What becomes an image.
#[derive(Args)]
pub(crate) struct Import {
    /// What is said of it in its history
    #[arg(long, short)]
    message: Option<String>,
    /// What a container of it runs if nothing else is said, as a shell would read it
    #[arg(long, value_name = "COMMAND")]
    cmd: Option<String>,
    /// An instruction of a Dockerfile that changes no file, such as `ENV a=b`; can be given several times
    #[arg(long, short, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// The archive, packed or not; - for standard input
    file: PathBuf,
    /// Its name
    name: Option<Reference>,
}

impl Import {
    pub(super) fn obey(&self, store: &Store) -> Result<(), Failure> {
        let _shared = store.shared()?;
        build::check_changes(&self.change)?;
        let mut run = Config::default();
        run.set_cmd(self.cmd.as_ref().map(|cmd| vec!["/bin/sh".to_owned(), "-c".to_owned(), cmd.clone()]));
        let input = (self.file != Path::new("-")).then_some(self.file.as_path());
        let manifest = image::import(store, read(input)?, run, self.message.as_deref())?;
        let id = if self.change.is_empty() {
            match &self.name {
                Some(name) => store.set_name(&name.to_string(), manifest.descriptor().clone(), &[])?,
                None => store.keep_unnamed(manifest.descriptor().clone())?,
            }
            manifest.id()
        } else {
            build::change(store, manifest.descriptor(), &self.change, self.name.as_slice())?
        };
        print::text(&format!("{id}\n"))
    }
}

pub(super) fn save(store: &Store, output: Option<&Path>, images: &[String]) -> Result<(), Failure> {
    let images = images.iter().map(|image| store.resolve(image)).collect::<Result<Vec<_>, _>>()?;
    match output {
        Some(path) => {
            let failed = |source| Failure::Write { to: path.display().to_string(), source };
            let mut file = WholeFile::create(path).map_err(failed)?;
            image::save(store, &images, BufWriter::with_capacity(256 << 10, &mut file))?;
            Ok(file.finish().map_err(failed)?)
        }
        None if io::stdout().is_terminal() => Err(Failure::Terminal),
        None => Ok(image::save(store, &images, BufWriter::new(io::stdout().lock()))?),
    }
}

pub(super) fn load(store: &Store, input: Option<&Path>, quiet: bool) -> Result<(), Failure> {
    for name in image::load(store, read(input)?)? {
        if !quiet {
            let what = if name.starts_with("sha256:") { "image ID" } else { "image" };
            print::text(&format!("Loaded {what}: {name}\n"))?;
        }
    }
    Ok(())
}

fn read(input: Option<&Path>) -> Result<Box<dyn Read + Send>, Failure> {
    let Some(path) = input else { return Ok(Box::new(io::stdin())) };
    let file = File::open(path).map_err(|source| Failure::Read { from: path.display().to_string(), source })?;
    Ok(Box::new(file))
}
