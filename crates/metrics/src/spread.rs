//! The spread of scores of sets with too many pairs to look at each twice, from a sample of faces.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use crate::{MetricError, Rows, product::products};

/// Rows multiplied at a time by a thread.
const STRIP: usize = 64;

/// Faces picked by what their embeddings hold: the same whatever their order and the pieces they
/// come in.
///
/// Memory: twice the sample.
#[derive(Debug)]
pub struct FaceSample {
    n_max: usize,
    dim: usize,
    picked: Vec<Picked>,
}

#[derive(Debug)]
struct Picked {
    hash: u64,
    person: u32,
    /// `[D]`, of length 1 unless all zero.
    unit: Vec<f32>,
}

impl FaceSample {
    /// Nothing picked yet; at most `n_max` faces of `dim` numbers will be.
    pub fn new(n_max: usize, dim: usize) -> FaceSample {
        FaceSample { n_max, dim, picked: Vec::new() }
    }

    /// Offers more faces; `person` tells who a row is, or nothing of those to leave out.
    ///
    /// Each row offered is read once; the work beside that is small for pieces larger than the sample.
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] for rows of another length.
    pub fn add(
        &mut self,
        faces: Rows,
        person: impl Fn(usize) -> Option<u32>,
    ) -> Result<(), MetricError> {
        if faces.dim() != self.dim {
            let (len, expected) = (faces.dim(), self.dim);
            return Err(MetricError::Length { what: "row", len, expected });
        }
        let highest = |sample: &FaceSample| match sample.picked.len() < sample.n_max {
            true => u64::MAX,
            false => sample.picked.iter().map(|picked| picked.hash).max().unwrap_or(0),
        };
        let mut bound = highest(self);
        for row in 0..faces.len() {
            let Some(person) = person(row) else { continue };
            let hash = xxh3_64(bytemuck::cast_slice(faces.row(row)));
            if hash > bound || self.n_max == 0 {
                continue;
            }
            self.picked.push(Picked { hash, person, unit: unit(faces.row(row)) });
            if self.picked.len() >= 2 * self.n_max {
                self.shrink();
                bound = highest(self);
            }
        }
        self.shrink();
        Ok(())
    }

    fn shrink(&mut self) {
        self.picked.sort_unstable_by_key(|picked| (picked.hash, picked.person));
        self.picked.truncate(self.n_max);
    }

    /// Cosines of all pairs of two picked faces of different people.
    pub fn impostors(&self) -> Vec<f32> {
        let (units, people) = (self.units(), || self.picked.iter().map(|picked| picked.person));
        let Ok(rows) = Rows::new(&units, self.dim) else { return Vec::new() };
        by_strips(rows, rows, |i, person_scores, out| {
            let own = self.picked[i].person;
            let later = people().zip(person_scores).skip(i + 1);
            out.extend(later.filter(|(person, _)| *person != own).map(|(_, score)| *score));
        })
    }

    /// Cosines of each of `probes`, normalised or not, with each picked face.
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] for rows of another length.
    pub fn against(&self, probes: Rows) -> Result<Vec<f32>, MetricError> {
        let units = self.units();
        let rows = Rows::new(&units, self.dim)?;
        if probes.dim() != self.dim {
            let (len, expected) = (probes.dim(), self.dim);
            return Err(MetricError::Length { what: "row", len, expected });
        }
        let probes: Vec<f32> = (0..probes.len()).flat_map(|i| unit(probes.row(i))).collect();
        let probes = Rows::new(&probes, self.dim)?;
        Ok(by_strips(probes, rows, |_, scores, out| out.extend_from_slice(scores)))
    }

    fn units(&self) -> Vec<f32> {
        self.picked.iter().flat_map(|picked| &picked.unit).copied().collect()
    }
}

/// What `keep` keeps of the products of each row of `a` with all of `b`, in the order of the rows.
fn by_strips(a: Rows, b: Rows, keep: impl Fn(usize, &[f32], &mut Vec<f32>) + Sync) -> Vec<f32> {
    let dim = a.dim();
    let strips: Vec<Vec<f32>> = a
        .data()
        .par_chunks(STRIP * dim)
        .enumerate()
        .map(|(strip, data)| {
            let rows = Rows::new(data, dim).expect("whole rows of whole rows");
            let mut scores = vec![0.0; rows.len() * b.len()];
            products(rows, b, &mut scores);
            let mut kept = Vec::new();
            for (i, scores) in scores.chunks_exact(b.len().max(1)).enumerate() {
                keep(strip * STRIP + i, scores, &mut kept);
            }
            kept
        })
        .collect();
    strips.concat()
}

fn unit(row: &[f32]) -> Vec<f32> {
    let square: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let scale = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
    row.iter().map(|&v| (f64::from(v) * scale) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faces(n: usize, dim: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0;
        (0..n * dim).map(value).collect()
    }

    fn sorted(mut values: Vec<f32>) -> Vec<f32> {
        values.sort_by(f32::total_cmp);
        values
    }

    #[test]
    fn the_sample_depends_neither_on_order_nor_on_pieces() {
        let data = faces(500, 5);
        let rows = Rows::new(&data, 5).unwrap();
        let mut whole = FaceSample::new(20, 5);
        whole.add(rows, |i| Some(i as u32 / 3)).unwrap();
        let mut pieces = FaceSample::new(20, 5);
        for i in (0..500).rev() {
            pieces.add(Rows::new(rows.row(i), 5).unwrap(), |_| Some(i as u32 / 3)).unwrap();
        }
        assert_eq!(whole.picked.len(), 20);
        assert_eq!(sorted(whole.impostors()), sorted(pieces.impostors()));
        let probes = Rows::new(&data[..15], 5).unwrap();
        assert_eq!(whole.against(probes).unwrap(), pieces.against(probes).unwrap());
        assert_eq!(whole.against(probes).unwrap().len(), 3 * 20);
    }

    #[test]
    fn a_small_set_is_its_own_sample() {
        let data = [3.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0, 0.0];
        let mut sample = FaceSample::new(100, 2);
        sample
            .add(Rows::new(&data, 2).unwrap(), |i| [Some(7), Some(8), Some(7), Some(9)][i])
            .unwrap();
        let half = 0.5f32.sqrt();
        // Of people 7 and 8, 8 and 7, and the zero face with each of the three others.
        let close = |found: Vec<f32>, expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            sorted(found).iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
        };
        close(sample.impostors(), &[0.0, 0.0, 0.0, 0.0, half]);
        close(sample.against(Rows::new(&[0.0, 9.0], 2).unwrap()).unwrap(), &[0.0, 0.0, half, 1.0]);
    }

    #[test]
    fn rows_of_another_length_are_refused() {
        let mut sample = FaceSample::new(4, 2);
        let three = [0.0; 3];
        let rows = Rows::new(&three, 3).unwrap();
        assert!(sample.add(rows, |_| None).is_err() && sample.against(rows).is_err());
        assert_eq!(FaceSample::new(0, 2).impostors(), []);
    }
}
