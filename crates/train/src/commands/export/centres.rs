//! The class centres of a checkpoint as a matrix.

use std::{ops::Range, path::PathBuf};

use anyhow::Context;
use pfc_cli::{Outcome, print_json, print_table, table};
use pfc_durable::AtomicDir;
use pfc_head::ClassRange;
use pfc_model::centres::CentreWriter;
use serde::Serialize;

use super::{ExportArgs, To, go_on};
use crate::{
    TrainError,
    checkpoint::centres::{CHUNK_ROWS, Centres},
};

/// What was written of the centres.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The file, or the folder of the files.
    pub(super) path: String,
    pub(super) files: usize,
    pub(super) centres: u64,
    pub(super) embedding: usize,
}

/// Runs `pfc-train export --centres`.
pub(super) fn export(args: &ExportArgs) -> anyhow::Result<Outcome> {
    let context = || format!("cannot export the centres of `{}`", args.model.display());
    if args.to != To::Pth {
        args.replace.check(&default_file(args)).with_context(context)?;
    }
    write(args).with_context(context)?.print(args)
}

impl Report {
    pub(super) fn print(&self, args: &ExportArgs) -> anyhow::Result<Outcome> {
        if args.format.json {
            print_json(self)?;
            return Ok(Outcome::Clean);
        }
        let mut out = table(["path", "files", "centres", "embedding"]);
        out.add_row([
            self.path.clone(),
            self.files.to_string(),
            self.centres.to_string(),
            self.embedding.to_string(),
        ]);
        print_table(&out)?;
        Ok(Outcome::Clean)
    }
}

/// The file of the centres as one matrix.
fn default_file(args: &ExportArgs) -> PathBuf {
    args.out.clone().unwrap_or_else(|| args.model.with_extension("centres.safetensors"))
}

fn write(args: &ExportArgs) -> Result<Report, TrainError> {
    let mut centres = Centres::open(&args.model, args.centres_in.as_deref())?;
    let (n_rows, dim) = (centres.n_rows(), centres.dim());
    let mut copy = |mut writer: CentreWriter, rows: Range<u64>| -> Result<(), TrainError> {
        for first in rows.clone().step_by(CHUNK_ROWS as usize) {
            go_on(first, n_rows)?;
            let some = centres.read(first..(first + CHUNK_ROWS).min(rows.end))?;
            writer.append(&some, dim)?;
        }
        Ok(writer.finish()?)
    };
    let world = usize::from(args.ranks);
    let path = match args.to {
        To::Pth => {
            let path = args.out.clone().unwrap_or_else(|| args.model.with_extension("centres"));
            let folder = AtomicDir::create(&path)?;
            for rank in 0..world {
                let own = ClassRange::of_rank(n_rows, rank, world).ids();
                let file = folder.path().join(format!("softmax_fc_gpu_{rank}.pt"));
                copy(CentreWriter::torch(&file, own.end - own.start, dim)?, own)?;
            }
            folder.commit()?;
            path
        }
        _ => {
            let path = default_file(args);
            copy(CentreWriter::safetensors(&path, n_rows, dim)?, 0..n_rows)?;
            path
        }
    };
    let path = path.display().to_string();
    Ok(Report { path, files: world, centres: n_rows, embedding: dim })
}
