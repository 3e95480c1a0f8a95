//! `recgate source`: the running gateway's sources.

use chrono::{DateTime, Utc};
use clap::Args;

use super::{
    Failure, GatewayArgument, Output, block_on, status,
    table::{Fit, Table, terminal_width},
};
use crate::admin::{AcceptLossRequest, SourceReport, client::Client};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// List the sources with what is wrong with each
    List(ListArguments),
    /// Say that what a source's last full scan missed was removed on purpose: the next one marks it missing
    AcceptLoss(AcceptLossArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Print a line of JSON a source
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgument,
}

#[derive(Debug, Args)]
pub(super) struct AcceptLossArguments {
    /// The names of the tenant and of its source, such as acme/pbx
    #[arg(value_name = "TENANT/SOURCE")]
    source: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgument,
}

pub(super) fn run(command: Subcommands, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Subcommands::List(arguments) => list(&arguments, output),
        Subcommands::AcceptLoss(arguments) => accept_loss(arguments, output),
    }
}

const TITLES: [(&str, Fit); 5] = [
    ("SOURCE", Fit::Whole),
    ("PLUGIN", Fit::Whole),
    ("MEDIA", Fit::Whole),
    ("LAST SCAN (UTC)", Fit::Whole),
    ("PROBLEM", Fit::Cut),
];

fn list(arguments: &ListArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let report = block_on(client.status())??;
    let mut rows = Vec::new();
    for tenant in &report.tenants {
        for source in &tenant.sources {
            if arguments.json {
                output.json_line(&serde_json::json!({ "tenant": tenant.name, "source": source }))?;
            }
            rows.push(cells(&tenant.name, source));
        }
    }
    if arguments.json || rows.is_empty() {
        return Ok(());
    }
    Table::new(&TITLES, terminal_width()).lines(&rows).iter().try_for_each(|line| output.line(line))
}

fn cells(tenant: &str, source: &SourceReport) -> Vec<String> {
    let time = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S").to_string();
    let problem = source.problem.as_ref().or(source.plugin_status.last_error.as_ref());
    vec![
        format!("{tenant}/{}", source.name),
        source.plugin.clone(),
        source.media.to_string(),
        source.last_scan.map_or_else(|| "none yet".to_owned(), time),
        problem.cloned().unwrap_or_default(),
    ]
}

fn accept_loss(arguments: AcceptLossArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let request = AcceptLossRequest { source: arguments.source };
    let report = block_on(client.accept_loss(&request))?.map_err(|error| status::failure(&error))?;
    if arguments.json {
        return output.json(&report);
    }
    output.line(format!(
        "{}: {} media are accepted as lost; a full scan begins soon and marks those missing that are still gone",
        report.source, report.media
    ))
}
