//! `recgate check`: everything that can be known to be wrong before a start.

use serde::Serialize;

use super::{ConfigArgument, Exit, Failure, Output, plugin::host};
use crate::config::{self, Problems};

/// Check a configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A source whose plugin can't be loaded or doesn't take the settings.
#[derive(Debug, Serialize)]
struct SourceProblem {
    tenant: String,
    source: String,
    wrong: String,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    problems: Problems,
    sources: Vec<SourceProblem>,
}

pub(super) fn run(arguments: Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let path = arguments.config.path();
    let (problems, sources, count) = match config::load(&path) {
        Err(problems) => (problems, Vec::new(), 0),
        Ok(config) => {
            let sources = host::check_sources(&config);
            let sources = sources
                .into_iter()
                .map(|(tenant, source, wrong)| SourceProblem { tenant, source, wrong })
                .collect();
            (Problems::default(), sources, config.tenants.len())
        }
    };
    let ok = problems.is_empty() && sources.is_empty();
    let report = Report { ok, problems, sources };
    if arguments.json {
        output.json(&report)?;
    } else if ok {
        output.line(format!("{}: right (tenants: {count})", path.display()))?;
    }
    if ok {
        return Ok(());
    }
    let mut message = String::new();
    if !arguments.json {
        let mut lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        lines.extend(report.sources.iter().map(|problem| {
            format!("{}: source {} of {}: {}", path.display(), problem.source, problem.tenant, problem.wrong)
        }));
        message = lines.join("\n");
    }
    Err(Failure::new(Exit::Configuration, message))
}
