//! TorchScript: the network recorded while it runs.

use std::{
    fs::File,
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

use pfc_durable::{AtomicFile, DurableError};
use tch::{CModule, Kind, Tensor};

use crate::{IMAGE_SIZE, Inference, ModelError};

/// Name of the folder within the archive: libtorch takes it from the name of the file that it writes.
const ROOT: &str = "backbone.pt";

/// Records the network, normalisations folded, as a program that takes batches of any size.
///
/// The input is `[B, 3, 112, 112]`, RGB, normalised as for training. The same network gives the same
/// bytes. The program is made in memory first, which takes as much as the file.
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
    let mut program = saved(&module, path)?;
    io::copy(&mut program, &mut file).map_err(DurableError::at("write", path))?;
    file.flush().map_err(DurableError::at("write", path))?;
    file.commit()?;
    Ok(())
}

/// The module as libtorch saves it. libtorch only knows files, ends the process where one cannot be
/// written, and puts the file's name into the archive: so it is given a file in memory, under a name
/// that is always the same.
fn saved(module: &CModule, path: &Path) -> Result<File, ModelError> {
    let failed = || ModelError::io("prepare the program for", path);
    let mut memory = InMemory::new().map_err(failed())?;
    module.save(memory.link()).map_err(ModelError::torch("save the recorded network"))?;
    memory.file.rewind().map_err(failed())?;
    Ok(memory.file)
}

/// A file in memory that has a path.
struct InMemory {
    file: File,
    folder: tempfile::TempDir,
}

impl InMemory {
    #[cfg(target_os = "linux")]
    fn new() -> io::Result<InMemory> {
        use std::os::fd::AsRawFd;
        let memory = rustix::fs::memfd_create(ROOT, rustix::fs::MemfdFlags::CLOEXEC)?;
        let file = File::from(memory);
        let folder = tempfile::tempdir()?;
        let target = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::os::unix::fs::symlink(target, folder.path().join(ROOT))?;
        Ok(InMemory { file, folder })
    }

    /// A plain temporary file where there are none in memory.
    #[cfg(not(target_os = "linux"))]
    fn new() -> io::Result<InMemory> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(ROOT);
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        Ok(InMemory { file, folder })
    }

    fn link(&self) -> PathBuf {
        self.folder.path().join(ROOT)
    }
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
