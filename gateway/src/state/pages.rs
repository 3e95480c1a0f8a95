//! A scan of many pages.

use super::{Row, Store, StoreError};

/// The pages of a scan, one after the other. Between two of them nothing is held, neither a lock nor a snapshot.
pub struct Pages<'a> {
    store: &'a dyn Store,
    prefix: Vec<u8>,
    /// Where the next one begins; `None` behind the last.
    from: Option<Vec<u8>>,
}

impl<'a> Pages<'a> {
    /// All rows whose keys begin with a prefix.
    pub fn of(store: &'a dyn Store, prefix: Vec<u8>) -> Self {
        Self { store, from: Some(prefix.clone()), prefix }
    }

    /// Those of them whose keys are `from` or come after it.
    #[must_use]
    pub fn starting_at(self, from: Vec<u8>) -> Self {
        Self { from: Some(from), ..self }
    }

    /// The next page, of so many rows at most; `None` behind the last.
    ///
    /// # Errors
    /// What the store says. The same page is read again then.
    pub async fn next(&mut self, rows: usize) -> Result<Option<Vec<Row>>, StoreError> {
        let Some(from) = &self.from else { return Ok(None) };
        let page = self.store.scan(&self.prefix, from, rows).await?;
        self.from = page.next;
        Ok(Some(page.rows))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{Batch, RedbStore};
    use super::*;

    #[tokio::test]
    async fn pages_follow_each_other_to_the_end_of_the_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbStore::open(&dir.path().join("store")).unwrap();
        let mut batch = Batch::new();
        for n in 0..5 {
            batch.put(*b"o", *b"").put([b'p', n], *b"").put(*b"q", *b"");
        }
        store.commit(batch).await.unwrap();
        let keys = async |mut pages: Pages<'_>| {
            let mut read = Vec::new();
            while let Some(rows) = pages.next(2).await.unwrap() {
                read.push(rows.iter().map(|row| row.key.to_vec()).collect::<Vec<_>>());
            }
            assert_eq!(pages.next(2).await.unwrap(), None);
            read
        };
        let key = |n| vec![b'p', n];
        assert_eq!(
            keys(Pages::of(&store, b"p".to_vec())).await,
            [vec![key(0), key(1)], vec![key(2), key(3)], vec![key(4)]]
        );
        assert_eq!(keys(Pages::of(&store, b"p".to_vec()).starting_at(key(3))).await, [vec![key(3), key(4)]]);
        assert_eq!(keys(Pages::of(&store, b"r".to_vec())).await, [Vec::<Vec<u8>>::new()]);
    }
}
