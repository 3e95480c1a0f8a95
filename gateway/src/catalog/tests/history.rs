//! Random histories of a source, a clock and a gateway that is stopped, killed and robbed of its power or its catalog
//! file; after each step, what clients rely on is checked against a model that knows nothing of how it is done.
//!
//! `RECGATE_HISTORY_ROUNDS` says how many histories there are; without it, as many as a test run has time for.

mod checks;
mod driver;
mod model;

use proptest::{
    prelude::*,
    test_runner::{TestError, TestRunner},
};

/// How many histories.
const ROUNDS: &str = "RECGATE_HISTORY_ROUNDS";

#[test]
fn names_rows_sizes_and_times_outlive_whatever_happens() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let config = ProptestConfig {
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::with_cases(rounds)
    };
    let history = (any::<u64>(), any::<bool>(), prop::collection::vec(model::step(), 1..40));
    let done = TestRunner::new(config).run(&history, |(seed, publish, steps)| {
        driver::live_through(seed, publish, &steps).map_err(TestCaseError::fail)
    });
    match done {
        Ok(()) => {}
        Err(TestError::Fail(what, (seed, publish, steps))) => {
            let steps: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            panic!("{what}\nseed {seed}, publish {publish}:\n{steps}");
        }
        Err(error) => panic!("{error}"),
    }
}
