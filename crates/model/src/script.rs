//! TorchScript programs, run by libtorch's interpreter.
//!
//! A program can write any bytes to any file that the user may write, and libtorch's parser of programs
//! can be brought to crash: PyTorch knows no safe way to load one. No list of forbidden words keeps
//! that out, since libtorch reads the text by rules of its own, so nothing here tries: a program is run
//! only for a caller that says that it trusts it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, Ordering},
};

use pfc_torchfile::{StateFile, TorchFileError};
use tch::{CModule, Device, Kind, TchError, Tensor};

use crate::{
    InputSpec, ModelError,
    libtorch::{first_line, is_out_of_memory},
    state::{check_finite, check_not_nan},
    weights::{TorchFile, kind, read_torch_tensor},
};

/// A program that turns images into embeddings.
#[derive(Debug)]
pub(crate) struct Script {
    path: PathBuf,
    module: CModule,
    device: Device,
    dim: usize,
    /// Most images of a run.
    batch: AtomicI64,
}

impl Script {
    /// Loads a program that the caller trusts and runs it once, on shades from black to white. Parameters
    /// must be finite, and buffers and constants may be infinite, as masks are, but not NaN.
    pub(crate) fn open(
        path: &Path,
        device: Device,
        input: &InputSpec,
    ) -> Result<Script, ModelError> {
        let refuse = |reason: String| ModelError::Script { path: path.to_owned(), reason };
        let failed = |error| failed(path, error);
        let mut module = CModule::load_on_device(path, device).map_err(failed)?;
        module.f_set_eval().map_err(failed)?;
        let origin = path.display().to_string();
        let mut parameters = BTreeSet::new();
        for (name, parameter) in module.named_parameters().map_err(failed)? {
            check_finite(&origin, &name, &parameter)?;
            parameters.insert(name);
        }
        check_kept(path, &parameters)?;
        let batch = AtomicI64::new(i64::MAX);
        let mut script = Script { path: path.to_owned(), module, device, dim: 0, batch };
        let shape = [1, 3, input.height as i64, input.width as i64];
        let shades = Tensor::f_linspace(-1.0, 1.0, shape.iter().product(), (Kind::Float, device))
            .and_then(|shades| shades.f_reshape(shape))
            .map_err(failed)?;
        let output = script.run(&shades)?;
        script.dim = match output.size()[..] {
            [1, dim] => dim as usize,
            ref other => return Err(refuse(format!("its output has shape {other:?}, not [1, E]"))),
        };
        check_finite(&origin, "embedding of shades from black to white", &output)?;
        Ok(script)
    }

    pub(crate) fn embedding(&self) -> usize {
        self.dim
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// `[B, 3, H, W]`, normalised, to `[B, E]`.
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        let n = images.size()[0];
        let mut batch = self.batch.load(Ordering::Relaxed).min(n);
        if batch == n {
            match self.run_rows(images) {
                Err(error @ ModelError::Script { .. }) if n > 1 => {
                    // A trace keeps the batch of its example where it was read as a number.
                    tracing::warn!(
                        "{}: takes one image at a time only: {error}",
                        self.path.display()
                    );
                    self.batch.store(1, Ordering::Relaxed);
                    batch = 1;
                }
                result => return result,
            }
        }
        let parts: Result<Vec<Tensor>, ModelError> =
            images.split(batch, 0).iter().map(|part| self.run_rows(part)).collect();
        Ok(Tensor::cat(&parts?, 0))
    }

    fn run_rows(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        let output = self.run(images)?;
        let expected = [images.size()[0], self.dim as i64];
        if output.size() == expected {
            return Ok(output);
        }
        let reason = format!("its output has shape {:?}, not {expected:?}", output.size());
        Err(ModelError::Script { path: self.path.clone(), reason })
    }

    fn run(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        tch::no_grad(|| self.module.forward_ts(&[images]))
            .map_err(|error| failed(&self.path, error))
    }
}

/// Refuses a NaN in what a program keeps beside its `parameters`, which are known to be finite. libtorch does
/// not name these tensors to us, so that they are read from the file; of a file that is not understood, what
/// the program answers is all that is looked at.
fn check_kept(path: &Path, parameters: &BTreeSet<String>) -> Result<(), ModelError> {
    let file = File::open(path).map_err(ModelError::io("open", path))?;
    let mut file: TorchFile = match StateFile::parse_script(BufReader::new(file)) {
        Ok(file) => file,
        Err(source @ TorchFileError::Io(_)) => {
            return Err(ModelError::TorchFile { path: path.to_owned(), source });
        }
        Err(error) => {
            tracing::debug!("{}: its buffers are not looked at: {error}", path.display());
            return Ok(());
        }
    };
    let origin = path.display().to_string();
    for i in 0..file.tensors().len() {
        let info = &file.tensors()[i];
        let name = info.key.clone();
        let is_float =
            matches!(kind(info.dtype), Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16);
        if is_float && !parameters.contains(&name) {
            check_not_nan(&origin, &name, &read_torch_tensor(path, &mut file, i)?)?;
        }
    }
    Ok(())
}

/// What an error of the program means: [`ModelError::Memory`] says nothing of the program itself.
fn failed(path: &Path, error: TchError) -> ModelError {
    match is_out_of_memory(&error) {
        true => ModelError::torch("run the TorchScript program")(error),
        false => ModelError::Script { path: path.to_owned(), reason: first_line(&error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_memory_is_not_taken_for_a_fault_of_the_program() {
        let said = "The following operation failed in the TorchScript interpreter.\nRuntimeError: \
                    [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory";
        let error = failed(Path::new("a.pt"), TchError::Torch(said.to_owned()));
        assert!(matches!(error, ModelError::Memory { .. }), "{error:?}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pt");
        for bytes in [&b""[..], b"PK\x03\x04", b"not a program"] {
            std::fs::write(&path, bytes).unwrap();
            let error = Script::open(&path, Device::Cpu, &InputSpec::insightface()).unwrap_err();
            assert!(matches!(error, ModelError::Script { .. }), "{error:?}");
        }
    }
}
