//! Verification during training: how well the embeddings tell two people apart.

use pfc_cli::Progress;
use pfc_findings::Reading;
use pfc_model::{Backbone, MirroredEmbeddings};
use pfc_verify::{Opening, Options, PairsSet, VerifyError};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    TrainError,
    config::{EvalConfig, EvalSet},
    log::Score,
    optim::ema,
    ranks::Ranks,
};

/// The sets of a run, in memory.
#[derive(Debug)]
pub struct Verifier {
    sets: Vec<(String, PairsSet)>,
}

impl Verifier {
    /// Reads every set.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] for the first list or image that cannot be read.
    pub fn open(config: &EvalConfig) -> Result<Verifier, VerifyError> {
        let open = |set: &EvalSet| {
            let opened = if set.pack.as_os_str().is_empty() {
                let reading = Reading::from_switch(set.as_packed);
                PairsSet::open(&set.data, &set.pairs, Opening { reading, ..Opening::default() })?
            } else {
                PairsSet::open_pack(&set.pack)?
            };
            if let Some(notice) = opened.notice("as_packed = true") {
                tracing::warn!("{}: {notice}", set.name);
            }
            Ok((set.name.clone(), opened))
        };
        Ok(Verifier { sets: config.sets.iter().map(open).collect::<Result<_, VerifyError>>()? })
    }

    /// Whether there is nothing to measure on.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Measures the network as it is, on images and mirror images summed. Every rank embeds its part
    /// of the images, with the first rank's running statistics, and comes to the same end. Unless
    /// `quiet`, a progress bar is shown.
    ///
    /// # Errors
    ///
    /// [`TrainError::Verify`] and [`TrainError::Ranks`] if the network cannot be run, or a rank is lost.
    pub fn run(
        &self,
        backbone: &Backbone,
        ranks: &Ranks,
        quiet: bool,
    ) -> Result<Measured, TrainError> {
        let mut statistics = ema::running(backbone);
        // Counters are the same on every rank, and in the host's memory wherever the network is: without them
        // one broadcast is enough.
        statistics.retain(Tensor::is_floating_point);
        ranks.copy_from_first(&statistics)?;
        let mut scores = Vec::new();
        for (name, set) in &self.sets {
            match score(name, set, backbone, ranks, quiet)? {
                Judged::Score(score) => scores.push(score),
                Judged::Interrupted => return Ok(Measured::Interrupted),
                Judged::Unusable(reason) => {
                    return Ok(Measured::Unusable { set: name.clone(), reason });
                }
            }
        }
        Ok(Measured::Scores(scores))
    }
}

/// What came of a measurement, on every rank.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// A score for each set.
    Scores(Vec<Score>),
    /// The user asked one of the ranks to stop.
    Interrupted,
    /// The network's embeddings of a set cannot be compared, as some are not finite or zero.
    Unusable {
        /// The set.
        set: String,
        /// Of which image, and what is wrong.
        reason: String,
    },
}

/// The same for one set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Judged {
    Score(Score),
    Interrupted,
    Unusable(String),
}

fn score(
    name: &str,
    set: &PairsSet,
    backbone: &Backbone,
    ranks: &Ranks,
    quiet: bool,
) -> Result<Judged, TrainError> {
    let (n_images, rank, world) = (set.n_images(), ranks.rank(), ranks.world());
    let own = n_images * rank / world..n_images * (rank + 1) / world;
    let progress = Progress::new("verify", "images", own.len() as u64, quiet);
    let embedded = set.embed(backbone, own, &mut |n| {
        progress.add(n as u64);
        if pfc_cli::interrupt::requested() { Err(Ended::Interrupted) } else { Ok(()) }
    });
    progress.finish();
    // What ended a rank early, for all to end with. A fault of its own it tells as it gives up.
    let early = match &embedded {
        Err(Ended::Interrupted) => Some(Judged::Interrupted),
        Err(Ended::Failed(error @ VerifyError::Unusable { .. })) => {
            Some(Judged::Unusable(error.to_string()))
        }
        Err(Ended::Failed(_)) | Ok(_) => None,
    };
    if let Some(early) = ranks.gather(early)?.into_iter().flatten().next() {
        return Ok(early);
    }
    let own = match embedded {
        Err(Ended::Failed(error)) => return Err(error.into()),
        Err(Ended::Interrupted) => return Ok(Judged::Interrupted),
        Ok(own) => own,
    };
    let all = MirroredEmbeddings {
        original: ranks.gather_f32(&own.original)?,
        mirrored: ranks.gather_f32(&own.mirrored)?,
    };
    let judged = match ranks.is_first() {
        true => Some(judged(name, set, &all)?),
        false => None,
    };
    Ok(ranks.of_first(judged)?.expect("the first rank has judged"))
}

fn judged(
    name: &str,
    set: &PairsSet,
    embeddings: &MirroredEmbeddings,
) -> Result<Judged, VerifyError> {
    match set.judge(embeddings, &Options::default()) {
        Ok(judged) => Ok(Judged::Score(Score::new(name, &judged.report))),
        Err(error @ VerifyError::Unusable { .. }) => Ok(Judged::Unusable(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Why a rank has not embedded all of its images.
enum Ended {
    Interrupted,
    Failed(VerifyError),
}

impl From<VerifyError> for Ended {
    fn from(error: VerifyError) -> Ended {
        Ended::Failed(error)
    }
}
