//! Getting in by tokens: Debian's registry believes who shows what an authority has signed, and the authority, of this
//! trial's own, wants a password first. Also what a log-in asks in a terminal, and mirrors.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::checks::{has, same, text};
use super::lab::{Lab, done, refused, skopeo};
use super::needs::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("tokens_let_in_where_an_authority_signs_them", &["docker-registry", "openssl", "umoci"], tokens),
        trial("a_log_in_asks_in_a_terminal_and_shows_no_password", &["script", "htpasswd"], asked),
        trial("a_mirror_is_looked_at_first", &["skopeo", "umoci"], mirrors),
    ]
}

/// Who signs tokens, and what it was asked.
struct Authority {
    key: String,
    /// Its certificate, as tokens show it.
    certificate: String,
    asked: Mutex<Vec<String>>,
}

impl Authority {
    /// A token for what is asked for, as far as it is anybody's: what lies below `closed/` is nobody's.
    fn sign(&self, scopes: &[String]) -> Result<String, Failed> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let granted = |scope: &&String| !scope.contains(":closed/");
        let access = scopes.iter().filter(granted).filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let actions: Vec<&str> = actions.split(',').collect();
            Some(json!({ "type": kind, "name": name, "actions": actions }))
        });
        let access: Vec<Value> = access.collect();
        let claims = json!({
            "iss": "trial", "sub": "ann", "aud": "registry", "jti": format!("{now}-{}", scopes.join(" ")),
            "iat": now, "nbf": now - 60, "exp": now + 300, "access": access,
        });
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [self.certificate] });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign", &self.key]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = openssl.spawn()?;
        child.stdin.take().ok_or("no way in")?.write_all(signed.as_bytes())?;
        let signature = child.wait_with_output()?.stdout;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The reply to a request, head and body.
    fn answer(&self, head: &str, body: &str) -> Result<(&'static str, Value), Failed> {
        let line = head.lines().next().unwrap_or_default();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{line}\n{body}"));
        let fields = if line.starts_with("POST ") { body } else { line.split(['?', ' ']).nth(2).unwrap_or_default() };
        let fields: Vec<(String, String)> =
            fields.split('&').filter_map(|pair| pair.split_once('=')).map(plain).collect();
        let of =
            |key: &'static str| fields.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str());
        let scopes: Vec<String> = of("scope").flat_map(|all| all.split(' ')).map(str::to_owned).collect();
        // The base64 of `ann:secret`.
        let by_password = head.contains("authorization: Basic YW5uOnNlY3JldA==");
        let by_identity = of("grant_type").eq(["refresh_token"]) && of("refresh_token").eq(["for ann"]);
        if !by_password && !by_identity {
            return Ok(("401 Unauthorized", json!({})));
        }
        let mut answer = json!({ "expires_in": 300 });
        answer[if by_identity { "access_token" } else { "token" }] = self.sign(&scopes)?.into();
        if of("offline_token").eq(["true"]) {
            answer["refresh_token"] = "for ann".into();
        }
        Ok(("200 OK", answer))
    }

    fn converse(&self, mut stream: TcpStream) -> Result<(), Failed> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
        let length =
            head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let (status, answer) = self.answer(&head, &text(&body))?;
        let answer = answer.to_string();
        let length = answer.len();
        write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{answer}")?;
        Ok(())
    }
}

/// Undoes the encoding of a form's field.
fn plain((name, value): (&str, &str)) -> (String, String) {
    let codes =
        [("+", " "), ("%20", " "), ("%3A", ":"), ("%2C", ","), ("%2F", "/"), ("%3a", ":"), ("%2c", ","), ("%2f", "/")];
    (name.to_owned(), codes.iter().fold(value.to_owned(), |text, (code, letter)| text.replace(code, letter)))
}

/// An authority with a key and a certificate, which are files of the lab. Answers where it listens.
fn authority(lab: &Lab) -> Result<(String, Arc<Authority>), Failed> {
    let (key, certificate) = (lab.text("signer.key"), lab.text("signer.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=trial"]);
    done(openssl.args(["-keyout", &key, "-out", &certificate]))?;
    let pem = fs::read_to_string(&certificate)?;
    let certificate = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let authority = Arc::new(Authority { key, certificate, asked: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let host = listener.local_addr()?.to_string();
    let shared = Arc::clone(&authority);
    // It ends with the trial's process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(shared.converse(stream));
        }
    });
    Ok((host, authority))
}

fn tokens() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    lab.image()?;
    let (realm, authority) = authority(&lab)?;
    let host = lab.serve_debians(&format!(
        "auth:\n  token:\n    realm: http://{realm}/token\n    service: registry\n    issuer: trial\n    \
         rootcertbundle: {}\n",
        lab.text("signer.crt")
    ))?;
    // An image of the layout, in our store.
    done(Command::new("tar").args(["-C", &lab.text("layout"), "-cf", &lab.text("layout.tar"), "."]))?;
    let told = done(&mut lab.ctr("store", &["load", "-i", &lab.text("layout.tar")]))?;
    let loaded = told.rsplit(' ').next().unwrap_or_default().to_owned();
    let name = |repository: &str| format!("{host}/{repository}:1");
    for repository in ["app", "second", "closed/app"] {
        done(&mut lab.ctr("store", &["tag", &loaded, &name(repository)]))?;
    }
    has(&refused(&mut lab.ctr("store", &["push", &name("app")]))?, "hint: log in: isolab-ctr login")?;
    let login = ["login", "--username", "ann", "--password-stdin", &host];
    same(lab.told(&login, "wrong\n").is_err(), true)?;
    lab.told(&login, "secret\n")?;
    // What is kept is what the authority gave, and not the password.
    let config = fs::read_to_string(lab.path("client/config.json"))?;
    has(&config, "\"identitytoken\": \"for ann\"")?;
    let kept: Value = serde_json::from_str(&config)?;
    same(kept["auths"][&host]["auth"].as_str(), Some("PHRva2VuPjo="))?;
    done(&mut lab.ctr("store", &["push", &name("app")]))?;
    // Two rights in one token: to write here, and to read there.
    let output = lab.ctr("store", &["push", &name("second")]).output()?;
    same(output.status.code(), Some(0))?;
    has(&text(&output.stderr), "Mounted")?;
    done(&mut lab.ctr("empty", &["pull", &name("second")]))?;
    has(&refused(&mut lab.ctr("store", &["push", &name("closed/app")]))?, "wants to know who asks")?;
    let asked = authority.asked.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    has(&asked, "grant_type=refresh_token")?;
    has(&asked, "client_id=isolab-ctr")
}

fn asked() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let users = lab.htpasswd()?;
    let host = lab.serve(&["--htpasswd", &users])?;
    let command = format!("{} login {host}", super::lab::CTR);
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    script.env("DOCKER_CONFIG", lab.path("client")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn()?;
    let mut input = child.stdin.take().ok_or("no way in")?;
    let mut output = child.stdout.take().ok_or("no way out")?;
    let mut shown = String::new();
    // Typed when it is asked for, as people do: what comes before, the terminal throws away.
    for (question, typed) in [("Username: ", "ann\n"), ("Password: ", "secret\n")] {
        while !shown.ends_with(question) {
            let mut byte = [0];
            output.read_exact(&mut byte).map_err(|error| format!("{error} after {shown:?}"))?;
            shown.push(char::from(byte[0]));
        }
        input.write_all(typed.as_bytes())?;
    }
    output.read_to_string(&mut shown)?;
    same(child.wait()?.code(), Some(0))?;
    has(&shown, "Login Succeeded")?;
    same(shown.contains("secret"), false)?;
    // Where nobody can be asked, that is said.
    has(&refused(&mut lab.ctr("store", &["login", "-u", "ann", &host]))?, "hint: give it on standard input")?;
    has(&refused(&mut lab.ctr("store", &["login", &host]))?, "hint: name one with --username")
}

fn mirrors() -> Result<(), Failed> {
    let mut lab = Lab::new()?;
    let (host, image) = (lab.serve(&[])?, lab.image()?);
    done(&mut skopeo(&[&image, &format!("docker://{host}/library/app:1")]))?;
    // Nobody listens at port 1: the next one is asked.
    let arguments = ["pull", "--registry-mirror", "127.0.0.1:1", "--registry-mirror", &host, "app:1"];
    let output = lab.ctr("store", &arguments).output()?;
    same(output.status.code(), Some(0))?;
    has(&text(&output.stderr), "warning: not from the mirror 127.0.0.1:1")?;
    has(&done(&mut lab.ctr("store", &["images"]))?, "app          1")?;
    let mirror = format!("registry.invalid={host}");
    done(lab.ctr("store", &["pull", "registry.invalid/library/app:1"]).env("ISOLAB_REGISTRY_MIRROR", &mirror))?;
    // A mirror of one registry is none of another, and the registry itself comes last.
    let mut other = lab.ctr("store", &["pull", "other.invalid/library/app:1"]);
    has(&refused(other.env("ISOLAB_REGISTRY_MIRROR", &mirror))?, "cannot reach other.invalid")?;
    has(&refused(&mut lab.ctr("store", &["pull", "--registry-mirror", "a/b", "app"]))?, "is no mirror")
}
