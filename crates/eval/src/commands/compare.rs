//! Two faces, one number.

use std::path::PathBuf;

use anyhow::Context;
use pfc_cli::Outcome;
use pfc_model::{Embed, Embedder, ModelError};
use pfc_verify::VerifyError;
use serde::Serialize;

use super::model::ModelArgs;
use crate::{
    faces::{Faces, IMAGE_BYTES_MAX, warn_of_changes},
    files::read_regular_file,
};

/// Compare two aligned faces: the cosine of their embeddings
///
/// 1 is the same direction, 0 unrelated. Embeddings of each face and of its mirror image are summed,
/// as in the verification protocols. A threshold that fits the model is in the table of
/// `pfc-eval lfw`, as squared distance: cosine = 1 − distance / 2.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-eval compare a.jpg b.jpg --model run.ckpt
  pfc-eval compare a.jpg b.jpg --model w600k_r50.onnx --json")]
pub struct CompareArgs {
    /// An aligned face
    left: PathBuf,
    /// Another
    right: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Leave the mirror images out
    #[arg(long)]
    no_flip: bool,
    #[command(flatten)]
    format: pfc_cli::Format,
}

#[derive(Debug, Serialize)]
struct Report {
    left: String,
    right: String,
    model: String,
    flip: bool,
    cosine: f64,
}

/// Runs `pfc-eval compare`.
///
/// # Errors
///
/// [`EvalError`](crate::EvalError) with context.
pub fn compare(args: &CompareArgs) -> anyhow::Result<Outcome> {
    use std::io::Write;
    let paths = [&args.left, &args.right];
    let read = |i: usize| read_regular_file(paths[i], IMAGE_BYTES_MAX);
    let faces = Faces::load(2, read, |i| paths[i].display().to_string())?;
    warn_of_changes("compare", faces.changes());
    let embedder = args
        .model
        .open()
        .with_context(|| format!("cannot open the model `{}`", args.model.model.display()))?;
    let rgb = faces.rgb(0..2);
    let unusable = |image: usize, what| VerifyError::Unusable {
        model: args.model.model.display().to_string(),
        image: paths[image].display().to_string(),
        what,
    };
    let rows = rows(&embedder, &rgb, !args.no_flip).map_err(|error| match error {
        ModelError::EmbeddingNotFinite { image, .. } => unusable(image, "not finite"),
        other => other.into(),
    })?;
    if let Some(image) = rows.iter().position(|row| row.iter().all(|value| *value == 0.0)) {
        return Err(unusable(image, "zero and has no direction").into());
    }
    let [left, right] = rows;
    let report = Report {
        left: args.left.display().to_string(),
        right: args.right.display().to_string(),
        model: args.model.model.display().to_string(),
        flip: !args.no_flip,
        cosine: cosine(&left, &right),
    };
    if args.format.json {
        pfc_cli::print_json(&report)?;
    } else {
        writeln!(pfc_cli::stdout(), "{:.6}", report.cosine)?;
    }
    Ok(Outcome::Clean)
}

/// The embeddings of two faces.
fn rows(embedder: &Embedder, rgb: &[u8], flip: bool) -> Result<[Vec<f32>; 2], ModelError> {
    let rows = if flip {
        let both = embedder.embed_with_mirror(rgb, 2)?;
        both.original.iter().zip(&both.mirrored).map(|(a, b)| a + b).collect()
    } else {
        embedder.embed(rgb, 2)?
    };
    let (left, right) = rows.split_at(embedder.embedding());
    Ok([left.to_vec(), right.to_vec()])
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_ignores_lengths() {
        assert_eq!(cosine(&[3.0, 0.0], &[0.5, 0.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert!((cosine(&[1.0, 1.0], &[1.0, 0.0]) - 0.5f64.sqrt()).abs() < 1e-15);
    }
}
