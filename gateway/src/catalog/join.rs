//! Which facts belong to a medium, and what they say together.

use std::collections::BTreeMap;

use recgate_plugin_api::fact;

use super::{
    CatalogError, keys,
    rows::{Details, FactsRow, JoinRow, Told},
    txn::Txn,
};
use crate::layout::UtcSecond;

/// Members of one join key that are kept; what comes later is reported and left out.
pub const MAX_JOINED: usize = 64;

/// Values of all facts that join a medium. A stronger key's facts win, then the greater revision.
pub async fn joined(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    told: &Told,
) -> Result<BTreeMap<String, String>, CatalogError> {
    let mut values = BTreeMap::new();
    for (_, facts) in joined_rows(txn, tenant, source, told).await? {
        if !facts.gone {
            for (key, value) in facts.values {
                values.entry(key).or_insert(value);
            }
        }
    }
    Ok(values)
}

/// All facts that join a medium with their ids, the winning ones first; those that are withdrawn are among them.
pub async fn joined_rows(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    told: &Told,
) -> Result<Vec<(String, FactsRow)>, CatalogError> {
    let mut found: Vec<(u32, std::cmp::Reverse<u64>, String, FactsRow)> = Vec::new();
    // The strongest first: facts that join by several keys count by that.
    let mut strongest: Vec<_> = told.keys.iter().collect();
    strongest.sort();
    for (kind, value) in strongest {
        let Some(join) = txn.get::<JoinRow>(&keys::join(tenant, source, *kind, value)).await? else {
            continue;
        };
        for id in join.facts {
            if found.iter().any(|(_, _, known, _)| *known == id) {
                continue;
            }
            if let Some(facts) = txn.get::<FactsRow>(&keys::facts(tenant, source, &id)).await? {
                found.push((*kind, std::cmp::Reverse(facts.revision), id, facts));
            }
        }
    }
    found.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    Ok(found.into_iter().map(|(_, _, id, facts)| (id, facts)).collect())
}

/// The exact start that facts give, Unix milliseconds UTC.
pub fn exact_start_ms(values: &BTreeMap<String, String>) -> Option<i64> {
    number(values, fact::STARTED_AT).filter(|ms| in_calendar(*ms))
}

/// Instants that a name can carry.
fn in_calendar(ms: i64) -> bool {
    UtcSecond::from_unix_ms(ms).is_some()
}

/// The cells of a recording's row, from its facts and what the media alone tells.
pub fn details(told: &Told, values: BTreeMap<String, String>) -> Details {
    let duration_ms = told.duration_ms.or_else(|| number(&values, fact::DURATION_MS));
    let length = duration_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(0);
    let start_ms = exact_start_ms(&values)
        .or_else(|| told.known_start_ms())
        .unwrap_or_else(|| told.changed_ms.saturating_sub(length));
    let stop_ms = number(&values, fact::STOPPED_AT)
        .or(told.stop_ms)
        .or_else(|| start_ms.checked_add(length))
        .filter(|stop| *stop >= start_ms && in_calendar(*stop))
        .unwrap_or(start_ms);
    Details { start_ms, stop_ms, duration_ms, values }
}

fn number<N: std::str::FromStr>(values: &BTreeMap<String, String>, key: &str) -> Option<N> {
    values.get(key)?.parse().ok()
}

/// Adds or removes an id on one side of a join row.
pub async fn change(
    txn: &mut Txn<'_>,
    key: Vec<u8>,
    side: fn(&mut JoinRow) -> &mut Vec<String>,
    id: &str,
    present: bool,
) -> Result<bool, CatalogError> {
    let mut row = txn.get::<JoinRow>(&key).await?.unwrap_or_default();
    let ids = side(&mut row);
    match (ids.iter().position(|known| known == id), present) {
        (Some(at), false) => {
            ids.remove(at);
        }
        (None, true) if ids.len() < MAX_JOINED => ids.push(id.to_owned()),
        (None, true) => return Ok(false),
        _ => return Ok(true),
    }
    if row == JoinRow::default() {
        txn.delete(key);
    } else {
        txn.put(key, &row)?;
    }
    Ok(true)
}
