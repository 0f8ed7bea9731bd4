//! The page and `/api/status`, over HTTP and in a real browser.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidemill::http::report::FIELDS;

use crate::commands::{Running, append, prepared};
use crate::world::wait_for;

/// What is answered to a request: header and body.
pub(crate) fn http(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    let (header, body) = said.split_once("\r\n\r\n").unwrap();
    (header.to_ascii_lowercase(), body.to_owned())
}

fn get(address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    http(address, &request)
}

/// The parts of a text that stand between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).map(|rest| rest.split(after).next().unwrap()).collect()
}

/// A service that has answered a record and buried another; its page, and what `/api/status` says.
fn served(dir: &Path) -> (Running, String, String, Value) {
    let (mut store, text) = prepared(dir);
    append(&mut store, 3);
    let service = Running::start(&text, false, &[]);
    let status = service.status.clone();
    let address = wait_for("its address", || status.now().listening);
    let (mut answer, mut said) = (String::new(), Value::Null);
    wait_for("three records", || {
        answer = get(address, "/api/status", "*/*").1;
        said = serde_json::from_str(&answer).unwrap();
        let records = said["hour"]["records"].as_array().unwrap().iter();
        (records.filter_map(Value::as_u64).sum::<u64>() == 3).then_some(())
    });
    let (header, page) = get(address, "/", "text/html,*/*;q=0.8");
    (service, header, page, said)
}

#[test]
fn the_page_is_one_small_file_under_a_strict_policy() {
    let dir = tempfile::tempdir().unwrap();
    let (service, header, page, said) = served(dir.path());
    assert!(page.len() < 100_000, "{} bytes", page.len());
    let digest = |tag: &str| {
        let [inside] = between(&page, &format!("<{tag}>"), &format!("</{tag}>"))[..] else {
            panic!("not one <{tag}>")
        };
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inside))).to_ascii_lowercase()
    };
    for part in [
        "content-type: text/html".to_owned(),
        format!(
            "default-src 'none'; style-src {}; script-src {};",
            digest("style"),
            digest("script")
        ),
        "connect-src 'self';".to_owned(),
        "frame-ancestors 'none'".to_owned(),
        "x-content-type-options: nosniff".to_owned(),
        "cache-control: no-store".to_owned(),
    ] {
        assert!(header.contains(&part), "{part} in\n{header}");
    }
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        " style=\"",
        "src=",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let outside: Vec<&str> = between(&page, "http", "'")
        .into_iter()
        .filter(|rest| rest.starts_with("://") || rest.starts_with("s://"))
        .collect();
    assert!(
        outside.iter().all(|address| address.starts_with("://www.w3.org/2000/svg")),
        "{outside:?}"
    );
    // Everything that is filled in is there once, and has a name for who does not see it.
    let ids = between(&page, "id=\"", "\"");
    for used in between(&page, "$('", "'") {
        assert_eq!(ids.iter().filter(|id| **id == used).count(), 1, "{used}");
    }
    assert!(
        page.contains("<main ")
            && page.contains("aria-live=\"polite\"")
            && page.contains("lang=\"en\"")
    );
    for section in between(&page, "<section", ">") {
        assert!(section.contains("aria-label"), "{section}");
    }
    assert_eq!(said["models"]["serving"]["version"], 1);
    assert_eq!(said["state"], "running");
    service.command(tidemill::engine::Command::Leave);
    service.ended().unwrap();
}

#[test]
fn without_a_browser_it_is_a_few_lines() {
    let dir = tempfile::tempdir().unwrap();
    let (service, ..) = served(dir.path());
    let address = service.status.now().listening.unwrap();
    let (header, text) = get(address, "/", "*/*");
    assert!(header.contains("text/plain") && text.contains("partitions: 1\n"), "{text}");
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["status", "--url", &format!("http://{address}")])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && said.contains("last hour      3 records, 0 dead letters"),
        "{said}"
    );
    let json = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["status", "--json", "--url", &format!("http://{address}/")])
        .output()
        .unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap()["state"], "running");
    service.command(tidemill::engine::Command::Leave);
    service.ended().unwrap();
    let gone = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["status", "--url", &format!("http://{address}")])
        .output()
        .unwrap();
    assert_eq!(gone.status.code(), Some(75), "{}", String::from_utf8_lossy(&gone.stderr));
}

/// Chromium, by the variable `CHROMIUM` or in its usual places.
fn chromium() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok();
    let usual =
        ["chromium", "chromium-browser", "google-chrome"].map(|name| format!("/usr/bin/{name}"));
    named.into_iter().chain(usual).find(|path| Path::new(path).exists())
}

/// The document that a browser makes of a page within so many milliseconds of its own time, and what it complained of.
fn rendered(browser: &str, address: SocketAddr, milliseconds: u32) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--virtual-time-budget={milliseconds}"))
        .args(["--dump-dom", &format!("http://{address}/")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaints: Vec<&str> =
        complaints.lines().filter(|line| line.contains("CONSOLE")).collect();
    (String::from_utf8(output.stdout).unwrap(), complaints.join("\n"))
}

/// Serves a page under its policy, and this as `/api/status` for so many times.
fn stand_in(header: &str, page: &str, status: &Value, times: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let policy = header.lines().find(|line| line.starts_with("content-security-policy")).unwrap();
    // Digests are not what they are in small letters.
    let digest = |tag: &str| {
        let inside = between(page, &format!("<{tag}>"), &format!("</{tag}>"))[0];
        format!("{tag}-src 'sha256-{}'", STANDARD.encode(Sha256::digest(inside)))
    };
    let rest = policy.split("connect-src").nth(1).unwrap();
    let policy =
        format!("default-src 'none'; {}; {}; connect-src{rest}", digest("style"), digest("script"));
    let page = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Security-Policy: {policy}\r\nConnection: close\r\n\r\n{page}"
    );
    let status = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{status}"
    );
    let asked = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let answer = if request[..read].starts_with(b"GET / ") {
                &page
            } else if asked.fetch_add(1, Ordering::Relaxed) < times {
                &status
            } else {
                continue;
            };
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    address
}

/// `/api/status` with a text of its own in each place that has one; among them what would be markup.
fn marked() -> (Value, Vec<String>) {
    let mut marks = Vec::new();
    let mut tree = json!({});
    for field in FIELDS.iter().filter(|field| field.path != "config") {
        // The newest of the refusals says it.
        let told = field.path == "models.refused.reason";
        let mark = |list: &mut Vec<String>| {
            let mark = format!("<b>m{}</b>", list.len());
            list.push(mark.clone());
            mark
        };
        let value = match field.kind {
            _ if told => Value::from("told elsewhere"),
            kind if kind.starts_with("text") => Value::from(mark(&mut marks)),
            "true or false" => Value::from(false),
            _ => Value::from(7),
        };
        let pointer = format!("/{}", field.path.replace('.', "/").replace("[]", "/0"));
        put(&mut tree, &pointer, value);
    }
    tree["process"]["now"] = json!(1_790_000_000_000_i64);
    tree["config"] =
        json!({ "input": { "topics": ["<i>topic</i>"] }, "output": { "topic": "out" } });
    (tree, marks)
}

fn put(tree: &mut Value, pointer: &str, value: Value) {
    let mut at = tree;
    for part in pointer.split('/').skip(1) {
        if part == "0" {
            if !at.is_array() {
                *at = json!([null]);
            }
            at = &mut at[0];
        } else {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[part];
        }
    }
    *at = value;
}

/// Every text of `/api/status` has its place on the page, and none of them is markup there; when nobody answers any more,
/// the page says so.
#[test]
fn a_real_browser_shows_every_text_and_runs_none() {
    let Some(browser) = chromium() else {
        let line =
            "skipped: no Chromium (CHROMIUM names one); the page was not seen in a browser\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (service, header, page, said) = served(dir.path());
    let address = service.status.now().listening.unwrap();
    let (document, complaints) = rendered(&browser, address, 1_500);
    assert_eq!(complaints, "");
    assert!(document.contains("data-ready=\"yes\""), "{document}");
    let model = said["models"]["serving"]["name"].as_str().unwrap();
    assert!(document.contains(&format!("{model} version 1")), "{document}");
    service.command(tidemill::engine::Command::Leave);
    service.ended().unwrap();

    let (status, marks) = marked();
    let (document, complaints) =
        rendered(&browser, stand_in(&header, &page, &status, 1_000), 1_500);
    assert_eq!(complaints, "");
    for mark in marks {
        let shown = mark.replace('<', "&lt;").replace('>', "&gt;");
        // What is cut short in one place is whole in another, or is the digest's.
        assert!(document.contains(&shown), "{mark} is not in\n{document}");
        assert!(!document.contains(&mark), "{mark} is markup");
    }
    assert!(document.contains("■ Not ready") && document.contains("&lt;i&gt;topic&lt;/i&gt;"));

    let (document, _) = rendered(&browser, stand_in(&header, &page, &status, 1), 6_000);
    assert!(document.contains("The process does not answer since"), "{document}");
    assert!(document.contains("■ No answer") && document.contains("class=\"stale\""));
}
