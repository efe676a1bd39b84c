//! From labels as a source states them, name or number, to identities in the order of their labels.

use std::{collections::HashMap, iter, sync::Arc};

use crate::{error::SourceError, index::Index};

/// In place of the identity of an item that has none.
const NOBODY: u32 = u32::MAX;

/// Who an image shows, as its source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A class number, which is the name as well.
    Number(u64),
    /// A name.
    Name(Box<str>),
    /// A name, and the number that gives it its place.
    Both(u64, Box<str>),
}

impl Who {
    /// Reads what a label column, an identity column or both hold. Only a number as it is usually
    /// written is a number: `007` is a name.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(label: Option<&str>, identity: Option<&str>) -> Result<Who, String> {
        match (label.map(str::trim), identity.map(str::trim)) {
            (None, None) => Err("there is no label".into()),
            (Some(""), _) | (_, Some("")) => Err("the label is empty".into()),
            (Some(text), None) | (None, Some(text)) => match number(text)? {
                Some(number) => Ok(Who::Number(number)),
                None => Ok(Who::Name(text.into())),
            },
            (Some(label), Some(identity)) => match number(label)? {
                Some(number) => Ok(Who::Both(number, identity.into())),
                None => Err(format!("label `{label}` beside identity `{identity}` is no integer")),
            },
        }
    }
}

/// The class that a text is, if it is one.
fn number(text: &str) -> Result<Option<u64>, String> {
    let is_integer = |digits: &str| {
        !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'))
    };
    if text.strip_prefix('-').is_some_and(is_integer) {
        return Err(format!("label {text} is negative, so the image is nobody's"));
    }
    // An integer beyond 64 bits is a name like any other.
    Ok(is_integer(text).then(|| text.parse().ok()).flatten())
}

/// Images in the order in which they are found, each with its identity.
///
/// Memory: 4 bytes per image, and per identity about 40 and its name.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Identity of every item.
    whose: Vec<u32>,
    identities: Vec<Identity>,
    by_name: HashMap<Arc<str>, u32>,
    by_number: HashMap<u64, u32>,
}

#[derive(Debug)]
struct Identity {
    /// Without a name it is the number.
    name: Option<Arc<str>>,
    number: Option<u64>,
}

impl Identity {
    fn name(&self) -> String {
        match (&self.name, self.number) {
            (Some(name), _) => name.as_ref().to_owned(),
            (None, number) => number.unwrap_or_default().to_string(),
        }
    }
}

/// A finished catalogue.
pub struct Sealed {
    /// Identities by label; images have no names of their own.
    pub index: Index,
    /// The item that each entry of the index is.
    pub order: Vec<u32>,
}

impl Catalogue {
    /// Adds the next item.
    ///
    /// # Errors
    ///
    /// Why it cannot be added: a name with two numbers, or more items than can be counted.
    pub fn push(&mut self, who: Who) -> Result<(), String> {
        let id = match who {
            Who::Number(number) => match self.by_number.get(&number) {
                Some(&id) => id,
                None => self.add(None, Some(number))?,
            },
            Who::Name(name) => self.named(&name, None)?,
            Who::Both(number, name) => self.named(&name, Some(number))?,
        };
        self.count(id)
    }

    /// Adds an item that is left out, so that the numbers of the others stay right.
    ///
    /// # Errors
    ///
    /// That there are more items than can be counted.
    pub fn push_nobody(&mut self) -> Result<(), String> {
        self.count(NOBODY)
    }

    /// Number of items, those left out included.
    pub fn len(&self) -> usize {
        self.whose.len()
    }

    fn count(&mut self, id: u32) -> Result<(), String> {
        if self.whose.len() >= u32::MAX as usize {
            return Err(format!("more than {} images", u32::MAX));
        }
        self.whose.push(id);
        Ok(())
    }

    fn named(&mut self, name: &str, number: Option<u64>) -> Result<u32, String> {
        let Some(&id) = self.by_name.get(name) else {
            return self.add(Some(name.into()), number);
        };
        match (number, self.identities[id as usize].number) {
            (a, b) if a == b => Ok(id),
            (Some(a), Some(b)) => Err(format!("`{name}` has label {a} here and {b} before")),
            _ => Err(format!("`{name}` is given with a label here and without one there")),
        }
    }

    fn add(&mut self, name: Option<Arc<str>>, number: Option<u64>) -> Result<u32, String> {
        let id = u32::try_from(self.identities.len()).ok().filter(|id| *id != NOBODY);
        let id = id.ok_or_else(|| format!("more than {NOBODY} identities"))?;
        match (&name, number) {
            (Some(name), _) => drop(self.by_name.insert(Arc::clone(name), id)),
            (None, Some(number)) => drop(self.by_number.insert(number, id)),
            (None, None) => {}
        }
        self.identities.push(Identity { name, number });
        Ok(id)
    }

    /// As [`seal_with_gaps`](Catalogue::seal_with_gaps), with a warning on behalf of `source` where
    /// numbers do not count from 0 without gaps.
    ///
    /// # Errors
    ///
    /// [`SourceError::Input`] if two names have one number.
    pub fn seal(self, source: &str) -> Result<Sealed, SourceError> {
        let numbers: Option<Vec<u64>> = self.identities.iter().map(|i| i.number).collect();
        let sealed = self.seal_with_gaps(source)?;
        if let Some(mut numbers) = numbers {
            numbers.sort_unstable();
            warn_of_gaps(source, &numbers);
        }
        Ok(sealed)
    }

    /// Gives identities their labels: in the order of their numbers if all have one, else in byte
    /// order of their names.
    ///
    /// # Errors
    ///
    /// [`SourceError::Input`] if two names have one number.
    pub fn seal_with_gaps(self, source: &str) -> Result<Sealed, SourceError> {
        let Catalogue { whose, identities, .. } = self;
        let by_label = by_label(&identities, source)?;
        let mut counts = vec![0_u32; identities.len()];
        whose.iter().filter(|id| **id != NOBODY).for_each(|id| counts[*id as usize] += 1);
        let mut index = Index::default();
        let mut next = vec![0_u32; identities.len()];
        let mut total = 0;
        for &id in &by_label {
            let count = counts[id as usize];
            next[id as usize] = total;
            total += count;
            index.push(identities[id as usize].name(), iter::repeat_n("", count as usize));
        }
        index.seal_in_order();
        let mut order = vec![0; total as usize];
        for (item, id) in (0..).zip(whose).filter(|(_, id)| *id != NOBODY) {
            let place = &mut next[id as usize];
            order[*place as usize] = item;
            *place += 1;
        }
        Ok(Sealed { index, order })
    }
}

/// The identities in the order of their labels.
fn by_label(identities: &[Identity], source: &str) -> Result<Vec<u32>, SourceError> {
    let mut by_label: Vec<u32> = (0..identities.len() as u32).collect();
    let identity = |id: &u32| &identities[*id as usize];
    if identities.iter().any(|identity| identity.number.is_none()) {
        by_label.sort_by_cached_key(|id| identity(id).name());
        return Ok(by_label);
    }
    by_label.sort_by_key(|id| identity(id).number);
    for pair in by_label.windows(2) {
        let [a, b] = [identity(&pair[0]), identity(&pair[1])];
        if a.number == b.number {
            let label = a.number.unwrap_or_default();
            let mut names = [a.name(), b.name()];
            names.sort();
            let [first, second] = names;
            let path = source.to_owned();
            return Err(SourceError::LabelOfTwo { path, label, first, second });
        }
    }
    Ok(by_label)
}

fn warn_of_gaps(source: &str, sorted: &[u64]) {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return };
    if sorted.iter().copied().eq(0..sorted.len() as u64) {
        return;
    }
    let top = sorted.len() - 1;
    tracing::warn!(
        "{source}: the labels {first} to {last} do not count from 0 without gaps: they become 0 to \
         {top} in their order, and the identities' names say what they were"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(labels: &[&str]) -> (Vec<String>, Vec<u32>) {
        let mut catalogue = Catalogue::default();
        for label in labels {
            match Who::parse(Some(label), None) {
                Ok(who) => catalogue.push(who).unwrap(),
                Err(_) => catalogue.push_nobody().unwrap(),
            }
        }
        let Sealed { index, order } = catalogue.seal("list").unwrap();
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
    fn only_plain_integers_are_numbers() {
        let parse = |text| Who::parse(Some(text), None);
        assert_eq!(parse(" 18446744073709551615 "), Ok(Who::Number(u64::MAX)));
        for name in ["18446744073709551616", "007", "+1", "1.0", "-x", "１"] {
            assert_eq!(parse(name), Ok(Who::Name(name.into())));
        }
        assert!(parse("-1").unwrap_err().contains("negative"));
        assert!(parse(" ").unwrap_err().contains("empty"));
        assert_eq!(Who::parse(Some("3"), Some("007")), Ok(Who::Both(3, "007".into())));
        assert!(Who::parse(Some("x"), Some("y")).unwrap_err().contains("no integer"));
    }

    #[test]
    fn a_name_beside_a_number_takes_the_place_of_the_number() {
        let mut catalogue = Catalogue::default();
        for (number, name) in [(1, "a"), (0, "b"), (1, "a")] {
            catalogue.push(Who::Both(number, name.into())).unwrap();
        }
        let clash = catalogue.push(Who::Both(2, "a".into())).unwrap_err();
        assert_eq!(clash, "`a` has label 2 here and 1 before");
        let Sealed { index, order } = catalogue.seal("list").unwrap();
        assert_eq!(index.identities().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(order, [1, 0, 2]);
    }

    #[test]
    fn two_names_of_one_number_are_refused() {
        let mut catalogue = Catalogue::default();
        catalogue.push(Who::Both(4, "b".into())).unwrap();
        catalogue.push(Who::Both(4, "a".into())).unwrap();
        let error = catalogue.seal("list").err().unwrap();
        assert_eq!(error.to_string(), "list: label 4 is given to `a` and to `b`");
    }
}
