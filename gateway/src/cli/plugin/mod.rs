//! `recgate plugin`: what plugins there are, and what one is.

use std::path::PathBuf;

use serde::Serialize;

use super::{ConfigArgument, Failure, Output, output::columns};
use crate::{config, sources::PluginInfo};

pub(super) mod host;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// List the plugins that the gateway finds, and those that it refuses, with the reason.
    List(ListArguments),
    /// Load a plugin and show what it says of itself, and the schema of its settings.
    Inspect(InspectArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct InspectArguments {
    /// The plugin's file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A file in a plugin folder: what it is, or why the gateway wouldn't load it.
#[derive(Debug, Serialize)]
struct Listed {
    file: PathBuf,
    /// It lies beside the executable.
    own: bool,
    info: Option<PluginInfo>,
    refused: Option<String>,
}

pub(super) fn run(command: Subcommands, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Subcommands::List(arguments) => list(&arguments, output),
        Subcommands::Inspect(arguments) => inspect(&arguments, output),
    }
}

fn list(arguments: &ListArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    // Without any configuration, the plugins beside the executable are what there is.
    let dirs = if arguments.config.named().is_none() && !arguments.config.path().exists() {
        Vec::new()
    } else {
        // Mistakes elsewhere in it don't matter: this command helps to correct them.
        let inspection = config::inspect(&arguments.config.path());
        match inspection.plugin_dirs() {
            Some(dirs) => dirs.to_vec(),
            None => arguments.config.load()?.plugin_dirs,
        }
    };
    let mut found = Vec::new();
    for plugin in host::plugins(dirs).list() {
        found.push(match plugin.result {
            Ok(info) => Listed { file: plugin.path, own: plugin.own, info: Some(info), refused: None },
            Err(error) => {
                Listed { file: plugin.path, own: plugin.own, info: None, refused: Some(error.to_string()) }
            }
        });
    }
    if arguments.json {
        return output.json(&found);
    }
    let mut rows = vec![["PLUGIN", "VERSION", "ABI", "FILE"].map(str::to_owned).to_vec()];
    for plugin in &found {
        if let Some(info) = &plugin.info {
            let abi = format!("{}.{}", info.abi.0, info.abi.1);
            rows.push(vec![info.name.clone(), info.version.clone(), abi, plugin.file.display().to_string()]);
        }
    }
    for line in columns(&rows) {
        output.line(line)?;
    }
    for plugin in &found {
        if let Some(refused) = &plugin.refused {
            output.line(format!("refused: {refused}"))?;
        }
    }
    Ok(())
}

fn inspect(arguments: &InspectArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let file = std::path::absolute(&arguments.file).map_err(Failure::failed)?;
    let info = host::plugins(Vec::new()).inspect(&file).map_err(Failure::failed)?;
    if arguments.json {
        return output.json(&info);
    }
    let sha256: String = info.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    output.line(format!("file     {} ({} bytes)", info.path.display(), info.size))?;
    output.line(format!("sha256   {sha256}"))?;
    output.line(format!("name     {}", info.name))?;
    output.line(format!("version  {}", info.version))?;
    output.line(format!("licence  {}", info.licence))?;
    output.line(format!("abi      {}.{}", info.abi.0, info.abi.1))?;
    output.line("settings (JSON Schema):")?;
    output.json(&info.schema)
}
