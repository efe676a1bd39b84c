//! What a device has left, and what is in use there.

use tch::Device;

/// Bytes of memory that are free on `device`, where it is a GPU that can be asked; none of a CPU, and none
/// in a build without CUDA.
pub fn free_memory(device: Device) -> Option<u64> {
    let (free, _) = free_and_all(device)?;
    Some(free)
}

/// Bytes of memory that are in use on `device`, by this process and all others; none as for
/// [`free_memory`]. libtorch gives nothing back before the process ends, so that of a card that nobody
/// else uses it is the most that was in use so far.
pub fn memory_in_use(device: Device) -> Option<u64> {
    let (free, all) = free_and_all(device)?;
    Some(all.saturating_sub(free))
}

/// Bytes of memory that `device` has in all; none as for [`free_memory`].
pub fn all_memory(device: Device) -> Option<u64> {
    let (_, all) = free_and_all(device)?;
    Some(all)
}

fn free_and_all(device: Device) -> Option<(u64, u64)> {
    match device {
        Device::Cuda(index) => of_cuda(index),
        _ => None,
    }
}

#[cfg(feature = "cuda")]
fn of_cuda(index: usize) -> Option<(u64, u64)> {
    let context = cudarc::driver::CudaContext::new(index).ok()?;
    let (free, all) = context.mem_get_info().ok()?;
    Some((free as u64, all as u64))
}

#[cfg(not(feature = "cuda"))]
fn of_cuda(_: usize) -> Option<(u64, u64)> {
    None
}
