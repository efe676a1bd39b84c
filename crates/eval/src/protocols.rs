//! What a complete download of a benchmark holds: `data/protocols`.

use serde::Deserialize;

/// Counts of IJB-B or IJB-C.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IjbFacts {
    /// As papers write it.
    pub name: String,
    /// Faces in the meta lists.
    pub faces: usize,
    /// Templates of those faces.
    pub templates: usize,
    /// Template pairs of the 1:1 protocol.
    pub pairs: usize,
    /// Those of one person.
    pub genuine: usize,
    /// Names of the two galleries.
    pub galleries: Vec<String>,
    /// Templates of each gallery, where published.
    #[serde(default)]
    pub gallery_templates: Vec<usize>,
    /// Probe templates, where published.
    pub probe_templates: Option<usize>,
}

/// Counts of MegaFace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MegaFaceFacts {
    /// As papers write it.
    pub name: String,
    /// Probe images.
    pub probes: usize,
    /// People among the probes.
    pub people: usize,
    /// Distractors of the largest gallery.
    pub distractors: usize,
}

/// The facts of IJB-B.
pub fn ijbb() -> IjbFacts {
    parse(include_str!("../../../data/protocols/ijbb.toml"))
}

/// The facts of IJB-C.
pub fn ijbc() -> IjbFacts {
    parse(include_str!("../../../data/protocols/ijbc.toml"))
}

/// The facts of MegaFace.
pub fn megaface() -> MegaFaceFacts {
    parse(include_str!("../../../data/protocols/megaface.toml"))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).expect("the files are part of the program, and a test reads each")
}

/// What is not as in the complete benchmark: `"4000 faces of 469375"`.
pub fn differences(counts: &[(&str, usize, usize)]) -> Vec<String> {
    let differ = counts.iter().filter(|(_, found, expected)| found != expected);
    differ.map(|(what, found, expected)| format!("{found} {what} of {expected}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_facts_are_read() {
        assert_eq!((ijbb().genuine, ijbb().galleries[0].as_str()), (10_270, "S1"));
        assert_eq!((ijbc().pairs, ijbc().gallery_templates[1]), (15_658_489, 1_759));
        assert_eq!(megaface().probes, 3_530);
    }

    #[test]
    fn only_differences_are_told() {
        let found = differences(&[("faces", 3, 3), ("pairs", 1, 2)]);
        assert_eq!(found, ["1 pairs of 2"]);
    }
}
