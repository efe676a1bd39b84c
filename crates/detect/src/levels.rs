//! SCRFD and `YuNet`: for every stride, a row of numbers for each place of a grid.

use pfc_image::align::Landmarks;
use pfc_onnx::Tensor;

use crate::{detection::Candidates, table::Table};

/// Which outputs there are, and how they are read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Levels {
    pub(crate) reading: Reading,
    levels: Vec<Level>,
    /// Rows for each place.
    n_anchors: usize,
}

/// What the numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Distances from the place, in strides.
    Scrfd,
    /// Shifts from the place and logarithms of sides, in strides; the score is the geometric mean of two.
    YuNet,
}

/// The outputs of a stride, by their numbers.
#[derive(Debug, Clone, PartialEq)]
struct Level {
    stride: usize,
    scores: Vec<usize>,
    bounds: usize,
    points: usize,
}

/// More anchors than any network has.
const ANCHORS_MAX: usize = 4;

impl Levels {
    /// Tells the outputs apart by their shapes, in whatever order they come.
    pub(crate) fn recognise(outputs: &[Tensor], size: [usize; 2]) -> Result<Levels, String> {
        let (reading, strides, n_scores) = match outputs.len() {
            9 => (Reading::Scrfd, &[8, 16, 32][..], 1),
            15 => (Reading::Scrfd, &[8, 16, 32, 64, 128][..], 1),
            _ => (Reading::YuNet, &[8, 16, 32][..], 2),
        };
        let tables: Vec<Table<'_>> = outputs
            .iter()
            .map(Table::of)
            .collect::<Option<_>>()
            .ok_or("an output is no table with a row for each place")?;
        let most = tables.iter().map(|table| table.rows).max().unwrap_or(0);
        let n_anchors = most / places(size, strides[0]);
        if !(1..=ANCHORS_MAX).contains(&n_anchors) {
            return Err(format!(
                "an output has {most} rows, and a grid of stride {} has {} places",
                strides[0],
                places(size, strides[0])
            ));
        }
        let mut levels = Vec::new();
        for &stride in strides {
            let n_rows = places(size, stride) * n_anchors;
            let of_width = |columns: usize| -> Vec<usize> {
                let is_it = |i: &usize| tables[*i].rows == n_rows && tables[*i].columns == columns;
                (0..tables.len()).filter(is_it).collect()
            };
            match (&of_width(1)[..], &of_width(4)[..], &of_width(10)[..]) {
                (scores, &[bounds], &[points]) if scores.len() == n_scores => {
                    levels.push(Level { stride, scores: scores.to_vec(), bounds, points });
                }
                _ => {
                    return Err(format!(
                        "stride {stride} has not {n_scores} outputs of {n_rows} scores, one of \
                         {n_rows}x4 and one of {n_rows}x10 numbers"
                    ));
                }
            }
        }
        Ok(Levels { reading, levels, n_anchors })
    }

    /// The largest stride.
    pub(crate) fn multiple(&self) -> usize {
        self.levels.iter().map(|level| level.stride).max().unwrap_or(32)
    }

    /// Reads the outputs; nothing if one has not as many rows as a picture of `size` has places.
    pub(crate) fn decode(
        &self,
        outputs: &[Tensor],
        size: [usize; 2],
        candidates: &mut Candidates,
    ) -> Option<()> {
        for level in &self.levels {
            let stride = level.stride;
            let n_rows = places(size, stride) * self.n_anchors;
            let table = |output: usize, columns: usize| {
                let table = Table::of(outputs.get(output)?)?;
                (table.rows == n_rows && table.columns == columns).then_some(table)
            };
            let scores =
                level.scores.iter().map(|&i| table(i, 1)).collect::<Option<Vec<Table<'_>>>>()?;
            let (bounds, points) = (table(level.bounds, 4)?, table(level.points, 10)?);
            let score = self.scores(&scores);
            let n_columns = size[1] / stride;
            for row in 0..n_rows {
                let score = score(row);
                if !candidates.is_sure(score) {
                    continue;
                }
                let place = row / self.n_anchors;
                let place = [(place % n_columns) as f32, (place / n_columns) as f32];
                let face = Reported { bounds: bounds.first(row), points: points.first(row) };
                let (bounds, landmarks) = match self.reading {
                    Reading::Scrfd => face.by_distances(place, stride as f32),
                    Reading::YuNet => face.by_shifts(place, stride as f32),
                };
                candidates.add(score, bounds, landmarks);
            }
        }
        Some(())
    }

    /// How sure the network is of each row. SCRFD's scores are probabilities, or their logits in files that were
    /// exported without the last sigmoid, which most places being no face tells.
    fn scores<'t>(&self, scores: &'t [Table<'t>]) -> Box<dyn Fn(usize) -> f32 + 't> {
        let first = move |row: usize| scores[0].first::<1>(row)[0];
        match (self.reading, scores) {
            (Reading::YuNet, [_, second]) => Box::new(move |row| {
                let second = second.first::<1>(row)[0];
                (first(row).clamp(0.0, 1.0) * second.clamp(0.0, 1.0)).sqrt()
            }),
            _ => {
                let n_negative = (0..scores[0].rows).filter(|&row| first(row) < 0.0).count();
                let are_logits = n_negative > scores[0].rows / 4;
                match are_logits {
                    true => Box::new(move |row| 1.0 / (1.0 + (-first(row)).exp())),
                    false => Box::new(first),
                }
            }
        }
    }
}

/// Places of a grid.
fn places([height, width]: [usize; 2], stride: usize) -> usize {
    (height / stride) * (width / stride)
}

/// A row of the outputs.
struct Reported {
    bounds: [f32; 4],
    points: [f32; 10],
}

impl Reported {
    fn by_distances(&self, place: [f32; 2], stride: f32) -> ([f32; 4], Landmarks) {
        let [x, y] = place.map(|at| at * stride);
        let [left, top, right, bottom] = self.bounds.map(|distance| distance * stride);
        let bounds = [x - left, y - top, x + right, y + bottom];
        (bounds, self.points(place, stride))
    }

    fn by_shifts(&self, place: [f32; 2], stride: f32) -> ([f32; 4], Landmarks) {
        let [shift_x, shift_y, width, height] = self.bounds;
        let (x, y) = ((place[0] + shift_x) * stride, (place[1] + shift_y) * stride);
        let (width, height) = (width.exp() * stride, height.exp() * stride);
        let bounds = [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0];
        (bounds, self.points(place, stride))
    }

    fn points(&self, place: [f32; 2], stride: f32) -> Landmarks {
        let at = |i: usize, axis: usize| (place[axis] + self.points[2 * i + axis]) * stride;
        std::array::from_fn(|i| [at(i, 0), at(i, 1)])
    }
}
