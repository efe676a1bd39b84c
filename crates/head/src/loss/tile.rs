//! The cosines of one tile of centres, and what a loss makes of them, in plain tensor operations.

// T = rows of one tile, G = global batch.

use tch::{Kind, TchError, Tensor};

use crate::{elements::to_f64, traffic};

/// The cosines of a tile.
#[derive(Debug, Clone, Copy)]
pub struct TileCosines<'a> {
    /// `[T, G]`, f32 or bf16: cosines of the tile's rows with the samples.
    pub cos_tg: &'a Tensor,
    /// Row of the tile and sample of each positive, which have no part in the negatives' sum.
    pub own: &'a [(usize, usize)],
    /// The same, where only the device knows it: `own` is empty then.
    pub(crate) own_there: Option<OwnThere<'a>>,
    /// `[G]` f32, taken off each sample's logits before the exponential; `None` for 0.
    pub offsets_g: Option<&'a Tensor>,
    /// The factor that turns cosines into logits.
    pub scale: f64,
    /// Cosine above which a negative counts as cosine 0 and passes nothing back; 0 for no such bound.
    pub filter: f64,
    /// Rows that stand for one class, for those of `own`: 1, or the number of its sub-centres when the
    /// values are by class.
    pub rows_of_class: usize,
}

/// Where each sample's own centre is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnThere<'a> {
    /// `[G]` i32, positions among the rows of the step.
    pub slots_g: &'a Tensor,
    /// Position of the tile's first row among them.
    pub first_slot: usize,
}

/// What takes the place of cosines, with the derivative.
#[derive(Debug)]
pub struct Shaped {
    /// `[T, G]` f32.
    pub values_tg: Tensor,
    /// `[T, G]` f32, derivative of each value by its cosine.
    pub slopes_tg: Tensor,
}

/// What became of a tile's negatives.
#[derive(Debug)]
pub struct Negatives {
    /// `[T, G]` in the format of the cosines: what [`SampleLoss::by_negatives`] turns into the derivative
    /// of the loss by the logit `s * cos`; 0 where no gradient flows to a negative.
    ///
    /// [`SampleLoss::by_negatives`]: super::SampleLoss::by_negatives
    pub slopes_tg: Tensor,
    /// `[G]`, what the tile adds to each sample's sum over the negatives.
    pub sums_g: Vec<f64>,
    /// `[G]`, what the tile adds to the derivative of each sample's sum by the loss's parameter; empty if it
    /// has none.
    pub parameter_sums_g: Vec<f64>,
}

impl Negatives {
    /// Those of a softmax: slopes, and their sums, `[G]`.
    pub(crate) fn of_softmax((slopes_tg, sums_g): (Tensor, Tensor)) -> Negatives {
        Negatives { slopes_tg, sums_g: to_f64(&sums_g), parameter_sums_g: Vec::new() }
    }
}

impl<'a> TileCosines<'a> {
    /// The same tile for values that are one for each `rows_of_class` rows.
    #[must_use]
    pub fn by_class(&self, rows_of_class: usize) -> TileCosines<'a> {
        TileCosines { rows_of_class, ..*self }
    }

    /// The cosines in f32, cut to `[-1, 1]`, those of filtered negatives being 0.
    ///
    /// Beyond 1 there is only rounding. The cut takes the gradient off there, which is not worth a mask:
    /// at cosine 1 the rest of the gradient, across the row, is of the rounding's size.
    ///
    /// # Errors
    ///
    /// That of libtorch if memory runs out, here and below.
    pub fn cosines(&self) -> Result<Tensor, TchError> {
        let mut cos_tg = self.cos_tg.f_to_kind(Kind::Float)?;
        if cos_tg.data_ptr() == self.cos_tg.data_ptr() {
            // f32 already, which the caller still needs.
            cos_tg = self.cos_tg.f_clamp(-1.0, 1.0)?;
        } else {
            let _ = cos_tg.f_clamp_(-1.0, 1.0)?;
        }
        if self.filter > 0.0 {
            let noise_tg = cos_tg.f_gt(self.filter)?;
            let _ = cos_tg.f_masked_fill_(&noise_tg, 0.0)?;
        }
        Ok(cos_tg)
    }

    /// Sums of `exp(s * cos - offset)`, on whatever device the cosines are. Those in f32 are overwritten
    /// where there is no filter, as most heads have it: no memory is taken then.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn exponentials(&self) -> Result<Negatives, TchError> {
        Ok(Negatives::of_softmax(self.exponentials_there()?))
    }

    /// The same, left where the cosines are: `[T, G]` as [`Negatives::slopes_tg`], and the sums, `[G]` f32.
    ///
    /// # Errors
    ///
    /// As above.
    pub(crate) fn exponentials_there(&self) -> Result<(Tensor, Tensor), TchError> {
        if self.filter > 0.0 || self.cos_tg.kind() != Kind::Float {
            return self.slopes_and_sums(self.cosines()?, None);
        }
        let mut cos_tg = self.cos_tg.shallow_clone();
        let _ = cos_tg.f_clamp_(-1.0, 1.0)?;
        self.slopes_and_sums(cos_tg, None)
    }

    /// Sums of `exp(s * value - offset)`.
    ///
    /// * `values_tg`: `[T, G]` f32, in place of the cosines; it is overwritten
    /// * `slopes_tg`: `[T, G]` f32, derivative of each by its cosine; `None` for 1
    ///
    /// # Errors
    ///
    /// As above.
    pub fn exponentials_of(
        &self,
        values_tg: Tensor,
        slopes_tg: Option<&Tensor>,
    ) -> Result<Negatives, TchError> {
        Ok(Negatives::of_softmax(self.slopes_and_sums(values_tg, slopes_tg)?))
    }

    fn slopes_and_sums(
        &self,
        values_tg: Tensor,
        slopes_tg: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor), TchError> {
        let mut exp_tg = values_tg;
        let _ = exp_tg.f_mul_scalar_(self.scale)?;
        if let Some(offsets_g) = self.offsets_g {
            let _ = exp_tg.f_sub_(offsets_g)?;
        }
        let _ = exp_tg.f_exp_()?;
        self.leave_out_own(&exp_tg)?;
        let sums_g = column_sums(&exp_tg)?;
        if let Some(slopes_tg) = slopes_tg {
            let _ = exp_tg.f_mul_(slopes_tg)?;
        }
        self.leave_out_noise(&exp_tg)?;
        Ok((exp_tg.f_to_kind(self.cos_tg.kind())?, sums_g))
    }

    /// Sums of values that are no exponentials; the tensors are overwritten.
    ///
    /// * `values_tg`: `[T, G]` f32, what each negative adds to its sample
    /// * `slopes_tg`: `[T, G]` f32, the derivative of each by its logit
    /// * `by_parameter_tg`: `[T, G]` f32, the derivative of each by a parameter of the loss, if it has one
    ///
    /// # Errors
    ///
    /// As above.
    pub fn sums_of(
        &self,
        values_tg: Tensor,
        slopes_tg: Tensor,
        by_parameter_tg: Option<&Tensor>,
    ) -> Result<Negatives, TchError> {
        self.leave_out_own(&values_tg)?;
        self.leave_out_own(&slopes_tg)?;
        let sums_g = to_f64(&column_sums(&values_tg)?);
        let parameter_sums_g = match by_parameter_tg {
            Some(by_parameter_tg) => {
                self.leave_out_own(by_parameter_tg)?;
                to_f64(&column_sums(by_parameter_tg)?)
            }
            None => Vec::new(),
        };
        self.leave_out_noise(&slopes_tg)?;
        let slopes_tg = slopes_tg.f_to_kind(self.cos_tg.kind())?;
        Ok(Negatives { slopes_tg, sums_g, parameter_sums_g })
    }

    /// Puts 0 in the place of the positives.
    fn leave_out_own(&self, values_tg: &Tensor) -> Result<(), TchError> {
        if let Some(OwnThere { slots_g, first_slot }) = self.own_there {
            let n_rows = values_tg.size()[0];
            let at_1g = slots_g.f_to_kind(Kind::Int64)?.f_add_scalar(-(first_slot as i64))?;
            let at_1g = at_1g.f_unsqueeze(0)?;
            let is_elsewhere_1g = at_1g.f_lt(0)?.f_logical_or(&at_1g.f_ge(n_rows)?)?;
            let at_1g = at_1g.f_clamp(0, n_rows - 1)?;
            // Any number of the sample's column stays as it is where its own centre is in another tile.
            let kept_1g = values_tg.f_gather(0, &at_1g, false)?;
            let kept_1g = kept_1g.f_where_self(&is_elsewhere_1g, &kept_1g.f_zeros_like()?)?;
            return values_tg.shallow_clone().f_scatter_(0, &at_1g, &kept_1g).map(drop);
        }
        if self.own.is_empty() {
            return Ok(());
        }
        let n_samples = self.cos_tg.size()[1];
        let place = |&(row, sample): &(usize, usize)| {
            (row / self.rows_of_class) as i64 * n_samples + sample as i64
        };
        let own: Vec<i64> = self.own.iter().map(place).collect();
        let own = traffic::upload(&own, values_tg.device())?;
        values_tg.f_view(-1)?.f_index_fill_(0, &own, 0.0).map(drop)
    }

    /// A filtered negative stays in the sum as cosine 0 and passes nothing back.
    fn leave_out_noise(&self, slopes_tg: &Tensor) -> Result<(), TchError> {
        if self.filter <= 0.0 {
            return Ok(());
        }
        let noise_tg = self.cos_tg.f_to_kind(Kind::Float)?.f_gt(self.filter)?;
        slopes_tg.shallow_clone().f_masked_fill_(&noise_tg, 0.0).map(drop)
    }
}

/// `[G]` f32, sums over the rows of a tile.
fn column_sums(values_tg: &Tensor) -> Result<Tensor, TchError> {
    values_tg.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)
}
