//! State that survives a restart: ordered key-value stores and the journal.
//!
//! Everything above is written on [`Store`]; its engines are held to one shared suite of tests.

#[cfg(test)]
mod crash;
mod files;
pub mod journal;
mod notes;
mod pages;
mod redb;
#[cfg(test)]
pub(crate) mod shim;
mod sled;
mod snapshot;
mod store;
#[cfg(test)]
mod suite;

pub use files::{DataDirLock, LockError, durable_write, gateway_id, sync_folder};
pub use journal::{
    Appended, Chain, Cut, Entry, Head, Journal, JournalError, JournalOptions, JournalReader, NewEntry,
    Recovery, Report, Segment,
};
pub use notes::Notes;
pub use pages::Pages;
pub use redb::RedbStore;
pub use sled::{OpenState, Opened, SledStore};
pub use snapshot::{load_snapshot, write_snapshot};
pub use store::{Batch, Changes, Condition, MAX_PAGE, Page, Row, Store, StoreError, Versioned};
