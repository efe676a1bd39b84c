//! Bounds that figures must keep, for scripts that stop where a model is not good enough.

use std::{fmt, str::FromStr};

use crate::{document::Findings, rates::rate};

/// Figures that can be required, and whether they are read at a rate.
const NAMES: [(&str, bool); 9] = [
    ("accuracy", false),
    ("auc", false),
    ("eer", false),
    ("rank1", false),
    ("rank5", false),
    ("rank10", false),
    ("tar", true),
    ("tpir", true),
    ("val", true),
];

/// A bound on a figure, as `accuracy>=0.99` or `tar@1e-4>0.9`.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    name: &'static str,
    /// The false accept rate, or for `tpir` the false positive identification rate.
    at: Option<f64>,
    sense: Sense,
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sense {
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// In the order in which they are looked for: the longer ones first.
const SENSES: [(&str, Sense); 4] =
    [(">=", Sense::AtLeast), ("<=", Sense::AtMost), (">", Sense::Above), ("<", Sense::Below)];

impl Requirement {
    fn holds(&self, value: f64) -> bool {
        match self.sense {
            Sense::AtLeast => value >= self.bound,
            Sense::AtMost => value <= self.bound,
            Sense::Above => value > self.bound,
            Sense::Below => value < self.bound,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sense = SENSES.iter().find(|(_, sense)| *sense == self.sense);
        let sense = sense.map_or("", |(text, _)| text);
        match self.at {
            Some(at) => write!(f, "{}@{}{sense}{}", self.name, rate(at), self.bound),
            None => write!(f, "{}{sense}{}", self.name, self.bound),
        }
    }
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Requirement, String> {
        let known = NAMES
            .map(|(name, is_read)| if is_read { format!("{name}@RATE") } else { name.to_owned() });
        let known = known.join(", ");
        let split = SENSES.iter().find_map(|(sign, sense)| Some((*sense, text.split_once(sign)?)));
        let (sense, (figure, bound)) = split.ok_or_else(|| {
            format!("no >=, <=, > or < is in it, as in `accuracy>=0.99`; figures are {known}")
        })?;
        let number = |text: &str| {
            let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
            value.ok_or_else(|| format!("`{}` is no number", text.trim()))
        };
        let (name, at) = match figure.trim().split_once('@') {
            Some((name, at)) => (name, Some(number(at)?)),
            None => (figure.trim(), None),
        };
        let found = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (name, is_read) =
            found.ok_or_else(|| format!("no figure is called `{name}`; figures are {known}"))?;
        match (is_read, at) {
            (true, None) => Err(format!("at which rate is missing, as in `{name}@1e-4`")),
            (false, Some(_)) => Err(format!("`{name}` is not read at a rate")),
            _ => Ok(Requirement { name, at, sense, bound: number(bound)? }),
        }
    }
}

/// A figure by its name.
#[derive(Debug, Clone, PartialEq)]
struct Named {
    name: &'static str,
    at: Option<f64>,
    /// The set, table or gallery that it is of.
    of: String,
    value: f64,
}

/// The requirements that `findings` do not keep, a sentence each.
///
/// A figure of several sets, tables or galleries must keep its bound in all of them.
///
/// # Errors
///
/// For a figure that is not among the findings, the requirement and the figures that are.
pub fn unmet(requirements: &[Requirement], findings: &Findings) -> Result<Vec<String>, String> {
    let figures = named(findings);
    let mut unmet = Vec::new();
    for requirement in requirements {
        let is_meant = |figure: &&Named| {
            figure.name == requirement.name
                && match (figure.at, requirement.at) {
                    (Some(found), Some(asked)) => (found - asked).abs() <= 1e-9 * asked.abs(),
                    (found, asked) => found.is_none() && asked.is_none(),
                }
        };
        let mut meant = figures.iter().filter(is_meant).peekable();
        if meant.peek().is_none() {
            let mut names: Vec<String> = figures.iter().map(Named::label).collect();
            names.sort();
            names.dedup();
            return Err(format!("`{requirement}`: the figures here are {}", names.join(", ")));
        }
        let failed = meant.filter(|figure| !requirement.holds(figure.value));
        unmet.extend(failed.map(|figure| {
            format!(
                "{}: {} is {:.6}, and {requirement} is required",
                figure.of,
                figure.label(),
                figure.value
            )
        }));
    }
    Ok(unmet)
}

impl Named {
    fn label(&self) -> String {
        match self.at {
            Some(at) => format!("{}@{}", self.name, rate(at)),
            None => self.name.to_owned(),
        }
    }
}

fn named(findings: &Findings) -> Vec<Named> {
    let mut found = Vec::new();
    let mut add = |of: &str, name, at, value: Option<f64>| {
        found.extend(value.map(|value| Named { name, at, of: of.to_owned(), value }));
    };
    match findings {
        Findings::Pairs { results } => {
            for figures in results.iter().map(|result| &result.figures) {
                let of = &figures.set;
                add(of, "accuracy", None, Some(figures.accuracy.mean));
                add(of, "auc", None, figures.auc.as_ref().map(|auc| auc.value));
                add(of, "eer", None, figures.eer.as_ref().map(|eer| eer.value));
                figures.tar_at_far.iter().for_each(|row| add(of, "tar", Some(row.far), row.tar));
                if let Some(val) = &figures.val {
                    add(of, "val", Some(val.far_target), Some(val.val));
                }
            }
        }
        Findings::Ijb(report) => {
            for table in &report.one_to_one {
                let of = crate::ijb::pooling(&table.pooling);
                table.rows.iter().for_each(|row| add(&of, "tar", Some(row.far), Some(row.tar)));
            }
            if let Some(search) = &report.one_to_n {
                let ranks = ["rank1", "rank5", "rank10"];
                for (name, share) in ranks.into_iter().zip(search.top) {
                    add("all galleries", name, None, Some(share));
                }
                for gallery in &search.galleries {
                    for row in &gallery.tpir {
                        let tpir = row.tpir.as_ref().map(|tpir| tpir.value);
                        add(&gallery.name, "tpir", Some(row.fpir), tpir);
                    }
                }
            }
        }
        Findings::MegaFace(report) => {
            for gallery in &report.galleries {
                add(&gallery.name, "rank1", None, Some(gallery.rank1.value));
                add(&gallery.name, "rank10", None, gallery.rank10.as_ref().map(|rank| rank.value));
                for row in &gallery.tar_at_far {
                    add(&gallery.name, "tar", Some(row.far), Some(row.tar.value));
                }
            }
        }
        Findings::Nn(report) => {
            for group in &report.groups {
                group
                    .tar_at_far
                    .iter()
                    .for_each(|row| add(&group.name, "tar", Some(row.far), row.tar));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Requirement, String> {
        text.parse()
    }

    #[test]
    fn bounds_are_read_as_people_write_them() {
        let found = parsed(" TAR@1e-4 > 0.9").unwrap();
        assert_eq!((found.name, found.at, found.bound), ("tar", Some(1e-4), 0.9));
        assert!(!found.holds(0.9) && found.holds(0.91));
        assert!(parsed("accuracy>=0.99").unwrap().holds(0.99));
        assert!(
            parsed("eer<=0.02").unwrap().holds(0.02) && !parsed("eer<0.02").unwrap().holds(0.02)
        );
        assert_eq!(parsed("tar@1e-4>=0.9").unwrap().to_string(), "tar@1e-4>=0.9");
    }

    #[test]
    fn what_is_no_bound_says_what_one_is() {
        for (text, expected) in [
            ("accuracy", "as in `accuracy>=0.99`"),
            ("accurracy>0.9", "no figure is called `accurracy`; figures are accuracy, auc"),
            ("tar>0.9", "as in `tar@1e-4`"),
            ("auc@0.1>0.9", "not read at a rate"),
            ("auc>high", "`high` is no number"),
            ("auc>nan", "`nan` is no number"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_bound_is_of_every_set_and_of_figures_that_are_there() {
        let none = Findings::Pairs { results: Vec::new() };
        assert_eq!(unmet(&[], &none), Ok(Vec::new()));
        assert!(unmet(&[parsed("auc>0").unwrap()], &none).unwrap_err().contains("`auc>0`"));
    }
}
