//! The softmax against its terms in f64, and against differences of them.

use super::*;

use crate::{
    margin::ArcfaceGradient,
    optim::{Dense, Motion, Sgd, UpdateRule},
    store::RowsMut,
};

const DIM: usize = 20;
const CLASSES: u64 = 3000;

fn numbers(n: usize, seed: u64, deviation: f32) -> Vec<f32> {
    let mut values = vec![0.0; n];
    crate::rng::fill_normal(crate::rng::scramble(seed), deviation, &mut values);
    values
}

/// A made-up batch of 7 samples, two of one class, over 3,000 rows of which every other one was drawn.
struct Problem {
    softmax: MarginSoftmax,
    embeddings_gd: Vec<f32>,
    labels_g: Vec<u64>,
    weight_cd: Vec<f32>,
    drawn: Vec<u32>,
}

impl Problem {
    fn new(margin: AngularMargin, scale: f64, filter: f64) -> Problem {
        Problem {
            softmax: MarginSoftmax { margin, scale, filter, kept_bytes_max: usize::MAX },
            embeddings_gd: numbers(7 * DIM, 1, 2.0),
            labels_g: vec![10, 4, 2998, 10, 0, 1500, 26],
            weight_cd: numbers(CLASSES as usize * DIM, 2, 0.01),
            drawn: (0..CLASSES as u32).step_by(2).collect(),
        }
    }

    fn rows(&self) -> Rows<'_> {
        Rows {
            dim: DIM,
            weight_cd: &self.weight_cd,
            state_cn: &[],
            stamps_c: &[1; CLASSES as usize],
            history: None,
        }
    }

    fn pass(&self) -> (Pass, f64) {
        let batch = Batch::new(&self.embeddings_gd, self.labels_g.clone());
        let drawn = SampledRows::check(self.drawn.clone(), CLASSES as usize, 0).unwrap();
        let drawn = (drawn, ClassRange::of_rank(CLASSES, 0, 1));
        let rows = self.rows();
        let mut pass = Pass::new(self.softmax, batch, drawn, &rows, (0, Vec::new())).unwrap();
        let offsets = self.softmax.needs_offsets(CLASSES).then(|| pass.largest_logits(&rows));
        pass.forward(&rows, offsets.as_deref(), true);
        let sums = pass.sums();
        let loss = pass.join(&sums);
        (pass, loss)
    }

    /// The loss in f64, term by term.
    fn loss(&self) -> f64 {
        let unit = |row: &[f32]| -> Vec<f64> {
            let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter().map(|v| v / length).collect()
        };
        let of_sample = |(embedding, label): (&[f32], &u64)| {
            let embedding = unit(embedding);
            let mut logits = self.drawn.iter().map(|&row| {
                let centre = unit(&self.weight_cd[row as usize * DIM..][..DIM]);
                let cosine = embedding.iter().zip(centre).map(|(a, b)| a * b).sum::<f64>();
                let is_noise = self.softmax.filter > 0.0 && cosine > self.softmax.filter;
                let value = match u64::from(row) == *label {
                    true => match self.softmax.margin {
                        AngularMargin::Cosface { m } => cosine - m,
                        AngularMargin::Arcface { m, .. } => (cosine.acos() + m).cos(),
                        AngularMargin::Combined { m1, m2, m3 } => {
                            (m1 * cosine.acos() + m2).cos() - m3
                        }
                    },
                    false if is_noise => 0.0,
                    false => cosine,
                };
                (u64::from(row) == *label, self.softmax.scale * value)
            });
            let all: Vec<(bool, f64)> = logits.by_ref().collect();
            let most = all.iter().fold(f64::MIN, |most, (_, logit)| most.max(*logit));
            let sum = all.iter().map(|(_, logit)| (logit - most).exp()).sum::<f64>().ln() + most;
            // A probability counts as 1e-30 at least.
            (sum - all.iter().find(|(is_own, _)| *is_own).unwrap().1).min(30.0 * 10f64.ln())
        };
        let samples = self.embeddings_gd.chunks(DIM).zip(&self.labels_g);
        samples.map(of_sample).sum::<f64>() / self.labels_g.len() as f64
    }
}

const COSFACE: AngularMargin = AngularMargin::Cosface { m: 0.4 };
const ARCFACE: AngularMargin = AngularMargin::Arcface { m: 0.5, gradient: ArcfaceGradient::Exact };

#[test]
fn the_loss_is_the_sum_of_its_terms() {
    for (margin, scale, filter) in [
        (COSFACE, 64.0, 0.0),
        (COSFACE, 64.0, 0.3),
        (COSFACE, 200.0, 0.0),
        (ARCFACE, 30.0, 0.0),
        (AngularMargin::Combined { m1: 1.1, m2: 0.2, m3: 0.1 }, 20.0, 0.0),
    ] {
        let problem = Problem::new(margin, scale, filter);
        let (found, expected) = (problem.pass().1, problem.loss());
        assert!((found - expected).abs() < 2e-5 * expected, "{margin:?}: {found} {expected}");
    }
}

#[test]
fn both_gradients_are_the_differences_of_the_loss() {
    for margin in [COSFACE, ARCFACE, AngularMargin::Combined { m1: 1.1, m2: 0.2, m3: 0.1 }] {
        let problem = Problem::new(margin, 10.0, 0.0);
        let (pass, _) = problem.pass();
        let by_embeddings = pass.by_embeddings(3.0);
        let (by_rows, squares) = pass.by_rows(&problem.rows(), 3.0, vec![7.0; 5]);
        let sum: f64 = by_rows.gradient_sd.iter().map(|g| f64::from(g * g)).sum();
        assert!((squares / sum - 1.0).abs() < 1e-5);
        let difference = |change: &dyn Fn(&mut Problem, f32), step: f32| {
            let mut loss = [0.0; 2];
            for (loss, sign) in loss.iter_mut().zip([1.0, -1.0]) {
                let mut moved = Problem::new(margin, 10.0, 0.0);
                change(&mut moved, sign * step);
                *loss = moved.loss();
            }
            3.0 * (loss[0] - loss[1]) / (2.0 * f64::from(step))
        };
        for at in [0, 33, 7 * DIM - 1] {
            let expected = difference(&|p, step| p.embeddings_gd[at] += step, 1.0 / 64.0);
            let found = f64::from(by_embeddings[at]);
            assert!((found - expected).abs() < 2e-3 * expected.abs() + 1e-4, "{found} {expected}");
        }
        // A positive of two samples, one of one, and a negative.
        for (slot, row) in [(5, 10), (1499, 2998), (100, 200)] {
            let at = row * DIM + 3;
            let expected = difference(&|p, step| p.weight_cd[at] += step, 1.0 / 4096.0);
            let found = f64::from(by_rows.gradient_sd[slot * DIM + 3]);
            assert!((found - expected).abs() < 5e-3 * expected.abs() + 1e-3, "{found} {expected}");
        }
    }
}

#[test]
fn tiles_that_are_computed_twice_give_the_same_bits() {
    let mut problem = Problem::new(COSFACE, 64.0, 0.3);
    let of = |problem: &Problem| {
        let (pass, loss) = problem.pass();
        (loss, pass.by_embeddings(1.0), pass.by_rows(&problem.rows(), 1.0, Vec::new()).0)
    };
    let kept = of(&problem);
    problem.softmax.kept_bytes_max = 0;
    let computed = of(&problem);
    assert_eq!((kept.0, kept.1), (computed.0, computed.1));
    assert_eq!(kept.2.gradient_sd, computed.2.gradient_sd);
}

#[test]
fn a_label_that_was_not_drawn_is_an_error() {
    let mut problem = Problem::new(COSFACE, 64.0, 0.0);
    problem.labels_g[3] = 11;
    let batch = Batch::new(&problem.embeddings_gd, problem.labels_g.clone());
    let drawn = SampledRows::check(problem.drawn.clone(), CLASSES as usize, 0).unwrap();
    let drawn = (drawn, ClassRange::of_rank(CLASSES, 0, 1));
    let error = Pass::new(problem.softmax, batch, drawn, &problem.rows(), (9, Vec::new()));
    let text = error.unwrap_err().to_string();
    assert!(text.contains("step 9") && text.contains("class 11"), "{text}");
}

#[test]
fn rows_that_missed_steps_are_read_as_after_them() {
    let mut problem = Problem::new(COSFACE, 64.0, 0.0);
    let mut history = Dense::new(0.9, 0.1);
    let mut state_cn = numbers(CLASSES as usize * DIM, 3, 1e-3);
    let mut stamps_c = vec![history.stamp(); CLASSES as usize];
    history.finish_step(0.5);
    history.finish_step(0.2);
    let mut weight_cd = problem.weight_cd.clone();
    let lazy = {
        let rows = Rows {
            dim: DIM,
            weight_cd: &weight_cd,
            state_cn: &state_cn,
            stamps_c: &stamps_c,
            history: Some(&history),
        };
        (0..CLASSES as usize).flat_map(|row| rows.current(row, &mut [0.0; DIM]).to_vec()).collect()
    };
    let rows = RowsMut {
        dim: DIM,
        weight_cd: &mut weight_cd,
        state_cn: &mut state_cn,
        stamps_c: &mut stamps_c,
        history: Some(&history),
    };
    rows.catch_up();
    assert_eq!((&weight_cd, stamps_c[5]), (&lazy, history.stamp()));
    // Two steps of SGD without a gradient on the first number, by hand.
    let (mut w, mut v) = (f64::from(problem.weight_cd[0]), f64::from(numbers(1, 3, 1e-3)[0]));
    for lr in [0.5, 0.2] {
        v = 0.9 * v + 0.1 * w;
        w -= lr * v;
    }
    assert!((f64::from(weight_cd[0]) - w).abs() < 1e-8);
    problem.weight_cd = weight_cd;
    let (_, loss) = problem.pass();
    assert!(loss.is_finite());
}

#[test]
fn a_step_moves_the_rows_of_the_gradient_alone() {
    let problem = Problem::new(COSFACE, 64.0, 0.0);
    let gradient_sd = vec![1.0; 600 * DIM];
    let gradient = RowGradient { rows: (0..600).map(|i| i * 5).collect(), gradient_sd };
    let mut weight_cd = problem.weight_cd.clone();
    let (mut state_cn, mut stamps_c) = (vec![0.0; weight_cd.len()], vec![1; CLASSES as usize]);
    let rows = RowsMut {
        dim: DIM,
        weight_cd: &mut weight_cd,
        state_cn: &mut state_cn,
        stamps_c: &mut stamps_c,
        history: None,
    };
    let motion = Motion::Sgd(Sgd { lr: 0.5, momentum: 0.9, weight_decay: 0.0 });
    rows.step(&gradient, 0.25, &motion, 2);
    for (at, (found, before)) in weight_cd.iter().zip(&problem.weight_cd).enumerate() {
        let row = at / DIM;
        let is_moved = row.is_multiple_of(5);
        let expected = if is_moved { before - 0.5 * 0.25 } else { *before };
        assert_eq!((*found, stamps_c[row]), (expected, if is_moved { 2 } else { 1 }), "{at}");
    }
}

#[test]
fn gradients_of_different_rows_are_added_row_by_row() {
    let of = |rows: &[u32], values: &[f32]| RowGradient {
        rows: rows.to_vec(),
        gradient_sd: values.to_vec(),
    };
    let sum = of(&[1, 4], &[1.0, 2.0, 3.0, 4.0]).sum(0.5, &of(&[0, 4], &[7.0, 8.0, 1.0, 1.0]), 2);
    assert_eq!(sum.rows, [0, 1, 4]);
    assert_eq!(sum.gradient_sd, [7.0, 8.0, 0.5, 1.0, 2.5, 3.0]);
}
