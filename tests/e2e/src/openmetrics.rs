//! A strict reader of OpenMetrics text, as far as the gateway has a use for it: it fails the test at the first line that
//! a scraper could stumble over.

use std::collections::{BTreeMap, BTreeSet};

/// A scrape.
#[derive(Debug, Default)]
pub struct OpenMetrics {
    families: BTreeMap<String, Family>,
    /// Values by name and labels, as in the text, labels sorted.
    samples: BTreeMap<(String, Labels), f64>,
}

type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: Option<String>,
}

impl OpenMetrics {
    /// Reads a whole scrape.
    pub fn read(text: &str) -> Self {
        let lines = text.strip_suffix("# EOF\n").expect("a scrape ends with # EOF");
        let mut read = Self::default();
        // The family whose lines these are, and whether its samples have begun.
        let mut current: Option<(String, bool)> = None;
        for line in lines.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let (keyword, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                let (name, value) = rest.split_once(' ').unwrap_or_else(|| panic!("without a value: {line}"));
                read.metadata(&mut current, keyword, name, value, line);
            } else {
                let (family, begun) = current.as_mut().unwrap_or_else(|| panic!("of no family: {line}"));
                *begun = true;
                let family = family.clone();
                read.sample(&family, line);
            }
        }
        read.check();
        read
    }

    /// The value of the series with exactly these labels.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// The value of a series that must be there.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} in {:#?}", self.samples))
    }

    /// The sum over all series of this name.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|((sample, _), _)| sample == name).map(|(_, value)| value).sum()
    }

    /// Every value that a label has anywhere.
    pub fn label_values(&self, label: &str) -> BTreeSet<&str> {
        self.samples.keys().filter_map(|(_, labels)| labels.get(label)).map(String::as_str).collect()
    }

    /// Every label that there is.
    pub fn labels(&self) -> BTreeSet<&str> {
        self.samples.keys().flat_map(|(_, labels)| labels.keys()).map(String::as_str).collect()
    }

    fn metadata(
        &mut self,
        current: &mut Option<(String, bool)>,
        keyword: &str,
        name: &str,
        value: &str,
        line: &str,
    ) {
        assert!(is_name(name, true), "{line}");
        match current {
            Some((family, begun)) if family == name => assert!(!*begun, "after the samples: {line}"),
            _ => {
                assert!(self.families.insert(name.to_owned(), Family::default()).is_none(), "again: {line}");
                *current = Some((name.to_owned(), false));
            }
        }
        let family = self.families.get_mut(name).unwrap();
        match keyword {
            "HELP" => {
                assert!(value.len() > 5 && value.ends_with('.') && !value.ends_with(".."), "{line}");
                assert!(family.help.replace(value.to_owned()).is_none(), "again: {line}");
            }
            "TYPE" => {
                assert!(["counter", "gauge", "histogram", "info"].contains(&value), "{line}");
                assert!(family.kind.is_empty(), "again: {line}");
                value.clone_into(&mut family.kind);
            }
            "UNIT" => {
                assert!(name.ends_with(&format!("_{value}")), "the name doesn't end with the unit: {line}");
                assert!(family.unit.replace(value.to_owned()).is_none(), "again: {line}");
            }
            _ => panic!("{line}"),
        }
    }

    fn sample(&mut self, family: &str, line: &str) {
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
        let (name, rest) = line.split_at(end);
        let kind = self.families[family].kind.as_str();
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("not of {family}: {line}"));
        let fits: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => panic!("before its type: {line}"),
        };
        assert!(fits.contains(&suffix), "not of a {kind}: {line}");
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => read_labels(rest, line),
            None => (Labels::new(), rest),
        };
        let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_finite() && (kind == "gauge" || value >= 0.0), "{line}");
        assert!(kind != "info" || value.to_string() == "1", "{line}");
        assert!(self.samples.insert((name.to_owned(), labels), value).is_none(), "a second time: {line}");
    }

    /// What only shows when all is read.
    fn check(&self) {
        for (name, family) in &self.families {
            assert!(!family.kind.is_empty() && family.help.is_some(), "{name}: {family:?}");
            // What is measured in seconds or bytes says so; a rate or another unit is nowhere.
            for unit in ["seconds", "bytes"] {
                assert_eq!(
                    name.ends_with(&format!("_{unit}")),
                    family.unit.as_deref() == Some(unit),
                    "{name}"
                );
            }
            assert!(
                !name.ends_with("_total") && !name.ends_with("_info"),
                "{name}: the suffix is the sample's"
            );
            if family.kind == "histogram" {
                self.check_histogram(name);
            }
        }
    }

    fn check_histogram(&self, family: &str) {
        let bucket = format!("{family}_bucket");
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for ((_, labels), count) in self.samples.iter().filter(|((name, _), _)| *name == bucket) {
            let mut labels = labels.clone();
            let bound = labels.remove("le").expect("a bucket has a bound");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            series.entry(labels).or_default().push((bound, *count));
        }
        for (labels, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{family} {labels:?}: {buckets:?}");
            let (last, all) = *buckets.last().unwrap();
            let named = |suffix: &str| self.samples[&(format!("{family}_{suffix}"), labels.clone())];
            assert!(last.is_infinite() && all.total_cmp(&named("count")).is_eq(), "{family} {labels:?}");
            assert!(all > 0.0 || named("sum") <= 0.0, "{family} {labels:?}");
        }
    }
}

/// Labels and what follows their closing brace.
fn read_labels<'t>(text: &'t str, line: &str) -> (Labels, &'t str) {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(name, false), "{line}");
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().unwrap_or_else(|| panic!("{line}")) {
                (at, '"') => break at,
                (_, '\\') => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                    _ => panic!("{line}"),
                },
                (_, character) => value.push(character),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "a label twice: {line}");
        let after = &after[end + 1..];
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return (labels, after.strip_prefix('}').unwrap_or_else(|| panic!("{line}"))),
        }
    }
}

fn is_name(text: &str, colons: bool) -> bool {
    let begins = |letter: char| letter.is_ascii_alphabetic() || letter == '_' || colons && letter == ':';
    text.starts_with(begins) && text.chars().all(|letter| begins(letter) || letter.is_ascii_digit())
}
