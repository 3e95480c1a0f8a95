//! Large catalogs: how fast they grow, what they take, and how soon they answer.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use recgate_e2e::{ACME, Fixture, Raw, TenantSpec, wait_for};

use crate::{Bench, gateway::TENANT, measure, peers::Server, report::Report};

/// 2016-06-06, in days since 1970.
const FIRST_DAY: u32 = 16_958;
const FIRST_FOLDER: &str = "/S20160606";
/// Of the folder's local day, whose zone is UTC.
const FIRST_INDEX: &str = "20160606";
/// Recordings of the first day, and of each other.
const LARGE_DAY: u64 = 100_000;
const PER_DAY: u64 = 5000;
/// Longer than five millions need on a slow machine.
const LONG: Duration = Duration::from_secs(3600);

/// Milliseconds to the first entry of a folder, at most.
const FIRST_ENTRY: f64 = 300.0;
/// MiB at rest, at most.
const AT_REST: f64 = 200.0;
/// MiB that a listing may take.
const FLAT: f64 = 8.0;
/// Seconds of a start, at most.
const START: f64 = 2.0;
/// Names a second, at least.
const NAMES: f64 = 20_000.0;
/// Seconds to publish the index of a day of 100,000 calls, at most.
const PUBLISH: f64 = 5.0;

/// Catalogs of growing size, so that what grows with them shows.
pub fn catalogs(bench: &Bench, _: &[&str], report: &mut Report) {
    let counts: &[u64] = if bench.options.quick { &[500, 2000] } else { &[1000, 100_000, 5_000_000] };
    for count in counts {
        catalog(bench, *count, report);
    }
}

fn catalog(bench: &Bench, count: u64, report: &mut Report) {
    let on_first_day = count.min(LARGE_DAY);
    let more = format!(
        "[[tenant.source]]\nid = 2\nname = \"computed\"\nplugin = \"synthetic\"\nscan_interval = \"24h\"\n\
         settings = {{ recordings = {count}, first_day = {FIRST_DAY}, per_day = {PER_DAY}, on_first_day = {on_first_day} }}\n"
    );
    let mut fixture = Fixture::with(vec![TenantSpec { zone: "UTC", more, ..ACME }]);
    let config = fixture.config().replace("info,recgate=debug", "info");
    fixture.write_config(&config);
    let titled = |what: &str| format!("{count} recordings: {what}");

    // No client wants a processor meanwhile: a catalog grows with all that the machine has.
    let begin = Instant::now();
    let pid = fixture.start().pid();
    wait_for(&format!("{count} names"), LONG, || (named(&fixture) >= count).then_some(()));
    let seconds = begin.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = count as f64 / seconds;
    report.alone(
        titled("names given"),
        format!("{rate:.0} a second ({seconds:.1} s)"),
        &format!("≥ {NAMES:.0} a second"),
        // A start by itself takes longer than a thousand names.
        rate >= NAMES || count < LARGE_DAY,
    );
    let published = published(&fixture, on_first_day);
    report.alone(
        titled(&format!("publishing the index of a day of {on_first_day}")),
        format!("{published:.2} s"),
        &format!("< {PUBLISH} s"),
        published < PUBLISH,
    );
    measure::wait_for_rest(pid, LONG);

    // As a gateway is that has been stopped as it should be, then one that was killed.
    fixture.gateway.take().unwrap().stop();
    let (pid, seconds) = timed_start(bench, &mut fixture);
    report.alone(titled("start"), format!("{seconds:.2} s"), &format!("< {START} s"), seconds < START);
    measure::wait_for_rest(pid, LONG);
    memory_and_listing(bench, &fixture, pid, on_first_day, &titled, report);
    report.note(titled("on the disk"), format!("{:.0} MiB", mebibytes(size_of(&fixture.data_dir()) >> 10)));

    fixture.gateway.take().unwrap().kill();
    let (_, seconds) = timed_start(bench, &mut fixture);
    report.alone(
        titled("start after SIGKILL"),
        format!("{seconds:.2} s"),
        &format!("< {START} s"),
        seconds < START,
    );
}

fn memory_and_listing(
    bench: &Bench,
    fixture: &Fixture,
    pid: u32,
    entries: u64,
    titled: &dyn Fn(&str) -> String,
    report: &mut Report,
) {
    let resident = || mebibytes(measure::settled(|| measure::resident(pid)));
    let at_rest = resident();
    report.alone(
        titled("resident memory at rest"),
        format!("{at_rest:.0} MiB"),
        &format!("< {AT_REST} MiB"),
        at_rest < AT_REST,
    );
    let mut raw = fixture.login(TENANT).raw();
    // What the first listing leaves in caches isn't what a listing takes.
    let list = |raw: &mut Raw| assert!(raw.list(FIRST_FOLDER).unwrap().len() as u64 >= entries);
    list(&mut raw);
    let before = resident();
    measure::forget_peak(pid);
    let server = Server::recgate(bench, fixture, TENANT);
    let cost = measure::cost(pid, server.at_rest, || list(&mut raw));
    let grown = mebibytes(measure::peak(pid)) - before;
    report.alone(
        titled(&format!("listing a folder of {entries}")),
        format!("{:.2} s, {:.2} s of CPU, + {grown:.1} MiB", cost.seconds, cost.cpu),
        &format!("grows by < {FLAT} MiB"),
        grown < FLAT,
    );
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let begin = Instant::now();
            raw.first_entries(FIRST_FOLDER).unwrap();
            begin.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    report.alone(
        titled("first entries of that folder"),
        format!("{:.1} ms, at most {:.1}", times[4], times[8]),
        &format!("< {FIRST_ENTRY} ms"),
        times[8] < FIRST_ENTRY,
    );
}

fn start(bench: &Bench, fixture: &mut Fixture) -> u32 {
    let launcher = bench.cores.launcher();
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    fixture.start_through(&launcher).pid()
}

fn timed_start(bench: &Bench, fixture: &mut Fixture) -> (u32, f64) {
    let begin = Instant::now();
    let pid = start(bench, fixture);
    (pid, begin.elapsed().as_secs_f64())
}

/// How many recordings have names.
fn named(fixture: &Fixture) -> u64 {
    // Each question costs a start of the program.
    thread::sleep(Duration::from_millis(500));
    let status = fixture.recgate(&["status", "--json"]).success();
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    status["tenants"][0]["recordings"]["published"].as_u64().unwrap()
}

/// How many seconds it took to publish the first day's index with all of its rows, which the log says.
fn published(fixture: &Fixture, rows: u64) -> f64 {
    let wanted = [format!("day={FIRST_INDEX}"), format!("rows={rows}")];
    wait_for("the index of the first day", LONG, || {
        let log = fixture.gateway.as_ref().unwrap().log();
        let line = log
            .lines()
            .find(|line| {
                line.contains("root index published") && wanted.iter().all(|word| line.contains(word))
            })?
            .to_owned();
        let millis = line.split("took_ms=").nth(1)?.split_whitespace().next()?.parse::<u32>().ok()?;
        Some(f64::from(millis) / 1000.0)
    })
}

fn mebibytes(kibibytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let kibibytes = kibibytes as f64;
    kibibytes / 1024.0
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
