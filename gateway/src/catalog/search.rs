//! Finding recordings, page by page.
//!
//! What has a name is ordered by it, so a time range is a range of keys; a uid and a join key lead to their media
//! directly. Everything else is a filter over such a range. A page examines a bounded number of rows and then says
//! where it has stopped, found or not found: a search over millions of rows takes many pages, and between two of them
//! nothing is held, neither a lock nor a snapshot. The writer isn't asked at all.

use std::collections::{BTreeMap, BTreeSet};

use recgate_plugin_api::{JoinKind, fact};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Catalog, CatalogError, erase,
    erase::ErasedRow,
    join, keys,
    keys::Place,
    rows::{self, Condition, FactsRow, JoinRow, MediaRow, Recording},
    txn::Txn,
};
use crate::{
    layout::{RecordingName, UtcSecond},
    state::Pages,
};

/// Rows that one read of the store takes. Small, because they are decoded between two waits.
const CHUNK: usize = 512;

/// What has become of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Known, without a name yet.
    Learned,
    /// In the tree.
    Published,
    /// Without a name, because no facts came in time.
    Orphan,
    /// It has a name, and its media has vanished.
    Missing,
    /// It has a name, and its media has changed.
    Corrupt,
}

impl State {
    /// Whether recordings in this state have a name.
    pub fn has_name(self) -> bool {
        matches!(self, Self::Published | Self::Missing | Self::Corrupt)
    }
}

impl From<Condition> for State {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Sound => Self::Published,
            Condition::Missing => Self::Missing,
            Condition::Corrupt => Self::Corrupt,
        }
    }
}

/// What is searched for; everything that is given has to be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Recordings that start at this instant or later, Unix milliseconds UTC. Names have whole seconds, and what has a
    /// name is found by that.
    pub from_ms: Option<i64>,
    /// Recordings that start before this instant.
    pub until_ms: Option<i64>,
    /// Those in this state; `None`: all that have a name.
    pub state: Option<State>,
    /// Without a state, those without a name as well.
    pub any_state: bool,
    /// Those of this source.
    pub source: Option<u32>,
    /// A part of the agent's name, in any case.
    pub agent: Option<String>,
    /// Digits that the customer's or the called number has in a row. Other characters don't count.
    pub number: Option<String>,
    /// A part of the queue's name, in any case.
    pub queue: Option<String>,
    /// The source's id of the call, exactly.
    pub transaction: Option<String>,
}

impl Search {
    /// Whether a recording is searched for.
    pub fn matches(&self, found: &Found) -> bool {
        let state = match self.state {
            Some(state) => found.state == state,
            None => self.any_state || found.state.has_name(),
        };
        let start_ms = match found.place.and_then(second_of) {
            Some(second) => second.saturating_mul(1000),
            None => found.start_ms,
        };
        // A name that has lost its milliseconds counts for the whole of its second.
        let last_ms = if found.place.is_some() { start_ms.saturating_add(999) } else { start_ms };
        state
            && self.source.is_none_or(|source| source == found.source)
            && self.from_ms.is_none_or(|from| last_ms >= from)
            && self.until_ms.is_none_or(|until| start_ms < until)
            && self.matches_facts(&found.values)
    }

    fn matches_facts(&self, values: &BTreeMap<String, String>) -> bool {
        let value = |key: &str| values.get(key).map_or("", String::as_str);
        let part = |wanted: &Option<String>, key| {
            wanted.as_ref().is_none_or(|wanted| value(key).to_lowercase().contains(&wanted.to_lowercase()))
        };
        let number = |wanted: &String| {
            let wanted = digits(wanted);
            [fact::CUSTOMER_NUMBER, fact::CALLED_NUMBER]
                .iter()
                .any(|key| digits(value(key)).contains(&wanted))
        };
        part(&self.agent, fact::AGENT_NAME)
            && part(&self.queue, fact::QUEUE_NAME)
            && self.number.as_ref().is_none_or(number)
            && self.transaction.as_ref().is_none_or(|wanted| value(fact::TRANSACTION_ID) == wanted)
    }

    /// The first and the last second of a name that can match; `None` where none can.
    fn seconds(&self) -> Option<(UtcSecond, UtcSecond)> {
        let first = self.from_ms.unwrap_or(0).max(0).div_euclid(1000);
        let last = self.until_ms.unwrap_or(i64::MAX).saturating_sub(1).div_euclid(1000).min(LAST_SECOND);
        let (first, last) = (UtcSecond::from_unix_s(first)?, UtcSecond::from_unix_s(last)?);
        (first <= last).then_some((first, last))
    }
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn second_of(place: Place) -> Option<i64> {
    let day = crate::layout::UtcDay::from_number(place.day)?;
    UtcSecond::from_parts(day, place.second).map(UtcSecond::unix_s)
}

/// A recording that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its immutable id.
    pub uid: Uuid,
    /// What has become of it.
    pub state: State,
    /// Where it stands; `None` without a name.
    pub place: Option<Place>,
    /// Of its name; empty without one.
    pub extension: String,
    /// Where the media lies.
    pub source: u32,
    /// The media's id there.
    pub media: String,
    /// Bytes.
    pub size: u64,
    /// Start as facts or the media tell it now, Unix milliseconds UTC.
    pub start_ms: i64,
    /// Stop, in the same way.
    pub stop_ms: i64,
    /// Length of the audio, milliseconds.
    pub duration_ms: Option<u64>,
    /// Facts by their keys (`recgate_plugin_api::fact`).
    pub values: BTreeMap<String, String>,
}

impl Found {
    fn named(place: Place, recording: Recording) -> Self {
        let Recording { listed, frozen, details } = recording;
        Self {
            uid: Uuid::from_bytes(frozen.uid),
            state: listed.condition.into(),
            place: Some(place),
            extension: listed.extension,
            source: frozen.source,
            media: frozen.media,
            size: listed.size,
            start_ms: details.start_ms,
            stop_ms: details.stop_ms,
            duration_ms: details.duration_ms,
            values: details.values,
        }
    }
}

/// Where a page begins. Part of what callers keep as a cursor: only new variants may be added, at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// With the recording that stands here.
    Named(Place),
    /// With this medium of this source.
    Media(u32, String),
    /// With the orphan of this uid.
    Orphan([u8; 16]),
}

/// A page of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPage {
    /// What was found, maybe nothing although more pages follow.
    pub found: Vec<Found>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<Position>,
    /// Rows that were looked at.
    pub examined: usize,
}

/// How much a page may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Recordings that are found.
    pub found: usize,
    /// Rows that are looked at.
    pub examined: usize,
}

/// All that is known about a recording.
#[derive(Debug, Clone)]
pub struct Described {
    /// As a search finds it.
    pub found: Found,
    /// What the source told of the medium last.
    pub media: MediaRow,
    /// Its row, with what is frozen; `None` without a name.
    pub recording: Option<Recording>,
    /// Ids and rows of the facts that join it, the winning ones first.
    pub facts: Vec<(String, FactsRow)>,
    /// That its personal values were erased.
    pub erased: Option<ErasedRow>,
}

impl Catalog {
    /// Searches a tenant's recordings, from a position on that an earlier page told. A position of another kind of
    /// search is none.
    ///
    /// Media without a name are searched among all media of the tenant; where governance knows which they are, as it
    /// does of orphans, [`Catalog::search_among`] is faster.
    pub async fn search(
        &self,
        tenant: u32,
        search: &Search,
        from: Option<&Position>,
        bounds: Bounds,
    ) -> Result<SearchPage, CatalogError> {
        match search.state {
            Some(State::Learned | State::Orphan) => self.search_media(tenant, search, from, bounds).await,
            _ => self.search_named(tenant, search, from, bounds).await,
        }
    }

    async fn search_named(
        &self,
        tenant: u32,
        search: &Search,
        from: Option<&Position>,
        bounds: Bounds,
    ) -> Result<SearchPage, CatalogError> {
        let mut page = SearchPage::default();
        let Some((first, last)) = search.seconds() else { return Ok(page) };
        let (first, last) = (Place::new(first, 0), Place::new(last, u32::MAX));
        let start = match from {
            Some(Position::Named(place)) => first.max(*place),
            _ => first,
        };
        let mut pages =
            Pages::of(&*self.store, keys::recordings(tenant)).starting_at(keys::recording(tenant, start));
        while let Some(rows) = pages.next(chunk(&page, bounds)).await? {
            for row in &rows {
                let Some(place) = keys::place_of_recording(&row.key) else { continue };
                if place > last {
                    return Ok(page);
                }
                if page.is_full(bounds) {
                    page.next = Some(Position::Named(place));
                    return Ok(page);
                }
                page.examined += 1;
                // The first part of a row is enough to leave out most where few are missing.
                let listed = Recording::decode_listed(&row.value)?;
                if search.state.is_some_and(|state| state != listed.condition.into()) {
                    continue;
                }
                let found = Found::named(place, rows::decode(&row.value)?);
                if search.matches(&found) {
                    page.found.push(found);
                }
            }
        }
        Ok(page)
    }

    /// Media without a name; by source and id, as nothing else orders them.
    async fn search_media(
        &self,
        tenant: u32,
        search: &Search,
        from: Option<&Position>,
        bounds: Bounds,
    ) -> Result<SearchPage, CatalogError> {
        let prefix = match search.source {
            Some(source) => keys::media_of(tenant, source),
            None => keys::all_media(tenant),
        };
        let mut pages = Pages::of(&*self.store, prefix);
        if let Some(Position::Media(source, id)) = from {
            pages = pages.starting_at(keys::media(tenant, *source, id));
        }
        let mut page = SearchPage::default();
        while let Some(rows) = pages.next(chunk(&page, bounds)).await? {
            let mut txn = Txn::new(&*self.store);
            for row in &rows {
                let (Some(source), Some(id)) = (keys::source_of(&row.key), keys::id_of_media(&row.key))
                else {
                    continue;
                };
                if page.is_full(bounds) {
                    page.next = Some(Position::Media(source, id.to_owned()));
                    return Ok(page);
                }
                page.examined += 1;
                let media: MediaRow = rows::decode(&row.value)?;
                if media.place.is_some() {
                    continue;
                }
                let found = self.unnamed(&mut txn, tenant, source, id, &media).await?;
                if search.matches(&found) {
                    page.found.push(found);
                }
            }
        }
        Ok(page)
    }

    async fn unnamed(
        &self,
        txn: &mut Txn<'_>,
        tenant: u32,
        source: u32,
        id: &str,
        media: &MediaRow,
    ) -> Result<Found, CatalogError> {
        let values = join::joined(txn, tenant, source, &media.told).await?;
        let erased = txn.get::<ErasedRow>(&keys::erased_media(tenant, source, id)).await?.is_some();
        let values = values.into_iter().filter(|(key, _)| !(erased && erase::is_personal(key))).collect();
        let details = join::details(&media.told, values);
        Ok(Found {
            uid: Uuid::from_bytes(media.uid),
            state: if media.orphan { State::Orphan } else { State::Learned },
            place: None,
            extension: String::new(),
            source,
            media: id.to_owned(),
            size: media.told.size,
            start_ms: details.start_ms,
            stop_ms: details.stop_ms,
            duration_ms: details.duration_ms,
            values: details.values,
        })
    }

    /// Those of these media that are searched for, in their order. At most some hundreds: they are read at once.
    pub async fn search_among(
        &self,
        tenant: u32,
        search: &Search,
        media: &[(u32, String)],
    ) -> Result<Vec<Found>, CatalogError> {
        let mut txn = Txn::new(&*self.store);
        txn.prefetch(media.iter().map(|(source, id)| keys::media(tenant, *source, id))).await?;
        let mut found = Vec::new();
        for (source, id) in media {
            if let Some(one) = self.found(&mut txn, tenant, *source, id).await?
                && search.matches(&one)
            {
                found.push(one);
            }
        }
        Ok(found)
    }

    async fn found(
        &self,
        txn: &mut Txn<'_>,
        tenant: u32,
        source: u32,
        id: &str,
    ) -> Result<Option<Found>, CatalogError> {
        let Some(media) = txn.get::<MediaRow>(&keys::media(tenant, source, id)).await? else {
            return Ok(None);
        };
        if let Some(place) = media.place
            && let Some(recording) = txn.get::<Recording>(&keys::recording(tenant, place)).await?
        {
            return Ok(Some(Found::named(place, recording)));
        }
        self.unnamed(txn, tenant, source, id, &media).await.map(Some)
    }

    /// Media that have this join key, whatever its kind, in the order of source and id: at most 64 a kind and source.
    pub async fn media_with_key(&self, tenant: u32, value: &str) -> Result<Vec<(u32, String)>, CatalogError> {
        const KINDS: [JoinKind; 4] =
            [JoinKind::RecordingUuid, JoinKind::ObjectKey, JoinKind::ContactId, JoinKind::ConversationId];
        let mut media = BTreeSet::new();
        let mut sources = Pages::of(&*self.store, keys::sources(tenant));
        while let Some(rows) = sources.next(CHUNK).await? {
            let wanted: Vec<_> = rows
                .iter()
                .filter_map(|row| keys::source_of(&row.key))
                .flat_map(|source| KINDS.map(|kind| (source, keys::join(tenant, source, kind as u32, value))))
                .collect();
            let joins: Vec<_> = wanted.iter().map(|(_, key)| key.clone()).collect();
            for ((source, _), join) in wanted.into_iter().zip(self.store.get_many(&joins).await?) {
                if let Some(join) = join {
                    let join: JoinRow = rows::decode(&join.value)?;
                    media.extend(join.media.into_iter().map(|id| (source, id)));
                }
            }
        }
        Ok(media.into_iter().collect())
    }

    /// The source and id of the medium that has this uid.
    pub async fn media_with_uid(
        &self,
        tenant: u32,
        uid: Uuid,
    ) -> Result<Option<(u32, String)>, CatalogError> {
        self.row(&keys::uid(tenant, uid.as_bytes())).await
    }

    /// The source and id of the medium that has this name.
    pub async fn media_with_name(
        &self,
        tenant: u32,
        name: RecordingName,
    ) -> Result<Option<(u32, String)>, CatalogError> {
        let recording = self.recording(tenant, Place::new(name.second, name.sequence)).await?;
        Ok(recording
            .filter(|recording| recording.listed.extension == name.extension.as_str())
            .map(|recording| (recording.frozen.source, recording.frozen.media)))
    }

    /// All that is known about the recording of a medium.
    pub async fn describe(
        &self,
        tenant: u32,
        source: u32,
        id: &str,
    ) -> Result<Option<Described>, CatalogError> {
        let mut txn = Txn::new(&*self.store);
        let Some(found) = self.found(&mut txn, tenant, source, id).await? else { return Ok(None) };
        let Some(media) = txn.get::<MediaRow>(&keys::media(tenant, source, id)).await? else {
            return Ok(None);
        };
        let recording = match media.place {
            Some(place) => txn.get::<Recording>(&keys::recording(tenant, place)).await?,
            None => None,
        };
        let facts = join::joined_rows(&mut txn, tenant, source, &media.told).await?;
        let erased = txn.get(&keys::erased_media(tenant, source, id)).await?;
        Ok(Some(Described { found, media, recording, facts, erased }))
    }
}

impl SearchPage {
    fn is_full(&self, bounds: Bounds) -> bool {
        self.found.len() >= bounds.found || self.examined >= bounds.examined
    }
}

/// Rows to read next: what the page may still look at, and one more that says where the next page begins.
fn chunk(page: &SearchPage, bounds: Bounds) -> usize {
    let left = bounds.examined.saturating_sub(page.examined).saturating_add(1);
    left.min(CHUNK)
}

#[cfg(test)]
mod tests;
