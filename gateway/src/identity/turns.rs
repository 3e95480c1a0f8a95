//! Who has a password checked next.
//!
//! A check costs memory and much time, so few run at once and a bounded number waits. Addresses that logged in lately
//! go first; every fourth turn is a stranger's, so that those wait, but not for ever. Within each kind addresses
//! take turns, whoever has many checks waiting. Where the queue is full, the newest check goes of the address that
//! has most waiting: strangers crowd out each other, and an address alone crowds out itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::origin::Origin;

/// Checks at once.
const AT_ONCE: usize = 2;
/// Checks that wait.
const QUEUE: usize = 62;
/// Of these, for addresses that logged in lately; the rest is for strangers alone.
const SPARED_QUEUE: usize = 48;
/// Of one address that logged in lately: a whole office may log in at nine.
const SPARED_SHARE: usize = 31;
/// Of one that hasn't. As many connections as it may open at once by default.
const STRANGER_SHARE: usize = 20;
/// One turn of so many is a stranger's before all others.
const STRANGERS_TURN: u64 = 4;

/// The queue. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

/// The right to check one password; dropped when that is done.
#[derive(Debug)]
pub(super) struct Turn(Option<Turns>);

#[derive(Debug, Default)]
struct State {
    running: usize,
    granted: u64,
    next: u64,
    spared: Line,
    strangers: Line,
}

/// Who waits, in the order of arrival.
#[derive(Debug, Default)]
struct Line {
    waiting: Vec<Waiting>,
    /// Of the check that had its turn last.
    round: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    origin: Origin,
    /// An address's checks are of different rounds, the earliest round goes first.
    round: u64,
    grant: oneshot::Sender<Turn>,
}

impl Turns {
    /// Waits for a turn. `None`: so many wait that this one doesn't, or no longer does.
    pub(super) async fn turn(&self, origin: Origin, spared: bool) -> Option<Turn> {
        let (number, granted) = {
            let mut state = self.lock();
            if state.running < AT_ONCE {
                state.running += 1;
                return Some(Turn(Some(self.clone())));
            }
            let (grant, granted) = oneshot::channel();
            (state.enqueue(origin, spared, grant), granted)
        };
        // A client that hangs up leaves the queue.
        let _leave = Leave { turns: self, number };
        granted.await.ok()
    }

    /// Gives a turn that is over to the next.
    fn pass_on(self) {
        let mut turn = Turn(Some(self.clone()));
        loop {
            let next = {
                let mut state = self.lock();
                let next = state.pick();
                if next.is_none() {
                    state.running -= 1;
                }
                next
            };
            let returned = match next {
                Some(waiting) => waiting.grant.send(turn).err(),
                None => {
                    turn.0 = None;
                    return;
                }
            };
            match returned {
                // It has just hung up.
                Some(returned) => turn = returned,
                None => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that run and that wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.running, state.len())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

struct Leave<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let State { spared, strangers, .. } = &mut *state;
        for line in [spared, strangers] {
            line.waiting.retain(|waiting| waiting.number != self.number);
        }
    }
}

impl State {
    fn len(&self) -> usize {
        self.spared.waiting.len() + self.strangers.waiting.len()
    }

    /// Adds a check; where there is no room for it, it or another is dropped, which tells who waits for it.
    fn enqueue(&mut self, origin: Origin, spared: bool, grant: oneshot::Sender<Turn>) -> u64 {
        let number = self.next;
        self.next += 1;
        let (line, share) = match spared {
            true => (&mut self.spared, SPARED_SHARE),
            false => (&mut self.strangers, STRANGER_SHARE),
        };
        let mine = line.waiting.iter().filter(|waiting| waiting.origin == origin);
        let round = mine.clone().map(|waiting| waiting.round + 1).max().unwrap_or(0).max(line.round);
        let over = mine.count() >= share;
        line.waiting.push(Waiting { number, origin, round, grant });
        if over {
            line.waiting.pop();
        } else if self.spared.waiting.len() > SPARED_QUEUE {
            self.spared.drop_one();
        } else if self.len() > QUEUE {
            self.strangers.drop_one();
        }
        number
    }

    fn pick(&mut self) -> Option<Waiting> {
        self.granted = self.granted.wrapping_add(1);
        let (first, second) = match self.granted % STRANGERS_TURN {
            0 => (&mut self.strangers, &mut self.spared),
            _ => (&mut self.spared, &mut self.strangers),
        };
        first.pick().or_else(|| second.pick())
    }
}

impl Line {
    fn pick(&mut self) -> Option<Waiting> {
        let (at, next) =
            self.waiting.iter().enumerate().min_by_key(|(_, waiting)| (waiting.round, waiting.number))?;
        self.round = next.round;
        Some(self.waiting.remove(at))
    }

    /// Drops the newest of the address that has most.
    fn drop_one(&mut self) {
        let count = |origin: Origin| self.waiting.iter().filter(|waiting| waiting.origin == origin).count();
        let worst = self
            .waiting
            .iter()
            .enumerate()
            .max_by_key(|(_, waiting)| (count(waiting.origin), waiting.number))
            .map(|(at, _)| at);
        if let Some(worst) = worst {
            drop(self.waiting.remove(worst));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::IpAddr;

    use tokio::task::JoinHandle;

    use super::*;

    fn origin(number: u8) -> Origin {
        IpAddr::from([10, 0, 0, number]).into()
    }

    /// Asks for a turn, and returns when it waits (or has been refused).
    async fn ask(turns: &Turns, number: u8, spared: bool) -> JoinHandle<Option<Turn>> {
        let mine = turns.clone();
        let asked = tokio::spawn(async move { mine.turn(origin(number), spared).await });
        // The test's runtime has one thread: the task now runs until it waits.
        tokio::task::yield_now().await;
        asked
    }

    async fn busy(turns: &Turns) -> Vec<Turn> {
        let mut running = Vec::new();
        for _ in 0..AT_ONCE {
            running.push(turns.turn(origin(0), false).await.unwrap());
        }
        running
    }

    /// Ends the running turns one after another; tells whose turn it was then.
    async fn order(
        turns: &Turns,
        mut running: Vec<Turn>,
        asked: Vec<(u8, JoinHandle<Option<Turn>>)>,
    ) -> Vec<u8> {
        let (told, mut came) = tokio::sync::mpsc::unbounded_channel();
        for (number, asked) in asked {
            let told = told.clone();
            tokio::spawn(async move {
                if let Some(turn) = asked.await.unwrap() {
                    told.send((number, turn)).unwrap();
                }
            });
        }
        drop(told);
        // One goes on, so that turns come one by one.
        let rest = running.split_off(1);
        drop(running);
        let mut order = Vec::new();
        while let Some((number, turn)) = came.recv().await {
            order.push(number);
            drop(turn);
        }
        drop(rest);
        assert_eq!(turns.counts(), (0, 0));
        order
    }

    #[tokio::test]
    async fn addresses_take_turns_and_those_that_logged_in_lately_go_first() {
        let turns = Turns::default();
        let running = busy(&turns).await;
        let mut asked = Vec::new();
        for (number, spared) in [
            (1, false),
            (1, false),
            (1, false),
            (2, false),
            (3, true),
            (3, true),
            (3, true),
            (3, true),
            (4, true),
        ] {
            asked.push((number, ask(&turns, number, spared).await));
        }
        let order = order(&turns, running, asked).await;
        // Every fourth turn is a stranger's.
        assert_eq!(order, [3, 4, 3, 1, 3, 3, 2, 1, 1]);
    }

    #[tokio::test]
    async fn an_address_crowds_out_itself_and_strangers_each_other() {
        let turns = Turns::default();
        let running = busy(&turns).await;
        let mut asked = Vec::new();
        for _ in 0..100 {
            asked.push((1, ask(&turns, 1, false).await));
        }
        assert_eq!(turns.counts().1, STRANGER_SHARE);
        for number in 2..=5 {
            for _ in 0..30 {
                asked.push((number, ask(&turns, number, false).await));
            }
        }
        assert_eq!(turns.counts().1, QUEUE);
        asked.push((6, ask(&turns, 6, false).await));
        for _ in 0..40 {
            asked.push((7, ask(&turns, 7, true).await));
        }
        assert_eq!(turns.counts().1, QUEUE);
        let order = order(&turns, running, asked).await;
        let count = |number| order.iter().filter(|it| **it == number).count();
        assert_eq!(count(7), SPARED_SHARE);
        assert_eq!(count(6), 1, "a newcomer isn't kept out by those that have many waiting");
        assert_eq!(order.len(), QUEUE);
    }

    #[tokio::test]
    async fn strangers_keep_places_that_others_cannot_take() {
        let turns = Turns::default();
        let running = busy(&turns).await;
        let mut asked = Vec::new();
        for number in 1..=9 {
            for _ in 0..20 {
                asked.push((number, ask(&turns, number, true).await));
            }
        }
        assert_eq!(turns.counts().1, SPARED_QUEUE);
        asked.push((10, ask(&turns, 10, false).await));
        asked.push((11, ask(&turns, 11, true).await));
        let order = order(&turns, running, asked).await;
        assert!(order.contains(&10) && order.contains(&11), "{order:?}");
    }

    #[tokio::test]
    async fn who_hangs_up_leaves_the_queue_and_takes_no_turn() {
        let turns = Turns::default();
        let mut running = busy(&turns).await;
        let first = ask(&turns, 1, false).await;
        let second = ask(&turns, 1, false).await;
        first.abort();
        assert!(first.await.is_err());
        assert_eq!(turns.counts().1, 1);
        // Granted, and hung up before it is taken.
        running.pop();
        second.abort();
        let _ = second.await;
        running.clear();
        assert_eq!(turns.counts(), (0, 0));
        drop(busy(&turns).await);
    }
}
