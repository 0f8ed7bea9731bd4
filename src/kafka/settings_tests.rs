//! Tables and properties: what a user may set, what is passed on, and what is said of the rest.

use proptest::prelude::*;
use rdkafka::consumer::BaseConsumer;

use super::*;
use crate::config::properties::{self, Section, by_librdkafka, refusal};

const TUNING: Tuning = Tuning { limit: 5_000, isolated: false, backoff: BACKOFF };

fn config() -> Config {
    let mut config = Config::default();
    config.kafka.group = "g".to_owned();
    config.kafka.common.insert("bootstrap.servers".to_owned(), "b:9092".to_owned());
    config
}

fn with(section: Section, pairs: &[(&str, &str)]) -> Config {
    let mut config = config();
    let properties = match section {
        Section::Common => &mut config.kafka.common,
        Section::Consumer => &mut config.kafka.consumer,
        Section::Producer => &mut config.kafka.producer,
    };
    properties.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    config
}

/// The three clients of a configuration.
fn clients(config: &Config) -> [(Client, ClientConfig); 3] {
    [
        (Client::All, look(config, "pod-0")),
        (Client::Consumer, consumer(config, "pod-0", 4)),
        (Client::Producer, producer(config, "pod-0", 2, TUNING)),
    ]
}

#[test]
fn what_is_ours_is_set_as_the_list_says() {
    for owned in owned::OWNED {
        assert!(!owned.why.is_empty() && !owned.remedy().is_empty(), "{}", owned.name);
        for (of, client) in clients(&config()) {
            let set = client.get(owned.name);
            if of == Client::Consumer && owned.name == "message.max.bytes" {
                continue; // made from the memory there: see `three_sixteenths_of_the_memory_are_the_clients`
            }
            let expected = match owned.ours {
                Ours::Fixed(value) if owned.client.serves(of) => Some(value),
                Ours::Fixed(value) if set.is_some() => Some(value),
                Ours::Fixed(_) | Ours::Never => None,
                Ours::Made(_) => continue,
            };
            assert_eq!(set, expected, "{} for {of:?}", owned.name);
        }
    }
    for (name, value) in [("isolation.level", "read_committed"), ("auto.offset.reset", "earliest")]
    {
        assert_eq!(reader(&config(), "pod-0").get(name), Some(value));
    }
    assert_eq!(reader(&config(), "pod-0").get("group.instance.id"), None);
    let [_, (_, consumer), (_, producer)] = clients(&config());
    assert_eq!(consumer.get("group.id"), Some("g"));
    assert_eq!(consumer.get("group.instance.id"), Some("pod-0"));
    assert_eq!(consumer.get("client.id"), Some("pod-0"));
    assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
    assert_eq!(producer.get("transactional.id"), Some("tidemill/g/pod-0/2"));
    assert_eq!(producer.get("batch.size"), Some("5000"));
    assert_eq!(producer.get("retry.backoff.ms"), Some("100"));
    for (round_trip, pause, longest) in
        [(0, "100", "1000"), (60, "360", "1000"), (300, "1800", "1800"), (900, "2000", "2000")]
    {
        let backoff = backoff(Duration::from_millis(round_trip));
        let producer = super::producer(&config(), "pod-0", 2, Tuning { backoff, ..TUNING });
        let set = [producer.get("retry.backoff.ms"), producer.get("retry.backoff.max.ms")];
        assert_eq!(set, [Some(pause), Some(longest)], "{round_trip} ms");
    }
}

/// For each property one of these is a value that librdkafka takes.
const VALUES: [&str; 22] = [
    "true",
    "false",
    "1",
    "7",
    "1200",
    "12000",
    "latest",
    "read_uncommitted",
    "fifo",
    "broker",
    "none",
    "murmur2",
    "ssl",
    "any",
    "lz4",
    "classic",
    "rebootstrap",
    "use_all_dns_ips",
    "https",
    "x",
    "all",
    "",
];

/// Every property that librdkafka knows is ours, and refused with the reason, or reaches the clients that it is for.
#[test]
fn no_property_is_dropped_in_silence() {
    let mut passed = 0;
    for name in properties::properties() {
        let first = canonical(&name);
        let ours = owned::OWNED.iter().find(|owned| owned.name == first);
        let value = VALUES.into_iter().find(|value| {
            ours.is_none_or(|owned| owned.ours != Ours::Fixed(value))
                && by_librdkafka(&name, value).is_none()
        });
        let Some(value) = value else {
            let unsupported = by_librdkafka(&name, "x");
            let unsupported =
                unsupported.is_some_and(|(message, _)| message.contains("this build"));
            assert!(ours.is_some() || unsupported, "{name}: no value of it was found");
            continue;
        };
        let (whose, section) = match owned::client_of(first) {
            all @ Client::All => (all, Section::Common),
            consumer @ Client::Consumer => (consumer, Section::Consumer),
            producer @ Client::Producer => (producer, Section::Producer),
        };
        let mut config = with(section, &[(&name, value)]);
        if name == "metadata.broker.list" {
            config.kafka.common.remove("bootstrap.servers");
        }
        let refused = refusal(&config.kafka, section, &name, value);
        if ours.is_some() {
            let (message, remedy) = refused.unwrap_or_else(|| panic!("{name} is ours, and taken"));
            assert!(message.contains("cannot be set"), "{name}: {message}");
            assert!(remedy.contains("leave it out"), "{name}: {remedy}");
            continue;
        }
        assert_eq!(refused, None, "{name}");
        for (of, client) in clients(&config) {
            if whose.serves(of) {
                assert_eq!(client.get(first), Some(value), "{name} for {of:?}");
                passed += 1;
            }
            assert!(name == first || client.get(&name).is_none(), "{name} is set by two names");
        }
    }
    assert!(200 < passed, "{passed}");
}

/// `pairs` in `section`: what is said of the first of them has `said` and `remedy` in it, and not the value.
#[track_caller]
fn refused(section: Section, pairs: &[(&str, &str)], said: &str, remedy: &str) {
    let config = with(section, pairs);
    let (name, value) = pairs[0];
    let refusal = refusal(&config.kafka, section, name, value);
    let (message, todo) = refusal.unwrap_or_else(|| panic!("{pairs:?} is taken"));
    assert!(message.contains(said) && todo.contains(remedy), "{pairs:?}: {message}; {todo}");
    let shown = format!("{message} {todo}");
    assert!(!shown.contains("hunt") && !shown.contains("987654"), "{pairs:?}: {message}; {todo}");
}

#[test]
fn what_is_ours_is_refused_with_the_reason() {
    for (section, name, said, remedy) in [
        (Section::Common, "enable.auto.commit", "inside the transaction", "leave it out"),
        (Section::Producer, "linger.ms", "it is `0`", "batch.max_wait"),
        (Section::Producer, "queue.buffering.max.ms", "it is `0`", "batch.max_wait"),
        (Section::Common, "client.id", "made from kafka.instance", "set kafka.instance"),
        (Section::Consumer, "fetch.max.bytes", "memory", "set limits.memory"),
        (Section::Consumer, "max.partition.fetch.bytes", "memory", "set limits.memory"),
        (Section::Producer, "queue.buffering.max.kbytes", "memory", "set limits.memory"),
        (Section::Common, "dr_msg_cb", "part of the program", "leave it out"),
        (Section::Common, "socket.blocking.max.ms", "does nothing with it", "leave it out"),
    ] {
        refused(section, &[(name, "hunter2")], said, remedy);
    }
    for (section, pairs) in [
        (Section::Common, &[("isolation.level", "read_committed"), ("acks", "all")][..]),
        (Section::Common, &[("compression.type", "lz4"), ("check.crcs", "false")]),
        (Section::Common, &[("ssl.key.pem", "\n-----BEGIN"), ("sasl.password", "hunter2 ")]),
        (Section::Consumer, &[("session.timeout.ms", "6000"), ("group.protocol", "classic")]),
    ] {
        let config = with(section, pairs);
        for (name, value) in pairs {
            assert_eq!(refusal(&config.kafka, section, name, value), None, "{name}");
        }
    }
}

#[test]
fn a_refusal_never_has_the_value() {
    for (name, said, remedy) in [
        ("sasl.pasword", "is not a property", "did you mean `sasl.password`?"),
        ("bootstrap.server", "is not a property", "did you mean `bootstrap.servers`?"),
        ("totally.else", "is not a property", "CONFIGURATION.md"),
        ("sasl.jaas.config", "librdkafka", "sasl.username and sasl.password"),
        ("ssl.truststore.location", "librdkafka", "ssl.ca.location"),
        ("ssl.keystore.key", "is not a property", "ssl.key.pem"),
        ("security.protocol", "does not take", "CONFIGURATION.md"),
        ("broker.address.family", "does not take", "CONFIGURATION.md"),
        ("socket.keepalive.enable", "neither `true` nor `false`", "CONFIGURATION"),
        ("socket.timeout.ms", "does not take", "CONFIGURATION.md"),
        ("sasl.oauthbearer.method", "", "CONFIGURATION.md"),
    ] {
        refused(Section::Common, &[(name, "hunter2")], said, remedy);
    }
    for (pair, said, remedy) in [
        (("sasl.mechanisms", "hunter2,PLAIN"), "does not take", "CONFIGURATION.md"),
        (("debug", "broker,hunter2"), "does not take", "CONFIGURATION.md"),
        (("topic.blacklist", "hunter2["), "cannot be set", "input.topics"),
        (("socket.timeout.ms", "987654"), "outside of its range, 10..300000", "CONFIGURATION.md"),
        (("socket.timeout.ms", ""), "is empty", "CONFIGURATION.md"),
        (("sasl.password", "hunt\0er2"), "NUL", "leave that character out"),
        (("sasl.password", " hunter2"), "white space", "without it"),
    ] {
        refused(Section::Common, &[pair], said, remedy);
    }
}

#[test]
fn a_property_stands_once_and_where_it_does_something() {
    let kip = ("group.protocol", "consumer");
    let strategy = ("partition.assignment.strategy", "cooperative-sticky");
    let (one, other) = (("sasl.mechanism", "PLAIN"), ("sasl.mechanisms", "PLAIN"));
    refused(
        Section::Consumer,
        &[("compression.type", "lz4")],
        "of the producers",
        "kafka.producer",
    );
    refused(Section::Producer, &[("check.crcs", "false")], "of the consumer", "kafka.consumer");
    refused(
        Section::Consumer,
        &[("session.timeout.ms", "6000"), kip],
        "protocol: consumer",
        "brokers",
    );
    refused(Section::Consumer, &[strategy, kip], "protocol: consumer", "brokers");
    refused(Section::Common, &[one, other], "two names", "leave one");
    refused(Section::Common, &[other, one], "two names", "leave one");
}

#[test]
fn users_properties_win_over_defaults_by_any_name() {
    let mut config = config();
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    config.kafka.consumer.extend([pair("session.timeout.ms", "6000"), pair("client.rack", "b")]);
    config.kafka.producer.extend([pair("compression.codec", "lz4")]);
    config.kafka.common.extend([pair("client.rack", "a"), pair("sasl.mechanism", "PLAIN")]);
    let [(_, admin), (_, consumer), (_, producer)] = clients(&config);
    assert_eq!(consumer.get("session.timeout.ms"), Some("6000"));
    assert_eq!((admin.get("session.timeout.ms"), producer.get("session.timeout.ms")), (None, None));
    assert_eq!(
        (producer.get("compression.type"), producer.get("compression.codec")),
        (Some("lz4"), None)
    );
    assert_eq!((consumer.get("client.rack"), producer.get("client.rack")), (Some("b"), Some("a")));
    for client in [admin, consumer, producer] {
        assert_eq!(client.get("bootstrap.servers"), Some("b:9092"));
        assert_eq!(
            (client.get("sasl.mechanisms"), client.get("sasl.mechanism")),
            (Some("PLAIN"), None)
        );
    }
}

#[test]
fn the_newer_protocol_takes_its_timeouts_from_the_broker() {
    for section in [Section::Common, Section::Consumer] {
        let config = with(section, &[("group.protocol", "Consumer")]);
        for key in owned::CLASSIC {
            assert_eq!(consumer(&config, "i", 4).get(key), None, "{key}");
        }
        let _made: BaseConsumer = consumer(&config, "i", 4).create().unwrap();
    }
}

#[test]
fn authorities_are_looked_for_where_tls_is_on_and_none_is_named() {
    assert_eq!(authorities(None), "probe");
    assert_eq!(authorities(Some(String::new())), "probe");
    assert_eq!(authorities(Some("/ca.pem".to_owned())), "/ca.pem");
    // Whoever tests this may have the variable.
    let here = authorities(std::env::var("SSL_CERT_FILE").ok());
    for (pairs, location) in [
        (&[("security.protocol", "SASL_SSL")][..], Some(here.as_str())),
        (&[("security.protocol", "ssl")], Some(here.as_str())),
        (&[("security.protocol", "ssl"), ("ssl.ca.location", "/ca.pem")], Some("/ca.pem")),
        (&[("security.protocol", "ssl"), ("ssl.ca.pem", "-----BEGIN")], None),
        (&[("security.protocol", "sasl_plaintext")], None),
        (&[], None),
    ] {
        for (of, client) in clients(&with(Section::Common, pairs)) {
            assert_eq!(client.get("ssl.ca.location"), location, "{pairs:?} {of:?}");
        }
    }
}

/// librdkafka warns of a property that its kind of client ignores; ours are never given one.
#[test]
fn a_client_is_given_only_what_it_takes() {
    #[derive(Clone, Default)]
    struct Heard(std::sync::Arc<std::sync::Mutex<Vec<String>>>);
    impl rdkafka::ClientContext for Heard {
        fn log(&self, _: RDKafkaLogLevel, _: &str, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
    }
    impl rdkafka::consumer::ConsumerContext for Heard {}
    impl rdkafka::producer::ProducerContext for Heard {
        type DeliveryOpaque = ();
        fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
    }
    let mut all = config();
    for name in properties::properties() {
        let first = canonical(&name).to_owned();
        let native = ClientConfig::new().create_native_config().unwrap();
        if owned::OWNED.iter().any(|owned| owned.name == first) || owned::CLASSIC.contains(&&*first)
        {
            continue;
        }
        if let Ok(value) = native.get(&name)
            && !value.is_empty()
            && by_librdkafka(&name, &value).is_none()
            && !["sasl.kerberos.kinit.cmd", "builtin.features", "socket.timeout.ms"]
                .contains(&&*first)
        {
            all.kafka.common.insert(first, value);
        }
    }
    assert!(40 < all.kafka.common.len());
    let ignored = |heard: &Heard| {
        let lines = heard.0.lock().unwrap();
        lines.iter().filter(|line| line.contains("will be ignored")).cloned().collect::<Vec<_>>()
    };
    let heard = Heard::default();
    let made: BaseConsumer<Heard> =
        consumer(&all, "i", 4).create_with_context(heard.clone()).unwrap();
    drop(made.poll(Duration::from_millis(100)));
    assert_eq!(ignored(&heard), [""; 0]);
    let heard = Heard::default();
    let made: rdkafka::producer::BaseProducer<Heard> =
        producer(&all, "i", 0, TUNING).create_with_context(heard.clone()).unwrap();
    made.poll(Duration::from_millis(100));
    assert_eq!(ignored(&heard), [""; 0]);
}

#[test]
fn a_name_that_kafka_does_not_take_says_where_it_came_from() {
    let places = |a: &str, b: &str, c: &str, d: &str| {
        let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        first_name([
            ("kafka.instance", name(a)),
            ("$POD_NAME", name(b)),
            ("$HOSTNAME", name(c)),
            ("the host's name", name(d)),
        ])
    };
    assert_eq!(places("a", "b", "c", "d").as_deref(), Ok("a"));
    assert_eq!(places("", "b", "c", "d").as_deref(), Ok("b"));
    assert_eq!(places("", " \n", "c", "d").as_deref(), Ok("c"));
    assert_eq!(places("", "", "", "d\n").as_deref(), Ok("d"));
    for (result, said) in [
        (places("", "", "", ""), "neither kafka.instance nor $POD_NAME"),
        (
            places("a/b", "b", "c", "d"),
            "by kafka.instance: Kafka does not take '/' in the name \"a/b\"",
        ),
        (places("", "pod 0", "c", "d"), "by $POD_NAME"),
        (places("", "", "höst", "d"), "by $HOSTNAME: Kafka does not take 'ö'"),
        (
            places("", "", "", &"x".repeat(250)),
            "by the host's name: Kafka does not take a name of 250",
        ),
    ] {
        let message = result.unwrap_err();
        assert!(message.contains(said) && message.contains("set kafka.instance"), "{message}");
    }
}

#[test]
fn three_sixteenths_of_the_memory_are_the_clients() {
    let table: [(u64, usize, [u64; 6]); 5] = [
        (64 << 20, 1, [10_000, 6_144, 196_608, 196_608, 196_608, 100_000_000]),
        (64 << 20, 16, [655, 384, 16_384, 262_144, 262_144, 100_000_000]),
        (64 << 20, 1_000, [64, 6, 16_384, 3 << 20, 1_000_000, 100_000_000]),
        (1 << 20, 4, [64, 24, 16_384, 49_152, 49_152, 100_000_000]),
        (8 << 30, 12, [10_000, 65_536, 1 << 20, 12 << 20, 1_000_000, (8 << 30) / 3 + (1 << 20)]),
    ];
    for (limit, partitions, expected) in table {
        let numbers = memory(limit, partitions).map(|(_, value)| value.parse::<u64>().unwrap());
        let expected = expected.map(|number| number.min(2_147_483_647));
        assert_eq!(numbers, expected, "{limit} {partitions}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_client_takes_what_the_memory_gives(limit in 1_u64..1 << 44, partitions in 0_usize..5_000) {
        let mut client = ClientConfig::new();
        client.set("group.id", "g");
        let numbers = memory(limit, partitions);
        for (name, value) in &numbers {
            prop_assert!(owned::OWNED.iter().any(|owned| owned.name == *name));
            client.set(*name, value);
        }
        let made: Result<BaseConsumer, _> = client.create();
        prop_assert!(made.is_ok(), "{:?}", made.err());
        let number = |name| numbers.iter().find(|(n, _)| *n == name).unwrap().1.parse::<u64>().unwrap();
        prop_assert!(number("fetch.max.bytes") + 512 <= number("receive.message.max.bytes"));
        prop_assert!(limit / 3 <= number("receive.message.max.bytes") || limit / 3 > 2_000_000_000);
        prop_assert!(number("fetch.message.max.bytes") <= number("fetch.max.bytes"));
    }

    #[test]
    fn no_two_lanes_share_a_transactional_id(
        (g1, g2, i1, i2) in ("[a-b._-]{1,6}", "[a-b._-]{1,6}", "[a-b._0-1-]{1,6}", "[a-b._0-1-]{1,6}"),
        (l1, l2) in (0_usize..12, 0_usize..12),
    ) {
        let same = (&g1, &i1, l1) == (&g2, &i2, l2);
        prop_assert_eq!(transactional_id(&g1, &i1, l1) == transactional_id(&g2, &i2, l2), same);
    }
}
