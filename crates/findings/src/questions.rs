//! Turns findings into questions, each asked once, and answers into decisions.

use std::collections::{BTreeMap, HashMap, HashSet};

use pfc_shard::{Dataset, ShardError, hash::content_hash};

use crate::{Action, Decision, FindingsError, Kind, REVIEWED, Run, State, old::translate};

/// A finding that a person may be asked about, whatever was decided about it so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Names the question in tables; the same for the same subjects in every run.
    pub id: String,
    /// What it is about.
    pub kind: Kind,
    /// The reason of the finding, as `label_error`.
    pub finding: String,
    /// The last run that found it.
    pub run: usize,
    /// What that run decided.
    pub action: Action,
    /// The images asked about, ascending; of two identities one image that shows the first.
    pub rows: Vec<u64>,
    /// The image that they are compared with; of a benchmark the number of the probe.
    pub partner: Option<u64>,
    /// The identity asked about, where a finding is about an identity.
    pub label: u32,
    /// The identity that it or the image may belong to.
    pub target: Option<u32>,
    /// What was measured.
    pub score: f32,
    /// The bound.
    pub threshold: f32,
    /// Whether somebody answered, or what was decided since leaves nothing to answer.
    pub is_open: bool,
    /// What the last answer decided.
    previous: Vec<Decision>,
}

impl Question {
    /// Whether the finding is a suspicion, or was decided by a cosine within `margin` of its bound.
    pub fn is_unsure(&self, margin: f32) -> bool {
        let is_close = (self.score - self.threshold).abs() <= margin;
        self.action == Action::Suspect || (self.kind.is_cosine() && is_close)
    }

    /// Images that the question is about, beside the one that they are compared with.
    pub fn n_images(&self) -> usize {
        self.rows.len()
    }

    /// Whether the partner is a row of the data set, and not a benchmark's face.
    pub fn partner_is_row(&self) -> bool {
        self.kind != Kind::Overlap
    }

    /// What may be answered.
    pub fn answers(&self) -> &'static [Action] {
        self.kind.answers(self.target.is_some())
    }
}

/// All findings of a log as questions.
///
/// One question stands for all findings about the same subjects: the same two identities however often they
/// were found, and all images that show one picture. Takes about a hundred bytes of memory per finding.
#[derive(Debug)]
pub struct Questions {
    all: Vec<Question>,
    /// Place in `all` by everything that names a question.
    by_key: HashMap<Key, usize>,
    by_id: HashMap<String, usize>,
    answered: HashSet<Key>,
}

/// Names a question, among other keys of the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    /// A row and a finding about it alone, or about it and others.
    Row(String, u64),
    /// A row and the identity that it may belong to.
    Label(u64, u32),
    /// A row and a benchmark's face.
    Probe(u64, u64),
    /// Two identities, the lower label first.
    Pair(u32, u32),
}

impl Key {
    fn id(&self) -> String {
        let text = match self {
            Key::Row(finding, row) => format!("{finding} {row}"),
            Key::Label(row, label) => format!("label_error {row} {label}"),
            Key::Probe(row, probe) => format!("benchmark_overlap {row} {probe}"),
            Key::Pair(a, b) => format!("same_person {a} {b}"),
        };
        format!("f{:010x}", content_hash(text.as_bytes()) >> 88)
    }
}

/// The keys of a decision.
fn keys(decision: &Decision, target: Option<u32>) -> Vec<Key> {
    let Decision { row, label, partner, .. } = *decision;
    let finding = decision.finding();
    let of_row = |row| Key::Row(finding.to_owned(), row);
    match (Kind::of(finding), target, partner) {
        (Kind::SamePerson, Some(target), _) => {
            vec![Key::Pair(label.min(target), label.max(target))]
        }
        (Kind::Label, Some(target), _) => vec![Key::Label(row, target)],
        (Kind::Overlap, _, Some(probe)) => vec![Key::Probe(row, probe)],
        (Kind::Picture, _, Some(partner)) => vec![of_row(row), of_row(partner)],
        _ => vec![of_row(row)],
    }
}

/// The target of a decision, or the identity of the row that it was compared with.
fn target_of(decision: &Decision, dataset: &Dataset) -> Result<Option<u32>, ShardError> {
    let needs_one = matches!(Kind::of(decision.finding()), Kind::Label | Kind::SamePerson);
    match (decision.target, decision.partner) {
        (None, Some(row)) if needs_one && row < dataset.len() => Ok(Some(dataset.get(row)?.label)),
        (target, _) => Ok(target),
    }
}

/// Findings that are one question, before it is known what is left of it.
#[derive(Debug)]
struct Group {
    run: usize,
    last: Decision,
    target: Option<u32>,
    rows: Vec<u64>,
    keys: Vec<Key>,
}

impl Questions {
    /// The questions of the log's `runs` about `dataset`, which `state` is the sum of.
    ///
    /// # Errors
    ///
    /// [`FindingsError`] if a row cannot be read.
    pub fn of(runs: &[Run], dataset: &Dataset, state: &State) -> Result<Questions, FindingsError> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<Key, usize> = HashMap::new();
        let mut previous: HashMap<Key, (usize, Vec<Decision>)> = HashMap::new();
        let mut answered: HashSet<Key> = HashSet::new();
        for run in runs {
            for decision in translate(run.decisions.clone(), dataset)? {
                let target = target_of(&decision, dataset)?;
                let mut own = keys(&decision, target);
                if decision.is_verdict() {
                    answered.extend(own.iter().cloned());
                    let main = own.swap_remove(0);
                    let (of_run, decisions) = previous.entry(main).or_default();
                    if *of_run != run.number {
                        decisions.clear();
                    }
                    *of_run = run.number;
                    decisions.push(decision);
                    continue;
                }
                own.extend(shared_keys(&decision, dataset, state)?);
                add(&mut groups, &mut places, run.number, decision, target, own);
            }
        }
        let mut questions =
            Questions { all: Vec::new(), by_key: HashMap::new(), by_id: HashMap::new(), answered };
        for group in groups.into_iter().filter(|group| !group.rows.is_empty()) {
            let question = question(&group, dataset, state, &questions.answered, &previous)?;
            let place = questions.all.len();
            for key in group.keys {
                questions.by_id.entry(key.id()).or_insert(place);
                questions.by_key.insert(key, place);
            }
            questions.by_id.insert(question.id.clone(), place);
            questions.all.push(question);
        }
        questions.ask_pairs_once(state);
        Ok(questions)
    }

    /// All questions, answered or not, in the order in which they were first found.
    pub fn all(&self) -> &[Question] {
        &self.all
    }

    /// The question of this id, or of one that it had before more was found.
    pub fn find(&self, id: &str) -> Option<&Question> {
        self.by_id.get(id).map(|place| &self.all[*place])
    }

    /// Whether a suspicion is one that the log holds already, asked or answered.
    pub fn knows(&self, decision: &Decision, state: &State) -> bool {
        let is_known = |key: &Key| self.by_key.contains_key(key) || self.answered.contains(key);
        let mut own = keys(decision, decision.target);
        if let (Kind::SamePerson, Some(target)) = (Kind::of(decision.finding()), decision.target) {
            let (a, b) = (state.resolve(decision.label), state.resolve(target));
            own.push(Key::Pair(a.min(b), a.max(b)));
            return own.iter().any(is_known);
        }
        own.iter().all(is_known)
    }

    /// Of questions about identities that have been merged since, only the surest stays open.
    fn ask_pairs_once(&mut self, state: &State) {
        let mut best: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for place in 0..self.all.len() {
            let question = &self.all[place];
            let (Kind::SamePerson, Action::Suspect, true, Some(target)) =
                (question.kind, question.action, question.is_open, question.target)
            else {
                continue;
            };
            let (a, b) = (state.resolve(question.label), state.resolve(target));
            let pair = (a.min(b), a.max(b));
            let score = question.score;
            match best.get(&pair).copied() {
                None => {
                    best.insert(pair, place);
                }
                Some(other) if self.all[other].score < score => {
                    self.all[other].is_open = false;
                    best.insert(pair, place);
                }
                Some(_) => self.all[place].is_open = false,
            }
        }
    }
}

/// Keys under which findings of several rows are one question, beside those of the rows.
fn shared_keys(
    decision: &Decision,
    dataset: &Dataset,
    state: &State,
) -> Result<Vec<Key>, ShardError> {
    let Decision { row, partner, .. } = *decision;
    let finding = decision.finding();
    // Beyond all rows, so that no row has such a key.
    let beyond = |label: u32| u64::MAX - u64::from(label);
    Ok(match (Kind::of(finding), partner) {
        (Kind::SecondPerson, _) if row < dataset.len() => {
            vec![Key::Row(finding.into(), beyond(dataset.get(row)?.label))]
        }
        (Kind::Overlap, Some(probe)) if row < dataset.len() => {
            vec![Key::Probe(beyond(state.resolve(dataset.get(row)?.label)), probe)]
        }
        _ => Vec::new(),
    })
}

/// Adds a finding to the question that has one of its keys; joins those that share one.
fn add(
    groups: &mut Vec<Group>,
    places: &mut HashMap<Key, usize>,
    run: usize,
    decision: Decision,
    target: Option<u32>,
    own: Vec<Key>,
) {
    let mut found: Vec<usize> = own.iter().filter_map(|key| places.get(key).copied()).collect();
    found.sort_unstable();
    found.dedup();
    let place = found.first().copied().unwrap_or(groups.len());
    if place == groups.len() {
        let (last, rows, keys) = (decision.clone(), Vec::new(), Vec::new());
        groups.push(Group { run, last, target, rows, keys });
    }
    // The larger group takes the smaller in, so that each row moves a few times only.
    let place = found.iter().copied().max_by_key(|at| groups[*at].keys.len()).unwrap_or(place);
    for other in found.into_iter().filter(|other| *other != place) {
        let (rows, keys) =
            (std::mem::take(&mut groups[other].rows), std::mem::take(&mut groups[other].keys));
        for key in &keys {
            places.insert(key.clone(), place);
        }
        groups[place].rows.extend(rows);
        groups[place].keys.extend(keys);
    }
    let group = &mut groups[place];
    for key in own {
        if places.insert(key.clone(), place) != Some(place) {
            group.keys.push(key);
        }
    }
    group.rows.push(decision.row);
    if Kind::of(decision.finding()) == Kind::Picture {
        group.rows.extend(decision.partner);
    }
    (group.run, group.target, group.last) = (run, target, decision);
}

fn question(
    group: &Group,
    dataset: &Dataset,
    state: &State,
    answered: &HashSet<Key>,
    previous: &HashMap<Key, (usize, Vec<Decision>)>,
) -> Result<Question, FindingsError> {
    let Group { run, last, target, rows, keys } = group;
    let kind = Kind::of(last.finding());
    let mut rows: Vec<u64> = rows.iter().copied().filter(|row| *row < dataset.len()).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut partner = last.partner;
    if kind == Kind::SamePerson {
        rows = vec![last.row];
    }
    if kind == Kind::Picture {
        // The picture that stays: the one that others were compared with, if it is still there.
        let is_left = |row: &u64| !state.is_dropped(*row);
        partner = partner.filter(is_left).or_else(|| rows.iter().copied().find(is_left));
        partner = partner.or(last.partner);
        rows.retain(|row| Some(*row) != partner);
    }
    let label = match kind {
        Kind::SamePerson => last.label,
        _ => rows.first().map_or(Ok(last.label), |row| dataset.get(*row).map(|face| face.label))?,
    };
    let has_row =
        |key: &&Key| !matches!(key, Key::Row(_, row) | Key::Probe(row, _) if *row >= dataset.len());
    let of_rows: Vec<&Key> = keys.iter().filter(has_row).collect();
    let id = of_rows.iter().min().map_or_else(String::new, |key| key.id());
    let is_answered = of_rows.iter().all(|key| answered.contains(*key));
    let latest = of_rows.iter().filter_map(|key| previous.get(*key)).map(|(run, _)| *run).max();
    let mut before = Vec::new();
    for (of_run, decisions) in of_rows.iter().filter_map(|key| previous.get(*key)) {
        if Some(*of_run) == latest {
            before.extend(decisions.iter().cloned());
        }
    }
    if kind == Kind::Overlap {
        // Its answer may drop all of the identity, of which the pass need not have named every row.
        let is_own = |d: &Decision| d.finding() == last.finding() && d.label == label;
        let others = previous.iter().filter(|(key, _)| !of_rows.contains(key));
        let of_answer = others.filter(|(_, (of_run, _))| Some(*of_run) == latest);
        let decisions = of_answer.flat_map(|(_, (_, decisions))| decisions);
        before.extend(decisions.filter(|decision| is_own(decision)).cloned());
        before.sort_by_key(|decision| decision.row);
    }
    let mut question = Question {
        id,
        kind,
        finding: last.finding().to_owned(),
        run: *run,
        action: last.action,
        rows,
        partner,
        label,
        target: *target,
        score: last.score,
        threshold: last.threshold,
        is_open: false,
        previous: before,
    };
    question.is_open = !is_answered && question.is_unsettled(dataset, state)?;
    Ok(question)
}

impl Question {
    /// Whether what was decided since leaves something to answer.
    fn is_unsettled(&self, dataset: &Dataset, state: &State) -> Result<bool, ShardError> {
        let label = |row: u64| -> Result<Option<u32>, ShardError> {
            Ok(state.label(row, dataset.get(row)?.label))
        };
        let target = self.target.map(|target| state.resolve(target));
        let Some(&row) = self.rows.first() else { return Ok(false) };
        match (self.kind, self.action) {
            (Kind::Picture, _) => {
                let mut names = HashSet::new();
                for row in self.rows.iter().copied().chain(self.partner) {
                    names.extend(label(row)?);
                }
                Ok(names.len() > 1)
            }
            (Kind::SamePerson, action) => {
                let own = state.resolve(self.label);
                let Some(target) = target else { return Ok(false) };
                Ok(match action {
                    Action::Merge => own == target,
                    _ => own != target && !state.links().are_different(own, target),
                })
            }
            (_, Action::Drop) => Ok(self.rows.iter().any(|row| state.is_dropped(*row))),
            (Kind::Label, Action::Suspect) => {
                let own = label(row)?;
                Ok(own.is_some() && own != target)
            }
            (_, Action::Relabel) => Ok(label(row)?.is_some_and(|own| Some(own) == target)),
            _ => Ok(self.rows.iter().any(|row| !state.is_dropped(*row))),
        }
    }

    /// The decisions that an answer stands for; none if they were made already.
    ///
    /// * `target`: an identity that the person named, for findings without one
    /// * `labels`: the label of every row of the data set
    ///
    /// # Errors
    ///
    /// Says why this question has no such answer.
    pub fn decide(
        &self,
        answer: Action,
        target: Option<u32>,
        state: &State,
        labels: &[u32],
    ) -> Result<Vec<Decision>, String> {
        let target = self.target.or(target);
        let allowed = self.kind.answers(target.is_some());
        if !allowed.contains(&answer) {
            let names: Vec<&str> = allowed.iter().map(|action| action.name()).collect();
            let about = &self.finding;
            let hint = match answer {
                Action::Relabel if target.is_none() => {
                    "; name the person in `target_identity` to relabel it"
                }
                _ => "",
            };
            return Err(format!(
                "`{answer}` is no answer to `{about}`; answers are {}{hint}",
                names.join(", ")
            ));
        }
        let mut decisions = Answering { question: self, target, state, labels }.decide(answer)?;
        self.restore(&mut decisions, labels);
        Ok(if same(&decisions, &self.previous) { Vec::new() } else { decisions })
    }

    /// What an earlier answer did to single rows, and this one does not, is taken back.
    fn restore(&self, decisions: &mut Vec<Decision>, labels: &[u32]) {
        let is_about_row =
            |d: &&Decision| matches!(d.action, Action::Keep | Action::Drop | Action::Relabel);
        let now: HashSet<u64> = decisions.iter().filter(is_about_row).map(|d| d.row).collect();
        let mut before: Vec<u64> =
            self.previous.iter().filter(is_about_row).map(|d| d.row).collect();
        before.sort_unstable();
        before.dedup();
        let taken_back = before.into_iter().filter(|row| !now.contains(row));
        let keep = |row: u64| self.decision(row, labels, Action::Keep).with_target_of(self);
        let kept: Vec<Decision> = taken_back.map(keep).collect();
        // First, so that what this answer decides stands.
        decisions.splice(0..0, kept);
        if self.kind == Kind::Overlap {
            decisions.sort_by_key(|decision| decision.row);
        }
    }

    fn decision(&self, row: u64, labels: &[u32], action: Action) -> Decision {
        let own = labels.get(row as usize).copied().filter(|_| self.kind != Kind::SamePerson);
        let label = own.unwrap_or(self.label);
        let decision = Decision::new(row, label, action, &format!("{REVIEWED}{}", self.finding));
        let decision = decision.scored(self.score, self.threshold);
        Decision { partner: self.partner, ..decision }
    }
}

impl Decision {
    fn with_target_of(self, question: &Question) -> Decision {
        Decision { target: question.target, ..self }
    }
}

/// Whether two answers decide the same; scores are NaN where there is none.
fn same(a: &[Decision], b: &[Decision]) -> bool {
    let key = |d: &Decision| (d.row, d.action, d.label, d.target, d.partner);
    let sorted = |all: &[Decision]| {
        let mut keys: Vec<_> = all.iter().map(key).collect();
        keys.sort_unstable();
        keys
    };
    sorted(a) == sorted(b)
}

/// A question being answered.
struct Answering<'a> {
    question: &'a Question,
    target: Option<u32>,
    state: &'a State,
    labels: &'a [u32],
}

impl Answering<'_> {
    fn decide(&self, answer: Action) -> Result<Vec<Decision>, String> {
        use Action::{Different, Drop, Keep, Merge, Relabel, Suspect};
        let question = self.question;
        Ok(match (question.kind, answer) {
            (_, Suspect) => return Err("`suspect` is no answer".into()),
            (Kind::SamePerson, Merge) => vec![self.pair(Merge)?],
            (Kind::SamePerson, Keep | Different) => vec![self.pair(Different)?],
            (Kind::SamePerson, Drop) => [vec![self.pair(Different)?], self.rows(Drop)].concat(),
            (Kind::SamePerson, Relabel) => {
                [vec![self.pair(Different)?], self.relabel(self.target)?].concat()
            }
            (Kind::Picture, Merge | Different) => self.names(answer),
            (Kind::Picture, Relabel) => self.relabel(self.label_of_partner())?,
            (Kind::Label, Merge) => vec![self.pair(Merge)?],
            (Kind::Label, Different) => {
                [self.rows(Keep), self.pair(Different).into_iter().collect()].concat()
            }
            (Kind::Stranger, Merge) => self.rows(Keep),
            (Kind::Stranger, Different) => self.rows(Drop),
            (Kind::SecondPerson, Merge) => self.rows(Keep),
            (Kind::SecondPerson, Different | Relabel) => self.split(),
            (Kind::Overlap, Keep | Different) => self.rows(Keep),
            (Kind::Overlap, Drop) => self.whole_identity(),
            (_, Different) => self.rows(Keep),
            (_, Relabel) => self.relabel(self.target)?,
            (_, Keep | Drop | Merge) => self.rows(answer),
        })
    }

    /// The same decision about every row.
    fn rows(&self, action: Action) -> Vec<Decision> {
        let decide = |row: &u64| {
            let decision = self.question.decision(*row, self.labels, action);
            decision.with_target_of(self.question)
        };
        self.question.rows.iter().map(decide).collect()
    }

    fn relabel(&self, target: Option<u32>) -> Result<Vec<Decision>, String> {
        let target = target.ok_or("relabel to whom? the finding names no identity")?;
        let moved = self.rows(Action::Relabel).into_iter();
        Ok(moved.map(|decision| decision.with_target(target)).collect())
    }

    /// A decision about the two identities of the question.
    fn pair(&self, action: Action) -> Result<Decision, String> {
        let question = self.question;
        let target = self.target.ok_or("the finding names no second identity")?;
        if target == question.label {
            return Err("both are one identity already".into());
        }
        let row = question.rows.first().copied().unwrap_or_default();
        let decision = question.decision(row, self.labels, action).with_target(target);
        Ok(Decision { label: question.label, ..decision })
    }

    /// Decides that the identities of one picture are one person, or all different.
    fn names(&self, action: Action) -> Vec<Decision> {
        let Some(target) = self.label_of_partner() else { return Vec::new() };
        let mut seen = HashSet::from([target]);
        let mut decisions = Vec::new();
        for &row in &self.question.rows {
            let Some(label) = self.own_label(row).filter(|label| seen.insert(*label)) else {
                continue;
            };
            let decision = self.question.decision(row, self.labels, action).with_target(target);
            decisions.push(Decision { label, ..decision });
        }
        // Even where nothing is to be joined the question is answered.
        if decisions.is_empty() { self.rows(Action::Keep) } else { decisions }
    }

    /// The identity that a row was packed with or moved to, whatever that was merged into.
    fn own_label(&self, row: u64) -> Option<u32> {
        let own = self.labels.get(row as usize).copied()?;
        // Where an earlier answer to this question moved it, that is taken back.
        let is_moved = |d: &Decision| d.row == row && d.action == Action::Relabel;
        if self.question.previous.iter().any(is_moved) {
            return Some(own);
        }
        Some(self.state.relabelled_to(row).unwrap_or(own))
    }

    fn label_of_partner(&self) -> Option<u32> {
        self.question.partner.and_then(|row| self.own_label(row))
    }

    /// The images become an identity of their own.
    fn split(&self) -> Vec<Decision> {
        let n_old = self.state.n_old();
        // The identity that an earlier answer, or the finding itself, made of them.
        let made = |decision: &Decision| decision.target.filter(|label| *label >= n_old);
        let target = self.question.previous.iter().find_map(made);
        let target = target.or(self.question.target.filter(|label| *label >= n_old));
        let target = target.unwrap_or(self.state.n_identities());
        let moved = self.rows(Action::Relabel).into_iter();
        moved.map(|decision| decision.with_target(target)).collect()
    }

    /// All images of the identity are left out.
    fn whole_identity(&self) -> Vec<Decision> {
        let own = self.state.resolve(self.question.label);
        let is_own = |row: &u64, label: u32| self.state.label(*row, label) == Some(own);
        let all = (0u64..).zip(self.labels);
        let left = all.filter(|(row, label)| is_own(row, **label)).map(|(row, _)| row);
        let mut rows: Vec<u64> = left.chain(self.question.rows.iter().copied()).collect();
        rows.extend(self.question.previous.iter().map(|decision| decision.row));
        rows.sort_unstable();
        rows.dedup();
        let question = Question { rows, ..self.question.clone() };
        Answering { question: &question, ..*self }.rows(Action::Drop)
    }
}
