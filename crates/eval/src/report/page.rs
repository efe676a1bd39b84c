//! The frame of the page: heading, links, sections.

use maud::html;
use pfc_report::{Page, html::Markup};

/// The whole page: models, what computed their results, links, and the sections, each `(title, body)`.
pub fn html(models: &[String], tools: &[String], sections: &[(&str, Markup)]) -> String {
    let (models, tools) = (different(models), different(tools));
    let titles: Vec<&str> = sections.iter().map(|(title, _)| *title).collect();
    let mut page = Page::new(&format!("{}: {}", titles.join(", "), models.join("; ")));
    page.push(html! {
        p { "Models: " (models.join("; ")) }
        p.pale { "Computed by " (tools.join(", ")) "; page by pfc-eval " (env!("CARGO_PKG_VERSION")) "." }
        nav {
            @for (i, (title, _)) in (1..).zip(sections) { a href={ "#s" (i) } { (title) } " " }
        }
        p.note {
            "Values in percent; the smaller range below a value, and the pale band about a curve, holds 95 % of \
             the sets of people (or templates) resampled from the benchmark. A band is computed at the rates of \
             the table, where a thin line stands, and drawn along the curve between them."
        }
        main {
            @for (i, (title, body)) in (1..).zip(sections) {
                section id={ "s" (i) } { h2 { (title) } (body) }
            }
        }
    });
    page.finish()
}

/// Each text once, in the order of the results.
fn different(texts: &[String]) -> Vec<&str> {
    let mut different: Vec<&str> = Vec::new();
    for text in texts {
        if !different.contains(&&text[..]) {
            different.push(text);
        }
    }
    different
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_once_in_the_order_of_their_results() {
        let models = ["b", "a", "b"].map(str::to_owned);
        let html = html(&models, &[], &[("LFW", Markup::default())]);
        assert!(html.contains("<h1>LFW: b; a</h1>") && html.contains("Models: b; a<"), "{html}");
    }
}
