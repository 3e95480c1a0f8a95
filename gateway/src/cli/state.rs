//! `recgate state`: what the gateway has stored. What needs a stopped gateway holds the data folder's lock meanwhile.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Exit, Failure, GatewayArgument, Output, block_on, status};
use crate::{
    admin::{
        BackupReport, JournalHead,
        client::{Client, ClientError},
    },
    gateway::data::{self, Data, DataError},
    state::{DataDirLock, LockError},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// Check that the journal is whole and the stores open. On a stopped gateway; changes nothing.
    Verify(Arguments),
    /// Set the stores aside and build them again from the journal. On a stopped gateway.
    Rebuild(Arguments),
    /// Copy the state, of a running gateway or a stopped one.
    Backup(CopyArguments),
    /// Copy a backup into an empty data folder.
    Restore(CopyArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: GatewayArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct CopyArguments {
    /// The folder of the backup
    #[arg(value_name = "BACKUP_DIR")]
    directory: PathBuf,
    #[command(flatten)]
    state: Arguments,
}

pub(super) fn run(command: Subcommands, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Subcommands::Verify(arguments) => verify(&arguments, output),
        Subcommands::Rebuild(arguments) => rebuild(&arguments, output),
        Subcommands::Backup(arguments) => backup(&arguments, output),
        Subcommands::Restore(arguments) => restore(&arguments, output),
    }
}

/// What was found or done.
#[derive(Debug, Serialize)]
struct Report {
    data_dir: PathBuf,
    /// What is damaged; `None` where the state is whole.
    damage: Option<String>,
    journals: Vec<JournalHead>,
}

impl Report {
    fn new(dir: &Path, verified: Result<data::Verified, DataError>) -> Self {
        let (damage, journals) = match verified {
            Ok(verified) => (None, verified.heads()),
            Err(error) => (Some(error.to_string()), Vec::new()),
        };
        Self { data_dir: dir.to_owned(), damage, journals }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.damage {
            Some(damage) => write!(f, "{}: {damage}", self.data_dir.display()),
            None => write!(f, "{}: whole, up to {}", self.data_dir.display(), reach(&self.journals)),
        }
    }
}

fn verify(arguments: &Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let lock = stopped(&arguments.gateway.data_dir()?)?;
    let report = Report::new(lock.dir(), data::verify(lock.dir()));
    print(arguments.json, &report, output)?;
    if report.damage.is_none() {
        return Ok(());
    }
    let advice = "the state is damaged. A damaged store is rebuilt from the journal by `recgate state rebuild`; for a damaged journal restore a backup";
    Err(Failure::new(Exit::Damaged, advice))
}

fn rebuild(arguments: &Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let lock = stopped(&arguments.gateway.data_dir()?)?;
    block_on(data::rebuild(lock.dir()))?.map_err(Failure::failed)?;
    print(arguments.json, &Report::new(lock.dir(), data::verify(lock.dir())), output)
}

fn backup(arguments: &CopyArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let directory = std::path::absolute(&arguments.directory).map_err(Failure::failed)?;
    let data_dir = arguments.state.gateway.data_dir()?;
    let report = match block_on(Client::new(&data_dir).backup(&directory))? {
        Ok(report) => report,
        Err(ClientError::NotRunning(_)) => {
            let lock = stopped(&data_dir)?;
            block_on(backup_stopped(lock.dir(), &directory))?.map_err(Failure::failed)?
        }
        Err(error) => return Err(status::failure(&error)),
    };
    if arguments.state.json { output.json(&report) } else { output.line(backup_line(&report)) }
}

async fn backup_stopped(data_dir: &Path, directory: &Path) -> Result<BackupReport, DataError> {
    let data = Data::open(data_dir).await?;
    let report = data.backup(directory).await;
    data.close().await?;
    report
}

fn restore(arguments: &CopyArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let data_dir = arguments.state.gateway.data_dir()?;
    let lock = DataDirLock::acquire(&data_dir).map_err(locked)?;
    block_on(data::restore(&arguments.directory, lock.dir()))?.map_err(Failure::failed)?;
    print(arguments.state.json, &Report::new(lock.dir(), data::verify(lock.dir())), output)
}

/// The right to the data folder of a stopped gateway.
fn stopped(data_dir: &Path) -> Result<DataDirLock, Failure> {
    DataDirLock::acquire_existing(data_dir).map_err(locked)
}

fn locked(error: LockError) -> Failure {
    match error {
        LockError::InUse { .. } => Failure::new(Exit::Running, error),
        _ => Failure::failed(error),
    }
}

fn print(json: bool, report: &Report, output: &mut Output<'_>) -> Result<(), Failure> {
    if json { output.json(report) } else { output.line(report) }
}

fn backup_line(report: &BackupReport) -> String {
    format!(
        "{}: {} files, {} bytes, up to {}",
        report.directory.display(),
        report.files,
        report.bytes,
        reach(&report.journals)
    )
}

fn reach(journals: &[JournalHead]) -> String {
    let heads: Vec<_> =
        journals.iter().map(|head| format!("{} entry {}", head.chain, head.sequence)).collect();
    if heads.is_empty() { "an empty journal".to_owned() } else { heads.join(" and ") }
}
