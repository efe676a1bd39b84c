//! What people look at: pages of HTML that need nothing else, tables and charts on them, and sheets of
//! faces. This crate draws what it is given; it reads no data set and computes no figure.

pub mod bars;
mod cells;
pub mod chart;
mod error;
pub mod html;
mod page;
pub mod sheet;
mod text;

pub use cells::{Table, breakable, dash, interval, percent, points, share, small, whisker};
pub use error::ReportError;
pub use page::Page;
