//! How much of an input may be left out before somebody has to look at it.

use pfc_cli::{Outcome, units};

/// The option of commands that leave images out.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct LossArgs {
    /// Exit with code 1 if more than this share of the images, in percent, is left out
    ///
    /// The result is complete all the same, and its quarantine.jsonl has the reason of each image.
    #[arg(long, value_name = "PERCENT", default_value_t = 10,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    max_left_out: u8,
}

impl LossArgs {
    /// Whether so many images were left out that somebody has to look at it; says so.
    pub fn judge(self, kept: u64, left_out: u64) -> Outcome {
        let (total, percent_max) = (kept + left_out, self.max_left_out);
        if u128::from(left_out) * 100 <= u128::from(total) * u128::from(percent_max) {
            return Outcome::Clean;
        }
        tracing::warn!(
            "{} of {} ({:.1} %) left out is more than --max-left-out {percent_max} %: exit code 1",
            units::count(left_out),
            units::of(total, "image"),
            left_out as f64 * 100.0 / total as f64,
        );
        Outcome::Findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_judged_by_all_images() {
        let judge = |max_left_out, kept, left_out| {
            LossArgs { max_left_out }.judge(kept, left_out) == Outcome::Clean
        };
        assert!(judge(10, 90, 10) && !judge(10, 89, 11));
        assert!(judge(10, 9, 1) && !judge(0, 1_000_000, 1));
        assert!(judge(0, 5, 0) && !judge(0, u64::MAX / 2, 1));
        assert!(judge(100, 0, 7) && judge(10, 0, 0));
    }
}
