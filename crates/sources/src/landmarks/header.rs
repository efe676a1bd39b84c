//! Column names to columns.

use std::collections::BTreeMap;

use super::layout::{FIVE_OF_106, Layout};
use crate::column_names::is_image_column;

/// Names of the column with the path, letters and digits only.
const IMAGE: [&str; 11] = [
    "path",
    "image",
    "file",
    "filename",
    "imagepath",
    "imageid",
    "imagename",
    "name",
    "nameid",
    "img",
    "key",
];

/// Names of the five points, in their order; left and right as seen in the image.
const POINTS: [&[&str]; 5] = [
    &["lefteye", "eyeleft", "leye"],
    &["righteye", "eyeright", "reye"],
    &["nose", "nosetip"],
    &["leftmouth", "mouthleft", "lmouth", "leftmouthcorner", "mouthleftcorner"],
    &["rightmouth", "mouthright", "rmouth", "rightmouthcorner", "mouthrightcorner"],
];

/// Words before the number of a point that say nothing; those that begin with another one come first.
const PREFIXES: [&str; 14] = [
    "landmarks",
    "landmark",
    "keypoints",
    "keypoint",
    "points",
    "point",
    "lmks",
    "lmk",
    "lm",
    "kps",
    "kp",
    "pts",
    "pt",
    "p",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Axis {
    X,
    Y,
}

/// The layouts that a header's `names` may stand for; the first line behind it has `n_fields` fields. It is one,
/// but of 106 points, of which names do not say which are eyes, nose and mouth.
///
/// The header of `CelebA` has no name for the first column: then all others move by one.
///
/// # Errors
///
/// What is missing.
pub fn layouts(names: &[String], n_fields: usize) -> Result<Vec<Layout>, String> {
    let plain: Vec<String> = names.iter().map(|name| plain(name)).collect();
    let named = IMAGE.iter().find_map(|known| plain.iter().position(|name| name == known));
    let named = named.or_else(|| names.iter().position(|name| is_image_column(name)));
    let shift = usize::from(named.is_none() && names.len() + 1 == n_fields);
    let image = match shift {
        1 => 0,
        _ => named.ok_or("the path of the image")?,
    };
    let columns: BTreeMap<(usize, Axis), usize> = plain
        .iter()
        .enumerate()
        .filter(|(column, _)| shift == 1 || *column != image)
        .filter_map(|(column, name)| Some((coordinate(name)?, column + shift)))
        .collect();
    // Counted from 0 or from 1.
    let first = usize::from(!columns.contains_key(&(0, Axis::X)));
    let has = |n: usize| columns.contains_key(&(first + n - 1, Axis::X));
    let n_points = [106, 68].into_iter().find(|n| has(*n)).unwrap_or(5);
    let at = |i: usize, axis, letter: &str| {
        let missing = || format!("{letter}{} of {n_points} points", i + 1);
        columns.get(&(first + i, axis)).copied().ok_or_else(missing)
    };
    let point = |&i: &usize| Ok((at(i, Axis::X, "x")?, at(i, Axis::Y, "y")?));
    let sets: Vec<Vec<usize>> = match n_points {
        106 => FIVE_OF_106.iter().map(|five| five.to_vec()).collect(),
        _ => vec![(0..n_points).collect()],
    };
    let layout = |set: &Vec<usize>| {
        let points = set.iter().map(point).collect::<Result<_, String>>()?;
        Ok(Layout { image, points, n_fields: names.len() + shift })
    };
    sets.iter().map(layout).collect()
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The point, counted as the header counts or from 1 where it has a name, and the axis.
fn coordinate(name: &str) -> Option<(usize, Axis)> {
    let axis = |letter| if letter == 'x' { Axis::X } else { Axis::Y };
    for letter in ['x', 'y'] {
        let part = name.strip_suffix(letter).or_else(|| name.strip_prefix(letter));
        let Some(part) = part else { continue };
        if let Some(i) = POINTS.iter().position(|names| names.contains(&part)) {
            return Some((i + 1, axis(letter)));
        }
    }
    let rest = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    for letter in ['x', 'y'] {
        let digits = rest.strip_prefix(letter).or_else(|| rest.strip_suffix(letter));
        if let Some(number) = digits.and_then(|digits| digits.parse::<u8>().ok()) {
            return Some((number.into(), axis(letter)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, n_fields: usize, image: usize, first: (usize, usize)) {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        let layout = layouts(&names, n_fields).unwrap().remove(0);
        assert_eq!((layout.image, layout.points[0], layout.points.len()), (image, first, 5));
    }

    #[test]
    fn headers_that_are_around_are_understood() {
        check("image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5", 11, 0, (1, 2));
        check("x0,x1,x2,x3,x4,y0,y1,y2,y3,y4,path", 11, 10, (0, 5));
        // VGGFace2.
        check("NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y", 11, 0, (1, 2));
        // CelebA, as CSV and as text, where the first column has no name.
        let celeba = "lefteye_x,lefteye_y,righteye_x,righteye_y,nose_x,nose_y,leftmouth_x,\
                      leftmouth_y,rightmouth_x,rightmouth_y";
        check(&format!("image_id,{celeba}"), 11, 0, (1, 2));
        check(celeba, 11, 0, (1, 2));
        let axis_first = "file path,x_left_eye,y_left_eye,x_right_eye,y_right_eye,x_nose,y_nose,\
                          x_mouth_left,y_mouth_left,x_mouth_right,y_mouth_right";
        check(axis_first, 11, 0, (1, 2));
        for (word, first) in [("kps", 0), ("lmk_", 1), ("keypoint_", 0), ("pt", 1)] {
            let points = (first..first + 5).map(|i| format!("{word}{i}_x,{word}{i}_y"));
            let points = points.collect::<Vec<_>>().join(",");
            check(&format!("{points},img_path"), 11, 10, (0, 1));
        }
    }

    #[test]
    fn what_a_header_lacks_is_named() {
        let lacks = |header: &str| {
            let names: Vec<String> = header.split(',').map(str::to_owned).collect();
            layouts(&names, names.len()).unwrap_err()
        };
        assert_eq!(lacks("x1,y1"), "the path of the image");
        assert_eq!(lacks("image,x1,y1,x2,y2"), "x3 of 5 points");
        assert_eq!(lacks("image,label"), "x1 of 5 points");
    }
}
