//! `image export`: the same image, for a machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use isolab_runtime::image::{DiskFormat, DiskPacking, Image, Store, write_disk};

use crate::print;
use crate::voice::Failure;

#[derive(Args)]
pub(crate) struct Export {
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// How it is compressed [default: gzip for squashfs, none for initramfs and ext4]
    #[arg(long, value_enum)]
    compress: Option<Packing>,
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
        let format = match self.format {
            Format::Squashfs => DiskFormat::Squashfs,
            Format::Ext4 => DiskFormat::Ext4,
            Format::Initramfs => DiskFormat::Initramfs,
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
        print::text(&format!("{}: {}\n", self.file.display(), print::size(written.size)))
    }
}
