//! Each rule by hand: a script that it holds for, and the mistake with which the same script breaks it.

use larder_sim::{Canary, Options, Rule, Script, run_script};

const SCRIPTS: &[(Canary, &str)] = &[
    (Canary::ToldTwice, "5000us get 0 0"),
    (Canary::NeverTold, "5000us get 0 0\n5000us get 0 1"),
    (Canary::NoTimers, "5000us freeze 30000\n6000us get 0 0\n9000000us get 0 0"),
    (Canary::LongGrace, ""),
    (Canary::NoRedial, "5000us fin 0"),
    (Canary::MoreAttempts, "setup attempts 2\n5000us refuse 0 3000\n6000us set 0 0 0\n2000000us get 0 0"),
    (Canary::RepliesSwapped, "5000us set 0 0 0\n9000us exists 0 0\n9000us exists 0 1"),
    (
        Canary::LateReplies,
        "setup latency 5000\nsetup reconnect_base 2\n60000us get 0 1\n100000us get 0 0\n107000us reset 0\n900000us get 0 0",
    ),
    (Canary::WrongKey, "5000us set 0 0 0\n9000us get 0 0"),
    (Canary::HelloMadeUp, "setup latency 5000\n5000us get 0 0"),
    (
        Canary::WideBounds,
        "setup max_in_flight 2\n5000us get 0 0\n5000us get 0 0\n5000us get 0 0\n5000us get 0 0\n5000us get 0 0\n\
         5000us get 0 0",
    ),
    (Canary::Busy, ""),
    (Canary::TimerIsAlwaysNow, ""),
    (Canary::NoTier, "5000us down 9000 0\n5000000us get 0 0"),
    (Canary::OneMore, ""),
    (
        Canary::FirstValue,
        "5000us down 9000 0\n3000000us set 0 0 0\n3000000us get 0 0\n3100000us set 0 0 0\n3100000us get 0 0",
    ),
    (
        Canary::MorePlaces,
        "setup failure_threshold 1\nsetup open_for 200\nsetup half_open_permits 1\n5000us down 100 0\n\
         400000us freeze 1000\n410000us get 0 0\n410000us get 0 0\n410000us get 0 0\n410000us get 0 0",
    ),
    (
        Canary::OnePlace,
        "setup failure_threshold 1\nsetup open_for 200\n5000us down 100 0\n400000us freeze 1000\n410000us get 0 0\n\
         410000us get 0 0",
    ),
    (
        Canary::NarrowBounds,
        "setup attempts 1\nsetup max_in_flight 3\n5000us freeze 100\n6000us get 0 0\n6000us get 0 0\n6000us get 0 0",
    ),
    (Canary::ShortOpen, "setup failure_threshold 1\n5000us down 100 0\n9000000us get 0 0"),
    (Canary::PatientLink, "5000us freeze 30000\n6000us get 0 0\n9000000us get 0 0"),
    (
        Canary::GivenUp,
        "5000us set 0 0 0\n9000us hold-down 0 100\n10000us set 0 0 0\n15000us cancel 0\n\
         300000us down 5000 0\n2000000us get 0 0",
    ),
    (Canary::Forgetful, "5000us down 9000 0\n3000000us set 0 0 0\n3000000us get 0 0"),
    (Canary::OldCopies, "setup max_staleness 300\n5000us set 0 0 0\n9000us down 60000 0\n30000000us get 0 0"),
    (Canary::ClearsAll, "5000us set 0 1 0\n9000us clear 0"),
    (
        Canary::DeafKill,
        "setup stall_timeout 60\nsetup reconnect_base 2\n5000us hold-up 0 122\n5000us set 0 1 0\n80800us delete 0 1\n\
         126600us get 0 1",
    ),
    (
        Canary::Overwrites,
        "setup processes 2\nsetup failure_threshold 1\n5000us dark-down 1\n6000us get 0 0\n2200000us set 0 0 0\n2300000us set 1 0 0",
    ),
    (Canary::TtlUntold, "5000us down 9000 0\n3000000us set 0 0 20\n3100000us get 0 0"),
    (Canary::ClearsNothing, "5000us set 0 0 0\n9000us clear 0\n15000us get 0 0"),
];

fn broken(script: &Script, canary: Option<Canary>) -> Option<Rule> {
    run_script(script, Options { canary, ..Options::default() }).violation.map(|violation| violation.rule)
}

#[test]
fn each_rule_holds_and_breaks_by_hand() {
    for &(canary, text) in SCRIPTS {
        let script: Script = text.parse().expect("a script");
        assert_eq!(broken(&script, None), None, "{text}");
        assert_eq!(broken(&script, Some(canary)), Some(canary.entry().1), "{canary:?}:\n{text}");
    }
}

/// D1 needs two runs.
#[test]
fn the_same_choices_give_the_same_outputs() {
    let script: Script = "5000us down 3000 0\n9000000us get 0 0".parse().expect("a script");
    let hash = |canary| run_script(&script, Options { canary, ..Options::default() }).hash;
    assert_eq!(hash(None), hash(None));
    assert_ne!(hash(Some(Canary::ForeignSeed)), hash(Some(Canary::ForeignSeed)));
}

#[test]
fn every_canary_has_a_script() {
    for canary in Canary::AROUND.iter().filter(|&&canary| canary != Canary::ForeignSeed) {
        assert!(SCRIPTS.iter().any(|(scripted, _)| scripted == canary), "{canary:?}");
    }
}
