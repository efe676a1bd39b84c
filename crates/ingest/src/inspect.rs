//! `pfc-ingest inspect`: what a data set holds, without reading its images.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

use anyhow::Context;
use pfc_cli::{
    Format, Outcome, print_json, print_table, table,
    units::{bytes, count, percent},
};
use pfc_shard::{ImageSize, ShardEntry, Step};
use serde::Serialize;

use crate::{
    measures::{Measures, Quantiles},
    pack::quarantine,
    reading::ReadArgs,
};

/// Columns of the longest bar of the histogram.
const BAR_COLUMNS: u64 = 40;

/// Show what a data set holds.
///
/// Counts, sizes, shards, where the images came from and which steps made the data set, how many images
/// the identities have, and how the measures of the images are spread. Reads all columns but the
/// images: about 70 bytes each. Images that decisions leave out are not counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest inspect data
  pfc-ingest inspect data --json | jq .images")]
pub struct InspectArgs {
    /// Folder that `pack` wrote
    dataset: PathBuf,
    #[command(flatten)]
    reading: ReadArgs,
    #[command(flatten)]
    format: Format,
}

/// What is shown, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Inspection {
    /// The counts with decisions applied, unless `--as-packed` is given.
    images: u64,
    /// The counts without decisions.
    images_packed: u64,
    identities: u32,
    identities_packed: u32,
    image_size: ImageSize,
    bytes: u64,
    seed: u64,
    sources: Vec<String>,
    tool: String,
    arguments: Vec<String>,
    images_per_identity: Spread,
    measures: Measures,
    /// Reasons and counts of what `pack` left out.
    left_out: BTreeMap<String, u64>,
    /// The steps that made the data set from others, the oldest first.
    lineage: Vec<Step>,
    shards: Vec<ShardEntry>,
}

/// How the images are spread over the identities.
#[derive(Debug, Serialize)]
struct Spread {
    least: u64,
    median: u64,
    mean: f64,
    most: u64,
    histogram: Vec<Bin>,
}

/// Identities that have `from` to `to` images, both included.
#[derive(Debug, PartialEq, Serialize)]
struct Bin {
    from: u64,
    to: u64,
    identities: u64,
}

/// Runs the command.
pub fn run(args: &InspectArgs) -> anyhow::Result<Outcome> {
    let dir = &args.dataset;
    let inspection =
        inspect(args).with_context(|| format!("cannot inspect `{}`", dir.display()))?;
    if args.format.json {
        print_json(&inspection)?;
    } else {
        print(&inspection)?;
    }
    Ok(Outcome::Clean)
}

fn inspect(args: &InspectArgs) -> anyhow::Result<Inspection> {
    let view = args.reading.open(&args.dataset)?;
    let people = view.people();
    let n_images = (0..people.len()).map(|label| people.n_images(label));
    let manifest = view.manifest();
    Ok(Inspection {
        images: view.len(),
        images_packed: manifest.rows,
        identities: people.len(),
        identities_packed: manifest.n_identities,
        image_size: manifest.image_size,
        bytes: manifest.bytes(),
        seed: manifest.seed,
        sources: manifest.sources.clone(),
        tool: manifest.tool.clone(),
        arguments: manifest.arguments.clone(),
        images_per_identity: spread(n_images.collect()),
        measures: Measures::of(&view)?,
        left_out: quarantine::count_reasons(&args.dataset)?,
        lineage: manifest.lineage.clone(),
        shards: manifest.shards.clone(),
    })
}

fn spread(mut n_images: Vec<u64>) -> Spread {
    n_images.sort_unstable();
    let n = n_images.len();
    let total: u64 = n_images.iter().sum();
    Spread {
        least: n_images.first().copied().unwrap_or(0),
        // The upper one of the two in the middle.
        median: n_images.get(n / 2).copied().unwrap_or(0),
        mean: total as f64 / n.max(1) as f64,
        most: n_images.last().copied().unwrap_or(0),
        histogram: histogram(&n_images),
    }
}

/// Bins that double in width (0, 1, 2–3, 4–7, …) from the first to the last that is not empty.
fn histogram(n_images: &[u64]) -> Vec<Bin> {
    let bin_of = |n: u64| u64::BITS - n.leading_zeros();
    let mut bins = BTreeMap::<u32, u64>::new();
    for &n in n_images {
        *bins.entry(bin_of(n)).or_default() += 1;
    }
    let (Some((&first, _)), Some((&last, _))) = (bins.first_key_value(), bins.last_key_value())
    else {
        return Vec::new();
    };
    let bounds = |bin: u32| match bin {
        0 => (0, 0),
        bin => (1 << (bin - 1), u64::MAX >> (u64::BITS - bin)),
    };
    (first..=last)
        .map(|bin| (bounds(bin), bins.get(&bin).copied().unwrap_or(0)))
        .map(|((from, to), identities)| Bin { from, to, identities })
        .collect()
}

fn print(inspection: &Inspection) -> std::io::Result<()> {
    print_overview(inspection)?;
    let spread = &inspection.images_per_identity;
    let mut out = pfc_cli::stdout();
    writeln!(out, "\nImages per identity")?;
    for line in bars(&spread.histogram) {
        writeln!(out, "{line}")?;
    }
    drop(out);
    print_measures(&inspection.measures)?;
    let mut shards = table(["shard", "images", "size"]);
    for shard in &inspection.shards {
        shards.add_row([shard.file.clone(), count(shard.rows), bytes(shard.bytes)]);
    }
    writeln!(pfc_cli::stdout())?;
    print_table(&shards)
}

fn print_measures(measures: &Measures) -> std::io::Result<()> {
    let mut table = table(["image", "least", "5 %", "median", "95 %", "most", "mean"]);
    for (name, quantiles) in measures.rows() {
        let unmeasured = || std::array::from_fn(|_| "not measured".to_owned());
        let columns = quantiles.as_ref().map_or_else(unmeasured, Quantiles::columns);
        let cells = std::iter::once(name.to_owned()).chain(columns);
        table.add_row(cells);
    }
    writeln!(pfc_cli::stdout())?;
    print_table(&table)
}

fn print_overview(inspection: &Inspection) -> std::io::Result<()> {
    let spread = &inspection.images_per_identity;
    let mut table = table(["data set", ""]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    let of_packed = |n: u64, packed: u64| match n == packed {
        true => count(n),
        false => format!("{} (packed: {})", count(n), count(packed)),
    };
    row("images", of_packed(inspection.images, inspection.images_packed));
    let (n, packed) = (inspection.identities.into(), inspection.identities_packed.into());
    row("identities", of_packed(n, packed));
    row("image size", inspection.image_size.to_string());
    row("bytes", bytes(inspection.bytes));
    row("bytes per image", bytes(inspection.bytes / inspection.images_packed.max(1)));
    row("shards", count(inspection.shards.len() as u64));
    row(
        "images per identity",
        format!(
            "{} to {}, median {}, mean {:.1}",
            count(spread.least),
            count(spread.most),
            count(spread.median),
            spread.mean
        ),
    );
    row("sources", inspection.sources.join("\n"));
    row("seed", inspection.seed.to_string());
    row("written by", format!("{} {}", inspection.tool, inspection.arguments.join(" ")));
    for (i, step) in inspection.lineage.iter().enumerate() {
        row(if i == 0 { "made by" } else { "" }, describe(step));
    }
    for (reason, n) in &inspection.left_out {
        row(&format!("left out: {}", reason.replace('_', " ")), count(*n));
    }
    print_table(&table)
}

/// A step on the way to the data set in a line.
fn describe(step: &Step) -> String {
    let Step { command, arguments, rows, n_identities, effect, of, .. } = step;
    let of = if of.is_empty() { String::new() } else { format!("{of}: ") };
    let arguments = arguments.join(" ");
    let effect = if effect.is_empty() { String::new() } else { format!("; {effect}") };
    let people = n_identities.map(|n| format!(" of {} identities", count(n.into())));
    let people = people.unwrap_or_default();
    format!("{of}{command} {arguments}: {} images{people}{effect}", count(*rows))
}

/// One line per bin: bounds, bar, count, share.
fn bars(bins: &[Bin]) -> Vec<String> {
    let most = bins.iter().map(|b| b.identities).max().unwrap_or(0).max(1);
    let total = bins.iter().map(|b| b.identities).sum();
    let line = |bin: &Bin| {
        let bounds = match bin {
            Bin { from, to, .. } if from == to => count(*from),
            Bin { from, to, .. } => format!("{}-{}", count(*from), count(*to)),
        };
        // A bin that is not empty gets a bar, however small.
        let columns = (bin.identities * BAR_COLUMNS / most).max(bin.identities.min(1));
        let bar = "█".repeat(columns as usize);
        let share = percent(bin.identities, total);
        format!("{bounds:>13}  {bar:<40}  {:>10}  {share:>7}", count(bin.identities))
    };
    bins.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_double_and_keep_gaps() {
        let bin = |from, to, identities| Bin { from, to, identities };
        assert_eq!(
            histogram(&[0, 1, 1, 3, 8, 15]),
            [bin(0, 0, 1), bin(1, 1, 2), bin(2, 3, 1), bin(4, 7, 0), bin(8, 15, 2)]
        );
        assert_eq!(histogram(&[]), []);
        assert_eq!(histogram(&[u64::MAX]), [bin(1 << 63, u64::MAX, 1)]);
    }

    #[test]
    fn a_bar_shows_even_one_identity_of_many() {
        let bins = histogram(&[vec![1; 1000], vec![2]].concat());
        let lines = bars(&bins);
        assert_eq!(lines[0].matches('█').count(), 40);
        assert_eq!(lines[1].matches('█').count(), 1);
    }

    #[test]
    fn the_spread_of_five_matches_a_hand_worked_case() {
        let spread = spread(vec![9, 1, 2, 4, 4]);
        assert_eq!((spread.least, spread.median, spread.most), (1, 4, 9));
        assert_eq!(spread.mean, 4.0);
    }
}
