//! What is not counted but is so: the gateway's state at one moment, from which gauges are written.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::source::SourceCalls;

/// The gateway's state. What couldn't be found out is `None` and has no series.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// It takes no new sessions because it is being stopped.
    pub draining: bool,
    /// The memory of open files.
    pub read_ahead: ReadAheadState,
    /// The way in.
    pub entrance: EntranceState,
    /// The number of the last entry of each of the journal's chains.
    pub journals: Vec<(&'static str, u64)>,
    /// The tenants.
    pub tenants: Vec<TenantState>,
}

/// Who wants to log in, and who isn't let.
#[derive(Debug, Clone, Copy, Default)]
pub struct EntranceState {
    /// Password checks that run.
    pub running_checks: u64,
    /// Password checks that wait for their turn.
    pub waiting_checks: u64,
    /// Addresses that are refused for their failed logins.
    pub refused: u64,
    /// Addresses that aren't refused, because somebody logged in from them lately.
    pub spared: u64,
}

/// The memory that open files read ahead into.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadAheadState {
    /// Bytes in use.
    pub in_use: u64,
    /// Bytes that may be in use.
    pub budget: u64,
    /// Open files that hold some.
    pub files: u64,
}

/// A tenant.
#[derive(Debug, Default)]
pub struct TenantState {
    /// Its name.
    pub name: String,
    /// Its recordings.
    pub recordings: Option<RecordingStates>,
    /// Its root indexes.
    pub index: Option<IndexState>,
    /// Its sources.
    pub sources: Vec<SourceState>,
}

/// Recordings, each counted in one state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordingStates {
    /// They wait for their facts.
    pub learned: u64,
    /// No facts came in time.
    pub orphan: u64,
    /// In the tree, and sound.
    pub published: u64,
    /// Their media has vanished.
    pub missing: u64,
    /// Their media has changed.
    pub corrupt: u64,
}

/// Root indexes that should be there, or newer, or whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct IndexState {
    /// How many.
    pub overdue: u64,
    /// Since when the oldest is, in seconds; 0 where none is.
    pub lag_seconds: f64,
    /// How many were published before a source had told all of their day, and not yet again since.
    pub incomplete: u64,
}

/// A source.
#[derive(Debug, Default)]
pub struct SourceState {
    /// Its name.
    pub name: String,
    /// Something is wrong with it.
    pub problem: bool,
    /// Calls are taken.
    pub available: bool,
    /// It is being scanned.
    pub scanning: bool,
    /// Its plugin tells what happens as it happens.
    pub watched: bool,
    /// Media that the last complete scan told.
    pub media: u64,
    /// Its last complete scan couldn't read everything.
    pub partial: bool,
    /// How often it has told what it must not, since it is followed.
    pub complaints: u64,
    /// Sets of facts that are kept and join no recording.
    pub unmatched_facts: Option<u64>,
    /// Sets of facts that its last complete scan told and that aren't kept.
    pub facts_left_out: u64,
    /// By how much its watermark is behind the clock, in seconds.
    pub lag_seconds: Option<f64>,
    /// How long ago its last complete scan began, in seconds.
    pub scan_age_seconds: Option<f64>,
    /// Calls that run.
    pub running_calls: u64,
    /// Calls that passed their deadline and have not returned.
    pub abandoned_calls: u64,
    /// What was counted of its calls.
    pub calls: Arc<SourceCalls>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let encoder = &mut encoder;
        self.encode_gateway(encoder)?;
        self.encode_tenants(encoder)?;
        self.encode_sources(encoder)?;
        self.encode_calls(encoder)
    }
}

impl Snapshot {
    fn encode_gateway(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let ReadAheadState { in_use, budget, files } = self.read_ahead;
        single(
            encoder,
            "draining",
            "Whether the gateway is being stopped (1).",
            None,
            u32::from(self.draining),
        )?;
        let help = "Memory that open files read ahead into, now.";
        single(encoder, "read_ahead", help, Some(Unit::Bytes), in_use)?;
        let help = "Memory that open files may read ahead into, in all.";
        single(encoder, "read_ahead_budget", help, Some(Unit::Bytes), budget)?;
        single(encoder, "read_ahead_files", "Open files that hold memory of reading ahead.", None, files)?;
        let EntranceState { running_checks, waiting_checks, refused, spared } = self.entrance;
        let help = "Password checks now, by whether they run or wait for their turn.";
        let checks = [("running", running_checks), ("waiting", waiting_checks)];
        let checks = checks.into_iter().map(|(state, count)| ([("state", state)], count));
        family(encoder, "password_checks", help, None, checks)?;
        let help = "Addresses that are refused now for their failed logins, and those that are spared, because somebody \
                    logged in from them lately.";
        let addresses = [("refused", refused), ("spared", spared)];
        let addresses = addresses.into_iter().map(|(state, count)| ([("state", state)], count));
        family(encoder, "throttle_addresses", help, None, addresses)?;
        let help = "Entries in the journal's chains, since the state was made.";
        let mut family = encoder.encode_descriptor("journal_entries", help, None, MetricType::Counter)?;
        for (chain, entries) in &self.journals {
            family
                .encode_family(&[("chain", *chain)])?
                .encode_counter::<NoLabelSet, u64, u64>(entries, None)?;
        }
        Ok(())
    }

    fn encode_tenants(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let states = self.tenants.iter().flat_map(|tenant| {
            tenant.recordings.iter().flat_map(move |recordings| {
                let RecordingStates { learned, orphan, published, missing, corrupt } = *recordings;
                [
                    ("learned", learned),
                    ("orphan", orphan),
                    ("published", published),
                    ("missing", missing),
                    ("corrupt", corrupt),
                ]
                .map(|(state, count)| ([("tenant", &*tenant.name), ("state", state)], count))
            })
        });
        let help = "Recordings in the catalog, each in one state: learned (waits for its facts), orphan, published, \
                    missing, corrupt.";
        family(encoder, "recordings", help, None, states)?;
        let indexes = || {
            let tenants = self.tenants.iter();
            tenants.filter_map(|tenant| tenant.index.map(|index| ([("tenant", &*tenant.name)], index)))
        };
        let help = "Root indexes whose time to be published, or published anew, is over.";
        let overdue = indexes().map(|(labels, index)| (labels, index.overdue));
        family(encoder, "index_overdue", help, None, overdue)?;
        let help = "Root indexes that were published before a source had told all of their day, and not yet again since.";
        let incomplete = indexes().map(|(labels, index)| (labels, index.incomplete));
        family(encoder, "index_incomplete", help, None, incomplete)?;
        let help = "Since when the oldest root index is overdue; 0 where none is.";
        let lag = indexes().map(|(labels, index)| (labels, index.lag_seconds));
        family(encoder, "index_lag", help, Some(Unit::Seconds), lag)
    }

    fn encode_sources(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, help, value: fn(&SourceState) -> u64| {
            family(encoder, name, help, None, self.sources().map(|(labels, source)| (labels, value(source))))
        };
        gauge(
            "source_problem",
            "Whether something is wrong with the source (1): its last scan failed or wasn't believed.",
            |source| u64::from(source.problem),
        )?;
        gauge("source_available", "Whether the source takes calls (1).", |source| {
            u64::from(source.available)
        })?;
        gauge("source_scanning", "Whether the source is being scanned (1).", |source| {
            u64::from(source.scanning)
        })?;
        gauge("source_watched", "Whether the source tells what happens as it happens (1).", |source| {
            u64::from(source.watched)
        })?;
        gauge(
            "source_partial",
            "Whether the source's last complete scan couldn't read everything (1): what is new there isn't known.",
            |source| u64::from(source.partial),
        )?;
        gauge(
            "source_left_out_facts",
            "Sets of facts that the source's last complete scan told and that aren't kept, because too many join no recording.",
            |source| source.facts_left_out,
        )?;
        gauge("source_media", "Media that the source's last complete scan told.", |source| source.media)?;
        gauge("plugin_running_calls", "Calls of the source's plugin that run.", |source| {
            source.running_calls
        })?;
        gauge(
            "plugin_abandoned_calls",
            "Calls of the source's plugin that passed their deadline and have not returned.",
            |source| source.abandoned_calls,
        )?;
        let unmatched = self.sources();
        let unmatched = unmatched.filter_map(|(labels, source)| Some((labels, source.unmatched_facts?)));
        let help = "Sets of facts that are kept and join no recording of the source.";
        family(encoder, "source_unmatched_facts", help, None, unmatched)?;
        let help = "What the source has told that it must not, such as one id twice.";
        let mut complaints =
            encoder.encode_descriptor("source_complaints", help, None, MetricType::Counter)?;
        for (labels, source) in self.sources() {
            complaints
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, u64>(&source.complaints, None)?;
        }
        let mut seconds = |name, help, value: fn(&SourceState) -> Option<f64>| {
            let samples = self.sources().filter_map(|(labels, source)| Some((labels, value(source)?)));
            family(encoder, name, help, Some(Unit::Seconds), samples)
        };
        seconds(
            "source_lag",
            "How far the source's watermark is behind the clock: later recordings may be unknown.",
            |source| source.lag_seconds,
        )?;
        seconds("source_scan_age", "How long ago the source's last complete scan began.", |source| {
            source.scan_age_seconds
        })
    }

    fn encode_calls(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Calls of the source's plugin that have ended, by the result: ok, or the error's code. \
                    A small recording is read with its opening.";
        let mut family = encoder.encode_descriptor("plugin_calls", help, None, MetricType::Counter)?;
        for ([tenant, source], state) in self.sources() {
            for (call, result, count) in state.calls.results() {
                family
                    .encode_family(&[tenant, source, ("call", call), ("result", result)])?
                    .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        let help = "From asking the source's plugin to its answer, the wait for a free thread included.";
        let seconds = Some(&Unit::Seconds);
        let mut family =
            encoder.encode_descriptor("plugin_call_duration", help, seconds, MetricType::Histogram)?;
        for ([tenant, source], state) in self.sources() {
            for (call, duration) in state.calls.durations() {
                duration.encode(family.encode_family(&[tenant, source, ("call", call)])?)?;
            }
        }
        let help = "Content that reads of the source's plugin have brought.";
        let bytes = Some(&Unit::Bytes);
        let mut family = encoder.encode_descriptor("plugin_read", help, bytes, MetricType::Counter)?;
        for (labels, state) in self.sources() {
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, u64>(&state.calls.read_bytes(), None)?;
        }
        Ok(())
    }

    /// The sources with what names them.
    fn sources(&self) -> impl Iterator<Item = ([(&'static str, &str); 2], &SourceState)> {
        self.tenants.iter().flat_map(|tenant| {
            let sources = tenant.sources.iter();
            sources.map(|source| ([("tenant", &*tenant.name), ("source", &*source.name)], source))
        })
    }
}

/// A family of one gauge.
pub(super) fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    value: impl EncodeGaugeValue,
) -> Result<(), std::fmt::Error> {
    encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
}

fn family<'l, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    samples: impl Iterator<Item = ([(&'static str, &'l str); N], impl EncodeGaugeValue)>,
) -> Result<(), std::fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for (labels, value) in samples {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
