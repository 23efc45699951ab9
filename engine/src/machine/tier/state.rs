//! What a tier shard is made of, for recordings.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{FENCES, Mirror, Reconcile, Tier, TierConfig};
use crate::archive::Archive;
use crate::machine::record::{Machine, TierInput, fence_places};

impl Tier {
    /// As if its state was written down here.
    pub(in crate::machine) fn rebuild(&mut self) {
        self.archive(&mut Archive::writing(&|_| 0));
        self.note(|_| TierInput::Rebuilt {}, |_, _| {});
    }

    pub(in crate::machine) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { config, mirrors, journal, fences, recorder: _ } = self;
        config.archive(archive);
        let blank = || Mirror { value: None, since: crate::Instant::EPOCH };
        mirrors.archive(config.of_mirrors(), archive, blank, Mirror::archive);
        journal.archive(archive);
        let places = archive.hash().map(fence_places);
        let to = |fences: &Vec<u32>| {
            let mut moved = fences.clone();
            for (fence, place) in fences.iter().zip(places.iter().flatten()) {
                moved.get_mut(usize::from(*place)).into_iter().for_each(|to| *to = *fence);
            }
            moved
        };
        archive.by(fences, to, |fences: Vec<u32>| (fences.len() == FENCES).then_some(fences));
    }
}

impl Mirror {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { value, since } = self;
        archive.option(value, Bytes::new, |value, archive| archive.text(value));
        archive.time(since);
    }
}

impl TierConfig {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        const RECONCILES: [Reconcile; 4] =
            [Reconcile::Conditional, Reconcile::Invalidate, Reconcile::Overwrite, Reconcile::Discard];
        let Self {
            max_entries,
            max_bytes,
            max_staleness,
            mirror_refresh,
            max_journal_entries,
            max_journal_bytes,
            reconcile,
        } = self;
        archive.values([max_entries, max_journal_entries]);
        archive.values([max_bytes, max_journal_bytes]);
        archive.values([max_staleness, mirror_refresh]);
        let number = |number: u8| RECONCILES.get(usize::from(number)).copied();
        archive.by(reconcile, |&reconcile| reconcile as u8, number);
    }
}
