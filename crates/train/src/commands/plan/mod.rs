//! `pfc-train plan`: what a head of a given size takes, before anybody rents a machine for it.

mod model;
mod published;
mod stages;

use std::path::PathBuf;

use pfc_cli::{
    Format, Outcome,
    number::{positive, within},
    print_json,
};
use pfc_model::{Backbone, BackboneSpec, ModelError, Network};
use serde::Serialize;

use self::{
    model::{Card, Scheme, Sizes},
    published::{Comparison, Quantity, comparisons},
    stages::{NetworkWork, Rates, Stage},
};
use crate::commands::{
    bench::{Count, Roof},
    model::parse_network,
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  pfc-train plan --identities 10M --gpus 8 --gpu-memory 80
  pfc-train plan --identities 1B --gpus 1000 --gpu-memory 80 --rate 0.01 --json
  pfc-train bench roof --device cuda --json > roof.json
  pfc-train plan --identities 1M --roof roof.json
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
    /// GB/s from a GPU to its host and back, each way
    #[arg(long, value_name = "N", default_value_t = 50.0, value_parser = positive::<f64>)]
    host_gbs: f64,
    /// What was measured by `bench roof --json`, in the place of the rates above where it has them, to predict a
    /// step by
    #[arg(long, value_name = "FILE")]
    roof: Option<PathBuf>,
    /// The network of a step
    #[arg(long, value_name = "NETWORK", default_value = "r50", value_parser = parse_network)]
    network: Network,
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

/// What a step takes on so many GPUs, with centres on them.
#[derive(Debug, Clone, Serialize)]
struct StepTimes {
    gpus: u32,
    /// The first of this program's schemes that fits.
    scheme: Scheme,
    head: Vec<Stage>,
    /// Empty of a network whose time is not known.
    network: Vec<Stage>,
    head_ms: f64,
    /// The least that the head could take.
    head_floor_ms: f64,
    step_ms: f64,
    /// Of all GPUs; `None` where the network's time is not known.
    images_per_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Plan {
    sizes: Sizes,
    estimates: Vec<Estimate>,
    /// What a card reaches, by which steps are predicted.
    rates: Rates,
    /// On one GPU and on all, where the centres fit.
    steps: Vec<StepTimes>,
    /// The scheme on the fewest GPUs, of those the fastest.
    cheapest: Option<Estimate>,
}

/// Shares of what makers state that large copies, the head's products, whose inner side is short, and
/// convolutions of these networks get. On an H200 a copy reaches 4.3 of 4.8 TB/s and a large product 790 of 989
/// TFLOP/s; published kernels of the head's kind reach 600, and convolutions half of a product. `bench roof`
/// measures them.
const COPY_SHARE: f64 = 0.9;
const PRODUCT_SHARE: f64 = 0.6;
const CONV_SHARE: f64 = 0.4;

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
    let plan = args.plan()?;
    if args.format.json {
        print_json(&plan)?;
    } else {
        print_plan(args, &plan)?;
    }
    Ok(if plan.cheapest.is_some() { Outcome::Clean } else { Outcome::Findings })
}

impl PlanArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
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
        let rates = self.rates(self.roof.as_deref().map(Roof::read).transpose()?);
        let work = self.network_work()?;
        let mut counts = vec![1, self.gpus];
        counts.dedup();
        let steps =
            counts.into_iter().filter_map(|gpus| self.step(gpus, &sizes, work.as_ref(), &rates));
        let steps = steps.collect();
        Ok(Plan { sizes, estimates, rates, steps, cheapest })
    }

    /// What a card reaches: as measured, else the share of what its maker states that these operations get.
    fn rates(&self, roof: Option<Roof>) -> Rates {
        let of_maker = Rates {
            product_tflops: PRODUCT_SHARE * self.bf16_tflops,
            conv_tflops: CONV_SHARE * self.bf16_tflops,
            memory_gbs: COPY_SHARE * self.memory_gbs,
            host_gbs: self.host_gbs,
            wire_gbs: self.wire_gbs,
        };
        let Some(roof) = roof else { return of_maker };
        Rates {
            product_tflops: roof.product_tflops,
            conv_tflops: roof.conv_tflops,
            memory_gbs: roof.memory_gbs,
            host_gbs: roof.host_gbs.unwrap_or(of_maker.host_gbs),
            wire_gbs: roof.wire_gbs.unwrap_or(of_maker.wire_gbs),
        }
    }

    fn network_work(&self) -> Result<Option<NetworkWork>, ModelError> {
        let spec = BackboneSpec { network: self.network, embedding: self.dim.into() };
        let backbone = Backbone::shapes(&spec)?;
        Ok(backbone.elementwise_bytes().map(|bytes| NetworkWork {
            macs: backbone.n_macs() as f64,
            elementwise_bytes: bytes as f64,
            parameters: backbone.n_parameters() as f64,
        }))
    }

    /// `None` where no scheme of ours fits on so many GPUs.
    fn step(
        &self,
        gpus: u32,
        sizes: &Sizes,
        work: Option<&NetworkWork>,
        rates: &Rates,
    ) -> Option<StepTimes> {
        let sizes = Sizes { ranks: gpus.into(), ..*sizes };
        let fits = |scheme: &Scheme| sizes.head_bytes(*scheme) <= self.room();
        let scheme = Scheme::ALL.into_iter().filter(|scheme| scheme.is_ours()).find(fits)?;
        let rows = scheme.own_rows()?;
        let head = stages::head(&sizes, rows, rates);
        let network = work.map_or_else(Vec::new, |work| stages::network(&sizes, work, rates));
        let sum = |stages: &[Stage]| stages.iter().map(|stage| stage.ms).sum::<f64>();
        let head_ms = sum(&head);
        let step_ms = head_ms + sum(&network);
        Some(StepTimes {
            gpus,
            scheme,
            head_ms,
            head_floor_ms: stages::floor_ms(&sizes, rows, rates),
            step_ms,
            images_per_s: work.map(|_| sizes.batch * sizes.ranks / step_ms * 1e3),
            head,
            network,
        })
    }

    /// Bytes of a GPU that the head may take.
    fn room(&self) -> f64 {
        (self.gpu_memory - self.backbone_memory).max(0.0) * GIB
    }

    fn estimate(&self, scheme: Scheme, sizes: &Sizes) -> Estimate {
        let card = Card {
            f32_tflops: self.f32_tflops,
            half_tflops: self.bf16_tflops,
            memory_gbs: self.memory_gbs,
            wire_gbs: self.wire_gbs,
        };
        let room = self.room();
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
    print_steps(args, plan)?;
    match plan.cheapest {
        Some(Estimate { scheme, gpus_min: Some(gpus), .. }) => {
            writeln!(out, "cheapest: {} on {gpus}", scheme.name())
        }
        _ => writeln!(out, "nothing fits: a lower `--rate` or larger cards may"),
    }
}

/// What a step takes on one GPU and on all, stage by stage.
fn print_steps(args: &PlanArgs, plan: &Plan) -> std::io::Result<()> {
    let Some(first) = plan.steps.first() else { return Ok(()) };
    let titles = plan.steps.iter().map(|step| match step.gpus {
        1 => "ms on 1 GPU".to_owned(),
        n => format!("ms on {n} GPUs"),
    });
    let mut table = pfc_cli::table(std::iter::once("a step".to_owned()).chain(titles));
    let mut row = |name: &str, of: &dyn Fn(&StepTimes) -> Option<f64>, digits: usize| {
        let values: Vec<Option<f64>> = plan.steps.iter().map(of).collect();
        if values.iter().any(|value| value.is_some_and(|value| value > 0.0)) {
            let shown = |value: Option<f64>| {
                value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
            };
            let values = values.into_iter().map(shown);
            table.add_row(std::iter::once(name.to_owned()).chain(values));
        }
    };
    for (i, stage) in first.head.iter().enumerate() {
        row(&format!("head: {}", stage.name), &|step| Some(step.head[i].ms), 3);
    }
    row("head", &|step| Some(step.head_ms), 3);
    row("head, at least", &|step| Some(step.head_floor_ms), 3);
    for (i, stage) in first.network.iter().enumerate() {
        row(&format!("{}: {}", args.network, stage.name), &|step| Some(step.network[i].ms), 3);
    }
    row("all", &|step| Some(step.step_ms), 2);
    row("images/s", &|step| step.images_per_s, 0);
    let mut schemes: Vec<&str> = plan.steps.iter().map(|step| step.scheme.name()).collect();
    schemes.dedup();
    use std::io::Write;
    writeln!(
        pfc_cli::stdout(),
        "\nA step of {} images a GPU, as this program does it with centres on the GPUs ({}), {}:",
        args.batch,
        schemes.join(", "),
        match args.roof {
            Some(_) => "at the rates of the roof",
            None => "at a share of the rates above, which `--roof` replaces by measured ones",
        }
    )?;
    pfc_cli::print_table(&table)
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

    fn args(more: &[&str]) -> PlanArgs {
        #[derive(Debug, clap::Parser)]
        struct Parser {
            #[command(flatten)]
            plan: PlanArgs,
        }
        let all = [&["plan", "--identities", "1M"][..], more].concat();
        <Parser as clap::Parser>::try_parse_from(all).unwrap().plan
    }

    #[test]
    fn a_step_is_its_stages_and_measured_rates_replace_those_of_the_maker() {
        let plan = args(&["--gpus", "8", "--batch", "128"]).plan().unwrap();
        assert_eq!(plan.steps.iter().map(|step| step.gpus).collect::<Vec<_>>(), [1, 8]);
        for step in &plan.steps {
            let stages = step.head.iter().chain(&step.network);
            let sum: f64 = stages.map(|stage| stage.ms).sum();
            assert!((sum - step.step_ms).abs() < 1e-9 && step.head_floor_ms < step.head_ms);
            let images = 128.0 * f64::from(step.gpus);
            assert!((step.images_per_s.unwrap() - images / sum * 1e3).abs() < 1e-6);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roof.json");
        let rates = r#"{"product_tflops": 600, "conv_tflops": 300, "memory_gbs": 4000,
            "host_gbs": null, "wire_gbs": 200}"#;
        std::fs::write(&path, rates).unwrap();
        let plan = args(&["--gpus", "1", "--roof", path.to_str().unwrap()]).plan().unwrap();
        let expected = Rates {
            product_tflops: 600.0,
            conv_tflops: 300.0,
            memory_gbs: 4000.0,
            host_gbs: 50.0,
            wire_gbs: 200.0,
        };
        assert_eq!(plan.rates, expected);
        assert_eq!(plan.steps.len(), 1);
    }

    #[test]
    fn no_step_is_predicted_of_a_network_or_a_card_that_is_not_known() {
        let step = |more: &[&str]| args(more).plan().unwrap().steps;
        let of_transformer = step(&["--network", "vit_t", "--gpus", "1"]);
        assert!(of_transformer[0].network.is_empty() && of_transformer[0].images_per_s.is_none());
        assert!(step(&["--gpu-memory", "4.7", "--gpus", "1"]).is_empty());
    }

    #[test]
    fn counts_are_short() {
        let all = [999.0, 1000.0, 1.4e6, 92.25e6, 1e9].map(counted);
        assert_eq!(all, ["999", "1K", "1.4M", "92.25M", "1B"]);
    }
}
