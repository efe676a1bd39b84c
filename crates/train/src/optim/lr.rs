//! The learning rate as a pure function of the step, so that a resumed run needs no scheduler state.

use crate::{
    config::{Config, ScheduleKind},
    data::plan::StepPlan,
};

/// The learning rate of every step of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// How it falls.
    pub kind: ScheduleKind,
    /// The learning rate at the end of warm-up, above 0.
    pub base: f64,
    /// Steps of warm-up, W.
    pub n_warmup: u64,
    /// Steps of the whole run, T.
    pub n_steps: u64,
    /// For [`ScheduleKind::Step`]: the steps at which it falls, ascending.
    pub milestones: Vec<u64>,
    /// For [`ScheduleKind::Step`]: the factor of each fall.
    pub gamma: f64,
}

impl Schedule {
    /// The schedule of a run.
    pub fn of_run(config: &Config, plan: &StepPlan) -> Schedule {
        let optim = &config.optim;
        Schedule {
            kind: optim.schedule,
            base: optim.base_lr(plan.batch_size),
            n_warmup: plan.steps_in(optim.warmup_epochs),
            n_steps: plan.n_steps(),
            milestones: optim.milestones.iter().map(|epoch| plan.steps_in(*epoch)).collect(),
            gamma: optim.gamma,
        }
    }

    /// The learning rate with which step `step` (from 0) moves the weights.
    ///
    /// Up to and including W it is `base · step / W`; then, with x = (step − W) / (T − W), the
    /// polynomials are `base · (1 − x)^power` and the cosine is `base · (1 + cos πx) / 2`. From T on
    /// it is what it was at T. Milestones count from step 0, warm-up included.
    ///
    /// InsightFace's `PolynomialLRWarmup` gives the same numbers with one exception: there the very
    /// first step runs at the full `base` although warm-up has begun. Here it runs at 0: the batch
    /// moves the running statistics and the momentum, not the weights.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.n_warmup {
            return self.base * step as f64 / self.n_warmup as f64;
        }
        let n_falling = self.n_steps.saturating_sub(self.n_warmup);
        let fallen = if n_falling == 0 {
            0.0
        } else {
            ((step - self.n_warmup) as f64 / n_falling as f64).min(1.0)
        };
        self.base
            * match self.kind {
                ScheduleKind::Poly1 => 1.0 - fallen,
                ScheduleKind::Poly2 => (1.0 - fallen).powi(2),
                ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * fallen).cos()),
                ScheduleKind::Constant => 1.0,
                ScheduleKind::Step => {
                    let n_passed = self.milestones.iter().filter(|m| **m <= step).count();
                    self.gamma.powi(n_passed as i32)
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, n_warmup: u64) -> Schedule {
        Schedule { kind, base: 0.1, n_warmup, n_steps: 100, milestones: vec![30, 60], gamma: 0.1 }
    }

    #[track_caller]
    fn check(schedule: &Schedule, expected: &[(u64, f64)]) {
        for (step, lr) in expected {
            let found = schedule.at(*step);
            assert!((found - lr).abs() < 1e-12, "step {step}: {found}, expected {lr}");
        }
    }

    #[test]
    fn warm_up_is_a_line_from_zero_that_reaches_the_base_at_its_last_step() {
        let s = schedule(ScheduleKind::Poly1, 20);
        check(&s, &[(0, 0.0), (1, 0.005), (10, 0.05), (19, 0.095), (20, 0.1)]);
    }

    #[test]
    fn poly1_is_a_straight_line_to_exactly_zero_and_stays_there() {
        let s = schedule(ScheduleKind::Poly1, 20);
        check(&s, &[(40, 0.075), (60, 0.05), (99, 0.00125)]);
        assert_eq!(s.at(100), 0.0);
        assert_eq!(s.at(500), 0.0);
    }

    /// The reference multiplies the last learning rate by a ratio instead of evaluating a formula.
    #[test]
    fn poly_equals_the_references_recurrence_from_its_second_step_on() {
        for (kind, power) in [(ScheduleKind::Poly1, 1), (ScheduleKind::Poly2, 2)] {
            let s = schedule(kind, 7);
            let (w, total) = (7.0, 100.0);
            let mut lr = 0.1;
            for t in 1..100_u64 {
                let x = t as f64;
                lr = if t <= 7 {
                    0.1 * x / w
                } else {
                    let ratio = (1.0 - (x - w) / (total - w)) / (1.0 - (x - 1.0 - w) / (total - w));
                    lr * ratio.powi(power)
                };
                assert!((s.at(t) - lr).abs() < 1e-12, "step {t}");
            }
        }
    }

    #[test]
    fn without_warm_up_the_first_step_runs_at_the_base() {
        check(&schedule(ScheduleKind::Poly1, 0), &[(0, 0.1), (50, 0.05)]);
        check(&schedule(ScheduleKind::Poly2, 0), &[(0, 0.1), (50, 0.025), (90, 0.001)]);
    }

    #[test]
    fn step_falls_at_each_milestone() {
        let s = schedule(ScheduleKind::Step, 10);
        check(&s, &[(5, 0.05), (29, 0.1), (30, 0.01), (59, 0.01), (60, 0.001), (99, 0.001)]);
    }

    #[test]
    fn cosine_is_half_way_down_in_the_middle() {
        let s = schedule(ScheduleKind::Cosine, 20);
        check(&s, &[(20, 0.1), (60, 0.05), (100, 0.0), (140, 0.0)]);
        // cos 60° = 1/2, a third of the way.
        let third = Schedule { n_steps: 80, ..s };
        check(&third, &[(40, 0.075)]);
    }

    #[test]
    fn a_run_that_is_all_warm_up_never_divides_by_zero() {
        check(&schedule(ScheduleKind::Poly1, 100), &[(50, 0.05), (100, 0.1), (101, 0.1)]);
    }
}
