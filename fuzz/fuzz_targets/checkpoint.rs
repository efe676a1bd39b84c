//! Any bytes as the manifest of a checkpoint: a network of a bounded size, or an error.

#![no_main]

use std::{fs, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use pfc_model::checkpoint::{BACKBONE, Checkpoint, MANIFEST};
use tch::Device;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    // A sound file of no tensors.
    fs::write(dir.path().join(BACKBONE), b"\x02\0\0\0\0\0\0\0{}")
        .expect("a file in the temporary folder");
    dir
});

fuzz_target!(|bytes: &[u8]| {
    fs::write(DIR.path().join(MANIFEST), bytes).expect("a file in the temporary folder");
    let Ok(checkpoint) = Checkpoint::open(DIR.path()) else { return };
    let _ = checkpoint.verify();
    let _ = checkpoint.backbone(Device::Cpu);
});
