//! Call data records from the HTTP API of wazo-call-logd.
//!
//! A record comes to be after its call, with an id greater than all before it, and hardly ever changes: its recordings
//! can be deleted, the rest only by hand. But there may be a million of them, and nothing in the API says what has
//! changed. So there are three questions, all of them in pages by ascending id (`order=id`, `from_id`), which neither
//! skip nor repeat a record when others come or go meanwhile, as pages by offset would:
//!
//! - every `poll_interval`: what is new, from a little before the greatest id on;
//! - every `recheck_interval`: the calls of the last `lookback_days`, for corrections, and for records of a lower id
//!   that were committed late;
//! - once after the start, and then every `sweep_interval`: everything. The first goes through in one scan, because
//!   until then nothing may be decided for want of a record; later ones take [`SLICE`] of each scan.
//!
//! A scan asks, when an interval has passed, and only after it has walked the monitor folder: the record of a recording
//! that has gone on must not come before the news that it has (see the crate). So a record is seen at the latest after
//! the interval, the source's `scan_interval` and the time that a scan takes. New and recent records are told before
//! older ones: new recordings wait for the walk of their folder, but not for the records of years.
//!
//! Where the service fails, the media are told and the scan then ends with the error: what is new is learned, and what
//! depends on all records being known (orphans, days that are complete) waits.
//!
//! A gateway drops what it hasn't taken yet when a call ends with an error, and never says whether it has stored the
//! last of what it was told. So a call that tells something ends with MORE, and the one that follows, which comes when
//! all of it is stored, ends the scan, well or with the error. If it doesn't come, the next scan tells it again.
//!
//! What the API does that one might not expect: it hides blocked calls (which are never recorded), `limit=0` is no
//! limit, unknown parameters are ignored, times without an offset are in some zone or other.

mod files;
mod http;
mod memory;
mod refusal;
mod settings;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::DateTime;
use recgate_plugin_api::{Call, Emit, Error, ErrorCode, Facts, Host, Item, ScanEnd};

use crate::cdr::{Field, parse};
use crate::facts;
use crate::report::Reports;
use crate::settings::Settings;

use http::{Http, Method, Request};
use memory::{Memory, Sweep, is_due};
use token::Tokens;

pub(crate) use settings::{CallLogdSettings, schema};

/// How long a later sweep of everything may take of one scan.
const SLICE: Duration = Duration::from_secs(15);
/// Ids below the greatest one that are asked for again with each poll: records that were given their ids at the same
/// time may be committed in another order.
const OVERLAP: u64 = 200;
/// Records that one scan takes. Whoever has more, or invents them without end, is asked on by the next.
const RECORDS_MAX: u64 = 10_000_000;

/// The cursor of a scan that has told everything.
const TOLD: &[u8] = b"told";

/// The records of one tenant.
pub(crate) struct CallLogd {
    settings: Arc<CallLogdSettings>,
    http: Http,
    tokens: Tokens,
    memory: Mutex<Memory>,
}

/// What a scan lends.
pub(crate) struct Scan<'a, 'h> {
    pub(crate) settings: &'a Settings,
    pub(crate) host: &'a dyn Host,
    pub(crate) call: &'a dyn Call,
    pub(crate) reports: &'a mut Reports<'h>,
    pub(crate) emit: Emit<'a>,
}

/// Why telling ended early.
enum Failed {
    /// The service didn't do its part.
    Service(Error),
    /// The scan is over: cancelled, or its taker wants no more.
    Stopped(Error),
}

/// Some of the records, by ascending id.
struct Walk {
    /// Of calls that began since then, Unix milliseconds.
    since_ms: Option<i64>,
    /// The id from which it goes on.
    at: u64,
    /// When it is interrupted.
    until: Option<Instant>,
}

/// What a page had.
#[derive(Debug, Default)]
struct Page {
    records: u64,
    told: u64,
    last: Option<u64>,
}

impl CallLogd {
    pub(crate) fn new(settings: CallLogdSettings) -> Self {
        let settings = Arc::new(settings);
        let (http, tokens) = (Http::new(Arc::clone(&settings)), Tokens::new(Arc::clone(&settings)));
        Self { settings, http, tokens, memory: Mutex::default() }
    }

    /// Asks for one record, to see whether everything is set up.
    pub(crate) fn probe(&self, call: &dyn Call, now_ms: i64) -> Result<(), Error> {
        let url = self.url(None, 0, 1);
        let body = self.fetch(call, now_ms, &url, self.deadline())?;
        parse::read(body.as_slice(), &mut |_, _| Ok(())).map_err(nonsense)
    }

    /// A scan begins.
    pub(crate) fn begin(&self) {
        self.memory().begin();
    }

    /// A scan has told everything and is to end so: what to end the call with.
    pub(crate) fn hold(&self, end: Result<ScanEnd, Error>) -> ScanEnd {
        self.memory().hold(end);
        ScanEnd { cursor: TOLD.to_vec(), complete: false, watermark_ms: i64::MIN }
    }

    /// The end of the scan that told everything, now that it was taken; `None` where this cursor is of no such scan.
    pub(crate) fn confirm(&self, cursor: &[u8]) -> Option<Result<ScanEnd, Error>> {
        if cursor == TOLD { self.memory().confirm() } else { None }
    }

    /// Tells new records, and from time to time those of the last days. What it gives is what is wrong with the service;
    /// its error ends the scan.
    pub(crate) fn tell_recent(&self, scan: &mut Scan<'_, '_>) -> Result<Option<Error>, Error> {
        let mut memory = self.memory();
        let result = self.recent(&mut memory, scan);
        outcome(&mut memory, result)
    }

    /// Tells the records that others needn't wait for: all, after the start and from time to time.
    pub(crate) fn tell_rest(&self, scan: &mut Scan<'_, '_>) -> Result<Option<Error>, Error> {
        let mut memory = self.memory();
        let result = self.rest(&mut memory, scan);
        outcome(&mut memory, result)
    }

    /// Up to when records are known, Unix milliseconds; `i64::MIN` until everything was told once.
    pub(crate) fn watermark_ms(&self) -> i64 {
        let memory = self.memory();
        match (memory.progress.swept_ms, memory.progress.polled_ms) {
            (Some(_), Some(polled)) => polled,
            _ => i64::MIN,
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self, memory: &mut Memory, scan: &mut Scan<'_, '_>) -> Result<(), Failed> {
        let now_ms = scan.host.now_ms();
        let recheck = is_due(memory.progress.rechecked_ms, self.settings.recheck_ms(), now_ms);
        if !recheck && !is_due(memory.progress.polled_ms, self.settings.poll_ms(), now_ms) {
            return Ok(());
        }
        if memory.progress.highest > 0 {
            let at = memory.progress.highest.saturating_sub(OVERLAP);
            self.walk(memory, scan, &mut Walk { since_ms: None, at, until: None })?;
        }
        if recheck {
            let since_ms = Some(now_ms.saturating_sub(self.settings.lookback_ms()));
            let mut walk = Walk { since_ms, at: 0, until: None };
            self.walk(memory, scan, &mut walk)?;
            // On a PBX that was set up anew, ids begin anew.
            memory.progress.highest = walk.at.checked_sub(1).unwrap_or(memory.progress.highest);
            memory.progress.rechecked_ms = Some(now_ms);
        }
        memory.progress.polled_ms = Some(now_ms);
        Ok(())
    }

    fn rest(&self, memory: &mut Memory, scan: &mut Scan<'_, '_>) -> Result<(), Failed> {
        let now_ms = scan.host.now_ms();
        if memory.progress.sweep.is_none()
            && is_due(memory.progress.swept_ms, self.settings.sweep_ms(), now_ms)
        {
            memory.progress.sweep = Some(Sweep { at: 0, began_ms: now_ms });
        }
        let Some(sweep) = memory.progress.sweep else { return Ok(()) };
        let until = memory.progress.swept_ms.and_then(|_| Instant::now().checked_add(SLICE));
        let mut walk = Walk { since_ms: None, at: sweep.at, until };
        let done = self.walk(memory, scan, &mut walk);
        memory.progress.sweep = Some(Sweep { at: walk.at, ..sweep });
        if done? {
            memory.progress.sweep = None;
            memory.progress.swept_ms = Some(sweep.began_ms);
            scan.reports.debug("call_logd: all records were told");
        }
        Ok(())
    }

    /// Tells pages to the end, or until it is time. `walk.at` is where to go on, whatever happens.
    fn walk(&self, memory: &mut Memory, scan: &mut Scan<'_, '_>, walk: &mut Walk) -> Result<bool, Failed> {
        if let Some(error) = memory.held_off() {
            return Err(Failed::Service(error));
        }
        let (mut deadline, mut records) = (self.deadline(), 0_u64);
        loop {
            let url = self.url(walk.since_ms, walk.at, self.settings.page_size);
            let body = self.fetch(scan.call, scan.host.now_ms(), &url, deadline).map_err(sorted)?;
            let page = self.tell(memory, scan, walk.at, &body)?;
            if let Some(last) = page.last {
                memory.progress.highest = memory.progress.highest.max(last);
                walk.at = last.saturating_add(1);
            }
            if page.records < u64::from(self.settings.page_size) {
                return Ok(true);
            }
            records = records.saturating_add(page.records);
            if page.last.is_none() {
                return Err(unfit("a whole page of records has no id"));
            }
            if records >= RECORDS_MAX {
                return Err(unfit("there is no end of records; the next scan goes on"));
            }
            if walk.until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
            // The gateway's patience with a scan begins anew with everything that it is told.
            if page.told > 0 {
                deadline = self.deadline();
            }
        }
    }

    /// Tells the records of one page, which begins at this id.
    fn tell(
        &self,
        memory: &mut Memory,
        scan: &mut Scan<'_, '_>,
        from: u64,
        body: &[u8],
    ) -> Result<Page, Failed> {
        let tenant = self.settings.tenant_uuid();
        let mut page = Page::default();
        let mut fault = None;
        let Scan { settings, host, call, reports, emit } = scan;
        let read = parse::read(body, &mut |index, item| {
            if call.is_cancelled() {
                return Err(crate::cancelled());
            }
            page.records = page.records.saturating_add(1);
            let mut report = |problem: &str| reports.warn(&format!("call_logd, item {index}: {problem}"));
            let cdr = match item {
                Ok(cdr) => cdr,
                Err(problem) => {
                    report(&problem);
                    return Ok(());
                }
            };
            let id = match cdr.field("id") {
                Field::Number(id) if *id < u64::MAX => *id,
                _ => {
                    report("id is not a whole number, the record is not used");
                    return Ok(());
                }
            };
            if page.last.map_or(id < from, |last| id <= last) {
                fault = Some(unfit("records don't come in the order of ids that was asked for"));
                return Err(crate::cancelled());
            }
            page.last = Some(id);
            if !cdr.text("tenant_uuid").is_some_and(|uuid| uuid.eq_ignore_ascii_case(&tenant)) {
                report(&format!(
                    "record {id} is another tenant's, it is not used; check call_logd.tenant_uuid"
                ));
                return Ok(());
            }
            let mut facts: Vec<Facts> = Vec::new();
            facts::of(&cdr, 0, settings, &mut report, &mut |told| {
                facts.push(told);
                Ok(())
            })?;
            let revision = memory.told.revision(id, &facts, host.now_ms());
            for mut told in facts {
                told.revision = revision;
                emit(Item::Facts(told))?;
                page.told = page.told.saturating_add(1);
            }
            Ok(())
        });
        match (fault, read) {
            (Some(fault), _) => Err(fault),
            (None, Ok(())) => Ok(page),
            (None, Err(parse::Failed::Stopped(error))) => Err(Failed::Stopped(error)),
            (None, Err(broken)) => Err(Failed::Service(nonsense(broken))),
        }
    }

    /// A page's bytes. A token that is refused is replaced, once.
    fn fetch(&self, call: &dyn Call, now_ms: i64, url: &str, deadline: Instant) -> Result<Vec<u8>, Error> {
        let tenant = self.settings.tenant_uuid();
        let mut renewed = false;
        loop {
            let token = self.tokens.token(&self.http, call, now_ms, deadline)?;
            let headers = [("X-Auth-Token", token.as_str()), ("Wazo-Tenant", tenant.as_str())];
            let request = Request { setting: "url", method: Method::Get, url, headers: &headers, deadline };
            let answer = self.http.exchange(call, now_ms, &request)?;
            match answer.status {
                200 => return Ok(answer.body),
                401 => self.tokens.forget(&token),
                _ => {}
            }
            if answer.status != 401 || renewed {
                let denied = format!(
                    "wazo-call-logd refused the token; give its user the ACL call-logd.cdr.read, and check that \
                     tenant {tenant} is one that it may see"
                );
                return Err(refusal::of("url", &answer, &denied, &[&token]));
            }
            renewed = true;
        }
    }

    fn url(&self, since_ms: Option<i64>, from_id: u64, limit: u32) -> String {
        let mut url = format!(
            "{}/cdr?recorded=true&order=id&direction=asc&limit={limit}&from_id={from_id}",
            self.settings.url
        );
        if let Some(since) = since_ms.and_then(DateTime::from_timestamp_millis) {
            url.push_str(&since.format("&from=%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        url
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout()
    }
}

impl Drop for CallLogd {
    /// Gives the token back, so that wazo-auth doesn't collect sessions of gateways that were restarted.
    fn drop(&mut self) {
        self.tokens.revoke(&self.http);
    }
}

fn outcome(memory: &mut Memory, result: Result<(), Failed>) -> Result<Option<Error>, Error> {
    match result {
        Ok(()) => Ok(None),
        Err(Failed::Stopped(error)) => Err(error),
        Err(Failed::Service(error)) => {
            memory.note(&error);
            Ok(Some(error))
        }
    }
}

/// Whose failure an error of fetching is.
fn sorted(error: Error) -> Failed {
    match error.code {
        ErrorCode::Cancelled => Failed::Stopped(error),
        _ => Failed::Service(error),
    }
}

fn unfit(what: &str) -> Failed {
    Failed::Service(Error::new(
        ErrorCode::Corrupt,
        format!("call_logd.url: {what}; does this address belong to wazo-call-logd?"),
    ))
}

fn nonsense(failed: parse::Failed) -> Error {
    match failed {
        parse::Failed::Stopped(error) => error,
        parse::Failed::Broken(reason) => Error::new(
            ErrorCode::Corrupt,
            format!("call_logd.url: the answer has no records as expected: {reason}"),
        ),
    }
}

#[cfg(test)]
mod tests;
