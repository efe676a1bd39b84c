//! `pfc-train bench roof`: what a device, and the ways between devices, can do at most.

// S = rows, D = embedding, G = images; N, C, H, W = images, channels, height and width of a convolution.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use pfc_c10d::{Node, Reduce, Rendezvous};
use pfc_cli::{Format, Hinted, Outcome, interrupt, print_json, print_table, table};
use pfc_model::ModelError;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use super::names::device;
use crate::{
    TrainError,
    ranks::{Ranks, launch},
    run::estimate::wait_for,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  pfc-train bench roof --device cuda --json > roof.json
  pfc-train bench roof --device cuda --nproc-per-node 8 --json > roof.json
  pfc-train plan --identities 1M --roof roof.json";

#[derive(Debug, clap::Args)]
pub struct RoofArgs {
    /// What is measured: cpu, cuda or cuda:N; with several ranks each takes the GPU of its number
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
    device: Device,
    /// MiB that are copied and exchanged [default: 64, or 1024 on a GPU]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    size: Option<u32>,
    /// Rows of a product, 512 wide, with 1024 images [default: 4096, or 100000 on a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rows: Option<u32>,
    /// Times that each is repeated; the median counts
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeats: u32,
    /// Start this many ranks, which measure exchanges among themselves too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    nproc_per_node: Option<u16>,
    #[command(flatten)]
    format: Format,
}

/// What was measured: the result of `--json`, which `pfc-train plan --roof` reads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Roof {
    /// TFLOP/s of the head's three products, bf16 with f32 sums.
    pub(crate) product_tflops: f64,
    /// TFLOP/s of a convolution in bf16, 3×3, of 256 channels of 14×14, forwards.
    pub(crate) conv_tflops: f64,
    /// GB/s of memory, bytes read and written together, by a copy.
    pub(crate) memory_gbs: f64,
    /// GB/s from pinned memory of the host to a GPU and back, the mean; `None` for a processor.
    pub(crate) host_gbs: Option<f64>,
    /// GB/s that a rank sends in a sum over all ranks, on the device; `None` for one rank.
    pub(crate) wire_gbs: Option<f64>,
}

impl Roof {
    /// What `bench roof --json` wrote.
    ///
    /// # Errors
    ///
    /// The system's; a file that holds something else, or a rate that is no number above 0.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Roof> {
        let place = || format!("{}: cannot be read as a roof", path.display());
        let text = std::fs::read_to_string(path).with_context(place)?;
        let roof: Roof = serde_json::from_str(&text)
            .map_err(|error| {
                let hint = "`pfc-train bench roof --json` writes such a file";
                anyhow::Error::from(Hinted::new(error.to_string(), hint))
            })
            .with_context(place)?;
        match roof.rates().find(|(_, rate)| !(rate.is_finite() && *rate > 0.0)) {
            None => Ok(roof),
            Some((name, rate)) => {
                let hint = "measure again: `pfc-train bench roof --json`";
                Err(anyhow::Error::from(Hinted::new(
                    format!("{name} is {rate}, but has to be above 0"),
                    hint,
                )))
                .with_context(place)
            }
        }
    }

    /// Every rate that was measured, by name.
    fn rates(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let Roof { product_tflops, conv_tflops, memory_gbs, host_gbs, wire_gbs } = *self;
        let all = [
            ("product_tflops", Some(product_tflops)),
            ("conv_tflops", Some(conv_tflops)),
            ("memory_gbs", Some(memory_gbs)),
            ("host_gbs", host_gbs),
            ("wire_gbs", wire_gbs),
        ];
        all.into_iter().filter_map(|(name, rate)| Some((name, rate?)))
    }
}

/// How long ranks wait for each other.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn run(args: &RoofArgs) -> anyhow::Result<Outcome> {
    let n_ranks = args.nproc_per_node.map_or(1, usize::from);
    if n_ranks > 1 && !launch::is_launched() {
        let node = Node { node: 0, n_nodes: 1, local_world: n_ranks, master: None };
        return launch::launch(&node);
    }
    launch::follow_launcher().context("cannot run as a rank")?;
    // Nothing is left behind.
    interrupt::end_at_once();
    let place = Rendezvous::from_env()?;
    let device = match (args.device, &place) {
        (Device::Cuda(_), Some(place)) => Device::Cuda(place.local_rank),
        (device, _) => device,
    };
    let ranks = Ranks::join(place.as_ref(), TIMEOUT, device)?;
    let roof = measure(args, device, &ranks).context("cannot measure the device")?;
    if !ranks.is_first() {
        return Ok(Outcome::Clean);
    }
    if args.format.json {
        print_json(&roof)?;
    } else {
        let mut out = table(["rate", "measured"]);
        for (name, rate) in roof.rates() {
            out.add_row([name.to_owned(), format!("{rate:.3}")]);
        }
        print_table(&out)?;
    }
    Ok(Outcome::Clean)
}

fn measure(args: &RoofArgs, device: Device, ranks: &Ranks) -> Result<Roof, TrainError> {
    let timer = Timer { device, repeats: args.repeats };
    let (mib, rows) = if device.is_cuda() { (1024, 100_000) } else { (64, 4096) };
    let n_bytes = i64::from(args.size.unwrap_or(mib)) << 20;
    let roof = tch::no_grad(|| -> Result<Roof, TchError> {
        Ok(Roof {
            memory_gbs: memory_gbs(&timer, n_bytes)?,
            product_tflops: product_tflops(&timer, args.rows.unwrap_or(rows).into())?,
            conv_tflops: conv_tflops(&timer)?,
            host_gbs: device.is_cuda().then(|| host_gbs(&timer, n_bytes)).transpose()?,
            wire_gbs: None,
        })
    })
    .map_err(ModelError::torch("measure a device"))?;
    Ok(Roof { wire_gbs: wire_gbs(&timer, n_bytes, ranks)?, ..roof })
}

/// Times work on a device.
struct Timer {
    device: Device,
    repeats: u32,
}

impl Timer {
    /// Median seconds of `work`, the device waited for before and after, once it has run twice.
    fn seconds<E>(&self, mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
        let mut seconds = Vec::new();
        for i in 0..self.repeats + 2 {
            wait_for(self.device);
            let started = Instant::now();
            work()?;
            wait_for(self.device);
            if i >= 2 {
                seconds.push(started.elapsed().as_secs_f64());
            }
        }
        seconds.sort_by(f64::total_cmp);
        // A clock may not have ticked meanwhile.
        Ok(seconds[seconds.len() / 2].max(1e-9))
    }
}

fn memory_gbs(timer: &Timer, n_bytes: i64) -> Result<f64, TchError> {
    let source = Tensor::f_zeros([n_bytes], (Kind::Uint8, timer.device))?;
    let mut target = source.f_empty_like()?;
    let seconds = timer.seconds(|| target.f_copy_(&source))?;
    Ok(2.0 * n_bytes as f64 / seconds / 1e9)
}

/// Of cosines `[S, G]`, rows weighted by them `[G, D]`, and gradients of rows `[S, D]`.
fn product_tflops(timer: &Timer, n_rows: i64) -> Result<f64, TchError> {
    let (n_images, dim) = (1024, 512);
    let small = |shape: [i64; 2]| {
        let drawn = Tensor::f_randn(shape, (Kind::Float, timer.device))?;
        drawn.f_mul_scalar(0.05)?.f_to_kind(Kind::BFloat16)
    };
    let (rows_sd, images_gd) = (small([n_rows, dim])?, small([n_images, dim])?);
    let slopes_sg = small([n_rows, n_images])?;
    let seconds = timer.seconds(|| {
        let _ = rows_sd.f_matmul(&images_gd.f_tr()?)?;
        let _ = slopes_sg.f_tr()?.f_matmul(&rows_sd)?;
        slopes_sg.f_matmul(&images_gd).map(drop)
    })?;
    Ok(6.0 * (n_rows * n_images * dim) as f64 / seconds / 1e12)
}

fn conv_tflops(timer: &Timer) -> Result<f64, TchError> {
    let (n_images, channels, side) = (if timer.device.is_cuda() { 512 } else { 4 }, 256, 14);
    let options = (Kind::BFloat16, timer.device);
    let images_nhwc = Tensor::f_ones([n_images, side, side, channels], options)?;
    let images_nchw = images_nhwc.f_permute([0, 3, 1, 2])?;
    let kernel = Tensor::f_ones([channels, 3, 3, channels], options)?.f_permute([0, 3, 1, 2])?;
    let seconds = timer.seconds(|| {
        let none: Option<Tensor> = None;
        images_nchw.f_conv2d(&kernel, none, [1i64, 1], [1i64, 1], [1i64, 1], 1).map(drop)
    })?;
    let flop = 2 * 9 * channels * channels * n_images * side * side;
    Ok(flop as f64 / seconds / 1e12)
}

fn host_gbs(timer: &Timer, n_bytes: i64) -> Result<f64, TchError> {
    let of_host = Tensor::f_zeros([n_bytes], (Kind::Uint8, Device::Cpu))?;
    let mut of_host = of_host.f_pin_memory(timer.device)?;
    let mut of_card = Tensor::f_empty([n_bytes], (Kind::Uint8, timer.device))?;
    let seconds = timer.seconds(|| {
        of_card.f_copy_(&of_host)?;
        of_host.f_copy_(&of_card)
    })?;
    Ok(2.0 * n_bytes as f64 / seconds / 1e9)
}

/// What a rank sends a second in a sum on devices, of as much as a bucket of gradients; `None` for one rank.
fn wire_gbs(timer: &Timer, n_bytes: i64, ranks: &Ranks) -> Result<Option<f64>, TrainError> {
    let Some(group) = ranks.group().filter(|group| group.world() > 1) else { return Ok(None) };
    let options = (Kind::Float, timer.device);
    let zeros = Tensor::f_zeros([(n_bytes / 64).max(1)], options);
    let summed = zeros.map_err(ModelError::torch("measure an exchange"))?;
    let seconds =
        timer.seconds(|| group.all_reduce(summed.shallow_clone(), Reduce::Sum).map(drop))?;
    // In a ring, in which each rank sends to the next.
    let world = group.world() as f64;
    let sent = 2.0 * (world - 1.0) / world * 4.0 * summed.numel() as f64;
    Ok(Some(sent / seconds / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_later_runs_counts() {
        let timer = Timer { device: Device::Cpu, repeats: 3 };
        let mut n = 0;
        let seconds = timer.seconds(|| -> Result<(), ()> {
            n += 1;
            Ok(())
        });
        assert!(n == 5 && seconds.unwrap() < 1.0);
        assert_eq!(timer.seconds(|| Err("no")), Err("no"));
    }

    #[test]
    fn a_roof_that_is_none_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roof.json");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            format!("{:#}", Roof::read(&path).unwrap_err())
        };
        assert!(refused("{}").contains("missing field `product_tflops`"));
        let rates = r#"{"product_tflops": 1, "conv_tflops": 2, "memory_gbs": 0, "host_gbs": null,
            "wire_gbs": null}"#;
        assert!(refused(rates).contains("memory_gbs is 0, but has to be above 0"));
        std::fs::write(&path, rates.replace(": 0", ": 3")).unwrap();
        assert_eq!(Roof::read(&path).unwrap().memory_gbs, 3.0);
        assert!(Roof::read(dir.path()).is_err());
    }
}
