//! A door for the fuzzer to what reads the outputs of networks.

use pfc_onnx::Tensor;

use crate::{detection::distinct, family::Plan};

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
            let kept = distinct(found, plan.overlap_max());
            assert!(kept.iter().all(|face| face.area() > 0.0 && face.score <= 1.0));
        }
    }
}
