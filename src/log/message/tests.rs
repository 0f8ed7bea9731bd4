use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::record::{Epoch, FaultClass, Header, Offset, Reason, Truncated, Version};

fn naming(headers: Headers) -> Naming {
    let mut config = Config::default();
    config.input.topics = vec!["reviews".to_owned(), "mails".to_owned()];
    config.output.topic = "sentiment".to_owned();
    config.output.headers = headers;
    Naming::new(&config)
}

fn info() -> BatchInfo {
    BatchInfo {
        id: uuid::Uuid::from_u128(7),
        model: Arc::new(ModelId {
            name: "sentiment".into(),
            version: Version(3),
            digest: "sha256:ab".into(),
        }),
        signature: Arc::new(Signature {
            task: "text-classification".to_owned(),
            fields: vec!["text".to_owned()],
            output: "2 labels: no, yes".to_owned(),
        }),
        part_of: None,
        reason: Reason::Swap,
        bytes: 9,
        tokens: 5,
        inference: Duration::from_millis(250),
    }
}

fn row(topic: u16, number: i32, offset: i64, outcome: Outcome<Written>) -> Row {
    let own = |name: &str, value: Option<&[u8]>| Header {
        name: name.as_bytes().to_vec(),
        value: value.map(<[u8]>::to_vec),
    };
    let record = Record {
        partition: Partition { topic, number },
        offset: Offset(offset),
        timestamp: Some(11),
        key: Some(b"k".to_vec()),
        value: Some(b"in".to_vec()),
        headers: vec![own("trace", None), own("tidemill.batch.id", Some(b"old"))],
    };
    Row { record: Arc::new(record), epoch: Epoch(1), outcome, parent: None }
}

fn headers(message: &Message<'_>) -> Vec<(String, Option<String>)> {
    let text = |b: &Cow<'_, [u8]>| String::from_utf8_lossy(b).into_owned();
    message.headers.iter().map(|(n, v)| (text(n), v.as_ref().map(text))).collect()
}

fn pair(name: &str, value: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(value.to_owned()))
}

#[test]
fn topics_have_default_names() {
    let naming = naming(Headers::Full);
    assert_eq!(naming.dead_letters, ["reviews-dlq", "mails-dlq"]);
    assert_eq!(naming.manifest, "sentiment-manifest");
    assert_eq!(naming.written(), ["mails-dlq", "reviews-dlq", "sentiment", "sentiment-manifest"]);
}

#[test]
fn a_prediction_keeps_key_number_and_own_headers_and_says_where_it_comes_from() {
    let (naming, info) = (naming(Headers::Full), info());
    let (batch, row) =
        (naming.batch(&info), row(1, 4, 99, Outcome::Prediction(b"out".to_vec().into())));
    let message = batch.message(&row);
    assert_eq!((message.topic, message.partition), ("sentiment", Some(4)));
    assert_eq!(message.key.as_deref(), Some(b"k".as_slice()));
    assert_eq!(message.value.as_deref(), Some(b"out".as_slice()));
    assert_eq!(message.timestamp, Some(11));
    let expected = [
        ("trace".to_owned(), None),
        pair("tidemill.model.name", "sentiment"),
        pair("tidemill.model.version", "3"),
        pair("tidemill.model.digest", "sha256:ab"),
        pair("tidemill.batch.id", "00000000-0000-0000-0000-000000000007"),
        pair("tidemill.source.topic", "mails"),
        pair("tidemill.source.partition", "4"),
        pair("tidemill.source.offset", "99"),
    ];
    assert_eq!(headers(&message), expected);
}

#[test]
fn headers_follow_the_mode() {
    let names = |mode| {
        let (naming, info) = (naming(mode), info());
        let (batch, row) = (naming.batch(&info), row(0, 0, 1, Outcome::Tombstone));
        headers(&batch.message(&row)).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(
        names(Headers::Compact),
        ["trace", "tidemill.model.version", "tidemill.batch.id", "tidemill.source.offset"]
    );
    assert_eq!(names(Headers::None), ["trace"], "a predecessor's provenance is none of ours");
}

#[test]
fn an_answer_to_a_part_of_a_text_says_so() {
    let info = info();
    for (mode, more, expect) in [
        (Headers::Full, false, Some("256/1042")),
        (Headers::Compact, true, Some("256/>1042")),
        (Headers::None, false, None),
    ] {
        let truncated = Some(Truncated { kept: 256, of: 1_042, more });
        let written = Written { value: Vec::new(), truncated };
        let (naming, row) = (naming(mode), row(0, 0, 1, Outcome::Prediction(written)));
        let found = headers(&naming.batch(&info).message(&row));
        let found = found.into_iter().find(|(name, _)| name == "tidemill.input.truncated");
        assert_eq!(found.and_then(|(_, value)| value).as_deref(), expect);
    }
}

#[test]
fn what_says_how_a_value_is_read_goes_with_that_value() {
    const GIVEN: [&str; 6] = [
        "Content-Type",
        "content-encoding",
        "__value_schema_id",
        "apicurio.value.contentId",
        "ce_id",
        "ce_mine",
    ];
    let (naming, info) = (naming(Headers::None), info());
    let batch = naming.batch(&info);
    let names = |outcome| {
        let mut row = row(0, 0, 1, outcome);
        let record = Arc::get_mut(&mut row.record).unwrap();
        for name in GIVEN {
            record.headers.push(Header { name: name.into(), value: Some(b"x".to_vec()) });
        }
        headers(&batch.message(&row)).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(Outcome::Prediction(Written::default())), ["trace", "ce_id", "ce_mine"]);
    assert_eq!(names(Outcome::Tombstone), ["trace", "ce_id", "ce_mine"]);
    let letter = names(Outcome::DeadLetter(Fault::new(FaultClass::Missing, "m")));
    let kept = [&["trace"][..], &GIVEN].concat();
    assert_eq!(letter[..7], kept, "the value is the record's own");
}

/// By the Kafka protocol binding of `CloudEvents` 1.0.2, section 3.2: attributes are headers `ce_…`, and `content-type` is
/// the type of the value.
#[test]
fn a_prediction_is_an_event_where_that_is_asked() {
    let mut config = Config::default();
    config.input.topics = vec!["reviews".to_owned()];
    config.output.topic = "sentiment".to_owned();
    config.output.headers = Headers::None;
    config.output.cloud_events = CloudEvents {
        source: Some("/reviews/sentiment".to_owned()),
        kind: Some("com.example.review.scored".to_owned()),
    };
    let info = info();
    let told = |config: &Config, timestamp, outcome| {
        let naming = Naming::new(config);
        let mut row = row(0, 2, 7, outcome);
        let record = Arc::get_mut(&mut row.record).unwrap();
        record.timestamp = Some(timestamp);
        for name in ["ce_id", "CE_type", "ce_ours", "content-type"] {
            record.headers.push(Header { name: name.into(), value: Some(b"theirs".to_vec()) });
        }
        headers(&naming.batch(&info).message(&row))
    };
    let mut expected = vec![
        ("trace".to_owned(), None),
        pair("ce_specversion", "1.0"),
        pair("ce_id", "reviews/2/7/sha256:ab"),
        pair("ce_source", "/reviews/sentiment"),
        pair("ce_type", "com.example.review.scored"),
        pair("ce_time", "2025-11-26T02:05:48.123Z"),
        pair("content-type", "application/json"),
    ];
    let prediction = || Outcome::Prediction(Written::default());
    assert_eq!(told(&config, 1_764_122_748_123, prediction()), expected);
    let content = expected.pop();
    assert_eq!(told(&config, 1_764_122_748_123, Outcome::Tombstone), expected, "no data: no type");
    assert!(content.is_some());
    let timeless = told(&config, i64::MAX, prediction());
    assert!(timeless.iter().all(|(name, _)| name != "ce_time"), "no time that RFC 3339 can say");
    config.output.format = OutputFormat::Avro;
    let avro = told(&config, 0, prediction());
    assert!(avro.contains(&pair("content-type", "application/avro")), "{avro:?}");
    let letter = told(&config, 0, Outcome::DeadLetter(Fault::new(FaultClass::Missing, "m")));
    assert!(letter.contains(&pair("ce_id", "theirs")), "a dead letter is the record as it came");
    assert!(!letter.iter().any(|(name, _)| name == "ce_specversion"));
}

#[test]
fn a_tombstone_passes_through_without_a_value() {
    let (naming, info) = (naming(Headers::Full), info());
    let (batch, row) = (naming.batch(&info), row(0, 2, 1, Outcome::Tombstone));
    let message = batch.message(&row);
    assert_eq!((message.topic, message.value), ("sentiment", None));
}

#[test]
fn a_dead_letter_holds_the_original_bytes_and_the_reason() {
    let (naming, info) = (naming(Headers::None), info());
    let fault = Fault::new(FaultClass::Undecodable, "decode value: expected an object");
    let (batch, row) = (naming.batch(&info), row(0, 2, 5, Outcome::DeadLetter(fault)));
    let message = batch.message(&row);
    assert_eq!((message.topic, message.partition), ("reviews-dlq", Some(2)));
    assert_eq!(message.value.as_deref(), Some(b"in".as_slice()));
    let expected = [
        ("trace".to_owned(), None),
        pair("__connect.errors.topic", "reviews"),
        pair("__connect.errors.partition", "2"),
        pair("__connect.errors.offset", "5"),
        pair("__connect.errors.stage", "VALUE_CONVERTER"),
        pair("__connect.errors.class.name", "tidemill"),
        pair("__connect.errors.exception.class.name", "undecodable"),
        pair("__connect.errors.exception.message", "decode value: expected an object"),
        pair("tidemill.error.class", "undecodable"),
        pair("tidemill.model.name", "sentiment"),
        pair("tidemill.model.version", "3"),
        pair("tidemill.batch.id", "00000000-0000-0000-0000-000000000007"),
    ];
    assert_eq!(headers(&message), expected);
}

#[test]
fn a_manifest_says_what_became_of_the_batch() {
    let (naming, info) = (naming(Headers::Full), info());
    let fault = Fault::new(FaultClass::Missing, "no field");
    let rows = vec![
        row(0, 1, 10, Outcome::Prediction(Written::default())),
        row(0, 1, 13, Outcome::DeadLetter(fault)),
        row(1, 0, 2, Outcome::Tombstone),
    ];
    let finished = Finished { info: info.clone(), rows };
    let batch = naming.batch(&info);
    let noted = |model: Option<ModelId>| Note {
        topic: Some(TopicId("kW3pZ1bQTbm2dOOpqZJ8pA".into())),
        model,
        first: 1,
        partitions: 2,
        seen: Offset(0),
        skip: None,
    };
    let two = ModelId { version: Version(2), ..(*info.model).clone() };
    let notes = Notes::from([
        (Partition { topic: 0, number: 1 }, noted(Some(two))),
        (Partition { topic: 1, number: 0 }, noted(Some((*info.model).clone()))),
    ]);
    let mut messages = batch.manifests(&finished, &notes, 5_000).unwrap();
    assert_eq!(messages.len(), 1);
    let message = messages.remove(0);
    assert_eq!((message.topic, message.partition), ("sentiment-manifest", None));
    let id = "00000000-0000-0000-0000-000000000007";
    assert_eq!(message.key.as_deref(), Some(id.as_bytes()));
    let value: serde_json::Value = serde_json::from_slice(&message.value.unwrap()).unwrap();
    let expected = serde_json::json!({
        "batch_id": id, "group": "tidemill", "model": "sentiment", "version": 3, "digest": "sha256:ab",
        "task": "text-classification", "fields": ["text"], "output": "2 labels: no, yes",
        "reason": "swap", "records": 3, "predictions": 1, "dead_letters": 1,
        "tombstones": 1, "bytes": 9, "tokens": 5, "inference_seconds": 0.25,
        "ranges": [
            {"topic": "reviews", "topic_id": "kW3pZ1bQTbm2dOOpqZJ8pA", "partition": 1, "first": 10,
             "next": 14, "count": 2, "previous": "sentiment/2"},
            {"topic": "mails", "topic_id": "kW3pZ1bQTbm2dOOpqZJ8pA", "partition": 0, "first": 2,
             "next": 3, "count": 1},
        ],
    });
    assert_eq!(value, expected);
}

#[test]
fn a_manifest_that_is_too_large_is_written_in_pieces() {
    let (naming, info) = (naming(Headers::Full), info());
    let rows = (0..100).map(|number| row(0, number, 7, Outcome::Tombstone)).collect();
    let finished = Finished { info: info.clone(), rows };
    let batch = naming.batch(&info);
    let messages = batch.manifests(&finished, &Notes::new(), 3_000).unwrap();
    assert!(1 < messages.len() && messages.iter().all(|message| message.size() <= 3_000));
    let mut partitions = Vec::new();
    let mut keys = std::collections::BTreeSet::new();
    for (place, message) in (1..).zip(&messages) {
        let value: serde_json::Value =
            serde_json::from_slice(message.value.as_deref().unwrap()).unwrap();
        assert_eq!(value["piece"], place);
        assert_eq!(value["pieces"], messages.len());
        assert_eq!(value["records"], 100, "of the whole batch");
        let ranges = value["ranges"].as_array().unwrap();
        partitions.extend(ranges.iter().map(|range| range["partition"].as_i64().unwrap()));
        assert!(keys.insert(message.key.clone()), "compaction would keep one of them");
    }
    assert_eq!(partitions, (0..100).collect::<Vec<_>>());
}

#[test]
fn what_is_too_large_is_cut_to_the_limit_and_says_so() {
    let message = Message {
        topic: "t",
        partition: None,
        key: Some(Cow::Borrowed(&[1; 400])),
        value: Some(Cow::Owned(vec![2; 1_000])),
        headers: vec![(Cow::Borrowed(b"own"), Some(Cow::Owned(vec![3; 300])))],
        timestamp: None,
    };
    assert_eq!(message.clone().truncated(5_000), message);
    for limit in [1_800, 1_000, 700, 200] {
        let cut = message.clone().truncated(limit);
        assert!(cut.size() <= limit, "{limit}: {}", cut.size());
        assert!(headers(&cut).contains(&pair("tidemill.value.truncated", "1000")));
    }
}

#[test]
fn keys_hash_as_in_the_java_client() {
    // The values of Kafka's own UtilsTest.testMurmur2.
    let cases: [(&[u8], i32); 6] = [
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"a-little-bit-longer-string", -1_486_304_829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        (b"abc", 479_470_107),
    ];
    for (key, expected) in cases {
        assert_eq!(murmur2(key).cast_signed(), expected, "{key:?}");
        assert!((0..12).contains(&partition_of(Some(key), 12)));
    }
    assert_eq!(partition_of(None, 12), 0);
}
