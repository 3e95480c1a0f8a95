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
///
/// Facts of equally strong keys complete each other as long as they agree. Of those that don't, the lesser revision says
/// nothing at all: a record of the call that was made anew, under another id, must not leave cells of the old one in
/// the row.
pub async fn joined(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    told: &Told,
) -> Result<BTreeMap<String, String>, CatalogError> {
    let ranked = ranked(txn, tenant, source, told).await?;
    Ok(joint(ranked.into_iter().map(|(kind, _, facts)| (kind, facts))))
}

/// The values of facts with the kinds of their keys, the winning ones first.
fn joint(ranked: impl Iterator<Item = (u32, FactsRow)>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    // What the facts of one kind say together.
    let (mut current, mut said) = (0, BTreeMap::<String, String>::new());
    for (kind, facts) in ranked.filter(|(_, facts)| !facts.gone) {
        if kind != current {
            fill(&mut values, std::mem::take(&mut said));
            current = kind;
        }
        let agrees = |(key, value): &(String, String)| said.get(key).is_none_or(|other| other == value);
        if facts.values.iter().all(agrees) {
            fill(&mut said, facts.values);
        }
    }
    fill(&mut values, said);
    values
}

fn fill(values: &mut BTreeMap<String, String>, more: impl IntoIterator<Item = (String, String)>) {
    for (key, value) in more {
        values.entry(key).or_insert(value);
    }
}

/// All facts that join a medium with their ids, the winning ones first; those that are withdrawn are among them.
pub async fn joined_rows(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    told: &Told,
) -> Result<Vec<(String, FactsRow)>, CatalogError> {
    let ranked = ranked(txn, tenant, source, told).await?;
    Ok(ranked.into_iter().map(|(_, id, facts)| (id, facts)).collect())
}

/// The same with the kinds of the keys.
async fn ranked(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    told: &Told,
) -> Result<Vec<(u32, String, FactsRow)>, CatalogError> {
    let mut found: Vec<(u32, String, FactsRow)> = Vec::new();
    for (kind, value) in &told.keys {
        let Some(join) = txn.get::<JoinRow>(&keys::join(tenant, source, *kind, value)).await? else {
            continue;
        };
        for id in join.facts {
            if let Some(known) = found.iter_mut().find(|(_, known, _)| *known == id) {
                // Media may list their keys in any order; the strongest one counts.
                known.0 = known.0.min(*kind);
                continue;
            }
            if let Some(facts) = txn.get::<FactsRow>(&keys::facts(tenant, source, &id)).await? {
                found.push((*kind, id, facts));
            }
        }
    }
    let rank =
        |(kind, id, facts): &(u32, String, FactsRow)| (*kind, std::cmp::Reverse(facts.revision), id.clone());
    found.sort_by_cached_key(rank);
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(values: &[(&str, &str)]) -> FactsRow {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        FactsRow { revision: 1, gone: false, keys: Vec::new(), values, unmatched_since: None }
    }

    fn of(ranked: Vec<(u32, FactsRow)>) -> String {
        let pairs: Vec<_> =
            joint(ranked.into_iter()).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(" ")
    }

    #[test]
    fn facts_that_contradict_better_ones_say_nothing() {
        let inbound = facts(&[("call_type", "Inbound"), ("agent", "A")]);
        let outbound = facts(&[("call_type", "Outbound"), ("called", "123")]);
        assert_eq!(of(vec![(1, inbound.clone()), (1, outbound.clone())]), "agent=A call_type=Inbound");
        assert_eq!(of(vec![(1, outbound.clone()), (1, inbound.clone())]), "call_type=Outbound called=123");

        // Those that agree complete each other, also behind one that doesn't.
        let sidecar = facts(&[("call_type", "Inbound"), ("queue", "Q")]);
        assert_eq!(
            of(vec![(1, inbound.clone()), (1, outbound.clone()), (1, sidecar)]),
            "agent=A call_type=Inbound queue=Q"
        );

        // A weaker key's facts fill what is left, and are compared with their like alone.
        let weak = facts(&[("call_type", "Outbound"), ("case", "7")]);
        let weaker = facts(&[("case", "8"), ("account", "9")]);
        assert_eq!(
            of(vec![(1, inbound.clone()), (2, weak), (2, weaker)]),
            "agent=A call_type=Inbound case=7"
        );

        // What is withdrawn contradicts nobody.
        let gone = FactsRow { gone: true, ..inbound };
        assert_eq!(of(vec![(1, gone), (1, outbound)]), "call_type=Outbound called=123");
        assert_eq!(of(Vec::new()), "");
    }
}
