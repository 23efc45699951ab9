//! Replays the corpora of all fuzz targets, and what the fuzzer has found before: on stable, without a fuzzer.

use std::fs;
use std::path::Path;

use larder_fuzz_bodies::TARGETS;

#[test]
fn every_corpus_replays() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, body) in TARGETS {
        let entries =
            fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("no corpus of {name}: {error}"));
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable corpus").path()).collect();
        files.sort();
        for file in &files {
            println!("{}", file.display()); // Shown when the body panics.
            let seed = fs::read(file).expect("a readable file");
            assert!(seed.len() < 4096, "longer than what the fuzzer makes of it");
            body(&seed);
        }
        assert!(!files.is_empty(), "the corpus of {name} is empty");
    }
}
