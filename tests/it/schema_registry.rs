//! The schema registry's client against a real registry: Apicurio, in Confluent's API.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use apache_avro::types::Value as Theirs;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Value as Json, json};
use tidemill::avro::{self, Kind, Plan};
use tidemill::field::Value;
use tidemill::schema::{Answer, Auth, Failed, Language, Reference, Schemas, Settings, frame};

/// A running registry, gone when dropped.
pub(crate) struct Registry {
    home: PathBuf,
    url: String,
}

impl Registry {
    /// `None`, and a line on stderr, where Java is missing, or mvn and what it would fetch.
    pub(crate) fn start() -> Option<Self> {
        let runs = |program: &str| {
            let mut run = Command::new(program);
            run.arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        };
        let cache = std::env::var_os("TIDEMILL_CACHE").map_or_else(
            || {
                PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                    .join(".cache/tidemill-test")
            },
            PathBuf::from,
        );
        if !runs("java") || !(runs("mvn") || cache.join("apicurio-3.0.9/.ok").is_file()) {
            let line =
                "skipped: no java or mvn; tests against a real schema registry did not run\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let home =
            std::env::temp_dir().join(format!("tidemill-registry-{}-{port}", std::process::id()));
        let url = script(&["up", home.to_str().unwrap(), &port.to_string()]).trim().to_owned();
        let registry = Self { home, url };
        // Out of the box it takes whatever it is sent.
        registry.put("/config", &json!({"compatibility": "FULL"}));
        Some(registry)
    }

    /// Starts it again, with what it had.
    pub(crate) fn start_again(&self) {
        let port = self.url.split([':', '/']).nth(4).unwrap();
        script(&["up", self.home.to_str().unwrap(), port]);
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where its own API and Confluent's are below.
    pub(crate) fn root(&self) -> &str {
        self.url.split("/apis/").next().unwrap()
    }

    /// Has it compare no schema with another.
    pub(crate) fn take_anything(&self) {
        self.put("/config", &json!({"compatibility": "NONE"}));
    }

    /// Has Confluent's API take global ids for its own from now on.
    pub(crate) fn take_global_ids(&self) {
        let key = "apicurio.ccompat.legacy-id-mode.enabled";
        let place = format!("{}/apis/registry/v3/admin/config/properties/{key}", self.root());
        let request = ureq::put(place).header("Content-Type", "application/json");
        request.send(json!({"value": "true"}).to_string()).unwrap();
    }

    pub(crate) fn kill9(&self) {
        script(&["kill9", self.home.to_str().unwrap()]);
    }

    fn settings(&self) -> Settings {
        Settings {
            urls: vec![self.url.clone()],
            auth: Auth::None,
            ca: None,
            timeout: Duration::from_secs(20),
            kept: None,
        }
    }

    fn put(&self, path: &str, body: &Json) {
        let request =
            ureq::put(format!("{}{path}", self.url)).header("Content-Type", "application/json");
        request.send(body.to_string()).unwrap();
    }

    /// Registers a schema that refers to others; its id.
    pub(crate) fn register(&self, subject: &str, body: &Json) -> u32 {
        let place = format!("{}/subjects/{subject}/versions", self.url);
        let request =
            ureq::post(place).header("Content-Type", "application/vnd.schemaregistry.v1+json");
        let text = request.send(body.to_string()).unwrap().body_mut().read_to_string().unwrap();
        let answer: Json = serde_json::from_str(&text).unwrap();
        answer["id"].as_u64().unwrap().try_into().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill9();
        std::fs::remove_dir_all(&self.home).unwrap_or_default();
    }
}

fn script(arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/schema-registry.sh");
    let output = Command::new(path).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "schema-registry.sh {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn known(schemas: &Schemas, id: u32) -> std::sync::Arc<tidemill::schema::Registered> {
    match schemas.schema(Reference::Id(id)) {
        Answer::Known(known) => known,
        other @ (Answer::Unknown(_) | Answer::Away { .. }) => panic!("schema {id}: {other:?}"),
    }
}

/// What Apicurio's own API, and so its serdes' headers, call a content id.
fn content(registry: &Registry, id: u32) -> String {
    let own = ureq::get(format!("{}/apis/registry/v3/ids/contentIds/{id}", registry.root()));
    own.call().unwrap().body_mut().read_to_string().unwrap()
}

#[test]
fn a_real_registry_gives_the_three_answers() {
    let Some(registry) = Registry::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kept = Settings { kept: Some(folder.path().join("schemas.jsonl")), ..registry.settings() };
    let schemas = Schemas::new(&kept).unwrap();

    // Ours, registered once and found again.
    for kind in Kind::ALL {
        let subject = format!("{}-value", kind.name());
        assert!(matches!(
            schemas.look_up(&subject, Language::Avro, kind.schema()),
            Err(Failed::Absent { code: 40401 | 40403, .. })
        ));
        assert_eq!(schemas.incompatible(&subject, Language::Avro, kind.schema()), Ok(None));
        let id = schemas.register(&subject, Language::Avro, kind.schema()).unwrap();
        assert_eq!(schemas.register(&subject, Language::Avro, kind.schema()), Ok(id));
        assert_eq!(schemas.look_up(&subject, Language::Avro, kind.schema()), Ok(id));
        assert_eq!(schemas.latest(&subject).unwrap().id, id);
        let there = known(&schemas, id);
        assert_eq!(there.language, Language::Avro);
        let there = avro::parse(&there.schema, &there.texts()).unwrap();
        assert_eq!(
            there.canonical_form(),
            avro::parse(kind.schema(), &[]).unwrap().canonical_form()
        );
        // Another type in the same field.
        let other = json!({"type": "record", "name": kind.name(), "fields": [{"name": "x", "type": "int"}]});
        let why = schemas.incompatible(&subject, Language::Avro, &other.to_string()).unwrap();
        assert!(why.is_some_and(|why| !why.is_empty()));
        let refused = schemas.register(&subject, Language::Avro, &other.to_string());
        assert!(matches!(&refused, Err(Failed::Refused(_))), "{refused:?}");
    }
    let refused = schemas.register("none-value", Language::Avro, "{\"type\": 1}");
    assert!(matches!(&refused, Err(Failed::Refused(_))), "{refused:?}");

    // A schema that refers to others, and a record by it.
    let side = json!({"type": "enum", "name": "shop.Side", "symbols": ["BUY", "SELL"]});
    registry.register("side", &json!({"schema": side.to_string()}));
    let order = json!({"type": "record", "name": "shop.Order", "fields": [
        {"name": "side", "type": "shop.Side"}, {"name": "amount", "type": "double"}]});
    let order = json!({"schema": order.to_string(),
        "references": [{"name": "shop.Side", "subject": "side", "version": 1}]});
    let id = registry.register("orders-value", &order);
    let writer = known(&schemas, id);
    let writer = avro::parse(&writer.schema, &writer.texts()).unwrap();
    let value = Theirs::Record(vec![
        ("side".to_owned(), Theirs::Enum(1, "SELL".to_owned())),
        ("amount".to_owned(), Theirs::Double(0.5)),
    ]);
    let mut record = Vec::new();
    frame::begin(id, &mut record);
    let theirs = GenericDatumWriter::builder(&writer).build().unwrap();
    record.extend(theirs.write_value_to_vec(value).unwrap());
    let (reference, datum) = frame::split(&record, None).unwrap();
    assert_eq!(reference, Reference::Id(id));
    let wanted = [vec!["side".to_owned()], vec!["amount".to_owned()]];
    let plan = Plan::new(&writer, None, &wanted).unwrap();
    let mut out = vec![None; 2];
    plan.read(datum, &mut out).unwrap();
    assert_eq!(out, [Some(Value::Text("SELL".into())), Some(Value::Float(0.5))]);

    // JSON Schema says what it is.
    let text = r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}"#;
    let json_id = schemas.register("json-value", Language::Json, text).unwrap();
    assert_eq!(known(&schemas, json_id).language, Language::Json);
    assert_eq!(content(&registry, json_id), text);

    let Answer::Unknown(why) = schemas.schema(Reference::Id(999_999)) else { panic!("is known") };
    assert!(why.contains("schema id 999999"), "{why}");

    registry.kill9();
    assert_eq!(known(&schemas, id).references.len(), 1);
    let Answer::Away { reason, .. } = schemas.schema(Reference::Id(888_888)) else {
        panic!("no outage")
    };
    assert!(reason.contains(&registry.url), "{reason}");
    // A start during the outage knows what was known.
    let again = Schemas::new(&kept).unwrap();
    assert_eq!(known(&again, id), known(&schemas, id));
    assert!(matches!(again.schema(Reference::Id(999_999)), Answer::Away { .. }));
}
