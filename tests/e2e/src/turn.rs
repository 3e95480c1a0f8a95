//! Turns of tests that load the machine.

use std::{
    num::NonZero,
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

/// How many have a turn.
static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// One test's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn(());

/// Waits until fewer tests of this process than the machine has processors have a turn, however many run side by side:
/// what is measured of one mustn't be the work of many others.
pub fn turn() -> Turn {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    // Whoever panicked while holding it has not changed it.
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let full = |taken: &mut usize| *taken >= at_once;
    *GIVEN_BACK.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner) += 1;
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN_BACK.notify_one();
    }
}
