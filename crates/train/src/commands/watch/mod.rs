//! `pfc-train watch`: the curves of runs in a terminal, while they go on or afterwards.

mod draw;

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use pfc_cli::{Hinted, Outcome, interrupt, number::positive};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::draw::Screen;
use crate::{TrainError, log::history::History, run_folder::RunFolder};

pub(crate) const HELP: &str = "\
Examples:
  pfc-train watch runs/a
  pfc-train watch runs/a runs/b --every 10

Keys: s shows the next evaluation set, q, Esc and Ctrl-C leave. The runs do not notice.";

#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// Folders of runs, which may go on or have ended
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Seconds between two looks at the folders
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = positive::<f64>)]
    every: f64,
}

/// Runs `pfc-train watch`.
pub(crate) fn watch(args: &WatchArgs) -> anyhow::Result<Outcome> {
    let mut screen = Screen::default();
    let mut runs =
        args.runs.iter().map(|run| Watched::open(run)).collect::<anyhow::Result<Vec<_>>>()?;
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let hint = "run it in a terminal, or write a page with `pfc-train report`";
        return Err(Hinted::new("curves are drawn on a terminal, and this is none", hint).into());
    }
    let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on")?;
    let ended = show(&mut terminal, &mut screen, &mut runs, Duration::from_secs_f64(args.every));
    ratatui::restore();
    ended?;
    Ok(interrupt::signal().map_or(Outcome::Clean, Outcome::Stopped))
}

/// Draws until a key ends it.
fn show(
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut Screen,
    runs: &mut [Watched],
    every: Duration,
) -> anyhow::Result<()> {
    loop {
        for run in &mut *runs {
            run.look()?;
        }
        let looked = Instant::now();
        loop {
            if interrupt::requested() {
                return Ok(());
            }
            let histories: Vec<(&History, Option<Duration>)> =
                runs.iter().map(|run| (&run.history, run.age())).collect();
            terminal.draw(|frame| screen.draw(frame, &histories)).context("cannot draw")?;
            let left = every.saturating_sub(looked.elapsed());
            if left.is_zero() || !event::poll(left).context("cannot wait for a key")? {
                break;
            }
            match event::read().context("cannot read a key")? {
                Event::Key(key) if is_end(key) => return Ok(()),
                Event::Key(KeyEvent {
                    code: KeyCode::Char('s'),
                    kind: KeyEventKind::Press,
                    ..
                }) => {
                    screen.next_set();
                }
                // A terminal of another size is drawn on again.
                _ => {}
            }
        }
    }
}

fn is_end(key: KeyEvent) -> bool {
    let is_break = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (is_break || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// A run and when its figures were read.
struct Watched {
    folder: PathBuf,
    history: History,
    /// Length and time of the file of figures, which change with every line.
    stamp: Option<(u64, SystemTime)>,
}

impl Watched {
    fn open(folder: &Path) -> anyhow::Result<Watched> {
        let context = || format!("`{}` is no folder of a run", folder.display());
        let stamp = stamp(folder);
        let history = History::read(folder).with_context(context)?;
        Ok(Watched { folder: folder.to_owned(), history, stamp })
    }

    /// Reads the folder again if the figures have changed.
    fn look(&mut self) -> Result<(), TrainError> {
        let stamp = stamp(&self.folder);
        if stamp != self.stamp {
            self.history = History::read(&self.folder)?;
            self.stamp = stamp;
        }
        Ok(())
    }

    /// How long ago the last figures were written.
    fn age(&self) -> Option<Duration> {
        self.stamp.and_then(|(_, time)| time.elapsed().ok())
    }
}

fn stamp(folder: &Path) -> Option<(u64, SystemTime)> {
    let metadata = RunFolder::of_other_rank(folder).metrics().metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_again_when_it_has_new_figures() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        assert!(Watched::open(folder).is_err());
        std::fs::write(folder.join("config.toml"), "").unwrap();
        let mut run = Watched::open(folder).unwrap();
        assert!(run.history.records.is_empty() && run.age().is_none());
        let line = "{\"kind\":\"epoch\",\"step\":1,\"epoch\":1,\"mean_loss\":2.5}\n";
        std::fs::write(folder.join("metrics.jsonl"), line).unwrap();
        run.look().unwrap();
        assert!(run.history.records.len() == 1 && run.age().is_some());
    }

    #[test]
    fn q_escape_and_ctrl_c_leave() {
        let key = |code, modifiers| is_end(KeyEvent::new(code, modifiers));
        assert!(
            key(KeyCode::Char('q'), KeyModifiers::NONE) && key(KeyCode::Esc, KeyModifiers::NONE)
        );
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
    }
}
