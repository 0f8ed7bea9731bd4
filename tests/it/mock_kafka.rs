//! Injected errors, on librdkafka's mock cluster: what each class of them does to a lane.
//!
//! The mock shows aborted records to readers and does not fence: only our own reactions are judged here.

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};
use std::time::Duration;
use tidemill::config::Config;
use tidemill::failure::Exit;
use tidemill::kafka;
use tidemill::log::message::Naming;
use tidemill::log::{How, Opening};

use crate::kafka_log::{Loop, config};

fn cluster(config: &mut Config) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    let servers = cluster.bootstrap_servers();
    config.kafka.common.insert("bootstrap.servers".to_owned(), servers);
    let naming = Naming::new(config);
    for topic in naming.written().into_iter().chain(naming.inputs.iter().map(String::as_str)) {
        cluster.create_topic(topic, 1, 1).unwrap();
    }
    cluster
}

fn fill(config: &Config, count: usize) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.kafka.common["bootstrap.servers"]);
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
    for n in 0..count {
        let value = n.to_string();
        let record = BaseRecord::to(&config.input.topics[0]).key(&value).payload(&value);
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// What became of the next transaction after `errors` of `api`: how it ended, or the exit code.
fn after(api: Api, errors: &[Error]) -> Result<How, Exit> {
    let mut config = config("", "mock", 1);
    let cluster = cluster(&mut config);

    // First, so that no other client meets the errors.
    fill(&config, 10);
    cluster.request_errors(api, errors);
    let mut work =
        Loop::new(kafka::open(&config, Naming::new(&config), &Opening::default()).unwrap(), 100);
    work.turn(|l| !l.done.is_empty());

    let failure = work.failure.take();
    let done = work.stop();
    match failure {
        Some(failure) => Err(failure.exit),
        None => Ok(done[0].how),
    }
}

#[test]
fn errors_end_as_the_table_says() {
    use Error::{
        RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION as ILLEGAL_GENERATION,
        RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH as INVALID_PRODUCER_EPOCH,
        RD_KAFKA_RESP_ERR_INVALID_RECORD as INVALID_RECORD,
        RD_KAFKA_RESP_ERR_NOT_COORDINATOR as NOT_COORDINATOR,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as TOPIC_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID as UNKNOWN_MEMBER_ID,
    };
    let table: [(Api, &[Error], Result<How, Exit>); 8] = [
        (Api::EndTxn, &[], Ok(How::Committed)),
        (Api::EndTxn, &[NOT_COORDINATOR], Ok(How::Committed)),
        (Api::TxnOffsetCommit, &[ILLEGAL_GENERATION], Ok(How::Redone)),
        (Api::TxnOffsetCommit, &[UNKNOWN_MEMBER_ID], Ok(How::Redone)),
        (Api::TxnOffsetCommit, &[INVALID_PRODUCER_EPOCH], Ok(How::Redone)),
        (Api::Produce, &[TOPIC_AUTHORIZATION_FAILED], Err(Exit::Config)),
        (Api::AddPartitionsToTxn, &[INVALID_PRODUCER_EPOCH], Ok(How::Redone)),
        (Api::Produce, &[INVALID_RECORD], Ok(How::Redone)),
    ];
    // Side by side: each waits for seconds, for answers that the mock does not give.
    std::thread::scope(|scope| {
        for (api, errors, expected) in table {
            std::thread::Builder::new()
                .name(format!("{api:?} {errors:?}"))
                .spawn_scoped(scope, move || assert_eq!(after(api, errors), expected))
                .unwrap();
        }
    });
}
