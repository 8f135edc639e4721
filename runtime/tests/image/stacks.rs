//! Random stacks of layers: unpacked by umoci into one tree, and by us into a directory a layer that overlayfs stacks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use isolab_runtime::image::{Content, Details, Entry, Image, LayerContent, Store};
use libtest_mimic::{Failed, Trial};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::needs::trial;
use super::output;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("umoci_and_we_make_one_tree_of_a_stack", &["root", "overlay", "umoci"], one_tree)]
}

/// What a layer has at a path.
#[derive(Debug, Clone)]
enum Thing {
    Folder { mode: u32, opaque: bool },
    File(u8),
    Link,
    Whiteout,
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        3 => (prop_oneof![Just(0o755_u32), Just(0o700), Just(0o1777)], prop::bool::weighted(0.3))
            .prop_map(|(mode, opaque)| Thing::Folder { mode, opaque }),
        3 => any::<u8>().prop_map(Thing::File),
        1 => Just(Thing::Link),
        2 => Just(Thing::Whiteout),
    ]
}

fn layer() -> impl Strategy<Value = BTreeMap<PathBuf, Thing>> {
    let part = || prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::collection::vec(part(), 1..4).prop_map(|parts| parts.iter().collect::<PathBuf>());
    prop::collection::btree_map(path, thing(), 1..10)
}

/// A layer that an honest archive has: what lies in something lies in a directory.
fn content(things: &BTreeMap<PathBuf, Thing>) -> LayerContent {
    let mut things = things.clone();
    let folders: Vec<PathBuf> = things.keys().flat_map(|path| path.ancestors().skip(1).map(Path::to_owned)).collect();
    for folder in folders.into_iter().filter(|folder| !folder.as_os_str().is_empty()) {
        let found = things.entry(folder).or_insert(Thing::Folder { mode: 0o755, opaque: false });
        if !matches!(found, Thing::Folder { .. }) {
            *found = Thing::Folder { mode: 0o711, opaque: false };
        }
    }
    let mut entries = Vec::new();
    for (path, thing) in &things {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match thing {
            Thing::Folder { mode, opaque } => {
                entries.push(Entry::directory(path, *mode));
                if *opaque {
                    entries.push(Entry::file(path.join(".wh..wh..opq"), 0o644, &b""[..]));
                }
            }
            Thing::File(byte) => entries.push(Entry::file(path, 0o640, vec![*byte; usize::from(*byte) * 9])),
            Thing::Link => {
                entries.push(Entry { path: path.clone(), mode: 0o777, content: Content::Link("../b".into()) });
            }
            Thing::Whiteout => entries.push(Entry::file(path.with_file_name(format!(".wh.{name}")), 0o644, &b""[..])),
        }
    }
    LayerContent { created_by: "a trial".to_owned(), entries }
}

/// Every file of a tree with its kind, mode, and what is in it.
fn list(root: &str) -> String {
    format!(
        "set -e; cd {root}; find . -mindepth 1 \\( -type f -exec md5sum {{}} + \\) -o -printf '%p %y %l\\n' | sort; \
             find . -mindepth 1 ! -type l -printf '%p %m %U %G %s %T@\\n' | grep -v ' d' | sed 's/ 4096 / /' | sort"
    )
}

fn one_tree() -> Result<(), Failed> {
    // Each takes some tenths of a second: `PROPTEST_CASES` asks for more of them.
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 40 };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let stacks = prop::collection::vec(layer(), 1..5);
    TestRunner::new(config).run(&stacks, |stack| {
        compare(&stack).map_err(|error| TestCaseError::fail(error.message().unwrap_or_default().to_owned()))
    })?;
    Ok(())
}

fn compare(stack: &[BTreeMap<PathBuf, Thing>]) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("store"))?;
    let mut base = LayerContent { created_by: "a trial".to_owned(), entries: vec![] };
    base.entries.push(Entry::directory("base", 0o755));
    let layers = std::iter::once(base).chain(stack.iter().map(content));
    let image = Image::assemble(&store, "sample", Details::default(), layers)?;
    let bundle = folder.path().join("bundle");
    let source = format!("{}:sample", store.root().display());
    output(Command::new("umoci").args(["unpack", "--image", &source]).arg(&bundle))?;
    let theirs = output(Command::new("sh").arg("-c").arg(list(&bundle.join("rootfs").display().to_string())))?;
    let at = folder.path().join("at");
    fs::create_dir(&at)?;
    let lower: Vec<String> = image.lower_dirs().iter().map(|path| path.display().to_string()).collect();
    let script =
        format!("set -e; mount -t overlay overlay -o \"lowerdir=$0\" \"$1\"; {}", list(&at.display().to_string()));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, &lower.join(":")]).arg(&at);
    let ours = output(&mut command)?;
    if ours == theirs { Ok(()) } else { Err(format!("ours:\n{ours}\numoci's:\n{theirs}").into()) }
}
