//! State that survives a restart: ordered key-value stores and the journal.
//!
//! Everything above is written on [`Store`]; its engines are held to one shared suite of tests.

mod files;
pub mod journal;
mod redb;
mod store;

pub use files::{DataDirLock, LockError, durable_write, gateway_id, sync_folder};
pub use journal::{
    Appended, Chain, Cut, Entry, Head, Journal, JournalError, JournalOptions, JournalReader, NewEntry,
    Recovery, Report,
};
pub use redb::RedbStore;
pub use store::{Batch, Condition, MAX_PAGE, Page, Row, Store, StoreError, Versioned};
