//! Puts the parts together: start, reload, drain.

use std::path::PathBuf;

use crate::{
    admin::ready::{Ready, ReadyUser},
    config::Config,
};

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    ready: Ready,
}

/// Why a gateway doesn't start, or doesn't take a new configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl Gateway {
    /// Starts everything; returns once it listens, with the ready file written.
    ///
    /// # Errors
    /// What can't be started.
    pub async fn start(
        _config: Config,
        _ready: Option<PathBuf>,
        _demo_users: Vec<ReadyUser>,
    ) -> Result<Self, StartError> {
        Err(StartError("the gateway's parts are not put together yet".to_owned()))
    }

    /// What the ready file says.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Goes over to a new configuration, whole or not at all.
    ///
    /// # Errors
    /// What can't be taken; the old configuration goes on.
    pub async fn reload(&self, _config: Config) -> Result<(), StartError> {
        Ok(())
    }

    /// Refuses new sessions, lets transfers finish within the grace time, and closes everything.
    pub async fn shutdown(self) {}
}
