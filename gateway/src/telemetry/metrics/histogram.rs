//! A histogram of times that is written without a lock; prometheus-client's own takes one for each observation.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Counts times by size. Clones are the same histogram.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Upper bounds in seconds, ascending; what is longer than the last goes into a bucket of its own.
    bounds: &'static [f64],
    /// One more than bounds.
    counts: Box<[AtomicU64]>,
    /// Microseconds: nanoseconds would overflow after 500 years, which a thousand sessions have in half a year.
    sum: AtomicU64,
}

impl Histogram {
    /// One without observations. Bounds are seconds, ascending.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { bounds, counts, sum: AtomicU64::new(0) }))
    }

    /// Something took this long.
    pub fn observe(&self, time: Duration) {
        let Inner { bounds, counts, sum } = &*self.0;
        let seconds = time.as_secs_f64();
        if let Some(count) = counts.get(bounds.partition_point(|bound| *bound < seconds)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = time.as_nanos().saturating_add(500) / 1000;
        sum.fetch_add(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Observes the time until what this returns is dropped.
    pub fn start(&self) -> Timer<'_> {
        Timer { histogram: self, began: Instant::now() }
    }

    /// How many times were observed.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// A time that is running; dropping it observes it.
#[derive(Debug)]
pub struct Timer<'h> {
    histogram: &'h Histogram,
    began: Instant,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.histogram.observe(self.began.elapsed());
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Inner { bounds, counts, sum } = &*self.0;
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        // Each is read once, so that the count is the sum of the buckets whatever is observed meanwhile.
        let buckets: Vec<(f64, u64)> =
            bounds.zip(counts.iter().map(|count| count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        #[expect(clippy::cast_precision_loss, reason = "exact up to 285 years, and no more than a sum")]
        let sum = sum.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
