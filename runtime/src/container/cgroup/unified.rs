//! `linux.resources.unified`: any file of a v2 cgroup, by its name.

use oci_spec::runtime::LinuxResources;

use super::CgroupError;
use super::folder::Setting;

/// What to write, in the order of the names; an error for a name that is not one of a controller's files.
pub(super) fn settings(asked: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    let mut pairs: Vec<(&String, &String)> = asked.unified().iter().flatten().collect();
    pairs.sort();
    for (name, _) in &pairs {
        let controller = name.split_once('.').map_or("", |(controller, _)| controller);
        // A slash would leave the cgroup, and `cgroup.*` is the runtime's own business: who is in, and whether it runs.
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if controller.is_empty() || controller == "cgroup" || !plain {
            return Err(CgroupError::Value {
                field: "linux.resources.unified",
                value: (*name).clone(),
                reason: "a name is a controller's and then a file's, such as memory.high",
            });
        }
    }
    let setting = |(name, value): (&String, &String)| Setting::new(name.clone(), value);
    Ok(pairs.into_iter().map(setting).collect())
}

/// The controllers that those files belong to.
pub(super) fn controllers(settings: &[Setting]) -> impl Iterator<Item = &str> {
    settings.iter().filter_map(|setting| setting.file.split_once('.')).map(|(controller, _)| controller)
}
