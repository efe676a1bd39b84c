//! The ranks of this machine, started and watched by `pfc-train run --nproc-per-node`.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use pfc_c10d::Node;
use pfc_cli::{Hinted, Outcome, interrupt};
use rustix::process::{Pid, Signal, kill_process};

/// Set for the ranks: the number of the process that started them.
const LAUNCHER: &str = "PFC_LAUNCHER";
/// Set for the ranks: the options that this machine's part of the run was started with.
const OPTIONS: &str = "PFC_LAUNCH_OPTIONS";
/// How often the ranks are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How long ranks may take to end by themselves after one has failed, and to say why. They hear of it
/// within a second, and three more may go by until rank 0 knows that all have.
const GRACE: Duration = Duration::from_secs(10);

/// Whether this process is a rank that `--nproc-per-node` started.
#[must_use]
pub fn is_launched() -> bool {
    std::env::var_os(LAUNCHER).is_some()
}

/// The options that start the ranks of this machine again, with a space before each; empty in a process
/// that no launcher started.
#[must_use]
pub fn options() -> String {
    std::env::var(OPTIONS).ok().filter(|_| is_launched()).unwrap_or_default()
}

fn options_of(node: &Node) -> String {
    let Node { node, n_nodes, local_world, master } = node;
    let own = format!(" --nproc-per-node {local_world}");
    match master {
        Some((host, port)) => {
            format!(" --nnodes {n_nodes} --node-rank {node} --master {host}:{port}{own}")
        }
        None => own,
    }
}

/// Makes a rank die with the process that started it, however that ends. Does nothing in a process
/// that no launcher started.
///
/// # Errors
///
/// The launcher is gone already, or the system refuses.
pub fn follow_launcher() -> io::Result<()> {
    let Some(launcher) = std::env::var(LAUNCHER).ok().and_then(|pid| pid.parse::<u32>().ok())
    else {
        return Ok(());
    };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the line above.
    if std::os::unix::process::parent_id() != launcher {
        return Err(io::Error::other("the process that started this rank is gone"));
    }
    Ok(())
}

/// Starts this program again as the ranks of `node`, waits for them and passes on signals that ask to
/// stop.
///
/// The ranks take the arguments of this process. If one fails the others end within seconds. Ranks that
/// a signal stopped make this [`Outcome::Stopped`].
///
/// # Errors
///
/// A rank could not be started, was killed or failed.
pub fn launch(node: &Node) -> anyhow::Result<Outcome> {
    let program = std::env::current_exe()?;
    let command = |_| {
        let mut command = Command::new(&program);
        command
            .args(std::env::args_os().skip(1))
            .env(LAUNCHER, std::process::id().to_string())
            .env(OPTIONS, options_of(node))
            .stdin(Stdio::null())
            // Of their own, so that Ctrl-C reaches them once: from here.
            .process_group(0);
        command
    };
    let children = pfc_c10d::spawn(node, command).map_err(cannot_start)?;
    let first = node.node * node.local_world;
    let rank = |(i, child)| Rank { number: first + i, child, ended: None };
    let ranks = children.into_iter().enumerate().map(rank).collect();
    Watch { ranks, failed_at: None, asked_to_stop: false, stopped: None }.until_all_ended()
}

struct Rank {
    /// Its number among all ranks.
    number: usize,
    child: Child,
    ended: Option<ExitStatus>,
}

struct Watch {
    ranks: Vec<Rank>,
    /// When the first rank failed.
    failed_at: Option<Instant>,
    asked_to_stop: bool,
    /// The signal that ranks say they were stopped by.
    stopped: Option<interrupt::Signal>,
}

impl Watch {
    fn until_all_ended(mut self) -> anyhow::Result<Outcome> {
        let mut first_failure = None;
        loop {
            if let Some(failure) = self.look()? {
                first_failure.get_or_insert(failure);
            }
            if self.ranks.iter().all(|rank| rank.ended.is_some()) {
                break;
            }
            if let Some(signal) = interrupt::signal()
                && !self.asked_to_stop
            {
                self.asked_to_stop = true;
                self.signal(Signal::from_named_raw(signal.number()).unwrap_or(Signal::INT));
            }
            if self.failed_at.is_some_and(|at| at.elapsed() > GRACE) {
                self.signal(Signal::KILL);
            }
            thread::sleep(TICK);
        }
        match (first_failure, self.stopped) {
            (Some(failure), _) => Err(failure.into()),
            (None, Some(signal)) => Ok(Outcome::Stopped(signal)),
            (None, None) => Ok(Outcome::Clean),
        }
    }

    /// Takes note of the ranks that have ended; the first to fail, if one has now.
    fn look(&mut self) -> io::Result<Option<Hinted>> {
        let mut failure = None;
        for rank in &mut self.ranks {
            if rank.ended.is_some() {
                continue;
            }
            rank.ended = rank.child.try_wait()?;
            let stopped = rank.ended.and_then(|status| stopped_by(status, self.asked_to_stop));
            self.stopped = self.stopped.or(stopped);
            match rank.ended {
                Some(status) if !status.success() && stopped.is_none() => {
                    // A rank that was killed explains those that ended because of it.
                    let is_worse = failure.is_none() || status.signal().is_some();
                    if self.failed_at.is_none() && is_worse {
                        failure = Some(explain(rank.number, status));
                    }
                }
                _ => {}
            }
        }
        if failure.is_some() {
            self.failed_at = Some(Instant::now());
        }
        Ok(failure)
    }

    fn signal(&self, signal: Signal) {
        for rank in self.ranks.iter().filter(|rank| rank.ended.is_none()) {
            if let Some(pid) = Pid::from_raw(rank.child.id() as i32) {
                // It may end at this moment.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Watch {
    /// No rank outlives its launcher, whatever went wrong.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        for rank in self.ranks.iter_mut().filter(|rank| rank.ended.is_none()) {
            let _ = rank.child.wait();
        }
    }
}

/// The signal that a rank stopped for, with everything saved; also one that was passed on to a rank that
/// did not listen yet, and so had nothing to save.
///
/// * `was_passed_on`: whether one was
fn stopped_by(status: ExitStatus, was_passed_on: bool) -> Option<interrupt::Signal> {
    if let Some(number) = status.signal().filter(|_| was_passed_on) {
        return interrupt::Signal::from_number(number);
    }
    let code = status.code()?;
    let mut signals = (1..=64).filter_map(interrupt::Signal::from_number);
    signals.find(|signal| i32::from(signal.exit_code()) == code)
}

fn cannot_start(error: io::Error) -> Hinted {
    Hinted::new(
        format!("the ranks of this machine cannot be started: {error}"),
        "`ulimit -u` and `ulimit -n` show how many processes and open files are allowed",
    )
}

fn explain(rank: usize, status: ExitStatus) -> Hinted {
    let (text, hint) = match (status.signal(), status.code()) {
        (Some(9), _) => (
            format!("rank {rank} was killed by signal 9"),
            "if nobody killed it, the system did for want of memory: `dmesg` would say so; the last \
             checkpoint is whole, and `--resume` goes on from it",
        ),
        (Some(signal), _) => (
            format!("rank {rank} was ended by signal {signal}"),
            "the last checkpoint is whole, and `--resume` goes on from it",
        ),
        // The ranks that end because of it end in any order, and as it does: only it knows that it
        // was the one, and has said so.
        (None, code) => (
            format!("a rank failed with exit code {}", code.unwrap_or_default()),
            "its own message is above",
        ),
    };
    Hinted::new(text, hint)
}
