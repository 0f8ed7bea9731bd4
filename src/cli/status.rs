//! `tidemill status`: how a service is that runs, from its `/api/status`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::terminal;
use crate::failure::{Exit, Failure, chain};
use crate::printable::thousands;

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
    let roots = RootCerts::PlatformVerifier;
    let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build();
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER))
        .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    let mut answer = ureq::Agent::from(config).get(url).call()?;
    answer.body_mut().with_config().limit(LARGEST).read_to_string()
}

/// What a person wants to see of it, in the order of the page.
fn page(status: &Value) -> String {
    let at = |pointer: &str| status.pointer(pointer).unwrap_or(&Value::Null);
    let list = |pointer: &str| at(pointer).as_array().map_or(&[][..], Vec::as_slice);
    let mut out = format!("{}\n", text(at("/sentence")));
    let mut put = |line: String| out.push_str(&line);
    list("/health/reasons").iter().for_each(|why| put(format!("  not ready: {}\n", text(why))));
    list("/health/warnings").iter().for_each(|why| put(format!("  look at: {}\n", text(why))));
    put(format!(
        "\n  {:<14} {} a second, {} behind, last commit {} s ago, {} partitions\n",
        "now",
        number(at("/now/records_per_s")),
        number(at("/now/lag")),
        number(at("/now/last_commit_age_s")),
        number(at("/now/partitions")),
    ));
    let sum = |pointer: &str| list(pointer).iter().filter_map(Value::as_u64).sum::<u64>();
    put(format!(
        "  {:<14} {} records, {} of them dead letters ({})\n",
        "last hour",
        thousands(sum("/hour/records")),
        thousands(sum("/hour/dead_letters")),
        counts(list("/dead_letters/classes")),
    ));
    put(format!(
        "  {:<14} {} of {} records, closed by {}\n",
        "batches",
        number(at("/batches/count")),
        number(at("/batches/records")),
        counts(list("/batches/reasons")),
    ));
    let share = |stage: &Value| {
        let percent = stage["share"].as_f64().unwrap_or(0.0) * 100.0;
        format!("{} {percent:.0} %", text(&stage["stage"]))
    };
    let stages: Vec<String> = list("/stages").iter().map(share).collect();
    put(format!("  {:<14} {}\n", "time goes to", stages.join(", ")));
    for part in list("/partitions") {
        put(format!(
            "  {:<14} {} behind, last commit {} s ago\n",
            format!("{}/{}", text(&part["topic"]), part["partition"]),
            number(&part["lag"]),
            number(&part["last_commit_age_s"]),
        ));
    }
    put(format!("  {:<14} {}\n", "model", model(at("/models/serving"))));
    let swaps = list("/models/swaps").iter().take(3);
    swaps.for_each(|swap| {
        put(format!("  {:<14} version {} to {}\n", "swap", swap["from"], swap["to"]))
    });
    for refusal in list("/models/refusals").iter().take(3) {
        let (version, why) = (&refusal["version"], text(&refusal["reason"]));
        put(format!("  {:<14} version {version}: {why}\n", "refused"));
    }
    for letter in list("/dead_letters/last").iter().take(5) {
        put(format!(
            "  {:<14} {}/{} at {}: {}, {}\n",
            "dead letter",
            text(&letter["topic"]),
            letter["partition"],
            letter["offset"],
            text(&letter["class"]),
            text(&letter["reason"]),
        ));
    }
    write!(
        out,
        "  {:<14} tidemill {}, up {} s, {} MiB\n",
        "process",
        text(at("/process/version")),
        number(at("/process/uptime_s")),
        at("/process/memory_bytes").as_u64().unwrap_or(0) >> 20,
    )
    .unwrap_or_default(); // a String takes every write
    out
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
