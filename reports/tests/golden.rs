//! The rendered report of a fixed run, byte for byte.
//!
//! `ISOLAB_RENEW=1 cargo test -p isolab-reports --test golden` writes the files anew; look at the difference before keeping it.

mod support;

use std::fs;

use isolab_reports::report;

#[test]
fn the_report_of_the_fixture_is_the_one_that_was_looked_at() {
    let (_, run) = support::fixture();
    let golden = support::path("golden");
    for file in report::render(&run) {
        let path = golden.join(&file.name);
        if std::env::var_os("ISOLAB_RENEW").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
            fs::write(&path, &file.bytes).expect("the golden file can be written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let rendered = String::from_utf8(file.bytes).expect("UTF-8");
        if let Some((line, (was, is))) =
            expected.lines().zip(rendered.lines()).enumerate().find(|(_, (was, is))| was != is)
        {
            panic!("{}, line {}:\nwas {was}\nis  {is}\n(ISOLAB_RENEW=1 renews it)", file.name, line + 1);
        }
        assert_eq!(expected.len(), rendered.len(), "{} has another length (ISOLAB_RENEW=1 renews it)", file.name);
    }
}

#[test]
fn the_page_names_no_other_place() {
    let (_, run) = support::fixture();
    let page = support::file(&report::render(&run), "index.html");
    support::assert_sound(&page);
    let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for reference in ["http", "//", "src=", "<script", "url(", "@import", "javascript:", "data:"] {
        assert!(!page.contains(reference), "the page holds {reference:?}");
    }
}

#[test]
fn each_chart_is_a_picture_of_its_own_that_says_in_words_what_it_shows() {
    let (_, run) = support::fixture();
    let files = report::render(&run);
    let charts: Vec<_> =
        files.iter().filter(|file| file.name.starts_with("charts/")).map(|file| file.name.as_str()).collect();
    let startup = ["fastest", "phases", "distribution", "sequence", "forest", "parallel"];
    let density = ["densest", "density", "residuals", "starts", "memory"];
    let snapshot = ["shared", "sizes", "touched", "disk", "commits"];
    let clone = ["machine-times", "machine-bytes", "container-times", "container-bytes", "depth", "together"];
    let all = startup.iter().chain(&density).chain(&snapshot).chain(&clone);
    let expected: Vec<_> = all.map(|name| format!("charts/{name}.svg")).collect();
    assert_eq!(charts, expected);
    for name in charts {
        let svg = support::file(&files, name);
        let document = roxmltree::Document::parse(&svg).expect("well-formed");
        let words =
            |tag: &str| document.descendants().find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", tag)));
        assert!(words("title").is_some() && words("desc").is_some(), "{name}");
        assert!(!svg.contains("var("), "{name} leans on the page's colours");
    }
}

#[test]
fn every_subject_and_every_failure_is_on_the_page() {
    let (_, run) = support::fixture();
    let page = support::file(&report::render(&run), "index.html");
    for cell in &run.cells {
        assert!(page.contains(&format!("<th scope=\"row\">{}</th>", cell.name)), "{}", cell.name);
    }
    assert!(page.contains("cgroup is busy"));
    assert!(page.contains("firecracker") && page.contains("not on PATH"));
}
