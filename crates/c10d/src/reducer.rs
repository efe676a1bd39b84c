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
/// A pass is [`begin`](Reducer::begin), one or more times [`backward`](Reducer::backward), and
/// [`finish`](Reducer::finish). Buckets are filled in the reverse order of the parameters. The `grad`
/// of every parameter becomes a view of its bucket: zero it between two steps, and never replace it.
#[derive(Debug)]
pub struct Reducer {
    raw: *mut PfcReducer,
    /// The parameters' names, for errors.
    names: Vec<String>,
    // After `raw`: the reducer uses the group until it is gone.
    group: Arc<ProcessGroup>,
}

// SAFETY: the object has no home thread; whoever holds the only reference may use it.
unsafe impl Send for Reducer {}

impl Reducer {
    /// Makes a reducer of `parameters`, each with its name. Every rank calls it, with equally many
    /// parameters of equal shapes.
    ///
    /// * `bucket_bytes`: size of a bucket; the first one to be all-reduced has at most 1 MiB
    ///
    /// # Errors
    ///
    /// [`C10dError`] if the ranks do not agree or one is gone.
    pub fn new(
        group: Arc<ProcessGroup>,
        parameters: &[(&str, &Tensor)],
        bucket_bytes: usize,
    ) -> Result<Reducer, C10dError> {
        let names = parameters.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut handles: Vec<Tensor> = parameters.iter().map(|(_, p)| p.shallow_clone()).collect();
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
            Ok(()) => Ok(Reducer { raw: reducer, names, group }),
            Err(failure) => Err(group.explain(OPERATION, failure)),
        }
    }

    /// Begins a backward pass whose gradients are summed over the ranks. A pass that only adds to
    /// `grad`, as gradient accumulation does, is a plain [`Tensor::backward`] without this.
    ///
    /// # Errors
    ///
    /// [`C10dError`] if a rank is gone or gave up.
    pub fn begin(&mut self) -> Result<(), C10dError> {
        let result = self.group.with_group(|_| {
            // SAFETY: the reducer is live, and this is the only reference to it.
            unsafe { ffi::take(ffi::pfc_reducer_begin(self.raw)) }
        });
        result.map_err(|failure| self.group.explain(OPERATION, failure))
    }

    /// Runs the backward pass from `objective`, or a piece of it.
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

    /// Ends the pass after its last piece. Every parameter then has in `grad` the sum over the ranks of
    /// what was there at [`begin`](Reducer::begin) and of this pass's gradient.
    ///
    /// # Errors
    ///
    /// [`C10dError::NoGradient`] if the pass did not reach every parameter: their sums, and those of
    /// parameters that share a bucket with them, are not valid then.
    pub fn finish(&mut self) -> Result<(), C10dError> {
        let mut received = vec![0u8; self.names.len()];
        // SAFETY: the reducer is live, this is the only reference to it, and there is one byte for
        // each parameter.
        let result = unsafe { ffi::take(ffi::pfc_reducer_finish(self.raw, received.as_mut_ptr())) };
        result.map_err(|failure| self.group.explain(OPERATION, failure))?;
        let missing = received.iter().zip(&self.names).filter(|(received, _)| **received == 0);
        let parameters: Vec<String> = missing.map(|(_, name)| name.clone()).collect();
        if parameters.is_empty() {
            return Ok(());
        }
        self.group.mark_broken();
        Err(C10dError::NoGradient { parameters })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: this is its only owner.
        unsafe { ffi::pfc_reducer_free(self.raw) };
    }
}
