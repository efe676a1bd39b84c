//! Shell completions for every program, from its own parser.

use clap_complete::Shell;

use crate::print_text;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Shell to write for.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script for the parser `C` to standard output.
    ///
    /// # Errors
    ///
    /// As [`print_text`].
    pub fn print<C: clap::CommandFactory>(&self) -> std::io::Result<()> {
        let mut command = C::command();
        let name = command.get_name().to_owned();
        // In memory first: the generator panics where it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        print_text(script)
    }
}
