//! Milliseconds of one step of the head, by phase.
//!
//! ```text
//! cargo run --release -p pfc-train --example bench_head -- --classes 1000000 --rate 0.1
//! ```

#![allow(clippy::print_stdout)] // its output is its purpose

use std::time::Instant;

use clap::Parser;
use pfc_train::head::{Head, HeadConfig, HeadError, Precision, Timings, Update};
use tch::{Device, Kind, Tensor};

/// Time the head on random embeddings.
#[derive(Debug, Parser)]
struct Args {
    /// Number of identities.
    #[arg(long, default_value_t = 20_000)]
    classes: u64,
    /// Share of them that a step uses.
    #[arg(long, default_value_t = 0.1)]
    rate: f64,
    /// Embeddings in a step.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Width of an embedding.
    #[arg(long, default_value_t = 512)]
    dim: usize,
    /// Number format of the products: `f32` or `bf16`.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// Rule of the centres' update: `dense` or `sparse`.
    #[arg(long, default_value = "dense", value_parser = ["dense", "sparse"])]
    update: String,
    /// Rows of centres worked on at a time.
    #[arg(long, default_value_t = HeadConfig::new(1, 1).tile_rows)]
    tile_rows: usize,
    /// Steps that are timed.
    #[arg(long, default_value_t = 10)]
    steps: u64,
    /// Steps before that: the first use of a row also gives it its initial value.
    #[arg(long, default_value_t = 3)]
    warm_up: u64,
}

fn main() -> Result<(), HeadError> {
    let args = Args::parse();
    let config = HeadConfig {
        sample_rate: args.rate,
        precision: if args.precision == "bf16" { Precision::Bf16 } else { Precision::F32 },
        update: if args.update == "sparse" { Update::Sparse } else { Update::Dense },
        tile_rows: args.tile_rows,
        ..HeadConfig::new(args.classes, args.dim)
    };
    let mut head = Head::new(&config)?;
    let mut timings = Timings::default();
    let mut step_ms = Vec::new();
    for step in 0..args.warm_up + args.steps {
        let shape = [args.batch as i64, args.dim as i64];
        let embeddings_bd = Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let labels = Tensor::randint(args.classes as i64, [shape[0]], (Kind::Int64, Device::Cpu));
        let mut labels_b = vec![0; args.batch];
        labels.copy_data(&mut labels_b, args.batch);
        let start = Instant::now();
        let output = head.step(&embeddings_bd, &labels_b, step, 0.1)?;
        if step >= args.warm_up {
            step_ms.push(start.elapsed().as_secs_f64() * 1e3);
            timings += output.timings;
        }
    }
    print_table(&config, &args, &mut step_ms, &timings);
    Ok(())
}

fn print_table(config: &HeadConfig, args: &Args, step_ms: &mut [f64], timings: &Timings) {
    let n_steps = step_ms.len().max(1) as f64;
    step_ms.sort_by(f64::total_cmp);
    let median_ms = step_ms.get(step_ms.len() / 2).copied().unwrap_or(f64::NAN);
    println!(
        "{} classes, {} rows a step, batch {}, dim {}, {:?}, {:?}, {} threads",
        config.classes,
        config.rows_per_step(),
        args.batch,
        config.dim,
        config.precision,
        config.update,
        tch::get_num_threads()
    );
    println!("median {median_ms:.2} ms a step over {n_steps} steps; mean by phase:");
    for (phase, total_ms) in [
        ("sample", timings.sample_ms),
        ("gather", timings.gather_ms),
        ("products", timings.product_ms),
        ("softmax", timings.softmax_ms),
        ("update", timings.update_ms),
        ("communication", timings.communication_ms),
    ] {
        println!("{phase:>14} {:9.2} ms", total_ms / n_steps);
    }
    let flop = 6.0 * config.rows_per_step() as f64 * args.batch as f64 * args.dim as f64;
    let rate = flop * n_steps / timings.product_ms / 1e6;
    println!("products run at {rate:.0} GFLOP/s");
}
