//! Where the five landmarks of a face belong.

/// A place in an image: x to the right, y downwards, in pixels; (0, 0) is the centre of the first.
pub type Point = [f64; 2];

/// Where the five landmarks lie in a 112×112 crop: left eye, right eye, nose, left and right corner
/// of the mouth, left and right as seen in the image. `InsightFace`'s ArcFace template.
pub const TEMPLATE: [Point; 5] = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];
