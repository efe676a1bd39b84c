use std::{io::Read, os::fd::IntoRawFd, thread};

use super::*;

/// Longer than anything here takes; reached only if something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store in this process, and where its ranks meet.
struct Meeting {
    store: Store,
    world: usize,
    port: u16,
}

impl Meeting {
    fn of(world: usize) -> Meeting {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut place = place(0, world, port);
        place.listen_fd = Some(listener.into_raw_fd());
        Meeting { store: Store::open(&place, PATIENCE).unwrap(), world, port }
    }

    fn join(&self, rank: usize) -> Result<Liveness, C10dError> {
        let place = place(rank, self.world, self.port);
        if rank == 0 {
            return Liveness::join(&place, &self.store, PATIENCE);
        }
        Liveness::join(&place, &self.client(), PATIENCE)
    }

    /// A connection to the store, as every process has its own: a wait of one holds up all that the
    /// client is asked for.
    fn client(&self) -> Store {
        let place = Rendezvous { rank_0_serves: false, ..place(0, self.world, self.port) };
        Store::open(&place, PATIENCE).unwrap()
    }

    /// All ranks, in order.
    fn all(&self) -> Vec<Liveness> {
        thread::scope(|scope| {
            let ranks: Vec<_> =
                (0..self.world).map(|rank| scope.spawn(move || self.join(rank))).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap().unwrap()).collect()
        })
    }
}

fn place(rank: usize, world: usize, port: u16) -> Rendezvous {
    Rendezvous {
        rank,
        world,
        local_rank: rank,
        local_world: world,
        host: "127.0.0.1".to_owned(),
        port,
        listen_fd: None,
        rank_0_serves: true,
        attempt: String::new(),
    }
}

/// Closes a rank's connections as the end of its process would.
fn kill(liveness: &Liveness) {
    for link in liveness.shared.lock().links.values() {
        link.stream.shutdown(Shutdown::Both).unwrap();
    }
}

fn awaited(liveness: &Liveness) -> News {
    let state = liveness.shared.wait_until(PATIENCE, |state| state.news.is_some());
    state.news.clone().unwrap()
}

#[test]
fn all_hear_of_a_rank_that_is_gone() {
    for gone in [0, 1, 3] {
        let ranks = Meeting::of(4).all();
        kill(&ranks[gone]);
        for (rank, liveness) in ranks.iter().enumerate().filter(|(rank, _)| *rank != gone) {
            assert_eq!(awaited(liveness), News::Gone { rank: gone }, "rank {rank}");
        }
    }
}

#[test]
fn all_hear_why_the_first_rank_gave_up_that_did() {
    for first in [0, 1, 2] {
        let ranks = Meeting::of(3).all();
        assert!(ranks[first].abort("no\nspace"));
        let expected = News::Aborted { by: first, reason: "no space".to_owned() };
        for (rank, liveness) in ranks.iter().enumerate() {
            assert_eq!(awaited(liveness), expected, "rank {rank}");
            assert!(rank == first || !liveness.abort("an echo"));
        }
    }
}

#[test]
fn a_rank_that_leaves_in_good_order_is_no_news() {
    let mut ranks = Meeting::of(3).all();
    let last = ranks.pop().unwrap();
    drop(last);
    let shared = &ranks[0].shared;
    drop(shared.wait_until(PATIENCE, |state| state.links.len() == 1));
    assert_eq!(ranks[0].news(), None);
    drop(ranks.remove(0));
    drop(ranks[0].shared.wait_until(PATIENCE, |state| state.links.is_empty()));
    assert_eq!(ranks[0].news(), None);
}

#[test]
fn a_rank_that_is_gone_ends_the_wait_for_those_that_are_yet_to_come() {
    let meeting = Meeting::of(3);
    thread::scope(|scope| {
        let first = scope.spawn(|| meeting.join(0));
        kill(&meeting.join(1).unwrap());
        let error = first.join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "rank 1 is gone: the rendezvous on rank 0 cannot end");
    });
}

#[test]
fn whoever_comes_without_the_token_is_no_rank() {
    let meeting = Meeting::of(2);
    thread::scope(|scope| {
        let first = scope.spawn(|| meeting.join(0));
        let address = meeting.client().get(ADDRESS).unwrap();
        let port: u16 = address.split_once(' ').unwrap().0.parse().unwrap();
        let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
        for text in
            [&b"hello 0123 1\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"abort all\n", &[b'x'; 9000]]
        {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(text).unwrap();
            let mut answer = Vec::new();
            // Closed, perhaps before all of it was read.
            let _ = stream.read_to_end(&mut answer);
            assert_eq!(answer, b"", "{}", String::from_utf8_lossy(text));
        }
        let second = meeting.join(1).unwrap();
        let first = first.join().unwrap().unwrap();
        assert_eq!((first.news(), second.news()), (None, None));
        drop(silent);
    });
}

#[test]
fn a_long_reason_is_cut_between_two_characters() {
    let long = "é".repeat(REASON_MAX);
    assert_eq!(tidy(&long), "é".repeat(REASON_MAX / 2));
    assert_eq!(tidy(&format!("x{long}")).len(), REASON_MAX - 1);
}
