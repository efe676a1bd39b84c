//! How many near copies the bands of `clean --pass near` find among many hashes, and at which cost.
//!
//! ```text
//! cargo run --release -p pfc-clean --example near_recall -- 42000000
//! ```
//!
//! Hashes are drawn as those of aligned faces are spread: every bit has a value that most faces share,
//! so that a band of 13 bits is equal in one pair of a thousand, where it would be one in 7,000 of
//! even hashes. Among them pairs are planted that differ in 0 to 4 bits.

use std::time::Instant;

use pfc_clean::files::{Entry, groups};
use pfc_random::Stream;
use rayon::prelude::*;

/// Share of faces that do not have the common value of a bit; 0.7² + 0.3² = 0.58, and 0.58^12.8 =
/// 0.94e-3.
const RARE: f32 = 0.3;
const BITS: u32 = 4;
const PLANTED: u64 = 100_000;

#[allow(clippy::print_stdout, reason = "an example talks to people")]
fn main() {
    let given = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let n_rows: u64 = given.unwrap_or(1_000_000);
    let n_planted = PLANTED.min(n_rows / 10);
    let n_others = n_rows - n_planted;
    let hash_of = |row: u64| {
        let mut draw = Stream::new(&[1, row]);
        (0..64).fold(0u64, |hash, _| hash << 1 | u64::from(draw.chance(RARE)))
    };
    let original = |planted: u64| Stream::new(&[2, planted]).below(n_others);
    let copy = |planted: u64| {
        let mut draw = Stream::new(&[3, planted]);
        let mut flips = 0u64;
        while u64::from(flips.count_ones()) < planted % (u64::from(BITS) + 1) {
            flips |= 1 << draw.below(64);
        }
        hash_of(original(planted)) ^ flips
    };
    let hash = |row: u64| if row < n_others { hash_of(row) } else { copy(row - n_others) };
    // Each row and its mirror image, which here has a hash of its own.
    let entry = |row: u64| {
        let mirrored = hash_of(row + (1 << 40));
        let entry = |hash, is_mirrored| Entry { hash, row: row as u32, is_mirrored };
        [entry(hash(row), false), entry(mirrored, true)]
    };
    let mut entries: Vec<Entry> = (0..n_rows).into_par_iter().flat_map_iter(entry).collect();
    let is_alike = |a: u32, b: u32, is_mirrored: bool| {
        let (low, high) = (u64::from(a.min(b)), u64::from(a.max(b)));
        !is_mirrored && high >= n_others && original(high - n_others) == low
    };
    let started = Instant::now();
    let (mut union, counts) =
        groups(&mut entries, n_rows as usize, BITS, &is_alike, || true).expect("nothing stops it");
    let seconds = started.elapsed().as_secs_f64();
    let is_found = |planted: &u64| {
        union.leader((n_others + planted) as usize) == union.leader(original(*planted) as usize)
    };
    let found = (0..n_planted).filter(is_found).count();
    println!("rows               {n_rows}");
    println!(
        "recall             {:.5} of {n_planted} planted pairs",
        found as f64 / n_planted as f64
    );
    println!("pairs not compared {}", counts.not_compared);
    println!("pairs of hashes    {:.3e}", counts.hashes as f64);
    println!("pairs of pictures  {:.3e}", counts.pictures as f64);
    println!("threads            {}", rayon::current_num_threads());
    println!("seconds            {seconds:.1}");
}
