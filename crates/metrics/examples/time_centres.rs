//! How long comparing all class centres with one another takes on this machine.
//!
//! `cargo run --release -p pfc-metrics --example time_centres [SECONDS] [DIM]` compares blocks of
//! made-up centres for about that long and says what all of them would take: each block is as much
//! work as any other, but for the triangle that it is cut from.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use pfc_metrics::{Rows, near};

const BLOCK: usize = 4096;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(20.0);
    let dim: usize = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(512);
    for n in [360_232, 2_000_000] {
        measure(n, dim, seconds);
    }
}

fn measure(n: usize, dim: usize, seconds: f64) {
    // Memory for 2 million centres is 4 GB; any of them serve as others, so that fewer do.
    let n_made = n.min(360_232);
    let centres = made(n_made, dim);
    let rows = Rows::new(&centres, dim).expect("whole rows");
    let started = Instant::now();
    let (mut pairs, mut found, mut start) = (0.0, 0, 0);
    while started.elapsed().as_secs_f64() < seconds && start < n_made {
        let end = (start + BLOCK).min(n_made);
        found += near::pairs_above(rows, start..end, 0.5, 32, |_, _| true).len();
        // Pairs that were multiplied: all with rows from the block's first on.
        pairs += (start..end).map(|a| (n_made - a) as f64).sum::<f64>();
        start = end;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let rate = pairs / elapsed;
    let all = n as f64 * (n as f64 - 1.0) / 2.0;
    println!(
        "{n} centres of {dim}: {:.1} % of the pairs of {n_made} in {elapsed:.1} s ({found} above \
         0.5), {:.1} Gflop/s; all {all:.3e} pairs take {:.0} s",
        100.0 * pairs / (n_made as f64 * n_made as f64 / 2.0),
        2.0 * dim as f64 * rate / 1e9,
        all / rate
    );
}

/// Rows of length 1 in all directions.
fn made(n: usize, dim: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut rows: Vec<f32> = (0..n * dim)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    for row in rows.chunks_exact_mut(dim) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    rows
}
