use super::{Command, Dockerfile, Instruction, Problem, Substitution};

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text).expect("it is right")
}

fn only(text: &str) -> Instruction {
    let mut file = parse(&format!("FROM scratch\n{text}\n"));
    file.stages.remove(0).steps.remove(0).instruction
}

fn problem(text: &str) -> (usize, Problem) {
    let error = Dockerfile::parse(text).expect_err("it is wrong");
    (error.line, error.problem)
}

#[test]
fn stages_have_names_and_numbers() {
    let file = parse("ARG V=1\nFROM --platform=linux/amd64 base:$V AS Build\nRUN a\nfrom build\nCMD b\n");
    assert_eq!((file.before.len(), file.stages.len()), (1, 2));
    assert_eq!((file.stage("BUILD"), file.stage("1"), file.stage("2")), (Some(0), Some(1), None));
    assert_eq!(file.stages[0].platform.as_deref(), Some("linux/amd64"));
}

#[test]
fn a_line_goes_on_behind_a_backslash_and_over_comments() {
    let file = parse("FROM scratch\nRUN one && \\\n  # a comment\n\n  two\nCMD x\n");
    assert_eq!(file.stages[0].steps[0].text, "RUN one &&   two");
    assert_eq!(file.stages[0].steps[1].line, 6);
}

#[test]
fn the_escape_character_can_be_a_backtick() {
    let file = parse("# syntax=any/thing\n# escape=`\nFROM scratch\nRUN a `\n b\nENV x=a\\b\n");
    assert_eq!(file.stages[0].steps[0].text, "RUN a  b");
    assert_eq!(file.stages[0].steps[1].instruction, Instruction::Env(vec![("x".into(), "a\\b".into())]));
    assert_eq!(problem("#escape=x\nFROM scratch").1, Problem::Escape("x".into()));
}

#[test]
fn a_command_is_a_shell_line_or_words() {
    assert_eq!(only(r#"CMD ["a", "b c"]"#), Instruction::Cmd(Command::Exec(vec!["a".into(), "b c".into()])));
    assert_eq!(only("CMD [ -e x ] && y"), Instruction::Cmd(Command::Shell("[ -e x ] && y".into())));
}

#[test]
fn documents_stand_below_their_instruction() {
    let file = parse("FROM scratch\nRUN cat <<A - <<-'B' > x\n1\n# $2\nA\n\t3\n\tB\nCOPY <<f /to\nline\nf\n");
    let Instruction::Run(run) = &file.stages[0].steps[0].instruction else { panic!("not RUN") };
    let texts: Vec<_> = run.documents.iter().map(|it| (it.name.as_str(), it.text.as_str(), it.expand)).collect();
    assert_eq!(texts, [("A", "1\n# $2\n", true), ("B", "3\n", false)]);
    let Instruction::Copy(copy) = &file.stages[0].steps[1].instruction else { panic!("not COPY") };
    assert_eq!((copy.sources.len(), copy.documents.len(), copy.to.as_str()), (0, 1, "/to"));
}

#[test]
fn old_and_new_forms_of_env_are_read() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(only("ENV a some words"), Instruction::Env(vec![pair("a", "some words")]));
    assert_eq!(only("ENV a=1 b=\"2 3\""), Instruction::Env(vec![pair("a", "1"), pair("b", "\"2 3\"")]));
}

#[test]
fn variables_are_replaced_as_a_shell_would() {
    let lookup = |name: &str| match name {
        "x" => Some("X".to_owned()),
        "empty" => Some(String::new()),
        _ => None,
    };
    let with = Substitution { escape: '\\', lookup: &lookup };
    for (text, expected) in [
        ("$x-${x}", "X-X"),
        ("a$none.b", "a.b"),
        ("${none:-d}${empty:-e}${empty-f}${none-g}", "deg"),
        ("${x:+y}${empty:+y}${empty+z}", "yz"),
        ("${none:-${x}${none:-'}'}}", "X}"),
        (r"\$x '$x' \'", "$x $x '"),
        (r#""$x a\b \" \$x""#, r#"X a\b " $x"#),
        ("100$", "100$"),
    ] {
        assert_eq!(with.word(text).as_deref(), Ok(expected), "{text}");
    }
    assert_eq!(with.document("\"$x\" \\n \\$x '$x'\n").as_deref(), Ok("\"X\" \\n $x 'X'\n"));
    for text in ["${x", "${", "${x!y}", "${}", "${x:}"] {
        assert!(matches!(with.word(text), Err(Problem::Substitution { .. })), "{text}");
    }
    assert!(with.word(&"${none:-".repeat(100_000)).is_err(), "nobody nests them so deep");
    assert_eq!(with.word("${none:?why}"), Err(Problem::Unset { name: "none".into(), why: "why".into() }));
    assert_eq!(with.word("'a"), Err(Problem::Quote('\'')));
}

#[test]
fn a_mistake_is_told_with_its_line_and_a_hint() {
    let error = Dockerfile::parse("FROM scratch\n\nCOPPY a b\n").expect_err("it is wrong");
    assert_eq!(error.to_string(), "line 3: COPPY is no instruction");
    assert_eq!(error.hint().as_deref(), Some("did you mean COPY?"));
    for (text, line) in [
        ("", 1),
        ("RUN a", 1),
        ("FROM a b", 1),
        ("FROM a AS 1x", 1),
        ("FROM a AS x\nFROM b AS X", 2),
        ("FROM a\nCOPY x", 2),
        ("FROM a\nENV x", 2),
        ("FROM a\nENV x=1 y", 2),
        ("FROM a\nENV x='1", 2),
        ("FROM a\nRUN --mount=type=cache x", 2),
        ("FROM a\nRUN <<EOF\nx", 2),
        ("FROM a\nSHELL sh -c", 2),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x", 2),
        ("FROM a\nONBUILD FROM x", 2),
        ("FROM a\nSTOPSIGNAL A B", 2),
    ] {
        assert_eq!(problem(text).0, line, "{text}");
    }
}

#[test]
fn a_health_check_has_times() {
    let Instruction::Healthcheck(health) = only("HEALTHCHECK --interval=1m30s --retries=2 CMD true") else { panic!() };
    assert_eq!(health.interval, Some(std::time::Duration::from_secs(90)));
    assert_eq!((health.retries, health.command), (Some(2), Some(Command::Shell("true".into()))));
    assert!(matches!(only("HEALTHCHECK NONE"), Instruction::Healthcheck(health) if health.command.is_none()));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_fall_over(text in "(FROM x|RUN|COPY|ENV|<<E|\\\\|\\$|\\{|\\}|:|-|\"|'|\n| |E|#|=|\\[|é){0,40}") {
        let _ = Dockerfile::parse(&format!("FROM a\n{text}"));
        let lookup = |_: &str| None;
        let with = Substitution { escape: '\\', lookup: &lookup };
        let _ = (with.word(&text), with.document(&text));
    }
}
