//! What templates come to; the expected texts are what Go's own text/template prints.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Template;

fn container() -> Value {
    json!({
        "Id": "4f2e", "Name": "/web", "Image": "web:1", "Size": 3, "Ratio": 0.5, "Nothing": null, "Empty": [],
        "Running": true, "Args": ["a", "b c"], "Config": { "Labels": { "x.y": "1", "b": "2" }, "Env": ["A=1", "B=2"] },
        "Ports": { "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }], "53/udp": null },
    })
}

fn render(text: &str) -> String {
    let rendered = Template::parse(text).and_then(|template| template.render(&container()));
    rendered.unwrap_or_else(|error| format!("error: {}", error.problem))
}

#[test]
fn what_docker_s_users_write_comes_to_what_docker_prints() {
    let table = [
        ("", ""),
        ("plain", "plain"),
        ("{{.Id}} {{.Name}}", "4f2e /web"),
        ("{{ .Config.Env }}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[b:2 x.y:1]"),
        ("{{json .Config.Labels}}", r#"{"b":"2","x.y":"1"}"#),
        ("{{json .Args}}{{.Nothing}}{{json .Nothing}}", r#"["a","b c"]<no value>null"#),
        ("{{range .Args}}<{{.}}>{{end}}", "<a><b c>"),
        ("{{range $i, $a := .Args}}{{if $i}}, {{end}}{{$a}}{{end}}", "a, b c"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "b=2;x.y=1;"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Absent}}x{{else}}none{{end}}", "none"),
        ("{{range .Args}}{{if eq . \"b c\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ("{{range .Args}}{{if eq . \"a\"}}{{continue}}{{end}}{{.}}{{end}}", "b c"),
        ("{{if .Running}}up{{else}}down{{end}}", "up"),
        ("{{if not .Running}}down{{else if .Size}}sized{{else}}none{{end}}", "sized"),
        ("{{with .State.Health}}{{.Status}}{{else}}no health{{end}}", "no health"),
        ("{{with $x := .Config}}{{len $x.Env}}{{end}}", "2"),
        ("{{index .Config.Labels \"x.y\"}}|{{index .Config.Labels \"none\"}}|{{index .Args 1}}", "1||b c"),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
        (
            "{{range $p, $c := .Ports}}{{$p}}->{{if $c}}{{(index $c 0).HostPort}}{{end}} {{end}}",
            "53/udp-> 80/tcp->8080 ",
        ),
        ("{{upper .Image}} {{.Image | upper | lower}} {{title \"a bc\"}}", "WEB:1 web:1 A Bc"),
        ("{{join .Args \", \"}} {{split .Image \":\"}} {{index (split .Image \":\") 1}}", "a, b c [web 1] 1"),
        ("{{truncate .Id 2}}{{pad .Id 1 2}}|{{pad \"\" 1 1}}|", "4f 4f2e  ||"),
        ("{{len .Name}}{{len .Args}}{{len .Ports}}", "422"),
        ("{{println .Id .Size}}{{print 1 2 \"a\" 3}}", "4f2e 3\n1 2a3"),
        (
            "{{printf \"%-6s|%5d|%05d|%.2f|%q|%x|%v|%t|%%\" .Id 42 -7 .Ratio .Id 255 .Args true}}",
            "4f2e  |   42|-0007|0.50|\"4f2e\"|ff|[a b c]|true|%",
        ),
        ("{{printf \"%d\" \"x\"}}{{printf \"%s\"}}", "%!d(x)%!s(MISSING)"),
        ("a {{- .Id -}} b", "a4f2eb"),
        ("a {{/* a comment */}}b{{- /* another */ -}} c", "a bc"),
        ("{{$x := .Id}}{{$x}}{{$x = \"other\"}}{{$x}}", "4f2eother"),
        ("{{$.Id}}{{range .Args}}{{$.Id}}{{end}}", "4f2e4f2e4f2e"),
        ("{{slice .Id 1 3}}{{slice .Args 1}}", "f2[b c]"),
        ("{{and .Running .Size}}{{or .Nothing .Absent \"else\"}}{{not .Empty}}", "3elsetrue"),
        ("{{eq .Size 3}}{{ne .Size 4}}{{lt 1 2}}{{ge \"b\" \"a\"}}{{eq .Id \"x\" \"4f2e\"}}", "truetruetruetruetrue"),
        ("{{`raw \\n`}}{{\"quoted \\t\\u0041\"}}", "raw \\nquoted \tA"),
        ("{{.Ratio}}{{1.0}}{{1e3}}{{-2}}", "0.511000-2"),
    ];
    for (text, expected) in table {
        assert_eq!(render(text), expected, "{text}");
    }
}

#[test]
fn what_cannot_be_is_told() {
    let table = [
        ("{{.Absent}}", "there is no Absent, only Args"),
        ("{{.Config.Absent.More}}", "there is no Absent, only Env, Labels"),
        ("{{json .Absent}}", "there is no Absent"),
        ("{{.Id.More}}", "4f2e has no field More"),
        ("{{.Id", "not closed"),
        ("{{}}", "nothing stands between"),
        ("{{if .Id}}", "if has no {{end}}"),
        ("{{end}}", "has not begun"),
        ("{{if .Id}}{{else}}{{else}}{{end}}", "a second else"),
        ("{{nosuch .Id}}", "there is no function nosuch"),
        ("{{.Id .Name}}", "this is no function"),
        ("{{1 | .Id}}", "this is no function"),
        ("{{upper 1}}", "upper can do nothing with a number"),
        ("{{index .Args 7}}", "a list of 2 has no number 7"),
        ("{{lt 1 \"a\"}}", "cannot be compared"),
        ("{{range .Size}}{{end}}", "range goes through lists"),
        ("{{$x}}", "there is no variable $x"),
        ("{{break}}", "outside of a range"),
        ("{{template \"x\"}}", "template is not known here"),
        ("{{\"open}}", "not closed"),
        ("{{(.Id}}", "a parenthesis is not closed"),
        ("{{.Id)}}", "closed that is not open"),
        ("{{pad .Id 1000000000 1}}", "is no number from 0 to 10000"),
        ("{{printf \"%99999999d\" 1}}", "a width of more than"),
    ];
    for (text, expected) in table {
        let told = render(text);
        assert!(told.starts_with("error: ") && told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn the_place_of_a_mistake_is_counted_in_characters() {
    let error = Template::parse("äö{{ .A | ?}}").unwrap_err();
    assert_eq!(error.at, 11);
}

#[test]
fn what_is_nested_too_deeply_is_refused() {
    for text in [format!("{{{{{}1{}}}}}", "(".repeat(9000), ")".repeat(9000)), "{{if 1}}".repeat(9000)] {
        assert!(render(&text).contains("nested too deeply"));
    }
    assert!(render(&"{{if .Absent}}{{else}}".repeat(9000)).starts_with("error"));
    assert!(render(&("{{if .Absent}}".to_owned() + &"{{else if 1}}".repeat(9000))).starts_with("error"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = render(&text);
    }

    #[test]
    fn no_words_in_braces_make_it_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "{{", "}}", "{{-", "-}}", " ", ".", ".Id", ".Args", "$", "$x", ":=", "=", ",", "|", "(", ")", "if", "else", "end",
            "range", "with", "break", "continue", "json", "index", "len", "slice", "printf", "\"%05d%s\"", "pad", "join",
            "eq", "lt", "and", "or", "not", "1", "-1", "0.5", "\"", "`", "ä", "/*", "*/",
        ]), 0..40)
    ) {
        let _ = render(&words.concat());
    }
}
