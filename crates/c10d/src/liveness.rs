//! Who is still there: a connection between every rank and rank 0, which tells at once of a rank that
//! ends.
//!
//! libtorch notices a lost rank in the operations that the two exchange something in, and nowhere else:
//! neither while ranks meet nor for a third rank. So every rank keeps one connection to rank 0. When
//! one closes without a word, or a rank says why it gives up, rank 0 tells all the others.
//!
//! Lines of text: to rank 0 `hello TOKEN RANK`, `abort REASON`, `seen`, `bye`; from rank 0
//! `abort RANK REASON`, `gone RANK`, `bye`.

mod relay;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::CStr,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, ToSocketAddrs},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::net::sockopt;

use crate::{C10dError, Rendezvous, ffi::Failure, store::Store};
use relay::{Peer, Relay};

/// What ranks do in the beginning, for messages.
pub(crate) const MEETING: &str = "the rendezvous";
/// Where rank 0 listens, in the store: its port and the token that a rank has to show.
const ADDRESS: &CStr = c"liveness";
/// How long the news that a rank has ended may take to go round.
const LINGER: Duration = Duration::from_secs(3);
/// Silence after which the system asks whether the other machine is still there. The connection is idle
/// for as long as all goes well, and firewalls forget idle ones.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Questions without an answer, and the time between them, until it counts as gone.
const KEEPALIVE_PROBES: (u32, Duration) = (3, Duration::from_secs(10));
/// Longest reason that is passed on, in bytes.
const REASON_MAX: usize = 4096;

/// Why the group cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// A rank gave up and said why.
    Aborted { by: usize, reason: String },
    /// A rank's connection closed without a word.
    Gone { rank: usize },
}

impl News {
    /// What it means for `operation` on `rank`.
    pub(crate) fn error(self, operation: &'static str, rank: usize) -> C10dError {
        match self {
            News::Aborted { by, reason } => C10dError::Aborted { by, reason },
            News::Gone { rank: gone } => C10dError::Gone { gone, operation, rank },
        }
    }
}

/// This rank's connections, which a thread listens to.
#[derive(Debug)]
pub(crate) struct Liveness {
    rank: usize,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified of every change.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The first bad news, which is final.
    news: Option<News>,
    /// Every other rank on rank 0, and rank 0 on every other, while connected.
    links: BTreeMap<usize, Link>,
    /// Whether this rank has left in good order.
    has_left: bool,
}

#[derive(Debug)]
struct Link {
    stream: Arc<TcpStream>,
    /// Whether the rank knows the news.
    has_seen: bool,
}

impl Liveness {
    /// Connects with rank 0; on rank 0, waits for all the others to come.
    pub(crate) fn join(
        place: &Rendezvous,
        store: &Store,
        timeout: Duration,
    ) -> Result<Liveness, C10dError> {
        let joined = match place.rank {
            0 => Liveness::listen(place, store),
            _ => Liveness::connect(place, store, timeout),
        };
        let liveness = joined.map_err(|Failure { message, .. }| place.refused(message))?;
        if place.rank == 0 {
            liveness.wait_for_all(place, timeout)?;
        }
        Ok(liveness)
    }

    fn listen(place: &Rendezvous, store: &Store) -> Result<Liveness, Failure> {
        let listener = match place.is_on_one_machine() {
            true => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)),
            // Takes IPv4 too, unless the system has no IPv6 at all.
            false => TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
                .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))),
        };
        let listener = listener.map_err(failure)?;
        listener.set_nonblocking(true).map_err(failure)?;
        let port = listener.local_addr().map_err(failure)?.port();
        // No secret: it keeps those out that come to the port by chance.
        let token = format!("{:016x}", RandomState::new().hash_one(port));
        store.set(ADDRESS, &format!("{port} {token}"))?;
        let shared = Arc::<Shared>::default();
        let relay = Relay::of_first(listener, token, place.world, Arc::clone(&shared));
        Liveness::start(0, relay, shared)
    }

    fn connect(place: &Rendezvous, store: &Store, timeout: Duration) -> Result<Liveness, Failure> {
        let address = store.get(ADDRESS)?;
        let (port, token) = address
            .split_once(' ')
            .and_then(|(port, token)| Some((port.parse().ok()?, token)))
            .ok_or_else(|| Failure::new(format!("rank 0 listens at `{address}`")))?;
        let host = if place.is_on_one_machine() { "127.0.0.1" } else { place.host.as_str() };
        let stream = Arc::new(open(host, port, timeout).map_err(failure)?);
        send(&stream, &format!("hello {token} {}", place.rank)).map_err(failure)?;
        let shared = Arc::<Shared>::default();
        shared.lock().links.insert(0, Link { stream: Arc::clone(&stream), has_seen: false });
        let relay = Relay::of_other(Peer::first_rank(stream), Arc::clone(&shared));
        Liveness::start(place.rank, relay, shared)
    }

    fn start(rank: usize, relay: Relay, shared: Arc<Shared>) -> Result<Liveness, Failure> {
        let thread = std::thread::Builder::new().name("liveness".to_owned());
        let thread = thread.spawn(move || relay.run()).map_err(failure)?;
        Ok(Liveness { rank, shared, thread: Some(thread) })
    }

    fn wait_for_all(&self, place: &Rendezvous, timeout: Duration) -> Result<(), C10dError> {
        let n_others = place.world - 1;
        let all_here = |state: &State| state.links.len() >= n_others || state.news.is_some();
        let state = self.shared.wait_until(timeout, all_here);
        if let Some(news) = state.news.clone() {
            drop(state);
            // Those that come within a moment are told too; nobody answers later ones.
            let all_know = |state: &State| {
                state.links.len() + 1 >= n_others && state.links.values().all(|link| link.has_seen)
            };
            drop(self.shared.wait_until(LINGER, all_know));
            return Err(news.error(MEETING, self.rank));
        }
        let missing: Vec<String> = (1..place.world)
            .filter(|rank| !state.links.contains_key(rank))
            .map(|rank| rank.to_string())
            .collect();
        drop(state);
        if missing.is_empty() {
            return Ok(());
        }
        let seconds = timeout.as_secs_f64();
        let text = format!("no word of rank {} within {seconds} s", missing.join(", "));
        self.abort(&text);
        Err(place.refused(text))
    }

    /// Why the group cannot go on, if it cannot.
    pub(crate) fn news(&self) -> Option<News> {
        self.shared.lock().news.clone()
    }

    /// The same, of something that has just failed: waits for what is on its way.
    pub(crate) fn awaited_news(&self) -> Option<News> {
        self.shared.wait_until(LINGER, |state| state.news.is_some()).news.clone()
    }

    /// Tells the other ranks that this one gives up, unless one has before. False if one has, whose
    /// reason is then the one to be read. On rank 0, stays until they have heard of it, three seconds at most.
    pub(crate) fn abort(&self, reason: &str) -> bool {
        let reason = tidy(reason);
        if self.rank == 0 {
            self.shared.announce(News::Aborted { by: 0, reason });
            let all_know = |state: &State| state.links.values().all(|link| link.has_seen);
            drop(self.shared.wait_until(LINGER, all_know));
        } else {
            let state = self.shared.lock();
            if state.news.is_none()
                && let Some(link) = state.links.get(&0)
            {
                // Where it fails, the thread notices too.
                let _ = send(&link.stream, &format!("abort {reason}"));
            }
        }
        !matches!(self.awaited_news(), Some(News::Aborted { by, .. }) if by != self.rank)
    }

    /// Leaves in good order.
    fn leave(&mut self) {
        let mut state = self.shared.lock();
        state.has_left = true;
        for link in std::mem::take(&mut state.links).into_values() {
            let _ = send(&link.stream, "bye");
            // Wakes the thread.
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        drop(state);
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-changed by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_so`, or until the time is over.
    fn wait_until(
        &self,
        timeout: Duration,
        is_so: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let guard = self.lock();
        let waited = self.changed.wait_timeout_while(guard, timeout, |state| !is_so(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes note of bad news unless there has been some, and passes it on from rank 0.
    fn announce(&self, news: News) {
        let mut state = self.lock();
        if state.news.is_none() {
            let line = line_of(&news);
            state.news = Some(news);
            for link in state.links.values() {
                let _ = send(&link.stream, &line);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

fn line_of(news: &News) -> String {
    match news {
        News::Aborted { by, reason } => format!("abort {by} {reason}"),
        News::Gone { rank } => format!("gone {rank}"),
    }
}

/// On one line of bounded length.
fn tidy(reason: &str) -> String {
    let end = reason.floor_char_boundary(REASON_MAX);
    reason[..end].replace(['\n', '\r', '\0'], " ")
}

fn send(mut stream: &TcpStream, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())
}

fn open(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let started = Instant::now();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        let left = timeout.saturating_sub(started.elapsed()).max(Duration::from_secs(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return prepare(&stream).map(|()| stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Lines go out at once, never hold a rank up, and a machine that loses power is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let (n_probes, apart) = KEEPALIVE_PROBES;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, apart)?;
    sockopt::set_tcp_keepcnt(stream, n_probes)?;
    Ok(())
}

fn failure(error: io::Error) -> Failure {
    Failure::new(format!("rank 0 cannot be watched: {error}"))
}
