//! Many short texts in one piece of memory.

/// Texts by number. Memory: their bytes, and 8 bytes each.
#[derive(Debug, Default)]
pub struct Names {
    text: String,
    ends: Vec<u64>,
}

impl Names {
    /// Adds the next text.
    pub fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len() as u64);
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text with number `i`, which must be below [`len`](Names::len).
    pub fn get(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start as usize..self.ends[i] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_back_by_its_number() {
        let mut names = Names::default();
        ["a/1.jpg", "", "é", "z"].into_iter().for_each(|name| names.push(name));
        let all: Vec<&str> = (0..4).map(|i| names.get(i)).collect();
        assert_eq!(all, ["a/1.jpg", "", "é", "z"]);
    }
}
