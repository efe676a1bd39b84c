//! How many near copies the bands of `clean --pass near` find among many hashes, and at which cost.
//!
//! ```text
//! cargo run --release -p pfc-clean --example near_recall -- 42000000
//! ```
//!
//! Hashes are drawn with the bits of LFW's aligned crops, where faces share so much that a band of 13
//! bits is equal in one pair of a thousand; of even hashes it would be one in 7,000. Among them pairs
//! are planted that differ in 0 to 4 bits.

use std::time::Instant;

use pfc_clean::files::{Entry, groups};
use pfc_random::Stream;
use rayon::prelude::*;

/// Of each bit, in how many of LFW's 13,233 aligned crops of 112x112 it is set.
const SET: [f32; 64] = [
    0.999, 0.504, 0.204, 0.506, 0.460, 0.501, 0.561, 0.475, 0.490, 0.517, 0.415, 0.491, 0.644,
    0.492, 0.385, 0.489, 0.231, 0.489, 0.586, 0.490, 0.693, 0.479, 0.695, 0.511, 0.458, 0.483,
    0.788, 0.499, 0.210, 0.496, 0.688, 0.500, 0.138, 0.471, 0.823, 0.509, 0.714, 0.497, 0.137,
    0.477, 0.054, 0.502, 0.927, 0.484, 0.402, 0.520, 0.208, 0.471, 0.610, 0.492, 0.378, 0.461,
    0.516, 0.485, 0.696, 0.488, 0.872, 0.487, 0.254, 0.496, 0.224, 0.479, 0.815, 0.481,
];
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
        (0..64).fold(0u64, |hash, bit| hash | u64::from(draw.chance(SET[bit])) << bit)
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
