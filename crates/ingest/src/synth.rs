//! `pfc-ingest synth`: the command line of `pfc-synth`.

use std::path::PathBuf;

use anyhow::Context;
use pfc_cli::{Format, Outcome, print_json, print_table, table, units::count};
use pfc_synth::{Noise, Summary, SynthError, World};

use crate::threads::Threads;

/// Make a folder of procedural faces to try things with.
///
/// Writes 112x112 JPEGs, a folder per person, named and numbered as LFW's are. The identity decides the shape
/// of the head and of all features, colours, hair, and the texture of the skin; pose, expression, light,
/// camera, background and covered parts change from image to image. Identities come in families of three that
/// look alike. The same seed gives the same bytes, and the first identities and images stay the same when
/// more are asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest synth faces --identities 100 --images-per-identity 20
  pfc-ingest synth dirty --identities 100 --images-per-identity 20 \\
      --noise mislabelled=0.02,duplicated=0.03,junk=0.01,split=0.02 \\
      --holdout 40 --hidden 10
  pfc-ingest synth demo --identities 200 --images-per-identity 20 --holdout 40 --pairs 1000

With --holdout the images lie in OUT/train and OUT/test. OUT/synth.json tells the truth about
injected noise; OUT/pairs.txt has the form of LFW's, over OUT/test if there is one.")]
pub struct SynthArgs {
    /// Folder to make
    out: PathBuf,
    /// Number of identities
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    identities: u64,
    /// Images of each identity
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=9_999))]
    images_per_identity: u64,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Spoil this share of the images: one number for each kind, or kind=share,...
    ///
    /// Kinds: mislabelled (shows someone else), duplicated (an image once more, its bytes or
    /// re-encoded), corrupt (cut short, empty, header broken, or text), junk (blank, tiny or a strip),
    /// and split, a share of the people: half of their images under another name. Held-out people
    /// are spared.
    #[arg(long, value_name = "SHARE")]
    noise: Option<Noise>,
    /// Number of further identities, in a folder of their own, for tests
    #[arg(long, value_name = "M", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    holdout: u64,
    /// Number of held-out people that also occur among the others, under other names
    #[arg(long, value_name = "N", default_value_t = 0)]
    hidden: u64,
    /// Write a list of this many verification pairs, a multiple of 20
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pairs: Option<u64>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(args: &SynthArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let out = args.out.display();
    let summary = make(args, quiet).with_context(|| format!("cannot make `{out}`"))?;
    if args.format.json {
        print_json(&summary)?;
    } else {
        print(&summary)?;
    }
    Ok(Outcome::Clean)
}

fn make(args: &SynthArgs, quiet: bool) -> anyhow::Result<Summary> {
    let world = World {
        seed: args.seed,
        identities: args.identities,
        holdout: args.holdout,
        images: args.images_per_identity,
        hidden: args.hidden,
    };
    if args.hidden > args.holdout {
        let what = format!("{} people cannot be hidden of {}", args.hidden, args.holdout);
        let hint = "hold at least as many out with --holdout";
        return Err(SynthError::Arguments { what, hint }.into());
    }
    let noise = args.noise.unwrap_or_default();
    let pool = args.threads.pool()?;
    Ok(pool.install(|| pfc_synth::write(&args.out, world, noise, args.pairs, quiet))?)
}

/// Prints the table.
///
/// # Errors
///
/// That of a closed standard output.
fn print(summary: &Summary) -> std::io::Result<()> {
    let mut table = table(["made", ""]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("images", count(summary.images));
    row("identities", count(summary.identities));
    row("held-out identities", count(summary.holdout_identities));
    for (kind, n) in [
        ("mislabelled", summary.mislabelled),
        ("duplicated", summary.duplicated),
        ("corrupt", summary.corrupt),
        ("junk", summary.junk),
        ("split identities", summary.split_identities),
        ("hidden identities", summary.hidden_identities),
    ] {
        if n > 0 {
            row(kind, count(n));
        }
    }
    row("pairs", count(summary.pairs));
    row("seconds", format!("{:.1}", summary.seconds));
    row("images/s", count(summary.images_per_second as u64));
    print_table(&table)
}
