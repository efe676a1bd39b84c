//! A power cut at any moment of a run that saves: its folder as a disk may then have it.
//!
//! A run is recorded: whenever a name was changed, a file written or something synced, all names and bytes as
//! programs see them. A power cut leaves of each folder the names that it had when they were last synced, or
//! at any moment since; of each file the bytes that it had when it was last synced, or at any moment since,
//! and of one that never was perhaps none. Folders and files are independent of each other, so that every
//! such choice is a state that the disk may be in; all of them are tried. What `pfc-head` keeps beside the
//! run in files has a test like this one, which relies on what is shown here: a checkpoint is whole or absent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use pfc_durable::watch::{self, Done};
use pfc_model::checkpoint::{BACKBONE, Checkpoint, DataIdentity, Progress, Writer};
use tch::Tensor;

use super::publish::Publisher;
use crate::{
    config::{CheckpointConfig, Config},
    log::metrics::{self, EpochRecord, MetricsFile, Record},
    run_folder::{RunFolder, Start},
};

/// A file or folder, for as long as it has a name.
type Id = usize;

/// What a file or folder is at a moment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    File(Arc<Vec<u8>>),
    Link(PathBuf),
    /// Names, and what has them.
    Folder(Arc<BTreeMap<String, Id>>),
}

/// What a disk may have under a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    File(Arc<Vec<u8>>),
    Link(PathBuf),
    Folder(BTreeMap<String, Found>),
}

/// Everything at one moment.
struct Moment {
    nodes: HashMap<Id, Node>,
    /// The moment since which each may have stayed as it was; `None` if it was never synced.
    safe_since: HashMap<Id, Option<usize>>,
    /// The first moment of each.
    since: HashMap<Id, usize>,
    /// The newest checkpoint that is promised, and the one that is being saved.
    promised: Option<u64>,
    saving: Option<u64>,
}

#[derive(Default)]
struct Recorder {
    root: PathBuf,
    /// By number of the inode, which another file may get later.
    ids: HashMap<u64, Id>,
    n_ids: usize,
    moments: Vec<Moment>,
    promised: Option<u64>,
    saving: Option<u64>,
}

const ROOT: Id = 0;

impl Recorder {
    fn look(&mut self, done: Done<'_>) {
        let (Done::Changed(path) | Done::Synced(path) | Done::NamesSynced(path)) = done;
        if !path.starts_with(&self.root) {
            return;
        }
        let now = self.moments.len();
        let mut nodes = HashMap::new();
        let mut inodes = HashMap::new();
        self.walk(&self.root.clone(), &mut nodes, &mut inodes);
        self.ids = inodes;
        let before = self.moments.last();
        let of_before = |id: &Id| before.and_then(|before| before.since.get(id).copied());
        let since: HashMap<Id, usize> =
            nodes.keys().map(|id| (*id, of_before(id).unwrap_or(now))).collect();
        let safe_before = |id: &Id| before.and_then(|before| *before.safe_since.get(id)?);
        let mut safe_since: HashMap<Id, Option<usize>> =
            nodes.keys().map(|id| (*id, safe_before(id))).collect();
        if !matches!(done, Done::Changed(_)) {
            let inode = fs::symlink_metadata(path).unwrap().ino();
            // Of a file whose name another one took at this moment nothing is left to be safe.
            if let Some(id) = self.ids.get(&inode) {
                safe_since.insert(*id, Some(now));
            }
        }
        let (promised, saving) = (self.promised, self.saving);
        self.moments.push(Moment { nodes, safe_since, since, promised, saving });
    }

    fn walk(
        &mut self,
        path: &Path,
        nodes: &mut HashMap<Id, Node>,
        inodes: &mut HashMap<u64, Id>,
    ) -> Option<Id> {
        let meta = fs::symlink_metadata(path).ok()?;
        let id = self.ids.get(&meta.ino()).copied().unwrap_or_else(|| {
            self.n_ids += 1;
            self.n_ids - 1
        });
        inodes.insert(meta.ino(), id);
        let node = if meta.is_symlink() {
            Node::Link(fs::read_link(path).ok()?)
        } else if meta.is_dir() {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                // Locks hold nothing.
                if name.ends_with(".lock") {
                    continue;
                }
                if let Some(child) = self.walk(&path.join(&name), nodes, inodes) {
                    names.insert(name, child);
                }
            }
            Node::Folder(Arc::new(names))
        } else {
            Node::File(Arc::new(fs::read(path).ok()?))
        };
        nodes.insert(id, node);
        Some(id)
    }

    /// What `id` may be on the disk if the power is cut right after moment `now`.
    fn choices(&self, id: Id, now: usize) -> Vec<Found> {
        let moment = &self.moments[now];
        // What lost its last name is what it was when it had one.
        let Some(since) = self.moments[..=now].iter().rev().find_map(|m| m.since.get(&id)) else {
            return Vec::new();
        };
        let safe = self.moments[..=now].iter().rev().find_map(|m| m.safe_since.get(&id)).copied();
        let first = safe.flatten().unwrap_or(*since);
        let versions: BTreeSet<Node> = self.moments[first..=now]
            .iter()
            .filter_map(|moment| moment.nodes.get(&id).cloned())
            .collect();
        let mut found = BTreeSet::new();
        if safe.flatten().is_none() {
            found.extend(match moment.nodes.get(&id) {
                Some(Node::File(_)) => Some(Found::File(Arc::default())),
                Some(Node::Folder(_)) => Some(Found::Folder(BTreeMap::new())),
                Some(Node::Link(_)) | None => None,
            });
        }
        for version in versions {
            match version {
                Node::File(bytes) => found.extend([Found::File(bytes)]),
                Node::Link(target) => found.extend([Found::Link(target)]),
                Node::Folder(names) => found.extend(self.of_names(&names, now)),
            }
        }
        found.into_iter().collect()
    }

    /// Every choice of what has these names. What is still being written nobody opens.
    fn of_names(&self, names: &BTreeMap<String, Id>, now: usize) -> Vec<Found> {
        let mut all = vec![BTreeMap::new()];
        for (name, id) in names.iter().filter(|(name, _)| !name.starts_with('.')) {
            let choices = self.choices(*id, now);
            let with = |state: &BTreeMap<String, Found>, choice: &Found| {
                let mut state = state.clone();
                state.insert(name.clone(), choice.clone());
                state
            };
            all = all.iter().flat_map(|s| choices.iter().map(move |c| with(s, c))).collect();
        }
        all.into_iter().map(Found::Folder).collect()
    }
}

fn write_found(path: &Path, found: &Found) {
    match found {
        Found::File(bytes) => fs::write(path, &**bytes).unwrap(),
        Found::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
        Found::Folder(entries) => {
            fs::create_dir(path).unwrap();
            entries.iter().for_each(|(name, found)| write_found(&path.join(name), found));
        }
    }
}

fn epoch(step: u64) -> Record {
    Record::Epoch(EpochRecord { step, epoch: step, mean_loss: Some(0.5) })
}

/// Saves after steps 1 to 5, as the first rank of a run does.
fn save_five_times(folder: &RunFolder, keep: usize, recorder: &Arc<Mutex<Recorder>>) {
    folder.begin("", false).unwrap();
    let (mut metrics, _) = MetricsFile::open(&folder.metrics(), 0).unwrap();
    let backbone = Config::default().model.spec();
    for step in 1..=5 {
        metrics.write(&epoch(step)).unwrap();
        watch::tell(Done::Changed(&folder.metrics()));
        recorder.lock().unwrap().saving = Some(step);
        let mut writer = Writer::create(&folder.checkpoint(step)).unwrap();
        writer.tensors(BACKBONE, &[("weight", Tensor::from_slice(&[step as f32]))]).unwrap();
        writer.tensors("centres.safetensors", &[("centres", Tensor::from(step as i64))]).unwrap();
        let data = DataIdentity {
            n_images: 2,
            n_identities: 2,
            checksum: "0".to_owned(),
            decisions: None,
            weights: None,
        };
        let progress = Progress {
            step,
            epoch: step,
            epoch_position: 0,
            world_size: 1,
            data,
            trainer: serde_json::Value::Null,
        };
        let config = CheckpointConfig { keep, ..CheckpointConfig::default() };
        let publisher =
            Publisher { folder: folder.without_lock(), config, backbone, scores: Vec::new() };
        publisher.publish(writer, &[], progress).unwrap();
        recorder.lock().unwrap().promised = Some(step);
        watch::tell(Done::Changed(&folder.metrics()));
    }
}

/// What the run finds that is started after the power cut.
fn check(path: &Path, moment: &Moment, place: &str) {
    let folder = RunFolder::open(path, Start::Resume).unwrap();
    let Some((step, newest)) = folder.list_checkpoints().unwrap().into_iter().next() else {
        assert_eq!(moment.promised, None, "{place}: the checkpoint is gone");
        assert_eq!(folder.trace_of_lost_checkpoints().unwrap(), None, "{place}");
        return;
    };
    let expected = [moment.promised, moment.saving];
    assert!(expected.contains(&Some(step)), "{place}: step {step}, not one of {expected:?}");
    let whole = Checkpoint::open(&newest).and_then(|found| found.verify().map(|()| found));
    let found = whole.unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_eq!(found.manifest().progress.as_ref().unwrap().step, step, "{place}");
    // The figures up to there are there too.
    let figures = metrics::read(&folder.metrics()).unwrap();
    let steps: Vec<u64> = figures.iter().map(Record::step).filter(|s| *s <= step).collect();
    assert_eq!(steps, (1..=step).collect::<Vec<u64>>(), "{place}");
}

#[test]
fn after_a_power_cut_at_any_moment_the_last_checkpoint_or_the_one_before_it_is_whole() {
    for keep in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("run");
        let folder = RunFolder::open(&root, Start::Fresh).unwrap();
        // The folder of the run is as old as the disk.
        let recorder = Recorder { root: root.clone(), ..Recorder::default() };
        let recorder = Arc::new(Mutex::new(recorder));
        recorder.lock().unwrap().look(Done::NamesSynced(&root));
        let watching = Arc::clone(&recorder);
        watch::watch(Some(Box::new(move |done: Done<'_>| watching.lock().unwrap().look(done))));
        save_five_times(&folder, keep, &recorder);
        watch::watch(None);
        let recorder = recorder.lock().unwrap();
        let (mut n_states, cut) = (0, tempfile::tempdir().unwrap());
        let mut seen = BTreeSet::new();
        for (now, moment) in recorder.moments.iter().enumerate() {
            for found in recorder.choices(ROOT, now) {
                // The same state is the same, whenever the power goes, while as much is promised.
                if !seen.insert((moment.promised, moment.saving, found.clone())) {
                    continue;
                }
                n_states += 1;
                let path = cut.path().join(n_states.to_string());
                write_found(&path, &found);
                check(&path, moment, &format!("keep {keep}, moment {now}, state {n_states}"));
                fs::remove_dir_all(&path).unwrap();
            }
        }
        // A dozen changes of each save, and what may be lost of them.
        assert!(recorder.moments.len() > 60, "{} moments", recorder.moments.len());
        assert!(n_states > 100, "{n_states} states");
    }
}
