//! Verification during training: how well the embeddings tell two people apart.

use pfc_cli::Progress;
use pfc_model::{Backbone, MirroredEmbeddings};
use pfc_verify::{Options, PairsSet, VerifyError};

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
                PairsSet::open(&set.data, &set.pairs)?
            } else {
                PairsSet::open_pack(&set.pack)?
            };
            Ok((set.name.clone(), opened))
        };
        Ok(Verifier { sets: config.sets.iter().map(open).collect::<Result<_, VerifyError>>()? })
    }

    /// Whether there is nothing to measure on.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Measures the network as it is, on images and mirror images summed. Every rank embeds its part
    /// of the images, with the first rank's running statistics, and gets all scores; `None` on every
    /// rank if the user asked any of them to stop. Unless `quiet`, a progress bar is shown.
    ///
    /// # Errors
    ///
    /// What a broken network gives, or a rank that is lost.
    pub fn run(
        &self,
        backbone: &Backbone,
        ranks: &Ranks,
        quiet: bool,
    ) -> Result<Option<Vec<Score>>, TrainError> {
        ranks.copy_from_first(&ema::running(backbone))?;
        self.sets.iter().map(|(name, set)| score(name, set, backbone, ranks, quiet)).collect()
    }
}

fn score(
    name: &str,
    set: &PairsSet,
    backbone: &Backbone,
    ranks: &Ranks,
    quiet: bool,
) -> Result<Option<Score>, TrainError> {
    let (n_images, rank, world) = (set.n_images(), ranks.rank(), ranks.world());
    let own = n_images * rank / world..n_images * (rank + 1) / world;
    let progress = Progress::new("verify", "images", own.len() as u64, quiet);
    let embedded = set.embed(backbone, own, &mut |n| {
        progress.add(n as u64);
        if pfc_cli::interrupt::requested() { Err(Ended::Interrupted) } else { Ok(()) }
    });
    progress.finish();
    if ranks.any(matches!(embedded, Err(Ended::Interrupted)))? {
        return Ok(None);
    }
    let own = match embedded {
        Err(Ended::Failed(error)) => return Err(error.into()),
        Err(Ended::Interrupted) => return Ok(None),
        Ok(own) => own,
    };
    let all = MirroredEmbeddings {
        original: ranks.gather_f32(&own.original)?,
        mirrored: ranks.gather_f32(&own.mirrored)?,
    };
    let judged = match ranks.is_first() {
        true => Some(Score::new(name, &set.judge(&all, &Options::default())?.report)),
        false => None,
    };
    let judged = ranks.of_first(judged)?;
    Ok(Some(judged.expect("the first rank has judged")))
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
