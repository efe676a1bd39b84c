//! Sub-centre ArcFace (Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy
//! Web Faces", ECCV 2020): an identity has several centres, and an embedding answers to the nearest.

use pfc_rows::margin::AngularMargin;
use tch::TchError;

use super::{Loss, Negatives, Target, TileCosines};
use crate::config::ArcfaceGradient;

/// ArcFace on `cos = max over k of cos_k`, of the K centres of a class, for positives and negatives alike.
/// A gradient reaches the nearest centre alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct SubcentreArcface {
    arcface: AngularMargin,
    k: usize,
}

impl SubcentreArcface {
    pub fn new(m: f64, k: usize, gradient: ArcfaceGradient) -> SubcentreArcface {
        SubcentreArcface { arcface: AngularMargin::Arcface { m, gradient }, k }
    }
}

impl Loss for SubcentreArcface {
    fn target(&self, _: usize, cosine: f64) -> Target {
        // The step has chosen the nearest of the positive's centres.
        self.arcface.target(cosine)
    }

    fn shapes_negatives(&self) -> bool {
        true
    }

    fn negatives(&self, tile: &TileCosines<'_>) -> Result<Negatives, TchError> {
        let cos_tg = tile.cosines()?;
        let (n_rows, n_samples) = cos_tg.size2()?;
        let k = self.k as i64;
        // N = classes of the tile, K = centres of each.
        let cos_nkg = cos_tg.f_view([n_rows / k, k, n_samples])?;
        let (nearest_n1g, which_n1g) = cos_nkg.f_max_dim(1, true)?;
        let of_classes = tile.by_class(self.k);
        let Negatives { slopes_tg: slopes_ng, sums_g, .. } =
            of_classes.exponentials_of(nearest_n1g.f_squeeze_dim(1)?, None)?;
        let slopes_nkg = slopes_ng
            .f_new_zeros([n_rows / k, k, n_samples], (slopes_ng.kind(), slopes_ng.device()))?
            .f_scatter(1, &which_n1g, &slopes_ng.f_unsqueeze(1)?)?;
        let slopes_tg = slopes_nkg.f_view([n_rows, n_samples])?;
        Ok(Negatives { slopes_tg, sums_g, parameter_sums_g: Vec::new() })
    }
}
