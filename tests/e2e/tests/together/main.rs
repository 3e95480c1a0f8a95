//! Tests that mostly wait, each for a gateway and clients of its own: any number may run side by side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod algorithms;
mod archive;
mod broken_plugins;
mod call_logd;
mod clients_curl;
mod clients_cut;
mod clients_filezilla;
mod clients_lftp;
mod clients_openssh;
mod clients_putty;
mod clients_python;
mod clients_rclone;
mod clients_sshfs;
mod damage;
mod demo;
mod indexes;
mod isolation;
mod keys;
mod live;
mod log;
mod media;
mod metrics;
mod mirror;
mod names;
mod operation;
mod proxy;
mod refusals;
mod search;
mod sources;
