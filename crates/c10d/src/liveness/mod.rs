//! Who is still there: a connection between every rank and rank 0, over which ranks meet and which
//! tells at once of a rank that ends.
//!
//! libtorch notices a lost rank in the collectives that the two take part in, and nowhere else:
//! neither while ranks meet nor for a third rank. So every rank keeps one connection to rank 0. When
//! one closes without a word, or a rank says why it gives up, rank 0 tells all the others.
//!
//! The same connections carry the few values that Gloo and NCCL give each other before they have
//! connections of their own ([`Liveness::set`], [`Liveness::get`]). What ranks say is in `protocol`.

mod connect;
mod protocol;
mod relay;
mod shared;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    C10dError, Rendezvous,
    patience::{ASKED_TO_STOP, MEETING, Patience},
};
use protocol::{FromFirst, Hello, ToFirst, tidy};
use relay::Relay;
use shared::{INQUIRY, Shared, State};

pub(crate) use shared::GroupFailure;

/// How long the news that a rank has ended may take to go round.
const LINGER: Duration = Duration::from_secs(3);
/// How long rank 0 then waits for ranks that have not come yet: they would look for it until the timeout.
const LINGER_MEETING: Duration = Duration::from_secs(10);

/// This rank's connections, which a thread listens to.
#[derive(Debug)]
pub(crate) struct Liveness {
    place: Rendezvous,
    timeout: Duration,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The values that ranks give each other, for any thread.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    rank: usize,
    shared: Arc<Shared>,
}

impl Liveness {
    /// Connects with rank 0; on rank 0, waits for all the others to come.
    ///
    /// * `asked_to_stop`: whether the program was asked to stop, which ends every wait here
    pub(crate) fn join(
        place: &Rendezvous,
        timeout: Duration,
        asked_to_stop: fn() -> bool,
    ) -> Result<Liveness, C10dError> {
        let patience = Patience::of(timeout, asked_to_stop);
        if place.rank > 0 {
            return Liveness::connect(place, timeout, patience);
        }
        let listener = connect::listen(place, patience)?;
        let liveness = Liveness::listen(place, timeout, listener)?;
        liveness.wait_for_all(patience)?;
        Ok(liveness)
    }

    fn listen(
        place: &Rendezvous,
        timeout: Duration,
        listener: TcpListener,
    ) -> Result<Liveness, C10dError> {
        let shared = Arc::<Shared>::default();
        let hello = Hello::of(place);
        let relay = Relay::of_first(listener, hello, place.world, Arc::clone(&shared));
        Liveness::start(place, timeout, relay, shared)
    }

    fn connect(
        place: &Rendezvous,
        timeout: Duration,
        patience: Patience,
    ) -> Result<Liveness, C10dError> {
        let stream = Arc::new(connect::find_first(place, patience)?);
        let shared = Arc::<Shared>::default();
        shared.change(|state| state.links.insert(0, Arc::clone(&stream)));
        let relay = Relay::of_other(stream, place.world, Arc::clone(&shared));
        Liveness::start(place, timeout, relay, shared)
    }

    fn start(
        place: &Rendezvous,
        timeout: Duration,
        relay: Relay,
        shared: Arc<Shared>,
    ) -> Result<Liveness, C10dError> {
        let thread = std::thread::Builder::new().name("liveness".to_owned());
        let thread = thread.spawn(move || relay.run()).map_err(|error| {
            place.refused(format!("no thread to watch the other ranks with: {error}"))
        })?;
        Ok(Liveness { place: place.clone(), timeout, shared, thread: Some(thread) })
    }

    fn wait_for_all(&self, patience: Patience) -> Result<(), C10dError> {
        let n_others = self.place.world - 1;
        let all_here = |state: &State| state.links.len() >= n_others || state.news.is_some();
        let mut state = self.shared.wait_until(patience.slice(), all_here);
        while !all_here(&state) && !patience.is_over() {
            drop(state);
            state = self.shared.wait_until(patience.slice(), all_here);
        }
        if let Some(news) = state.news.clone() {
            drop(state);
            // Those that come within a moment are told too; nobody answers later ones.
            let all_know = |state: &State| {
                (1..self.place.world).all(|rank| news.is_of(rank) || state.told.contains(&rank))
            };
            drop(self.shared.wait_until(LINGER_MEETING, all_know));
            return Err(news.error(MEETING, 0, self.timeout));
        }
        let missing: Vec<usize> =
            (1..self.place.world).filter(|rank| !state.links.contains_key(rank)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if let Err(stopped) = patience.check(self.place.rank) {
            drop(state);
            self.abort(ASKED_TO_STOP);
            return Err(stopped);
        }
        let reasons = state.refused.values().cloned().collect::<Vec<String>>().join("; ");
        drop(state);
        let missing: Vec<String> = missing.iter().map(usize::to_string).collect();
        let (missing, seconds) = (missing.join(", "), self.timeout.as_secs_f64());
        let mut text = format!("no word of rank {missing} within {seconds} s");
        if !reasons.is_empty() {
            text = format!("{text}; turned away: {reasons}");
        }
        self.abort(&text);
        Err(self.place.refused(text))
    }

    /// The values that ranks give each other.
    pub(crate) fn values(&self) -> Values {
        Values { rank: self.place.rank, shared: Arc::clone(&self.shared) }
    }

    /// The address by which this rank reaches other machines: that of its connection with rank 0, or on
    /// rank 0 with the first rank of another machine.
    pub(crate) fn own_address(&self) -> Option<IpAddr> {
        let state = self.shared.lock();
        let address =
            |stream: &Arc<TcpStream>| stream.local_addr().ok().map(|own| own.ip().to_canonical());
        state.links.values().filter_map(address).find(|address| !address.is_loopback())
    }

    /// Counts an operation of the group that this rank has come to.
    pub(crate) fn count(&self) {
        self.shared.count();
    }

    /// Sets what is done, once and in a thread of its own, when there is bad news.
    pub(crate) fn on_news(&self, action: impl FnOnce() + Send + 'static) {
        self.shared.on_news(action);
    }

    /// Why the group cannot go on, if it cannot.
    pub(crate) fn news(&self) -> Option<GroupFailure> {
        self.shared.news()
    }

    /// The same, of something that has just failed: waits for what is on its way.
    pub(crate) fn awaited_news(&self) -> Option<GroupFailure> {
        self.shared.wait_until(LINGER, |state| state.news.is_some()).news.clone()
    }

    /// Asks which ranks have not come to the operation that this rank waits in, and ends the group.
    ///
    /// Every rank answers from a thread of its own, so that one that hangs in its work is told from
    /// those that wait; a stopped process does not answer, and is late too.
    pub(crate) fn late(&self) -> GroupFailure {
        let number = self.shared.n_started();
        if self.place.rank == 0 {
            self.shared.inquire(number);
            // The other thread may be asleep, and concludes nothing then.
            drop(self.shared.wait_until(INQUIRY, |state| state.news.is_some()));
            self.shared.conclude(self.place.world);
        } else {
            self.shared.lock().send_to_first(&ToFirst::Ask(number));
        }
        let heard = self.shared.wait_until(INQUIRY + LINGER, |state| state.news.is_some());
        heard.news.clone().unwrap_or(GroupFailure::Late { ranks: vec![0] })
    }

    /// Tells the other ranks that this one gives up, unless one has before. Returns the first that has,
    /// whose reason is the one to be read. On rank 0, stays until they have heard of it, three seconds at
    /// most.
    pub(crate) fn abort(&self, reason: &str) -> usize {
        let reason = tidy(reason);
        if self.place.rank == 0 {
            self.shared.announce(GroupFailure::Aborted { by: 0, reason });
            let all_know = |state: &State| state.links.keys().all(|rank| state.told.contains(rank));
            drop(self.shared.wait_until(LINGER, all_know));
        } else {
            let state = self.shared.lock();
            if state.news.is_none() {
                // Where it fails, the thread notices too.
                state.send_to_first(&ToFirst::Abort(reason));
            }
        }
        match self.awaited_news() {
            Some(GroupFailure::Aborted { by, .. }) => by,
            // Every rank says this one itself.
            Some(GroupFailure::Gone { .. } | GroupFailure::Late { .. }) | None => self.place.rank,
        }
    }

    /// Leaves in good order.
    fn leave(&mut self) {
        let is_first = self.place.rank == 0;
        self.shared.change(|state| {
            state.has_left = true;
            if is_first {
                state.send_to_all(&FromFirst::Bye);
            } else {
                state.send_to_first(&ToFirst::Bye);
            }
            for stream in std::mem::take(&mut state.links).into_values() {
                // Wakes the thread.
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Liveness {
    fn drop(&mut self) {
        // After a failure the process is about to end, and its silence is what the others are told.
        if self.news().is_none() && !std::thread::panicking() {
            self.leave();
        }
    }
}

impl Values {
    /// Gives `value` to all ranks, under `key`.
    pub(crate) fn set(&self, key: String, value: Vec<u8>) {
        let rank = self.rank;
        self.shared.change(|state| {
            if rank == 0 {
                state.send_to_all(&FromFirst::Set(key.clone(), value.clone()));
            } else {
                state.send_to_first(&ToFirst::Set(key.clone(), value.clone()));
            }
            state.values.insert(key, value);
        });
    }

    /// Waits for a value; an error says why it does not come.
    pub(crate) fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        let is_over = |state: &State| {
            state.values.contains_key(key) || state.news.is_some() || state.has_left
        };
        let state = self.shared.wait_until(timeout, is_over);
        match state.values.get(key) {
            Some(value) => Ok(value.clone()),
            None if state.news.is_some() => Err("another rank is lost".to_owned()),
            None if state.has_left => Err("this rank has left the group".to_owned()),
            None => {
                let seconds = timeout.as_secs_f64();
                Err(format!("timed out: no rank gave `{key}` within {seconds} s"))
            }
        }
    }

    /// Whether there is a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.shared.lock().values.contains_key(key)
    }
}
