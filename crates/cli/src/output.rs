//! Results on standard output: a table for people or JSON for programs.

use std::io::{self, Write};

use comfy_table::{LineStyle, Table, TableStyle};
use serde::Serialize;

/// How a command prints its result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct Format {
    /// Print the result as JSON on standard output instead of a table
    #[arg(long)]
    pub json: bool,
}

/// One rule below the header, so that a table of ten rows is eleven lines and a rule.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table in the one style of the project, with `header` above a rule.
pub fn table<T: Into<comfy_table::Row>>(header: T) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    table
}

/// Prints a table to standard output.
///
/// # Errors
///
/// The I/O error of a closed or full standard output.
pub fn print_table(table: &Table) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{table}")
}

/// Prints `value` as indented JSON with a final newline to standard output.
///
/// # Errors
///
/// The I/O error of a closed or full standard output, or of a value that JSON cannot hold.
pub fn print_json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// Prints a line to standard error. One that is closed or full does not stop the program.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
