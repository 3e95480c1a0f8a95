//! What the admin API asks of the running gateway about recordings and indexes.

use std::{
    fs::File,
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Shared,
    asked::{Cursor, failed, invalid, local_day, recording_name, rows_of, search_of, source_named},
    now_ms,
    report::{names, row, zoned},
};
use crate::{
    admin::records::{
        EraseReport, EraseRequest, ErasedReport, IndexContent, IndexFileKind, IndexListAnswer,
        IndexListRequest, IndexShowRequest, OperationError, RecordingReport, Records, RepublishReport,
        RepublishRequest, SearchAnswer, SearchRequest, SharedReport, ShowRequest,
    },
    catalog::{
        Actor, Bounds, CatalogError, ErasedRow, Erasure, IndexPart, Marked, Place, Position, Search,
        SearchPage, State,
    },
    config::Tenant,
    layout::UtcDay,
    state::Notes,
};

/// Rows of the catalog that one request looks at: some tens of milliseconds of work, in small pieces.
const EXAMINED: usize = 20_000;
/// Media that are looked up at once.
const AT_ONCE: usize = 256;
/// How long a request waits for index files to be written.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether they are.
const LOOK: Duration = Duration::from_millis(100);
/// Days that one request may have written anew: ten years.
const MOST_DAYS: i32 = 3660;
/// Characters of a reason.
const LONGEST_REASON: usize = 1000;

impl From<CatalogError> for OperationError {
    fn from(error: CatalogError) -> Self {
        failed(error)
    }
}

#[async_trait]
impl Records for Shared {
    async fn search(&self, request: SearchRequest) -> Result<SearchAnswer, OperationError> {
        let mut bounds = Bounds { found: rows_of(request.limit)?, examined: EXAMINED };
        let cursor = request.after.as_deref().map(Cursor::parse).transpose()?;
        let tenants = self.tenants_named(request.tenant.as_deref())?;
        if let Some(source) = &request.source
            && !tenants.iter().any(|tenant| source_named(tenant, source).is_some())
        {
            return Err(invalid("source", format!("there is no source {source:?}; name one, or its number")));
        }
        // What is wrong with the request shows whatever is found.
        for tenant in &tenants {
            search_of(tenant, &request)?;
        }
        let mut answer = SearchAnswer::default();
        for tenant in &tenants {
            let from = match &cursor {
                Some(cursor) if tenant.id < cursor.tenant => continue,
                Some(cursor) if tenant.id == cursor.tenant => cursor.position.clone(),
                _ => None,
            };
            if bounds.found == 0 || bounds.examined == 0 {
                answer.after = Some(Cursor { tenant: tenant.id, position: None }.text()?);
                break;
            }
            let Some(search) = search_of(tenant, &request)? else { continue };
            let page = self.search_page(tenant, &request, &search, from, bounds).await?;
            bounds.found = bounds.found.saturating_sub(page.found.len());
            bounds.examined = bounds.examined.saturating_sub(page.examined);
            answer.examined = answer.examined.saturating_add(page.examined as u64);
            answer.recordings.extend(page.found.into_iter().map(|found| row(tenant, found, request.utc)));
            if let Some(position) = page.next {
                answer.after = Some(Cursor { tenant: tenant.id, position: Some(position) }.text()?);
                break;
            }
        }
        Ok(answer)
    }

    async fn show(&self, request: ShowRequest) -> Result<RecordingReport, OperationError> {
        let (tenant, source, media) = self.locate(&request.recording, request.tenant.as_deref()).await?;
        let described = self.data.catalog.describe(tenant.id, source, &media).await?;
        let described = described.ok_or_else(|| nothing(&request.recording))?;
        let erased = match &described.erased {
            Some(erased) => Some(self.erased(&tenant, erased, request.utc).await?),
            None => None,
        };
        let row = row(&tenant, described.found.clone(), request.utc);
        Ok(super::report::recording(&tenant, row, &described, erased, request.utc))
    }

    async fn erase_facts(&self, request: EraseRequest, by: Actor) -> Result<EraseReport, OperationError> {
        let reason = request.reason.trim();
        if !request.dry_run && !(1..=LONGEST_REASON).contains(&reason.chars().count()) {
            return Err(invalid("reason", format!("say why, in 1 to {LONGEST_REASON} characters")));
        }
        let (tenant, source, media) = self.locate(&request.recording, request.tenant.as_deref()).await?;
        let catalog = Arc::clone(&self.data.catalog);
        let gone = || nothing(&request.recording);
        let erasure = catalog.plan_erasure(tenant.id, source, &media).await?.ok_or_else(gone)?;
        if request.dry_run || !erasure.is_needed {
            let owed = !request.dry_run && self.wait_for_erasure(&erasure).await?;
            return self.erase_report(&tenant, &erasure, request.dry_run, owed).await;
        }
        let notes = Notes::new(&self.dir);
        let text = reason.to_owned();
        let note = blocking(move || notes.write(&text)).await?;
        // To its end, although whoever asked may have gone.
        let id = tenant.id;
        let erased =
            tokio::spawn(
                async move { catalog.erase_facts(id, source, &media, by, Some(note), now_ms()).await },
            );
        let erasure = erased.await.map_err(failed)??.ok_or_else(gone)?;
        if !erasure.is_needed {
            // Somebody else was quicker.
            let notes = Notes::new(&self.dir);
            blocking(move || notes.erase(note)).await?;
        }
        tracing::info!(tenant = %tenant.name, uid = %erasure.subject.uid, %by, facts = erasure.facts.len(), "personal values of a recording's facts were erased");
        self.house_wake.notify_one();
        let owed = self.wait_for_erasure(&erasure).await?;
        self.erase_report(&tenant, &erasure, false, owed).await
    }

    async fn indexes(&self, request: IndexListRequest) -> Result<IndexListAnswer, OperationError> {
        let limit = rows_of(request.limit)?;
        let day =
            |field, text: &Option<String>| text.as_deref().map(|text| local_day(field, text)).transpose();
        let (first, last) = (day("from", &request.from)?, day("until", &request.until)?);
        let cursor = request.after.as_deref().map(Cursor::parse).transpose()?;
        let now = now_ms();
        let mut answer = IndexListAnswer::default();
        for tenant in &self.tenants_named(request.tenant.as_deref())? {
            let mut from = match &cursor {
                Some(cursor) if tenant.id < cursor.tenant => continue,
                Some(cursor) if tenant.id == cursor.tenant => cursor.day().max(first),
                _ => first,
            };
            loop {
                let (indexed, next) = self.data.catalog.indexed(tenant, from).await?;
                for index in indexed {
                    if last.is_some_and(|last| index.day > last) {
                        break;
                    }
                    if answer.indexes.len() >= limit {
                        let place = Place { day: index.day.number(), second: 0, sequence: 0 };
                        let cursor = Cursor { tenant: tenant.id, position: Some(Position::Named(place)) };
                        answer.after = Some(cursor.text()?);
                        return Ok(answer);
                    }
                    answer.indexes.push(super::report::index(tenant, &index, now));
                }
                match next.filter(|next| last.is_none_or(|last| *next <= last)) {
                    Some(next) => from = Some(next),
                    None => break,
                }
            }
        }
        Ok(answer)
    }

    async fn open_index(&self, request: IndexShowRequest) -> Result<IndexContent, OperationError> {
        let tenant = self.one_tenant(request.tenant.as_deref())?;
        let catalog = &self.data.catalog;
        // A generation that is replaced between the look-up and the open is looked up again.
        for _ in 0..3 {
            let day = local_day("day", &request.day)?;
            let utc_day = UtcDay::from_number(day.number());
            let (part, file) = match (request.file, utc_day) {
                (IndexFileKind::Root, _) => {
                    (IndexPart::Root(day), catalog.root_index(tenant.id, day).await?.map(|row| row.file))
                }
                (kind, Some(day)) => {
                    let row = catalog.folder(tenant.id, day).await?;
                    match kind {
                        IndexFileKind::Full => (IndexPart::Full(day), row.map(|row| row.full)),
                        IndexFileKind::Media => (IndexPart::Media(day), row.map(|row| row.media)),
                        _ => (IndexPart::Brief(day), row.map(|row| row.brief)),
                    }
                }
                (_, None) => return Err(invalid("day", "there is no folder of a day before 1970")),
            };
            let Some(file) = file.filter(|file| file.generation != 0) else {
                return Err(OperationError::NotFound(format!(
                    "tenant {} has no such index of {}: none is published",
                    tenant.name,
                    day.date()
                )));
            };
            let path = catalog.index_path(tenant.id, part, file.generation);
            let opened = tokio::task::spawn_blocking(move || File::open(path)).await.map_err(failed)?;
            match opened {
                Ok(opened) => return Ok(IndexContent { file: opened, length: file.length }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(OperationError::Failed("the index is being written anew; try again".to_owned()))
    }

    async fn republish(&self, request: RepublishRequest) -> Result<RepublishReport, OperationError> {
        let tenant = self.one_tenant(request.tenant.as_deref())?;
        let first = local_day("from", &request.from)?;
        let last = request.until.as_deref().map_or(Ok(first), |text| local_day("until", text))?;
        if last < first {
            return Err(invalid("until", "the last date is before the first"));
        }
        if last.number().saturating_sub(first.number()) >= MOST_DAYS {
            return Err(invalid("until", format!("at most {MOST_DAYS} days at once")));
        }
        let (catalog, id) = (Arc::clone(&self.data.catalog), tenant.id);
        let asked = Arc::clone(&tenant);
        let marked = tokio::spawn(async move { catalog.mark_for_republication(&asked, first, last).await });
        let marked = marked.await.map_err(failed)??;
        if marked == Marked::default() {
            return Err(OperationError::NotFound(format!(
                "tenant {} has no index of {}{}",
                tenant.name,
                first.date(),
                if last == first { String::new() } else { format!(" to {}", last.date()) }
            )));
        }
        tracing::info!(tenant = %tenant.name, from = %first, until = %last, "indexes are to be written anew");
        self.house_wake.notify_one();
        let end = Instant::now() + PATIENCE;
        let mut still = self.data.catalog.still_marked(id, &marked).await?;
        while !(still.roots.is_empty() && still.folders.is_empty()) && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
            still = self.data.catalog.still_marked(id, &still).await?;
        }
        Ok(super::report::republished(&tenant, &marked, &still))
    }
}

impl Shared {
    /// The tenant of this name, or all by ascending id.
    fn tenants_named(&self, name: Option<&str>) -> Result<Vec<Arc<Tenant>>, OperationError> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let mut tenants: Vec<_> = running.values().map(|running| Arc::clone(&running.tenant)).collect();
        drop(running);
        tenants.sort_by_key(|tenant| tenant.id);
        let Some(name) = name else { return Ok(tenants) };
        match tenants.iter().find(|tenant| tenant.name == name) {
            Some(tenant) => Ok(vec![Arc::clone(tenant)]),
            None => {
                Err(invalid("tenant", format!("there is no tenant {name:?}; there is {}", names(&tenants))))
            }
        }
    }

    /// The tenant of this name, or the only one.
    fn one_tenant(&self, name: Option<&str>) -> Result<Arc<Tenant>, OperationError> {
        let tenants = self.tenants_named(name)?;
        match tenants.as_slice() {
            [tenant] => Ok(Arc::clone(tenant)),
            _ => Err(invalid("tenant", format!("say which: {}", names(&tenants)))),
        }
    }

    /// A page of one tenant's recordings, found on the shortest way.
    async fn search_page(
        &self,
        tenant: &Tenant,
        request: &SearchRequest,
        search: &Search,
        from: Option<Position>,
        bounds: Bounds,
    ) -> Result<SearchPage, OperationError> {
        let catalog = &self.data.catalog;
        if let Some(name) = &request.name {
            let name = recording_name(name, tenant)
                .ok_or_else(|| invalid("name", format!("{name:?} is no name of a recording")))?;
            let media = catalog.media_with_name(tenant.id, name).await?;
            let media: Vec<_> = media.into_iter().collect();
            let found = catalog.search_among(tenant.id, search, &media).await?;
            // Both have to be so.
            let found = match &request.contact {
                Some(contact) => {
                    let known = catalog.media_with_key(tenant.id, contact).await?;
                    found
                        .into_iter()
                        .filter(|found| {
                            known.iter().any(|(source, id)| *source == found.source && *id == found.media)
                        })
                        .collect()
                }
                None => found,
            };
            return Ok(SearchPage { examined: media.len(), found, next: None });
        }
        if let Some(contact) = &request.contact {
            let media = catalog.media_with_key(tenant.id, contact).await?;
            let position = |(source, id): &(u32, String)| Position::Media(*source, id.clone());
            let first = match &from {
                Some(Position::Media(source, id)) => {
                    media.partition_point(|(known, other)| (known, other.as_str()) < (source, id.as_str()))
                }
                _ => 0,
            };
            let rest = media.get(first..).unwrap_or_default();
            return self.among(tenant, search, rest, position, bounds).await;
        }
        let counts = catalog.counts(tenant.id).await?;
        let none = match search.state {
            Some(State::Missing) => counts.missing == 0,
            Some(State::Corrupt) => counts.corrupt == 0,
            Some(State::Orphan) => counts.orphans == 0,
            Some(State::Learned) => counts.learned <= counts.orphans,
            Some(State::Published) | None => false,
        };
        if none {
            return Ok(SearchPage::default());
        }
        if search.state == Some(State::Orphan) {
            return self.orphans(tenant, search, from, bounds).await;
        }
        Ok(catalog.search(tenant.id, search, from.as_ref(), bounds).await?)
    }

    /// Orphans, as governance knows them.
    async fn orphans(
        &self,
        tenant: &Tenant,
        search: &Search,
        from: Option<Position>,
        bounds: Bounds,
    ) -> Result<SearchPage, OperationError> {
        let mut page = SearchPage::default();
        let mut from = match from {
            Some(Position::Orphan(uid)) => uid,
            _ => [0; 16],
        };
        loop {
            let left = Bounds {
                found: bounds.found.saturating_sub(page.found.len()),
                examined: bounds.examined.saturating_sub(page.examined),
            };
            if left.found == 0 || left.examined == 0 {
                page.next = Some(Position::Orphan(from));
                return Ok(page);
            }
            let limit = AT_ONCE.min(left.found).min(left.examined);
            let (orphans, next) =
                self.data.governance.orphans_from(tenant.id, from, limit).await.map_err(failed)?;
            let media: Vec<_> = orphans.into_iter().map(|orphan| (orphan.source, orphan.media)).collect();
            page.examined = page.examined.saturating_add(media.len());
            page.found.extend(self.data.catalog.search_among(tenant.id, search, &media).await?);
            match next {
                Some(next) => from = next,
                None => return Ok(page),
            }
        }
    }

    /// Those of these media that are searched for.
    async fn among(
        &self,
        tenant: &Tenant,
        search: &Search,
        mut media: &[(u32, String)],
        position: impl Fn(&(u32, String)) -> Position,
        bounds: Bounds,
    ) -> Result<SearchPage, OperationError> {
        let mut page = SearchPage::default();
        while let Some(first) = media.first() {
            let left = bounds.found.saturating_sub(page.found.len());
            let left = left.min(bounds.examined.saturating_sub(page.examined));
            if left == 0 {
                page.next = Some(position(first));
                break;
            }
            let (some, rest) = media.split_at(left.min(AT_ONCE).min(media.len()));
            page.examined = page.examined.saturating_add(some.len());
            page.found.extend(self.data.catalog.search_among(tenant.id, search, some).await?);
            media = rest;
        }
        Ok(page)
    }

    /// Whose recording it is, and which medium.
    async fn locate(
        &self,
        recording: &str,
        tenant: Option<&str>,
    ) -> Result<(Arc<Tenant>, u32, String), OperationError> {
        let uid = Uuid::try_parse(recording).ok();
        let mut found = Vec::new();
        let mut is_name = false;
        for tenant in self.tenants_named(tenant)? {
            let media = match (uid, recording_name(recording, &tenant)) {
                (Some(uid), _) => self.data.catalog.media_with_uid(tenant.id, uid).await?,
                (None, Some(name)) => {
                    is_name = true;
                    self.data.catalog.media_with_name(tenant.id, name).await?
                }
                (None, None) => None,
            };
            if let Some((source, media)) = media {
                found.push((tenant, source, media));
            }
        }
        if uid.is_none() && !is_name {
            return Err(invalid(
                "recording",
                format!("{recording:?} is neither a uid nor a recording's name"),
            ));
        }
        if found.len() > 1 {
            let tenants: Vec<_> = found.into_iter().map(|(tenant, ..)| tenant).collect();
            let names = names(&tenants);
            return Err(invalid("tenant", format!("{names} have a recording {recording}; say whose")));
        }
        found.pop().ok_or_else(|| nothing(recording))
    }

    /// Waits until an erasure's index files are written; says whether they still aren't.
    async fn wait_for_erasure(&self, erasure: &Erasure) -> Result<bool, OperationError> {
        let end = Instant::now() + PATIENCE;
        while self.data.catalog.is_erasing(erasure).await? {
            if Instant::now() >= end {
                return Ok(true);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(false)
    }

    async fn erased(
        &self,
        tenant: &Tenant,
        erased: &ErasedRow,
        utc: bool,
    ) -> Result<ErasedReport, OperationError> {
        let reason = match erased.note {
            Some(note) => {
                let notes = Notes::new(&self.dir);
                blocking(move || notes.read(note)).await?
            }
            None => None,
        };
        Ok(ErasedReport { at: zoned(erased.at_ms, &tenant.zone, utc), by: erased.by.to_string(), reason })
    }

    async fn erase_report(
        &self,
        tenant: &Tenant,
        erasure: &Erasure,
        dry_run: bool,
        owed: bool,
    ) -> Result<EraseReport, OperationError> {
        let before = match &erasure.before {
            Some(before) => Some(self.erased(tenant, before, false).await?),
            None => None,
        };
        let described =
            self.data.catalog.describe(tenant.id, erasure.subject.source, &erasure.subject.media).await?;
        let path = described.and_then(|described| {
            let row = row(tenant, described.found, false);
            Some(format!("{}/{}", row.folder?, row.name?))
        });
        Ok(EraseReport {
            tenant: tenant.name.clone(),
            uid: erasure.subject.uid,
            path,
            dry_run,
            before,
            needed: erasure.is_needed,
            values: erasure.values.iter().cloned().collect(),
            facts: erasure.facts.clone(),
            shared: erasure
                .shared
                .iter()
                .map(|(facts, recordings)| SharedReport {
                    facts: facts.clone(),
                    recordings: recordings.clone(),
                })
                .collect(),
            indexes: if erasure.is_needed { super::report::index_files(erasure) } else { Vec::new() },
            owed,
        })
    }
}

fn nothing(recording: &str) -> OperationError {
    OperationError::NotFound(format!("there is no recording {recording}"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, OperationError> {
    tokio::task::spawn_blocking(work).await.map_err(failed)?.map_err(failed)
}
