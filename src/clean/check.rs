//! Which words go together.

use serde_json::Value as Json;

use super::words::{Bound, GivenAs, Kind, OnInvalid, OnMissing, Words};

/// What is wrong with words, beside what each of them is: those that do not go with another, and what to write.
pub(super) fn check(words: &Words) -> Vec<String> {
    let all = [misplaced(words), kinds(words), numbers(words), lists(words), actions(words)];
    all.into_iter().filter_map(Result::err).collect()
}

fn wrong<T>(message: impl Into<String>) -> Result<T, String> {
    Err(message.into())
}

/// Each word of a type with that type.
fn misplaced(words: &Words) -> Result<(), String> {
    use Kind::{Boolean, Date, Number, Text};
    let said: [(&str, bool, &[Kind], &str); 17] = [
        ("min", words.min.is_some(), &[Number, Date], "number or date"),
        ("max", words.max.is_some(), &[Number, Date], "number or date"),
        ("decimal", words.decimal.is_some(), &[Number], "number"),
        ("group", words.group.is_some(), &[Number], "number"),
        ("percent", words.percent, &[Number], "number"),
        ("currency", !words.currency.is_empty(), &[Number], "number"),
        ("factor", words.factor.is_some(), &[Number], "number"),
        ("units", !words.units.is_empty(), &[Number], "number"),
        ("unit_field", words.unit_field.is_some(), &[Number], "number"),
        ("true", !words.yes.is_empty(), &[Boolean], "boolean"),
        ("false", !words.no.is_empty(), &[Boolean], "boolean"),
        ("format", !words.format.is_empty(), &[Date], "date"),
        ("zone", words.zone.is_some(), &[Date], "date"),
        ("as", words.given_as.is_some(), &[Date], "date"),
        ("trim", words.trim, &[Text], "text"),
        ("case", words.case.is_some(), &[Text], "text"),
        ("nfc", words.nfc, &[Text], "text"),
    ];
    let wrong: Vec<String> = said
        .into_iter()
        .filter(|(_, is_set, of, _)| *is_set && !words.kind.is_some_and(|kind| of.contains(&kind)))
        .map(|(name, .., named)| {
            format!("{name} goes with type: {named}; write that type, or leave it out")
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; also: ")) }
}

/// What a type does not have.
fn kinds(words: &Words) -> Result<(), String> {
    if matches!(words.kind, Some(Kind::Boolean | Kind::Date)) && !words.allowed.is_empty() {
        return wrong("allowed goes with type: number or text, or with no type; leave it out");
    }
    if words.given_as == Some(GivenAs::Text) {
        for (name, bound) in [("min", words.min), ("max", words.max)] {
            if bound.is_some() {
                return wrong(format!(
                    "{name} bounds a number, and as: text gives none; leave one of them out"
                ));
            }
        }
    }
    Ok(())
}

fn numbers(words: &Words) -> Result<(), String> {
    if let (Some(min), Some(max)) = (words.min, words.max)
        && max.number() < min.number()
    {
        return wrong(format!("min is {min} and max {max}: nothing lies between; exchange them"));
    }
    if let (Some(decimal), Some(group)) = (words.decimal, words.group)
        && serde_json::to_value(decimal).ok() == serde_json::to_value(group).ok()
    {
        return wrong("decimal and group are the same sign; write another, or leave group out");
    }
    let by_text = [
        ("group", words.group.is_some()),
        ("percent", words.percent),
        ("currency", !words.currency.is_empty()),
        ("units", !words.units.is_empty() && words.unit_field.is_none()),
    ];
    for (name, is_set) in by_text {
        if is_set && words.decimal.is_none() {
            return wrong(format!(
                "{name} says how a text is read, and decimal is missing: without it no text is a number; write decimal: \
                 \".\" or \",\""
            ));
        }
    }
    if words.unit_field.is_some() && words.units.is_empty() {
        return wrong(
            "unit_field is set, and units is not; write what a number of each unit is multiplied by",
        );
    }
    let usable = |factor: f64| factor.is_finite() && factor != 0.0;
    if let Some(factor) = words.factor.filter(|factor| !usable(*factor)) {
        return wrong(format!("factor is {factor}: every number would be lost; write another"));
    }
    if let Some((unit, factor)) = words.units.iter().find(|(_, factor)| !usable(**factor)) {
        return wrong(format!(
            "units has {factor} for {unit:?}: every number would be lost; write another"
        ));
    }
    let scales = [
        ("factor", words.factor.is_some()),
        ("percent", words.percent),
        ("currency", !words.currency.is_empty()),
        ("units", !words.units.is_empty()),
    ];
    let set: Vec<&str> =
        scales.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    let together = set == ["factor", "currency"];
    if let [one, other, ..] = *set
        && !together
    {
        return wrong(format!(
            "{one} and {other} do not go together; write units, with a factor for each sign"
        ));
    }
    Ok(())
}

fn lists(words: &Words) -> Result<(), String> {
    let edges = |text: &str| {
        let edge =
            |c: char| c.is_ascii_digit() || ".,+-_'\u{2212}".contains(c) || c.is_whitespace();
        text.starts_with(edge) || text.ends_with(char::is_whitespace)
    };
    if words.currency.iter().any(String::is_empty) {
        return wrong("currency has an empty text; leave it out");
    }
    for (name, marks) in [
        ("currency", words.currency.iter().collect::<Vec<_>>()),
        ("units", words.units.keys().collect()),
    ] {
        if let Some(mark) = marks.iter().find(|mark| edges(mark)) {
            return wrong(format!(
                "{name} has {mark:?}, which begins or ends as a number or a space does; leave that out"
            ));
        }
    }
    let all = [
        ("missing", &words.missing),
        ("allowed", &words.allowed),
        ("true", &words.yes),
        ("false", &words.no),
    ];
    for (name, values) in all {
        if let Some(value) = values.iter().find(|value| !is_scalar(value)) {
            return wrong(format!(
                "{name} has {value}; texts, numbers, true and false can stand there"
            ));
        }
    }
    if let Some(both) = words.yes.iter().find(|value| words.no.contains(value)) {
        return wrong(format!("true and false both have {both}; leave it in one of them"));
    }
    words.allowed.iter().try_for_each(|value| fits(words, "allowed has", value))
}

pub(super) fn is_scalar(value: &Json) -> bool {
    matches!(value, Json::Bool(_) | Json::Number(_) | Json::String(_))
}

/// Whether a value is one that the model may be given.
fn fits(words: &Words, what: &str, value: &Json) -> Result<(), String> {
    let as_text = words.given_as == Some(GivenAs::Text);
    let wanted = match words.kind {
        Some(Kind::Number) if !value.is_number() => "a number",
        Some(Kind::Date) if !as_text && !value.is_number() => "a number",
        Some(Kind::Date) if as_text && !value.is_string() => "a date as a text",
        Some(Kind::Boolean) if !value.is_boolean() => "true or false",
        Some(Kind::Text) if !value.is_string() => "a text",
        _ => {
            let bound = |bound: Option<Bound>, none| bound.map_or(none, Bound::number);
            let (min, max) = (bound(words.min, f64::MIN), bound(words.max, f64::MAX));
            let outside = value.as_f64().is_some_and(|number| !(min..=max).contains(&number));
            if outside && (words.min.is_some() || words.max.is_some()) {
                return wrong(format!(
                    "{what} {value}, which lies outside of min and max; write one inside"
                ));
            }
            return Ok(());
        }
    };
    wrong(format!("{what} {value}, {wanted} is wanted"))
}

fn actions(words: &Words) -> Result<(), String> {
    let imputes = [
        ("on_missing", words.on_missing == OnMissing::Impute),
        ("on_invalid", words.on_invalid == OnInvalid::Impute),
    ];
    match (&words.impute, imputes.iter().find(|(_, is)| *is)) {
        (None, Some((name, _))) => {
            return wrong(format!(
                "{name} is impute, and impute is not set; write the value that stands for others"
            ));
        }
        (Some(_), None) => {
            return wrong(
                "impute is set, and neither on_missing nor on_invalid is impute; write that, or leave it out",
            );
        }
        (Some(value), Some(_)) => {
            if !is_scalar(value) {
                return wrong(format!("impute is {value}; write a text, a number, true or false"));
            }
            fits(words, "impute is", value)?;
        }
        (None, None) => (),
    }
    if words.on_invalid == OnInvalid::Clamp {
        if !matches!(words.kind, Some(Kind::Number | Kind::Date)) {
            return wrong(
                "on_invalid is clamp, which goes with type: number or date; write reject, null or impute",
            );
        }
        if words.min.is_none() && words.max.is_none() {
            return wrong("on_invalid is clamp, and neither min nor max is set; set one of them");
        }
        if !words.allowed.is_empty() {
            return wrong(
                "on_invalid is clamp, and clamp and allowed do not go together; leave one of them out",
            );
        }
    }
    Ok(())
}
