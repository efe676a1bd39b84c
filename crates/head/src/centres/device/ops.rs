//! What is done to rows and samples on a device, which tensor operations or the head's own kernels do. Nobody
//! waits for any of it but for what [`Reading`] gives.

// C = rows of the rank, D = embedding, N = numbers of a row's state, S = rows of the step, T = rows of one tile,
// G = global batch, O = positives among them, K = what rows may have missed.

use tch::{Device, Kind, TchError, Tensor};

use crate::{
    elements::to_f64,
    loss::{AngularMargin, Negatives, TileCosines},
    optim::{Motion, Stamp},
    sampling::DrawPlan,
    traffic,
};

/// Rows of a table, all on one device.
#[derive(Debug)]
pub(super) struct Rows {
    /// `[C, D]`, f32 or bf16.
    pub weight_cd: Tensor,
    /// `[C, N]`, f32 or bf16.
    pub state_cn: Tensor,
    /// `[C]` i32, when each last moved.
    pub stamps_c: Tensor,
    /// `[T]` i64, each once where they are written.
    pub rows_t: Tensor,
    /// `None` if no row can have missed anything.
    pub missed: Option<Missed>,
}

/// What rows have missed by the time they last moved.
#[derive(Debug)]
pub(super) struct Missed {
    /// `[K, 4]` f32, `ww, wv, vw, vv` of a row that was never touched, of one that is up to date, and then by
    /// the number of steps that were missed.
    pub maps_k4: Tensor,
    /// The stamp of a row that is up to date.
    pub now: Stamp,
}

/// What decides how rows are rounded: the 64 bits for the weight of a row are its number plus this,
/// scrambled; its state takes the next number.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowKeys(pub u64);

/// One step of a tile's rows.
pub(super) struct RowSteps<'a> {
    /// `[T, D]`, f32 or bf16: the gradient by the unit rows, from their part as negatives.
    pub as_negatives_td: &'a Tensor,
    pub pulls: &'a Pulls<'a>,
    pub motion: &'a Motion,
    pub keys: RowKeys,
    /// The stamp of a row that has had the step.
    pub stamp_after: Stamp,
    /// `[4]` f64, see [`Losses::figures`], which decide whether the rows move; `None` if they do.
    pub figures: Option<&'a Tensor>,
}

/// What samples add to the gradient of their own centres: each its slope times its unit embedding.
pub(super) struct Pulls<'a> {
    /// `[O]` i64, ascending: rows of the table, of this tile or others.
    pub rows_o: &'a Tensor,
    /// `[O]` i32, samples.
    pub samples_o: &'a Tensor,
    /// `[G]` f32, derivative of the loss by the cosine of each sample and its own centre.
    pub slopes_g: &'a Tensor,
    /// `[G, D]` f32.
    pub unit_embeddings_gd: &'a Tensor,
}

/// The embeddings of a step.
pub(super) struct Embeddings {
    /// `[G, D]` f32, of unit length.
    pub unit_gd: Tensor,
    /// The same in the products' number format.
    pub operand_gd: Tensor,
    /// `[G]` f32, what their lengths were.
    pub lengths_g: Tensor,
}

/// The centre of each sample's own class.
pub(super) struct OwnCentres {
    /// `[G, D]` f32, unit rows.
    pub unit_gd: Tensor,
    /// `[G]` f64, cosines of the samples with them, not clamped: the sums of products of f32 unit vectors,
    /// as the margin acts here.
    pub cosines_g: Tensor,
    /// `[G]` i32, where they are among the rows of the step.
    pub slots_g: Tensor,
}

/// What decides the loss.
pub(super) struct Terms<'a> {
    /// `[G]` f64, sums of the negatives' exponentials.
    pub sums_g: &'a Tensor,
    /// `[G]` f64, as [`OwnCentres::cosines_g`].
    pub cosines_g: &'a Tensor,
    /// `[G]` f32, as [`Embeddings::lengths_g`].
    pub lengths_g: &'a Tensor,
    pub margin: &'a AngularMargin,
    /// What turns a cosine into a logit.
    pub scale: f64,
    /// What each drawn negative counts for.
    pub weight: f64,
}

/// The loss and its derivatives, with N the number of samples.
pub(super) struct Losses {
    /// `[G]` f32: turns a negative's exponential into the derivative of the mean loss by its cosine.
    pub factors_g: Tensor,
    /// `[G]` f32: that derivative by the cosine of each sample and its own centre.
    pub slopes_g: Tensor,
    /// `[4]` f64, see [`Figures`].
    pub figures: Tensor,
}

/// What a step finds out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    /// Mean over the batch.
    pub loss: f64,
    /// The same of the cosines.
    pub mean_cosine: f64,
    /// The first sample whose embedding is not finite.
    pub not_finite: Option<usize>,
    /// Whether loss and embeddings are finite.
    pub may_move: bool,
}

/// A gradient to go on with.
pub(super) struct Gradients {
    /// `[G, D]` f32, by the embeddings as they were given.
    pub embeddings_gd: Tensor,
    /// `[G, D]` in the products' format: unit embeddings times their factors.
    pub operand_gd: Tensor,
}

/// Figures on their way to the host.
pub(crate) trait Reading: Send {
    /// Waits until they are there.
    fn wait(self: Box<Self>) -> Result<Figures, TchError>;
}

/// The work on rows that is not a matrix product.
pub(super) trait RowOps: SampleOps {
    /// What does the work, for people.
    fn name(&self) -> &str;

    /// Writes the rows, after what they have missed, as unit rows into `unit_td`, `[T, D]`.
    fn unit_rows(&self, rows: &Rows, unit_td: &Tensor) -> Result<(), TchError>;

    /// The slopes of [`TileCosines::exponentials`], `[T, G]`, and their sums, `[G]` f64.
    fn exponentials(&self, tile: &TileCosines<'_>) -> Result<(Tensor, Tensor), TchError>;

    /// The same for a host that waits for the sums: those of each stretch, and then over all of them.
    fn negatives(&self, tile: &TileCosines<'_>) -> Result<Negatives, TchError> {
        traffic::hand_over(2);
        traffic::wait();
        self.exponentials(tile).map(Negatives::of_softmax)
    }

    /// Sends the gradient through the normalisation of the rows, after what they have missed, and
    /// moves them.
    fn update(&self, rows: &Rows, steps: &RowSteps<'_>) -> Result<(), TchError>;

    /// Writes the rows as they are after what they have missed, which is something.
    fn catch_up(&self, rows: &Rows, keys: RowKeys, now: Stamp) -> Result<(), TchError>;
}

/// The work on samples.
pub(super) trait SampleOps: Send + Sync {
    /// Brings embeddings to unit length.
    ///
    /// * `raw_gd`: `[G, D]` f32, contiguous
    /// * `kind`: the products' number format
    fn normalise(&self, raw_gd: &Tensor, kind: Kind) -> Result<Embeddings, TchError>;

    /// Draws the rows of a step, `[S]` i64, strictly ascending.
    ///
    /// * `positives`: those that the plan was made with
    fn draw(&self, plan: &DrawPlan, positives: &[u64], device: Device) -> Result<Tensor, TchError>;

    /// Takes the cosines of samples with their own centres.
    ///
    /// * `rows`: that of each sample, in their order, perhaps some of them several times
    /// * `unit_gd`: `[G, D]` f32, unit embeddings
    /// * `rows_s`: `[S]` i64, rows of the step, among which those are
    fn own_centres(
        &self,
        rows: &Rows,
        unit_gd: &Tensor,
        rows_s: &Tensor,
    ) -> Result<OwnCentres, TchError>;

    /// Margins, softmax and mean, in f64.
    fn losses(&self, terms: &Terms<'_>) -> Result<Losses, TchError>;

    /// Joins both parts of the gradient by the embeddings, and sends it back through the normalisation.
    ///
    /// * `weighted_gd`: `[G, D]` f32, unit rows weighted by the negatives' exponentials
    fn gradients(
        &self,
        weighted_gd: &Tensor,
        samples: (&Embeddings, &OwnCentres),
        losses: &Losses,
    ) -> Result<Gradients, TchError>;

    /// Begins to copy the figures to the host.
    fn read(&self, figures: &Tensor) -> Result<Box<dyn Reading>, TchError>;
}

impl Rows {
    /// The same tensors.
    pub fn handle(&self) -> Rows {
        Rows {
            weight_cd: self.weight_cd.shallow_clone(),
            state_cn: self.state_cn.shallow_clone(),
            stamps_c: self.stamps_c.shallow_clone(),
            rows_t: self.rows_t.shallow_clone(),
            missed: self.missed.as_ref().map(Missed::handle),
        }
    }
}

impl Missed {
    /// The same tensor.
    pub fn handle(&self) -> Missed {
        Missed { maps_k4: self.maps_k4.shallow_clone(), now: self.now }
    }
}

impl Figures {
    /// From the numbers that a device has: loss, cosine, sample or -1, 1 or 0.
    pub fn of(numbers: &Tensor) -> Figures {
        let numbers = to_f64(numbers);
        let not_finite = (numbers[2] >= 0.0).then_some(numbers[2] as usize);
        let (loss, mean_cosine, may_move) = (numbers[0], numbers[1], numbers[3] != 0.0);
        Figures { loss, mean_cosine, not_finite, may_move }
    }
}

/// `[1]`: whether the figures, `[4]` f64, let centres move.
pub(super) fn may_move(figures: &Tensor) -> Result<Tensor, TchError> {
    figures.narrow(0, 3, 1).f_ne(0.0)
}
