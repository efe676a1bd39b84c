//! How long this rank waits for the others.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use crate::C10dError;

/// How long a wait goes on before it looks whether it is still wanted.
pub(crate) const SLICE: Duration = Duration::from_millis(250);
/// What ranks do in the beginning, for messages.
pub(crate) const MEETING: &str = "the rendezvous";
/// What a rank that was asked to stop tells the others.
pub(crate) const ASKED_TO_STOP: &str = "it was asked to stop";

/// Until when a rank waits: a moment, or until its program is asked to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) deadline: Instant,
    /// Whether the program was asked to stop.
    pub(crate) asked_to_stop: fn() -> bool,
}

impl Patience {
    /// From now on.
    pub(crate) fn of(timeout: Duration, asked_to_stop: fn() -> bool) -> Patience {
        Patience { deadline: Instant::now() + timeout, asked_to_stop }
    }

    /// The time that is left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Of the time that is left, as much as may go by without a look at anything else.
    pub(crate) fn slice(&self) -> Duration {
        self.left().min(SLICE)
    }

    /// Whether nothing is to be waited for any more.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero() || (self.asked_to_stop)()
    }

    /// An error if the program was asked to stop.
    pub(crate) fn check(&self, rank: usize) -> Result<(), C10dError> {
        match (self.asked_to_stop)() {
            true => Err(C10dError::Stopped { rank, operation: MEETING }),
            false => Ok(()),
        }
    }

    /// Waits for what a thread sends; `None` if that does not come in time.
    pub(crate) fn receive<T>(
        &self,
        rank: usize,
        from: &Receiver<T>,
    ) -> Result<Option<T>, C10dError> {
        loop {
            self.check(rank)?;
            match from.recv_timeout(self.slice()) {
                Ok(value) => return Ok(Some(value)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if self.left().is_zero() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
