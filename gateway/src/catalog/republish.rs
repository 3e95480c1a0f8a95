//! What an operator asks about indexes and of them: which there are, and to write them anew.

use super::{
    Catalog, CatalogError, IndexFile,
    apply::AT_ONCE,
    index::latest,
    keys,
    rows::{FolderRow, RootIndexRow},
    txn::Txn,
};
use crate::{
    config::Tenant,
    layout::{LocalDay, UtcDay},
};

/// How a root index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// Its local day.
    pub day: LocalDay,
    /// The published generation; generation 0 where there is none yet.
    pub file: IndexFile,
    /// Rows in it.
    pub rows: u64,
    /// It was published before every source had told all of its day.
    pub incomplete: bool,
    /// It is shown while its day runs.
    pub running: bool,
    /// Since when it is behind what is known, Unix milliseconds UTC.
    pub changed_ms: Option<i64>,
    /// When it is to be published at the latest, or anew, Unix milliseconds UTC; `None` where nothing is owed.
    pub due_ms: Option<i64>,
}

/// Indexes that were marked for being written anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    /// Root indexes.
    pub roots: Vec<LocalDay>,
    /// Folders.
    pub folders: Vec<UtcDay>,
    /// Root indexes that were never published: they come when their day is over and its sources have told it.
    pub unpublished: Vec<LocalDay>,
}

impl Catalog {
    /// Root indexes from a day on, and where the next page begins.
    pub async fn indexed(
        &self,
        tenant: &Tenant,
        from: Option<LocalDay>,
    ) -> Result<(Vec<Indexed>, Option<LocalDay>), CatalogError> {
        let (rows, next) = self.root_indexes(tenant.id, from).await?;
        let indexed = |(day, row): (LocalDay, RootIndexRow)| Indexed {
            day,
            file: row.file,
            rows: row.rows,
            incomplete: row.incomplete,
            running: row.running,
            // A mark of 0 says that it is wanted at once.
            changed_ms: row
                .dirty_since_ms
                .map(|since| if since == AT_ONCE { row.file.modified.saturating_mul(1000) } else { since }),
            due_ms: tenant.zone.end_of(day).and_then(|end| latest(&row, end, tenant.live_index)),
        };
        Ok((rows.into_iter().map(indexed).collect(), next))
    }

    /// Has the root indexes of these local days, and the folders that their recordings lie in, written anew by the
    /// next turns of [`Catalog::publish_due`].
    pub async fn mark_for_republication(
        &self,
        tenant: &Tenant,
        first: LocalDay,
        last: LocalDay,
    ) -> Result<Marked, CatalogError> {
        let mut marked = Marked::default();
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut from = Some(first);
        while let Some(start) = from {
            let (rows, next) = self.root_indexes(tenant.id, Some(start)).await?;
            let mut txn = Txn::new(&*self.store);
            for (day, mut row) in rows.into_iter().filter(|(day, _)| *day <= last) {
                if row.file.generation == 0 {
                    marked.unpublished.push(day);
                    continue;
                }
                row.dirty_since_ms = Some(AT_ONCE);
                txn.put(keys::root_index(tenant.id, day), &row)?;
                marked.roots.push(day);
            }
            if !txn.is_empty() {
                self.record(&mut writer, txn, Vec::new()).await?;
            }
            from = next.filter(|day| *day <= last);
        }
        let (Some(mut from), Some(until)) = utc_days(tenant, first, last) else { return Ok(marked) };
        loop {
            let (rows, next) = self.folders(tenant.id, Some(from)).await?;
            let mut txn = Txn::new(&*self.store);
            for (day, mut row) in rows.into_iter().filter(|(day, _)| *day <= until) {
                row.dirty_since_ms = Some(AT_ONCE);
                txn.put(keys::folder(tenant.id, day), &row)?;
                marked.folders.push(day);
            }
            if !txn.is_empty() {
                self.record(&mut writer, txn, Vec::new()).await?;
            }
            match next {
                Some(day) if day <= until => from = day,
                _ => return Ok(marked),
            }
        }
    }

    /// Those of the marked indexes that aren't written yet.
    pub async fn still_marked(&self, tenant: u32, marked: &Marked) -> Result<Marked, CatalogError> {
        let mut still = Marked { unpublished: marked.unpublished.clone(), ..Marked::default() };
        let mut txn = Txn::new(&*self.store);
        txn.prefetch(marked.roots.iter().map(|day| keys::root_index(tenant, *day))).await?;
        txn.prefetch(marked.folders.iter().map(|day| keys::folder(tenant, *day))).await?;
        for day in &marked.roots {
            let row: Option<RootIndexRow> = txn.get(&keys::root_index(tenant, *day)).await?;
            if row.is_some_and(|row| row.dirty_since_ms == Some(AT_ONCE)) {
                still.roots.push(*day);
            }
        }
        for day in &marked.folders {
            let row: Option<FolderRow> = txn.get(&keys::folder(tenant, *day)).await?;
            if row.is_some_and(|row| row.dirty_since_ms == Some(AT_ONCE)) {
                still.folders.push(*day);
            }
        }
        Ok(still)
    }
}

/// The UTC days that recordings of these local days lie in, the first and the last.
fn utc_days(tenant: &Tenant, first: LocalDay, last: LocalDay) -> (Option<UtcDay>, Option<UtcDay>) {
    // A zone may skip a date; its neighbours have the instants around it.
    let days = || (first.number()..=last.number()).filter_map(LocalDay::from_number);
    let start = days().find_map(|day| tenant.zone.start_of(day));
    let end = days().rev().find_map(|day| tenant.zone.end_of(day));
    (
        start.and_then(|ms| UtcDay::from_unix_ms(ms.max(0))),
        end.and_then(|ms| UtcDay::from_unix_ms(ms.saturating_sub(1))),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::catalog::{
        IndexPart, Turn,
        tests::{EVENING, World, add, june, now, utc_june},
    };

    /// What is written while the sources haven't been heard yet.
    async fn unheard(world: &World, at: i64) {
        world.catalog.publish_due(&world.tenant, Some(at), at, &mut Turn::new(&|| {})).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_marked_is_written_at_once() {
        const HOUR: i64 = 3_600_000;
        let world = World::new().await;
        world.bent.change(|storage| {
            add(storage, 1, EVENING - 8 * HOUR);
            add(storage, 2, EVENING);
            add(storage, 3, EVENING + 24 * HOUR);
        });
        world.scan().await;
        world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
        let (day, at) = (june(6), now() + 1000);
        let before = world.catalog.root_index(7, day).await.unwrap().unwrap().file;
        let folder = world.catalog.folder(7, utc_june(7)).await.unwrap().unwrap().brief;
        let text = world.index(IndexPart::Root(day)).await;
        world.catalog.publish_indexes(&world.tenant, at).await.unwrap();
        assert_eq!(world.catalog.root_index(7, day).await.unwrap().unwrap().file, before);

        let marked = world.catalog.mark_for_republication(&world.tenant, day, day).await.unwrap();
        let expected =
            Marked { roots: vec![day], folders: vec![utc_june(6), utc_june(7)], unpublished: Vec::new() };
        assert_eq!(marked, expected);
        assert_eq!(world.catalog.still_marked(7, &marked).await.unwrap(), marked);
        // The mark survives a restart.
        let world = world.restart().await;
        unheard(&world, at).await;
        assert_eq!(world.catalog.still_marked(7, &marked).await.unwrap(), Marked::default());
        let after = world.catalog.root_index(7, day).await.unwrap().unwrap().file;
        assert!(after.generation > before.generation && after.length == before.length);
        let rewritten = world.catalog.folder(7, utc_june(7)).await.unwrap().unwrap().brief;
        assert!(rewritten.generation > folder.generation && rewritten.length == folder.length);
        assert_eq!(world.index(IndexPart::Root(day)).await, text);
    }

    #[tokio::test]
    async fn a_day_that_is_not_over_is_not_published_for_being_wanted() {
        let world = World::new().await;
        let today = world.tenant.zone.day_of(now()).unwrap();
        world.bent.change(|storage| add(storage, 1, now() - 1000));
        world.scan().await;
        world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
        let marked = world.catalog.mark_for_republication(&world.tenant, today, today).await.unwrap();
        assert_eq!((marked.roots.len(), marked.unpublished.as_slice()), (0, &[today][..]));
        unheard(&world, now()).await;
        let (indexed, _) = world.catalog.indexed(&world.tenant, Some(today)).await.unwrap();
        assert_eq!((indexed[0].day, indexed[0].file.generation), (today, 0));
        assert!(indexed[0].due_ms.unwrap() > now());
    }
}
