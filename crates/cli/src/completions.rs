//! Shell completions for every program, from its own parser.

use clap_complete::Shell;

/// Print a completion script for a shell.
///
/// Example: `pfc-ingest completions bash > ~/.local/share/bash-completion/completions/pfc-ingest`
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Shell to write for.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script for the parser `C` to standard output.
    pub fn print<C: clap::CommandFactory>(&self) {
        let mut command = C::command();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut std::io::stdout());
    }
}
