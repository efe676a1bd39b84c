//! The frame of the page: heading, links, sections.

use maud::html;
use pfc_report::{Page, html::Markup};

/// The whole page: models, links, and the sections, each `(title, body)`.
pub fn html(models: &[String], sections: &[(&str, Markup)]) -> String {
    let mut different = models.to_vec();
    different.sort();
    different.dedup();
    let mut page = Page::new("Face recognition figures");
    page.push(html! {
        p { "Models: " (different.join(", ")) }
        nav {
            @for (i, (title, _)) in (1..).zip(sections) { a href={ "#s" (i) } { (title) } " " }
        }
        p.note {
            "Values in percent; the smaller range below a value holds 95 % of the sets of people (or \
             templates) resampled from the benchmark."
        }
        main {
            @for (i, (title, body)) in (1..).zip(sections) {
                section id={ "s" (i) } { h2 { (title) } (body) }
            }
        }
    });
    page.finish()
}
