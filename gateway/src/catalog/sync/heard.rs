//! What a watch and the scans beside it know of each other.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use recgate_plugin_api::Item;
use tokio::sync::Notify;

use crate::catalog::seen::Seen;

/// Media that a watch tells during one scan and that are remembered one by one, some 100 bytes each. A scan during which
/// there are more is followed by another.
const LIVE_MAX: usize = 100_000;
/// Media that seem to be gone, or to have changed after publication, and that wait for being asked for. Of what is more,
/// the next scan finds out.
const GONE_MAX: usize = 256;
const CHANGED_MAX: usize = 10_000;
/// Media of one scan whose ids are spelled otherwise than before, remembered one by one. Of what is more, the old ids
/// look as if they had vanished, and so many aren't believed.
const RESPELLED_MAX: usize = 10_000;

/// See the module.
#[derive(Default)]
pub struct Heard {
    state: Mutex<State>,
    hinted: Notify,
}

#[derive(Default)]
struct State {
    scan: Option<Scan>,
    hints: Hints,
}

/// A scan that runs.
struct Scan {
    /// What was told since it began, by it or by the watch: those are not missing.
    seen: Seen,
    /// What the watch has told since it began.
    live: HashSet<String>,
    /// The watch has told more than `live` takes.
    crowded: bool,
    /// What was told by other spellings of their ids, by the known ids.
    respelled: HashSet<String>,
}

/// What is to be asked for.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Hints {
    /// Published media that were told with another version: id and the version that was published.
    pub changed: HashMap<String, String>,
    /// Media that were told to be gone.
    pub gone: HashSet<String>,
    /// There are more than were kept: only a scan can tell.
    pub scan: bool,
}

/// A scan's part in [`Heard`]; dropped, the scan is over.
pub(super) struct Scanning<'a>(&'a Heard);

impl Drop for Scanning<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let crowded = state.scan.take().is_some_and(|scan| scan.crowded);
        state.hints.scan |= crowded;
        drop(state);
        if crowded {
            self.0.hinted.notify_one();
        }
    }
}

impl Heard {
    /// A full scan begins that may tell so many media.
    pub(super) fn begin_scan(&self, expected: u64) -> Scanning<'_> {
        let scan = Scan {
            seen: Seen::new(expected),
            live: HashSet::new(),
            crowded: false,
            respelled: HashSet::new(),
        };
        self.lock().scan = Some(scan);
        Scanning(self)
    }

    /// The scan has told these. Takes out media of which the watch has told something newer; says how many media there
    /// were.
    pub(super) fn scanned(&self, items: &mut Vec<Item>) -> u64 {
        let mut told = 0_u64;
        let mut state = self.lock();
        let Some(scan) = &mut state.scan else { return told };
        items.retain(|item| match item {
            Item::Media(media) => {
                told = told.saturating_add(1);
                scan.seen.insert(&media.id);
                !scan.live.contains(&media.id)
            }
            _ => true,
        });
        told
    }

    /// The watch has told these, and they are about to be ingested.
    pub(super) fn watched(&self, items: &[Item]) {
        let mut hinted = false;
        let mut state = self.lock();
        let State { scan, hints } = &mut *state;
        for item in items {
            match item {
                Item::Media(media) => {
                    hints.gone.remove(&media.id);
                    let Some(scan) = scan else { continue };
                    scan.seen.insert(&media.id);
                    if scan.live.len() < LIVE_MAX {
                        scan.live.insert(media.id.clone());
                    } else {
                        scan.crowded |= !scan.live.contains(&media.id);
                    }
                }
                Item::MediaGone(id) => {
                    hinted = true;
                    if hints.gone.len() < GONE_MAX {
                        hints.gone.insert(id.clone());
                    } else {
                        hints.scan = true;
                    }
                }
                Item::Facts(_) => {}
            }
        }
        drop(state);
        if hinted {
            self.hinted.notify_one();
        }
    }

    /// Published media were told with another version by the watch.
    pub(super) fn changed(&self, changed: Vec<(String, String)>) {
        if changed.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (id, pinned) in changed {
            if state.hints.changed.len() < CHANGED_MAX {
                state.hints.changed.insert(id, pinned);
            }
        }
        drop(state);
        self.hinted.notify_one();
    }

    /// Media were told by other spellings of their ids; given with the known ids behind those.
    pub(super) fn respelled(&self, respelled: Vec<(String, String)>) {
        let mut state = self.lock();
        let Some(scan) = &mut state.scan else { return };
        let room = RESPELLED_MAX.saturating_sub(scan.respelled.len());
        scan.respelled.extend(respelled.into_iter().take(room).map(|(_, known)| known));
    }

    /// Whether a medium was told by another spelling of its id since the scan began.
    pub(super) fn was_respelled(&self, id: &str) -> bool {
        self.lock().scan.as_ref().is_some_and(|scan| scan.respelled.contains(id))
    }

    /// Ends when there are hints to be taken.
    pub(super) async fn hinted(&self) {
        self.hinted.notified().await;
    }

    /// What is to be asked for.
    pub(super) fn take_hints(&self) -> Hints {
        std::mem::take(&mut self.lock().hints)
    }

    /// Whether the medium was told since the scan began; false is certain.
    pub(super) fn was_told(&self, id: &str) -> bool {
        self.lock().scan.as_ref().is_some_and(|scan| scan.seen.may_contain(id))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use recgate_plugin_api::Media;

    use super::*;

    fn media(ids: impl IntoIterator<Item = usize>) -> Vec<Item> {
        ids.into_iter().map(|id| Item::Media(Media { id: id.to_string(), ..Media::default() })).collect()
    }

    #[test]
    fn the_watchs_word_counts_during_a_scan_and_not_after_it() {
        let heard = Heard::default();
        heard.watched(&media([1]));
        let scan = heard.begin_scan(10);
        heard.watched(&media([2]));
        let mut items = media([1, 2, 3]);
        assert_eq!(heard.scanned(&mut items), 3);
        assert_eq!(items, media([1, 3]));
        heard.watched(&media([4]));
        assert!([1, 2, 3, 4].iter().all(|id| heard.was_told(&id.to_string())));
        assert!(!heard.was_told("5"));
        drop(scan);
        let _scan = heard.begin_scan(10);
        let mut items = media([2, 4]);
        heard.scanned(&mut items);
        assert_eq!(items, media([2, 4]));
        assert_eq!(heard.take_hints(), Hints::default());
    }

    #[test]
    fn more_than_is_kept_asks_for_another_scan() {
        let heard = Heard::default();
        let scan = heard.begin_scan(10);
        heard.watched(&media(0..=LIVE_MAX));
        assert!(!heard.take_hints().scan);
        assert!(
            heard.was_told(&LIVE_MAX.to_string()),
            "what isn't kept one by one isn't missing all the same"
        );
        drop(scan);
        assert!(heard.take_hints().scan);

        let gone: Vec<Item> = (0..=GONE_MAX).map(|id| Item::MediaGone(id.to_string())).collect();
        heard.watched(&gone);
        let hints = heard.take_hints();
        assert_eq!((hints.gone.len(), hints.scan), (GONE_MAX, true));
        heard.watched(&[Item::MediaGone("1".to_owned())]);
        heard.watched(&media([1]));
        assert!(heard.take_hints().gone.is_empty(), "it has come back");
    }
}
