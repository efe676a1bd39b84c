//! Graphs of operators that were compiled ahead of time (`AOTInductor`), run without Python.

#![allow(unsafe_code)]

use std::{borrow::Borrow, ffi::CString, os::unix::ffi::OsStrExt, path::Path, ptr, sync::Mutex};

use tch::{Device, TchError, Tensor};
use torch_sys::C_tensor;

use crate::ffi::{self, PfcPackage};

/// A package that is loaded.
#[derive(Debug)]
pub struct Package {
    /// Used by one thread at a time.
    handle: Mutex<Handle>,
}

#[derive(Debug)]
struct Handle(*mut PfcPackage);

// SAFETY: libtorch binds a package to no thread.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the bridge made it, and this is the only pointer to it.
        unsafe { ffi::pfc_package_free(self.0) }
    }
}

impl Package {
    /// Loads the package in the file `path`, compiled for a device of the kind of `device`.
    ///
    /// A package is a program: what it does when it is loaded and run, nobody looks at. The caller has been
    /// told that it is trusted.
    ///
    /// # Errors
    ///
    /// libtorch's words if the file is no package, or one of another libtorch or processor.
    pub fn load(path: &Path, device: Device) -> Result<Package, TchError> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let index = match device {
            Device::Cuda(index) => i32::try_from(index).unwrap_or(-1),
            _ => -1,
        };
        let mut package = ptr::null_mut();
        // SAFETY: the path ends in a zero byte, and there is a place for the package.
        unsafe { ffi::take(ffi::pfc_package_load(path.as_ptr(), index, &raw mut package)) }
            .map_err(TchError::Torch)?;
        Ok(Package { handle: Mutex::new(Handle(package)) })
    }

    /// The `n_outputs` outputs for `inputs`; nothing is recorded for a backward pass. One that the package
    /// leaves out is the undefined tensor.
    ///
    /// # Safety
    ///
    /// Number, shapes, strides, kinds and devices of the inputs are those that the package was compiled for: it
    /// reads their memory without a look at them.
    ///
    /// # Errors
    ///
    /// libtorch's words if the package fails or gives another number of outputs.
    pub unsafe fn run<T: Borrow<Tensor>>(
        &self,
        inputs: &[T],
        n_outputs: usize,
    ) -> Result<Vec<Tensor>, TchError> {
        let mut inputs: Vec<Tensor> =
            inputs.iter().map(|input| input.borrow().shallow_clone()).collect();
        let inputs: Vec<*mut C_tensor> = inputs.iter_mut().map(Tensor::as_mut_ptr).collect();
        let mut found: Vec<*mut C_tensor> = vec![ptr::null_mut(); n_outputs];
        let handle = self.handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: the tensors live until the end of the call, and there are as many places as outputs; what the
        // package reads, the caller answers for.
        let result = unsafe {
            ffi::take(ffi::pfc_package_run(
                handle.0,
                inputs.as_ptr(),
                inputs.len(),
                found.as_mut_ptr(),
                n_outputs,
            ))
        };
        let taken = |output: *mut C_tensor| match output.is_null() {
            true => Tensor::new(),
            // SAFETY: whatever was put there was made by `new` and belongs to the caller.
            false => unsafe { Tensor::from_ptr(output) },
        };
        let outputs = found.into_iter().map(taken).collect();
        result.map_err(TchError::Torch).map(|()| outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_package_is_refused_in_libtorch_s_words() {
        let folder = std::env::temp_dir();
        for (path, said) in [(folder.join("no such package.pt2"), "zip"), (folder, "zip")] {
            let error = Package::load(&path, Device::Cpu).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
