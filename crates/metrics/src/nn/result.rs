//! Counted pairs to rates.

use super::{AllPairs, Group, KeyCounts, Tally};
use crate::{
    bootstrap::{Bootstrap, Interval, identity_intervals},
    roc::{Far, RocPoint},
    scores::log_spaced,
};

/// TAR at a FAR.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct TarAt {
    /// Share of genuine pairs with a score strictly above the threshold.
    pub tar: f64,
    /// The (⌊far·impostors⌋+1)-th highest impostor score.
    pub threshold: f32,
    /// Impostors that may be accepted: `⌊far · impostors⌋`; 0 if the rate is finer than the data.
    pub allowed: u64,
}

/// A finished count.
#[derive(Debug)]
pub struct Rates {
    groups: Vec<Group>,
    all: Group,
    /// By group, (person, score).
    genuine: Vec<Vec<(u32, f32)>>,
    within: Vec<KeyCounts>,
    across: KeyCounts,
}

impl Rates {
    /// Of a tally in which all bands of `pairs` are counted.
    pub fn new(pairs: &AllPairs, tally: Tally) -> Rates {
        let unlock = |list: std::sync::Mutex<Vec<(u32, f32)>>| {
            let mut list = list.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            list.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            list
        };
        Rates {
            groups: pairs.groups().to_vec(),
            all: pairs.all(),
            genuine: tally.genuine.into_iter().map(unlock).collect(),
            within: tally.within,
            across: tally.across,
        }
    }

    /// Sizes of a group; `None` means all faces, pairs across groups included.
    pub fn group(&self, group: Option<u32>) -> Group {
        group.map_or(self.all, |g| self.groups[g as usize])
    }

    /// TAR where at most `far` of the impostors score above the threshold.
    ///
    /// `None` if the threshold lies below the floor of the count (count again with a lower one), or
    /// there is no genuine or no impostor pair.
    pub fn at(&self, group: Option<u32>, far: Far) -> Option<TarAt> {
        let sizes = self.group(group);
        if sizes.n_genuine == 0 || sizes.n_impostors == 0 {
            return None;
        }
        let allowed = far.allowed(sizes.n_impostors);
        let threshold = *KeyCounts::nth_highest(&self.parts(group), &[allowed]).first()?;
        let accepted = self.genuine(group).filter(|pair| pair.1 > threshold).count();
        Some(TarAt { tar: accepted as f64 / sizes.n_genuine as f64, threshold, allowed })
    }

    /// The ROC curve up to `coarsest`, at up to `n_points` FARs that are evenly spaced in the
    /// logarithm, each point by the rule of [`at`](Rates::at); it ends where the count does.
    pub fn roc(&self, group: Option<u32>, coarsest: Far, n_points: usize) -> Vec<RocPoint> {
        let sizes = self.group(group);
        let mut genuine: Vec<f32> = self.genuine(group).map(|pair| pair.1).collect();
        if genuine.is_empty() || sizes.n_impostors == 0 {
            return Vec::new();
        }
        genuine.sort_unstable_by(|a, b| b.total_cmp(a));
        let allowed = log_spaced(coarsest.allowed(sizes.n_impostors) + 1, n_points);
        let thresholds = KeyCounts::nth_highest(&self.parts(group), &allowed);
        let point = |(allowed, threshold): (u64, f32)| RocPoint {
            threshold: f64::from(threshold),
            far: allowed as f64 / sizes.n_impostors as f64,
            tar: genuine.partition_point(|&score| score > threshold) as f64 / genuine.len() as f64,
        };
        allowed.into_iter().zip(thresholds).map(point).collect()
    }

    /// The interval of each of `at`, by resampling people. The thresholds stay: they come from many
    /// more pairs than the rates do.
    pub fn intervals(
        &self,
        group: Option<u32>,
        at: &[TarAt],
        bootstrap: &Bootstrap,
    ) -> Vec<Option<Interval>> {
        let pairs: Vec<(u32, f32)> = self.genuine(group).collect();
        let mut people: Vec<u32> = pairs.iter().map(|pair| pair.0).collect();
        people.sort_unstable();
        people.dedup();
        // By person: genuine pairs, then accepted ones at each threshold.
        let mut counts = vec![vec![0.0; at.len() + 1]; people.len()];
        for (person, score) in pairs {
            let row = people.partition_point(|&p| p < person);
            counts[row][0] += 1.0;
            for (count, at) in counts[row][1..].iter_mut().zip(at) {
                *count += f64::from(u8::from(score > at.threshold));
            }
        }
        identity_intervals(bootstrap, &counts)
    }

    /// Scores of the genuine pairs, in no particular order.
    pub fn genuine_scores(&self, group: Option<u32>) -> impl Iterator<Item = f32> + '_ {
        self.genuine(group).map(|pair| pair.1)
    }

    fn genuine(&self, group: Option<u32>) -> impl Iterator<Item = (u32, f32)> + '_ {
        let wanted = move |g: usize| group.is_none_or(|group| group as usize == g);
        let lists = self.genuine.iter().enumerate().filter(move |(g, _)| wanted(*g));
        lists.flat_map(|(_, list)| list.iter().copied())
    }

    fn parts(&self, group: Option<u32>) -> Vec<&KeyCounts> {
        match group {
            Some(group) => vec![&self.within[group as usize]],
            None => self.within.iter().chain([&self.across]).collect(),
        }
    }
}
