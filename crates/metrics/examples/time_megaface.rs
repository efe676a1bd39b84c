//! Times MegaFace at a million distractors against the machine's own matrix products.
//!
//! `cargo run --release -p pfc-metrics --example time_megaface -- [DISTRACTORS]`: 3,530 probes of 80
//! people, made-up features of 512 numbers, distractors made and compared piece by piece. The rate of
//! the machine is that of `gemm` on one large square product; both are measured in turn.

#![allow(clippy::unwrap_used, clippy::print_stdout, unsafe_code)] // a tool for one purpose

use std::time::{Duration, Instant};

use pfc_metrics::{Rows, megaface::Matcher};
use pfc_random::{GOLDEN_GAMMA, mix};
use rayon::prelude::*;

const DIM: usize = 512;
const PROBES: usize = 3530;
const PEOPLE: usize = 80;
const PIECE: usize = 8192;
const SIDE: usize = 4096;

fn hashed(i: u64) -> u64 {
    mix(i.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA))
}

/// Unit rows: a direction of the person, if there is one, plus noise.
fn rows(first: usize, n: usize, person: impl Fn(usize) -> Option<usize> + Sync) -> Vec<f32> {
    let uniform = |i: u64| (hashed(i) >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
    let mut rows = vec![0.0; n * DIM];
    rows.par_chunks_exact_mut(DIM).enumerate().for_each(|(i, row)| {
        for (d, value) in (0..).zip(row.iter_mut()) {
            let own = uniform((((first + i) as u64) << 10) + d);
            let shared = person(i).map_or(0.0, |p| uniform((1 << 50) + ((p as u64) << 10) + d));
            *value = own + 1.2 * shared;
        }
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    });
    rows
}

/// Seconds of one large product on all threads.
fn machine(a: &[f32], b: &[f32], out: &mut [f32]) -> f64 {
    let begin = Instant::now();
    // SAFETY: all three are square matrices of SIDE rows, row by row, and do not overlap.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            SIDE,
            SIDE,
            SIDE,
            out.as_mut_ptr(),
            SIDE as isize,
            1,
            false,
            a.as_ptr(),
            SIDE as isize,
            1,
            b.as_ptr(),
            SIDE as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm_common::Parallelism::Rayon(0),
        );
    }
    begin.elapsed().as_secs_f64()
}

fn main() {
    let n_distractors: usize = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().unwrap());
    let probes = rows(1 << 40, PROBES, |i| Some(i % PEOPLE));
    let identities: Vec<u32> = (0..PROBES as u32).map(|i| i % PEOPLE as u32).collect();
    let n_nearest = PROBES * n_distractors / 100_000 + 1;
    let mut matcher =
        Matcher::new(Rows::new(&probes, DIM).unwrap(), &identities, n_nearest).unwrap();
    let square: Vec<f32> = rows(1 << 41, SIDE * SIDE / DIM, |_| None);
    let mut out = vec![0.0; SIDE * SIDE];
    let (mut compared, mut machine_rates) = (Duration::ZERO, Vec::new());
    for (piece, first) in (0..n_distractors).step_by(PIECE).enumerate() {
        let distractors = rows(first, PIECE.min(n_distractors - first), |_| None);
        let begin = Instant::now();
        matcher.add(Rows::new(&distractors, DIM).unwrap()).unwrap();
        compared += begin.elapsed();
        if piece % 16 == 0 {
            let seconds = machine(&square, &square, &mut out);
            machine_rates.push(2.0 * (SIDE as f64).powi(3) / seconds / 1e9);
        }
    }
    let begin = Instant::now();
    let matches = matcher.finish();
    compared += begin.elapsed();
    let work = 2.0 * (PROBES * n_distractors * DIM) as f64;
    let ours = work / compared.as_secs_f64() / 1e9;
    machine_rates.sort_by(f64::total_cmp);
    let machine = machine_rates[machine_rates.len() / 2];
    println!("{n_distractors} distractors in {:.2} s: {ours:.1} GFLOP/s", compared.as_secs_f64());
    println!("the machine's products: {machine:.1} GFLOP/s (median of {})", machine_rates.len());
    println!("share: {:.0} %", 100.0 * ours / machine);
    println!("rank-1 {:.4}, nearest {:.4}", matches.cmc(1)[0], matches.nearest[0]);
}
