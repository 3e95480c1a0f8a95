//! `recgate index`: the running gateway's indexes.

use chrono::{DateTime, Utc};
use clap::Args;

use super::{
    Failure, GatewayArgument, Output, block_on,
    output::size,
    status,
    table::{Fit, Table, terminal_width},
};
use crate::admin::{
    client::{Client, ClientError},
    records::{
        IndexFileKind, IndexListRequest, IndexReport, IndexShowRequest, RepublishReport, RepublishRequest,
    },
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// List the root indexes, with what is owed
    List(ListArguments),
    /// Print an index as clients see it
    Show(ShowArguments),
    /// Have the root indexes of days, and the folders that their recordings lie in, written anew at once
    Republish(RepublishArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// The first date
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last date
    #[arg(long, value_name = "DAY")]
    until: Option<String>,
    /// The tenant's name [default: all tenants]
    #[arg(long)]
    tenant: Option<String>,
    /// Print a line of JSON an index
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgument,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The date, such as 2016-06-06: of the tenant's zone for the root index, of UTC for a folder's
    day: String,
    /// The folder's index of WAVs with the brief columns (S20160606/I20160606.csv) instead of the root index
    #[arg(long, group = "file")]
    brief: bool,
    /// The folder's index of WAVs with all columns (S20160606/I20160606_version2.csv)
    #[arg(long, group = "file")]
    full: bool,
    /// The folder's index of other media (S20160606/M20160606.csv)
    #[arg(long, group = "file")]
    media: bool,
    /// The tenant's name, where there are several
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgument,
}

#[derive(Debug, Args)]
pub(super) struct RepublishArguments {
    /// The date, of the tenant's zone
    #[arg(required_unless_present = "from")]
    day: Option<String>,
    /// The first date of several
    #[arg(long, value_name = "DAY", requires = "until", conflicts_with = "day")]
    from: Option<String>,
    /// The last one
    #[arg(long, value_name = "DAY", requires = "from")]
    until: Option<String>,
    /// The tenant's name, where there are several
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgument,
}

pub(super) fn run(command: Subcommands, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Subcommands::List(arguments) => list(arguments, output),
        Subcommands::Show(arguments) => show(arguments, output),
        Subcommands::Republish(arguments) => republish(arguments, output),
    }
}

const TITLES: [(&str, Fit); 8] = [
    ("TENANT", Fit::Whole),
    ("DAY", Fit::Whole),
    ("ROWS", Fit::Whole),
    ("GENERATION", Fit::Whole),
    ("LENGTH", Fit::Whole),
    ("PUBLISHED (UTC)", Fit::Cut),
    ("STATE", Fit::Whole),
    ("OWED (UTC)", Fit::Cut),
];

fn list(arguments: ListArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let mut table = Table::new(&TITLES, terminal_width());
    let mut request = IndexListRequest {
        tenant: arguments.tenant,
        from: arguments.from,
        until: arguments.until,
        ..IndexListRequest::default()
    };
    block_on(async {
        loop {
            let answer = client.indexes(&request).await.map_err(|error| status::failure(&error))?;
            if arguments.json {
                answer.indexes.iter().try_for_each(|index| output.json_line(index))?;
            } else if !answer.indexes.is_empty() {
                let rows: Vec<_> = answer.indexes.iter().map(cells).collect();
                table.lines(&rows).iter().try_for_each(|line| output.line(line))?;
            }
            output.flush()?;
            match answer.after {
                Some(after) => request.after = Some(after),
                None => return Ok(()),
            }
        }
    })?
}

fn cells(index: &IndexReport) -> Vec<String> {
    let time = |time: Option<DateTime<Utc>>| {
        time.map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default()
    };
    let state = match index.generation {
        None => "unpublished",
        Some(_) if index.running => "running",
        Some(_) if index.complete => "complete",
        Some(_) => "incomplete",
    };
    let owed = match (index.due, index.overdue) {
        (None, _) => String::new(),
        (due, true) => format!("since {}", time(due)),
        (due, false) => format!("until {}", time(due)),
    };
    vec![
        index.tenant.clone(),
        index.day.to_string(),
        index.rows.to_string(),
        index.generation.map(|generation| generation.to_string()).unwrap_or_default(),
        size(index.length),
        time(index.modified),
        state.to_owned(),
        owed,
    ]
}

fn show(arguments: ShowArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let file = match (arguments.brief, arguments.full, arguments.media) {
        (true, _, _) => IndexFileKind::Brief,
        (_, true, _) => IndexFileKind::Full,
        (_, _, true) => IndexFileKind::Media,
        _ => IndexFileKind::Root,
    };
    let request = IndexShowRequest { tenant: arguments.tenant, day: arguments.day, file };
    block_on(client.index(&request, |piece| output.bytes(piece)))?
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        status::failure(&error)
    }
}

fn republish(arguments: RepublishArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let from = arguments.day.or(arguments.from).unwrap_or_default();
    let request = RepublishRequest { tenant: arguments.tenant, from, until: arguments.until };
    let report = block_on(client.republish(&request))??;
    if arguments.json {
        return output.json(&report);
    }
    lines(&report).iter().try_for_each(|line| output.line(line))
}

fn lines(report: &RepublishReport) -> Vec<String> {
    [
        ("written anew", &report.written),
        ("owed; the gateway goes on with it", &report.owed),
        (
            "not published yet; it comes when the day is over and its sources have told it",
            &report.unpublished,
        ),
    ]
    .into_iter()
    .flat_map(|(what, indexes)| indexes.iter().map(move |index| format!("{index}: {what}")))
    .collect()
}
