//! Storage that takes its time for each read.

use crate::{
    Bench,
    gateway::{self, DAY_MS, DAY_ONE_MS, Synthetic, TENANT},
    measure::{self, Spread},
    report::Report,
};

/// Milliseconds before each read; the speed against memory of the same run, at least.
const DELAYS: [(u64, f64); 2] = [(20, 0.3), (100, 0.15)];
/// Speed against a client that asks for one part after the other, at least.
const SERIAL: f64 = 40.0;
/// What OpenSSH's client asks for at once where the server names no limit.
const PART: f64 = 32.0 / 1024.0;

/// OpenSSH's `sftp` at its defaults, over memory and over each delay in turn.
pub fn storage(bench: &Bench, _: &[&str], report: &mut Report) {
    let delays = [0, DELAYS[0].0, DELAYS[1].0];
    let sources = [0, 1, 2].map(|number: u8| Synthetic {
        id: 2 + u32::from(number),
        count: 1,
        size: bench.large(),
        delay_ms: delays[usize::from(number)],
        start_ms: DAY_ONE_MS + i64::from(number) * DAY_MS,
        step_ms: 1000,
    });
    let mut fixture = gateway::prepare(bench, &sources);
    let folders = [("/S20160606", 1), ("/S20160607", 1), ("/S20160608", 1)];
    let server = gateway::start(bench, &mut fixture, &folders);
    let mut raw = fixture.login(TENANT).raw();
    for source in &sources {
        let handle = raw.open(source.path(0).as_bytes()).unwrap();
        let bytes = raw.read(&handle, 8 << 10, 8).unwrap();
        assert_eq!(bytes.as_deref(), Some(&Synthetic::word(0, 8 << 10)[..]), "{source:?}");
        raw.close(&handle);
    }
    drop(raw);

    let costs = measure::in_turn(sources.len(), bench.pairs(), |which| {
        let batch = format!("get {} /dev/null\n", sources[which].path(0));
        server.sftp(bench, &[], &batch).0
    });
    let mebibytes = f64::from(bench.options.mebibytes);
    let rates = |which: usize| costs[which].iter().map(move |cost| mebibytes / cost.seconds);
    let size = bench.options.mebibytes;
    report.note(
        format!("get {size} MiB from memory"),
        format!("{} MiB/s, CPU {:.2} s", Spread::of(rates(0)).shown(0), cpu(&costs[0])),
    );
    for (which, (delay_ms, of_memory)) in (1..).zip(DELAYS) {
        let row = format!("get {size} MiB, {delay_ms} ms before each read");
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let serial = PART / (delay_ms as f64 / 1000.0);
        let times = Spread::of(rates(which).map(|rate| rate / serial));
        report.alone(
            format!("{row}, against one read after the other"),
            format!("{} times", times.shown(0)),
            &format!("≥ {SERIAL} times"),
            times.middle >= SERIAL,
        );
        let ratio = Spread::of(rates(which).zip(rates(0)).map(|(slow, memory)| slow / memory));
        let rate = Spread::of(rates(which));
        report.alone(
            format!("{row}, against memory"),
            format!("{} ({:.0} MiB/s, CPU {:.2} s)", ratio.shown(2), rate.middle, cpu(&costs[which])),
            &format!("≥ {of_memory}"),
            ratio.middle >= of_memory,
        );
    }
}

fn cpu(costs: &[measure::Cost]) -> f64 {
    Spread::of(costs.iter().map(|cost| cost.cpu)).middle
}
