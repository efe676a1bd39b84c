//! Exponentials of one tile's logits, in plain tensor operations.

// T = rows of one tile, G = global batch.

use tch::{Kind, TchError, Tensor};

use crate::elements::to_f64;

/// The cosines of a tile and what turns them into exponentials.
#[derive(Debug)]
pub struct Logits<'a> {
    /// `[T, G]`, f32 or bf16: cosines of the tile's rows with the samples.
    pub cos_tg: &'a Tensor,
    /// Row of the tile and sample of each positive, which have no part in the negatives' sum.
    pub own: &'a [(usize, usize)],
    /// `[G]` f32, taken off each sample's logits; `None` for 0.
    pub offsets_g: Option<&'a Tensor>,
    /// The factor that turns cosines into logits.
    pub scale: f64,
    /// Cosine above which a negative counts as cosine 0 and passes nothing back; 0 for no such bound.
    pub filter: f64,
}

/// What became of them.
#[derive(Debug)]
pub struct Exponentials {
    /// `[T, G]` in the format of the cosines: `exp(s * cos - offset)`, 0 where no gradient flows to
    /// a negative.
    pub exp_tg: Tensor,
    /// `[G]`, their sums over the tile's negatives.
    pub sums_g: Vec<f64>,
}

impl Logits<'_> {
    /// Takes the exponentials on whatever device the cosines are.
    ///
    /// # Errors
    ///
    /// That of libtorch if memory runs out.
    pub fn exponentials(&self) -> Result<Exponentials, TchError> {
        let (kind, n_samples) = (self.cos_tg.kind(), self.cos_tg.size()[1]);
        let mut exp_tg = self.cos_tg.f_to_kind(Kind::Float)?;
        // Beyond 1 there is only rounding. The clamp cuts the gradient off there, which is not worth
        // a mask: at cosine 1 the rest of the gradient, across the row, is of the rounding's size.
        let _ = exp_tg.f_clamp_(-1.0, 1.0)?;
        let noise_tg = (self.filter > 0.0).then(|| exp_tg.gt(self.filter));
        if let Some(noise_tg) = &noise_tg {
            let _ = exp_tg.f_masked_fill_(noise_tg, 0.0)?;
        }
        let _ = exp_tg.f_mul_scalar_(self.scale)?;
        if let Some(offsets_g) = self.offsets_g {
            let _ = exp_tg.f_sub_(offsets_g)?;
        }
        let _ = exp_tg.f_exp_()?;
        if !self.own.is_empty() {
            let own_tg: Vec<i64> = self
                .own
                .iter()
                .map(|&(row, sample)| row as i64 * n_samples + sample as i64)
                .collect();
            let own_tg = Tensor::from_slice(&own_tg).f_to_device(exp_tg.device())?;
            let _ = exp_tg.f_view(-1)?.f_index_fill_(0, &own_tg, 0.0)?;
        }
        let sums_g = to_f64(&exp_tg.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)?);
        if let Some(noise_tg) = &noise_tg {
            // It stays in the sum as cosine 0 and passes nothing back.
            let _ = exp_tg.f_masked_fill_(noise_tg, 0.0)?;
        }
        Ok(Exponentials { exp_tg: exp_tg.f_to_kind(kind)?, sums_g })
    }
}
