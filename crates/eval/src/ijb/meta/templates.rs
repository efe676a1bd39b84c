//! Template ids and their places.

/// Where a template id stands in a rising list of ids.
#[derive(Debug)]
pub struct TemplateIndex {
    ids: Vec<u64>,
    /// By id, for ids that are dense enough; `u32::MAX` where there is none.
    direct: Vec<u32>,
}

impl TemplateIndex {
    /// `ids` rise.
    pub fn new(ids: Vec<u64>) -> TemplateIndex {
        let mut direct = Vec::new();
        let last = ids.last().copied().unwrap_or(0);
        if last < (1 << 20) + 16 * ids.len() as u64 {
            direct = vec![u32::MAX; last as usize + 1];
            for (row, &id) in ids.iter().enumerate() {
                direct[id as usize] = row as u32;
            }
        }
        TemplateIndex { ids, direct }
    }

    /// Number of templates.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The place of `id`.
    pub fn row(&self, id: u64) -> Option<u32> {
        if self.direct.is_empty() {
            return self.ids.binary_search(&id).ok().map(|row| row as u32);
        }
        self.direct.get(id as usize).copied().filter(|&row| row != u32::MAX)
    }

    pub(super) fn known(&self, id: u64) -> Result<u32, String> {
        self.row(id).ok_or_else(|| format!("template {id} has no face in the list of faces"))
    }
}
