//! What a new version changes against the one before: asked for, or refused.

use crate::config::Change;
use crate::printable::some;
use crate::record::Signature;

/// Compares what two versions take and give. A difference that `allowed` does not name is an error, in words.
///
/// # Errors
///
/// What is different, and how to allow it.
pub fn check(before: &Signature, after: &Signature, allowed: &[Change]) -> Result<(), String> {
    let mut differences = Vec::new();
    let mut asked = Vec::new();
    let output = (before.task != after.task || before.output != after.output)
        && !allowed.contains(&Change::Output);
    if output {
        if before.task != after.task {
            differences.push(format!("its task is {}, not {}", after.task, before.task));
        }
        if before.output != after.output {
            let [new, old] = [&after.output, &before.output].map(|output| cut(output));
            differences.push(format!("it answers with {new}, not {old}"));
        }
        asked.push("output");
    }
    let reads = before.fields != after.fields && !allowed.contains(&Change::Fields);
    if reads {
        asked.push("fields");
    }
    if asked.is_empty() {
        return Ok(());
    }
    // What is long stands last: a page shows the beginning.
    let mut told = differences.join("; ");
    if !told.is_empty() {
        told = format!(" ({told})");
    }
    let more = if reads { fields(&before.fields, &after.fields) } else { String::new() };
    let more = if more.is_empty() { more } else { format!("; {more}") };
    Err(format!(
        "it is of another kind than the version that answered until now{told}: where that is meant, set \
         model.allow_change: [{}]{more}",
        asked.join(", ")
    ))
}

/// So many fields of a list are named.
const SHOWN: usize = 8;

/// Most characters of an output that a sentence has.
const LONGEST: usize = 120;

/// The beginning of what is long.
fn cut(text: &str) -> String {
    let plain = Signature::plain(text);
    match plain.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", plain.get(..end).unwrap_or_default()),
        None => plain,
    }
}

fn fields(before: &[String], after: &[String]) -> String {
    let missing = |from: &[String], of: &[String]| -> Vec<String> {
        let missing = from.iter().filter(|name| !of.contains(name));
        missing.map(|name| format!("{:?}", cut(name))).collect()
    };
    let (new, gone) = (missing(after, before), missing(before, after));
    let list = |names: &[String]| some(names, SHOWN);
    match (new.is_empty(), gone.is_empty()) {
        (true, true) => "it reads the same fields in another order".to_owned(),
        (false, true) => format!("it reads {} too", list(&new)),
        (true, false) => format!("it does not read {}", list(&gone)),
        (false, false) => format!("it reads {}, and not {}", list(&new), list(&gone)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(task: &str, fields: &[&str], output: &str) -> Signature {
        Signature {
            task: task.to_owned(),
            fields: fields.iter().map(|&name| name.to_owned()).collect(),
            output: output.to_owned(),
        }
    }

    #[test]
    fn each_difference_is_told_and_can_be_allowed() {
        let text = || signature("text-embedding", &["text"], "embedding of 384 numbers");
        let wide = signature("text-embedding", &["text"], "embedding of 768 numbers");
        let table = |fields: &[&str]| signature("tabular-regression", fields, "a value");
        for (before, after, allowed, said) in [
            (text(), text(), &[][..], None),
            (text(), wide.clone(), &[], Some("768 numbers, not embedding of 384")),
            (text(), wide.clone(), &[Change::Fields], Some("model.allow_change: [output]")),
            (text(), wide, &[Change::Output], None),
            (
                text(),
                table(&["x"]),
                &[],
                Some("its task is tabular-regression, not text-embedding"),
            ),
            (text(), table(&["x"]), &[], Some("reads \"x\", and not \"text\"")),
            (text(), table(&["x"]), &[Change::Fields, Change::Output], None),
            (table(&["x"]), table(&["x", "y"]), &[], Some("it reads \"y\" too")),
            (table(&["x", "y"]), table(&["x"]), &[], Some("does not read \"y\"")),
            (table(&["x", "y"]), table(&["y", "x"]), &[], Some("in another order")),
            (table(&["x"]), table(&["x", "y"]), &[Change::Fields], None),
        ] {
            let result = check(&before, &after, allowed);
            match said {
                None => assert_eq!(result, Ok(())),
                Some(said) => {
                    assert!(result.as_ref().is_err_and(|why| why.contains(said)), "{result:?}");
                }
            }
        }
    }

    #[test]
    fn what_differs_and_what_to_do_stand_before_long_lists() {
        let names = |of: &str| (0..500).map(|n| format!("{of}_{n}")).collect::<Vec<_>>();
        let signature = |of: &str, task: &str| Signature {
            task: task.to_owned(),
            fields: names(of),
            output: format!("500 labels: {}", Signature::short(&names(of))),
        };
        let (before, after) =
            (signature("a", "tabular-classification"), signature("b", "text-classification"));
        let why = check(&before, &after, &[]).unwrap_err();
        assert!(!why.contains("FNV"), "{why}");
        let beginning: String = why.chars().take(500).collect();
        for part in [
            "text-classification, not tab",
            "500 labels: b_0",
            "model.allow_change: [output, fields]",
        ] {
            assert!(beginning.contains(part), "{part} in {beginning}");
        }
        let names = "it reads \"b_0\", \"b_1\", \"b_2\", \"b_3\", \"b_4\", \"b_5\", \"b_6\", \"b_7\" and 492 more";
        assert!(why.contains(names) && why.ends_with("\"a_7\" and 492 more"), "{why}");
    }
}
