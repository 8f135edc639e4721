//! The same Dockerfiles by buildah and by us: the same files, the same configuration.

use std::fs;
use std::process::Command;

use isolab_runtime::image::{Manifest, Store};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::lab::{BASE, Lab, same, succeed};
use super::{needs, tree};

/// What each of them has behind the base.
const FILES: [(&str, &str); 12] = [
    (
        "env_and_substitution",
        "ENV a=1 b=\"x y\" c=$a\nENV d=${a:-2}${none:-n}${a:+p} e=\\$a\nRUN echo \"$b $d\" > /o\nLABEL l=$a m=\"$b\"\n",
    ),
    ("arguments", "ARG v=1\nARG w\nARG given=no\nRUN echo \"$v$w$given\" > /o\nENV v2=$v\n"),
    (
        "copies",
        "COPY one /srv/\nCOPY one two /srv/sub/\nCOPY folder /srv/all\nCOPY folder/ /srv/all2/\nCOPY o*e /srv/glob/\nCOPY one /srv/name\n",
    ),
    (
        "owners_and_modes",
        "COPY --chown=33:34 one /srv/a\nCOPY --chown=web:web folder /srv/b\nCOPY --chmod=600 one /srv/c\n",
    ),
    ("working_folders", "WORKDIR /a/b\nWORKDIR c\nRUN pwd > o\nCOPY one .\nCOPY two ./\n"),
    ("users", "RUN mkdir /w && chown web /w\nUSER web\nRUN id -u > /w/o && echo $HOME >> /w/o\nUSER 0\n"),
    ("commands", "ENTRYPOINT [\"/bin/echo\", \"a\"]\nCMD [\"b\"]\n"),
    ("shell_commands", "CMD old\nENTRYPOINT echo $HOME\nEXPOSE 80 53/udp\nVOLUME /v /w\nSTOPSIGNAL SIGUSR1\n"),
    ("archives", "ADD some.tar /srv/x/\nADD one /srv/y/\nCOPY some.tar /srv/z/\n"),
    (
        "removals",
        "RUN mkdir /gone && touch /gone/a /stays && chmod 4755 /stays\nRUN rm -r /gone && ln /stays /linked && ln -s stays /soft\n",
    ),
    (
        "stages",
        "RUN echo made > /made && chown 33 /made\nFROM base AS other\nRUN echo never > /never\nFROM base\nCOPY --from=0 /made /srv/m\nCOPY --from=base /bin/busybox /srv/\n",
    ),
    ("links_in_the_way", "RUN mkdir -p /usr/lib && ln -s usr/lib /lib\nCOPY one /lib/one\nCOPY folder /lib/folder\n"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["root", "overlay", "busybox", "buildah"];
    let trial = |(name, text): (&'static str, &'static str)| {
        needs::trial(&format!("buildah_and_we_agree_on_{name}"), &needs, move || agree(text))
    };
    FILES.into_iter().map(trial).collect()
}

fn agree(text: &str) -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.write("one", "1\n")?;
    lab.write("two", "2\n")?;
    lab.write("folder/deep/file", "3\n")?;
    lab.write("folder/other", "4\n")?;
    let mut archive = Command::new("tar");
    succeed(&archive.args(["-cf", "some.tar", "folder"]).current_dir(lab.context()).output()?)?;
    let dockerfile = format!("{BASE}{text}");
    lab.build("ours", &dockerfile, &["--build-arg", "given=yes"])?;
    let ours = tree::of_image(&lab.store(), "ours", &lab.path("merged"))?;
    let theirs = Buildah { lab: &lab };
    let (root, config) = theirs.build()?;
    let theirs = tree::list(root.as_ref())?;
    let differ = |path: &&std::path::PathBuf| ours.get(*path) != theirs.get(*path);
    let different: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).filter(differ).collect();
    let told: Vec<_> = different.iter().map(|path| (path, ours.get(*path), theirs.get(*path))).collect();
    same(&told, &Vec::new())?;
    same(&our_config(&lab)?, &config)
}

fn our_config(lab: &Lab) -> Result<Value, Failed> {
    let store = Store::open(lab.store())?;
    let manifest = Manifest::read(&store, &store.resolve("ours")?.descriptor)?;
    let document: Value = serde_json::from_slice(&store.blob(&manifest.id())?)?;
    Ok(compared(&document["config"]))
}

/// What both have to agree on. Of labels buildah adds one of its own; a search path it always sets.
fn compared(config: &Value) -> Value {
    let names = ["User", "ExposedPorts", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "StopSignal"];
    let mut found = json!({});
    for name in names {
        let value = &config[name];
        let empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Object(object) => object.is_empty(),
            Value::Array(array) => array.is_empty(),
            _ => false,
        };
        if !empty {
            found[name] = value.clone();
        }
    }
    let env = config["Env"].as_array().cloned().unwrap_or_default();
    let mut env: Vec<Value> =
        env.into_iter().filter(|pair| pair.as_str().is_some_and(|it| !it.starts_with("PATH="))).collect();
    env.sort_by_key(ToString::to_string);
    found["Env"] = env.into();
    let mut labels = config["Labels"].as_object().cloned().unwrap_or_default();
    labels.retain(|name, _| !name.starts_with("io.buildah"));
    found["Labels"] = labels.into();
    found
}

/// buildah with a storage of one trial's own.
struct Buildah<'a> {
    lab: &'a Lab,
}

impl Buildah<'_> {
    fn command(&self, arguments: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.lab.path("graph")).arg("--runroot").arg(self.lab.path("runroot"));
        command.args(["--storage-driver", "vfs"]).args(arguments).env_remove("SOURCE_DATE_EPOCH");
        Ok(succeed(&command.output()?)?.0)
    }

    /// Builds the lab's Dockerfile. Answers where its files lie, and its configuration.
    fn build(&self) -> Result<(String, Value), Failed> {
        let (file, context) = (self.lab.path("Dockerfile"), self.lab.context());
        let (file, context) = (file.display().to_string(), context.display().to_string());
        let fixed = ["bud", "--isolation", "chroot", "--network", "host", "--build-arg", "given=yes", "-t", "theirs"];
        self.command(&[&fixed[..], &["-f", &file, &context]].concat())?;
        let told: Value = serde_json::from_str(&self.command(&["inspect", "--type", "image", "theirs"])?)?;
        let container = self.command(&["from", "--pull-never", "theirs"])?;
        // With this storage a container is a folder; nothing is mounted that would have to be unmounted.
        let root = self.command(&["mount", container.trim()])?.trim().to_owned();
        fs::metadata(&root)?;
        Ok((root, compared(&told["OCIv1"]["config"])))
    }
}
