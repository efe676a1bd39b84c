//! A run for `arcface_torch`: the `checkpoint_gpu_k.pt` of each of its ranks, from which its
//! `train_v2.py` goes on with `resume = True`.
//!
//! All ranks have the same network, optimizer state of the network and learning-rate schedule. Each has
//! its own centres, with their optimizer state, in the place of `PartialFC_V2`'s one parameter.

// C = centres of the rank, D = numbers of a centre.

use std::{ops::Range, path::Path};

use anyhow::Context;
use pfc_cli::{Hinted, Outcome};
use pfc_durable::{AtomicDir, AtomicFile, DurableError};
use pfc_head::{CentreOptimizer, CentreReader, ClassRange};
use pfc_model::{ModelError, bytes};
use pfc_torchfile::{Dtype, Object, StateEntry, StateWriter, TorchFileError};
use tch::{Kind, Tensor};

use super::{ExportArgs, To, centres::Report, default_out, go_on};
use crate::{
    TrainError,
    checkpoint::{OPTIMIZER, SavedRun, centres::CHUNK_ROWS},
    config::{Config, OptimizerKind, ScheduleKind},
    optim::lr::Schedule,
};

/// Runs `pfc-train export --to arcface-torch`.
pub(super) fn export(args: &ExportArgs) -> anyhow::Result<Outcome> {
    let context = || format!("cannot export `{}`", args.model.display());
    write(args).with_context(context)?.print(args)
}

fn write(args: &ExportArgs) -> anyhow::Result<Report> {
    let run = SavedRun::open(&args.model)?;
    let n_sub_centres = run.config().head.margin.sub_centres();
    if n_sub_centres > 1 {
        let message = format!(
            "each class of the run has {n_sub_centres} centres, but one of PartialFC_V2 has 1"
        );
        let hint =
            "write the network with --to pth, and all centres with --centres --to safetensors";
        return Err(Hinted::new(message, hint).into());
    }
    departures(&run).iter().for_each(|text| tracing::warn!("{text}"));
    let mut centres = run.centres(args.centres_in.as_deref())?;
    let (n_rows, dim) = (centres.n_centres(), centres.dim());
    let state = State::read(&run, centres.n_steps())?;
    let path = args.out.clone().unwrap_or_else(|| default_out(&args.model, To::ArcfaceTorch));
    let folder = AtomicDir::create(&path)?;
    let world = usize::from(args.ranks);
    for rank in 0..world {
        let own = ClassRange::of_rank(n_rows, rank, world);
        state.write(&folder.path().join(format!("checkpoint_gpu_{rank}.pt")), &mut centres, own)?;
    }
    folder.commit()?;
    let path = path.display().to_string();
    Ok(Report { path, files: world, centres: n_rows, embedding: dim })
}

/// In what `arcface_torch` will go on otherwise than the run would.
fn departures(run: &SavedRun) -> Vec<String> {
    let Config { optim, .. } = run.config();
    let mut all = Vec::new();
    let progress = run.progress();
    if progress.epoch_position > 0 {
        all.push(format!(
            "the checkpoint is at image {} of epoch {}: arcface_torch begins that epoch anew",
            progress.epoch_position, progress.epoch
        ));
    }
    if power(optim.schedule).is_none() {
        all.push(
            "arcface_torch's learning rate falls in a line from here, whatever `optim.schedule` is"
                .to_owned(),
        );
    }
    if !optim.decay_all {
        let text = "arcface_torch's weight decay takes biases and normalisation too";
        all.push(text.to_owned());
    }
    if Rule::of_run(run.config()).is_none() {
        all.push(
            "arcface_torch moves centres by the optimizer of the network, which is another than \
             that of this run: theirs begins without a state, at the network's learning rate"
                .to_owned(),
        );
    }
    all
}

/// The power of `PolynomialLRWarmup` that is this schedule.
fn power(kind: ScheduleKind) -> Option<f64> {
    match kind {
        ScheduleKind::Poly1 => Some(1.0),
        ScheduleKind::Poly2 => Some(2.0),
        ScheduleKind::Step | ScheduleKind::Cosine | ScheduleKind::Constant => None,
    }
}

/// An optimizer of PyTorch.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Sgd { momentum: f64 },
    AdamW { betas: [f64; 2], eps: f64 },
}

impl Rule {
    /// That of the network.
    fn of_network(config: &Config) -> Rule {
        let optim = &config.optim;
        match optim.optimizer {
            OptimizerKind::Sgd => Rule::Sgd { momentum: optim.momentum },
            OptimizerKind::Adamw => {
                Rule::AdamW { betas: [optim.beta1, optim.beta2], eps: optim.eps }
            }
        }
    }

    /// That of the centres, where it is the same class of PyTorch as the network's.
    fn of_run(config: &Config) -> Option<Rule> {
        match (Rule::of_network(config), config.head.optimizer) {
            (Rule::Sgd { momentum }, CentreOptimizer::Sgd) => Some(Rule::Sgd { momentum }),
            (Rule::AdamW { .. }, CentreOptimizer::Adamw { beta1, beta2, eps }) => {
                Some(Rule::AdamW { betas: [beta1, beta2], eps })
            }
            _ => None,
        }
    }

    /// Names of the tensors that it keeps of a parameter, as PyTorch has them.
    fn slots(self) -> &'static [&'static str] {
        match self {
            Rule::Sgd { .. } => &["momentum_buffer"],
            Rule::AdamW { .. } => &["exp_avg", "exp_avg_sq"],
        }
    }

    /// What our optimizer puts after the name of a parameter for the same tensors.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Rule::Sgd { .. } => &[""],
            Rule::AdamW { .. } => &[".exp_avg", ".exp_avg_sq"],
        }
    }

    /// Its hyperparameters beside learning rate and decay.
    fn options(self) -> Vec<(&'static str, Object)> {
        let (no, none) = (Object::Bool(false), Object::None);
        let shared = [
            ("maximize", no.clone()),
            ("foreach", none.clone()),
            ("differentiable", no.clone()),
            ("fused", none),
        ];
        let mut own = match self {
            Rule::Sgd { momentum } => vec![
                ("momentum", Object::Float(momentum)),
                ("dampening", Object::Int(0)),
                ("nesterov", no),
            ],
            Rule::AdamW { betas, eps } => vec![
                ("betas", Object::Tuple(betas.map(Object::Float).to_vec())),
                ("eps", Object::Float(eps)),
                ("amsgrad", no.clone()),
                ("capturable", no),
                ("decoupled_weight_decay", Object::Bool(true)),
            ],
        };
        own.extend(shared);
        own
    }
}

/// One of the optimizer's two groups of parameters.
struct Group {
    rule: Rule,
    base_lr: f64,
    lr: f64,
    weight_decay: f64,
}

impl Group {
    /// * `params`: numbers of its parameters
    fn object(&self, params: Range<usize>) -> Object {
        let params = params.map(|i| Object::Int(i as i64)).collect();
        let own = [
            ("lr", Object::Float(self.lr)),
            ("initial_lr", Object::Float(self.base_lr)),
            ("weight_decay", Object::Float(self.weight_decay)),
            ("params", Object::List(params)),
        ];
        Object::dict(own.into_iter().chain(self.rule.options()))
    }
}

/// What the optimizer keeps of one parameter of the network.
struct Slots {
    /// Its number among all parameters.
    index: usize,
    tensors: Vec<(&'static str, Tensor)>,
}

/// Everything but the centres.
struct State {
    epoch: u64,
    step: u64,
    schedule: Schedule,
    network: Vec<(String, Tensor)>,
    n_parameters: usize,
    slots: Vec<Slots>,
    /// Of the network, then of the centres.
    groups: [Group; 2],
    /// Steps that the optimizer has taken, of network and centres.
    n_steps: [u64; 2],
    centres: Option<Rule>,
}

impl State {
    fn read(run: &SavedRun, n_head_steps: u64) -> Result<State, TrainError> {
        let (config, progress) = (run.config(), run.progress());
        let schedule = Schedule::of_run(config, &run.plan());
        let (network_rule, centres_rule) = (Rule::of_network(config), Rule::of_run(config));
        let backbone = run.trained()?;
        let optimizer = run.optimizer()?;
        let find = |key: &str, expected: Vec<i64>| {
            let found = optimizer.iter().find(|(name, _)| name == key);
            let (origin, key) = (OPTIMIZER.to_owned(), key.to_owned());
            match found {
                Some((_, tensor)) if tensor.size() == expected => Ok(tensor.shallow_clone()),
                Some((_, tensor)) => {
                    Err(ModelError::TensorShape { origin, key, found: tensor.size(), expected })
                }
                None => Err(ModelError::MissingTensor { origin, key, expected }),
            }
        };
        let names = backbone.parameter_names();
        let mut slots = Vec::new();
        // Frozen parameters have a number, and no state.
        for (name, tensor) in backbone.named_parameters() {
            let index = names.iter().position(|found| *found == name);
            let index = index.expect("a parameter that learns is one of all parameters");
            let mut tensors = Vec::new();
            for (slot, suffix) in network_rule.slots().iter().zip(network_rule.suffixes()) {
                tensors.push((*slot, find(&format!("{name}{suffix}"), tensor.size())?));
            }
            slots.push(Slots { index, tensors });
        }
        let n_network_steps = match network_rule {
            Rule::Sgd { .. } => progress.step,
            Rule::AdamW { .. } => find("adamw.steps", vec![1])?.int64_value(&[0]) as u64,
        };
        let weight_decay = config.optim.weight_decay;
        let group = |rule, factor: f64, weight_decay| Group {
            rule,
            base_lr: schedule.base * factor,
            lr: schedule.at(progress.step) * factor,
            weight_decay,
        };
        let of_network = group(network_rule, 1.0, weight_decay);
        let of_centres = match centres_rule {
            Some(rule) => {
                let own_decay = config.head.weight_decay.unwrap_or(weight_decay);
                group(rule, config.head.lr_factor, own_decay)
            }
            None => group(network_rule, 1.0, weight_decay),
        };
        Ok(State {
            epoch: progress.epoch,
            step: progress.step,
            n_parameters: names.len(),
            network: backbone.state_dict(),
            schedule,
            slots,
            groups: [of_network, of_centres],
            n_steps: [n_network_steps, n_head_steps],
            centres: centres_rule,
        })
    }

    /// The checkpoint of a rank with these centres. Its tensors are those of [`State::write`].
    fn object(&self, n_rows: u64, dim: usize) -> Object {
        let entry = |(key, tensor): &(String, Tensor)| StateEntry {
            key: key.clone(),
            dtype: dtype(tensor),
            shape: shape(tensor),
        };
        let rows = vec![n_rows, dim as u64];
        let weight =
            StateEntry { key: "weight".to_owned(), dtype: Dtype::F32, shape: rows.clone() };
        let of_step = |n_steps: u64| ("step", Object::Float(n_steps as f64));
        let mut state: Vec<(Object, Object)> = Vec::new();
        for Slots { index, tensors } in &self.slots {
            let tensors = tensors
                .iter()
                .map(|(name, tensor)| (*name, Object::Tensor(dtype(tensor), shape(tensor))));
            let step = matches!(self.groups[0].rule, Rule::AdamW { .. });
            let step = step.then(|| of_step(self.n_steps[0]));
            state.push((Object::Int(*index as i64), Object::dict(step.into_iter().chain(tensors))));
        }
        if let Some(rule) = self.centres {
            let step = matches!(rule, Rule::AdamW { .. }).then(|| of_step(self.n_steps[1]));
            let tensors =
                rule.slots().iter().map(|name| (*name, Object::Tensor(Dtype::F32, rows.clone())));
            let slots = Object::dict(step.into_iter().chain(tensors));
            state.push((Object::Int(self.n_parameters as i64), slots));
        }
        let groups = vec![
            self.groups[0].object(0..self.n_parameters),
            self.groups[1].object(self.n_parameters..self.n_parameters + 1),
        ];
        let groups = Object::List(groups);
        Object::dict([
            ("epoch", Object::Int(self.epoch as i64)),
            ("global_step", Object::Int(self.step as i64)),
            ("state_dict_backbone", Object::StateDict(self.network.iter().map(entry).collect())),
            ("state_dict_softmax_fc", Object::StateDict(vec![weight])),
            (
                "state_optimizer",
                Object::dict([("state", Object::Dict(state)), ("param_groups", groups)]),
            ),
            ("state_lr_scheduler", self.scheduler()),
        ])
    }

    /// The state of `PolynomialLRWarmup`: the members of the object, whichever version of PyTorch has
    /// them.
    fn scheduler(&self) -> Object {
        let rates = |rate: fn(&Group) -> f64| {
            Object::List(self.groups.iter().map(|group| Object::Float(rate(group))).collect())
        };
        let count = |n: u64| Object::Int(n as i64);
        Object::dict([
            ("total_iters", count(self.schedule.n_steps)),
            ("power", Object::Float(power(self.schedule.kind).unwrap_or(1.0))),
            ("warmup_iters", count(self.schedule.n_warmup)),
            ("base_lrs", rates(|group| group.base_lr)),
            ("last_epoch", count(self.step)),
            ("_step_count", count(self.step + 1)),
            ("_get_lr_called_within_step", Object::Bool(false)),
            ("_last_lr", rates(|group| group.lr)),
        ])
    }

    /// Writes the tensors that [`State::object`] names, in its order. Rows stream: they are read once for
    /// the weights and once for each part of the state.
    fn write(
        &self,
        path: &Path,
        centres: &mut CentreReader<'_>,
        own: ClassRange,
    ) -> Result<(), TrainError> {
        let object = self.object(own.len() as u64, centres.dim());
        let failed = |error| failed(path, error);
        let mut writer = StateWriter::of(AtomicFile::create(path)?, &object).map_err(failed)?;
        for (_, tensor) in &self.network {
            bytes::with_bytes(tensor, |bytes| writer.push(bytes)).map_err(failed)?;
        }
        let go_on = |rows: &Range<u64>| go_on(rows.start - own.first(), own.len() as u64);
        for rows in chunks(own) {
            go_on(&rows)?;
            writer.append(bytemuck::cast_slice(&centres.read(rows)?)).map_err(failed)?;
        }
        for (_, tensor) in self.slots.iter().flat_map(|slots| &slots.tensors) {
            bytes::with_bytes(tensor, |bytes| writer.push(bytes)).map_err(failed)?;
        }
        let n_slots = self.centres.map_or(0, |rule| rule.slots().len());
        let (dim, n_state) = (centres.dim(), centres.n_state());
        for slot in 0..n_slots {
            for rows in chunks(own) {
                go_on(&rows)?;
                let (_, state) = centres.read_with_state(rows)?;
                let of_slot = state.chunks(n_state).flat_map(|row| &row[slot * dim..][..dim]);
                let values: Vec<f32> = of_slot.copied().collect();
                writer.append(bytemuck::cast_slice(&values)).map_err(failed)?;
            }
        }
        Ok(writer.finish().map_err(failed)?.commit()?)
    }
}

/// The centres of a rank, some thousand at a time.
fn chunks(own: ClassRange) -> impl Iterator<Item = Range<u64>> {
    let ids = own.ids();
    ids.clone()
        .step_by(CHUNK_ROWS as usize)
        .map(move |first| first..(first + CHUNK_ROWS).min(ids.end))
}

fn failed(path: &Path, error: TorchFileError) -> ModelError {
    match error {
        TorchFileError::Io(source) => DurableError::at("write", path)(source).into(),
        source => ModelError::TorchFile { path: path.to_owned(), source },
    }
}

fn shape(tensor: &Tensor) -> Vec<u64> {
    tensor.size().into_iter().map(|side| side as u64).collect()
}

fn dtype(tensor: &Tensor) -> Dtype {
    match tensor.kind() {
        Kind::Int64 => Dtype::I64,
        _ => Dtype::F32,
    }
}
