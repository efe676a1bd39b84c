//! The program's subcommands, one file each.

pub mod compare;
pub mod embed;
pub mod ijb;
mod ijb_table;
mod left_out;
pub mod megaface;
mod megaface_features;
mod megaface_set;
pub mod model;
pub mod nn;
pub mod pairs;
pub mod protocol;
pub mod report;
pub mod require;
mod scores;
pub mod source;
mod table;
