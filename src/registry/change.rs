//! What a new version changes against the one before: asked for, or refused.

use crate::config::Change;
use crate::record::Signature;

/// Compares what two versions take and give. A difference that `allowed` does not name is an error, in words.
///
/// # Errors
///
/// What is different, and how to allow it.
pub fn check(before: &Signature, after: &Signature, allowed: &[Change]) -> Result<(), String> {
    let mut differences = Vec::new();
    let mut asked = Vec::new();
    if before.fields != after.fields && !allowed.contains(&Change::Fields) {
        differences.push(fields(&before.fields, &after.fields));
        asked.push("fields");
    }
    if (before.task != after.task || before.output != after.output)
        && !allowed.contains(&Change::Output)
    {
        if before.task != after.task {
            differences.push(format!("its task is {}, not {}", after.task, before.task));
        }
        if before.output != after.output {
            differences.push(format!("it answers with {}, not {}", after.output, before.output));
        }
        asked.push("output");
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!(
        "it is of another kind than the version that answered until now: {}; if that is meant, set \
         model.allow_change: [{}]",
        differences.join("; "),
        asked.join(", ")
    ))
}

fn fields(before: &[String], after: &[String]) -> String {
    let missing = |from: &[String], of: &[String]| -> Vec<String> {
        from.iter().filter(|name| !of.contains(name)).map(|name| format!("{name:?}")).collect()
    };
    let (new, gone) = (missing(after, before), missing(before, after));
    match (new.is_empty(), gone.is_empty()) {
        (true, true) => "it reads the same fields in another order".to_owned(),
        (false, true) => format!("it reads {} too", Signature::short(&new)),
        (true, false) => format!("it does not read {}", Signature::short(&gone)),
        (false, false) => {
            format!("it reads {}, and not {}", Signature::short(&new), Signature::short(&gone))
        }
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
}
