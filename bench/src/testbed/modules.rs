//! The kernel modules that the testbed needs, each after those it depends on.
//!
//! An unpacked package has no `modules.dep` (depmod(8) writes that where a kernel is installed), but each module names the
//! modules it needs in its own `.modinfo` section, which is where depmod learns of them too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the first process needs to reach the host at all: the port that frames travel by.
const ESSENTIAL: [&str; 2] = ["virtio_pci", "virtio_console"];

/// What the labs need, by what needs it. A module that a kernel does not have is left out: its absence shows where it is used.
const WANTED: [&[&str]; 6] = [
    // Virtual machines, their disks, networks and sockets.
    &["kvm_amd", "virtio_blk", "virtio_net", "virtio_rng", "tun", "vhost_net", "vhost_vsock"],
    // Root file systems of containers and of virtual machines.
    &["overlay", "squashfs", "erofs", "loop", "ext4", "fuse"],
    // Networks of containers.
    &["bridge", "veth", "dummy", "br_netfilter"],
    // Address translation and filters: nftables, and what iptables' new front end asks of it.
    &[
        "nf_tables",
        "nft_ct",
        "nft_nat",
        "nft_masq",
        "nft_chain_nat",
        "nft_reject_inet",
        "nft_redir",
        "nft_fib_inet",
        "nft_compat",
    ],
    // Matches of iptables rules that container engines write.
    &["xt_conntrack", "xt_MASQUERADE", "xt_addrtype", "xt_comment", "xt_mark", "xt_nat", "xt_tcpudp"],
    // Lists of sockets and connections, by which CRIU takes a container's down.
    &[
        "unix_diag",
        "inet_diag",
        "tcp_diag",
        "udp_diag",
        "raw_diag",
        "netlink_diag",
        "af_packet_diag",
        "nf_conntrack_netlink",
    ],
];

/// Why the modules cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// A module's file, or their folder, cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A module needs another that is not there.
    #[error("module {module} needs {needs}, which is not among this kernel's modules")]
    Incomplete {
        /// The module that is there.
        module: String,
        /// The one that is missing.
        needs: String,
    },
    /// The machine could not tell the host anything.
    #[error("this kernel has {0} neither built in nor as a module: the testbed could not speak to the host")]
    Essential(&'static str),
}

/// A module's name and its uncompressed content.
pub(super) type Module = (String, Vec<u8>);

/// Reads the modules to load from `/lib/modules/RELEASE`, in an order that the kernel takes them in.
pub(super) fn wanted(folder: &Path) -> Result<Vec<Module>, ModuleError> {
    let mut shelf = Shelf::open(folder)?;
    for name in ESSENTIAL {
        if !shelf.has(name) {
            return Err(ModuleError::Essential(name));
        }
    }
    for name in ESSENTIAL.into_iter().chain(WANTED.into_iter().flatten().copied()) {
        if shelf.has(name) {
            shelf.take(name)?;
        }
    }
    Ok(shelf.taken)
}

/// The modules of a kernel, by name.
struct Shelf {
    files: HashMap<String, PathBuf>,
    built_in: HashSet<String>,
    visited: HashSet<String>,
    taken: Vec<Module>,
}

impl Shelf {
    fn open(folder: &Path) -> Result<Self, ModuleError> {
        let mut files = HashMap::new();
        collect(folder, &mut files)?;
        // Absent where a kernel was built without any module support: then nothing is known to be built in.
        let list = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
        let built_in = list.lines().filter_map(|line| name_of(Path::new(line))).collect();
        Ok(Self { files, built_in, visited: HashSet::new(), taken: Vec::new() })
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.built_in.contains(name)
    }

    /// Takes a module after all that it depends on.
    fn take(&mut self, name: &str) -> Result<(), ModuleError> {
        if self.built_in.contains(name) || !self.visited.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name).cloned() else { return Ok(()) };
        let content = read(&path).map_err(|source| ModuleError::Read { path, source })?;
        for needed in dependencies(&content) {
            if !self.has(&needed) {
                return Err(ModuleError::Incomplete { module: name.to_owned(), needs: needed });
            }
            self.take(&needed)?;
        }
        self.taken.push((name.to_owned(), content));
        Ok(())
    }
}

/// Finds all module files at and below a folder.
fn collect(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<(), ModuleError> {
    let unreadable = |source| ModuleError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        // By the entry's own type: `build` and `source` are symbolic links to kernel trees.
        if entry.file_type().map_err(unreadable)?.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The name of the module in a file: `virtio-rng.ko.xz` holds `virtio_rng`.
fn name_of(path: &Path) -> Option<String> {
    let (name, end) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(end, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

/// A module's content, uncompressed: the kernel that is to take it may have been built without decompression.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let unpacker = match path.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path),
    };
    let mut command = Command::new(unpacker);
    let output = command.args(["-d", "-c"]).arg(path).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(format!("{unpacker}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// The modules that a module names in `.modinfo`, whose entries are `key=value` with a NUL after each.
///
/// Looked for in the whole file: the section begins with an entry, and every entry but that comes after a NUL.
fn dependencies(module: &[u8]) -> Vec<String> {
    let list = module.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(list.unwrap_or_default()).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(modules: &[(&str, &str)], built_in: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kernel")).unwrap();
        for (file, depends) in modules {
            let content = format!("\x7fELF...\0license=GPL\0depends={depends}\0name=x\0");
            fs::write(folder.path().join("kernel").join(file), content).unwrap();
        }
        fs::write(folder.path().join("modules.builtin"), built_in).unwrap();
        folder
    }

    fn names(folder: &Path) -> Result<Vec<String>, ModuleError> {
        Ok(wanted(folder)?.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn each_module_comes_after_all_that_it_needs() {
        let folder = shelf(
            &[
                ("kvm-amd.ko", "kvm,ccp"),
                ("kvm.ko", "irqbypass"),
                ("irqbypass.ko", ""),
                ("ccp.ko", ""),
                ("virtio_pci.ko", "virtio"),
                ("virtio.ko", ""),
                ("never_asked_for.ko", ""),
            ],
            "kernel/drivers/char/virtio_console.ko\n",
        );
        assert_eq!(
            names(folder.path()).unwrap(),
            ["virtio", "virtio_pci", "irqbypass", "kvm", "ccp", "kvm_amd"],
            "and no other"
        );
    }

    #[test]
    fn a_kernel_that_could_not_speak_to_the_host_is_refused() {
        let folder = shelf(&[("virtio_pci.ko", "")], "");
        assert!(matches!(names(folder.path()), Err(ModuleError::Essential("virtio_console"))));
    }

    #[test]
    fn a_module_without_what_it_needs_is_an_error_that_names_both() {
        let folder = shelf(&[("virtio_pci.ko", "virtio"), ("virtio_console.ko", "")], "");
        let error = names(folder.path()).unwrap_err().to_string();
        assert!(error.contains("virtio_pci") && error.contains("needs virtio,"), "{error}");
    }

    #[test]
    fn names_are_the_kernels_own() {
        assert_eq!(name_of(Path::new("a/virtio-rng.ko")).as_deref(), Some("virtio_rng"));
        assert_eq!(name_of(Path::new("kvm.ko.xz")).as_deref(), Some("kvm"));
        assert_eq!(name_of(Path::new("modules.order")), None);
        assert_eq!(name_of(Path::new("x.ko.debug")), None);
    }
}
