//! Every seed of every decoder, and small changes of each: none panics, loops, or allocates beyond its size class.
//!
//! `SRP_FUZZ_CHANGES=n` tries so many changes per seed, `SRP_FUZZ_SEED=n` others; without a fuzzer this is the soak.

use std::path::Path;
use std::time::{Duration, Instant};

use srp_fuzz::TARGETS;

/// Changes tried per seed.
const CHANGES: u64 = 1000;
/// No input takes longer than this.
const LIMIT: Duration = Duration::from_secs(5);

/// What may be held for an input of so many bytes. A world of the session's target is as large as it is.
fn allowed(name: &str, len: u64) -> u64 {
    if name == "session" {
        16 << 20
    } else if name == "scan" {
        // 255 slots of an I/O unit, some of them per datagram.
        (1 << 20) + 1024 * len
    } else {
        // The buffer an IU is written to again is 64 KiB.
        (1 << 16) + (16 << 10) + 64 * len
    }
}

fn feed(name: &str, run: fn(&[u8]), input: &[u8]) {
    let start = Instant::now();
    let held = allocation_counter::measure(|| run(input)).bytes_max;
    assert!(
        held <= allowed(name, input.len() as u64),
        "{name}: {held} bytes were allocated for {} of input: {input:02x?}",
        input.len()
    );
    assert!(start.elapsed() < LIMIT, "{name}: {input:02x?} takes too long");
}

/// Flipped bits, other bytes, another length, a part of another seed.
fn change(rng: &mut fastrand::Rng, input: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..rng.u8(1..=4) {
        let at = if input.is_empty() { 0 } else { rng.usize(..input.len()) };
        match rng.u8(0..6) {
            0 if !input.is_empty() => input[at] ^= 1 << rng.u8(0..8),
            1 if !input.is_empty() => input[at] = *rng.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap_or(&0),
            2 if !input.is_empty() => input[at] = rng.u8(..),
            3 => input.truncate(at),
            4 => input.extend((0..rng.usize(0..24)).map(|_| rng.u8(..))),
            _ => {
                if let Some(other) = rng.choice(others) {
                    let from = rng.usize(0..=other.len());
                    input.splice(at..at, other[from..].iter().take(64).copied());
                }
            }
        }
    }
}

#[test]
fn no_seed_breaks_a_rule() {
    let number = |name| Some(std::env::var(name).ok()?.parse().expect("a number"));
    let changes: u64 = number("SRP_FUZZ_CHANGES").unwrap_or(CHANGES);
    let mut rng = fastrand::Rng::with_seed(number("SRP_FUZZ_SEED").unwrap_or(1));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
        paths.sort();
        let seeds: Vec<_> = paths
            .iter()
            .map(|path| std::fs::read(path).expect("readable"))
            .collect();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let changes = if target.name == "session" {
            changes / 30
        } else {
            changes
        };
        feed(target.name, target.run, &[]);
        for seed in &seeds {
            feed(target.name, target.run, seed);
            (0..seed.len()).for_each(|len| {
                if target.name != "session" || len % 16 == 0 {
                    feed(target.name, target.run, &seed[..len]);
                }
            });
            for _ in 0..changes {
                let mut input = seed.clone();
                change(&mut rng, &mut input, &seeds);
                feed(target.name, target.run, &input);
            }
        }
    }
}
