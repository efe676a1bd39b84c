//! Which face of each picture is that of the person whom the others show.

/// Rounds after which the choice stands even if it still changes.
const ROUNDS_MAX: usize = 8;

/// For each picture of one person, the number of the face that is most like the faces of the other pictures.
///
/// Pictures with one face begin; without any, the first face of each. Then each picture takes the face with
/// the largest cosine to the sum of what the others have taken, until nothing changes. A picture without a face
/// gets 0. Takes F·D steps a round, for F faces.
///
/// * `pictures`: of each face of each picture its embedding, as long as 1; those that come first are preferred
pub fn nearest(pictures: &[Vec<Vec<f32>>]) -> Vec<usize> {
    let dim = pictures.iter().flatten().next().map_or(0, Vec::len);
    let mut taken = vec![0; pictures.len()];
    let sum_of = |taken: &[usize], counts: &dyn Fn(&Vec<Vec<f32>>) -> bool| {
        let mut sum = vec![0.0; dim];
        for (picture, &face) in pictures.iter().zip(taken).filter(|(picture, _)| counts(picture)) {
            add(&mut sum, picture.get(face), 1.0);
        }
        sum
    };
    let has_single = pictures.iter().any(|faces| faces.len() == 1);
    if has_single {
        let sum = sum_of(&taken, &|faces| faces.len() == 1);
        for (faces, face) in pictures.iter().zip(&mut taken) {
            *face = most_like(faces, &sum);
        }
    }
    for _ in 0..ROUNDS_MAX {
        let mut sum = sum_of(&taken, &|_| true);
        let mut is_changed = false;
        for (faces, face) in pictures.iter().zip(&mut taken) {
            add(&mut sum, faces.get(*face), -1.0);
            let better = most_like(faces, &sum);
            is_changed |= better != *face;
            *face = better;
            add(&mut sum, faces.get(*face), 1.0);
        }
        if !is_changed {
            break;
        }
    }
    taken
}

fn add(sum: &mut [f64], face: Option<&Vec<f32>>, sign: f64) {
    for (sum, value) in sum.iter_mut().zip(face.into_iter().flatten()) {
        *sum += sign * f64::from(*value);
    }
}

/// The first of the faces that are most like `sum`.
fn most_like(faces: &[Vec<f32>], sum: &[f64]) -> usize {
    let product = |face: &Vec<f32>| -> f64 {
        face.iter().zip(sum).map(|(value, sum)| f64::from(*value) * sum).sum()
    };
    let mut best = (0, f64::NEG_INFINITY);
    for (i, face) in faces.iter().enumerate() {
        // Sums of the same numbers in another order differ by less.
        if product(face) > best.1 + 1e-9 {
            best = (i, product(face));
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(degrees: f32) -> Vec<f32> {
        vec![degrees.to_radians().cos(), degrees.to_radians().sin()]
    }

    #[test]
    fn the_face_that_the_other_pictures_show_is_taken() {
        // She is at about 0 degrees; others at 90 and 180 are larger.
        let single = [vec![at(5.0)], vec![at(90.0), at(-5.0)], vec![at(180.0), at(100.0), at(8.0)]];
        assert_eq!(nearest(&single), [0, 1, 2]);
        let none_single =
            [vec![at(90.0), at(0.0)], vec![at(1.0), at(200.0)], vec![at(300.0), at(4.0)]];
        assert_eq!(nearest(&none_single), [1, 0, 1]);
    }

    #[test]
    fn a_picture_alone_and_one_without_a_face_take_the_first() {
        assert_eq!(nearest(&[vec![at(90.0), at(0.0)]]), [0]);
        assert_eq!(nearest(&[vec![], vec![at(3.0)], vec![at(9.0), at(3.0)]]), [0, 0, 1]);
        assert_eq!(nearest(&[]), Vec::<usize>::new());
    }
}
