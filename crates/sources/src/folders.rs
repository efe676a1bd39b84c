//! Identities by the folders that images lie in, on a disk or in an archive.

use std::collections::{BTreeMap, HashSet};

use pfc_cli::units;

use crate::{error::SourceError, label::Who};

/// Folders of one name in different parts of a tree, such as `train/ann` and `val/ann`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parts {
    /// Are identities of their own.
    #[default]
    Apart,
    /// Are one identity, called as the folders are.
    Joined,
}

/// Whom the images of a folder show.
pub fn who(path: &str, parts: Parts) -> Result<Who, String> {
    match (path.rsplit_once('/'), parts) {
        (None, _) => Who::parse(Some(path), None),
        (Some((_, last)), Parts::Joined) => Who::parse(Some(last), None),
        // A number that other parts may have as well; but what stands for nobody does so everywhere.
        (Some((_, last)), Parts::Apart) => {
            Who::parse(Some(last), None).map(|_| Who::Name(path.into()))
        }
    }
}

/// Refuses an identity folder inside another.
///
/// * `dirs`: the folders that hold images
///
/// # Errors
///
/// [`SourceError::NestedIdentity`].
pub fn check_nesting<'a>(
    dirs: impl IntoIterator<Item = &'a str> + Clone,
) -> Result<(), SourceError> {
    let all: HashSet<&str> = dirs.clone().into_iter().collect();
    for inner in &all {
        let mut above = inner.match_indices('/').map(|(i, _)| &inner[..i]);
        if let Some(outer) = above.find(|outer| all.contains(outer)) {
            // The first by name, since a set has no order.
            let mut pairs = dirs
                .into_iter()
                .filter(|dir| dir.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/')));
            let inner = pairs.next().unwrap_or(*inner);
            let (outer, inner) = (outer.to_owned(), inner.to_owned());
            return Err(SourceError::NestedIdentity { outer, inner });
        }
    }
    Ok(())
}

/// Says on behalf of `source` that folders of one name lie in different places.
pub fn warn_of_parts<'a>(source: &str, dirs: impl IntoIterator<Item = &'a str>) {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (place, name) in dirs.into_iter().filter_map(|dir| dir.rsplit_once('/')) {
        places.entry(name).or_default().push(place);
    }
    places.retain(|_, places| places.len() > 1);
    let Some((name, [first, second, ..])) = places.first_key_value().map(|(n, p)| (n, &p[..]))
    else {
        return;
    };
    tracing::warn!(
        "{source}: {} in several folders, such as `{name}` in {first} and {second}: each is an \
         identity of its own, so that a person has two labels; --join-parts makes those of one name \
         one",
        units::of(places.len() as u64, "name")
    );
}

/// How many bytes of the paths of `dirs`, the slash included, name folders that all of them lie in: what
/// was packed into an archive together with the identities. The last part of a path is an identity,
/// unless others lie in it.
pub fn wrapper<'a>(dirs: impl IntoIterator<Item = &'a str>) -> usize {
    let mut dirs = dirs.into_iter();
    let Some(first) = dirs.next() else { return 0 };
    let is_one = |n: usize, dir: &str| {
        dir.as_bytes().get(..n) == first.as_bytes().get(..n)
            && matches!(dir.as_bytes().get(n), None | Some(b'/'))
    };
    let (mut common, mut n_dirs) = (first.len(), 1);
    for dir in dirs {
        n_dirs += 1;
        while common > 0 && !is_one(common, dir) {
            common = first[..common].rfind('/').unwrap_or(0);
        }
    }
    match (common, n_dirs) {
        (0, _) => 0,
        (_, 1) => first.rfind('/').map_or(0, |slash| slash + 1),
        (common, _) => common + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_above_all_identities_are_a_wrapper() {
        for (dirs, expected) in [
            (&["a", "b"][..], 0),
            (&["faces/a", "faces/b"], 6),
            (&["x/faces/a", "x/faces/b"], 8),
            (&["x/a", "x/b/c"], 2),
            (&["ann", "anna"], 0),
            (&["x/ann", "x/anna"], 2),
            // One identity, and loose images beside identities.
            (&["faces/a"], 6),
            (&["a"], 0),
            (&["faces", "faces/a"], 6),
            (&["", "a"], 0),
            (&[], 0),
        ] {
            assert_eq!(wrapper(dirs.iter().copied()), expected, "{dirs:?}");
        }
    }
}
