//! `pfc-train plan`: what a head of a given size takes, before anybody rents a machine for it.

mod model;
mod published;

use pfc_cli::{
    Format, Outcome,
    number::{positive, within},
    print_json,
};
use serde::Serialize;

use self::{
    model::{Card, Scheme, Sizes},
    published::{Comparison, Quantity, comparisons},
};
use crate::commands::bench::Count;

pub(crate) const EXAMPLES: &str = "\
Examples:
  pfc-train plan --identities 10M --gpus 8 --gpu-memory 80
  pfc-train plan --identities 1B --gpus 1000 --gpu-memory 80 --rate 0.01 --json
  pfc-train plan --check      # compares the model with published figures";

/// Arguments of `pfc-train plan`.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Number of identities; K, M and B stand for thousands, millions and billions
    #[arg(long, value_name = "N", required_unless_present = "check")]
    identities: Option<Count>,
    /// GPUs, or ranks on other machines
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    gpus: u32,
    /// GiB that each has
    #[arg(long, value_name = "GIB", default_value_t = 80.0, value_parser = positive::<f64>)]
    gpu_memory: f64,
    /// GiB of it that the backbone takes; R50 in half precision with 128 images takes 4.6
    #[arg(long, value_name = "GIB", default_value_t = 4.6, value_parser = positive::<f64>)]
    backbone_memory: f64,
    /// Images of a GPU in a step
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// Width of an embedding
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    dim: u32,
    /// Share of the identities that a step uses
    #[arg(long, value_name = "R", default_value_t = 0.1, value_parser = within(0.0..=1.0f64))]
    rate: f64,
    /// TFLOP/s of a GPU in f32
    #[arg(long, value_name = "N", default_value_t = 67.0, value_parser = positive::<f64>)]
    f32_tflops: f64,
    /// TFLOP/s of a GPU in bf16
    #[arg(long, value_name = "N", default_value_t = 989.0, value_parser = positive::<f64>)]
    bf16_tflops: f64,
    /// GB/s of a GPU's memory
    #[arg(long, value_name = "N", default_value_t = 3350.0, value_parser = positive::<f64>)]
    memory_gbs: f64,
    /// GB/s from a GPU to another
    #[arg(long, value_name = "N", default_value_t = 40.0, value_parser = positive::<f64>)]
    wire_gbs: f64,
    /// Compare the model with published figures instead
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    format: Format,
}

/// What one scheme takes.
#[derive(Debug, Clone, Copy, Serialize)]
struct Estimate {
    scheme: Scheme,
    rate: f64,
    bytes_per_identity: f64,
    /// Backbone and head, of one GPU.
    memory_gib: f64,
    fits: bool,
    wire_mib: f64,
    head_ms: f64,
    /// With the GPUs that there are.
    identities_max: f64,
    /// With these identities; `None` if no number up to a million is enough.
    gpus_min: Option<u32>,
    /// Of the host, beside the rows, while a rank saves; `None` for the programs of others, here and
    /// below.
    save_mib: Option<f64>,
    /// Centres of all ranks in a checkpoint, once all were used.
    checkpoint_gib: Option<f64>,
    /// The same in files, all copies.
    files_gib: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Plan {
    sizes: Sizes,
    estimates: Vec<Estimate>,
    /// The scheme on the fewest GPUs, of those the fastest.
    cheapest: Option<Estimate>,
}

const GIB: f64 = 1_073_741_824.0;
const MIB: f64 = 1_048_576.0;

/// Prints the plan, or the comparison.
///
/// # Errors
///
/// The I/O error of standard output.
pub fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    if args.check {
        let all = comparisons();
        if args.format.json {
            print_json(&all)?;
        } else {
            print_comparisons(&all)?;
        }
        return Ok(Outcome::Clean);
    }
    let plan = args.plan();
    if args.format.json {
        print_json(&plan)?;
    } else {
        print_plan(args, &plan)?;
    }
    Ok(if plan.cheapest.is_some() { Outcome::Clean } else { Outcome::Findings })
}

impl PlanArgs {
    fn plan(&self) -> Plan {
        let sizes = Sizes {
            identities: self.identities.map_or(1.0, |count| count.0 as f64),
            ranks: self.gpus.into(),
            batch: self.batch.into(),
            dim: self.dim.into(),
            rate: self.rate,
        };
        let estimates: Vec<Estimate> =
            Scheme::ALL.iter().map(|&scheme| self.estimate(scheme, &sizes)).collect();
        let cheapest = estimates
            .iter()
            .filter(|estimate| estimate.gpus_min.is_some())
            .min_by(|a, b| a.gpus_min.cmp(&b.gpus_min).then(a.head_ms.total_cmp(&b.head_ms)))
            .copied();
        Plan { sizes, estimates, cheapest }
    }

    fn estimate(&self, scheme: Scheme, sizes: &Sizes) -> Estimate {
        let card = Card {
            f32_tflops: self.f32_tflops,
            half_tflops: self.bf16_tflops,
            memory_gbs: self.memory_gbs,
            wire_gbs: self.wire_gbs,
        };
        let room = (self.gpu_memory - self.backbone_memory).max(0.0) * GIB;
        let head = sizes.head_bytes(scheme);
        let fits_on = |gpus: u32| Sizes { ranks: gpus.into(), ..*sizes }.head_bytes(scheme) <= room;
        Estimate {
            scheme,
            rate: if scheme.samples() { sizes.rate } else { 1.0 },
            bytes_per_identity: sizes.bytes_per_identity(scheme),
            memory_gib: self.backbone_memory + head / GIB,
            fits: head <= room,
            wire_mib: sizes.wire_bytes(scheme) / MIB,
            head_ms: sizes.head_seconds(scheme, &card) * 1e3,
            identities_max: sizes.identities_max(scheme, room),
            gpus_min: least(1_000_000, fits_on),
            save_mib: sizes.save_bytes(scheme).map(|bytes| bytes / MIB),
            checkpoint_gib: sizes.checkpoint_bytes(scheme).map(|bytes| bytes / GIB),
            files_gib: sizes.files_bytes(scheme).map(|bytes| bytes / GIB),
        }
    }
}

/// The least number from 1 to `most` that satisfies a condition which larger ones satisfy too; a
/// larger global batch takes memory of its own, so of those that do not, the last are found.
fn least(most: u32, holds: impl Fn(u32) -> bool) -> Option<u32> {
    // Doubling finds the region, halving the number.
    let mut high = 1;
    while !holds(high) {
        if high >= most {
            return None;
        }
        high = (high * 2).min(most);
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

fn print_plan(args: &PlanArgs, plan: &Plan) -> std::io::Result<()> {
    let mut table = pfc_cli::table([
        "scheme",
        "rate",
        "bytes/identity",
        "GiB/GPU",
        "fits",
        "MiB sent per step",
        "head ms",
        "max identities",
        "min GPUs",
    ]);
    for estimate in &plan.estimates {
        table.add_row([
            estimate.scheme.name().to_owned(),
            format!("{}", estimate.rate),
            format!("{:.0}", estimate.bytes_per_identity),
            format!("{:.1}", estimate.memory_gib),
            if estimate.fits { "yes" } else { "no" }.to_owned(),
            format!("{:.1}", estimate.wire_mib),
            format!("{:.1}", estimate.head_ms),
            counted(estimate.identities_max),
            estimate.gpus_min.map_or_else(|| "–".to_owned(), |gpus| gpus.to_string()),
        ]);
    }
    pfc_cli::print_table(&table)?;
    use std::io::Write;
    let mut out = pfc_cli::stdout();
    writeln!(
        out,
        "\n{} identities on {} GPUs of {} GiB. `max identities` fit on these, `min GPUs` hold \
         all. `rate` is head.sample_rate.\nTimes are estimates from the cards' peaks, and no pfc scheme has been \
         timed on a GPU.",
        counted(plan.sizes.identities),
        args.gpus,
        args.gpu_memory
    )?;
    for estimate in &plan.estimates {
        let Estimate { save_mib: Some(save), checkpoint_gib: Some(checkpoint), .. } = estimate
        else {
            continue;
        };
        writeln!(
            out,
            "{} ({}): {checkpoint:.1} GiB of centres in a checkpoint, {:.1} GiB where they are in files; a \
             save takes {save:.0} MiB more of each rank's host",
            estimate.scheme.name(),
            estimate.scheme.settings().unwrap_or_default(),
            estimate.files_gib.unwrap_or_default(),
        )?;
    }
    match plan.cheapest {
        Some(Estimate { scheme, gpus_min: Some(gpus), .. }) => {
            writeln!(out, "cheapest: {} on {gpus}", scheme.name())
        }
        _ => writeln!(out, "nothing fits: a lower `--rate` or larger cards may"),
    }
}

fn print_comparisons(all: &[Comparison]) -> std::io::Result<()> {
    let mut table = pfc_cli::table([
        "source",
        "scheme",
        "identities",
        "figure",
        "published",
        "predicted",
        "error",
    ]);
    for comparison in all {
        let figure = match comparison.quantity {
            Quantity::MemoryMib => "MiB/GPU",
            Quantity::StepMs => "ms/step",
            Quantity::IdentitiesM => "max identities, millions",
        };
        table.add_row([
            comparison.source.to_owned(),
            comparison.scheme.name().to_owned(),
            counted(comparison.identities),
            figure.to_owned(),
            format!("{:.0}", comparison.published),
            format!("{:.0}", comparison.predicted),
            format!("{:+.1}%", 100.0 * comparison.error()),
        ]);
    }
    pfc_cli::print_table(&table)
}

/// `1.4M` for 1,400,000.
fn counted(number: f64) -> String {
    let (value, unit) = match number {
        n if n >= 1e9 => (n / 1e9, "B"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e3 => (n / 1e3, "K"),
        n => (n, ""),
    };
    let text = format!("{value:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_number_is_found_at_both_ends() {
        for wanted in [1, 2, 3, 100, 999_999, 1_000_000] {
            assert_eq!(least(1_000_000, |n| n >= wanted), Some(wanted));
        }
        assert_eq!(least(1_000_000, |_| false), None);
    }

    #[test]
    fn counts_are_short() {
        let all = [999.0, 1000.0, 1.4e6, 92.25e6, 1e9].map(counted);
        assert_eq!(all, ["999", "1K", "1.4M", "92.25M", "1B"]);
    }
}
