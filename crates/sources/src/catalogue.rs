//! From labels as a source states them, name or number, to identities in the order of their labels.

use std::{collections::HashMap, sync::Arc};

use pfc_cli::units;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::{error::SourceError, index::Index, label::Who};

/// In place of the identity of an item that has none.
const NOBODY: u32 = u32::MAX;
/// The same of one that is left out whether or not identities are needed.
const GAP: u32 = u32::MAX - 1;

/// Whether an item has an identity.
fn is_known(id: u32) -> bool {
    id < GAP
}

/// What becomes of an image whose identity is not stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum People {
    /// It is left out with the reason: a data set is made of identities.
    #[default]
    Needed,
    /// It is taken as it is, after those of all identities: the images alone are wanted.
    Optional,
}

/// Items in the order in which they are found, each with its identity: images, or folders of some.
///
/// Two spellings of one name in Unicode, composed (NFC) and decomposed (NFD, as macOS writes file
/// names), are one identity, called as it is spelled first.
///
/// Memory: 4 bytes per item, and per identity about 60 and its name.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Identity of every item.
    whose: Vec<u32>,
    identities: Vec<Identity>,
    /// By name in NFC.
    by_name: HashMap<Arc<str>, u32>,
    by_number: HashMap<u64, u32>,
    /// A name that is spelled in two ways, and how many there are.
    respelled: Option<(String, u64)>,
    /// Items without an identity, gaps included.
    n_unknown: u64,
    n_gaps: u64,
    people: People,
}

#[derive(Debug)]
struct Identity {
    /// Without a name it is the number.
    name: Option<Arc<str>>,
    number: Option<u64>,
    /// A number by its text, if all others are numbers as well.
    exponent: Option<u64>,
    is_respelled: bool,
}

impl Identity {
    fn name(&self) -> String {
        match (&self.name, self.number) {
            (Some(name), _) => name.as_ref().to_owned(),
            (None, number) => number.unwrap_or_default().to_string(),
        }
    }
}

/// Why an item cannot be added.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// It contradicts others: it alone is to be left out.
    Contradiction(String),
    /// There are more than can be counted.
    Full(String),
}

/// A finished catalogue.
pub struct Sealed {
    /// Identities by label.
    pub index: Index,
    /// The items by label, those of one label in the order in which they were found.
    pub order: Vec<u32>,
}

impl Catalogue {
    /// A catalogue of items whose identities are needed or optional.
    pub fn of(people: People) -> Catalogue {
        Catalogue { people, ..Catalogue::default() }
    }

    /// Adds the next item.
    ///
    /// # Errors
    ///
    /// [`Refused`], and nothing is added.
    pub fn push(&mut self, who: Who) -> Result<(), Refused> {
        let id = match who {
            Who::Number(number) => match self.by_number.get(&number) {
                Some(&id) => id,
                None => {
                    let id = self.add(None)?;
                    self.number(id, number);
                    id
                }
            },
            Who::Name(name) => self.named(&name)?,
            Who::Exponent(number, text) => {
                let id = self.named(&text)?;
                self.identities[id as usize].exponent = Some(number);
                id
            }
            Who::Both(number, name) => self.both(number, &name)?,
        };
        self.count(id)
    }

    /// Adds an item without an identity, which is left out where one is needed; the numbers of the
    /// others stay right.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`].
    pub fn push_nobody(&mut self) -> Result<(), Refused> {
        self.count(NOBODY)?;
        self.n_unknown += 1;
        Ok(())
    }

    /// Adds an item that is no image, so that the numbers of the others stay right.
    ///
    /// # Errors
    ///
    /// [`SourceError::TooMany`].
    pub fn push_gap(&mut self, source: &str) -> Result<(), SourceError> {
        match self.count(GAP) {
            Err(Refused::Full(what) | Refused::Contradiction(what)) => Err(full(source, what)),
            Ok(()) => {
                self.n_unknown += 1;
                self.n_gaps += 1;
                Ok(())
            }
        }
    }

    /// Adds the next item, or leaves it out; why, if it was. Where identities are optional no item is.
    ///
    /// # Errors
    ///
    /// [`SourceError::TooMany`].
    pub fn push_or_leave_out(
        &mut self,
        source: &str,
        who: Result<Who, String>,
    ) -> Result<Option<String>, SourceError> {
        let problem = match who.map(|who| self.push(who)) {
            Ok(Ok(())) => return Ok(None),
            Ok(Err(Refused::Contradiction(problem))) | Err(problem) => problem,
            Ok(Err(Refused::Full(what))) => return Err(full(source, what)),
        };
        match self.push_nobody() {
            Err(Refused::Full(what) | Refused::Contradiction(what)) => Err(full(source, what)),
            Ok(()) => Ok(Some(problem).filter(|_| self.people == People::Needed)),
        }
    }

    /// Number of items, those left out included.
    pub fn len(&self) -> usize {
        self.whose.len()
    }

    /// Whether all items are left out.
    pub fn is_nobody(&self) -> bool {
        self.whose.len() as u64
            == match self.people {
                People::Needed => self.n_unknown,
                People::Optional => self.n_gaps,
            }
    }

    fn count(&mut self, id: u32) -> Result<(), Refused> {
        if self.whose.len() >= u32::MAX as usize {
            return Err(Refused::Full(format!("more than {} images", u32::MAX)));
        }
        self.whose.push(id);
        Ok(())
    }

    /// The identity of a name, which is new if need be.
    fn named(&mut self, name: &str) -> Result<u32, Refused> {
        let composed: String;
        let key = if is_nfc(name) {
            name
        } else {
            composed = name.nfc().collect();
            &composed
        };
        let Some(&id) = self.by_name.get(key) else {
            let id = self.add(Some(name))?;
            self.by_name.insert(key.into(), id);
            return Ok(id);
        };
        let identity = &mut self.identities[id as usize];
        if identity.name.as_deref().is_some_and(|first| first != name) && !identity.is_respelled {
            identity.is_respelled = true;
            self.respelled.get_or_insert_with(|| (key.to_owned(), 0)).1 += 1;
        }
        Ok(id)
    }

    fn both(&mut self, number: u64, name: &str) -> Result<u32, Refused> {
        let of_number = self.by_number.get(&number).copied();
        let of_name = self.by_name.get(composed(name).as_str()).copied();
        let of = |id: u32| &self.identities[id as usize];
        match (of_number, of_name) {
            (Some(a), Some(b)) if a == b => self.named(name),
            (None, Some(id)) if of(id).number.is_none() => {
                self.number(id, number);
                self.named(name)
            }
            (_, Some(id)) if of(id).number.is_some() => {
                let before = of(id).number.unwrap_or_default();
                let problem = format!("`{name}` has label {number} here and {before} before");
                Err(Refused::Contradiction(problem))
            }
            (Some(id), None) if of(id).name.is_none() => {
                self.identities[id as usize].name = Some(name.into());
                let key: String = name.nfc().collect();
                self.by_name.insert(key.as_str().into(), id);
                Ok(id)
            }
            (Some(id), _) => {
                let before = of(id).name();
                let problem =
                    format!("label {number} is that of `{name}` here and `{before}` before");
                Err(Refused::Contradiction(problem))
            }
            (None, _) => {
                let id = self.named(name)?;
                self.number(id, number);
                Ok(id)
            }
        }
    }

    fn number(&mut self, id: u32, number: u64) {
        self.identities[id as usize].number = Some(number);
        self.by_number.insert(number, id);
    }

    fn add(&mut self, name: Option<&str>) -> Result<u32, Refused> {
        let id = u32::try_from(self.identities.len()).ok().filter(|id| is_known(*id));
        let id = id.ok_or_else(|| Refused::Full(format!("more than {GAP} identities")))?;
        let name = name.map(Arc::from);
        self.identities.push(Identity { name, number: None, exponent: None, is_respelled: false });
        Ok(id)
    }

    /// Gives identities their labels: in the order of their numbers if all have one, else in byte
    /// order of their names. Warns on behalf of `source` where numbers do not count from 0 without
    /// gaps, where numbers and names are mixed, and where a name is spelled in two ways.
    ///
    /// * `n_images`: of every item
    pub fn seal(mut self, source: &str, n_images: impl Fn(usize) -> u64) -> Sealed {
        self.settle_exponents();
        if let Some((name, n)) = &self.respelled {
            let names = units::of(*n, "name");
            tracing::warn!(
                "{source}: {names} spelled in two ways of Unicode (NFC and NFD), such as `{name}`: \
                 both spellings are taken for one identity"
            );
        }
        let numbers: Option<Vec<u64>> = self.identities.iter().map(|i| i.number).collect();
        match numbers {
            Some(mut numbers) => {
                numbers.sort_unstable();
                warn_of_gaps(source, &numbers);
            }
            None => self.warn_of_mixture(source),
        }
        self.seal_quietly(n_images)
    }

    /// [`seal`](Catalogue::seal) where identities are needed, else without a word.
    pub fn seal_for(self, people: People, source: &str, n_images: impl Fn(usize) -> u64) -> Sealed {
        match people {
            People::Needed => self.seal(source, n_images),
            People::Optional => self.seal_quietly(n_images),
        }
    }

    /// The same without a word, where numbers are not those of the source.
    pub fn seal_quietly(mut self, n_images: impl Fn(usize) -> u64) -> Sealed {
        self.settle_exponents();
        let by_label = by_label(&self.identities);
        let Catalogue { whose, identities, people, .. } = self;
        // By identity: items and images.
        let mut counts = vec![(0_u32, 0_u64); identities.len()];
        for (item, id) in whose.iter().enumerate().filter(|(_, id)| is_known(**id)) {
            let (items, images) = &mut counts[*id as usize];
            *items += 1;
            *images += n_images(item);
        }
        let mut index = Index::default();
        let mut next = vec![0_u32; identities.len()];
        let mut total = 0;
        // One that others were joined with has no items.
        for &id in by_label.iter().filter(|id| counts[**id as usize].0 > 0) {
            let (items, images) = counts[id as usize];
            next[id as usize] = total;
            total += items;
            index.push(identities[id as usize].name(), images);
        }
        let mut order = vec![0; total as usize];
        for (item, id) in (0..).zip(&whose).filter(|(_, id)| is_known(**id)) {
            let place = &mut next[*id as usize];
            order[*place as usize] = item;
            *place += 1;
        }
        if people == People::Optional {
            let unknown = (0..).zip(&whose).filter(|(_, id)| **id == NOBODY).map(|(item, _)| item);
            order
                .extend(unknown.inspect(|item: &u32| index.push_unknown(n_images(*item as usize))));
        }
        Sealed { index, order }
    }

    /// Numbers with an exponent become numbers if all labels are, and else stay names.
    fn settle_exponents(&mut self) {
        let is_name = |i: &Identity| i.number.is_none() && i.exponent.is_none();
        if self.identities.iter().any(is_name) {
            return;
        }
        let mut now: Vec<u32> = (0..self.identities.len() as u32).collect();
        let mut has_moved = false;
        for (id, identity) in (0..).zip(&mut self.identities) {
            let (None, Some(number)) = (identity.number, identity.exponent.take()) else {
                continue;
            };
            identity.name = None;
            identity.number = Some(number);
            now[id as usize] = *self.by_number.entry(number).or_insert(id);
            has_moved = true;
        }
        if has_moved {
            let ids = self.whose.iter_mut().filter(|id| is_known(**id));
            ids.for_each(|id| *id = now[*id as usize]);
        }
    }

    fn warn_of_mixture(&self, source: &str) {
        let words = || self.identities.iter().filter(|i| i.number.is_none());
        let n_words = words().count() as u64;
        let n_numbers = self.identities.len() as u64 - n_words;
        let Some(first) = words().next().filter(|_| n_numbers > 0) else { return };
        tracing::warn!(
            "{source}: {} and {} (such as `{}`) are mixed: all are taken as names, whose labels \
             follow their byte order, so that `10` comes before `2`",
            units::of(n_numbers, "numeric label"),
            units::of(n_words, "name"),
            first.name()
        );
    }
}

fn full(source: &str, what: String) -> SourceError {
    SourceError::TooMany { path: source.to_owned(), what }
}

/// The identities in the order of their labels.
fn by_label(identities: &[Identity]) -> Vec<u32> {
    let mut by_label: Vec<u32> = (0..identities.len() as u32).collect();
    let identity = |id: &u32| &identities[*id as usize];
    if identities.iter().all(|identity| identity.number.is_some()) {
        by_label.sort_by_key(|id| identity(id).number);
    } else {
        by_label.sort_by_cached_key(|id| identity(id).name());
    }
    by_label
}

/// A name as it is compared with others: composed (NFC), since the same is written in two ways.
pub fn composed(name: &str) -> String {
    name.nfc().collect()
}

/// Says that numbers do not count from 0 without gaps.
///
/// * `sorted`: ascending; equal ones count once
pub fn warn_of_gaps(source: &str, sorted: &[u64]) {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return };
    let n = sorted.chunk_by(|a, b| a == b).count() as u64;
    if *first == 0 && *last == n - 1 {
        return;
    }
    tracing::warn!(
        "{source}: the labels {first} to {last} do not count from 0 without gaps: they become 0 to \
         {} in their order, and the identities' names say what they were",
        n - 1
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(labels: &[&str]) -> (Vec<String>, Vec<u32>) {
        let mut catalogue = Catalogue::default();
        for label in labels {
            catalogue.push_or_leave_out("list", Who::parse(Some(label), None)).unwrap();
        }
        let Sealed { index, order } = catalogue.seal("list", |_| 1);
        (index.identities().map(str::to_owned).collect(), order)
    }

    #[test]
    fn integers_keep_their_order_and_names_get_byte_order() {
        let (names, order) = sealed(&["10", "2", "16777217", "2", "16777216"]);
        assert_eq!(names, ["2", "10", "16777216", "16777217"]);
        assert_eq!(order, [1, 3, 0, 4, 2]);
        let (names, order) = sealed(&["10", "2", "b", "", "2", "-1"]);
        assert_eq!(names, ["10", "2", "b"]);
        assert_eq!(order, [0, 1, 4, 2]);
    }

    #[test]
    fn images_without_an_identity_come_last_where_identities_are_optional() {
        let mut catalogue = Catalogue::of(People::Optional);
        for label in ["7", "", "3", "nan", "7"] {
            let problem = catalogue.push_or_leave_out("list", Who::parse(Some(label), None));
            assert_eq!(problem.unwrap(), None);
        }
        let Sealed { index, order } = catalogue.seal("list", |_| 1);
        assert_eq!(order, [2, 0, 4, 1, 3]);
        let who: Vec<Option<u32>> = (0..5).map(|entry| index.who(entry)).collect();
        assert_eq!(who, [Some(0), Some(1), Some(1), None, None]);
        let mut nobody = Catalogue::of(People::Optional);
        assert!(nobody.is_nobody());
        nobody.push_gap("list").unwrap();
        assert!(nobody.is_nobody());
        nobody.push_nobody().unwrap();
        assert!(!nobody.is_nobody());
        let Sealed { index, order } = nobody.seal_quietly(|_| 1);
        assert_eq!((index.len(), order), (1, vec![1]));
    }

    #[test]
    fn floats_are_the_integers_that_they_are() {
        let (names, order) = sealed(&["10.0", "2.0", "nan", "2", "-1.0", "1e1", "+2"]);
        assert_eq!(names, ["2", "10"]);
        assert_eq!(order, [1, 3, 6, 0, 5]);
    }

    #[test]
    fn an_exponent_among_names_is_part_of_a_name() {
        let (names, order) = sealed(&["1e3", "1000", "ab4", "1e3"]);
        assert_eq!(names, ["1000", "1e3", "ab4"]);
        assert_eq!(order, [1, 0, 3, 2]);
        let (names, order) = sealed(&["1e3", "7", "1e3", "1000"]);
        assert_eq!(names, ["7", "1000"]);
        assert_eq!(order, [1, 0, 2, 3]);
    }

    #[test]
    fn two_spellings_of_a_name_are_one_identity() {
        let (names, order) = sealed(&["Jose\u{301}", "Ann", "Jos\u{e9}", "Jose"]);
        assert_eq!(names, ["Ann", "Jose", "Jose\u{301}"]);
        assert_eq!(order, [1, 3, 0, 2]);
    }

    #[test]
    fn a_name_beside_a_number_takes_the_place_of_the_number() {
        let mut catalogue = Catalogue::default();
        for (number, name) in [(1, "a"), (0, "b"), (1, "a")] {
            catalogue.push(Who::Both(number, name.into())).unwrap();
        }
        let Sealed { index, order } = catalogue.seal("list", |_| 1);
        assert_eq!(index.identities().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(order, [1, 0, 2]);
    }

    #[test]
    fn labels_and_names_given_apart_meet() {
        let mut catalogue = Catalogue::default();
        let both = |number, name: &str| Who::Both(number, name.into());
        let items =
            [Who::Number(1), both(1, "a"), both(0, "b"), Who::Name("b".into()), Who::Number(0)];
        for who in items {
            catalogue.push(who).unwrap();
        }
        let Sealed { index, order } = catalogue.seal("list", |_| 1);
        assert_eq!(index.identities().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(order, [2, 3, 4, 0, 1]);
    }

    #[test]
    fn an_item_that_contradicts_others_is_left_out_alone() {
        let mut catalogue = Catalogue::default();
        catalogue.push(Who::Both(4, "b".into())).unwrap();
        let mut problem = |number, name: &str| {
            let who = Ok(Who::Both(number, name.into()));
            catalogue.push_or_leave_out("list", who).unwrap().unwrap()
        };
        assert_eq!(problem(2, "b"), "`b` has label 2 here and 4 before");
        assert_eq!(problem(4, "a"), "label 4 is that of `a` here and `b` before");
        let Sealed { index, order } = catalogue.seal("list", |_| 1);
        assert_eq!((index.len(), order), (1, vec![0]));
    }

    #[test]
    fn items_may_hold_several_images() {
        let mut catalogue = Catalogue::default();
        for name in ["b", "a", "b"] {
            catalogue.push(Who::Name(name.into())).unwrap();
        }
        let Sealed { index, order } = catalogue.seal("list", |item| [5, 2, 1][item]);
        assert_eq!((index.len(), order), (8, vec![1, 0, 2]));
        assert_eq!([index.label(1), index.label(2), index.label(7)], [0, 1, 1]);
    }
}
