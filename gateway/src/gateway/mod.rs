//! Puts the parts together: start, reload, drain.
//!
//! The doors run on the runtime that starts the gateway. Scans and indexes run on one of their own, so that
//! the catalog's fsyncs keep no client waiting.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio::{runtime::Runtime, sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{
        AdminServer, SettingsReport, SocketError,
        ready::{Ready, ReadyDoor, ReadyUser},
    },
    catalog::{CatalogError, Overdue, Turn},
    config::{Config, Source, Tenant},
    doors::{common::Drain, ssh},
    identity::{Identity, IdentityError},
    sources::Plugins,
    state::{DataDirLock, LockError},
    telemetry::{
        Pulse,
        watch::{Watch, WatchError},
    },
    vfs::{MediaReader, Mounted, Vfs},
};

mod asked;
pub mod data;
mod operations;
mod records;
mod report;
mod source;
mod watched;

use data::{Data, DataError};
use source::{Running, follow};

/// Threads for scans and indexes.
const BACKGROUND_THREADS: usize = 2;

/// Between two looks at what indexes are due.
const INDEX_INTERVAL: Duration = Duration::from_secs(2);

/// Between two looks at what indexes are overdue.
const OVERDUE_INTERVAL: Duration = Duration::from_secs(10);

/// Between two signs of life of the background's threads, and without one for how long they hang.
const PULSE: Duration = Duration::from_secs(5);
const PULSE_LIMIT: Duration = Duration::from_secs(120);

/// Housekeeping hangs when one index takes longer than this.
const HOUSEKEEPING_LIMIT: Duration = Duration::from_secs(600);

/// Between two checkpoints of the journal; after so many entries there is one sooner. A start after a kill reads what
/// came since.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(600);
const CHECKPOINT_ENTRIES: u64 = 50_000;

/// Why a gateway doesn't start, or doesn't take a new configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another gateway works on the data folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data folder can't be used.
    #[error("the data folder can't be used: {0}")]
    Data(#[from] DataError),
    /// The catalog can't take a tenant.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A tenant's name form isn't the one that it was made with.
    #[error(
        "tenant {tenant}: name_form was {made:?} when the tenant was made; put it back: clients know the recordings by their names"
    )]
    NameForm {
        /// The tenant's name.
        tenant: String,
        /// As it was made.
        made: crate::layout::NameForm,
    },
    /// A user or key can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The SSH door can't be opened.
    #[error(transparent)]
    Ssh(#[from] ssh::SshDoorError),
    /// The admin socket can't be opened.
    #[error(transparent)]
    Admin(#[from] SocketError),
    /// Nobody could watch.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The ready file can't be written.
    #[error("{path}: {error}")]
    Ready {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// Threads can't be started.
    #[error("the threads for scans can't be started: {0}")]
    Threads(std::io::Error),
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    ready: Ready,
    drain: Drain,
    grace: Mutex<Duration>,
    admin: AdminServer,
    watch: Option<Watch>,
    background: Background,
    housekeeping: CancellationToken,
    housekeepers: [JoinHandle<()>; 2],
    reloading: tokio::sync::Mutex<()>,
    _lock: DataDirLock,
}

/// The runtime of scans and indexes.
struct Background(Option<Runtime>);

impl Background {
    fn handle(&self) -> Result<tokio::runtime::Handle, StartError> {
        self.0
            .as_ref()
            .map(|runtime| runtime.handle().clone())
            .ok_or_else(|| StartError::Threads(std::io::Error::other("the gateway is stopping")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A plugin's call may hang in a thread for ever, and asynchronous code can't wait for one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What reload, status and housekeeping share.
struct Shared {
    data: Data,
    vfs: Arc<Vfs>,
    identity: Arc<Identity>,
    plugins: Arc<Plugins>,
    door: ssh::SshDoor,
    reader: Arc<MediaReader>,
    drain: Drain,
    /// Where metrics are served.
    metrics: Option<SocketAddr>,
    /// Root indexes that are late or incomplete, by tenant, as they were seen last.
    overdue: RwLock<HashMap<u32, Overdue>>,
    /// What `recgate status` tells of the configuration that was taken last.
    settings: RwLock<SettingsReport>,
    background_pulse: Pulse,
    housekeeping_pulse: Pulse,
    /// Somebody wants indexes written at once.
    house_wake: Notify,
    started: chrono::DateTime<chrono::Utc>,
    dir: PathBuf,
    running: RwLock<HashMap<u32, RunningTenant>>,
}

/// A tenant with its sources at work.
struct RunningTenant {
    tenant: Arc<Tenant>,
    sources: Vec<Running>,
}

impl Gateway {
    /// Starts everything; returns once it listens, with the ready file written.
    ///
    /// A source whose plugin or storage isn't ready doesn't keep the others from being served; it is tried again.
    ///
    /// # Errors
    /// What can't be started.
    pub async fn start(
        config: Config,
        ready_file: Option<PathBuf>,
        demo_users: Vec<ReadyUser>,
    ) -> Result<Self, StartError> {
        let lock = DataDirLock::acquire(&config.data_dir)?;
        // Early, because opening the state may take its time, and somebody may wait for it to be ready.
        let watch = match config.metrics.listen {
            Some(address) => Some(Watch::open(address).await?),
            None => None,
        };
        let data = Data::open(&config.data_dir).await?;
        let identity = Arc::new(Identity::new(&config.tenants, &config.limits, &config.throttle)?);
        for tenant in &config.tenants {
            adopt(&data, tenant).await?;
        }
        let limits = &config.limits;
        let reader = MediaReader::new(limits.read_ahead_budget, limits.read_ahead_per_file);
        let vfs = Arc::new(Vfs::new(Arc::clone(&data.catalog), Arc::clone(&reader)));
        let background = Background(Some(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(BACKGROUND_THREADS)
                .thread_name("recgate-scan")
                .enable_all()
                .build()
                .map_err(StartError::Threads)?,
        ));
        let drain = Drain::new();
        let door = ssh::serve(
            &config.ssh,
            &config.limits,
            &config.data_dir,
            Arc::clone(&vfs) as _,
            Arc::clone(&identity),
            drain.clone(),
        )
        .await?;
        let metrics = watch.as_ref().map(Watch::address);
        let ready = Ready {
            metrics: metrics.map(|address| address.to_string()),
            doors: door
                .addresses
                .first()
                .map(|address| {
                    let door = ReadyDoor {
                        address: address.to_string(),
                        host_key_sha256: door.host_key_sha256.clone(),
                        host_keys: door.host_keys.clone(),
                    };
                    ("sftp".to_owned(), door)
                })
                .into_iter()
                .collect(),
            users: demo_users,
        };
        let shared = Arc::new(Shared {
            data,
            vfs,
            identity,
            plugins: Arc::new(Plugins::new(own_folder(), config.plugin_dirs.clone())),
            door,
            reader,
            drain: drain.clone(),
            metrics,
            overdue: RwLock::default(),
            settings: RwLock::default(),
            background_pulse: Pulse::new("the background of scans and indexes", PULSE_LIMIT),
            housekeeping_pulse: Pulse::new("the publication of indexes", HOUSEKEEPING_LIMIT),
            house_wake: Notify::new(),
            started: chrono::Utc::now(),
            dir: config.data_dir.clone(),
            running: RwLock::default(),
        });
        shared.take(&config, &background.handle()?);
        let admin = AdminServer::start(&lock, Arc::clone(&shared) as _)?;
        if let Some(watch) = &watch {
            watch.begin(Arc::clone(&shared) as _);
            tracing::info!(address = %watch.address(), "metrics and probes are served");
        }
        if let Some(path) = ready_file {
            ready.write(&path).map_err(|error| StartError::Ready { path, error })?;
        }
        let housekeeping = CancellationToken::new();
        let housekeepers = [
            background.handle()?.spawn(keep_house(Arc::clone(&shared), housekeeping.clone())),
            background.handle()?.spawn(watch_indexes(Arc::clone(&shared), housekeeping.clone())),
        ];
        background.handle()?.spawn(live(Arc::clone(&shared), housekeeping.clone()));
        for address in &shared.door.addresses {
            tracing::info!(%address, host_keys = shared.door.host_keys.join(" "), "the SSH door is open");
        }
        Ok(Self {
            shared,
            ready,
            drain,
            grace: Mutex::new(limits.shutdown_grace),
            admin,
            watch,
            background,
            housekeeping,
            housekeepers,
            reloading: tokio::sync::Mutex::default(),
            _lock: lock,
        })
    }

    /// What the ready file says.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Goes over to a new configuration, whole or not at all.
    ///
    /// # Errors
    /// What can't be taken; the old configuration goes on.
    pub async fn reload(&self, config: Config) -> Result<(), StartError> {
        let _turn = self.reloading.lock().await;
        // What can be refused comes first; what is adopted stays so.
        Identity::new(&config.tenants, &config.limits, &config.throttle)?;
        for tenant in &config.tenants {
            adopt(&self.shared.data, tenant).await?;
        }
        self.shared.identity.replace(&config.tenants)?;
        self.shared.door.trust_proxies(&config.ssh.proxy_protocol_from);
        self.shared.identity.configure(&config.limits, &config.throttle);
        self.shared.door.configure(&config.limits);
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = config.limits.shutdown_grace;
        self.shared.take(&config, &self.background.handle()?);
        Ok(())
    }

    /// Refuses new sessions, lets transfers finish within the grace time, and closes everything.
    pub async fn shutdown(self) {
        let Self {
            shared, drain, grace, admin, watch, background, housekeeping, housekeepers, _lock, ..
        } = self;
        let grace = *grace.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = drain.finish(grace).await;
        if cut > 0 {
            tracing::warn!(sessions = cut, "sessions were cut off at the end of the grace time");
        }
        admin.stop().await;
        if let Some(watch) = watch {
            watch.stop().await;
        }
        housekeeping.cancel();
        for housekeeper in housekeepers {
            let _ = housekeeper.await;
        }
        let running = std::mem::take(&mut *shared.running.write().unwrap_or_else(PoisonError::into_inner));
        let sources = running.into_values().flat_map(|tenant| tenant.sources);
        futures_util::future::join_all(sources.map(Running::stop)).await;
        if let Err(error) = shared.data.close().await {
            tracing::error!(%error, "the state could not be closed; the next start mends it");
        }
        drop(background);
        // The folder is somebody else's only once nothing of ours works on it.
        drop(shared);
        drop(_lock);
    }
}

impl Shared {
    /// Mounts the configured tenants and follows their sources. Sources that stay as they are go on undisturbed.
    fn take(self: &Arc<Self>, config: &Config, background: &tokio::runtime::Handle) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = config.into();
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *running);
        for tenant in &config.tenants {
            let tenant = Arc::new(tenant.clone());
            let mut old: Vec<Running> =
                before.remove(&tenant.id).map(|running| running.sources).unwrap_or_default();
            let mut sources = Vec::new();
            for source in &tenant.sources {
                let kept = old
                    .iter()
                    .position(|running| running.is_for(&tenant, source))
                    .map(|at| old.swap_remove(at));
                sources.push(kept.unwrap_or_else(|| {
                    let same = |running: &&Running| running.source.id == source.id;
                    // Only how it is followed has changed: its instance goes on.
                    let slot = old.iter().find(same).filter(|running| running.runs_like(source));
                    follow(background, self, &tenant, source, slot.map(|running| Arc::clone(&running.slot)))
                }));
            }
            old.into_iter().for_each(Running::cancel);
            running.insert(tenant.id, RunningTenant { tenant, sources });
        }
        before.into_values().flat_map(|tenant| tenant.sources).for_each(Running::cancel);
        self.vfs.mount(running.values().map(|running| Mounted {
            tenant: Arc::clone(&running.tenant),
            sources:
                running.sources.iter().map(|source| (source.source.id, Arc::clone(&source.slot))).collect(),
        }));
    }

    /// The tenants, each with whether all its sources have ended a scan, or failed, since the start.
    fn tenants(&self) -> Vec<(Arc<Tenant>, bool)> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running
            .values()
            .map(|running| (Arc::clone(&running.tenant), running.sources.iter().all(Running::is_settled)))
            .collect()
    }
}

/// Publishes indexes that are due and writes checkpoints.
async fn keep_house(shared: Arc<Shared>, stop: CancellationToken) {
    let mut checkpoint = tokio::time::Instant::now() + CHECKPOINT_INTERVAL;
    let beat = || shared.housekeeping_pulse.beat();
    loop {
        let mut pause = INDEX_INTERVAL;
        for (tenant, settled) in shared.tenants() {
            beat();
            let mut turn = Turn::new(&beat);
            let unheard_since = (!settled).then(|| shared.started.timestamp_millis());
            let published = shared.data.catalog.publish_due(&tenant, unheard_since, now_ms(), &mut turn);
            match published.await {
                Ok(_) if turn.has_more() => pause = Duration::ZERO,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(tenant = %tenant.name, %error, "indexes could not be published");
                }
            }
        }
        beat();
        let many = shared.data.since_checkpoint() >= CHECKPOINT_ENTRIES;
        if many || tokio::time::Instant::now() >= checkpoint {
            checkpoint = tokio::time::Instant::now() + CHECKPOINT_INTERVAL;
            if let Err(error) = shared.data.checkpoint().await {
                tracing::error!(%error, "no checkpoint of the journal could be written");
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.house_wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Says that the background's threads get to their work.
async fn live(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        shared.background_pulse.beat();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PULSE) => {}
        }
    }
}

/// Remembers, for the metrics, which root indexes are late. A task of its own: a publication that hangs is what makes
/// them late.
async fn watch_indexes(shared: Arc<Shared>, stop: CancellationToken) {
    let watch = async {
        loop {
            let mut looked = Vec::new();
            for (tenant, _) in shared.tenants() {
                let overdue = shared.data.catalog.overdue_indexes(&tenant, now_ms()).await;
                if let Err(error) = &overdue {
                    tracing::error!(tenant = %tenant.name, %error, "the indexes can't be looked at");
                }
                looked.push((tenant.id, overdue.ok()));
            }
            keep_last(&mut shared.overdue.write().unwrap_or_else(PoisonError::into_inner), looked);
            tokio::time::sleep(OVERDUE_INTERVAL).await;
        }
    };
    stop.run_until_cancelled(watch).await;
}

/// Takes what was seen of the tenants that there are. What could not be seen now is as it was seen last: an alarm must
/// not end because nobody can look.
fn keep_last(seen: &mut HashMap<u32, Overdue>, looked: Vec<(u32, Option<Overdue>)>) {
    let now = looked
        .into_iter()
        .filter_map(|(tenant, overdue)| Some((tenant, overdue.or(seen.get(&tenant).copied())?)));
    *seen = now.collect();
}

/// Makes a tenant known to the catalog, and its indexes whole, before anybody looks.
async fn adopt(data: &Data, tenant: &Tenant) -> Result<(), StartError> {
    let made = data.catalog.adopt(tenant, now_ms()).await?;
    if made != tenant.name_form {
        return Err(StartError::NameForm { tenant: tenant.name.clone(), made });
    }
    let lost = data.catalog.check_index_files(tenant, now_ms()).await?;
    if lost > 0 {
        tracing::warn!(tenant = %tenant.name, indexes = lost, "index files are not there; they are written anew");
    }
    data.catalog.rewrite_folders(tenant, now_ms()).await?;
    data.catalog.finish_erasures(tenant, now_ms()).await?;
    Ok(())
}

/// The folder of the gateway's executable, where its own plugins lie.
pub fn own_folder() -> Option<PathBuf> {
    std::env::current_exe().ok()?.canonicalize().ok()?.parent().map(Path::to_owned)
}

/// The wall clock, Unix milliseconds UTC.
pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// Whether two configurations of a source need two instances.
fn same_instance(a: &Source, b: &Source) -> bool {
    (a.id, &a.name, &a.plugin, a.in_process, a.sha256, a.call_timeout, &a.settings)
        == (b.id, &b.name, &b.plugin, b.in_process, b.sha256, b.call_timeout, &b.settings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::telemetry::watch::Watched;

    /// The doors run on the runtime that starts the gateway: when that ends, so does what takes their connections.
    #[test]
    fn a_gateway_whose_door_takes_no_connections_is_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        let text = "data_dir = \"data\"\n[ssh]\nlisten = [\"127.0.0.1:0\"]\n[[tenant]]\nid = 1\nname = \"acme\"\n\
                    zone = \"UTC\"\n";
        let config = crate::config::parse(Path::new("recgate.toml"), text, dir.path())
            .unwrap_or_else(|problems| panic!("{problems}"));
        let (doors, others) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let gateway = doors.block_on(Gateway::start(config, None, Vec::new())).unwrap();
        let shared = Arc::clone(&gateway.shared);
        assert_eq!(others.block_on(shared.unready()), Vec::<String>::new());
        drop(doors);
        let address = shared.door.addresses.first().unwrap();
        assert_eq!(
            others.block_on(shared.unready()),
            [format!("the sftp door accepts no more connections on {address}; restart the gateway")]
        );
    }

    #[test]
    fn what_can_not_be_seen_stays_as_it_was() {
        let late = |indexes| Overdue { indexes, since_ms: Some(7), incomplete: 1 };
        let mut seen = HashMap::from([(1, late(1)), (2, late(2))]);
        keep_last(&mut seen, vec![(1, None), (3, Some(late(3))), (4, None)]);
        assert_eq!(seen, HashMap::from([(1, late(1)), (3, late(3))]), "tenant 2 is gone, 4 was never seen");
    }
}
