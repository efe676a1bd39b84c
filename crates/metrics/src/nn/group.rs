//! What groups of faces hold.

/// How many faces, people and pairs a group has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Group {
    /// Faces.
    pub n_faces: u64,
    /// People.
    pub n_identities: u64,
    /// Pairs of two faces of one person.
    pub n_genuine: u64,
    /// Pairs of two people.
    pub n_impostors: u64,
}

impl Group {
    pub(super) fn add_person(&mut self, n_faces: u64) {
        self.n_impostors += self.n_faces * n_faces;
        self.n_faces += n_faces;
        self.n_identities += 1;
        self.n_genuine += n_faces * n_faces.saturating_sub(1) / 2;
    }

    pub(super) fn of_all(groups: &[Group]) -> Group {
        let mut all = Group::default();
        for group in groups {
            all.n_impostors += group.n_impostors + all.n_faces * group.n_faces;
            all.n_faces += group.n_faces;
            all.n_identities += group.n_identities;
            all.n_genuine += group.n_genuine;
        }
        all
    }
}
