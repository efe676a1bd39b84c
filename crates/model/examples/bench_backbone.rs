//! Images per second of one training pass: forward, and backward from the sum of squares.
//!
//! ```text
//! cargo run --release -p pfc-model --example bench_backbone -- mbf 128 bf16 5
//! ```
//!
//! Arguments: network, images in a batch, precision (f32, bf16), measured steps, threads.
//! `bench_backbone.py` beside it alternates this with the same network in PyTorch.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use pfc_model::{Backbone, BackboneSpec, Precision};
use tch::{Device, Kind, Tensor};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, default: &'static str| {
        arguments.get(i).map_or(default, String::as_str).to_owned()
    };
    let network = argument(0, "mbf").parse()?;
    let batch: i64 = argument(1, "128").parse()?;
    let precision: Precision = argument(2, "bf16").parse()?;
    let n_steps: usize = argument(3, "3").parse()?;
    if let Some(threads) = arguments.get(4) {
        tch::set_num_threads(threads.parse()?);
    }
    let spec = BackboneSpec { network, embedding: 512 };
    let mut backbone = Backbone::new(&spec, Device::Cpu, 0)?;
    backbone.set_precision(precision);
    let images = Tensor::randn([batch, 3, 112, 112], (Kind::Float, Device::Cpu));
    step(&backbone, &images); // The first one allocates and compiles kernels.
    for _ in 0..n_steps {
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        step(&backbone, &images);
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu_start);
        let (rate, cpu_ms) = (batch as f64 / wall, 1e3 * cpu / batch as f64);
        println!("{rate:.2} images/s  {cpu_ms:.2} ms of CPU per image");
    }
    Ok(())
}

fn step(backbone: &Backbone, images: &Tensor) {
    for (_, parameter) in backbone.named_parameters() {
        let mut gradient = parameter.grad();
        if gradient.defined() {
            let _ = gradient.zero_();
        }
    }
    let embeddings = backbone.forward(images, true);
    embeddings.square().sum(Kind::Float).backward();
}

/// CPU time of this process, all threads; steadier than the clock where others use the machine.
/// Zero where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // utime and stime, in hundredths of a second, are the 12th and 13th field after the name.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
