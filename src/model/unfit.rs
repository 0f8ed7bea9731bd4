//! A configuration by which no record can be what the model takes.

use crate::clean::{Clean, Cleaning, GivenAs, Kind, Words};
use crate::config::{Input, InputFormat};
use crate::model::{Given, Model};

/// Whether a record can be answered.
///
/// # Errors
///
/// Why none can, with what to do.
pub fn check(input: &Input, model: &dyn Model) -> Result<(), String> {
    cleaned(input, model).or_else(|| one_field(input, model)).map_or(Ok(()), Err)
}

/// What a field is cleaned by.
fn words<'w>(input: &'w Input, model: &'w dyn Model, name: &str) -> Option<&'w Words> {
    let clean = input.clean.get(name).or_else(|| model.cleans().get(name));
    clean.map(Clean::words)
}

/// What cleaning leaves of a value that is one.
fn is_text(words: &Words) -> bool {
    let as_text = words.given_as == Some(GivenAs::Text);
    words.kind == Some(Kind::Text) || (words.kind == Some(Kind::Date) && as_text)
}

fn cleaned(input: &Input, model: &dyn Model) -> Option<String> {
    let wrong = model.looks_at().iter().find(|name| {
        words(input, model, name).is_some_and(is_text) && !model.takes(name, Given::Text)
    })?;
    Some(format!(
        "input.clean, or the model's preprocess.json, makes a text of field {wrong:?}, and the model takes a number there; \
         write type: number"
    ))
}

/// Of values that are one field each: that the model reads it, and takes what it is.
fn one_field(input: &Input, model: &dyn Model) -> Option<String> {
    let own = input.topics.iter().map(|topic| *input.formats.get(topic).unwrap_or(&input.format));
    let by_header = input.format_header.is_some();
    let format = own
        .filter(|format| matches!(format, InputFormat::Text | InputFormat::Bytes))
        .find_map(|format| Some((format, wrong(input, model, format)?)));
    let (format, why) = format.filter(|_| !by_header)?;
    let format = if format == InputFormat::Text { "text" } else { "bytes" };
    Some(format!("by input.format, {format}, a value is the one field {:?}, {why}", input.field))
}

fn wrong(input: &Input, model: &dyn Model, format: InputFormat) -> Option<String> {
    let (field, looks_at) = (&input.field, model.looks_at());
    let cleaning = Cleaning::new(looks_at, model.cleans(), &input.clean);
    if !looks_at.contains(field) && !cleaning.units().contains(field) {
        let in_value = |name: &&String| !input.beside().any(|beside| beside == *name);
        let needed = looks_at.iter().find(in_value)?;
        return Some(format!(
            "which the model does not read; it reads {needed:?}: name that in input.field, or write another format"
        ));
    }
    let given = if format == InputFormat::Text { Given::Text } else { Given::Bytes };
    // A text may be cleaned to something else, and bytes may not.
    let is_changed = |words: &Words| words.kind.is_some() && !is_text(words);
    let is_changed = given == Given::Text && words(input, model, field).is_some_and(is_changed);
    let is_refused = looks_at.contains(field) && !is_changed && !model.takes(field, given);
    is_refused.then(|| "and the model takes no such value there; write another format".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Prediction, Refused};
    use crate::config::yaml;
    use crate::field::Values;
    use crate::model::{About, Input as Prepared};
    use crate::record::Fault;

    /// Fields `n`, a number, and `c`, a text or a number.
    struct Table(Vec<String>);

    impl Model for Table {
        fn about(&self) -> &About {
            unreachable!("nobody asks")
        }

        fn looks_at(&self) -> &[String] {
            &self.0
        }

        fn takes(&self, field: &str, given: Given) -> bool {
            field == "c" && given == Given::Text
        }

        fn prepare(&self, _values: &Values<'_>) -> Result<Prepared, Fault> {
            unreachable!("no record comes")
        }

        fn predict(&self, _inputs: &[&Prepared]) -> Result<Vec<Prediction>, Refused> {
            unreachable!("no record comes")
        }
    }

    #[test]
    fn what_can_never_work_is_refused() {
        let table = Table(["n", "c"].map(str::to_owned).into());
        for (said, expect) in [
            ("{}", None),
            ("{clean: {n: {type: text}}}", Some("makes a text of field \"n\"")),
            (
                "{clean: {n: {type: date, format: '%Y-%m-%d', as: text}}}",
                Some("makes a text of field \"n\""),
            ),
            ("{clean: {n: {type: date, format: '%Y-%m-%d'}, c: {type: text}}}", None),
            ("{format: text, field: text}", Some("\"text\", which the model does not read")),
            ("{format: bytes, field: text}", Some("it reads \"n\": name that")),
            ("{format: text, field: text, headers: {n: a, c: b}}", None),
            ("{format: text, field: text, headers: {n: a}}", Some("it reads \"c\"")),
            ("{format: text, field: c}", None),
            ("{format: bytes, field: c}", Some("takes no such value")),
            ("{format: text, field: n}", Some("takes no such value")),
            ("{format: text, field: n, clean: {n: {type: number, decimal: '.'}}}", None),
            ("{format: bytes, field: n, clean: {n: {type: number}}}", Some("takes no such value")),
            ("{format: bytes, field: text, format_header: content-type}", None),
            ("{formats: {t: bytes}, field: n}", Some("input.format, bytes, a value is")),
            ("{formats: {t: json}, format: bytes, field: n}", None),
        ] {
            let input: Input = serde_json::from_value(yaml::value(said).unwrap()).unwrap();
            let input = Input { topics: vec!["t".to_owned()], ..input };
            let found = check(&input, &table).err();
            match expect {
                None => assert_eq!(found, None, "{said}"),
                Some(expect) => {
                    assert!(
                        found.as_ref().is_some_and(|found| found.contains(expect)),
                        "{said}: {found:?}"
                    );
                }
            }
        }
    }
}
