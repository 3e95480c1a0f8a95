//! How recordings and indexes are told by the admin API.

use std::sync::Arc;

use chrono::{DateTime, FixedOffset, Offset, TimeZone, Utc};
use recgate_plugin_api::{JoinKind, MediaState, fact};

use crate::{
    admin::records::{
        ErasedReport, FactsReport, IndexReport, KeyReport, PublishedReport, RecordingReport, RecordingRow,
        RepublishReport, ToldReport, ValueReport,
    },
    catalog::{Described, Erasure, Found, Indexed, Marked, Told},
    config::Tenant,
    layout::{LocalDay, TenantZone, UtcDay},
};

/// An instant as the tenant's clock shows it, or in UTC. What no calendar has is shown as its nearest end.
pub(super) fn zoned(unix_ms: i64, zone: &TenantZone, utc: bool) -> DateTime<FixedOffset> {
    let instant = DateTime::<Utc>::from_timestamp_millis(unix_ms).unwrap_or(if unix_ms < 0 {
        DateTime::<Utc>::MIN_UTC
    } else {
        DateTime::<Utc>::MAX_UTC
    });
    let local = zone.local(unix_ms).filter(|_| !utc);
    let seconds =
        local.map_or(0, |local| local.date_time.and_utc().signed_duration_since(instant).num_seconds());
    let offset = i32::try_from(seconds).ok().and_then(FixedOffset::east_opt).unwrap_or_else(|| Utc.fix());
    offset.from_utc_datetime(&instant.naive_utc())
}

/// A recording as lists show it.
pub(super) fn row(tenant: &Tenant, found: Found, utc: bool) -> RecordingRow {
    let name = found.place.and_then(|place| place.name(&found.extension));
    let source = tenant.sources.iter().find(|source| source.id == found.source);
    let mut values = found.values;
    let mut value = |key: &str| values.remove(key);
    RecordingRow {
        tenant: tenant.name.clone(),
        uid: found.uid,
        state: found.state,
        folder: name.map(|name| name.second.day().folder_name()),
        name: name.map(|name| name.text(tenant.name_form)),
        start: zoned(found.start_ms, &tenant.zone, utc),
        stop: zoned(found.stop_ms, &tenant.zone, utc),
        duration_ms: found.duration_ms,
        size: found.size,
        source: source.map_or_else(|| found.source.to_string(), |source| source.name.clone()),
        media: found.media,
        call_type: value(fact::CALL_TYPE),
        agent_name: value(fact::AGENT_NAME),
        customer_number: value(fact::CUSTOMER_NUMBER),
        called_number: value(fact::CALLED_NUMBER),
        queue_name: value(fact::QUEUE_NAME),
        transaction_id: value(fact::TRANSACTION_ID),
    }
}

/// Names of tenants in a sentence.
pub(super) fn names(tenants: &[Arc<Tenant>]) -> String {
    let names: Vec<_> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}

/// All about a recording.
pub(super) fn recording(
    tenant: &Tenant,
    row: RecordingRow,
    described: &Described,
    erased: Option<ErasedReport>,
    utc: bool,
) -> RecordingReport {
    let time = |ms| zoned(ms, &tenant.zone, utc);
    let published = described.recording.as_ref().map(|recording| PublishedReport {
        root_index: LocalDay::from_number(recording.frozen.local_day)
            .map(|day| format!("Index/{}", day.index_name()))
            .unwrap_or_default(),
        publication: recording.frozen.publication,
        modified: time(recording.listed.modified.saturating_mul(1000)),
        version: recording.frozen.version.clone(),
        patched_bytes: recording.frozen.header_patch.len() as u64,
    });
    let told = &described.media.told;
    let origin = |key: &str, value: &str| {
        let says = |values: &[(String, String)]| values.iter().any(|(k, v)| k == key && v == value);
        let facts = described.facts.iter().find(|(_, facts)| !facts.gone && says(&facts.values));
        facts.map(|(id, _)| id.clone())
    };
    let values =
        described.found.values.iter().map(|(key, value)| {
            (key.clone(), ValueReport { value: value.clone(), from: origin(key, value) })
        });
    let facts = described.facts.iter().map(|(id, facts)| FactsReport {
        id: id.clone(),
        revision: facts.revision,
        gone: facts.gone,
        keys: keys(&facts.keys),
        values: facts.values.iter().cloned().collect(),
    });
    RecordingReport {
        row,
        published,
        told: (!told.version.is_empty()).then(|| self::told(told, time)),
        waits_until: described.media.due_ms.filter(|_| described.recording.is_none()).map(time),
        values: values.collect(),
        facts: facts.collect(),
        erased,
    }
}

fn told(told: &Told, time: impl Fn(i64) -> DateTime<FixedOffset>) -> ToldReport {
    const STATES: [(MediaState, &str); 5] = [
        (MediaState::Available, "available"),
        (MediaState::Growing, "growing"),
        (MediaState::Uploading, "uploading"),
        (MediaState::Archived, "archived"),
        (MediaState::Failed, "failed"),
    ];
    let state = STATES.iter().find(|(state, _)| *state as u32 == told.state);
    ToldReport {
        version: told.version.clone(),
        size: told.size,
        media_type: told.media_type.clone(),
        state: state.map_or_else(|| told.state.to_string(), |(_, name)| (*name).to_owned()),
        start: told.known_start_ms().map(&time),
        changed: Some(time(told.changed_ms)),
        duration_ms: told.duration_ms,
        keys: keys(&told.keys),
    }
}

fn keys(keys: &[(u32, String)]) -> Vec<KeyReport> {
    const KINDS: [(JoinKind, &str); 4] = [
        (JoinKind::RecordingUuid, "recording_uuid"),
        (JoinKind::ObjectKey, "object_key"),
        (JoinKind::ContactId, "contact_id"),
        (JoinKind::ConversationId, "conversation_id"),
    ];
    let kind = |number: u32| {
        let known = KINDS.iter().find(|(kind, _)| *kind as u32 == number);
        known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
    };
    keys.iter().map(|(number, value)| KeyReport { kind: kind(*number), value: value.clone() }).collect()
}

/// A root index.
pub(super) fn index(tenant: &Tenant, index: &Indexed, now_ms: i64) -> IndexReport {
    let there = index.file.generation != 0;
    let time = DateTime::<Utc>::from_timestamp_millis;
    IndexReport {
        tenant: tenant.name.clone(),
        day: index.day.date(),
        rows: index.rows,
        generation: there.then_some(index.file.generation),
        length: index.file.length,
        modified: time(index.file.modified.saturating_mul(1000)).filter(|_| there),
        complete: there && !index.incomplete,
        running: there && index.running,
        changed: index.changed_ms.and_then(time),
        due: index.due_ms.and_then(time),
        overdue: index.due_ms.is_some_and(|due| due <= now_ms),
    }
}

/// What was written anew, and what wasn't.
pub(super) fn republished(tenant: &Tenant, marked: &Marked, still: &Marked) -> RepublishReport {
    let root = |day: &LocalDay| format!("Index/{}", day.index_name());
    let folder = |day: &UtcDay| day.folder_name();
    let written = marked.roots.iter().filter(|day| !still.roots.contains(day)).map(root);
    let folders = marked.folders.iter().filter(|day| !still.folders.contains(day)).map(folder);
    RepublishReport {
        tenant: tenant.name.clone(),
        written: written.chain(folders).collect(),
        owed: still.roots.iter().map(root).chain(still.folders.iter().map(folder)).collect(),
        unpublished: marked.unpublished.iter().map(root).collect(),
    }
}

/// The index files that hold a row of an erased recording.
pub(super) fn index_files(erasure: &Erasure) -> Vec<String> {
    let Some((place, local_day)) = erasure.place else { return Vec::new() };
    let root = LocalDay::from_number(local_day).map(|day| format!("Index/{}", day.index_name()));
    root.into_iter().chain(UtcDay::from_number(place.day).map(UtcDay::folder_name)).collect()
}
