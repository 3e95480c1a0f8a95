//! Writes calls as a Wazo PBX leaves them: `monitor/*.wav`, and `cdr/*.json` with what its API answers for each day.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    time::SystemTime,
};

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use hound::{SampleFormat, WavSpec, WavWriter};
use serde_json::{Value, json};

use super::{
    calls::{Call, Centre, Direction, FileKind, Recording},
    random::Random,
    sound::{self, RATE},
};

/// Writes a centre's calls below `root`; returns how many recordings there are.
pub(super) fn write(root: &Path, centre: &Centre, calls: &[Call]) -> io::Result<usize> {
    let (monitor, cdr) = (root.join("monitor"), root.join("cdr"));
    fs::create_dir_all(&monitor)?;
    fs::create_dir_all(&cdr)?;
    let mut days: BTreeMap<NaiveDate, Vec<Value>> = BTreeMap::new();
    let mut written = 0;
    // Wazo counts its records; the first of a PBX that has been there for a while.
    for (id, call) in (2060..).zip(calls) {
        for recording in &call.recordings {
            if let Some(name) = file_name(recording, id) {
                write_wav(&monitor.join(name), centre, recording)?;
                written += 1;
            }
        }
        if call.has_record {
            days.entry(call.start.date_naive()).or_default().push(record(centre, call, id));
        }
    }
    for (day, items) in days {
        let (total, path) = (items.len(), cdr.join(format!("{day}.json")));
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer_pretty(&mut file, &json!({"items": items, "total": total, "filtered": total}))?;
        file.flush()?;
    }
    Ok(written)
}

/// The name in the monitor folder; `None` where no file is there.
fn file_name(recording: &Recording, id: u64) -> Option<String> {
    match recording.file {
        FileKind::Plain => Some(format!("{}.wav", recording.uuid)),
        FileKind::Long => Some(download_name(recording, id)),
        FileKind::Conference => Some(format!("conference-{}.wav", recording.start.timestamp())),
        FileKind::Deleted | FileKind::Lost => None,
    }
}

/// What wazo-call-logd computes as a recording's `filename`.
fn download_name(recording: &Recording, id: u64) -> String {
    format!("{}UTC-{id}-{}.wav", recording.start.format("%Y-%m-%dT%H_%M_%S"), recording.uuid)
}

fn write_wav(path: &Path, centre: &Centre, recording: &Recording) -> io::Result<()> {
    // The uuid as seed: a recording sounds the same whatever was made before it.
    let (seed, _) = recording.uuid.as_u64_pair();
    let seconds = recording.milliseconds as f32 / 1000.0;
    let sound = sound::call(seconds, centre.ringback, &mut Random::new(seed));
    let channels = if recording.stereo { 2 } else { 1 };
    let spec = WavSpec { channels, sample_rate: RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut writer = WavWriter::create(path, spec).map_err(io::Error::other)?;
    let samples: Vec<i16> =
        if recording.stereo { sound.interleaved().collect() } else { sound.mixed().collect() };
    let mut block = writer.get_i16_writer(u32::try_from(samples.len()).map_err(io::Error::other)?);
    for sample in samples {
        block.write_sample(sample);
    }
    block.flush().map_err(io::Error::other)?;
    writer.finalize().map_err(io::Error::other)?;
    File::options().write(true).open(path)?.set_modified(SystemTime::from(recording.end()))
}

/// An item of `GET /cdr`.
fn record(centre: &Centre, call: &Call, id: u64) -> Value {
    let answered = !call.recordings.is_empty();
    let end = call.recordings.iter().map(Recording::end).max().unwrap_or(call.start);
    let ((agent, agent_extension), (colleague, colleague_extension)) = (call.agent, call.colleague);
    let customer = (Value::Null, Value::from(call.customer.as_str()));
    let (source, destination, requested) = match call.direction {
        Direction::Inbound => (customer, (agent.into(), agent_extension.into()), centre.number),
        Direction::Outbound => ((agent.into(), agent_extension.into()), customer, call.customer.as_str()),
        Direction::Internal => {
            let callee = (colleague.into(), colleague_extension.into());
            ((agent.into(), Value::from(agent_extension)), callee, colleague_extension)
        }
    };
    let destination_details = match call.queue {
        Some(queue) => json!({"type": "group", "group_id": 1, "group_label": queue}),
        None if call.direction == Direction::Outbound => json!({"type": "unknown"}),
        None => json!({"type": "user", "user_name": destination.0}),
    };
    let recording = |recording: &Recording| {
        let deleted = recording.file == FileKind::Deleted;
        json!({
            "uuid": recording.uuid,
            "start_time": time(recording.start),
            "end_time": time(recording.end()),
            "deleted": deleted,
            "filename": download_name(recording, id),
        })
    };
    json!({
        "id": id,
        "tenant_uuid": uuid::Uuid::from_u64_pair(centre.seed, centre.seed),
        "start": time(call.start),
        "answer": answered.then(|| time(call.start)),
        "end": time(end),
        "answered": answered,
        "duration": answered.then(|| (end - call.start).num_seconds()),
        "call_direction": match call.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
            Direction::Internal => "internal",
        },
        "call_status": if answered { "answered" } else { "unknown" },
        "conversation_id": format!("{}.{id}", call.start.timestamp()),
        "source_name": source.0,
        "source_extension": source.1,
        "destination_name": destination.0,
        "destination_extension": destination.1,
        "destination_details": destination_details,
        "requested_extension": requested,
        "tags": call.tags,
        "recordings": call.recordings.iter().map(recording).collect::<Vec<_>>(),
    })
}

fn time(at: DateTime<Utc>) -> String {
    // Python's isoformat: an offset with a colon, microseconds where there are any.
    let precision =
        if at.timestamp_subsec_micros() == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
    at.to_rfc3339_opts(precision, false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use crate::cli::demo::calls::{CENTRES, calls};

    #[test]
    fn the_tree_is_what_a_pbx_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let now: DateTime<Utc> = "2026-11-20T12:34:56Z".parse().unwrap();
        let all = calls(&CENTRES[1], now);
        // The few days with the special calls; the others only cost time.
        let some: Vec<_> = all.into_iter().filter(|call| (now - call.start).num_days() < 6).collect();
        let written = write(dir.path(), &CENTRES[1], &some).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("monitor")).unwrap().count(), written);

        let recording = some
            .iter()
            .flat_map(|call| &call.recordings)
            .find(|one| one.file == FileKind::Plain && one.stereo);
        let recording = recording.unwrap();
        let path = dir.path().join(format!("monitor/{}.wav", recording.uuid));
        let reader = hound::WavReader::open(&path).unwrap();
        assert_eq!((reader.spec().channels, reader.spec().sample_rate), (2, 8000));
        let milliseconds = i64::from(reader.duration()) / 8;
        assert!((milliseconds - recording.milliseconds).abs() <= 1);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), SystemTime::from(recording.end()));

        let mut records = 0;
        for file in fs::read_dir(dir.path().join("cdr")).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let answer: Value = serde_json::from_str(&text).unwrap();
            records += answer["items"].as_array().unwrap().len();
            assert_eq!(answer["items"][0]["recordings"][0]["deleted"], false);
        }
        assert_eq!(records, some.iter().filter(|call| call.has_record).count());
    }
}
