//! `recgate recording`: the running gateway's recordings.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, ValueEnum};

use super::{
    Exit, Failure, GatewayArgument, Output, block_on,
    output::counted,
    status,
    table::{Fit, Table, plain, terminal_width},
};
use crate::{
    admin::{
        client::Client,
        records::{
            EraseReport, EraseRequest, MOST_ROWS, RecordingReport, RecordingRow, SearchRequest, ShowRequest,
        },
    },
    catalog::{KEPT_FACTS, State},
    layout::text_cell,
};

/// Rows of a table, where nothing else is asked for.
const TABLE_ROWS: u64 = 100;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// Find recordings
    ///
    /// Everything that is given has to be so. A time range, a name and a contact are found directly; anything else
    /// reads through the recordings of the time range, page by page.
    List(Box<ListArguments>),
    /// Tell all that is known about a recording
    Show(ShowArguments),
    /// Erase what is personal about a recording, for good
    #[command(long_about = erase_help())]
    EraseFacts(EraseArguments),
}

/// What is erased and what stays, said by the code that decides it.
fn erase_help() -> String {
    format!(
        "Erase what is personal about a recording, for good\n\n\
         All that facts say about it goes: names, numbers, accounts, cases, codes, the source's id of the call, and every \
         key that the gateway doesn't know. What stays: {}, the file's name, size and times, and the ids and keys by which \
         the source's facts are known when they come again. The index files that list it are written \
         anew and their older generations removed. The same facts are dropped when the source tells them again. The journal \
         says who erased it and when. The media itself stays, as do the source's own records, copies that were \
         downloaded, and backups of the gateway's state.",
        KEPT_FACTS.join(", ")
    )
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Recordings that start at this time or later: an instant with its offset (2016-06-06T17:30:00-07:00), or a date
    /// (2016-06-06) of the tenant's own zone, with --utc of UTC
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Recordings that start before this instant, or until the end of this date
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Read dates, and print times, in UTC instead of the tenant's zone
    #[arg(long)]
    utc: bool,
    /// The file name, with or without its folder
    #[arg(long)]
    name: Option<String>,
    /// A key of the source: of the recording, the object, the contact or the conversation
    #[arg(long, value_name = "KEY")]
    contact: Option<String>,
    /// A part of the agent's name, in any case
    #[arg(long, value_name = "TEXT")]
    agent: Option<String>,
    /// At least three digits that the customer's or the called number has in a row
    #[arg(long, value_name = "DIGITS")]
    number: Option<String>,
    /// A part of the queue's name, in any case
    #[arg(long, value_name = "TEXT")]
    queue: Option<String>,
    /// The source's id of the call, exactly
    #[arg(long, value_name = "ID")]
    transaction: Option<String>,
    /// The state. Without it: published, missing and corrupt; with --contact all
    #[arg(long, value_enum)]
    state: Option<StateArgument>,
    /// The source's name or number
    #[arg(long)]
    source: Option<String>,
    /// The tenant's name [default: all tenants]
    #[arg(long)]
    tenant: Option<String>,
    /// Print at most so many recordings [default: 100 in a table, all with --json or --csv]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Go on after an earlier list, whose end told this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print a line of JSON a recording; where more follow, a last one {"after": CURSOR}
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    gateway: GatewayArgument,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateArgument {
    /// Known, without a name yet
    Learned,
    /// In the tree
    Published,
    /// Without a name, because nothing tells what call it is of
    Orphan,
    /// It has a name, and its media has vanished
    Missing,
    /// It has a name, and its media has changed
    Corrupt,
}

impl From<StateArgument> for State {
    fn from(state: StateArgument) -> Self {
        match state {
            StateArgument::Learned => Self::Learned,
            StateArgument::Published => Self::Published,
            StateArgument::Orphan => Self::Orphan,
            StateArgument::Missing => Self::Missing,
            StateArgument::Corrupt => Self::Corrupt,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// Its uid, or its file name with or without its folder
    #[arg(value_name = "UID|NAME")]
    recording: String,
    /// The tenant's name, where several have a recording of that name
    #[arg(long)]
    tenant: Option<String>,
    /// Print times in UTC instead of the tenant's zone
    #[arg(long)]
    utc: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgument,
}

#[derive(Debug, Args)]
pub(super) struct EraseArguments {
    /// Its uid, or its file name with or without its folder
    #[arg(value_name = "UID|NAME")]
    recording: String,
    /// Why; kept beside the journal, where it can be erased as well
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// The tenant's name, where several have a recording of that name
    #[arg(long)]
    tenant: Option<String>,
    /// Only tell what would be erased
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgument,
}

pub(super) fn run(command: Subcommands, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Subcommands::List(arguments) => list(&arguments, output),
        Subcommands::Show(arguments) => show(arguments, output),
        Subcommands::EraseFacts(arguments) => erase(&arguments, output),
    }
}

fn list(arguments: &ListArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let mut printer = Printer::new(arguments);
    let whole = arguments.json || arguments.csv;
    let mut left = arguments.limit.unwrap_or(if whole { u64::MAX } else { TABLE_ROWS });
    let mut request = SearchRequest {
        tenant: arguments.tenant.clone(),
        from: arguments.from.clone(),
        until: arguments.until.clone(),
        utc: arguments.utc,
        name: arguments.name.clone(),
        contact: arguments.contact.clone(),
        agent: arguments.agent.clone(),
        number: arguments.number.clone(),
        queue: arguments.queue.clone(),
        transaction: arguments.transaction.clone(),
        state: arguments.state.map(State::from),
        source: arguments.source.clone(),
        limit: None,
        after: arguments.after.clone(),
    };
    block_on(async {
        loop {
            request.limit = u32::try_from(left.min(u64::from(MOST_ROWS))).ok();
            let answer = client.search(&request).await.map_err(|error| status::failure(&error))?;
            left = left.saturating_sub(answer.recordings.len() as u64);
            printer.print(&answer.recordings, output)?;
            match answer.after {
                None => return printer.end(None, output),
                Some(after) if left == 0 => return printer.end(Some(after), output),
                after => request.after = after,
            }
        }
    })?
}

/// Prints pages as they come.
enum Printer {
    Json,
    Csv { begun: bool },
    Table(Table),
}

impl Printer {
    fn new(arguments: &ListArguments) -> Self {
        match (arguments.json, arguments.csv) {
            (true, _) => Self::Json,
            (false, true) => Self::Csv { begun: false },
            (false, false) => Self::Table(Table::new(&TITLES, terminal_width())),
        }
    }

    fn print(&mut self, rows: &[RecordingRow], output: &mut Output<'_>) -> Result<(), Failure> {
        match self {
            Self::Json => rows.iter().try_for_each(|row| output.json_line(row))?,
            Self::Csv { begun } => {
                if !std::mem::replace(begun, true) {
                    output.bytes(&csv_line(CSV_TITLES.iter().copied()))?;
                }
                for row in rows {
                    let cells = csv_cells(row);
                    output.bytes(&csv_line(cells.iter().map(|cell| text_cell(cell))))?;
                }
            }
            Self::Table(table) => {
                let cells: Vec<_> = rows.iter().map(table_cells).collect();
                if !cells.is_empty() {
                    table.lines(&cells).iter().try_for_each(|line| output.line(line))?;
                }
            }
        }
        output.flush()
    }

    fn end(&self, after: Option<String>, output: &mut Output<'_>) -> Result<(), Failure> {
        let Some(after) = after else { return Ok(()) };
        if let Self::Json = self {
            return output.json_line(&serde_json::json!({ "after": after }));
        }
        output.flush()?;
        // Beside the rows, so that what reads those gets nothing else.
        let _ = writeln!(io::stderr(), "there are more: --after {after}");
        Ok(())
    }
}

const TITLES: [(&str, Fit); 8] = [
    ("START", Fit::Whole),
    ("LENGTH", Fit::Whole),
    ("STATE", Fit::Whole),
    ("RECORDING", Fit::Whole),
    ("AGENT", Fit::Cut),
    ("NUMBER", Fit::Cut),
    ("QUEUE", Fit::Cut),
    ("SOURCE", Fit::Cut),
];

fn table_cells(row: &RecordingRow) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    vec![
        row.start.format("%Y-%m-%d %H:%M:%S").to_string(),
        row.duration_ms.map(length).unwrap_or_default(),
        state(row.state).to_owned(),
        row.name.clone().unwrap_or_else(|| row.uid.to_string()),
        text(&row.agent_name),
        text(if row.customer_number.is_some() { &row.customer_number } else { &row.called_number }),
        text(&row.queue_name),
        format!("{}/{}", row.tenant, row.source),
    ]
}

const CSV_TITLES: [&str; 18] = [
    "TENANT",
    "UID",
    "STATE",
    "FOLDER",
    "NAME",
    "START",
    "STOP",
    "DURATION MS",
    "SIZE",
    "SOURCE",
    "MEDIA",
    "CALL TYPE",
    "AGENT NAME",
    "CUSTOMER NUMBER",
    "CALLED NUMBER",
    "QUEUE NAME",
    "TRANSACTION ID",
    "PATH",
];

fn csv_cells(row: &RecordingRow) -> [String; 18] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        row.tenant.clone(),
        row.uid.to_string(),
        state(row.state).to_owned(),
        text(&row.folder),
        text(&row.name),
        row.start.to_rfc3339(),
        row.stop.to_rfc3339(),
        row.duration_ms.map(|ms| ms.to_string()).unwrap_or_default(),
        row.size.to_string(),
        row.source.clone(),
        row.media.clone(),
        text(&row.call_type),
        text(&row.agent_name),
        text(&row.customer_number),
        text(&row.called_number),
        text(&row.queue_name),
        text(&row.transaction_id),
        path(row).unwrap_or_default(),
    ]
}

fn csv_line<C: AsRef<str>>(cells: impl Iterator<Item = C>) -> Vec<u8> {
    let mut line = Vec::new();
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            line.push(b',');
        }
        let cell = cell.as_ref();
        if cell.contains(['"', ',', '\r', '\n']) {
            line.push(b'"');
            line.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
            line.push(b'"');
        } else {
            line.extend_from_slice(cell.as_bytes());
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

fn path(row: &RecordingRow) -> Option<String> {
    Some(format!("{}/{}", row.folder.as_ref()?, row.name.as_ref()?))
}

fn state(state: State) -> &'static str {
    match state {
        State::Learned => "learned",
        State::Published => "published",
        State::Orphan => "orphan",
        State::Missing => "missing",
        State::Corrupt => "corrupt",
    }
}

/// Minutes and seconds, with hours where there are any.
fn length(ms: u64) -> String {
    let seconds = ms.saturating_add(500) / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn show(arguments: ShowArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let request =
        ShowRequest { recording: arguments.recording, tenant: arguments.tenant, utc: arguments.utc };
    let report = block_on(client.show(&request))?.map_err(|error| status::failure(&error))?;
    if arguments.json {
        return output.json(&report);
    }
    report_lines(&report).iter().try_for_each(|line| output.line(plain(line)))
}

fn report_lines(report: &RecordingReport) -> Vec<String> {
    let row = &report.row;
    let mut lines = vec![
        format!("recording {} of {}", row.uid, row.tenant),
        format!("state: {}", state(row.state)),
        format!("name: {}", path(row).unwrap_or_else(|| "none".to_owned())),
        format!("start: {}", row.start.to_rfc3339()),
        format!("stop: {}", row.stop.to_rfc3339()),
    ];
    if let Some(ms) = row.duration_ms {
        lines.push(format!("length: {} ({ms} ms)", length(ms)));
    }
    lines.push(format!("size: {} bytes", row.size));
    lines.push(format!("source: {}", row.source));
    lines.push(format!("media: {}", row.media));
    if let Some(published) = &report.published {
        lines.push(format!("root index: {}", published.root_index));
        lines.push(format!("publication: {}", published.publication));
        lines.push(format!("modified: {}", published.modified.to_rfc3339()));
        lines.push(format!("version served: {}", published.version));
        if published.patched_bytes > 0 {
            lines.push(format!("header: its first {} bytes are corrected", published.patched_bytes));
        }
    }
    match &report.told {
        Some(told) => {
            lines.push(format!(
                "source told: {}, {} bytes, {}, version {}",
                told.state, told.size, told.media_type, told.version
            ));
            if let Some(changed) = told.changed {
                lines.push(format!("changed: {}", changed.to_rfc3339()));
            }
            lines.extend(told.keys.iter().map(|key| format!("key: {} {}", key.kind, key.value)));
        }
        None => lines.push("source told: nothing since the catalog was built".to_owned()),
    }
    if let Some(until) = report.waits_until {
        lines.push(format!("waits for facts until {}", until.to_rfc3339()));
    }
    for (key, value) in &report.values {
        let from =
            value.from.as_ref().map_or_else(|| "no longer told".to_owned(), |facts| format!("from {facts}"));
        lines.push(format!("{key}: {} ({from})", value.value));
    }
    for facts in &report.facts {
        let gone = if facts.gone { ", withdrawn" } else { "" };
        let keys: Vec<_> = facts.keys.iter().map(|key| format!("{} {}", key.kind, key.value)).collect();
        lines.push(format!("facts {}: revision {}{gone}, by {}", facts.id, facts.revision, keys.join(", ")));
    }
    if let Some(erased) = &report.erased {
        let reason = erased.reason.as_deref().unwrap_or("the reason was erased");
        lines.push(format!(
            "personal values erased at {} by {}: {reason}",
            erased.at.to_rfc3339(),
            erased.by
        ));
    }
    lines
}

fn erase(arguments: &EraseArguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let ask = |dry_run| {
        let request = EraseRequest {
            recording: arguments.recording.clone(),
            tenant: arguments.tenant.clone(),
            reason: arguments.reason.clone().unwrap_or_default(),
            dry_run,
        };
        let client = &client;
        block_on(async move { client.erase_facts(&request).await })?.map_err(|error| status::failure(&error))
    };
    if !arguments.dry_run && !arguments.yes {
        if !io::stdin().is_terminal() {
            return Err(Failure::new(
                Exit::Usage,
                "nobody is there to confirm it; say --yes, or look with --dry-run",
            ));
        }
        let plan = ask(true)?;
        if plan.needed && !confirmed(&plan).map_err(Failure::failed)? {
            return Err(Failure::failed("nothing was erased"));
        }
    }
    let report = ask(arguments.dry_run)?;
    if arguments.json {
        return output.json(&report);
    }
    erase_lines(&report).iter().try_for_each(|line| output.line(plain(line)))
}

/// Shows what would be erased and asks for a yes.
fn confirmed(plan: &EraseReport) -> io::Result<bool> {
    let mut terminal = io::stderr();
    for line in erase_lines(plan) {
        writeln!(terminal, "{}", plain(&line))?;
    }
    write!(terminal, "This can't be undone. Erase it? Type yes: ")?;
    terminal.flush()?;
    let mut answer = String::new();
    io::Read::take(io::stdin().lock(), 64).read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

fn erase_lines(report: &EraseReport) -> Vec<String> {
    let name = report.path.clone().unwrap_or_else(|| report.uid.to_string());
    let mut lines = Vec::new();
    match (&report.before, report.needed) {
        (Some(before), false) => lines.push(format!(
            "{name} of {}: its personal values were erased at {} by {}; nothing has come since",
            report.tenant,
            before.at.to_rfc3339(),
            before.by
        )),
        _ => {
            let values = if report.values.is_empty() {
                "no value that is there now".to_owned()
            } else {
                report.values.join(", ")
            };
            let verb = if report.dry_run { "would be erased" } else { "erased" };
            lines.push(format!("{name} of {}: {verb}: {values}", report.tenant));
            if !report.facts.is_empty() {
                lines.push(format!("facts, now and when they are told again: {}", report.facts.join(", ")));
            }
        }
    }
    for shared in &report.shared {
        let others: Vec<_> = shared.recordings.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "facts {} stay for {}: {}; erase those as well if they are about the same person",
            shared.facts,
            counted(others.len() as u64, "other recording"),
            others.join(", ")
        ));
    }
    if !report.indexes.is_empty() {
        let verb = match (report.dry_run, report.owed) {
            (true, _) => "would be written anew",
            (false, true) => "still being written anew; the gateway goes on with it",
            (false, false) => "written anew, older generations removed",
        };
        lines.push(format!("indexes of {}: {verb}", report.indexes.join(", ")));
    } else if report.owed {
        lines.push("indexes are still being written anew; the gateway goes on with it".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests;
