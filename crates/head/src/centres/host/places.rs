//! Where each row lies.

use crate::{HeadError, centres::memory::Memory};

/// The place of every row: one number each, which costs nothing before it is set.
#[derive(Debug)]
pub(super) struct Places {
    /// 1 + the place; 0 for none.
    table: Memory,
}

impl Places {
    /// No row has a place.
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
