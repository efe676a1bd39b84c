//! Lists of facial landmarks: one image a line, in the layouts that are around.

mod error;
mod header;
mod layout;
mod list;
mod table;

pub use error::{BadLine, LandmarkError};
pub use layout::LandmarkFormat;
pub use list::{LandmarkList, Marks, no_line};
pub use table::LandmarkTable;
