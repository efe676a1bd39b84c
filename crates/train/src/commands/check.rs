//! `pfc-train check`: a configuration against its data, without training.

use anyhow::Context;
use pfc_cli::{Outcome, print_text, tell};

use super::ConfigArgs;
use crate::{
    ranks::Ranks,
    run::{self, Checked},
};

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs `pfc-train check`.
pub(crate) fn check(args: &CheckArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let config = args.config.load(1)?;
    let context = || format!("`{}` cannot be trained", args.config.config.display());
    let Checked { source, plan } = run::check(&config).with_context(context)?;
    let (config, notes) =
        run::settle(&config, source.n_identities(), &Ranks::solo()).with_context(context)?;
    if !quiet {
        tell(&format!(
            "{} images of {} identities; {} epochs of {} steps of {} images",
            source.len(),
            source.n_identities(),
            plan.n_epochs(),
            plan.steps_per_epoch(),
            plan.batch_size
        ));
        notes.iter().for_each(|note| tell(note));
        tell(&run::room::describe(&config, &plan, source.n_identities()));
    }
    print_text(config.to_toml())?;
    Ok(Outcome::Clean)
}
