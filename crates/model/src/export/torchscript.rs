//! TorchScript: the network recorded while it runs.

use std::path::Path;

use pfc_durable::AtomicFile;
use tch::{CModule, Kind, Tensor};

use crate::{IMAGE_SIZE, Inference, ModelError};

/// Name of the folder within the archive: libtorch takes it from the name of the file that it writes.
const ROOT: &str = "backbone.pt";

/// Records the network, normalisations folded, as a program that takes batches of any size.
///
/// The input is `[B, 3, 112, 112]`, RGB, normalised as for training. The same network gives the same
/// bytes.
///
/// # Errors
///
/// [`ModelError::Torch`], [`ModelError::Memory`] and [`ModelError::Durable`].
pub fn torchscript(path: &Path, inference: &Inference) -> Result<(), ModelError> {
    let shape = [2, 3, IMAGE_SIZE, IMAGE_SIZE];
    let example = Tensor::zeros(shape, (Kind::Float, inference.device()));
    let mut record = |inputs: &[Tensor]| vec![inference.forward(&inputs[0])];
    let module = CModule::create_by_tracing("Backbone", "forward", &[example], &mut record)
        .map_err(ModelError::torch("record the network"))?;
    let mut file = AtomicFile::create(path)?;
    save(&module, &mut file, path)?;
    file.commit()?;
    Ok(())
}

/// Has libtorch save the module through a pipe. libtorch only knows files, ends the process where one
/// cannot be written to its end, and puts the file's name into the archive; a pipe takes all that it is
/// given, and is opened under a name that is always the same.
#[cfg(target_os = "linux")]
fn save(module: &CModule, file: &mut AtomicFile, path: &Path) -> Result<(), ModelError> {
    use std::{
        io::{self, PipeReader, Read},
        os::fd::AsRawFd,
        panic::resume_unwind,
        thread,
    };

    use tempfile::TempDir;

    /// Reads to the end, also where nothing can be written any more: the other side must not notice. The folder
    /// of the link goes with the first byte, when the other side has opened it: libtorch ends the process for
    /// want of memory, and nothing of it must be left.
    fn take(mut pipe: PipeReader, link: TempDir, file: &mut AtomicFile) -> io::Result<()> {
        let mut first = Vec::new();
        let begun = pipe.by_ref().take(1).read_to_end(&mut first);
        drop(link);
        let written = begun.and_then(|_| io::copy(&mut (&first[..]).chain(&mut pipe), file));
        if written.is_err() {
            io::copy(&mut pipe, &mut io::sink())?;
        }
        written.map(drop)
    }

    let failed = || ModelError::io("prepare the program for", path);
    let (reader, writer) = io::pipe().map_err(failed())?;
    let folder = tempfile::tempdir().map_err(failed())?;
    let link = folder.path().join(ROOT);
    let target = format!("/proc/self/fd/{}", writer.as_raw_fd());
    std::os::unix::fs::symlink(target, &link).map_err(failed())?;
    thread::scope(|scope| {
        let taken = thread::Builder::new().spawn_scoped(scope, || take(reader, folder, file));
        let taken = taken.map_err(failed())?;
        let saved = module.save(&link).map_err(ModelError::torch("save the recorded network"));
        // The reader comes to the end once both sides that libtorch wrote to are closed.
        drop(writer);
        let taken = taken.join().unwrap_or_else(|panic| resume_unwind(panic));
        saved.and(taken.map_err(ModelError::io("write", path)))
    })
}

/// By way of a temporary file, where no pipe has a name.
#[cfg(not(target_os = "linux"))]
fn save(module: &CModule, file: &mut AtomicFile, path: &Path) -> Result<(), ModelError> {
    let failed = || ModelError::io("prepare the program for", path);
    let folder = tempfile::tempdir().map_err(failed())?;
    let temporary = folder.path().join(ROOT);
    module.save(&temporary).map_err(ModelError::torch("save the recorded network"))?;
    let mut program = std::fs::File::open(&temporary).map_err(failed())?;
    std::io::copy(&mut program, file).map(drop).map_err(ModelError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, Backbone};
    use tch::Device;

    #[test]
    fn the_same_network_gives_the_same_bytes_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let written = |name: &str| {
            let architecture = Architecture::IResNet { layers: [1; 4], widths: [8; 4] };
            let backbone = Backbone::with_architecture(architecture, 8, Device::Cpu, 3).unwrap();
            torchscript(&dir.path().join(name), &backbone.into_inference()).unwrap();
            std::fs::read(dir.path().join(name)).unwrap()
        };
        let first = written("a.pt");
        assert!(first.len() > 10_000);
        assert!(written("another-name.torchscript.pt") == first);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
