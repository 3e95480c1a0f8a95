//! From a call data record to facts, one set a recording.
//!
//! | fact | from |
//! | --- | --- |
//! | call type | `call_direction`; internal calls are direct agent access |
//! | agent | the callee, on outbound calls the caller |
//! | customer | the caller's number, on outbound calls the callee's |
//! | phone channel | on inbound calls the number that was dialled |
//! | called number | on outbound calls the number that was dialled |
//! | queue | `destination_details` of a group or queue |
//! | transaction | the id of the record: all recordings of a call share it |

use chrono::DateTime;
use recgate_plugin_api::{Error, Facts, JoinKey, JoinKind, fact};

use crate::cdr::{Cdr, Field, Recording};
use crate::names::recording_uuid;
use crate::settings::{ExternalVariable1, Settings};

/// The greatest case that readers of the index can take (they read it as a 32-bit integer).
const CASE_MAX: u64 = 2_147_483_647;
/// Bytes that the tags may have together: what the ABI takes in one value is twice that.
const JOINED_MAX: usize = 4096;

/// Gives the facts of each recording of a record; `report` is told of what is wrong, and what is right goes on.
pub(crate) fn of(
    cdr: &Cdr,
    revision: u64,
    settings: &Settings,
    report: &mut dyn FnMut(&str),
    give: &mut dyn FnMut(Facts) -> Result<(), Error>,
) -> Result<(), Error> {
    for problem in &cdr.problems {
        report(problem);
    }
    let Field::Number(id) = cdr.field("id") else {
        report("id is not a whole number, the record is not used");
        return Ok(());
    };
    if cdr.recordings.is_empty() {
        return Ok(());
    }
    let shared = of_call(cdr, *id, settings);
    for recording in &cdr.recordings {
        let Some(uuid) = recording.text("uuid").and_then(recording_uuid) else {
            report(&format!("record {id} has a recording whose uuid is not a uuid, it is not used"));
            continue;
        };
        let mut values = shared.clone();
        of_recording(recording, &mut values, &mut |problem| {
            report(&format!("record {id}, recording {uuid}: {problem}"));
        });
        let mut keys = vec![JoinKey { kind: JoinKind::RecordingUuid, value: uuid.clone() }];
        if let Some(filename) = recording.text("filename") {
            keys.push(JoinKey { kind: JoinKind::ObjectKey, value: filename.to_owned() });
        }
        if let Some(conversation) = cdr.text("conversation_id") {
            keys.push(JoinKey { kind: JoinKind::ConversationId, value: conversation.to_owned() });
        }
        give(Facts { id: format!("cdr-{id}-{uuid}"), revision, gone: false, keys, values })?;
    }
    Ok(())
}

/// Key and value, in the order in which they are shown.
type Values = Vec<(String, String)>;

/// What all recordings of a call share.
fn of_call(cdr: &Cdr, id: u64, settings: &Settings) -> Values {
    let mut values = Values::new();
    let mut put = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            values.push((key.to_owned(), value.to_owned()));
        }
    };
    let destination = cdr.text("destination_extension");
    let source = cdr.text("source_extension");
    let requested = cdr.text("requested_extension");
    let callee =
        cdr.text("destination_name").or_else(|| cdr.text("destination_internal_extension")).or(destination);
    match cdr.text("call_direction") {
        Some("inbound") => {
            put(fact::CALL_TYPE, Some("inbound"));
            put(fact::AGENT_NAME, callee);
            put(fact::CUSTOMER_NUMBER, source);
            put(fact::PHONE_CHANNEL, requested);
        }
        Some("outbound") => {
            put(fact::CALL_TYPE, Some("outbound"));
            let caller = cdr.text("source_name").or_else(|| cdr.text("source_internal_name"));
            put(fact::AGENT_NAME, caller.or_else(|| cdr.text("source_internal_extension")).or(source));
            put(fact::CUSTOMER_NUMBER, destination);
            put(fact::CALLED_NUMBER, requested.or(destination));
        }
        Some("internal") => {
            put(fact::CALL_TYPE, Some("direct_agent_access"));
            put(fact::AGENT_NAME, callee);
            put(fact::CUSTOMER_NUMBER, source);
        }
        // A direction of a later Wazo says nothing about who is the agent.
        _ => {}
    }
    let queue_name = match cdr.detail("type") {
        Some("group") => Some(cdr.detail("group_label")),
        Some("queue") => Some(cdr.detail("queue_label")),
        _ => None,
    };
    if let Some(queue_name) = queue_name {
        put(
            fact::QUEUE_TYPE,
            cdr.text("call_direction").filter(|way| matches!(*way, "inbound" | "outbound")),
        );
        put(fact::QUEUE_NAME, queue_name);
    }
    put(fact::TRANSACTION_ID, Some(&id.to_string()));
    put(
        fact::EXTERNAL_VARIABLE_1,
        match settings.external_variable_1 {
            ExternalVariable1::ConversationId => cdr.text("conversation_id"),
            ExternalVariable1::FirstTag => cdr.tags.first().map(String::as_str),
        },
    );
    put(fact::EXTERNAL_VARIABLE_2, Some(joined(&cdr.tags).as_str()).filter(|tags| !tags.is_empty()));
    put(fact::CASE_ID, tagged(cdr, settings.case_id_tag.as_deref()).filter(|case| is_case(case)));
    put(fact::ACCOUNT, tagged(cdr, settings.account_tag.as_deref()));

    for (key, field) in [
        ("conversation_id", "conversation_id"),
        ("call_status", "call_status"),
        ("cdr_start", "start"),
        ("cdr_answer", "answer"),
        ("cdr_end", "end"),
        ("tenant_uuid", "tenant_uuid"),
        ("source_user_uuid", "source_user_uuid"),
        ("destination_user_uuid", "destination_user_uuid"),
    ] {
        put(key, cdr.text(field));
    }
    put("destination_type", cdr.detail("type"));
    values
}

/// What is the recording's own.
fn of_recording(recording: &Recording, values: &mut Values, report: &mut dyn FnMut(&str)) {
    let mut time = |name: &str| match recording.field(name) {
        Field::Absent => None,
        Field::Text(text) => {
            let ms = unix_ms(text);
            if ms.is_none() {
                report(&format!("{name} {text:?} is not an ISO 8601 time with an offset"));
            }
            ms
        }
        _ => {
            report(&format!("{name} is not a text"));
            None
        }
    };
    let (started, stopped) = (time("start_time"), time("end_time"));
    let stopped = match (started, stopped) {
        (Some(from), Some(to)) if to < from => {
            report("end_time is before start_time, it is not used");
            None
        }
        _ => stopped,
    };
    let mut put = |key: &str, value: String| values.push((key.to_owned(), value));
    if let Some(started) = started {
        put(fact::STARTED_AT, started.to_string());
    }
    if let Some(stopped) = stopped {
        put(fact::STOPPED_AT, stopped.to_string());
    }
    if let (Some(from), Some(to)) = (started, stopped) {
        put(fact::DURATION_MS, to.saturating_sub(from).to_string());
    }
    // The record outlives the media: the PBX says it has deleted it, whatever still lies in the folder.
    if *recording.field("deleted") == Field::Bool(true) {
        put("deleted", "true".to_owned());
    }
}

/// As many of the tags as one value holds, whole ones, with `;` between.
fn joined(tags: &[String]) -> String {
    let mut joined = String::new();
    for tag in tags {
        if joined.len().saturating_add(tag.len()) >= JOINED_MAX {
            break;
        }
        if !joined.is_empty() {
            joined.push(';');
        }
        joined.push_str(tag);
    }
    joined
}

/// The rest of the first tag that begins so.
fn tagged<'c>(cdr: &'c Cdr, prefix: Option<&str>) -> Option<&'c str> {
    let prefix = prefix?;
    cdr.tags.iter().find_map(|tag| tag.strip_prefix(prefix)).filter(|rest| !rest.is_empty())
}

fn is_case(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok_and(|case| case <= CASE_MAX)
}

/// Unix milliseconds of an ISO 8601 time with an offset (`Z`, `+00:00`, `+0000`); microseconds are cut off, so that
/// the second is the one in Wazo's own file names.
fn unix_ms(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .ok()
        .map(|time| time.timestamp_millis())
}

#[cfg(test)]
mod tests;
