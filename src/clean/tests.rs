//! Rules by tables, and what holds of all of them.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::record::FaultClass;

fn clean(words: &str) -> Clean {
    let words = crate::config::yaml::value(words).unwrap();
    serde_json::from_value(words.clone()).unwrap_or_else(|error| panic!("{words}: {error}"))
}

/// A value of a record, as JSON has it; `-` where the field is absent.
fn value(json: &str) -> Option<Json> {
    (json != "-").then(|| serde_json::from_str(json).unwrap_or_else(|_| panic!("{json}")))
}

/// What becomes of a value, in words.
fn cleaned(words: &str, json: &str, unit: Option<&str>) -> String {
    let (clean, unit) = (clean(words), unit.map(Value::from_text));
    let json = value(json);
    let (result, ground) = clean.clean("f", json.as_ref().map(Value::from), unit.as_ref());
    let ground = match ground {
        None => "",
        Some(Ground::Missing) => " missing",
        Some(Ground::Invalid) => " invalid",
        Some(Ground::Unclamped) => " unclamped",
    };
    match result {
        Ok(None) => format!("-{ground}"),
        Ok(Some(Value::Null)) => format!("null{ground}"),
        Ok(Some(Value::Bool(truth))) => format!("{truth}{ground}"),
        Ok(Some(Value::Text(text))) => format!("{text:?}{ground}"),
        Ok(Some(Value::Int(whole))) => format!("{whole}{ground}"),
        Ok(Some(Value::Float(number))) => format!("{number:?}{ground}"),
        Ok(Some(other)) => format!("{}{ground}", other.kind()),
        Err(Fault { class, message }) => {
            assert!(
                message.starts_with("field \"f\" ") && message.contains("(clean, on_"),
                "{message}"
            );
            let class = if class == FaultClass::Missing { "MISSING" } else { "INVALID" };
            format!("{class}{ground}")
        }
    }
}

impl<'a> Value<'a> {
    fn from_text(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

#[test]
fn what_is_missing() {
    let listed = "missing: ['', NA, n/a, -999, NaN]";
    for (words, json, expect) in [
        ("{}", "-", "- missing"),
        ("{}", "null", "null missing"),
        ("{}", "\"\"", "\"\""),
        ("{}", "\"NA\"", "\"NA\""),
        ("{on_missing: reject}", "-", "MISSING missing"),
        ("{on_missing: reject}", "null", "MISSING missing"),
        ("{on_missing: reject}", "0", "0"),
        ("{on_missing: impute, impute: a}", "null", "\"a\" missing"),
        ("{on_missing: impute, impute: ''}", "-", "\"\" missing"),
        ("{on_missing: impute, impute: 0.5}", "-", "0.5 missing"),
        ("{on_missing: impute, impute: true}", "-", "true missing"),
        ("{LISTED}", "\"NA\"", "null missing"),
        ("{LISTED}", "\" NA \"", "null missing"),
        ("{LISTED}", "\"na\"", "\"na\""),
        ("{LISTED}", "\"  \"", "null missing"),
        ("{LISTED}", "-999", "null missing"),
        ("{LISTED}", "-999.0", "null missing"),
        ("{LISTED}", "\"-999\"", "null missing"),
        ("{LISTED}", "\"-999.0\"", "\"-999.0\""),
        ("{LISTED}", "999", "999"),
        ("{LISTED}", "[1]", "an array"),
        ("{LISTED, on_missing: impute, impute: 1}", "\"n/a\"", "1 missing"),
        ("{LISTED, on_missing: reject}", "\"n/a\"", "MISSING missing"),
        ("{LISTED, type: number, decimal: '.', on_missing: reject}", "\"-999\"", "MISSING missing"),
    ] {
        let words = words.replace("LISTED", listed);
        assert_eq!(cleaned(&words, json, None), expect, "{json} by {words}");
    }
    let nan = clean(&format!("{{{listed}}}"));
    let (result, _) = nan.clean("f", Some(Value::Float(f64::NAN)), None);
    assert_eq!(result.unwrap(), Some(Value::Null));
}

#[test]
fn what_is_a_number() {
    for (words, json, expect) in [
        ("{type: number}", "1.5", "1.5"),
        ("{type: number}", "7", "7"),
        ("{type: number}", "true", "1"),
        ("{type: number}", "\"7\"", "INVALID invalid"),
        ("{type: number}", "[7]", "INVALID invalid"),
        ("{type: number, decimal: '.'}", "\"7\"", "7"),
        ("{type: number, decimal: ',', group: '.'}", "\"1.234,5\"", "1234.5"),
        ("{type: number, decimal: '.'}", "\"seven\"", "INVALID invalid"),
        ("{type: number, decimal: '.', on_invalid: null}", "\"seven\"", "null invalid"),
        ("{type: number, decimal: '.', on_invalid: impute, impute: -1}", "\"1e400\"", "-1 invalid"),
        (
            "{type: number, decimal: '.', on_invalid: clamp, min: 0}",
            "\"seven\"",
            "INVALID unclamped",
        ),
        ("{type: number, min: 0, max: 1}", "2", "INVALID invalid"),
        ("{type: number, min: 0, max: 1, on_invalid: clamp}", "2", "1.0 invalid"),
        ("{type: number, min: 0, max: 1, on_invalid: clamp}", "-2", "0.0 invalid"),
        ("{type: number, min: 0, on_invalid: clamp}", "2", "2"),
        ("{type: number, min: 0, max: 1, on_invalid: null}", "-2", "null invalid"),
        ("{type: number, min: 0, max: 1, on_invalid: impute, impute: 0.5}", "-2", "0.5 invalid"),
        ("{type: number, min: 0, max: 1}", "0", "0"),
        ("{type: number, min: 0, max: 1}", "1", "1"),
        ("{type: number, allowed: [1, 2]}", "2.0", "2.0"),
        ("{type: number, allowed: [1, 2]}", "3", "INVALID invalid"),
        ("{type: number, decimal: '.', percent: true}", "\"12.5 %\"", "0.125"),
        ("{type: number, decimal: '.', percent: true}", "\"7%\"", "0.07"),
        ("{type: number, decimal: '.', percent: true}", "\"0.07\"", "0.07"),
        ("{type: number, decimal: '.', percent: true}", "0.07", "0.07"),
        ("{type: number, decimal: '.'}", "\"7%\"", "INVALID invalid"),
        ("{type: number, decimal: '.', currency: ['$', USD]}", "\"$12\"", "12"),
        ("{type: number, decimal: '.', currency: ['$', USD]}", "\"12.50 USD\"", "12.5"),
        ("{type: number, decimal: '.', currency: ['$', USD]}", "\"€12\"", "INVALID invalid"),
        ("{type: number, factor: 0.5}", "3", "1.5"),
        ("{type: number, factor: 0.5, decimal: '.', currency: ['$']}", "\"$3\"", "1.5"),
        ("{type: number, factor: 0.5, max: 1}", "3", "INVALID invalid"),
        ("{type: number, factor: 1e300}", "1e300", "INVALID invalid"),
        ("{type: number, factor: 1e300, max: 5, on_invalid: clamp}", "1e300", "5.0 invalid"),
    ] {
        assert_eq!(cleaned(words, json, None), expect, "{json} by {words}");
    }
}

#[test]
fn what_a_unit_makes_of_a_number() {
    let text = "{type: number, decimal: '.', units: {kg: 1, lb: 0.5, g: 0.001}}";
    let bare = "{type: number, decimal: '.', units: {kg: 1, lb: 0.5, '': 2}}";
    let field = "{type: number, units: {kg: 1, lb: 0.5}, unit_field: u}";
    let both = "{type: number, decimal: '.', units: {EUR: 1, USD: 0.5}, unit_field: u}";
    for (words, json, unit, expect) in [
        (text, "\"12 lb\"", None, "6.0"),
        (text, "\"12kg\"", None, "12"),
        (text, "\"500 g\"", None, "0.5"),
        (text, "\"12 oz\"", None, "INVALID invalid"),
        (text, "\"12\"", None, "INVALID invalid"),
        (text, "12", None, "INVALID invalid"),
        (bare, "12", None, "24.0"),
        (bare, "\"12\"", None, "24.0"),
        (bare, "\"12 lb\"", None, "6.0"),
        (field, "12", Some("lb"), "6.0"),
        (field, "12", Some(" kg "), "12"),
        (field, "12", Some("stone"), "INVALID invalid"),
        (field, "12", None, "INVALID invalid"),
        (field, "\"12\"", Some("kg"), "INVALID invalid"),
        (both, "\"12\"", Some("USD"), "6.0"),
        (both, "\"12 EUR\"", Some("USD"), "INVALID invalid"),
        (both, "\"12 EUR\"", Some("EUR"), "12"),
        (both, "null", Some("USD"), "null missing"),
    ] {
        assert_eq!(cleaned(words, json, unit), expect, "{json} {unit:?} by {words}");
    }
}

/// What becomes of a value that no JSON has.
fn of_value(words: &str, value: Value<'static>) -> Result<Option<Value<'static>>, FaultClass> {
    let clean = clean(words);
    let (result, _) = clean.clean("f", Some(value), None);
    result.map(|value| value.map(Value::into_owned)).map_err(|fault| fault.class)
}

/// A rule's number is written in decimal digits, and a format of 32 bits has the nearest of its own numbers for it.
#[test]
fn a_number_of_32_bits_is_the_one_that_is_stated() {
    let single = |number: f32| Value::Float(number.into());
    let next = f32::from_bits(0.1_f32.to_bits() + 1);
    for (words, value, is_taken) in [
        ("{type: number, max: 0.1}", single(0.1), true),
        ("{type: number, max: 0.1}", single(next), false),
        ("{type: number, max: 0.1}", Value::Float(0.1), true),
        ("{type: number, max: 0.1}", Value::Float(0.100_000_001), false),
        ("{type: number, min: 0.7}", single(0.7), true),
        ("{type: number, min: 0.7}", single(0.699_999_9), false),
        ("{type: number, allowed: [0.1]}", single(0.1), true),
        ("{type: number, allowed: [0.1]}", single(next), false),
        ("{allowed: [0.1]}", single(0.1), true),
        ("{missing: [-999.9], on_missing: reject}", single(-999.9), false),
        ("{missing: [-999.9], on_missing: reject}", single(-999.8), true),
        ("{type: number, missing: ['-999.9'], on_missing: reject}", single(-999.9), false),
        // Nothing near is no number.
        ("{missing: [1e-60], on_missing: reject}", Value::Float(0.0), true),
        ("{missing: [1e300], on_missing: reject}", single(f32::INFINITY), true),
    ] {
        let said = of_value(words, value.clone());
        assert_eq!(said.is_ok(), is_taken, "{words} {value:?}");
    }
}

#[test]
fn whole_numbers_are_compared_digit_by_digit() {
    let large = 9_007_199_254_740_992_i128;
    for (words, at_most) in [
        ("{type: number, max: 9007199254740992}", 0),
        ("{type: number, max: 9007199254740993}", 1),
        ("{type: number, max: 9007199254740992.0}", 0),
    ] {
        for more in 0..3 {
            let said = of_value(words, Value::Int(large + more));
            assert_eq!(said.is_ok(), more <= at_most, "{words} {more}");
            let digits = Value::Decimal((large + more).to_string().into());
            assert_eq!(of_value(words, digits).is_ok(), more <= at_most, "{words} {more}");
        }
    }
    for words in [
        "{missing: [9007199254740993], on_missing: reject}",
        "{type: number, missing: ['9007199254740993'], on_missing: reject}",
        "{type: number, decimal: '.', missing: [9007199254740993], on_missing: reject}",
    ] {
        for more in 0..3 {
            let said = of_value(words, Value::Int(large + more));
            assert_eq!(said.is_ok(), more != 1, "{words} {more}");
        }
    }
    let clamp = "{type: number, min: 9007199254740993, max: 9007199254740995, on_invalid: clamp}";
    let expect = Ok(Some(Value::Float(9_007_199_254_740_992.0)));
    assert_eq!(of_value(clamp, Value::Int(large)), expect);
}

/// A unit in a text and another in a field say two things.
#[test]
fn two_units_that_differ_are_invalid() {
    let both =
        "{type: number, decimal: '.', units: {kg: 1, kilo: 1, g: 0.001, '': 1}, unit_field: u}";
    for (unit, expect) in [
        (Some("g"), "INVALID invalid"),
        (Some("lb"), "INVALID invalid"),
        (Some("kg"), "5"),
        (Some(" kilo "), "5"),
        (Some(""), "5"),
        (None, "5"),
    ] {
        assert_eq!(cleaned(both, "\"5 kg\"", unit), expect, "{unit:?}");
    }
}

#[test]
fn what_is_true_a_date_or_a_text() {
    let yes = "{type: boolean, 'true': [yes, y, 1], 'false': [no, 'n']}";
    let days = "{type: date, format: '%d.%m.%Y', as: days, min: 0}";
    let as_text = "{type: date, format: '%d.%m.%Y', as: text}";
    let text = "{type: text, trim: true, case: lower, nfc: true, allowed: [straße, é]}";
    for (words, json, expect) in [
        (yes, "true", "true"),
        (yes, "false", "false"),
        (yes, "\"yes\"", "true"),
        (yes, "\" y \"", "true"),
        (yes, "1", "true"),
        (yes, "\"1\"", "true"),
        (yes, "\"n\"", "false"),
        (yes, "0", "INVALID invalid"),
        (yes, "\"Yes\"", "INVALID invalid"),
        (yes, "[]", "INVALID invalid"),
        ("{type: boolean}", "\"true\"", "INVALID invalid"),
        (days, "\"02.01.1970\"", "1"),
        (days, "\" 02.01.1970 \"", "1"),
        (days, "\"31.12.1969\"", "INVALID invalid"),
        (days, "\"1970-01-02\"", "INVALID invalid"),
        (days, "5", "5"),
        (days, "true", "INVALID invalid"),
        (as_text, "\" 02.01.1970\"", "\"02.01.1970\""),
        (as_text, "\"30.02.1970\"", "INVALID invalid"),
        (as_text, "5", "INVALID invalid"),
        (text, "\" STRASSE\"", "INVALID invalid"),
        (text, "\" Straße \"", "\"straße\""),
        (text, "\"E\u{301}\"", "\"é\""),
        (text, "7", "INVALID invalid"),
        ("{type: text, case: upper}", "\"straße\"", "\"STRASSE\""),
        ("{type: text}", "\" a \"", "\" a \""),
        ("{type: text, on_missing: impute, impute: ''}", "null", "\"\" missing"),
        ("{allowed: [a, 1]}", "\"a\"", "\"a\""),
        ("{allowed: [a, 1]}", "1.0", "1.0"),
        ("{allowed: [a, 1]}", "\"1\"", "INVALID invalid"),
        ("{allowed: [a], on_invalid: null}", "{}", "null invalid"),
    ] {
        assert_eq!(cleaned(words, json, None), expect, "{json} by {words}");
    }
}

#[test]
fn a_text_that_needs_nothing_is_not_copied() {
    let words = clean("{type: text, trim: true, case: lower, nfc: true, missing: [NA]}");
    let text = "é, nothing to do here".to_owned();
    let text = Value::Text(text.as_str().into());
    let (result, _) = words.clean("f", Some(text), None);
    let Ok(Some(Value::Text(kept))) = result else { panic!("{result:?}") };
    assert!(kept == "é, nothing to do here");
    let ascii = Value::Text(" plain ".into());
    let (result, _) = words.clean("f", Some(ascii), None);
    assert!(matches!(result, Ok(Some(Value::Text(std::borrow::Cow::Borrowed("plain"))))));
}

#[test]
fn no_message_has_the_value() {
    for (words, json) in [
        ("{type: number, decimal: '.', group: ','}", "\"hunter2\""),
        ("{type: number}", "\"hunter2\""),
        ("{type: boolean}", "\"hunter2\""),
        ("{type: date, format: '%Y hunter %m %d'}", "\"hunter2\""),
        ("{type: text, allowed: [a]}", "\"hunter2\""),
        ("{type: number, max: 1}", "777"),
        ("{missing: [hunter2], on_missing: reject}", "\"hunter2\""),
    ] {
        let (clean, json) = (clean(words), value(json));
        let (result, _) = clean.clean("f", json.as_ref().map(Value::from), None);
        let said = result.unwrap_err().message;
        assert!(!said.contains("hunter") && !said.contains("777"), "{said}");
    }
}

/// A unit is what it was when the record came, whichever field is cleaned first; the configuration's words hold whole.
#[test]
fn fields_are_cleaned_by_what_is_said_of_them() {
    let cleans = |words: &[(&str, &str)]| -> Cleans {
        words.iter().map(|(name, words)| ((*name).to_owned(), clean(words))).collect()
    };
    let own = cleans(&[
        ("unit", "{type: text, case: upper}"),
        ("weight", "{on_missing: impute, impute: 3}"),
        ("city", "{type: text, case: upper}"),
    ]);
    let stated = cleans(&[
        ("weight", "{type: number, units: {kg: 1, lb: 0.5}, unit_field: unit}"),
        ("price", "{type: number, units: {EUR: 1}, unit_field: currency}"),
        ("nothing", "{on_missing: reject}"),
    ]);
    let names = ["unit", "weight", "price", "city"].map(str::to_owned);
    let cleaning = Cleaning::new(&names, &own, &stated);
    assert_eq!(cleaning.units(), ["currency"]);
    let text = |text: &'static str| Some(Value::Text(text.into()));
    let number = |number: i128| Some(Value::Int(number));
    let mut values = [text("lb"), number(3), number(5), text("bonn"), text("EUR")];
    cleaning.clean(&mut values).unwrap();
    let half = Some(Value::Float(1.5));
    assert_eq!(values, [text("LB"), half, number(5), text("BONN"), text("EUR")]);
    let mut values = [text("lb"), None, number(5), None, text("GBP")];
    let fault = cleaning.clean(&mut values).unwrap_err();
    assert!(fault.message.contains("\"price\" has no unit, or one"), "{fault}");
    assert!(Cleaning::new(&names, &Cleans::new(), &Cleans::new()).is_empty());
}

/// Only a time that a change of the clock makes uncertain is said to be one.
#[test]
fn why_a_text_is_no_date_is_said() {
    let clean = clean("{type: date, format: '%Y-%m-%d %H:%M', zone: Europe/Berlin}");
    for (text, expect) in [
        (
            "2024-03-31 02:30",
            "a time that a change of the clock in its zone leaves out or has twice",
        ),
        ("2024-02-30 02:30", "is a string that is no date by its format (clean"),
    ] {
        let fault = clean.clean("f", Some(Value::from_text(text)), None).0.unwrap_err();
        assert!(fault.message.contains(expect), "{fault}");
    }
}

#[test]
fn what_is_wrong_with_a_number_is_said_in_full() {
    let words = clean("{type: number, decimal: '.', units: {kg: 1, lb: 0.5}}");
    for (text, expect) in [
        ("3 stone", "has no unit, or one that units does not have (kg, lb)"),
        ("3", "has no unit, or one that units does not have (kg, lb)"),
        ("three kg", "not a number in the form that clean states (decimal, units)"),
        ("", "not a number in the form"),
    ] {
        let fault = words.clean("f", Some(Value::Text(text.into())), None).0.unwrap_err();
        assert!(fault.message.contains(expect), "{text:?}: {fault}");
    }
}

#[test]
fn all_that_is_wrong_with_a_field_is_said_at_once() {
    let words = serde_json::json!({
        "type": "date", "format": "%d.%m.%Y", "zone": "Europe/Atlantis", "on_invalid": "clamp", "trim": true,
    });
    let why = serde_json::from_value::<Clean>(words).unwrap_err().to_string();
    for part in ["trim goes with", "neither min nor max", "Europe/Atlantis"] {
        assert!(why.contains(part), "{part} in {why}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    let words = |names: &[&str]| -> Cleans {
        names.iter().map(|name| ((*name).to_owned(), clean("{}"))).collect()
    };
    let names = ["a", "b"].map(str::to_owned);
    let said = doubts(&names, &words(&["b"]), &words(&["a", "b", "c", "d"]), |name| name == "d");
    let [replaced, unknown] = said.try_into().unwrap();
    assert!(replaced.contains("field \"b\" holds in place"), "{replaced}");
    assert!(
        unknown.contains("field \"c\", which neither") && unknown.ends_with("looks at a, b"),
        "{unknown}"
    );
}

fn any_value() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        (-20_i64..20).prop_map(Json::from),
        "[-−]?[0-9]{1,3}([.,][0-9]{3}){0,2}([.,][0-9]{1,2})? ?[%€]?".prop_map(Json::from),
        "[0-3][0-9].[01][0-9].(19|20)[0-9]{2}".prop_map(Json::from),
        "[ A-Za-zßΣσςÉéİŉǅ\u{301}\u{345}]{0,6}".prop_map(Json::from),
    ]
}

const RULES: [&str; 12] = [
    "{missing: ['', NA, -9]}",
    "{missing: [''], on_missing: impute, impute: x}",
    "{type: number, decimal: '.', group: ',', percent: true, on_invalid: null}",
    "{type: number, decimal: ',', group: '.', currency: ['€'], min: -5, max: 5.5, on_invalid: clamp}",
    "{type: number, decimal: '.', min: -5, max: 5, on_invalid: impute, impute: 5}",
    "{type: number, allowed: [1, 2, 3], on_invalid: impute, impute: 2}",
    "{type: boolean, 'true': [a, 1], 'false': [b, 0], on_invalid: null}",
    "{type: date, format: '%d.%m.%Y', as: days, min: 0, on_invalid: clamp}",
    "{type: date, format: ['%d.%m.%Y', '%d,%m,%Y'], as: text, on_invalid: null}",
    "{type: text, trim: true, case: lower, nfc: true}",
    "{type: text, trim: true, case: upper, nfc: true, on_invalid: null}",
    "{type: text, nfc: true, missing: [NA], on_missing: impute, impute: none}",
];

proptest! {
    #[test]
    fn what_is_clean_stays_as_it_is(json in any_value(), rule in 0..RULES.len()) {
        let clean = clean(RULES[rule]);
        let (once, _) = clean.clean("f", Some(Value::from(&json)), None);
        if let Ok(once) = once {
            let (twice, _) = clean.clean("f", once.clone(), None);
            prop_assert_eq!(twice, Ok(once), "{} by {}", json, RULES[rule]);
        }
    }

    #[test]
    fn what_is_clamped_lies_inside(
        json in any_value(), a in -1e6..1e6_f64, b in -1e6..1e6_f64, factor in 0.001..1000.0_f64,
    ) {
        let (min, max) = (a.min(b), a.max(b));
        let words = format!(
            "{{type: number, decimal: '.', factor: {factor}, min: {min}, max: {max}, on_invalid: clamp}}"
        );
        let clean = clean(&words);
        if let (Ok(Some(value)), _) = clean.clean("f", Some(Value::from(&json)), None) {
            let number = value.number();
            prop_assert!(value == Value::Null || number.is_some_and(|n| (min..=max).contains(&n)), "{:?}", value);
        }
    }
}
