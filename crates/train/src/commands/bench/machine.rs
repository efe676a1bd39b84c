//! What the operating system knows of this process and its files.

use std::{fs, io, path::Path};

/// A line of `/proc/self/status` in MiB; `None` where there is no such file.
pub(super) fn status_mib(key: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// MiB that the files of a folder take on disk, holes left out.
pub(super) fn folder_mib(folder: &Path) -> io::Result<f64> {
    let mut n_bytes = 0;
    for entry in fs::read_dir(folder)? {
        n_bytes += n_bytes_on_disk(&entry?.metadata()?);
    }
    Ok(n_bytes as f64 / f64::from(1 << 20))
}

#[cfg(unix)]
fn n_bytes_on_disk(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // In units of 512 bytes, whatever the file system's blocks are.
    metadata.blocks() * 512
}

#[cfg(not(unix))]
fn n_bytes_on_disk(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_has_memory_and_a_hole_takes_no_disk() {
        assert!(status_mib("VmHWM").unwrap() > 1.0);
        assert_eq!(status_mib("NoSuchLine"), None);
        let folder = tempfile::tempdir().unwrap();
        fs::File::create(folder.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        assert!(folder_mib(folder.path()).unwrap() < 1.0);
    }
}
