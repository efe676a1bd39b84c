//! What an identity looks like: a centre that strangers among its images do not move.

use pfc_cli::{Progress, interrupt};
use pfc_embeddings::Embeddings;
use pfc_metrics::Rows;
use rayon::prelude::*;

use crate::{
    CleanError,
    work::{Groups, Work},
};

/// Number of images that the first guess is chosen from.
const MEDOID_MAX: usize = 64;
/// Number of times that the centre is computed and its nearest half is chosen.
const ROUNDS: usize = 3;
/// Share of the nearest half's typical score from which on an image outside that half is of the same
/// person: strangers reach about a third of it.
const INSIDE: f64 = 0.5;
/// Identities between two looks at whether the user wants to stop.
const CHUNK: usize = 1024;

/// The centres of all identities that have images. Memory: 4·D bytes an identity, 12 a row.
#[derive(Debug)]
pub struct Centres {
    pub groups: Groups,
    /// `[G, D]`, each row of length 1, in the order of the groups.
    data: Vec<f32>,
    dim: usize,
    /// For each row, group by group: its cosine with the centre of the others of its group; NaN for a single
    /// row.
    own: Vec<f32>,
    /// Where the rows of each group begin in `own`.
    starts: Vec<usize>,
    /// For each identity the median of its part of `own`, which tells how sure it is that they are one
    /// person.
    pub cohesion: Vec<f32>,
    /// For each identity the row nearest to its centre.
    pub typical: Vec<u64>,
}

/// What is computed of one identity.
struct Identity {
    centre: Vec<f32>,
    own: Vec<f32>,
    typical: u64,
}

impl Centres {
    /// Reads every embedding once, on all threads, an identity at a time.
    ///
    /// # Errors
    ///
    /// [`CleanError`] if an embedding cannot be read, or the user interrupts.
    pub fn of(work: &Work<'_>, embeddings: &Embeddings) -> Result<Centres, CleanError> {
        let groups = work.groups();
        let dim = embeddings.dim();
        let mut centres = Centres {
            data: Vec::with_capacity(groups.len() * dim),
            dim,
            own: Vec::new(),
            starts: Vec::with_capacity(groups.len()),
            cohesion: Vec::with_capacity(groups.len()),
            typical: Vec::with_capacity(groups.len()),
            groups,
        };
        let n = centres.groups.len();
        let progress = Progress::new("centres", "identities", n as u64, work.quiet);
        for start in (0..n).step_by(CHUNK) {
            if interrupt::requested() {
                let (done, total) = (start as u64, n as u64);
                return Err(CleanError::Interrupted { done, total, unit: "identities" });
            }
            let places = start..n.min(start + CHUNK);
            let of_place = |place: usize| identity(centres.groups.rows(place), embeddings);
            let chunk: Vec<Result<Identity, CleanError>> =
                places.into_par_iter().map(of_place).collect();
            progress.add(chunk.len() as u64);
            for identity in chunk {
                centres.push(identity?);
            }
        }
        progress.finish();
        Ok(centres)
    }

    fn push(&mut self, identity: Identity) {
        let Identity { centre, own, typical } = identity;
        self.data.extend(centre);
        self.starts.push(self.own.len());
        self.cohesion.push(if own.len() == 1 { f32::NAN } else { median(&own) });
        self.own.extend(own);
        self.typical.push(typical);
    }

    /// `[G, D]`.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.data, self.dim).expect("whole rows of at least one number")
    }

    /// Number of identities.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// The centre at `place`.
    pub fn centre(&self, place: usize) -> &[f32] {
        &self.data[place * self.dim..(place + 1) * self.dim]
    }

    /// The rows of the identity at `place`, each with its cosine to the others.
    pub fn own(&self, place: usize) -> impl Iterator<Item = (u64, f32)> {
        let rows = self.groups.rows(place);
        let own = &self.own[self.starts[place]..self.starts[place] + rows.len()];
        rows.iter().copied().zip(own.iter().copied())
    }

    /// The median cosine of an image with the centre of the others of its identity; none if all
    /// identities have a single image.
    pub fn typical_own(&self) -> Option<f32> {
        let own: Vec<f32> = self.own.iter().copied().filter(|score| !score.is_nan()).collect();
        (!own.is_empty()).then(|| median(&own))
    }

    /// Images of the identity at `place`.
    pub fn n_images(&self, place: usize) -> usize {
        self.groups.rows(place).len()
    }
}

fn identity(rows: &[u64], embeddings: &Embeddings) -> Result<Identity, CleanError> {
    let data = embeddings.rows(rows)?;
    let members: Vec<&[f32]> = data.chunks_exact(embeddings.dim()).collect();
    let person = Person::among(&members);
    let centre = mean(person.of(&members));
    let own = match members.len() {
        1 => vec![f32::NAN],
        _ => person.without_each(&members).into_iter().map(|score| score as f32).collect(),
    };
    let nearest = (0..rows.len()).max_by(|&a, &b| {
        let score = |i: usize| cosine(members[i], &centre);
        score(a).total_cmp(&score(b)).then(b.cmp(&a))
    });
    Ok(Identity { typical: rows[nearest.unwrap_or(0)], centre, own })
}

/// The normalised mean of the members that are one person: half of them may be strangers.
pub fn robust_centre(members: &[&[f32]]) -> Vec<f32> {
    mean(Person::among(members).of(members))
}

/// Which of an identity's images show the person that most of them show.
struct Person {
    is_inside: Vec<bool>,
}

impl Person {
    /// The half of `members` that is nearest to its own mean, found from the member with the greatest median
    /// cosine to the others, so that up to half of them may be strangers; and those outside it that are like
    /// it. If there are two members, both of them.
    fn among(members: &[&[f32]]) -> Person {
        let mut person = Person { is_inside: vec![true; members.len()] };
        if members.len() <= 2 {
            return person;
        }
        let mut centre = members[medoid(members)].to_vec();
        let n_half = members.len().div_ceil(2).max(2);
        for _ in 0..ROUNDS {
            let mut order: Vec<(f32, usize)> = members
                .iter()
                .enumerate()
                .map(|(i, member)| (cosine(member, &centre), i))
                .collect();
            order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            person.is_inside.fill(false);
            order[..n_half].iter().for_each(|&(_, i)| person.is_inside[i] = true);
            centre = mean(person.of(members));
        }
        person.admit(members);
        person
    }

    /// Adds the members that are like those inside.
    fn admit(&mut self, members: &[&[f32]]) {
        let scores = self.without_each(members);
        let scored = scores.iter().zip(&self.is_inside);
        let inside: Vec<f32> = scored.filter(|(_, is)| **is).map(|(s, _)| *s as f32).collect();
        let least = INSIDE * f64::from(median(&inside));
        let all = self.is_inside.iter_mut().zip(scores);
        all.for_each(|(is_inside, score)| *is_inside |= score >= least);
    }

    fn of<'a>(&self, members: &[&'a [f32]]) -> impl Iterator<Item = &'a [f32]> + Clone {
        members.iter().zip(&self.is_inside).filter(|(_, is)| **is).map(|(member, _)| *member)
    }

    /// The cosine of each member with the mean of those inside, itself left out, as an image says nothing
    /// about whether it belongs to the others.
    fn without_each(&self, members: &[&[f32]]) -> Vec<f64> {
        let sum = sum(self.of(members));
        let score = |(member, is_inside): (&&[f32], &bool)| {
            let own = if *is_inside { 1.0 } else { 0.0 };
            let (mut product, mut square) = (0.0, 0.0);
            for (sum, v) in sum.iter().zip(*member) {
                let v = f64::from(*v);
                let rest = sum - own * v;
                product += rest * v;
                square += rest * rest;
            }
            if square < 1e-12 { 0.0 } else { product / square.sqrt() }
        };
        members.iter().zip(&self.is_inside).map(score).collect()
    }
}

/// The member with the greatest median cosine to the others. If there are many members, some are chosen at
/// even distances and compared.
fn medoid(members: &[&[f32]]) -> usize {
    let step = members.len().div_ceil(MEDOID_MAX);
    let some: Vec<usize> = (0..members.len()).step_by(step).collect();
    let typical = |i: usize| {
        let others = some.iter().filter(|j| **j != i);
        median(&others.map(|&j| cosine(members[i], members[j])).collect::<Vec<f32>>())
    };
    let scored = some.iter().map(|&i| (typical(i), i));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    best.map_or(0, |(_, i)| i)
}

/// The mean, scaled to length 1. If the sum has no direction, it is the first member.
fn mean<'a>(members: impl Iterator<Item = &'a [f32]> + Clone) -> Vec<f32> {
    let first = members.clone().next().unwrap_or(&[]).to_vec();
    let sum = sum(members);
    let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    if norm < 1e-6 { first } else { sum.iter().map(|v| (v / norm) as f32).collect() }
}

/// The sum of `members`, each as long as the first.
fn sum<'a>(members: impl Iterator<Item = &'a [f32]> + Clone) -> Vec<f64> {
    let mut sum = vec![0.0; members.clone().next().map_or(0, <[f32]>::len)];
    for member in members {
        sum.iter_mut().zip(member).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    sum
}

/// Product of two rows of length 1, the same on every machine.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The middle value, or the lower of the two in the middle; NaN if there is none.
pub fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f32::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_move_the_centre() {
        let (person, stranger, other) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]);
        let members: [&[f32]; 5] = [&stranger, &person, &person, &other, &person];
        assert_eq!(robust_centre(&members), person);
        assert_eq!(robust_centre(&members[..1]), stranger);
        let half = 0.5f32.sqrt();
        assert_eq!(robust_centre(&members[..2]), [half, half, 0.0]);
    }

    #[test]
    fn an_image_is_compared_with_the_others_and_not_with_itself() {
        let scores = |members: &[&[f32]]| Person::among(members).without_each(members);
        let (x, y, z) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]);
        // Of three strangers each is like nobody.
        assert_eq!(scores(&[&x, &y, &z]), [0.0, 0.0, 0.0]);
        // Two images of one person at 0.6, and a stranger.
        let close = [0.6, 0.8, 0.0];
        let found = scores(&[&x, &z, &close]);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(near(found[0], 0.6) && near(found[1], 0.0) && near(found[2], 0.6), "{found:?}");
    }

    #[test]
    fn all_images_of_the_person_make_the_centre() {
        // The nearest half are the first two; the third is like them, the fourth is a stranger.
        let (a, b, c) = ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.6, 0.8, 0.0]);
        let centre = robust_centre(&[&a, &b, &c, &[0.0, 0.0, 1.0]]);
        // (2.6, 0.8) at length 1.
        assert!((centre[0] - 0.955_779).abs() < 1e-5 && (centre[1] - 0.294_086).abs() < 1e-5);
        assert_eq!(centre[2], 0.0);
    }

    #[test]
    fn products_sum_all_numbers() {
        let a: Vec<f32> = (1..=19).map(|i| i as f32).collect();
        // The sum of the squares of 1 to 19.
        assert_eq!(cosine(&a, &a), 2470.0);
    }
}
