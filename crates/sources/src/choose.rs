//! What an input is, and the source that reads it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use pfc_recordio::{MAGIC, RecordPaths};

use crate::{
    bin::BinSource,
    error::SourceError,
    folder::FolderSource,
    kind::InputKind,
    list::{self, ListSource, is_stdin},
    recordio::RecordSource,
    shards,
    source::Source,
    table::{self, TableSource},
    tar::{self, TarSource},
};

/// How the input is to be read; flattened into the commands that read one.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct InputOptions {
    /// What RAW is; found out from its name and first bytes if not given
    ///
    /// A folder is RecordIO if it holds train.rec, shards if it holds .tar, .tar.gz or .tar.zst
    /// files, tables if it holds .parquet or .arrow files, and else identity folders. A file is told
    /// by its first bytes, and where these say nothing by its name: .rec, .tar(.gz|.zst), .parquet,
    /// .arrow, .bin; .txt, .tsv, .lst, .list and .csv are lists, as is `-`, standard input. What can
    /// be taken for two things is an error that asks for this option.
    #[arg(long, value_enum)]
    from: Option<InputKind>,
    /// Folder that the paths of a list start from; by default that of the list itself
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
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
    let kind = decide(raw, options.from)?;
    if options.root.is_some() && kind != InputKind::List {
        return Err(SourceError::RootWithoutList { kind });
    }
    tracing::info!("{} is read as {}", raw.display(), kind.describe());
    Ok(match kind {
        InputKind::Folder => Box::new(FolderSource::open(raw)?),
        InputKind::Recordio => Box::new(RecordSource::open(&record_paths(raw)?, quiet)?),
        InputKind::List => Box::new(ListSource::open(raw, options.root.as_deref())?),
        InputKind::Tar => Box::new(TarSource::open(raw, scratch, quiet)?),
        InputKind::Parquet => Box::new(TableSource::open(raw, scratch, quiet)?),
        InputKind::Bin => Box::new(BinSource::open(raw)?),
    })
}

fn record_paths(raw: &Path) -> Result<RecordPaths, SourceError> {
    if let Some(paths) = RecordPaths::find(raw) {
        return Ok(paths);
    }
    if raw.is_dir() {
        let what = "train.rec";
        return Err(SourceError::NoShards { path: raw.to_path_buf(), what });
    }
    let idx = Some(raw.with_extension("idx")).filter(|idx| idx.is_file());
    Ok(RecordPaths { rec: raw.to_path_buf(), idx, property: None })
}

/// What `raw` is, by the user's word if there is one, and else by itself.
fn decide(raw: &Path, said: Option<InputKind>) -> Result<InputKind, SourceError> {
    let contradiction = |what: String| SourceError::Contradiction { path: raw.to_path_buf(), what };
    if is_stdin(raw) {
        return match said {
            None | Some(InputKind::List) => Ok(InputKind::List),
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
            Some(kind) => Ok(kind),
            None => of_folder(raw),
        };
    }
    if shards::is_pattern(raw) {
        return Ok(said.or_else(|| by_name(raw)).unwrap_or(InputKind::Tar));
    }
    if !raw.exists() {
        return Err(SourceError::NotThere { path: raw.to_path_buf() });
    }
    // A pipe, as a shell's <(command) is: looking at its first bytes would take them away.
    if !raw.is_file() {
        return Ok(said.unwrap_or(InputKind::List));
    }
    let by_content = by_content(raw).map_err(SourceError::at("read", raw))?;
    let (sayer, first) = match said {
        Some(said) => ("--from", Some(said)),
        None => ("its name", by_name(raw)),
    };
    match (first, by_content) {
        (Some(a), Some(b)) if a != b => {
            let [a, b] = [a, b].map(InputKind::describe);
            Err(contradiction(format!("{sayer} says {a}, and its first bytes say {b}")))
        }
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) => Err(SourceError::Unknown { path: raw.to_path_buf() }),
    }
}

fn of_folder(raw: &Path) -> Result<InputKind, SourceError> {
    if RecordPaths::find(raw).is_some() {
        return Ok(InputKind::Recordio);
    }
    let mut has_folders = false;
    let mut found = [(InputKind::Tar, None), (InputKind::Parquet, None)];
    for entry in raw.read_dir().map_err(SourceError::at("list", raw))? {
        let entry = entry.map_err(SourceError::at("list", raw))?;
        let (name, path) = (entry.file_name(), entry.path());
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let file_type = entry.file_type().map_err(SourceError::at("look at", &path))?;
        if file_type.is_dir() || file_type.is_symlink() && path.is_dir() {
            has_folders = true;
            continue;
        }
        for (kind, example) in &mut found {
            // The first by name, so that the message does not depend on the order of the listing.
            if by_name(&path) == Some(*kind) && example.as_ref().is_none_or(|e| name < *e) {
                *example = Some(name.clone());
            }
        }
    }
    let mut found = found.into_iter().filter_map(|(kind, example)| Some((kind, example?)));
    let (first, second) = (found.next(), found.next());
    let ambiguous =
        |what: String| Err(SourceError::Contradiction { path: raw.to_path_buf(), what });
    match (first, second) {
        (None, _) => Ok(InputKind::Folder),
        (Some((kind, _)), None) if !has_folders => Ok(kind),
        (Some((_, a)), None) => {
            let a = a.to_string_lossy();
            ambiguous(format!("it holds both folders and {a}: which of them is to be packed?"))
        }
        (Some((_, a)), Some((_, b))) => {
            let (a, b) = (a.to_string_lossy(), b.to_string_lossy());
            ambiguous(format!("it holds both {a} and {b}: which of them is to be packed?"))
        }
    }
}

/// What the name of a file promises.
fn by_name(path: &Path) -> Option<InputKind> {
    let has = |endings: &[&str]| shards::has_ending(path, endings);
    match () {
        () if has(&[".rec"]) => Some(InputKind::Recordio),
        () if has(tar::ENDINGS) => Some(InputKind::Tar),
        () if has(table::ENDINGS) => Some(InputKind::Parquet),
        () if has(list::ENDINGS) => Some(InputKind::List),
        () if has(&[".bin"]) => Some(InputKind::Bin),
        () => None,
    }
}

/// What the first bytes of a file are, where they are those of one kind alone.
fn by_content(path: &Path) -> io::Result<Option<InputKind>> {
    let mut head = Vec::with_capacity(512);
    File::open(path)?.take(512).read_to_end(&mut head)?;
    Ok(match &head[..] {
        head if head.starts_with(&MAGIC) => Some(InputKind::Recordio),
        [b'P', b'A', b'R', b'1', ..]
        | [b'A', b'R', b'R', b'O', b'W', b'1', ..]
        | [0xff, 0xff, 0xff, 0xff, ..] => Some(InputKind::Parquet),
        head if head.get(257..262) == Some(b"ustar") => Some(InputKind::Tar),
        // A pickle of a protocol that names itself.
        [0x80, 2..=5, ..] => Some(InputKind::Bin),
        _ => None,
    })
}
