//! `--recompute`: answers chosen records again, with the version that answered them, and compares.

use std::sync::Arc;

use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message as _;

use crate::answer::Refused;
use crate::cli::cluster::Cluster;
use crate::config::{Config, Size, Uri};
use crate::decode::{Decoder, Prepared};
use crate::failure::{Failure, chain};
use crate::format::{Codec, Writer};
use crate::kafka::Journal;
use crate::model::options::LoadOptions;
use crate::model::served::Served;
use crate::model::{gate, guard};
use crate::record::{Fault, FaultClass, Offset, Outcome, Partition, Record, Version};
use crate::registry::Registry;
use crate::verify::recompute::{Same, Sample, Samples, compare};
use crate::verify::{Kind, Model, Recomputed, Report};

/// Answers what was chosen again, version by version, and notes in the report how that went.
///
/// # Errors
///
/// A cluster that does not answer.
pub(super) fn answer(
    cluster: &Cluster,
    config: &Config,
    (places, models): (&[(String, i32)], &[Model]),
    samples: &Samples,
    report: &mut Report,
) -> Result<(), Failure> {
    let reader = cluster.reader()?;
    let codec = Arc::new(Codec::new(config)?);
    let writer = Writer::new(config, Arc::clone(&codec));
    let decoder = Decoder::new(codec);
    for (number, model) in (0..).zip(models) {
        let chosen = samples.of(number);
        if chosen.is_empty() {
            continue;
        }
        let name = format!("{}/{}", model.name, model.version);
        let mut recomputed = Recomputed { model: name.clone(), ..Recomputed::default() };
        let served = load(config, model);
        for sample in chosen {
            let place = &places[sample.partition];
            let same = match &served {
                Err(why) => Same::Cannot(why.clone()),
                Ok(served) => match record(cluster, &reader, place, sample)? {
                    None => Same::Cannot("the record is not in the input any more".to_owned()),
                    Some(record) => {
                        let now = || {
                            let ready = writer.ready(served.model.about().task);
                            ready.map_err(|failure| failure.message)?;
                            again(served, &decoder, &writer, &record)
                        };
                        compare(sample, now, gate::tolerance(served.model.about()))
                    }
                },
            };
            match same {
                Same::Equal => recomputed.equal += 1,
                Same::Close => recomputed.close += 1,
                Same::Cannot(why) => *recomputed.cannot.entry(why).or_default() += 1,
                Same::No(why) => {
                    recomputed.different += 1;
                    let (topic, partition) = place;
                    report.violated(Kind::Answer, || {
                        format!("{topic}/{partition}/{} by {name}: {why}", sample.offset)
                    });
                }
            }
        }
        report.recomputed.push(recomputed);
    }
    Ok(())
}

/// The version as it is in the registry now, if it is still the one that answered.
fn load(config: &Config, model: &Model) -> Result<Served, String> {
    let Model { name, version, digest } = model;
    let uri = if *version == Version::default().0 {
        match &config.model.uri {
            uri @ Uri::Directory(_) => uri.clone(),
            Uri::Version { .. } | Uri::Alias { .. } => {
                return Err(format!("{name} was a plain directory, and model.uri names none"));
            }
        }
    } else {
        Uri::Version { model: name.clone(), version: Version(*version) }
    };
    let mut options = LoadOptions::of(config);
    options.model.cache = Size(0);
    let served = Registry::new(config.registry.root.clone())
        .load(&uri, &options)
        .map_err(|error| format!("{name}/{version} cannot be loaded: {}", chain(&error)))?;
    if *served.id.digest != **digest {
        let now = &served.id.digest;
        return Err(format!(
            "{name}/{version} is another artifact now: {now}, the manifest says {digest}"
        ));
    }
    Ok(served)
}

fn record(
    cluster: &Cluster,
    reader: &BaseConsumer<Journal>,
    (topic, partition): &(String, i32),
    sample: &Sample,
) -> Result<Option<Record>, Failure> {
    cluster.record(reader, topic, *partition, sample.offset, |message| Record {
        partition: Partition { topic: 0, number: *partition },
        offset: Offset(sample.offset),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: Vec::new(),
    })
}

/// What a version makes of a record: as the service does it, one record at a time.
fn again(
    served: &Served,
    decoder: &Decoder,
    writer: &Writer,
    record: &Record,
) -> Result<Outcome<Vec<u8>>, String> {
    let input = match decoder.prepare(record, served) {
        Prepared::Tombstone => return Ok(Outcome::Tombstone),
        Prepared::Fault(fault) => return Ok(Outcome::DeadLetter(fault)),
        Prepared::Input(input) => input,
    };
    match guard::predict(served.model.as_ref(), &[&input]) {
        Ok(predictions) => Ok(predictions.first().map_or(Outcome::Tombstone, |prediction| {
            match writer.write(prediction, record) {
                Ok(value) => Outcome::Prediction(value),
                Err(fault) => Outcome::DeadLetter(fault),
            }
        })),
        Err(Refused::Batch(why) | Refused::Row { message: why, .. }) => {
            Ok(Outcome::DeadLetter(Fault::new(FaultClass::Refused, why)))
        }
        Err(refused @ (Refused::OutOfMemory(_) | Refused::DeviceLost(_))) => {
            Err(refused.to_string())
        }
    }
}
