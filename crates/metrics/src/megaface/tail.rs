//! The smallest of a stream of numbers, in bounded memory.

/// Keeps the `n_kept` smallest of all numbers pushed; holds up to twice as many at a time.
#[derive(Debug)]
pub(super) struct Tail {
    values: Vec<f64>,
    n_kept: usize,
    bound: f64,
}

impl Tail {
    pub(super) fn new(n_kept: usize) -> Tail {
        let bound = if n_kept == 0 { f64::NEG_INFINITY } else { f64::INFINITY };
        Tail { values: Vec::new(), n_kept, bound }
    }

    /// Numbers above this cannot be among the smallest.
    pub(super) fn bound(&self) -> f64 {
        self.bound
    }

    pub(super) fn extend(&mut self, values: &[f64]) {
        // In pieces, or a first push of everything would hold more than was promised.
        for piece in values.chunks(self.n_kept.max(1)) {
            self.values.extend(piece.iter().filter(|&&value| value <= self.bound));
            if self.values.len() >= 2 * self.n_kept {
                self.shrink();
            }
        }
    }

    /// The smallest, rising.
    pub(super) fn finish(mut self) -> Vec<f64> {
        self.shrink();
        self.values.sort_unstable_by(f64::total_cmp);
        self.values
    }

    fn shrink(&mut self) {
        if let Some(last) = self.n_kept.checked_sub(1)
            && last < self.values.len()
        {
            let (_, bound, _) = self.values.select_nth_unstable_by(last, f64::total_cmp);
            self.bound = *bound;
        }
        self.values.truncate(self.n_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_remain_whatever_the_order() {
        let value = |i: usize| ((i * 7919) % 1009) as f64;
        let mut expected: Vec<f64> = (0..1000).map(value).collect();
        expected.sort_by(f64::total_cmp);
        for n_kept in [0, 1, 7, 400, 2000] {
            for piece in [1, 64, 1000] {
                let mut tail = Tail::new(n_kept);
                let values: Vec<f64> = (0..1000).rev().map(value).collect();
                values.chunks(piece).for_each(|piece| tail.extend(piece));
                assert!(tail.values.len() <= 2 * n_kept);
                assert_eq!(tail.finish(), expected[..n_kept.min(1000)]);
            }
        }
    }
}
