//! A door for the fuzzer to what reads the outputs of networks.

use pfc_onnx::Tensor;

use crate::{detection::settled, family::Plan};

/// Sizes that the outputs are read for.
const SIZES: [[usize; 2]; 4] = [[256, 128], [128, 256], [128, 128], [96, 64]];

/// Recognises a network by outputs that `bytes` describe, and reads the same outputs for other sizes.
///
/// The first byte is the number of outputs, and each output has a byte for the number of its axes, two for each
/// axis, and a byte that says how its values are drawn from the rest.
pub fn read(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let n_outputs = usize::from(bytes.next().unwrap_or(0) % 17);
    let mut outputs = Vec::new();
    for i in 0..n_outputs {
        let n_axes = bytes.next().unwrap_or(0) % 5;
        let mut side = || usize::from(bytes.next().unwrap_or(0)) << (bytes.next().unwrap_or(0) % 5);
        let shape: Vec<usize> = (0..n_axes).map(|_| side()).collect();
        // As the runtime gives them: a value for each place, and never more than fit.
        let n_values = shape.iter().product::<usize>().min(1 << 18);
        let some: Vec<f32> = (0..usize::from(bytes.next().unwrap_or(0) % 32) + 1)
            .map(|_| {
                f32::from_bits(u32::from_le_bytes([0; 4].map(|_: u8| bytes.next().unwrap_or(63))))
            })
            .collect();
        let values = some.iter().copied().cycle().take(n_values).collect();
        outputs.push(Tensor { name: i.to_string(), shape, values });
    }
    let Ok(plan) = Plan::recognise(&outputs, SIZES[0]) else { return };
    for size in SIZES {
        if let Ok(found) = plan.decode(&outputs, size, 0.1) {
            let kept = settled(found, plan.overlap_max());
            assert!(kept.iter().all(|face| face.area() > 0.0 && face.score <= 1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outputs of these shapes as [`read`] is told them, all filled with the same four numbers.
    fn described(shapes: &[&[usize]]) -> Vec<u8> {
        let mut bytes = vec![shapes.len() as u8];
        for shape in shapes {
            bytes.push(shape.len() as u8);
            for &side in *shape {
                // A side is a byte, shifted.
                let shift =
                    (0..5).find(|shift| side >> shift < 256 && (side >> shift) << shift == side);
                let shift = shift.expect("a side of no more than 8 bits that matter");
                bytes.extend([(side >> shift) as u8, shift as u8]);
            }
            bytes.push(3);
            bytes.extend([0.9_f32, 0.2, 1.5, -0.5].iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    #[test]
    fn no_damage_to_the_outputs_of_a_detector_gives_more_than_faces_in_reach_or_an_error() {
        // Of 256 rows and 128 columns: 512, 128 and 32 places of strides 8, 16 and 32.
        let strides = [512, 128, 32];
        let of = |columns: usize, anchors: usize| strides.map(|n| [1, n * anchors, columns]);
        let yunet = [of(1, 1), of(1, 1), of(4, 1), of(10, 1)].concat();
        let scrfd = [of(1, 2), of(4, 2), of(10, 2)].concat();
        let places = (512 + 128 + 32) * 2;
        let retinaface = [4, 2, 10].map(|columns| [1, places, columns]);
        let centerface = [1, 2, 2, 10].map(|channels| [channels, 64, 32]);
        for shapes in [&yunet[..], &scrfd[..], &retinaface[..], &centerface[..]] {
            let shapes: Vec<&[usize]> = shapes.iter().map(|shape| &shape[..]).collect();
            for bytes in pfc_testing::damaged(&described(&shapes), 300) {
                read(&bytes);
            }
        }
    }
}
