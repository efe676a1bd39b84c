//! The options of an input, and the source that reads it.

use std::path::{Path, PathBuf};

use crate::{
    bin::BinSource,
    catalogue::People,
    columns::ColumnChoice,
    error::SourceError,
    file::{exists, is_file},
    folder::FolderSource,
    folders::Parts,
    in_order::InOrder,
    kind::{InputKind, Look},
    list::{ListSource, is_stdin},
    lmdb,
    look::{self, by_content, by_name},
    recordio::{Damaged, RecordSource},
    shards,
    shelf::Wanted,
    source::Source,
    streams,
    table::{Place, TableSource},
    tar, tfrecord, zip,
};

/// How the input is to be read; flattened into the commands that read one.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct InputOptions {
    /// What RAW is; found out from its name and first bytes if not given
    ///
    /// A folder is RecordIO if it holds .rec files (train.rec alone, if that is there), shards if it
    /// holds .tar files, plain or compressed, archives if .zip files, tables if .parquet or .arrow
    /// files, TFRecord if .tfrecord files, LMDB if data.mdb, MDS or LitData if index.json and their
    /// files; a list if metadata.csv or metadata.jsonl in it says who is on its images; the same of the
    /// one folder in it that holds such files, as the folder `data` of a data set of Hugging Face; and
    /// else identity folders. A file is told by its first bytes, and where these say nothing by its
    /// name; .txt, .tsv, .lst, .list, .csv and .jsonl are lists, as is `-`, standard input. What can be
    /// taken for two things is an error that asks for this option.
    #[arg(long, value_enum)]
    from: Option<InputKind>,
    /// Folder that the paths of a list or table start from; by default that of the list itself
    ///
    /// With it all images lie below the folder: a path that leads out of it is left out. Without it
    /// the list says where they are.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Columns of a list or table, as in `image=file_name,label=class`
    ///
    /// The keys are image, label and identity (or id). The columns are named as in the header or the
    /// schema, the keys of lines of JSON and the features of TFRecord likewise; those of a list without
    /// a header are numbered from 1, as in `image=2,label=3`. Without this option columns are found by
    /// the names that are usual, and what was taken is printed.
    #[arg(long, value_name = "KEY=COLUMN,…")]
    columns: Option<ColumnChoice>,
    /// Splits of a data set to read, such as `train`; several are joined, and `all` is every one
    ///
    /// Splits are told by the names of files (`train-00000-of-00010.parquet`) and folders (`train/`). A
    /// data set with several is an error that names them unless this option says which.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    split: Vec<String>,
    /// Take identity folders of one name for one person, wherever they lie
    ///
    /// In `train/ann` and `val/ann`, or `batch1/ann` and `batch2/ann`, the same person is meant. An
    /// identity is then called by the last folder alone.
    #[arg(long)]
    join_parts: bool,
    /// Read what is whole in a damaged .rec or tar file, and list the damage
    ///
    /// The .idx of a .rec file is ignored: the records themselves say where they begin. Each damaged
    /// stretch is a line of the quarantine list. A compressed tar file is read up to the damage.
    #[arg(long)]
    salvage: bool,
}

impl InputOptions {
    /// The same options with another folder that the paths of a list start from.
    pub fn with_root(self, root: PathBuf) -> InputOptions {
        InputOptions { root: Some(root), ..self }
    }

    /// The arguments that decide what an input holds, for the manifest.
    pub fn content_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(columns) = &self.columns {
            arguments.push(format!("--columns={}", columns.text()));
        }
        if !self.split.is_empty() {
            arguments.push(format!("--split={}", self.split.join(",")));
        }
        if self.join_parts {
            arguments.push("--join-parts=true".into());
        }
        if self.salvage {
            arguments.push("--salvage=true".into());
        }
        arguments
    }

    /// Refuses options that say nothing about an input of this kind.
    fn check(&self, kind: InputKind) -> Result<(), SourceError> {
        use InputKind::*;
        if self.root.is_some() && !matches!(kind, List | Parquet) {
            return Err(SourceError::RootWithoutList { kind });
        }
        if self.salvage && !matches!(kind, Recordio | Tar) {
            return Err(SourceError::SalvageOfOther { kind });
        }
        if self.join_parts && !matches!(kind, Folder | Tar | Zip | Lmdb) {
            let (option, what) = ("--join-parts", "identity folders");
            return Err(SourceError::OptionOfOther { option, what, kind });
        }
        if self.columns.is_some() && !matches!(kind, List | Parquet | TfRecord | Mds | LitData) {
            let (option, what) = ("--columns", "lists, tables and records");
            return Err(SourceError::OptionOfOther { option, what, kind });
        }
        Ok(())
    }
}

/// Opens the source that `raw` is, on the current thread pool. Compressed images are unpacked to a
/// temporary file on the disk of the folder `scratch`.
///
/// # Errors
///
/// [`SourceError`] if it cannot be told what `raw` is, or it cannot be read.
pub fn open(
    raw: &Path,
    options: &InputOptions,
    scratch: &Path,
    quiet: bool,
) -> Result<Box<dyn Source + Send>, SourceError> {
    open_look(decide(raw, options)?, options, scratch, quiet, People::Needed)
}

/// Opens `raw` for its images alone, in its own order: as [`open`] does, but no image needs an identity.
/// They may lie anywhere in a folder, a list may hold paths alone, a sample, a row or a record may lack
/// its label, and every image of a verification pack counts.
///
/// # Errors
///
/// As [`open`].
pub fn open_images(
    raw: &Path,
    options: &InputOptions,
    scratch: &Path,
    quiet: bool,
) -> Result<InOrder, SourceError> {
    let look = match decide(raw, options) {
        // Lists of benchmarks have any name.
        Err(SourceError::Unknown { path }) => match look::is_text(&path)? {
            true => Look::of(&path, InputKind::List),
            false => return Err(SourceError::Unknown { path }),
        },
        look => look?,
    };
    let kind = look.kind;
    Ok(InOrder::of(open_look(look, options, scratch, quiet, People::Optional)?, kind))
}

fn open_look(
    Look { path, kind, files }: Look,
    options: &InputOptions,
    scratch: &Path,
    quiet: bool,
    people: People,
) -> Result<Box<dyn Source + Send>, SourceError> {
    options.check(kind)?;
    tracing::info!("{} is read as {}", path.display(), kind.describe());
    let damaged = if options.salvage { Damaged::Salvage } else { Damaged::Refuse };
    let parts = if options.join_parts { Parts::Joined } else { Parts::Apart };
    let columns = options.columns.clone().unwrap_or_default();
    let root = options.root.as_deref();
    let wanted = Wanted { people, parts, quiet };
    let name = || path.display().to_string();
    let chosen = Some(files).filter(|files| !files.is_empty());
    let files = |what: &'static str| match chosen.clone() {
        Some(files) => Ok(files),
        None => shards::files(&path, |path| by_name(path) == Some(kind), what),
    };
    Ok(match kind {
        InputKind::Folder => Box::new(FolderSource::open(&path, parts, people)?),
        InputKind::Recordio => Box::new(RecordSource::open(&path, chosen, damaged, people, quiet)?),
        InputKind::List => Box::new(ListSource::open(&path, root, &columns, people)?),
        InputKind::Tar => {
            let shards = files("shards (.tar, plain or compressed)")?;
            Box::new(tar::open(name(), shards, scratch, damaged, wanted)?)
        }
        InputKind::Zip => Box::new(zip::open(name(), files("archives (.zip)")?, wanted)?),
        InputKind::Parquet => {
            let tables = files("tables (.parquet or .arrow)")?;
            let place = Place { root, scratch };
            Box::new(TableSource::open(name(), tables, place, &columns, people, quiet)?)
        }
        InputKind::Bin => Box::new(BinSource::open(&path, people)?),
        InputKind::TfRecord => {
            let files = files("TFRecord files (.tfrecord)")?;
            Box::new(tfrecord::open(name(), files, scratch, &columns, wanted)?)
        }
        InputKind::Lmdb => Box::new(lmdb::open(&path, wanted)?),
        InputKind::Mds | InputKind::LitData => {
            Box::new(streams::open(&path, scratch, &columns, wanted)?)
        }
    })
}

/// What `raw` is, by the user's word if there is one, and else by itself.
fn decide(raw: &Path, options: &InputOptions) -> Result<Look, SourceError> {
    let (said, splits) = (options.from, &options.split[..]);
    let here = |kind| Look::of(raw, kind);
    let contradiction = |what: String| SourceError::Contradiction { path: raw.to_path_buf(), what };
    if is_stdin(raw) {
        return match said {
            None | Some(InputKind::List) => Ok(here(InputKind::List)),
            Some(other) => Err(contradiction(format!(
                "standard input is read as a list, and --from says {}",
                other.describe()
            ))),
        };
    }
    if raw.is_dir() {
        return match said {
            Some(kind @ (InputKind::List | InputKind::Bin)) => {
                let kind = kind.describe();
                Err(contradiction(format!(
                    "it is a folder, and --from says {kind}, which is a file"
                )))
            }
            Some(kind) if splits.is_empty() => Ok(here(kind)),
            Some(kind) => match look::folder(raw, splits)? {
                look if look.kind == kind => Ok(look),
                look => {
                    let [a, b] = [look.kind, kind].map(InputKind::describe);
                    Err(contradiction(format!("the split is {a}, and --from says {b}")))
                }
            },
            None => look::folder(raw, splits),
        };
    }
    if !splits.is_empty() {
        return Err(contradiction(
            "it is no folder, and --split chooses among what lies in one".into(),
        ));
    }
    if shards::is_pattern(raw) {
        let first = || shards::files(raw, |_| false, "files").map(|files| files.into_iter().next());
        return Ok(here(match said.or_else(|| by_name(raw)) {
            Some(kind) => kind,
            // An ending that is a pattern itself tells nothing; the first file does.
            None => first()?.map_or(Ok(InputKind::Tar), |first| file(&first, None))?,
        }));
    }
    if !exists(raw)? {
        return Err(SourceError::NotThere { path: raw.to_path_buf() });
    }
    // A pipe, as a shell's <(command) is: looking at its first bytes would take them away.
    if !is_file(raw)? {
        return Ok(here(said.unwrap_or(InputKind::List)));
    }
    file(raw, said).map(here)
}

/// What a file is.
fn file(raw: &Path, said: Option<InputKind>) -> Result<InputKind, SourceError> {
    let found = by_content(raw).map_err(SourceError::at("read", raw))?;
    if found.is_none()
        && said.is_none()
        && let Some(error) = look::other_file(raw).map_err(SourceError::at("read", raw))?
    {
        return Err(error);
    }
    let (sayer, first) = match said {
        Some(said) => ("--from", Some(said)),
        None => ("its name", by_name(raw)),
    };
    match (first, found) {
        (Some(a), Some(b)) if a != b => {
            let [a, b] = [a, b].map(InputKind::describe);
            let what = format!("{sayer} says {a}, and its first bytes say {b}");
            Err(SourceError::Contradiction { path: raw.to_path_buf(), what })
        }
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) => Err(SourceError::Unknown { path: raw.to_path_buf() }),
    }
}
