//! Images that show too little.

use pfc_cli::number::{not_negative, within};
use pfc_findings::{Action, Decision};

use super::Signature;
use crate::clean::{Pass, Work};

/// Bounds of the passes small, blurred, blank and aspect.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct FlagOptions {
    /// small: least side in pixels of a picture that held the same detail, before it was enlarged
    #[arg(long, value_name = "PIXELS", default_value_t = 16)]
    min_detail: u16,
    /// blurred: least variance of the Laplacian of the luma
    #[arg(long, value_name = "X", default_value_t = 5.0, value_parser = not_negative::<f32>)]
    min_sharpness: f32,
    /// blank: least standard deviation of the luma, in grey levels
    #[arg(long, value_name = "X", default_value_t = 10.0, value_parser = not_negative::<f32>)]
    min_contrast: f32,
    /// aspect: least ratio of the sides of what lies within flat borders
    #[arg(long, value_name = "X", default_value_t = 0.5, value_parser = within(0.0..=1.0f32))]
    min_aspect: f32,
}

impl FlagOptions {
    /// As arguments.
    pub fn stated(&self) -> Vec<String> {
        vec![
            format!("--min-detail={}", self.min_detail),
            format!("--min-sharpness={}", self.min_sharpness),
            format!("--min-contrast={}", self.min_contrast),
            format!("--min-aspect={}", self.min_aspect),
        ]
    }
}

/// Drops the images that `pass` finds wanting; pinned ones stay.
pub fn flags(
    work: &Work<'_>,
    signatures: &[Option<Signature>],
    pass: Pass,
    options: &FlagOptions,
) -> Vec<Decision> {
    let judge = |s: &Signature| match pass {
        Pass::Small => ("too_small", f32::from(s.detail), f32::from(options.min_detail)),
        Pass::Blurred => ("blurred", s.quality.sharpness, options.min_sharpness),
        Pass::Blank => ("blank", s.quality.contrast, options.min_contrast),
        _ => ("extreme_aspect", s.aspect, options.min_aspect),
    };
    let of_row = |(row, signature): (u64, &Option<Signature>)| {
        let (reason, score, least) = judge(signature.as_ref()?);
        let is_bad = score < least && !work.state.is_dropped(row) && !work.state.is_pinned(row);
        let drop = || Decision::new(row, work.own_label(row), Action::Drop, reason);
        is_bad.then(|| drop().scored(score, least))
    };
    (0..).zip(signatures).filter_map(of_row).collect()
}
