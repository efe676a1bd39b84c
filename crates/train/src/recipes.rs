//! The configurations of `data/configs`, inside the program, so that an installed one has them too.

/// A configuration to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Its name, which is that of its file.
    pub name: &'static str,
    /// The file: comments that say what it is and where its numbers come from, then TOML.
    pub text: &'static str,
}

impl Recipe {
    /// What it is, in a sentence: its first line.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    /// The comments that it begins with.
    #[must_use]
    pub fn head(&self) -> &'static str {
        self.text.split_once("\n\n").map_or("", |(head, _)| head)
    }
}

macro_rules! recipes {
    ($($name:literal,)*) => {
        &[$(Recipe {
            name: $name,
            text: include_str!(concat!("../../../data/configs/", $name, ".toml")),
        }),*]
    };
}

/// Every recipe, by name.
pub const RECIPES: &[Recipe] = recipes![
    "demo",
    "glint360k-r100",
    "glint360k-r100-pfc01",
    "glint360k-r50",
    "glint360k-r50-pfc01",
    "lfw-devtrain-mbf",
    "ms1mv3-r50",
    "ms1mv3-r50-one-gpu",
    "webface42m-r100-pfc02",
    "webface42m-r100-positives-4-nodes",
    "webface42m-r50-pfc03-4-nodes",
    "webface42m-vit-b-pfc03",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_file_of_the_folder_is_a_recipe_and_every_recipe_is_valid() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/configs");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let is_recipe = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "toml");
        let mut names: Vec<String> = files
            .filter(is_recipe)
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>(), names);
        for recipe in RECIPES {
            let config = config::parse(recipe.text, recipe.name, &[]).unwrap();
            config.validate().unwrap();
            let commented = config.to_commented_toml();
            assert_eq!(config::parse(&commented, recipe.name, &[]).unwrap(), config);
            let names_itself = format!("pfc-train recipe {0} > {0}.toml", recipe.name);
            assert!(recipe.head().contains(&names_itself), "{}", recipe.name);
            assert!(recipe.about().ends_with('.'), "{}", recipe.about());
        }
    }
}
