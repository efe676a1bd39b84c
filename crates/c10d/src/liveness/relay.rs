//! The thread that listens to a rank's connections and, on rank 0, passes on what it hears.

use std::{
    io::{self, Read},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    connect::prepare,
    protocol::{FromFirst, Hello, LINE_MAX, Refusal, STRANGER_LINE_MAX, ToFirst},
    shared::{GroupFailure, Shared, State, send_line},
};

/// Connections that have not said which rank they are, of which the oldest goes when another comes.
const STRANGERS_MAX: usize = 64;
/// How long such a connection may be silent.
const STRANGER_PATIENCE: Duration = Duration::from_secs(5);
/// How often the thread looks at the clock while something has a deadline.
const TICK: Duration = Duration::from_millis(200);

/// One connection.
#[derive(Debug)]
struct Peer {
    stream: Arc<TcpStream>,
    /// Which rank it is, once it has said so.
    rank: Option<usize>,
    since: Instant,
    /// The beginning of a line.
    heard: Vec<u8>,
}

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Relay {
    /// On rank 0, until all have come.
    listener: Option<TcpListener>,
    /// What rank 0 says of itself; `None` on other ranks.
    first: Option<Hello>,
    world: usize,
    peers: Vec<Peer>,
    shared: Arc<Shared>,
}

/// Whether a connection is kept.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Stay,
    /// It has come to a good end, or was no rank.
    Close,
    /// It ended without a word.
    Lost,
}

impl Relay {
    /// The relay of rank 0, which the other ranks connect to.
    pub(super) fn of_first(
        listener: TcpListener,
        hello: Hello,
        world: usize,
        shared: Arc<Shared>,
    ) -> Relay {
        let listener = (world > 1).then_some(listener);
        Relay { listener, first: Some(hello), world, peers: Vec::new(), shared }
    }

    /// The relay of another rank, which rank 0 has accepted on `stream`.
    pub(super) fn of_other(stream: Arc<TcpStream>, world: usize, shared: Arc<Shared>) -> Relay {
        let peer = Peer { stream, rank: Some(0), since: Instant::now(), heard: Vec::new() };
        Relay { listener: None, first: None, world, peers: vec![peer], shared }
    }

    /// Goes on until all connections are closed or this rank has left.
    pub(super) fn run(mut self) {
        while self.listener.is_some() || !self.peers.is_empty() {
            let (ready, has_guest) = match self.wait() {
                Ok(heard) => heard,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.give_up(&error),
            };
            if self.shared.lock().has_left {
                return;
            }
            // From the end, as some are removed.
            for idx in ready.into_iter().rev() {
                let then = self.listen_to(idx);
                if then != Then::Stay {
                    self.close(idx, then == Then::Lost);
                }
            }
            if has_guest {
                self.accept();
            }
            let all_are_here = self.listener.is_none();
            self.peers.retain(|peer| {
                peer.rank.is_some() || !all_are_here && peer.since.elapsed() < STRANGER_PATIENCE
            });
            if self.first.is_some() {
                self.shared.conclude(self.world);
            }
        }
    }

    /// Waits for something to be heard: of which peers, and whether someone new has come.
    fn wait(&self) -> io::Result<(Vec<usize>, bool)> {
        let mut fds: Vec<PollFd<'_>> =
            self.peers.iter().map(|peer| PollFd::new(&*peer.stream, PollFlags::IN)).collect();
        fds.extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        let has_strangers = self.peers.iter().any(|peer| peer.rank.is_none());
        let has_deadline = has_strangers || self.shared.lock().inquiry.is_some();
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        poll(&mut fds, has_deadline.then_some(&tick))?;
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = (0..self.peers.len()).filter(|&idx| is_ready(&fds[idx])).collect();
        Ok((ready, fds.get(self.peers.len()).is_some_and(is_ready)))
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if !is_shortage(&error) => return,
            Err(error) => {
                if !self.drop_oldest_stranger() {
                    self.give_up(&error);
                }
                return;
            }
        };
        // Some systems hand the listener's way of waiting down.
        if stream.set_nonblocking(false).and_then(|()| prepare(&stream)).is_err() {
            return;
        }
        if self.peers.iter().filter(|peer| peer.rank.is_none()).count() >= STRANGERS_MAX {
            self.drop_oldest_stranger();
        }
        let (stream, since) = (Arc::new(stream), Instant::now());
        self.peers.push(Peer { stream, rank: None, since, heard: Vec::new() });
    }

    /// Whether there was one.
    fn drop_oldest_stranger(&mut self) -> bool {
        let strangers = self.peers.iter().enumerate().filter(|(_, peer)| peer.rank.is_none());
        let oldest = strangers.min_by_key(|(_, peer)| peer.since).map(|(idx, _)| idx);
        oldest.map(|idx| self.peers.swap_remove(idx)).is_some()
    }

    /// Ends the group, as this rank can no longer hear the others.
    fn give_up(&mut self, error: &io::Error) {
        let reason = format!("its connections with the other ranks cannot be watched: {error}");
        if self.first.is_some() {
            self.shared.announce(GroupFailure::Aborted { by: 0, reason });
        } else {
            self.shared.learn(GroupFailure::Gone { rank: 0 });
        }
        self.listener = None;
        self.peers.clear();
    }

    fn listen_to(&mut self, idx: usize) -> Then {
        let mut bytes = [0; 4096];
        let peer = &mut self.peers[idx];
        match (&*peer.stream).read(&mut bytes) {
            Ok(0) => return Then::Lost,
            Ok(n) => peer.heard.extend(&bytes[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Then::Stay,
            Err(_) => return Then::Lost,
        }
        while let Some(end) = self.peers[idx].heard.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.peers[idx].heard.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            let then = match &self.first {
                Some(_) => self.hear_rank(idx, &line),
                None => self.hear_first(idx, &line),
            };
            if then != Then::Stay {
                return then;
            }
        }
        let peer = &self.peers[idx];
        let longest = if peer.rank.is_some() { LINE_MAX } else { STRANGER_LINE_MAX };
        if peer.heard.len() > longest { Then::Lost } else { Then::Stay }
    }

    /// Rank 0 hears a rank, or somebody who has yet to say that he is one.
    fn hear_rank(&mut self, idx: usize, line: &str) -> Then {
        let message = ToFirst::parse(line);
        let Some(rank) = self.peers[idx].rank else {
            return match message {
                Some(ToFirst::Hello(hello)) => self.welcome(idx, &hello),
                _ => Then::Close,
            };
        };
        match message {
            Some(ToFirst::Bye) => return Then::Close,
            Some(ToFirst::Abort(reason)) => {
                self.shared.announce(GroupFailure::Aborted { by: rank, reason });
            }
            Some(ToFirst::Seen) => self.shared.change(|state| {
                state.told.insert(rank);
            }),
            Some(ToFirst::Set(key, value)) => self.shared.change(|state| {
                state.send_to_all(&FromFirst::Set(key.clone(), value.clone()));
                state.values.insert(key, value);
            }),
            Some(ToFirst::Ask(number)) => self.shared.inquire(number),
            Some(ToFirst::At(number)) => self.shared.answer(rank, number),
            Some(ToFirst::Hello(_)) | None => return Then::Lost,
        }
        Then::Stay
    }

    /// Another rank hears rank 0.
    fn hear_first(&mut self, idx: usize, line: &str) -> Then {
        let stream = &self.peers[idx].stream;
        let news = match FromFirst::parse(line) {
            Some(FromFirst::Bye) => return Then::Close,
            Some(FromFirst::Set(key, value)) => {
                self.shared.change(|state| state.values.insert(key, value));
                return Then::Stay;
            }
            Some(FromFirst::Where) => {
                send_line(stream, &ToFirst::At(self.shared.n_started()).line());
                return Then::Stay;
            }
            Some(FromFirst::Abort(by, reason)) => GroupFailure::Aborted { by, reason },
            Some(FromFirst::Gone(rank)) => GroupFailure::Gone { rank },
            Some(FromFirst::Late(ranks)) => GroupFailure::Late { ranks },
            Some(FromFirst::Welcome | FromFirst::Refused(_)) | None => return Then::Lost,
        };
        send_line(stream, &ToFirst::Seen.line());
        self.shared.learn(news);
        Then::Stay
    }

    /// Lets a rank in that belongs to this group, once.
    fn welcome(&mut self, idx: usize, hello: &Hello) -> Then {
        let Some(own) = &self.first else { return Then::Close };
        let (rank, stream) = (hello.rank, Arc::clone(&self.peers[idx].stream));
        let refusal = hello.refusal(own).or_else(|| {
            let is_here = self.shared.lock().links.contains_key(&rank);
            is_here.then(|| Refusal::Alone(format!("a second rank {rank} came")))
        });
        let Some(refusal) = refusal else {
            self.peers[idx].rank = Some(rank);
            if self.shared.change(|state| admit(state, rank, stream)) + 1 == self.world {
                self.listener = None;
            }
            return Then::Stay;
        };
        let (Refusal::Alone(text) | Refusal::Both(text)) = &refusal;
        send_line(&stream, &FromFirst::Refused(text.clone()).line());
        self.shared.change(|state| {
            if state.refused.len() < STRANGERS_MAX {
                state.refused.insert(rank, text.clone());
            }
        });
        if let Refusal::Both(reason) = refusal {
            self.shared.announce(GroupFailure::Aborted { by: rank, reason });
        }
        Then::Close
    }

    fn close(&mut self, idx: usize, is_lost: bool) {
        let Some(rank) = self.peers.swap_remove(idx).rank else { return };
        self.shared.change(|state| state.links.remove(&rank));
        if !is_lost {
            return;
        }
        match self.first {
            Some(_) => self.shared.announce(GroupFailure::Gone { rank }),
            None => self.shared.learn(GroupFailure::Gone { rank }),
        }
    }
}

/// Adds a connected rank and tells it all there is; how many there are then.
fn admit(state: &mut State, rank: usize, stream: Arc<TcpStream>) -> usize {
    send_line(&stream, &FromFirst::Welcome.line());
    for (key, value) in &state.values {
        send_line(&stream, &FromFirst::Set(key.clone(), value.clone()).line());
    }
    if let Some(news) = &state.news {
        send_line(&stream, &news.message().line());
    }
    state.links.insert(rank, stream);
    state.links.len()
}

/// Whether this process lacks something, rather than the connection that was to be accepted.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}
