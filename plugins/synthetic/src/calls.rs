//! The invented calls: who spoke with whom, and when.

use recgate_plugin_api::{Facts, JoinKey, JoinKind, Media, Precision, fact};

use crate::settings::Settings;
use crate::sound;

/// Every medium is as it always was.
pub(crate) const VERSION: &str = "1";
/// No call is longer.
pub(crate) const LONGEST_S: u64 = 60;
pub(crate) const LONGEST_MS: i64 = 60_000;

const DAY_MS: u64 = 86_400_000;
const AGENTS: [&str; 8] = [
    "Ada Quince",
    "Bram Oosterveld",
    "Chiara Fontanella",
    "Dmitri Volkonsky",
    "Esi Mensah",
    "Fatima al-Rashid",
    "Grzegorz Wiśniewski",
    "Hana Novotná",
];
const QUEUES: [&str; 4] = ["Sales", "Support", "Billing", "Returns"];

/// All calls of an instance.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    count: u64,
    first_day: u64,
    per_day: u64,
    on_first_day: u64,
    /// No recording has more.
    samples_at_most: Option<u64>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invented {
    number: u64,
    start_ms: i64,
    seconds: u64,
    samples: u64,
    /// Decides what else there is to invent.
    chance: u64,
}

impl Calls {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            count: settings.recordings,
            first_day: settings.first_day,
            per_day: settings.per_day,
            on_first_day: settings.on_first_day.unwrap_or(settings.per_day),
            samples_at_most: settings.largest.map(|bytes| bytes.saturating_sub(sound::HEADER) / 2),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The call of this number. Their starts follow one another, evenly over each day.
    pub(crate) fn call(&self, number: u64) -> Invented {
        let (day, within, on_day) = match number.checked_sub(self.on_first_day) {
            None => (0, number, self.on_first_day),
            Some(later) => (1 + later / self.per_day, later % self.per_day, self.per_day),
        };
        let start_ms = (self.first_day.saturating_add(day))
            .saturating_mul(DAY_MS)
            .saturating_add(within.saturating_mul(DAY_MS) / on_day.max(1));
        let chance = mixed(number);
        // One to sixty seconds; most calls are short.
        let seconds = 1 + (chance % LONGEST_S).min(chance / 64 % LONGEST_S);
        let whole = seconds * sound::RATE;
        // Cut in different places, so that one isn't taken for another by its size.
        let samples = self.samples_at_most.map_or(whole, |most| whole.min(1 + (chance >> 32) % most.max(1)));
        let start_ms = i64::try_from(start_ms).unwrap_or(i64::MAX);
        Invented { number, start_ms, seconds, samples, chance }
    }

    /// The number of the first call that starts then or later.
    pub(crate) fn first_from(&self, at_ms: i64) -> u64 {
        let (mut least, mut most) = (0, self.count);
        while least < most {
            let middle = least.midpoint(most);
            if self.call(middle).start_ms < at_ms {
                least = middle.saturating_add(1);
            } else {
                most = middle;
            }
        }
        least
    }
}

impl Invented {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Bytes of its WAV.
    pub(crate) fn size(&self) -> u64 {
        sound::HEADER + 2 * self.samples
    }

    pub(crate) fn start_ms(&self) -> i64 {
        self.start_ms
    }

    pub(crate) fn stop_ms(&self) -> i64 {
        self.start_ms.saturating_add(i64::try_from(self.seconds * 1000).unwrap_or(i64::MAX))
    }

    /// Milliseconds of its sound.
    fn duration_ms(&self) -> u64 {
        self.samples * 1000 / sound::RATE
    }

    pub(crate) fn media(&self) -> Media {
        Media {
            id: format!("call-{:09}", self.number),
            version: VERSION.to_owned(),
            size: self.size(),
            media_type: "audio/wav".to_owned(),
            start_ms: Some(self.start_ms),
            start_precision: Precision::Second,
            stop_ms: Some(self.stop_ms()),
            duration_ms: Some(self.duration_ms()),
            changed_ms: self.stop_ms(),
            keys: self.keys(),
            ..Media::default()
        }
    }

    pub(crate) fn facts(&self) -> Facts {
        let chosen = |list: &[&'static str], shift: u32| {
            let at = usize::try_from(self.chance >> shift).unwrap_or(0) % list.len().max(1);
            list.get(at).copied().unwrap_or_default().to_owned()
        };
        let inbound = self.chance & 1 == 0;
        // 555-0100 to 555-0199 are nobody's (ATIS, North American numbering).
        let customer = format!("+1212555{:04}", 100 + (self.chance >> 24) % 100);
        let mut values = vec![
            (fact::STARTED_AT, self.start_ms.to_string()),
            (fact::STOPPED_AT, self.stop_ms().to_string()),
            (fact::CALL_TYPE, if inbound { "inbound" } else { "outbound" }.to_owned()),
            (fact::AGENT_NAME, chosen(&AGENTS, 8)),
            (fact::CUSTOMER_NUMBER, customer),
            (fact::TRANSACTION_ID, self.number.to_string()),
        ];
        if inbound {
            values.push((fact::QUEUE_TYPE, "inbound".to_owned()));
            values.push((fact::QUEUE_NAME, chosen(&QUEUES, 16)));
        }
        Facts {
            id: format!("record-{:09}", self.number),
            revision: 1,
            gone: false,
            keys: self.keys(),
            values: values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }

    fn keys(&self) -> Vec<JoinKey> {
        vec![JoinKey { kind: JoinKind::ContactId, value: format!("{:09}", self.number) }]
    }
}

/// The number in a medium's id.
pub(crate) fn number_of(id: &str) -> Option<u64> {
    let digits = id.strip_prefix("call-")?;
    let number = digits.parse().ok()?;
    // One spelling only, or one medium would have several ids.
    (format!("{number:09}") == digits).then_some(number)
}

/// A number that looks like chance (the finaliser of SplitMix64, Steele, Lea and Flood, 2014).
pub(crate) fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
