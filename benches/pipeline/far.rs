//! Transactions a second where each answer of the broker takes 60 ms, with one lane and with two.
//!
//! A transaction has five round trips one after the other: its partitions, its messages, the group, the offsets, its end.
//! So one lane cannot do more than 1 / (5 × 0.06 s) = 3.3 a second.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::broker::Broker;
use crate::world::{Replica, World, wait_for};
use crate::{PARTITIONS, scrape};

const ONE_WAY: Duration = Duration::from_millis(30);
const MEASURED: Duration = Duration::from_secs(20);

pub(crate) fn run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broker =
        Broker::behind(std::slice::from_ref(&address)).unwrap_or_else(|| panic!("no Kafka here"));
    // The listener that says that it is found at the proxy.
    let direct = broker.address(1, 0);
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(&direct).unwrap();
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
            }
            delayed(near.try_clone().unwrap(), far.try_clone().unwrap());
            delayed(far, near);
        }
    });
    let world = World::on(broker, PARTITIONS);
    // As `check` proposes it. The client has five requests under way, one for each partition that is written.
    world.delete_topics(&["out-manifest"]);
    world.create_topics(&["out-manifest"], 1);
    world.add_version(1);
    world.promote(1);
    let rates = [1, 2].map(|lanes| rate(&world, lanes));
    println!(
        "far: {} ms round trip, transactions a second: {:.2} on one lane (at most 3.33), {:.2} on two",
        2 * ONE_WAY.as_millis(),
        rates[0],
        rates[1]
    );
}

/// Hands on what comes, each piece 30 ms after it came.
fn delayed(mut from: TcpStream, mut to: TcpStream) {
    let (pieces, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if pieces.send((Instant::now() + ONE_WAY, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (at, piece) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        // The other side may have closed it already.
        drop(to.shutdown(Shutdown::Both));
    });
}

/// Records come faster than they are committed; counts what the service says that it committed.
fn rate(world: &World, lanes: u32) -> f64 {
    let config = world.config_with(
        &format!("lanes-{lanes}"),
        &format!("lanes: {lanes}"),
        "batch: { max_records: 64, max_wait: 5ms }",
    );
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("127.0.0.1:0", "127.0.0.1:18098")).unwrap();
    let replica = Replica::start(&config, &[]);
    let producer: ThreadedProducer<DefaultProducerContext> = world.client().create().unwrap();
    let feed = |records: i32| {
        for n in 0..records {
            let value = format!("{{\"x\":{n}}}");
            let record =
                BaseRecord::<[u8], str>::to("in").partition(n % PARTITIONS).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    };
    feed(PARTITIONS);
    let before = wait_for("the first commits", || committed().filter(|commits| 0.0 < *commits));
    let begin = Instant::now();
    while begin.elapsed() < MEASURED {
        feed(40 * PARTITIONS);
        thread::sleep(Duration::from_millis(50));
    }
    let rate = (committed().unwrap() - before) / begin.elapsed().as_secs_f64();
    world.wait_for_lag_0();
    assert!(replica.stop().success());
    rate
}

fn committed() -> Option<f64> {
    let text = scrape("127.0.0.1:18098")?;
    let line = text
        .lines()
        .find(|line| line.starts_with("tidemill_transactions_total{outcome=\"committed\"}"))?;
    line.rsplit(' ').next()?.parse().ok()
}
