//! The tier by itself: what is kept, for how long, and who wins.

use super::*;

const HASH: u64 = 7;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn tier(configure: impl FnOnce(&mut TierConfig)) -> Tier {
    let mut config = TierConfig::default();
    configure(&mut config);
    Tier::new(config, 0, Instant::EPOCH)
}

impl Tier {
    /// The value held for a key: `Some(None)` where it is known to have none.
    fn value(&mut self, now: Instant, key: &str) -> Option<Option<Bytes>> {
        self.get(now, key.as_bytes()).map(|found| found.value)
    }

    fn read(&mut self, now: Instant, key: &str, value: Option<&str>) {
        let fence = self.fence(HASH);
        self.read_confirmed(now, HASH, key.as_bytes(), fence, value.map(str::as_bytes));
    }

    fn set(&mut self, now: Instant, key: &str, value: &str) -> Result<bool, TierFull> {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.accept_set(now, HASH, key.as_bytes(), value, Instant::NEVER)
    }

    fn delete(&mut self, now: Instant, key: &str) -> Result<bool, TierFull> {
        self.accept_delete(now, HASH, key.as_bytes(), 0)
    }
}

const fn known(value: &'static str) -> Option<Option<Bytes>> {
    Some(Some(Bytes::from_static(value.as_bytes())))
}

#[test]
fn reads_and_writes_that_redis_confirmed_are_mirrored() {
    let mut tier = tier(|_| {});
    tier.read(at(1), "read", Some("r"));
    let fence = tier.begin_write(HASH);
    tier.write_confirmed(at(2), HASH, b"written", fence, Some((b"w", at(100))));
    assert_eq!(
        tier.get(at(5), b"read"),
        Some(Found { value: Some("r".into()), age: Duration::from_millis(4) })
    );
    assert_eq!(tier.value(at(99), "written"), known("w"));
    assert_eq!(tier.value(at(100), "written"), None, "its time to live is over");
    tier.read(at(100), "read", None);
    assert_eq!(tier.value(at(100), "read"), Some(None), "Redis has it no more");
}

/// What may happen between a read's submission and the look at its answer, and whether the copy is kept then.
#[test]
fn a_copy_is_dropped_when_a_write_of_the_key_came_between() {
    type Between = fn(&mut Tier);
    let cases: [(&str, bool, Between); 6] = [
        ("nothing", true, |_| {}),
        ("another read", true, |tier| tier.read(at(1), "k", Some("old"))),
        ("a write that began", false, |tier| _ = tier.begin_write(HASH)),
        ("a write whose outcome is unknown", false, |tier| tier.write_lost(at(1), HASH, b"k")),
        ("a local write", false, |tier| _ = tier.set(at(1), "other key of the fence", "v")),
        ("a clear", false, |tier| _ = tier.clear(at(1), b"elsewhere")),
    ];
    for (name, kept, between) in cases {
        let mut tier = tier(|_| {});
        let fence = tier.fence(HASH);
        between(&mut tier);
        tier.read_confirmed(at(2), HASH, b"k", fence, Some(b"old"));
        assert_eq!(tier.value(at(2), "k"), if kept { known("old") } else { None }, "{name}");
    }
}

/// Two writes under way at once: which one Redis took last nobody here knows, so neither is mirrored, and no read
/// that began before the end of either is.
#[test]
fn overlapping_writes_leave_no_mirror() {
    let mut tier = tier(|_| {});
    let first = tier.begin_write(HASH);
    let second = tier.begin_write(HASH);
    let read = tier.fence(HASH);
    tier.write_confirmed(at(2), HASH, b"k", second, Some((b"second", Instant::NEVER)));
    tier.write_confirmed(at(3), HASH, b"k", first, Some((b"first", Instant::NEVER)));
    assert_eq!(tier.value(at(3), "k"), None);
    tier.read_confirmed(at(4), HASH, b"k", read, Some(b"old"));
    assert_eq!(tier.value(at(4), "k"), None);
}

#[test]
fn mirrors_are_refreshed_no_more_often_than_configured() {
    let mut tier = tier(|config| config.mirror_refresh = Duration::from_millis(10));
    tier.read(at(1), "k", Some("1"));
    tier.read(at(10), "k", Some("2"));
    assert_eq!(tier.value(at(10), "k"), known("1"), "young enough");
    tier.read(at(11), "k", Some("3"));
    assert_eq!(tier.value(at(11), "k"), known("3"));
    let fence = tier.begin_write(HASH);
    tier.write_confirmed(at(12), HASH, b"k", fence, Some((b"4", Instant::NEVER)));
    assert_eq!(tier.value(at(12), "k"), known("4"), "own writes always");
}

#[test]
fn no_mirror_is_older_than_max_staleness() {
    let mut tier = tier(|config| config.max_staleness = Duration::from_millis(50));
    tier.read(at(1), "read", Some("v"));
    let fence = tier.begin_write(HASH);
    tier.write_confirmed(at(1), HASH, b"written", fence, Some((b"v", at(1_000))));
    tier.set(at(1), "local", "v").expect("there is room");
    assert_eq!((tier.value(at(50), "read"), tier.value(at(50), "written")), (known("v"), known("v")));
    assert_eq!((tier.value(at(51), "read"), tier.value(at(51), "written")), (None, None));
    assert_eq!(tier.value(at(10_000), "local"), known("v"), "own writes do not grow stale");
}

#[test]
fn mirrors_are_bounded_by_entries_and_bytes() {
    let mut tier = tier(|config| (config.max_entries, config.max_bytes) = (3, 20));
    for key in ["a", "b", "c", "d"] {
        tier.read(at(1), key, Some("1"));
    }
    assert_eq!((tier.value(at(1), "a"), tier.size()), (None, (3, 6)));
    tier.read(at(1), "e", Some("a value of 19 bytes"));
    assert_eq!((tier.value(at(1), "d"), tier.size()), (None, (1, 20)));
    tier.read(at(2_000), "e", Some("a value of 20 bytes."));
    assert_eq!(tier.size(), (0, 0), "too large to hold, and the older copy is not current");
}

#[test]
fn locals_are_refused_over_a_bound_and_never_evicted() {
    let mut tier = tier(|config| (config.max_journal_entries, config.max_journal_bytes) = (2, 10));
    tier.read(at(1), "c", Some("mirror"));
    assert_eq!(tier.set(at(1), "a", "1"), Ok(false));
    assert_eq!(tier.set(at(1), "b", "1"), Ok(false));
    assert_eq!(tier.set(at(1), "c", "1"), Err(TierFull));
    assert_eq!(tier.delete(at(1), "c"), Err(TierFull), "a tombstone takes room too");
    assert_eq!(tier.value(at(1), "c"), None, "the mirror is older than what was refused");
    assert_eq!(tier.set(at(1), "b", "1234567"), Ok(true), "10 bytes in all");
    assert_eq!(tier.set(at(1), "b", "12345678"), Err(TierFull));
    assert_eq!(tier.value(at(1), "b"), known("1234567"), "what was accepted counts");
    assert_eq!(tier.delete(at(1), "b"), Ok(true));
    assert_eq!((tier.value(at(1), "a"), tier.size()), (known("1"), (2, 3)));
}

/// Shrunk by the simulator, seed 5005132: the delete became a clear, and the value that it was about still answered.
#[test]
fn regression_what_is_over_its_bounds_can_still_be_deleted() {
    let mut tier = tier(|config| config.max_journal_entries = 1);
    tier.set(at(1), "a", "v").expect("there is room");
    tier.write_at_large(at(2), HASH, b"b");
    assert_eq!(tier.set(at(3), "c", "v"), Err(TierFull));
    assert_eq!(tier.accept_delete(at(3), HASH, b"a", 1), Ok(true));
    assert_eq!((tier.value(at(3), "a"), tier.journalled(), tier.clears()), (Some(None), 2, 0));
}

/// Redis may hold an older value: an expired set still has to delete that.
#[test]
fn an_expired_write_is_a_delete_and_takes_room() {
    let mut tier = tier(|config| config.max_journal_entries = 1);
    tier.accept_set(at(1), HASH, b"k", "v".into(), at(50)).expect("there is room");
    assert_eq!(tier.value(at(49), "k"), known("v"));
    assert_eq!(tier.value(at(50), "k"), Some(None));
    assert_eq!(tier.set(at(60), "other", "v"), Err(TierFull));
    assert_eq!(tier.set(at(60), "k", "v"), Ok(false));
}

fn discarding() -> Tier {
    tier(|config| config.reconcile = Reconcile::Discard)
}

#[test]
fn a_key_deleted_here_stays_deleted_until_recovery() {
    let mut tier = discarding();
    tier.read(at(1), "k", Some("v"));
    assert_eq!(tier.delete(at(2), "k"), Ok(true));
    assert_eq!(tier.delete(at(2), "k"), Ok(false), "it was gone already");
    for now in [at(2), at(1_000_000)] {
        assert_eq!(tier.value(now, "k"), Some(None));
    }
    assert_eq!(tier.set(at(1_000_000), "k", "w"), Ok(false));
    assert_eq!(tier.value(at(1_000_000), "k"), known("w"));
    tier.recovered();
    assert_eq!(tier.value(at(1_000_000), "k"), None);
}

#[test]
fn what_redis_says_again_replaces_what_is_to_be_discarded() {
    let mut tier = discarding();
    for key in ["read", "absent", "written", "deleted"] {
        tier.set(at(1), key, "local").expect("there is room");
        assert!(!tier.is_journalled(key.as_bytes()));
    }
    tier.read(at(2), "read", Some("redis"));
    tier.read(at(2), "absent", None);
    let fence = tier.begin_write(HASH);
    assert_eq!(tier.value(at(2), "written"), known("local"), "until it is confirmed");
    tier.write_confirmed(at(3), HASH, b"written", fence, Some((b"redis", Instant::NEVER)));
    let fence = tier.begin_write(HASH);
    tier.write_confirmed(at(3), HASH, b"deleted", fence, None);
    assert_eq!((tier.value(at(3), "read"), tier.value(at(3), "absent")), (known("redis"), Some(None)));
    assert_eq!((tier.value(at(3), "written"), tier.value(at(3), "deleted")), (known("redis"), Some(None)));
}

#[test]
fn a_late_acknowledgement_keeps_the_newer_write() {
    for mut tier in [tier(|_| {}), discarding()] {
        let first = tier.begin_write(HASH);
        tier.set(at(1), "k", "second").expect("there is room");
        tier.write_confirmed(at(2), HASH, b"k", first, Some((b"first", Instant::NEVER)));
        assert_eq!(tier.value(at(2), "k"), known("second"));
    }
}

#[test]
fn recovery_discards_only_where_it_is_to() {
    for (mut tier, left) in [(discarding(), None), (tier(|_| {}), known("l"))] {
        tier.read(at(1), "mirror", Some("m"));
        tier.set(at(1), "local", "l").expect("there is room");
        tier.recovered();
        assert_eq!((tier.value(at(1), "mirror"), tier.value(at(1), "local")), (known("m"), left));
    }
}

fn take(tier: &mut Tier) -> Vec<Item> {
    tier.take(64, 1 << 20, |_| true)
}

#[test]
fn a_replayed_write_becomes_a_mirror() {
    for (set, mirror) in [(true, known("v")), (false, Some(None))] {
        let mut tier = tier(|_| {});
        tier.set(at(1), "k", "v").expect("there is room");
        let items = take(&mut tier);
        assert_eq!((items.len(), tier.has_work(), take(&mut tier).len()), (1, false, 0), "each once");
        tier.settle(at(2), &items[0], set);
        assert_eq!((tier.is_journalled(b"k"), tier.journalled()), (false, 0));
        assert_eq!(tier.value(at(2), "k"), mirror);
    }
}

#[test]
fn what_was_written_during_a_replay_is_replayed_next() {
    let mut tier = tier(|_| {});
    tier.read(at(1), "k", Some("seen"));
    tier.set(at(1), "k", "first").expect("there is room");
    let items = take(&mut tier);
    assert_eq!(items[0].seen, Seen::Value("seen".into()));
    tier.set(at(2), "k", "second").expect("there is room");
    assert!(!tier.has_work(), "one at a time");
    tier.settle(at(3), &items[0], true);
    assert_eq!((tier.has_work(), tier.value(at(3), "k")), (true, known("second")));
    assert_eq!(take(&mut tier)[0].seen, Seen::Value("first".into()), "Redis has told meanwhile");
}

#[test]
fn what_redis_did_not_take_comes_again() {
    let mut tier = tier(|_| {});
    for key in ["a", "b"] {
        tier.set(at(1), key, "v").expect("there is room");
    }
    let items = tier.take(1, 1 << 20, |_| true);
    assert_eq!(items[0].key, "a");
    items.iter().for_each(|item| tier.put_back(item));
    items.iter().for_each(|item| tier.put_back(item)); // Once is enough.
    let keys: Vec<Bytes> = take(&mut tier).into_iter().map(|item| item.key).collect();
    assert_eq!(keys, ["b", "a"]);
}

#[test]
fn a_chunk_is_bounded_in_bytes_but_never_empty() {
    let mut tier = tier(|_| {});
    for key in ["a", "b", "c"] {
        tier.set(at(1), key, "123456789").expect("there is room");
    }
    assert_eq!(tier.take(64, 25, |_| true).len(), 2);
    assert_eq!(tier.take(64, 1, |_| true).len(), 1);
}

#[test]
fn a_clear_makes_deletes_of_what_was_accepted() {
    let mut tier = tier(|_| {});
    for key in ["n:a", "m:a"] {
        tier.set(at(1), key, "v").expect("there is room");
    }
    let items = take(&mut tier);
    assert_eq!(tier.clear(at(2), b"n:"), 1);
    assert_eq!((tier.value(at(2), "n:a"), tier.value(at(2), "m:a")), (Some(None), known("v")));
    items.iter().for_each(|item| tier.settle(at(3), item, true));
    assert_eq!(take(&mut tier)[0].change, Change::Delete, "the set was on its way");
}

#[test]
fn a_clear_counts_each_live_value_of_its_prefix_once() {
    let mut tier = tier(|config| config.max_staleness = Duration::from_millis(100));
    tier.read(at(1), "n:expired", Some("v"));
    for key in ["n:mirror", "m:mirror", "n:both"] {
        tier.read(at(50), key, Some("v"));
    }
    for key in ["n:both", "n:local", "nn:local"] {
        tier.set(at(50), key, "v").expect("there is room");
    }
    tier.delete(at(50), "n:deleted").expect("there is room");
    assert_eq!(tier.clear(at(101), b"n:"), 3, "mirror, both and local");
    assert_eq!(tier.value(at(101), "m:mirror"), known("v"));
    assert_eq!(tier.value(at(101), "nn:local"), known("v"));
    assert_eq!(tier.value(at(101), "n:deleted"), Some(None), "and Redis is still to hear of it");
    assert_eq!(tier.clear(at(101), b""), 2);
}

#[test]
fn shards_together_hold_what_was_configured() {
    let config = TierConfig::default();
    assert_eq!(config.divided(1), config);
    assert_eq!(config.divided(0), config);
    let divided = config.divided(16);
    assert_eq!((divided.max_entries, divided.max_journal_entries), (625, 625));
    assert_eq!((divided.max_bytes, divided.max_journal_bytes), (4 << 20, 1 << 20));
    assert_eq!(divided.max_staleness, config.max_staleness);
}
