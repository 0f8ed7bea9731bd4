//! Brokers that want a token: it is got, shown by every client, and renewed before it expires.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::broker::Broker;
use crate::world::{Replica, World, wait_for};

/// How long a token holds, and how long a broker lets a connection live on one.
const SECONDS: u64 = 6;

/// Gives unsigned tokens to whoever shows the secret, in the name that he shows.
pub(crate) struct Server {
    pub(crate) place: String,
    given: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = format!("http://{}/token", listener.local_addr().unwrap());
        let (given, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
        let (counted, heard) = (Arc::clone(&given), Arc::clone(&last));
        let serve = move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut reader = BufReader::new(&stream);
                let (mut request, mut length) = (String::new(), 0);
                while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).unwrap() > 0
                {
                    let line = request.lines().next_back().unwrap_or_default().to_ascii_lowercase();
                    length = line
                        .strip_prefix("content-length:")
                        .map_or(length, |l| l.trim().parse().unwrap());
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let (_, shown) = request.split_once("Basic ").unwrap();
                let shown = STANDARD.decode(shown.lines().next().unwrap().trim()).unwrap();
                let shown = String::from_utf8(shown).unwrap();
                let (status, answer) = if let Some((name, "hunter2")) = shown.split_once(':') {
                    counted.fetch_add(1, Ordering::AcqRel);
                    let token = token(name);
                    let answer = json!({"access_token": token, "expires_in": SECONDS});
                    ("200 OK", answer.to_string())
                } else {
                    ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_owned())
                };
                *heard.lock().unwrap() = request + std::str::from_utf8(&body).unwrap();
                let size = answer.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
                );
                (&stream).write_all((head + &answer).as_bytes()).unwrap();
            }
        };
        std::thread::Builder::new().name("tokens".to_owned()).spawn(serve).unwrap();
        Self { place, given, last }
    }
}

fn token(name: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"{name}","iat":{now},"exp":{}}}"#, now + SECONDS);
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims))
}

/// The configuration with these properties in place of the broker's plain address.
pub(crate) fn config(world: &World, name: &str, properties: &str) -> PathBuf {
    let plain = format!("    bootstrap.servers: {}\n", world.broker.servers);
    let (host, port) = world.broker.servers.split_once(':').unwrap();
    let secure = format!("{host}:{}", port.parse::<u16>().unwrap() + 2);
    let authority = world.broker.home.join("tls/ca.crt");
    let whole = format!(
        "    bootstrap.servers: {secure}\n    security.protocol: SASL_SSL\n    ssl.ca.location: {}\n{properties}",
        authority.display()
    );
    let path = world.config(name, "");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&plain), "{text}");
    std::fs::write(&path, text.replace(&plain, &whole)).unwrap();
    path
}

/// Properties of who is given tokens by that name.
pub(crate) fn granted(server: &Server, name: &str, secret: &str) -> String {
    format!(
        "    sasl.mechanisms: OAUTHBEARER\n    sasl.oauthbearer.method: oidc\n    \
         sasl.oauthbearer.token.endpoint.url: {}\n    sasl.oauthbearer.client.id: {name}\n    \
         sasl.oauthbearer.client.secret: {secret}\n    sasl.oauthbearer.scope: kafka\n",
        server.place
    )
}

pub(crate) fn check(config: &PathBuf, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let command = command.args(["check", "--config"]).arg(config).envs(env.iter().copied());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_client_goes_on_over_many_tokens() {
    let reauthenticated = format!("connections.max.reauth.ms={}", SECONDS * 1_000);
    let variables = [("KAFKA_SASL", "1"), ("KAFKA_PROPS", reauthenticated.as_str())];
    let Some(broker) = Broker::start_with(&variables) else { return };
    let world = World::on(broker, 2);
    world.add_version(1);
    world.promote(1);
    let server = Server::start();
    let good = config(&world, "a", &granted(&server, "tidemill", "hunter2"));
    let (code, said) = check(&good, &[]);
    assert!(code == Some(0) && said.contains("token for kafka"), "{code:?}: {said}");
    assert!(server.last.lock().unwrap().ends_with("grant_type=client_credentials&scope=kafka"));

    world.produce(0, &["{\"x\":1}"]);
    let mut replica = Replica::start(&good, &[]);
    wait_for("the first record is answered", || {
        world.outcomes().contains_key(&(0, 0)).then_some(())
    });
    // A quiet time over several tokens: nothing is sent, and connections have to be confirmed again.
    let before = server.given.load(Ordering::Acquire);
    wait_for("tokens are renewed", || {
        (before + 4 <= server.given.load(Ordering::Acquire)).then_some(())
    });
    world.produce(1, &["{\"x\":1}"]);
    wait_for("a record behind it is answered", || {
        world.outcomes().contains_key(&(1, 0)).then_some(())
    });
    replica.assert_alive();
    assert!(replica.stop().success());

    let wrong = config(&world, "b", &granted(&server, "tidemill", "wrong"));
    let (code, said) = check(&wrong, &[]);
    assert!(
        code == Some(78) && said.contains("invalid_client") && !said.contains("wrong"),
        "{code:?}: {said}"
    );
    let (code, log) = Replica::start(&wrong, &[]).ended();
    assert!(
        code == Some(78) && log.contains("401") && log.contains("invalid_client"),
        "{code:?}: {log}"
    );
}

/// One variable names the authority for the brokers, as it does for OpenSSL's own programs.
#[test]
fn the_authority_of_a_variable_is_trusted() {
    let Some(broker) = Broker::start_with(&[("KAFKA_SASL", "1")]) else { return };
    let world = World::on(broker, 1);
    world.add_version(1);
    world.promote(1);
    let server = Server::start();
    let path = config(&world, "a", &granted(&server, "tidemill", "hunter2"));
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("ssl.ca.location")).unwrap();
    std::fs::write(&path, text.replace(line, "    # none")).unwrap();
    let system = "/etc/ssl/certs/ca-certificates.crt";
    if !Path::new(system).exists() {
        return;
    }
    let (code, said) = check(&path, &[("SSL_CERT_FILE", system)]);
    assert!(code == Some(78) && said.contains("certificate"), "{code:?}: {said}");
    let authority = world.broker.home.join("tls/ca.crt");
    let (code, said) = check(&path, &[("SSL_CERT_FILE", authority.to_str().unwrap())]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn amazons_mechanism_signs_or_says_what_is_missing() {
    let Some(broker) = Broker::start_with(&[("KAFKA_SASL", "1")]) else { return };
    let world = World::on(broker, 1);
    world.add_version(1);
    world.promote(1);
    let config = config(&world, "a", "    sasl.mechanisms: AWS_MSK_IAM\n");
    let none =
        [("AWS_REGION", "eu-west-1"), ("AWS_EC2_METADATA_DISABLED", "true"), ("HOME", "/nowhere")];
    let (code, said) = check(&config, &none);
    assert!(code == Some(78) && said.contains("eks.amazonaws.com/role-arn"), "{code:?}: {said}");
    let keys = [
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2hunter2"),
    ];
    // This broker is none of Amazon's: it is shown the token, and does not want it.
    let (code, said) = check(&config, &keys);
    assert!(
        said.contains("signed for eu-west-1 with the credentials of the environment"),
        "{said}"
    );
    assert!(code == Some(78) && said.contains("uthentication"), "{code:?}: {said}");
    assert!(!said.contains("hunter2hunter2"));
}
