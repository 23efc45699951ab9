//! Recordings: what an engine was told, told again to another one, has the same result.

use std::fs;
use std::process::Command;
use std::time::Duration;

use larder::Cache;
use larder_engine::machine::{BadRecording, PartRecording, Recording};
use larder_sim::{Choices, Options, SimRuntime, run};

fn replay(recording: &Recording, seed: u64) -> u64 {
    let read = Recording::from_bytes(&recording.to_bytes()).expect("as it was written");
    assert_eq!(&read, recording);
    let replayed = read.replay(|_, _| {}).expect("whole");
    assert_eq!(replayed.difference, None, "of seed {seed}");
    replayed.steps
}

/// A driver that lived through an outage, and its recording.
fn recorded(max_bytes: usize) -> Recording {
    let sim = SimRuntime::new(11);
    let redis = Cache::redis("redis://sim").namespace("secret-space").lanes(2).record(max_bytes);
    let cache = redis.connect_lazy(sim.clone()).expect("valid");
    sim.block_on(async {
        for n in 0..100 {
            let key = format!("secret-key-{}", n % 7);
            let _ = cache.set(&key, &format!("secret-value-{n}")).await;
            let _ = cache.get::<String>(&key).await;
            match n {
                20 => sim.stall_redis(Duration::from_secs(3)),
                40 => sim.kill_redis(),
                60 => sim.restart_redis(),
                _ => sim.sleep(Duration::from_secs(2)).await,
            }
        }
        cache.close().await;
    });
    let bytes = cache.recording().expect("it was asked for");
    assert!(!bytes.windows(6).any(|window| window == b"secret"), "a secret is in it");
    Recording::from_bytes(&bytes).expect("a recording")
}

#[test]
fn a_driver_can_be_replayed() {
    let recording = recorded(1 << 20);
    let parts = |recording: &Recording| -> Vec<PartRecording> {
        let Recording { lanes, breaker, tiers } = recording.clone();
        assert_eq!((lanes.len(), tiers.len()), (2, 8));
        lanes.into_iter().chain(breaker).chain(tiers).collect()
    };
    assert!(replay(&recording, 11) > 1000, "{} steps", replay(&recording, 11));
    let parts_of_all = parts(&recording);
    assert!(parts_of_all.len() == 11 && parts_of_all.iter().all(|part| part.left_out() == 0));

    // The latest of the same life.
    let full = recorded(8192);
    replay(&full, 11);
    let steps = |part: &PartRecording| part.count() + part.left_out();
    let parts_of_full = parts(&full);
    // That a tier was rebuilt is a step as well.
    let mut pairs = parts_of_full.iter().zip(&parts_of_all).enumerate();
    assert!(pairs.all(|(n, (full, all))| steps(full) == steps(all) || n > 2 && steps(full) > steps(all)));
    assert!(parts_of_full.iter().all(|part| part.count() > 0));
    assert!(parts_of_full.iter().filter(|part| part.left_out() > 0).count() > 2);
}

#[test]
fn a_changed_byte_is_found() {
    let mut bytes = recorded(1 << 20).to_bytes();
    bytes[2000] ^= 1;
    assert_eq!(Recording::from_bytes(&bytes), Err(BadRecording::Changed));
    bytes[2000] ^= 1;
    bytes.pop();
    assert_eq!(Recording::from_bytes(&bytes), Err(BadRecording::Changed));
}

/// As somebody would who was sent a file.
#[test]
fn the_command_replays_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("driver.recording");
    let replay = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("a file");
        let output = Command::new(env!("CARGO_BIN_EXE_larder-sim")).arg("replay").arg(&file).output();
        let output = output.expect("it runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), format!("{out}{err}"))
    };
    let mut bytes = recorded(1 << 20).to_bytes();
    let (code, said) = replay(&bytes);
    assert!(code == Some(0) && said.contains("had the same result"), "{said}");
    assert!(["lane 1: ", "the breaker: ", "tier shard 7: "].iter().all(|part| said.contains(part)), "{said}");
    bytes.truncate(40);
    let (code, said) = replay(&bytes);
    assert!(code == Some(2) && said.contains("driver.recording"), "{said}");
}

#[test]
fn nothing_is_recorded_unless_it_is_asked_for() {
    let sim = SimRuntime::new(1);
    let cache = Cache::redis("redis://sim").connect_lazy(sim.clone()).expect("valid");
    assert_eq!(cache.recording(), None);
    assert_eq!(Cache::memory().build().expect("valid").recording(), None);
}

/// Faults of every kind, refusals, byzantine servers, wrong clocks: whatever happens is in the recording.
#[test]
fn every_run_can_be_replayed() {
    let steps: u64 = (0..150).map(|seed| recorded_run(seed, 16 << 20).0).sum();
    assert!(steps > 500_000, "{steps} steps");
}

/// Recordings that begin wherever the machines happen to be.
#[test]
fn every_end_of_a_run_can_be_replayed() {
    let (mut steps, mut left_out) = (0, 0);
    for seed in 0..300 {
        let (replayed, before) = recorded_run(seed, 500 << (seed % 5));
        (steps, left_out) = (steps + replayed, left_out + before);
    }
    assert!(steps > 10_000 && left_out > 500_000, "{steps} steps, and {left_out} before them");
}

/// Steps that were replayed, and those before.
fn recorded_run(seed: u64, max_bytes: usize) -> (u64, u64) {
    let options = Options { record: Some(max_bytes), ..Options::default() };
    let outcome = run(&mut Choices::seed(seed), options);
    assert!(!outcome.recordings.is_empty());
    let parts = outcome.recordings.iter().map(|recording| (replay(recording, seed), left_out(recording)));
    parts.fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
}

fn left_out(recording: &Recording) -> u64 {
    let Recording { lanes, breaker, tiers } = recording;
    lanes.iter().chain(breaker).chain(tiers).map(PartRecording::left_out).sum()
}
