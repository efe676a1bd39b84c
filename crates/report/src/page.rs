//! The frame of a page: head, style, headings.

use maud::{DOCTYPE, PreEscaped, html};

use crate::html::{Markup, plain};

/// Colours follow the reader's setting, the layout fits a phone, and tables scroll on their own with a shade at
/// the edge beyond which they go on.
const STYLE: &str = "
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1b1f;--pale:#5c5f66;--line:#d9dbe0;
--card:#f4f5f7;--before:#9aa4b5;--after:#2f6fde;--mark:#0072b2;--bad:#b3261e;--ground:var(--paper)}
@media(prefers-color-scheme:dark){:root{--paper:#16171a;--ink:#e8e9ec;--pale:#a2a6ae;
--line:#34363c;--card:#1f2125;--before:#5d6675;--after:#7aa7ff;--mark:#56b4e9;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:80rem;padding:1rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.5rem 0}h3{font-size:1.05rem;margin:1.5rem 0 .3rem}
h2{font-size:1.25rem;margin:2rem 0 .5rem;border-top:1px solid var(--line);padding-top:1rem}
h2 small{color:var(--pale);font-weight:normal}
p{margin:.5rem 0;overflow-wrap:anywhere}.pale{color:var(--pale)}
.note{font-size:.9rem;color:var(--pale);max-width:45rem}
.warning{color:var(--bad);font-weight:600}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem}a{color:var(--mark)}
.scroll{overflow-x:auto;background:
linear-gradient(to right,var(--ground) 40%,transparent) left/2.5rem 100% no-repeat local,
linear-gradient(to left,var(--ground) 40%,transparent) right/2.5rem 100% no-repeat local,
linear-gradient(to right,var(--before),transparent) left/.6rem 100% no-repeat scroll,
linear-gradient(to left,var(--before),transparent) right/.6rem 100% no-repeat scroll}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .5rem;text-align:right;border-bottom:1px solid var(--line);
vertical-align:top;white-space:nowrap}
th.text,td.text{text-align:left;white-space:normal}
tbody th,thead th:first-child{text-align:left;font-weight:600;position:sticky;left:0;
background:var(--ground)}
tbody th{min-width:7rem;max-width:14rem;white-space:normal;overflow-wrap:break-word}
pre{margin:.3rem 0;font-size:.85rem}
td small{display:block;color:var(--pale);white-space:normal}td .interval{white-space:nowrap}
.whisker{width:120px;height:12px;display:block;margin-left:auto}
.whisker line{stroke:var(--mark);stroke-width:2}.whisker circle{fill:var(--mark)}
.charts{display:grid;gap:1rem;margin:1rem 0;
grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
figure{margin:0;padding:.75rem;background:var(--card);border-radius:.5rem}
figcaption{font-size:.85rem;color:var(--pale);overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
.charts svg{width:100%;height:auto;display:block}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem .9rem;margin:.4rem 0 0;padding:0;
font-size:.8rem;color:var(--pale);overflow-wrap:anywhere}
.key i{display:inline-block;width:1.3rem;border-top:3px solid;vertical-align:middle;margin-right:.35rem}
.key i.dashed{border-top-style:dashed}
.bars text{fill:var(--pale);font-size:11px;font-family:inherit}
.axis{stroke:var(--pale)}.grid{stroke:var(--line)}.before{fill:var(--before)}.after{fill:var(--after)}
details{--ground:var(--card);margin:.5rem 0;background:var(--card);border-radius:.5rem;padding:.5rem .8rem}
summary{cursor:pointer;font-weight:600}
.cases{display:grid;gap:.75rem;margin:.8rem 0;
grid-template-columns:repeat(auto-fill,minmax(min(100%,15.5rem),1fr))}
.cases figure{border:1px solid var(--line);background:var(--paper)}
.cases figure.wrong{border-color:var(--bad);border-width:2px}
.pair{display:flex;gap:.25rem}
.pair img,.gone{width:50%;border-radius:.25rem}.pair img:not(.small),.gone{aspect-ratio:1}
.pair img.small{max-width:112px;height:auto}
.gone{display:grid;place-items:center;background:var(--card);font-size:.75rem;padding:.3rem;
overflow-wrap:anywhere;text-align:center}
.action{display:inline-block;padding:0 .4rem;border-radius:.5rem;border:1px solid currentColor}
.drop,.relabel,.merge{color:var(--bad)}
@media(max-width:40rem){tbody th{max-width:8rem;overflow-wrap:anywhere}}
";

/// A page being written.
#[derive(Debug)]
pub struct Page {
    title: String,
    style: &'static str,
    body: Vec<Markup>,
    script: Option<&'static str>,
}

impl Page {
    /// Begins a page with its title.
    pub fn new(title: &str) -> Page {
        Page { title: title.to_owned(), style: "", body: Vec::new(), script: None }
    }

    /// Adds what is next on it.
    pub fn push(&mut self, markup: Markup) {
        self.body.push(markup);
    }

    /// A heading that links can lead to.
    pub fn heading(&mut self, id: &str, text: &str, small: &str) {
        self.push(html! { h2 id=(id) { (text) " " small { (small) } } });
    }

    /// A paragraph of text.
    pub fn paragraph(&mut self, text: &str) {
        self.push(html! { p.pale { (text) } });
    }

    /// Adds rules to the style that all pages have.
    pub fn style(&mut self, style: &'static str) {
        self.style = style;
    }

    /// Gives the page a script, which runs once it is read; a page that is only looked at has none.
    pub fn script(&mut self, script: &'static str) {
        self.script = Some(script);
    }

    /// The whole page.
    pub fn finish(self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) (PreEscaped(self.style)) }
                }
                body {
                    h1 { (self.title) }
                    @for part in &self.body { (part) "\n" }
                    @if let Some(script) = self.script { script { (PreEscaped(script)) } }
                }
            }
        };
        plain(&page.into_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        let mut page = Page::new("</title><script>");
        page.heading("\"><b>", "<b>", "<i>");
        page.paragraph("<i>\u{202e}");
        page.push(html! { p title=("\"><i>") { "<i>" } });
        let html = page.finish();
        assert!(!html.contains("<script>") && !html.contains("<b>") && !html.contains("<i>"));
        assert!(!html.contains('\u{202e}') && html.starts_with("<!DOCTYPE html>"));
    }
}
