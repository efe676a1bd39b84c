//! The head's own kernels: one pass over a row where tensor operations take ten.
//!
//! `kernels.cu` is compiled by [NVRTC](super::nvrtc) for the card at hand when the head is made; nothing of
//! CUDA is needed to build the program. It runs on the stream that libtorch uses at the time.

// T = rows of one tile, D = embedding, N = numbers of a row's state, G = global batch, O = positives of the
// tile, K = stretches of rows.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::{
    driver::{
        CudaContext, CudaEvent, CudaFunction, CudaModule, CudaStream, LaunchArgs, LaunchConfig,
        PushKernelArg,
    },
    nvrtc::Ptx,
};
use pfc_rows::margin::ArcfaceGradient;
use tch::{Device, Kind, TchError, Tensor};

use super::{
    nvrtc::{Nvrtc, NvrtcError, cache_folder},
    ops::{
        Embeddings, Figures, Gradients, Losses, OwnCentres, Pulls, Reading, RowKeys, RowOps,
        RowSteps, Rows, SampleOps, Terms,
    },
    tensor_ops::TensorOps,
};
use crate::{
    loss::{AngularMargin, OwnThere, TileCosines},
    optim::{AdamW, Motion, RowAdagrad, Sgd, Stamp},
    sampling::{BlockShare, DrawPlan},
    traffic,
};

const SOURCE: &str = include_str!("kernels.cu");

/// Threads of a block that works on a row, or on as many samples.
const BLOCK_THREADS: u32 = 128;
/// Threads of a block that draws.
const DRAW_THREADS: u32 = 256;
/// Threads of the one block that takes the losses of all samples.
const LOSS_THREADS: u32 = 256;
/// Rows whose exponentials one thread takes.
const STRETCH_ROWS: usize = 64;
/// Blocks of a launch in y that every card grants.
const BLOCKS_Y_MAX: usize = 65_535;
/// Shared memory that every card grants without being asked.
const SHARED_BYTES_MAX: usize = 48 << 10;

/// Why the kernels cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    #[error("there is no CUDA driver library")]
    NoDriver,
    #[error(transparent)]
    Nvrtc(#[from] NvrtcError),
    #[error("the driver refuses the kernels: {0}")]
    Driver(cudarc::driver::DriverError),
    #[error("rows of {0} numbers do not fit into a block's memory")]
    Width(usize),
}

/// The kernels on one card.
pub(super) struct CudaOps {
    context: Arc<CudaContext>,
    module: Arc<CudaModule>,
    index: usize,
    name: String,
}

impl CudaOps {
    /// Compiles the kernels for card `index`, where rows of `dim` numbers are, or takes them from the
    /// user's cache folder.
    ///
    /// # Errors
    ///
    /// [`KernelError`] if a library is missing or refuses, or rows are too long.
    pub fn new(index: usize, dim: usize) -> Result<CudaOps, KernelError> {
        if update_shared_bytes(dim) > SHARED_BYTES_MAX {
            return Err(KernelError::Width(dim));
        }
        // SAFETY: loads a library by its usual name, and runs what it runs when it is loaded.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(KernelError::NoDriver);
        }
        // The primary context, which libtorch uses too.
        let context = CudaContext::new(index).map_err(KernelError::Driver)?;
        let capability = context.compute_capability().map_err(KernelError::Driver)?;
        let image = Nvrtc::load()?.kernels(SOURCE, capability, cache_folder().as_deref())?;
        let name = format!("kernels ({})", image.target);
        let module = context.load_module(Ptx::from_binary(image.bytes));
        let module = module.map_err(KernelError::Driver)?;
        Ok(CudaOps { context, module, index, name })
    }

    /// The stream that libtorch's operations on this thread go to.
    fn stream(&self) -> Arc<CudaStream> {
        match pfc_c10d::current_stream(self.index) {
            // SAFETY: libtorch's streams belong to the primary context, which this is, and live as long
            // as the process; all work that is ordered by this one is libtorch's and ours.
            Some(stream) => unsafe { self.context.wrap_borrowed_stream(stream.cast()) },
            // A build without CUDA's libtorch, which has no other.
            None => self.context.default_stream(),
        }
    }

    fn function(&self, name: &str, kinds: &[Kind]) -> Result<CudaFunction, TchError> {
        let letter = |kind: &Kind| if *kind == Kind::BFloat16 { 'h' } else { 'f' };
        let kinds: String = kinds.iter().map(letter).collect();
        self.module.load_function(&format!("{name}_{kinds}")).map_err(torch_error)
    }
}

fn torch_error(error: cudarc::driver::DriverError) -> TchError {
    TchError::Torch(format!("a kernel of the head: {error}"))
}

fn update_shared_bytes(dim: usize) -> usize {
    (BLOCK_THREADS as usize + 2 * dim) * size_of::<f32>()
}

/// Blocks for `n_samples` samples, and for stretches of rows, of which a block takes several if need be.
fn by_sample(n_samples: i64, n_stretches: usize) -> LaunchConfig {
    let blocks_y = n_stretches.min(BLOCKS_Y_MAX) as u32;
    LaunchConfig {
        grid_dim: ((n_samples as u32).div_ceil(BLOCK_THREADS), blocks_y, 1),
        block_dim: (BLOCK_THREADS, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// One block for each of `n_rows` rows.
fn by_row(n_rows: i64, shared_bytes: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (n_rows as u32, 1, 1),
        block_dim: (BLOCK_THREADS, 1, 1),
        shared_mem_bytes: shared_bytes as u32,
    }
}

/// What a block of the draw has in common, for up to so many classes: a number a thread, and a bit a class.
fn draw_shared_bytes(n_classes: u64) -> usize {
    (DRAW_THREADS as usize + n_classes.div_ceil(32) as usize) * size_of::<u32>()
}

/// A share in the order of `Share` in `kernels.cu`.
fn numbers_of_share(share: &BlockShare) -> [i64; 7] {
    let BlockShare { first, len, slot, n_negatives, first_positive, n_positives, key } = *share;
    [first, len, slot, n_negatives, first_positive, n_positives, key].map(|number| number as i64)
}

/// Rows of a table, as the first arguments of each kernel that works on them: where its tensors and the rows'
/// numbers begin, what rows have missed, as `Missed` in `kernels.cu` has it, and how wide they are.
struct RowsArgs {
    weight: u64,
    state: u64,
    stamps: u64,
    index: u64,
    maps: u64,
    n_maps: i32,
    now: u32,
    dim: i32,
}

impl RowsArgs {
    fn of(rows: &Rows) -> RowsArgs {
        let [weight, state, stamps, index] =
            [&rows.weight_cd, &rows.state_cn, &rows.stamps_c, &rows.rows_t]
                .map(|tensor| address(Some(tensor)));
        let (maps, n_maps, now) = rows.missed.as_ref().map_or((0, 0, 0), |missed| {
            let n_maps = missed.maps_k4.size()[0] as i32;
            (address(Some(&missed.maps_k4)), n_maps, missed.now)
        });
        let dim = rows.weight_cd.size()[1] as i32;
        RowsArgs { weight, state, stamps, index, maps, n_maps, now, dim }
    }

    fn push<'a>(&'a self, launch: &mut LaunchArgs<'a>) {
        launch.arg(&self.weight).arg(&self.state).arg(&self.stamps).arg(&self.index);
        launch.arg(&self.maps).arg(&self.n_maps).arg(&self.now).arg(&self.dim);
    }
}

/// Where the tensor's numbers begin on the card; 0 for none.
fn address(tensor: Option<&Tensor>) -> u64 {
    tensor.map_or(0, |tensor| {
        debug_assert!(tensor.is_contiguous() && (cfg!(test) || tensor.device() != Device::Cpu));
        tensor.data_ptr() as u64
    })
}

impl RowOps for CudaOps {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit_rows(&self, rows: &Rows, unit_td: &Tensor) -> Result<(), TchError> {
        let n_rows = rows.rows_t.size()[0];
        if n_rows == 0 {
            return Ok(());
        }
        let kinds = [rows.weight_cd.kind(), rows.state_cn.kind(), unit_td.kind()];
        let function = self.function("unit_rows", &kinds)?;
        let (rows, unit) = (RowsArgs::of(rows), address(Some(unit_td)));
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        rows.push(&mut launch);
        launch.arg(&unit);
        let shared_bytes = BLOCK_THREADS as usize * size_of::<f32>();
        // SAFETY: the arguments are those of `unit_rows` in `kernels.cu`; the tensors are on this
        // card, of the kinds that its name says, contiguous, and as large as it takes them to be. The
        // rows are within the table, which the head has checked. Work on a stream is in order, so
        // libtorch gives none of the memory to others before the kernel has ended.
        unsafe { launch.launch(by_row(n_rows, shared_bytes)) }.map(drop).map_err(torch_error)
    }

    fn exponentials(&self, tile: &TileCosines<'_>) -> Result<(Tensor, Tensor), TchError> {
        let cos_tg = tile.cos_tg.f_contiguous()?;
        let (n_rows, n_samples) = (cos_tg.size()[0], cos_tg.size()[1]);
        let n_stretches = n_rows as usize / STRETCH_ROWS + 1;
        let (own_g, first_slot) = match tile.own_there {
            Some(OwnThere { slots_g, first_slot }) => (slots_g.shallow_clone(), first_slot as i32),
            None => {
                let mut own = vec![-1i32; n_samples as usize];
                for &(row, sample) in tile.own {
                    own[sample] = row as i32;
                }
                (traffic::upload(&own, cos_tg.device())?, 0)
            }
        };
        let exp_tg = cos_tg.f_empty_like()?;
        let sums_kg =
            // Every number of it is written.
            Tensor::f_empty([n_stretches as i64, n_samples], (Kind::Float, cos_tg.device()))?;
        let function = self.function("exponentials", &[cos_tg.kind()])?;
        let [cosines, own, exponentials, sums] =
            [&cos_tg, &own_g, &exp_tg, &sums_kg].map(|tensor| address(Some(tensor)));
        let offsets = address(tile.offsets_g);
        let (scale, filter) = (tile.scale as f32, tile.filter as f32);
        let (rows, samples, stretch) = (n_rows as i32, n_samples as i32, STRETCH_ROWS as i32);
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&cosines).arg(&own).arg(&first_slot).arg(&offsets).arg(&scale).arg(&filter);
        launch.arg(&rows).arg(&samples).arg(&stretch).arg(&exponentials).arg(&sums);
        let config = by_sample(n_samples, n_stretches);
        // SAFETY: as in `unit_rows`, for `exponentials`; a stretch beyond the last row has none.
        unsafe { launch.launch(config) }.map_err(torch_error)?;
        Ok((exp_tg, sums_kg.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?))
    }

    fn update(&self, rows: &Rows, steps: &RowSteps<'_>) -> Result<(), TchError> {
        let n_rows = rows.rows_t.size()[0];
        if n_rows == 0 {
            return Ok(());
        }
        let Pulls { rows_o, samples_o, slopes_g, unit_embeddings_gd } = steps.pulls;
        let (negatives_td, embeddings_gd) =
            (steps.as_negatives_td.f_contiguous()?, unit_embeddings_gd.f_contiguous()?);
        let kinds = [rows.weight_cd.kind(), rows.state_cn.kind(), negatives_td.kind()];
        let function = self.function("update", &kinds)?;
        let [negatives, pulled, samples, slopes, embeddings] =
            [&negatives_td, rows_o, samples_o, slopes_g, &embeddings_gd]
                .map(|tensor| address(Some(tensor)));
        let figures = address(steps.figures);
        let n_pulls = rows_o.size()[0] as i32;
        let (n_state, rows) = (rows.state_cn.size()[1] as i32, RowsArgs::of(rows));
        let (optimizer, numbers) = numbers_of(steps.motion);
        let RowKeys(key_base) = steps.keys;
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        rows.push(&mut launch);
        launch.arg(&steps.stamp_after).arg(&n_state).arg(&negatives);
        launch.arg(&pulled).arg(&samples).arg(&n_pulls).arg(&slopes).arg(&embeddings);
        launch.arg(&figures).arg(&key_base).arg(&optimizer);
        for number in &numbers {
            launch.arg(number);
        }
        let config = by_row(n_rows, update_shared_bytes(rows.dim as usize));
        // SAFETY: as in `unit_rows`, for `update`. Rows are strictly ascending, so that no two blocks
        // write the same one; samples are rows of the global batch.
        unsafe { launch.launch(config) }.map(drop).map_err(torch_error)
    }

    fn catch_up(&self, rows: &Rows, keys: RowKeys, now: Stamp) -> Result<(), TchError> {
        // Once in thousands of steps.
        TensorOps.catch_up(rows, keys, now)
    }
}

impl SampleOps for CudaOps {
    fn normalise(&self, raw_gd: &Tensor, kind: Kind) -> Result<Embeddings, TchError> {
        let (n_samples, dim) = raw_gd.size2()?;
        let unit_gd = raw_gd.f_empty_like()?;
        let lengths_g = Tensor::f_empty([n_samples], (Kind::Float, raw_gd.device()))?;
        let operand_gd = match kind {
            Kind::Float => unit_gd.shallow_clone(),
            _ => Tensor::f_empty([n_samples, dim], (kind, raw_gd.device()))?,
        };
        let function = self.function("normalise", &[kind])?;
        let [raw, unit, lengths] =
            [raw_gd, &unit_gd, &lengths_g].map(|tensor| address(Some(tensor)));
        let operand = address((kind != Kind::Float).then_some(&operand_gd));
        let dim = dim as i32;
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&raw).arg(&dim).arg(&unit).arg(&operand).arg(&lengths);
        let config = by_row(n_samples, BLOCK_THREADS as usize * size_of::<f32>());
        // SAFETY: as in `unit_rows`, for `normalise`.
        unsafe { launch.launch(config) }.map_err(torch_error)?;
        Ok(Embeddings { unit_gd, operand_gd, lengths_g })
    }

    fn draw(&self, plan: &DrawPlan, positives: &[u64], device: Device) -> Result<Tensor, TchError> {
        let longest = plan.shares.iter().map(|share| share.len).max().unwrap_or(0);
        let shared_bytes = draw_shared_bytes(longest);
        if shared_bytes > SHARED_BYTES_MAX {
            return TensorOps.draw(plan, positives, device);
        }
        let shares: Vec<i64> = plan.shares.iter().flat_map(numbers_of_share).collect();
        let shares = traffic::upload(&shares, device)?;
        let positives: Vec<i64> = positives.iter().map(|&class| class as i64).collect();
        let positives_p = traffic::upload(&positives, device)?;
        let rows_s = Tensor::f_empty([plan.n_rows as i64], (Kind::Int64, device))?;
        let function = self.function("draw", &[])?;
        let [shares, positives, rows] =
            [&shares, &positives_p, &rows_s].map(|tensor| address(Some(tensor)));
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&shares).arg(&positives).arg(&rows);
        let config = LaunchConfig {
            grid_dim: (plan.shares.len() as u32, 1, 1),
            block_dim: (DRAW_THREADS, 1, 1),
            shared_mem_bytes: shared_bytes as u32,
        };
        // SAFETY: as in `unit_rows`, for `draw_`; the shares take as many rows as the plan says, and the
        // positives that they name are those that the plan was made with.
        unsafe { launch.launch(config) }.map_err(torch_error)?;
        Ok(rows_s)
    }

    fn own_centres(
        &self,
        rows: &Rows,
        unit_gd: &Tensor,
        rows_s: &Tensor,
    ) -> Result<OwnCentres, TchError> {
        let n_samples = unit_gd.size()[0];
        let centres_gd = unit_gd.f_empty_like()?;
        let cosines_g = Tensor::f_empty([n_samples], (Kind::Double, unit_gd.device()))?;
        let slots_g = Tensor::f_empty([n_samples], (Kind::Int, unit_gd.device()))?;
        let function =
            self.function("positives", &[rows.weight_cd.kind(), rows.state_cn.kind()])?;
        let [unit, step_rows, centres, cosines, slots] =
            [unit_gd, rows_s, &centres_gd, &cosines_g, &slots_g]
                .map(|tensor| address(Some(tensor)));
        let (rows, n_rows) = (RowsArgs::of(rows), rows_s.size()[0] as i32);
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        rows.push(&mut launch);
        launch.arg(&unit).arg(&step_rows).arg(&n_rows).arg(&centres).arg(&cosines).arg(&slots);
        let config = by_row(n_samples, BLOCK_THREADS as usize * size_of::<f64>());
        // SAFETY: as in `unit_rows`, for `positives`, which writes no row of the table.
        unsafe { launch.launch(config) }.map_err(torch_error)?;
        Ok(OwnCentres { unit_gd: centres_gd, cosines_g, slots_g })
    }

    fn losses(&self, terms: &Terms<'_>) -> Result<Losses, TchError> {
        let &Terms { sums_g, cosines_g, lengths_g, margin, scale, weight } = terms;
        let (n_samples, device) = (cosines_g.size()[0], cosines_g.device());
        let empty = |n: i64, kind: Kind| Tensor::f_empty([n], (kind, device));
        let factors_g = empty(n_samples, Kind::Float)?;
        let slopes_g = empty(n_samples, Kind::Float)?;
        let figures = empty(4, Kind::Double)?;
        let function = self.function("losses", &[])?;
        let [sums, cosines, lengths, factors, slopes, found] =
            [sums_g, cosines_g, lengths_g, &factors_g, &slopes_g, &figures]
                .map(|tensor| address(Some(tensor)));
        let (kind, numbers) = numbers_of_margin(margin);
        let n_samples = n_samples as i32;
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&sums).arg(&cosines).arg(&lengths).arg(&n_samples).arg(&kind);
        for number in &numbers {
            launch.arg(number);
        }
        launch.arg(&scale).arg(&weight).arg(&factors).arg(&slopes).arg(&found);
        let config = LaunchConfig {
            grid_dim: (1, 1, 1),
            block_dim: (LOSS_THREADS, 1, 1),
            shared_mem_bytes: LOSS_THREADS * size_of::<f64>() as u32,
        };
        // SAFETY: as in `unit_rows`, for `losses_`.
        unsafe { launch.launch(config) }.map_err(torch_error)?;
        Ok(Losses { factors_g, slopes_g, figures })
    }

    fn gradients(
        &self,
        weighted_gd: &Tensor,
        (embeddings, own): (&Embeddings, &OwnCentres),
        losses: &Losses,
    ) -> Result<Gradients, TchError> {
        let weighted_gd = weighted_gd.f_contiguous()?;
        let (n_samples, dim) = weighted_gd.size2()?;
        let embeddings_gd = weighted_gd.f_empty_like()?;
        let operand_gd = embeddings.operand_gd.f_empty_like()?;
        let function = self.function("gradients", &[operand_gd.kind()])?;
        let [weighted, centres, unit, lengths, factors, slopes, gradient, operand] = [
            &weighted_gd,
            &own.unit_gd,
            &embeddings.unit_gd,
            &embeddings.lengths_g,
            &losses.factors_g,
            &losses.slopes_g,
            &embeddings_gd,
            &operand_gd,
        ]
        .map(|tensor| address(Some(tensor)));
        let dim = dim as i32;
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&weighted).arg(&centres).arg(&unit).arg(&lengths).arg(&factors).arg(&slopes);
        launch.arg(&dim).arg(&gradient).arg(&operand);
        let config = by_row(n_samples, BLOCK_THREADS as usize * size_of::<f32>());
        // SAFETY: as in `unit_rows`, for `gradients`.
        unsafe { launch.launch(config) }.map_err(torch_error)?;
        Ok(Gradients { embeddings_gd, operand_gd })
    }

    fn read(&self, figures: &Tensor) -> Result<Box<dyn Reading>, TchError> {
        // Into memory that the card writes by itself, for which libtorch does not wait.
        let copy = figures.f_to_dtype_layout((Kind::Double, Device::Cpu), true, false)?;
        let is_there = self.stream().record_event(None).map_err(torch_error)?;
        Ok(Box::new(Copied { copy, is_there }))
    }
}

/// Figures that the card copies to the host.
struct Copied {
    copy: Tensor,
    is_there: CudaEvent,
}

impl Reading for Copied {
    fn wait(self: Box<Self>) -> Result<Figures, TchError> {
        self.is_there.synchronize().map_err(torch_error)?;
        Ok(Figures::of(&self.copy))
    }
}

/// Which margin, and its numbers in the order of `Margin` in `kernels.cu`.
fn numbers_of_margin(margin: &AngularMargin) -> (i32, [f64; 4]) {
    match *margin {
        AngularMargin::Cosface { m } => (0, [m, 0.0, 0.0, 0.0]),
        AngularMargin::Arcface { m, gradient: ArcfaceGradient::StraightThrough } => {
            (1, [m.cos(), m.sin(), 0.0, 0.0])
        }
        // An angle and m are more than pi where the cosine is less than that of pi - m.
        AngularMargin::Arcface { m, gradient: ArcfaceGradient::Exact } => {
            (2, [m.cos(), m.sin(), -m.cos(), m * m.sin()])
        }
        AngularMargin::Combined { m1, m2, m3 } => (3, [m1, m2 / std::f64::consts::PI, m3, 0.0]),
    }
}

/// Which optimizer, and its numbers in the order of `Motion` in `kernels.cu`.
fn numbers_of(motion: &Motion) -> (i32, [f32; 6]) {
    let (optimizer, numbers) = match *motion {
        Motion::Sgd(Sgd { lr, momentum, weight_decay }) => {
            (0, [lr, momentum, weight_decay, 0.0, 0.0, 0.0])
        }
        Motion::AdamW(AdamW { lr, beta1, beta2, eps, weight_decay, correction1, correction2 }) => {
            let (rate, kept) = (lr / correction1, 1.0 - lr * weight_decay);
            (1, [rate, beta1, beta2, eps, kept, 1.0 / correction2.sqrt()])
        }
        Motion::RowAdagrad(RowAdagrad { lr, eps, weight_decay }) => {
            (2, [lr, eps, weight_decay, 0.0, 0.0, 0.0])
        }
    };
    (optimizer, numbers.map(|number| number as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_all_but_the_largest_heads_are_drawn_on_the_card() {
        // A head of 268 million classes has 1,024 blocks of 2^18.
        assert!(draw_shared_bytes(1 << 18) <= SHARED_BYTES_MAX);
        assert!(draw_shared_bytes(1 << 19) > SHARED_BYTES_MAX);
    }

    #[test]
    fn no_launch_is_larger_than_every_card_grants() {
        // What `head.tile_rows` allows, and one stretch beyond what there are blocks for.
        for n_rows in [1usize, 64, 4_194_240, 1 << 24] {
            let (x, y, _) = by_sample(1024, n_rows / STRETCH_ROWS + 1).grid_dim;
            assert!(x == 8 && (1..=65_535).contains(&y), "{n_rows}: {x}, {y}");
        }
    }

    #[test]
    fn the_kernels_compile_with_every_name_that_is_asked_for() {
        let nvrtc = match Nvrtc::load() {
            Err(NvrtcError::Missing { .. }) => {
                return pfc_testing::skip(
                    "there is no NVRTC library; `scripts/test-kernels` gets it",
                );
            }
            nvrtc => nvrtc.unwrap(),
        };
        for capability in [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0)] {
            let image = nvrtc.kernels(SOURCE, capability, None).unwrap();
            let has = |name: &str| {
                image.bytes.windows(name.len()).any(|window| window == name.as_bytes())
            };
            for weights in ['f', 'h'] {
                for state in ['f', 'h'] {
                    for products in ['f', 'h'] {
                        for name in ["unit_rows", "update"] {
                            let name = format!("\0.text.{name}_{weights}{state}{products}\0");
                            assert!(has(&name), "{capability:?}: no {name:?}");
                        }
                    }
                }
                for name in ["exponentials", "normalise", "gradients"] {
                    let name = format!("\0.text.{name}_{weights}\0");
                    assert!(has(&name), "{capability:?}: no {name:?}");
                }
                for state in ['f', 'h'] {
                    assert!(
                        has(&format!("\0.text.positives_{weights}{state}\0")),
                        "{capability:?}"
                    );
                }
            }
            assert!(["\0.text.losses_\0", "\0.text.draw_\0"].iter().all(|name| has(name)));
        }
    }
}
