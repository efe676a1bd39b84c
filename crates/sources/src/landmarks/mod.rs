//! Lists of facial landmarks: one image a line, in the layouts that are around; and which landmarks
//! the images of a source are cut out by.

mod alignment;
mod error;
mod header;
mod layout;
mod list;
mod table;

pub use alignment::{AlignOptions, Alignment};
pub use error::{BadLine, LandmarkError};
pub use layout::LandmarkFormat;
pub use list::{LandmarkList, Marks, no_line};
pub use table::LandmarkTable;
