//! A run's configuration: the sections of the TOML file, their checks, and how a file becomes one.

mod checkpoint;
mod data;
mod eval;
mod head;
mod init;
mod load;
mod log;
mod optim;
mod placement;
mod precision;
pub mod reference;
mod section;
mod value;

use std::{path::PathBuf, time::Duration};

use pfc_model::{BackboneSpec, Choice, Network, Precision};
use serde::{Deserialize, Serialize};
use tch::Device;

pub use checkpoint::CheckpointConfig;
pub use data::{DataConfig, OnError, Synthetic};
pub use eval::{EvalConfig, EvalSet};
pub use head::HeadSection;
pub use init::InitConfig;
pub use load::{ConfigError, Override, load, parse};
pub use log::LogConfig;
pub use optim::{LOSS_SCALE_MAX, OptimConfig, OptimizerKind, ScheduleKind};
pub use placement::CentrePlace;
pub(crate) use placement::DeviceRoom;
use section::section;
pub use value::BadValue;
pub(crate) use value::is_given;

/// Everything that decides how a run goes, one field per section of the file.
///
/// Every key has a default but `data.path`. Relative paths start at the current folder.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is trained on.
    pub data: DataConfig,
    /// The backbone.
    pub model: ModelConfig,
    /// What to begin with, in fine-tuning.
    pub init: InitConfig,
    /// The margin softmax.
    pub head: HeadSection,
    /// How weights move.
    pub optim: OptimConfig,
    /// How long, how wide, on what.
    pub train: TrainConfig,
    /// When the run is saved.
    pub checkpoint: CheckpointConfig,
    /// How the model is measured during training.
    pub eval: EvalConfig,
    /// When figures are written.
    pub log: LogConfig,
}

section! {
    /// Section `[model]`: the backbone.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct ModelConfig {
        /// A network by name, for example r50 or mbf.
        pub network: Network,
        /// Numbers in an embedding.
        pub embedding: i64,
        /// What convolutions compute in: f32, bf16, f16, or auto, which is bf16 where the device has
        /// instructions for it and f32 elsewhere. Parameters are f32 in each; f16, for GPUs that have no
        /// bf16, needs `optim.loss_scale`.
        pub precision: Choice<Precision>,
        /// Whether a GPU may round the factors of f32 products and convolutions to the 10 bits of TF32,
        /// which is several times faster. Off, f32 is 32-bit throughout. No matter to bf16 and f16.
        pub tf32: bool,
        /// Folder of the network's training passes, compiled by `scripts/compile-backbone` for this network,
        /// precision, device and batch of a rank; empty computes them operator by operator. Its packages are
        /// programs, which may do anything that you may: name a folder only if you trust whoever made it.
        pub compiled: PathBuf,
    }
}

impl Default for ModelConfig {
    fn default() -> ModelConfig {
        let network = "r50".parse().expect("r50 is a network of the model crate");
        ModelConfig {
            network,
            embedding: 512,
            precision: Choice::Auto,
            tf32: false,
            compiled: PathBuf::new(),
        }
    }
}

impl ModelConfig {
    /// The backbone to make.
    pub fn spec(&self) -> BackboneSpec {
        BackboneSpec { network: self.network, embedding: self.embedding }
    }
}

section! {
    /// Section `[train]`: how long, how wide, on what.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct TrainConfig {
        /// Images per step over all ranks, at least 2 for each: batch normalisation needs a variance.
        pub batch_size: usize,
        /// Gradient accumulation: micro-batches that a rank computes its images of a step in, one after the
        /// other, for batches that do not fit the memory. The step is that of the whole batch, but for
        /// normalisation, which sees a micro-batch; each takes a second forward pass.
        pub accumulate: usize,
        /// Activation checkpointing: blocks whose activations are computed a second time together in the
        /// backward pass, so that only the input of every such group stays in memory: for deep networks. A
        /// step takes one more forward pass; gradients and running statistics are the same. 0 keeps all
        /// activations.
        pub recompute: usize,
        /// Times that the data set is gone through. The last `len mod batch_size` images of an epoch's
        /// order are left out, other ones each time.
        pub epochs: u64,
        /// Steps of the run instead of `epochs`, which then decides nothing; 0 leaves it to `epochs`.
        pub steps: u64,
        /// Whether a GPU computes the same bits in every run. Kernels whose sums depend on the order of
        /// threads are then refused or replaced, and cuDNN does not search for its fastest ones, which makes
        /// steps slower, by how much depends on network and card. A CPU computes the same bits in any case.
        pub deterministic: bool,
        /// Seed of the first weights, the order of images, their mirroring and the drawn classes.
        pub seed: u64,
        /// Threads that compute in each rank; 0 shares the cores of a machine among its ranks. Results
        /// are the same to the bit only for the same number.
        pub threads: usize,
        /// cpu, cuda, cuda:N, or auto: a GPU if there is one. Of several ranks on a machine, each takes
        /// the GPU of its local number.
        pub device: String,
        /// Seconds that ranks wait for each other before they give up, above 0. A rank that dies is
        /// noticed at once; this is for one that hangs.
        pub timeout_s: f64,
        /// MiB of gradients that one collective sums at a time, while the backward pass computes the others.
        pub bucket_mib: usize,
        /// Whether a run is refused that memory, cards or disks have no room for: centres that its steps are
        /// going to use, the network, batches made ahead, checkpoints and centres in files. Activations are not
        /// counted.
        pub check_room: bool,
    }
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        let device = "auto".to_owned();
        TrainConfig {
            batch_size: 128,
            accumulate: 1,
            recompute: 0,
            epochs: 20,
            steps: 0,
            deterministic: false,
            seed: 2048,
            threads: 0,
            device,
            timeout_s: 600.0,
            bucket_mib: 25,
            check_room: true,
        }
    }
}

impl TrainConfig {
    fn validate(&self) -> Result<(), BadValue> {
        let (batch, epochs) = (self.batch_size, self.epochs);
        let bound = "from 2 to 1048576";
        BadValue::unless((2..=1 << 20).contains(&batch), "train.batch_size", batch, bound)?;
        let parts = self.accumulate;
        let fits = (1..=4096).contains(&parts);
        BadValue::unless(fits, "train.accumulate", parts, "from 1 to 4096")?;
        let blocks = self.recompute;
        BadValue::unless(blocks <= 4096, "train.recompute", blocks, "from 0 (off) to 4096")?;
        let bound = "from 1 to 1000000";
        BadValue::unless((1..=1_000_000).contains(&epochs), "train.epochs", epochs, bound)?;
        let steps = self.steps;
        let fits = steps <= 1_000_000_000_000;
        BadValue::unless(fits, "train.steps", steps, "from 0 (off) to 1000000000000")?;
        let threads = self.threads;
        BadValue::unless(threads <= 4096, "train.threads", threads, "from 0 (all cores) to 4096")?;
        // TOML has no larger integers, and the run folder keeps the configuration as TOML.
        let fits = i64::try_from(self.seed).is_ok();
        BadValue::unless(fits, "train.seed", self.seed, "below 2^63")?;
        let (timeout, bucket) = (self.timeout_s, self.bucket_mib);
        // Less than a nanosecond is no time at all.
        let fits = (1e-9..=1e6).contains(&timeout);
        let bound = "above 0 and at most 1000000, at least a billionth";
        BadValue::unless(fits, "train.timeout_s", timeout, bound)?;
        let fits = (1..=4096).contains(&bucket);
        BadValue::unless(fits, "train.bucket_mib", bucket, "from 1 to 4096")?;
        self.device(0).map(drop)
    }

    /// How long ranks wait for each other.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_s)
    }

    /// The device that rank `local_rank` of this machine computes on. A rank that sees a single GPU, as
    /// schedulers have it with `CUDA_VISIBLE_DEVICES`, takes that one.
    ///
    /// # Errors
    ///
    /// [`BadValue`] for text that names none.
    pub fn device(&self, local_rank: usize) -> Result<Device, BadValue> {
        let index = |text: &str| text.parse().ok().map(Device::Cuda);
        let own = || Device::Cuda(own_card(local_rank, tch::Cuda::device_count()));
        let device = match self.device.as_str() {
            "auto" if tch::Cuda::is_available() => Some(own()),
            "auto" | "cpu" => Some(Device::Cpu),
            "cuda" => Some(own()),
            other => other.strip_prefix("cuda:").and_then(index),
        };
        let bound = "auto, cpu, cuda or cuda:N";
        device.ok_or_else(|| BadValue::new("train.device", format!("`{}`", self.device), bound))
    }

    /// Threads that compute in each of `local_world` ranks of this machine, with 0 resolved.
    pub fn n_threads(&self, local_world: usize) -> usize {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.threads {
            0 => (n_cores / local_world.max(1)).max(1),
            n => n,
        }
    }
}

/// The number of the GPU of rank `local_rank`, which sees `n_visible` of them.
fn own_card(local_rank: usize, n_visible: i64) -> usize {
    if n_visible == 1 { 0 } else { local_rank }
}

impl Config {
    /// Refuses what can be seen to be wrong without opening the data set.
    ///
    /// # Errors
    ///
    /// [`BadValue`] for the first such value.
    pub fn validate(&self) -> Result<(), BadValue> {
        self.data.validate()?;
        let embedding = self.model.embedding;
        let fits = (1..=pfc_model::EMBEDDING_MAX).contains(&embedding);
        let bound = format!("from 1 to {}", pfc_model::EMBEDDING_MAX);
        BadValue::unless(fits, "model.embedding", embedding, bound)?;
        self.init.validate()?;
        self.head.validate()?;
        let carries = self.init.carries_centres() && self.head.margin.sub_centres() > 1;
        let bound = "a loss with one centre an identity where `init.data` or `init.centres` is set, as centres are carried \
                     over one by one";
        BadValue::unless(!carries, "head.margin", "a loss with sub-centres", bound)?;
        self.train.validate()?;
        let keeps_all = self.train.recompute == 0 || !is_given(&self.model.compiled);
        let bound =
            "0 where model.compiled is set: compiled passes choose themselves what they keep";
        BadValue::unless(keeps_all, "train.recompute", self.train.recompute, bound)?;
        // The length of a run of so many steps is known once the data set is open.
        let epochs = if self.train.steps == 0 { self.train.epochs as f64 } else { f64::INFINITY };
        self.optim.validate(epochs)?;
        self.checkpoint.validate(&self.eval)?;
        self.log.validate()?;
        self.eval.validate()
    }

    /// The file that gives this configuration again, every key spelled out.
    pub fn to_toml(&self) -> String {
        let text = toml::to_string_pretty(self).expect("validated numbers and paths become TOML");
        format!(
            "# Every value of this run, defaults included. `pfc-train run` takes it again.\n\n{text}"
        )
    }

    /// What must be equal in a run that continues another, as (key, value).
    ///
    /// These give saved tensors and positions their meaning. All else may be changed on the way.
    pub fn fixed(&self) -> Vec<(&'static str, String)> {
        vec![
            ("model.network", self.model.network.to_string()),
            ("model.embedding", self.model.embedding.to_string()),
            ("head.margin.k", self.head.margin.sub_centres().to_string()),
            ("optim.optimizer", format!("{:?}", self.optim.optimizer).to_lowercase()),
            ("train.batch_size", self.train.batch_size.to_string()),
            ("train.seed", self.train.seed.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Config {
        let mut config = Config::default();
        config.data.path = "data/x".into();
        config
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Config), expected: &str) {
        let mut config = valid();
        change(&mut config);
        assert_eq!(config.validate().unwrap_err().to_string(), expected);
    }

    #[test]
    fn the_defaults_with_a_data_set_are_valid_and_come_back_from_toml() {
        let config = valid();
        config.validate().unwrap();
        assert_eq!(parse(&config.to_toml(), "x.toml", &[]).unwrap(), config);
    }

    #[test]
    fn a_rank_that_sees_one_card_takes_it_and_else_that_of_its_number() {
        assert_eq!([0, 1, 7].map(|rank| own_card(rank, 1)), [0, 0, 0]);
        assert_eq!([0, 1, 7].map(|rank| own_card(rank, 8)), [0, 1, 7]);
    }

    #[test]
    fn a_value_out_of_bounds_is_named_with_its_bound() {
        refused(
            |c| c.data.path = "".into(),
            "data.path is not set, but has to be the path of a folder or file",
        );
        refused(
            |c| c.train.batch_size = 0,
            "train.batch_size is 0, but has to be from 2 to 1048576",
        );
        refused(|c| c.train.epochs = 0, "train.epochs is 0, but has to be from 1 to 1000000");
        refused(|c| c.optim.lr = f64::NAN, "optim.lr is NaN, but has to be a number above 0");
        refused(
            |c| c.optim.momentum = 1.0,
            "optim.momentum is 1, but has to be at least 0 and below 1",
        );
        refused(
            |c| c.optim.warmup_epochs = 21.0,
            "optim.warmup_epochs is 21, but has to be from 0 to train.epochs, 20",
        );
        refused(|c| c.head.sample_rate = 1.5, "head.sample_rate is 1.5, but has to be from 0 to 1");
        refused(
            |c| c.train.device = "gpu".into(),
            "train.device is `gpu`, but has to be auto, cpu, cuda or cuda:N",
        );
        refused(|c| c.model.embedding = 0, "model.embedding is 0, but has to be from 1 to 65536");
    }
}
