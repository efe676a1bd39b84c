//! Images that show too little.

use pfc_findings::{Action, Decision};

use super::Signature;
use crate::Work;

/// A property that an image may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// Pixels: the image was enlarged from a small one.
    Small,
    /// Detail.
    Blurred,
    /// Contrast.
    Blank,
    /// Width or height: the content of the image is a strip.
    Aspect,
}

/// The least that an image must have.
#[derive(Debug, Clone, Copy)]
pub struct FlagOptions {
    /// Side in pixels of the picture that the image was enlarged from, as its detail tells.
    pub min_detail: u16,
    /// Variance of the Laplacian of the luma.
    pub min_sharpness: f32,
    /// Standard deviation of the luma, in grey levels.
    pub min_contrast: f32,
    /// Ratio of the sides of what lies within flat borders.
    pub min_aspect: f32,
}

/// Drops the images that lack what `flag` is about; pinned ones stay.
pub fn flags(
    work: &Work<'_>,
    signatures: &[Option<Signature>],
    flag: Flag,
    options: &FlagOptions,
) -> Vec<Decision> {
    let judge = |s: &Signature| match flag {
        Flag::Small => ("too_small", f32::from(s.detail.get()), f32::from(options.min_detail)),
        Flag::Blurred => ("blurred", s.quality.sharpness, options.min_sharpness),
        Flag::Blank => ("blank", s.quality.contrast, options.min_contrast),
        Flag::Aspect => ("extreme_aspect", s.aspect, options.min_aspect),
    };
    let of_row = |(row, signature): (u64, &Option<Signature>)| {
        let (reason, score, least) = judge(signature.as_ref()?);
        let is_bad = score < least && !work.state.is_dropped(row) && !work.state.is_pinned(row);
        let drop = || Decision::new(row, work.own_label(row), Action::Drop, reason);
        is_bad.then(|| drop().scored(score, least))
    };
    (0..).zip(signatures).filter_map(of_row).collect()
}
