//! Batch normalisation in training on a CPU, together with the rectifier that follows it.
//!
//! Both are nothing but reading and writing of memory: with libtorch's operators, more than half of a
//! training step of MobileFaceNet. Here the forward pass reads the input twice and the backward
//! pass input and gradient twice, whatever lies between; of the forward pass only the input is kept.
//!
//! With μ and σ² the moments of a channel over the batch, γ, β and s its scale, shift and slope:
//!
//! ```text
//! z = γ·(x - μ) / √(σ² + ε) + β        y = z where z > 0, else s·z
//! g = dL/dy where z > 0, else s·dL/dy   (dL/dz)
//! dL/dβ = Σ g     dL/dγ = Σ g·(x - μ) / √(σ² + ε)     dL/ds = Σ z·dL/dy where z <= 0
//! dL/dx = γ / √(σ² + ε) · (g - mean(g) - (x - μ) / (σ² + ε) · mean(g·(x - μ)))
//! ```
//!
//! Sums are taken over pieces of the rows whose size the number of channels alone decides, and the pieces
//! are added in their order: no bit depends on the number of threads, or on the vector instructions.

// B = batch, C = channels, H, W = height and width. A row is the C numbers of one pixel.

use half::bf16;
use pfc_autograd::{OutputGradient, parallel_map, with_gradient};
use tch::{Device, Kind, Tensor};

use crate::{
    elements::{Number, to_f64, with_elements, with_elements_mut},
    vectors,
};

/// What one normalisation multiplies by and adds, all `[C]` f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameters<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) bias: &'a Tensor,
    /// Of the rectifier, where one follows.
    pub(crate) slopes: Option<&'a Tensor>,
    /// Added to variances.
    pub(crate) eps: f64,
}

/// What a normalisation gives.
#[derive(Debug)]
pub(crate) struct Normalised {
    /// Of the shape and kind of the input, channels-last, with its history.
    pub(crate) y_bchw: Tensor,
    /// `[C]` f32, over the batch.
    pub(crate) mean_c: Tensor,
    /// `[C]` f32, over the batch: divided by the number of pixels less one, as running variances are.
    pub(crate) variance_c: Tensor,
}

/// Whether [`normalise`] takes `x`: images in f32 or bf16 on the CPU.
pub(crate) fn takes(x: &Tensor) -> bool {
    let is_image = x.dim() == 4 && x.numel() > 0;
    is_image && x.device() == Device::Cpu && matches!(x.kind(), Kind::Float | Kind::BFloat16)
}

/// Normalises `x_bchw` over all axes but the second, by the moments of the batch.
///
/// # Panics
///
/// If `x_bchw` is not one that is [taken](takes), or the parameters are not `[C]`.
pub(crate) fn normalise(x_bchw: &Tensor, parameters: &Parameters<'_>) -> Normalised {
    match x_bchw.kind() {
        Kind::BFloat16 => normalise_in::<bf16>(x_bchw, parameters),
        _ => normalise_in::<f32>(x_bchw, parameters),
    }
}

fn normalise_in<T: Number>(x_bchw: &Tensor, parameters: &Parameters<'_>) -> Normalised {
    let x = channels_last(x_bchw);
    let n_rows = x.numel() / x.size()[1] as usize;
    let moments = with_elements(&rows(&x), |x: &[T]| Moments::of(x, n_rows));
    let n = n_rows as f64;
    let unbiased: Vec<f64> = moments.variance.iter().map(|v| v * n / (n - 1.0)).collect();
    let channels = Channels::new(&moments, parameters);
    let y = x.empty_like();
    with_elements(&rows(&x), |x| with_elements_mut(&mut rows(&y), |y| channels.write::<T>(x, y)));
    let [weight, bias] = [parameters.weight, parameters.bias];
    let gradient = move |output: OutputGradient| backward::<T>(&x, &channels, output);
    let y_bchw = match parameters.slopes {
        Some(slopes) => with_gradient(y, &[x_bchw, weight, bias, slopes], gradient),
        None => with_gradient(y, &[x_bchw, weight, bias], move |output| {
            let mut gradients = gradient(output);
            gradients.truncate(3);
            gradients
        }),
    };
    Normalised { y_bchw, mean_c: of_f64(&moments.mean), variance_c: of_f64(&unbiased) }
}

/// The gradients by x, γ, β and s.
fn backward<T: Number>(x: &Tensor, channels: &Channels, output: OutputGradient) -> Vec<Tensor> {
    let mut grad = channels_last(&output.tensor);
    let is_copy = grad.data_ptr() != output.tensor.data_ptr();
    let may_overwrite = is_copy || output.is_last;
    let sums = with_elements(&rows(x), |x: &[T]| {
        with_elements(&rows(&grad), |grad| channels.backward_sums(x, grad))
    });
    let linear = channels.backward_linear(&sums, x.numel() / channels.len());
    with_elements(&rows(x), |x: &[T]| {
        if may_overwrite {
            with_elements_mut(&mut rows(&grad), |grad| channels.overwrite(&linear, x, grad));
        } else {
            let fresh = grad.empty_like();
            with_elements(&rows(&grad), |grad| {
                with_elements_mut(&mut rows(&fresh), |out| {
                    channels.write_backward(&linear, x, grad, out);
                });
            });
            grad = fresh;
        }
    });
    let per_deviation = sums.grad_deviation.iter().zip(&channels.inverse_std);
    let grad_weight: Vec<f64> = per_deviation.map(|(sum, inverse)| sum * inverse).collect();
    vec![grad, of_f64(&grad_weight), of_f64(&sums.grad), of_f64(&sums.grad_slope)]
}

/// A handle on the values whose memory has the channels of a pixel side by side; a copy only where
/// they are not.
fn channels_last(x_bchw: &Tensor) -> Tensor {
    rows(&x_bchw.detach()).contiguous().permute([0, 3, 1, 2])
}

fn rows(x_bchw: &Tensor) -> Tensor {
    x_bchw.permute([0, 2, 3, 1])
}

fn of_f64(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float)
}

fn to_f32(tensor: &Tensor) -> Vec<f32> {
    to_f64(&tensor.detach()).iter().map(|&value| value as f32).collect()
}

/// Numbers of a piece of rows that one thread works on at a time.
const PIECE: usize = 1 << 15;
/// Rows that are added in f32 before the sum goes on in f64.
const BLOCK: usize = 32;

/// Numbers of a piece: whole rows, [`PIECE`] or a little less where the channels allow it.
fn piece(n_channels: usize) -> usize {
    (PIECE / n_channels).max(1) * n_channels
}

/// Mean and variance of each channel over the batch.
struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl Moments {
    /// Of `n_rows` rows.
    ///
    /// Deviations are taken from the first row, which is somewhere among the values, so that the difference
    /// of mean square and squared mean loses few digits.
    fn of<T: Number>(x: &[T], n_rows: usize) -> Moments {
        let n_channels = x.len() / n_rows;
        let origin: Vec<f32> = x[..n_channels].iter().map(|value| value.to_f32()).collect();
        let sums = parallel_map(x.chunks(piece(n_channels)), |x| {
            vectors().dispatch(|| {
                let (mut sums, mut block) = (zeros(n_channels), zeros(n_channels));
                for x in x.chunks(BLOCK * n_channels) {
                    let rows = x.chunks_exact(n_channels);
                    rows.for_each(|row| add_deviations(row, &origin, &mut block));
                    carry(&mut block, &mut sums);
                }
                sums
            })
        });
        let [sum, squares] = added(sums);
        let n = n_rows as f64;
        let from_origin = |(sum, origin): (&f64, &f32)| sum / n + f64::from(*origin);
        let variance = |(square, sum): (&f64, &f64)| (square / n - (sum / n).powi(2)).max(0.0);
        Moments {
            mean: sum.iter().zip(&origin).map(from_origin).collect(),
            variance: squares.iter().zip(&sum).map(variance).collect(),
        }
    }
}

/// 1 if `is_one`, else `other`: chosen by bits, as compilers make a branch of sums of an `if`.
#[inline(always)]
fn one_or(other: f32, is_one: bool) -> f32 {
    let (one, other, mask) = (1f32.to_bits(), other.to_bits(), u32::from(is_one).wrapping_neg());
    f32::from_bits(other ^ (other ^ one) & mask)
}

/// The sums of all pieces, in their order.
fn added<const N: usize>(pieces: Vec<[Vec<f64>; N]>) -> [Vec<f64>; N] {
    let mut pieces = pieces.into_iter();
    let mut sums = pieces.next().unwrap_or_else(|| std::array::from_fn(|_| Vec::new()));
    for piece in pieces {
        for (sum, piece) in sums.iter_mut().zip(piece) {
            for (sum, piece) in sum.iter_mut().zip(piece) {
                *sum += piece;
            }
        }
    }
    sums
}

/// Adds the f32 sums of a block of rows, `N` after one another for each channel, to those in f64, and clears
/// them.
#[inline(always)]
fn carry<const N: usize>(block: &mut [Vec<f32>; N], sums: &mut [Vec<f64>; N]) {
    for (sums, block) in sums.iter_mut().zip(block) {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += f64::from(std::mem::take(value));
        }
    }
}

fn zeros<const N: usize, T: Clone + Default>(n_channels: usize) -> [Vec<T>; N] {
    std::array::from_fn(|_| vec![T::default(); n_channels])
}

/// Adds deviations from `origin`, and their squares, to `sums`.
#[inline(always)]
fn add_deviations<T: Number>(row: &[T], origin: &[f32], [sum, squares]: &mut [Vec<f32>; 2]) {
    let n = origin.len();
    let (row, sum, squares) = (&row[..n], &mut sum[..n], &mut squares[..n]);
    for i in 0..n {
        let deviation = row[i].to_f32() - origin[i];
        sum[i] += deviation;
        squares[i] += deviation * deviation;
    }
}

/// What is needed of each channel to compute y, and to go back.
struct Channels {
    mean: Vec<f32>,
    /// γ / √(σ² + ε).
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// 1 where there is no rectifier.
    slope: Vec<f32>,
    /// 1 / √(σ² + ε).
    inverse_std: Vec<f64>,
}

/// The sums of a backward pass, per channel.
struct BackwardSums {
    /// Σ g.
    grad: Vec<f64>,
    /// Σ g·(x - μ).
    grad_deviation: Vec<f64>,
    /// Σ z·dL/dy where z <= 0.
    grad_slope: Vec<f64>,
}

/// dL/dx = scale·g + `per_deviation`·(x - μ) + `constant`, per channel.
struct Linear {
    per_deviation: Vec<f32>,
    constant: Vec<f32>,
}

impl Channels {
    fn new(moments: &Moments, parameters: &Parameters<'_>) -> Channels {
        let inverse = |variance: &f64| 1.0 / (variance + parameters.eps).sqrt();
        let inverse_std: Vec<f64> = moments.variance.iter().map(inverse).collect();
        let weight = to_f64(&parameters.weight.detach());
        let n_channels = moments.mean.len();
        assert_eq!(weight.len(), n_channels, "a normalisation of other channels");
        Channels {
            mean: moments.mean.iter().map(|&mean| mean as f32).collect(),
            scale: weight.iter().zip(&inverse_std).map(|(w, s)| (w * s) as f32).collect(),
            shift: to_f32(parameters.bias),
            slope: parameters.slopes.map_or_else(|| vec![1.0; n_channels], to_f32),
            inverse_std,
        }
    }

    fn len(&self) -> usize {
        self.mean.len()
    }

    /// Writes y to `y`.
    fn write<T: Number>(&self, x: &[T], y: &mut [T]) {
        let piece = piece(self.len());
        parallel_map(x.chunks(piece).zip(y.chunks_mut(piece)), |(x, y)| {
            vectors().dispatch(|| {
                for (x, y) in self.rows(x).zip(y.chunks_exact_mut(self.len())) {
                    self.write_row(x, y);
                }
            });
        });
    }

    #[inline(always)]
    fn rows<'a, T>(&self, numbers: &'a [T]) -> std::slice::ChunksExact<'a, T> {
        numbers.chunks_exact(self.len())
    }

    #[inline(always)]
    fn write_row<T: Number>(&self, x: &[T], y: &mut [T]) {
        let n = y.len();
        let (x, mean, scale) = (&x[..n], &self.mean[..n], &self.scale[..n]);
        let (shift, slope) = (&self.shift[..n], &self.slope[..n]);
        for i in 0..n {
            let z = (x[i].to_f32() - mean[i]) * scale[i] + shift[i];
            y[i] = T::of_f32(z * one_or(slope[i], z > 0.0));
        }
    }

    fn backward_sums<T: Number>(&self, x: &[T], grad: &[T]) -> BackwardSums {
        let (n_channels, piece) = (self.len(), piece(self.len()));
        let sums = parallel_map(x.chunks(piece).zip(grad.chunks(piece)), |(x, grad)| {
            vectors().dispatch(|| {
                let (mut sums, mut block) = (zeros(n_channels), zeros(n_channels));
                let n = BLOCK * n_channels;
                for (x, grad) in x.chunks(n).zip(grad.chunks(n)) {
                    let rows = self.rows(x).zip(self.rows(grad));
                    rows.for_each(|(x, grad)| self.add_gradients(x, grad, &mut block));
                    carry(&mut block, &mut sums);
                }
                sums
            })
        });
        let [grad, grad_deviation, grad_slope] = added(sums);
        BackwardSums { grad, grad_deviation, grad_slope }
    }

    /// Adds g, g·(x - μ) and min(z, 0)·dL/dy of a row to `sums`.
    #[inline(always)]
    fn add_gradients<T: Number>(
        &self,
        x: &[T],
        grad: &[T],
        [sum, sum_deviation, sum_slope]: &mut [Vec<f32>; 3],
    ) {
        let n = self.len();
        let (x, grad, mean, scale) = (&x[..n], &grad[..n], &self.mean[..n], &self.scale[..n]);
        let (shift, slope) = (&self.shift[..n], &self.slope[..n]);
        let (sum, sum_deviation) = (&mut sum[..n], &mut sum_deviation[..n]);
        let sum_slope = &mut sum_slope[..n];
        for i in 0..n {
            let (deviation, grad) = (x[i].to_f32() - mean[i], grad[i].to_f32());
            let z = deviation * scale[i] + shift[i];
            let g = grad * one_or(slope[i], z > 0.0);
            sum[i] += g;
            sum_deviation[i] += g * deviation;
            sum_slope[i] += z.min(0.0) * grad;
        }
    }

    fn backward_linear(&self, sums: &BackwardSums, n_rows: usize) -> Linear {
        let n = n_rows as f64;
        let scale = self.scale.iter().map(|&scale| f64::from(scale));
        let per_deviation = scale.clone().zip(&self.inverse_std).zip(&sums.grad_deviation);
        let constant = scale.zip(&sums.grad);
        Linear {
            per_deviation: per_deviation
                .map(|((scale, inverse), sum)| (-scale * inverse * inverse * sum / n) as f32)
                .collect(),
            constant: constant.map(|(scale, sum)| (-scale * sum / n) as f32).collect(),
        }
    }

    /// Writes dL/dx to `out`.
    fn write_backward<T: Number>(&self, linear: &Linear, x: &[T], grad: &[T], out: &mut [T]) {
        let piece = piece(self.len());
        let pieces = x.chunks(piece).zip(grad.chunks(piece)).zip(out.chunks_mut(piece));
        parallel_map(pieces, |((x, grad), out)| {
            vectors().dispatch(|| {
                let grad = self.rows(grad);
                let rows = self.rows(x).zip(grad).zip(out.chunks_exact_mut(self.len()));
                for ((x, grad), out) in rows {
                    out.copy_from_slice(grad);
                    self.overwrite_row(linear, x, out);
                }
            });
        });
    }

    /// The same where dL/dy was.
    fn overwrite<T: Number>(&self, linear: &Linear, x: &[T], grad: &mut [T]) {
        let piece = piece(self.len());
        parallel_map(x.chunks(piece).zip(grad.chunks_mut(piece)), |(x, grad)| {
            vectors().dispatch(|| {
                for (x, grad) in self.rows(x).zip(grad.chunks_exact_mut(self.len())) {
                    self.overwrite_row(linear, x, grad);
                }
            });
        });
    }

    #[inline(always)]
    fn overwrite_row<T: Number>(&self, linear: &Linear, x: &[T], grad: &mut [T]) {
        let n = grad.len();
        let (x, mean, scale) = (&x[..n], &self.mean[..n], &self.scale[..n]);
        let (shift, slope) = (&self.shift[..n], &self.slope[..n]);
        let (per_deviation, constant) = (&linear.per_deviation[..n], &linear.constant[..n]);
        for i in 0..n {
            let deviation = x[i].to_f32() - mean[i];
            let z = deviation * scale[i] + shift[i];
            let g = grad[i].to_f32() * one_or(slope[i], z > 0.0);
            grad[i] = T::of_f32(scale[i] * g + (per_deviation[i] * deviation + constant[i]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    const EPS: f64 = 1e-5;

    /// Input and parameters of a normalisation, with or without a rectifier behind it.
    struct Case {
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        slopes: Option<Tensor>,
    }

    /// Output, moments, and the gradients by input and parameters for a random gradient above.
    type Course = Vec<Tensor>;

    impl Case {
        fn new(shape: [i64; 4], with_slopes: bool) -> Case {
            let c = &[shape[1]];
            Case {
                x: random(&shape, "x"),
                weight: random(c, "weight"),
                bias: random(c, "bias"),
                slopes: with_slopes.then(|| random(c, "slopes")),
            }
        }

        /// Leaves in `kind` for the input, and in f32 or f64 for the parameters.
        fn leaves(&self, kind: Kind) -> (Tensor, Vec<Tensor>) {
            let of_parameters = if kind == Kind::Double { kind } else { Kind::Float };
            let leaf = |tensor: &Tensor, kind| {
                let copy = tensor.detach().to_kind(kind);
                copy.copy().set_requires_grad(true)
            };
            let parameters = [Some(&self.weight), Some(&self.bias), self.slopes.as_ref()];
            let parameters = parameters.into_iter().flatten();
            (leaf(&self.x, kind), parameters.map(|p| leaf(p, of_parameters)).collect())
        }

        /// By the code under test.
        fn found(&self, kind: Kind) -> Course {
            let (x, leaves) = self.leaves(kind);
            let (weight, bias, slopes) = (&leaves[0], &leaves[1], leaves.get(2));
            let parameters = Parameters { weight, bias, slopes, eps: EPS };
            let Normalised { y_bchw, mean_c, variance_c } = normalise(&x, &parameters);
            course(&x, &leaves, [y_bchw, mean_c, variance_c])
        }

        /// By libtorch's operators and automatic differentiation in f64.
        fn expected(&self) -> Course {
            let (x, leaves) = self.leaves(Kind::Double);
            let none = None::<Tensor>;
            let (weight, bias) = (Some(&leaves[0]), Some(&leaves[1]));
            let z = x.batch_norm(weight, bias, none.as_ref(), none.as_ref(), true, 0.1, EPS, false);
            let y = leaves.get(2).map_or_else(|| z.shallow_clone(), |slopes| z.prelu(slopes));
            let axes: &[i64] = &[0, 2, 3];
            let mean = x.mean_dim(axes, false, Kind::Double);
            course(&x, &leaves, [y, mean, x.var_dim(axes, true, false)])
        }
    }

    fn course(x: &Tensor, leaves: &[Tensor], [y, mean, variance]: [Tensor; 3]) -> Course {
        let gradient = random(&y.size(), "gradient").to_kind(y.kind());
        (&y * gradient).sum(Kind::Double).backward();
        let gradients = leaves.iter().map(Tensor::grad);
        [y, mean, variance, x.grad()].into_iter().chain(gradients).map(|t| t.detach()).collect()
    }

    fn largest(tensor: &Tensor) -> f64 {
        tensor.abs().max().double_value(&[])
    }

    /// Compares within `bound` of each tensor's largest number.
    #[track_caller]
    fn check(found: &Course, expected: &Course, bound: f64) {
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = largest(&(found.to_kind(Kind::Double) - expected)) / largest(expected);
            assert!(error <= bound, "tensor {i} is off by {error:e}, more than {bound:e}");
        }
    }

    /// Of the largest number of a tensor: a few roundings of f32, of 6e-8 each, and those of at most 32 terms
    /// that are added in f32.
    const ROUNDING: f64 = 4e-6;

    #[test]
    fn output_moments_and_gradients_are_those_of_pytorch_in_f64() {
        // Several pieces with a last one that is shorter, several blocks, and less than a block.
        for shape in [[7, 96, 13, 11], [3, 19, 9, 8], [5, 5, 1, 1], [2, 1, 3, 3]] {
            for with_slopes in [false, true] {
                let case = Case::new(shape, with_slopes);
                check(&case.found(Kind::Float), &case.expected(), ROUNDING);
            }
        }
    }

    #[test]
    fn a_mean_far_from_zero_costs_no_more_than_its_own_rounding() {
        let case = Case::new([4, 24, 17, 16], true);
        let x = &case.x + 1000.0;
        let case = Case { x, ..case };
        // A mean of 1000 is stored in f32 to within 3e-5, where the deviations are about 1.
        check(&case.found(Kind::Float), &case.expected(), 1e-4);
    }

    #[test]
    fn in_bf16_only_what_is_stored_is_rounded() {
        // Half a unit in the last of eight bits, relative to the number; sums and moments are in f32.
        let stored = 1.0 / 256.0;
        for with_slopes in [false, true] {
            let case = Case::new([5, 40, 12, 11], with_slopes);
            let (found, expected) = (case.found(Kind::BFloat16), case.expected());
            assert_eq!(found[0].kind(), Kind::BFloat16);
            assert_eq!(found[3].kind(), Kind::BFloat16);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let is_stored = i == 0 || i == 3;
                let bound = if is_stored { stored } else { ROUNDING } * largest(expected);
                let error = largest(&(found.to_kind(Kind::Double) - expected));
                assert!(error <= bound, "tensor {i} is off by {error:e}, more than {bound:e}");
            }
        }
    }

    #[test]
    fn no_bit_depends_on_the_number_of_threads() {
        let before = tch::get_num_threads();
        for kind in [Kind::Float, Kind::BFloat16] {
            let case = Case::new([6, 48, 23, 21], true);
            let on = |n| {
                tch::set_num_threads(n);
                case.found(kind)
            };
            let one = on(1);
            for n in [2, 3, 7] {
                assert_eq!(on(n), one, "{n} threads");
            }
        }
        tch::set_num_threads(before);
    }

    #[test]
    fn strides_of_the_input_and_of_the_gradient_do_not_matter() {
        let case = Case::new([3, 20, 6, 5], true);
        let expected = case.found(Kind::Float);
        let x = channels_last(&case.x).copy();
        assert_ne!(x.stride(), case.x.stride());
        assert_eq!(Case { x, ..case }.found(Kind::Float), expected);
    }

    #[test]
    fn a_gradient_that_a_shortcut_needs_too_is_left_as_it_is() {
        let case = Case::new([3, 20, 6, 5], true);
        let add = |x: &Tensor, y: Tensor| ((y + x) * random(&x.size(), "above")).sum(Kind::Double);
        let (x, leaves) = case.leaves(Kind::Float);
        let (weight, bias, slopes) = (&leaves[0], &leaves[1], leaves.get(2));
        let found = normalise(&x, &Parameters { weight, bias, slopes, eps: EPS });
        add(&x, found.y_bchw).backward();

        let (x64, leaves) = case.leaves(Kind::Double);
        let (weight, bias, none) = (Some(&leaves[0]), Some(&leaves[1]), None::<&Tensor>);
        let y = x64.batch_norm(weight, bias, none, none, true, 0.1, EPS, false).prelu(&leaves[2]);
        add(&x64, y).backward();
        check(&vec![x.grad()], &vec![x64.grad()], ROUNDING);
    }

    #[test]
    fn a_number_that_is_none_shows_in_the_output_and_in_the_gradients() {
        let case = Case::new([2, 3, 4, 4], true);
        let _ = case.x.get(0).get(1).get(2).fill_(f64::NAN);
        let found = case.found(Kind::Float);
        let has_nan = |tensor: &Tensor| tensor.isnan().any().int64_value(&[]) == 1;
        assert!(has_nan(&found[0]) && has_nan(&found[3]) && has_nan(&found[4]));
    }
}
