//! Lives through a history with the real catalog, journal, stores and synchroniser.

use std::{future::poll_fn, pin::pin, task::Poll};

use tokio::runtime::Runtime;

use super::{
    super::*,
    checks::{Checks, View},
    model::{BEGIN, Fault, Source as Shelved, Step, Work, clock, set_clock},
};
use crate::state::shim::Disk;

/// What runs, and all that ends when the gateway does.
struct Running {
    catalog: Arc<Catalog>,
    governance: Arc<Governance>,
    runtime: Runtime,
}

/// What outlives it.
struct Machine {
    disk: Arc<Disk>,
    dir: tempfile::TempDir,
    tenant: Arc<Tenant>,
    shelf: Arc<Shelved>,
}

/// Lives through a history; says what was wrong after which step.
pub fn live_through(seed: u64, publish: bool, steps: &[Step]) -> Result<(), String> {
    set_clock(BEGIN);
    let machine = Machine::new(seed, publish);
    let mut checks = Checks::default();
    let mut running = machine.start();
    for (number, step) in steps.iter().enumerate() {
        let at = |what: String| format!("step {number}, {step:?}: {what}");
        match step {
            Step::Media(n, change) => machine.shelf.0.lock().unwrap().medium(*n, *change),
            Step::Facts(n, change) => machine.shelf.0.lock().unwrap().fact(*n, *change),
            Step::Source(mode) => machine.shelf.0.lock().unwrap().mode = *mode,
            Step::Hide(n, hidden) => machine.shelf.0.lock().unwrap().hide(*n, *hidden),
            Step::Twice(n) => machine.shelf.0.lock().unwrap().twice(*n),
            Step::Clock(minutes) => set_clock(clock() + minutes * 60_000),
            Step::Work(work, fault) => {
                let done;
                (running, done) = machine.work(running, *work, *fault);
                let shelf = machine.shelf.0.lock().unwrap();
                let view = running.runtime.block_on(View::of(&running.catalog, &running.governance));
                checks.after(&view, &shelf, &machine.tenant, *work, done).map_err(at)?;
                checks.before = view;
            }
        }
    }
    Ok(())
}

/// How a piece of work has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Nothing came between; of a scan, that all of it was told and believed.
    Well,
    /// The source failed, or wasn't believed.
    Badly,
    /// It was cut short.
    Cut,
}

impl Machine {
    fn new(seed: u64, publish: bool) -> Self {
        let source = Source {
            id: 3,
            name: "shelf".into(),
            plugin: "shelf".into(),
            in_process: true,
            sha256: None,
            metadata_wait: Duration::from_secs(3600),
            unmatched: if publish { Unmatched::Publish } else { Unmatched::Orphan },
            scan_interval: Duration::from_secs(60),
            call_timeout: Duration::from_secs(5),
            settings: serde_json::Value::Null,
        };
        let tenant = Tenant {
            id: 7,
            name: "acme".into(),
            zone: TenantZone::new(chrono_tz::America::Los_Angeles, Vec::new()).unwrap(),
            name_form: if seed & 1 == 0 { NameForm::Long } else { NameForm::Short },
            user_ca_keys: Vec::new(),
            revoked_keys: Vec::new(),
            quota: crate::config::Quota::default(),
            live_index: false,
            users: Vec::new(),
            sources: vec![source],
        };
        let dir = tempfile::tempdir().unwrap();
        Self { disk: Disk::new(seed), dir, tenant: Arc::new(tenant), shelf: Arc::default() }
    }

    /// Starts the gateway, as `Data::open` and what follows it do.
    fn start(&self) -> Running {
        self.try_start(None).expect("it starts")
    }

    /// `None` where the power goes, or it is killed, meanwhile.
    fn try_start(&self, polls: Option<u32>) -> Option<Running> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let open = |name: &str| match RedbStore::with_backend(name, self.disk.file(name)) {
            Err(StoreError::Corrupt { .. }) => {
                // The power went while it was made.
                self.disk.put(name, None);
                RedbStore::with_backend(name, self.disk.file(name)).ok()
            }
            other => other.ok(),
        };
        let (store, views) = (Arc::new(open("catalog")?), Arc::new(open("views")?));
        let started = async {
            let applied = applied(&*store).await.ok()?;
            let journal = Arc::new(self.disk.journal(applied)?);
            let governance = Arc::new(Governance::new(views, Arc::clone(&journal)));
            let view = Some(Arc::clone(&governance) as _);
            let catalog = Arc::new(Catalog::new(store, journal, self.dir.path().join("index"), view));
            catalog.catch_up().await.ok()?;
            governance.catch_up().await.ok()?;
            let tenant = &*self.tenant;
            catalog.adopt(tenant, clock()).await.ok()?;
            catalog.check_index_files(tenant, clock()).await.ok()?;
            catalog.rewrite_folders(tenant, clock()).await.ok()?;
            catalog.finish_erasures(tenant, clock()).await.ok()?;
            Some((catalog, governance))
        };
        let (catalog, governance) = runtime.block_on(limited(started, polls)).flatten()?;
        Some(Running { catalog, governance, runtime })
    }

    /// Does a piece of work, with what comes between, and leaves a gateway that runs.
    fn work(&self, running: Running, work: Work, fault: Fault) -> (Running, Done) {
        if let Fault::Power(changes) = fault {
            self.disk.cut_power_after(changes);
        }
        let polls = match fault {
            Fault::Kill(polls) => Some(polls),
            _ => None,
        };
        if matches!(work, Work::Restart | Work::Lose) {
            drop(running);
            if work == Work::Lose {
                self.disk.put("catalog", None);
            }
            let started = self.try_start(polls);
            match (fault, started) {
                (Fault::None, started) => return (started.expect("it starts"), Done::Well),
                (_, started) => self.end(started, fault),
            }
            return (self.start(), Done::Cut);
        }
        let well = running.runtime.block_on(limited(self.ask(&running.catalog, work), polls));
        if fault == Fault::None {
            let done = if well == Some(true) { Done::Well } else { Done::Badly };
            return (running, done);
        }
        self.end(Some(running), fault);
        (self.start(), Done::Cut)
    }

    /// Nothing of the gateway writes any more from here on.
    fn end(&self, running: Option<Running>, fault: Fault) {
        match fault {
            Fault::Power(_) => self.disk.reboot(),
            _ => self.disk.kill(),
        }
        drop(running);
    }

    /// Has the catalog do something; whether that went well.
    async fn ask(&self, catalog: &Arc<Catalog>, work: Work) -> bool {
        let (tenant, source) = (&*self.tenant, &self.tenant.sources[0]);
        match work {
            Work::Scan => {
                let progress = Arc::new(RwLock::default());
                let synchroniser = Synchroniser {
                    catalog: Arc::clone(catalog),
                    tenant: Arc::clone(&self.tenant),
                    source: source.clone(),
                    media: Arc::clone(&self.shelf) as _,
                    progress: Arc::clone(&progress),
                    wake: Arc::default(),
                    heard: Heard::default(),
                    now_ms: clock,
                };
                let stop = tokio_util::sync::CancellationToken::new();
                matches!(synchroniser.scan_once(&stop).await, Some(Ok(())))
            }
            Work::Watch(n) => {
                let items = self.shelf.0.lock().unwrap().items_of(n);
                catalog.ingest(tenant, source, items, clock()).await.is_ok()
            }
            Work::Publish => catalog.publish_indexes(tenant, clock()).await.is_ok(),
            Work::Erase(n) => {
                let erased = catalog
                    .erase_facts(tenant.id, source.id, &medium(n).id, Actor::LocalUser(0), None, clock())
                    .await;
                erased.is_ok_and(|erased| erased.is_some())
                    && catalog.finish_erasures(tenant, clock()).await.is_ok()
            }
            Work::Restart | Work::Lose => true,
        }
    }
}

/// What a future returns, unless it is dropped before, after so many polls.
async fn limited<T>(future: impl Future<Output = T>, polls: Option<u32>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| match &mut left {
        Some(0) => Poll::Ready(None),
        left => {
            if let Some(left) = left {
                *left -= 1;
            }
            future.as_mut().poll(context).map(Some)
        }
    })
    .await
}
