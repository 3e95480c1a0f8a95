//! The harness of the end-to-end tests: a Wazo tree, a gateway over it, and clients that people use.
//!
//! A [`Fixture`] is a folder of its own with a gateway on a free port; dropping it ends the gateway. When a test
//! fails, the gateway's log is printed.
//!
//! The tests are few programs, because each takes seconds to link and tests of two never run side by side: `together`
//! has those that mostly wait, `load` those that load the machine or measure and take turns therefore, `crowd` those
//! that change what their process may open.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a harness fails its test by panicking, and shows why on the terminal"
)]

mod archive;
mod clients;
mod command;
mod cutter;
mod fixture;
mod gateway;
pub mod hostile;
mod indexes;
mod openmetrics;
mod raw;
mod served;
mod turn;
mod wazo;

pub use archive::{Archive, Archived, FIELD_HEADER};
pub use clients::{Existing, FileZilla, Login, Mount, askpass, ssh_options};
pub use command::{Finished, run, wait_for};
pub use cutter::Cutter;
pub use fixture::{ACME, Fixture, GLOBEX, TenantSpec, broken_source, password, password_hash};
pub use gateway::{Gateway, Ready, artefacts, python_program, recgate, test_plugins};
pub use indexes::{Row, files_below, read_columns, read_index};
pub use openmetrics::OpenMetrics;
pub use raw::{Entry, Kind, Raw, Stat, Status};
pub use served::{
    NO_DELETING, NO_FOLDERS, NO_WRITING, Original, Originals, Served, assert_mirrors, assert_same_times,
    untouched,
};
pub use turn::{Turn, turn};
pub use wazo::{Call, WAZO_TENANT, WazoTree, sounds, utc};
