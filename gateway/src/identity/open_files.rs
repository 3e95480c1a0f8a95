//! How many files clients may hold open, over all doors.
//!
//! An open recording or index costs a descriptor of the operating system. Without a cap one login could use them all
//! up, and nobody could connect, nor the gateway write its journal. A tenant gets three quarters at most, as of the
//! connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Resource, getrlimit};

use super::admission::SLACK;
use crate::config::Limits;

/// Descriptors for all but connections and clients' files: stores, journals, sources, listeners, probes, and what
/// plugins read at one moment, generously.
const OWN: usize = 512;
/// So many clients' files there may be however low the operating system's limit is.
const LEAST: usize = 64;

/// The files that clients hold open. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenFiles(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    most: usize,
    all: usize,
    tenants: HashMap<u32, usize>,
}

/// A file that a client holds open; dropped when it is closed.
#[derive(Debug)]
pub struct OpenFilePermit {
    files: OpenFiles,
    tenant: u32,
}

/// There are as many as there may be. What is displayed is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("so many files are open that this one can't be; close some, or try again later")]
pub struct TooManyOpenFiles;

/// How many descriptors let each connection of these limits have an open file. With fewer some are turned away.
pub fn descriptors_needed(limits: &Limits) -> usize {
    others(limits).saturating_add(limits.max_connections)
}

/// All descriptors but those of clients' files: connections, sockets that are on their way, and the gateway's own.
fn others(limits: &Limits) -> usize {
    limits.max_connections.saturating_add(SLACK).saturating_add(OWN)
}

impl OpenFiles {
    pub(super) fn new(limits: &Limits) -> Self {
        let files = Self::default();
        files.configure(limits);
        files
    }

    /// Takes another cap: what the process's limit on descriptors leaves.
    pub(super) fn configure(&self, limits: &Limits) {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.counts().most = limit.saturating_sub(others(limits)).max(LEAST);
    }

    pub(super) fn take(&self, tenant: u32) -> Result<OpenFilePermit, TooManyOpenFiles> {
        let mut counts = self.counts();
        let of_tenant = counts.tenants.get(&tenant).copied().unwrap_or(0);
        if counts.all >= counts.most || of_tenant >= counts.most - counts.most / 4 {
            return Err(TooManyOpenFiles);
        }
        counts.all += 1;
        counts.tenants.insert(tenant, of_tenant + 1);
        Ok(OpenFilePermit { files: self.clone(), tenant })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenFilePermit {
    fn drop(&mut self) {
        let mut counts = self.files.counts();
        counts.all = counts.all.saturating_sub(1);
        if let Some(count) = counts.tenants.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_tenant_never_takes_all() {
        let files = OpenFiles::default();
        files.counts().most = 8;
        let of_one: Vec<_> = std::iter::from_fn(|| files.take(1).ok()).collect();
        let of_other: Vec<_> = std::iter::from_fn(|| files.take(2).ok()).collect();
        assert_eq!((of_one.len(), of_other.len()), (6, 2));
        assert_eq!(files.take(3).unwrap_err(), TooManyOpenFiles);
        drop(of_one);
        assert!(files.take(3).is_ok() && files.take(2).is_ok());
        drop(of_other);
        let counts = files.counts();
        assert_eq!((counts.all, counts.tenants.len()), (0, 0));
    }

    #[test]
    fn each_connection_may_have_a_file() {
        let limits = Limits::default();
        let needed = descriptors_needed(&limits);
        assert_eq!(needed - others(&limits), limits.max_connections);
        assert!(needed > 2 * limits.max_connections + SLACK);
        assert_eq!(descriptors_needed(&Limits { max_connections: usize::MAX, ..limits }), usize::MAX);
    }

    #[test]
    fn the_cap_is_what_connections_leave() {
        let files = OpenFiles::default();
        let with = |connections| Limits { max_connections: connections, ..Limits::default() };
        files.configure(&with(0));
        let most = files.counts().most;
        files.configure(&with(1));
        assert!(files.counts().most <= most);
        files.configure(&with(usize::MAX));
        assert_eq!(files.counts().most, LEAST);
    }
}
