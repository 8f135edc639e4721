//! Flags that docker has and this command has not: each is named, with what there is instead.

use std::process::ExitCode;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// docker's status for a command line that it does not understand.
const REFUSED: u8 = 125;

/// docker's flags of `run` and `create` that are not here.
const STRANGERS: [(&str, &str); 38] = [
    ("--annotation", "--label notes something about a container"),
    ("--attach", "without -d a command hears both outputs; `attach` hears those of one that runs"),
    ("--blkio-weight", "no kernel of today has that knob without a scheduler of its own"),
    ("--blkio-weight-device", "no kernel of today has that knob without a scheduler of its own"),
    ("--cgroup-parent", "each container has a cgroup of its own below the caller's"),
    ("--cgroupns", "each container sees its own cgroup as the root, but for privileged ones"),
    ("--cpu-count", "it is for Windows; --cpus limits processors' time"),
    ("--cpu-percent", "it is for Windows; --cpus limits processors' time"),
    ("--cpu-period", "--cpus is the same in one number"),
    ("--cpu-quota", "--cpus is the same in one number"),
    ("--cpu-rt-period", "--cpus limits processors' time"),
    ("--cpu-rt-runtime", "--cpus limits processors' time"),
    ("--device-cgroup-rule", "--device hands one device over"),
    ("--device-read-bps", "isolab-oci has limits of disks, in a bundle's config.json"),
    ("--device-read-iops", "isolab-oci has limits of disks, in a bundle's config.json"),
    ("--device-write-bps", "isolab-oci has limits of disks, in a bundle's config.json"),
    ("--device-write-iops", "isolab-oci has limits of disks, in a bundle's config.json"),
    ("--disable-content-trust", "an image is known by its digest, and every byte is checked against it"),
    ("--domainname", "--hostname takes a name with dots"),
    ("--gpus", "--device hands a device over"),
    ("--group-add", "--user takes a user and a group"),
    ("--io-maxbandwidth", "it is for Windows"),
    ("--io-maxiops", "it is for Windows"),
    ("--ip6", "containers have addresses of IPv4; --network host has the host's"),
    ("--isolation", "it is for Windows; isolab-vm runs a machine of its own"),
    ("--kernel-memory", "kernels of today have no such knob; --memory counts the kernel's memory too"),
    ("--label-file", "--label notes one thing"),
    ("--link", "containers of one network find each other by name"),
    ("--link-local-ip", "--ip says the address"),
    ("--log-opt", "the log is one file, docker's json-file without rotation"),
    ("--memory-swappiness", "--memory-swap limits swap"),
    ("--oom-kill-disable", "--oom-score-adj says how soon it is killed"),
    ("--platform", "`pull --platform` fetches an image for another kind of machine"),
    ("--runtime", "there is one; isolab-oci is its own command"),
    ("--storage-opt", "what a container writes lies on the file system of the images' root"),
    ("--use-api-socket", "there is no daemon, and so no socket of one"),
    ("--userns", "containers of root have the host's users; isolab-oci maps users, in a bundle's config.json"),
    ("--volume-driver", "volumes are folders below the images' root"),
];

/// Tells what cannot be understood, or the help that was asked for.
pub(crate) fn tell(error: &Error) -> ExitCode {
    if let Some((flag, instead)) = stranger(error) {
        eprintln!("error: docker's {flag} is not here\nhint: {instead}");
        return ExitCode::from(REFUSED);
    }
    // Where it cannot be printed there is nobody to tell that.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}

fn stranger(error: &Error) -> Option<(&'static str, &'static str)> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let name = flag.split(['=', ' ']).next()?;
    STRANGERS.into_iter().find(|(stranger, _)| *stranger == name)
}

#[cfg(test)]
mod tests {
    use super::{STRANGERS, stranger};
    use crate::cli::Arguments;
    use clap::{CommandFactory, Parser};

    #[test]
    fn a_flag_of_dockers_is_named_with_what_there_is_instead() {
        let error = Arguments::try_parse_from(["isolab-ctr", "run", "--gpus", "all", "x"]).err().expect("unknown");
        assert!(stranger(&error).is_some_and(|(flag, instead)| flag == "--gpus" && instead.contains("--device")));
    }

    #[test]
    fn no_flag_that_is_here_is_called_a_stranger() {
        let command = Arguments::command();
        let run = command.find_subcommand("run").expect("there is one");
        let known: Vec<String> = run.get_arguments().filter_map(|it| Some(format!("--{}", it.get_long()?))).collect();
        let wrong = STRANGERS.iter().find(|(name, _)| known.iter().any(|known| known == name));
        assert_eq!(wrong, None);
    }
}
