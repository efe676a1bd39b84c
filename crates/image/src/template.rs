//! Where the five landmarks of a face belong.

/// A place in an image: x to the right, y downwards, in pixels; (0, 0) is the centre of the first.
pub type Point = [f64; 2];

/// The five landmarks of a face as lists, detectors and data sets state them: left eye, right eye,
/// nose, left and right corner of the mouth, x and y of each, in pixels of the upright image.
///
/// In single precision everywhere between reading them and cutting the face out, so that the crop
/// depends on what a list says and not on the program that reads it.
pub type Landmarks = [[f32; 2]; 5];

/// Where the five landmarks lie in a 112×112 crop: left eye, right eye, nose, left and right corner
/// of the mouth, left and right as seen in the image. `InsightFace`'s ArcFace template.
pub const TEMPLATE: [Point; 5] = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];
