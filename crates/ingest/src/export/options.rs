//! The options of the single formats. One that a format has no use for is refused, not ignored.

use std::path::PathBuf;

use pfc_recordio::Style;

use super::{RowOrder, Target, names::safe_part};
use crate::IngestError;

/// Bytes at which a tar or Parquet file is closed, unless told otherwise.
const DEFAULT_SHARD_MIB: u64 = 256;

/// The options as given.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Formats")]
pub struct FormatOptions {
    /// Order of the images: by label, or by row of the data set, which is a shuffle
    ///
    /// webdataset and parquet take `row` unless told otherwise, as their readers go forwards;
    /// recordio does with --sequential. The other formats are by label.
    #[arg(long, value_enum)]
    order: Option<RowOrder>,
    /// webdataset, parquet: size at which a file is closed and the next begun [default: 256]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    shard_mib: Option<u64>,
    /// webdataset, parquet: first part of file names, as in NAME-000000.tar [default: train]
    #[arg(long, value_name = "NAME", value_parser = file_name)]
    name: Option<String>,
    /// recordio: write images with one label each and keys from 0, as DALI and im2rec do, and no
    /// identity records as InsightFace does
    #[arg(long)]
    sequential: bool,
    /// bin: number of random pairs, in ten folds; half of the pairs of a fold show one person, and no
    /// person is in two folds where there are 20 or more
    #[arg(long, value_name = "N", conflicts_with = "pairs_file")]
    pairs: Option<u64>,
    /// bin: the pairs in FILE, lines `PATH PATH 1|0` of sources, or LFW's pairs.txt
    #[arg(long, value_name = "FILE")]
    pairs_file: Option<PathBuf>,
    /// bin: seed of the random pairs [default: 0]
    #[arg(long, value_name = "N", requires = "pairs")]
    seed: Option<u64>,
}

/// The options as they apply.
pub struct Checked {
    pub order: RowOrder,
    pub style: Style,
    pub shards: Shards,
    pub pairs: Pairs,
}

/// How tar and Parquet files are called and how large they get.
pub struct Shards {
    pub name: String,
    pub bytes_max: u64,
}

/// Where the pairs of a pack come from.
pub enum Pairs {
    Random { n: u64, seed: u64 },
    File(PathBuf),
}

impl FormatOptions {
    /// Holds the options against the format.
    ///
    /// # Errors
    ///
    /// [`IngestError::Options`].
    pub fn checked(&self, to: Target) -> Result<Checked, IngestError> {
        use Target::*;
        let is_sharded = matches!(to, Webdataset | Parquet);
        let is_sequential = to == Recordio && self.sequential;
        self.check_use("--shard-mib", self.shard_mib.is_some(), is_sharded, to)?;
        self.check_use("--name", self.name.is_some(), is_sharded, to)?;
        self.check_use("--sequential", self.sequential, to == Recordio, to)?;
        self.check_use("--pairs", self.pairs.is_some(), to == Bin, to)?;
        self.check_use("--pairs-file", self.pairs_file.is_some(), to == Bin, to)?;
        let by_row = self.order == Some(RowOrder::Row);
        self.check_use("--order row", by_row, is_sharded || is_sequential, to)?;
        let default = if is_sharded || is_sequential { RowOrder::Row } else { RowOrder::Label };
        Ok(Checked {
            order: self.order.unwrap_or(default),
            style: if self.sequential { Style::Sequential } else { Style::Identities },
            shards: Shards {
                name: self.name.clone().unwrap_or_else(|| "train".into()),
                bytes_max: self.shard_mib.unwrap_or(DEFAULT_SHARD_MIB) << 20,
            },
            pairs: self.pairs(to)?,
        })
    }

    fn check_use(
        &self,
        option: &str,
        given: bool,
        is_of_use: bool,
        to: Target,
    ) -> Result<(), IngestError> {
        if !given || is_of_use {
            return Ok(());
        }
        let what = format!("{option} has no meaning for `--to {}`", to.name());
        let hint = match (option, to) {
            ("--order row", Target::Recordio) => "identity records need the order of labels; add \
                                                  --sequential for a file without them"
                .into(),
            _ => {
                format!("leave {option} out; `pfc-ingest export --help` says what it is for").into()
            }
        };
        Err(IngestError::Options { what, hint })
    }

    fn pairs(&self, to: Target) -> Result<Pairs, IngestError> {
        match (self.pairs, &self.pairs_file) {
            (_, Some(path)) => Ok(Pairs::File(path.clone())),
            (Some(n), None) => Ok(Pairs::Random { n, seed: self.seed.unwrap_or(0) }),
            (None, None) if to != Target::Bin => Ok(Pairs::Random { n: 0, seed: 0 }),
            (None, None) => Err(IngestError::Options {
                what: "a pack holds pairs, and neither --pairs nor --pairs-file is given".into(),
                hint: "add `--pairs 6000` for random pairs, or `--pairs-file pairs.txt`".into(),
            }),
        }
    }
}

fn file_name(text: &str) -> Result<String, String> {
    if safe_part(text) != text || text.starts_with('.') || text.contains(['{', '}', '*', '?']) {
        return Err("expected the beginning of a file's name, without a path".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_have_no_path_and_no_pattern() {
        assert_eq!(file_name("train-v2"), Ok("train-v2".into()));
        for bad in ["", ".", "..", "a/b", "../a", ".a", "a{0..3}", "a*", "a\n"] {
            assert!(file_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn orders_follow_from_the_format_unless_given() {
        let order = |to, sequential| {
            let options = FormatOptions { sequential, pairs: None, ..FormatOptions::default() };
            options.checked(to).unwrap().order
        };
        assert_eq!(order(Target::Recordio, false), RowOrder::Label);
        assert_eq!(order(Target::Recordio, true), RowOrder::Row);
        assert_eq!(order(Target::Parquet, false), RowOrder::Row);
        assert_eq!(order(Target::List, false), RowOrder::Label);
    }

    #[test]
    fn an_option_of_another_format_is_refused() {
        let refused = |options: FormatOptions, to| options.checked(to).err().unwrap().to_string();
        let options = FormatOptions { shard_mib: Some(1), ..FormatOptions::default() };
        assert_eq!(
            refused(options, Target::Folder),
            "--shard-mib has no meaning for `--to folder`"
        );
        let options = FormatOptions { order: Some(RowOrder::Row), ..FormatOptions::default() };
        assert_eq!(
            refused(options, Target::Recordio),
            "--order row has no meaning for `--to recordio`"
        );
        assert!(refused(FormatOptions::default(), Target::Bin).contains("neither --pairs"));
    }
}
