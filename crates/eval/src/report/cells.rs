//! Cells of tables of figures.

use pfc_report::{dash, html::Markup, share, small};
use pfc_verify::Figure;

/// A figure with its interval; a dash where there is none.
pub fn figure(figure: Option<Figure>) -> Markup {
    figure.map_or_else(dash, |figure| share(figure.value, figure.interval, &[]))
}

/// A figure that the set cannot give, and why.
pub fn missing(why: &str) -> Markup {
    maud::html! { (dash()) (small(&[why])) }
}

/// What a TAR rests on.
pub fn rests_on(n_allowed: u64, finer_than_data: bool) -> String {
    match n_allowed {
        _ if finer_than_data => "finer than the data".to_owned(),
        1 => "on 1 impostor".to_owned(),
        n => format!("on {n} impostors"),
    }
}
