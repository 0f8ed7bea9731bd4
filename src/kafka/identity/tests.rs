use std::sync::atomic::{AtomicU32, Ordering};

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::*;
use crate::failure::{Exit, temporary};
use crate::kafka::Journal;

fn token(number: u32, milliseconds: i64) -> Token {
    Token {
        value: format!("token-{number}"),
        principal: "me".to_owned(),
        expires: now_ms() + milliseconds,
        extensions: vec![("logicalCluster".to_owned(), "lkc-1".to_owned())],
        origin: "a test".to_owned(),
    }
}

fn settings() -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", "127.0.0.1:1").set("group.id", "g");
    settings.set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanisms", "OAUTHBEARER");
    settings
}

/// Waits until it is so.
fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_client_that_nobody_polls_has_its_token_and_each_newer_one() {
    let count = Arc::new(AtomicU32::new(0));
    let issued = Arc::clone(&count);
    let identity = Identity::with(Box::new(move || {
        Ok(token(issued.fetch_add(1, Ordering::AcqRel) + 1, 3_000))
    }));
    let client: BaseConsumer<Journal> = settings().create_with_context(Journal::default()).unwrap();
    let client = Arc::new(client);
    identity.keep(&client, |client| client.client());
    assert_eq!(count.load(Ordering::Acquire), 1);
    assert_eq!(identity.origin().unwrap().0, "a test");
    let admin: AdminClient<Journal> = settings().create_with_context(Journal::default()).unwrap();
    assert_eq!(native::set_token(admin.inner(), &token(1, 3_000)), Ok(()));
    until("it is renewed before it expires", || 3 <= count.load(Ordering::Acquire));
    let takers = || identity.0.as_ref().unwrap().held().takers.len();
    assert_eq!(takers(), 1);
    // Who has gone is forgotten with the next one, and the thread with the last identity.
    drop(client);
    until("a client that has gone is forgotten", || takers() == 0);
    let weak = Arc::downgrade(identity.0.as_ref().unwrap());
    drop(identity);
    until("the thread ends", || weak.upgrade().is_none());
}

#[test]
fn what_cannot_be_had_now_is_asked_for_again() {
    let count = Arc::new(AtomicU32::new(0));
    let asked = Arc::clone(&count);
    let identity = Identity::with(Box::new(move || match asked.fetch_add(1, Ordering::AcqRel) {
        0 => Err(temporary("ask for a token: away")),
        number => Ok(token(number, 60_000)),
    }));
    let client: BaseConsumer<Journal> = settings().create_with_context(Journal::default()).unwrap();
    let client = Arc::new(client);
    identity.keep(&client, |client| client.client());
    assert!(identity.origin().is_none());
    until("it is given a token once there is one", || identity.origin().is_some());
    assert_eq!(identity.ready(), Ok(()));
    let refused = Failure { message: "no credentials".to_owned(), exit: Exit::Config };
    let never = Identity::with({
        let refused = refused.clone();
        Box::new(move || Err(refused.clone()))
    });
    assert_eq!(never.ready(), Err(refused));
}

#[test]
fn a_token_that_librdkafka_does_not_take_is_not_shown() {
    let client: BaseConsumer<Journal> = settings().create_with_context(Journal::default()).unwrap();
    for wrong in [
        Token { value: "a\0b".to_owned(), ..token(1, 1_000) },
        Token { value: "\u{1}hunter2".to_owned(), ..token(1, 1_000) },
        Token { expires: 1, ..token(1, 1_000) },
    ] {
        let why = native::set_token(client.client(), &wrong).unwrap_err();
        assert!(!why.is_empty() && !why.contains("hunter2"), "{why}");
    }
    native::no_token(client.client(), "there is none");
}

#[test]
fn a_token_is_renewed_long_before_it_expires() {
    for (left, stands) in [(900_000, 600_000), (3_000, 2_000), (0, 0), (-5, 0)] {
        assert_eq!(
            until_next(1_000_000 + left, 1_000_000),
            Duration::from_millis(stands),
            "{left}"
        );
    }
}
