//! Finds pictures whose hashes differ in few bits, without comparing every pair.
//!
//! A hash is cut into one band more than bits may differ, so that two such hashes are equal in some
//! band. Entries of one value in a band make a bucket, and a crowded bucket is split in the same way
//! by the bits that are left, so that no pair is lost. Within a crowd that cannot be split, an entry
//! is compared with groups of pictures that were found to look alike, and with no more of a group
//! once it has joined it: a thousand copies cost some thousands of comparisons and not half a million.

use std::collections::HashMap;

use pfc_metrics::union::Union;
use rayon::prelude::*;

/// Number of entries up to which all pairs of a bucket are compared.
const LEAF: usize = 48;
/// Number of times that a crowded bucket is split. A bucket that is still crowded then holds copies for the
/// most part.
const SPLITS_MAX: usize = 2;
/// Number of entries above which the parts of a bucket are shared among threads.
const PARALLEL: usize = 1 << 13;
/// Maximum number of hashes that an entry is compared with in one crowd. Only pictures that share half of the
/// hash and yet do not look alike can reach it.
const COMPARED_MAX: u64 = 1 << 16;

/// The hash of a row, or of its mirror image. 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The hash.
    pub hash: u64,
    /// The row that it belongs to.
    pub row: u32,
    /// Whether it is the hash of the mirror image.
    pub is_mirrored: bool,
}

/// How much was compared, and how much was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pairs of hashes.
    pub hashes: u64,
    /// Pairs of pictures.
    pub pictures: u64,
    /// Pairs of hashes in crowds that were not compared.
    pub not_compared: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.hashes += other.hashes;
        self.pictures += other.pictures;
        self.not_compared += other.not_compared;
    }
}

/// Rows to join, and what was compared to find them.
#[derive(Debug, Default)]
struct Found {
    pairs: Vec<(u32, u32)>,
    counts: Counts,
}

impl Found {
    fn add(mut self, mut other: Found) -> Found {
        self.pairs.append(&mut other.pairs);
        self.counts.add(other.counts);
        self
    }
}

/// Whether two rows look alike, the second one mirrored or as it is.
pub type IsAlike<'a> = &'a (dyn Fn(u32, u32, bool) -> bool + Sync);

/// Joins all rows that are connected by pairs whose hashes differ in up to `bits` and that look alike.
///
/// * `entries`: of rows below `n_rows`, in any order; they are sorted
/// * `bits`: at most 7
/// * `go_on`: asked before every band; the result is `None` if it says no
///
/// The result does not depend on the number of threads. Memory: 12 bytes a row, and 8 for each pair
/// that joins two groups.
pub fn groups(
    entries: &mut [Entry],
    n_rows: usize,
    bits: u32,
    is_alike: IsAlike<'_>,
    mut go_on: impl FnMut() -> bool,
) -> Option<(Union, Counts)> {
    let mut union = Union::new(n_rows);
    let mut counts = Counts::default();
    let mut leaders: Vec<u32> = (0..n_rows as u32).collect();
    for band in cut(u64::MAX, bits + 1) {
        if !go_on() {
            return None;
        }
        let bands = Bands { bits, is_alike, leaders: &leaders, compared_max: COMPARED_MAX };
        entries.par_sort_unstable_by_key(|entry| (entry.hash & band, *entry));
        let found = bands.buckets(entries, band, !band, 0);
        counts.add(found.counts);
        for (a, b) in found.pairs {
            let (a, b) = (union.leader(a as usize), union.leader(b as usize));
            union.join(a.max(b), a.min(b));
        }
        for (row, leader) in leaders.iter_mut().enumerate() {
            *leader = union.leader(row) as u32;
        }
    }
    Some((union, counts))
}

/// The bits of `free` in `n` runs of about the same length.
fn cut(free: u64, n: u32) -> Vec<u64> {
    let bits: Vec<u32> = (0..u64::BITS).filter(|bit| free >> bit & 1 == 1).collect();
    let end = |i: u32| bits.len() * i as usize / n as usize;
    let band = |i: u32| bits[end(i)..end(i + 1)].iter().fold(0, |band, bit| band | 1 << bit);
    (0..n).map(band).collect()
}

/// How entries are compared while one band of the whole hash is looked at.
struct Bands<'a> {
    bits: u32,
    is_alike: IsAlike<'a>,
    /// By row, the group that earlier bands put it in.
    leaders: &'a [u32],
    compared_max: u64,
}

impl Bands<'_> {
    /// Compares the entries of each bucket; `entries` are sorted by `band`.
    ///
    /// * `free`: the bits that entries of a bucket may differ in
    fn buckets(&self, entries: &mut [Entry], band: u64, free: u64, n_splits: usize) -> Found {
        let is_crowd = entries.len() > PARALLEL;
        let buckets = entries.chunk_by_mut(|a, b| (a.hash ^ b.hash) & band == 0);
        let buckets = buckets.filter(|bucket| bucket.len() > 1);
        let look = |bucket: &mut [Entry]| self.split(bucket, free, n_splits);
        if is_crowd {
            let buckets: Vec<&mut [Entry]> = buckets.collect();
            // Ordered, so that threads do not matter.
            let found: Vec<Found> = buckets.into_par_iter().map(look).collect();
            found.into_iter().fold(Found::default(), Found::add)
        } else {
            buckets.map(look).fold(Found::default(), Found::add)
        }
    }

    fn split(&self, entries: &mut [Entry], free: u64, n_splits: usize) -> Found {
        if entries.len() <= LEAF {
            return self.compare_all(entries);
        }
        let first = entries[0].hash;
        let is_one_hash = entries.iter().all(|entry| entry.hash == first);
        if is_one_hash || n_splits == SPLITS_MAX || free.count_ones() <= self.bits {
            return self.compare_groups(entries);
        }
        let mut all = Found::default();
        for band in cut(free, self.bits + 1) {
            entries.sort_unstable_by_key(|entry| (entry.hash & band, *entry));
            all = all.add(self.buckets(entries, band, free & !band, n_splits + 1));
        }
        // Most bands find the same pairs.
        all.pairs.sort_unstable();
        all.pairs.dedup();
        all
    }

    /// Every entry of a small bucket with every other that is not in its group yet.
    fn compare_all(&self, entries: &[Entry]) -> Found {
        let mut found = Found::default();
        let mut groups: [usize; LEAF] = std::array::from_fn(|i| i);
        for (i, a) in entries.iter().enumerate() {
            for (j, b) in entries[..i].iter().enumerate() {
                let is_joined = groups[i] == groups[j]
                    || self.leaders[a.row as usize] == self.leaders[b.row as usize];
                if !is_joined && self.is_near(a, b, &mut found.counts) {
                    found.pairs.push((a.row, b.row));
                    let (from, to) = (groups[i], groups[j]);
                    groups[..=i].iter_mut().filter(|g| **g == from).for_each(|g| *g = to);
                }
            }
        }
        found
    }

    /// Every entry with groups of those before it.
    fn compare_groups(&self, entries: &[Entry]) -> Found {
        let mut found = Found::default();
        let mut groups: Vec<Vec<Entry>> = Vec::new();
        // Groups that earlier bands know of, by leader.
        let mut known: HashMap<u32, usize> = HashMap::new();
        for entry in entries {
            let leader = self.leaders[entry.row as usize];
            let mut own = known.get(&leader).copied();
            let until = found.counts.hashes + self.compared_max;
            for at in 0..groups.len() {
                if own == Some(at) {
                    continue;
                }
                if found.counts.hashes > until {
                    found.counts.not_compared += groups[at].len() as u64;
                    continue;
                }
                let near =
                    groups[at].iter().find(|other| self.is_near(entry, other, &mut found.counts));
                let Some(near) = near else { continue };
                found.pairs.push((entry.row, near.row));
                match own {
                    None => own = Some(at),
                    Some(own) => {
                        let joined = std::mem::take(&mut groups[at]);
                        joined.iter().for_each(|e| {
                            known.insert(self.leaders[e.row as usize], own);
                        });
                        groups[own].extend(joined);
                    }
                }
            }
            let own = own.unwrap_or_else(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            known.insert(leader, own);
            groups[own].push(*entry);
        }
        found
    }

    /// Whether two entries are of different rows that look alike. Two mirror images are alike when the
    /// pictures themselves are.
    fn is_near(&self, a: &Entry, b: &Entry, counts: &mut Counts) -> bool {
        counts.hashes += 1;
        if (a.hash ^ b.hash).count_ones() > self.bits
            || a.row == b.row
            || (a.is_mirrored && b.is_mirrored)
        {
            return false;
        }
        counts.pictures += 1;
        (self.is_alike)(a.row, b.row, a.is_mirrored != b.is_mirrored)
    }
}

#[cfg(test)]
mod tests {
    use pfc_random::Stream;

    use super::*;

    fn entries(hashes: &[u64]) -> Vec<Entry> {
        let entry = |(row, hash): (u32, &u64)| Entry { hash: *hash, row, is_mirrored: false };
        (0..).zip(hashes).map(entry).collect()
    }

    fn grouped(hashes: &[u64], bits: u32, is_alike: IsAlike<'_>) -> (Vec<usize>, Counts) {
        let (mut union, counts) =
            groups(&mut entries(hashes), hashes.len(), bits, is_alike, || true).unwrap();
        ((0..hashes.len()).map(|row| union.leader(row)).collect(), counts)
    }

    /// Flips `n` different bits.
    fn flipped(hash: u64, n: u32, draw: &mut Stream) -> u64 {
        let mut flips = 0u64;
        while flips.count_ones() < n {
            flips |= 1 << draw.below(64);
        }
        hash ^ flips
    }

    /// Hashes as those of aligned faces: each bit has a value that most of them share, so that bands
    /// are crowded.
    fn faces(n: usize, draw: &mut Stream) -> Vec<u64> {
        let bit = |draw: &mut Stream| u64::from(draw.chance(0.3));
        (0..n).map(|_| (0..64).fold(0, |hash, _| hash << 1 | bit(draw))).collect()
    }

    #[test]
    fn a_hash_is_cut_into_bands_without_a_gap() {
        for free in [u64::MAX, 0x00ff_0f0f_3333_0001, 0b1011] {
            for n in 1..=8 {
                let bands = cut(free, n);
                assert_eq!(bands.iter().fold(0, |all, band| all | band), free);
                assert_eq!(bands.iter().map(|b| b.count_ones()).sum::<u32>(), free.count_ones());
            }
        }
    }

    #[test]
    fn whatever_the_bits_groups_are_those_that_all_pairs_give() {
        let mut draw = Stream::new(&[7]);
        for bits in 0..=7 {
            let mut hashes = faces(1200, &mut draw);
            // Crowds: copies of a few hashes with some bits changed.
            for i in 0..800 {
                let n = draw.below(u64::from(bits) + 3) as u32;
                let hash = flipped(hashes[i % 5], n, &mut draw);
                hashes.push(hash);
            }
            // Of pairs with near hashes some do not look alike.
            let is_alike = |a: u32, b: u32, _: bool| (a ^ b) % 7 != 3;
            let mut union = Union::new(hashes.len());
            for a in 0..hashes.len() {
                for b in 0..a {
                    if (hashes[a] ^ hashes[b]).count_ones() <= bits
                        && is_alike(a as u32, b as u32, false)
                    {
                        let (a, b) = (union.leader(a), union.leader(b));
                        union.join(a.max(b), a.min(b));
                    }
                }
            }
            let expected: Vec<usize> = (0..hashes.len()).map(|row| union.leader(row)).collect();
            assert_eq!(grouped(&hashes, bits, &is_alike).0, expected, "{bits} bits");
        }
    }

    #[test]
    fn copies_cost_comparisons_in_proportion_to_their_number() {
        let mut draw = Stream::new(&[1]);
        for n in [1000u64, 4000] {
            let hashes: Vec<u64> = (0..n)
                .map(|_| {
                    let n_flips = draw.below(3) as u32;
                    flipped(0x0123_4567_89ab_cdef, n_flips, &mut draw)
                })
                .collect();
            let (leaders, counts) = grouped(&hashes, 4, &|_, _, _| true);
            assert!(leaders.iter().all(|leader| *leader == 0));
            assert!(counts.pictures <= 40 * n && counts.hashes <= 200 * n, "{n}: {counts:?}");
            assert_eq!(counts.not_compared, 0);
        }
    }

    #[test]
    fn what_is_not_compared_is_counted() {
        // One hash, and nobody like anybody: the worst there is.
        let bands = Bands {
            bits: 4,
            is_alike: &|_, _, _| false,
            leaders: &[0, 1, 2, 3, 4],
            compared_max: 1,
        };
        let found = bands.compare_groups(&entries(&[9; 5]));
        // Each of five is compared with two at most: of 0 + 1 + 2 + 3 + 4 pairs 1 + 2 + 2 + 2 are.
        assert_eq!((found.counts.hashes, found.counts.not_compared), (7, 3));
    }

    #[test]
    fn a_mirror_image_is_found_and_said_to_be_one() {
        let [a, b] = [0x00ff_00ff_1234_5678u64, 0x7777_0000_ffff_1111];
        let mut all = entries(&[a, b]);
        all.push(Entry { hash: b ^ 1, row: 0, is_mirrored: true });
        all.push(Entry { hash: a ^ 2, row: 1, is_mirrored: true });
        let check = |mirrored: bool, expected: usize| {
            let is_alike = move |_: u32, _: u32, is_mirrored: bool| is_mirrored == mirrored;
            let (mut union, _) = groups(&mut all.clone(), 2, 4, &is_alike, || true).unwrap();
            assert_eq!(union.leader(1), expected);
        };
        check(true, 0);
        check(false, 1);
    }

    #[test]
    fn planted_pairs_among_crowded_hashes_are_all_found() {
        let mut draw = Stream::new(&[3]);
        let n = 60_000;
        let mut hashes = faces(n, &mut draw);
        let mut planted = Vec::new();
        for i in 0..1000 {
            let of = draw.below(n as u64) as usize;
            planted.push((of, hashes.len()));
            hashes.push(flipped(hashes[of], i % 5, &mut draw));
        }
        let is_planted: std::collections::HashSet<(u32, u32)> =
            planted.iter().map(|&(a, b)| (a as u32, b as u32)).collect();
        let is_alike = |a: u32, b: u32, _: bool| is_planted.contains(&(a.min(b), a.max(b)));
        let (leaders, counts) = grouped(&hashes, 4, &is_alike);
        let found = planted.iter().filter(|(a, b)| leaders[*a] == leaders[*b]).count();
        assert_eq!((found, counts.not_compared), (1000, 0));
        // Bands of 13 bits hold a hundredth of all rows here; each with each are 1.9e9 pairs.
        assert!(counts.hashes < 1_900_000_000 / 10, "{counts:?}");
    }

    #[test]
    fn a_stop_is_obeyed() {
        assert!(groups(&mut entries(&[1, 1]), 2, 4, &|_, _, _| true, || false).is_none());
    }
}
