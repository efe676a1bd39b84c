//! Sets that are joined pair by pair.

/// Union-find over places; every set is led by one of its members.
#[derive(Debug)]
pub struct Union {
    parents: Vec<u32>,
    sizes: Vec<u32>,
}

impl Union {
    /// Every place by itself.
    pub fn new(n: usize) -> Union {
        Union { parents: (0..n as u32).collect(), sizes: vec![1; n] }
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
}
