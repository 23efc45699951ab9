//! What the corpus of `store_ops` does not have: operations from a seed, as many as one likes.

use std::env;

use larder_fuzz_bodies::store_ops;

/// The store's structures agree after each of them, under both policies. `LARDER_STORE_OPERATIONS=10000000` for more.
#[test]
fn random_operations_leave_the_store_in_order() {
    let operations =
        env::var("LARDER_STORE_OPERATIONS").map_or(20_000, |text| text.parse().expect("a number"));
    let mut done = 0;
    for seed in 0.. {
        let mut random = fastrand::Rng::with_seed(seed);
        // The bounds, and then operations of up to four bytes each.
        let mut input: Vec<u8> = (0..5 + 1_000).map(|_| random.u8(..)).collect();
        // One in three without each bound, so that not everything is refused.
        for bound in &mut input[1..4] {
            *bound = if random.u8(..3) == 0 { 0 } else { *bound };
        }
        // Half of them with room for fewer entries than the 64 keys, and without a time to idle, so that entries are evicted.
        if random.bool() {
            (input[0], input[3]) = (random.u8(1..32), 0);
        }
        store_ops(&input);
        done += 1_000 / 4;
        if done >= operations {
            break;
        }
    }
}
