//! Which name a recording gets.
//!
//! A source that keeps the names of an earlier archive says so (`preferred_name`), and says the start that the name
//! tells: such a name is given if nobody has it. All others get the lowest sequence of their second that nobody has ever
//! had; so numbers that an archive took from the middle of a second are stepped over, and a high one among them doesn't
//! push the next recording up. No name is given twice: what was published keeps its place, whatever becomes of it.

use std::{collections::HashMap, ops::Range};

use super::{
    CatalogError, keys,
    keys::Place,
    rows::{Details, Told},
    txn::Txn,
};
use crate::layout::{NameForm, RecordingName, UtcDay, UtcSecond};

/// Seconds whose free sequences are remembered.
const REMEMBERED: usize = 65_536;
/// The first sequence that there is not.
const END: u64 = 1 << 32;

/// The name that a medium brings, if it tells the second in which the recording starts: by its facts, or, where the
/// answer came a moment after the recording began, by the medium itself.
pub fn preferred(told: &Told, details: &Details) -> Option<RecordingName> {
    let name = told.preferred_name()?;
    let starts = [Some(details.start_ms), told.exact_start_ms()];
    starts.into_iter().flatten().any(|ms| UtcSecond::from_unix_ms(ms) == Some(name.second)).then_some(name)
}

impl Told {
    /// The name that the medium had in an earlier archive, where it is one of a recording.
    pub fn preferred_name(&self) -> Option<RecordingName> {
        RecordingName::parse(self.preferred_name.as_deref()?, NameForm::Long)
    }

    /// The medium brings its name and the start that the name tells: it needs no facts to be placed.
    pub fn places_itself(&self) -> bool {
        let second = self.exact_start_ms().and_then(UtcSecond::from_unix_ms);
        second.is_some() && self.preferred_name().map(|name| name.second) == second
    }
}

/// What is free in seconds and days that were used lately. What was given and came to nothing has to be forgotten
/// ([`Sequences::clear`]), else its second would pass for taken, and those around it for empty.
#[derive(Default)]
pub struct Sequences {
    /// Sequences of a second: all below are taken, all in it are free, and of those above nothing is known.
    free: HashMap<(u32, UtcSecond), Range<u64>>,
    /// Seconds of a day in which nobody has a name. Most recordings come in the order of their starts: then one look at
    /// the store is enough for a day, not one for each of its seconds.
    empty: HashMap<(u32, UtcDay), Range<u32>>,
}

impl Sequences {
    /// Forgets what it remembers: the store isn't as it was thought to be.
    pub fn clear(&mut self) {
        self.free.clear();
        self.empty.clear();
    }

    /// Gives a sequence of a second: the preferred one if it is free, else the lowest that is.
    pub async fn give(
        &mut self,
        txn: &mut Txn<'_>,
        tenant: u32,
        second: UtcSecond,
        preferred: Option<u32>,
    ) -> Result<u32, CatalogError> {
        if let Some(sequence) = preferred
            && self.claim(txn, tenant, second, sequence).await?
        {
            return Ok(sequence);
        }
        let was_empty = self.take_empty(tenant, second);
        let known = self.free.get(&(tenant, second)).filter(|free| !free.is_empty()).cloned();
        let free = match known {
            Some(free) => free,
            None if was_empty => 0..END,
            None => self.look(txn, tenant, second).await?,
        };
        let sequence = u32::try_from(free.start)
            .map_err(|_| CatalogError::Row("a second has more than 4,294,967,295 recordings".into()))?;
        self.remember(tenant, second, free.start.saturating_add(1)..free.end);
        Ok(sequence)
    }

    /// Whether this sequence is free; then it is taken.
    async fn claim(
        &mut self,
        txn: &mut Txn<'_>,
        tenant: u32,
        second: UtcSecond,
        sequence: u32,
    ) -> Result<bool, CatalogError> {
        let wanted = u64::from(sequence);
        let was_empty = self.take_empty(tenant, second);
        if let Some(free) = self.free.get_mut(&(tenant, second)) {
            if wanted < free.start {
                return Ok(false);
            }
            if wanted == free.start && !free.is_empty() {
                free.start = free.start.saturating_add(1);
                return Ok(true);
            }
            if wanted < free.end {
                free.end = wanted;
                return Ok(true);
            }
        } else if was_empty {
            return Ok(true);
        }
        let key = keys::recording(tenant, Place::new(second, sequence));
        Ok(!txn.contains(&key).await?)
    }

    fn remember(&mut self, tenant: u32, second: UtcSecond, free: Range<u64>) {
        if self.free.len() >= REMEMBERED {
            self.free.clear();
        }
        self.free.insert((tenant, second), free);
    }

    /// Whether a second was known to be empty. It isn't any more: who asks is about to give a sequence of it.
    fn take_empty(&mut self, tenant: u32, second: UtcSecond) -> bool {
        let Some(empty) = self.empty.get_mut(&(tenant, second.day())) else { return false };
        let taken = second.second_of_day();
        if !empty.contains(&taken) {
            return false;
        }
        let (before, after) = (empty.start..taken, taken.saturating_add(1)..empty.end);
        *empty = if after.len() >= before.len() { after } else { before };
        true
    }

    /// The lowest run of sequences that no recording of the second has. What the same look shows of the seconds behind it
    /// is remembered.
    async fn look(
        &mut self,
        txn: &Txn<'_>,
        tenant: u32,
        second: UtcSecond,
    ) -> Result<Range<u64>, CatalogError> {
        let (day, this) = (second.day(), second.second_of_day());
        let prefix = keys::recordings_of(tenant, day);
        let (mut free, mut from) = (0..END, keys::recordings_at(tenant, second));
        // Few seconds have more than a few recordings, and a few rows are read at once.
        let mut limit = 4;
        let next_second = loop {
            let (taken, next) = txn.names(&prefix, &from, limit).await?;
            limit = 4096;
            let mut behind = None;
            for place in taken.iter().filter_map(|key| keys::place_of_recording(key)) {
                if place.second != this {
                    behind = Some(place.second);
                    break;
                }
                let taken = u64::from(place.sequence);
                if taken != free.start {
                    free.end = taken;
                    return Ok(free);
                }
                free.start = taken.saturating_add(1);
            }
            match (behind, next) {
                (Some(behind), _) => break behind,
                (None, Some(next)) => from = next,
                (None, None) => break u32::MAX,
            }
        };
        if self.empty.len() >= REMEMBERED {
            self.empty.clear();
        }
        self.empty.insert((tenant, day), this.saturating_add(1)..next_second);
        Ok(free)
    }
}
