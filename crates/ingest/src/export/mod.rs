//! `pfc-ingest export`: a data set in the formats of other tools.

mod bin;
mod folder;
pub mod names;
mod options;
mod pairs;
mod parquet;
mod recordio;
mod select;
mod summary;
mod webdataset;

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use clap::ValueEnum;
use pfc_cli::{Format, Outcome, print_json, units};
use pfc_durable::{FolderError, OwnedDir};
use pfc_sources::is_read_as_it_is;

use crate::{IngestError, output, reading::ReadArgs, threads::Threads};

use options::FormatOptions;
use select::{Feed, Item, RowOrder, SelectArgs, Selection};
use summary::{Summary, Written};

/// Write a data set, or a selection of it, in a format of other tools.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest export data faces --to folder
  pfc-ingest export data test --to folder --split 0/10
  pfc-ingest export data rec --to recordio --split 1-9/10
  pfc-ingest export data tars --to webdataset --shard-mib 512
  pfc-ingest export data hf --to parquet --identities people.txt --keep-labels
  pfc-ingest export data lfw.bin --to bin --pairs-file pairs.txt
  pfc-ingest export data val.bin --to bin --pairs 6000 --split 0/10 --seed 1

Images that decisions leave out stay behind, and labels are those of the decisions, unless
--as-packed is given. Images leave byte for byte as they were packed; every shard is held against
its checksum before it is used, and every image against its hash. OUT appears once it is complete,
and nothing that exists is overwritten. Labels number the selected identities from 0 in the order of
the data set, so that without a selection they stay the same.

The slashes of an identity's name become folders. So that no name leads out of OUT, `.`, `..`
and empty parts get a `_` in front, control characters and backslashes become `_`, and parts of
more than 200 bytes are cut and end in their hash; of two files of one name the second gets `-2`.
Names that `pack` would pass over or read otherwise, as `.x`, `nan` or `3.0`, get a `_` in front as
well, and a folder inside that of another identity gets `_` for `/`; identities.tsv in OUT then says
what all of them are called. All that is written can be packed again (docs/inputs.md).

The same data set and options give the same bytes, whatever the number of threads. Memory: 8
bytes per selected image and 21 per identity, for folders and lists 250 per identity.")]
pub struct ExportArgs {
    /// Folder that `pack` wrote
    dataset: PathBuf,
    /// Folder to write, or file for `bin`; it must not exist, or be an empty folder
    out: PathBuf,
    /// Format to write
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Target,
    #[command(flatten)]
    reading: ReadArgs,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    options: FormatOptions,
}

/// A format to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// OUT/NAME/FILE.jpg, files called as their sources were.
    Folder,
    /// OUT/images/NAME/FILE.jpg, OUT/list.tsv with a line `path<TAB>label` for each, and identities.tsv.
    List,
    /// OUT/train.rec, train.idx and property as MXNet and InsightFace have them, and identities.tsv.
    #[value(alias = "rec")]
    Recordio,
    /// OUT/train-000000.tar … with KEY.jpg, KEY.cls (the label) and KEY.json for each image.
    #[value(alias = "wds")]
    Webdataset,
    /// OUT/data/train-00000-of-00001.parquet … as Hugging Face `datasets` reads images.
    Parquet,
    /// OUT is InsightFace's verification pack: pairs of images, and whether each is of one person; the
    /// names, for which it has no place, are in OUT.identities.tsv.
    Bin,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Folder => "folder",
            Target::List => "list",
            Target::Recordio => "recordio",
            Target::Webdataset => "webdataset",
            Target::Parquet => "parquet",
            Target::Bin => "bin",
        }
    }
}

/// Runs the command.
pub fn run(args: &ExportArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let summary = export(args, quiet).with_context(|| format!("cannot export `{dir}`"))?;
    if args.format.json {
        print_json(&summary)?;
    } else {
        summary.print()?;
    }
    warn(&summary);
    Ok(Outcome::Clean)
}

fn export(args: &ExportArgs, quiet: bool) -> Result<Summary, IngestError> {
    let started = Instant::now();
    let options = args.options.checked(args.to)?;
    args.threads.pool()?.install(|| {
        let owned = claim(args)?;
        let view = args.reading.open(&args.dataset)?.checked();
        let selection = Selection::new(&view, &args.select, options.order)?;
        let feed = Feed::new(&view, &selection, quiet);
        if matches!(args.to, Target::Webdataset | Target::Parquet) {
            warn_of_names(&feed);
        }
        let begin = || owned.begin();
        let written = match args.to {
            Target::Folder => folder::write(&feed, begin()?, folder::List::Without),
            Target::List => folder::write(&feed, begin()?, folder::List::With),
            Target::Recordio => recordio::write(&feed, begin()?, options.style),
            Target::Webdataset => webdataset::write(&feed, begin()?, &options.shards),
            Target::Parquet => parquet::write(&feed, begin()?, &options.shards),
            Target::Bin => bin::write(&feed, &args.out, &options.pairs),
        }?;
        Ok(Summary::new(args.to.name(), written, started.elapsed()))
    })
}

/// Claims the folder to write, or the file, which is locked in the same way.
fn claim(args: &ExportArgs) -> Result<OwnedDir, IngestError> {
    let owned = output::claim(&[&args.dataset], &args.out)?;
    if args.to == Target::Bin {
        if args.out.is_dir() {
            // A file cannot take the place of a folder, not even of an empty one.
            return Err(FolderError::Taken { folder: args.out.clone() }.into());
        }
        pfc_durable::sweep(&args.out)?;
    }
    Ok(owned)
}

/// Says which names are read otherwise by `pack`, and by most that read tables, than they are written.
fn warn_of_names(feed: &Feed<'_>) {
    let mut names = feed.identities().map(|(_, name)| name).filter(|name| !is_read_as_it_is(name));
    let Some(first) = names.next() else { return };
    tracing::warn!(
        "names of identities that are read as a number or as nobody's from what is written, such as \
         `{}`: {}; --to folder, list and recordio keep them",
        first.escape_debug(),
        1 + names.count()
    );
}

fn warn(summary: &Summary) {
    if summary.renamed_identities > 0 {
        let n = summary.renamed_identities;
        tracing::warn!("identities whose folder has another name, as theirs is not safe: {n}");
    }
    if summary.renamed_files > 0 {
        let n = units::of(summary.renamed_files, "file");
        tracing::warn!("{n} got another name: theirs was taken or not safe");
    }
    if summary.rounded_ranges > 0 {
        let n = summary.rounded_ranges;
        tracing::warn!(
            "identity records with a bound that float32 rounds, so that readers of ranges see an \
             image of a neighbour: {n}; labels are right"
        );
    }
}
