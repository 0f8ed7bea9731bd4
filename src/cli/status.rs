//! `tidemill status`: how a service is that runs, from its `/api/status`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Uri;
use ureq::http::uri::Authority;

use super::terminal;
use crate::failure::{Exit, Failure, chain};
use crate::printable::{counted, thousands, utc};
use crate::tls;

/// Arguments of `tidemill status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the service listens (http.listen): HOST:PORT or a URL
    #[arg(
        long, default_value = "http://127.0.0.1:8080", env = "TIDEMILL_URL", hide_env_values = true,
        value_name = "URL", value_parser = address
    )]
    url: String,
    /// The answer as it is, for programs
    #[arg(long)]
    json: bool,
}

/// How long the service may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Most bytes of an answer.
const LARGEST: u64 = 4 << 20;

/// `HOST:PORT`, or a URL with whatever path: where the service listens.
fn address(text: &str) -> Result<String, String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let form = "write HOST:PORT or http://HOST:PORT, where the service listens (http.listen)";
    let read = url.parse::<Uri>().map_err(|error| format!("{error}; {form}"))?;
    let (scheme, authority) = (read.scheme_str(), read.authority());
    // A port beyond 65535 is read as none.
    let ends = |at: &Authority| at.as_str() == at.host() || at.port_u16().is_some();
    let Some(authority) = authority.filter(|at| !at.host().is_empty() && ends(at)) else {
        return Err(form.to_owned());
    };
    // A user would be shown with the address; the service asks for none.
    if authority.as_str().contains('@') || !matches!(scheme, Some("http" | "https")) {
        return Err(form.to_owned());
    }
    let path = read.path().trim_end_matches('/');
    let base = path.strip_suffix("/api/status").unwrap_or(path);
    Ok(format!("{}://{authority}{base}", scheme.unwrap_or("http")))
}

/// Asks once, and shows what it says. 0 where the service is ready, 75 where it is not or does not answer.
pub fn run(args: &Args) -> ExitCode {
    terminal::end(show(args))
}

fn show(args: &Args) -> Result<(), Failure> {
    let url = format!("{}/api/status", args.url);
    let away = |why: String| Failure {
        message: format!(
            "ask {url}: {why}; --url HOST:PORT names where the service listens (http.listen, 8080 by default)"
        ),
        exit: Exit::Temporary,
    };
    let text = ask(&url).map_err(|error| away(why(&error)))?;
    let status =
        serde_json::from_str(&text).ok().filter(|status: &Value| status.get("sentence").is_some());
    let status = status.ok_or_else(|| away("what listens there is not tidemill".to_owned()))?;
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

/// Why there is no status, in words.
fn why(error: &ureq::Error) -> String {
    if let ureq::Error::StatusCode(code) = error {
        return format!(
            "it answers {code}: another program listens there, or it is the port of admin.listen"
        );
    }
    if let ureq::Error::Io(error) = error
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        return "nothing listens there".to_owned();
    }
    let text = chain(error);
    if text.contains("SSL routines") || text.contains("tls") && text.contains("InvalidContentType")
    {
        return format!("it does not speak TLS ({text}): write http:// in --url");
    }
    if let ureq::Error::Timeout(_) = error {
        return format!("no answer within {} s", ANSWER.as_secs());
    }
    text
}

/// What a person wants to see of it, in the order of the page.
fn page(status: &Value) -> String {
    let rows = numbers(status).into_iter().chain(events(status));
    let rows = rows.map(|(name, text)| format!("  {name:<14} {text}\n"));
    let reasons = list(status, "/health/reasons").iter();
    // What the first sentence says is not said again.
    let sentence = text(at(status, "/sentence"));
    let reasons = reasons.map(text).filter(|why| !sentence.contains(why));
    let reasons = reasons.map(|why| format!("  not ready: {why}\n"));
    let warnings = list(status, "/health/warnings").iter();
    let warnings = warnings.map(|why| format!("  look at: {}\n", text(why)));
    let sentence = format!("{sentence}\n");
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
    let sum = |pointer: &str| list(status, pointer).iter().filter_map(Value::as_u64).sum::<u64>();
    let share = |stage: &Value| {
        let percent = stage["share"].as_f64().unwrap_or(0.0) * 100.0;
        format!("{} {percent:.0} %", text(&stage["stage"]))
    };
    let stages: Vec<String> = list(status, "/stages").iter().map(share).collect();
    let mut rows = vec![
        (
            "now".to_owned(),
            format!(
                "{} a second in the last minute, {} behind, {}, {}",
                shown("/now/records_per_s"),
                shown("/now/lag"),
                committed(at(status, "/now"), ""),
                match at(status, "/now/partitions").as_u64() {
                    Some(partitions) => counted(partitions, "partition", "partitions"),
                    None => "no partitions assigned yet".to_owned(),
                }
            ),
        ),
        (
            "last hour".to_owned(),
            format!(
                "{}, {} ({})",
                counted(sum("/hour/records"), "record", "records"),
                counted(sum("/hour/dead_letters"), "dead letter", "dead letters"),
                counts(list(status, "/dead_letters/classes"))
            ),
        ),
        (
            "batches".to_owned(),
            format!(
                "{} of {} records on average, closed by: {}",
                shown("/batches/count"),
                shown("/batches/records"),
                counts(list(status, "/batches/reasons"))
            ),
        ),
        ("time goes to".to_owned(), stages.join(", ")),
    ];
    rows.extend(list(status, "/partitions").iter().map(|part| {
        let place = format!("{}/{}", text(&part["topic"]), part["partition"]);
        let ours = format!(" (ours for {} s)", number(&part["last_commit_age_s"]));
        (place, format!("{} behind, {}", number(&part["lag"]), committed(part, &ours)))
    }));
    rows
}

fn events(status: &Value) -> Rows {
    let mut rows = vec![("model".to_owned(), model(at(status, "/models/serving")))];
    rows.extend(list(status, "/models/swaps").iter().take(3).map(|swap| {
        ("swap".to_owned(), format!("{}: version {} to {}", when(swap), swap["from"], swap["to"]))
    }));
    // Not those of the past: what was mended is on the page alone.
    let refused = at(status, "/models/refused");
    if !refused.is_null() {
        let why = text(&refused["reason"]);
        let tried = format!("version {}, tried last {}: {why}", refused["version"], when(refused));
        rows.push(("refused".to_owned(), tried));
    }
    rows.extend(list(status, "/dead_letters/last").iter().take(5).map(|letter| {
        let (topic, class, why) =
            (text(&letter["topic"]), text(&letter["class"]), text(&letter["reason"]));
        let place = format!("{topic}/{} at {}", letter["partition"], letter["offset"]);
        ("dead letter".to_owned(), format!("{}, {place}: {class}, {why}", when(letter)))
    }));
    let memory = at(status, "/process/memory_bytes").as_u64().unwrap_or(0) >> 20;
    let (version, up) = (text(at(status, "/process/version")), at(status, "/process/uptime_s"));
    rows.push((
        "process".to_owned(),
        format!("tidemill {version}, up {} s, {memory} MiB", number(up)),
    ));
    rows
}

/// When something was committed last.
fn committed(of: &Value, never: &str) -> String {
    if of["has_committed"] == Value::Bool(false) {
        return format!("nothing committed yet{never}");
    }
    format!("last commit {} s ago", number(&of["last_commit_age_s"]))
}

/// When an event was, in UTC.
fn when(event: &Value) -> String {
    event["at"].as_i64().map_or_else(|| "-".to_owned(), utc)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_or_a_url() {
        for (text, expect) in [
            ("localhost:8080", "http://localhost:8080"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("http://a:1/", "http://a:1"),
            ("http://a:1/api/status", "http://a:1"),
            ("https://proxy/tidemill/", "https://proxy/tidemill"),
        ] {
            assert_eq!(address(text).as_deref(), Ok(expect), "{text}");
        }
        for text in ["", "http://", "ftp://a", "a:99999", "a b", "http://u:secret@a:1", ":8080"] {
            let said = address(text).unwrap_err();
            assert!(said.contains("write HOST:PORT") && !said.contains("secret"), "{text}: {said}");
        }
    }

    #[test]
    fn a_refusal_of_the_past_is_not_told() {
        let refusal = serde_json::json!({"version": 3, "reason": "no", "at": 1});
        let models = |refused: &Value| serde_json::json!({"models": {"refusals": [refusal], "refused": refused}});
        let told = |status: &Value| {
            page(status).contains("version 3, tried last 1970-01-01T00:00:00.001Z: no")
        };
        assert!(told(&models(&refusal)));
        assert!(!told(&models(&Value::Null)));
    }
}
