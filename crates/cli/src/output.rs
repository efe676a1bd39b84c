//! Results on standard output: a table for people or JSON for programs.

use std::{
    fs::File,
    io::{self, LineWriter, Write},
    os::fd::{AsFd, AsRawFd},
    sync::OnceLock,
};

use comfy_table::{LineStyle, Table, TableStyle};
use serde::Serialize;

use crate::Hinted;

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
/// As [`print_text`].
pub fn print_table(table: &Table) -> io::Result<()> {
    print_text(format!("{table}\n"))
}

/// Prints `value` as indented JSON with a final newline to standard output.
///
/// # Errors
///
/// As [`print_text`], and that of a value that JSON cannot hold.
pub fn print_json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    print_text(text)
}

/// Prints text, or bytes, to standard output as they are.
///
/// # Errors
///
/// That of a standard output that cannot be written, such as a full disk. A reader that has closed its
/// end of a pipe, as `head` does, has what it wanted: what is left over is dropped, and the program
/// goes on to its own outcome.
pub fn print_text(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = stdout();
    out.write_all(text.as_ref())?;
    out.flush()
}

/// Standard output for results that are written line by line, with the errors of [`print_text`].
#[must_use]
pub fn stdout() -> Stdout {
    Stdout { out: LineWriter::new(Raw { is_closed: false }) }
}

/// See [`stdout`].
#[derive(Debug)]
pub struct Stdout {
    out: LineWriter<Raw>,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The file behind it.
#[derive(Debug)]
struct Raw {
    is_closed: bool,
}

impl Raw {
    fn write_to(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match DIVERTED.get() {
            Some(mut file) => write(&mut file),
            None => write(&mut io::stdout().lock()),
        }
    }
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Ok(bytes.len());
        }
        let written = self.write_to(|out| {
            let n = out.write(bytes)?;
            out.flush()?;
            Ok(n)
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(bytes.len())
            }
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(unwritable(&error)),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// That of a standard output on a full disk, with its place and the way out.
fn unwritable(error: &io::Error) -> io::Error {
    let hint = "free space where standard output goes, or send it elsewhere, and run it again";
    let message = format!("standard output: cannot write: {error}");
    io::Error::new(error.kind(), Hinted::new(message, hint))
}

/// The standard output that the program was started with, once [`divert_stdout`] has put standard error
/// in its place.
static DIVERTED: OnceLock<File> = OnceLock::new();

/// Sends what code of others prints to standard error from now on; results of this crate go on to the
/// standard output that the program was started with.
///
/// For programs that come with a model: what they print would get between the lines of `--json`.
///
/// # Errors
///
/// The I/O error of a system that does not let the two be exchanged.
#[allow(unsafe_code)] // There is no other way to give descriptor 1 another meaning.
pub fn divert_stdout() -> io::Result<()> {
    if DIVERTED.get().is_some() {
        return Ok(());
    }
    io::stdout().flush()?;
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: both descriptors are open, as the two lines around this show, and stay so: 1 is only
    // given another meaning, in one step.
    if unsafe { libc::dup2(io::stderr().as_raw_fd(), io::stdout().as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let _ = DIVERTED.set(File::from(own));
    Ok(())
}

/// Prints a line to standard error. One that is closed or full does not stop the program.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
