//! The layouts that lists come in, told by their first line.

use std::path::Path;

use pfc_image::has_image_extension;

use crate::{
    catalogue::People,
    column_names::is_image_column,
    columns::{ColumnChoice, Found},
};

pub const POINT_COLUMNS: [&str; 10] = ["x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5"];

/// How a line is cut into fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// At a character; quotes count unless it is a tab.
    At(u8),
    /// At any white space.
    Blanks,
    /// At the last white space: a path, which may hold some, and a label.
    BeforeLast,
    /// At the first white space: a label and a path.
    AfterFirst,
    /// Nowhere: the line is a path.
    Whole,
}

/// Where a line has what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub split: Split,
    /// Fields of every line, where that is fixed.
    pub n: Option<usize>,
    pub path: usize,
    pub label: Option<usize>,
    pub identity: Option<usize>,
    pub points: Option<[usize; 10]>,
    /// Whether the first line holds no image.
    pub has_header: bool,
    /// What was guessed, for a message.
    pub guess: Option<String>,
}

/// Characters between columns, the surer first.
const DELIMITERS: [u8; 4] = *b"\t,;|";

impl Split {
    /// Whether fields still have the quotes around them that they have in the line.
    pub fn keeps_quotes(self) -> bool {
        !matches!(self, Split::At(delimiter) if delimiter != b'\t')
    }

    /// The same, but at each white space.
    pub fn apart(self) -> Split {
        match self {
            Split::BeforeLast | Split::AfterFirst => Split::Blanks,
            other => other,
        }
    }
}

impl Layout {
    /// The layout of a list that begins with `line`.
    ///
    /// * `people`: where they are optional, a line may be a path and no more
    /// * `fields`: cuts the line
    ///
    /// # Errors
    ///
    /// That it is of none, or lacks what was asked for.
    pub fn of(
        choice: &ColumnChoice,
        people: People,
        mut fields: impl FnMut(Split) -> Result<Vec<String>, String>,
    ) -> Result<Layout, String> {
        if people == People::Optional && choice.is_empty() {
            let line = fields(Split::Whole)?.concat();
            if let Some(layout) = Layout::of_path(&line) {
                return Ok(layout);
            }
        }
        let mut problem = None;
        let splits = DELIMITERS.map(Split::At).into_iter().chain([Split::Blanks]);
        let mut cut = Vec::new();
        for split in splits {
            match fields(split) {
                Ok(fields) if fields.len() > 1 => cut.push((split, fields)),
                Ok(_) => {}
                // The line is no CSV, as far as that goes.
                Err(e) => problem = problem.or(Some(e)),
            }
        }
        for (split, fields) in &cut {
            match Layout::with_header(choice, people, *split, fields) {
                Ok(Some(layout)) => return Ok(layout),
                Ok(None) => {}
                Err(e) => problem = Some(e),
            }
        }
        // A wrong header says more than that the line is no row.
        if let Some(problem) = problem {
            return Err(problem);
        }
        let bare = cut.iter().find_map(|(split, fields)| {
            if choice.is_empty() {
                Layout::without_header(*split, fields)
            } else {
                Layout::by_number(choice, *split, fields)
            }
        });
        if let Some(bare) = bare {
            return Ok(bare);
        }
        let line = fields(Split::Whole)?.concat();
        if !line.contains(DELIMITERS.map(char::from)) && has_image_extension(Path::new(&line)) {
            return Err("a path without a label, and each line needs both".into());
        }
        Err(match cut.first() {
            Some((_, fields)) => choice.find(fields, people).err().unwrap_or_else(|| {
                format!("it is not clear which of the {} fields is what", fields.len())
            }),
            None => "neither `path<TAB>label` nor a header with the columns path and label".into(),
        })
    }

    /// Whether a line below this header has one field more, before those that have names: the number
    /// of the row, as R writes it.
    pub fn lacks_row_names(&self, line: &[String]) -> bool {
        let n_columns = self.n.unwrap_or_default();
        let is_path = |at: usize| {
            line.get(at).is_some_and(|field| has_image_extension(Path::new(field.trim())))
        };
        line.len() == n_columns + 1 && is_path(self.path + 1) && !is_path(self.path)
    }

    /// The same columns behind one without a name.
    pub fn behind_row_names(self) -> Layout {
        let next = |column: usize| column + 1;
        Layout {
            split: self.split.apart(),
            n: self.n.map(next),
            path: next(self.path),
            label: self.label.map(next),
            identity: self.identity.map(next),
            points: self.points.map(|columns| columns.map(next)),
            has_header: true,
            guess: Some("the columns of its header, behind one without a name".into()),
        }
    }

    /// Lines that are a path and no more: one word, or several that end as the name of an image does
    /// and do not begin with a number, which would be a label.
    fn of_path(line: &str) -> Option<Layout> {
        let mut words = line.split_whitespace();
        let first = words.next()?;
        let is_one = words.next().is_none();
        let is_path = !line.contains(DELIMITERS.map(char::from))
            && (is_one || has_image_extension(Path::new(line)) && first.parse::<f64>().is_err());
        is_path.then(|| Layout {
            split: Split::Whole,
            n: Some(1),
            path: 0,
            label: None,
            identity: None,
            points: None,
            has_header: is_image_column(line),
            guess: None,
        })
    }

    fn with_header(
        choice: &ColumnChoice,
        people: People,
        split: Split,
        names: &[String],
    ) -> Result<Option<Layout>, String> {
        // Asked for by numbers, which name no columns.
        let by_name = choice.image.iter().chain(&choice.label).chain(&choice.identity);
        if by_name.clone().next().is_some() && by_name.clone().all(|c| c.parse::<usize>().is_ok()) {
            return Ok(None);
        }
        let Ok(Some(found)) = choice.find(names, people) else { return Ok(None) };
        let is_unnamed = |name: &String| name.trim().parse::<f64>().is_ok();
        if found.label.or(found.identity).is_none() && names.iter().any(is_unnamed) {
            // A path that is called like a column, and its label.
            return Ok(None);
        }
        let lower: Vec<String> =
            names.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        let used = [Some(found.image), found.label, found.identity];
        for column in used.into_iter().flatten() {
            if lower.iter().filter(|name| **name == lower[column]).count() > 1 {
                return Err(format!("there are two columns `{}`", lower[column]));
            }
        }
        let points = points(&lower)?;
        let guess = (!found.is_plain).then(|| format!("the columns {}", found.describe(names)));
        let Found { image, label, identity, .. } = found;
        let split = match (split, names.len()) {
            (Split::Blanks, 2) if image == 0 => Split::BeforeLast,
            (Split::Blanks, 2) => Split::AfterFirst,
            (split, _) => split,
        };
        Ok(Some(Layout {
            split,
            n: Some(names.len()),
            path: image,
            label,
            identity,
            points,
            has_header: true,
            guess,
        }))
    }

    /// By the values of the first line. What is empty at its end, as behind a comma too many, is none.
    fn without_header(split: Split, fields: &[String]) -> Option<Layout> {
        let n_empty = fields.iter().rev().take_while(|field| field.trim().is_empty()).count();
        let used = &fields[..fields.len() - n_empty];
        // A path and an empty field lack a label.
        if n_empty > 0 && used.len() > 1 {
            let layout = Layout::without_header(split, used)?;
            let n = layout.n.map(|n| n + n_empty);
            return Some(Layout { n, ..layout });
        }
        let is_path = |field: &str| has_image_extension(Path::new(field.trim()));
        let may_be_path = |field: &str| is_path(field) || field.contains(['/', '\\']);
        let is_number = |field: &str| field.trim().parse::<f64>().is_ok();
        let plain = |path, label, n| Layout {
            split,
            n,
            path,
            label: Some(label),
            identity: None,
            points: None,
            has_header: false,
            guess: None,
        };
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let n = fields.len();
        let guessed =
            |layout: Layout, what: &str| Some(Layout { guess: Some(what.into()), ..layout });
        match fields[..] {
            [a, b] if is_path(b) && !is_path(a) => {
                let blanks = split == Split::Blanks;
                let split = if blanks { Split::AfterFirst } else { split };
                guessed(Layout { split, ..plain(1, 0, Some(2)) }, "lines of label and path")
            }
            [_, _] if split == Split::At(b'\t') => Some(plain(0, 1, Some(2))),
            [a, b] if may_be_path(a) && (is_path(a) || is_number(b)) => {
                let blanks = split == Split::Blanks;
                let split = if blanks { Split::BeforeLast } else { split };
                guessed(Layout { split, ..plain(0, 1, Some(2)) }, "lines of path and label")
            }
            // MXNet's im2rec writes a number, one label or more, and the path.
            [index, label, .., path]
                if is_number(index) && is_number(label) && may_be_path(path) =>
            {
                let what = "lines of number, label and path, as im2rec has them";
                guessed(plain(n - 1, 1, Some(n)), what)
            }
            // Behind these may be a box and, for an image that is not aligned yet, five points: first x.
            ["0", path, label, ..] if n == 17 && may_be_path(path) && is_number(label) => {
                let points = [7, 12, 8, 13, 9, 14, 10, 15, 11, 16];
                let layout = Layout { points: Some(points), ..plain(1, 2, None) };
                guessed(
                    layout,
                    "lines of flag, path, label, box and landmarks, as face2rec2 has them",
                )
            }
            // InsightFace's face2rec2 writes whether it is aligned, the path and the label.
            ["0" | "1", path, label, ..] if may_be_path(path) && is_number(label) => {
                guessed(plain(1, 2, None), "lines of flag, path and label, as face2rec2 has them")
            }
            // A path with blanks, and a label.
            [first, .., last] if split == Split::Blanks && is_number(last) => {
                let joined = fields[..n - 1].join(" ");
                let is_one = is_path(&joined) && !fields[..n - 1].iter().any(|f| is_number(f));
                (is_one && !is_path(first)).then(|| Layout {
                    split: Split::BeforeLast,
                    guess: Some("lines of path and label".into()),
                    ..plain(0, 1, Some(2))
                })
            }
            _ => None,
        }
    }

    /// By the numbers of columns that the user gives.
    fn by_number(choice: &ColumnChoice, split: Split, fields: &[String]) -> Option<Layout> {
        let column = |wanted: &Option<String>| {
            let number: usize = wanted.as_ref()?.parse().ok()?;
            number.checked_sub(1).filter(|column| *column < fields.len())
        };
        let is_missing = |wanted: &Option<String>| wanted.is_some() && column(wanted).is_none();
        let (label, identity) = (column(&choice.label), column(&choice.identity));
        if is_missing(&choice.label) || is_missing(&choice.identity) {
            return None;
        }
        label.or(identity)?;
        Some(Layout {
            split,
            n: Some(fields.len()),
            path: column(&choice.image)?,
            label,
            identity,
            points: None,
            has_header: false,
            guess: None,
        })
    }
}

/// The columns of landmarks, which are all there or none.
fn points(names: &[String]) -> Result<Option<[usize; 10]>, String> {
    let position = |name: &str| names.iter().position(|field| field == name);
    let points = POINT_COLUMNS.map(position);
    match points.iter().flatten().count() {
        0 => Ok(None),
        10 => {
            for name in POINT_COLUMNS {
                if names.iter().filter(|field| *field == name).count() > 1 {
                    return Err(format!("there are two columns `{name}`"));
                }
            }
            Ok(Some(points.map(Option::unwrap_or_default)))
        }
        _ => {
            let is_missing = |name: &&&str| position(name).is_none();
            let missing = POINT_COLUMNS.iter().find(is_missing).unwrap_or(&"x1");
            Err(format!("of the ten columns of landmarks, `{missing}` is missing"))
        }
    }
}
