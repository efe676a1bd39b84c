//! The frame of the page: head, style, heading, sections.

use pfc_cli::html::escape;

/// Colours follow the reader's setting; tables scroll on their own on a narrow screen.
const STYLE: &str = "
:root { color-scheme: light dark; --text: #1b1b1f; --ground: #ffffff; --soft: #f2f3f5; --line: #d4d6da;
  --mark: #0072b2; --bad: #c2410c; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6ea; --ground: #16171b; --soft: #212329; --line: #3a3d45; --mark: #56b4e9;
    --bad: #fb923c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; color: var(--text); background: var(--ground);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
.note { font-size: .9rem; opacity: .8; max-width: 45rem; }
h2 { font-size: 1.3rem; margin: 2rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
a { color: var(--mark); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .5rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
td { min-width: 5.5rem; }
tbody th, thead th:first-child { text-align: left; font-weight: 600; position: sticky; left: 0;
  background: var(--ground); }
tbody th { min-width: 7rem; max-width: 14rem; white-space: normal; overflow-wrap: break-word; }
td small { display: block; opacity: .75; white-space: normal; }
td .interval { white-space: nowrap; }
.whisker { width: 120px; height: 12px; display: block; margin-left: auto; }
.whisker line { stroke: var(--mark); stroke-width: 2; }
.whisker circle { fill: var(--mark); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  gap: 1rem; margin: 1rem 0; }
figure { margin: 0; }
.charts svg { width: 100%; height: auto; display: block; }
details { margin: .5rem 0; background: var(--soft); border-radius: .5rem; padding: .5rem .8rem; }
summary { cursor: pointer; font-weight: 600; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .8rem;
  margin: .8rem 0; }
.pair { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem; background: var(--ground); }
.pair.wrong { border-color: var(--bad); border-width: 2px; }
.pair > div { display: flex; gap: .3rem; }
.pair img, .gone { width: 50%; aspect-ratio: 1; border-radius: .3rem; }
.gone { display: grid; place-items: center; background: var(--soft); font-size: .75rem; padding: .3rem;
  overflow-wrap: anywhere; text-align: center; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; margin-top: .3rem; }
.warning { color: var(--bad); font-weight: 600; }
@media (max-width: 40rem) { tbody th { max-width: 8rem; overflow-wrap: anywhere; } }
";

/// The whole page: models, links, and the sections, each `(title, body)`.
pub fn html(models: &[String], sections: &[(&str, String)]) -> String {
    let mut different: Vec<String> = models.iter().map(|model| escape(model)).collect();
    different.sort();
    different.dedup();
    let links: Vec<String> = (1..)
        .zip(sections)
        .map(|(i, (title, _))| format!("<a href=\"#s{i}\">{}</a>", escape(title)))
        .collect();
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Face recognition figures</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>Face recognition figures</h1>\n<p>Models: {}</p>\n<nav>{}</nav>\n\
         <p class=\"note\">Values in percent; the smaller range below a value holds 95 % of the sets \
         of people (or templates) resampled from the benchmark.</p></header>\n<main>\n",
        different.join(", "),
        links.join(" ")
    );
    for (i, (title, body)) in (1..).zip(sections) {
        html += &format!("<section id=\"s{i}\"><h2>{}</h2>\n{body}</section>\n", escape(title));
    }
    html + "</main>\n</body>\n</html>\n"
}
