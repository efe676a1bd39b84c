//! `RetinaFace` as in `PyTorch`: shifts from prior boxes, of all grids in one table.

use pfc_onnx::Tensor;

use crate::{detection::Candidates, table::Table};

/// Sides of the prior boxes of a grid, at each of its places.
type Priors = &'static [(usize, &'static [f32])];

/// Of the networks with `ResNet50` and `MobileNet`.
const USUAL: Priors = &[(8, &[16.0, 32.0]), (16, &[64.0, 128.0]), (32, &[256.0, 512.0])];
/// Of the networks of a megabyte, "slim" and "RFB".
const SLIM: Priors = &[
    (8, &[10.0, 16.0, 24.0]),
    (16, &[32.0, 48.0]),
    (32, &[64.0, 96.0]),
    (64, &[128.0, 192.0, 256.0]),
];

/// By which shifts of middles and points, and logarithms of sides, are multiplied.
const VARIANCES: [f32; 2] = [0.1, 0.2];

/// Which output is which.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RetinaFace {
    priors: Priors,
    bounds: usize,
    classes: usize,
    points: usize,
}

impl RetinaFace {
    pub(crate) fn recognise(outputs: &[Tensor], size: [usize; 2]) -> Result<RetinaFace, String> {
        let tables: Vec<Table<'_>> = outputs
            .iter()
            .map(Table::of)
            .collect::<Option<_>>()
            .ok_or("an output is no table with a row for each prior box")?;
        let of_width = |columns: usize| tables.iter().position(|table| table.columns == columns);
        let (Some(bounds), Some(classes), Some(points)) = (of_width(4), of_width(2), of_width(10))
        else {
            return Err(match of_width(14) {
                Some(_) => "it is a YuNet of before 2023".to_owned(),
                None => "three outputs are not 4, 2 and 10 numbers of each prior box".to_owned(),
            });
        };
        let n_rows = tables[bounds].rows;
        let is_it = |priors: &Priors| n_priors(priors, size) == n_rows;
        let priors = [USUAL, SLIM].into_iter().find(is_it);
        let is_same = tables.iter().all(|table| table.rows == n_rows);
        match priors {
            Some(priors) if is_same => Ok(RetinaFace { priors, bounds, classes, points }),
            _ => Err(format!(
                "{n_rows} prior boxes are not the {} or {} of a picture of {}x{}",
                n_priors(USUAL, size),
                n_priors(SLIM, size),
                size[1],
                size[0]
            )),
        }
    }

    /// The largest stride.
    pub(crate) fn multiple(&self) -> usize {
        self.priors.iter().map(|(stride, _)| *stride).max().unwrap_or(32)
    }

    /// Reads the outputs; nothing if one has not as many rows as a picture of `size` has prior boxes.
    pub(crate) fn decode(
        &self,
        outputs: &[Tensor],
        size: [usize; 2],
        candidates: &mut Candidates,
    ) -> Option<()> {
        let n_rows = n_priors(self.priors, size);
        let table = |output: usize, columns: usize| {
            let table = Table::of(outputs.get(output)?)?;
            (table.rows == n_rows && table.columns == columns).then_some(table)
        };
        let (bounds, classes) = (table(self.bounds, 4)?, table(self.classes, 2)?);
        let points = table(self.points, 10)?;
        // Training ends in a softmax that some files lack.
        let is_sum_one = |row: &usize| {
            let [no, yes] = classes.first(*row);
            (no + yes - 1.0).abs() < 1e-2
        };
        let are_probabilities = (0..n_rows).filter(is_sum_one).count() > n_rows / 2;
        let mut row = 0;
        for &(stride, sides) in self.priors {
            let (height, width) = (size[0].div_ceil(stride), size[1].div_ceil(stride));
            for place in 0..height * width {
                let x = ((place % width) as f32 + 0.5) * stride as f32;
                let y = ((place / width) as f32 + 0.5) * stride as f32;
                for &side in sides {
                    let [no, yes] = classes.first(row);
                    let score =
                        if are_probabilities { yes } else { 1.0 / (1.0 + (no - yes).exp()) };
                    if candidates.is_sure(score) {
                        let prior = Prior { x, y, side };
                        let landmarks = prior.points(points.first(row));
                        candidates.add(score, prior.bounds(bounds.first(row)), landmarks);
                    }
                    row += 1;
                }
            }
        }
        Some(())
    }
}

/// Prior boxes of a picture.
fn n_priors(priors: Priors, [height, width]: [usize; 2]) -> usize {
    let of_grid = |&(stride, sides): &(usize, &[f32])| {
        height.div_ceil(stride) * width.div_ceil(stride) * sides.len()
    };
    priors.iter().map(of_grid).sum()
}

/// A square about a middle, in pixels.
struct Prior {
    x: f32,
    y: f32,
    side: f32,
}

impl Prior {
    fn bounds(&self, [x, y, width, height]: [f32; 4]) -> [f32; 4] {
        let Prior { x: middle_x, y: middle_y, side } = *self;
        let middle = [middle_x + x * VARIANCES[0] * side, middle_y + y * VARIANCES[0] * side];
        let half = [width, height].map(|log| side * (log * VARIANCES[1]).exp() / 2.0);
        [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]]
    }

    fn points(&self, shifts: [f32; 10]) -> [[f32; 2]; 5] {
        let middle = [self.x, self.y];
        let at =
            |i: usize, axis: usize| middle[axis] + shifts[2 * i + axis] * VARIANCES[0] * self.side;
        std::array::from_fn(|i| [at(i, 0), at(i, 1)])
    }
}
