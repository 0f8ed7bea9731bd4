//! `Pooling` of sentence-transformers: one vector of a text's token vectors.

use serde_json::{Map, Value};

use crate::model::encoder::Take;
use crate::model::files::Error;
use crate::model::folder::Folder;

/// The file in the module's folder.
const FILE: &str = "config.json";

/// How a vector is made of a text's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The first token's.
    First,
    /// The largest of each dimension.
    Max,
    /// The mean.
    Mean,
    /// The sum over the root of how many there are.
    Root,
    /// The mean, each weighted by its place from 1 on.
    Weighted,
    /// The last token's.
    Last,
}

/// Each mode's name, and its key from before sentence-transformers 5.4, in the order in which the older form joins them.
const MODES: [(Mode, &str, &str); 6] = [
    (Mode::First, "cls", "pooling_mode_cls_token"),
    (Mode::Max, "max", "pooling_mode_max_tokens"),
    (Mode::Mean, "mean", "pooling_mode_mean_tokens"),
    (Mode::Root, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (Mode::Weighted, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (Mode::Last, "lasttoken", "pooling_mode_lasttoken"),
];

/// What is made of a text's token vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pooling {
    /// Laid side by side. Not empty.
    pub(super) modes: Vec<Mode>,
    /// Tokens at the beginning that do not count: those of the prompt, where they are left out.
    pub(super) skipped: usize,
}

impl Pooling {
    /// What a folder without modules has.
    pub(super) fn mean() -> Self {
        Self { modes: vec![Mode::Mean], skipped: 0 }
    }

    /// Reads a module's folder; `prompt` is the number of tokens that stand for the prompt.
    pub(super) fn read(folder: &Folder<'_>, prompt: usize) -> Result<Self, Error> {
        let config: Map<String, Value> = folder.declared(FILE)?;
        let modes = modes(&config).map_err(|message| folder.fail(FILE, message))?;
        let included = match config.get("include_prompt") {
            None | Some(Value::Null | Value::Bool(true)) => true,
            Some(Value::Bool(false)) => false,
            Some(other) => {
                return Err(folder.fail(FILE, format!("include_prompt is {other}, not a boolean")));
            }
        };
        Ok(Self { modes, skipped: if included { 0 } else { prompt } })
    }

    /// What the encoder is asked for: where it can pool by itself, that alone.
    pub(super) fn take(&self) -> Take {
        match (&*self.modes, self.skipped) {
            ([Mode::First], 0) => Take::First,
            ([Mode::Max], 0) => Take::Max,
            ([Mode::Mean], 0) => Take::Mean,
            _ => Take::Tokens,
        }
    }

    /// Vectors in the result, for each in a text.
    pub(super) fn count(&self) -> usize {
        self.modes.len()
    }

    /// One row `[count × hidden]` for each text of `states` `[tokens, hidden]` f32.
    pub(super) fn forward(&self, states: &[f32], offsets: &[usize], hidden: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity((offsets.len() - 1) * self.count() * hidden);
        for pair in offsets.windows(2) {
            let all = &states[pair[0] * hidden..pair[1] * hidden];
            let skipped = self.skipped.min(pair[1] - pair[0]);
            for mode in &self.modes {
                mode.pool(all, skipped, hidden, &mut out);
            }
        }
        out
    }
}

impl Mode {
    /// Appends the vector of a text's `[tokens, hidden]`, of which the first `skipped` do not count. Where none does,
    /// sums are 0, and the first token stands for the first.
    fn pool(self, all: &[f32], skipped: usize, hidden: usize, out: &mut Vec<f32>) {
        let placed = |place: &mut f32, row| {
            *place += 1.0;
            Some((row, *place))
        };
        let rows = || all.chunks_exact(hidden).scan(0.0, placed).skip(skipped);
        let sum = |weight: &dyn Fn(f32) -> f32| {
            let (mut sum, mut weights) = (vec![0.0_f32; hidden], 0.0_f32);
            for (row, place) in rows() {
                let weight = weight(place);
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value * weight);
                weights += weight;
            }
            (sum, weights.max(1e-9))
        };
        let over = |(sum, by): (Vec<f32>, f32)| sum.into_iter().map(move |value| value / by);
        match self {
            Self::First => {
                let first = rows().next().map(|(row, _)| row);
                out.extend_from_slice(first.unwrap_or(&all[..hidden]));
            }
            Self::Last => match rows().last() {
                Some((row, _)) => out.extend_from_slice(row),
                None => out.resize(out.len() + hidden, 0.0),
            },
            Self::Max => {
                let mut most = vec![f32::NEG_INFINITY; hidden];
                for (row, _) in rows() {
                    most.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(*value));
                }
                out.append(&mut most);
            }
            Self::Mean => out.extend(over(sum(&|_| 1.0))),
            Self::Weighted => out.extend(over(sum(&|place| place))),
            Self::Root => {
                let (sum, count) = sum(&|_| 1.0);
                out.extend(over((sum, count.sqrt())));
            }
        }
    }
}

/// The modes of a module, in either form.
fn modes(config: &Map<String, Value>) -> Result<Vec<Mode>, String> {
    let named = |value: &Value| {
        let mode = MODES.iter().find(|(_, name, _)| value == name).map(|(mode, ..)| *mode);
        let known = MODES.map(|(_, name, _)| name).join(", ");
        mode.ok_or_else(|| format!("pooling_mode {value} is none of {known}"))
    };
    let others =
        ["pooling_mode", "embedding_dimension", "word_embedding_dimension", "include_prompt"];
    let known = |key: &str| others.contains(&key) || MODES.iter().any(|(.., known)| *known == key);
    if let Some(key) = config.keys().find(|key| !known(key)) {
        let modes = MODES.map(|(.., key)| key).join(", ");
        let others = others.join(", ");
        return Err(format!("{key} is not supported; supported are {others}, {modes}"));
    }
    match config.get("pooling_mode") {
        Some(Value::Array(modes)) if !modes.is_empty() => return modes.iter().map(named).collect(),
        Some(Value::Null) | None => (),
        Some(mode) => return Ok(vec![named(mode)?]),
    }
    let set = |key: &str| match config.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(other) => Err(format!("{key} is {other}, not a boolean")),
    };
    let mut modes = Vec::new();
    for (mode, _, key) in MODES {
        if set(key)? {
            modes.push(mode);
        }
    }
    Ok(if modes.is_empty() { vec![Mode::Mean] } else { modes })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::unwrap_in_result, reason = "a test's own JSON")]
    fn read(config: Value) -> Result<Vec<Mode>, String> {
        modes(&serde_json::from_value(config).unwrap())
    }

    #[test]
    fn both_forms_name_the_same_modes() {
        for (config, expect) in [
            (json!({}), vec![Mode::Mean]),
            (json!({"pooling_mode": "cls"}), vec![Mode::First]),
            (json!({"pooling_mode": ["max", "lasttoken"]}), vec![Mode::Max, Mode::Last]),
            (json!({"pooling_mode": null, "pooling_mode_max_tokens": true}), vec![Mode::Max]),
            (json!({"pooling_mode": "mean", "pooling_mode_max_tokens": true}), vec![Mode::Mean]),
            (
                json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}),
                vec![Mode::First, Mode::Mean],
            ),
            (json!({"pooling_mode_mean_tokens": false}), vec![Mode::Mean]),
        ] {
            assert_eq!(read(config.clone()), Ok(expect), "{config}");
        }
        for (config, part) in [
            (json!({"pooling_mode": "attention"}), "\"attention\" is none of cls, max"),
            (json!({"pooling_mode": []}), "[] is none of"),
            (json!({"pooling_mode_attention": true}), "pooling_mode_attention is not supported"),
            (json!({"pooling_mode_cls_token": 1}), "is 1, not a boolean"),
        ] {
            let said = read(config).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn modes_lie_side_by_side_and_a_prompt_can_be_left_out() {
        let states = [4.0, 1.0, 2.0, 3.0, 9.0, 5.0, 7.0, 7.0]; // texts of 3 and 1 tokens of width 2
        let run = |modes: &[Mode], skipped| {
            let pooling = Pooling { modes: modes.to_vec(), skipped };
            pooling.forward(&states, &[0, 3, 4], 2)
        };
        assert_eq!(run(&[Mode::Mean], 0), [5.0, 3.0, 7.0, 7.0]);
        assert_eq!(run(&[Mode::First, Mode::Max], 0), [4.0, 1.0, 9.0, 5.0, 7.0, 7.0, 7.0, 7.0]);
        assert_eq!(run(&[Mode::Last], 0), [9.0, 5.0, 7.0, 7.0]);
        let root = 3.0_f32.sqrt();
        assert_eq!(run(&[Mode::Root], 0), [15.0 / root, 9.0 / root, 7.0, 7.0]);
        let weighted = [(4.0 + 4.0 + 27.0) / 6.0, (1.0 + 6.0 + 15.0) / 6.0, 7.0, 7.0];
        assert_eq!(run(&[Mode::Weighted], 0), weighted);
        assert_eq!(run(&[Mode::Mean, Mode::First], 1), [5.5, 4.0, 2.0, 3.0, 0.0, 0.0, 7.0, 7.0]);
        assert_eq!(run(&[Mode::Last], 1), [9.0, 5.0, 0.0, 0.0]);
        let places = [(2.0 * 2.0 + 3.0 * 9.0) / 5.0, (2.0 * 3.0 + 3.0 * 5.0) / 5.0, 0.0, 0.0];
        assert_eq!(run(&[Mode::Weighted], 1), places, "each keeps its place");
    }
}
