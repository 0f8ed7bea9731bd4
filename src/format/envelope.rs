//! What Kafka Connect's converters and Debezium's connectors write around a record.
//!
//! Connect's `JsonConverter` writes `{"schema": …, "payload": record}` where `schemas.enable` is true, and the record alone
//! where it is not. Debezium's record is an envelope `{"before", "after", "op", …}`: the row is `after`; of a deleted row
//! (`op` is `d`) there is none.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::json;
use super::wanted::Wanted;
use crate::config::Unwrap;

/// What is inside.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inside<'t> {
    /// The record.
    Record(&'t str),
    /// Nothing: its row was deleted.
    Deleted,
}

/// Takes the record in `text` out of its envelope.
///
/// # Errors
///
/// What is wrong with the text as JSON, or which part of the envelope it lacks.
pub(super) fn open(text: &str, unwrap: Unwrap) -> Result<Inside<'_>, String> {
    let inside = match unwrap {
        // An event of CloudEvents is opened before, whatever the format of its data.
        Unwrap::None | Unwrap::CloudEvents => return Ok(Inside::Record(text)),
        Unwrap::Connect | Unwrap::Debezium => match members(text, &CONNECT)? {
            [Some(_), Some(payload)] => payload,
            [_, _] => text,
        },
    };
    if inside == "null" {
        return Ok(Inside::Deleted);
    }
    if unwrap == Unwrap::Connect {
        return Ok(Inside::Record(inside));
    }
    let [op, after] = members(inside, &DEBEZIUM)?;
    let after = after.filter(|after| *after != "null");
    let deleted = is_deleted(op.map(|op| op.trim_matches('"')), after.is_some())?;
    Ok(after.filter(|_| !deleted).map_or(Inside::Deleted, Inside::Record))
}

/// Whether the row of an envelope was deleted, by its `op` and whether it has a row in `after`.
///
/// # Errors
///
/// What it is instead of an envelope with a row.
pub(super) fn is_deleted(op: Option<&str>, has_row: bool) -> Result<bool, String> {
    match op {
        Some("d") => Ok(true),
        Some("c" | "r" | "u") if has_row => Ok(false),
        Some("c" | "r" | "u") => Err(
            "is an envelope of Debezium's without a row in its field \"after\": a connector that sends changes alone \
             (MongoDB's capture.mode) must send the whole row"
                .to_owned(),
        ),
        Some(_) => Err(
            "is an envelope of Debezium's for no row: its field \"op\" is none of c, r, u and d (a truncation, a message)"
                .to_owned(),
        ),
        None => Err(
            "is not an envelope of Debezium's with a row: it has no field \"op\". A heartbeat, a transaction's and a schema \
             change's records have none; where the connector unwraps its records (ExtractNewRecordState), leave \
             input.unwrap out"
                .to_owned(),
        ),
    }
}

/// Connect's envelope.
static CONNECT: LazyLock<Wanted> = LazyLock::new(|| two(["schema", "payload"]));

/// Debezium's envelope.
static DEBEZIUM: LazyLock<Wanted> = LazyLock::new(|| two(["op", "after"]));

fn two(names: [&str; 2]) -> Wanted {
    Wanted::new(&names.map(str::to_owned), &BTreeMap::new())
}

fn members<'t>(text: &'t str, two: &Wanted) -> Result<[Option<&'t str>; 2], String> {
    let read = json::read::<&str>(text, two)?;
    Ok([0, 1].map(|place| read.values.get(place).copied().flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_opened() {
        use Inside::{Deleted, Record};
        use Unwrap::{Connect, Debezium, None};
        for (unwrap, text, expect) in [
            (None, r#"{"payload":1}"#, Ok(Record(r#"{"payload":1}"#))),
            (Connect, r#"{"schema":{},"payload":{"a":1}}"#, Ok(Record(r#"{"a":1}"#))),
            (Connect, r#"{"a":1}"#, Ok(Record(r#"{"a":1}"#))),
            // Without a schema it is a field of the record's own.
            (Connect, r#"{"payload":1}"#, Ok(Record(r#"{"payload":1}"#))),
            (Connect, r#"{"schema":{},"payload":null}"#, Ok(Deleted)),
            (Debezium, r#"{"before":null,"after":{"a":1},"op":"c"}"#, Ok(Record(r#"{"a":1}"#))),
            (
                Debezium,
                r#"{"schema":{},"payload":{"op":"u","after":{"a":1}}}"#,
                Ok(Record(r#"{"a":1}"#)),
            ),
            (Debezium, r#"{"before":{"a":1},"after":null,"op":"d"}"#, Ok(Deleted)),
            (Debezium, r#"{"before":{"a":1},"op":"d"}"#, Ok(Deleted)),
            (Debezium, r#"{"a":1}"#, Err("no field \"op\"")),
            (Debezium, r#"{"op":"c"}"#, Err("without a row in its field \"after\"")),
            (Debezium, r#"{"op":"u","after":null}"#, Err("without a row in its field \"after\"")),
            (Debezium, r#"{"op":"t","after":null}"#, Err("for no row")),
            (Debezium, r#"{"op":null,"after":{"a":1}}"#, Err("for no row")),
            (Debezium, r#"{"op":"c""#, Err("is not valid JSON")),
        ] {
            match (open(text, unwrap), expect) {
                (Ok(inside), Ok(expect)) => assert_eq!(inside, expect, "{text}"),
                (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
                (got, expect) => panic!("{text}: {got:?}, expected {expect:?}"),
            }
        }
    }
}
