//! Tensors as slices of their elements.

use bytemuck::Pod;
use half::bf16;
use tch::{Device, Kind, Tensor};

use crate::bytes::{with_bytes, with_bytes_mut};

/// A number format that is converted to f32 and back in vectors.
pub trait Number: Pod + Send + Sync {
    /// The nearest value, of two the even one.
    fn of_f32(value: f32) -> Self;

    /// The same value.
    fn to_f32(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn of_f32(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Number for bf16 {
    #[inline(always)]
    fn of_f32(value: f32) -> bf16 {
        // Unlike `bf16::from_f32` without a branch for NaNs, so that it is done in vectors.
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        bf16::from_bits((rounded >> 16) as u16)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        // Unlike `bf16::to_f32` without a branch for NaNs.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Lends the elements of `tensor`, whose kind is that of `T`.
pub fn with_elements<T: Pod, R>(tensor: &Tensor, read: impl FnOnce(&[T]) -> R) -> R {
    // An empty slice of bytes need not be aligned for `T`.
    with_bytes(tensor, |bytes| match bytes {
        [] => read(&[]),
        bytes => read(bytemuck::cast_slice(bytes)),
    })
}

/// Lends the elements of a fresh, contiguous CPU tensor of the kind of `T`, to be filled.
///
/// # Panics
///
/// If `tensor` is not on the CPU or not contiguous.
pub fn with_elements_mut<T: Pod, R>(tensor: &mut Tensor, fill: impl FnOnce(&mut [T]) -> R) -> R {
    with_bytes_mut(tensor, |bytes| match bytes {
        [] => fill(&mut []),
        bytes => fill(bytemuck::cast_slice_mut(bytes)),
    })
}

/// The values of a tensor in row-major order.
pub fn to_f64(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Double).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    let n = values.len();
    tensor.copy_data(&mut values, n);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_and_ties_to_even() {
        for (value, expected) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (1.0 + 1.1 / 256.0, 1.0 + 2.0 / 256.0),
            (-0.1, -0.100_097_656),
            (0.0, 0.0),
            (f32::INFINITY, f32::INFINITY),
        ] {
            let found = <bf16 as Number>::of_f32(value);
            assert_eq!(found, bf16::from_f32(value), "{value}");
            assert_eq!(Number::to_f32(found), expected, "{value}");
        }
        assert!(Number::to_f32(<bf16 as Number>::of_f32(f32::NAN)).is_nan());
    }
}
