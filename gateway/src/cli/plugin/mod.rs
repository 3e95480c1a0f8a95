//! `recgate plugin`: what plugins there are, and what one is.

use std::path::PathBuf;

use super::{ConfigArgument, Failure, Output, output::columns};

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
        arguments.config.load()?.plugin_dirs
    };
    let found = host::list(&dirs).map_err(Failure::failed)?;
    if arguments.json {
        return output.json(&found);
    }
    let mut rows = vec![["PLUGIN", "VERSION", "ABI", "FILE"].map(str::to_owned).to_vec()];
    for plugin in &found {
        rows.push(vec![
            plugin.name.clone().unwrap_or_else(|| "-".to_owned()),
            plugin.version.clone().unwrap_or_else(|| "-".to_owned()),
            plugin.abi.clone().unwrap_or_else(|| "-".to_owned()),
            plugin.file.display().to_string(),
        ]);
    }
    for line in columns(&rows) {
        output.line(line)?;
    }
    for plugin in &found {
        if let Some(refused) = &plugin.refused {
            output.line(format!("{} is refused: {refused}", plugin.file.display()))?;
        }
    }
    Ok(())
}

fn inspect(arguments: &InspectArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let plugin = host::inspect(&arguments.file).map_err(Failure::failed)?;
    if arguments.json {
        return output.json(&plugin);
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    output.line(format!("file     {}", plugin.plugin.file.display()))?;
    output.line(format!("sha256   {}", plugin.sha256))?;
    output.line(format!("name     {}", text(&plugin.plugin.name)))?;
    output.line(format!("version  {}", text(&plugin.plugin.version)))?;
    output.line(format!("licence  {}", plugin.licence))?;
    output.line(format!("abi      {}", text(&plugin.plugin.abi)))?;
    output.line("settings (JSON Schema):")?;
    output.json(&plugin.schema)
}
