//! The tree as files of its own, that share nothing with the layers.

use std::path::{Path, PathBuf};

use super::{Entry, Kind, failed, walk};
use crate::image::LayerError;
use crate::image::tree::{Metadata, Node, Tree};

/// Copies the tree of some layers, the uppermost first, into a directory that is there: owners, modes, times, attributes
/// and hard links too. Answers how many bytes the files have.
pub(crate) fn copy(layers: &[PathBuf], into: &Path) -> Result<u64, LayerError> {
    let mut tree = Tree::at(into).map_err(|errno| failed(into)(errno.into()))?;
    let mut bytes = 0;
    walk(layers, &mut |entry| {
        bytes += entry.described.size;
        place(&mut tree, entry).map_err(failed(entry.path))
    })?;
    tree.finish().map_err(|errno| failed(into)(errno.into()))?;
    Ok(bytes)
}

fn place(tree: &mut Tree, entry: &Entry<'_>) -> std::io::Result<()> {
    let (path, metadata) = (entry.path, entry.metadata());
    let (major, minor) = entry.described.device.unwrap_or_default();
    let node = match &entry.kind {
        Kind::Directory => return Ok(tree.directory(path, metadata)?),
        Kind::File => return tree.file(path, &mut entry.open()?, &metadata),
        Kind::Symlink => {
            return Ok(tree.symlink(path, entry.described.link.as_deref().unwrap_or_default(), &metadata)?);
        }
        Kind::Link(first) => return Ok(tree.hard_link(path, first)?),
        Kind::Fifo => Node::Fifo,
        Kind::Character => Node::Character(major.into(), minor.into()),
        Kind::Block => Node::Block(major.into(), minor.into()),
    };
    // An ordinary user's containers have no devices of their own.
    tree.node(path, node, &metadata)?;
    Ok(())
}

impl Entry<'_> {
    /// What a copy of it has to have.
    fn metadata(&self) -> Metadata {
        let described = &self.described;
        Metadata {
            mode: described.mode,
            uid: described.uid,
            gid: described.gid,
            modified: (described.modified, 0),
            xattrs: described.xattrs.clone(),
        }
    }
}
