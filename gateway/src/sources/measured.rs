//! A source whose calls are counted, whatever makes them.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use bytes::Bytes;
use recgate_plugin_api::{Capabilities, Health, Item, Media, ScanEnd};
use tokio::sync::mpsc;

use super::{Live, MediaSource, OpenMedia, ScanStart, SourceError, SourceStatus};
use crate::telemetry::{SourceCall, SourceCalls};

/// See the module.
pub struct Measured {
    source: Arc<dyn MediaSource>,
    calls: Arc<SourceCalls>,
}

impl Measured {
    /// Counts the calls of a source.
    pub fn new(source: Arc<dyn MediaSource>, calls: Arc<SourceCalls>) -> Self {
        Self { source, calls }
    }
}

#[async_trait]
impl MediaSource for Measured {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.source.capabilities()
    }

    fn status(&self) -> SourceStatus {
        self.source.status()
    }

    fn remains(&self) -> Weak<dyn Any + Send + Sync> {
        self.source.remains()
    }

    async fn health(&self) -> Result<Health, SourceError> {
        measured(&self.calls, SourceCall::Health, self.source.health()).await
    }

    async fn scan(&self, from: ScanStart, items: mpsc::Sender<Vec<Item>>) -> Result<ScanEnd, SourceError> {
        measured(&self.calls, SourceCall::Scan, self.source.scan(from, items)).await
    }

    fn watches(&self) -> bool {
        self.source.watches()
    }

    async fn watch(&self, told: mpsc::Sender<Live>) -> Result<(), SourceError> {
        measured(&self.calls, SourceCall::Watch, self.source.watch(told)).await
    }

    async fn stat(&self, id: &str, version: Option<&str>) -> Result<Media, SourceError> {
        measured(&self.calls, SourceCall::Stat, self.source.stat(id, version)).await
    }

    async fn open(&self, id: &str, version: &str) -> Result<Arc<dyn OpenMedia>, SourceError> {
        Ok(self.open_with_first(id, version, 0).await?.0)
    }

    async fn open_with_first(
        &self,
        id: &str,
        version: &str,
        len: usize,
    ) -> Result<(Arc<dyn OpenMedia>, Option<Bytes>), SourceError> {
        let opened = self.source.open_with_first(id, version, len);
        let (media, first) = measured(&self.calls, SourceCall::Open, opened).await?;
        if let Some(first) = &first {
            self.calls.read(u64::try_from(first.len()).unwrap_or(u64::MAX));
        }
        Ok((Arc::new(MeasuredMedia { media, calls: Arc::clone(&self.calls) }), first))
    }
}

struct MeasuredMedia {
    media: Arc<dyn OpenMedia>,
    calls: Arc<SourceCalls>,
}

#[async_trait]
impl OpenMedia for MeasuredMedia {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, SourceError> {
        let bytes = measured(&self.calls, SourceCall::ReadAt, self.media.read_at(offset, len)).await?;
        self.calls.read(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(bytes)
    }
}

async fn measured<T>(
    calls: &SourceCalls,
    call: SourceCall,
    work: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let running = calls.start(call);
    let result = work.await;
    if let Some(running) = running {
        running.ended(result.as_ref().map(|_| ()).map_err(|error| error.error.code));
    }
    result
}
