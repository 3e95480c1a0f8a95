//! What must be so after each step, whatever has happened.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::*,
    driver::Done,
    model::{Mode, Shelf, Work, clock},
};
use crate::{
    catalog::{
        index::{index_row, is_wav},
        keys, rows,
    },
    layout::{IndexKind, append_row, header},
};

const TENANT: u32 = 7;
const SOURCE: u32 = 3;
const MINUTE: i64 = 60_000;

/// All that a catalog holds.
#[derive(Default)]
pub struct View {
    recordings: BTreeMap<Place, Recording>,
    media: BTreeMap<String, MediaRow>,
    /// Uids of media that have vanished before they got a name.
    vanished: BTreeMap<String, [u8; 16]>,
    roots: BTreeMap<LocalDay, (RootIndexRow, Vec<Place>, String)>,
    folders: BTreeMap<UtcDay, (FolderRow, Vec<Place>, [String; 3])>,
    counts: Counts,
    erasing: bool,
    orphans: BTreeSet<String>,
}

impl View {
    pub async fn of(catalog: &Catalog, governance: &Governance) -> Self {
        let mut view = Self { counts: catalog.counts(TENANT).await.unwrap(), ..Self::default() };
        for (key, row) in rows_of(catalog, keys::recordings(TENANT)).await {
            view.recordings.insert(keys::place_of_recording(&key).unwrap(), row);
        }
        for (key, row) in rows_of(catalog, keys::all_media(TENANT)).await {
            view.media.insert(keys::id_of_media(&key).unwrap().to_owned(), row);
        }
        for (key, uid) in rows_of(catalog, keys::vanished(TENANT, SOURCE, "")).await {
            view.vanished.insert(keys::id_of_media(&key).unwrap().to_owned(), uid);
        }
        for (key, row) in rows_of::<RootIndexRow>(catalog, keys::root_indexes(TENANT)).await {
            let day = LocalDay::from_number(keys::day_of(&key).unwrap()).unwrap();
            let order = rows_of(catalog, keys::local_order_of(TENANT, day)).await;
            let text = text_of(catalog, IndexPart::Root(day), row.file);
            view.roots.insert(day, (row, order.into_iter().map(|(_, place)| place).collect(), text));
        }
        for (key, row) in rows_of::<FolderRow>(catalog, keys::folders(TENANT)).await {
            let day = UtcDay::from_number(keys::day_of(&key).unwrap()).unwrap();
            let order = rows_of(catalog, keys::folder_order_of(TENANT, day)).await;
            let texts = [
                text_of(catalog, IndexPart::Brief(day), row.brief),
                text_of(catalog, IndexPart::Full(day), row.full),
                text_of(catalog, IndexPart::Media(day), row.media),
            ];
            view.folders.insert(day, (row, order.into_iter().map(|(_, place)| place).collect(), texts));
        }
        view.erasing = !rows_of::<[u8; 16]>(catalog, keys::all_erasing(TENANT)).await.is_empty();
        let (orphans, _) = governance.orphans(TENANT, None).await.unwrap();
        view.orphans = orphans.into_iter().map(|orphan| orphan.media).collect();
        view
    }

    fn row_text(&self, tenant: &Tenant, kind: IndexKind, place: Place) -> String {
        let row = index_row(tenant.name_form, place, &self.recordings[&place]).unwrap();
        let mut text = Vec::new();
        append_row(kind, &row, &tenant.zone, &mut text);
        String::from_utf8(text).unwrap()
    }

    /// The file that lists these, as it would be written now.
    fn index_text(&self, tenant: &Tenant, kind: IndexKind, places: &[Place]) -> String {
        let mut text = String::from_utf8(header(kind)).unwrap();
        places.iter().for_each(|place| text.push_str(&self.row_text(tenant, kind, *place)));
        text
    }

    /// Those in a folder that aren't missing, WAVs or others.
    fn listed(&self, places: &[Place], wavs: bool) -> Vec<Place> {
        let wanted = |place: &&Place| {
            let recording = &self.recordings[*place];
            recording.listed.condition != Condition::Missing && is_wav(recording) == wavs
        };
        places.iter().filter(wanted).copied().collect()
    }
}

async fn rows_of<T: serde::de::DeserializeOwned>(catalog: &Catalog, prefix: Vec<u8>) -> Vec<(Vec<u8>, T)> {
    let page = catalog.store.scan(&prefix, &prefix, 4096).await.unwrap();
    assert!(page.next.is_none(), "a history that is too large for its checks");
    page.rows.iter().map(|row| (row.key.to_vec(), rows::decode(&row.value).unwrap())).collect()
}

/// What readers see of a file; nothing where there is none.
fn text_of(catalog: &Catalog, part: IndexPart, file: IndexFile) -> String {
    if file.generation == 0 {
        return String::new();
    }
    let path = catalog.index_path(TENANT, part, file.generation);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let length = usize::try_from(file.length).unwrap();
    assert!(bytes.len() >= length, "{} is shorter than what it is said to be", path.display());
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// What was seen so far.
#[derive(Default)]
pub struct Checks {
    pub before: View,
    /// The clock was set back: of two files nobody knows any more which is the younger.
    set_back: bool,
    now_ms: i64,
    /// Media whose personal values were erased.
    erased: BTreeSet<String>,
}

macro_rules! ensure {
    ($so:expr, $($what:tt)+) => {
        if !$so {
            return Err(format!($($what)+));
        }
    };
}

impl Checks {
    /// Whether all is as it must be; else what isn't.
    pub fn after(
        &mut self,
        view: &View,
        shelf: &Shelf,
        tenant: &Tenant,
        work: Work,
        done: Done,
    ) -> Result<(), String> {
        self.set_back |= clock() < self.now_ms;
        self.now_ms = clock();
        if let (Work::Erase(n), Done::Well) = (work, done) {
            self.erased.insert(medium(n).id);
        }
        self.names(view, shelf, tenant)?;
        self.conditions(view, shelf, work, done)?;
        counts(view)?;
        self.roots(view, tenant, work, done)?;
        self.folders(view, tenant, work, done)?;
        self.untouched(view, tenant, work, done)?;
        self.erasures(view)?;
        match (work, done) {
            (Work::Scan, Done::Well) if shelf.mode == Mode::Well => told(view, shelf),
            (Work::Publish, Done::Well) => published(view, tenant),
            _ => Ok(()),
        }
    }

    /// One name a recording, for ever, and what it was given with it.
    fn names(&self, view: &View, shelf: &Shelf, tenant: &Tenant) -> Result<(), String> {
        for (place, before) in &self.before.recordings {
            let Some(now) = view.recordings.get(place) else {
                return Err(format!("{place:?} has lost its name"));
            };
            ensure!(
                now.frozen == before.frozen,
                "{place:?} became another: {:?}, {:?}",
                before.frozen,
                now.frozen
            );
            let fixed = |listed: &Listed| (listed.size, listed.modified, listed.extension.clone());
            ensure!(
                fixed(&now.listed) == fixed(&before.listed),
                "{place:?}: {:?}, {:?}",
                before.listed,
                now.listed
            );
        }
        for (id, before) in &self.before.media {
            let Some(now) = view.media.get(id) else {
                // Known no more, but for its uid: only what has no name may go so, and only if it is gone.
                let kept = view.vanished.get(id) == Some(&before.uid);
                ensure!(kept && before.place.is_none(), "{id} has lost its uid");
                let is_gone = shelf.mode == Mode::Well && !shelf.media.contains_key(id);
                ensure!(is_gone, "{id} is taken for gone by mistake");
                continue;
            };
            ensure!(now.uid == before.uid, "{id} has lost its uid");
            ensure!(before.place.is_none() || now.place == before.place, "{id} has lost its name");
        }
        for (id, uid) in &self.before.vanished {
            let now = view.media.get(id).map(|row| row.uid).or_else(|| view.vanished.get(id).copied());
            ensure!(now == Some(*uid), "{id} came back as another");
        }
        let mut owners = BTreeMap::new();
        for (id, row) in &view.media {
            let Some(place) = row.place else { continue };
            let other = owners.insert(place, id);
            ensure!(other.is_none(), "{id} and {other:?} have one name");
            let Some(recording) = view.recordings.get(&place) else {
                return Err(format!("{id} is not listed"));
            };
            ensure!(
                recording.frozen.media == *id && recording.frozen.uid == row.uid,
                "{id} has another's name"
            );
            let complete = shelf.complete.get(&(id.clone(), recording.frozen.version.clone()));
            ensure!(complete == Some(&recording.listed.size), "{id} was published before it was complete");
            let second = place.name("wav").unwrap().second;
            let day = tenant.zone.day_of(second.unix_s() * 1000).unwrap();
            ensure!(recording.frozen.local_day == day.number(), "{id} is on another local day than its name");
        }
        ensure!(owners.len() == view.recordings.len(), "a recording is nobody's");
        Ok(())
    }

    /// Nothing is missing or corrupt that the source didn't say is.
    fn conditions(&self, view: &View, shelf: &Shelf, work: Work, done: Done) -> Result<(), String> {
        for (place, now) in &view.recordings {
            let before =
                self.before.recordings.get(place).map_or(Condition::Sound, |before| before.listed.condition);
            let (id, is_now) = (&now.frozen.media, now.listed.condition);
            if before == is_now {
                continue;
            }
            let is_there = shelf.media.get(id);
            ensure!(
                work == Work::Scan || done == Done::Cut || matches!(work, Work::Watch(_)),
                "{id} became {is_now:?}"
            );
            match is_now {
                Condition::Missing => {
                    ensure!(shelf.mode == Mode::Well && is_there.is_none(), "{id} is missing by mistake");
                }
                Condition::Corrupt => {
                    let changed = is_there.is_some_and(|medium| medium.version != now.frozen.version);
                    ensure!(shelf.mode == Mode::Well && changed, "{id} is corrupt by mistake");
                }
                Condition::Sound => {
                    let same = is_there.is_some_and(|medium| medium.version == now.frozen.version);
                    ensure!(before == Condition::Missing && same, "{id} came back by mistake");
                }
            }
        }
        Ok(())
    }

    /// A row for each publication in the one index of its local day, in their order.
    fn roots(&self, view: &View, tenant: &Tenant, work: Work, done: Done) -> Result<(), String> {
        let mut listed = BTreeSet::new();
        for (day, (row, order, text)) in &view.roots {
            let publications: Vec<u64> =
                order.iter().map(|place| view.recordings[place].frozen.publication).collect();
            ensure!(publications.is_sorted_by(|a, b| a < b), "{day}: publications out of order");
            for place in order {
                ensure!(view.recordings[place].frozen.local_day == day.number(), "{place:?} is on {day}");
                ensure!(listed.insert(*place), "{place:?} is in two root indexes");
            }
            let before = self.before.roots.get(day).filter(|(before, ..)| before.file.generation != 0);
            if row.file.generation == 0 {
                ensure!(before.is_none(), "the root index of {day} is gone");
                continue;
            }
            let rows = usize::try_from(row.rows).unwrap();
            ensure!(rows <= order.len() && text.lines().count() == rows + 1, "{day}: {rows} rows, {text}");
            ensure!(
                row.dirty_since_ms.is_some() || rows == order.len(),
                "{day} lacks rows and is not behind"
            );
            if let Some((before, _, earlier)) =
                before.filter(|(before, ..)| before.file.generation == row.file.generation)
            {
                ensure!(
                    before.file == row.file && text == earlier,
                    "{day}: a published index became another: {before:?}, {row:?}"
                );
            } else {
                let expected = view.index_text(tenant, IndexKind::Root, &order[..rows]);
                // After a crash nobody knows which of two it is.
                ensure!(done == Done::Cut || *text == expected, "{day}: {text} is not {expected}");
                ensure!(
                    row.file.generation > before.map_or(0, |before| before.0.file.generation),
                    "{day}: {row:?}"
                );
                ensure!(
                    rows >= before.map_or(0, |(before, ..)| usize::try_from(before.rows).unwrap()),
                    "{day} lost rows"
                );
                let end = tenant.zone.end_of(*day).unwrap();
                let by_day = done == Done::Cut || work == Work::Publish || matches!(work, Work::Erase(_));
                ensure!(by_day || self.before.erasing, "{day} was published by {work:?}");
                ensure!(before.is_some() || end <= clock(), "{day} was published before its end");
            }
            if row.dirty_since_ms.is_none() {
                let expected = view.index_text(tenant, IndexKind::Root, order);
                ensure!(*text == expected, "{day}: {text} is not {expected}");
            }
        }
        ensure!(listed.len() == view.recordings.len(), "a recording is in no root index");
        Ok(())
    }

    /// As many rows as WAVs.
    fn folders(&self, view: &View, tenant: &Tenant, work: Work, done: Done) -> Result<(), String> {
        for (day, (row, order, texts)) in &view.folders {
            let files =
                [(IndexKind::Brief, row.brief), (IndexKind::Full, row.full), (IndexKind::Media, row.media)];
            for ((kind, file), text) in files.into_iter().zip(texts) {
                let wanted = view.listed(order, kind != IndexKind::Media);
                if row.dirty_since_ms.is_none() && (kind != IndexKind::Media || !wanted.is_empty()) {
                    let expected = view.index_text(tenant, kind, &wanted);
                    ensure!(*text == expected, "{day}, {kind:?}: {text} is not {expected}");
                }
                let Some((before, _, earlier)) = self.before.folders.get(day) else { continue };
                let (before, earlier) = match kind {
                    IndexKind::Brief => (before.brief, &earlier[0]),
                    IndexKind::Full => (before.full, &earlier[1]),
                    _ => (before.media, &earlier[2]),
                };
                if file.generation == before.generation {
                    ensure!(text.starts_with(earlier.as_str()), "{day}, {kind:?}: {earlier} became {text}");
                    ensure!(
                        file == before || file.length > before.length && file.modified >= before.modified,
                        "{day}, {kind:?}, {work:?} {done:?}: {before:?} became {file:?}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Where nothing was told, nothing has changed: not by a restart, and not by a loss of the catalog.
    fn untouched(&self, view: &View, tenant: &Tenant, work: Work, done: Done) -> Result<(), String> {
        if done != Done::Well || !matches!(work, Work::Restart | Work::Lose) || self.before.erasing {
            return Ok(());
        }
        ensure!(view.counts == self.before.counts, "{:?} became {:?}", self.before.counts, view.counts);
        let mut known = BTreeSet::new();
        for (day, (before, order, _)) in &self.before.folders {
            if before.dirty_since_ms.is_none() {
                let now = &view.folders[day].0;
                ensure!(now == before, "{day}: {before:?} became {now:?}");
                known.extend([self.before.listed(order, true), self.before.listed(order, false)].concat());
            }
        }
        for (day, (before, order, _)) in &self.before.roots {
            if before.file.generation != 0 {
                let now = &view.roots[day].0;
                ensure!(
                    now.file == before.file && now.rows == before.rows,
                    "{day}: {before:?} became {now:?}"
                );
                known.extend(order.iter().filter(|_| before.dirty_since_ms.is_none()));
            }
        }
        for place in known.into_iter().filter(|_| !self.set_back) {
            let (before, now) =
                [&self.before, view].map(|view| view.row_text(tenant, IndexKind::Root, place)).into();
            ensure!(before == now, "{before} became {now}");
        }
        Ok(())
    }

    /// What was erased is nowhere.
    fn erasures(&self, view: &View) -> Result<(), String> {
        for id in &self.erased {
            let name = format!("Agent {}", id.trim_end_matches(".wav"));
            let Some(row) = view.media.get(id) else { return Err(format!("{id} is gone")) };
            let recording = row.place.map(|place| &view.recordings[&place]);
            let personal =
                recording.and_then(|recording| recording.details.values.keys().find(|key| is_personal(key)));
            ensure!(personal.is_none(), "{id} has {personal:?} again");
            let is_name = |text: &String| {
                text.split([',', '\r']).any(|cell| cell == name || cell.contains(&format!("{name}.")))
            };
            let texts = view.roots.values().map(|(.., text)| text);
            let texts = texts.chain(view.folders.values().flat_map(|(.., texts)| texts));
            ensure!(view.erasing || !texts.into_iter().any(is_name), "{name} is in an index");
        }
        Ok(())
    }
}

/// The tenant's counters are what there is.
fn counts(view: &View) -> Result<(), String> {
    let number = |count: usize| u64::try_from(count).unwrap();
    let with =
        |condition| number(view.recordings.values().filter(|row| row.listed.condition == condition).count());
    let orphans: BTreeSet<String> =
        view.media.iter().filter(|(_, row)| row.orphan).map(|(id, _)| id.clone()).collect();
    let counted = Counts {
        learned: number(view.media.values().filter(|row| row.place.is_none()).count()),
        published: number(view.recordings.len()),
        orphans: number(orphans.len()),
        missing: with(Condition::Missing),
        corrupt: with(Condition::Corrupt),
    };
    ensure!(counted == view.counts, "there are {counted:?}, and {:?} are counted", view.counts);
    ensure!(orphans == view.orphans, "orphans are {orphans:?}, for governance {:?}", view.orphans);
    Ok(())
}

/// After a scan that was believed, what can be published is, and what is there isn't missing.
fn told(view: &View, shelf: &Shelf) -> Result<(), String> {
    for (id, medium) in &shelf.media {
        if !shelf.is_listed(id) {
            continue;
        }
        let Some(row) = view.media.get(id) else { return Err(format!("{id} was told and isn't known")) };
        match row.place.map(|place| &view.recordings[&place]) {
            Some(recording) => {
                let missing = recording.listed.condition == Condition::Missing;
                ensure!(!missing || medium.version != recording.frozen.version, "{id} is there and missing");
            }
            None => {
                let facts = shelf.facts.get(&format!("cdr-{}", id.trim_end_matches(".wav")));
                let known = facts.is_some_and(|facts| !facts.gone);
                ensure!(!known || medium.state != MediaState::Available, "{id} could be published and isn't");
            }
        }
    }
    Ok(())
}

/// After indexes were published, none is owed.
fn published(view: &View, tenant: &Tenant) -> Result<(), String> {
    for (day, (row, ..)) in &view.roots {
        let end = tenant.zone.end_of(*day).unwrap();
        ensure!(row.file.generation != 0 || clock() < end + 55 * MINUTE, "{day} is owed");
        let rested = clock() - row.file.modified * 1000 >= 5 * MINUTE || clock() < row.file.modified * 1000;
        let behind = row.file.generation != 0 && row.dirty_since_ms.is_some();
        ensure!(!behind || !rested || clock() < end, "{day} is behind: {row:?}");
    }
    for (day, (row, ..)) in &view.folders {
        let rested = row.dirty_since_ms.is_some_and(|since| clock() - since >= MINUTE / 2);
        ensure!(!rested, "{day} is behind: {row:?}");
    }
    Ok(())
}
