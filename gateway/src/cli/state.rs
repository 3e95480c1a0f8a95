//! `recgate state`: what the gateway has stored. What needs a stopped gateway holds the data folder's lock meanwhile.

use std::path::{Path, PathBuf};

use super::{Exit, Failure, GatewayArgument, Output, block_on, status};
use crate::{
    admin::{
        BackupReport, DataDirLock, LockError,
        client::{Client, ClientError},
    },
    maintenance,
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

fn verify(arguments: &Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let lock = stopped(&arguments.gateway.data_dir()?)?;
    let report = block_on(maintenance::verify(lock.dir()))?.map_err(Failure::failed)?;
    print(arguments.json, &report, output)?;
    if report.damage.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Damaged, "the state is damaged; `recgate state rebuild` builds the stores again"))
}

fn rebuild(arguments: &Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let lock = stopped(&arguments.gateway.data_dir()?)?;
    let report = block_on(maintenance::rebuild(lock.dir()))?.map_err(Failure::failed)?;
    print(arguments.json, &report, output)
}

fn backup(arguments: &CopyArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let directory = std::path::absolute(&arguments.directory).map_err(Failure::failed)?;
    let data_dir = arguments.state.gateway.data_dir()?;
    let report = match block_on(Client::new(&data_dir).backup(&directory))? {
        Ok(report) => report,
        Err(ClientError::NotRunning(_)) => {
            let lock = stopped(&data_dir)?;
            block_on(maintenance::backup(lock.dir(), &directory))?.map_err(Failure::failed)?
        }
        Err(error) => return Err(status::failure(&error)),
    };
    if arguments.state.json { output.json(&report) } else { output.line(backup_line(&report)) }
}

fn restore(arguments: &CopyArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let data_dir = arguments.state.gateway.data_dir()?;
    let lock = DataDirLock::acquire(&data_dir).map_err(locked)?;
    refuse_unless_empty(&data_dir)?;
    let report =
        block_on(maintenance::restore(&arguments.directory, lock.dir()))?.map_err(Failure::failed)?;
    print(arguments.state.json, &report, output)
}

/// The right to the data folder of a stopped gateway.
fn stopped(data_dir: &Path) -> Result<DataDirLock, Failure> {
    DataDirLock::acquire_existing(data_dir).map_err(locked)
}

fn locked(error: LockError) -> Failure {
    match error {
        LockError::Taken(_) => Failure::new(Exit::Running, error),
        _ => Failure::failed(error),
    }
}

fn refuse_unless_empty(data_dir: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(data_dir).map_err(Failure::failed)? {
        let entry = entry.map_err(Failure::failed)?;
        if entry.file_name() != DataDirLock::FILE {
            return Err(Failure::failed(format!(
                "the data folder {} is not empty; move what is there away first",
                data_dir.display()
            )));
        }
    }
    Ok(())
}

fn print(json: bool, report: &maintenance::Report, output: &mut Output<'_>) -> Result<(), Failure> {
    if json { output.json(report) } else { output.line(report) }
}

fn backup_line(report: &BackupReport) -> String {
    let reach: Vec<_> =
        report.journals.iter().map(|head| format!("{} entry {}", head.chain, head.sequence)).collect();
    format!(
        "{}: {} files, {} bytes, up to {}",
        report.directory.display(),
        report.files,
        report.bytes,
        if reach.is_empty() { "an empty journal".to_owned() } else { reach.join(" and ") },
    )
}
