//! The models against the libraries that people run instead, both sides in one run, interleaved, medians.
//!
//! `cargo bench --bench inference -- MODEL_DIR LINES_FILE [PYTHON]`; `growth MODEL_DIR` for the last lines alone;
//! `families PYTHON` for `ModernBERT`-base and `ViT`-B/16 with random weights against `PyTorch`
//!
//! `LINES_FILE` holds a sentence a line; `PYTHON` is one with the packages that `benches/peer.py` names, and is left out
//! with its rows where there is none. Each side is a process of its own that is told what to run, so that
//! neither's threads, allocator or instruction set touch the other's: ours is this program again.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::cast_precision_loss,
    reason = "a bench measures, prints and fails loudly"
)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};
use tidemill::answer::Prediction;
use tidemill::config::{self, Precision};
use tidemill::model::gate;
use tidemill::model::kernels::{self, Level};
use tidemill::model::options::LoadOptions;
use tidemill::model::{Input, Model, SUB_BATCH_TOKENS};
use tidemill::pipeline::size::fit;

/// A record's fields.
type Fields = serde_json::Map<String, Value>;

const SENTENCES: usize = 512;
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    match &arguments[..] {
        [side, model] if side == "side" => answer(model),
        [growing, model] if growing == "growth" => growth(&mut Side::ours(model, "")),
        [word, python] if word == "families" => families(python),
        [model, lines] => compare(model, lines, None),
        [model, lines, python] => compare(model, lines, Some(python)),
        _ => println!("skipped: cargo bench --bench inference -- MODEL_DIR LINES_FILE [PYTHON]"),
    }
}

/// A process that runs one side.
struct Side {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Side {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    fn ours(model: &str, cpu: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self::start(command.args(["side", model]).env("TIDEMILL_CPU", cpu))
    }

    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.to, "{command}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn seconds(&mut self, command: &Value) -> f64 {
        self.ask(command)["seconds"].as_f64().unwrap()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs both, in turns, and prints a row: `work` things a run.
fn row(what: &str, work: f64, mut theirs: impl FnMut() -> f64, mut ours: impl FnMut() -> f64) {
    // The first run of each loads and warms up.
    let _warm: (f64, f64) = (theirs(), ours());
    let (mut peer, mut own) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        peer.push(theirs());
        own.push(ours());
    }
    let (peer, own) = (work / median(peer), work / median(own));
    let digits = usize::from(peer < 50.0);
    println!("| {what} | {peer:.digits$} | {own:.digits$} | {:.2} |", own / peer);
}

fn compare(model: &str, lines: &str, python: Option<&str>) {
    let text = std::fs::read_to_string(lines).unwrap();
    let all: Vec<&str> = text.lines().collect();
    let lines: Vec<&str> =
        all.iter().step_by((all.len() / SENTENCES).max(1)).take(SENTENCES).copied().collect();
    let loaded = load(model, Precision::F32);
    let inputs = prepare(loaded.as_ref(), &lines);
    let ids: Vec<&[u32]> = inputs.iter().map(tokens).collect();
    let total: usize = ids.iter().map(|ids| ids.len()).sum();
    println!("{} sentences, {total} tokens; sentences a second, medians of {ROUNDS}\n", ids.len());
    let load = json!({ "do": "load", "ids": ids, "batch": 32 });
    let (mut ours, mut narrow) = (Side::ours(model, ""), Side::ours(model, "avx2"));
    ours.ask(&load);
    narrow.ask(&load);
    let work = ids.len() as f64;
    let run = |side: &str, threads: u32, sorted: bool| json!({ "do": "run", "side": side, "threads": threads, "sorted": sorted });
    println!("| work | peer | Tidemill | ratio |\n|---|---:|---:|---:|");
    if let Some(python) = python {
        let mut peer = peer(python, model);
        peer.ask(&load);
        let mut rows = vec![
            ("f32, 1 core, by length; ONNX Runtime, fused graph", "ort-f32", "f32", 1, true),
            ("f32, 2 cores, by length; ONNX Runtime", "ort-f32", "f32", 2, true),
            ("f32, 2 cores, as they come; ONNX Runtime", "ort-f32", "f32", 2, false),
            ("int8, 1 core, by length; ONNX Runtime per channel", "ort-int8", "int8", 1, true),
            ("int8, 2 cores, by length; ONNX Runtime", "ort-int8", "int8", 2, true),
            ("int8, 2 cores, as they come; ONNX Runtime", "ort-int8", "int8", 2, false),
            ("f32, 2 cores, by length; PyTorch", "torch-f32", "f32", 2, true),
            ("f32, 1 core, by length; CTranslate2", "ctranslate2-f32", "f32", 1, true),
            ("f32, 2 cores, by length; CTranslate2", "ctranslate2-f32", "f32", 2, true),
            ("f32, 1 core, by length; OpenVINO", "openvino-f32", "f32", 1, true),
            ("f32, 2 cores, by length; OpenVINO", "openvino-f32", "f32", 2, true),
            ("int8, 2 cores, by length; CTranslate2", "ctranslate2-int8", "int8", 2, true),
            ("int8, 1 core, by length; OpenVINO calibrated", "openvino-int8", "int8", 1, true),
            ("int8, 2 cores, by length; OpenVINO calibrated", "openvino-int8", "int8", 2, true),
        ];
        let halves = kernels::level() == Level::Bf16;
        if halves {
            rows.extend([
                ("bf16, 1 core, by length; ONNX Runtime f32", "ort-f32", "bf16", 1, true),
                ("bf16, 2 cores, by length; ONNX Runtime f32", "ort-f32", "bf16", 2, true),
                ("bf16, 2 cores, by length; PyTorch bf16", "torch-bf16", "bf16", 2, true),
                ("bf16, 2 cores, by length; OpenVINO bf16", "openvino-bf16", "bf16", 2, true),
            ]);
        }
        for (what, side, own, threads, sorted) in rows {
            row(
                what,
                work,
                || peer.seconds(&run(side, threads, sorted)),
                || ours.seconds(&run(own, threads, sorted)),
            );
        }
        row(
            "f32, 1 core, AVX2 only; ONNX Runtime as it is",
            work,
            || peer.seconds(&run("ort-f32", 1, true)),
            || narrow.seconds(&run("f32", 1, true)),
        );
        row(
            "int8, 1 core, AVX2 only; ONNX Runtime int8 as it is",
            work,
            || peer.seconds(&run("ort-int8", 1, true)),
            || narrow.seconds(&run("int8", 1, true)),
        );
        let table = |rows: usize| json!({ "do": "tabular", "rows": rows });
        row(
            "MLP 30-64-32, 256 rows; scikit-learn scaler and predict_proba (rows)",
            256.0,
            || peer.seconds(&table(256)),
            || ours.seconds(&table(256)),
        );
        let cosine = |side: &mut Side, name: &str| -> (f64, f64) {
            let file = std::env::temp_dir().join(format!("tidemill-{name}.f32"));
            let mut command = run(name, 2, true);
            command["out"] = json!(file);
            side.ask(&command);
            cosines(&read(&file), &exact(loaded.as_ref(), &inputs))
        };
        let (theirs, own) = (cosine(&mut peer, "ort-int8"), cosine(&mut ours, "int8"));
        let seven = cosine(&mut narrow, "int8");
        println!(
            "\ncosine to f32, mean and least: ONNX Runtime int8 {:.4} {:.4}; Tidemill int8 {:.4} {:.4}, AVX2 {:.4} {:.4}",
            theirs.0, theirs.1, own.0, own.1, seven.0, seven.1
        );
        for side in ["openvino-int8", "ctranslate2-int8"] {
            let theirs = cosine(&mut peer, side);
            println!("{side} {:.4} {:.4}", theirs.0, theirs.1);
        }
        if halves {
            let (theirs, own) = (cosine(&mut peer, "torch-bf16"), cosine(&mut ours, "bf16"));
            println!(
                "PyTorch bf16 {:.6} {:.6}; Tidemill bf16 {:.6} {:.6}",
                theirs.0, theirs.1, own.0, own.1
            );
        }
        println!(
            "peak memory of the peers' process, all models: {} MiB",
            peer.ask(&json!({ "do": "memory" }))["mib"]
        );
    }
    let mut ours2 = Side::ours(model, "");
    ours2.ask(&load);
    row(
        "f32: 2 workers on 2 cores; 1 on 1",
        work,
        || ours.seconds(&run("f32", 1, true)),
        || ours2.seconds(&run("f32", 2, true)),
    );
    for precision in ["f32", "int8"] {
        let mut fresh = Side::ours(model, "");
        fresh.ask(&load);
        let loading = fresh.ask(&json!({ "do": "open", "side": precision }));
        fresh.ask(&run(precision, 2, true));
        fresh.ask(&run(precision, 2, true));
        let memory = fresh.ask(&json!({ "do": "memory" }));
        println!(
            "{precision}: loaded in {:.3} s, the whole gate {:.3} s; resident {:.0} MiB under load, {:.0} at most",
            loading["build"].as_f64().unwrap(),
            loading["gate"].as_f64().unwrap(),
            memory["now"].as_f64().unwrap(),
            memory["mib"].as_f64().unwrap()
        );
    }
    growth(&mut ours);
}

fn peer(python: &str, model: &str) -> Side {
    let cache = std::env::temp_dir().join("tidemill-peer");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peer.py");
    Side::start(Command::new(python).arg(script).arg(model).arg(cache))
}

/// Other architectures of the usual size, on two cores.
fn families(python: &str) {
    let mut peer = peer(python, "");
    println!("| work; PyTorch | peer | Tidemill | ratio |\n|---|---:|---:|---:|");
    for (family, texts, images) in [("modernbert", 96_usize, 0), ("vit", 0, 16_usize)] {
        let dir = peer.ask(&json!({ "do": "make", "family": family }));
        let mut ours = Side::ours(dir["dir"].as_str().unwrap(), "");
        let ids: Vec<Vec<usize>> =
            (0..texts).map(|row| vec![1_000 + row; 5 + row * 37 % 90]).collect();
        ours.ask(&json!({ "do": "load", "ids": ids, "images": images, "batch": 32 }));
        let sides: &[(&str, &str)] = match kernels::level() {
            Level::Bf16 => &[("torch-f32", "f32"), ("torch-bf16", "bf16"), ("torch-bf16", "int8")],
            Level::Portable | Level::Avx2 | Level::Avx512 | Level::Vnni => {
                &[("torch-f32", "f32"), ("torch-f32", "int8")]
            }
        };
        for (side, own) in sides {
            let theirs = json!({ "do": "family", "family": family, "side": side, "threads": 2, "ids": ids, "images": images });
            let own_run = json!({ "do": "run", "side": own, "threads": 2, "sorted": true });
            row(
                &format!("{family}, {own}, 2 cores; {side}"),
                (texts + images) as f64,
                || peer.seconds(&theirs),
                || ours.seconds(&own_run),
            );
        }
    }
}

/// Time a token at each length of sequence. A token's attention grows with the length, all else is to be flat: how far
/// the times are from a line of the length says how flat.
fn growth(ours: &mut Side) {
    for precision in ["f32", "int8"] {
        print!("{precision}: µs a token at a length of");
        let mut points = Vec::new();
        for length in [8_usize, 16, 32, 64, 128, 256, 512] {
            let ids: Vec<Vec<u32>> = (0..16_384 / length).map(|_| vec![1_000; length]).collect();
            ours.ask(&json!({ "do": "load", "ids": ids, "batch": 32 }));
            let command = json!({ "do": "run", "side": precision, "threads": 1, "sorted": true });
            ours.seconds(&command);
            let seconds = (0..3).map(|_| ours.seconds(&command)).collect();
            let each = median(seconds) * 1e6 / 16_384.0;
            points.push((length as f64, each));
            print!(" {length}: {each:.1}");
        }
        let line = fit(&points).unwrap();
        let off = points
            .iter()
            .map(|(length, each)| (each / (line.fixed + line.each * length) - 1.0).abs());
        println!(
            "; {:.1} + {:.4} a token of the sequence, at most {:.0} % off",
            line.fixed,
            line.each,
            off.fold(0.0, f64::max) * 100.0
        );
    }
}

fn read(file: &Path) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn exact(model: &dyn Model, inputs: &[Input]) -> Vec<f32> {
    inputs
        .chunks(32)
        .flat_map(|inputs| model.predict(&inputs.iter().collect::<Vec<_>>()).unwrap())
        .flat_map(embedding)
        .collect()
}

fn embedding(prediction: Prediction) -> Vec<f32> {
    match prediction {
        Prediction::Embedding(values) => values,
        Prediction::Label { .. }
        | Prediction::Value(_)
        | Prediction::Spans(_)
        | Prediction::Chunks(_)
        | Prediction::Mean { .. } => Vec::new(),
    }
}

/// Mean and least cosine of unit rows.
fn cosines(a: &[f32], b: &[f32]) -> (f64, f64) {
    let width = 384;
    let dot = |(a, b): (&[f32], &[f32])| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let all: Vec<f64> = a.chunks(width).zip(b.chunks(width)).map(dot).collect();
    (all.iter().sum::<f64>() / all.len() as f64, all.iter().copied().fold(1.0, f64::min))
}

fn options(precision: Precision) -> LoadOptions {
    let model = config::Model { precision, max_length: Some(512), ..config::Model::default() };
    LoadOptions { model, ..LoadOptions::default() }
}

fn load(model: &str, precision: Precision) -> Box<dyn Model> {
    gate::build(Path::new(model), &options(precision)).unwrap()
}

fn prepare(model: &dyn Model, lines: &[&str]) -> Vec<Input> {
    let fields = |line: &&str| Fields::from_iter([("text".to_owned(), Value::from(*line))]);
    lines.iter().map(|line| model.prepare_object(&fields(line)).unwrap()).collect()
}

fn tokens(input: &Input) -> &[u32] {
    match input {
        Input::Tokens(tokens) => &tokens.ids,
        Input::Marked(_) | Input::Windows(_) | Input::Row(_) | Input::Pixels { .. } => &[],
    }
}

/// Our side: does what the lines on stdin say, as `peer.py` does.
fn answer(model: &str) {
    let mut models: HashMap<String, Box<dyn Model>> = HashMap::new();
    let mut inputs: Vec<Input> = Vec::new();
    for line in std::io::stdin().lines() {
        let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let precision = || match command["side"].as_str() {
            Some("int8") => Precision::Int8,
            Some("bf16") => Precision::Bf16,
            _ => Precision::F32,
        };
        let answer = match command["do"].as_str().unwrap() {
            "load" => {
                let ids: Vec<Box<[u32]>> = serde_json::from_value(command["ids"].clone()).unwrap();
                inputs = ids.into_iter().map(|ids| Input::Tokens(ids.into())).collect();
                // What ViT-B/16 takes of an image.
                let image =
                    || Input::Pixels { pixels: vec![99; 224 * 224 * 3].into(), tokens: 197 };
                inputs.extend((0..command["images"].as_u64().unwrap_or(0)).map(|_| image()));
                json!({ "ok": true })
            }
            "open" => {
                let begun = Instant::now();
                let built = load(model, precision());
                let build = begun.elapsed().as_secs_f64();
                drop(built);
                let begun = Instant::now();
                drop(gate::load(Path::new(model), &options(precision())).unwrap());
                let gate = begun.elapsed().as_secs_f64();
                json!({ "build": build, "gate": gate })
            }
            "run" => {
                let name = command["side"].as_str().unwrap().to_owned();
                let model = models.entry(name).or_insert_with(|| load(model, precision()));
                run(model.as_ref(), &inputs, &command)
            }
            "tabular" => tabular(command["rows"].as_u64().unwrap()),
            _ => json!({ "mib": status("VmHWM:"), "now": status("VmRSS:") }),
        };
        println!("{answer}");
    }
}

fn status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

fn run(model: &dyn Model, inputs: &[Input], command: &Value) -> Value {
    let begun = Instant::now();
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    if command["sorted"] == true {
        order.sort_by_key(|row| std::cmp::Reverse(inputs[*row].tokens()));
    }
    let budget =
        command["budget"].as_u64().map_or(SUB_BATCH_TOKENS, |n| usize::try_from(n).unwrap());
    let mut parts: Vec<Vec<usize>> = vec![Vec::new()];
    let mut filled = 0;
    for row in order {
        if budget < filled + inputs[row].tokens() && filled != 0 {
            parts.push(Vec::new());
            filled = 0;
        }
        filled += inputs[row].tokens();
        parts.last_mut().unwrap().push(row);
    }
    parts.reverse();
    let (parts, out) = (Mutex::new(parts), Mutex::new(vec![Vec::new(); inputs.len()]));
    std::thread::scope(|scope| {
        for _ in 0..command["threads"].as_u64().unwrap() {
            scope.spawn(|| {
                loop {
                    let Some(part) = parts.lock().unwrap().pop() else { break };
                    let refs: Vec<&Input> = part.iter().map(|row| &inputs[*row]).collect();
                    let predictions = model.predict(&refs).unwrap();
                    let mut out = out.lock().unwrap();
                    for (row, prediction) in part.into_iter().zip(predictions) {
                        out[row] = embedding(prediction);
                    }
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(file) = command["out"].as_str() {
        let values = out.into_inner().unwrap().concat();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(file, bytes).unwrap();
    }
    json!({ "seconds": seconds })
}

/// Seconds for one pass over so many rows of the demo's table through its network; they are imputed and scaled before,
/// as a service does it on its decode thread.
fn tabular(rows: u64) -> Value {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo");
    let model = gate::build(&dir.join("models/breast-cancer/2"), &options(Precision::F32)).unwrap();
    let text = std::fs::read_to_string(dir.join("records.jsonl")).unwrap();
    let fields = text.lines().filter_map(|line| serde_json::from_str::<Fields>(line).ok());
    let fields: Vec<Fields> = fields
        .filter(|fields| model.prepare_object(fields).is_ok())
        .cycle()
        .take(usize::try_from(rows).unwrap())
        .collect();
    let inputs: Vec<Input> = fields.iter().map(|f| model.prepare_object(f).unwrap()).collect();
    let refs: Vec<&Input> = inputs.iter().collect();
    let begun = Instant::now();
    for _ in 0..100 {
        std::hint::black_box(model.predict(&refs).unwrap());
    }
    json!({ "seconds": begun.elapsed().as_secs_f64() / 100.0 })
}
