//! Which classes a rank owns.

use std::ops::Range;

/// The contiguous classes of one rank: the first `C mod W` ranks own one more than the others, as
/// in `arcface_torch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassRange {
    classes: u64,
    first: u64,
    len: usize,
}

impl ClassRange {
    /// The range of `rank` in a world of `world` ranks.
    ///
    /// # Panics
    ///
    /// If `rank` is not below `world`: a rank's number comes from its communicator.
    #[must_use]
    pub fn of_rank(classes: u64, rank: usize, world: usize) -> ClassRange {
        assert!(rank < world, "rank {rank} in a world of {world}");
        let (rank, world) = (rank as u64, world as u64);
        let (share, longer) = (classes / world, classes % world);
        ClassRange {
            classes,
            first: share * rank + rank.min(longer),
            len: (share + u64::from(rank < longer)) as usize,
        }
    }

    /// The rank that owns `class` in a world of `world` ranks. O(1).
    ///
    /// # Panics
    ///
    /// If `class` is not below `classes`, or `world` is 0.
    #[must_use]
    pub fn owner_of(class: u64, classes: u64, world: usize) -> usize {
        assert!(class < classes, "class {class} of {classes}");
        let (share, longer) = (classes / world as u64, classes % world as u64);
        let in_longer = longer * (share + 1);
        let owner = if class < in_longer {
            class / (share + 1)
        } else {
            longer + (class - in_longer) / share
        };
        owner as usize
    }

    /// Classes over all ranks.
    #[must_use]
    pub fn classes(&self) -> u64 {
        self.classes
    }

    /// Global id of row 0.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the rank owns nothing, as with more ranks than classes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All global ids of the rank.
    #[must_use]
    pub fn ids(&self) -> Range<u64> {
        self.first..self.first + self.len as u64
    }

    /// The range of the centres, of which each class has `k`, side by side.
    #[must_use]
    pub fn of_centres(&self, k: usize) -> ClassRange {
        let times = k as u64;
        ClassRange { classes: self.classes * times, first: self.first * times, len: self.len * k }
    }

    /// The row that holds global id `class`, if this rank does.
    #[must_use]
    pub fn row_of(&self, class: u64) -> Option<u32> {
        // A configuration has at most u32::MAX classes.
        self.ids().contains(&class).then(|| (class - self.first) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_the_published_sets_start_where_the_reference_starts_them() {
        #[track_caller]
        fn check(classes: u64, n_longer: usize, starts: [u64; 8]) {
            let ranges: Vec<_> = (0..8).map(|rank| ClassRange::of_rank(classes, rank, 8)).collect();
            let found: Vec<u64> = ranges.iter().map(ClassRange::first).collect();
            assert_eq!(found, starts);
            let share = (classes / 8) as usize;
            for (rank, range) in ranges.iter().enumerate() {
                assert_eq!(range.len(), share + usize::from(rank < n_longer), "rank {rank}");
            }
        }
        check(360_232, 0, [0, 45029, 90058, 135_087, 180_116, 225_145, 270_174, 315_203]);
        check(93_431, 7, [0, 11679, 23358, 35037, 46716, 58395, 70074, 81753]);
        check(85_742, 6, [0, 10718, 21436, 32154, 42872, 53590, 64308, 75025]);
        check(
            2_059_906,
            2,
            [0, 257_489, 514_978, 772_466, 1_029_954, 1_287_442, 1_544_930, 1_802_418],
        );
    }

    #[test]
    fn every_class_has_exactly_one_rank() {
        for (classes, world) in [(1, 3), (7, 3), (10, 10), (1003, 4)] {
            let owners = |class| {
                let owns = |rank| ClassRange::of_rank(classes, rank, world).row_of(class).is_some();
                (0..world).filter(|&rank| owns(rank)).collect::<Vec<_>>()
            };
            for class in 0..classes {
                let owner = ClassRange::owner_of(class, classes, world);
                assert_eq!(owners(class), [owner], "class {class} of {classes} over {world}");
            }
            assert!(owners(classes).is_empty());
        }
    }
}
