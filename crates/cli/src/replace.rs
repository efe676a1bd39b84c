//! The one rule of what the programs replace: a file that a command makes takes the place of another only
//! where the user says so.

use std::path::Path;

use crate::Hinted;

/// Whether what a command makes may take the place of a file of that name; flatten it into the command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct Replace {
    /// Replace the file if it is there already
    #[arg(long)]
    pub force: bool,
}

impl Replace {
    /// Asks before any work is done.
    ///
    /// * `path`: the file that is going to be written
    ///
    /// # Errors
    ///
    /// [`Hinted`] with both ways out, if there is something of that name and it may not be replaced, and if
    /// it is a folder.
    pub fn check(self, path: &Path) -> Result<(), Hinted> {
        let name = path.display();
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => {
                Err(Hinted::new(format!("{name}: is a folder"), "choose another name"))
            }
            Ok(_) if !self.force => Err(Hinted::new(
                format!("{name}: already exists"),
                format!("choose another name, or give --force to replace {name}"),
            )),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_by_force_and_a_folder_never() {
        let folder = std::env::temp_dir();
        let name = format!("pfc-replace-{}", std::process::id());
        let file = folder.join(name);
        let [keep, force] = [false, true].map(|force| Replace { force });
        assert!(keep.check(&file).is_ok());
        std::fs::write(&file, "").expect("the temporary folder can be written");
        let said = keep.check(&file).expect_err("it is there").to_string();
        assert!(said.ends_with(": already exists"), "{said}");
        assert!(force.check(&file).is_ok());
        assert!(force.check(&folder).is_err());
        std::fs::remove_file(&file).expect("it can be removed");
    }
}
