//! Data sets whose identities are known by what they are called, or by their labels, become one: batches of
//! one collection, or the `.rec` files of one numbering that were packed apart.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use pfc_cli::{print_json, units::count};
use pfc_findings::{Action, Decision, DecisionLog, RunInfo};
use pfc_shard::IdentityNames;
use serde::Serialize;

use super::{
    By, MergeArgs,
    datasets::{Part, Rows},
};
use crate::{IngestError, TOOL, output};

/// What was joined, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    parts: Vec<String>,
    images: u64,
    identities: u32,
    /// Identities that are in two parts or more.
    joined: u64,
    answers_carried_over: usize,
}

/// What makes identities one; in the order of the new labels.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(u64),
    Name(String),
}

/// Joins the parts into OUT, which appears once complete. A run that is stopped leaves `.OUT.tmp`, which the
/// next one for OUT removes.
///
/// # Errors
///
/// [`IngestError`] for parts that do not fit, a row that cannot be read, a failed write.
pub fn join(args: &MergeArgs, by: By, quiet: bool) -> Result<Summary, IngestError> {
    let inputs: Vec<&Path> = args.parts.iter().map(PathBuf::as_path).collect();
    let owned = output::claim(&inputs, &args.out)?;
    let mut parts = open(args)?;
    let people = people(&mut parts, by)?;
    let unfinished = owned.resume()?.begin_anew()?;
    let out = unfinished.path();
    let mut names = IdentityNames::default();
    people.iter().for_each(|person| names.push(&person.names));
    let rows = Rows::of(&parts);
    let by = if by == By::Name { "name" } else { "label" };
    rows.write(format!("merge --by {by}"), names, out, quiet)?;
    let carried = of_different_people(rows.decisions()?);
    if !carried.is_empty() {
        let mut log = DecisionLog::open(out)?;
        let info = RunInfo {
            dataset: log.dataset(),
            tool: TOOL.into(),
            command: "merge".into(),
            arguments: vec!["answers carried over".into()],
            notes: serde_json::Map::new().into(),
        };
        log.append(&info, &carried)?;
    }
    unfinished.commit()?;
    Ok(Summary {
        parts: parts.iter().map(|part| part.name.clone()).collect(),
        images: rows.len(),
        identities: people.len() as u32,
        joined: people.iter().filter(|of| of.n_parts > 1).count() as u64,
        answers_carried_over: carried.len(),
    })
}

fn open(args: &MergeArgs) -> Result<Vec<Part>, IngestError> {
    if args.parts.len() < 2 {
        return Err(IngestError::Options {
            what: format!("{} data sets cannot be joined", args.parts.len()),
            hint: "give OUT and the data sets to join, which are two at least".into(),
        });
    }
    let mut parts: Vec<Part> = Vec::new();
    for dir in &args.parts {
        let (part, _) = Part::open(dir, args.as_packed, &parts)?;
        parts.push(part);
    }
    Ok(parts)
}

/// An identity of the new data set.
#[derive(Debug, Default)]
struct Person {
    /// Without repetition, in the order of the parts.
    names: Vec<String>,
    n_parts: usize,
    last_part: Option<usize>,
}

/// The identities of all parts by their new labels, which each part is told.
fn people(parts: &mut [Part], by: By) -> Result<Vec<Person>, IngestError> {
    let is_numbered = by == By::Label
        || parts.iter().all(|part| {
            let people = part.view.people();
            (0..people.len()).all(|label| number(people.name(label)).is_some())
        });
    let key = |part: &Part, label: u32| match (by, is_numbered) {
        (By::Label, _) => Key::Number(label.into()),
        (By::Name, true) => Key::Number(number(part.view.people().name(label)).unwrap_or_default()),
        (By::Name, false) => Key::Name(pfc_sources::composed(part.view.people().name(label))),
    };
    let mut all: BTreeMap<Key, (Person, u32)> = BTreeMap::new();
    let mut differ: Option<(u32, String, String, u64)> = None;
    for (i, part) in parts.iter().enumerate() {
        let people = part.view.people();
        for label in 0..people.len() {
            let (person, _) = all.entry(key(part, label)).or_default();
            // Two identities of one part may be spelled alike.
            if person.last_part.replace(i) != Some(i) {
                person.n_parts += 1;
            }
            let name = people.name(label);
            if let (By::Label, Some(first)) = (by, person.names.first())
                && first != name
            {
                let told = differ.take().unwrap_or((label, first.clone(), name.to_owned(), 0));
                differ = Some((told.0, told.1, told.2, told.3 + 1));
            }
            for name in people.names(label) {
                if !person.names.iter().any(|known| known == name) {
                    person.names.push(name.to_owned());
                }
            }
        }
    }
    if let Some((label, first, second, n)) = differ {
        tracing::warn!(
            "{} labels have different names in the parts, such as {label} with `{first}` and `{second}`: \
             they are joined, and called as in the first; --by name joins by these instead",
            count(n)
        );
    }
    settle_names(all.values_mut().map(|(person, _)| person))?;
    let n =
        u32::try_from(all.len()).map_err(|_| IngestError::TooManyIdentities { n: all.len() })?;
    (0..n).zip(all.values_mut()).for_each(|(new, (_, label))| *label = new);
    let labels: Vec<Vec<u32>> = parts
        .iter()
        .map(|part| (0..part.view.n_identities()).map(|label| all[&key(part, label)].1).collect())
        .collect();
    parts.iter_mut().zip(labels).for_each(|(part, labels)| part.labels = labels);
    Ok(all.into_values().map(|(person, _)| person).collect())
}

/// Leaves each identity those of its names that no other one is called.
fn settle_names<'a>(people: impl Iterator<Item = &'a mut Person>) -> Result<(), IngestError> {
    let people: Vec<&mut Person> = people.collect();
    let mut first_of: HashMap<String, usize> = HashMap::new();
    for (label, name) in people.iter().map(|person| person.names.first()).enumerate() {
        let Some(name) = name else { continue };
        if let Some(other) = first_of.insert(name.clone(), label) {
            return Err(IngestError::Options {
                what: format!("labels {other} and {label} are both called `{name}`"),
                hint: "are the data sets of one numbering? --by name joins identities that are called \
                       alike"
                    .into(),
            });
        }
    }
    let mut taken: HashSet<String> = first_of.into_keys().collect();
    for person in people {
        let mut is_first = true;
        person.names.retain(|name| std::mem::take(&mut is_first) || taken.insert(name.clone()));
    }
    Ok(())
}

/// The number that a name is, as `pack` gives it.
fn number(name: &str) -> Option<u64> {
    let number: u64 = name.parse().ok()?;
    (number.to_string() == name).then_some(number)
}

/// The decisions but for those which say of two identities that are one now that they are different, or the
/// same; says how many they are.
fn of_different_people(mut decisions: Vec<Decision>) -> Vec<Decision> {
    let n_all = decisions.len();
    let is_of_pair =
        |decision: &Decision| matches!(decision.action, Action::Different | Action::Merge);
    decisions.retain(|decision| !(is_of_pair(decision) && decision.target == Some(decision.label)));
    let n_dropped = n_all - decisions.len();
    if n_dropped > 0 {
        tracing::warn!(
            "{} answers about two identities that are one now are not carried over",
            count(n_dropped as u64)
        );
    }
    decisions
}

impl Summary {
    /// Prints the outcome as JSON or in a line.
    ///
    /// # Errors
    ///
    /// That of a closed standard output.
    pub fn print(&self, json: bool) -> std::io::Result<()> {
        use std::io::Write;
        if json {
            return print_json(self);
        }
        writeln!(
            pfc_cli::stdout(),
            "{} images of {} identities, {} of which are in several parts",
            count(self.images),
            count(self.identities.into()),
            count(self.joined)
        )
    }
}
