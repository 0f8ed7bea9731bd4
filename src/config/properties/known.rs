//! The names of librdkafka's properties, as it lists them itself.

#![expect(unsafe_code, reason = "rdkafka does not wrap the lists")]

use std::collections::BTreeSet;
use std::ffi::CStr;

use rdkafka::ClientConfig;
use rdkafka::bindings as c;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::config::owned;

/// The names of librdkafka's properties that a text can set, with second names.
pub fn properties() -> BTreeSet<String> {
    let both = owned::ALIASES.iter().flat_map(|(alias, first)| [alias, first]);
    let more = owned::WITHOUT_DEFAULT.iter().chain(both);
    let mut names: BTreeSet<String> = more.map(|name| (*name).to_owned()).collect();
    // What has a value, librdkafka lists itself.
    // SAFETY: both configurations and the lists of names and values are ours, and each is destroyed once, here.
    unsafe {
        let (global, topic) = (c::rd_kafka_conf_new(), c::rd_kafka_topic_conf_new());
        for of_topics in [false, true] {
            let mut count = 0;
            let list = if of_topics {
                c::rd_kafka_topic_conf_dump(topic, &raw mut count)
            } else {
                c::rd_kafka_conf_dump(global, &raw mut count)
            };
            // A name, its value, the next name, …
            let name = |place| CStr::from_ptr(*list.add(place)).to_string_lossy().into_owned();
            names.extend((0..count).step_by(2).map(name));
            c::rd_kafka_conf_dump_free(list, count);
        }
        c::rd_kafka_topic_conf_destroy(topic);
        c::rd_kafka_conf_destroy(global);
    }
    names
}

/// Whether librdkafka knows a property of this name, be it a second name.
pub fn is_property(name: &str) -> bool {
    let tried = ClientConfig::new().set(name, "").create_native_config();
    let unknown = RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
    !matches!(tried, Err(KafkaError::ClientConfig(code, ..)) if code == unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// librdkafka's own table of its properties, in Markdown.
    fn manual() -> String {
        // SAFETY: the file is ours, and is closed once; the buffer is as long as it is said to be.
        unsafe {
            let file = libc::tmpfile();
            assert!(!file.is_null());
            c::rd_kafka_conf_properties_show(file.cast());
            libc::rewind(file);
            let mut bytes = vec![0_u8; 1 << 20];
            let read = libc::fread(bytes.as_mut_ptr().cast(), 1, bytes.len(), file);
            libc::fclose(file);
            bytes.truncate(read);
            String::from_utf8(bytes).unwrap()
        }
    }

    /// The lists that we keep are those of librdkafka: second names, and which client takes what.
    #[test]
    fn our_lists_are_those_of_librdkafka() {
        let known = properties();
        let mut rows = 0;
        for line in manual().lines() {
            let columns: Vec<&str> = line.splitn(6, '|').map(str::trim).collect();
            let [name, whose @ ("*" | "C" | "P"), .., text] = columns[..] else { continue };
            rows += 1;
            let first = owned::canonical(name);
            if let Some((of, _)) =
                text.strip_prefix("Alias for `").and_then(|rest| rest.split_once('`'))
            {
                let topic = ["enable.auto.commit"].contains(&name);
                assert!(topic || first == owned::canonical(of), "{name} is a second name of {of}");
            }
            assert!(is_property(name), "{name}");
            let ours = owned::OWNED.iter().find(|owned| owned.name == first);
            assert!(
                ours.is_some() || known.contains(name),
                "{name} is not in the list of those without default"
            );
            let client = match whose {
                "C" => owned::Client::Consumer,
                "P" => owned::Client::Producer,
                _ => owned::Client::All,
            };
            match ours {
                Some(ours) => {
                    assert!(client == owned::Client::All || ours.client == client, "{name}");
                }
                None => assert_eq!(owned::client_of(first), client, "{name}"),
            }
        }
        assert!(150 < rows, "{rows}");
        assert!(
            owned::OWNED
                .iter()
                .all(|owned| is_property(owned.name) && owned::canonical(owned.name) == owned.name)
        );
        assert!(known.iter().all(|name| is_property(name)));
        assert!(!is_property("sasl.pasword") && !is_property("ssl.keystore.key"));
    }
}
