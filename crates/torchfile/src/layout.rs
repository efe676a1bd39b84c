//! A tensor as a view of a storage: whether it fits, and how its elements are gathered.

use crate::value::TensorRef;

/// Elements, and how far into the storage they reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Elements of the tensor.
    pub(crate) n: u64,
    /// Elements of the storage from the tensor's first to its last.
    pub(crate) span: u64,
}

impl TensorRef<'_> {
    /// Checks the view against its storage.
    ///
    /// # Errors
    ///
    /// That it reaches beyond, or has more elements than the storage: an expanded tensor, which no
    /// state dict holds, could claim any amount of memory.
    pub(crate) fn extent(&self) -> Result<Extent, String> {
        let too_large = || format!("its shape {:?} is too large", self.shape);
        let n = self.shape.iter().try_fold(1u64, |n, &side| n.checked_mul(side));
        let n = n.ok_or_else(too_large)?;
        if n == 0 {
            return Ok(Extent { n, span: 0 });
        }
        let reach = self.shape.iter().zip(&self.strides).try_fold(0u64, |reach, (side, stride)| {
            reach.checked_add((side - 1).checked_mul(*stride)?)
        });
        let span = reach.and_then(|reach| reach.checked_add(1)).ok_or_else(too_large)?;
        let end = span.checked_add(self.offset).ok_or_else(too_large)?;
        let available = self.storage.n_elements;
        if end > available || n > available {
            return Err(format!(
                "{n} elements up to element {end} of a storage that has {available}"
            ));
        }
        Ok(Extent { n, span })
    }

    /// Whether the elements lie one after the other in their order.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == expected;
            expected *= side.max(1);
            fits
        })
    }
}

/// Copies the elements of a strided view, of `size` bytes each, from `span` to `out` in order.
pub(crate) fn gather(span: &[u8], shape: &[u64], strides: &[u64], size: usize, out: &mut [u8]) {
    let mut at = vec![0u64; shape.len()];
    let mut from = 0u64;
    for element in out.chunks_exact_mut(size) {
        let start = from as usize * size;
        element.copy_from_slice(&span[start..start + size]);
        for axis in (0..shape.len()).rev() {
            at[axis] += 1;
            from += strides[axis];
            if at[axis] < shape[axis] {
                break;
            }
            from -= at[axis] * strides[axis];
            at[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, value::StorageRef};

    fn view(offset: u64, shape: &[u64], strides: &[u64]) -> TensorRef<'static> {
        let storage = StorageRef { key: "0", dtype: Dtype::U8, n_elements: 6 };
        TensorRef { storage, offset, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    #[test]
    fn a_view_within_its_storage_fits() {
        assert_eq!(view(0, &[2, 3], &[3, 1]).extent(), Ok(Extent { n: 6, span: 6 }));
        assert_eq!(view(1, &[2, 2], &[3, 1]).extent(), Ok(Extent { n: 4, span: 5 }));
        assert_eq!(view(5, &[], &[]).extent(), Ok(Extent { n: 1, span: 1 }));
        assert_eq!(view(9, &[0, 4], &[4, 1]).extent(), Ok(Extent { n: 0, span: 0 }));
    }

    #[test]
    fn a_view_beyond_its_storage_is_refused() {
        for view in [
            view(1, &[2, 3], &[3, 1]),
            view(0, &[7], &[0]),
            view(0, &[u64::MAX, 2], &[1, 1]),
            view(0, &[2], &[u64::MAX]),
            view(u64::MAX, &[1], &[1]),
        ] {
            assert!(view.extent().is_err(), "{view:?}");
        }
    }

    #[test]
    fn a_transposed_view_is_gathered_in_its_order() {
        assert!(view(0, &[2, 3], &[3, 1]).is_contiguous());
        assert!(view(0, &[1, 3], &[99, 1]).is_contiguous());
        assert!(!view(0, &[3, 2], &[1, 3]).is_contiguous());
        let mut out = [0; 6];
        gather(&[0, 1, 2, 3, 4, 5], &[3, 2], &[1, 3], 1, &mut out);
        assert_eq!(out, [0, 3, 1, 4, 2, 5]);
    }
}
