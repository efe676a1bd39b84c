//! A page of HTML that needs nothing else.

use std::fmt::Write;

use pfc_cli::html::escape;

/// Colours for light and dark, a layout that fits a phone, and no script.
const STYLE: &str = "
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1b1f;--pale:#5c5f66;--line:#d9dbe0;
--card:#f6f7f9;--before:#9aa4b5;--after:#2f6fde;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#16171a;--ink:#e8e9ec;--pale:#a2a6ae;
--line:#34363c;--card:#1f2125;--before:#5d6675;--after:#7aa7ff;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}
h2 small{color:var(--pale);font-weight:normal}
p{margin:.4rem 0}.pale{color:var(--pale)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:.5rem 0;overflow-wrap:normal}
th,td{padding:.25rem .75rem .25rem 0;text-align:left;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.charts{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
figure{margin:0;padding:.75rem;background:var(--card);border-radius:.5rem}
figcaption{font-size:.85rem;color:var(--pale)}
svg{width:100%;height:auto;display:block}
svg text{fill:var(--pale);font-size:11px;font-family:inherit}
.before{fill:var(--before)}.after{fill:var(--after)}
.cases{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,15.5rem),1fr))}
.pair{display:flex;gap:.25rem}.pair img{width:50%;max-width:112px;height:auto;border-radius:.25rem}
.cases figcaption b{color:var(--ink)}
.action{display:inline-block;padding:0 .4rem;border-radius:.5rem;border:1px solid currentColor}
.drop,.relabel,.merge{color:var(--bad)}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem}a{color:var(--after)}
";

/// A page being written.
#[derive(Debug)]
pub struct Page {
    html: String,
}

impl Page {
    /// Begins a page with its title.
    pub fn new(title: &str) -> Page {
        let title = escape(title);
        let html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
        );
        Page { html }
    }

    /// Adds HTML as it is.
    pub fn push(&mut self, html: &str) {
        self.html.push_str(html);
    }

    /// A heading that links can lead to.
    pub fn heading(&mut self, id: &str, text: &str, small: &str) {
        let (id, text, small) = (escape(id), escape(text), escape(small));
        let _ = writeln!(self.html, "<h2 id=\"{id}\">{text} <small>{small}</small></h2>");
    }

    /// A paragraph of text.
    pub fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.html, "<p class=\"pale\">{}</p>", escape(text));
    }

    /// A table; columns named in `numbers` are set to the right.
    pub fn table(&mut self, header: &[&str], numbers: &[usize], rows: &[Vec<String>]) {
        let class = |i: usize| if numbers.contains(&i) { " class=\"n\"" } else { "" };
        let cells = |tag: &str, row: &[String]| -> String {
            let cell = |(i, text): (usize, &String)| {
                format!("<{tag}{}>{}</{tag}>", class(i), escape(text))
            };
            row.iter().enumerate().map(cell).collect()
        };
        let header: Vec<String> = header.iter().map(|text| (*text).to_owned()).collect();
        let _ = write!(self.html, "<div class=\"scroll\"><table><tr>{}</tr>", cells("th", &header));
        for row in rows {
            let _ = writeln!(self.html, "<tr>{}</tr>", cells("td", row));
        }
        self.html.push_str("</table></div>\n");
    }

    /// The whole page.
    pub fn finish(mut self) -> String {
        self.html.push_str("</body></html>\n");
        self.html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        let mut page = Page::new("</title><script>");
        page.table(&["<b>"], &[0], &[vec!["<i>".into()]]);
        let html = page.finish();
        assert!(!html.contains("<script>") && !html.contains("<b>") && !html.contains("<i>"));
    }
}
