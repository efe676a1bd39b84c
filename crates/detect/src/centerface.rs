//! `CenterFace`: a map of how likely each place is the middle of a face, and what belongs to each.

use pfc_onnx::Tensor;

use crate::{detection::Candidates, table::Planes};

/// Pixels from one place to the next.
const STRIDE: usize = 4;

/// Which output is which. Sides and shifts both have two channels; in all files the sides come first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CenterFace {
    heat: usize,
    sides: usize,
    shifts: usize,
    points: usize,
}

impl CenterFace {
    pub(crate) fn recognise(
        outputs: &[Tensor],
        [height, width]: [usize; 2],
    ) -> Result<CenterFace, String> {
        let is_map = |planes: &Planes<'_>| {
            (planes.height, planes.width) == (height / STRIDE, width / STRIDE)
        };
        let maps: Vec<usize> = outputs
            .iter()
            .map(|tensor| Planes::of(tensor).filter(is_map).map(|planes| planes.channels))
            .collect::<Option<_>>()
            .ok_or("four outputs are no maps with a place for each 4 pixels")?;
        let with = |channels: usize| -> Vec<usize> {
            (0..maps.len()).filter(|&i| maps[i] == channels).collect()
        };
        match (&with(1)[..], &with(2)[..], &with(10)[..]) {
            (&[heat], &[sides, shifts], &[points]) => {
                Ok(CenterFace { heat, sides, shifts, points })
            }
            _ => Err(format!("four maps have {maps:?} channels, not 1, 2, 2 and 10")),
        }
    }

    /// Reads the outputs; nothing if one is no map of a picture of `size`.
    pub(crate) fn decode(
        &self,
        outputs: &[Tensor],
        [height, width]: [usize; 2],
        candidates: &mut Candidates,
    ) -> Option<()> {
        let (rows, columns) = (height / STRIDE, width / STRIDE);
        let map = |output: usize, channels: usize| {
            let planes = Planes::of(outputs.get(output)?)?;
            let is_it = (planes.channels, planes.height, planes.width) == (channels, rows, columns);
            is_it.then_some(planes)
        };
        let (heat, sides) = (map(self.heat, 1)?, map(self.sides, 2)?);
        let (shifts, points) = (map(self.shifts, 2)?, map(self.points, 10)?);
        for y in 0..rows {
            for x in 0..columns {
                let score = heat.at(0, y, x);
                if !candidates.is_sure(score) {
                    continue;
                }
                let at = |planes: &Planes<'_>, channel: usize| planes.at(channel, y, x);
                let stride = STRIDE as f32;
                // Rows first, as everything here.
                let [high, wide] = [0, 1].map(|axis| at(&sides, axis).exp() * stride);
                let middle_y = (y as f32 + at(&shifts, 0) + 0.5) * stride;
                let middle_x = (x as f32 + at(&shifts, 1) + 0.5) * stride;
                let (left, top) = (middle_x - wide / 2.0, middle_y - high / 2.0);
                let landmarks = std::array::from_fn(|i| {
                    [at(&points, 2 * i + 1) * wide + left, at(&points, 2 * i) * high + top]
                });
                candidates.add(score, [left, top, left + wide, top + high], landmarks);
            }
        }
        Some(())
    }
}
