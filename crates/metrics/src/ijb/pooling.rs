//! Faces to templates.

// F = faces, T = templates, D = embedding.

use rayon::prelude::*;

use crate::{MetricError, Rows};

/// Which weights faces carry into their template. The reference spells these as letters; its two
/// scripts give the letter N opposite meanings, so names are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pooling {
    /// Add the embedding of the mirror image (F).
    pub flip: bool,
    /// Divide each face by its norm first; else the norm, which falls with image quality, weighs it
    /// (N0 of `eval_ijbc.py`, N1 of `ijb_evals.py`).
    pub unit_norm_faces: bool,
    /// Multiply each face by the confidence of the face detector (D).
    pub detector_score: bool,
    /// Divide the mean of each media by its norm, so that a blurred video weighs as much as a still.
    /// The reference does not, and its published figures depend on that.
    pub unit_norm_media: bool,
}

impl Default for Pooling {
    /// What published tables use: N1 D1 F2 of `eval_ijbc.py`, N0 D1 F1 of `ijb_evals.py`.
    fn default() -> Pooling {
        Pooling { flip: true, unit_norm_faces: false, detector_score: true, unit_norm_media: false }
    }
}

/// Embedded faces and where they belong.
#[derive(Debug, Clone, Copy)]
pub struct Faces<'a> {
    /// `[F, D]`, of the images as they are, not normalised.
    pub original: Rows<'a>,
    /// `[F, D]`, of the mirror images; needed by [`Pooling::flip`].
    pub mirrored: Option<Rows<'a>>,
    /// `[F]`, confidence of the detector.
    pub detector_score: &'a [f32],
    /// `[F]`, id of the template that the face is in.
    pub template: &'a [u64],
    /// `[F]`, id of the video or still it was cut from; ids are unique within a template only.
    pub media: &'a [u64],
    /// `[F]`, a permutation of `0..F`: the order in which faces are added up. f32 sums depend on
    /// it, so give one that does not depend on the order of the rows (by name, say).
    pub order: &'a [u32],
}

/// Pooled templates.
#[derive(Debug, Clone, PartialEq)]
pub struct Templates {
    /// `[T]`, rising.
    pub ids: Vec<u64>,
    /// `[T, D]` row by row, of norm 1, or 0 for a template whose faces add up to zero.
    pub features: Vec<f32>,
    /// D.
    pub dim: usize,
}

impl Templates {
    /// The features as rows.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.features, self.dim).expect("`pool` fills whole rows of at least one number")
    }

    /// The row of template `id`.
    pub fn row_of(&self, id: u64) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|row| row as u32)
    }

    /// Templates whose feature is zero: they score 0 with everything.
    pub fn zeros(&self) -> impl Iterator<Item = u64> {
        let rows = self.features.chunks_exact(self.dim);
        let zero = |row: &[f32]| row.iter().all(|&v| v == 0.0);
        self.ids.iter().zip(rows).filter(move |(_, row)| zero(row)).map(|(&id, _)| id)
    }
}

/// Mean over the faces of each media, sum over the media of each template, divided by its norm.
///
/// As the reference does it: sums and means in f32, the norm in f64. Media are added by rising id,
/// the faces of a media in `faces.order`. O(F·D), on all threads.
///
/// # Errors
///
/// [`MetricError::Length`] for columns of unequal length, or if mirror images are wanted and
/// missing; [`MetricError::NoSuch`] if `order` names no face; [`MetricError::NotFinite`] for an
/// embedding or detector score that is no finite number.
pub fn pool(faces: &Faces, how: &Pooling) -> Result<Templates, MetricError> {
    let n_faces = faces.original.len();
    check(faces, how)?;
    let mut members: Vec<Member> = faces
        .order
        .iter()
        .enumerate()
        .map(|(position, &row)| Member {
            template: faces.template[row as usize],
            media: faces.media[row as usize],
            position: position as u32,
            row,
        })
        .collect();
    members.par_sort_unstable();
    let templates: Vec<&[Member]> = members.chunk_by(|a, b| a.template == b.template).collect();
    let dim = faces.original.dim();
    let mut features = vec![0.0; templates.len() * dim];
    let bad_row = features
        .par_chunks_exact_mut(dim)
        .zip(&templates)
        .filter_map(|(feature, members)| pool_one(faces, how, members, feature).err())
        .min();
    debug_assert_eq!(members.len(), n_faces);
    match bad_row {
        Some(row) => Err(not_finite(faces, how, row as usize)),
        None => {
            let ids = templates.iter().map(|members| members[0].template).collect();
            Ok(Templates { ids, features, dim })
        }
    }
}

/// A face in sorting order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    template: u64,
    media: u64,
    position: u32,
    row: u32,
}

fn check(faces: &Faces, how: &Pooling) -> Result<(), MetricError> {
    let expected = faces.original.len();
    let mirrored = match faces.mirrored {
        Some(rows) if rows.dim() != faces.original.dim() => {
            let (len, expected) = (rows.dim(), faces.original.dim());
            return Err(MetricError::Length { what: "mirrored embedding", len, expected });
        }
        Some(rows) => rows.len(),
        None if how.flip => 0,
        None => expected,
    };
    let columns = [
        ("mirrored embeddings", mirrored),
        ("detector scores", faces.detector_score.len()),
        ("template ids", faces.template.len()),
        ("media ids", faces.media.len()),
        ("order", faces.order.len()),
    ];
    if let Some(&(what, len)) = columns.iter().find(|(_, len)| *len != expected) {
        return Err(MetricError::Length { what, len, expected });
    }
    match faces.order.iter().position(|&row| row as usize >= expected) {
        None => Ok(()),
        Some(index) => Err(MetricError::NoSuch {
            what: "order",
            index,
            value: u64::from(faces.order[index]),
            bound: expected as u64,
        }),
    }
}

/// Fills `feature` from the faces of one template; the first row that is not finite on failure.
fn pool_one(
    faces: &Faces,
    how: &Pooling,
    members: &[Member],
    feature: &mut [f32],
) -> Result<(), u32> {
    let mut media_mean = vec![0.0; feature.len()];
    let mut face = vec![0.0; feature.len()];
    for media in members.chunk_by(|a, b| a.media == b.media) {
        media_mean.fill(0.0);
        for member in media {
            weigh(faces, how, member.row as usize, &mut face);
            add(&mut media_mean, &face);
        }
        if media.len() > 1 {
            let n_faces = media.len() as f32;
            media_mean.iter_mut().for_each(|v| *v /= n_faces);
        }
        if how.unit_norm_media {
            normalise(&mut media_mean);
        }
        add(feature, &media_mean);
    }
    normalise(feature);
    if feature.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    let is_bad = |row: u32| {
        let mut face = vec![0.0; feature.len()];
        weigh(faces, how, row as usize, &mut face);
        face.iter().any(|v| !v.is_finite())
    };
    // No single face may be at fault where finite faces add up to infinity; then name the first.
    let rows = || members.iter().map(|member| member.row);
    Err(rows().filter(|&row| is_bad(row)).min().or(rows().min()).unwrap_or(0))
}

/// One face as it enters its media.
fn weigh(faces: &Faces, how: &Pooling, row: usize, face: &mut [f32]) {
    face.copy_from_slice(faces.original.row(row));
    if let (true, Some(mirrored)) = (how.flip, faces.mirrored) {
        add(face, mirrored.row(row));
    }
    if how.unit_norm_faces {
        normalise(face);
    }
    if how.detector_score {
        let score = faces.detector_score[row];
        face.iter_mut().for_each(|v| *v *= score);
    }
}

fn add(sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
}

/// Divides by the norm, taken in f64; zero stays zero.
fn normalise(row: &mut [f32]) {
    let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    if norm != 0.0 {
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}

fn not_finite(faces: &Faces, how: &Pooling, index: usize) -> MetricError {
    let score = faces.detector_score[index];
    if how.detector_score && !score.is_finite() {
        return MetricError::NotFinite { what: "detector score", index, value: f64::from(score) };
    }
    let rows = [Some(faces.original), faces.mirrored];
    let bad = rows.iter().flatten().flat_map(|rows| rows.row(index)).find(|v| !v.is_finite());
    // Finite numbers that overflow f32 when added up.
    let value = bad.map_or(f64::INFINITY, |&v| f64::from(v));
    MetricError::NotFinite { what: "embedding of face", index, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Pooling = Pooling {
        flip: false,
        unit_norm_faces: false,
        detector_score: false,
        unit_norm_media: false,
    };

    /// Template 7: media 1 = {(3,0), (1,0)}, media 2 = {(0,2)}. Template 4: media 1 = {(0,-5)}.
    fn check(how: Pooling, detector_score: [f32; 4], expected: [[f32; 2]; 2]) {
        let original = [3.0, 0.0, 0.0, 2.0, 0.0, -5.0, 1.0, 0.0];
        let mirrored = [0.0; 8];
        let faces = Faces {
            original: Rows::new(&original, 2).unwrap(),
            mirrored: Some(Rows::new(&mirrored, 2).unwrap()),
            detector_score: &detector_score,
            template: &[7, 7, 4, 7],
            media: &[1, 2, 1, 1],
            order: &[0, 1, 2, 3],
        };
        let templates = pool(&faces, &how).unwrap();
        assert_eq!(templates.ids, [4, 7]);
        for (ours, expected) in templates.features.iter().zip(expected.as_flattened()) {
            assert!((ours - expected).abs() < 1e-7, "{:?} {expected:?}", templates.features);
        }
    }

    #[test]
    fn media_are_averaged_and_templates_summed() {
        // Media means (2,0) and (0,2).
        let half = 0.5f32.sqrt();
        check(PLAIN, [1.0; 4], [[0.0, -1.0], [half, half]]);
    }

    #[test]
    fn each_weight_does_what_its_name_says() {
        // Unit faces: means (1,0) and (0,1).
        let half = 0.5f32.sqrt();
        check(Pooling { unit_norm_faces: true, ..PLAIN }, [1.0; 4], [[0.0, -1.0], [half, half]]);
        // Detector: faces (3,0), (2,0) of mean (2.5,0); and (0,1).
        let scores = [1.0, 0.5, 1.0, 2.0];
        let norm = (2.5f32 * 2.5 + 1.0).sqrt();
        let expected = [[0.0, -1.0], [2.5 / norm, 1.0 / norm]];
        check(Pooling { detector_score: true, ..PLAIN }, scores, expected);
        let both = Pooling { detector_score: true, unit_norm_media: true, ..PLAIN };
        check(both, scores, [[0.0, -1.0], [half, half]]);
    }

    #[test]
    fn a_face_that_is_not_finite_is_named() {
        let mut original = [1.0f32; 8];
        original[5] = f32::NAN;
        let faces = Faces {
            original: Rows::new(&original, 2).unwrap(),
            mirrored: None,
            detector_score: &[1.0; 4],
            template: &[1; 4],
            media: &[1; 4],
            order: &[3, 2, 1, 0],
        };
        let error = pool(&faces, &PLAIN).unwrap_err();
        assert_eq!(error.to_string(), "embedding of face 2 is NaN, not a finite number");
        let error = pool(&faces, &Pooling { flip: true, ..PLAIN }).unwrap_err();
        assert_eq!(error.to_string(), "mirrored embeddings: 0 values where 4 are expected");
        let error = pool(&Faces { order: &[0, 1, 9, 2], ..faces }, &PLAIN).unwrap_err();
        assert!(
            error.to_string().starts_with("order 2 names number 9, but there are 4"),
            "{error}"
        );
    }

    #[test]
    fn a_template_of_zeros_stays_zero_and_is_reported() {
        let faces = Faces {
            original: Rows::new(&[0.0, 0.0, 1.0, 0.0], 2).unwrap(),
            mirrored: None,
            detector_score: &[1.0; 2],
            template: &[5, 6],
            media: &[1; 2],
            order: &[0, 1],
        };
        let templates = pool(&faces, &PLAIN).unwrap();
        assert_eq!(templates.zeros().collect::<Vec<_>>(), [5]);
    }
}
