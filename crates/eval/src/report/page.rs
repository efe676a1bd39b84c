//! The frame of the page: heading, links, sections.

use maud::html;
use pfc_report::{Page, html::Markup};

/// The whole page: models, what computed their results, links, and the sections, each `(title, body)`.
pub fn html(models: &[String], tools: &[String], sections: &[(&str, Markup)]) -> String {
    let (models, tools) = (different(models), different(tools));
    let titles: Vec<&str> = sections.iter().map(|(title, _)| *title).collect();
    let mut page = Page::new(&format!("{}: {}", titles.join(", "), models.join(", ")));
    page.push(html! {
        p { "Models: " (models.join(", ")) }
        p.pale { "Computed by " (tools.join(", ")) "; page by pfc-eval " (env!("CARGO_PKG_VERSION")) "." }
        nav {
            @for (i, (title, _)) in (1..).zip(sections) { a href={ "#s" (i) } { (title) } " " }
        }
        p.note {
            "Values in percent; the smaller range below a value, and the vertical line on a curve, holds 95 % of \
             the sets of people (or templates) resampled from the benchmark."
        }
        main {
            @for (i, (title, body)) in (1..).zip(sections) {
                section id={ "s" (i) } { h2 { (title) } (body) }
            }
        }
    });
    page.finish()
}

fn different(texts: &[String]) -> Vec<String> {
    let mut different = texts.to_vec();
    different.sort();
    different.dedup();
    different
}
