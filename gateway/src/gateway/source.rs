//! A source at work: its instance, made as soon as its plugin and storage allow, and the scans that follow it.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Shared, now_ms, same_instance};
use crate::{
    catalog::{Heard, Progress, Synchroniser},
    config::{Source, Tenant},
    sources::{CallLimits, MediaSource, Slot, Trust},
};

/// How long an instance's end is waited for.
const FAREWELL: Duration = Duration::from_secs(3);
/// The longest pause between two attempts to make an instance.
const RETRY: Duration = Duration::from_secs(30);

/// A source that is followed.
pub(super) struct Running {
    /// Its configuration.
    pub source: Source,
    /// Where its instance is.
    pub slot: Arc<Slot>,
    /// How its scans go.
    pub progress: Arc<RwLock<Progress>>,
    /// Asks for a scan before the interval is over.
    pub wake: Arc<Notify>,
    /// What of its tenant it works with.
    zone: crate::layout::TenantZone,
    live_index: bool,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Whether it may go on as it is.
    pub fn is_for(&self, tenant: &Tenant, source: &Source) -> bool {
        self.source == *source && self.zone == tenant.zone && self.live_index == tenant.live_index
    }

    /// Whether its instance serves this configuration.
    pub fn runs_like(&self, source: &Source) -> bool {
        same_instance(&self.source, source)
    }

    /// Whether it has been heard since it is followed, or has failed.
    pub fn is_settled(&self) -> bool {
        let progress = self.progress.read().unwrap_or_else(PoisonError::into_inner);
        progress.last_scan_ms.is_some() || progress.error.is_some()
    }

    /// Ends its scans, without waiting.
    pub fn cancel(self) {
        self.stop.cancel();
    }

    /// Ends its scans and its instance, which may have something to give back. One that hangs isn't waited for.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
        let remains = self.slot.instance().map(|instance| instance.remains());
        self.slot.set(None);
        let begin = Instant::now();
        while let Some(remains) = &remains
            && remains.strong_count() > 0
            && begin.elapsed() < FAREWELL
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Follows a source from now on. With a slot, its instance is used.
pub(super) fn follow(
    background: &tokio::runtime::Handle,
    shared: &Arc<Shared>,
    tenant: &Arc<Tenant>,
    source: &Source,
    slot: Option<Arc<Slot>>,
) -> Running {
    let slot = slot.unwrap_or_default();
    let progress = Arc::new(RwLock::new(Progress::default()));
    let wake = Arc::new(Notify::new());
    let stop = CancellationToken::new();
    let task = background.spawn(run(
        Arc::clone(shared),
        Arc::clone(tenant),
        source.clone(),
        Arc::clone(&slot),
        Arc::clone(&progress),
        Arc::clone(&wake),
        stop.clone(),
    ));
    let (zone, live_index) = (tenant.zone.clone(), tenant.live_index);
    Running { source: source.clone(), slot, progress, wake, zone, live_index, stop, task }
}

async fn run(
    shared: Arc<Shared>,
    tenant: Arc<Tenant>,
    source: Source,
    slot: Arc<Slot>,
    progress: Arc<RwLock<Progress>>,
    wake: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut pause = Duration::from_secs(1);
    let media = loop {
        if let Some(media) = slot.instance() {
            break media;
        }
        let made = tokio::select! {
            () = stop.cancelled() => return,
            made = make(&shared, &source) => made,
        };
        match made {
            Ok(media) => {
                let media = slot.measured(media);
                slot.set(Some(Arc::clone(&media)));
                break media;
            }
            Err(error) => {
                let news = {
                    let mut progress = progress.write().unwrap_or_else(PoisonError::into_inner);
                    let news = progress.error.as_ref() != Some(&error);
                    progress.error = Some(error.clone());
                    news
                };
                if news {
                    tracing::error!(tenant = %tenant.name, source = %source.name, "can't be started: {error}");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY),
        }
    };
    let catalog = Arc::clone(&shared.data.catalog);
    // What is shared must not be kept alive by a source that is on its way out.
    drop(shared);
    let heard = Heard::default();
    Synchroniser { catalog, tenant, source, media, progress, wake, heard, now_ms }.run(stop).await;
}

/// Loads the plugin and makes the instance; a problem in words for the operator.
async fn make(shared: &Arc<Shared>, source: &Source) -> Result<Arc<dyn MediaSource>, String> {
    let (plugins, source) = (Arc::clone(&shared.plugins), source.clone());
    tokio::task::spawn_blocking(move || {
        let trust = Trust { in_process: source.in_process, sha256: source.sha256 };
        let plugin = plugins.load(&source.plugin, trust).map_err(|error| error.to_string())?;
        if let Some(wrong) = plugin.outlasts(&source.settings, source.call_timeout) {
            return Err(format!("settings: {wrong}"));
        }
        let limits = CallLimits { timeout: source.call_timeout, max_calls: 0 };
        let instance =
            plugin.create(&source.name, &source.settings, limits).map_err(|error| error.to_string())?;
        Ok(instance as Arc<dyn MediaSource>)
    })
    .await
    .map_err(|error| error.to_string())?
}
