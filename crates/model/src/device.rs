//! What a device has left.

use tch::Device;

/// Bytes of memory that are free on `device`, where it is a GPU that can be asked; none of a CPU, and none
/// in a build without CUDA.
pub fn free_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => of_cuda(index),
        _ => None,
    }
}

#[cfg(feature = "cuda")]
fn of_cuda(index: usize) -> Option<u64> {
    let context = cudarc::driver::CudaContext::new(index).ok()?;
    let (free, _) = context.mem_get_info().ok()?;
    Some(free as u64)
}

#[cfg(not(feature = "cuda"))]
fn of_cuda(_: usize) -> Option<u64> {
    None
}
