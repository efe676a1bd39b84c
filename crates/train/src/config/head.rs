//! Section `[head]`: what a user chooses of the head; the rest follows from data and model.

use pfc_model::Choice;
use serde::{Deserialize, Serialize};

use super::{BadValue, CentrePlace, Config, is_given, section::section};
use pfc_head::{CentreOptimizer, HeadConfig, HeadError, Margin, ProductPrecision, Storage, Update};

section! {
    /// Section `[head]`. Momentum is that of `[optim]`, the seed that of `[train]`.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct HeadSection {
        /// Share of the classes that a step uses, in `[0, 1]`: all positives, then drawn negatives.
        /// 1 is the full softmax, 0 the positives alone.
        pub sample_rate: f64,
        /// The factor s from cosine to logit.
        pub scale: f64,
        /// Cosine above which a negative is taken for label noise and left out; 0 turns it off.
        pub interclass_filter: f64,
        /// Whether the negatives drawn are weighted to stand for all, so that the margin keeps its meaning
        /// at every sample rate. The reference does not.
        pub log_q: bool,
        /// What the learning rate of `[optim]` is multiplied by for the centres, above 0.
        pub lr_factor: f64,
        /// Weight decay of the centres; that of `[optim]` if it is not given.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub weight_decay: Option<f64>,
        /// Which centres take momentum and decay: dense (all) or sparse (the sampled ones).
        pub update: Update,
        /// What moves the centres: `{ name = "sgd" }`, with sparse updates also `{ name = "adamw" }` and
        /// `{ name = "row_adagrad" }`.
        pub optimizer: CentreOptimizer,
        /// Where the centres live: "host" memory, the "device" that the rank computes on,
        /// `{ file = "FOLDER" }`, files there, or auto, which is the device where it is a GPU and half of its
        /// free memory holds them, and the host elsewhere.
        pub centres: CentrePlace,
        /// What the centres are kept in: f32 or bf16.
        pub weights: Storage,
        /// What the state of their optimizer is kept in: f32 or bf16.
        pub state: Storage,
        /// What the matrix products compute in: f32, bf16, or auto, which is bf16 where the device has
        /// instructions for it and f32 elsewhere.
        pub precision: Choice<ProductPrecision>,
        /// Centres worked on at a time; left as it is, a GPU takes all of a step that fit.
        pub tile_rows: usize,
        /// Memory for exponentials kept between the two passes, in MiB.
        pub cache_mib: usize,
        /// The loss: `{ loss = "cosface", m = 0.4 }`, or one of arcface, combined, adaface, curricularface,
        /// magface, uniface and `subcentre_arcface` with its numbers; `docs/head.md` has the formulae.
        pub margin: Margin,
    }
}

impl Default for HeadSection {
    fn default() -> HeadSection {
        let HeadConfig {
            sample_rate,
            scale,
            interclass_filter,
            log_q,
            update,
            optimizer,
            weights,
            state,
            tile_rows,
            cache_mib,
            margin,
            ..
        } = HeadConfig::new(1, 1);
        HeadSection {
            sample_rate,
            scale,
            interclass_filter,
            log_q,
            lr_factor: 1.0,
            weight_decay: None,
            update,
            optimizer,
            centres: CentrePlace::Auto,
            weights,
            state,
            precision: Choice::Auto,
            tile_rows,
            cache_mib,
            margin,
        }
    }
}

impl HeadSection {
    pub(super) fn validate(&self) -> Result<(), BadValue> {
        let factor = self.lr_factor;
        let fits = factor > 0.0 && factor.is_finite();
        BadValue::unless(fits, "head.lr_factor", factor, "a number above 0")?;
        if matches!(&self.centres, CentrePlace::File(folder) if !is_given(folder)) {
            let bound = "\"host\", \"device\" or { file = \"FOLDER\" }";
            return Err(BadValue::new("head.centres", "{ file = \"\" }", bound));
        }
        let Err(error) = self.with_sizes(1, 1).validate() else { return Ok(()) };
        Err(match error {
            HeadError::Config { field, value, least, most } => {
                BadValue::new(format!("head.{field}"), value, HeadError::bounds(least, most))
            }
            HeadError::DenseOptimizer => {
                BadValue::new("head.update", "dense", "sparse with that `head.optimizer`")
            }
            HeadError::FilteredSubCentres => BadValue::new(
                "head.interclass_filter",
                self.interclass_filter,
                "0 with the sub-centres of `head.margin`: an image with a wrong label finds a \
                 sub-centre of its own, which is what both are for",
            ),
            other => BadValue::new("head", "refused", other.to_string()),
        })
    }

    fn with_sizes(&self, classes: u64, dim: usize) -> HeadConfig {
        HeadConfig {
            sample_rate: self.sample_rate,
            scale: self.scale,
            interclass_filter: self.interclass_filter,
            log_q: self.log_q,
            weight_decay: self.weight_decay.unwrap_or_default(),
            update: self.update,
            optimizer: self.optimizer,
            centres: self.centres.placement(),
            weights: self.weights,
            state: self.state,
            precision: self.precision.or_default(),
            tile_rows: self.tile_rows,
            cache_mib: self.cache_mib,
            margin: self.margin,
            ..HeadConfig::new(classes, dim)
        }
    }
}

impl Config {
    /// The head for a data set of `n_identities`.
    pub fn head_config(&self, n_identities: u32) -> HeadConfig {
        HeadConfig {
            momentum: self.optim.momentum,
            weight_decay: self.head.weight_decay.unwrap_or(self.optim.weight_decay),
            seed: self.train.seed,
            ..self.head.with_sizes(n_identities.into(), self.model.embedding as usize)
        }
    }
}
