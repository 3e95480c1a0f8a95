//! A bounded table of what is remembered about addresses.
//!
//! Each entry has an end, from which on it means nothing. When the table is full, the entry that ends first makes room:
//! of what is remembered, that is what matters least.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use super::origin::Origin;

/// Entries that have ended and are forgotten at each addition, so that no addition takes long.
const FORGOTTEN_AT_ONCE: usize = 4;

#[derive(Debug)]
pub(super) struct Table<V> {
    entries: HashMap<Origin, (Instant, V)>,
    ends: BTreeSet<(Instant, Origin)>,
    limit: usize,
}

impl<V> Table<V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), ends: BTreeSet::new(), limit: limit.max(1) }
    }

    /// What is remembered, unless that has ended.
    pub(super) fn get(&self, origin: Origin, now: Instant) -> Option<&V> {
        self.entries.get(&origin).filter(|(end, _)| *end > now).map(|(_, value)| value)
    }

    /// Remembers something until its end, instead of what was remembered before.
    pub(super) fn put(&mut self, origin: Origin, value: V, end: Instant, now: Instant) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            match self.ends.first() {
                Some(&(over, ended)) if over <= now => self.remove(ended),
                _ => break,
            }
        }
        self.remove(origin);
        if end <= now {
            return;
        }
        while self.entries.len() >= self.limit {
            let Some(&(_, first)) = self.ends.first() else { break };
            self.remove(first);
        }
        self.entries.insert(origin, (end, value));
        self.ends.insert((end, origin));
    }

    fn remove(&mut self, origin: Origin) {
        if let Some((end, _)) = self.entries.remove(&origin) {
            self.ends.remove(&(end, origin));
        }
    }

    /// What is remembered and hasn't ended.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = (Origin, &V)> {
        self.entries
            .iter()
            .filter(move |(_, (end, _))| *end > now)
            .map(|(origin, (_, value))| (*origin, value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{net::IpAddr, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn origin(number: u32) -> Origin {
        IpAddr::from(number.to_be_bytes()).into()
    }

    #[test]
    fn what_ends_first_makes_room() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut table = Table::new(2);
        table.put(origin(1), "long", at(100), now);
        table.put(origin(2), "short", at(10), now);
        table.put(origin(3), "new", at(5), now);
        assert_eq!(table.get(origin(2), now), None);
        assert_eq!(table.get(origin(1), now), Some(&"long"));
        assert_eq!(table.get(origin(3), now), Some(&"new"), "what is new is never what makes room");
        assert_eq!(table.get(origin(3), at(5)), None, "it has ended");
        table.put(origin(1), "over", at(4), at(4));
        assert_eq!(table.get(origin(1), now), None, "what has ended isn't kept");
    }

    proptest! {
        #[test]
        fn it_never_outgrows_its_limit_and_both_halves_agree(
            steps in prop::collection::vec((0..40_u32, 0..60_u64, 0..20_u64), 0..200),
        ) {
            let mut now = Instant::now();
            let mut table = Table::new(8);
            for (number, lasts, pause) in steps {
                now += Duration::from_secs(pause);
                table.put(origin(number), number, now + Duration::from_secs(lasts), now);
                prop_assert!(table.entries.len() <= 8);
                prop_assert_eq!(table.entries.len(), table.ends.len());
                let found = table.ends.iter().all(|(end, origin)| table.entries.get(origin).unwrap().0 == *end);
                prop_assert!(found);
                prop_assert_eq!(table.get(origin(number), now).is_some(), lasts > 0);
            }
        }
    }
}
