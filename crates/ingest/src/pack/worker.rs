//! One of several processes that share the shards of a pack.

use std::{fmt, ops::Range, str::FromStr};

/// Worker `index` of `count`, from 0; as text `2/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    index: u32,
    count: u32,
}

impl Worker {
    /// All of the work.
    pub const ALONE: Worker = Worker { index: 0, count: 1 };

    /// The shards of this worker: every shard is of one worker, and shares differ by one at most.
    pub fn share(self, n_shards: u64) -> Range<u64> {
        // The quotient is at most `n_shards`.
        let cut = |i: u32| (u128::from(n_shards) * u128::from(i) / u128::from(self.count)) as u64;
        cut(self.index)..cut(self.index + 1)
    }

    /// As part of a file name: `2-of-8`.
    pub fn file_stem(self) -> String {
        format!("worker-{}-of-{}", self.index, self.count)
    }
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Worker {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Worker, &'static str> {
        const WANTED: &str = "expected I/N with I from 0 and below N, as in 0/4";
        let (index, count) = text.split_once('/').ok_or(WANTED)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| WANTED);
        let (index, count) = (number(index)?, number(count)?);
        if index < count { Ok(Worker { index, count }) } else { Err(WANTED) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_shards_once() {
        for n_shards in [0, 1, 7, 8, 1000, u64::MAX] {
            for count in [1, 2, 3, 8, 64] {
                let shares = (0..count).map(|index| Worker { index, count }.share(n_shards));
                let mut end = 0;
                for share in shares {
                    assert_eq!(share.start, end);
                    assert!(share.end - share.start <= n_shards.div_ceil(count.into()));
                    end = share.end;
                }
                assert_eq!(end, n_shards);
            }
        }
    }

    #[test]
    fn only_a_number_below_another_is_a_worker() {
        assert_eq!("2/8".parse(), Ok(Worker { index: 2, count: 8 }));
        for bad in ["", "2", "8/8", "0/0", "-1/2", "1/2/3", "a/b", "1/4294967296"] {
            assert!(bad.parse::<Worker>().is_err(), "{bad}");
        }
    }
}
