//! `tidemill check`: the configuration, the connections, the topics and the model, before anything runs.
//!
//! Each line says `ok`, `warning` or `problem`, the last two with what to do. A warning is about what may be lost or
//! refused some day, and does not change the exit code. Nothing is written to the cluster, unless `--create-topics` asks for topics, and no group is joined: that
//! the group and the transactional id are allowed cannot be seen from outside, the first start shows it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use serde_json::json;

use super::ConfigFile;
use crate::clean::{self, Cleaning};
use crate::config::{Config, load};
use crate::failure::Exit;
use crate::format::{Codec, Doubt, Writer};
use crate::kafka::settings;
use crate::printable;
use crate::schema::Failed;
use crate::service;

mod cluster;
mod create;
mod facts;
mod here;
mod judge;
mod permissions;
mod silent;
mod topics;

/// Arguments of `tidemill check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Look at the configuration and its secrets alone: no cluster is asked, and no model is loaded
    #[arg(long)]
    offline: bool,
    /// Create the topics that are not there, as they are to be
    #[arg(long, conflicts_with = "offline")]
    create_topics: bool,
    /// With --create-topics: partitions of an input topic
    #[arg(long, default_value_t = 1, requires = "create_topics", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    partitions: u16,
    /// Print a JSON object for each thing that was looked at
    #[arg(long)]
    json: bool,
}

/// Where findings go, and how they are written.
struct Out<'a, W> {
    to: &'a mut W,
    json: bool,
}

/// Looks at everything, or at the configuration alone. 0, or 78 with what is to be done.
pub fn run(args: &Args) -> ExitCode {
    let mut out = Out { to: &mut io::stdout().lock(), json: args.json };
    let (file, env) = (Some(args.config.config.as_path()), load::environment());
    let code = if args.offline {
        read(file, env, &mut out).map(|read| read.map_or(Exit::Config, |_| Exit::Success))
    } else {
        let create = args.create_topics.then_some(usize::from(args.partitions));
        look_and_create(file, env, model, create, &mut out)
    };
    code.unwrap_or(Exit::Io).into()
}

/// What a model is, and what else was found about it; or the problem and its remedy.
type Judged = Result<(String, Vec<Finding>), (String, String)>;

/// Loads the model through the gate, as the service will.
fn model(config: &Config, codec: &Arc<Codec>) -> Judged {
    let remedy = "`tidemill models list` shows what is there, `tidemill models verify` one version";
    let served =
        service::load_model(config).map_err(|failure| (failure.message, remedy.to_owned()))?;
    let about = served.model.about();
    let written = Writer::new(config, Arc::clone(codec)).fits(about.task);
    written
        .map_err(|failure| (failure.message, "see schema_registry and output.format".to_owned()))?;
    let (own, input) = (served.model.cleans(), &config.input);
    let doubts =
        clean::doubts(served.model.looks_at(), own, &input.clean, |name| input.knows(name));
    let notes: Vec<String> =
        about.notes.iter().chain(&doubts).map(|note| format!("; note: {note}")).collect();
    let notes = notes.concat();
    let (task, architecture, precision) = (about.task.name(), &about.architecture, about.precision);
    let (id, gate) = (&served.id, &served.report);
    let seen = format!("{id}, {task}, {architecture}, {precision}; passed {gate}{notes}");
    let cleaning = Cleaning::new(served.model.looks_at(), own, &input.clean);
    Ok((seen, fields(codec, &[served.model.looks_at(), cleaning.units()].concat())))
}

/// Places of fields that nobody reads, and fields that no record will have, where a model `reads` these.
fn fields(codec: &Codec, reads: &[String]) -> Vec<Finding> {
    let finding = |doubt: Doubt| Finding::warning(doubt.key, doubt.message, doubt.remedy);
    codec.doubts(reads).into_iter().map(finding).collect()
}

/// How long the cluster may take to answer: a connection, TLS, SASL and one request.
const ANSWER: Duration = Duration::from_secs(10);

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What was seen.
    pub seen: Seen,
}

/// What was seen of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is as it should be.
    Ok(String),
    /// It works, and something may be lost or refused some day: message and remedy.
    Warning(String, String),
    /// It does not work: message and remedy.
    Problem(String, String),
}

/// Why a question was not answered.
#[derive(Debug)]
enum Asked {
    /// The cluster does not answer it to this user.
    Refused,
    /// Nothing came.
    Unanswered(KafkaError),
}

impl Finding {
    fn ok(what: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { what: what.into(), seen: Seen::Ok(seen.into()) }
    }

    fn warning(
        what: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), seen: Seen::Warning(message.into(), remedy.into()) }
    }

    fn problem(
        what: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), seen: Seen::Problem(message.into(), remedy.into()) }
    }

    /// Message and remedy, where it is a problem.
    pub fn problem_text(&self) -> Option<(&str, &str)> {
        match &self.seen {
            Seen::Problem(message, remedy) => Some((message, remedy)),
            Seen::Ok(_) | Seen::Warning(..) => None,
        }
    }
}

/// Looks at everything and prints a line for each to `out`; how the command ends: [`Exit::Success`], or
/// [`Exit::Config`] where there is a problem.
///
/// `model` resolves and loads the model: what it is, or the problem and its remedy. Blocks for up to ten seconds
/// where the cluster does not answer.
///
/// # Errors
///
/// `out` cannot be written.
pub fn look(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    model: impl FnOnce(&Config, &Arc<Codec>) -> Judged,
    out: &mut impl Write,
) -> io::Result<Exit> {
    look_and_create(file, env, model, None, &mut Out { to: out, json: false })
}

fn look_and_create(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    model: impl FnOnce(&Config, &Arc<Codec>) -> Judged,
    create: Option<usize>,
    out: &mut Out<'_, impl Write>,
) -> io::Result<Exit> {
    let Some((config, codec)) = read(file, env, out)? else { return Ok(Exit::Config) };
    let mut good = true;
    if let Some(dir) = &config.state.dir {
        good &= show(out, &here::writable(dir))?;
    }
    if let Some(log) = config.embedded() {
        good &= show(out, &here::embedded(log))?;
    } else {
        for finding in kafka(&config, ANSWER, create) {
            good &= show(out, &finding)?;
        }
    }
    if let Some(finding) = schemas(&config, &codec) {
        good &= show(out, &finding)?;
    }
    let what = "model";
    good &= match model(&config, &codec) {
        Ok((seen, others)) => {
            let mut all = show(out, &Finding::ok(what, seen))?;
            for finding in others {
                all &= show(out, &finding)?;
            }
            all
        }
        Err((message, remedy)) => show(out, &Finding::problem(what, message, remedy))?,
    };
    Ok(if good { Exit::Success } else { Exit::Config })
}

/// The configuration, where it is good; what there is to say about it alone goes to `out`.
fn read(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    out: &mut Out<'_, impl Write>,
) -> io::Result<Option<(Config, Arc<Codec>)>> {
    let config = match load::load(file, env) {
        Ok(config) => config,
        Err(problems) => {
            if out.json {
                for problem in &problems.0 {
                    show(
                        out,
                        &Finding::problem(&*problem.key, &*problem.message, &*problem.remedy),
                    )?;
                }
            } else {
                writeln!(out.to, "problem  {problems}")?;
            }
            return Ok(None);
        }
    };
    let mut good = show(out, &Finding::ok("configuration", "every key is known and fits"))?;
    let (codec, wrong) = match here::prepared(&config) {
        Ok(codec) => (Some(codec), None),
        Err(finding) => (None, Some(finding)),
    };
    for finding in here::secrets(&config).into_iter().chain(here::state(&config)).chain(wrong) {
        good &= show(out, &finding)?;
    }
    Ok(codec.filter(|_| good).map(|codec| (config, codec)))
}

fn show(out: &mut Out<'_, impl Write>, finding: &Finding) -> io::Result<bool> {
    let what = &finding.what;
    let (how, said, remedy) = match &finding.seen {
        Seen::Ok(seen) => ("ok", seen, None),
        Seen::Warning(message, remedy) => ("warning", message, Some(remedy)),
        Seen::Problem(message, remedy) => ("problem", message, Some(remedy)),
    };
    if out.json {
        let told = json!({"result": how, "what": what, "message": said, "remedy": remedy});
        writeln!(out.to, "{}", printable::json(&told))?;
    } else {
        writeln!(out.to, "{how:<7}  {what}: {said}")?;
        if let Some(remedy) = remedy {
            writeln!(out.to, "         {remedy}")?;
        }
    }
    Ok(!matches!(finding.seen, Seen::Problem(..)))
}

/// The schema registry, where there is one.
fn schemas(config: &Config, codec: &Codec) -> Option<Finding> {
    let what = format!("schema registry {}", config.schema_registry.urls.join(", "));
    let topic = config.input.topics.first()?;
    let subject = config.schema_registry.subject.of(topic, topic);
    Some(match codec.schemas()?.latest(&subject) {
        Ok(_) | Err(Failed::Absent { .. }) => Finding::ok(what, "answers"),
        Err(Failed::Refused(why) | Failed::Away(why)) => Finding::problem(
            what,
            why,
            "look at schema_registry: its urls, ca, username and password",
        ),
    })
}

fn kafka(config: &Config, within: Duration, create: Option<usize>) -> Vec<Finding> {
    match settings::instance(config) {
        Ok(instance) => {
            let mut findings = vec![Finding::ok("replica", &*instance)];
            findings.extend(cluster::look(config, &instance, within, create));
            findings
        }
        Err(failure) => {
            let remedy = "two live replicas must not share a name";
            vec![Finding::problem("replica", failure.message, remedy)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        let text = "log: sqlite:x\ninput: {topics: [in]}\noutput: {topic: out}\nmodel: {uri: m}";
        std::fs::write(&file, text).unwrap();
        let check = |text: &str, model: Result<String, (String, String)>| {
            std::fs::write(&file, text).unwrap();
            let mut out = Vec::new();
            let model = model.map(|seen| (seen, Vec::new()));
            let code = look(Some(&file), std::iter::empty(), |_, _| model, &mut out).unwrap();
            (code, String::from_utf8(out).unwrap())
        };
        assert_eq!(check(text, Ok("m/1".to_owned())).0, Exit::Success);
        let (code, out) = check(text, Err(("no such directory".to_owned(), "make it".to_owned())));
        assert!(code == Exit::Config && out.contains("problem  model: no such directory"), "{out}");
        let elsewhere = text.replace("sqlite:x", &format!("sqlite:{}", file.display()));
        let (code, out) = check(&elsewhere, Ok(String::new()));
        assert!(code == Exit::Config && out.contains("c.yaml: is not an SQLite file"), "{out}");
        let (code, out) = check("batch: {max_wait: 5}", Ok(String::new()));
        assert!(code == Exit::Config && out.contains("6. "), "{out}");
    }

    #[test]
    fn a_warning_does_not_change_the_exit_code() {
        let shown = |json| {
            let mut text = Vec::new();
            let mut out = Out { to: &mut text, json };
            assert!(show(&mut out, &Finding::ok("a", "fine")).unwrap());
            assert!(show(&mut out, &Finding::warning("b", "may be lost", "do this")).unwrap());
            assert!(!show(&mut out, &Finding::problem("c", "is not there", "do that")).unwrap());
            String::from_utf8(text).unwrap()
        };
        let expected = "ok       a: fine\nwarning  b: may be lost\n         do this\nproblem  c: is not there\n         do that\n";
        assert_eq!(shown(false), expected);
        let told = r#"{"result":"warning","what":"b","message":"may be lost","remedy":"do this"}"#;
        assert_eq!(shown(true).lines().nth(1), Some(told));
    }

    #[test]
    fn a_secret_that_everybody_may_read_is_warned_of() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let check = |mode: u32, password: &str| {
            let text = format!(
                "log: sqlite:x\nkafka: {{common: {{sasl.password: {password}}}}}\ninput: {{topics: [in]}}\n\
                 output: {{topic: out}}\nmodel: {{uri: m}}"
            );
            for (name, text) in [("password", "hunter2"), ("c.yaml", &text)] {
                std::fs::write(place(name), text).unwrap();
                std::fs::set_permissions(place(name), std::fs::Permissions::from_mode(mode))
                    .unwrap();
            }
            let mut out = Vec::new();
            let model = |_: &Config, _: &Arc<Codec>| Ok(("m".to_owned(), Vec::new()));
            assert_eq!(
                look(Some(&place("c.yaml")), std::iter::empty(), model, &mut out).unwrap(),
                Exit::Success
            );
            let out = String::from_utf8(out).unwrap();
            assert!(!out.contains("hunter2"), "{out}");
            out
        };
        assert!(check(0o644, "'${file:password}'").contains("warning  secrets in"));
        assert!(check(0o644, "hunter2").contains("c.yaml: holds a secret"));
        for password in ["'${file:password}'", "hunter2"] {
            assert!(!check(0o640, password).contains("warning"));
        }
    }

    #[test]
    fn what_formats_name_is_looked_at_without_a_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        let schema =
            r#"{"type": "record", "name": "R", "fields": [{"name": "age", "type": "int"}]}"#;
        std::fs::write(place("row.avsc"), schema).unwrap();
        std::fs::write(place("row.proto"), "message R { optional int32 age = 1; }").unwrap();
        let check = |input: &str, more: &str| {
            let text = format!(
                "log: sqlite:x\ninput: {{topics: [in], {input}}}\noutput: {{topic: out}}\nmodel: {{uri: m}}\n{more}"
            );
            std::fs::write(place("c.yaml"), text).unwrap();
            let mut text = Vec::new();
            let mut out = Out { to: &mut text, json: false };
            let read =
                read(Some(&folder.path().join("c.yaml")), std::iter::empty(), &mut out).unwrap();
            let looks_at = ["age", "city"].map(str::to_owned);
            let found = read.map(|(_, codec)| fields(&codec, &looks_at));
            for finding in found.into_iter().flatten() {
                show(&mut out, &finding).unwrap();
            }
            String::from_utf8(text).unwrap()
        };
        for (input, more, expect) in [
            (
                "format: json",
                "schema_registry: {urls: ['a:8081']}",
                "problem  files and addresses: the schema registry's URL",
            ),
            (
                "format: avro, schema: gone.avsc",
                "",
                "problem  files and addresses: read input.schema",
            ),
            (
                &format!("format: avro, schema: {}", place("row.proto")),
                "",
                "problem  files and addresses: input.schema",
            ),
            (
                "fields: {agee: /a}",
                "",
                "warning  input.fields: names [\"agee\"], which the model does not read",
            ),
            (
                &format!("format: avro, schema: {}", place("row.avsc")),
                "",
                "warning  input.schema: has no field [\"city\"]",
            ),
            (
                &format!("format: protobuf, schema: {}", place("row.proto")),
                "",
                "has no field [\"city\"]",
            ),
            (
                &format!(
                    "format: protobuf, schema: {}, fields: {{city: /age}}",
                    place("row.proto")
                ),
                "",
                "ok       configuration: every key is known and fits\n",
            ),
        ] {
            let said = check(input, more);
            assert!(said.contains(expect), "{input}: {said}");
            let good = expect.starts_with("ok");
            assert_eq!(good, !said.contains("problem") && !said.contains("warning"), "{said}");
        }
    }

    #[test]
    fn a_broker_that_is_not_there_is_a_problem() {
        // Port 1 refuses; the client says so through its log or its error callback.
        let config = load::from_yaml(
            "kafka: {group: g, common: {bootstrap.servers: '127.0.0.1:1'}}\ninput: {topics: [in]}\noutput: {topic: out}\nmodel: {uri: m}",
        )
        .unwrap();
        let findings = kafka(&config, Duration::from_secs(2), None);
        let (message, remedy) = findings.iter().find_map(Finding::problem_text).unwrap();
        assert!(message.contains("refused") && remedy.contains("start the broker"), "{message}");
    }
}
