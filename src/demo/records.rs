//! The bundled records, as JSON or as Avro.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::assets;
use crate::avro::{self, AvroSchema, Encoder};
use crate::config::Pointer;

/// The values of the bundled records. What is broken as JSON, or of a wrong type, is no record of the schema: in Avro its
/// bytes are the same text.
pub fn values(as_avro: bool) -> Vec<Vec<u8>> {
    let schema = avro::parse(assets::SCHEMA, &[]).ok().filter(|_| as_avro);
    let value = |line: &str| {
        let datum = schema.as_ref().and_then(|schema| datum(schema, line));
        datum.unwrap_or_else(|| line.as_bytes().to_vec())
    };
    assets::RECORDS.lines().map(value).collect()
}

fn datum(schema: &AvroSchema, line: &str) -> Option<Vec<u8>> {
    let Json::Object(fields) = serde_json::from_str(line).ok()? else { return None };
    let fields = fields.into_iter().map(|(name, value)| (in_avro(&name), value));
    let mut datum = Vec::new();
    Encoder::new(&mut datum).json(schema, &Json::Object(fields.collect())).ok()?;
    Some(datum)
}

/// A field's name without spaces, which Avro's have not.
fn in_avro(name: &str) -> String {
    name.replace(' ', "_")
}

/// Where the model's fields stand in the records as Avro, for those that are called otherwise there.
pub fn fields() -> BTreeMap<String, Pointer> {
    let first = assets::RECORDS.lines().next().and_then(|line| serde_json::from_str(line).ok());
    let Some(Json::Object(first)) = first else { return BTreeMap::new() };
    let others = first.into_iter().map(|(name, _)| name).filter(|name| name.contains(' '));
    let pointer = |name: String| {
        let pointer = Pointer::try_from(format!("/{}", in_avro(&name))).ok()?;
        Some((name, pointer))
    };
    others.filter_map(pointer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_planted_faults_are_of_the_schema() {
        let (json, avro) = (values(false), values(true));
        let same = json.iter().zip(&avro).filter(|(json, avro)| json == avro).count();
        assert_eq!((json.len(), same), (569, 3), "two are broken, one has a wrong type");
        assert_eq!(fields().len(), 30);
    }
}
