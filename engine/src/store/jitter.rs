//! Times to live that do not all end at once.

use core::time::Duration;

/// How much of a time to live is left to chance, so that what was stored at one moment does not expire at one moment and
/// send everybody to the source together.
///
/// A time to live is made shorter, by nothing up to the share, and never longer: it stays a promise. By how much, the hash
/// of the key decides: the same key gets the same part under the same hasher, and another one in a process whose hasher
/// has another seed. Nothing is drawn, so nothing has to be replayed.
///
/// ```
/// use core::time::Duration;
/// use larder_engine::store::TtlJitter;
///
/// let jitter = TtlJitter::new(0.1).expect("a tenth");
/// let ttl = jitter.shorten(Duration::from_secs(100), 0x5EED);
/// assert!(ttl > Duration::from_secs(90) && ttl <= Duration::from_secs(100));
/// assert_eq!(TtlJitter::new(1.5), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TtlJitter {
    /// In units of 1 / 2^32.
    share: u32,
}

impl TtlJitter {
    /// A share of `0.0..1.0`; `None` for any other number. Zero is no jitter.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..1.0).contains(&share).then_some(Self { share: (share * 4_294_967_296.0) as u32 })
    }

    /// The part of `ttl` that a key with this hash gets: longer than `1 - share` of it, and never zero unless `ttl` is.
    #[must_use]
    pub fn shorten(self, ttl: Duration, hash: u64) -> Duration {
        // The hash's own bits have chosen a shard and a place already; the high ones of the product depend on all of them.
        let chance = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let cut = u128::from(chance) * u128::from(self.share);
        let nanos = ttl.as_nanos();
        // Both factors are below 2^32, and a duration is below 2^94: it is divided first where the product would not fit.
        let less = if nanos >> 64 == 0 { (nanos * cut) >> 64 } else { ((nanos >> 32) * cut) >> 32 };
        ttl.saturating_sub(Duration::new((less / 1_000_000_000) as u64, (less % 1_000_000_000) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::properties;
    use core::hash::BuildHasher;
    use foldhash::quality::FixedState;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn what_is_no_share_is_refused() {
        for share in [-0.1, 1.0, 7.0, f64::NAN, f64::INFINITY] {
            assert_eq!(TtlJitter::new(share), None, "{share}");
        }
        assert_eq!(TtlJitter::new(0.0), Some(TtlJitter::default()));
    }

    #[test]
    fn keys_are_spread_evenly_over_the_share() {
        let jitter = TtlJitter::new(0.5).expect("a half");
        let mut tenths = vec![0; 10];
        for key in 0..10_000_u32 {
            let ttl = jitter.shorten(Duration::from_millis(2_000), FixedState::with_seed(1).hash_one(key));
            tenths[(ttl.as_millis() as usize - 1_000) / 100 % 10] += 1;
        }
        assert!(tenths.iter().all(|keys| (900..1_100).contains(keys)), "{tenths:?}");
    }

    proptest! {
        #![proptest_config(properties())]

        #[test]
        fn a_part_is_never_longer_and_longer_than_the_rest(
            share in 0.0..1.0, seconds: u64, nanos in 0..1_000_000_000_u32, hash: u64
        ) {
            let ttl = Duration::new(seconds, nanos);
            let part = TtlJitter::new(share).expect("a share").shorten(ttl, hash);
            prop_assert!(part <= ttl && (part > Duration::ZERO || ttl.is_zero()));
            let least = ttl.as_nanos() as f64 * (1.0 - share);
            prop_assert!(part.as_nanos() as f64 >= least * (1.0 - 1e-9), "{part:?} of {ttl:?}");
            prop_assert_eq!(TtlJitter::default().shorten(ttl, hash), ttl);
        }
    }
}
