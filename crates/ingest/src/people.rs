//! Identities by the names that users give.

use pfc_findings::View;

use crate::IngestError;

/// Least Jaro-Winkler similarity, from 0 to 1, at which a name is suggested.
const SIMILAR: f64 = 0.8;

/// The label of the identity called `name`.
///
/// * `place`: the option, or file and line, that names it
///
/// # Errors
///
/// [`IngestError::NoSuchIdentity`] with the most similar name.
pub fn label_of(
    view: &View,
    name: &str,
    place: impl FnOnce() -> String,
) -> Result<u32, IngestError> {
    let people = view.people();
    people.label_of(name).ok_or_else(|| {
        let likeness = |label| (strsim::jaro_winkler(people.name(label), name), label);
        let nearest = (0..view.n_identities()).map(likeness).max_by(|a, b| a.0.total_cmp(&b.0));
        let nearest = nearest.filter(|(likeness, _)| *likeness > SIMILAR);
        let nearest = nearest.map(|(_, label)| people.name(label).to_owned());
        IngestError::NoSuchIdentity { place: place(), name: name.to_owned(), nearest }
    })
}
