//! Flags and verbs that docker has and this command has not: each is named, with what there is instead.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error};

use crate::cli::Arguments;
use crate::print;

/// docker's status for a command line that it does not understand.
const REFUSED: u8 = 125;

/// docker's flags of `run` and `create` that are not here.
const STRANGERS: [(&str, &str); 23] = [
    ("--blkio-weight", "no kernel of today has that knob without a scheduler of its own"),
    ("--blkio-weight-device", "no kernel of today has that knob without a scheduler of its own"),
    ("--cgroup-parent", "each container has a cgroup of its own below the caller's"),
    ("--cpu-count", "it is for Windows; --cpus limits processors' time"),
    ("--cpu-percent", "it is for Windows; --cpus limits processors' time"),
    ("--cpu-rt-period", "--cpus limits processors' time"),
    ("--cpu-rt-runtime", "--cpus limits processors' time"),
    ("--disable-content-trust", "an image is known by its digest, and every byte is checked against it"),
    ("--gpus", "--device hands a device over: /dev/nvidia0 and its like, one by one"),
    ("--io-maxbandwidth", "it is for Windows"),
    ("--io-maxiops", "it is for Windows"),
    ("--ip6", "containers have addresses of IPv4; --network host has the host's"),
    ("--isolation", "it is for Windows; isolab-vm runs a machine of its own"),
    ("--kernel-memory", "kernels of today have no such knob; --memory counts the kernel's memory too"),
    ("--link", "containers of one network find each other by name"),
    ("--link-local-ip", "--ip says the address"),
    ("--memory-swappiness", "--memory-swap limits swap"),
    ("--oom-kill-disable", "--oom-score-adj says how soon it is killed"),
    ("--platform", "`pull --platform` fetches an image for another kind of machine"),
    ("--runtime", "there is one; isolab-oci is its own command"),
    ("--storage-opt", "what a container writes lies on the file system of the images' root"),
    ("--use-api-socket", "there is no daemon, and so no socket of one"),
    ("--volume-driver", "volumes are folders below the images' root"),
];

/// docker's verbs that are not here.
const VERBS: [(&str, &str); 20] = [
    ("builder", "`build` makes images, and `prune` clears its cache"),
    ("buildx", "`build` makes images"),
    ("compose", "a shell script with `network create` and `run` starts several containers"),
    ("config", "there is no swarm; -v lets a container see a file"),
    ("context", "there is no daemon elsewhere; --root names another store"),
    ("manifest annotate", "whoever builds an image says what machine it is for; `inspect` tells"),
    ("manifest create", "`push --all-platforms` brings an index along that is here"),
    ("manifest push", "`push --all-platforms` brings an index along that is here"),
    ("manifest rm", "an index is no more than its name: `rmi` takes that away"),
    ("node", "there is no swarm: containers run on this machine"),
    ("plugin", "there are none: networks are bridges, and volumes folders"),
    ("scout", "`image layers` shows what is in an image"),
    ("search", "a registry's own page finds images; `pull` fetches one by its name"),
    ("secret", "there is no swarm; -v lets a container see a file"),
    ("service", "there is no swarm; `run -d --restart always` keeps a container running"),
    ("stack", "there is no swarm: containers run on this machine"),
    ("swarm", "there is none: containers run on this machine"),
    ("trust", "an image is known by its digest, and every byte is checked against it"),
    ("volume update", "it is for swarms; a volume is a folder"),
    ("volumes", "it is called `volume`"),
];

/// Tells what cannot be understood, or the help that was asked for.
pub(crate) fn tell(error: &Error) -> ExitCode {
    if let Some((flag, instead)) = stranger(error) {
        eprintln!("error: docker's {flag} is not here\nhint: {instead}");
        return ExitCode::from(REFUSED);
    }
    if let Some((verb, instead)) = strange_verb(error) {
        eprintln!("error: docker's {verb} is not here\nhint: {instead}");
        return ExitCode::from(REFUSED);
    }
    // Where it cannot be printed there is nobody to tell that.
    if let Some(help) = help_of_group(error) {
        let _ = print::text(&help);
        return ExitCode::SUCCESS;
    }
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}

/// The help of a group, or of the whole command, of which no verb was said: as docker has it, that is no mistake. The
/// parser's own complaint lists the verbs that only this command says to itself, too.
fn help_of_group(error: &Error) -> Option<String> {
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Some(error.to_string()),
        ErrorKind::MissingSubcommand => {
            let Some(ContextValue::String(said)) = error.get(ContextKind::InvalidSubcommand) else { return None };
            let mut command = Arguments::command();
            command.build();
            let mut group = &mut command;
            for word in said.split(' ').skip(1) {
                group = group.find_subcommand_mut(word)?;
            }
            Some(group.render_help().to_string())
        }
        _ => None,
    }
}

fn stranger(error: &Error) -> Option<(&'static str, &'static str)> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let name = flag.split(['=', ' ']).next()?;
    STRANGERS.into_iter().find(|(stranger, _)| *stranger == name)
}

fn strange_verb(error: &Error) -> Option<(&'static str, &'static str)> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    // Of a group's verb the parser names the second word alone.
    let group = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let is = |stranger: &str| match stranger.split_once(' ') {
        None => stranger == verb,
        Some((first, second)) => second == verb && group.contains(first),
    };
    VERBS.into_iter().find(|(stranger, _)| is(stranger))
}

#[cfg(test)]
mod tests {
    use super::{STRANGERS, VERBS, help_of_group, strange_verb, stranger};
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

    #[test]
    fn who_says_no_verb_reads_the_help_and_no_verb_that_is_hidden() {
        for (line, first) in [("", "Runs containers"), ("--root x", "Runs containers"), ("system --root x", "Show and")]
        {
            let words = std::iter::once("isolab-ctr").chain(line.split_whitespace());
            let error = Arguments::try_parse_from(words).err().expect("no verb");
            let help = help_of_group(&error).unwrap_or_else(|| panic!("'{line}': {error}"));
            assert!(help.starts_with(first) && help.contains("Usage: isolab-ctr"), "'{line}': {help}");
            assert!(!help.contains("\n  keep "), "'{line}': {help}");
        }
    }

    #[test]
    fn a_verb_of_dockers_is_named_and_none_that_is_here() {
        let error = Arguments::try_parse_from(["isolab-ctr", "swarm", "init"]).err().expect("unknown");
        assert!(strange_verb(&error).is_some_and(|(verb, _)| verb == "swarm"));
        let command = Arguments::command();
        assert!(VERBS.iter().all(|(verb, _)| command.find_subcommand(verb).is_none()));
    }
}
