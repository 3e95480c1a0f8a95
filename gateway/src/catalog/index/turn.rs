//! How much is written before others have their turn, so that no tenant waits for all that another one owes.

/// Root indexes that are written in one [`Turn`] at most; as many folders, and as many days for what was erased.
const TURN: usize = 16;

/// One turn of writing what is due.
pub struct Turn<'a> {
    most: usize,
    more: bool,
    beat: &'a (dyn Fn() + Sync),
}

impl<'a> Turn<'a> {
    /// A turn that calls `beat` after each index that it has written.
    pub fn new(beat: &'a (dyn Fn() + Sync)) -> Self {
        Self { most: TURN, more: false, beat }
    }

    /// All that is due.
    pub(in crate::catalog) fn whole() -> Self {
        Self { most: usize::MAX, more: false, beat: &|| {} }
    }

    /// Whether more was due than was written.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// What of this is done in this turn.
    pub(in crate::catalog) fn share<T>(&mut self, mut due: Vec<T>) -> Vec<T> {
        self.more |= due.len() > self.most;
        due.truncate(self.most);
        due
    }

    /// Whether it is over after so many.
    pub(in crate::catalog) fn is_over(&mut self, done: u64) -> bool {
        let over = done >= self.most as u64;
        self.more |= over;
        over
    }

    /// One more is written, or has failed.
    pub(in crate::catalog) fn beat(&self) {
        (self.beat)();
    }
}
