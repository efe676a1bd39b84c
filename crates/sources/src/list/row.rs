//! What a line of a list says.

use std::borrow::Cow;

use pfc_image::align::Landmarks;

use crate::label::Who;

/// One image of a list.
#[derive(Debug, PartialEq)]
pub struct Row<'a> {
    /// As it is listed, but with `/` between its parts.
    pub path: Cow<'a, str>,
    /// Its backslashes were turned.
    pub is_turned: bool,
    /// Whose it is, or why nobody's.
    pub who: Result<Who, String>,
    /// In a list with columns for landmarks; not a number in a line that leaves them empty.
    pub points: Option<Landmarks>,
}
