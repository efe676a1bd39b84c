//! Embedding speed against onnxruntime on the same network, in alternating rounds.
//!
//! ```text
//! cargo run --release -p pfc-model --example bench_embed -- r50 32 5
//! ```
//!
//! Arguments: network (or weights as .pth, .safetensors or .ckpt), images in a batch, rounds,
//! threads. The network is exported to ONNX, and both embed the same faces, decoding left out. The
//! ratio is onnxruntime's time over ours: 1 is as fast, more is faster than it.

#![allow(clippy::print_stdout)]

use std::{path::Path, time::Instant};

use pfc_model::{
    Backbone, BackboneSpec, Embed, Embedder, EmbedderOptions, Precision, export, weights,
};
use tch::Device;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, default: &'static str| {
        arguments.get(i).map_or(default, String::as_str).to_owned()
    };
    let model = argument(0, "r50");
    let (n_faces, n_rounds): (usize, usize) =
        (argument(1, "32").parse()?, argument(2, "5").parse()?);
    let threads = arguments.get(3).map(|n| n.parse()).transpose()?;
    let dir = tempfile::tempdir()?;
    let weights_path = dir.path().join("m.safetensors");
    export::safetensors(&weights_path, &backbone(&model)?, false)?;
    let onnx_path = dir.path().join("m.onnx");
    export::onnx(&onnx_path, &backbone(&model)?.into_inference(), Default::default())?;
    let open = |path: &Path, precision| {
        let options = EmbedderOptions { threads, precision, ..EmbedderOptions::default() };
        Embedder::open_with(path, &options)
    };
    let contestants = [
        ("onnxruntime f32", open(&onnx_path, Precision::F32)?),
        ("pfc f32", open(&weights_path, Precision::F32)?),
        ("pfc bf16", open(&weights_path, Precision::Bf16)?),
    ];
    let faces: Vec<u8> = (0..n_faces * 112 * 112 * 3).map(|i| (i * i / 7 % 251) as u8).collect();
    let mut times = [const { Vec::new() }; 3];
    for round in 0..=n_rounds {
        for ((_, embedder), times) in contestants.iter().zip(&mut times) {
            let start = Instant::now();
            embedder.embed(&faces, n_faces)?;
            // The first round allocates and compiles kernels.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let medians = times.map(median);
    println!("{model}, batch {n_faces}, median of {n_rounds} rounds");
    for ((name, _), time) in contestants.iter().zip(medians) {
        let (rate, ratio) = (n_faces as f64 / time, medians[0] / time);
        println!("{name:16} {rate:8.1} images/s   onnxruntime/this {ratio:.2}");
    }
    let both: Vec<Vec<f32>> = contestants
        .iter()
        .map(|(_, embedder)| embedder.embed(&faces, n_faces))
        .collect::<Result<_, _>>()?;
    for ((name, embedder), rows) in contestants.iter().zip(&both).skip(1) {
        let worst = min_cosine(rows, &both[0], embedder.embedding());
        println!("{name:16} smallest cosine to onnxruntime's embedding {worst:.6}");
    }
    Ok(())
}

fn backbone(model: &str) -> Result<Backbone, Error> {
    match model.parse() {
        Ok(network) => {
            let spec = BackboneSpec { network, embedding: 512 };
            Ok(Backbone::new(&spec, Device::Cpu, 0)?)
        }
        Err(_) => {
            Ok(weights::open(Path::new(model), Device::Cpu, weights::OpenOptions::default())?
                .backbone)
        }
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn min_cosine(a: &[f32], b: &[f32], dim: usize) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let rows = a.chunks_exact(dim).zip(b.chunks_exact(dim));
    rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).fold(1.0, f32::min)
}
