//! The three answers, against a server that answers as it is told, over real sockets. A real registry:
//! `tests/it/schema_registry.rs`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;

/// What a server does with a request.
#[derive(Clone)]
enum Does {
    Answers(u16, String),
    /// Nothing, until the other side gives up.
    Hangs,
    /// Closes the connection without an answer.
    Closes,
    /// A byte of an endless answer now and then.
    Drips,
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Does what `does` says for each request's first line, and the group of Apicurio's that it is for.
    fn start(does: impl Fn(&str) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, does) = (Arc::clone(&asked), Arc::new(does));
        let accept = move || {
            for stream in listener.incoming() {
                let (log, does) = (Arc::clone(&log), Arc::clone(&does));
                let serve = move || serve(stream.unwrap(), &log, &*does);
                thread::Builder::new().name("connection".to_owned()).spawn(serve).unwrap();
            }
        };
        thread::Builder::new().name("registry".to_owned()).spawn(accept).unwrap();
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>, does: &dyn Fn(&str) -> Does) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut first, mut head, mut length) = (String::new(), String::new(), 0);
        let mut group = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.to_lowercase().starts_with("x-registry-groupid:") {
                group = line.replacen("x-registry-groupid:", " in", 1).trim_end().to_owned();
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request = first.trim_end_matches(" HTTP/1.1\r\n").to_owned() + &group;
        let body = String::from_utf8(body).unwrap();
        log.lock().unwrap().push(format!("{request}\n{head}\n{body}"));
        match does(&request) {
            Does::Answers(status, text) => {
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", text.len());
                let location = "Location: /elsewhere\r\n\r\n";
                if stream.write_all(format!("{head}{location}{text}").as_bytes()).is_err() {
                    return;
                }
            }
            Does::Hangs => {
                let mut rest = Vec::new();
                let _ends_when_they_do = reader.read_to_end(&mut rest);
                return;
            }
            Does::Closes => return,
            Does::Drips => {
                let mut open =
                    stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 1000000\r\n\r\n");
                let rest = std::sync::mpsc::sync_channel::<()>(0).1;
                while open.is_ok() {
                    let _pause = rest.recv_timeout(Duration::from_millis(20));
                    open = stream.write_all(b" ");
                }
                return;
            }
        }
    }
}

fn settings(urls: &[&str]) -> Settings {
    Settings {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        auth: Auth::None,
        ca: None,
        timeout: Duration::from_millis(500),
        kept: None,
    }
}

fn schemas(urls: &[&str]) -> Schemas {
    Schemas::new(&settings(urls)).unwrap()
}

fn ok(schema: &str) -> Does {
    Does::Answers(200, json!({"schema": schema}).to_string())
}

fn absent() -> Does {
    let text = json!({"error_code": 40403, "message": "Schema not found"});
    Does::Answers(404, text.to_string())
}

/// A port that nobody listens on.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_schema_is_asked_for_once() {
    let server = Server::start(|_| ok("\"int\""));
    let schemas = schemas(&[&server.url]);
    let at_once = 8;
    let ready = std::sync::Barrier::new(at_once);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                ready.wait();
                let Answer::Known(known) = schemas.schema(Reference::Id(7)) else {
                    panic!("not known")
                };
                assert_eq!((known.language, known.schema.as_str()), (Language::Avro, "\"int\""));
            });
        }
    });
    assert_eq!(server.asked(), 1);
    assert!(server.asked.lock().unwrap()[0].starts_with("GET /schemas/ids/7\n"));
}

/// Confluent's server has no code of its own for a number above 2^31 - 1, and a wrong path gets the same answer.
#[test]
fn a_registry_that_is_there_has_not_what_it_does_not_find() {
    let nothing = |status| {
        let text = json!({"error_code": status, "message": format!("HTTP {status} Not Found")});
        Does::Answers(status, text.to_string())
    };
    for status in [400, 404, 410] {
        for there in ["/schemas/types", "/subjects"] {
            let server = Server::start(move |request| match request {
                "GET /schemas/ids/7" => ok("\"int\""),
                _ if request == format!("GET {there}") => Does::Answers(200, "[]".to_owned()),
                _ => nothing(status),
            });
            let schemas = schemas(&[&server.url]);
            let Answer::Unknown(why) = schemas.schema(Reference::Id(u32::MAX)) else { panic!() };
            assert!(why.contains(&format!("schema id {}", u32::MAX)), "{why}");
            assert!(why.contains(&format!("it answers {status}")), "{why}");
            assert!(matches!(schemas.schema(Reference::Id(7)), Answer::Known(_)));
        }
        let elsewhere = Server::start(move |_| nothing(status));
        let answer = schemas(&[&elsewhere.url]).schema(Reference::Id(u32::MAX));
        let Answer::Away { reason, .. } = answer else { panic!("{answer:?}") };
        assert!(reason.ends_with("(asked for schema id 4294967295)"), "{reason}");
    }
}

#[test]
fn only_what_the_registry_says_is_unknown_is_a_records_fault() {
    let page = || "<html>Sign in</html>".to_owned();
    let long = "x".repeat(5 << 20);
    for (does, said) in [
        (Does::Answers(404, page()), "answers 404, without Confluent's code"),
        (Does::Answers(200, page()), "answers with something else than JSON"),
        (Does::Answers(200, "{}".to_owned()), "answers without a schema"),
        (Does::Answers(200, long), "answers more than 4 MiB"),
        (Does::Answers(302, page()), "answers 302, a redirection"),
        (Does::Answers(401, String::new()), "answers 401: its user and password"),
        (Does::Answers(403, String::new()), "answers 403: this user"),
        (Does::Answers(429, String::new()), "answers 429"),
        (Does::Answers(500, r#"{"error_code":50001,"message":"store"}"#.to_owned()), "answers 500"),
        (Does::Answers(503, page()), "answers 503"),
        (Does::Hangs, "does not answer in time"),
        (Does::Drips, "does not answer in time"),
        (Does::Closes, "does not answer: "),
    ] {
        let server = Server::start(move |_| does.clone());
        let schemas = schemas(&[&server.url]);
        let Answer::Away { reason, retry } = schemas.schema(Reference::Id(7)) else {
            panic!("{said}")
        };
        assert!(reason.contains(said) && reason.contains(&server.url), "{reason}");
        assert!(Duration::ZERO < retry && retry <= FIRST_REST);
    }
    let Answer::Away { reason, .. } = schemas(&[&nobody()]).schema(Reference::Id(7)) else {
        panic!()
    };
    assert!(reason.contains("refuses the connection") || reason.contains("refused"), "{reason}");
    let Answer::Away { reason, .. } = schemas(&["http://nowhere.invalid"]).schema(Reference::Id(7))
    else {
        panic!()
    };
    assert!(reason.contains("nowhere.invalid"), "{reason}");

    let server = Server::start(|_| absent());
    let unknown = schemas(&[&server.url]);
    for _ in 0..3 {
        let Answer::Unknown(why) = unknown.schema(Reference::Id(7)) else { panic!() };
        assert!(why.contains("schema id 7") && why.contains("Schema not found"), "{why}");
    }
    assert_eq!(server.asked(), 1);
}

#[test]
fn what_was_unknown_or_away_is_asked_for_again() {
    let times = AtomicUsize::new(0);
    let server = Server::start(move |_| match times.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Does::Answers(503, String::new()),
        2 => absent(),
        _ => ok("\"long\""),
    });
    let schemas = schemas(&[&server.url]);
    let mut rests = Vec::new();
    let unknown = loop {
        match schemas.schema(Reference::Id(1)) {
            Answer::Away { retry, .. } => {
                rests.push(retry);
                schemas.lock().rest.as_mut().unwrap().0 = now();
            }
            other @ (Answer::Known(_) | Answer::Unknown(_)) => break other,
        }
    };
    assert!(matches!(unknown, Answer::Unknown(_)));
    assert_eq!(rests, [FIRST_REST, FIRST_REST * 2]);
    for state in schemas.lock().states.values_mut() {
        let State::Unknown { until, .. } = state else { panic!("{state:?}") };
        assert!(*until <= now() + UNKNOWN_FOR);
        *until = now();
    }
    assert!(matches!(schemas.schema(Reference::Id(1)), Answer::Known(_)));
    assert_eq!(server.asked(), 4);
}

#[test]
fn while_it_rests_nobody_asks() {
    let server = Server::start(|_| Does::Answers(503, String::new()));
    let schemas = schemas(&[&server.url]);
    for id in 0..100 {
        assert!(matches!(schemas.schema(Reference::Id(id)), Answer::Away { .. }));
    }
    // A slow machine takes longer than one rest.
    assert!(server.asked() < 20, "{}", server.asked());
}

#[test]
fn the_next_of_several_is_asked() {
    let (good, ill) =
        (Server::start(|_| ok("\"int\"")), Server::start(|_| Does::Answers(500, String::new())));
    let schemas = schemas(&[&nobody(), &ill.url, &good.url]);
    for id in 0..3 {
        assert!(matches!(schemas.schema(Reference::Id(id)), Answer::Known(_)));
    }
    // Who answered last is asked first.
    assert_eq!((ill.asked(), good.asked()), (1, 3));
    let away = self::schemas(&[&nobody(), &ill.url]);
    let Answer::Away { reason, .. } = away.schema(Reference::Id(0)) else { panic!() };
    assert!(reason.contains("; ") && reason.contains("answers 500"), "{reason}");
}

#[test]
fn what_a_schema_refers_to_comes_along() {
    let references = |of: &[(&str, u64)]| -> Json {
        of.iter()
            .map(|(subject, version)| json!({"name": "n", "subject": subject, "version": version}))
            .collect()
    };
    let server = Server::start(move |request| {
        let (schema, of) = match request {
            "GET /schemas/ids/1" => ("top", references(&[("a/b", 2), ("c", 1)])),
            "GET /subjects/a%2Fb/versions/2?deleted=true" => ("a", references(&[("c", 1)])),
            // A schema that refers to itself, by way of another.
            "GET /subjects/c/versions/1?deleted=true" => ("c", references(&[("a/b", 2)])),
            "GET /schemas/ids/2" => ("top", references(&[("gone", 1)])),
            _ => {
                return Does::Answers(
                    404,
                    json!({"error_code": 40401, "message": "none"}).to_string(),
                );
            }
        };
        Does::Answers(200, json!({"schema": schema, "references": of}).to_string())
    });
    let schemas = schemas(&[&server.url]);
    let Answer::Known(known) = schemas.schema(Reference::Id(1)) else { panic!() };
    assert_eq!((known.schema.as_str(), known.references.len()), ("top", 2));
    let Answer::Unknown(why) = schemas.schema(Reference::Id(2)) else { panic!() };
    assert!(why.contains("refers to \"gone\" version 1"), "{why}");
}

/// Apicurio's serdes put what a schema refers to into the group of its namespace, and its answers do not say so.
#[test]
fn what_a_schema_refers_to_may_be_in_apicurios_group_of_its_namespace() {
    let at = |id: u32, subject: &str, group: &str| {
        format!("GET /apis/ccompat/v7/subjects/{subject}/versions/{id}?deleted=true{group}")
    };
    let server = Server::start(move |request| {
        let of = |name: &str, id: u32| {
            let reference = json!({"name": name, "subject": name, "version": id});
            Does::Answers(200, json!({"schema": "1", "references": [reference]}).to_string())
        };
        match request {
            "GET /apis/ccompat/v7/schemas/ids/1" => of("a.b.C", 1),
            "GET /apis/ccompat/v7/schemas/ids/2" => of("a.b.C", 2),
            "GET /apis/ccompat/v7/schemas/ids/3" => of("a.b.C", 3),
            "GET /apis/ccompat/v7/schemas/ids/4" => of("a.b.C", 4),
            "GET /apis/ccompat/v7/schemas/ids/5" => of("C", 5),
            "GET /apis/ccompat/v7/schemas/ids/6" => of("\u{fc}.C", 6),
            // In the group alone, by another name in it; in no group alone; in both, the same; in both, others.
            _ if request == at(1, "a.b.C", " in a.b") => of("d.E", 7),
            _ if request == at(7, "d.E", " in d") => ok("7"),
            _ if request == at(2, "a.b.C", "") => ok("2"),
            _ if request == at(3, "a.b.C", "") => ok("[3]"),
            _ if request == at(3, "a.b.C", " in a.b") => ok("[ 3 ]"),
            _ if request == at(4, "a.b.C", "") => ok("4"),
            _ if request == at(4, "a.b.C", " in a.b") => ok("5"),
            _ => Does::Answers(404, json!({"error_code": 40401, "message": "none"}).to_string()),
        }
    });
    let schemas = schemas(&[&format!("{}/apis/ccompat/v7", server.url)]);
    for (id, expect) in [
        (1, Ok(&["1", "7"][..])),
        (2, Ok(&["2"])),
        (3, Ok(&["[3]"])),
        (4, Err("two of that name, in no group and in the group \"a.b\"")),
        (5, Err("refers to \"C\" version 5: none")),
        (6, Err("refers to \"\u{fc}.C\" version 6: none")),
    ] {
        match (schemas.schema(Reference::Id(id)), expect) {
            (Answer::Known(known), Ok(texts)) => assert_eq!(known.texts(), texts, "{id}"),
            (Answer::Unknown(why), Err(part)) => assert!(why.contains(part), "{id}: {why}"),
            (other, _) => panic!("{id}: {other:?}"),
        }
    }
}

#[test]
fn who_asks_is_said_and_not_shown() {
    for (auth, header) in [
        (Auth::Basic { user: "u".to_owned(), password: "p\"w".to_owned() }, "Basic dTpwInc="),
        (Auth::Bearer("token".to_owned()), "Bearer token"),
    ] {
        let server = Server::start(|_| ok("\"int\""));
        let settings = Settings { auth, ..settings(&[&server.url]) };
        let schemas = Schemas::new(&settings).unwrap();
        assert!(matches!(schemas.schema(Reference::Id(1)), Answer::Known(_)));
        let asked = server.asked.lock().unwrap()[0].to_lowercase();
        assert!(
            asked.contains(&format!("authorization: {}\r\n", header.to_lowercase())),
            "{asked}"
        );
        assert!(
            !format!("{settings:?}").contains('p') || !format!("{settings:?}").contains("token")
        );
    }
}

#[test]
fn known_schemas_survive_a_restart_without_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schemas.jsonl");
    let server = Server::start(|request| match request {
        "GET /schemas/ids/1" => ok("\"int\""),
        "GET /schemas/ids/2" => ok("\"long\""),
        _ => absent(),
    });
    let kept = |url: &str| Settings { kept: Some(file.clone()), ..settings(&[url]) };
    let first = Schemas::new(&kept(&server.url)).unwrap();
    for id in 1..4 {
        first.schema(Reference::Id(id));
    }
    drop(first);
    // Torn, as by a crash.
    let mut open = std::fs::File::options().append(true).open(&file).unwrap();
    open.write_all(b"{\"id\":9,\"language\":\"AV").unwrap();
    let asked = server.asked();
    for _ in 0..2 {
        let again = Schemas::new(&kept(&server.url)).unwrap();
        for (id, schema) in [(1, "\"int\""), (2, "\"long\"")] {
            let Answer::Known(known) = again.schema(Reference::Id(id)) else { panic!("{id}") };
            assert_eq!(known.schema, schema);
        }
        assert_eq!(server.asked(), asked);
    }
    // What is unknown is not kept; another registry's ids are others.
    assert!(matches!(
        Schemas::new(&kept(&server.url)).unwrap().schema(Reference::Id(3)),
        Answer::Unknown(_)
    ));
    let other = Schemas::new(&kept(&nobody())).unwrap();
    assert!(matches!(other.schema(Reference::Id(1)), Answer::Away { .. }));
}

#[test]
fn a_flood_of_ids_takes_bounded_memory() {
    let mut shared = Shared::default();
    for id in 0..u32::try_from(MAX_KNOWN * 3).unwrap() {
        shared.make_room();
        let state = State::Unknown { until: now(), why: String::new() };
        shared.states.insert(Reference::Id(id), state);
        assert!(shared.states.len() <= MAX_KNOWN);
    }
    shared.bytes = MAX_BYTES + 1;
    shared.make_room();
    assert_eq!((shared.states.len(), shared.bytes), (0, 0));
}

#[test]
fn registering_and_comparing_send_the_schema() {
    let server = Server::start(|request| match request {
        "POST /subjects/out-value/versions" => Does::Answers(200, r#"{"id":5}"#.to_owned()),
        "POST /subjects/out-value" => Does::Answers(200, r#"{"id":5,"version":1}"#.to_owned()),
        "POST /compatibility/subjects/out-value/versions/latest?verbose=true" => {
            Does::Answers(200, r#"{"is_compatible":false,"messages":["a","b"]}"#.to_owned())
        }
        "POST /subjects/strict/versions" => {
            Does::Answers(409, r#"{"error_code":409,"message":"not compatible"}"#.to_owned())
        }
        _ => Does::Answers(404, r#"{"error_code":40401,"message":"none"}"#.to_owned()),
    });
    let schemas = schemas(&[&server.url]);
    assert_eq!(schemas.register("out-value", Language::Avro, "\"int\""), Ok(5));
    assert_eq!(schemas.look_up("out-value", Language::Json, "{}"), Ok(5));
    assert_eq!(
        schemas.incompatible("out-value", Language::Avro, "\"int\""),
        Ok(Some("a; b".to_owned()))
    );
    assert_eq!(schemas.incompatible("new", Language::Avro, "\"int\""), Ok(None));
    let refused = schemas.register("strict", Language::Avro, "\"int\"");
    assert_eq!(refused, Err(Failed::Refused("not compatible".to_owned())));
    assert!(matches!(schemas.latest("new"), Err(Failed::Absent { code: 40401, .. })));
    let asked = server.asked.lock().unwrap();
    assert!(asked[0].ends_with(r#"{"schema":"\"int\""}"#), "{}", asked[0]);
    assert!(asked[1].ends_with(r#"{"schema":"{}","schemaType":"JSON"}"#), "{}", asked[1]);
}

#[test]
fn what_cannot_be_asked_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let with =
        |ca: &std::path::Path| Settings { ca: Some(ca.to_owned()), ..settings(&["https://a"]) };
    assert!(Schemas::new(&with(&ca)).unwrap_err().contains("cannot be read"));
    std::fs::write(&ca, "nothing").unwrap();
    assert!(Schemas::new(&with(&ca)).unwrap_err().contains("hold no certificate"));
    assert!(Schemas::new(&settings(&[])).unwrap_err().contains("has no URL"));
}

/// A server that is killed when a test ends.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_server_is_trusted_by_the_certificates_that_are_named() {
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
    let key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"];
    let made = openssl(&[&["req", "-x509", "-days", "2"][..], &name, &key].concat()).status();
    assert!(made.unwrap().success());
    std::fs::create_dir_all(folder.path().join("schemas/ids")).unwrap();
    std::fs::write(folder.path().join("schemas/ids/7"), r#"{"schema":"\"int\""}"#).unwrap();
    let address = nobody().replace("http://", "");
    let serve =
        ["s_server", "-WWW", "-quiet", "-cert", "cert.pem", "-key", "key.pem", "-accept", &address];
    let _server = Ends(openssl(&serve).spawn().unwrap());
    let url = format!("https://{address}");
    let trusting = Settings { ca: Some(folder.path().join("cert.pem")), ..settings(&[&url]) };
    let trusting = Schemas::new(&Settings { timeout: Duration::from_secs(5), ..trusting }).unwrap();
    let begin = now();
    loop {
        match trusting.schema(Reference::Id(7)) {
            Answer::Known(known) => break assert_eq!(known.schema, "\"int\""),
            // It takes a while to begin.
            Answer::Away { reason, retry } => {
                assert!(begin.elapsed() < Duration::from_secs(60), "{reason}");
                thread::park_timeout(retry);
            }
            unknown @ Answer::Unknown(_) => panic!("{unknown:?}"),
        }
    }
    let Answer::Away { reason, .. } = schemas(&[&url]).schema(Reference::Id(7)) else { panic!() };
    assert!(reason.contains("certificate"), "{reason}");
}
