//! The frame of the page: heading, links, sections.

use pfc_report::{Page, html::escape};

/// The whole page: models, links, and the sections, each `(title, body)`.
pub fn html(models: &[String], sections: &[(&str, String)]) -> String {
    let mut different: Vec<String> = models.iter().map(|model| escape(model)).collect();
    different.sort();
    different.dedup();
    let links: Vec<String> = (1..)
        .zip(sections)
        .map(|(i, (title, _))| format!("<a href=\"#s{i}\">{}</a>", escape(title)))
        .collect();
    let mut page = Page::new("Face recognition figures");
    page.push(&format!(
        "<p>Models: {}</p>\n<nav>{}</nav>\n\
         <p class=\"note\">Values in percent; the smaller range below a value holds 95 % of the sets \
         of people (or templates) resampled from the benchmark.</p>\n<main>\n",
        different.join(", "),
        links.join(" ")
    ));
    for (i, (title, body)) in (1..).zip(sections) {
        let title = escape(title);
        page.push(&format!("<section id=\"s{i}\"><h2>{title}</h2>\n{body}</section>\n"));
    }
    page.push("</main>\n");
    page.finish()
}
