//! `tidemill status`: how a service is that runs, from its `/api/status`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::terminal;
use crate::failure::{Exit, Failure, chain};
use crate::printable::thousands;
use crate::tls;

/// Arguments of `tidemill status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the service listens (http.listen)
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "TIDEMILL_URL", value_name = "URL")]
    url: String,
    /// The answer as it is, for programs
    #[arg(long)]
    json: bool,
}

/// How long the service may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Most bytes of an answer.
const LARGEST: u64 = 4 << 20;

/// Asks once, and shows what it says. 0 where the service is ready, 75 where it is not or does not answer.
pub fn run(args: &Args) -> ExitCode {
    terminal::end(show(args))
}

fn show(args: &Args) -> Result<(), Failure> {
    let url = format!("{}/api/status", args.url.trim_end_matches('/'));
    let away = |why: String| Failure {
        message: format!("ask {url}: {why}; --url names where the service listens (http.listen)"),
        exit: Exit::Temporary,
    };
    let text = ask(&url).map_err(|error| away(chain(&error)))?;
    let status: Value =
        serde_json::from_str(&text).map_err(|error| away(format!("it is no status: {error}")))?;
    if status.get("sentence").is_none() {
        return Err(away("it is no status: another program listens there".to_owned()));
    }
    if args.json {
        terminal::line(text)?;
    } else {
        terminal::say(page(&status))?;
    }
    let ready = status.pointer("/health/ready") == Some(&Value::Bool(true));
    let message = "the service is not ready".to_owned();
    if ready { Ok(()) } else { Err(Failure { message, exit: Exit::Temporary }) }
}

fn ask(url: &str) -> Result<String, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER))
        .user_agent(tls::USER_AGENT)
        .tls_config(tls::settings(None, None))
        .build();
    let mut answer = ureq::Agent::from(config).get(url).call()?;
    answer.body_mut().with_config().limit(LARGEST).read_to_string()
}

/// What a person wants to see of it, in the order of the page.
fn page(status: &Value) -> String {
    let rows = numbers(status).into_iter().chain(events(status));
    let rows = rows.map(|(name, text)| format!("  {name:<14} {text}\n"));
    let reasons = list(status, "/health/reasons").iter();
    let reasons = reasons.map(|why| format!("  not ready: {}\n", text(why)));
    let warnings = list(status, "/health/warnings").iter();
    let warnings = warnings.map(|why| format!("  look at: {}\n", text(why)));
    let sentence = format!("{}\n", text(at(status, "/sentence")));
    let lines = [sentence].into_iter().chain(reasons).chain(warnings);
    lines.chain(["\n".to_owned()]).chain(rows).collect::<Vec<_>>().concat()
}

type Rows = Vec<(String, String)>;

fn at<'a>(status: &'a Value, pointer: &str) -> &'a Value {
    status.pointer(pointer).unwrap_or(&Value::Null)
}

fn list<'a>(status: &'a Value, pointer: &str) -> &'a [Value] {
    at(status, pointer).as_array().map_or(&[], Vec::as_slice)
}

fn numbers(status: &Value) -> Rows {
    let shown = |pointer: &str| number(at(status, pointer));
    let sum = |pointer: &str| {
        thousands(list(status, pointer).iter().filter_map(Value::as_u64).sum::<u64>())
    };
    let share = |stage: &Value| {
        let percent = stage["share"].as_f64().unwrap_or(0.0) * 100.0;
        format!("{} {percent:.0} %", text(&stage["stage"]))
    };
    let stages: Vec<String> = list(status, "/stages").iter().map(share).collect();
    let mut rows = vec![
        (
            "now".to_owned(),
            format!(
                "{} a second, {} behind, last commit {} s ago, {} partitions",
                shown("/now/records_per_s"),
                shown("/now/lag"),
                shown("/now/last_commit_age_s"),
                shown("/now/partitions")
            ),
        ),
        (
            "last hour".to_owned(),
            format!(
                "{} records, {} of them dead letters ({})",
                sum("/hour/records"),
                sum("/hour/dead_letters"),
                counts(list(status, "/dead_letters/classes"))
            ),
        ),
        (
            "batches".to_owned(),
            format!(
                "{} of {} records, closed by {}",
                shown("/batches/count"),
                shown("/batches/records"),
                counts(list(status, "/batches/reasons"))
            ),
        ),
        ("time goes to".to_owned(), stages.join(", ")),
    ];
    rows.extend(list(status, "/partitions").iter().map(|part| {
        let (lag, age) = (number(&part["lag"]), number(&part["last_commit_age_s"]));
        let place = format!("{}/{}", text(&part["topic"]), part["partition"]);
        (place, format!("{lag} behind, last commit {age} s ago"))
    }));
    rows
}

fn events(status: &Value) -> Rows {
    let mut rows = vec![("model".to_owned(), model(at(status, "/models/serving")))];
    rows.extend(
        list(status, "/models/swaps")
            .iter()
            .take(3)
            .map(|swap| ("swap".to_owned(), format!("version {} to {}", swap["from"], swap["to"]))),
    );
    rows.extend(list(status, "/models/refusals").iter().take(3).map(|refusal| {
        let why = text(&refusal["reason"]);
        ("refused".to_owned(), format!("version {}: {why}", refusal["version"]))
    }));
    rows.extend(list(status, "/dead_letters/last").iter().take(5).map(|letter| {
        let (topic, class, why) =
            (text(&letter["topic"]), text(&letter["class"]), text(&letter["reason"]));
        let place = format!("{topic}/{} at {}", letter["partition"], letter["offset"]);
        ("dead letter".to_owned(), format!("{place}: {class}, {why}"))
    }));
    let memory = at(status, "/process/memory_bytes").as_u64().unwrap_or(0) >> 20;
    let (version, up) = (text(at(status, "/process/version")), at(status, "/process/uptime_s"));
    rows.push((
        "process".to_owned(),
        format!("tidemill {version}, up {} s, {memory} MiB", number(up)),
    ));
    rows
}

fn model(serving: &Value) -> String {
    if serving.is_null() {
        return "none yet".to_owned();
    }
    format!("{} version {}", text(&serving["name"]), serving["version"])
}

fn counts(all: &[Value]) -> String {
    let one = |count: &Value| format!("{} {}", text(&count["name"]), number(&count["count"]));
    let all: Vec<String> = all.iter().map(one).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn number(value: &Value) -> String {
    match (value.as_u64(), value.as_f64()) {
        (Some(whole), _) => thousands(whole),
        (None, Some(number)) => format!("{number:.1}"),
        (None, None) => "-".to_owned(),
    }
}
