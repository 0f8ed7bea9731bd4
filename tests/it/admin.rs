//! `/admin`: who is let in, what is done, and that everything is bounded.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tidemill::sqlite::{Message, Store};
use tidemill::status::Doing;

use crate::commands::{Running, append, prepared, versions};
use crate::page::http;
use crate::world::wait_for;

const TOKEN: &str = "a-token-of-annas-own";

/// A service whose `/admin` lets anna in, and where that is.
fn started(dir: &Path) -> (Running, SocketAddr, Store) {
    let (mut store, text) = prepared(dir);
    append(&mut store, 5);
    let (service, address) = with_admin(dir, &text);
    wait_for("the first outcomes", || (versions(&store).len() == 5).then_some(()));
    (service, address, store)
}

/// The same of a configuration.
fn with_admin(dir: &Path, text: &str) -> (Running, SocketAddr) {
    let file = dir.join("tokens");
    std::fs::write(&file, format!("# operators\nanna:{TOKEN}\n")).unwrap();
    // Free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let admin = format!("admin: {{ listen: '{address}', token_file: {} }}\n", file.display());
    (Running::start(&format!("{text}{admin}"), false, &[]), address)
}

/// Status and message of what is asked for.
fn ask(address: SocketAddr, method: &str, action: &str, token: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{method} /admin/{action} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let (header, body) = http(address, &request);
    let status = header.split(' ').nth(1).unwrap().parse().unwrap();
    let said: Value = serde_json::from_str(&body).unwrap_or_default();
    (status, said["message"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_operator_with_a_token_does_what_there_is_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (service, address, mut store) = started(dir.path());
    let (status, metrics) = (service.status.clone(), service.telemetry.clone());
    let does = |action: &str, body: &str| ask(address, "POST", action, TOKEN, body);
    assert_eq!(does("pause", "").0, 202);
    wait_for("the pause", || (status.now().doing == Doing::Paused).then_some(()));
    assert_eq!(does("resume", "{}").0, 202);
    wait_for("the end of it", || (status.now().doing == Doing::Running).then_some(()));
    assert_eq!(does("promote", "{\"version\":2}").0, 200);
    let serves = |version| move |id: &tidemill::record::ModelId| id.version.0 == version;
    // A version that is staged serves from the next batch on.
    let mut serving = || {
        append(&mut store, 1);
        status.now().serving.clone()
    };
    wait_for("version 2", || serving().filter(serves(2)));
    let (code, said) = does("rollback", "");
    assert!(code == 200 && said.contains("@champion is version 1 again"), "{code} {said}");
    wait_for("version 1 again", || serving().filter(serves(1)));
    let (code, said) = does("promote", "{\"version\":9}");
    assert!(code == 409 && said.contains("no version 9; versions: 1, 2"), "{code} {said}");
    assert_eq!(does("reload", "").0, 202);
    assert_eq!(does("log", "{\"filter\":\"info\"}").0, 200);
    let (code, said) = does("log", "{\"filter\":\"a=b=c\"}");
    assert!(code == 400 && said.contains("write info or"), "{code} {said}");
    let scrape = metrics.render();
    for (action, result, count) in
        [("pause", "done", 1), ("promote", "done", 1), ("promote", "refused", 1)]
    {
        let line = format!(
            "tidemill_admin_actions_total{{action=\"{action}\",result=\"{result}\"}} {count}\n"
        );
        assert!(scrape.contains(&line), "{line} in\n{scrape}");
    }
    assert_eq!(does("drain", "{\"leave\":true}").0, 202);
    service.ended().unwrap();
}

/// What has stopped by itself does nothing any more, whatever an operator wants of it but its end.
#[test]
fn a_service_that_has_stopped_by_itself_refuses_what_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, text) = prepared(dir.path());
    let text = text.replace("max_ratio: 1.0", "max_ratio: 0.1");
    let (service, address) = with_admin(dir.path(), &text);
    let bad = Message { timestamp: 0, key: None, value: Some(b"no".to_vec()), headers: Vec::new() };
    store.append("in", 0, &vec![bad; 400]).unwrap();
    let stopped = || matches!(service.status.now().doing, Doing::Stopped(_)).then_some(());
    wait_for("too many dead letters", stopped);
    for action in ["pause", "resume", "reload"] {
        let (code, said) = ask(address, "POST", action, TOKEN, "");
        assert_eq!(code, 409, "{action}: {said}");
        for part in ["not done: the service has stopped; end it", "dead_letters.max_ratio"] {
            assert!(said.contains(part), "{action}: {said}");
        }
        let scrape = service.telemetry.render();
        let line =
            format!("tidemill_admin_actions_total{{action=\"{action}\",result=\"refused\"}} 1\n");
        assert!(scrape.contains(&line), "{line} in\n{scrape}");
    }
    assert_eq!(ask(address, "POST", "drain", TOKEN, "").0, 202);
    assert!(service.ended().is_err(), "it ends with what stopped it");
}

#[test]
fn others_are_not_let_in_and_lock_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let (service, address, _store) = started(dir.path());
    for (method, action, token, body, expect) in [
        ("POST", "pause", "", "", 401),
        ("POST", "pause", "another-token-than-hers", "", 401),
        ("POST", "nothing", "another-token-than-hers", "", 401),
        ("GET", "pause", TOKEN, "", 405),
        ("POST", "nothing", TOKEN, "", 404),
        ("POST", "unknown", TOKEN, "", 404),
        ("POST", "a/b", TOKEN, "", 404),
        ("POST", "promote", TOKEN, "{\"version\":\"2\"}", 400),
        ("POST", "promote", TOKEN, "{\"version\":2,\"alias\":\"other\"}", 400),
        ("POST", "pause", TOKEN, "[", 400),
        ("POST", "log", TOKEN, &format!("{{\"filter\":\"{}\"}}", "a".repeat(5_000)), 413),
    ] {
        let (code, said) = ask(address, method, action, token, body);
        assert_eq!(code, expect, "{method} {action} {body}: {said}");
        assert!(!said.is_empty());
    }
    let guess = |_| ask(address, "POST", "pause", "another-token-than-hers", "").0;
    let guesses: Vec<u16> = (0..40).map(guess).collect();
    assert_eq!((guesses[0], guesses[39]), (401, 429), "guesses are bounded");
    assert_eq!(service.status.now().doing, Doing::Running, "nothing of it was done");
    assert_eq!(
        ask(address, "POST", "reload", TOKEN, "").0,
        202,
        "who has a token is let in all the same"
    );
    let many: Vec<u16> =
        (0..40).map(|_| ask(address, "POST", "log", TOKEN, "{\"filter\":\"info\"}").0).collect();
    assert_eq!((many[0], many[39]), (200, 429), "actions are bounded");
    service.command(tidemill::engine::Command::Leave);
    service.ended().unwrap();
}

/// Who did what from where, and what came of it, stands in the log; a pause is forgotten with its process.
#[test]
fn each_action_is_a_line_and_a_pause_ends_with_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, text) = prepared(dir.path());
    let (tokens, config) = (dir.path().join("tokens"), dir.path().join("tidemill.yaml"));
    std::fs::write(&tokens, format!("anna:{TOKEN}\n")).unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let admin = format!("admin: {{ listen: '{address}', token_file: {} }}\n", tokens.display());
    std::fs::write(&config, text + &admin + "logging: { format: json }\n").unwrap();
    let mut replica = crate::world::Replica::start(&config, &[]);
    let said = || std::fs::read_to_string(config.with_extension("log")).unwrap();
    let up = || std::net::TcpStream::connect(address).ok();
    wait_for("the listener", up);
    for (action, token, body, status) in [
        ("pause", TOKEN, "", 202),
        ("promote", TOKEN, "{\"version\":9}", 409),
        ("a%0Ab", TOKEN, "", 404),
        ("pause", "another-token-than-hers", "", 401),
    ] {
        assert_eq!(ask(address, "POST", action, token, body).0, status, "{action}");
    }
    let lines: Vec<Value> = wait_for("four lines", || {
        let lines = said();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines.filter(|line| line["peer"].is_string()).collect();
        (lines.len() == 4).then_some(lines)
    });
    for (line, (who, action, result, status)) in lines.iter().zip([
        ("anna", "pause", "done", 202),
        ("anna", "promote", "refused", 409),
        ("anna", "unknown", "refused", 404),
    ]) {
        let expect = [who, action, result].map(Value::from);
        let told = ["who", "action", "result"].map(|field| line[field].clone());
        assert_eq!(told, expect, "{line}");
        assert_eq!(line["status"], status);
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
    assert!(lines[3]["message"].as_str().unwrap().contains("without a token"), "{}", lines[3]);
    replica.says("paused: what is in the model is finished");
    replica.crash();
    wait_for("the listener", up);
    let http = wait_for("the page", || {
        let lines = said();
        let lines = lines.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut lines = lines.filter(|line| line["message"].as_str().unwrap().contains("/readyz"));
        lines.next()?["address"].as_str()?.parse::<SocketAddr>().ok()
    });
    let close = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    wait_for("ready", || (http_body(http, close) == "ready\n").then_some(()));
}

fn http_body(address: SocketAddr, request: &str) -> String {
    http(address, request).1
}

#[test]
fn nothing_listens_without_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, text) = prepared(dir.path());
    let file = dir.path().join("tokens");
    std::fs::write(&file, "short\n").unwrap();
    let config = dir.path().join("tidemill.yaml");
    std::fs::write(&config, format!("{text}admin: {{ token_file: {} }}\n", file.display()))
        .unwrap();
    let (code, log) = crate::world::Replica::start(&config, &[]).ended();
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("admin.token_file") && log.contains("fewer than 16 characters"), "{log}");
}
