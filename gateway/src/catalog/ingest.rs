//! What sources tell becomes rows: media, facts, their joining, and from both the decision to publish.

use std::collections::{BTreeMap, BTreeSet};

use recgate_plugin_api::{Facts, Item, Media, MediaState};
use uuid::Uuid;

use super::{
    Catalog, CatalogError, Writer, apply,
    entries::{Entry, Learned, Published, Subject},
    erase,
    index::{New, index_row, is_wav},
    join, keys,
    keys::Place,
    naming, recover,
    rows::{
        self, Condition, DueRow, FactsRow, JoinRow, MediaRow, Recording, RootIndexRow, TenantRow, Told,
        numbered,
    },
    txn::Txn,
    unmatched,
};
use crate::{
    config::{Source, Tenant, Unmatched},
    layout::{Extension, LocalDay, NameForm, RecordingName, UtcSecond},
};

/// What came of a batch of items.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Media that were new.
    pub learned: u64,
    /// Recordings that got their name.
    pub published: u64,
    /// Published media that were told with another version than the one that is served. They have to be
    /// confirmed before they are believed: (media id, pinned version).
    pub changed: Vec<(String, String)>,
    /// How many published media were told with another version, those that are known to have changed included.
    pub differing: u64,
    /// Media that were told by an id that differs from a known one's only in case, and are taken for that: the id that
    /// was told, and the known one.
    pub respelled: Vec<(String, String)>,
    /// Sets of facts that were left out, because too many wait for media.
    pub left_out: u64,
    /// Things that sources must not tell, for the log.
    pub complaints: Vec<String>,
}

impl Catalog {
    /// Takes what a source has told.
    ///
    /// # Errors
    ///
    /// It must be told again. Names may have been given all the same.
    pub async fn ingest(
        &self,
        tenant: &Tenant,
        source: &Source,
        items: Vec<Item>,
        now_ms: i64,
    ) -> Result<Ingested, CatalogError> {
        let lost = self.lost(tenant.id, source.id).await;
        let ingested = self.ingest_on(tenant, source, items, now_ms).await?;
        self.settle(tenant.id, source.id, lost).await?;
        Ok(ingested)
    }

    /// The same for who has more to come: it is on its way to the disk when this returns, and readers see it later.
    /// At the end comes [`Catalog::settle`], which says whether all of it is kept.
    pub async fn ingest_on(
        &self,
        tenant: &Tenant,
        source: &Source,
        items: Vec<Item>,
        now_ms: i64,
    ) -> Result<Ingested, CatalogError> {
        let mut writer = self.writer.lock().await;
        let mut work = Work::new(self, &mut writer, tenant, source, now_ms).await?;
        work.prefetch(&items).await?;
        let mut told = BTreeSet::new();
        // Media first: facts that come with theirs needn't be remembered as waiting.
        let (facts, media): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| matches!(item, Item::Facts(_)));
        for item in media.into_iter().chain(facts) {
            match item {
                Item::Media(media) => {
                    if !told.insert(media.id.clone()) {
                        work.complain(format!("the id {:?} was told twice in one batch", media.id));
                        continue;
                    }
                    work.media(media).await?;
                }
                Item::MediaGone(id) => work.gone(&id),
                Item::Facts(facts) => work.facts(facts).await?,
            }
        }
        for media in std::mem::take(&mut work.touched) {
            work.evaluate(&media, false).await?;
        }
        work.commit_on().await
    }

    /// Media of a source whose wait for facts had ended at `until_ms`, a page from `from` on.
    pub async fn due(
        &self,
        tenant: &Tenant,
        source: &Source,
        until_ms: i64,
        from: Option<Vec<u8>>,
    ) -> Result<(Vec<String>, Option<Vec<u8>>), CatalogError> {
        let prefix = keys::due_of(tenant.id);
        let page = self.store.scan(&prefix, from.as_deref().unwrap_or(&prefix), super::PAGE).await?;
        let mut media = Vec::new();
        for row in &page.rows {
            if keys::parse_due(&row.key).is_none_or(|(at, _)| at > until_ms) {
                return Ok((media, None));
            }
            let due: DueRow = rows::decode(&row.value)?;
            if due.source == source.id {
                media.push(due.media);
            }
        }
        Ok((media, page.next))
    }

    /// Decides about media whose wait for facts has ended. Only after a complete scan that began after that
    /// end is it certain that the facts were not just still unread.
    pub async fn process_due(
        &self,
        tenant: &Tenant,
        source: &Source,
        media: &[String],
        now_ms: i64,
    ) -> Result<Ingested, CatalogError> {
        let mut writer = self.writer.lock().await;
        let mut work = Work::new(self, &mut writer, tenant, source, now_ms).await?;
        work.txn.prefetch(media.iter().map(|id| keys::media(tenant.id, source.id, id))).await?;
        for id in media {
            work.evaluate(id, true).await?;
        }
        work.commit().await
    }

    /// Records that media have vanished (`Missing`) or changed (`Corrupt`). Confirm it first.
    pub async fn mark(
        &self,
        tenant: &Tenant,
        source: &Source,
        media: &[String],
        condition: Condition,
        now_ms: i64,
    ) -> Result<u64, CatalogError> {
        let mut writer = self.writer.lock().await;
        let mut work = Work::new(self, &mut writer, tenant, source, now_ms).await?;
        let mut marked = 0;
        for id in media {
            marked += u64::from(work.mark(id, condition).await?);
        }
        work.commit().await?;
        Ok(marked)
    }
}

/// A batch in the making.
struct Work<'a> {
    catalog: &'a Catalog,
    writer: &'a mut Writer,
    tenant: &'a Tenant,
    source: &'a Source,
    now_ms: i64,
    /// Something of the tenant was erased once, so that marks have to be looked for.
    erasures: bool,
    /// Something of the tenant is known from index files alone.
    recovered: bool,
    txn: Txn<'a>,
    entries: Vec<Entry>,
    /// Media whose facts or state have changed.
    touched: BTreeSet<String>,
    /// New names, in the order of publication.
    named: Vec<New>,
    outcome: Ingested,
}

impl<'a> Work<'a> {
    async fn new(
        catalog: &'a Catalog,
        writer: &'a mut Writer,
        tenant: &'a Tenant,
        source: &'a Source,
        now_ms: i64,
    ) -> Result<Self, CatalogError> {
        let pending = catalog.pending(writer, (tenant.id, source.id)).await?;
        // What a batch that was given up has taken is free.
        if std::mem::replace(&mut writer.unsent, true) {
            writer.sequences.clear();
        }
        let erasures = catalog.has_erasures(writer, tenant.id).await?;
        let recovered = catalog.has_recovered(writer, tenant.id).await?;
        Ok(Self {
            catalog,
            writer,
            tenant,
            source,
            now_ms,
            erasures,
            recovered,
            txn: Txn::after(pending, &*catalog.store),
            entries: Vec::new(),
            touched: BTreeSet::new(),
            named: Vec::new(),
            outcome: Ingested::default(),
        })
    }

    fn complain(&mut self, what: String) {
        if self.outcome.complaints.len() < 16 {
            self.outcome.complaints.push(what);
        }
    }

    /// Reads what the items will ask for, in three large reads instead of many small ones.
    async fn prefetch(&mut self, items: &[Item]) -> Result<(), CatalogError> {
        let (tenant, source) = (self.tenant.id, self.source.id);
        let mut rows = Vec::new();
        let mut joins = Vec::new();
        for item in items {
            let item_keys = match item {
                Item::Media(media) => {
                    rows.push(keys::media(tenant, source, &media.id));
                    rows.push(keys::vanished(tenant, source, &media.id));
                    &media.keys
                }
                Item::Facts(facts) => {
                    rows.push(keys::facts(tenant, source, &facts.id));
                    &facts.keys
                }
                Item::MediaGone(_) => continue,
            };
            if self.erasures {
                rows.extend(erase::mark_of(tenant, source, item));
            }
            joins.extend(item_keys.iter().map(|key| keys::join(tenant, source, key.kind as u32, &key.value)));
        }
        self.txn.prefetch(rows).await?;
        self.txn.prefetch(joins.iter().cloned()).await?;
        self.prefetch_names(items).await?;
        let mut members = Vec::new();
        for key in &joins {
            // Beyond this, what is needed is read singly.
            if members.len() >= 4096 {
                break;
            }
            if let Some(join) = self.txn.get::<JoinRow>(key).await? {
                members.extend(join.media.iter().map(|id| keys::media(tenant, source, id)));
                if self.erasures {
                    members.extend(join.media.iter().map(|id| keys::erased_media(tenant, source, id)));
                }
                members.extend(join.facts.iter().map(|id| keys::facts(tenant, source, id)));
            }
        }
        self.txn.prefetch(members).await
    }

    /// The places that media without a name would like to have.
    async fn prefetch_names(&mut self, items: &[Item]) -> Result<(), CatalogError> {
        let mut places = Vec::new();
        for item in items {
            let Item::Media(Media { id, preferred_name: Some(name), .. }) = item else { continue };
            let key = keys::media(self.tenant.id, self.source.id, id);
            let named = self.txn.get::<MediaRow>(&key).await?.is_some_and(|row| row.place.is_some());
            if let (false, Some(name)) = (named, RecordingName::parse(name, NameForm::Long)) {
                places.push(keys::recording(self.tenant.id, Place::new(name.second, name.sequence)));
            }
        }
        self.txn.prefetch(places).await
    }

    async fn media(&mut self, media: Media) -> Result<(), CatalogError> {
        let (tenant, source) = (self.tenant.id, self.source.id);
        let key = keys::media(tenant, source, &media.id);
        let told = Told::new(&media);
        let Some(mut row) = self.txn.get::<MediaRow>(&key).await? else {
            if let Some(known) = self.other_spelling(&media.id, &told).await? {
                self.complain(format!(
                    "media {:?}: its id differs from {known:?} only in case, and nothing else differs: taken for that",
                    media.id
                ));
                self.outcome.respelled.push((media.id, known));
                return Ok(());
            }
            return self.learn(&media, told).await;
        };
        if row.told == told {
            return Ok(());
        }
        if let Some(place) = row.place {
            return self.published_told(key, row, place, &media.id, told).await;
        }
        self.rejoin(&media.id, &row.told.keys, &told.keys).await?;
        self.forget_due(&row);
        row.due_ms = Some(self.due_of(&told));
        row.told = told;
        self.remember_due(&row, &media.id)?;
        self.txn.put(key, &row)?;
        self.touched.insert(media.id);
        Ok(())
    }

    /// The id of a known medium that is the same but for its case, as a storage shows it that doesn't tell cases apart:
    /// with the same version, and found by a key, by the name that it had, or in lower case. A second recording of it
    /// would have a second name.
    async fn other_spelling(&mut self, id: &str, told: &Told) -> Result<Option<String>, CatalogError> {
        let (tenant, source, folded) = (self.tenant.id, self.source.id, id.to_lowercase());
        let mut candidates = BTreeSet::from([folded.clone()]);
        for (kind, value) in &told.keys {
            let join = self.txn.get::<JoinRow>(&keys::join(tenant, source, *kind, value)).await?;
            candidates.extend(join.map(|join| join.media).unwrap_or_default());
        }
        if let Some(name) = told.preferred_name() {
            let place = keys::recording(tenant, Place::new(name.second, name.sequence));
            let holder = self.txn.get::<Recording>(&place).await?.map(|recording| recording.frozen);
            candidates.extend(holder.filter(|frozen| frozen.source == source).map(|frozen| frozen.media));
        }
        for known in candidates.into_iter().filter(|known| known != id && known.to_lowercase() == folded) {
            let row = self.txn.get::<MediaRow>(&keys::media(tenant, source, &known)).await?;
            if row.is_some_and(|row| !told.version.is_empty() && row.told.version == told.version) {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }

    async fn learn(&mut self, media: &Media, told: Told) -> Result<(), CatalogError> {
        let (uid, is_new) = self.uid_for(media).await?;
        let learned = Learned {
            tenant: self.tenant.id,
            uid,
            source: self.source.id,
            media: media.id.clone(),
            version: media.version.clone(),
        };
        self.rejoin(&media.id, &[], &told.keys).await?;
        let row = MediaRow {
            uid: *learned.uid.as_bytes(),
            place: None,
            due_ms: Some(self.due_of(&told)),
            orphan: false,
            told,
        };
        // Most media have their facts at once: then the mark that they wait never comes to the store.
        if let (true, Some(at)) = (is_new, row.due_ms) {
            self.txn.is_new(keys::due(self.tenant.id, at, &row.uid));
        }
        apply::learned(&mut self.txn, &learned, &row).await?;
        self.entries.push(Entry::Learned(learned));
        self.remember_due(&row, &media.id)?;
        self.touched.insert(media.id.clone());
        self.outcome.learned += 1;
        Ok(())
    }

    /// The uid of a medium that isn't known: its own if it had vanished, else the one that it brings, else a new one; and
    /// whether nobody has seen it before.
    async fn uid_for(&mut self, media: &Media) -> Result<(Uuid, bool), CatalogError> {
        let own = keys::vanished(self.tenant.id, self.source.id, &media.id);
        if let Some(own) = self.txn.get::<[u8; 16]>(&own).await? {
            return Ok((Uuid::from_bytes(own), false));
        }
        let Some(told) = media.uid else { return Ok((Uuid::now_v7(), true)) };
        if self.txn.get::<(u32, String)>(&keys::uid(self.tenant.id, &told)).await?.is_some() {
            // Two media of one uid would share names, locks and audit.
            self.complain(format!("media {:?}: its uid is another recording's", media.id));
            return Ok((Uuid::now_v7(), true));
        }
        Ok((Uuid::from_bytes(told), false))
    }

    /// A published medium was told otherwise than before.
    async fn published_told(
        &mut self,
        key: Vec<u8>,
        mut row: MediaRow,
        place: Place,
        id: &str,
        told: Told,
    ) -> Result<(), CatalogError> {
        let Some(recording) = self.txn.get::<Recording>(&keys::recording(self.tenant.id, place)).await?
        else {
            return Err(CatalogError::Row(format!("media {id:?} points to a recording that isn't there")));
        };
        if recording.frozen.version != told.version {
            // A file that is being copied back isn't another one: what it is shows when it is whole.
            if told.is_unfinished() {
                return Ok(());
            }
            self.outcome.differing += 1;
            if recording.listed.condition != Condition::Corrupt {
                self.outcome.changed.push((id.to_owned(), recording.frozen.version));
            }
            return Ok(());
        }
        self.rejoin(id, &row.told.keys, &told.keys).await?;
        row.told = told;
        self.txn.put(key, &row)?;
        self.touched.insert(id.to_owned());
        if recording.listed.condition != Condition::Sound {
            // The version says which content it is, so one that had changed is as it was, too.
            self.set_condition(id, place, recording, Condition::Sound).await?;
        }
        Ok(())
    }

    /// An announcement that a medium is gone is only a hint: what vanishes is confirmed after full scans.
    fn gone(&mut self, id: &str) {
        tracing::debug!(source = %self.source.name, media = id, "announced as gone");
    }

    async fn facts(&mut self, mut facts: Facts) -> Result<(), CatalogError> {
        let (tenant, source) = (self.tenant.id, self.source.id);
        if self.erasures && erase::are_erased(&mut self.txn, tenant, source, &facts.id).await? {
            facts.values.retain(|(key, _)| !erase::is_personal(key));
        }
        let key = keys::facts(tenant, source, &facts.id);
        let known = self.txn.get::<FactsRow>(&key).await?;
        let mut row = FactsRow {
            revision: facts.revision,
            gone: facts.gone,
            keys: numbered(&facts.keys),
            values: facts.values,
            unmatched_since: known.as_ref().and_then(|known| known.unmatched_since),
        };
        if known.as_ref().is_some_and(|known| known.revision > row.revision || *known == row) {
            return Ok(());
        }
        if known.as_ref().is_some_and(|known| known.revision == row.revision) {
            self.complain(format!(
                "facts {:?}: told again otherwise, with the same revision; what was told last counts",
                facts.id
            ));
        }
        let waits = known.is_none() || row.unmatched_since.is_some();
        let joined = waits && unmatched::joins_media(&mut self.txn, tenant, source, &row.keys).await?;
        let wanted = (tenant, source, facts.id.as_str());
        match row.unmatched_since {
            Some(age_ms) if joined => {
                unmatched::let_go(&mut self.txn, wanted, age_ms).await?;
                row.unmatched_since = None;
            }
            None if waits && !joined => {
                let age_ms = unmatched::age(&row.values, self.now_ms);
                if !unmatched::take_in(&mut self.txn, self.catalog.unmatched_max, wanted, age_ms).await? {
                    self.outcome.left_out = self.outcome.left_out.saturating_add(1);
                    return Ok(());
                }
                row.unmatched_since = Some(age_ms);
            }
            _ => {}
        }
        let old = known.map(|known| known.keys).unwrap_or_default();
        for (kind, value) in old.iter().filter(|key| !row.keys.contains(key)) {
            let key = keys::join(tenant, source, *kind, value);
            self.touch_joined(&key).await?;
            join::change(&mut self.txn, key, |row| &mut row.facts, &facts.id, false).await?;
        }
        for (kind, value) in &row.keys {
            let key = keys::join(tenant, source, *kind, value);
            if !join::change(&mut self.txn, key.clone(), |row| &mut row.facts, &facts.id, true).await? {
                self.complain(format!("facts {:?}: more than {} share a key", facts.id, join::MAX_JOINED));
            }
            self.touch_joined(&key).await?;
        }
        self.txn.put(key, &row)
    }

    async fn touch_joined(&mut self, join: &[u8]) -> Result<(), CatalogError> {
        if let Some(row) = self.txn.get::<JoinRow>(join).await? {
            self.touched.extend(row.media);
        }
        Ok(())
    }

    async fn rejoin(
        &mut self,
        id: &str,
        old: &[(u32, String)],
        new: &[(u32, String)],
    ) -> Result<(), CatalogError> {
        let (tenant, source) = (self.tenant.id, self.source.id);
        for (kind, value) in old.iter().filter(|key| !new.contains(key)) {
            let key = keys::join(tenant, source, *kind, value);
            join::change(&mut self.txn, key, |row| &mut row.media, id, false).await?;
        }
        for (kind, value) in new {
            let key = keys::join(tenant, source, *kind, value);
            if !join::change(&mut self.txn, key, |row| &mut row.media, id, true).await? {
                self.complain(format!("media {id:?}: more than {} share a key", join::MAX_JOINED));
            }
        }
        unmatched::matched(&mut self.txn, tenant, source, new).await
    }

    fn due_of(&self, told: &Told) -> i64 {
        let wait = i64::try_from(self.source.metadata_wait.as_millis()).unwrap_or(i64::MAX);
        // A storage whose clock runs ahead must not make the wait longer than it is.
        told.changed_ms.min(self.now_ms).saturating_add(wait)
    }

    fn remember_due(&mut self, row: &MediaRow, id: &str) -> Result<(), CatalogError> {
        match row.due_ms {
            Some(at) => self.txn.put(
                keys::due(self.tenant.id, at, &row.uid),
                &DueRow { source: self.source.id, media: id.to_owned() },
            ),
            None => Ok(()),
        }
    }

    fn forget_due(&mut self, row: &MediaRow) {
        if let Some(at) = row.due_ms {
            self.txn.delete(keys::due(self.tenant.id, at, &row.uid));
        }
    }

    /// Publishes a medium, or changes the cells of a published one, as its facts say by now. With `waited` its
    /// wait for facts is over.
    async fn evaluate(&mut self, id: &str, waited: bool) -> Result<(), CatalogError> {
        let key = keys::media(self.tenant.id, self.source.id, id);
        let Some(mut row) = self.txn.get::<MediaRow>(&key).await? else { return Ok(()) };
        let mut values = join::joined(&mut self.txn, self.tenant.id, self.source.id, &row.told).await?;
        let (tenant, source) = (self.tenant.id, self.source.id);
        if self.recovered && row.place.is_some() && !values.is_empty() {
            values = recover::completed(&mut self.txn, tenant, source, id, &row.told, values).await?;
        }
        if self.erasures {
            values = erase::without_erased(&mut self.txn, tenant, source, id, &row.told, values).await?;
        }
        if let Some(place) = row.place {
            self.forget_due(&row);
            return self.refresh(place, &row.told, values).await;
        }
        let exact = join::exact_start_ms(&values).is_some()
            || waited && (row.told.places_itself() || self.source.unmatched == Unmatched::Publish);
        let publish = row.told.is_publishable() && exact;
        if publish && !row.told.version.is_empty() {
            self.forget_due(&row);
            return self.publish(id, row, values).await;
        }
        if !waited {
            return Ok(());
        }
        self.forget_due(&row);
        row.due_ms = None;
        let failed = row.told.state == MediaState::Failed as u32;
        if (failed || row.told.is_publishable()) && !row.orphan && !row.told.version.is_empty() {
            let subject = self.subject(id, &row.uid);
            apply::orphaned(&mut self.txn, &subject, row).await?;
            self.entries.push(Entry::Orphaned(subject));
            return Ok(());
        }
        self.txn.put(key, &row)
    }

    async fn publish(
        &mut self,
        id: &str,
        row: MediaRow,
        values: BTreeMap<String, String>,
    ) -> Result<(), CatalogError> {
        let details = join::details(&row.told, values);
        let preferred = naming::preferred(&row.told, &details);
        let second =
            preferred.map_or_else(|| UtcSecond::from_unix_ms(details.start_ms), |name| Some(name.second));
        let (Some(second), Some(local_day)) = (second, self.tenant.zone.day_of(details.start_ms)) else {
            self.complain(format!(
                "media {id:?}: a start of {} ms is outside the calendar",
                details.start_ms
            ));
            let key = keys::media(self.tenant.id, self.source.id, id);
            return self.txn.put(key, &MediaRow { due_ms: None, ..row });
        };
        let counters: TenantRow = self.txn.get(&keys::tenant(self.tenant.id)).await?.unwrap_or_default();
        let sequence = preferred.map(|name| name.sequence);
        let sequences = &mut self.writer.sequences;
        let sequence = sequences.give(&mut self.txn, self.tenant.id, second, sequence).await?;
        let extension = preferred.map_or_else(|| extension(&row.told.media_type, id), |name| name.extension);
        let published = Published {
            tenant: self.tenant.id,
            uid: Uuid::from_bytes(row.uid),
            source: self.source.id,
            media: id.to_owned(),
            version: row.told.version.clone(),
            start_ms: details.start_ms,
            stop_ms: details.stop_ms,
            duration_ms: details.duration_ms,
            day: second.day().number(),
            second: second.second_of_day(),
            sequence,
            extension: extension.as_str().to_owned(),
            local_day: local_day.number(),
            publication: counters.next_publication,
            size: row.told.size,
            modified: details.stop_ms.div_euclid(1000),
            header_patch: row.told.header_patch.clone(),
        };
        let shown = self.running_index(local_day).await?;
        let recording = apply::published(
            &mut self.txn,
            &published,
            Some(MediaRow { due_ms: None, ..row }),
            details,
            self.now_ms,
        )
        .await?;
        let mut running = None;
        if let Some(before) = shown {
            // It is appended to, which leaves it no further behind than it was.
            self.txn.put(keys::root_index(self.tenant.id, local_day), &before)?;
            running = Some(local_day);
        }
        let row = index_row(self.tenant.name_form, Place::new(second, sequence), &recording)?;
        self.named.push(New { row, wav: is_wav(&recording), running });
        self.entries.push(Entry::Published(published));
        self.outcome.published += 1;
        Ok(())
    }

    /// The root index of a day, if it is shown while the day runs.
    async fn running_index(&mut self, day: LocalDay) -> Result<Option<RootIndexRow>, CatalogError> {
        if !self.tenant.live_index {
            return Ok(None);
        }
        let row = self.txn.get::<RootIndexRow>(&keys::root_index(self.tenant.id, day)).await?;
        Ok(row.filter(|row| row.running && row.file.generation != 0))
    }

    /// Facts that come late change cells, never what was frozen.
    async fn refresh(
        &mut self,
        place: Place,
        told: &Told,
        values: BTreeMap<String, String>,
    ) -> Result<(), CatalogError> {
        let key = keys::recording(self.tenant.id, place);
        let Some(mut recording) = self.txn.get::<Recording>(&key).await? else { return Ok(()) };
        // Facts that a source has forgotten leave the cells as they were: the row is a record, not a mirror.
        if values.is_empty() {
            return Ok(());
        }
        let details = join::details(told, values);
        if recording.details == details {
            return Ok(());
        }
        let form = self.tenant.name_form;
        let before = index_row(form, place, &recording)?;
        recording.details = details;
        let says_the_same = before.reads_like(&index_row(form, place, &recording)?);
        self.txn.put(key, &recording)?;
        // What no index shows must not have them written anew.
        if says_the_same { Ok(()) } else { self.rows_changed(place, recording.frozen.local_day).await }
    }

    /// Indexes that hold a row of this recording have to be written anew.
    async fn rows_changed(&mut self, place: Place, local_day: i32) -> Result<(), CatalogError> {
        apply::folder_changed(&mut self.txn, self.tenant.id, place, self.now_ms).await?;
        apply::root_index_changed(&mut self.txn, self.tenant.id, local_day, self.now_ms).await
    }

    async fn mark(&mut self, id: &str, condition: Condition) -> Result<bool, CatalogError> {
        let key = keys::media(self.tenant.id, self.source.id, id);
        let Some(mut row) = self.txn.get::<MediaRow>(&key).await? else { return Ok(false) };
        let Some(place) = row.place else {
            // Without a name no client has seen it; it is learned anew if it comes back.
            if condition == Condition::Missing {
                let subject = self.subject(id, &row.uid);
                apply::vanished(&mut self.txn, &subject, row).await?;
                self.entries.push(Entry::Vanished(subject));
            }
            return Ok(false);
        };
        let Some(recording) = self.txn.get::<Recording>(&keys::recording(self.tenant.id, place)).await?
        else {
            return Ok(false);
        };
        apply::forget_version(&mut self.txn, key, &mut row)?;
        if recording.listed.condition == condition || recording.listed.condition == Condition::Corrupt {
            return Ok(false);
        }
        self.set_condition(id, place, recording, condition).await?;
        Ok(true)
    }

    async fn set_condition(
        &mut self,
        id: &str,
        place: Place,
        mut recording: Recording,
        condition: Condition,
    ) -> Result<(), CatalogError> {
        let subject = self.subject(id, &recording.frozen.uid);
        self.entries.push(match condition {
            Condition::Missing => Entry::Missing(subject),
            Condition::Sound => Entry::Returned(subject),
            Condition::Corrupt => Entry::Corrupt(subject),
        });
        apply::condition(&mut self.txn, self.tenant.id, place, &mut recording, condition).await
    }

    fn subject(&self, id: &str, uid: &[u8; 16]) -> Subject {
        Subject {
            tenant: self.tenant.id,
            uid: Uuid::from_bytes(*uid),
            source: self.source.id,
            media: id.to_owned(),
        }
    }

    /// Sends it on its way, and waits until it has arrived.
    async fn commit(self) -> Result<Ingested, CatalogError> {
        let catalog = self.catalog;
        let (ingested, writer) = self.write().await?;
        catalog.settle_pending(writer).await?;
        Ok(ingested)
    }

    /// The same without waiting.
    async fn commit_on(self) -> Result<Ingested, CatalogError> {
        Ok(self.write().await?.0)
    }

    async fn write(mut self) -> Result<(Ingested, &'a mut Writer), CatalogError> {
        if self.txn.is_empty() && self.entries.is_empty() {
            self.writer.unsent = false;
            return Ok((self.outcome, self.writer));
        }
        let appends = self.catalog.plan_appends(&mut self.txn, self.tenant, &self.named, self.now_ms).await?;
        let whose = (self.tenant.id, self.source.id);
        self.catalog.record_on(self.writer, whose, self.txn, self.entries, appends).await?;
        self.writer.unsent = false;
        Ok((self.outcome, self.writer))
    }
}

/// By media type; else by the id's own ending; else `bin`.
fn extension(media_type: &str, id: &str) -> Extension {
    Extension::from_media_type(media_type)
        .or_else(|| Extension::parse(id.rsplit_once('.')?.1).ok())
        .unwrap_or_else(|| Extension::parse("bin").unwrap_or(Extension::WAV))
}
