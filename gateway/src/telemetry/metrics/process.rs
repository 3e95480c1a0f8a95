//! The process as the operating system sees it, under the names that Prometheus' own libraries use.

use std::{fs, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::snapshot::single;

/// How the process is now. What can't be read is left out.
#[derive(Debug)]
pub(super) struct Process {
    started: f64,
    cpu_seconds: f64,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    open_files: Option<u64>,
    most_files: Option<u64>,
}

impl Process {
    /// Looks into `/proc/self`.
    pub(super) fn read(started: SystemTime) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name| field(&status, name);
        // The folder is open itself while it is read.
        let open_files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1));
        #[expect(clippy::cast_precision_loss, reason = "exact for 285 million years")]
        Self {
            started: started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: field("VmRSS:").map(|kib| kib.saturating_mul(1024)),
            virtual_bytes: field("VmSize:").map(|kib| kib.saturating_mul(1024)),
            threads: field("Threads:"),
            open_files: open_files.and_then(|count| u64::try_from(count).ok()),
            most_files: getrlimit(Resource::Nofile).current,
        }
    }
}

/// The number of a line of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let encoder = &mut encoder;
        let seconds = || Some(Unit::Seconds);
        let bytes = || Some(Unit::Bytes);
        let help = "CPU time that the process has taken, on all processors.";
        encoder
            .encode_descriptor("cpu", help, seconds().as_ref(), MetricType::Counter)?
            .encode_counter::<NoLabelSet, f64, f64>(&self.cpu_seconds, None)?;
        gauge(encoder, "start_time", "When it started, since 1970.", seconds(), Some(self.started))?;
        gauge(encoder, "resident_memory", "Memory that it has in RAM.", bytes(), self.resident_bytes)?;
        gauge(encoder, "virtual_memory", "Addresses that it has in use.", bytes(), self.virtual_bytes)?;
        gauge(encoder, "threads", "Its threads.", None, self.threads)?;
        gauge(encoder, "open_fds", "Its open file descriptors.", None, self.open_files)?;
        gauge(encoder, "max_fds", "File descriptors that it may have open.", None, self.most_files)
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    value: Option<impl EncodeGaugeValue>,
) -> Result<(), std::fmt::Error> {
    match value {
        Some(value) => single(encoder, name, help, unit, value),
        None => Ok(()),
    }
}
