//! At which place of the store each row lies.

use crate::{HeadError, centres::memory::Memory};

/// The place of every row. The entry of a row takes memory once it is set.
#[derive(Debug)]
pub(super) struct Places {
    /// 1 + the place; 0 for none.
    table: Memory,
}

impl Places {
    /// A table in which no row has a place yet.
    pub fn new(n_rows: usize) -> Result<Places, HeadError> {
        Memory::anonymous(n_rows, size_of::<u32>()).map(|table| Places { table })
    }

    /// The place of `row`, if it has one.
    #[inline(always)]
    pub fn of(&self, row: usize) -> Option<u32> {
        self.table.as_slice::<u32>()[row].checked_sub(1)
    }

    /// Gives `row` a place.
    pub fn set(&mut self, row: usize, place: u32) {
        self.table.as_mut_slice::<u32>()[row] = place + 1;
    }
}
