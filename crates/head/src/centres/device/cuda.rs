//! The head's own kernels: one pass over a row where tensor operations take ten.
//!
//! `kernels.cu` is compiled by NVRTC for the card at hand when the head is made; nothing of CUDA is
//! needed to build the program. It runs on the stream that libtorch uses, the default one.

// T = rows of one tile, D = embedding, G = global batch, O = positives of the tile, K = stretches
// of rows.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::{
    driver::{CudaContext, CudaFunction, CudaModule, CudaStream, LaunchConfig, PushKernelArg},
    nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts},
};
use tch::{Device, Kind, TchError, Tensor};

use super::tensor_ops::{RowKeys, RowOps, RowSteps, Rows, TensorOps};
use crate::{
    centres::TileGradient,
    elements::to_f64,
    loss::{Negatives, TileCosines},
    optim::{AdamW, Motion, RowAdagrad, Sgd},
};

const SOURCE: &str = include_str!("kernels.cu");

/// Threads of a block that works on a row, or on as many samples.
const BLOCK_THREADS: u32 = 128;
/// Rows whose exponentials one thread takes.
const STRETCH_ROWS: usize = 64;
/// Shared memory that every card grants without being asked.
const SHARED_BYTES_MAX: usize = 48 << 10;

/// Why the kernels cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    #[error("there is no {0} library")]
    NoLibrary(&'static str),
    #[error("NVRTC refuses the kernels: {0}")]
    Compile(CompileError),
    #[error("the driver refuses the kernels: {0}")]
    Driver(cudarc::driver::DriverError),
    #[error("rows of {0} numbers do not fit into a block's memory")]
    Width(usize),
}

/// The kernels as PTX for cards of this capability, such as `(8, 0)`, and above.
pub(super) fn compile((major, minor): (i32, i32)) -> Result<Ptx, KernelError> {
    // SAFETY: loads a library by its usual name, and runs what it runs when it is loaded.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err(KernelError::NoLibrary("NVRTC"));
    }
    let options = CompileOptions {
        options: vec![
            format!("--gpu-architecture=compute_{major}{minor}"),
            "--std=c++17".to_owned(),
        ],
        ..CompileOptions::default()
    };
    compile_ptx_with_opts(SOURCE, options).map_err(KernelError::Compile)
}

/// The kernels on one card.
pub(super) struct CudaOps {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
}

impl CudaOps {
    /// Compiles the kernels for card `index`, where rows of `dim` numbers are.
    ///
    /// # Errors
    ///
    /// [`KernelError`] if a library is missing or refuses, or rows are too long.
    pub fn new(index: usize, dim: usize) -> Result<CudaOps, KernelError> {
        if update_shared_bytes(dim) > SHARED_BYTES_MAX {
            return Err(KernelError::Width(dim));
        }
        // SAFETY: as in `compile`.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(KernelError::NoLibrary("CUDA driver"));
        }
        // The primary context, which libtorch uses too.
        let context = CudaContext::new(index).map_err(KernelError::Driver)?;
        let capability = context.compute_capability().map_err(KernelError::Driver)?;
        let module = context.load_module(compile(capability)?).map_err(KernelError::Driver)?;
        Ok(CudaOps { stream: context.default_stream(), module })
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
        debug_assert!(tensor.is_contiguous() && tensor.device() != Device::Cpu);
        tensor.data_ptr() as u64
    })
}

impl RowOps for CudaOps {
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
        let mut launch = self.stream.launch_builder(&function);
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
        let own_g = Tensor::f_from_slice(&own)?.f_to_device(cos_tg.device())?;
        let exp_tg = cos_tg.f_empty_like()?;
        let sums_kg =
            Tensor::f_zeros([n_stretches as i64, n_samples], (Kind::Float, cos_tg.device()))?;
        let function = self.function("exponentials", &[cos_tg.kind()])?;
        let [cosines, own, exponentials, sums] =
            [&cos_tg, &own_g, &exp_tg, &sums_kg].map(|tensor| address(Some(tensor)));
        let offsets = address(tile.offsets_g);
        let (scale, filter) = (tile.scale as f32, tile.filter as f32);
        let (rows, samples, stretch) = (n_rows as i32, n_samples as i32, STRETCH_ROWS as i32);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&cosines).arg(&own).arg(&offsets).arg(&scale).arg(&filter).arg(&rows);
        launch.arg(&samples).arg(&stretch).arg(&exponentials).arg(&sums);
        let config = LaunchConfig {
            grid_dim: ((n_samples as u32).div_ceil(BLOCK_THREADS), n_stretches as u32, 1),
            block_dim: (BLOCK_THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
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
        let begin: Vec<i32> = (0..=n_rows as usize)
            .map(|row| as_positives.partition_point(|pull| pull.row < row) as i32)
            .collect();
        let samples: Vec<i32> = as_positives.iter().map(|pull| pull.sample as i32).collect();
        let slopes: Vec<f32> = as_positives.iter().map(|pull| pull.slope).collect();
        let begin_t = Tensor::f_from_slice(&begin)?.f_to_device(device)?;
        let samples_o = Tensor::f_from_slice(&samples)?.f_to_device(device)?;
        let slopes_o = Tensor::f_from_slice(&slopes)?.f_to_device(device)?;
        let kinds = [rows.weight_cd.kind(), rows.state_cn.kind(), negatives_td.kind()];
        let function = self.function("update", &kinds)?;
        let [weight, state, index, negatives, begin, samples, slopes, embeddings, keys] = [
            &rows.weight_cd,
            &rows.state_cn,
            &rows.rows_t,
            &negatives_td,
            &begin_t,
            &samples_o,
            &slopes_o,
            &embeddings_gd,
            &steps.keys.0,
        ]
        .map(|tensor| address(Some(tensor)));
        let missed = address(rows.missed_t4.as_ref());
        let (dim, n_state) = (rows.weight_cd.size()[1] as i32, rows.state_cn.size()[1] as i32);
        let (optimizer, numbers) = numbers_of(steps.motion);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&weight).arg(&state).arg(&index).arg(&missed).arg(&dim).arg(&n_state);
        launch.arg(&negatives).arg(&begin).arg(&samples).arg(&slopes).arg(&embeddings);
        launch.arg(&keys).arg(&optimizer);
        for number in &numbers {
            launch.arg(number);
        }
        let config = by_row(n_rows, update_shared_bytes(dim as usize));
        // SAFETY: as in `unit_rows`, for `update`. Rows are strictly ascending, so that no two blocks
        // write the same one; samples are rows of the global batch.
        unsafe { launch.launch(config) }.map(drop).map_err(torch_error)
    }

    fn catch_up(&self, rows: &Rows, keys: &RowKeys) -> Result<(), TchError> {
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
    #[allow(clippy::print_stderr)] // the reason for a skip
    fn kernels_compile_for_every_generation_of_cards() {
        for capability in [(7, 5), (8, 0), (9, 0)] {
            let ptx = match compile(capability) {
                Ok(ptx) => ptx.to_src(),
                Err(KernelError::NoLibrary(name)) => {
                    eprintln!(
                        "skipped: there is no {name} library; `scripts/test-kernels` gets it"
                    );
                    return;
                }
                Err(error) => panic!("{capability:?}: {error}"),
            };
            for weights in ['f', 'h'] {
                for state in ['f', 'h'] {
                    for products in ['f', 'h'] {
                        for name in ["unit_rows", "update"] {
                            let entry = format!(".entry {name}_{weights}{state}{products}(");
                            assert!(ptx.contains(&entry), "{capability:?}: no {entry}");
                        }
                    }
                }
                assert!(ptx.contains(&format!(".entry exponentials_{weights}(")));
            }
        }
    }

    #[test]
    #[allow(clippy::print_stderr)] // the reason for a skip
    fn a_mistake_in_the_kernels_is_reported_with_the_compilers_words() {
        // SAFETY: as in `compile`.
        if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
            eprintln!("skipped: there is no NVRTC library; `scripts/test-kernels` gets it");
            return;
        }
        let error =
            compile_ptx_with_opts("__global__ void f() { nothing }", CompileOptions::default());
        let text = KernelError::Compile(error.unwrap_err()).to_string();
        assert!(text.contains("nothing"), "{text}");
    }
}
