//! Tables of figures, as HTML.

use pfc_metrics::bootstrap::Interval;

use crate::html::escape;

/// A table whose first column names the row; cells are HTML. Columns are set to the right, as numbers
/// are, but for those of text.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns of text, the first of the table being 0.
    texts: Vec<usize>,
}

impl Table {
    /// A table with these column titles, as text.
    pub fn new<S: AsRef<str>>(head: impl IntoIterator<Item = S>) -> Table {
        let head = head.into_iter().map(|title| escape(title.as_ref())).collect();
        Table { head, rows: Vec::new(), texts: Vec::new() }
    }

    /// Sets these columns to the left, the first of the table being 0.
    pub fn with_texts(self, columns: &[usize]) -> Table {
        Table { texts: columns.to_vec(), ..self }
    }

    /// Adds a row: its name as text, its cells as HTML.
    pub fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        let mut row = vec![escape(name)];
        row.extend(cells);
        self.rows.push(row);
    }

    /// The table, in a box that scrolls on its own where the page is narrow.
    pub fn html(&self) -> String {
        let class = |i: usize| if self.texts.contains(&i) { " class=\"text\"" } else { "" };
        let title =
            |(i, title): (usize, &String)| format!("<th scope=\"col\"{}>{title}</th>", class(i));
        let head: String = self.head.iter().enumerate().map(title).collect();
        let mut html = format!(
            "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        );
        for row in &self.rows {
            let (name, cells) = row.split_first().map_or(("", &[][..]), |(n, c)| (n.as_str(), c));
            let cell = |(i, cell): (usize, &String)| format!("<td{}>{cell}</td>", class(i));
            let cells: String = (1..).zip(cells).map(cell).collect();
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

/// Both ends in percent as text; empty if there is none.
pub fn interval(of: Option<Interval>) -> String {
    of.map_or(String::new(), |Interval { low, high }| {
        format!("{} – {}", percent(low), percent(high))
    })
}

/// A share in percent as text: two decimals, without the sign; a dash for no number.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.2}", 100.0 * share) } else { "–".to_owned() }
}

/// Remarks below a value.
pub fn small(notes: &[&str]) -> String {
    notes.iter().map(|note| format!("<small>{}</small>", escape(note))).collect()
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
