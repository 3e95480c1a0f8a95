//! What can happen, and the storage that it happens to.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::prelude::*;

use super::super::*;

/// Media that there may be.
const MEDIA: u32 = 24;

/// 2016-11-05T20:00:00Z, 13:00 in Los Angeles, the day before clocks are set back there.
pub const BEGIN: i64 = 1_478_376_000_000;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

thread_local! {
    static CLOCK: Cell<i64> = const { Cell::new(BEGIN) };
}

/// The time of the history that this thread lives through.
pub fn clock() -> i64 {
    CLOCK.get()
}

pub fn set_clock(ms: i64) {
    CLOCK.set(ms.max(BEGIN - 48 * HOUR));
}

/// A step of a history.
#[derive(Debug, Clone)]
pub enum Step {
    Media(u32, Medium),
    Facts(u32, Fact),
    Source(Mode),
    /// The source leaves this one out, though it has it, or no longer.
    Hide(u32, bool),
    /// It tells this one twice in each scan.
    Twice(u32),
    /// The clock goes on, or back; minutes.
    Clock(i64),
    Work(Work, Fault),
}

#[derive(Debug, Clone, Copy)]
pub enum Medium {
    /// It comes, so many minutes after its start, with or without its facts.
    Appears {
        ago: i64,
        growing: bool,
        facts: bool,
    },
    Grows,
    Ends,
    Replaced,
    Vanishes,
    Returns,
}

#[derive(Debug, Clone, Copy)]
pub enum Fact {
    Told,
    /// The agent is another.
    Corrected,
    /// The start is another, by so many seconds.
    Moved(i64),
    /// Other facts say something else about the same medium.
    Contradicted,
    Withdrawn,
    Forgotten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Well,
    Down,
    /// A scan tells half and fails.
    Cut,
    /// A scan tells nothing and goes well.
    Unmounted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Scan,
    /// A watch tells a medium and its facts.
    Watch(u32),
    Publish,
    Erase(u32),
    Restart,
    /// A restart without the catalog's file.
    Lose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The power goes in the midst of the so many-th change of the disk, or at the end.
    Power(u64),
    /// The gateway is killed after so many steps of its own, or at the end.
    Kill(u32),
}

/// A step of any kind.
pub fn step() -> impl Strategy<Value = Step> {
    let ago = prop_oneof![Just(0), Just(0), Just(1), Just(90), Just(9 * 60), Just(26 * 60)];
    let medium = prop_oneof![
        6 => (ago, any::<bool>(), any::<bool>())
            .prop_map(|(ago, growing, facts)| Medium::Appears { ago, growing: growing && facts, facts }),
        1 => Just(Medium::Grows),
        2 => Just(Medium::Ends),
        1 => Just(Medium::Replaced),
        2 => Just(Medium::Vanishes),
        1 => Just(Medium::Returns),
    ];
    let fact = prop_oneof![
        2 => Just(Fact::Told),
        2 => Just(Fact::Corrected),
        1 => (-2..3_i64).prop_map(Fact::Moved),
        1 => Just(Fact::Contradicted),
        1 => Just(Fact::Withdrawn),
        2 => Just(Fact::Forgotten),
    ];
    let mode = prop_oneof![4 => Just(Mode::Well), 1 => Just(Mode::Down), 1 => Just(Mode::Cut), 1 => Just(Mode::Unmounted)];
    let clock = prop_oneof![Just(1), Just(6), Just(61), Just(6 * 60), Just(24 * 60), Just(-10), Just(-90)];
    let work = prop_oneof![
        8 => Just(Work::Scan),
        2 => (0..MEDIA).prop_map(Work::Watch),
        6 => Just(Work::Publish),
        1 => (0..MEDIA).prop_map(Work::Erase),
        1 => Just(Work::Restart),
        2 => Just(Work::Lose),
    ];
    let fault = prop_oneof![
        6 => Just(Fault::None),
        1 => (0..40_u64).prop_map(Fault::Power),
        1 => (0..60_u32).prop_map(Fault::Kill),
    ];
    prop_oneof![
        12 => (0..MEDIA, medium).prop_map(|(n, medium)| Step::Media(n, medium)),
        4 => (0..MEDIA, fact).prop_map(|(n, fact)| Step::Facts(n, fact)),
        2 => mode.prop_map(Step::Source),
        1 => (0..MEDIA, any::<bool>()).prop_map(|(n, hidden)| Step::Hide(n, hidden)),
        1 => (0..MEDIA).prop_map(Step::Twice),
        4 => clock.prop_map(Step::Clock),
        14 => (work, fault).prop_map(|(work, fault)| Step::Work(work, fault)),
    ]
}

/// What a storage holds.
pub struct Shelf {
    pub media: BTreeMap<String, Media>,
    pub facts: BTreeMap<String, Facts>,
    pub mode: Mode,
    hidden: BTreeSet<String>,
    twice: Option<String>,
    /// Media that were taken away.
    aside: BTreeMap<String, Media>,
    /// Id and version of all that was ever complete, with its size.
    pub complete: BTreeMap<(String, String), u64>,
    starts: BTreeMap<u32, i64>,
    revisions: u64,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            media: BTreeMap::new(),
            facts: BTreeMap::new(),
            mode: Mode::Well,
            hidden: BTreeSet::new(),
            twice: None,
            aside: BTreeMap::new(),
            complete: BTreeMap::new(),
            starts: BTreeMap::new(),
            revisions: 0,
        }
    }
}

impl Shelf {
    pub fn medium(&mut self, n: u32, change: Medium) {
        let id = medium(n).id;
        match change {
            Medium::Appears { ago, growing, facts } => {
                if self.media.contains_key(&id) || self.aside.contains_key(&id) {
                    return;
                }
                // Few enough instants that many share one.
                let start = (clock() - ago * MINUTE).div_euclid(MINUTE) * MINUTE;
                self.starts.insert(n, start);
                let state = if growing { MediaState::Growing } else { MediaState::Available };
                let media_type = if n.is_multiple_of(5) { "video/webm" } else { "audio/wav" };
                let new = Media { changed_ms: clock(), state, media_type: media_type.into(), ..medium(n) };
                self.media.insert(id.clone(), new);
                if facts {
                    self.fact(n, Fact::Told);
                }
            }
            Medium::Grows => self.version(&id, MediaState::Growing),
            Medium::Replaced => self.version(&id, MediaState::Available),
            Medium::Ends => {
                if let Some(medium) = self.media.get_mut(&id) {
                    medium.state = MediaState::Available;
                }
            }
            Medium::Vanishes => {
                if let Some(medium) = self.media.remove(&id) {
                    self.aside.insert(id.clone(), medium);
                }
            }
            Medium::Returns => {
                if let Some(medium) = self.aside.remove(&id) {
                    self.media.insert(id.clone(), medium);
                }
            }
        }
        if let Some(medium) = self.media.get(&id).filter(|medium| medium.state == MediaState::Available) {
            self.complete.insert((id, medium.version.clone()), medium.size);
        }
    }

    fn version(&mut self, id: &str, state: MediaState) {
        let Some(medium) = self.media.get_mut(id) else { return };
        medium.size += 100;
        medium.version = format!("{id}-{}", medium.size);
        medium.changed_ms = clock();
        medium.state = state;
    }

    pub fn fact(&mut self, n: u32, change: Fact) {
        let Some(start) = self.starts.get(&n).copied() else { return };
        self.revisions += 1;
        let revision = self.revisions;
        let id = facts(n, start).id;
        match change {
            Fact::Told => {
                let told = self.facts.entry(id).or_insert_with(|| facts(n, start));
                told.gone = false;
                told.revision = revision;
            }
            Fact::Corrected => self.change(&id, |facts| facts.values[2].1 = format!("Agent {n}.{revision}")),
            Fact::Moved(seconds) => {
                self.change(&id, |facts| facts.values[0].1 = (start + seconds * 1000 + 7).to_string());
            }
            Fact::Contradicted => {
                let mut other = facts(n, start + 3000);
                other.id = format!("other-{n}");
                other.revision = revision;
                other.values[2].1 = format!("Agent {n}.other{revision}");
                other.values.push((fact::WRAP_UP_CODE.into(), format!("=Agent {n}.code")));
                self.facts.insert(other.id.clone(), other);
            }
            Fact::Withdrawn => self.change(&id, |facts| facts.gone = true),
            Fact::Forgotten => {
                self.facts.remove(&id);
            }
        }
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Facts)) {
        if let Some(facts) = self.facts.get_mut(id) {
            change(facts);
            facts.revision = self.revisions;
        }
    }

    pub fn hide(&mut self, n: u32, hidden: bool) {
        match hidden {
            true => self.hidden.insert(medium(n).id),
            false => self.hidden.remove(&medium(n).id),
        };
    }

    pub fn twice(&mut self, n: u32) {
        self.twice = Some(medium(n).id);
    }

    /// What a watch tells of a medium.
    pub fn items_of(&self, n: u32) -> Vec<Item> {
        let media = self.media.get(&medium(n).id).cloned().map(Item::Media);
        let facts = self.facts.get(&facts(n, 0).id).cloned().map(Item::Facts);
        media.into_iter().chain(facts).collect()
    }

    pub fn is_listed(&self, id: &str) -> bool {
        self.media.contains_key(id) && !self.hidden.contains(id)
    }

    fn items(&self) -> Vec<Item> {
        let listed = self.media.values().filter(|medium| !self.hidden.contains(&medium.id)).cloned();
        let again =
            self.twice.as_ref().filter(|id| !self.hidden.contains(*id)).and_then(|id| self.media.get(id));
        let media = listed.chain(again.cloned()).map(Item::Media);
        media.chain(self.facts.values().cloned().map(Item::Facts)).collect()
    }
}

/// The storage as a source.
#[derive(Default)]
pub struct Source(pub Mutex<Shelf>);

impl Source {
    fn error(code: ErrorCode) -> SourceError {
        SourceError { source_name: "shelf".into(), error: Error::new(code, "as the history wants") }
    }
}

#[async_trait]
impl MediaSource for Source {
    fn name(&self) -> &str {
        "shelf"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    fn status(&self) -> SourceStatus {
        SourceStatus::default()
    }
    async fn health(&self) -> Result<Health, SourceError> {
        Ok(Health::default())
    }
    async fn scan(&self, _from: ScanStart, told: mpsc::Sender<Vec<Item>>) -> Result<ScanEnd, SourceError> {
        let (mut items, mode) = {
            let shelf = self.0.lock().unwrap();
            (shelf.items(), shelf.mode)
        };
        match mode {
            Mode::Down => return Err(Self::error(ErrorCode::Unavailable)),
            Mode::Unmounted => items.clear(),
            Mode::Cut => items.truncate(items.len() / 2),
            Mode::Well => {}
        }
        // Small batches: some end between a medium and its facts.
        for batch in items.chunks(5) {
            told.send(batch.to_vec()).await.map_err(|_| Self::error(ErrorCode::Cancelled))?;
        }
        match mode {
            Mode::Cut => Err(Self::error(ErrorCode::Unavailable)),
            _ => Ok(ScanEnd { cursor: Vec::new(), complete: true, watermark_ms: clock() }),
        }
    }
    async fn stat(&self, id: &str, _version: Option<&str>) -> Result<Media, SourceError> {
        let shelf = self.0.lock().unwrap();
        match shelf.mode {
            Mode::Down | Mode::Cut => Err(Self::error(ErrorCode::Unavailable)),
            Mode::Unmounted => Err(Self::error(ErrorCode::NotFound)),
            Mode::Well => shelf.media.get(id).cloned().ok_or_else(|| Self::error(ErrorCode::NotFound)),
        }
    }
    async fn open(&self, _id: &str, _version: &str) -> Result<Arc<dyn OpenMedia>, SourceError> {
        Err(Self::error(ErrorCode::Unsupported))
    }
}
