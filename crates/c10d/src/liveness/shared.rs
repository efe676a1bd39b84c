//! What the threads of one rank know together: the news, the connections, the values that ranks give
//! each other while they meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::Write,
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::protocol::{FromFirst, ToFirst};
use crate::C10dError;

/// How long rank 0 waits for all ranks to say which operation they have come to.
pub(super) const INQUIRY: Duration = Duration::from_secs(2);

/// Why the group cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupFailure {
    /// A rank gave up and said why.
    Aborted { by: usize, reason: String },
    /// A rank's connection closed without a word.
    Gone { rank: usize },
    /// An operation took too long, which these ranks had not come to.
    Late { ranks: Vec<usize> },
}

impl GroupFailure {
    /// Whether it is rank `rank` that ended the group, and needs no news of it.
    pub(super) fn is_of(&self, rank: usize) -> bool {
        match self {
            GroupFailure::Aborted { by, .. } => *by == rank,
            GroupFailure::Gone { rank: gone } => *gone == rank,
            GroupFailure::Late { .. } => false,
        }
    }

    /// What it means for `operation` on `rank`.
    pub(crate) fn error(
        self,
        operation: &'static str,
        rank: usize,
        timeout: Duration,
    ) -> C10dError {
        match self {
            GroupFailure::Aborted { by, reason } => C10dError::Aborted { by, reason },
            GroupFailure::Gone { rank: gone } => C10dError::Gone { gone, operation, rank },
            GroupFailure::Late { ranks: late } => {
                C10dError::TimedOut { rank, operation, timeout, late }
            }
        }
    }

    pub(super) fn message(&self) -> FromFirst {
        match self {
            GroupFailure::Aborted { by, reason } => FromFirst::Abort(*by, reason.clone()),
            GroupFailure::Gone { rank } => FromFirst::Gone(*rank),
            GroupFailure::Late { ranks } => FromFirst::Late(ranks.clone()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Notified of every change.
    changed: Condvar,
    /// Operations of the group that this rank has come to.
    n_started: AtomicU64,
    /// What to do, once, when there is news.
    on_news: Mutex<Option<Action>>,
}

struct Action(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Action")
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The first bad news, which is final.
    pub(super) news: Option<GroupFailure>,
    /// Every other rank on rank 0, and rank 0 on every other, while connected.
    pub(super) links: BTreeMap<usize, Arc<TcpStream>>,
    /// On rank 0, the ranks that know the news, those included that have left since.
    pub(super) told: BTreeSet<usize>,
    /// Whether this rank has left in good order.
    pub(super) has_left: bool,
    /// What ranks have set.
    pub(super) values: BTreeMap<String, Vec<u8>>,
    /// On rank 0, the ranks that were not let in, and why.
    pub(super) refused: BTreeMap<usize, String>,
    /// On rank 0, while it asks who is late.
    pub(super) inquiry: Option<Inquiry>,
}

/// The question of rank 0 which ranks have not come to operation `number`.
#[derive(Debug)]
pub(super) struct Inquiry {
    number: u64,
    pub(super) until: Instant,
    answers: BTreeMap<usize, u64>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-changed by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_so`, or until the time is over.
    pub(super) fn wait_until(
        &self,
        timeout: Duration,
        is_so: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let guard = self.lock();
        let waited = self.changed.wait_timeout_while(guard, timeout, |state| !is_so(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Changes the state and wakes whoever waits for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    pub(super) fn news(&self) -> Option<GroupFailure> {
        self.lock().news.clone()
    }

    /// Takes note of bad news, unless there has been some.
    pub(super) fn learn(&self, news: GroupFailure) {
        self.change(|state| {
            state.news.get_or_insert(news);
        });
        self.act();
    }

    /// As [`learn`](Shared::learn), on rank 0, which passes it on.
    pub(super) fn announce(&self, news: GroupFailure) {
        self.change(|state| {
            if state.news.is_none() {
                state.send_to_all(&news.message());
                state.news = Some(news);
            }
        });
        self.act();
    }

    /// Sets what happens, in a thread of its own, once there is news; at once if there is some.
    pub(super) fn on_news(&self, action: impl FnOnce() + Send + 'static) {
        *self.actions() = Some(Action(Box::new(action)));
        if self.news().is_some() {
            self.act();
        }
    }

    fn actions(&self) -> MutexGuard<'_, Option<Action>> {
        self.on_news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act(&self) {
        let Some(Action(action)) = self.actions().take() else { return };
        // It may take long, and the caller has others to tell. Without a thread it is left out: what it
        // ends then ends by the timeout.
        let _ = std::thread::Builder::new().name("abort".to_owned()).spawn(action);
    }

    /// Counts an operation of the group that this rank has come to.
    pub(super) fn count(&self) {
        self.n_started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn n_started(&self) -> u64 {
        self.n_started.load(Ordering::Relaxed)
    }

    /// On rank 0: begins to ask who has not come to operation `number`, unless that is under way.
    pub(super) fn inquire(&self, number: u64) {
        self.change(|state| {
            if state.inquiry.is_none() && state.news.is_none() {
                state.send_to_all(&FromFirst::Where);
                let answers = BTreeMap::from([(0, self.n_started())]);
                state.inquiry = Some(Inquiry { number, until: Instant::now() + INQUIRY, answers });
            }
        });
    }

    /// Takes note of an answer.
    pub(super) fn answer(&self, rank: usize, number: u64) {
        self.change(|state| {
            if let Some(inquiry) = &mut state.inquiry {
                inquiry.answers.insert(rank, number);
            }
        });
    }

    /// Tells all who is late, once every one of `world` ranks has answered or the time is over.
    pub(super) fn conclude(&self, world: usize) {
        let late = {
            let mut state = self.lock();
            let has_all = |inquiry: &Inquiry| inquiry.answers.len() >= world;
            let is_over = |inquiry: &Inquiry| has_all(inquiry) || inquiry.until <= Instant::now();
            if !state.inquiry.as_ref().is_some_and(is_over) {
                return;
            }
            state.inquiry.take().map(|inquiry| inquiry.late(world))
        };
        if let Some(ranks) = late {
            self.announce(GroupFailure::Late { ranks });
        }
    }
}

impl Inquiry {
    fn late(&self, world: usize) -> Vec<usize> {
        let has_come =
            |rank: &usize| self.answers.get(rank).is_some_and(|number| *number >= self.number);
        (0..world).filter(|rank| !has_come(rank)).collect()
    }
}

impl State {
    pub(super) fn send_to_all(&self, message: &FromFirst) {
        let line = message.line();
        for stream in self.links.values() {
            send_line(stream, &line);
        }
    }

    /// Sends something to rank 0, if this is another rank and still connected.
    pub(super) fn send_to_first(&self, message: &ToFirst) {
        if let Some(stream) = self.links.get(&0) {
            send_line(stream, &message.line());
        }
    }
}

/// Sends one line. A connection that does not take it is closed: half a line would spoil the next ones,
/// and whoever listens to it notices the end.
pub(super) fn send_line(mut stream: &TcpStream, line: &str) {
    if stream.write_all(format!("{line}\n").as_bytes()).is_err() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
