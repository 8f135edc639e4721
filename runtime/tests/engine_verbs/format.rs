//! `--format`: the words of docker's users, and podman as the judge of what they come to, which has Go's own templates.

use std::process::Command;

use libtest_mimic::{Failed, Trial};

use super::lab::{Lab, NEEDS, has, same, succeed};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("templates_come_to_the_same_as_podman_s", &["root", "busybox", "podman"], podman),
        trial("lists_are_printed_by_templates", &NEEDS, lists),
        trial("namespaces_are_listed_and_those_shared_are_marked", &NEEDS, namespaces),
    ]
}

/// Of an image that both have.
const TEMPLATES: [&str; 16] = [
    "{{.Architecture}} {{.Os}}",
    "{{.Config.Env}} {{len .Config.Env}} {{index .Config.Env 1}}",
    "{{json .Config.Cmd}}",
    "{{range .Config.Env}}<{{.}}>{{end}}",
    "{{range $i, $e := .Config.Env}}{{if $i}}, {{end}}{{$i}}={{$e}}{{else}}none{{end}}",
    "{{with .Config}}{{.WorkingDir}}{{end}}",
    "{{index .Config.Labels \"a.b\"}}|{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
    "{{if eq .Os \"linux\"}}yes{{else}}no{{end}} {{if and .Os (ne .Architecture \"x\")}}both{{end}}",
    "{{upper .Os}} {{lower \"ABC\"}} {{join .Config.Env \"+\"}} {{split .Os \"n\"}} {{title .Os}}",
    "{{printf \"%-8s|%8s|%q|%v|%d\" .Os .Os .Os .Config.Cmd 42}}",
    "{{println .Os 1 2}}{{print 1 2 .Os 3}}",
    "a {{- .Os -}} b {{/* nothing */}}c",
    "{{$x := .Os}}{{range .Config.Cmd}}{{$x}}{{.}} {{end}}{{$x = .Os}}{{$x}}",
    "{{(index .RootFS.Layers 0) | len}} {{.RootFS.Type}}",
    "{{slice .Os 1 3}} {{not .Os}} {{or \"\" .Os}} {{lt 1 2}} {{ge \"b\" \"a\"}}",
    "{{range .Config.Cmd}}{{if eq . \"b c\"}}{{continue}}{{end}}{{.}}{{break}}{{end}}",
];

fn podman() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let dockerfile = "FROM sample:1\nENV A=1 B=\"two words\"\nLABEL a.b=c d=e\nWORKDIR /srv\nCMD [\"a\", \"b c\"]\n";
    std::fs::write(lab.path("Dockerfile"), dockerfile)?;
    lab.ctr(&["build", "-q", "-t", "judged:1", "-f", &lab.text("Dockerfile"), &lab.text("root")])?;
    lab.ctr(&["save", "-o", &lab.text("saved.tar"), "judged:1"])?;
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--storage-driver", "vfs", "--root", &lab.text("pod"), "--runroot", &lab.text("podrun")]);
        Ok::<_, Failed>(command.args(arguments).output()?)
    };
    succeed(&podman(&["load", "--input", &lab.text("saved.tar")])?)?;
    for template in TEMPLATES {
        let theirs = succeed(&podman(&["inspect", "--type", "image", "--format", template, "judged:1"])?);
        let theirs = theirs.map_err(|error| format!("podman, {template}: {}", error.message().unwrap_or("")))?;
        let ours = lab.ctr(&["inspect", "--format", template, "judged:1"])?;
        assert_eq!(ours.trim_end(), theirs.trim_end(), "{template}");
    }
    for wrong in ["{{.Os", "{{.Nothing}}", "{{nosuch .Os}}", "{{if .Os}}", "{{index .Config.Env 99}}"] {
        assert!(!podman(&["inspect", "--type", "image", "--format", wrong, "judged:1"])?.status.success(), "{wrong}");
        has(&lab.refused(&["inspect", "--format", wrong, "judged:1"])?, "the template cannot be used")?;
    }
    Ok(())
}

fn lists() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.ctr(&["create", "--name", "web", "--label", "a=b", "-v", "data:/data", "sample:1", "sleep", "9"])?;
    let by = |format: &str| lab.ctr(&["ps", "--all", "--format", format]);
    same(
        &by("{{.Names}}: {{.Image}} {{.Command}} {{.State}} {{.Labels}} {{.Mounts}} {{.Networks}}")?,
        "web: sample:1 \"sleep 9\" created a=b data none\n",
    )?;
    same(&by("table {{.Names}}\\t{{.Status}}")?, "NAMES   STATUS\nweb     Created\n")?;
    has(&by("json")?, "\"Names\":\"web\"")?;
    same(&by("{{json .Names}}")?, "\"web\"\n")?;
    let told = lab.refused(&["ps", "-a", "--format", "{{.Name}}"])?;
    has(&told, "at character 3: there is no Name, only Command, CreatedAt")?;
    same(&lab.ctr(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?, "sample:1\n")?;
    same(
        &lab.ctr(&["inspect", "-f", "{{.Name}} {{.State.Status}} {{if .State.Health}}health{{end}}", "web"])?,
        "/web created \n",
    )
}

fn namespaces() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.sleeper("one", &[])?;
    lab.sleeper("two", &["--pid", "container:one", "--network", "host"])?;
    let table = lab.ctr(&["ps", "--ns"])?;
    let cell = |name: &str, column: &str| {
        let place = table.lines().next()?.split_whitespace().skip(1).position(|heading| heading == column)?;
        let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
        line.split_whitespace().nth(place).map(str::to_owned)
    };
    let kernel = |name: &str| {
        let pid = lab.ctr(&["inspect", "-f", "{{.State.Pid}}", name])?;
        Ok::<_, Failed>(std::fs::read_link(format!("/proc/{}/ns/uts", pid.trim()))?.display().to_string())
    };
    assert_eq!(cell("two", "NET").as_deref(), Some("host"), "{table}");
    assert_eq!(kernel("one")?, format!("uts:[{}]", cell("one", "UTS").unwrap_or_default()), "{table}");
    Ok(())
}
