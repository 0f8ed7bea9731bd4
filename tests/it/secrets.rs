//! A secret that is where it may be, and where it may not: it stands in no message of any command.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::broker::Broker;
use crate::world::{PATIENCE, Replica, World, wait_for};

/// What must not be seen.
const MARKER: &str = "Hunter2zQ77x";

fn tidemill(arguments: &[&str], env: &[(String, String)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(arguments)
        .envs(env.iter().cloned())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// A configuration without a broker: what is wrong in it is found before one is asked.
struct Place {
    dir: tempfile::TempDir,
    made: usize,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("marker"), MARKER).unwrap();
        Self { dir, made: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `lines` are put under `kafka.common`, `more` at the end.
    fn config(&mut self, lines: &str, more: &str) -> String {
        self.made += 1;
        let file = self.path(&format!("{}.yaml", self.made));
        let text = format!(
            "kafka:\n  group: g\n  instance: i\n  common:\n    bootstrap.servers: 127.0.0.1:1\n    socket.timeout.ms: \
             1000\n{lines}input: {{ topics: [in] }}\noutput: {{ topic: out }}\nmodel: {{ uri: {} }}\nhttp: {{ listen: \
             '127.0.0.1:0' }}\n{more}",
            self.path("absent").display()
        );
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }
}

/// The commands that take a configuration. All of them refuse it, and none shows the marker.
fn refused(what: &str, file: &str, env: &[(String, String)]) {
    for command in ["check", "verify", "run"] {
        let (code, said) = tidemill(&[command, "--config", file], env);
        assert_eq!(code, Some(78), "{command} with {what}: {said}");
        assert!(!said.contains(MARKER), "{command} with {what} shows it:\n{said}");
        assert!(!said.contains("panicked"), "{command} with {what}: {said}");
    }
}

/// The ways in which a value of librdkafka's can come to the configuration.
fn given(
    place: &mut Place,
    property: &str,
    value: &str,
    more: &str,
) -> Vec<(String, Vec<(String, String)>)> {
    let variable = format!("TIDEMILL_KAFKA__COMMON__{}", property.to_uppercase().replace('.', "_"));
    let text = value.replace(MARKER, "${env:MARKER}");
    let file = value.replace(MARKER, "${file:marker}");
    vec![
        (
            place.config(&format!("    {property}: '{text}'\n"), more),
            vec![("MARKER".to_owned(), MARKER.to_owned())],
        ),
        (place.config(&format!("    {property}: '{file}'\n"), more), Vec::new()),
        (place.config("", more), vec![(variable, value.to_owned())]),
        (place.config(&format!("    {property}: '{value}'\n"), more), Vec::new()),
    ]
}

#[test]
fn no_command_shows_the_value_of_a_property_that_is_wrong() {
    let mut place = Place::new();
    for property in [
        "sasl.pasword",
        "sasl.jaas.config",
        "ssl.truststore.password",
        "totally.unknown",
        "security.protocol",
        "sasl.mechanisms",
        "socket.timeout.ms",
        "socket.keepalive.enable",
        "broker.address.family",
        "debug",
        "linger.ms",
        "client.id",
        "group.id",
        "isolation.level",
        "dr_msg_cb",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.client.secret",
        "statistics.interval.ms",
    ] {
        let value = if property == "sasl.mechanisms" {
            format!("{MARKER},PLAIN")
        } else {
            MARKER.to_owned()
        };
        for (file, env) in given(&mut place, property, &value, "") {
            refused(property, &file, &env);
        }
    }
    // Each is taken by itself, and refused when a client is made with it.
    for (property, with) in [
        ("ssl.key.pem", "ssl"),
        ("ssl.certificate.pem", "ssl"),
        ("ssl.ca.pem", "ssl"),
        ("ssl.key.location", "ssl"),
        ("ssl.certificate.location", "ssl"),
        ("ssl.ca.location", "ssl"),
        ("ssl.cipher.suites", "ssl"),
        ("sasl.mechanisms", "sasl_plaintext"),
    ] {
        for way in ["${env:MARKER}", "${file:marker}"] {
            let lines = format!("    security.protocol: {with}\n    {property}: '{way}'\n");
            let (file, env) =
                (place.config(&lines, ""), [("MARKER".to_owned(), MARKER.to_owned())]);
            let (code, said) = tidemill(&["check", "--config", &file], &env);
            assert_eq!(code, Some(78), "{property}: {said}");
            assert!(said.contains("problem  kafka consumer: "), "{property}: {said}");
            assert!(!said.contains(MARKER), "{property}: {said}");
        }
    }
}

#[test]
fn no_command_shows_what_stands_beside_a_mistake() {
    let mut place = Place::new();
    let broken = [
        "sasl.password: \"M",
        "sasl.password: 'M' x",
        "sasl.password: M: x",
        "sasl.password: *M",
        "sasl.password: @M",
        "sasl.password: {M: [}",
        "sasl.password: {M}",
        "sasl.password: [M]",
        "sasl.password: !!int M",
        "sasl.password: M\n   x: y",
        "sasl.password: M\n    sasl.password: M",
        "sasl.password:M",
        "sasl.password:M: x",
        "sasl.password: M\n---\na: b",
        "sasl.password:\n      M: x",
        "sasl.password: ${M}",
        "sasl.password: ${env:A",
        "sasl.password=M: x",
        "<<: M",
        "sasl.password: |M",
        "sasl.password: &M ~",
    ];
    for line in broken {
        let line = line.replace('M', MARKER);
        let file = place.config(&format!("    {line}\n"), "");
        refused(&line, &file, &[]);
    }
    for more in [
        format!("kafka.common.sasl.password: {MARKER}\n"),
        format!("sasl: {{ password: {MARKER} }}\n"),
        format!("limits: {{ sasl.password: {MARKER} }}\n"),
        format!("limits: {{ sasl.password:{MARKER} }}\n"),
    ] {
        let file = place.config("", &more);
        refused(&more, &file, &[]);
    }
}

#[test]
fn no_command_shows_a_secret_where_none_may_be() {
    let mut place = Place::new();
    for key in [
        "kafka.group",
        "kafka.instance",
        "kafka.lanes",
        "kafka.start_from",
        "kafka.manifest_scan",
        "log",
        "input.format",
        "input.field",
        "output.partition",
        "output.include",
        "output.top_k",
        "dead_letters.topic",
        "dead_letters.max_ratio",
        "manifest.topic",
        "batch.max_records",
        "batch.max_bytes",
        "batch.max_wait",
        "batch.remember",
        "model.device",
        "model.workers",
        "model.precision",
        "registry.root",
        "state.dir",
        "limits.memory",
        "logging.format",
        "logging.filter",
    ] {
        for way in ["${env:MARKER}", "a${env:MARKER}", "${file:marker}"] {
            let env = [("MARKER".to_owned(), MARKER.to_owned())];
            let file = place.config("", "");
            let text = fs::read_to_string(&file).unwrap();
            let text = match key.split_once('.') {
                Some(("kafka", name)) => {
                    text.replacen("  group: g\n", &format!("  {name}: '{way}'\n"), 1)
                }
                Some(("input", name)) => {
                    text.replace("topics: [in]", &format!("topics: [in], {name}: '{way}'"))
                }
                Some(("output", name)) => {
                    text.replace("topic: out", &format!("topic: out, {name}: '{way}'"))
                }
                Some(("model", name)) => {
                    text.replace("model: {", &format!("model: {{ {name}: '{way}',"))
                }
                Some((section, name)) => format!("{text}{section}: {{ {name}: '{way}' }}\n"),
                None => format!("{text}{key}: '{way}'\n"),
            };
            let text = text.replacen(
                "instance: i\n",
                if key == "kafka.instance" { "group: g\n" } else { "instance: i\n" },
                1,
            );
            fs::write(&file, text).unwrap();
            refused(&format!("{key}: {way}"), &file, &env);
        }
    }
    for (from, to) in [
        ("topics: [in]", "topics: ['${env:MARKER}']"),
        ("topic: out", "topic: '${file:marker}'"),
        ("uri: ", "uri: ${env:MARKER}"),
    ] {
        let file = place.config("", "");
        fs::write(&file, fs::read_to_string(&file).unwrap().replace(from, to)).unwrap();
        refused(to, &file, &[("MARKER".to_owned(), MARKER.to_owned())]);
    }
}

/// A value for one key that was put into the variable of another.
#[test]
fn no_command_shows_the_value_of_a_variable_that_does_not_fit() {
    let mut place = Place::new();
    for variable in [
        "BATCH__MAX_WAIT",
        "BATCH__MAX_RECORDS",
        "BATCH__WHEN_IDLE",
        "HTTP__LISTEN",
        "LIMITS__MEMORY",
        "KAFKA__LANES",
        "MODEL__DEVICE",
        "LOG",
        "OUTPUT__INCLUDE",
        "DEAD_LETTERS__MAX_RATIO",
        "NO__SUCH",
    ] {
        let file = place.config("", "");
        refused(variable, &file, &[(format!("TIDEMILL_{variable}"), MARKER.to_owned())]);
    }
}

#[test]
fn a_secrets_file_that_is_none_is_refused_at_once() {
    let mut place = Place::new();
    let fifo = place.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fs::write(place.path("huge"), vec![b'x'; 1 << 20]).unwrap();
    for (name, said) in [
        ("fifo", "is a FIFO"),
        ("/dev/zero", "is a device"),
        (".", "is a directory"),
        ("huge", "larger than 64 KiB"),
        ("absent", "cannot be read"),
    ] {
        let file = place.config(&format!("    sasl.password: ${{file:{name}}}\n"), "");
        for command in ["check", "verify", "run"] {
            let (code, out) = tidemill(&[command, "--config", &file], &[]);
            assert_eq!(code, Some(78), "{command} {name}: {out}");
            assert!(
                out.contains(said) && out.contains("kafka.common.sasl.password"),
                "{command} {name}: {out}"
            );
        }
    }
}

#[test]
fn the_commands_without_a_configuration_take_no_secret() {
    let place = Place::new();
    let env = [("MARKER", MARKER), ("TIDEMILL_KAFKA__COMMON__SASL_PASSWORD", MARKER)]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
    let root = place.path("models").display().to_string();
    let absent = place.path("absent").display().to_string();
    for arguments in [
        &["models", "list", "--root", &root][..],
        &["predict", "--model", &absent, "--input", &absent],
        &["demo", "--passes", "x"],
        &["check", "--config", &absent],
    ] {
        let (_, said) = tidemill(arguments, &env);
        assert!(!said.contains(MARKER), "{arguments:?}: {said}");
    }
}

/// Everything that a process says on a cluster that wants the secret, right and wrong.
#[test]
fn a_running_service_shows_no_secret() {
    let Some(broker) = Broker::start_with(&[("KAFKA_SASL", "1"), ("KAFKA_PASSWORD", MARKER)])
    else {
        return;
    };
    let world = World::on(broker, 1);
    world.add_version(1);
    world.promote(1);
    let marker = world.dir.path().join("marker");
    fs::write(&marker, MARKER).unwrap();
    fs::set_permissions(&marker, fs::Permissions::from_mode(0o600)).unwrap();
    let config = |name: &str, password: &str, more: &str| secure(&world, name, password, more);

    let good = config("good", "${file:marker}", "    debug: all\n");
    for command in [&["check"][..], &["verify"], &["run", "--until-end"]] {
        let arguments = [command, &["--config", &good]].concat();
        let (code, said) =
            tidemill(&arguments, &[("TIDEMILL_LOGGING__FILTER".to_owned(), "trace".to_owned())]);
        // Whether there is anything to prove is not asked here.
        assert!(code == Some(0) || command == ["verify"], "{command:?}: {said}");
        assert!(!said.contains(MARKER), "{command:?} shows it");
    }

    // A wrong password, a token that is not one, an address: all secrets too.
    let wrong = config("wrong", &format!("${{env:MARKER}}{MARKER}"), "");
    let token = "    sasl.mechanisms: OAUTHBEARER\n    enable.sasl.oauthbearer.unsecure.jwt: true\n    \
                 sasl.oauthbearer.config: principal=a rubbish Hunter2zQ77x\n";
    let token = config("token", MARKER, token);
    let nowhere = config("nowhere", "${file:marker}", "    client.rack: a\n");
    let text = fs::read_to_string(&nowhere).unwrap();
    fs::write(
        &nowhere,
        text.replace("bootstrap.servers: ", "bootstrap.servers: ${env:MARKER}.invalid:1,"),
    )
    .unwrap();
    for file in [wrong, token, nowhere] {
        for command in ["check", "run"] {
            let env = [("MARKER".to_owned(), MARKER.to_owned())];
            let arguments = [command, "--config", &file, "--until-end"];
            let arguments = if command == "run" { &arguments[..] } else { &arguments[..3] };
            let (code, said) = tidemill(arguments, &env);
            assert!(code == Some(0) || code == Some(78) || code == Some(75), "{command}: {said}");
            assert!(code != Some(0) || file.contains("nowhere"), "{command} {file}: {said}");
            assert!(
                !said.to_lowercase().contains(&MARKER.to_lowercase()),
                "{command} shows it:\n{said}"
            );
        }
    }

    let replica = Replica::start(Path::new(&good), &[]);
    let log = || fs::read_to_string(Path::new(&good).with_extension("log")).unwrap();
    let address = wait_for("the address", || {
        let log = log();
        let (_, rest) = log.split_once("127.0.0.1:")?;
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        log.contains("listening").then(|| format!("127.0.0.1:{port}"))
    });
    wait_for("ready", || page(&address, "/readyz").filter(|page| page.starts_with("HTTP/1.1 200")));
    for path in ["/", "/metrics", "/readyz", "/livez"] {
        let page = wait_for("the page", || page(&address, path));
        assert!(!page.contains(MARKER), "{page}");
    }
    assert!(replica.stop().success());
    assert!(!log().contains(MARKER));
}

/// What the service's HTTP says.
fn page(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

/// A configuration for the port that speaks TLS and SASL.
fn secure(world: &World, name: &str, password: &str, more: &str) -> String {
    let (host, port) = world.broker.servers.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let mechanism =
        if more.contains("mechanisms") { "" } else { "    sasl.mechanisms: SCRAM-SHA-512\n" };
    let text = format!(
        "kafka:\n  group: g\n  instance: i\n  common:\n    bootstrap.servers: {host}:{}\n    security.protocol: SASL_SSL\n\
         {mechanism}    sasl.username: alice\n    sasl.password: {password}\n    ssl.ca.location: {}\n{more}\
         input: {{ topics: [in] }}\noutput: {{ topic: out }}\nmodel: {{ uri: 'models:/lin@champion', workers: 1 }}\n\
         registry: {{ root: {} }}\nhttp: {{ listen: '127.0.0.1:0' }}\n",
        port + 2,
        Path::new(&world.broker.home).join("tls/ca.crt").display(),
        world.registry().display(),
    );
    let file = world.dir.path().join(format!("{name}.yaml"));
    fs::write(&file, text).unwrap();
    file.display().to_string()
}
