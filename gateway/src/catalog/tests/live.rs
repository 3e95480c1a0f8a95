//! A source that is watched: what it tells counts at once, scans or no scans.

use std::{
    sync::atomic::AtomicUsize,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sources::Live;

const DEADLINE: Duration = Duration::from_secs(60);

/// The source that can be bent, watched.
#[derive(Default)]
struct Watched {
    bent: Arc<Bent>,
    /// Where the watch that runs tells what happens.
    told: Mutex<Option<mpsc::Sender<Live>>>,
    watches: AtomicUsize,
    /// How the watch that runs ends.
    end: Mutex<Option<Result<(), SourceError>>>,
    ended: Notify,
    scans: AtomicUsize,
    /// While closed, scans have read the storage and not told it.
    gate: Mutex<Option<Arc<Semaphore>>>,
    /// Scans that are held up.
    held: AtomicUsize,
}

impl Watched {
    fn tell(&self, live: Live) {
        self.told.lock().unwrap().as_ref().expect("a watch runs").try_send(live).unwrap();
    }

    fn tell_all(&self, n: u32) {
        self.bent.change(|storage| add(storage, n, EVENING));
        self.tell(Live::Item(Item::Media(medium(n))));
        self.tell(Live::Item(Item::Facts(facts(n, EVENING))));
    }

    fn end(&self, how: Result<(), SourceError>) {
        *self.end.lock().unwrap() = Some(how);
        self.told.lock().unwrap().take();
        self.ended.notify_one();
    }

    fn close_gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.gate.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    fn open_gate(&self, gate: &Semaphore) {
        self.gate.lock().unwrap().take();
        gate.add_permits(100);
    }
}

#[async_trait]
impl MediaSource for Watched {
    fn name(&self) -> &str {
        "bent"
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
    async fn scan(&self, from: ScanStart, items: mpsc::Sender<Vec<Item>>) -> Result<ScanEnd, SourceError> {
        self.scans.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap().clone();
        let Some(gate) = gate else { return self.bent.scan(from, items).await };
        // What is read now is told later.
        let (sender, mut read) = mpsc::channel(100);
        let end = self.bent.scan(from, sender).await?;
        self.held.fetch_add(1, Ordering::SeqCst);
        gate.acquire().await.unwrap().forget();
        while let Some(batch) = read.recv().await {
            items.send(batch).await.unwrap();
        }
        Ok(end)
    }
    fn watches(&self) -> bool {
        true
    }
    async fn watch(&self, told: mpsc::Sender<Live>) -> Result<(), SourceError> {
        *self.told.lock().unwrap() = Some(told);
        self.watches.fetch_add(1, Ordering::SeqCst);
        self.ended.notified().await;
        self.end.lock().unwrap().take().unwrap()
    }
    async fn stat(&self, id: &str, version: Option<&str>) -> Result<Media, SourceError> {
        self.bent.stat(id, version).await
    }
    async fn open(&self, id: &str, version: &str) -> Result<Arc<dyn OpenMedia>, SourceError> {
        self.bent.open(id, version).await
    }
}

/// A watched source that is followed; an hour lies between two scans that nobody asks for.
struct Followed {
    world: World,
    watched: Arc<Watched>,
    progress: Arc<RwLock<Progress>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Followed {
    /// Follows it until it listens and has been scanned.
    async fn new() -> Self {
        let followed = Self::begin().await;
        followed.until("it is watched", |watched, _| watched.told.lock().unwrap().is_some()).await;
        followed.watched.tell(Live::Listening);
        followed.until_rested(1).await;
        assert!(followed.progress().watched);
        followed
    }

    async fn begin() -> Self {
        let world = World::new().await;
        let watched = Arc::new(Watched { bent: Arc::clone(&world.bent), ..Watched::default() });
        let progress = Arc::new(RwLock::default());
        let stop = CancellationToken::new();
        let synchroniser = Synchroniser {
            catalog: Arc::clone(&world.catalog),
            tenant: Arc::clone(&world.tenant),
            source: Source { scan_interval: Duration::from_secs(3600), ..world.tenant.sources[0].clone() },
            media: Arc::clone(&watched) as _,
            progress: Arc::clone(&progress),
            wake: Arc::default(),
            heard: Heard::default(),
            now_ms: now,
        };
        let task = tokio::spawn(synchroniser.run(stop.clone()));
        Self { world, watched, progress, stop, task }
    }

    fn progress(&self) -> Progress {
        self.progress.read().unwrap().clone()
    }

    fn scans(&self) -> usize {
        self.watched.scans.load(Ordering::SeqCst)
    }

    async fn until(&self, what: &str, is: impl Fn(&Watched, &Progress) -> bool) {
        let begin = Instant::now();
        while !is(&self.watched, &self.progress()) {
            assert!(begin.elapsed() < DEADLINE, "waited in vain: {what}; {:?}", self.progress());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Until so many scans have ended.
    async fn until_rested(&self, scans: usize) {
        let rested = |watched: &Watched, progress: &Progress| {
            watched.scans.load(Ordering::SeqCst) >= scans
                && !progress.scanning
                && progress.last_scan_ms.is_some()
        };
        self.until("a scan", rested).await;
    }

    async fn until_named(&self, names: usize) {
        let begin = Instant::now();
        while self.world.names().await.len() != names {
            assert!(begin.elapsed() < DEADLINE, "{:?}", self.world.names().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn counts(&self) -> Counts {
        self.world.catalog.counts(7).await.unwrap()
    }

    async fn until_counts(&self, what: &str, is: impl Fn(Counts) -> bool) {
        let begin = Instant::now();
        while !is(self.counts().await) {
            assert!(begin.elapsed() < DEADLINE, "waited in vain: {what}; {:?}", self.counts().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("it stops").unwrap();
    }
}

#[tokio::test]
async fn what_a_watch_tells_is_published_at_once() {
    let followed = Followed::new().await;
    followed.watched.tell_all(1);
    followed.until_named(1).await;
    assert_eq!(followed.scans(), 1, "without a scan");
    // The last word counts: it was available, and grows again when its facts come.
    followed.watched.tell(Live::Item(Item::Media(medium(2))));
    followed.watched.tell(Live::Item(Item::Media(Media { state: MediaState::Growing, ..medium(2) })));
    followed.watched.tell(Live::Item(Item::Facts(facts(2, EVENING))));
    followed.watched.tell_all(3);
    followed.until_named(2).await;
    followed.watched.tell(Live::Item(Item::Media(Media { version: "2-2".into(), ..medium(2) })));
    followed.until_named(3).await;
    followed.end().await;
}

#[tokio::test]
async fn a_watch_that_ends_begins_again_and_is_followed_by_a_scan() {
    let followed = Followed::new().await;
    followed.watched.end(Ok(()));
    followed.until("it says so", |_, progress| !progress.watched && progress.watch_problem.is_some()).await;
    assert!(followed.progress().watch_problem.unwrap().contains("returned, though nobody asked it to"));
    // What comes now is told by nobody.
    followed.world.bent.change(|storage| add(storage, 1, EVENING));
    followed.until("it begins again", |watched, _| watched.told.lock().unwrap().is_some()).await;
    assert_eq!(followed.scans(), 1);
    followed.watched.tell(Live::Listening);
    followed.until_named(1).await;
    followed.until("it is watched", |_, progress| progress.watched && progress.watch_problem.is_none()).await;

    // The pause has grown.
    let ended = Instant::now();
    followed.watched.end(Err(Bent::error(ErrorCode::Panic)));
    followed.until("it begins again", |watched, _| watched.watches.load(Ordering::SeqCst) == 3).await;
    assert!(ended.elapsed() >= Duration::from_secs(2), "{:?}", ended.elapsed());
    assert_eq!(followed.progress().error, None, "scans go well");

    // Something was missed: one more scan, without a new beginning.
    followed.watched.tell(Live::Listening);
    followed.until_rested(3).await;
    followed.world.bent.change(|storage| add(storage, 2, EVENING));
    followed.watched.tell(Live::Listening);
    followed.until_named(2).await;
    assert_eq!(followed.watched.watches.load(Ordering::SeqCst), 3);
    followed.end().await;
}

#[tokio::test]
async fn a_source_that_cannot_be_watched_is_asked_once() {
    let followed = Followed::begin().await;
    followed.world.bent.change(|storage| add(storage, 1, EVENING));
    followed.until("it is watched", |watched, _| watched.told.lock().unwrap().is_some()).await;
    followed.watched.end(Err(Bent::error(ErrorCode::Unsupported)));
    let began = Instant::now();
    followed.until_named(1).await;
    // Longer than the first pause.
    followed.until("time passes", |_, _| began.elapsed() > Duration::from_millis(1500)).await;
    assert_eq!(followed.watched.watches.load(Ordering::SeqCst), 1);
    let progress = followed.progress();
    assert!(!progress.watched && progress.watch_problem.is_some() && progress.error.is_none());
    followed.end().await;
}

#[tokio::test]
async fn a_watch_that_never_says_that_it_listens_is_followed_by_a_scan_all_the_same() {
    let followed = Followed::begin().await;
    followed.until_rested(1).await;
    followed.world.bent.change(|storage| add(storage, 1, EVENING));
    followed.until_named(1).await;
    assert!(followed.scans() == 2 && !followed.progress().watched);
    assert!(followed.progress().watch_problem.unwrap().contains("doesn't say that it misses nothing"));
    followed.end().await;
}

#[tokio::test]
async fn what_is_told_during_a_scan_is_neither_missing_nor_taken_back() {
    let followed = Followed::new().await;
    // A scan reads the storage: one recording, which grows.
    followed.world.bent.change(|storage| {
        storage.media.insert("1.wav".into(), Media { state: MediaState::Growing, ..medium(1) });
    });
    let gate = followed.watched.close_gate();
    followed.watched.tell(Live::Listening);
    followed.until("a scan is held up", |watched, _| watched.held.load(Ordering::SeqCst) == 1).await;
    // Meanwhile it is complete, and others have come that the scan doesn't know of.
    followed.world.bent.change(|storage| {
        storage.media.insert("1.wav".into(), medium(1));
    });
    followed.watched.tell(Live::Item(Item::Media(medium(1))));
    (2..10).for_each(|n| followed.watched.tell_all(n));
    followed.until_named(8).await;
    followed.watched.open_gate(&gate);
    followed.until_rested(2).await;
    assert_eq!(followed.progress().error, None);
    assert_eq!(followed.counts().await.missing, 0);
    followed.watched.tell(Live::Item(Item::Facts(facts(1, EVENING))));
    followed.until_named(9).await;
    assert_eq!(followed.scans(), 2);
    followed.end().await;
}

#[tokio::test]
async fn that_something_is_gone_is_confirmed_by_a_scan() {
    let followed = Followed::new().await;
    (1..=40).for_each(|n| followed.world.bent.change(|storage| add(storage, n, EVENING)));
    followed.watched.tell(Live::Listening);
    followed.until_named(40).await;
    followed.until_rested(2).await;
    // A lie, and one about something that nobody knows.
    followed.watched.tell(Live::Item(Item::MediaGone("1.wav".into())));
    followed.watched.tell(Live::Item(Item::MediaGone("unknown".into())));
    // And the truth.
    followed.world.bent.change(|storage| {
        storage.media.remove("7.wav");
    });
    followed.watched.tell(Live::Item(Item::MediaGone("7.wav".into())));
    followed.until_counts("one is missing", |counts| counts.missing == 1).await;
    assert_eq!(followed.world.names().await.len(), 39);
    assert_eq!(followed.scans(), 3);
    // It comes back.
    followed.watched.tell_all(7);
    followed.until_counts("none is missing", |counts| counts.missing == 0).await;
    followed.end().await;
}

#[tokio::test]
async fn that_published_media_has_changed_is_confirmed() {
    let followed = Followed::new().await;
    followed.watched.tell_all(1);
    followed.watched.tell_all(2);
    followed.until_named(2).await;
    let other = |n| Item::Media(Media { version: "other".into(), ..medium(n) });
    // A lie: the storage has it as it was.
    followed.watched.tell(Live::Item(other(1)));
    followed.world.bent.change(|storage| storage.media.get_mut("2.wav").unwrap().version = "other".into());
    followed.watched.tell(Live::Item(other(2)));
    followed.until_counts("one is corrupt", |counts| counts.corrupt > 0).await;
    assert_eq!(followed.counts().await.corrupt, 1);
    assert_eq!(followed.scans(), 1);
    followed.end().await;
}

#[tokio::test]
async fn what_changes_in_masses_is_not_believed_of_a_watch_either() {
    let followed = Followed::new().await;
    followed.world.bent.change(|storage| (1..=40).for_each(|n| add(storage, n, EVENING)));
    followed.watched.tell(Live::Listening);
    followed.until_named(40).await;
    followed.until_rested(2).await;
    let other = |n| Media { version: "other".into(), ..medium(n) };
    followed.world.bent.change(|storage| storage.media.extend((1..=10).map(|n| (medium(n).id, other(n)))));
    (1..=10).for_each(|n| followed.watched.tell(Live::Item(Item::Media(other(n)))));
    let says = |progress: &Progress| progress.error.as_ref().is_some_and(|error| error.contains("10 of 40"));
    followed.until("a scan says so", |_, progress| says(progress)).await;
    assert_eq!(followed.counts().await.corrupt, 0);
    followed.end().await;
}
