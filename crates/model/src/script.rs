//! TorchScript programs, run by libtorch's interpreter.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, Ordering},
};

use tch::{CModule, Device, Kind, Tensor};
use zip::ZipArchive;

use crate::{InputSpec, ModelError};

/// Source text of one member; the largest network's takes 2 MB.
const SOURCE_BYTES_MAX: u64 = 64 << 20;
/// Calls of the interpreter that reach beyond the program: files, extensions, other processes.
const FORBIDDEN: [&str; 6] =
    ["torch.save", "from_file", "torch.classes", "torch.distributed", "rpc", "torch.load"];

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
    /// Loads a program and runs it once on a grey image.
    pub(crate) fn open(
        path: &Path,
        device: Device,
        input: &InputSpec,
    ) -> Result<Script, ModelError> {
        let refuse = |reason: String| ModelError::Script { path: path.to_owned(), reason };
        check_source(path).map_err(refuse)?;
        let mut module =
            CModule::load_on_device(path, device).map_err(|error| refuse(first_line(&error)))?;
        module.f_set_eval().map_err(|error| refuse(first_line(&error)))?;
        let batch = AtomicI64::new(i64::MAX);
        let mut script = Script { path: path.to_owned(), module, device, dim: 0, batch };
        let shape = [1, 3, input.height as i64, input.width as i64];
        let output = script.run(&Tensor::zeros(shape, (Kind::Float, device)))?;
        script.dim = match output.size()[..] {
            [1, dim] => dim as usize,
            ref other => return Err(refuse(format!("its output has shape {other:?}, not [1, E]"))),
        };
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
                Err(error) if n > 1 => {
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
        let refuse =
            |error| ModelError::Script { path: self.path.clone(), reason: first_line(&error) };
        tch::no_grad(|| self.module.forward_ts(&[images])).map_err(refuse)
    }
}

/// libtorch's messages come with a C++ back trace.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Refuses programs that name what no network needs, before any of it is loaded.
fn check_source(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut zip = ZipArchive::new(file).map_err(|error| error.to_string())?;
    for i in 0..zip.len() {
        let member = zip.by_index(i).map_err(|error| error.to_string())?;
        let name = member.name().to_owned();
        if !name.ends_with(".py") {
            continue;
        }
        let mut source = Vec::new();
        member.take(SOURCE_BYTES_MAX).read_to_end(&mut source).map_err(|e| e.to_string())?;
        let source = String::from_utf8_lossy(&source);
        if let Some(call) = forbidden(&source) {
            return Err(format!("`{}` calls `{call}`", name.escape_debug()));
        }
    }
    Ok(())
}

/// The first call that a network has no use for.
fn forbidden(source: &str) -> Option<&str> {
    let named = FORBIDDEN.iter().find(|call| source.contains(**call)).copied();
    // Operators outside torch's own: `ops.prim.NumToTensor` is how the printer spells built-ins.
    let namespaces = source.match_indices("ops.").filter_map(|(at, _)| {
        let whole =
            source[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let name = source[at + 4..].split(['.', '(', ' ', '\n']).next()?;
        (whole && !matches!(name, "prim" | "aten")).then_some(name)
    });
    named.or_else(|| namespaces.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_reach_beyond_the_program_are_found() {
        assert_eq!(forbidden("_0 = torch.add(x, y)\n_1 = ops.prim.NumToTensor(n)"), None);
        assert_eq!(forbidden("torch.save(x, \"/etc/passwd\")"), Some("torch.save"));
        assert_eq!(forbidden("y = torch.from_file(\"a\")"), Some("from_file"));
        assert_eq!(forbidden("y = ops.evil.run(x)"), Some("evil"));
        assert_eq!(forbidden("props.x = 1"), None);
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
