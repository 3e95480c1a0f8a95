//! Checks of single values: pure, each with its remedy.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
    time::Duration,
};

use chrono::NaiveDate;
use chrono_tz::Tz;
use ipnet::IpNet;
use toml::de::DeValue;

use super::problems::Mistake;
use crate::identity::{self, HashError};

/// Cuts what is shown of a value that may be long, and makes control characters visible.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// A length of time: a whole number and one unit.
pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, Mistake> {
    const REMEDY: &str = "Write a whole number and one of ms, s, m, h, d, for example \"90s\".";
    let wrong = || Mistake::new(format!("\"{}\" is no length of time", shortened(text)), REMEDY);
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let value = Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(wrong)?);
    if value < least || value > most {
        return Err(Mistake::new(
            format!("{} is out of range", shortened(text)),
            format!("Write a time from {} to {}.", spelled(least), spelled(most)),
        ));
    }
    Ok(value)
}

/// A number of bytes: a whole number and one unit.
pub(super) fn size(text: &str, least: u64, most: u64) -> Result<u64, Mistake> {
    const REMEDY: &str = "Write a whole number and one of B, KiB, MiB, GiB, TiB, for example \"256MiB\".";
    let wrong = || Mistake::new(format!("\"{}\" is no size", shortened(text)), REMEDY);
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let unit_bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    let value = number.checked_mul(unit_bytes).ok_or_else(wrong)?;
    if value < least || value > most {
        return Err(Mistake::new(
            format!("{} is out of range", shortened(text)),
            format!("Write a size from {} to {}.", spelled_size(least), spelled_size(most)),
        ));
    }
    Ok(value)
}

/// A number of bytes a second: a size, and `/s`.
pub(super) fn bandwidth(text: &str, least: u64, most: u64) -> Result<NonZeroU64, Mistake> {
    let size = text.trim_end().strip_suffix("/s").map(|text| size(text.trim_end(), 0, u64::MAX));
    let Some(Ok(bytes)) = size else {
        return Err(Mistake::new(
            format!("\"{}\" is no bandwidth", shortened(text)),
            "Write a size a second, in B, KiB, MiB, GiB or TiB, for example \"20MiB/s\".",
        ));
    };
    NonZeroU64::new(bytes).filter(|bytes| (least..=most).contains(&bytes.get())).ok_or_else(|| {
        Mistake::new(
            format!("{} is out of range", shortened(text)),
            format!("Write a bandwidth from {}/s to {}/s.", spelled_size(least), spelled_size(most)),
        )
    })
}

/// The name of a tenant, a user or a source: what a login and a path can carry without quoting.
pub(super) fn name(text: &str) -> Result<String, Mistake> {
    let mut letters = text.bytes();
    let begins = letters.next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    let goes_on = letters
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'));
    if begins && goes_on && text.len() <= 63 {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("\"{}\" can't be a name", shortened(text)),
        "Write 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit.",
    ))
}

/// An IANA time zone.
pub(super) fn zone(text: &str) -> Result<Tz, Mistake> {
    text.parse::<Tz>().map_err(|_| {
        let names = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let typed = text.to_ascii_lowercase().replace(' ', "_");
        let last = typed.rsplit('/').next().unwrap_or_default();
        let same_city = names().find(|name| {
            let name = name.to_ascii_lowercase();
            name == typed || name.rsplit('/').next() == Some(last)
        });
        let remedy = match same_city.or_else(|| nearest(text, names())) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => "Write a name of the IANA time zone database, for example \"Europe/Berlin\".".to_owned(),
        };
        Mistake::new(format!("\"{}\" is no time zone", shortened(text)), remedy)
    })
}

/// A date without time.
pub(super) fn date(value: &DeValue<'_>) -> Result<NaiveDate, Mistake> {
    let wrong = |what: &str| {
        Mistake::new(
            format!("expected a date, found {what}"),
            "Write the local date from which the zone holds, without quotes: 2025-03-01.",
        )
    };
    match value {
        DeValue::Datetime(datetime) => match (datetime.date, datetime.time, datetime.offset) {
            (Some(date), None, None) => {
                NaiveDate::from_ymd_opt(i32::from(date.year), u32::from(date.month), u32::from(date.day))
                    .ok_or_else(|| wrong("one that is in no calendar"))
            }
            _ => Err(wrong("a time")),
        },
        DeValue::String(_) => Err(wrong("a string")),
        _ => Err(wrong("something else")),
    }
}

/// An address and port to listen on.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Mistake> {
    text.parse().map_err(|_| {
        Mistake::new(
            format!("\"{}\" is no address with a port", shortened(text)),
            "Write an IP address and a port, for example \"0.0.0.0:2022\" or \"[::]:2022\".",
        )
    })
}

/// A network (`10.0.0.0/8`) or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, Mistake> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let wrong = |wrong: String, remedy: &str| Mistake::new(wrong, remedy.to_owned());
    let network = parsed.map_err(|_| {
        wrong(
            format!("\"{}\" is no network", shortened(text)),
            "Write an address with the bits that count, for example \"10.1.0.0/16\", or a single address.",
        )
    })?;
    let network = canonical(network);
    if network.addr() != network.network() {
        return Err(wrong(
            format!("\"{}\" has bits beyond its prefix", shortened(text)),
            &format!("Write \"{}\" if the whole network is meant.", network.trunc()),
        ));
    }
    Ok(network)
}

/// IPv4 in IPv6 (`::ffff:10.0.0.0/104`) as IPv4, which is how clients' addresses are compared.
fn canonical(network: IpNet) -> IpNet {
    let IpAddr::V4(address) = network.addr().to_canonical() else { return network };
    let v4 = network.prefix_len().checked_sub(96).and_then(|prefix| IpNet::new(address.into(), prefix).ok());
    v4.unwrap_or(network)
}

/// An address and port that only this machine reaches.
pub(super) fn loopback_address(text: &str) -> Result<SocketAddr, Mistake> {
    const REMEDY: &str = "Write a loopback address, for example \"127.0.0.1:9464\" or \"[::1]:9464\".";
    let address: SocketAddr = text
        .parse()
        .map_err(|_| Mistake::new(format!("\"{}\" is no address with a port", shortened(text)), REMEDY))?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(Mistake::new(
        format!("others could reach {address}, and there is neither a login nor encryption"),
        format!("{REMEDY} For other machines, put a proxy before it that asks who they are."),
    ))
}

/// A PHC string of argon2id whose check costs what a login may cost. The value is a secret: no message shows it.
pub(super) fn password_hash(text: &str) -> Result<String, Mistake> {
    let wrong = match identity::parse_password_hash(text) {
        Ok(()) => return Ok(text.to_owned()),
        Err(HashError::Unreadable(reason)) => {
            format!("this is no password hash in the PHC string format ({reason})")
        }
        Err(HashError::Algorithm(algorithm)) => format!("{algorithm} is not supported, only argon2id is"),
        Err(HashError::TooCostly(memory, passes, lanes)) => format!(
            "checking this password hash would cost {memory} KiB, {passes} passes and {lanes} lanes, which is too much"
        ),
        Err(error) => error.to_string(),
    };
    Err(Mistake::new(wrong, "Write what `recgate hash-password` prints."))
}

/// A line of OpenSSH's authorized_keys without options.
pub(super) fn authorized_key(text: &str) -> Result<String, Mistake> {
    match identity::parse_authorized_key(text) {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(_) => Err(Mistake::new(
            format!("\"{}\" is no public key", shortened(text)),
            "Write a line of an OpenSSH .pub file, without options before the key type.",
        )),
    }
}

/// A SHA-256 in hexadecimal.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], Mistake> {
    let wrong = || {
        Mistake::new(
            format!("\"{}\" is no SHA-256", shortened(text)),
            "Write the 64 hexadecimal digits that `sha256sum` prints.",
        )
    };
    let mut sum = [0_u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    for (byte, digits) in sum.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(sum)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Mistake> {
    match choices.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            Err(Mistake::new(
                format!("\"{}\" is not known here", shortened(text)),
                format!("Write one of {}.", words.join(", ")),
            ))
        }
    }
}

/// A TOML value as JSON, for a plugin's settings.
pub(super) fn json(value: &DeValue<'_>) -> Result<serde_json::Value, Mistake> {
    Ok(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            number
                .map_err(|_| Mistake::new("the number is too large", "Write a number that fits 64 bits."))?
                .into()
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(serde_json::Number::from_f64);
            let mistake = || Mistake::new("the number is not finite", "Write a finite number.");
            serde_json::Value::Number(number.ok_or_else(mistake)?)
        }
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(datetime) => datetime.to_string().into(),
        DeValue::Array(array) => {
            array.iter().map(|value| json(value.get_ref())).collect::<Result<Vec<_>, _>>()?.into()
        }
        DeValue::Table(table) => {
            let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let key: &toml::de::DeString<'_> = key.get_ref();
                Ok((key.to_string(), json(value.get_ref())?))
            };
            serde_json::Value::Object(table.iter().map(entry).collect::<Result<_, Mistake>>()?)
        }
    })
}

/// The candidate that was probably meant, if one is near enough.
pub(crate) fn nearest<'c>(typed: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // Longer input isn't a slip of the finger, and comparing it would cost.
    if typed.len() > 64 {
        return None;
    }
    let (distance, best) = candidates
        .map(|candidate| (edit_distance(&typed.to_lowercase(), &candidate.to_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + typed.chars().count() / 4).then_some(best)
}

/// Levenshtein's distance: insertions, deletions and replacements of one character.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *cell;
            *cell = replaced.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

fn spelled(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

fn spelled_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn durations_take_one_unit() {
        let read = |text| duration(text, Duration::ZERO, 30 * DAY);
        assert_eq!(read("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(read("15m").unwrap(), Duration::from_secs(900));
        assert_eq!(read("24h").unwrap(), DAY);
        assert_eq!(read("30 d").unwrap(), 30 * DAY);
        for bad in ["", "5", "m", "-1s", "1.5h", "1h30m", "99999999999999999999s", "18446744073709551615d"] {
            assert!(read(bad).unwrap_err().wrong.contains("no length of time"), "{bad}");
        }
        assert_eq!(read("31d").unwrap_err().remedy, "Write a time from 0s to 30d.");
    }

    #[test]
    fn sizes_are_binary() {
        let read = |text| size(text, 1 << 20, 1 << 40);
        assert_eq!(read("256MiB").unwrap(), 256 << 20);
        for bad in ["256", "256MB", "x", "", "18446744073709551615GiB"] {
            assert!(read(bad).unwrap_err().wrong.contains("no size"), "{bad}");
        }
        assert_eq!(read("1KiB").unwrap_err().remedy, "Write a size from 1MiB to 1TiB.");
    }

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, distance) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("zone", "zoen", 2)] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
        assert_eq!(nearest("lisen", ["listen", "host_keys"].into_iter()), Some("listen"));
        assert_eq!(nearest("banana", ["listen", "host_keys"].into_iter()), None);
    }

    #[test]
    fn a_zone_is_suggested_by_its_city() {
        for (typed, meant) in [
            ("America/Los Angeles", "America/Los_Angeles"),
            ("los_angeles", "America/Los_Angeles"),
            ("europe/berlin", "Europe/Berlin"),
            ("Europe/Berlln", "Europe/Berlin"),
        ] {
            assert_eq!(zone(typed).unwrap_err().remedy, format!("Did you mean \"{meant}\"?"), "{typed}");
        }
    }

    #[test]
    fn hashes_that_would_cost_too_much_are_refused() {
        let salt_and_hash = "c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b5dWRWJTmaaJObGZvLs8BcdTGE";
        let read = |head: &str| password_hash(&format!("{head}${salt_and_hash}"));
        assert!(read("$argon2id$v=19$m=19456,t=2,p=1").is_ok());
        assert!(read("$argon2id$v=19$m=4194304,t=2,p=1").unwrap_err().wrong.contains("would cost"));
        assert!(read("$argon2i$v=19$m=19456,t=2,p=1").unwrap_err().wrong.contains("only argon2id"));
        assert!(password_hash("$argon2id$v=19$m=19456,t=2,p=1").is_err());
        assert!(password_hash("hunter2").unwrap_err().wrong.contains("no password hash"));
    }

    #[test]
    fn a_network_is_canonical() {
        for (text, means) in [
            ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), means, "{text}");
        }
        assert!(network("::ffff:10.1.2.3/112").unwrap_err().remedy.contains("10.1.0.0/16"));
    }
}
