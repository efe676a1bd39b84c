//! Two faces, one number.

use std::path::PathBuf;

use anyhow::Context;
use pfc_cli::{Outcome, number::within};
use pfc_detect::DetectorArgs;
use pfc_model::{Embed, Embedder, ModelError};
use pfc_verify::VerifyError;
use serde::Serialize;

use super::model::ModelArgs;
use crate::{
    faces::{Faces, IMAGE_BYTES_MAX, warn_of_changes, warn_of_unfound},
    files::read_regular_file,
};

/// Compare two aligned faces, or with --detector two photographs: the cosine of their embeddings
///
/// 1 is the same direction, 0 unrelated. Embeddings of each face and of its mirror image are summed,
/// as in the verification protocols. A threshold that fits the model is in the table of
/// `pfc-eval lfw`, as squared distance: cosine = 1 − distance / 2. With --threshold the exit code says
/// whether the faces are taken for one person.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-eval compare a.jpg b.jpg --model run.ckpt
  pfc-eval compare a.jpg b.jpg --model run.ckpt --threshold 0.35 && echo \"the same person\"
  pfc-eval compare a.jpg b.jpg --model w600k_r50.onnx --json
  pfc-eval compare me.jpg you.jpg --model r50.onnx --detector face_detection_yunet_2023mar.onnx")]
pub struct CompareArgs {
    /// An aligned face, or a photograph
    left: PathBuf,
    /// Another
    right: PathBuf,
    #[command(flatten)]
    detector: DetectorArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Take the faces for one person from this cosine on, and end with exit code 1 below it
    #[arg(long, value_name = "COSINE", value_parser = within(-1.0..=1.0f64), allow_negative_numbers = true)]
    threshold: Option<f64>,
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
    /// As given.
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    /// Whether the cosine is not below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    same: Option<bool>,
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
    let finder = args.detector.open(2).map_err(VerifyError::from)?;
    let faces = Faces::load_with(finder.as_ref(), 2, read, |i| paths[i].display().to_string())?;
    warn_of_changes("compare", faces.changes());
    warn_of_unfound("compare", &faces);
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
    let cosine = cosine(&left, &right);
    let same = args.threshold.map(|threshold| cosine >= threshold);
    let report = Report {
        left: args.left.display().to_string(),
        right: args.right.display().to_string(),
        model: args.model.model.display().to_string(),
        flip: !args.no_flip,
        cosine,
        threshold: args.threshold,
        same,
    };
    if args.format.json {
        pfc_cli::print_json(&report)?;
    } else {
        let verdict = match same {
            Some(true) => "  one person",
            Some(false) => "  different people",
            None => "",
        };
        writeln!(pfc_cli::stdout(), "{cosine:.6}{verdict}")?;
    }
    Ok(if same == Some(false) { Outcome::Findings } else { Outcome::Clean })
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
