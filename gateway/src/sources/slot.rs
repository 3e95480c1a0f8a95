//! A configured source, started or not, for everybody who has to do with it.

use std::sync::{Arc, PoisonError, RwLock};

use super::{MediaSource, measured::Measured};
use crate::telemetry::SourceCalls;

/// Where a source's running instance is found. It may come later than the gateway, when its storage does.
#[derive(Default)]
pub struct Slot {
    instance: RwLock<Option<Arc<dyn MediaSource>>>,
    calls: Arc<SourceCalls>,
}

impl Slot {
    /// The instance; `None` while it isn't started.
    pub fn instance(&self) -> Option<Arc<dyn MediaSource>> {
        self.instance.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is counted of the calls of [measured](Slot::measured) instances.
    pub fn calls(&self) -> Arc<SourceCalls> {
        Arc::clone(&self.calls)
    }

    /// An instance whose calls are counted here.
    pub fn measured(&self, instance: Arc<dyn MediaSource>) -> Arc<dyn MediaSource> {
        Arc::new(Measured::new(instance, self.calls()))
    }

    /// Puts an instance in, or takes it out. Files that are open keep theirs.
    pub fn set(&self, instance: Option<Arc<dyn MediaSource>>) {
        *self.instance.write().unwrap_or_else(PoisonError::into_inner) = instance;
    }
}
