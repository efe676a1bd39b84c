//! What a finding is about, and what may be answered to it.

use crate::Action;

/// What findings of one reason are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An image by itself: too small, blurred, blank, undecodable, one of too many.
    Image,
    /// An image that another of its identity is a copy of.
    Copy,
    /// Images of several identities that are one picture.
    Picture,
    /// An image and the identity that it seems to belong to.
    Label,
    /// An image that is unlike the rest of its identity.
    Stranger,
    /// Images of an identity that are like one another, but unlike the rest.
    SecondPerson,
    /// Two identities that seem to be one person.
    SamePerson,
    /// An identity and a face of a benchmark.
    Overlap,
}

impl Kind {
    /// The kind of a finding by its reason; a reason that is not known is about an image.
    pub fn of(finding: &str) -> Kind {
        match finding {
            "same_bytes" | "same_pixels" | "near_duplicate" | "exact_duplicate" => Kind::Copy,
            "one_picture_two_names" => Kind::Picture,
            "label_error" => Kind::Label,
            "outlier" => Kind::Stranger,
            "second_person" => Kind::SecondPerson,
            "same_person" => Kind::SamePerson,
            "benchmark_overlap" => Kind::Overlap,
            _ => Kind::Image,
        }
    }

    /// What may be answered; with a target, `relabel` as well.
    pub fn answers(self, has_target: bool) -> &'static [Action] {
        use Action::{Different, Drop, Keep, Merge, Relabel};
        match (self, has_target) {
            (Kind::Image, false) => &[Keep, Drop],
            (Kind::Image, true) => &[Keep, Drop, Relabel],
            (Kind::Copy, false) | (Kind::Overlap, _) => &[Keep, Drop, Different],
            (Kind::Copy, true) => &[Keep, Drop, Relabel, Different],
            (Kind::Stranger, false) => &[Keep, Drop, Merge, Different],
            _ => &[Keep, Drop, Relabel, Merge, Different],
        }
    }

    /// The answer that says that the finding is right.
    pub fn suggestion(self) -> Action {
        match self {
            Kind::Label => Action::Relabel,
            Kind::SamePerson => Action::Merge,
            _ => Action::Drop,
        }
    }

    /// What is asked.
    pub fn question(self) -> &'static str {
        match self {
            Kind::Image => "Is the image of use?",
            Kind::Copy => "Are the two images copies of one picture?",
            Kind::Picture => "The images show one picture under several names: whose is it?",
            Kind::Label => "Does the image show the person of the target identity?",
            Kind::Stranger => "Does the image show another person than the rest of its identity?",
            Kind::SecondPerson => {
                "Do the images show another person than the rest of their identity?"
            }
            Kind::SamePerson => "Are the two identities one person?",
            Kind::Overlap => "Is the identity the person of the benchmark's face?",
        }
    }

    /// Whether its score is a cosine.
    pub fn is_cosine(self) -> bool {
        !matches!(self, Kind::Image | Kind::Copy | Kind::Picture)
    }
}
