//! Recordings: what an engine was told, told again to another one, has the same result.

use std::fs;
use std::process::Command;
use std::time::Duration;

use larder::Cache;
use larder_engine::machine::{BadRecording, Recording};
use larder_sim::{Choices, Options, SimRuntime, run};

fn replay(recording: &Recording) -> u64 {
    let read = Recording::from_bytes(&recording.to_bytes()).expect("as it was written");
    assert_eq!(&read, recording);
    let replayed = read.replay(|_, _| {}).expect("whole");
    assert_eq!(replayed.difference, None);
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
    assert_eq!(recording.lanes.len(), 2);
    assert!(replay(&recording) > 500, "{} steps", replay(&recording));
    assert!(recording.lanes.iter().all(|lane| lane.left_out() == 0));

    let full = recorded(4096);
    assert!(full.lanes.iter().all(|lane| lane.left_out() > 0 && lane.count() > 0));
    replay(&full);
}

#[test]
fn a_changed_byte_is_found() {
    let mut bytes = recorded(1 << 20).to_bytes();
    *bytes.last_mut().expect("steps") ^= 1; // Of the hash of the last step of the last lane.
    let recording = Recording::from_bytes(&bytes).expect("it still is one");
    let difference = recording.replay(|_, _| {}).expect("whole").difference.expect("found");
    assert_eq!((difference.lane, difference.step), (1, recording.lanes[1].count() - 1));
    bytes.pop();
    assert!(matches!(Recording::from_bytes(&bytes), Err(BadRecording::Damaged { lane: 1, .. })));
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
    assert!(code == Some(0) && said.contains("lane 1: ") && said.contains("had the same result"), "{said}");
    *bytes.last_mut().expect("steps") ^= 1;
    let (code, said) = replay(&bytes);
    assert!(code == Some(1) && said.contains("had another result"), "{said}");
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
    let steps = (0..150).map(|seed| {
        let outcome = run(&mut Choices::seed(seed), Options { record: true, ..Options::default() });
        assert!(!outcome.recordings.is_empty());
        outcome.recordings.iter().map(replay).sum::<u64>()
    });
    let steps: u64 = steps.sum();
    assert!(steps > 500_000, "{steps} steps");
}
