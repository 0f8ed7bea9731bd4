//! A link that takes few bytes a second: what does not fit into a transaction's time is committed in smaller ones.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::broker::Broker;
use crate::world::{Replica, World, once};

/// What the link takes from each connection in a second.
const BYTES: u32 = 200_000;

/// Passes connections on to `broker`: slowly there, at once back.
fn slow(listener: TcpListener, broker: String) {
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&broker).unwrap());
            let (answers, back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || pass(client, server, Some(BYTES)));
            std::thread::spawn(move || pass(answers, back, None));
        }
    });
}

/// Copies until either side has gone.
fn pass(mut from: TcpStream, mut to: TcpStream, bytes_per_second: Option<u32>) {
    let mut buffer = vec![0; 8_192];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if let Some(rate) = bytes_per_second {
            std::thread::sleep(Duration::from_secs(1) * u32::try_from(read).unwrap() / rate);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other direction ends with it; where it has ended already there is nothing to shut.
    from.shutdown(Shutdown::Both).unwrap_or_default();
    to.shutdown(Shutdown::Both).unwrap_or_default();
}

/// 20,000 characters that no codec makes much shorter.
fn noise(seed: u64) -> String {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + u8::try_from(state >> 58).unwrap())
    };
    std::iter::repeat_with(&mut next).take(20_000).filter(|c| *c != '\\').collect()
}

/// A transaction may take three seconds. Of small batches, fewer share one; of batches that take five, each is committed in
/// parts, which are batches of their own with manifests that hold.
#[test]
fn what_does_not_fit_into_a_transactions_time_is_committed_in_smaller_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let Some(broker) = Broker::behind(&[address]) else { return };
    slow(listener, broker.address(1, 0));
    let world = World::on(broker, 1);
    world.add_version(1);
    world.promote(1);
    let records: Vec<String> =
        (0..100).map(|seed| format!("{{\"x\":1,\"pad\":\"{}\"}}", noise(seed))).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    for (run, batch, said) in
        [(1, 15, "fewer batches share one now"), (2, 50, "it is committed in parts")]
    {
        world.produce(0, &records);
        let extra = format!("batch: {{ max_records: {batch} }}\nlimits: {{ transaction: 3s }}");
        let config = world.config("a", &extra);
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("topic: out }", "topic: out, include: all }"))
            .unwrap();
        let (code, log) = Replica::start(&config, &["--until-end"]).ended();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(said), "{log}");
        assert_eq!(world.outcomes(), once(1, 0..100 * run));
    }
    let verify = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["verify", "--config"])
        .arg(world.config("a", ""))
        .output()
        .unwrap();
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stdout));
}
