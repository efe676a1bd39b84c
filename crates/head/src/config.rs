//! What a head is: sizes, loss, sampling and update, as they stand in a configuration file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tch::Kind;

use super::HeadError;
pub use pfc_rows::{margin::ArcfaceGradient, optim::CentreOptimizer};

/// Everything that decides what a [`Head`](super::Head) computes.
///
/// Two heads with equal configurations that are fed the same batches hold the same centres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Number of identities C over all ranks, `1 ..= u32::MAX`.
    pub classes: u64,
    /// Width D of an embedding.
    pub dim: usize,
    /// Share r of the classes that a step uses, in `[0, 1]`: `floor(r * C)` rows, all positives
    /// among them. 1 is the full softmax, 0 the positives alone.
    #[serde(default = "default_sample_rate")]
    pub sample_rate: f64,
    /// What is done to the positive's cosine.
    #[serde(default)]
    pub margin: Margin,
    /// The factor s that turns cosines into logits.
    #[serde(default = "default_scale")]
    pub scale: f64,
    /// Cosine above which a negative is taken for label noise and enters as cosine 0, without
    /// gradient. 0 switches the filter off (arXiv 2203.15565 uses 0.4).
    #[serde(default)]
    pub interclass_filter: f64,
    /// Whether the negatives' sum is scaled from the rows drawn to all classes, which undoes that
    /// sampling at rate r acts like a margin smaller by `ln(1/r) / s`. Off in the reference.
    #[serde(default)]
    pub log_q: bool,
    /// Which rows take momentum and weight decay.
    #[serde(default)]
    pub update: Update,
    /// What moves a row, given its gradient.
    #[serde(default)]
    pub optimizer: CentreOptimizer,
    /// Momentum of the centres under SGD, in `[0, 1)`.
    #[serde(default = "default_momentum")]
    pub momentum: f64,
    /// Weight decay of the centres, at least 0.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Number format of the three matrix products; everything else is f32 or f64.
    #[serde(default)]
    pub precision: ProductPrecision,
    /// Where the centres live.
    #[serde(default)]
    pub centres: Placement,
    /// Number format that the centres are kept in.
    #[serde(default)]
    pub weights: Storage,
    /// Number format that the optimizer's state is kept in.
    #[serde(default)]
    pub state: Storage,
    /// Seed of the initial centres, of the sampling and of the rounding.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Rows of centres that are worked on at a time. Larger tiles multiply faster, smaller ones
    /// need less memory: a tile holds `tile_rows * (D + G)` numbers for a global batch of G. Where centres
    /// are on a GPU, the default is as many as fit into a sixteenth of its memory.
    #[serde(default = "default_tile_rows")]
    pub tile_rows: usize,
    /// Upper bound, in MiB, of the exponentials kept between the passes forwards and backwards;
    /// tiles past it are computed twice.
    #[serde(default = "default_cache_mib")]
    pub cache_mib: usize,
}

/// The loss: what becomes of the cosines of positives and negatives. Most leave a negative's logit at
/// `s * cos`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loss", rename_all = "snake_case", deny_unknown_fields)]
pub enum Margin {
    /// `s * (cos(theta) - m)` (arXiv 1801.09414).
    Cosface {
        /// The margin m, in cosine.
        m: f64,
    },
    /// `s * cos(theta + m)` (arXiv 1801.07698).
    Arcface {
        /// The margin m, in radians.
        m: f64,
        /// Which derivative is sent back.
        #[serde(default)]
        gradient: ArcfaceGradient,
    },
    /// `s * (cos(m1 * theta + m2) - m3)`, all three margins at once.
    Combined {
        /// Factor on the angle.
        m1: f64,
        /// Radians added to the angle.
        m2: f64,
        /// Cosine taken off.
        m3: f64,
    },
    /// `s * (cos(theta - m * q) - (m + m * q))`, q from -1 for the shortest embeddings to 1 for the
    /// longest (arXiv 2204.00964).
    Adaface {
        /// The margin m of an embedding of average length.
        m: f64,
        /// Standard deviations of the length times this are q.
        #[serde(default = "default_h")]
        h: f64,
        /// Weight of a batch in the running mean and deviation of the lengths.
        #[serde(default = "default_alpha")]
        alpha: f64,
    },
    /// `s * cos(theta + m)`, and `s * cos * (t + cos)` for a negative above it, with t the running mean
    /// of the positives' cosines (arXiv 2004.00288).
    Curricularface {
        /// The margin m, in radians.
        m: f64,
        /// Weight of a batch in the running mean t.
        #[serde(default = "default_alpha")]
        alpha: f64,
    },
    /// `s * cos(theta + m(a))` with a the embedding's length, cut to `[l_a, u_a]`, m linear in it, and
    /// `lambda_g * (a / u_a^2 + 1 / a)` beside it (arXiv 2103.06627).
    Magface {
        /// The margin at length `l_a`, in radians.
        #[serde(default = "default_l_margin")]
        l_margin: f64,
        /// The margin at length `u_a`, in radians.
        #[serde(default = "default_u_margin")]
        u_margin: f64,
        /// The shortest length that counts as itself.
        #[serde(default = "default_l_a")]
        l_a: f64,
        /// The longest one.
        #[serde(default = "default_u_a")]
        u_a: f64,
        /// Weight of the penalty on the lengths.
        #[serde(default = "default_lambda_g")]
        lambda_g: f64,
    },
    /// `ln(1 + exp(b - s * (cos - m)))` for the positive and `lambda * ln(1 + exp(s * cos - b))` for every
    /// negative, with a threshold b that is trained (`UniFace`, ICCV 2023).
    Uniface {
        /// The margin m, in cosine.
        m: f64,
        /// Weight of the negatives.
        #[serde(default = "default_lambda")]
        lambda: f64,
    },
    /// ArcFace with `k` centres an identity, of which the nearest counts (ECCV 2020).
    #[serde(alias = "subcenter_arcface")]
    SubcentreArcface {
        /// The margin m, in radians.
        m: f64,
        /// Centres of an identity.
        #[serde(default = "default_k")]
        k: usize,
        /// Which derivative is sent back.
        #[serde(default)]
        gradient: ArcfaceGradient,
    },
}

impl Default for Margin {
    /// CosFace at 0.4, which the published `Glint360K` and `WebFace42M` recipes use.
    fn default() -> Margin {
        Margin::Cosface { m: 0.4 }
    }
}

/// Which rows of centres a step moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// The sampled rows alone take momentum, decay and gradient (arXiv 2010.05222).
    Sparse,
    /// Every row takes momentum and decay in every step, as `arcface_torch` has it since 2022. The
    /// steps that a row was not sampled in are made up for when it is touched next.
    #[default]
    Dense,
}

/// Where the centres live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// The memory of the host.
    #[default]
    Host,
    /// The memory of the device that the rank computes on. Every row is there from the start.
    Device,
    /// Files in the folder of this name, which may be larger than the memory. They take room for the
    /// rows that have moved alone.
    File(PathBuf),
}

/// Number format in which centres or their optimizer state are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16: half the memory. A step is rounded up or down at random, so that it is right on
    /// average; rounded to the nearest, steps below 1/256 of a number would be lost.
    Bf16,
}

impl Storage {
    /// The kind of a tensor of such numbers.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Storage::F32 => Kind::Float,
            Storage::Bf16 => Kind::BFloat16,
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Storage::F32 => 4,
            Storage::Bf16 => 2,
        }
    }
}

/// Number format of the operands of the matrix products; sums are f32 in either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductPrecision {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16 operands. The positive's cosine and its gradients stay in single precision.
    Bf16,
}

impl ProductPrecision {
    /// The kind of the tensors that are multiplied.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            ProductPrecision::F32 => Kind::Float,
            ProductPrecision::Bf16 => Kind::BFloat16,
        }
    }
}

impl HeadConfig {
    /// A head of the given size with every other field at its default.
    #[must_use]
    pub fn new(classes: u64, dim: usize) -> HeadConfig {
        HeadConfig {
            classes,
            dim,
            sample_rate: default_sample_rate(),
            margin: Margin::default(),
            scale: default_scale(),
            interclass_filter: 0.0,
            log_q: false,
            update: Update::default(),
            optimizer: CentreOptimizer::default(),
            momentum: default_momentum(),
            weight_decay: default_weight_decay(),
            precision: ProductPrecision::default(),
            centres: Placement::default(),
            weights: Storage::default(),
            state: Storage::default(),
            seed: default_seed(),
            tile_rows: default_tile_rows(),
            cache_mib: default_cache_mib(),
        }
    }

    /// Checks every bound that the fields document.
    ///
    /// # Errors
    ///
    /// [`HeadError::Config`] for the first field out of bounds.
    pub fn validate(&self) -> Result<(), HeadError> {
        let classes_max = f64::from(u32::MAX);
        require("classes", self.classes as f64, 1.0..=classes_max)?;
        require("dim", self.dim as f64, 1.0..=65_536.0)?;
        require("sample_rate", self.sample_rate, 0.0..=1.0)?;
        require("scale", self.scale, f64::MIN_POSITIVE..=1e4)?;
        require("interclass_filter", self.interclass_filter, 0.0..=1.0)?;
        require("momentum", self.momentum, 0.0..=1.0 - f64::EPSILON)?;
        require("weight_decay", self.weight_decay, 0.0..=1.0)?;
        require("tile_rows", self.tile_rows as f64, 1.0..=16_777_216.0)?;
        require("cache_mib", self.cache_mib as f64, 0.0..=1_048_576.0)?;
        validate_optimizer(self.optimizer)?;
        self.margin.validate()?;
        let k = self.margin.sub_centres();
        if k > 1 && self.interclass_filter > 0.0 {
            return Err(HeadError::FilteredSubCentres);
        }
        require("classes", self.classes as f64, 1.0..=(classes_max / k as f64).floor())?;
        if self.update == Update::Dense && self.optimizer != CentreOptimizer::Sgd {
            return Err(HeadError::DenseOptimizer);
        }
        Ok(())
    }

    /// `floor(r * C)`: how many rows a step uses, unless there are more positives.
    #[must_use]
    pub fn rows_per_step(&self) -> u64 {
        (self.sample_rate * self.classes as f64).floor() as u64
    }
}

impl Margin {
    /// Centres of an identity, 1 for most losses.
    #[must_use]
    pub fn sub_centres(&self) -> usize {
        match *self {
            Margin::SubcentreArcface { k, .. } => k,
            _ => 1,
        }
    }

    fn validate(&self) -> Result<(), HeadError> {
        let half_turn = std::f64::consts::PI;
        match *self {
            Margin::Cosface { m } => require("margin.m", m, 0.0..=2.0),
            Margin::Arcface { m, .. } => require("margin.m", m, 0.0..=half_turn),
            Margin::Combined { m1, m2, m3 } => {
                require("margin.m1", m1, f64::MIN_POSITIVE..=10.0)?;
                require("margin.m2", m2, 0.0..=half_turn)?;
                require("margin.m3", m3, 0.0..=2.0)
            }
            Margin::Adaface { m, h, alpha } => {
                require("margin.m", m, 0.0..=half_turn)?;
                require("margin.h", h, 0.0..=10.0)?;
                require("margin.alpha", alpha, 0.0..=1.0)
            }
            Margin::Curricularface { m, alpha } => {
                require("margin.m", m, 0.0..=half_turn)?;
                require("margin.alpha", alpha, 0.0..=1.0)
            }
            Margin::Magface { l_margin, u_margin, l_a, u_a, lambda_g } => {
                require("margin.l_margin", l_margin, 0.0..=half_turn)?;
                require("margin.u_margin", u_margin, l_margin..=half_turn)?;
                require("margin.l_a", l_a, 1e-6..=1e6)?;
                // They must differ, as the margin is linear in between.
                require("margin.u_a", u_a, l_a + 0.001..=1e7)?;
                require("margin.lambda_g", lambda_g, 0.0..=1e6)
            }
            Margin::Uniface { m, lambda } => {
                require("margin.m", m, 0.0..=2.0)?;
                require("margin.lambda", lambda, 0.0..=1e6)
            }
            Margin::SubcentreArcface { m, k, .. } => {
                require("margin.m", m, 0.0..=half_turn)?;
                require("margin.k", k as f64, 1.0..=16.0)
            }
        }
    }
}

fn validate_optimizer(optimizer: CentreOptimizer) -> Result<(), HeadError> {
    let below_one = 0.0..=1.0 - f64::EPSILON;
    match optimizer {
        CentreOptimizer::Sgd => Ok(()),
        CentreOptimizer::Adamw { beta1, beta2, eps } => {
            require("optimizer.beta1", beta1, below_one.clone())?;
            require("optimizer.beta2", beta2, below_one)?;
            require("optimizer.eps", eps, f64::MIN_POSITIVE..=1.0)
        }
        CentreOptimizer::RowAdagrad { eps } => {
            require("optimizer.eps", eps, f64::MIN_POSITIVE..=1.0)
        }
    }
}

fn require(
    field: &'static str,
    value: f64,
    bounds: std::ops::RangeInclusive<f64>,
) -> Result<(), HeadError> {
    // A NaN is in no range.
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(HeadError::Config { field, value, least: *bounds.start(), most: *bounds.end() })
}

fn default_sample_rate() -> f64 {
    1.0
}
fn default_scale() -> f64 {
    64.0
}
fn default_momentum() -> f64 {
    0.9
}
fn default_weight_decay() -> f64 {
    5e-4
}
fn default_h() -> f64 {
    0.333
}
fn default_alpha() -> f64 {
    0.01
}
fn default_l_margin() -> f64 {
    0.45
}
fn default_u_margin() -> f64 {
    0.8
}
fn default_l_a() -> f64 {
    10.0
}
fn default_u_a() -> f64 {
    110.0
}
fn default_lambda_g() -> f64 {
    35.0
}
fn default_lambda() -> f64 {
    1.0
}
fn default_k() -> usize {
    3
}
fn default_seed() -> u64 {
    2048
}
/// Rows of a tile, unless a store that is asked for no other number knows a better one.
pub(crate) fn default_tile_rows() -> usize {
    2048
}
fn default_cache_mib() -> usize {
    256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_file_needs_only_the_sizes() {
        let config: HeadConfig = toml::from_str("classes = 10\ndim = 4").unwrap();
        assert_eq!(config, HeadConfig::new(10, 4));
        config.validate().unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_at_either_level() {
        for text in [
            "classes = 10\ndim = 4\nsamplerate = 0.1",
            "classes = 10\ndim = 4\nmargin = { loss = \"cosface\", m = 0.4, easy = true }",
            "classes = 10\ndim = 4\nmargin = { loss = \"sphereface\", m = 4 }",
        ] {
            assert!(toml::from_str::<HeadConfig>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_margin_is_written_with_the_name_of_its_loss() {
        let text = "classes = 10\ndim = 4\n\
                    margin = { loss = \"arcface\", m = 0.5, gradient = \"straight_through\" }";
        let config: HeadConfig = toml::from_str(text).unwrap();
        let expected = Margin::Arcface { m: 0.5, gradient: ArcfaceGradient::StraightThrough };
        assert_eq!(config.margin, expected);
        let again: HeadConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn every_loss_is_written_with_its_published_numbers_left_out() {
        let exact = ArcfaceGradient::Exact;
        for (text, expected) in [
            ("loss = \"adaface\", m = 0.4", Margin::Adaface { m: 0.4, h: 0.333, alpha: 0.01 }),
            ("loss = \"curricularface\", m = 0.5", Margin::Curricularface { m: 0.5, alpha: 0.01 }),
            (
                "loss = \"magface\"",
                Margin::Magface {
                    l_margin: 0.45,
                    u_margin: 0.8,
                    l_a: 10.0,
                    u_a: 110.0,
                    lambda_g: 35.0,
                },
            ),
            ("loss = \"uniface\", m = 0.4", Margin::Uniface { m: 0.4, lambda: 1.0 }),
            (
                "loss = \"subcentre_arcface\", m = 0.5",
                Margin::SubcentreArcface { m: 0.5, k: 3, gradient: exact },
            ),
            (
                "loss = \"subcenter_arcface\", m = 0.5, k = 2",
                Margin::SubcentreArcface { m: 0.5, k: 2, gradient: exact },
            ),
        ] {
            let file = format!("classes = 10\ndim = 4\nmargin = {{ {text} }}");
            let config: HeadConfig = toml::from_str(&file).unwrap();
            assert_eq!(config.margin, expected);
            config.validate().unwrap();
            let again: HeadConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
            assert_eq!(again, config);
        }
    }

    #[test]
    fn the_ends_of_a_magface_margin_must_be_in_order() {
        let magface = |l_margin, l_a| {
            let margin =
                Margin::Magface { l_margin, u_margin: 0.8, l_a, u_a: 110.0, lambda_g: 35.0 };
            HeadConfig { margin, ..HeadConfig::new(10, 4) }.validate().map_err(|e| e.to_string())
        };
        assert_eq!(magface(0.45, 10.0), Ok(()));
        let error = magface(0.9, 10.0).unwrap_err();
        assert!(
            error.starts_with("head.margin.u_margin is 0.8, but has to be from 0.9 to"),
            "{error}"
        );
        let error = magface(0.45, 110.0).unwrap_err();
        assert!(
            error.starts_with("head.margin.u_a is 110, but has to be from 110.001 to"),
            "{error}"
        );
    }

    #[test]
    fn a_value_out_of_bounds_is_named_with_its_bound() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut HeadConfig), expected: &str) {
            let mut config = HeadConfig::new(10, 4);
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().to_string(), expected);
        }
        check(|c| c.sample_rate = 1.5, "head.sample_rate is 1.5, but has to be from 0 to 1");
        check(|c| c.classes = 0, "head.classes is 0, but has to be from 1 to 4294967295");
        check(
            |c| c.margin = Margin::Cosface { m: f64::NAN },
            "head.margin.m is NaN, but has to be from 0 to 2",
        );
        check(|c| c.tile_rows = 0, "head.tile_rows is 0, but has to be from 1 to 16777216");
    }

    #[test]
    fn the_number_of_rows_is_rounded_down() {
        let rows = |classes, rate| {
            HeadConfig { sample_rate: rate, ..HeadConfig::new(classes, 4) }.rows_per_step()
        };
        assert_eq!(rows(1003, 0.3), 300);
        assert_eq!(rows(360_232, 0.1), 36_023);
        assert_eq!((rows(7, 1.0), rows(7, 0.0)), (7, 0));
    }
}
