//! Operators on lists of tensors: on a GPU a few launches for all of them, where one a tensor would keep
//! the host busy longer than the card. On a CPU each tensor goes through the operator of its own.
//!
//! Nothing here is recorded for a backward pass that goes through it.

#![allow(unsafe_code)]

use std::borrow::Borrow;

use tch::{Device, Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::ffi;
pub use crate::ffi::{Adamw, Sgd};

/// `PfcListOp` of the bridge.
#[derive(Debug, Clone, Copy)]
enum Op {
    Zero = 0,
    Multiply = 1,
    Divide = 2,
    Copy = 3,
    Add = 4,
    Lerp = 5,
}

/// Sets every number to 0.
///
/// # Errors
///
/// libtorch's words if it refuses, as for all functions here.
pub fn zero<T: Borrow<Tensor>>(tensors: &[T]) -> Result<(), TchError> {
    change(Op::Zero, &Handles::of(tensors), None, 0.0)
}

/// Multiplies every number by `factor`.
///
/// # Errors
///
/// As [`zero`].
pub fn multiply<T: Borrow<Tensor>>(tensors: &[T], factor: f64) -> Result<(), TchError> {
    change(Op::Multiply, &Handles::of(tensors), None, factor)
}

/// Divides every number by `divisor`.
///
/// # Errors
///
/// As [`zero`].
pub fn divide<T: Borrow<Tensor>>(tensors: &[T], divisor: f64) -> Result<(), TchError> {
    change(Op::Divide, &Handles::of(tensors), None, divisor)
}

/// Overwrites each of `targets` with its source.
///
/// # Errors
///
/// As [`zero`], and if the lists or the shapes in them differ.
pub fn copy<T: Borrow<Tensor>, S: Borrow<Tensor>>(
    targets: &[T],
    sources: &[S],
) -> Result<(), TchError> {
    combine(Op::Copy, targets, sources, 0.0)
}

/// Adds its source to each of `targets`.
///
/// # Errors
///
/// As [`copy`].
pub fn add<T: Borrow<Tensor>, S: Borrow<Tensor>>(
    targets: &[T],
    sources: &[S],
) -> Result<(), TchError> {
    combine(Op::Add, targets, sources, 0.0)
}

/// Moves each of `targets` towards its source by the share `weight` of the way.
///
/// # Errors
///
/// As [`copy`].
pub fn lerp<T: Borrow<Tensor>, S: Borrow<Tensor>>(
    targets: &[T],
    sources: &[S],
    weight: f64,
) -> Result<(), TchError> {
    combine(Op::Lerp, targets, sources, weight)
}

/// The L2 norm of each tensor, as a tensor of one number.
///
/// # Errors
///
/// As [`zero`].
pub fn norms<T: Borrow<Tensor>>(tensors: &[T]) -> Result<Vec<Tensor>, TchError> {
    // libtorch refuses an empty list, here and below.
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let handles = Handles::of(tensors);
    let mut found: Vec<*mut C_tensor> = vec![std::ptr::null_mut(); handles.len()];
    // SAFETY: the pointers are those of live tensors, and there are as many places.
    let result = unsafe {
        ffi::take(ffi::pfc_lists_norms(handles.pointers(), handles.len(), found.as_mut_ptr()))
    };
    let found = found.into_iter().filter(|norm| !norm.is_null());
    // SAFETY: whatever was put there was made by `new` and belongs to the caller.
    let norms = found.map(|norm| unsafe { Tensor::from_ptr(norm) }).collect();
    result.map_err(TchError::Torch).map(|()| norms)
}

/// One step of SGD, `v = momentum·v + (g + decay·w)` and then `w -= lr·v`, fused.
///
/// Gradients are left alone.
///
/// # Errors
///
/// As [`zero`]; [`TchError::Shape`] unless the lists are as long as each other and of the same shapes,
/// strides, kinds and devices, which is what the fused kernels take on trust.
pub fn sgd<T: Borrow<Tensor>>(
    weights: &[T],
    gradients: &[T],
    velocities: &[T],
    rule: Sgd,
) -> Result<(), TchError> {
    let lists = [weights, gradients, velocities].map(Handles::of);
    check_alike(&lists)?;
    if weights.is_empty() {
        return Ok(());
    }
    let [w, g, v] = lists.each_ref().map(Handles::pointers);
    // SAFETY: the pointers are those of live tensors, which are alike.
    unsafe { ffi::take(ffi::pfc_lists_sgd(w, g, v, lists[0].len(), &raw const rule)) }
        .map_err(TchError::Torch)
}

/// One step of `AdamW` as PyTorch has it, fused.
///
/// * `means`, `squares`: means of the gradients and of their squares
/// * `n_steps`: number of this step, from 1
///
/// # Errors
///
/// As [`sgd`].
pub fn adamw<T: Borrow<Tensor>>(
    weights: &[T],
    gradients: &[T],
    [means, squares]: [&[T]; 2],
    n_steps: i64,
    rule: Adamw,
) -> Result<(), TchError> {
    let Some(first) = weights.first() else { return Ok(()) };
    let lists = [weights, gradients, means, squares].map(Handles::of);
    check_alike(&lists)?;
    let options = (Kind::Float, first.borrow().device());
    let mut n_steps = Tensor::f_full([0i64; 0], n_steps, options)?;
    let [w, g, m, s] = lists.each_ref().map(Handles::pointers);
    let n = lists[0].len();
    // SAFETY: the pointers are those of live tensors, which are alike.
    unsafe { ffi::take(ffi::pfc_lists_adamw(w, g, m, s, n_steps.as_mut_ptr(), n, &raw const rule)) }
        .map_err(TchError::Torch)
}

/// Tensors of one list, as the bridge takes them.
struct Handles {
    tensors: Vec<Tensor>,
    pointers: Vec<*mut C_tensor>,
}

impl Handles {
    fn of<T: Borrow<Tensor>>(tensors: &[T]) -> Handles {
        let handles = tensors.iter().map(|tensor| tensor.borrow().shallow_clone());
        let mut tensors: Vec<Tensor> = handles.collect();
        let pointers = tensors.iter_mut().map(Tensor::as_mut_ptr).collect();
        Handles { tensors, pointers }
    }

    fn len(&self) -> usize {
        self.tensors.len()
    }

    fn pointers(&self) -> *const *mut C_tensor {
        self.pointers.as_ptr()
    }
}

fn change(
    op: Op,
    targets: &Handles,
    sources: Option<&Handles>,
    number: f64,
) -> Result<(), TchError> {
    if targets.len() == 0 {
        return Ok(());
    }
    let sources = sources.map_or(std::ptr::null(), Handles::pointers);
    // SAFETY: the pointers are those of live tensors, as many sources as targets where there are any.
    let result = unsafe {
        ffi::take(ffi::pfc_lists_change(
            op as i32,
            targets.pointers(),
            sources,
            targets.len(),
            number,
        ))
    };
    result.map_err(TchError::Torch)
}

fn combine<T: Borrow<Tensor>, S: Borrow<Tensor>>(
    op: Op,
    targets: &[T],
    sources: &[S],
    number: f64,
) -> Result<(), TchError> {
    let (targets, sources) = (Handles::of(targets), Handles::of(sources));
    check_same(&targets, &sources, |a, b| a.size() == b.size())?;
    change(op, &targets, Some(&sources), number)
}

/// Refuses lists whose tensors differ in anything but their numbers.
fn check_alike(lists: &[Handles]) -> Result<(), TchError> {
    type Layout = (Vec<i64>, Vec<i64>, Kind, Device);
    let layout = |t: &Tensor| -> Layout { (t.size(), t.stride(), t.kind(), t.device()) };
    let Some((first, others)) = lists.split_first() else { return Ok(()) };
    others.iter().try_for_each(|other| check_same(first, other, |a, b| layout(a) == layout(b)))
}

fn check_same(
    first: &Handles,
    other: &Handles,
    is_same: impl Fn(&Tensor, &Tensor) -> bool,
) -> Result<(), TchError> {
    let (n, n_others) = (first.len(), other.len());
    if n != n_others {
        return Err(TchError::Shape(format!("lists of {n} and of {n_others} tensors")));
    }
    let mut pairs = first.tensors.iter().zip(&other.tensors).enumerate();
    match pairs.find(|(_, (a, b))| !is_same(a, b)) {
        None => Ok(()),
        Some((at, (a, b))) => {
            Err(TchError::Shape(format!("tensors {at} of two lists differ: {a:?} and {b:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of several shapes and of both layouts of images, one after the other drawn from a wave.
    fn list(seed: f64) -> Vec<Tensor> {
        let shapes: [&[i64]; 4] = [&[37], &[8, 3, 3, 3], &[4, 5], &[6, 2, 1, 1]];
        let tensor = |(i, shape): (usize, &&[i64])| {
            let n = shape.iter().product::<i64>();
            let angles = Tensor::arange(n, (Kind::Float, Device::Cpu)) * (seed + i as f64);
            let tensor = (angles.sin() * 2.0).view(*shape);
            if i == 1 {
                tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
            } else {
                tensor
            }
        };
        shapes.iter().enumerate().map(tensor).collect()
    }

    fn copies(tensors: &[Tensor]) -> Vec<Tensor> {
        tensors.iter().map(Tensor::copy).collect()
    }

    /// Whether all numbers differ by at most `bound` of the larger one of each pair, or of 1.
    #[track_caller]
    fn check_near(found: &[Tensor], expected: &[Tensor], bound: f64) {
        for (found, expected) in found.iter().zip(expected) {
            let scale = expected.abs().clamp_min(1.0);
            let worst = ((found - expected).abs() / scale).max().double_value(&[]);
            assert!(worst <= bound, "{worst:e} is more than {bound:e}");
        }
    }

    #[test]
    fn each_tensor_becomes_what_the_operator_of_its_own_makes_of_it() {
        let (a, b) = (list(1.0), list(2.0));
        type Own = fn(&Tensor, &Tensor) -> Tensor;
        let check = |change: fn(&[Tensor], &[Tensor]) -> Result<(), TchError>, own: Own| {
            let changed = copies(&a);
            change(&changed, &b).unwrap();
            for ((found, a), b) in changed.iter().zip(&a).zip(&b) {
                assert_eq!(found, &own(a, b));
            }
        };
        check(|a, _| zero(a), |a, _| a.zeros_like());
        check(|a, _| multiply(a, 0.3), |a, _| a * 0.3);
        check(|a, _| divide(a, 3.0), |a, _| a / 3.0);
        check(copy, |_, b| b.copy());
        check(add, |a, b| a + b);
        check(|a, b| lerp(a, b, 0.25), |a, b| a.lerp(b, 0.25));
        for (norm, tensor) in norms(&a).unwrap().iter().zip(&a) {
            assert_eq!(norm, &tensor.norm());
        }
    }

    /// On paper: v = 0.5·2 + (1 + 0.1·10) = 3, w = 10 - 0.1·3.
    #[test]
    fn a_step_of_sgd_is_that_on_paper() {
        let [w, g, v] = [10f32, 1.0, 2.0].map(|x| [Tensor::from_slice(&[x])]);
        sgd(&w, &g, &v, Sgd { lr: 0.1, momentum: 0.5, weight_decay: 0.1 }).unwrap();
        assert_eq!(g[0].double_value(&[0]), 1.0);
        let bound = f64::from(f32::EPSILON);
        check_near(&v, &[Tensor::from_slice(&[3f32])], bound);
        check_near(&w, &[Tensor::from_slice(&[9.7f32])], bound);
    }

    /// Products are rounded once or twice, by whether multiplication and addition are one instruction.
    #[test]
    fn a_fused_step_is_within_two_roundings_of_one_operator_after_the_other() {
        let (w, g, v, s) = (list(1.0), list(2.0), list(3.0), list(4.0));
        let s: Vec<Tensor> = s.iter().map(Tensor::abs).collect();
        let (fused_w, fused_v) = (copies(&w), copies(&v));
        let rule = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 5e-4 };
        sgd(&fused_w, &g, &fused_v, rule).unwrap();
        let plain_v: Vec<Tensor> =
            w.iter().zip(&g).zip(&v).map(|((w, g), v)| v * 0.9 + (g + w * 5e-4)).collect();
        let plain_w: Vec<Tensor> = w.iter().zip(&plain_v).map(|(w, v)| w - v * 0.1).collect();
        check_near(&fused_v, &plain_v, 2.0 * f64::from(f32::EPSILON));
        check_near(&fused_w, &plain_w, 2.0 * f64::from(f32::EPSILON));

        let (fused_w, fused_m, fused_s) = (copies(&w), copies(&v), copies(&s));
        let rule = Adamw { lr: 0.1, beta1: 0.9, beta2: 0.75, weight_decay: 0.05, eps: 0.5 };
        adamw(&fused_w, &g, [&fused_m[..], &fused_s[..]], 2, rule).unwrap();
        for (i, g) in g.iter().enumerate() {
            let mean = &v[i] * 0.9 + g * 0.1;
            let square = &s[i] * 0.75 + g.square() * 0.25;
            // 1 - 0.9² and 1 - 0.75².
            let divisor = square.sqrt() / 0.4375f64.sqrt() + 0.5;
            let moved = &w[i] * (1.0 - 0.1 * 0.05) - &mean / divisor * (0.1 / 0.19);
            let bound = 4.0 * f64::from(f32::EPSILON);
            check_near(&fused_m[i..=i], &[mean], bound);
            check_near(&fused_s[i..=i], &[square], bound);
            check_near(&fused_w[i..=i], &[moved], bound);
        }
    }

    #[test]
    fn weights_that_learn_are_moved_and_not_recorded() {
        let learns: Vec<Tensor> =
            list(1.0).into_iter().map(|weight| weight.set_requires_grad(true)).collect();
        let rule = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        tch::no_grad(|| {
            sgd(&learns, &list(2.0), &list(3.0), rule).unwrap();
            lerp(&learns, &list(3.0), 0.5).unwrap();
            assert!(!norms(&learns).unwrap()[0].requires_grad());
        });
        assert!(learns.iter().all(|weight| weight.is_leaf() && weight.requires_grad()));
    }

    #[test]
    fn lists_that_do_not_fit_are_refused_before_anything_is_written() {
        let (w, g) = (list(1.0), list(2.0));
        let before = copies(&w);
        let rule = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        let error = sgd(&w, &g[1..], &g, rule).unwrap_err().to_string();
        assert!(error.contains("lists of 4 and of 3 tensors"), "{error}");
        let mut turned = list(2.0);
        turned[1] = turned[1].contiguous();
        let error = sgd(&w, &turned, &g, rule).unwrap_err().to_string();
        assert!(error.contains("tensors 1 of two lists differ"), "{error}");
        let mut short = list(2.0);
        short[0] = short[0].narrow(0, 0, 3);
        assert!(copy(&w, &short).is_err() && sgd(&w, &short, &g, rule).is_err());
        assert_eq!(w, before);
        let none: [Tensor; 0] = [];
        zero(&none).unwrap();
        assert!(norms(&none).unwrap().is_empty());
    }
}
