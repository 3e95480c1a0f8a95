//! The harness of the end-to-end tests: a Wazo tree, a gateway over it, and clients that people use.
//!
//! A [`Fixture`] is a folder of its own with a gateway on a free port; dropping it ends the gateway. When a test
//! fails, the gateway's log is printed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a harness fails its test by panicking, and shows why on the terminal"
)]

mod clients;
mod command;
mod fixture;
mod gateway;
pub mod hostile;
mod indexes;
mod raw;
mod wazo;

pub use clients::{Login, askpass, ssh_options};
pub use command::{Finished, run, wait_for};
pub use fixture::{ACME, Fixture, GLOBEX, TenantSpec, password, password_hash};
pub use gateway::{Gateway, Ready, python_program, recgate, test_plugins};
pub use indexes::{Row, files_below, read_index};
pub use raw::{Entry, Kind, Raw, Stat, Status};
pub use wazo::{Call, WazoTree, sounds, utc};
