//! `pfc-train recipe`: configurations to start from.

use clap::builder::PossibleValuesParser;
use pfc_cli::{Outcome, print_table, print_text, table};

use crate::{
    TrainError, config,
    recipes::{RECIPES, Recipe},
};

pub(crate) const HELP: &str = "\
Examples:
  pfc-train recipe
  pfc-train recipe glint360k-r50 > run.toml
  pfc-train recipe demo --commented > run.toml";

#[derive(Debug, clap::Args)]
pub(crate) struct RecipeArgs {
    /// Recipe to print; without a name they are listed
    #[arg(value_name = "NAME", value_parser = names())]
    name: Option<String>,
    /// Spell out every key, defaults included, below a comment that says what it means
    #[arg(long, requires = "name")]
    commented: bool,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(RECIPES.iter().map(|recipe| recipe.name))
}

/// Runs `pfc-train recipe`.
pub(crate) fn recipe(args: &RecipeArgs) -> anyhow::Result<Outcome> {
    let chosen = args.name.as_ref();
    match RECIPES.iter().find(|recipe| chosen.is_some_and(|name| recipe.name == name)) {
        Some(recipe) if args.commented => print_text(commented(recipe)?)?,
        Some(recipe) => print_text(recipe.text)?,
        None => {
            let mut list = table(["recipe", "what it is"]);
            for recipe in RECIPES {
                list.add_row([recipe.name, recipe.about()]);
            }
            print_table(&list)?;
        }
    }
    Ok(Outcome::Clean)
}

fn commented(recipe: &Recipe) -> Result<String, TrainError> {
    let config = config::parse(recipe.text, recipe.name, &[])?;
    Ok(format!("{}\n\n{}", recipe.head(), config.to_commented_toml()))
}
