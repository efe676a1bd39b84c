//! Tensors as bytes, without a copy.
#![allow(unsafe_code)]

use tch::{Device, Tensor};

/// Lends the bytes of `tensor`, which is moved to the CPU and made contiguous first where need be.
pub fn with_bytes<R>(tensor: &Tensor, read: impl FnOnce(&[u8]) -> R) -> R {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let len = n_bytes(&tensor);
    if len == 0 {
        return read(&[]);
    }
    // SAFETY: the storage of a contiguous CPU tensor is `len` initialised bytes from `data_ptr` on,
    // and `tensor` keeps it alive until `read` returns.
    read(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), len) })
}

/// Lends the bytes of a tensor that nobody else reads, such as a fresh one, to be filled.
///
/// # Panics
///
/// If `tensor` is not on the CPU or not contiguous.
pub fn with_bytes_mut<R>(tensor: &mut Tensor, fill: impl FnOnce(&mut [u8]) -> R) -> R {
    assert!(tensor.device() == Device::Cpu && tensor.is_contiguous(), "not a plain CPU tensor");
    let len = n_bytes(tensor);
    if len == 0 {
        return fill(&mut []);
    }
    // SAFETY: as above; every bit pattern is a valid element of the kinds in use, and callers pass
    // a tensor that they have just made or hold alone, so that no other handle reads it meanwhile.
    fill(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), len) })
}

/// Bytes that the elements of `tensor` take.
pub(crate) fn n_bytes(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}
