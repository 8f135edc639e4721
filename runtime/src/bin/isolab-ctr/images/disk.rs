//! `image export`: the same image, for a machine.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use isolab_runtime::engine::MachineInit;
use isolab_runtime::image::{DiskFormat, DiskPacking, Image, Store, write_disk};

use crate::print;
use crate::voice::Failure;
use crate::whole::WholeFile;

#[derive(Args)]
pub(crate) struct Export {
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// How it is compressed [default: gzip for squashfs, none for initramfs and ext4]
    #[arg(long, value_enum)]
    compress: Option<Packing>,
    /// Write here, too, what the image runs, in the words of a machine's first process: /isolab.json for isolab-init
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// The image's name or id
    image: String,
    /// The file to write; one that is there is replaced
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A compressed disk that can only be read
    Squashfs,
    /// A disk that can be written, with room for as much again
    Ext4,
    /// The archive that a kernel unpacks into its memory
    Initramfs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Export {
    pub(super) fn obey(&self, store: &Store) -> Result<(), Failure> {
        // Nobody may take the layers away while they are read.
        let _shared = store.shared()?;
        let found = store.resolve(&self.image)?;
        let image = Image::from_manifest(store, &found.descriptor)?;
        let (format, on) = match self.format {
            Format::Squashfs => (DiskFormat::Squashfs, Some("squashfs")),
            Format::Ext4 => (DiskFormat::Ext4, Some("ext4")),
            Format::Initramfs => (DiskFormat::Initramfs, None),
        };
        // An image that says nothing to run is refused before minutes are spent on its disk.
        let init = match &self.init {
            Some(file) => Some((file, MachineInit::of(store, &self.image, &image, on)?)),
            None => None,
        };
        let packing = self.compress.map(|packing| match packing {
            Packing::None => DiskPacking::None,
            Packing::Gzip => DiskPacking::Gzip,
            Packing::Zstd => DiskPacking::Zstd,
        });
        let written = write_disk(&image.lower_dirs(), format, packing, &self.file)?;
        for path in &written.lost {
            eprintln!("warning: an initramfs has no place for the attributes of /{}", path.display());
        }
        if let Some((file, init)) = init {
            write_init(file, &init).map_err(|source| Failure::Write { to: file.display().to_string(), source })?;
        }
        print::text(&format!("{}: {}\n", self.file.display(), print::size(written.size)))
    }
}

fn write_init(to: &Path, init: &MachineInit) -> io::Result<()> {
    let mut file = WholeFile::create(to)?;
    serde_json::to_writer_pretty(&mut file, init)?;
    file.write_all(b"\n")?;
    file.finish()
}
