//! Distractors in, ranks and smallest distances out.

// P = probes, X = distractors of a tile, D = embedding.
//
// For a probe p, nearness q(x) = p·x − |x|²/2 orders images as their distance does, the other way:
// |p − x|² = |p|² − 2·q(x).

use std::sync::Mutex;

use rayon::prelude::*;

use super::{Matches, MatePair, tail::Tail};
use crate::{
    MetricError, Rows,
    dot::{dot, with_widest_vectors},
    product::products,
};

/// Distractors per matrix product: with 256 probes the products fill a megabyte, which stays in a
/// core's cache until they are counted.
const TILE: usize = 1024;

/// Most and fewest probes per matrix product; fewer make more work for many threads.
const PROBES_MAX: usize = 256;
const PROBES_MIN: usize = 64;

/// Counts, for every probe, the distractors nearer than each of its mates.
#[derive(Debug)]
pub struct Matcher<'a> {
    probes: Rows<'a>,
    states: Vec<Probe>,
    pairs: Vec<MatePair>,
    /// Squared distances.
    tail: Mutex<Tail>,
    n_distractors: u64,
}

/// One probe's mates, from far to near.
#[derive(Debug)]
struct Probe {
    /// The square of its norm.
    square: f64,
    /// Nearness of each mate, rising.
    nearness: Vec<f64>,
    /// The mate pair that each belongs to.
    pair: Vec<u32>,
    /// `counts[i]`: distractors strictly nearer than exactly the first i mates.
    counts: Vec<u32>,
}

/// Products up to this, with a wide margin, do not overflow f32 on their way.
const PRODUCT_MAX: f64 = 1e37;

/// A distractor's share of the nearness and how far the f32 product may be off.
struct Offsets {
    /// Subtracted from the product: an upper bound of the nearness …
    for_upper: Vec<f32>,
    /// … and a lower one.
    for_lower: Vec<f32>,
}

impl<'a> Matcher<'a> {
    /// Prepares the mate pairs.
    ///
    /// * `probes`: `[P, D]`, normalised or not
    /// * `identities`: `[P]`, who each is; people with one probe have no mate and only count as
    ///   negatives
    /// * `n_nearest`: how many of the smallest probe–distractor distances to keep
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] for columns of unequal length, [`MetricError::NotFinite`] for a
    /// probe that is not finite.
    pub fn new(
        probes: Rows<'a>,
        identities: &[u32],
        n_nearest: usize,
    ) -> Result<Matcher<'a>, MetricError> {
        if identities.len() != probes.len() {
            let (len, expected) = (identities.len(), probes.len());
            return Err(MetricError::Length { what: "identities", len, expected });
        }
        probes.check_finite("probe")?;
        let mut by_identity: Vec<u32> = (0..probes.len() as u32).collect();
        by_identity.sort_by_key(|&probe| identities[probe as usize]);
        let mut mates = vec![&[][..]; probes.len()];
        let same = |a: &u32, b: &u32| identities[*a as usize] == identities[*b as usize];
        for person in by_identity.chunk_by(same) {
            person.iter().for_each(|&probe| mates[probe as usize] = person);
        }
        let mut pairs = Vec::new();
        let mut states = Vec::with_capacity(probes.len());
        for (probe, person) in (0..).zip(mates) {
            states.push(Probe::new(probes, probe, person, &mut pairs));
        }
        let tail = Mutex::new(Tail::new(n_nearest));
        Ok(Matcher { probes, states, pairs, tail, n_distractors: 0 })
    }

    /// Compares every probe with some more distractors, `[X, D]`, on all threads.
    ///
    /// A few thousand at a time keep all threads busy. O(P·X·D).
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] if D differs, [`MetricError::NotFinite`] for a distractor that is not
    /// finite, or so long that products overflow; the matcher is then as before.
    pub fn add(&mut self, distractors: Rows) -> Result<(), MetricError> {
        if distractors.dim() != self.probes.dim() {
            let (len, expected) = (distractors.dim(), self.probes.dim());
            return Err(MetricError::Length { what: "distractor", len, expected });
        }
        distractors.check_finite("distractor")?;
        let longest = self.states.iter().map(|probe| probe.square).fold(0.0, f64::max).sqrt();
        let offsets = Offsets::new(distractors, longest)?;
        let per_task = self.states.len().div_ceil(4 * rayon::current_num_threads());
        let per_task = per_task.clamp(PROBES_MIN, PROBES_MAX);
        let (probes, tail, dim) = (self.probes, &self.tail, self.probes.dim());
        self.states.par_chunks_mut(per_task).enumerate().for_each(|(task, states)| {
            let first = task * per_task;
            let data = &probes.data()[first * dim..(first + states.len()) * dim];
            let probes = Rows::new(data, dim).expect("whole rows of whole rows");
            count(states, probes, distractors, &offsets, tail);
        });
        self.n_distractors += distractors.len() as u64;
        Ok(())
    }

    /// Ranks and smallest distances over all distractors added.
    pub fn finish(mut self) -> Matches {
        for probe in &self.states {
            // Nearer than the first i mates means nearer than mate 0 … i − 1.
            let mut nearer = 0;
            for i in (0..probe.nearness.len()).rev() {
                nearer += probe.counts[i + 1];
                self.pairs[probe.pair[i] as usize].rank = nearer;
            }
        }
        let tail = self.tail.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Matches {
            pairs: self.pairs,
            n_distractors: self.n_distractors,
            n_probes: self.states.len() as u64,
            nearest: tail.finish().into_iter().map(|d| d.max(0.0).sqrt()).collect(),
        }
    }
}

impl Probe {
    fn new(probes: Rows, probe: u32, person: &[u32], pairs: &mut Vec<MatePair>) -> Probe {
        let own = probes.row(probe as usize);
        let square = dot(own, own);
        let mut mates = Vec::with_capacity(person.len());
        for &mate in person.iter().filter(|&&mate| mate != probe) {
            let row = probes.row(mate as usize);
            let nearness = nearness(own, row);
            mates.push((nearness, pairs.len() as u32));
            let distance = (square - 2.0 * nearness).max(0.0).sqrt();
            pairs.push(MatePair { probe, mate, distance, rank: 0 });
        }
        mates.sort_by(|a, b| a.0.total_cmp(&b.0));
        Probe {
            square,
            counts: vec![0; mates.len() + 1],
            nearness: mates.iter().map(|mate| mate.0).collect(),
            pair: mates.iter().map(|mate| mate.1).collect(),
        }
    }

    /// Mates that a distractor of this nearness beats.
    fn beaten(&self, nearness: f64) -> usize {
        self.nearness.partition_point(|&mate| mate < nearness)
    }
}

impl Offsets {
    /// `longest`: the largest norm of a probe.
    fn new(distractors: Rows, longest: f64) -> Result<Offsets, MetricError> {
        let u = f64::from(f32::EPSILON) / 2.0;
        // A product of D terms is off by at most D·u·|p|·|x| (Higham, section 3.1; by Cauchy and
        // Schwarz Σ|pᵢxᵢ| ≤ |p|·|x|). Four more for the depth blocks, the subtraction and the
        // rounding of the offsets themselves.
        let relative = (distractors.dim() + 4) as f64 * u;
        let rows = distractors.data().par_chunks_exact(distractors.dim());
        let squares: Vec<f64> = rows.map(|row| with_widest_vectors(|| dot(row, row))).collect();
        let overflows = |square: &f64| square.max(longest * longest) > PRODUCT_MAX;
        if let Some(index) = squares.iter().position(overflows) {
            let value = squares[index];
            return Err(MetricError::NotFinite { what: "f32 square of distractor", index, value });
        }
        let bound = |square: &f64| {
            let half = square / 2.0;
            let error = relative * longest * square.sqrt() + 4.0 * u * half;
            ((half - error) as f32, (half + error) as f32)
        };
        let (for_upper, for_lower) = squares.iter().map(bound).unzip();
        Ok(Offsets { for_upper, for_lower })
    }
}

fn nearness(probe: &[f32], image: &[f32]) -> f64 {
    dot(probe, image) - dot(image, image) / 2.0
}

/// Counts all distractors for one block of probes.
fn count(
    states: &mut [Probe],
    probes: Rows,
    distractors: Rows,
    offsets: &Offsets,
    tail: &Mutex<Tail>,
) {
    let dim = probes.dim();
    let mut scores = vec![0.0; states.len() * TILE.min(distractors.len())];
    let mut near = Vec::new();
    for start in (0..distractors.len()).step_by(TILE) {
        let end = (start + TILE).min(distractors.len());
        let data = &distractors.data()[start * dim..end * dim];
        let tile = Rows::new(data, dim).expect("whole rows of whole rows");
        let scores = &mut scores[..states.len() * tile.len()];
        products(probes, tile, scores);
        let lock = || tail.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let tail_bound = lock().bound();
        let offsets = (&offsets.for_upper[start..end], &offsets.for_lower[start..end]);
        for (i, scores) in scores.chunks_exact(tile.len()).enumerate() {
            count_one(&mut states[i], probes.row(i), tile, scores, offsets, tail_bound, &mut near);
        }
        if !near.is_empty() {
            lock().extend(&near);
            near.clear();
        }
    }
}

/// Scores looked at together: one comparison of the whole chunk lets nearly all pass.
const CHUNK: usize = 16;

fn count_one(
    state: &mut Probe,
    probe: &[f32],
    tile: Rows,
    scores: &[f32],
    (for_upper, for_lower): (&[f32], &[f32]),
    tail_bound: f64,
    near: &mut Vec<f64>,
) {
    // The nearness of a distractor at the bound of the tail, less what its rounding may hide.
    let rounding = 1e-12 * (state.square + tail_bound.abs());
    let tail_nearness = (state.square - tail_bound) / 2.0 - rounding;
    let farthest_mate = state.nearness.first().copied().unwrap_or(f64::INFINITY);
    // Rounded down, so that nothing above the f64 value is missed.
    let floor = (farthest_mate.min(tail_nearness) as f32).next_down();
    let mut candidate = |i: usize| {
        let (upper, lower) = (scores[i] - for_upper[i], scores[i] - for_lower[i]);
        let (most, least) = (state.beaten(f64::from(upper)), state.beaten(f64::from(lower)));
        let in_tail = f64::from(upper) >= tail_nearness;
        if most == least && !in_tail {
            state.counts[most] += 1;
            return;
        }
        let exact = with_widest_vectors(|| nearness(probe, tile.row(i)));
        let beaten = state.beaten(exact);
        state.counts[beaten] += 1;
        if in_tail {
            near.push(state.square - 2.0 * exact);
        }
    };
    for start in (0..scores.len()).step_by(CHUNK) {
        let end = (start + CHUNK).min(scores.len());
        let chunk = scores[start..end].iter().zip(&for_upper[start..end]);
        let any = chunk.fold(false, |any, (score, offset)| any | (score - offset >= floor));
        if any {
            (start..end).filter(|&i| scores[i] - for_upper[i] >= floor).for_each(&mut candidate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::values;

    /// Everything in f64, one comparison at a time.
    fn brute_force(probes: Rows, identities: &[u32], distractors: Rows, n: usize) -> Matches {
        let distance = |a: &[f32], b: &[f32]| {
            let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
            a.iter().zip(b).map(square).sum::<f64>().sqrt()
        };
        let (mut pairs, mut nearest) = (Vec::new(), Vec::new());
        for p in 0..probes.len() {
            let distances: Vec<f64> = (0..distractors.len())
                .map(|x| distance(probes.row(p), distractors.row(x)))
                .collect();
            nearest.extend(&distances);
            for m in (0..probes.len()).filter(|&m| m != p && identities[m] == identities[p]) {
                let mate = distance(probes.row(p), probes.row(m));
                let rank = distances.iter().filter(|&&d| d < mate).count() as u32;
                pairs.push(MatePair { probe: p as u32, mate: m as u32, distance: mate, rank });
            }
        }
        nearest.sort_by(f64::total_cmp);
        nearest.truncate(n);
        let (n_probes, n_distractors) = (probes.len() as u64, distractors.len() as u64);
        Matches { pairs, n_distractors, n_probes, nearest }
    }

    fn run(probes: Rows, identities: &[u32], tiles: &[Rows], n: usize, threads: usize) -> Matches {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut matcher = Matcher::new(probes, identities, n).unwrap();
            tiles.iter().for_each(|tile| matcher.add(*tile).unwrap());
            matcher.finish()
        })
    }

    #[test]
    fn ranks_and_distances_are_those_of_brute_force_in_f64() {
        for (n_probes, n_distractors, dim) in [(30, 2500, 16), (300, 700, 65)] {
            let (p, mut x) = (values(1, n_probes * dim), values(9, n_distractors * dim));
            // Some distractors are probes themselves, and some are far away.
            x[..4 * dim].copy_from_slice(&p[..4 * dim]);
            x[7 * dim] = 100.0;
            let identities: Vec<u32> = (0..n_probes as u32).map(|i| i % 7).collect();
            let (p, x) = (Rows::new(&p, dim).unwrap(), Rows::new(&x, dim).unwrap());
            let expected = brute_force(p, &identities, x, 900);
            let ours = run(p, &identities, &[x], 900, 2);
            for (ours, expected) in ours.pairs.iter().zip(&expected.pairs) {
                assert_eq!((ours.probe, ours.mate), (expected.probe, expected.mate));
                assert_eq!(ours.rank, expected.rank, "{ours:?}");
                assert!((ours.distance - expected.distance).abs() < 1e-7);
            }
            assert_eq!(ours.pairs.len(), expected.pairs.len());
            assert_eq!(ours.nearest.len(), expected.nearest.len());
            for (ours, expected) in ours.nearest.iter().zip(&expected.nearest) {
                assert!((ours - expected).abs() < 1e-7, "{ours} {expected}");
            }
        }
    }

    #[test]
    fn order_pieces_and_threads_change_no_bit() {
        let (p, x) = (values(1, 90 * 24), values(5, 3000 * 24));
        let identities: Vec<u32> = (0..90).map(|i| i / 3).collect();
        let rows = Rows::new(&p, 24).unwrap();
        let whole = run(rows, &identities, &[Rows::new(&x, 24).unwrap()], 500, 1);
        let reversed: Vec<f32> = x.chunks(24).rev().flatten().copied().collect();
        let pieces: Vec<Rows> =
            reversed.chunks(24 * 37).map(|piece| Rows::new(piece, 24).unwrap()).collect();
        assert_eq!(run(rows, &identities, &pieces, 500, 3), whole);
    }

    #[test]
    fn a_distractor_at_the_distance_of_the_mate_is_not_nearer() {
        let probes = [0.0, 0.0, 1.0, 0.0];
        let distractors = [0.0, 1.0, 0.0, 0.5, -1.0, 0.0];
        let rows = Rows::new(&probes, 2).unwrap();
        let matches = run(rows, &[3, 3], &[Rows::new(&distractors, 2).unwrap()], 1, 1);
        assert_eq!(matches.pairs.iter().map(|pair| pair.rank).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(matches.nearest, [0.5]);
    }

    #[test]
    fn bad_input_is_named_and_changes_nothing() {
        let probes = Rows::new(&[1.0, 0.0], 1).unwrap();
        assert!(Matcher::new(probes, &[0], 0).is_err());
        let mut matcher = Matcher::new(probes, &[0, 0], 0).unwrap();
        let error = |matcher: &mut Matcher, row: &[f32], dim| {
            matcher.add(Rows::new(row, dim).unwrap()).unwrap_err().to_string()
        };
        assert_eq!(
            error(&mut matcher, &[0.5, f32::NAN], 1),
            "distractor 1 is NaN, not a finite number"
        );
        assert!(error(&mut matcher, &[1e30], 1).starts_with("f32 square of distractor 0 is"));
        assert_eq!(error(&mut matcher, &[0.0; 2], 2), "distractor: 2 values where 1 are expected");
        assert_eq!(matcher.finish().n_distractors, 0);
    }
}
