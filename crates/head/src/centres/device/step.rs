//! A step that is handed over as a whole: the host knows labels and rows, and waits for nothing.

// G = batch, D = embedding, S = rows of the step, T = rows of one tile.

use tch::{Kind, TchError, Tensor};

use super::{
    DeviceStore,
    ops::{Embeddings, Losses, OwnCentres, Pulls, Reading, RowKeys, RowSteps, Rows, Terms},
};
use crate::{
    centres::{CentreStore, Tiling},
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
    /// Learning rate.
    pub lr: f64,
    /// `[G]`, the row of each sample's class.
    pub labels_g: &'a [u64],
    /// Those rows, ascending, each once.
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
    /// `[G, D]` f32, on the device: the gradient by the embeddings.
    pub gradient_gd: Tensor,
    pub figures: Box<dyn Reading>,
}

impl DeviceStore {
    /// Hands all of a step over: the draw, loss, gradient by the embeddings, and the move of the centres, which
    /// the device leaves out if loss or embeddings are not finite. The rule has to be told of the step when
    /// the figures are there and let centres move, and before that no other step is handed over.
    ///
    /// * `embeddings_gd`: `[G, D]`, any device and kind
    pub(crate) fn hand_over(
        &self,
        embeddings_gd: &Tensor,
        step: &DeviceStep<'_>,
    ) -> Result<HandedOver, TchError> {
        let device = self.device();
        let embeddings = self.normalised(embeddings_gd, step.config)?;
        let missed = self.table.missed(step.rule)?;
        traffic::hand_over(1);
        let rows_s = match step.drawn {
            Drawn::Plan(plan) => self.ops.draw(plan, step.positives, device)?,
            Drawn::Rows(rows) => {
                let rows: Vec<i64> = rows.iter().map(|&row| row.into()).collect();
                traffic::upload(&rows, device)?
            }
        };
        let labels: Vec<i64> = step.labels_g.iter().map(|&row| row as i64).collect();
        let rows_g = self.table.rows(traffic::upload(&labels, device)?, missed);
        traffic::hand_over(1);
        let own = self.ops.own_centres(&rows_g, &embeddings.unit_gd, &rows_s)?;
        let step_rows = Rows { rows_t: rows_s, ..rows_g };
        let mut pass = Pass::new((self, step), step_rows, (&embeddings, &own))?;
        let (sums_g, weighted_gd) = pass.forward()?;
        let terms = Terms {
            sums_g: &sums_g,
            cosines_g: &own.cosines_g,
            lengths_g: &embeddings.lengths_g,
            margin: step.margin,
            scale: step.config.scale,
            weight: step.weight,
        };
        traffic::hand_over(2);
        let losses = self.ops.losses(&terms)?;
        // Before the pass backwards, so that they are there early.
        let figures = self.ops.read(&losses.figures)?;
        let gradients = self.ops.gradients(&weighted_gd, (&embeddings, &own), &losses)?;
        pass.backward(&gradients.operand_gd, &losses)?;
        Ok(HandedOver { gradient_gd: gradients.embeddings_gd, figures })
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
        let row_bytes = step.labels_g.len() * operand_gd.kind().elt_size_in_bytes();
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
            Tensor::f_zeros([self.step.labels_g.len() as i64], (Kind::Double, unit_gd.device()))?;
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
        let mut own: Vec<(i64, i32)> =
            self.step.labels_g.iter().zip(0..).map(|(&row, sample)| (row as i64, sample)).collect();
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
