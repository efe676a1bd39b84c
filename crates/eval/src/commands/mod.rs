//! The program's subcommands, one file each.

pub mod compare;
pub mod document;
pub mod embed;
pub mod ijb;
pub(crate) mod ijb_table;
pub mod megaface;
mod megaface_features;
pub mod model;
pub mod nn;
pub mod pairs;
pub mod protocol;
pub mod report;
mod scores;
pub mod source;
pub(crate) mod table;
