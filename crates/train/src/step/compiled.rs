//! The compiled passes of `model.compiled`, found and compared before a run begins.

use pfc_model::compiled::{Packages, Purpose};
use tch::Device;

use crate::{
    TrainError,
    config::{BadValue, Config, is_given},
    data::plan::StepPlan,
};

/// The packages that `model.compiled` names, compared with what this rank computes; `None` where it names none.
/// Nothing of them is run.
///
/// * `config`: with a format in the place of each `auto`
///
/// # Errors
///
/// [`TrainError::Value`] for keys that packages do not go with, [`TrainError::Model`] for packages that were
/// compiled for something else.
pub fn packages(
    config: &Config,
    plan: &StepPlan,
    [rank, world]: [usize; 2],
    device: Device,
) -> Result<Option<Packages>, TrainError> {
    let folder = &config.model.compiled;
    if !is_given(folder) {
        return Ok(None);
    }
    let (n_images, parts) = (plan.images_of_rank(rank, world), config.train.accumulate);
    let is_even = (plan.batch_size as usize).is_multiple_of(world * parts);
    let bound = format!(
        "a multiple of {}, ranks by train.accumulate, where model.compiled is set: packages are of one batch",
        world * parts
    );
    BadValue::unless(is_even, "train.batch_size", plan.batch_size, bound)?;
    let purpose = Purpose {
        network: config.model.network,
        embedding: config.model.embedding,
        batch: (n_images / parts) as i64,
        precision: config.model.precision.or_default(),
        device,
    };
    Ok(Some(Packages::open(folder, &purpose)?))
}

/// What `pfc-train check` and a run say of it.
pub fn note(config: &Config) -> Option<String> {
    let folder = &config.model.compiled;
    let folder = is_given(folder).then(|| folder.display())?;
    Some(format!(
        "training passes of the network are those compiled in {folder}, whose code a run executes"
    ))
}
