//! Which picture goes into which file, faults included.

use std::{collections::BTreeMap, str::FromStr};

use pfc_random::Stream;
use serde::Serialize;

use crate::junk::Junk;

/// The people and pictures of a synthetic folder.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Decides everything; the same seed gives the same bytes.
    pub seed: u64,
    /// Identities to train on; they are numbered from 0.
    pub identities: u64,
    /// Further identities, numbered on, to test with.
    pub holdout: u64,
    /// Images of each.
    pub images: u64,
    /// Of the held-out people so many are among those to train on, under other names.
    pub hidden: u64,
}

/// What share of the training images is spoiled, per kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Noise {
    /// Images that show someone else.
    pub mislabelled: f64,
    /// Images that repeat another one of their identity.
    pub duplicated: f64,
    /// Files that no strict decoder accepts.
    pub corrupt: f64,
    /// Images that show nobody.
    pub junk: f64,
    /// Share of the identities, half of whose images lie under another name.
    pub split: f64,
}

impl FromStr for Noise {
    type Err = String;

    /// One share for each of the five kinds, or `kind=share` separated by commas.
    fn from_str(text: &str) -> Result<Noise, String> {
        let mut noise = Noise::default();
        if !text.contains('=') {
            let each = share(text)?;
            noise = Noise {
                mislabelled: each,
                duplicated: each,
                corrupt: each,
                junk: each,
                split: each,
            };
        } else {
            for part in text.split(',') {
                let (kind, value) = part.split_once('=').ok_or_else(|| {
                    format!("`{part}` is not of the form kind=share, as in corrupt=0.01")
                })?;
                let target = match kind.trim() {
                    "mislabelled" => &mut noise.mislabelled,
                    "duplicated" => &mut noise.duplicated,
                    "corrupt" => &mut noise.corrupt,
                    "junk" => &mut noise.junk,
                    "split" => &mut noise.split,
                    other => {
                        return Err(format!(
                            "`{other}` is no kind of noise; mislabelled, duplicated, corrupt, junk \
                             and split are"
                        ));
                    }
                };
                *target = share(value)?;
            }
        }
        let sum = noise.mislabelled + noise.duplicated + noise.corrupt + noise.junk;
        if sum > 0.9 {
            return Err(format!("the shares add up to {sum}; 0.9 is the most"));
        }
        Ok(noise)
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.trim().parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (0.0..=0.9).contains(&value) {
        Ok(value)
    } else {
        Err(format!("a share lies between 0 and 0.9, not at {value}"))
    }
}

/// What is wrong with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It shows someone else.
    Mislabelled { shows: u64 },
    /// It is another image of the same identity once more: its bytes, or re-encoded.
    Duplicated { of: u64, same_bytes: bool },
    /// It is no whole image.
    Corrupt(Damage),
    /// It decodes and shows nobody.
    Junk(Junk),
}

/// Ways to spoil a file; a strict decoder refuses each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    Truncated,
    Empty,
    BrokenHeader,
    Text,
}

/// The files of a world's training part that are not what they should be.
#[derive(Debug)]
pub struct Plan {
    world: World,
    faults: BTreeMap<u64, Fault>,
    /// Identities whose later half of images is in a folder of another name, in order.
    splits: Vec<u64>,
}

impl Plan {
    /// Spoils the stated shares of `world`'s training images, rounded to whole images.
    ///
    /// A duplicate needs a sound image of the same identity, so of those a few may be missing when
    /// an identity has hardly any.
    pub fn new(world: World, noise: Noise) -> Plan {
        let total = world.identities * world.images;
        let of_total = |share: f64| (share * total as f64).round() as usize;
        let mut draw = Stream::new(&[world.seed, 0x0115e]);
        let n_spoiled = of_total(noise.mislabelled)
            + of_total(noise.duplicated)
            + of_total(noise.corrupt)
            + of_total(noise.junk);
        let mut slots = sample(&mut draw, total, n_spoiled.min(total as usize)).into_iter();
        let mut plan = Plan { world, faults: BTreeMap::new(), splits: Vec::new() };
        for slot in slots.by_ref().take(of_total(noise.mislabelled)) {
            plan.mislabel(slot, &mut draw);
        }
        let doubles: Vec<u64> = slots.by_ref().take(of_total(noise.duplicated)).collect();
        let junk: Vec<u64> = slots.by_ref().take(of_total(noise.junk)).collect();
        for slot in slots {
            let kinds = [Damage::Truncated, Damage::Empty, Damage::BrokenHeader, Damage::Text];
            let damage = kinds[draw.below(kinds.len() as u64) as usize];
            plan.faults.insert(slot, Fault::Corrupt(damage));
        }
        for slot in junk {
            let kind = Junk::ALL[draw.below(Junk::ALL.len() as u64) as usize];
            plan.faults.insert(slot, Fault::Junk(kind));
        }
        plan.duplicate(doubles, &mut draw);
        plan.split((noise.split * world.identities as f64).round() as usize);
        plan
    }

    /// The place among the splits of the identity that this image was split from.
    pub fn split_of(&self, identity: u64, image: u64) -> Option<usize> {
        let is_later = image >= self.world.images.div_ceil(2);
        is_later.then(|| self.splits.binary_search(&identity).ok()).flatten()
    }

    /// Identities that have two folders, in order.
    pub fn splits(&self) -> &[u64] {
        &self.splits
    }

    /// Splits identities without faults, of at least four images, as far as there are any.
    fn split(&mut self, n: usize) {
        let World { seed, identities, images, .. } = self.world;
        if n == 0 || images < 4 {
            return;
        }
        let mut draw = Stream::new(&[seed, 0x5711]);
        let order = sample(&mut draw, identities, identities as usize);
        let is_sound = |identity: &u64| {
            self.faults.range(identity * images..(identity + 1) * images).next().is_none()
        };
        self.splits = order.into_iter().filter(is_sound).take(n).collect();
        self.splits.sort_unstable();
    }

    /// What is wrong with an image of the training part.
    pub fn fault(&self, identity: u64, image: u64) -> Option<Fault> {
        self.faults.get(&(identity * self.world.images + image)).copied()
    }

    /// All faults as (identity, image, fault), in order.
    pub fn faults(&self) -> impl Iterator<Item = (u64, u64, Fault)> {
        let images = self.world.images;
        self.faults.iter().map(move |(slot, fault)| (slot / images, slot % images, *fault))
    }

    fn mislabel(&mut self, slot: u64, draw: &mut Stream) {
        let identity = slot / self.world.images;
        if self.world.identities > 1 {
            let step = 1 + draw.below(self.world.identities - 1);
            let shows = (identity + step) % self.world.identities;
            self.faults.insert(slot, Fault::Mislabelled { shows });
        }
    }

    fn duplicate(&mut self, mut slots: Vec<u64>, draw: &mut Stream) {
        let images = self.world.images;
        slots.sort_unstable();
        for &slot in &slots {
            let first = slot - slot % images;
            let start = draw.below(images);
            let same_bytes = draw.chance(0.5);
            let is_sound = |of: &u64| {
                let other = first + of;
                !self.faults.contains_key(&other) && slots.binary_search(&other).is_err()
            };
            let sound = (0..images).map(|i| (start + i) % images).find(is_sound);
            if let Some(of) = sound {
                self.faults.insert(slot, Fault::Duplicated { of, same_bytes });
            }
        }
    }
}

/// `n` different numbers below `total`, in random order (the first steps of a Fisher–Yates shuffle).
fn sample(draw: &mut Stream, total: u64, n: usize) -> Vec<u64> {
    if n == 0 {
        return Vec::new();
    }
    let mut all: Vec<u64> = (0..total).collect();
    for i in 0..n {
        let j = i + draw.below(total - i as u64) as usize;
        all.swap(i, j);
    }
    all.truncate(n);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: World = World { seed: 1, identities: 20, holdout: 0, images: 10, hidden: 0 };

    fn counts(plan: &Plan) -> [usize; 3] {
        let count = |is: fn(&Fault) -> bool| plan.faults.values().filter(|f| is(f)).count();
        [
            count(|f| matches!(f, Fault::Mislabelled { .. })),
            count(|f| matches!(f, Fault::Duplicated { .. })),
            count(|f| matches!(f, Fault::Corrupt(_))),
        ]
    }

    #[test]
    fn stated_shares_become_whole_numbers_of_images() {
        let noise = Noise { mislabelled: 0.02, duplicated: 0.05, corrupt: 0.1, ..Noise::default() };
        assert_eq!(counts(&Plan::new(WORLD, noise)), [4, 10, 20]);
        assert_eq!(counts(&Plan::new(WORLD, Noise::default())), [0, 0, 0]);
    }

    #[test]
    fn a_fault_points_at_something_else_that_is_sound() {
        let noise = Noise {
            mislabelled: 0.2,
            duplicated: 0.3,
            corrupt: 0.1,
            junk: 0.05,
            ..Noise::default()
        };
        let plan = Plan::new(WORLD, noise);
        for (identity, image, fault) in plan.faults() {
            match fault {
                Fault::Mislabelled { shows } => assert_ne!(shows, identity),
                Fault::Duplicated { of, .. } => {
                    assert_ne!(of, image);
                    assert_eq!(plan.fault(identity, of), None);
                }
                Fault::Corrupt(_) | Fault::Junk(_) => {}
            }
        }
    }

    #[test]
    fn noise_is_one_share_for_all_or_one_for_each() {
        let noise = |mislabelled, duplicated, corrupt, junk, split| Noise {
            mislabelled,
            duplicated,
            corrupt,
            junk,
            split,
        };
        assert_eq!("0.02".parse(), Ok(noise(0.02, 0.02, 0.02, 0.02, 0.02)));
        assert_eq!("corrupt=0.1,mislabelled=0.2".parse(), Ok(noise(0.2, 0.0, 0.1, 0.0, 0.0)));
        for bad in ["", "x", "-1", "0.5", "NaN", "corrupt", "blurred=0.1", "corrupt=2"] {
            assert!(bad.parse::<Noise>().is_err(), "{bad}");
        }
    }

    #[test]
    fn split_identities_are_sound_and_their_later_half_is_elsewhere() {
        let noise = Noise { mislabelled: 0.02, split: 0.25, ..Noise::default() };
        let plan = Plan::new(WORLD, noise);
        assert_eq!(plan.splits().len(), 5);
        let first = plan.splits()[0];
        assert_eq!((plan.split_of(first, 4), plan.split_of(first, 5)), (None, Some(0)));
        assert!(plan.splits().iter().all(|&i| (0..10).all(|image| plan.fault(i, image).is_none())));
    }

    #[test]
    fn a_sample_has_no_number_twice() {
        let mut numbers = sample(&mut Stream::new(&[3]), 50, 50);
        numbers.sort_unstable();
        assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    }
}
