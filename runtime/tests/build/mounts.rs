//! What a step sees and the image does not have, and files that lie elsewhere.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use isolab_runtime::image::Digest;
use libtest_mimic::{Failed, Trial};

use super::lab::{BASE, Lab, has, same, succeed};
use super::needs;

type Test = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 5] = [
        ("a_cache_is_found_again_and_is_in_no_image", caches),
        ("files_of_stages_and_secrets_are_seen_by_one_step_only", binds),
        ("what_dockerignore_names_is_not_mounted_either", ignored),
        ("add_fetches_a_file_and_compares_it", fetched),
        ("a_steps_layer_outlives_its_image_until_all_is_pruned", pinned),
    ];
    let needs = ["root", "overlay", "busybox", "cgroup"];
    all.into_iter().map(|(name, test)| needs::trial(name, &needs, test)).collect()
}

fn out(lab: &Lab, name: &str, line: &str) -> Result<String, Failed> {
    Ok(succeed(&lab.run(&["run", "--rm", name, "sh", "-c", line])?)?.0)
}

fn caches() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let file = |line: &str| format!("{BASE}RUN --mount=type=cache,target=/var/cache/app,sharing=locked {line}\n");
    let text = file("echo one >> /var/cache/app/log; cp /var/cache/app/log /log");
    lab.build("app", &text, &[])?;
    same(&out(&lab, "app", "cat /log; ls /var 2>&1 || true")?.as_str(), &"one\nls: /var: No such file or directory\n")?;
    // Done again, it finds what it left; another step finds it too.
    lab.build("app", &text, &["--no-cache"])?;
    same(&out(&lab, "app", "cat /log")?.as_str(), &"one\none\n")?;
    let (_, told) = lab.build("other", &file("wc -l < /var/cache/app/log"), &[])?;
    has(&told, "  | 2\n")?;
    has(&succeed(&lab.run(&["prune", "--all"])?)?.0, "and 1 mounts")?;
    let (_, told) = lab.build("other", &file("ls /var/cache/app | wc -l"), &[])?;
    has(&told, "  | 0\n")?;
    // What is in memory is gone with the step, too.
    let text =
        format!("{BASE}RUN --mount=type=tmpfs,target=/scratch,size=1m df /scratch | tail -1 && echo x > /scratch/x\n");
    let (_, told) = lab.build("app", &text, &[])?;
    has(&told, "1024")?;
    same(&out(&lab, "app", "ls /scratch 2>&1 || true")?.contains("No such"), &true)
}

fn binds() -> Result<(), Failed> {
    let lab = Lab::new()?;
    lab.write("notes/a", "of the folder\n")?;
    lab.write("key", "a secret")?;
    let text = format!(
        "{BASE}FROM base AS first\nRUN echo of the stage > /made\n\
         FROM base\nARG WHERE=/in\nRUN --mount=from=first,source=/made,target=/made --mount=target=${{WHERE}},source=notes \
         --mount=type=secret,id=key --mount=type=secret,id=none \
         cat /made /in/a > /seen && ! touch /in/b 2> /dev/null && wc -c < /run/secrets/key >> /seen && ls /run/secrets >> /seen\n\
         RUN --mount=target=/in,rw echo x > /in/new && cat /in/notes/a\n"
    );
    let key = format!("id=key,src={}", lab.context().join("key").display());
    lab.build("app", &text, &["--secret", &key])?;
    same(&out(&lab, "app", "cat /seen")?.as_str(), &"of the stage\nof the folder\n8\nkey\n")?;
    same(&out(&lab, "app", "ls -d /made /in /run 2> /dev/null; true")?.as_str(), &"")?;
    // What a step writes to the folder's files is nowhere afterwards.
    same(&lab.context().join("new").exists(), &false)?;
    let found = std::process::Command::new("grep").args(["-rl", "a secret"]).arg(lab.store()).output()?;
    same(&String::from_utf8_lossy(&found.stdout).as_ref(), &"")?;
    // Other files there make it another step; the same are the same.
    let (_, told) = lab.build("app", &text, &["--secret", &key])?;
    same(&told.matches("CACHED").count(), &7)?;
    lab.write("notes/a", "another\n")?;
    lab.build("app", &text, &["--secret", &key])?;
    has(&out(&lab, "app", "cat /seen")?, "another")?;
    let needed = format!("{BASE}RUN --mount=type=secret,id=other,required cat /run/secrets/other\n");
    let output = lab.try_build("app", &needed, &[])?;
    has(&String::from_utf8_lossy(&output.stderr), "hint: give it with --secret id=other,src=FILE")
}

fn ignored() -> Result<(), Failed> {
    let lab = Lab::new()?;
    for path in ["seen", "keys/hidden", "keys/kept", "target/large"] {
        lab.write(path, "content\n")?;
    }
    lab.write(".dockerignore", "keys\n!keys/kept\ntarget\n")?;
    let list = "cd /in && find . -type f ! -name .dockerignore ! -name Dockerfile ! -name busybox | sort";
    let text = format!(
        "{BASE}RUN --mount=target=/in ({list}) > /list && ! touch /in/new 2> /dev/null\n\
         RUN --mount=target=/in,rw echo x > /in/target && ({list}) > /list2\n"
    );
    lab.build("app", &text, &[])?;
    same(&out(&lab, "app", "cat /list")?.as_str(), &"./keys/kept\n./seen\n")?;
    same(&out(&lab, "app", "cat /list2")?.as_str(), &"./keys/kept\n./seen\n./target\n")?;
    same(&fs::read_to_string(lab.context().join("target/large"))?.as_str(), &"content\n")?;
    let text = format!("{BASE}RUN --mount=target=/in,source=target ls /in\n");
    let output = lab.try_build("app", &text, &[])?;
    same(&output.status.success(), &false)?;
    has(&String::from_utf8_lossy(&output.stderr), "what .dockerignore names is not seen")
}

/// Serves one text at any address. Answers the host; its thread ends with the trial's process.
fn server(content: &'static str) -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let host = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok(copy) = stream.try_clone() else { continue };
            let head: Vec<String> =
                BufReader::new(copy).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let (status, more) = match head.first().map_or("", String::as_str) {
                line if line.starts_with("GET /moved") => ("302 Found", "location: /files/page.txt\r\n"),
                line if line.starts_with("GET /files/") => {
                    ("200 OK", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n")
                }
                _ => ("404 Not Found", ""),
            };
            let length = content.len();
            let reply =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n{content}");
            drop(stream.write_all(reply.as_bytes()));
        }
    });
    Ok(host)
}

fn fetched() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let host = server("a page\n")?;
    let digest = Digest::of(b"a page\n");
    let text = format!(
        "{BASE}ADD http://{host}/files/page.txt?x=1 /srv/\nADD --chmod=644 http://{host}/moved /srv/other\n\
         ADD --checksum={digest} http://{host}/files/page.txt /srv/third\n"
    );
    lab.build("app", &text, &[])?;
    let told = out(&lab, "app", "cd /srv; cat page.txt other third; stat -c '%n %a %Y' page.txt other")?;
    same(&told.as_str(), &"a page\na page\na page\npage.txt 600 784111777\nother 644 784111777\n")?;
    let (_, told) = lab.build("app", &text, &[])?;
    same(&told.matches("CACHED").count(), &6)?;
    let wrong = Digest::of(b"another page\n");
    for (line, complaint) in [
        (format!("ADD --checksum={wrong} http://{host}/files/page.txt /x"), format!("has the digest {digest}")),
        (format!("ADD http://{host}/none /x"), "answers 404".to_owned()),
        (format!("ADD http://{host}/files/ /srv/"), "ends with no name".to_owned()),
        (format!("COPY http://{host}/files/page.txt /srv/"), "only ADD takes addresses".to_owned()),
        (format!("ADD --checksum={wrong} busybox /srv/"), "--checksum is".to_owned()),
    ] {
        let output = lab.try_build("app", &format!("{BASE}{line}\n"), &[])?;
        has(&String::from_utf8_lossy(&output.stderr), &complaint)?;
    }
    Ok(())
}

fn pinned() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let text = format!("{BASE}RUN date > /when\n");
    lab.build("app", &text, &[])?;
    let first = out(&lab, "app", "cat /when")?;
    succeed(&lab.run(&["rmi", "app"])?)?;
    succeed(&lab.run(&["prune"])?)?;
    let (_, told) = lab.build("app", &text, &[])?;
    same(&told.matches("CACHED").count(), &4)?;
    same(&out(&lab, "app", "cat /when")?, &first)?;
    // A container keeps its image; without one all of it goes.
    let id = succeed(&lab.run(&["create", "app", "true"])?)?.0;
    succeed(&lab.run(&["prune", "--all"])?)?;
    succeed(&lab.run(&["history", "app"])?)?;
    succeed(&lab.run(&["rm", id.trim()])?)?;
    has(&succeed(&lab.run(&["prune", "--all"])?)?.0, "Untagged: app:latest")?;
    same(&fs::read_dir(lab.store().join("blobs/sha256"))?.count(), &0)?;
    same(&fs::read_dir(lab.store().join("layers"))?.count(), &0)
}
