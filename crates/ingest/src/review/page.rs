//! A page on which keys answer the questions, and which downloads the table with the answers.

use maud::html;
use pfc_findings::{Action, Question, table};
use pfc_report::{Page, breakable, html::Markup};
use pfc_shard::Dataset;

use super::case::Case;
use crate::{IngestError, pictures::picture};

/// Answers, moves and downloads. Each question carries its line of the table as it stands before and after the
/// answer, so that nothing but answers is put together here.
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = "
.cases figure.now{outline:3px solid var(--mark)}.cases figure.answered{background:var(--card)}
.asked{position:sticky;top:0;z-index:1;background:var(--paper);padding:.5rem 0}
button{font:inherit;padding:.2rem .6rem;margin:.2rem .3rem .2rem 0}
button[aria-pressed=true]{background:var(--mark);color:var(--paper)}";
/// Images of one question at most; of more, the first are shown.
const IMAGES_MAX: usize = 6;

/// The page of these questions, with everything in it: the images take what their files take, and a third more.
///
/// # Errors
///
/// [`IngestError::Shard`] if a row cannot be read.
pub fn write(dataset: &Dataset, cases: &[Case<'_>]) -> Result<String, IngestError> {
    let mut page = Page::new("Questions about faces");
    page.style(STYLE);
    page.paragraph(
        "A digit gives the framed question the answer of that number, and goes on to the next one; 0 takes an \
         answer back, and the arrows move. Answers are kept in this browser. Download the table when you are \
         done, also in between, and give it to pfc-ingest review import. Treat this page as you treat the \
         pictures in it.",
    );
    let header = table::write(&[]);
    let header = String::from_utf8_lossy(&header);
    page.push(html! {
        div.asked id="asked" data-header=(header.trim_end()) {
            button id="download" { "Download review.csv" }
            span id="count" role="status" { (cases.len()) " questions" }
        }
    });
    let figures = cases.iter().map(|case| figure(dataset, case)).collect::<Result<Vec<_>, _>>()?;
    page.push(html! { div.cases { @for figure in &figures { (figure) } } });
    page.script(SCRIPT);
    Ok(page.finish())
}

fn figure(dataset: &Dataset, case: &Case<'_>) -> Result<Markup, IngestError> {
    let Case { question, number, line, .. } = case;
    let rest = rest_of_line(case);
    let mut rows: Vec<u64> = question.rows.iter().copied().take(IMAGES_MAX).collect();
    rows.push(case.rows[1]);
    rows.dedup();
    let pictures = rows.iter().map(|row| picture(dataset, *row)).collect::<Result<Vec<_>, _>>()?;
    Ok(html! {
        figure data-id=(line.id) data-rest=(rest) {
            div.pair { @for picture in &pictures { (picture) } }
            figcaption {
                b { (number) ". " (line.question) }
                br;
                (line.reason.replace('_', " ")) " " (case.score())
                @if question.n_images() > 1 { ", " (line.images) " images" }
                br;
                b { (line.identity) } " | " (breakable(&case.beside))
                br;
                @for (i, action) in answers(question).iter().enumerate() {
                    button value=(action.name()) aria-pressed="false" {
                        (i + 1) " " (action.name())
                        @if *action == question.kind.suggestion() { " (suggested)" }
                    }
                }
            }
        }
    })
}

/// What keys answer: `relabel` is left to the table where a person has to name the identity.
fn answers(question: &Question) -> Vec<Action> {
    let is_named = |action: &Action| *action != Action::Relabel || question.target.is_some();
    question.answers().iter().copied().filter(is_named).collect()
}

/// The line of the table behind its first two cells, `id` and `answer`.
fn rest_of_line(case: &Case<'_>) -> String {
    let text = table::write(std::slice::from_ref(&case.line));
    let header = table::write(&[]).len();
    let line = String::from_utf8_lossy(&text[header..]).into_owned();
    let before = format!("{},,", case.line.id);
    line.trim_end_matches('\n').strip_prefix(&before).unwrap_or_default().to_owned()
}
