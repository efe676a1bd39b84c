//! Scores of a list of template pairs.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use crate::{
    MetricError, Rows,
    dot::{GROUP, dot4, widen, with_widest_vectors},
    sort::starts,
};

/// Bytes of templates that stay in a core's cache while all pairs with them are scored.
const CACHED_BYTES: usize = 512 << 10;

/// Pairs that one thread deals out at a time.
const BLOCK: usize = 1 << 18;

/// Cosine similarity of each pair, in the order of the list, summed in f64.
///
/// * `templates`: `[T, D]`, of norm 1
/// * `pairs`: `[P]`, two rows of `templates` each, in any order
///
/// A score depends on its two templates alone, to the bit: not on the pair's place in the list, the
/// order of the two, or the number of threads. Pairs are dealt into groups whose second templates fit a
/// core's cache together, and sorted by the first within a group: O(P·D) time, 20·P bytes.
///
/// # Errors
///
/// [`MetricError::NoSuch`] for a pair that names no template, [`MetricError::Length`] for more than
/// 2³² − 1 pairs.
pub fn score_pairs(templates: Rows, pairs: &[(u32, u32)]) -> Result<Vec<f64>, MetricError> {
    let bound = templates.len();
    let out_of_range = |&(a, b): &(u32, u32)| a.max(b) as usize >= bound;
    if let Some(index) = pairs.par_iter().position_first(out_of_range) {
        let value = u64::from(pairs[index].0.max(pairs[index].1));
        let bound = bound as u64;
        return Err(MetricError::NoSuch { what: "pair", index, value, bound });
    }
    if u32::try_from(pairs.len()).is_err() {
        let (len, expected) = (pairs.len(), u32::MAX as usize);
        return Err(MetricError::Length { what: "pairs", len, expected });
    }
    let group_rows = (CACHED_BYTES / (4 * templates.dim())).max(GROUP);
    let deal = Deal::new(pairs, bound.div_ceil(group_rows), |b| b as usize / group_rows);
    let scores: Vec<AtomicU64> = (0..pairs.len()).map(|_| AtomicU64::new(0)).collect();
    (0..deal.n_groups())
        .into_par_iter()
        .for_each(|group| score_group(templates, deal.group(group), &scores));
    Ok(scores.into_iter().map(|bits| f64::from_bits(bits.into_inner())).collect())
}

/// A pair and its place in the list.
#[derive(Debug, Clone, Copy, Default)]
struct Job {
    first: u32,
    second: u32,
    place: u32,
}

/// Pairs, group after group.
struct Deal {
    /// First template in the upper half, second in the lower.
    pairs: Vec<AtomicU64>,
    places: Vec<AtomicU32>,
    starts: Vec<usize>,
}

impl Deal {
    /// Puts each pair into the group of its second template, in two passes over the list.
    fn new(pairs: &[(u32, u32)], n_groups: usize, group_of: impl Fn(u32) -> usize + Sync) -> Deal {
        let blocks: Vec<Vec<u32>> = pairs
            .par_chunks(BLOCK)
            .map(|block| starts(n_groups, block.iter().map(|&(_, b)| group_of(b))))
            .collect();
        let mut group_starts = Vec::with_capacity(n_groups + 1);
        // Where the first member of each block goes, by block and group.
        let mut first = vec![vec![0; n_groups]; blocks.len()];
        let mut total = 0;
        for group in 0..n_groups {
            group_starts.push(total);
            for (block, first) in blocks.iter().zip(&mut first) {
                first[group] = total;
                total += (block[group + 1] - block[group]) as usize;
            }
        }
        group_starts.push(total);
        let deal = Deal {
            pairs: (0..total).map(|_| AtomicU64::new(0)).collect(),
            places: (0..total).map(|_| AtomicU32::new(0)).collect(),
            starts: group_starts,
        };
        pairs.par_chunks(BLOCK).zip(&mut first).enumerate().for_each(|(block, (pairs, next))| {
            for (i, &(a, b)) in pairs.iter().enumerate() {
                let at = &mut next[group_of(b)];
                deal.pairs[*at].store(u64::from(a) << 32 | u64::from(b), Relaxed);
                deal.places[*at].store((block * BLOCK + i) as u32, Relaxed);
                *at += 1;
            }
        });
        deal
    }

    fn n_groups(&self) -> usize {
        self.starts.len() - 1
    }

    fn group(&self, group: usize) -> impl ExactSizeIterator<Item = Job> + Clone + '_ {
        (self.starts[group]..self.starts[group + 1]).map(|i| {
            let pair = self.pairs[i].load(Relaxed);
            let place = self.places[i].load(Relaxed);
            Job { first: (pair >> 32) as u32, second: pair as u32, place }
        })
    }
}

fn score_group(
    templates: Rows,
    jobs: impl ExactSizeIterator<Item = Job> + Clone,
    scores: &[AtomicU64],
) {
    let sorted = by_first(templates.len(), jobs);
    with_widest_vectors(
        #[inline(always)]
        || {
            let mut query = Vec::with_capacity(templates.dim());
            for same_first in sorted.chunk_by(|a, b| a.first == b.first) {
                widen(templates.row(same_first[0].first as usize), &mut query);
                for jobs in same_first.chunks(GROUP) {
                    // A short group repeats its last pair: as fast as one pair alone.
                    let job = |i: usize| jobs[i.min(jobs.len() - 1)];
                    let rows = [0, 1, 2, 3].map(|i| templates.row(job(i).second as usize));
                    let products = dot4(&query, rows);
                    for (job, product) in jobs.iter().zip(products) {
                        scores[job.place as usize].store(product.to_bits(), Relaxed);
                    }
                }
            }
        },
    );
}

fn by_first(n_templates: usize, jobs: impl ExactSizeIterator<Item = Job> + Clone) -> Vec<Job> {
    let mut next = starts(n_templates, jobs.clone().map(|job| job.first as usize));
    let mut sorted = vec![Job::default(); jobs.len()];
    for job in jobs {
        let at = &mut next[job.first as usize];
        sorted[*at as usize] = job;
        *at += 1;
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dot::dot,
        made_up::{hashed, values},
    };

    #[test]
    fn every_pair_gets_the_product_of_its_rows_at_its_place() {
        for (n_templates, dim) in [(3, 5), (700, 512), (900, 64)] {
            let data = values(0, n_templates * dim);
            let rows = Rows::new(&data, dim).unwrap();
            let pick = |i: u64| (hashed(i) % n_templates as u64) as u32;
            let pairs: Vec<(u32, u32)> =
                (0..5000).map(|i| (pick(2 * i), pick(2 * i + 1))).collect();
            let scores = score_pairs(rows, &pairs).unwrap();
            for (&(a, b), score) in pairs.iter().zip(scores) {
                let expected = dot(rows.row(a as usize), rows.row(b as usize));
                assert_eq!(score.to_bits(), expected.to_bits(), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_pair_without_template_is_named() {
        let rows = Rows::new(&[1.0, 2.0], 1).unwrap();
        let error = score_pairs(rows, &[(0, 1), (2, 0)]).unwrap_err();
        assert_eq!(error.to_string(), "pair 1 names number 2, but there are 2, counted from 0");
        assert!(score_pairs(rows, &[]).unwrap().is_empty());
    }
}
