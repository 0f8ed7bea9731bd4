//! The least permissions in Kafka: with them the service works, and without one of them that one is named.

#![expect(unsafe_code, reason = "rdkafka does not wrap how permissions are given")]

use std::ffi::CString;

use rdkafka::bindings as c;
use rdkafka::bindings::{
    rd_kafka_AclOperation_t as Operation, rd_kafka_ResourcePatternType_t as Pattern,
    rd_kafka_ResourceType_t as Resource,
};

use crate::broker::Broker;
use crate::tokens::{Server, check, config, granted};
use crate::world::{Replica, World};

const READ: Operation = Operation::RD_KAFKA_ACL_OPERATION_READ;
const WRITE: Operation = Operation::RD_KAFKA_ACL_OPERATION_WRITE;
const DESCRIBE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;
const TOPIC: Resource = Resource::RD_KAFKA_RESOURCE_TOPIC;

type Grant = (Resource, &'static str, Operation);

/// What README of the chart lists, and what `check` says, or a start, where it is missing.
const LEAST: [(Grant, &str); 7] = [
    ((TOPIC, "in", READ), "--operation Read --topic in"),
    ((TOPIC, "out", WRITE), "--operation Write --topic out"),
    ((TOPIC, "in-dlq", WRITE), "--operation Write --topic in-dlq"),
    ((TOPIC, "out-manifest", WRITE), "--operation Write --topic out-manifest"),
    ((TOPIC, "out-manifest", READ), "--operation Read --topic out-manifest"),
    ((Resource::RD_KAFKA_RESOURCE_GROUP, "g", READ), "--operation Read --group g"),
    (
        (Resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID, "tidemill/g/", WRITE),
        "WRITE on the transactional ids that begin with tidemill/g/",
    ),
];

/// Allows a user these things.
fn allow(world: &World, user: &str, grants: &[Grant]) {
    let admin = world.admin();
    let text = |text: &str| CString::new(text).unwrap();
    let (user, host) = (text(&format!("User:{user}")), text("*"));
    // SAFETY: what is made here is destroyed here, once; texts outlive the calls, and the client copies them.
    unsafe {
        let client = admin.inner().native_ptr();
        let mut why = [0; 256];
        let mut bindings: Vec<_> = grants
            .iter()
            .map(|(resource, name, operation)| {
                let transactions = *resource == Resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID;
                let pattern = if transactions {
                    Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED
                } else {
                    Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL
                };
                let name = text(name);
                let binding = c::rd_kafka_AclBinding_new(
                    *resource,
                    name.as_ptr(),
                    pattern,
                    user.as_ptr(),
                    host.as_ptr(),
                    *operation,
                    c::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                    why.as_mut_ptr(),
                    why.len(),
                );
                assert!(!binding.is_null());
                binding
            })
            .collect();
        let queue = c::rd_kafka_queue_new(client);
        c::rd_kafka_CreateAcls(
            client,
            bindings.as_mut_ptr(),
            bindings.len(),
            std::ptr::null(),
            queue,
        );
        let event = c::rd_kafka_queue_poll(queue, 30_000);
        assert!(!event.is_null(), "no answer");
        assert_eq!(
            c::rd_kafka_event_error(event),
            c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        );
        c::rd_kafka_event_destroy(event);
        for binding in bindings {
            c::rd_kafka_AclBinding_destroy(binding);
        }
        c::rd_kafka_queue_destroy(queue);
    }
}

#[test]
fn the_least_permissions_are_enough_and_each_missing_one_is_named() {
    let authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer \
                      super.users=User:ANONYMOUS";
    let Some(broker) = Broker::start_with(&[("KAFKA_SASL", "1"), ("KAFKA_PROPS", authorizer)])
    else {
        return;
    };
    let world = World::on(broker, 1);
    world.add_version(1);
    world.promote(1);
    let server = Server::start();
    // Who may write a topic may describe it; who may do nothing with it does not even see that it is there.
    let topics = ["in", "out", "in-dlq", "out-manifest"].map(|topic| (TOPIC, topic, DESCRIBE));
    let group = (Resource::RD_KAFKA_RESOURCE_GROUP, "g", DESCRIBE);
    for (missing, (_, named)) in LEAST.iter().enumerate() {
        let user = format!("without-{missing}");
        let others = LEAST.iter().enumerate().filter(|(place, _)| *place != missing);
        let grants: Vec<Grant> =
            others.map(|(_, (grant, _))| *grant).chain(topics).chain([group]).collect();
        allow(&world, &user, &grants);
        let file = config(&world, &user, &granted(&server, &user, "hunter2"));
        let (code, said) = if missing == 6 {
            Replica::start(&file, &["--until-end"]).ended()
        } else {
            check(&file, &[])
        };
        assert_eq!(code, Some(78), "{named}: {said}");
        assert!(said.contains(named), "{named:?} is not in {said}");
    }
    let least: Vec<Grant> = LEAST.iter().map(|(grant, _)| *grant).collect();
    allow(&world, "least", &least);
    let file = config(&world, "least", &granted(&server, "least", "hunter2"));
    let (code, said) = check(&file, &[]);
    assert!(code == Some(0) && said.contains("tidemill/g/"), "{said}");
    world.produce(0, &["{\"x\":1}", "nothing"]);
    let (code, log) = Replica::start(&file, &["--until-end"]).ended();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(world.outcomes().len(), 2);
}
