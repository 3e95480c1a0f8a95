//! Which calls there were: weeks of ordinary ones, and those that show what the gateway is for.

use chrono::{DateTime, Datelike, Duration, NaiveDate, NaiveTime, Offset, TimeZone, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use uuid::Uuid;

use super::{random::Random, sound::Ringback};

/// Days up to yesterday that have calls.
const DAYS: i64 = 21;

/// An invented contact centre.
#[derive(Debug, Clone, Copy)]
pub(super) struct Centre {
    pub id: u32,
    pub name: &'static str,
    pub zone: Tz,
    pub ringback: Ringback,
    /// Full names, with their extensions.
    pub agents: [(&'static str, &'static str); 4],
    /// Groups that calls are queued for.
    pub queues: [&'static str; 3],
    /// What customers dial.
    pub number: &'static str,
    /// Beginning of the customers' numbers: from ranges that are kept for fiction.
    pub customers: &'static str,
    pub seed: u64,
}

/// The two of the demo.
pub(super) const CENTRES: [Centre; 2] = [
    Centre {
        id: 1,
        name: "acme",
        zone: Tz::America__Los_Angeles,
        ringback: Ringback::American,
        agents: [
            ("Dana Whitfield", "2101"),
            ("Luis Ortega", "2102"),
            ("Priya Raman", "2103"),
            ("Sam Okafor", "2104"),
        ],
        queues: ["Sales", "Support", "Billing, Returns"],
        number: "+14155550100",
        customers: "+1415555",
        seed: 0xac3e,
    },
    Centre {
        id: 2,
        name: "globex",
        zone: Tz::Europe__Berlin,
        ringback: Ringback::European,
        agents: [
            ("Jörg Bäcker", "301"),
            ("Anneliese Krüger", "302"),
            ("Mehmet Yıldız", "303"),
            ("Zofia Nowak", "304"),
        ],
        queues: ["Vertrieb", "Störungen", "Rechnung"],
        number: "+493023125000",
        customers: "+493023125",
        seed: 0x610b,
    },
];

/// Who calls whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound,
    Outbound,
    Internal,
}

/// A call data record with its recordings.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub direction: Direction,
    pub start: DateTime<Utc>,
    pub agent: (&'static str, &'static str),
    pub colleague: (&'static str, &'static str),
    pub customer: String,
    pub queue: Option<&'static str>,
    pub tags: Vec<&'static str>,
    pub recordings: Vec<Recording>,
    /// The PBX has written a record of the call.
    pub has_record: bool,
}

/// A medium, or what a record says of one.
#[derive(Debug, Clone)]
pub(super) struct Recording {
    pub uuid: Uuid,
    pub start: DateTime<Utc>,
    pub milliseconds: i64,
    pub stereo: bool,
    pub file: FileKind,
}

impl Recording {
    pub fn end(&self) -> DateTime<Utc> {
        self.start + Duration::milliseconds(self.milliseconds)
    }
}

/// What lies in the monitor folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// `<uuid>.wav`.
    Plain,
    /// The name that the PBX's API gives a download.
    Long,
    /// `conference-….wav`.
    Conference,
    /// Nothing: it was deleted, as the record knows.
    Deleted,
    /// Nothing, and the record doesn't know.
    Lost,
}

/// All calls of a centre that ended before `now`, in the order of their starts.
pub(super) fn calls(centre: &Centre, now: DateTime<Utc>) -> Vec<Call> {
    let mut maker = Maker { centre, random: Random::new(centre.seed), calls: Vec::new() };
    let today = now.with_timezone(&centre.zone).date_naive();
    let days_ago = |days: i64| today - Duration::days(days);
    for days in (1..=DAYS).rev() {
        maker.ordinary_day(days_ago(days));
    }
    if let Some(change) = last_clock_change(centre.zone, now) {
        maker.clock_change(change, today);
    }
    for days in [2, 9] {
        maker.midnight(days_ago(days));
    }
    maker.special(days_ago(3), days_ago(5));
    let mut calls = maker.calls;
    calls.retain(|call| call.recordings.iter().all(|recording| recording.end() < now) && call.start < now);
    calls.sort_by_key(|call| call.start);
    calls
}

/// The last moment before `now` at which the zone's clocks were changed.
pub(super) fn last_clock_change(zone: Tz, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    // Clocks change at full hours of UTC in the zones of the demo.
    let hour = now.with_minute(0)?.with_second(0)?.with_nanosecond(0)?;
    (0..24 * 400)
        .map(|hours| hour - Duration::hours(hours))
        .find(|at| offset(*at) != offset(*at - Duration::hours(1)))
}

struct Maker<'c> {
    centre: &'c Centre,
    random: Random,
    calls: Vec<Call>,
}

impl Maker<'_> {
    fn ordinary_day(&mut self, date: NaiveDate) {
        let weekend = matches!(date.weekday(), Weekday::Sat | Weekday::Sun);
        let count = if weekend { 3 } else { 7 + self.random.below(3) };
        for _ in 0..count {
            // Between 8 and 18 o'clock.
            let second = 8 * 3600 + self.random.below(10 * 3600);
            let Some(time) = NaiveTime::from_num_seconds_from_midnight_opt(second as u32, 0) else {
                continue;
            };
            if let Some(start) = self.local(date, time) {
                let start = start + Duration::microseconds(self.random.below(1_000_000) as i64);
                self.call(start);
            }
        }
    }

    /// Calls just before and just after local midnight, and one that goes over it.
    fn midnight(&mut self, date: NaiveDate) {
        for (hour, minute, second) in [(0, 0, 0), (0, 0, 7), (23, 58, 41), (23, 59, 57)] {
            let time = NaiveTime::from_hms_opt(hour, minute, second);
            if let Some(start) = time.and_then(|time| self.local(date, time)) {
                self.call(start);
            }
        }
    }

    /// Calls around a change of the clocks. Where they went back, two calls have the same local time, an hour apart.
    fn clock_change(&mut self, change: DateTime<Utc>, today: NaiveDate) {
        for seconds in [-3600 - 600, -1800, -2, 0, 1800, 3600 + 600] {
            self.call(change + Duration::seconds(seconds));
        }
        let date = change.with_timezone(&self.centre.zone).date_naive();
        for offset in -1..=1 {
            let day = date + Duration::days(offset);
            // The days of the last weeks have calls already.
            if day < today - Duration::days(DAYS) {
                self.ordinary_day(day);
            }
        }
    }

    fn special(&mut self, recent: NaiveDate, older: NaiveDate) {
        let at = |hour, minute| NaiveTime::from_hms_opt(hour, minute, 0).unwrap_or(NaiveTime::MIN);
        let (Some(recent), Some(older)) = (self.local(recent, at(11, 15)), self.local(older, at(14, 30)))
        else {
            return;
        };
        // One call, three recordings: the agent stopped and started it again.
        if let Some(call) = self.call(recent) {
            let mut recordings = call.recordings.clone();
            for number in 1..3 {
                let mut next = self.recording(recent + Duration::seconds(30 * number));
                next.stereo = false;
                recordings.push(next);
            }
            if let Some(call) = self.calls.last_mut() {
                call.recordings = recordings;
                call.tags = vec!["escalation", "case:4711"];
            }
        }
        // Two calls in the same second.
        self.call(recent + Duration::minutes(10));
        self.call(recent + Duration::minutes(10));
        // Nobody answered.
        if let Some(call) = self.call(recent + Duration::minutes(20)) {
            call.recordings.clear();
        }
        // The record says that its recording was deleted; another one's has vanished.
        self.call_with_file(recent + Duration::minutes(30), FileKind::Deleted);
        self.call_with_file(recent + Duration::minutes(40), FileKind::Lost);
        // Restored from an archive, under the name of a download.
        self.call_with_file(older, FileKind::Long);
        // No record was ever written: an orphan.
        if let Some(call) = self.call(older + Duration::minutes(10)) {
            call.has_record = false;
        }
        // A conference has none either.
        if let Some(call) = self.call_with_file(older + Duration::minutes(20), FileKind::Conference) {
            call.has_record = false;
        }
    }

    fn call_with_file(&mut self, start: DateTime<Utc>, file: FileKind) -> Option<&mut Call> {
        let call = self.call(start)?;
        for recording in &mut call.recordings {
            recording.file = file;
        }
        Some(call)
    }

    fn call(&mut self, start: DateTime<Utc>) -> Option<&mut Call> {
        let direction = match self.random.below(10) {
            0..6 => Direction::Inbound,
            6..9 => Direction::Outbound,
            _ => Direction::Internal,
        };
        let queued = direction == Direction::Inbound && !self.random.one_in(4);
        let [first, second, third, fourth] = self.centre.agents;
        let (agent, colleague) =
            self.random.pick(&[(first, second), (second, third), (third, fourth), (fourth, first)]);
        let customer = format!("{}{:04}", self.centre.customers, 100 + self.random.below(100));
        let queue = queued.then(|| self.random.pick(&self.centre.queues));
        let tags = if self.random.one_in(5) {
            vec![self.random.pick(&["callback", "complaint", "vip"])]
        } else {
            vec![]
        };
        let recordings = vec![self.recording(start)];
        self.calls.push(Call {
            direction,
            start,
            agent,
            colleague,
            customer,
            queue,
            tags,
            recordings,
            has_record: true,
        });
        self.calls.last_mut()
    }

    fn recording(&mut self, start: DateTime<Utc>) -> Recording {
        Recording {
            uuid: self.random.uuid(),
            start,
            milliseconds: 4000 + self.random.below(5000) as i64,
            stereo: self.random.one_in(5),
            file: FileKind::Plain,
        }
    }

    /// An instant by the tenant's clock; none where the clock skips it.
    fn local(&self, date: NaiveDate, time: NaiveTime) -> Option<DateTime<Utc>> {
        Some(self.centre.zone.from_local_datetime(&date.and_time(time)).earliest()?.with_timezone(&Utc))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::collections::HashSet;

    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-20T12:34:56Z".parse().unwrap()
    }

    #[test]
    fn the_last_clock_change_is_found() {
        let change = |zone| last_clock_change(zone, now()).unwrap().to_rfc3339();
        assert_eq!(change(Tz::America__Los_Angeles), "2026-11-01T09:00:00+00:00");
        assert_eq!(change(Tz::Europe__Berlin), "2026-10-25T01:00:00+00:00");
    }

    #[test]
    fn the_calls_show_what_they_should() {
        for centre in &CENTRES {
            let calls = calls(centre, now());
            let recordings: Vec<_> = calls.iter().flat_map(|call| &call.recordings).collect();
            assert!((120..300).contains(&recordings.len()), "{}", recordings.len());
            let uuids: HashSet<_> = recordings.iter().map(|recording| recording.uuid).collect();
            assert_eq!(uuids.len(), recordings.len(), "each recording has a uuid of its own");
            assert!(recordings.iter().any(|recording| recording.stereo));
            assert!(calls.iter().any(|call| call.recordings.len() == 3));
            assert!(calls.iter().any(|call| call.recordings.is_empty()));
            for file in
                [FileKind::Plain, FileKind::Long, FileKind::Conference, FileKind::Deleted, FileKind::Lost]
            {
                assert!(recordings.iter().any(|recording| recording.file == file), "{file:?}");
            }
            assert_eq!(calls.iter().filter(|call| !call.has_record).count(), 2);
            let locals: Vec<_> =
                calls.iter().map(|call| call.start.with_timezone(&centre.zone).naive_local()).collect();
            assert!(locals.windows(2).any(|pair| pair[0] > pair[1]), "the local clock went back once");
            assert!(recordings.iter().any(|recording| {
                let date = |at: DateTime<Utc>| at.with_timezone(&centre.zone).date_naive();
                date(recording.start) != date(recording.end())
            }));
            let again: Vec<_> = super::calls(centre, now()).iter().map(|call| call.start).collect();
            assert_eq!(again, calls.iter().map(|call| call.start).collect::<Vec<_>>());
        }
    }
}
