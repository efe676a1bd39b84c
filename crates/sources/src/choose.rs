//! The options of an input, and the source that reads it.

use std::path::{Path, PathBuf};

use crate::{
    bin::BinSource,
    catalogue::People,
    columns::ColumnChoice,
    error::SourceError,
    file::{exists, is_file},
    folder::{FolderSource, Parts},
    in_order::InOrder,
    kind::InputKind,
    list::{ListSource, is_stdin},
    look::{self, Look, by_content, by_name},
    recordio::{Damaged, RecordSource},
    shards,
    source::Source,
    table::TableSource,
    tar::TarSource,
};

/// How the input is to be read; flattened into the commands that read one.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct InputOptions {
    /// What RAW is; found out from its name and first bytes if not given
    ///
    /// A folder is RecordIO if it holds .rec files (train.rec alone, if that is there), shards if it
    /// holds .tar, .tar.gz or .tar.zst files, tables if it holds .parquet or .arrow files, the same
    /// of the one folder in it that holds such files, as the folder `data` of a data set of Hugging
    /// Face, and else identity folders. A file is told by its first bytes, and where these say
    /// nothing by its name: .rec, .tar(.gz|.zst), .parquet, .arrow, .bin; .txt, .tsv, .lst, .list and
    /// .csv are lists, as is `-`, standard input. What can be taken for two things is an error that
    /// asks for this option.
    #[arg(long, value_enum)]
    from: Option<InputKind>,
    /// Folder that the paths of a list start from; by default that of the list itself
    ///
    /// With it all images lie below the folder: a path that leads out of it is left out. Without it
    /// the list says where they are.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Columns of a list or table, as in `image=file_name,label=class`
    ///
    /// The keys are image, label and identity. The columns are named as in the header or the schema;
    /// those of a list without a header are numbered from 1, as in `image=2,label=3`. Without this
    /// option columns are found by the names that are usual, and what was taken is printed.
    #[arg(long, value_name = "KEY=COLUMN,…")]
    columns: Option<ColumnChoice>,
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
        if self.root.is_some() && kind != List {
            return Err(SourceError::RootWithoutList { kind });
        }
        if self.salvage && !matches!(kind, Recordio | Tar) {
            return Err(SourceError::SalvageOfOther { kind });
        }
        if self.join_parts && kind != Folder {
            let (option, what) = ("--join-parts", "identity folders");
            return Err(SourceError::OptionOfOther { option, what, kind });
        }
        if self.columns.is_some() && !matches!(kind, List | Parquet) {
            let (option, what) = ("--columns", "lists and tables");
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
    open_look(decide(raw, options.from)?, options, scratch, quiet, People::Needed)
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
    let look = match decide(raw, options.from) {
        // Lists of benchmarks have any name.
        Err(SourceError::Unknown { path }) => match look::is_text(&path)? {
            true => Look { path, kind: InputKind::List },
            false => return Err(SourceError::Unknown { path }),
        },
        look => look?,
    };
    let kind = look.kind;
    Ok(InOrder::of(open_look(look, options, scratch, quiet, People::Optional)?, kind))
}

fn open_look(
    Look { path, kind }: Look,
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
    Ok(match kind {
        InputKind::Folder => Box::new(FolderSource::open(&path, parts, people)?),
        InputKind::Recordio => Box::new(RecordSource::open(&path, damaged, people, quiet)?),
        InputKind::List => {
            Box::new(ListSource::open(&path, options.root.as_deref(), &columns, people)?)
        }
        InputKind::Tar => Box::new(TarSource::open(&path, scratch, damaged, people, quiet)?),
        InputKind::Parquet => Box::new(TableSource::open(&path, scratch, &columns, people, quiet)?),
        InputKind::Bin => Box::new(BinSource::open(&path, people)?),
    })
}

/// What `raw` is, by the user's word if there is one, and else by itself.
fn decide(raw: &Path, said: Option<InputKind>) -> Result<Look, SourceError> {
    let here = |kind| Look { path: raw.to_path_buf(), kind };
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
            Some(kind) => Ok(here(kind)),
            None => look::folder(raw),
        };
    }
    if shards::is_pattern(raw) {
        let first = || shards::files(raw, &[], "files").map(|files| files.into_iter().next());
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
