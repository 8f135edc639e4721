//! Registries that lie, hang, lead astray, or break off: what our client makes of them.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use isolab_runtime::image::Digest;
use libtest_mimic::{Failed, Trial};

use super::checks::{has, same};
use super::lab::{Lab, done, refused};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("other_bytes_than_promised_are_refused", &[], other_bytes),
        trial("more_or_fewer_bytes_than_promised_are_refused", &[], other_sizes),
        trial("a_blob_that_breaks_off_is_gone_on_with", &[], breaks_off),
        trial("a_registry_that_is_busy_is_asked_again", &[], busy),
        trial("a_redirect_without_end_is_left", &[], redirects),
        trial("a_password_goes_nowhere_else", &[], password),
        trial("a_registry_that_says_nothing_is_left", &[], hangs),
        trial("a_manifest_without_end_is_left", &[], endless),
    ]
}

/// What was asked: the head of the request, whole.
type Answer = dyn Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// What is sent for a layer, by a closure that may borrow.
type Layer<'a> = dyn Fn(&str, &mut TcpStream) -> std::io::Result<()> + 'a;

/// A server that answers everything by a function, one request a connection. Its threads end with the trial's process.
fn liar(
    answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Result<String, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let host = listener.local_addr()?.to_string();
    let answer: Arc<Answer> = Arc::new(answer);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let Ok(copy) = stream.try_clone() else { return };
                let lines = BufReader::new(copy).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                let head = lines.collect::<Vec<_>>().join("\n");
                drop(answer(&head, &mut stream));
            });
        }
    });
    Ok(host)
}

fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length =
        if headers.contains("content-length") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n{length}{headers}\r\n")?;
    stream.write_all(body)
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// An image of one layer, an empty archive with some zeros behind it.
#[derive(Clone)]
struct Small {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Small {
    fn new() -> Self {
        let layer = vec![0; 300_000];
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            sha256(&layer)
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
            sha256(config.as_bytes()),
            config.len(),
            sha256(&layer),
            layer.len()
        );
        Self { layer, config: config.into_bytes(), manifest: manifest.into_bytes() }
    }

    /// Answers as a registry should, but for the layer.
    fn serve(&self, head: &str, stream: &mut TcpStream, layer: &Layer<'_>) -> std::io::Result<()> {
        let line = head.lines().next().unwrap_or_default();
        if line.contains("/manifests/") {
            let kind = "content-type: application/vnd.oci.image.manifest.v1+json\r\n";
            reply(stream, "200 OK", kind, &self.manifest)
        } else if line.contains(&sha256(&self.config)) {
            reply(stream, "200 OK", "", &self.config)
        } else if line.contains("/blobs/") {
            layer(head, stream)
        } else {
            reply(stream, "200 OK", "", b"{}")
        }
    }
}

fn other_bytes() -> Result<(), Failed> {
    let (lab, small) = (Lab::new()?, Small::new());
    let mut wrong = small.layer.clone();
    wrong[200_000] = 1;
    let host = liar(move |head, stream| small.serve(head, stream, &|_, stream| reply(stream, "200 OK", "", &wrong)))?;
    let said = refused(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?;
    has(&said, "sends something else than sha256:")?;
    has(&said, "hint: do not use what it sends")?;
    same(done(&mut lab.ctr("store", &["images", "--quiet"]))?.as_str(), "")
}

fn other_sizes() -> Result<(), Failed> {
    let (lab, small) = (Lab::new()?, Small::new());
    let long = [small.layer.clone(), vec![0; 10]].concat();
    let host = liar({
        let (small, long) = (small.clone(), long.clone());
        move |head, stream| small.serve(head, stream, &|_, stream| reply(stream, "200 OK", "", &long))
    })?;
    has(&refused(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?, "another size than the manifest says")?;
    // Without a length the end is where the connection ends: here, far too late.
    let host = liar(move |head, stream| {
        small.serve(head, stream, &|_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&long)?;
            }
        })
    })?;
    has(&refused(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?, "more bytes than the manifest says")
}

fn breaks_off() -> Result<(), Failed> {
    let (lab, small) = (Lab::new()?, Small::new());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let host = liar({
        let (asked, small) = (Arc::clone(&asked), small.clone());
        move |head, stream| {
            small.serve(head, stream, &|head, stream| {
                let range =
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
                let from = range.as_ref().and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0_usize);
                asked.lock().unwrap_or_else(PoisonError::into_inner).extend(range.clone());
                let (all, until) = (small.layer.len(), (from + 120_000).min(small.layer.len()));
                let (status, extra) = match range {
                    None => ("200 OK", String::new()),
                    Some(_) => ("206 Partial Content", format!("content-range: bytes {from}-{}/{all}\r\n", all - 1)),
                };
                let headers = format!("content-length: {}\r\n{extra}", all - from);
                reply(stream, status, &headers, small.layer.get(from..until).unwrap_or_default())
            })
        }
    })?;
    done(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?;
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    same(asked.as_slice(), &["120000-".to_owned(), "240000-".to_owned()][..])
}

fn redirects() -> Result<(), Failed> {
    let (lab, small) = (Lab::new()?, Small::new());
    let again = |head: &str, stream: &mut TcpStream| {
        let to = head.split(' ').nth(1).unwrap_or_default();
        reply(stream, "307 Temporary Redirect", &format!("location: {to}\r\n"), b"")
    };
    let host = liar(move |head, stream| small.serve(head, stream, &again))?;
    has(&refused(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?, "redirects without end")?;
    let small = Small::new();
    let host = liar(move |head, stream| {
        small.serve(head, stream, &|_, stream| {
            reply(stream, "307 Temporary Redirect", "location: file:///etc/passwd\r\n", b"")
        })
    })?;
    has(&refused(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?, "to something that is no address")
}

/// First it is busy, then it says for how long, then it answers; another one never has the time.
fn busy() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let asked = Arc::new(AtomicUsize::new(0));
    let host = liar({
        let (small, asked) = (Small::new(), Arc::clone(&asked));
        move |head, stream| {
            small.serve(head, stream, &|_, stream| match asked.fetch_add(1, Ordering::Relaxed) {
                0 => reply(stream, "503 Service Unavailable", "", b""),
                1 => reply(stream, "429 Too Many Requests", "retry-after: 1\r\n", b""),
                _ => reply(stream, "200 OK", "", &small.layer),
            })
        }
    })?;
    let begin = Instant::now();
    done(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?;
    same(asked.load(Ordering::Relaxed), 3)?;
    same(begin.elapsed() >= Duration::from_millis(1250), true)?;
    let small = Small::new();
    let host = liar(move |head, stream| {
        small.serve(head, stream, &|_, stream| reply(stream, "503 Service Unavailable", "", b""))
    })?;
    let said = refused(&mut lab.ctr("other", &["pull", &format!("{host}/app")]))?;
    has(&said, "answers 503")?;
    has(&said, "hint: that may pass: try again later")
}

fn password() -> Result<(), Failed> {
    let (lab, small) = (Lab::new()?, Small::new());
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let other = liar({
        let (heard, layer) = (Arc::clone(&heard), small.layer.clone());
        move |head, stream| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(head.to_lowercase());
            reply(stream, "200 OK", "", &layer)
        }
    })?;
    let host = liar(move |head, stream| {
        if !head.to_lowercase().contains("authorization: basic yw5uonnly3jlda==") {
            return reply(stream, "401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", b"");
        }
        let elsewhere = format!("location: http://{other}/layer\r\n");
        small.serve(head, stream, &|_, stream| reply(stream, "307 Temporary Redirect", &elsewhere, b""))
    })?;
    lab.told(&["login", "--username", "ann", "--password-stdin", &host], "secret")?;
    done(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?;
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    same((heard.len(), heard.iter().any(|head| head.contains("authorization"))), (1, false))
}

fn hangs() -> Result<(), Failed> {
    let (lab, small) = (Lab::new()?, Small::new());
    let host = liar(move |head, stream| {
        small.serve(head, stream, &|_, stream| {
            reply(stream, "200 OK", "content-length: 300000\r\n", &[0; 10])?;
            thread::sleep(Duration::from_mins(1));
            Ok(())
        })
    })?;
    let begin = Instant::now();
    let said = refused(&mut lab.ctr("store", &["pull", "--timeout", "1", &format!("{host}/app")]))?;
    has(&said, "cannot reach")?;
    same(begin.elapsed() < Duration::from_secs(30), true)
}

fn endless() -> Result<(), Failed> {
    let lab = Lab::new()?;
    let host = liar(|head, stream| {
        if !head.contains("/manifests/") {
            return reply(stream, "200 OK", "", b"{}");
        }
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        loop {
            stream.write_all(&[b' '; 4096])?;
        }
    })?;
    has(&refused(&mut lab.ctr("store", &["pull", &format!("{host}/app")]))?, "a manifest of more than")
}
