//! `recgate serve`: runs the gateway until a signal ends it.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArgument, Exit, Failure, descriptors};
use crate::{
    admin::ready::{Ready, ReadyUser},
    config::{self, Config},
    gateway::{Gateway, StartError},
    state::LockError,
    telemetry,
};

/// Run the gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Write this file, as JSON, once everything listens: addresses and host keys
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.config.load()?;
    telemetry::init(&config.log).map_err(Failure::failed)?;
    let service = Service {
        path: arguments.config.path(),
        config,
        ready_file: arguments.ready_file,
        demo_users: Vec::new(),
    };
    service.run(|_| Ok(()))
}

/// A gateway to be run, by `serve` or by `demo`.
pub(super) struct Service {
    /// The configuration file, read again at each reload.
    pub path: PathBuf,
    /// What is in it.
    pub config: Config,
    pub ready_file: Option<PathBuf>,
    pub demo_users: Vec<ReadyUser>,
}

impl Service {
    /// Runs it until SIGTERM or SIGINT. `started` is called once everything listens.
    pub fn run(self, started: impl FnOnce(&Ready) -> Result<(), Failure>) -> Result<(), Failure> {
        if let Some(file) = &self.ready_file {
            remove_stale(file)?;
        }
        descriptors::raise();
        descriptors::check(&self.config.limits);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("recgate")
            .build()
            .map_err(Failure::failed)?;
        let result = runtime.block_on(self.supervise(started));
        // A plugin's call may hang in a thread for ever; what must be kept has been written by now.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }

    async fn supervise(self, started: impl FnOnce(&Ready) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut stop = Stop::new().map_err(Failure::failed)?;
        let mut reload = signal(SignalKind::hangup()).map_err(Failure::failed)?;
        let Self { path, mut config, ready_file, demo_users } = self;
        let gateway = tokio::select! {
            gateway = Gateway::start(config.clone(), ready_file.clone(), demo_users) => {
                gateway.map_err(|error| Failure::new(exit_of(&error), format!("the gateway can't start: {error}")))?
            }
            // Whatever was begun is what a crash would leave, which the next start can cope with.
            name = stop.recv() => {
                tracing::info!(signal = name, "stopped while starting");
                return Ok(());
            }
        };
        started(gateway.ready())?;
        loop {
            tokio::select! {
                name = stop.recv() => {
                    tracing::info!(signal = name, "stopping; a second signal ends at once");
                    break;
                }
                _ = reload.recv() => {}
            }
            // To its end, also when a signal to stop comes meanwhile: a half-taken configuration helps nobody.
            if let Some(new) = take_new(&gateway, &path, &config).await {
                config = new;
            }
        }
        let result = tokio::select! {
            () = gateway.shutdown() => Ok(()),
            name = stop.recv() => {
                tracing::warn!(signal = name, "ended at once");
                Err(Failure::new(Exit::Failed, "ended at once by a second signal; running transfers were cut off"))
            }
        };
        if let Some(file) = &ready_file {
            remove_stale(file)?;
        }
        tracing::info!("stopped");
        result
    }
}

fn exit_of(error: &StartError) -> Exit {
    match error {
        StartError::Data(error) if error.is_damage() => Exit::Damaged,
        StartError::Lock(LockError::InUse { .. }) => Exit::Running,
        StartError::NameForm { .. } => Exit::Configuration,
        _ => Exit::Failed,
    }
}

/// Reads the configuration again and goes over to it; `None` where everything stays as it was.
async fn take_new(gateway: &Gateway, path: &Path, old: &Config) -> Option<Config> {
    let read = config::load(path).and_then(|new| config::check_reload(path, old, &new).map(|()| new));
    let new = match read {
        Ok(new) => new,
        Err(problems) => {
            for problem in problems.iter() {
                tracing::error!("{problem}");
            }
            tracing::error!(
                mistakes = problems.0.len(),
                "the configuration was not taken; the gateway goes on with the one before"
            );
            return None;
        }
    };
    if let Err(error) = gateway.reload(new.clone()).await {
        tracing::error!(%error, "the configuration was not taken; the gateway goes on with the one before");
        return None;
    }
    if let Err(error) = telemetry::set_filter(&new.log.filter) {
        tracing::warn!(%error, "the log filter stays as it was");
    }
    descriptors::check(&new.limits);
    tracing::info!("the new configuration is taken");
    Some(new)
}

/// The signals that end the gateway.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and names it.
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A ready file of an earlier run would tell a script that this one listens.
fn remove_stale(file: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::failed(format!("{} can't be removed: {error}", file.display())))
        }
        _ => Ok(()),
    }
}
