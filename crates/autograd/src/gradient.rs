//! Gradients that Rust computes, in libtorch's backward pass.

#![allow(unsafe_code)]

use std::{
    any::Any,
    ffi::{CString, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::ffi::{self, PfcGradient};

/// The gradient of the objective by the output of an operator.
#[derive(Debug)]
pub struct OutputGradient {
    /// Of the shape and kind of the output, with any strides.
    pub tensor: Tensor,
    /// Whether nobody else will read it, so that its memory may be written to.
    pub is_last: bool,
}

/// Gives from the gradient by the output those by each of the inputs.
type Gradient = Box<dyn FnOnce(OutputGradient) -> Vec<Tensor> + Send>;

/// Makes `output` a function of `inputs` for libtorch's backward pass.
///
/// * `output`: a tensor of its own, computed from the inputs without being recorded
/// * `gradient`: called at most once, with the gradient by the output; returns one tensor for each
///   of the inputs, of the same shape and kind; [`Tensor::new`], the undefined tensor, counts as zero.
///   What it holds is freed with the pass, or with the output if there is none
///
/// Returns `output`, which has no history if no input requires a gradient or nothing is being
/// recorded. A second backward pass through it is an error of that pass, as is a panic of `gradient`.
///
/// # Panics
///
/// If libtorch refuses, as it does for an output that is no floating-point tensor.
pub fn with_gradient(
    mut output: Tensor,
    inputs: &[&Tensor],
    gradient: impl FnOnce(OutputGradient) -> Vec<Tensor> + Send + 'static,
) -> Tensor {
    let mut handles: Vec<Tensor> = inputs.iter().map(|input| input.shallow_clone()).collect();
    let pointers: Vec<_> = handles.iter_mut().map(Tensor::as_mut_ptr).collect();
    let gradient: Option<Gradient> = Some(Box::new(gradient));
    let context = Box::into_raw(Box::new(gradient)).cast();
    let gradient = PfcGradient { context, apply, drop: release };
    // SAFETY: the tensors outlive the call, which takes its own references to the inputs, and
    // `context` is what `apply` and `release` expect; the bridge now owns it.
    let result = unsafe {
        ffi::take(ffi::pfc_autograd_record(
            output.as_mut_ptr(),
            pointers.as_ptr(),
            pointers.len(),
            &raw const gradient,
        ))
    };
    if let Err(message) = result {
        panic!("libtorch records no operator: {message}");
    }
    output
}

unsafe extern "C" fn apply(
    context: *mut c_void,
    grad_output: *mut C_tensor,
    is_last: i32,
    grad_inputs: *mut *mut C_tensor,
    n_inputs: usize,
) -> *mut c_char {
    let run = || {
        // SAFETY: `context` is the box of `with_gradient`, which lives until `release`, and libtorch runs
        // a node on one thread at a time.
        let gradient = unsafe { &mut *context.cast::<Option<Gradient>>() };
        let gradient = gradient.take().expect("the bridge calls a gradient once");
        // SAFETY: the pointer is that of a live tensor, of which a reference is taken.
        let tensor = unsafe { Tensor::clone_from_ptr(grad_output) };
        let found = gradient(OutputGradient { tensor, is_last: is_last == 1 });
        assert_eq!(found.len(), n_inputs, "an operator gives a gradient for each input");
        found
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(found) => {
            for (i, mut tensor) in found.into_iter().enumerate() {
                // SAFETY: there are `n_inputs` places, and the bridge frees the tensor, which is
                // forgotten here.
                unsafe { *grad_inputs.add(i) = tensor.as_mut_ptr() };
                std::mem::forget(tensor);
            }
            ptr::null_mut()
        }
        Err(panic) => text(&message(panic.as_ref())),
    }
}

unsafe extern "C" fn release(context: *mut c_void) {
    // SAFETY: it is the box of `with_gradient`, and the bridge calls this once.
    drop(unsafe { Box::from_raw(context.cast::<Option<Gradient>>()) });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a gradient panicked".to_owned())
}

/// A copy that the bridge frees.
fn text(message: &str) -> *mut c_char {
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the argument ends in a zero byte.
    unsafe { libc::strdup(message.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tch::{Kind, Tensor};

    use super::*;

    fn leaf(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
    }

    /// a·b, with the gradient of it that is known from school.
    fn product(a: &Tensor, b: &Tensor) -> Tensor {
        let (x, y) = (a.detach(), b.detach());
        with_gradient(&x * &y, &[a, b], move |gradient| {
            vec![&gradient.tensor * &y, &gradient.tensor * &x]
        })
    }

    #[test]
    fn a_gradient_takes_part_in_a_backward_pass() {
        let (a, b) = (leaf(&[2.0, 3.0]), leaf(&[5.0, -7.0]));
        // Σ (a·b)·a, whose gradient by a is 2ab and by b is a².
        (product(&a, &b) * &a).sum(Kind::Float).backward();
        assert_eq!(numbers(&a.grad()), [20.0, -42.0]);
        assert_eq!(numbers(&b.grad()), [4.0, 9.0]);
    }

    #[test]
    fn an_input_that_learns_nothing_gets_no_gradient() {
        let (a, b) = (leaf(&[2.0]), Tensor::from_slice(&[5.0_f32]));
        product(&a, &b).sum(Kind::Float).backward();
        assert_eq!(numbers(&a.grad()), [5.0]);
        assert!(!b.grad().defined());
        assert!(!product(&b, &b).requires_grad());
        assert!(!tch::no_grad(|| product(&a, &b)).requires_grad());
    }

    #[test]
    fn what_a_gradient_holds_is_freed_with_the_pass_or_with_the_output() {
        struct Held(Arc<AtomicUsize>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let n_freed = Arc::new(AtomicUsize::new(0));
        let a = leaf(&[1.0]);
        let held = || {
            let held = Held(Arc::clone(&n_freed));
            with_gradient(a.detach() * 2.0, &[&a], move |gradient| {
                let _held = held;
                vec![gradient.tensor * 2.0]
            })
        };
        let output = held().sum(Kind::Float);
        assert_eq!(n_freed.load(Ordering::SeqCst), 0);
        output.backward();
        assert_eq!(n_freed.load(Ordering::SeqCst), 1);
        drop(held());
        assert_eq!(n_freed.load(Ordering::SeqCst), 2);
        tch::no_grad(|| drop(held()));
        assert_eq!(n_freed.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_gradient_that_others_read_too_may_not_be_overwritten() {
        let seen = |twice: bool| {
            let a = leaf(&[1.0, 2.0]);
            let (sender, receiver) = std::sync::mpsc::channel();
            let y = with_gradient(a.detach() * 1.0, &[&a], move |gradient| {
                sender.send(gradient.is_last).unwrap();
                vec![gradient.tensor]
            });
            // The gradient of a sum goes to both summands as one tensor.
            let z = if twice { &y + &a } else { &y * &a };
            (z.square()).sum(Kind::Float).backward();
            receiver.recv().unwrap()
        };
        assert!(!seen(true));
        assert!(seen(false));
    }

    #[test]
    fn a_panic_of_a_gradient_and_a_second_pass_are_errors_of_the_pass() {
        let a = leaf(&[1.0]);
        let y = with_gradient(a.detach() * 2.0, &[&a], |_| panic!("no such gradient"));
        let error = y.sum(Kind::Float).f_backward().unwrap_err().to_string();
        assert!(error.contains("no such gradient"), "{error}");

        let b = leaf(&[1.0]);
        let objective = product(&a, &b).sum(Kind::Float);
        let again = || Tensor::f_run_backward(&[&objective], &[&a], true, false);
        again().unwrap();
        let error = again().unwrap_err().to_string();
        assert!(error.contains("only once"), "{error}");
    }
}
