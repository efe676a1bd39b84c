//! A trainer without a run around it, for tests of single steps.

use std::sync::Arc;

use pfc_findings::{Reading, View};
use pfc_train::{
    config::{self, Config, OnError},
    data::{
        loader::{Loader, LoaderSpec},
        plan::StepPlan,
    },
    ranks::Ranks,
    step::Trainer,
};
use tch::Device;

use super::run::Setup;

/// A trainer and the batches of its run.
pub fn trainer(setup: &Setup, change: impl FnOnce(&mut Config)) -> (Trainer, Loader) {
    let mut config = config::load(&setup.config, &[]).unwrap();
    config.optim.warmup_epochs = 0.0;
    change(&mut config);
    tch::set_num_threads(1);
    let dataset = Arc::new(View::open(&config.data.path, Reading::Decided).unwrap());
    let plan = StepPlan { n_images: dataset.len(), batch_size: 4, epochs: 3, steps: 0, seed: 1 };
    let ranks = Ranks::solo();
    let trainer = Trainer::new(&config, &plan, dataset.n_identities(), &ranks).unwrap();
    let spec = LoaderSpec {
        plan,
        rank: 0,
        world: 1,
        first_step: 0,
        n_threads: 1,
        n_ahead: 1,
        mirror: true,
        on_error: OnError::Stop,
        device: Device::Cpu,
        as_bytes: false,
    };
    (trainer, Loader::start(dataset, spec).unwrap())
}
