//! Sets that are joined pair by pair.

/// Union-find over places; every set is led by one of its members.
#[derive(Debug, Clone, Default)]
pub struct Union {
    parents: Vec<u32>,
    sizes: Vec<u32>,
}

impl Union {
    /// Every place by itself.
    pub fn new(n: usize) -> Union {
        Union { parents: (0..n as u32).collect(), sizes: vec![1; n] }
    }

    /// Adds a place by itself, and returns it.
    pub fn push(&mut self) -> usize {
        let place = self.parents.len();
        self.parents.push(place as u32);
        self.sizes.push(1);
        place
    }

    /// Number of places.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// The leader of the set of `place`, as [`leader`](Union::leader) finds it, without shortening the way:
    /// one step after [`flatten`](Union::flatten).
    pub fn find(&self, place: usize) -> usize {
        let mut at = place;
        while self.parents[at] as usize != at {
            at = self.parents[at] as usize;
        }
        at
    }

    /// Makes every way to a leader one step.
    pub fn flatten(&mut self) {
        for place in 0..self.len() {
            self.parents[place] = self.leader(place) as u32;
        }
    }

    /// The leader of the set of `place`.
    pub fn leader(&mut self, place: usize) -> usize {
        let mut at = place;
        while self.parents[at] as usize != at {
            // Halving the way keeps it short without recursion.
            self.parents[at] = self.parents[self.parents[at] as usize];
            at = self.parents[at] as usize;
        }
        at
    }

    /// Members of the set that `leader` leads.
    pub fn size(&self, leader: usize) -> u32 {
        self.sizes[leader]
    }

    /// Puts the set of leader `from` under leader `to`.
    pub fn join(&mut self, from: usize, to: usize) {
        if from != to {
            self.parents[from] = to as u32;
            self.sizes[to] += self.sizes[from];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_sets_have_one_leader() {
        let mut union = Union::new(5);
        union.join(0, 1);
        union.join(1, 4);
        assert_eq!([0, 1, 2, 3, 4].map(|place| union.leader(place)), [4, 4, 2, 3, 4]);
        assert_eq!(union.size(4), 3);
    }

    #[test]
    fn places_are_added_and_a_long_way_is_one_step_once_it_is_flat() {
        let mut union = Union::default();
        assert!(union.is_empty());
        for place in 0..100_000 {
            assert_eq!(union.push(), place);
        }
        (1..100_000).for_each(|place| union.join(place - 1, place));
        assert_eq!((union.find(0), union.find(99_999), union.len()), (99_999, 99_999, 100_000));
        union.flatten();
        assert!(union.parents.iter().all(|parent| *parent == 99_999));
    }
}
