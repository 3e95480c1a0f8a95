//! The command line: a file per subcommand.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};

mod check;
mod demo;
mod descriptors;
mod exit;
mod hash_password;
mod index;
mod output;
mod plugin;
mod recording;
mod serve;
mod source;
mod state;
mod status;
mod table;

pub use exit::{Exit, Failure};
pub use output::Output;

/// A storage gateway for call recordings.
#[derive(Debug, Parser)]
#[command(name = "recgate", version, propagate_version = true, after_help = Exit::help())]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway. SIGHUP reloads the configuration, SIGTERM lets transfers finish and ends.
    Serve(serve::Arguments),
    /// Check a configuration: every mistake in it, and each source's settings.
    Check(check::Arguments),
    /// Make two invented contact centres with recordings, serve them, and say how to look at them.
    Demo(demo::Arguments),
    /// Turn a password into the hash that a configuration takes.
    HashPassword(hash_password::Arguments),
    /// Say how the running gateway is.
    Status(status::Arguments),
    /// Find recordings, look at one, erase what is personal about one.
    #[command(subcommand)]
    Recording(recording::Subcommands),
    /// Look at the indexes, or have them written anew.
    #[command(subcommand)]
    Index(index::Subcommands),
    /// Look at the sources, or accept what one has lost.
    #[command(subcommand)]
    Source(source::Subcommands),
    /// Look at plugins.
    #[command(subcommand)]
    Plugin(plugin::Subcommands),
    /// Verify, rebuild, back up or restore what the gateway has stored.
    #[command(subcommand)]
    State(state::Subcommands),
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
struct ConfigArgument {
    /// The configuration file [default: the variable RECGATE_CONFIG, else /etc/recgate/recgate.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn path(&self) -> PathBuf {
        self.named().unwrap_or_else(|| PathBuf::from("/etc/recgate/recgate.toml"))
    }

    /// The file that somebody has named.
    fn named(&self) -> Option<PathBuf> {
        let from_environment = || std::env::var_os("RECGATE_CONFIG").filter(|path| !path.is_empty());
        self.config.clone().or_else(|| from_environment().map(PathBuf::from))
    }

    fn load(&self) -> Result<Config, Failure> {
        config::load(&self.path()).map_err(|problems| Failure::new(Exit::Configuration, problems))
    }
}

/// Which gateway.
#[derive(Debug, Clone, Args)]
struct GatewayArgument {
    #[command(flatten)]
    config: ConfigArgument,
    /// The gateway's data folder, instead of a configuration that names it
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
}

impl GatewayArgument {
    fn data_dir(&self) -> Result<PathBuf, Failure> {
        match &self.data_dir {
            Some(dir) => std::path::absolute(dir).map_err(Failure::failed),
            None => self.config.load().map(|config| config.data_dir),
        }
    }
}

/// Runs the command that these arguments ask for; the first is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let exit = match CommandLine::try_parse_from(arguments) {
        Ok(line) => {
            let mut stdout = io::stdout().lock();
            let mut output = Output::new(&mut stdout);
            let result = run(line.command, &mut output).and_then(|()| output.flush());
            match result {
                Ok(()) => Exit::Done,
                Err(failure) => {
                    if !failure.message.is_empty() {
                        // Where standard error is closed, the exit code still tells.
                        let _ = writeln!(io::stderr(), "{}", failure.message);
                    }
                    failure.exit
                }
            }
        }
        Err(error) => {
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    };
    ExitCode::from(exit.code())
}

fn run(command: Command, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Check(arguments) => check::run(arguments, output),
        Command::Demo(arguments) => demo::run(arguments, output),
        Command::HashPassword(arguments) => hash_password::run(&arguments, output),
        Command::Status(arguments) => status::run(&arguments, output),
        Command::Recording(command) => recording::run(command, output),
        Command::Index(command) => index::run(command, output),
        Command::Source(command) => source::run(command, output),
        Command::Plugin(command) => plugin::run(command, output),
        Command::State(command) => state::run(command, output),
    }
}

/// Runs a short piece of asynchronous work.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Failure::failed)?.block_on(work))
}

#[cfg(test)]
mod tests;
