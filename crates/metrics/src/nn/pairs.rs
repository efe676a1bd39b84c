//! Every face with every other, tile by tile.

// N = faces, D = embedding.

use std::sync::Mutex;

use rayon::prelude::*;

use super::KeyCounts;
use crate::{
    MetricError, Rows,
    product::{SIDE_MIN, products},
};

/// Side of a tile in faces.
const TILE: usize = 1024;

/// Rows of a tile multiplied at a time: the products fill a megabyte, which stays in a core's cache
/// until they are counted.
const STRIP: usize = 256;

/// Faces of each group in the sample that the floor is guessed from: eight million pairs.
const SAMPLE: usize = 4096;

/// How many faces, people and pairs a group has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Group {
    /// Faces.
    pub n_faces: u64,
    /// People.
    pub n_identities: u64,
    /// Pairs of two faces of one person.
    pub n_genuine: u64,
    /// Pairs of two people.
    pub n_impostors: u64,
}

impl Group {
    pub(super) fn add_person(&mut self, n_faces: u64) {
        self.n_impostors += self.n_faces * n_faces;
        self.n_faces += n_faces;
        self.n_identities += 1;
        self.n_genuine += n_faces * n_faces.saturating_sub(1) / 2;
    }

    pub(super) fn of_all(groups: &[Group]) -> Group {
        let mut all = Group::default();
        for group in groups {
            all.n_impostors += group.n_impostors + all.n_faces * group.n_faces;
            all.n_faces += group.n_faces;
            all.n_identities += group.n_identities;
            all.n_genuine += group.n_genuine;
        }
        all
    }
}

/// Who each face is.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// `[N]`, the person.
    pub identity: &'a [u32],
    /// `[N]`, the group of the person (a race label, say), below `n_groups`.
    pub group: &'a [u32],
    /// Number of groups.
    pub n_groups: u32,
}

/// Faces in an order in which people and groups are contiguous.
#[derive(Debug)]
pub struct AllPairs<'a> {
    features: Rows<'a>,
    faces: Vec<Face>,
    groups: Vec<Group>,
    all: Group,
}

#[derive(Debug, Clone, Copy)]
struct Face {
    row: u32,
    identity: u32,
    group: u32,
    /// First face of the next person, and of the next group.
    identity_end: u32,
    group_end: u32,
}

/// Scores counted so far.
#[derive(Debug)]
pub struct Tally {
    /// By group: genuine pairs, as (person, score), in no particular order.
    pub genuine: Vec<Mutex<Vec<(u32, f32)>>>,
    /// By group: impostor pairs with both faces in the group.
    pub within: Vec<KeyCounts>,
    /// Impostor pairs across groups.
    pub across: KeyCounts,
    /// Bands counted, in order.
    pub n_bands: usize,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(n_groups: u32, floor: f32) -> Tally {
        Tally {
            genuine: (0..n_groups).map(|_| Mutex::default()).collect(),
            within: (0..n_groups).map(|_| KeyCounts::new(floor)).collect(),
            across: KeyCounts::new(floor),
            n_bands: 0,
        }
    }
}

impl<'a> AllPairs<'a> {
    /// Puts the faces in order.
    ///
    /// * `features`: `[N, D]`, normalised or not
    ///
    /// # Errors
    ///
    /// [`MetricError::Length`] for columns of unequal length or fewer than two faces,
    /// [`MetricError::NoSuch`] for a group that is not below `n_groups`,
    /// [`MetricError::SplitIdentity`] for a person in two groups, [`MetricError::NotFinite`] for a
    /// feature that is not finite.
    pub fn new(features: Rows<'a>, labels: Labels) -> Result<AllPairs<'a>, MetricError> {
        check_columns(features, labels)?;
        let mut order: Vec<u32> = (0..features.len() as u32).collect();
        let key = |&row: &u32| (labels.group[row as usize], labels.identity[row as usize], row);
        order.par_sort_unstable_by_key(key);
        let identity = |row: &u32| labels.identity[*row as usize];
        let group = |row: &u32| labels.group[*row as usize];
        let mut people: Vec<(u32, u32)> =
            order.iter().map(|row| (identity(row), group(row))).collect();
        people.dedup();
        people.sort_unstable();
        if let Some(split) = people.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let [(identity, first), (_, second)] = [split[0], split[1]];
            return Err(MetricError::SplitIdentity { identity, groups: [first, second] });
        }
        let mut groups = vec![Group::default(); labels.n_groups as usize];
        let mut faces = Vec::with_capacity(order.len());
        for members in order.chunk_by(|a, b| group(a) == group(b)) {
            let group_end = (faces.len() + members.len()) as u32;
            let group = group(&members[0]);
            for person in members.chunk_by(|a, b| identity(a) == identity(b)) {
                let identity = identity(&person[0]);
                let identity_end = (faces.len() + person.len()) as u32;
                let face = |&row| Face { row, identity, group, identity_end, group_end };
                faces.extend(person.iter().map(face));
                groups[group as usize].add_person(person.len() as u64);
            }
        }
        let all = Group::of_all(&groups);
        Ok(AllPairs { features, faces, groups, all })
    }

    /// Sizes and numbers of pairs, by group.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The same of the whole set, pairs across groups included.
    pub fn all(&self) -> Group {
        self.all
    }

    /// Bands of tiles; the first has the most.
    pub fn n_bands(&self) -> usize {
        self.faces.len().div_ceil(TILE)
    }

    /// Pairs in the bands before `band`, for progress.
    pub fn n_pairs_before(&self, band: usize) -> u64 {
        let pairs = |n: u64| n * n.saturating_sub(1) / 2;
        let n_left = self.faces.len().saturating_sub(band * TILE) as u64;
        pairs(self.faces.len() as u64) - pairs(n_left)
    }

    /// Counts the next band: some faces with themselves and all later ones, on all threads.
    ///
    /// A score is the f32 cosine, a chain of fused multiply-adds over the elements: its bits depend
    /// on the two faces alone. Does nothing once all bands are counted. O(TILE·N·D).
    pub fn count_band(&self, tally: &mut Tally) {
        let band = tally.n_bands;
        if band >= self.n_bands() {
            return;
        }
        let rows = self.panel(self.tile(band));
        let counts = &*tally;
        (band..self.n_bands()).into_par_iter().for_each(|other| {
            let columns = self.tile(other);
            let data = self.panel(columns.clone());
            self.count_tile(counts, self.tile(band), &rows, columns, &data);
        });
        tally.n_bands += 1;
    }

    /// A floor that leaves at least a share `far` of the impostors of each group, and of all, above
    /// it, as far as a sample can tell; most often about twice as many.
    pub fn suggest_floor(&self, far: f64) -> f32 {
        let mut floor = f32::INFINITY;
        let mut start = 0;
        let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
        for faces in self.faces.chunk_by(|a, b| a.group == b.group) {
            ranges.push(start..start + faces.len());
            start += faces.len();
        }
        if ranges.len() > 1 {
            ranges.push(0..self.faces.len());
        }
        for range in ranges {
            let step = range.len().div_ceil(SAMPLE);
            let sample: Vec<Face> = self.faces[range].iter().step_by(step).copied().collect();
            floor = floor.min(self.sampled_floor(&sample, far));
        }
        floor
    }

    fn sampled_floor(&self, sample: &[Face], far: f64) -> f32 {
        let panel = self.gather(sample);
        let dim = self.features.dim();
        let all = Rows::new(&panel, dim).expect("whole rows");
        let mut scores: Vec<f32> = panel
            .par_chunks(STRIP * dim)
            .enumerate()
            .flat_map_iter(|(strip, data)| {
                let rows = Rows::new(data, dim).expect("whole rows");
                let mut out = vec![0.0; rows.len() * all.len()];
                products(rows, all, &mut out);
                let mut impostors = Vec::new();
                for (i, scores) in (strip * STRIP..).zip(out.chunks_exact(all.len())) {
                    let Some(face) = sample.get(i) else { break };
                    let others = sample.iter().zip(scores).skip(i + 1);
                    let other = others.filter(|(other, _)| other.identity != face.identity);
                    impostors.extend(other.map(|(_, &score)| score));
                }
                impostors
            })
            .collect();
        // Twice the share, and a hundred at least, so that the sample's chance does not matter.
        let position = ((2.0 * far * scores.len() as f64) as usize).max(100);
        if position >= scores.len() {
            return -1.0;
        }
        *scores.select_nth_unstable_by(position, |a, b| b.total_cmp(a)).1
    }

    fn tile(&self, index: usize) -> std::ops::Range<usize> {
        index * TILE..((index + 1) * TILE).min(self.faces.len())
    }

    fn panel(&self, tile: std::ops::Range<usize>) -> Vec<f32> {
        self.gather(&self.faces[tile])
    }

    /// Features of norm 1, and rows of zeros up to the number that `products` wants.
    fn gather(&self, faces: &[Face]) -> Vec<f32> {
        let dim = self.features.dim();
        // A strip may be the last few rows of a panel, hence whole strips.
        let n_rows = faces.len().next_multiple_of(SIDE_MIN.next_power_of_two());
        let mut panel = Vec::with_capacity(n_rows * dim);
        for face in faces {
            let row = self.features.row(face.row as usize);
            let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
            let scale = if norm > 0.0 { norm.recip() } else { 0.0 };
            panel.extend(row.iter().map(|&v| (f64::from(v) * scale) as f32));
        }
        panel.resize(n_rows * dim, 0.0);
        panel
    }

    fn count_tile(
        &self,
        tally: &Tally,
        rows: std::ops::Range<usize>,
        row_data: &[f32],
        columns: std::ops::Range<usize>,
        column_data: &[f32],
    ) {
        let dim = self.features.dim();
        let column_rows = Rows::new(column_data, dim).expect("whole rows");
        let mut scores = vec![0.0; STRIP * column_rows.len()];
        for (strip, data) in row_data.chunks(STRIP * dim).enumerate() {
            let strip_rows = Rows::new(data, dim).expect("whole rows");
            let scores = &mut scores[..strip_rows.len() * column_rows.len()];
            products(strip_rows, column_rows, scores);
            let first = rows.start + strip * STRIP;
            for (i, scores) in (first..rows.end).zip(scores.chunks_exact(column_rows.len())) {
                self.count_row(tally, i, columns.clone(), scores);
            }
        }
    }

    /// Counts face `i` with those of `columns` that come after it.
    fn count_row(&self, tally: &Tally, i: usize, columns: std::ops::Range<usize>, scores: &[f32]) {
        let face = self.faces[i];
        let cut = |end: usize| end.clamp(columns.start, columns.end) - columns.start;
        let start = cut(i + 1);
        let person_end = cut(face.identity_end as usize).max(start);
        let group_end = cut(face.group_end as usize).max(start);
        let group = face.group as usize;
        if start < person_end {
            let genuine = scores[start..person_end].iter().map(|&score| (face.identity, score));
            let list = tally.genuine[group].lock();
            list.unwrap_or_else(std::sync::PoisonError::into_inner).extend(genuine);
        }
        tally.within[group].count(&scores[person_end..group_end]);
        tally.across.count(&scores[group_end..columns.len()]);
    }
}

fn check_columns(features: Rows, labels: Labels) -> Result<(), MetricError> {
    let expected = features.len();
    let columns = [("identities", labels.identity.len()), ("groups", labels.group.len())];
    if let Some(&(what, len)) = columns.iter().find(|(_, len)| *len != expected) {
        return Err(MetricError::Length { what, len, expected });
    }
    if expected < 2 || u32::try_from(expected).is_err() {
        return Err(MetricError::Length { what: "faces", len: expected, expected: 2 });
    }
    if let Some(index) = labels.group.iter().position(|&group| group >= labels.n_groups) {
        let (value, bound) = (u64::from(labels.group[index]), u64::from(labels.n_groups));
        return Err(MetricError::NoSuch { what: "group of face", index, value, bound });
    }
    features.check_finite("feature of face")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up::value, nn::Rates, roc::Far, scores::SortedScores};

    /// Faces of people that resemble themselves.
    fn made_up(identity: &[u32], dim: usize) -> Vec<f32> {
        let face = |(row, person): (usize, &u32)| {
            let own = (row * dim + 1_000_000) as u64;
            let person = (*person as usize * dim) as u64;
            (0..dim as u64).map(move |d| value(person + d) + value(own + d)).collect::<Vec<_>>()
        };
        identity.iter().enumerate().flat_map(face).collect()
    }

    fn rates(features: &[f32], dim: usize, labels: Labels, floor: f32, threads: usize) -> Rates {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let pairs = AllPairs::new(Rows::new(features, dim).unwrap(), labels).unwrap();
            let mut tally = Tally::new(labels.n_groups, floor);
            (0..pairs.n_bands()).for_each(|_| pairs.count_band(&mut tally));
            Rates::new(&pairs, tally)
        })
    }

    /// All pairs one by one, by group (`None`: all).
    fn brute_force(
        features: &[f32],
        dim: usize,
        labels: Labels,
        group: Option<u32>,
    ) -> SortedScores {
        let norm = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
        let (mut scores, mut same) = (Vec::new(), Vec::new());
        let n = labels.identity.len();
        let rows = Rows::new(features, dim).unwrap();
        for i in 0..n {
            for j in i + 1..n {
                if group.is_none_or(|g| labels.group[i] == g && labels.group[j] == g) {
                    let (a, b) = (rows.row(i), rows.row(j));
                    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    scores.push(f64::from(dot / norm(a) / norm(b)));
                    same.push(labels.identity[i] == labels.identity[j]);
                }
            }
        }
        SortedScores::new(&scores, &same).unwrap()
    }

    #[test]
    fn rates_by_group_and_of_all_are_those_of_brute_force() {
        // 1100 faces: two tiles, the second short.
        let identity: Vec<u32> = (0..1100).map(|i| i * 7 % 275).collect();
        let group: Vec<u32> = identity.iter().map(|id| id % 3).collect();
        let labels = Labels { identity: &identity, group: &group, n_groups: 3 };
        let features = made_up(&identity, 20);
        let rates = rates(&features, 20, labels, 0.1, 2);
        for group in [None, Some(0), Some(1), Some(2)] {
            let expected = brute_force(&features, 20, labels, group);
            let sizes = rates.group(group);
            assert_eq!(sizes.n_genuine, expected.genuine().len() as u64);
            assert_eq!(sizes.n_impostors, expected.impostor().len() as u64);
            for far in [1e-9, 1e-4, 1e-3, 1e-2, 0.1] {
                let far = Far::new(far).unwrap();
                let (ours, expected) = (rates.at(group, far).unwrap(), expected.at_most(far));
                assert_eq!(ours.allowed, expected.allowed);
                assert!((f64::from(ours.threshold) - expected.threshold).abs() < 1e-6);
                assert!((ours.tar - expected.tar).abs() < 2.0 / sizes.n_genuine as f64);
            }
        }
    }

    #[test]
    fn the_order_of_faces_and_threads_change_no_bit() {
        let identity: Vec<u32> = (0..1500).map(|i| i % 300).collect();
        let group: Vec<u32> = identity.iter().map(|id| id % 2).collect();
        let labels = Labels { identity: &identity, group: &group, n_groups: 2 };
        let features = made_up(&identity, 33);
        let from = |i: usize| (i * 7 + 3) % 1500;
        let shuffled: Vec<f32> =
            (0..1500).flat_map(|i| features[from(i) * 33..][..33].to_vec()).collect();
        let shuffled_identity: Vec<u32> = (0..1500).map(|i| identity[from(i)]).collect();
        let shuffled_group: Vec<u32> = (0..1500).map(|i| group[from(i)]).collect();
        let shuffled_labels =
            Labels { identity: &shuffled_identity, group: &shuffled_group, n_groups: 2 };
        let plain = rates(&features, 33, labels, 0.1, 1);
        let other = rates(&shuffled, 33, shuffled_labels, 0.1, 3);
        for group in [None, Some(0), Some(1)] {
            for far in [1e-6, 1e-3, 0.05] {
                let far = Far::new(far).unwrap();
                assert!(plain.at(group, far).is_some());
                assert_eq!(plain.at(group, far), other.at(group, far));
            }
            let far = Far::new(0.05).unwrap();
            let roc = plain.roc(group, far, 20);
            assert_eq!(roc, other.roc(group, far, 20));
            let (last, at) = (roc[roc.len() - 1], plain.at(group, far).unwrap());
            assert_eq!((last.threshold, last.tar), (f64::from(at.threshold), at.tar));
        }
    }

    #[test]
    fn the_suggested_floor_leaves_enough_and_one_too_high_is_noticed() {
        let identity: Vec<u32> = (0..2000).map(|i| i / 4).collect();
        let group = vec![0; 2000];
        let labels = Labels { identity: &identity, group: &group, n_groups: 1 };
        let features = made_up(&identity, 16);
        let pairs = AllPairs::new(Rows::new(&features, 16).unwrap(), labels).unwrap();
        let floor = pairs.suggest_floor(1e-2);
        let far = Far::new(1e-2).unwrap();
        assert!(rates(&features, 16, labels, floor, 2).at(None, far).is_some(), "{floor}");
        assert!(rates(&features, 16, labels, 0.99, 2).at(None, far).is_none());
    }

    #[test]
    fn pairs_before_a_band_add_up() {
        let identity: Vec<u32> = (0..2500).collect();
        let group = vec![0; 2500];
        let labels = Labels { identity: &identity, group: &group, n_groups: 1 };
        let features = vec![1.0; 2500];
        let pairs = AllPairs::new(Rows::new(&features, 1).unwrap(), labels).unwrap();
        assert_eq!(pairs.n_bands(), 3);
        assert_eq!(pairs.n_pairs_before(0), 0);
        assert_eq!(pairs.n_pairs_before(1), 2500 * 2499 / 2 - 1476 * 1475 / 2);
        assert_eq!(pairs.n_pairs_before(3), 2500 * 2499 / 2);
    }

    #[test]
    fn bad_labels_are_named() {
        let features = [1.0, 2.0, 3.0];
        let rows = Rows::new(&features, 1).unwrap();
        let error = |identity: &[u32], group: &[u32]| {
            let labels = Labels { identity, group, n_groups: 2 };
            AllPairs::new(rows, labels).unwrap_err().to_string()
        };
        assert_eq!(error(&[1, 2], &[0; 3]), "identities: 2 values where 3 are expected");
        assert!(error(&[1, 2, 3], &[0, 2, 0]).starts_with("group of face 1 names number 2"));
        assert_eq!(error(&[5, 6, 5], &[0, 0, 1]), "identity 5 is in group 0 and in group 1");
    }
}
