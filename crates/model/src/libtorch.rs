//! libtorch's failures as errors.
//!
//! Most of `tch` panics where libtorch throws, and the commonest reason for it, no memory for the next
//! tensor, is no bug but a setting of the user's. [`guarded`] stands at the boundary of a step of
//! training or a batch of embeddings and gives such a panic back as an error.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use pfc_durable::faults::says_no_memory;
use tch::TchError;

use crate::ModelError;

/// How `Result::unwrap` begins its message about an error of libtorch.
const UNWRAPPED: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"";

/// Calls of [`guarded`] that are under way, on any thread.
static GUARDS: AtomicUsize = AtomicUsize::new(0);

/// Runs `work`; a panic that an error of libtorch caused within it becomes that error.
///
/// * `op`: what is being done, to follow "cannot"
///
/// The panic's own message is not printed. Other panics go on as they are. Whatever `work` was changing
/// may be left half changed, as after any error.
///
/// # Errors
///
/// Those of `work`, [`ModelError::Memory`] and [`ModelError::Torch`].
pub fn guarded<T, E: From<ModelError>>(
    op: &'static str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    silence();
    GUARDS.fetch_add(1, Ordering::SeqCst);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDS.fetch_sub(1, Ordering::SeqCst);
    match result {
        Ok(result) => result,
        Err(panic) => match torch_error(panic.as_ref()) {
            Some(source) => Err(ModelError::torch(op)(source).into()),
            None => resume_unwind(panic),
        },
    }
}

/// Has f32 keep its 24 bits on GPUs, where libtorch begins by rounding the factors of convolutions to the 10
/// of TF32; for the whole process. Other formats are not concerned.
///
/// # Errors
///
/// [`ModelError::Torch`] if libtorch refuses.
pub fn keep_f32_exact() -> Result<(), ModelError> {
    pfc_autograd::allow_tf32(false).map_err(ModelError::torch("turn TF32 off"))
}

/// Whether an error says that there was no memory for a tensor, on the host or on a GPU.
pub fn is_out_of_memory(error: &TchError) -> bool {
    says_no_memory(&error.to_string())
}

/// The first line of libtorch's message, without the C++ stack trace that follows it.
pub fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Has the panic hook say nothing of panics that a [`guarded`] call reports as an error.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_reported = GUARDS.load(Ordering::SeqCst) > 0;
            if !is_reported || torch_error(info.payload()).is_none() {
                report(info);
            }
        }));
    });
}

/// The error of libtorch behind a panic of `tch`.
fn torch_error(panic: &(dyn Any + Send)) -> Option<TchError> {
    let text = panic.downcast_ref::<String>()?.strip_prefix(UNWRAPPED)?;
    // The rest is the message as `Debug` prints it.
    let text = text.strip_suffix("\")").unwrap_or(text).replace("\\n", "\n").replace("\\\"", "\"");
    Some(TchError::Torch(text.replace("\\'", "'").replace("\\\\", "\\")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    fn guarded_zeros(side: i64) -> Result<Tensor, ModelError> {
        guarded("make zeros", || Ok(Tensor::zeros([side, side], (Kind::Float, Device::Cpu))))
    }

    #[test]
    fn memory_that_nobody_has_is_an_error_with_libtorchs_own_words() {
        // 4 bytes × 2^60: more than any machine maps.
        let error = guarded_zeros(1 << 30).unwrap_err();
        assert!(matches!(error, ModelError::Memory { op: "make zeros", .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.starts_with("no memory to make zeros: ") && text.lines().count() == 1,
            "{text}"
        );
        assert_eq!(guarded_zeros(2).unwrap().size(), [2, 2]);
    }

    #[test]
    fn another_failure_of_libtorch_is_an_error_too() {
        let error = guarded::<Tensor, ModelError>("multiply", || {
            let narrow = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
            Ok(narrow.matmul(&narrow))
        })
        .unwrap_err();
        assert!(matches!(error, ModelError::Torch { op: "multiply", .. }), "{error:?}");
    }

    #[test]
    fn a_panic_of_another_kind_goes_on() {
        let panic = catch_unwind(|| guarded::<(), ModelError>("x", || panic!("ours"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"ours"));
    }
}
