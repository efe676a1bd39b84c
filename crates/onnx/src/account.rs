//! What a model is given and what is taken from it, told to people.

use std::path::Path;

use crate::{decide::Decision, declared::Declared, outputs::Chosen};

/// How a model's input is fed and its output chosen, why, and what of it is assumed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Account {
    /// All of it in a line; a warning if what normalises the pixels is only assumed.
    pub line: String,
    /// What may be wrong.
    pub warnings: Vec<String>,
    /// What was measured, a line a fact.
    pub evidence: Vec<String>,
}

impl Account {
    pub(crate) fn of(
        path: &Path,
        input: &Declared,
        decision: &Decision,
        output: &Chosen,
    ) -> Account {
        let Decision { spec, reasons: [why, why_order], is_assumed: [is_assumed, _], .. } =
            decision;
        let path = path.display();
        let (begin, way_out) =
            if *is_assumed { ("warning: ", "; --mean and --std state it") } else { ("", "") };
        let size = if input.is_size_open { " (tried, as the file leaves it open)" } else { "" };
        let length = match output.dim {
            1 => "one number".to_owned(),
            dim => format!("{dim} numbers"),
        };
        let why_output = output.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let line = format!(
            "{begin}{path}: input `{}` takes {}×{}{size}, {}: {why}{way_out}; {}: {why_order}; output `{}` of \
             {length}{why_output}",
            input.name.escape_debug(),
            spec.height,
            spec.width,
            spec.formula(),
            spec.channels,
            output.name.escape_debug(),
        );
        let line = match &input.keypoints {
            None => line,
            Some(keypoints) => format!(
                "{line}; input `{}` gets the places that the five landmarks of aligned faces have, in shares of the sides",
                keypoints.name.escape_debug()
            ),
        };
        let warnings = decision.warnings.iter().chain(&output.warning);
        Account {
            line,
            warnings: warnings.map(|warning| format!("warning: {path}: {warning}")).collect(),
            evidence: decision.evidence.clone(),
        }
    }

    /// The lines to print, with the evidence if `explain`.
    pub fn lines(&self, explain: bool) -> impl Iterator<Item = String> {
        let evidence = if explain { &self.evidence[..] } else { &[] };
        let evidence = evidence.iter().map(|line| format!("  {line}"));
        std::iter::once(self.line.clone()).chain(self.warnings.iter().cloned()).chain(evidence)
    }
}
