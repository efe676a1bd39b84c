//! Gradients summed over ranks while the backward pass runs.

#![allow(unsafe_code)]

use std::{ptr, sync::Arc};

use tch::Tensor;

use crate::{
    C10dError, ProcessGroup,
    ffi::{self, PfcReducer},
    group::raw,
};

const OPERATION: &str = "all-reduce of the gradients";

/// `c10d::Reducer`: sums the gradients of a network over the ranks, a bucket at a time, while the
/// backward pass still computes the others.
///
/// Buckets are filled in the reverse order of the parameters. The `grad` of every parameter becomes
/// a view of its bucket: zero it between two steps, and never replace it.
#[derive(Debug)]
pub struct Reducer {
    raw: *mut PfcReducer,
    // After `raw`: the reducer uses the group until it is gone.
    group: Arc<ProcessGroup>,
}

// SAFETY: the object has no home thread; whoever holds the only reference may use it.
unsafe impl Send for Reducer {}

impl Reducer {
    /// A reducer of `parameters`, equally many and of equal shapes on all ranks, which all call it.
    ///
    /// * `bucket_bytes`: size of a bucket; the first one to be exchanged is at most 1 MiB
    ///
    /// # Errors
    ///
    /// [`C10dError`] if the ranks do not agree or one is gone.
    pub fn new(
        group: Arc<ProcessGroup>,
        parameters: &[&Tensor],
        bucket_bytes: usize,
    ) -> Result<Reducer, C10dError> {
        let mut handles: Vec<Tensor> = parameters.iter().map(|p| p.shallow_clone()).collect();
        let pointers: Vec<_> = handles.iter_mut().map(raw).collect();
        let mut reducer = ptr::null_mut();
        let made = group.with_group(|group| {
            // SAFETY: the group is live, and the tensors outlive the call, which takes its own
            // references to them.
            unsafe {
                ffi::take(ffi::pfc_reducer_new(
                    group,
                    pointers.as_ptr(),
                    pointers.len(),
                    bucket_bytes as i64,
                    &raw mut reducer,
                ))
            }
        });
        match made {
            Ok(()) => Ok(Reducer { raw: reducer, group }),
            Err(failure) => Err(group.explain(OPERATION, failure)),
        }
    }

    /// Begins a pass backwards that is exchanged. One that only adds to `grad`, as in gradient
    /// accumulation, is a plain [`Tensor::backward`] without this.
    ///
    /// # Errors
    ///
    /// [`C10dError`] if the pass before has left out a parameter.
    pub fn begin(&mut self) -> Result<(), C10dError> {
        let result = self.group.with_group(|_| {
            // SAFETY: the reducer is live, and this is the only reference to it.
            unsafe { ffi::take(ffi::pfc_reducer_begin(self.raw)) }
        });
        result.map_err(|failure| self.group.explain(OPERATION, failure))
    }

    /// The pass backwards from `objective`, or a piece of it. Once the pieces have reached every
    /// parameter, each has in `grad` the sum over the ranks of what was there at
    /// [`begin`](Reducer::begin) and this pass's gradient.
    ///
    /// # Errors
    ///
    /// [`C10dError`] if a rank is gone, or the pass itself fails.
    pub fn backward(&mut self, objective: &Tensor) -> Result<(), C10dError> {
        let mut objective = objective.shallow_clone();
        let result = self.group.with_group(|_| {
            // SAFETY: the reducer is live, and this is the only reference to it; the tensor outlives
            // the call.
            unsafe { ffi::take(ffi::pfc_reducer_backward(self.raw, raw(&mut objective))) }
        });
        result.map_err(|failure| self.group.explain(OPERATION, failure))
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: this is its only owner.
        unsafe { ffi::pfc_reducer_free(self.raw) };
    }
}
