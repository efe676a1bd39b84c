//! Which identities are one person, and which must stay apart.

use std::collections::HashMap;

use pfc_metrics::union::Union;

/// Sets of identities that are one person, joined pair by pair. Identities that belong to one *group*
/// are different people: no two of them, nor anyone joined to them, come into one set.
///
/// Memory: some bytes for every identity that was to be joined or belongs to a group.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// The place among `sets` of each identity that was to be joined; the others are by themselves.
    places: HashMap<u32, usize>,
    /// The identity at each place.
    labels: Vec<u32>,
    sets: Union,
    /// The groups that members of a leader's set belong to, ascending.
    groups: HashMap<u32, Vec<usize>>,
}

impl Links {
    /// Begins without joined identities. The members of each of `groups` are different people.
    pub fn new<'a>(groups: impl IntoIterator<Item = &'a [u32]>) -> Links {
        let mut links = Links::default();
        for (number, members) in groups.into_iter().enumerate() {
            for member in members {
                let of_member = links.groups.entry(*member).or_default();
                if of_member.last() != Some(&number) {
                    of_member.push(number);
                }
            }
        }
        links
    }

    /// The identity that leads the set of `label`, which may be itself.
    pub fn leader(&self, label: u32) -> u32 {
        self.places.get(&label).map_or(label, |place| self.labels[self.sets.find(*place)])
    }

    /// Whether a group says that the people of two sets differ.
    pub fn are_different(&self, a: u32, b: u32) -> bool {
        let (a, b) = (self.leader(a), self.leader(b));
        let none = Vec::new();
        let (a, b) = (self.groups.get(&a).unwrap_or(&none), self.groups.get(&b).unwrap_or(&none));
        let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
        few.iter().any(|group| many.binary_search(group).is_ok())
    }

    /// Makes the set of `from` follow that of `to`, unless they are different people; whether they are
    /// one set afterwards.
    pub fn join(&mut self, from: u32, to: u32) -> bool {
        let [from, to] = [from, to].map(|label| self.place(label));
        let (from, to) = (self.sets.leader(from), self.sets.leader(to));
        if from == to {
            return true;
        }
        let (follower, leader) = (self.labels[from], self.labels[to]);
        if self.are_different(follower, leader) {
            return false;
        }
        self.sets.join(from, to);
        if let Some(groups) = self.groups.remove(&follower) {
            let of_leader = self.groups.entry(leader).or_default();
            of_leader.extend(groups);
            of_leader.sort_unstable();
            of_leader.dedup();
        }
        true
    }

    fn place(&mut self, label: u32) -> usize {
        *self.places.entry(label).or_insert_with(|| {
            self.labels.push(label);
            self.sets.push()
        })
    }

    /// Every identity that follows another, with the one that leads, by label.
    pub fn followers(&self) -> Vec<(u32, u32)> {
        let all = self.labels.iter().map(|&label| (label, self.leader(label)));
        let mut all: Vec<(u32, u32)> = all.filter(|(label, leader)| label != leader).collect();
        all.sort_unstable();
        all
    }

    /// Makes every follower point at its leader, so that each look-up is one step.
    pub(crate) fn flatten(&mut self) {
        self.sets.flatten();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_people_stay_apart_however_they_are_joined() {
        let mut links = Links::new([&[0, 3][..], &[7, 8, 9]]);
        assert!(links.join(0, 1) && links.join(3, 2));
        assert!(!links.join(1, 2), "0 and 3 would be one");
        assert!(links.are_different(1, 2) && !links.are_different(1, 7));
        assert!(links.join(1, 7) && links.join(2, 8));
        assert!(!links.join(9, 0) && !links.join(7, 8));
        assert_eq!(links.followers(), [(0, 7), (1, 7), (2, 8), (3, 8)]);
    }

    #[test]
    fn a_long_chain_of_joins_is_flat_afterwards() {
        let mut links = Links::default();
        (0..100_000).for_each(|label| assert!(links.join(label, label + 1)));
        links.flatten();
        assert!((0..100_000).all(|label| links.leader(label) == 100_000));
        assert_eq!(links.followers().len(), 100_000);
    }
}
