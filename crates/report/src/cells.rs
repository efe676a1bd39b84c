//! Tables of figures, as HTML.

use pfc_metrics::bootstrap::Interval;

use crate::html::{Markup, html, text};

/// A table whose first column names the row. Columns are set to the right, as numbers are, but for
/// those of text.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<(String, Vec<Markup>)>,
    /// Columns of text, the first of the table being 0.
    texts: Vec<usize>,
}

impl Table {
    /// A table with these column titles.
    pub fn new<S: AsRef<str>>(head: impl IntoIterator<Item = S>) -> Table {
        let head = head.into_iter().map(|title| title.as_ref().to_owned()).collect();
        Table { head, rows: Vec::new(), texts: Vec::new() }
    }

    /// Sets these columns to the left, the first of the table being 0.
    pub fn with_texts(self, columns: &[usize]) -> Table {
        Table { texts: columns.to_vec(), ..self }
    }

    /// Adds a row: its name and its cells.
    pub fn row(&mut self, name: &str, cells: impl IntoIterator<Item = Markup>) {
        self.rows.push((name.to_owned(), cells.into_iter().collect()));
    }

    /// The table, in a box that scrolls on its own where the page is narrow.
    pub fn html(&self) -> Markup {
        let class = |i: usize| self.texts.contains(&i).then_some("text");
        html! {
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            @for (i, title) in self.head.iter().enumerate() {
                                th scope="col" class=[class(i)] { (title) }
                            }
                        }
                    }
                    tbody {
                        @for (name, cells) in &self.rows {
                            tr {
                                th scope="row" { (breakable(name)) }
                                @for (i, cell) in (1..).zip(cells) { td class=[class(i)] { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Characters of a name that fit into the narrowest column.
const NARROW: usize = 12;

/// A name that narrow columns break behind its `/`, `_` and `-`, and before an ending, rather than within its
/// words and numbers.
pub fn breakable(name: &str) -> Markup {
    if name.chars().count() <= NARROW {
        return text(name);
    }
    let behind = |name: &str| name.ends_with(['/', '_', '-']);
    let is_ending =
        |rest: &str| rest.starts_with('.') && !rest[1..].starts_with(|c: char| c.is_ascii_digit());
    let mut parts = vec![0];
    parts.extend(
        name.char_indices()
            .map(|(i, _)| i)
            .filter(|&i| i > 0 && (behind(&name[..i]) || is_ending(&name[i..]))),
    );
    parts.push(name.len());
    html! {
        @for (i, part) in parts.windows(2).enumerate() {
            @if i > 0 { wbr; }
            (&name[part[0]..part[1]])
        }
    }
}

/// A share in percent with its interval and remarks below.
pub fn share(value: f64, interval: Option<Interval>, notes: &[&str]) -> Markup {
    html! { (percent(value)) (ends(interval)) (small(notes)) }
}

/// A difference of two shares in percentage points, with its interval below; every number has a sign. It is bold
/// where the interval does not hold 0.
pub fn points(value: f64, Interval { low, high }: Interval) -> Markup {
    let signed = |share: f64| format!("{:+.2}", 100.0 * share);
    let is_shown = low > 0.0 || high < 0.0;
    html! {
        @if is_shown { b { (signed(value)) } } @else { (signed(value)) }
        small.interval { (signed(low)) " – " (signed(high)) }
    }
}

/// Both ends of an interval; nothing where there is none.
fn ends(of: Option<Interval>) -> Markup {
    html! { @if of.is_some() { small.interval { (interval(of)) } } }
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
pub fn small(notes: &[&str]) -> Markup {
    html! { @for note in notes { small { (note) } } }
}

/// In place of a value that is not there.
pub fn dash() -> Markup {
    text("–")
}

/// A dot on a line: the value in its interval, on an axis that all rows share.
pub fn whisker(value: f64, interval: Option<Interval>, axis: &Interval) -> Markup {
    let Some(interval) = interval else { return dash() };
    let at = |x: f64| 5.0 + 110.0 * ((x - axis.low) / (axis.high - axis.low)).clamp(0.0, 1.0);
    let [low, high, middle] = [interval.low, interval.high, value].map(|x| format!("{:.1}", at(x)));
    html! {
        svg.whisker viewBox="0 0 120 12" aria-hidden="true" {
            line x1=(low) x2=(high) y1="6" y2="6" {}
            circle cx=(middle) cy="6" r="4" {}
        }
        (ends(Some(interval)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_bold_where_its_interval_does_not_hold_0() {
        let of = |low, high| points(0.01, Interval { low, high }).into_string();
        assert!(of(0.001, 0.02).starts_with("<b>+1.00</b>"));
        assert!(of(-0.001, 0.02).starts_with("+1.00<small"));
    }

    #[test]
    fn names_break_behind_their_punctuation() {
        let long = breakable("runs/a_long<.ckpt").into_string();
        assert_eq!(long, "runs/<wbr>a_<wbr>long&lt;<wbr>.ckpt");
        assert_eq!(breakable("r50, margin 0.5").into_string(), "r50, margin 0.5");
        assert_eq!(breakable("optim.lr").into_string(), "optim.lr");
    }

    #[test]
    fn names_are_text_and_cells_are_markup() {
        let mut table = Table::new(["<model>", "x"]);
        table.row("a & b", [share(0.5, Some(Interval { low: 0.4, high: 0.6 }), &["1 < 2"])]);
        let html = table.html().into_string();
        for text in ["&lt;model&gt;", "a &amp; b", "50.00<small", "40.00 – 60.00", "1 &lt; 2"] {
            assert!(html.contains(text), "{text} is missing in {html}");
        }
    }
}
