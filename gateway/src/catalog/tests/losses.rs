//! What a source has lost or changed, and what only looks so.

use super::*;

#[tokio::test]
async fn media_that_is_copied_back_is_not_taken_for_changed() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=40).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    world.bent.change(|storage| {
        storage.media.remove("1.wav");
    });
    world.scan().await;
    let condition = async || {
        let (rows, _) = world.catalog.recordings(7, utc_june(7), None).await.unwrap();
        let place = rows.iter().find(|(_, row)| row.size == 1001).unwrap().0;
        world.catalog.recording(7, place).await.unwrap().unwrap().listed.condition
    };
    assert_eq!(condition().await, Condition::Missing);

    let whole = Media { version: "half-1".into(), ..medium(1) };
    for state in [MediaState::Growing, MediaState::Uploading] {
        let half = Media { state, ..whole.clone() };
        world.bent.change(|storage| {
            storage.media.insert("1.wav".into(), half.clone());
        });
        assert_eq!(world.scan().await.error, None);
        assert_eq!(condition().await, Condition::Missing, "told as {state:?}");
        // It looked whole when the scan read it, and is being written when it is asked for.
        world.bent.change(|storage| {
            storage.media.insert("1.wav".into(), whole.clone());
            storage.asked.insert("1.wav".into(), half);
        });
        assert_eq!(world.scan().await.error, None);
        assert_eq!(condition().await, Condition::Missing, "{state:?} when asked for");
        world.bent.change(|storage| storage.asked.clear());
    }
    world.bent.change(|storage| add(storage, 1, EVENING));
    world.scan().await;
    assert_eq!(condition().await, Condition::Sound);
    assert_eq!(world.names().await.len(), 40);
}
