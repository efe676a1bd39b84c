//! An open question as people see it: its line in the table, its pictures, its words.

use pfc_findings::{Question, table::Line};
use pfc_shard::{Dataset, ShardError};

use crate::{IngestError, decisions};

/// A question as people see it.
pub struct Case<'a> {
    pub question: &'a Question,
    /// Its number in the table, on the sheets and on the page, counted from 1.
    pub number: usize,
    pub line: Line,
    /// The image to look at, and the one beside it.
    pub rows: [u64; 2],
    /// What the second one is.
    pub beside: String,
}

impl Case<'_> {
    /// The case of this number, which `sheet` shows.
    ///
    /// # Errors
    ///
    /// [`IngestError::Shard`] if a row cannot be read.
    pub fn of<'a>(
        dataset: &Dataset,
        question: &'a Question,
        number: usize,
        sheet: &str,
    ) -> Result<Case<'a>, IngestError> {
        let row = question.rows.first().copied().unwrap_or_default();
        let line = line(dataset, question, sheet)?;
        let (beside, what) = match question.partner {
            Some(partner) if question.partner_is_row() => (partner, of_partner(&line)),
            Some(probe) => (of_same(dataset, row)?, format!("probe {probe}, not shown")),
            None => (of_same(dataset, row)?, "the same identity".to_owned()),
        };
        Ok(Case { question, number, line, rows: [row, beside], beside: what })
    }

    /// What was measured, and its bound.
    pub fn score(&self) -> String {
        let number = |text: &str| text.parse().map_or(String::new(), |x: f64| format!("{x:.3}"));
        let (score, threshold) = (number(&self.line.score), number(&self.line.threshold));
        match threshold.is_empty() {
            true => score,
            false => format!("{score} / {threshold}"),
        }
    }
}

/// Whom the partner's picture shows: the identity that is asked about, or its file where there is none.
fn of_partner(line: &Line) -> String {
    let file = line.partner_source.rsplit('/').next().unwrap_or_default();
    let names = [&line.target_identity[..], file];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned()
}

/// Another image of the identity of `row`, a neighbour as they are packed; `row` itself if it has no other.
fn of_same(dataset: &Dataset, row: u64) -> Result<u64, ShardError> {
    let label = dataset.get(row)?.label;
    for other in [row + 1, row.saturating_sub(1)] {
        if other != row && other < dataset.len() && dataset.get(other)?.label == label {
            return Ok(other);
        }
    }
    Ok(row)
}

fn line(dataset: &Dataset, question: &Question, sheet: &str) -> Result<Line, IngestError> {
    let row = question.rows.first().copied().unwrap_or_default();
    let number = |value: f32| if value.is_finite() { value.to_string() } else { String::new() };
    let source = |row: u64| dataset.get(row).map(|face| face.source.to_owned());
    let partner = question.partner.filter(|_| question.partner_is_row());
    let answers: Vec<&str> = question.answers().iter().map(|action| action.name()).collect();
    let names = |label: Option<u32>| label.map(|label| decisions::identity(dataset, label));
    Ok(Line {
        id: question.id.clone(),
        answer: String::new(),
        answers: answers.join(" "),
        question: question.kind.question().into(),
        suggestion: question.kind.suggestion().name().into(),
        reason: question.finding.clone(),
        score: number(question.score),
        threshold: number(question.threshold),
        images: question.n_images().to_string(),
        identity: names(Some(question.label)).unwrap_or_default(),
        source: source(row)?,
        target_identity: names(question.target).unwrap_or_default(),
        partner_source: partner.map(source).transpose()?.unwrap_or_default(),
        sheet: sheet.into(),
        row: row.to_string(),
    })
}
