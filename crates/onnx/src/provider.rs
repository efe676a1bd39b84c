//! Which part of onnxruntime runs a graph: its execution provider.

use std::{fmt, path::PathBuf, str::FromStr};

use ort::{
    ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT},
    session::builder::SessionBuilder,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::{error::MISSING, runtime};

/// Where a model computes, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its index; needs a build of onnxruntime for GPUs.
    Cuda(i32),
    /// The same through TensorRT, which needs its libraries too. It compiles a model for the card when it is
    /// first opened, which takes minutes, and keeps what it made in the user's cache folder.
    TensorRt(i32),
}

impl Device {
    /// What computes there, by onnxruntime's name.
    pub fn provider(self) -> &'static str {
        match self {
            Device::Cpu => "CPUExecutionProvider",
            Device::Cuda(_) => CUDA::NAME,
            Device::TensorRt(_) => TensorRT::NAME,
        }
    }

    /// Whether the runtime that is loaded was built with it.
    pub fn is_available(self) -> bool {
        if self == Device::Cpu {
            return true;
        }
        let has = || match self {
            Device::Cpu => Ok(true),
            Device::Cuda(_) => CUDA::is_available(),
            Device::TensorRt(_) => TensorRT::is_available(),
        };
        runtime::load().is_ok() && has().unwrap_or(false)
    }

    /// Images of a run where the file leaves the batch open. Beyond 32 a CPU gains nothing; a GPU needs more
    /// to be filled, and the deepest networks keep within 2 GB of its memory.
    pub(crate) fn batch(self) -> usize {
        if self == Device::Cpu { 32 } else { 128 }
    }

    /// Whether runs all have one size: TensorRT compiles anew for another.
    pub(crate) fn wants_one_size(self) -> bool {
        matches!(self, Device::TensorRt(_))
    }

    /// Has a session compute there.
    ///
    /// * `model`: its bytes, which tell what was compiled of it from what was compiled of others
    pub(crate) fn configure(
        self,
        builder: SessionBuilder,
        model: &[u8],
    ) -> Result<SessionBuilder, String> {
        if !self.is_available() {
            return Err(format!("{MISSING}{}", self.provider()));
        }
        let cuda = |index: i32| {
            // In 32 bits throughout, as on the processor.
            CUDA::default().with_device_id(index).with_tf32(false).build().error_on_failure()
        };
        let providers: Vec<ExecutionProviderDispatch> = match self {
            Device::Cpu => return Ok(builder),
            Device::Cuda(index) => vec![cuda(index)],
            Device::TensorRt(index) => {
                let mut trt = TensorRT::default().with_device_id(index);
                // By the weights as well: what TensorRT itself goes by are the names of nodes.
                let own = |folder: PathBuf| folder.join(format!("{:032x}", xxh3_128(model)));
                if let Some(folder) = runtime::cache_folder("tensorrt").map(own) {
                    trt = trt.with_engine_cache(true).with_engine_cache_path(folder.display());
                    trt = trt.with_timing_cache(true).with_timing_cache_path(folder.display());
                }
                // What TensorRT does not have runs in CUDA.
                vec![trt.build().error_on_failure(), cuda(index)]
            }
        };
        builder.with_execution_providers(providers).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("the processor"),
            Device::Cuda(index) => write!(f, "GPU {index}"),
            Device::TensorRt(index) => write!(f, "GPU {index} through TensorRT"),
        }
    }
}

/// What of onnxruntime is to run a model, as users say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provider {
    /// CUDA where a GPU is asked for and the runtime has it, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// CUDA.
    Cuda,
    /// TensorRT, and CUDA for what it lacks.
    TensorRt,
}

impl Provider {
    /// Where a model computes by it, and whether it may be the processor instead.
    ///
    /// * `gpu`: the GPU that is asked for; where none is but the provider needs one, it is the first
    #[must_use]
    pub fn on(self, gpu: Option<i32>) -> (Device, bool) {
        match (self, gpu) {
            (Provider::Auto, Some(index)) => (Device::Cuda(index), true),
            (Provider::Auto, None) | (Provider::Cpu, _) => (Device::Cpu, false),
            (Provider::Cuda, index) => (Device::Cuda(index.unwrap_or(0)), false),
            (Provider::TensorRt, index) => (Device::TensorRt(index.unwrap_or(0)), false),
        }
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Provider, String> {
        match text {
            "auto" => Ok(Provider::Auto),
            "cpu" => Ok(Provider::Cpu),
            "cuda" => Ok(Provider::Cuda),
            "tensorrt" => Ok(Provider::TensorRt),
            _ => Err("give auto, cpu, cuda or tensorrt".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_read_or_refused() {
        let all = ["auto", "cpu", "cuda", "tensorrt"].map(str::parse);
        let expected = [Provider::Auto, Provider::Cpu, Provider::Cuda, Provider::TensorRt];
        assert_eq!(all, expected.map(Ok));
        assert!("rocm".parse::<Provider>().is_err());
    }

    #[test]
    fn only_what_is_left_to_the_program_may_be_the_processor_instead() {
        let check = |provider: Provider, gpu, expected| assert_eq!(provider.on(gpu), expected);
        check(Provider::Auto, None, (Device::Cpu, false));
        check(Provider::Auto, Some(2), (Device::Cuda(2), true));
        check(Provider::Cpu, Some(2), (Device::Cpu, false));
        check(Provider::Cuda, None, (Device::Cuda(0), false));
        check(Provider::Cuda, Some(2), (Device::Cuda(2), false));
        check(Provider::TensorRt, None, (Device::TensorRt(0), false));
        check(Provider::TensorRt, Some(2), (Device::TensorRt(2), false));
    }
}
