//! Two or more data sets with people in common become one, as Glint360K was made.
//!
//! The new data set holds all rows of all, under their own labels; who is the same person is decided
//! by embeddings and written to its log, so that every join can be looked at and taken back.

use std::path::{Path, PathBuf};

use pfc_clean::{
    CleanError, Work,
    identities::{Bounds, joined},
};
use pfc_cli::{print_json, print_table, table, units::count};
use pfc_durable::{AtomicDir, OwnedDir, faults::is_of_system};
use pfc_embeddings::{EmbedOptions, Embeddings, with_model, write_rows};
use pfc_findings::{DECISIONS_DIR, Decision, DecisionLog, RunInfo, State};
use pfc_shard::{
    Checksum, Dataset, IdentityNames,
    hash::content_hash,
    sealed::{self, SealedError},
};
use pfc_sources::exists;
use serde::{Deserialize, Serialize};

use super::{
    MergeArgs,
    datasets::{Part, Rows},
};
use crate::{
    IngestError, TOOL,
    clean::{PartFile, tally},
    output,
};

/// Embeddings of the new data set, relative to its folder, for later runs of `clean`.
const EMBEDDINGS_FILE: &str = "embeddings/joined.npy";

/// What says whose an unfinished result is.
const JOB_FILE: &str = ".join.json";

/// What was joined, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    parts: Vec<String>,
    images: u64,
    identities: u32,
    /// Images that could not be decoded and are left out.
    undecodable: u64,
    answers_carried_over: usize,
    decisions: std::collections::BTreeMap<String, std::collections::BTreeMap<&'static str, u64>>,
    notes: serde_json::Map<String, serde_json::Value>,
}

/// Joins the parts into OUT, which appears once complete. A run that is stopped leaves `.OUT.tmp`, and
/// the next one goes on from there.
///
/// # Errors
///
/// [`IngestError`] for parts that do not fit, a row or embedding that cannot be read, a failed write.
pub fn join(args: &MergeArgs, quiet: bool) -> Result<Summary, IngestError> {
    let inputs: Vec<&Path> = args.parts.iter().map(PathBuf::as_path).collect();
    let owned = output::claim(&inputs, &args.out)?;
    let Opened { parts, embeddings: of_parts, n_undecodable } = open(args, quiet)?;
    let rows = Rows::of(&parts);
    let unfinished = joined_rows(owned, &parts, &of_parts, quiet)?;
    let out = unfinished.path();
    let dataset = Dataset::open(out)?;
    let embeddings = Embeddings::open(&out.join(EMBEDDINGS_FILE))?.of(&dataset)?;
    let carried = rows.decisions()?;
    let mut state = State::of(&dataset);
    state.apply(&carried).map_err(|what| CleanError::Contradiction { what })?;
    let mut work = Work::new(&dataset, state, quiet)?;
    let bounds = bounds(args);
    // Labels of one part follow those of the part before.
    let ends: Vec<usize> = parts
        .iter()
        .scan(0, |end, part| {
            *end += part.labels.len();
            Some(*end)
        })
        .collect();
    let part_of = |label: u32| ends.partition_point(|end| *end <= label as usize);
    let decisions: Vec<Decision> =
        joined(&mut work, &embeddings, &bounds, &PartFile::beside(out), |a, b| {
            part_of(a) != part_of(b)
        })?;
    let notes = work.notes.clone();
    let mut log = DecisionLog::open(out)?;
    let info = |arguments, notes: &serde_json::Map<String, serde_json::Value>| RunInfo {
        dataset: log.dataset(),
        tool: TOOL.into(),
        command: "merge".into(),
        arguments,
        notes: notes.clone().into(),
    };
    let (of_answers, of_merge) = (
        info(vec!["answers carried over".into()], &serde_json::Map::new()),
        info(stated(args, &parts), &notes),
    );
    if !carried.is_empty() {
        log.append(&of_answers, &carried)?;
    }
    log.append(&of_merge, &decisions)?;
    let job = out.join(JOB_FILE);
    std::fs::remove_file(&job).map_err(IngestError::at("remove", &job))?;
    unfinished.commit()?;
    Ok(Summary {
        parts: parts.iter().map(|part| part.name.clone()).collect(),
        images: dataset.len(),
        identities: dataset.n_identities(),
        undecodable: n_undecodable,
        answers_carried_over: carried.len(),
        decisions: tally(&decisions),
        notes,
    })
}

/// What was joined to the rows of an unfinished result.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    tool: String,
    /// Manifest of each part, and what its embeddings are.
    parts: Vec<(String, Checksum, String)>,
}

impl Job {
    fn of(parts: &[Part], embeddings: &[Embeddings]) -> Result<Job, IngestError> {
        let of_part = |(part, embeddings): (&Part, &Embeddings)| {
            let manifest = serde_json::to_vec(part.view.manifest()).unwrap_or_default();
            let decisions = part.view.decisions().map(|decisions| decisions.to_string());
            let both = [manifest, decisions.unwrap_or_default().into_bytes()].concat();
            let checksum = Checksum(content_hash(&both));
            Ok((part.name.clone(), checksum, embeddings.identity()?))
        };
        let parts =
            parts.iter().zip(embeddings).map(of_part).collect::<Result<_, IngestError>>()?;
        Ok(Job { tool: TOOL.into(), parts })
    }
}

/// The unfinished result with all rows and their embeddings: what a stopped run of the same parts left,
/// together with how far it had compared people, or else written now.
fn joined_rows(
    owned: OwnedDir,
    parts: &[Part],
    embeddings: &[Embeddings],
    quiet: bool,
) -> Result<AtomicDir, IngestError> {
    let job = Job::of(parts, embeddings)?;
    let unfinished = owned.resume()?;
    let path = unfinished.path().join(JOB_FILE);
    let found = match sealed::read::<Job>(&path) {
        Err(SealedError::Io(error)) if is_of_system(&error) => {
            return Err(IngestError::at("read", &path)(error));
        }
        // A damaged file is as good as none.
        found => found.unwrap_or_default(),
    };
    let decisions = unfinished.path().join(DECISIONS_DIR);
    if found.is_some_and(|found| found == job) && !exists(&decisions)? {
        tracing::warn!("going on: all rows are joined already");
        return Ok(unfinished);
    }
    let unfinished = unfinished.begin_anew()?;
    write(parts, embeddings, unfinished.path(), quiet)?;
    // Last, since it says that all the rest is there.
    sealed::write(&path, &job)?;
    Ok(unfinished)
}

/// What is to be joined.
struct Opened {
    parts: Vec<Part>,
    /// Of each data set, by row as it was packed.
    embeddings: Vec<Embeddings>,
    /// Rows that are left out as they give no pixels.
    n_undecodable: u64,
}

/// The data sets and the embeddings of each. An image that the network cannot be shown is left out.
fn open(args: &MergeArgs, quiet: bool) -> Result<Opened, IngestError> {
    let (n, given) = (args.parts.len(), args.embeddings.len());
    let wrong = |what: String| {
        let hint =
            "give the data sets to join and, with --embeddings, a file for each in that order";
        Err(IngestError::Options { what, hint: hint.into() })
    };
    if n < 2 {
        return wrong(format!("{n} data sets cannot be joined by who is in them"));
    }
    if args.model.is_none() && given != n {
        return wrong(format!("{given} files of embeddings for {n} data sets"));
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut all: Vec<Embeddings> = Vec::new();
    let mut first_label = 0u32;
    let mut n_undecodable = 0;
    for (i, dir) in args.parts.iter().enumerate() {
        let (mut part, state) = Part::open(dir, args.as_packed, &parts)?;
        let embeddings = match &args.model {
            Some(model) => {
                let options = EmbedOptions { plain: false, quiet };
                let (embeddings, undecodable) =
                    with_model(model, dir, part.view.dataset(), options)?;
                n_undecodable += part.leave_out(dir, state, &undecodable)?;
                embeddings
            }
            None => Embeddings::open(&args.embeddings[i])?.of_left(part.view.dataset(), &state)?,
        };
        if let Some(first) = all.first()
            && first.dim() != embeddings.dim()
        {
            let what = format!(
                "the embeddings of {} have {} numbers, those of {} {}",
                parts[0].name,
                first.dim(),
                part.name,
                embeddings.dim()
            );
            let hint = "embed both with the same network".into();
            return Err(IngestError::Options { what, hint });
        }
        let n = part.view.n_identities();
        let Some(next) = first_label.checked_add(n).filter(|next| *next < u32::MAX) else {
            return Err(IngestError::TooManyIdentities { n: u32::MAX as usize });
        };
        part.labels = (first_label..next).collect();
        parts.push(part);
        all.push(embeddings);
        first_label = next;
    }
    Ok(Opened { parts, embeddings: all, n_undecodable })
}

/// All rows in a random order, their sources and names under the part's name; embeddings likewise.
fn write(
    parts: &[Part],
    embeddings: &[Embeddings],
    out: &Path,
    quiet: bool,
) -> Result<(), IngestError> {
    let mut names = IdentityNames::default();
    for part in parts {
        let people = part.view.people();
        for label in 0..people.len() {
            names.push(people.names(label).map(|name| format!("{}/{name}", part.name)));
        }
    }
    let rows = Rows::of(parts);
    rows.write("merge --match embeddings".into(), names, out, quiet)?;
    let read = |i: u64, out: &mut [f32]| {
        let (part, row) = rows.place(i);
        embeddings[part].read(parts[part].view.row(row), out)
    };
    let dim = embeddings.first().map_or(0, Embeddings::dim);
    Ok(write_rows(&out.join(EMBEDDINGS_FILE), rows.len(), dim, read)?)
}

fn bounds(args: &MergeArgs) -> Bounds {
    Bounds { false_matches: args.false_matches, same_person: args.same_person, ..Bounds::default() }
}

fn stated(args: &MergeArgs, parts: &[Part]) -> Vec<String> {
    let model = args.model.as_ref().and_then(|m: &PathBuf| m.file_name());
    let mut all: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
    all.push("--match=embeddings".into());
    all.push(format!("--false-matches={}", args.false_matches));
    all.extend(args.same_person.map(|bound| format!("--same-person={bound}")));
    all.extend(model.map(|name| format!("--model={}", name.to_string_lossy())));
    all
}

impl Summary {
    /// Prints the outcome as JSON or tables.
    ///
    /// # Errors
    ///
    /// That of a closed standard output.
    pub fn print(&self, json: bool) -> std::io::Result<()> {
        use std::io::Write;
        if json {
            return print_json(self);
        }
        let mut rows = table(["reason", "action", "n"]);
        for (reason, actions) in &self.decisions {
            for (action, n) in actions {
                rows.add_row([reason.clone(), (*action).to_owned(), count(*n)]);
            }
        }
        print_table(&rows)?;
        writeln!(
            pfc_cli::stdout(),
            "{} images of {} identities; `compact` applies what was decided",
            count(self.images),
            count(self.identities.into())
        )
    }
}
