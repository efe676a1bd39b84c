//! The head's own kernels: one pass over a row where tensor operations take ten.
//!
//! `kernels.cu` is compiled by [NVRTC](super::nvrtc) for the card at hand when the head is made; nothing of
//! CUDA is needed to build the program. It runs on the stream that libtorch uses at the time.

// T = rows of one tile, D = embedding, G = global batch, O = positives of the tile, K = stretches
// of rows.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::{
    driver::{CudaContext, CudaFunction, CudaModule, CudaStream, LaunchConfig, PushKernelArg},
    nvrtc::Ptx,
};
use tch::{Device, Kind, TchError, Tensor};

use super::{
    nvrtc::{Nvrtc, NvrtcError, cache_folder},
    tensor_ops::{RowKeys, RowOps, RowSteps, Rows, TensorOps},
};
use crate::{
    centres::TileGradient,
    elements::to_f64,
    loss::{Negatives, TileCosines},
    optim::{AdamW, Motion, RowAdagrad, Sgd},
    traffic,
};

const SOURCE: &str = include_str!("kernels.cu");

/// Threads of a block that works on a row, or on as many samples.
const BLOCK_THREADS: u32 = 128;
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
        let [weight, state, index] =
            [&rows.weight_cd, &rows.state_cn, &rows.rows_t].map(|tensor| address(Some(tensor)));
        let (missed, unit) = (address(rows.missed_t4.as_ref()), address(Some(unit_td)));
        let dim = rows.weight_cd.size()[1] as i32;
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&weight).arg(&state).arg(&index).arg(&missed).arg(&dim).arg(&unit);
        let shared_bytes = BLOCK_THREADS as usize * size_of::<f32>();
        // SAFETY: the arguments are those of `unit_rows` in `kernels.cu`; the tensors are on this
        // card, of the kinds that its name says, contiguous, and as large as it takes them to be. The
        // rows are within the table, which the head has checked. Work on a stream is in order, so
        // libtorch gives none of the memory to others before the kernel has ended.
        unsafe { launch.launch(by_row(n_rows, shared_bytes)) }.map(drop).map_err(torch_error)
    }

    fn exponentials(&self, tile: &TileCosines<'_>) -> Result<Negatives, TchError> {
        let cos_tg = tile.cos_tg.f_contiguous()?;
        let (n_rows, n_samples) = (cos_tg.size()[0], cos_tg.size()[1]);
        let n_stretches = n_rows as usize / STRETCH_ROWS + 1;
        let mut own = vec![-1i32; n_samples as usize];
        for &(row, sample) in tile.own {
            own[sample] = row as i32;
        }
        let own_g = traffic::upload(&own, cos_tg.device())?;
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
        launch.arg(&cosines).arg(&own).arg(&offsets).arg(&scale).arg(&filter).arg(&rows);
        launch.arg(&samples).arg(&stretch).arg(&exponentials).arg(&sums);
        let config = by_sample(n_samples, n_stretches);
        // SAFETY: as in `unit_rows`, for `exponentials`; a stretch beyond the last row has none.
        unsafe { launch.launch(config) }.map_err(torch_error)?;
        let sums_g = sums_kg.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)?;
        Ok(Negatives { slopes_tg: exp_tg, sums_g: to_f64(&sums_g), parameter_sums_g: Vec::new() })
    }

    fn update(&self, rows: &Rows, steps: &RowSteps<'_>) -> Result<(), TchError> {
        let n_rows = rows.rows_t.size()[0];
        if n_rows == 0 {
            return Ok(());
        }
        let device = rows.weight_cd.device();
        let TileGradient { as_negatives_td, as_positives, unit_embeddings_gd } = steps.gradient;
        let (negatives_td, embeddings_gd) =
            (as_negatives_td.f_contiguous()?, unit_embeddings_gd.f_contiguous()?);
        // Pulls are in the order of their rows.
        let mut begin = vec![0i32; n_rows as usize + 1];
        for pull in as_positives.iter() {
            begin[pull.row + 1] += 1;
        }
        for row in 0..n_rows as usize {
            begin[row + 1] += begin[row];
        }
        let samples: Vec<i32> = as_positives.iter().map(|pull| pull.sample as i32).collect();
        let slopes: Vec<f32> = as_positives.iter().map(|pull| pull.slope).collect();
        let begin_t = traffic::upload(&begin, device)?;
        let samples_o = traffic::upload(&samples, device)?;
        let slopes_o = traffic::upload(&slopes, device)?;
        let kinds = [rows.weight_cd.kind(), rows.state_cn.kind(), negatives_td.kind()];
        let function = self.function("update", &kinds)?;
        let [weight, state, index, negatives, begin, samples, slopes, embeddings] = [
            &rows.weight_cd,
            &rows.state_cn,
            &rows.rows_t,
            &negatives_td,
            &begin_t,
            &samples_o,
            &slopes_o,
            &embeddings_gd,
        ]
        .map(|tensor| address(Some(tensor)));
        let missed = address(rows.missed_t4.as_ref());
        let (dim, n_state) = (rows.weight_cd.size()[1] as i32, rows.state_cn.size()[1] as i32);
        let (optimizer, numbers) = numbers_of(steps.motion);
        let RowKeys(key_base) = steps.keys;
        let stream = self.stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&weight).arg(&state).arg(&index).arg(&missed).arg(&dim).arg(&n_state);
        launch.arg(&negatives).arg(&begin).arg(&samples).arg(&slopes).arg(&embeddings);
        launch.arg(&key_base).arg(&optimizer);
        for number in &numbers {
            launch.arg(number);
        }
        let config = by_row(n_rows, update_shared_bytes(dim as usize));
        // SAFETY: as in `unit_rows`, for `update`. Rows are strictly ascending, so that no two blocks
        // write the same one; samples are rows of the global batch.
        unsafe { launch.launch(config) }.map(drop).map_err(torch_error)
    }

    fn catch_up(&self, rows: &Rows, keys: RowKeys) -> Result<(), TchError> {
        // Once in thousands of steps.
        TensorOps.catch_up(rows, keys)
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
                assert!(has(&format!("\0.text.exponentials_{weights}\0")), "{capability:?}");
            }
        }
    }
}
