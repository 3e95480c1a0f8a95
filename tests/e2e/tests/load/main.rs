//! Tests that load the machine or tell who gets how much of it: each waits for its [`recgate_e2e::turn`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bench;
mod hostile_channels;
mod hostile_login;
mod hostile_sftp;
mod hostile_transport;
mod large_day;
mod limits;
mod throttle;
