//! A step that is handed over as a whole: the host knows labels and rows, and waits for nothing. Ranks join what
//! their devices find where it is, by collectives in the order of what these do.

// G = batch of all ranks, D = embedding, S = rows of the step, T = rows of one tile, O = samples whose class
// is on this rank.

use tch::{Kind, TchError, Tensor};

use super::{
    DeviceStore,
    ops::{
        Embeddings, Gradients, Losses, OwnCentres, Pulls, Reading, RowKeys, RowSteps, Rows, Terms,
    },
};
use crate::{
    HeadError,
    centres::{CentreStore, Tiling},
    comm::Communicator,
    config::HeadConfig,
    loss::{AngularMargin, OwnThere, TileCosines},
    optim::UpdateRule,
    product::add_product,
    sampling::DrawPlan,
    traffic,
};

/// What decides a step beside the embeddings.
pub(crate) struct DeviceStep<'a> {
    pub config: &'a HeadConfig,
    pub margin: &'a AngularMargin,
    pub rule: &'a dyn UpdateRule,
    /// Number of the step, for errors.
    pub step: u64,
    /// Learning rate.
    pub lr: f64,
    /// `[G]`, the row of each sample's class; none where another rank has it.
    pub rows_g: &'a [Option<u32>],
    /// Images of each rank.
    pub rows_of_rank: &'a [usize],
    /// What a plan was made with.
    pub positives: &'a [u64],
    pub drawn: Drawn<'a>,
    /// What each drawn negative counts for.
    pub weight: f64,
}

/// The rows of a step.
#[derive(Clone, Copy)]
pub(crate) enum Drawn<'a> {
    /// The device draws them by itself.
    Plan(&'a DrawPlan),
    /// Strictly ascending.
    Rows(&'a [u32]),
}

/// A step that the device has yet to do.
pub(crate) struct HandedOver {
    /// `[B, D]` f32, on the device: the gradient by this rank's embeddings.
    pub gradient_bd: Tensor,
    pub figures: Box<dyn Reading>,
}

impl DeviceStore {
    /// Hands all of a step over: the draw, loss, gradient by the embeddings, and the move of the centres, which
    /// the device leaves out if loss or embeddings are not finite. The rule has to be told of the step when
    /// the figures are there and let centres move, and before that no other step is handed over.
    ///
    /// * `embeddings_gd`: `[G, D]`, any device and kind
    /// * `comm`: exchanges on this device
    ///
    /// # Errors
    ///
    /// [`HeadError::Torch`] and [`HeadError::Comm`].
    pub(crate) fn hand_over(
        &self,
        embeddings_gd: &Tensor,
        step: &DeviceStep<'_>,
        comm: &mut dyn Communicator,
    ) -> Result<HandedOver, HeadError> {
        let failed = || HeadError::torch("hand a step over to the device");
        let embeddings = self.normalised(embeddings_gd, step.config).map_err(failed())?;
        let rows = self.rows_of(step).map_err(failed())?;
        let own = self.own_centres(&rows, &embeddings, step).map_err(failed())?;
        let samples = (&embeddings, &own);
        let mut pass = Pass::new((self, step), rows, samples).map_err(failed())?;
        let (sums_g, weighted_gd) = pass.forward().map_err(failed())?;
        let (sums_g, cosines_g) = of_all_ranks(&sums_g, &own.cosines_g, step.step, comm)?;
        let terms = Terms {
            sums_g: &sums_g,
            cosines_g: &cosines_g,
            lengths_g: &embeddings.lengths_g,
            margin: step.margin,
            scale: step.config.scale,
            weight: step.weight,
        };
        traffic::hand_over(2);
        let losses = self.ops.losses(&terms).map_err(failed())?;
        // Before the pass backwards, so that they are there early.
        let figures = self.ops.read(&losses.figures).map_err(failed())?;
        let Gradients { embeddings_gd, operand_gd } =
            self.ops.gradients(&weighted_gd, samples, &losses).map_err(failed())?;
        // From this rank's centres alone. What the normalisation makes of a sum is the sum of what it makes of
        // the parts.
        let sum = match comm.world() {
            1 => None,
            _ => Some(
                comm.begin_reduce_scatter_rows(&embeddings_gd, step.rows_of_rank)
                    .map_err(HeadError::comm(step.step, "gradients"))?,
            ),
        };
        // Centres move while the gradients are on their way.
        pass.backward(&operand_gd, &losses).map_err(failed())?;
        let gradient_bd = match sum {
            None => embeddings_gd,
            Some(sum) => sum().map_err(HeadError::comm(step.step, "gradients"))?,
        };
        Ok(HandedOver { gradient_bd, figures })
    }

    /// The rows of the step.
    fn rows_of(&self, step: &DeviceStep<'_>) -> Result<Rows, TchError> {
        let (device, missed) = (self.device(), self.table.missed(step.rule)?);
        traffic::hand_over(1);
        let rows_s = match step.drawn {
            Drawn::Plan(plan) => self.ops.draw(plan, step.positives, device)?,
            Drawn::Rows(rows) => {
                let rows: Vec<i64> = rows.iter().map(|&row| row.into()).collect();
                traffic::upload(&rows, device)?
            }
        };
        Ok(self.table.rows(rows_s, missed))
    }

    /// The centres of the samples; zeros, with a place among no rows, of those that other ranks have.
    fn own_centres(
        &self,
        rows: &Rows,
        embeddings: &Embeddings,
        step: &DeviceStep<'_>,
    ) -> Result<OwnCentres, TchError> {
        let (device, unit_gd) = (self.device(), &embeddings.unit_gd);
        let here =
            step.rows_g.iter().zip(0i64..).filter_map(|(row, sample)| Some(((*row)?, sample)));
        let (rows_o, samples_o): (Vec<i64>, Vec<i64>) =
            here.map(|(row, sample)| (i64::from(row), sample)).unzip();
        let rows_of = |rows_t| Rows { rows_t, ..rows.handle() };
        if rows_o.len() == step.rows_g.len() {
            let rows_g = rows_of(traffic::upload(&rows_o, device)?);
            traffic::hand_over(1);
            return self.ops.own_centres(&rows_g, unit_gd, &rows.rows_t);
        }
        traffic::hand_over(3);
        let n_samples = step.rows_g.len() as i64;
        let mut all = OwnCentres {
            unit_gd: unit_gd.f_zeros_like()?,
            cosines_g: Tensor::f_zeros([n_samples], (Kind::Double, device))?,
            slots_g: Tensor::f_full([n_samples], -1i64, (Kind::Int, device))?,
        };
        if rows_o.is_empty() {
            return Ok(all);
        }
        let samples_o = traffic::upload(&samples_o, device)?;
        let rows_o = rows_of(traffic::upload(&rows_o, device)?);
        traffic::hand_over(5);
        let unit_od = unit_gd.f_index_select(0, &samples_o)?;
        let own = self.ops.own_centres(&rows_o, &unit_od, &rows.rows_t)?;
        let _ = all.unit_gd.f_index_copy_(0, &samples_o, &own.unit_gd)?;
        let _ = all.cosines_g.f_index_copy_(0, &samples_o, &own.cosines_g)?;
        let _ = all.slots_g.f_index_copy_(0, &samples_o, &own.slots_g)?;
        Ok(all)
    }

    fn normalised(
        &self,
        embeddings_gd: &Tensor,
        config: &HeadConfig,
    ) -> Result<Embeddings, TchError> {
        let raw_gd = traffic::to_device(embeddings_gd, self.device())?;
        traffic::hand_over(1 + u64::from(raw_gd.kind() != Kind::Float));
        self.ops.normalise(&raw_gd.f_to_kind(Kind::Float)?.f_contiguous()?, config.precision.kind())
    }
}

/// Sums of the negatives' exponentials, and cosines with own centres, `[G]` f64 each, over the centres of all
/// ranks.
fn of_all_ranks(
    sums_g: &Tensor,
    cosines_g: &Tensor,
    step: u64,
    comm: &mut dyn Communicator,
) -> Result<(Tensor, Tensor), HeadError> {
    if comm.world() == 1 {
        return Ok((sums_g.shallow_clone(), cosines_g.shallow_clone()));
    }
    traffic::hand_over(2);
    let n_samples = sums_g.size()[0];
    let both = Tensor::f_cat(&[sums_g, cosines_g], 0).map_err(HeadError::torch("join sums"))?;
    let both = comm.all_reduce_there(&both).map_err(HeadError::comm(step, "sums"))?;
    Ok((both.narrow(0, 0, n_samples), both.narrow(0, n_samples, n_samples)))
}

/// A few of the step's rows.
struct Tile {
    rows: Rows,
    first_slot: usize,
    n_rows: i64,
    /// Whether its exponentials are kept for the pass backwards.
    keeps: bool,
    /// `[T, G]`, once they are there.
    exponentials_tg: Option<Tensor>,
}

/// Both passes over the rows of a step.
struct Pass<'a> {
    store: &'a DeviceStore,
    step: &'a DeviceStep<'a>,
    embeddings: &'a Embeddings,
    own: &'a OwnCentres,
    tiles: Vec<Tile>,
    /// For the unit rows of a tile, or their gradient, `[T, D]` in the products' format.
    buffer_td: Tensor,
}

impl<'a> Pass<'a> {
    fn new(
        (store, step): (&'a DeviceStore, &'a DeviceStep<'a>),
        rows: Rows,
        (embeddings, own): (&'a Embeddings, &'a OwnCentres),
    ) -> Result<Pass<'a>, TchError> {
        let operand_gd = &embeddings.operand_gd;
        let row_bytes = step.rows_g.len() * operand_gd.kind().elt_size_in_bytes();
        let Tiling { tile_rows, kept_bytes } = store.tiling(step.config, row_bytes);
        let n_kept = kept_bytes / (tile_rows * row_bytes).max(1);
        let n_rows = rows.rows_t.size()[0] as usize;
        let tile = |(t, first_slot): (usize, usize)| {
            let n_rows = tile_rows.min(n_rows - first_slot) as i64;
            let rows_t = rows.rows_t.narrow(0, first_slot as i64, n_rows);
            let rows = Rows { rows_t, ..rows.handle() };
            Tile { rows, first_slot, n_rows, keeps: t < n_kept, exponentials_tg: None }
        };
        let tiles = (0..n_rows).step_by(tile_rows).enumerate().map(tile).collect();
        let shape = [tile_rows.min(n_rows) as i64, step.config.dim as i64];
        let buffer_td = Tensor::f_empty(shape, (operand_gd.kind(), operand_gd.device()))?;
        Ok(Pass { store, step, embeddings, own, tiles, buffer_td })
    }

    /// Sums of the negatives' exponentials, `[G]` f64, and unit rows weighted by them, `[G, D]` f32.
    fn forward(&mut self) -> Result<(Tensor, Tensor), TchError> {
        let unit_gd = &self.embeddings.unit_gd;
        traffic::hand_over(2);
        let mut sums_g =
            Tensor::f_zeros([self.step.rows_g.len() as i64], (Kind::Double, unit_gd.device()))?;
        let mut weighted_gd = unit_gd.f_zeros_like()?;
        for t in 0..self.tiles.len() {
            let (unit_td, exponentials_tg, of_tile_g) = self.exponentials(t)?;
            traffic::hand_over(1);
            let _ = sums_g.f_add_(&of_tile_g)?;
            add_product(&mut weighted_gd, &exponentials_tg.tr(), &unit_td)?;
            let tile = &mut self.tiles[t];
            tile.exponentials_tg = tile.keeps.then_some(exponentials_tg);
        }
        Ok((sums_g, weighted_gd))
    }

    /// Unit rows, `[T, D]`, exponentials of their cosines, `[T, G]`, and the sums of these, `[G]` f64.
    fn exponentials(&self, t: usize) -> Result<(Tensor, Tensor, Tensor), TchError> {
        let (tile, ops) = (&self.tiles[t], &self.store.ops);
        let unit_td = self.buffer_td.narrow(0, 0, tile.n_rows);
        // Rows, cosines, exponentials with the sums of each stretch, and those over all of these.
        traffic::hand_over(4);
        ops.unit_rows(&tile.rows, &unit_td)?;
        let cos_tg = unit_td.f_matmul(&self.embeddings.operand_gd.tr())?;
        let cosines = TileCosines {
            cos_tg: &cos_tg,
            own: &[],
            own_there: Some(OwnThere { slots_g: &self.own.slots_g, first_slot: tile.first_slot }),
            offsets_g: None,
            scale: self.step.config.scale,
            filter: self.step.config.interclass_filter,
            rows_of_class: 1,
        };
        let (exponentials_tg, sums_g) = ops.exponentials(&cosines)?;
        Ok((unit_td, exponentials_tg, sums_g))
    }

    /// Gradients of the rows, and their move.
    ///
    /// * `weighted_gd`: `[G, D]` in the products' format, unit embeddings times their factors
    fn backward(mut self, weighted_gd: &Tensor, losses: &Losses) -> Result<(), TchError> {
        let (store, rule) = (self.store, self.step.rule);
        // In the order of their rows.
        let here = self.step.rows_g.iter().zip(0i32..);
        let mut own: Vec<(i64, i32)> =
            here.filter_map(|(row, sample)| Some((i64::from((*row)?), sample))).collect();
        own.sort_unstable();
        let rows_o: Vec<i64> = own.iter().map(|&(row, _)| row).collect();
        let samples_o: Vec<i32> = own.iter().map(|&(_, sample)| sample).collect();
        let pulls = Pulls {
            rows_o: &traffic::upload(&rows_o, store.device())?,
            samples_o: &traffic::upload(&samples_o, store.device())?,
            slopes_g: &losses.slopes_g,
            unit_embeddings_gd: &self.embeddings.unit_gd,
        };
        for t in 0..self.tiles.len() {
            let exponentials_tg = match self.tiles[t].exponentials_tg.take() {
                Some(exponentials_tg) => exponentials_tg,
                None => self.exponentials(t)?.1,
            };
            let tile = &self.tiles[t];
            let as_negatives_td = self.buffer_td.narrow(0, 0, tile.n_rows);
            traffic::hand_over(2);
            let _ = exponentials_tg.f_mm_out(&as_negatives_td, weighted_gd)?;
            let steps = RowSteps {
                as_negatives_td: &as_negatives_td,
                pulls: &pulls,
                motion: &rule.motion(self.step.lr),
                keys: RowKeys(store.frame.rounding_base(rule.stamp_after())),
                stamp_after: rule.stamp_after(),
                figures: Some(&losses.figures),
            };
            store.ops.update(&tile.rows, &steps)?;
        }
        Ok(())
    }
}
