//! Tables of figures, as HTML.

use pfc_cli::html::escape;
use pfc_metrics::bootstrap::Interval;
use pfc_verify::Figure;

use crate::commands::table::{interval, percent};

/// A table whose first column names the row; cells are HTML.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles, as text.
    pub fn new<S: AsRef<str>>(head: impl IntoIterator<Item = S>) -> Table {
        let head = head.into_iter().map(|title| escape(title.as_ref())).collect();
        Table { head, rows: Vec::new() }
    }

    /// Adds a row: its name as text, its cells as HTML.
    pub fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        let mut row = vec![escape(name)];
        row.extend(cells);
        self.rows.push(row);
    }

    /// The table, in a box that scrolls on its own where the page is narrow.
    pub fn html(&self) -> String {
        let head: String =
            self.head.iter().map(|title| format!("<th scope=\"col\">{title}</th>")).collect();
        let mut html = format!(
            "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        );
        for row in &self.rows {
            let (name, cells) = row.split_first().map_or(("", &[][..]), |(n, c)| (n.as_str(), c));
            let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
            html += &format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>\n");
        }
        html + "</tbody></table></div>\n"
    }
}

/// A share in percent with its interval and remarks below.
pub fn share(value: f64, interval: Option<Interval>, notes: &[&str]) -> String {
    percent(value) + &ends(interval) + &small(notes)
}

/// Both ends of an interval; nothing where there is none.
fn ends(of: Option<Interval>) -> String {
    of.map_or(String::new(), |_| format!("<small class=\"interval\">{}</small>", interval(of)))
}

/// A figure with its interval; a dash where there is none.
pub fn figure(figure: Option<Figure>) -> String {
    figure.map_or("–".to_owned(), |figure| share(figure.value, figure.interval, &[]))
}

/// A figure that the set cannot give, and why.
pub fn missing(why: &str) -> String {
    "–".to_owned() + &small(&[why])
}

fn small(notes: &[&str]) -> String {
    notes.iter().map(|note| format!("<small>{}</small>", escape(note))).collect()
}

/// What a TAR rests on.
pub fn rests_on(n_allowed: u64, finer_than_data: bool) -> String {
    match n_allowed {
        _ if finer_than_data => "finer than the data".to_owned(),
        1 => "on 1 impostor".to_owned(),
        n => format!("on {n} impostors"),
    }
}

/// A dot on a line: the value in its interval, on an axis that all rows share.
pub fn whisker(value: f64, interval: Option<Interval>, axis: &Interval) -> String {
    let Some(interval) = interval else { return "–".to_owned() };
    let at = |x: f64| 5.0 + 110.0 * ((x - axis.low) / (axis.high - axis.low)).clamp(0.0, 1.0);
    format!(
        "<svg class=\"whisker\" viewBox=\"0 0 120 12\" aria-hidden=\"true\"><line x1=\"{:.1}\" \
         x2=\"{:.1}\" y1=\"6\" y2=\"6\"/><circle cx=\"{:.1}\" cy=\"6\" r=\"4\"/></svg>{}",
        at(interval.low),
        at(interval.high),
        at(value),
        ends(Some(interval))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_cells_are_markup() {
        let mut table = Table::new(["<model>", "x"]);
        table.row("a & b", [share(0.5, Some(Interval { low: 0.4, high: 0.6 }), &["1 < 2"])]);
        let html = table.html();
        for text in ["&lt;model&gt;", "a &amp; b", "50.00<small", "40.00 – 60.00", "1 &lt; 2"] {
            assert!(html.contains(text), "{text} is missing in {html}");
        }
    }
}
