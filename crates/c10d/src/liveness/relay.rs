//! The thread that listens to a rank's connections and, on rank 0, passes on what it hears.

use std::{
    io::{self, Read},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{Link, News, REASON_MAX, Shared, line_of, prepare, send};

/// Longest line, in bytes: whoever sends more speaks another language.
const LINE_MAX: usize = REASON_MAX + 64;
/// Connections that have not said which rank they are, beyond the number of ranks.
const STRANGERS_MAX: usize = 64;

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    stream: Arc<TcpStream>,
    /// Which rank it is, once it has said so.
    rank: Option<usize>,
    /// The beginning of a line.
    heard: Vec<u8>,
}

impl Peer {
    /// Rank 0, as the others see it.
    pub(super) fn first_rank(stream: Arc<TcpStream>) -> Peer {
        Peer { stream, rank: Some(0), heard: Vec::new() }
    }
}

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Relay {
    /// Of rank 0, until all have come.
    listener: Option<TcpListener>,
    token: String,
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
    pub(super) fn of_first(
        listener: TcpListener,
        token: String,
        world: usize,
        shared: Arc<Shared>,
    ) -> Relay {
        let listener = (world > 1).then_some(listener);
        Relay { listener, token, world, peers: Vec::new(), shared }
    }

    pub(super) fn of_other(first: Peer, shared: Arc<Shared>) -> Relay {
        Relay { listener: None, token: String::new(), world: 0, peers: vec![first], shared }
    }

    /// Goes on until all connections are closed or this rank has left.
    pub(super) fn run(mut self) {
        while self.listener.is_some() || !self.peers.is_empty() {
            let (ready, has_guest) = match self.wait() {
                Ok(heard) => heard,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
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
            if self.listener.is_none() {
                // All ranks are here.
                self.peers.retain(|peer| peer.rank.is_some());
            }
        }
    }

    /// Waits for something to be heard: of which peers, and whether someone new has come.
    fn wait(&self) -> io::Result<(Vec<usize>, bool)> {
        let mut fds: Vec<PollFd<'_>> =
            self.peers.iter().map(|peer| PollFd::new(&*peer.stream, PollFlags::IN)).collect();
        fds.extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        poll(&mut fds, None)?;
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = (0..self.peers.len()).filter(|&idx| is_ready(&fds[idx])).collect();
        Ok((ready, fds.get(self.peers.len()).is_some_and(is_ready)))
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok((stream, _)) = listener.accept() else {
            // Without a free descriptor it would be asked again at once.
            std::thread::sleep(Duration::from_millis(10));
            return;
        };
        // Some systems hand the listener's way of waiting down.
        let is_ready = stream.set_nonblocking(false).and_then(|()| prepare(&stream)).is_ok();
        if is_ready && self.peers.len() < self.world + STRANGERS_MAX {
            let heard = Vec::new();
            self.peers.push(Peer { stream: Arc::new(stream), rank: None, heard });
        }
    }

    fn listen_to(&mut self, idx: usize) -> Then {
        let mut bytes = [0; 1024];
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
            let then = self.hear(idx, &line);
            if then != Then::Stay {
                return then;
            }
        }
        if self.peers[idx].heard.len() > LINE_MAX { Then::Lost } else { Then::Stay }
    }

    fn hear(&mut self, idx: usize, line: &str) -> Then {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (self.peers[idx].rank, word) {
            (None, "hello") => self.welcome(idx, rest),
            (Some(_), "bye") => Then::Close,
            (Some(0), "abort" | "gone") => {
                let Some(news) = parse(word, rest) else { return Then::Lost };
                let _ = send(&self.peers[idx].stream, "seen");
                self.shared.learn(news);
                Then::Stay
            }
            (Some(by), "abort") => {
                self.shared.announce(News::Aborted { by, reason: rest.to_owned() });
                Then::Stay
            }
            (Some(rank), "seen") => {
                self.shared.mark_seen(rank);
                Then::Stay
            }
            (None, _) => Then::Close,
            (Some(_), _) => Then::Lost,
        }
    }

    /// Lets a rank in that has the token, once.
    fn welcome(&mut self, idx: usize, rest: &str) -> Then {
        let rank = rest.strip_prefix(&self.token).and_then(|rest| rest.trim().parse().ok());
        let Some(rank) = rank.filter(|rank| (1..self.world).contains(rank)) else {
            return Then::Close;
        };
        let stream = Arc::clone(&self.peers[idx].stream);
        let Some(n_here) = self.shared.admit(rank, stream) else {
            let _ = send(&self.peers[idx].stream, &format!("abort 0 there are two of rank {rank}"));
            return Then::Close;
        };
        self.peers[idx].rank = Some(rank);
        if n_here + 1 == self.world {
            self.listener = None;
        }
        Then::Stay
    }

    fn close(&mut self, idx: usize, is_lost: bool) {
        let Some(rank) = self.peers.swap_remove(idx).rank else { return };
        self.shared.lock().links.remove(&rank);
        self.shared.changed.notify_all();
        if is_lost {
            self.shared.announce(News::Gone { rank });
        }
    }
}

impl Shared {
    /// Takes note of what rank 0 tells.
    fn learn(&self, news: News) {
        self.lock().news.get_or_insert(news);
        self.changed.notify_all();
    }

    fn mark_seen(&self, rank: usize) {
        if let Some(link) = self.lock().links.get_mut(&rank) {
            link.has_seen = true;
        }
        self.changed.notify_all();
    }

    /// Adds a connected rank, unless it is there already; how many there are then.
    fn admit(&self, rank: usize, stream: Arc<TcpStream>) -> Option<usize> {
        let mut state = self.lock();
        if state.links.contains_key(&rank) {
            return None;
        }
        if let Some(news) = &state.news {
            let _ = send(&stream, &line_of(news));
        }
        state.links.insert(rank, Link { stream, has_seen: false });
        let n_here = state.links.len();
        drop(state);
        self.changed.notify_all();
        Some(n_here)
    }
}

fn parse(word: &str, rest: &str) -> Option<News> {
    match word {
        "gone" => Some(News::Gone { rank: rest.parse().ok()? }),
        _ => {
            let (by, reason) = rest.split_once(' ')?;
            Some(News::Aborted { by: by.parse().ok()?, reason: reason.to_owned() })
        }
    }
}
