use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::fd::IntoRawFd,
    sync::mpsc,
    thread,
};

use super::*;

/// Longer than anything here takes; reached only if something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// A timeout that is meant to be reached.
const SHORT: Duration = Duration::from_millis(700);

/// Where ranks of this process meet.
struct Meeting {
    world: usize,
    port: u16,
    listen_fd: i32,
}

impl Meeting {
    fn of(world: usize) -> Meeting {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        Meeting { world, port, listen_fd: listener.into_raw_fd() }
    }

    fn place(&self, rank: usize) -> Rendezvous {
        let listen_fd = (rank == 0).then_some(self.listen_fd);
        Rendezvous { listen_fd, ..place(rank, self.world, self.port) }
    }

    fn join(&self, rank: usize) -> Result<Liveness, C10dError> {
        Liveness::join(&self.place(rank), PATIENCE, || false)
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
        token: "secret".to_owned(),
    }
}

/// Closes a rank's connections as the end of its process would.
fn kill(liveness: &Liveness) {
    for stream in liveness.shared.lock().links.values() {
        stream.shutdown(Shutdown::Both).unwrap();
    }
}

fn awaited(liveness: &Liveness) -> GroupFailure {
    let state = liveness.shared.wait_until(PATIENCE, |state| state.news.is_some());
    state.news.clone().unwrap()
}

#[test]
fn all_hear_of_a_rank_that_is_gone() {
    for gone in [0, 1, 3] {
        let ranks = Meeting::of(4).all();
        kill(&ranks[gone]);
        for (rank, liveness) in ranks.iter().enumerate().filter(|(rank, _)| *rank != gone) {
            assert_eq!(awaited(liveness), GroupFailure::Gone { rank: gone }, "rank {rank}");
        }
    }
}

#[test]
fn bad_news_starts_what_ends_the_work_of_gpus_once_on_every_rank() {
    let ranks = Meeting::of(3).all();
    let (give, acted) = mpsc::channel();
    for (rank, liveness) in ranks.iter().enumerate() {
        let give = give.clone();
        liveness.on_news(move || give.send(rank).unwrap());
    }
    kill(&ranks[2]);
    let mut heard: Vec<usize> = (0..3).map(|_| acted.recv_timeout(PATIENCE).unwrap()).collect();
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2]);
    // What is set too late is started at once.
    let late = give.clone();
    ranks[0].on_news(move || late.send(7).unwrap());
    assert_eq!(acted.recv_timeout(PATIENCE), Ok(7));
    drop((ranks, give));
    assert_eq!(acted.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn all_hear_why_the_first_rank_gave_up_that_did() {
    for first in [0, 1, 2] {
        let ranks = Meeting::of(3).all();
        assert_eq!(ranks[first].abort("no\nspace"), first);
        let expected = GroupFailure::Aborted { by: first, reason: "no space".to_owned() };
        for (rank, liveness) in ranks.iter().enumerate() {
            assert_eq!(awaited(liveness), expected, "rank {rank}");
            assert!(rank == first || liveness.abort("an echo") == first);
        }
    }
}

#[test]
fn the_ranks_that_have_not_come_to_an_operation_are_named_on_all_ranks() {
    for (late, asks) in [(vec![2], 1), (vec![0], 1), (vec![1, 3], 0), (vec![], 3)] {
        let ranks = Meeting::of(4).all();
        for (rank, liveness) in ranks.iter().enumerate() {
            for _ in 0..if late.contains(&rank) { 4 } else { 5 } {
                liveness.count();
            }
        }
        let expected = GroupFailure::Late { ranks: late };
        assert_eq!(ranks[asks].late(), expected);
        for liveness in &ranks {
            assert_eq!(awaited(liveness), expected);
        }
    }
}

#[test]
fn what_one_rank_gives_all_ranks_get_also_those_that_come_later() {
    let meeting = Meeting::of(3);
    thread::scope(|scope| {
        let first = scope.spawn(|| meeting.join(0));
        let second = meeting.join(1).unwrap();
        second.values().set("a key/1".to_owned(), vec![0, 10, 255]);
        assert!(second.values().has("a key/1"));
        let third = meeting.join(2).unwrap();
        let first = first.join().unwrap().unwrap();
        first.values().set("empty".to_owned(), Vec::new());
        for liveness in [&first, &second, &third] {
            assert_eq!(liveness.values().get("a key/1", PATIENCE), Ok(vec![0, 10, 255]));
            assert_eq!(liveness.values().get("empty", PATIENCE), Ok(Vec::new()));
            assert!(!liveness.values().has("another"));
        }
        let error = third.values().get("another", Duration::from_millis(10)).unwrap_err();
        assert_eq!(error, "timed out: no rank gave `another` within 0.01 s");
        kill(&second);
        let error = third.values().get("another", PATIENCE).unwrap_err();
        assert_eq!(error, "another rank is lost");
    });
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
fn whoever_is_no_rank_is_turned_away_and_keeps_no_rank_out() {
    let meeting = Meeting::of(2);
    thread::scope(|scope| {
        let first = scope.spawn(|| meeting.join(0));
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, meeting.port)).unwrap();
        // More than are kept: each new one is taken for an older one.
        let silent: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
        let other = "hello other - 1 2 0.0.0\n".as_bytes();
        for text in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"abort all\n", &[b'x'; 9000], other] {
            let mut stream = connect();
            stream.write_all(text).unwrap();
            let mut answer = String::new();
            // Closed, perhaps before all of it was read.
            let _ = stream.read_to_string(&mut answer);
            let is_refusal = answer.starts_with("refused the ranks that meet here belong to");
            assert!(answer.is_empty() || text == other && is_refusal, "{answer}");
        }
        let second = meeting.join(1).unwrap();
        let first = first.join().unwrap().unwrap();
        assert_eq!((first.news(), second.news()), (None, None));
        drop(silent);
    });
}

#[test]
fn ranks_that_do_not_belong_together_are_told_what_differs() {
    #[track_caller]
    fn check(change: impl Fn(&mut Rendezvous), second: &str, first: &str) {
        let meeting = Meeting::of(2);
        thread::scope(|scope| {
            let joined = scope.spawn(|| Liveness::join(&meeting.place(0), SHORT, || false));
            let mut place = meeting.place(1);
            change(&mut place);
            let error = Liveness::join(&place, PATIENCE, || false).unwrap_err().to_string();
            assert!(error.ends_with(second), "{error}");
            let error = joined.join().unwrap().unwrap_err().to_string();
            assert!(error.ends_with(first), "{error}");
        });
    }
    let attempt = "rank 1 was started in attempt `1` of this run, but rank 0 in attempt `-`";
    check(
        |place| place.attempt = "1".to_owned(),
        attempt,
        &format!("no word of rank 1 within 0.7 s; turned away: {attempt}"),
    );
    let token = "the ranks that meet here belong to another run: their token is another one";
    check(
        |place| place.token = "wrong".to_owned(),
        token,
        &format!("no word of rank 1 within 0.7 s; turned away: {token}"),
    );
    let world = "rank 1 was started as one of 3 ranks, but rank 0 as one of 2";
    check(|place| place.world = 3, &format!(": {world}"), &format!("rank 1 stopped: {world}"));
}

#[test]
fn a_rank_that_finds_something_else_says_what_and_does_not_wait_for_ever() {
    #[track_caller]
    fn check(answer: Option<&'static [u8]>, timeout: Duration, expected: &str) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                if let Some(answer) = answer {
                    stream.write_all(answer).unwrap();
                }
                // Until the rank has gone away.
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let error =
                Liveness::join(&place(1, 2, port), timeout, || false).unwrap_err().to_string();
            let start = format!("rank 1 of 2 did not meet the others at 127.0.0.1:{port}: ");
            let cause = error.strip_prefix(&start).unwrap_or_else(|| panic!("{error}"));
            assert_eq!(cause.replace(&port.to_string(), "PORT"), expected);
        });
    }
    check(
        Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        PATIENCE,
        "127.0.0.1:PORT answers \"HTTP/1.1 400 Bad Request\\r\": another program than rank 0 has \
         this port",
    );
    check(
        Some(b"SSH-2.0-OpenSSH_9.6\n"),
        PATIENCE,
        "127.0.0.1:PORT answers \"SSH-2.0-OpenSSH_9.6\": another program than rank 0 has this port",
    );
    check(
        None,
        SHORT,
        "127.0.0.1:PORT accepts connections but does not answer: another program than rank 0 has \
         this port, or rank 0 hangs",
    );
}

/// libtorch's client of `torchrun`'s store reads without a deadline.
#[test]
fn a_rank_of_torchrun_does_not_wait_for_ever_for_what_is_no_agent() {
    for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (rank_waits, rank_has_ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(answer).unwrap();
                let _ = rank_has_ended.recv();
            });
            let place = Rendezvous { rank_0_serves: false, ..place(1, 2, port) };
            let error = Liveness::join(&place, SHORT, || false).unwrap_err().to_string();
            drop(rank_waits);
            let start = format!("rank 1 of 2 did not meet the others at 127.0.0.1:{port}: ");
            assert!(error.starts_with(&start), "{error}");
            assert!(error.contains("the store of torchrun's agent, which "), "{error}");
        });
    }
}

#[test]
fn a_rank_that_finds_nobody_takes_its_timeout_and_no_longer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = Liveness::join(&place(1, 2, port), SHORT, || false).unwrap_err().to_string();
    assert!(error.contains("rank 0 was not found there within "), "{error}");
    assert!(error.contains("onnection refused"), "{error}");
}

#[test]
fn a_descriptor_that_is_no_listening_socket_is_refused() {
    let stream_fd = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap().into_raw_fd()
    };
    for fd in [-1, 0, 1, 2, 100_000, stream_fd] {
        let place = Rendezvous { listen_fd: Some(fd), ..place(0, 2, 1) };
        let error = Liveness::join(&place, SHORT, || false).unwrap_err().to_string();
        assert!(error.contains("rank 0 cannot listen there: descriptor "), "{error}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = Liveness::join(&place(0, 2, port), SHORT, || false).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}: rank 0 cannot listen there: ")), "{error}");
    assert!(error.contains("in use"), "{error}");
}

#[test]
fn a_rank_that_is_asked_to_stop_waits_for_no_other_and_tells_those_that_are_there() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static ASKED: AtomicBool = AtomicBool::new(false);
    let asked = || ASKED.load(Ordering::SeqCst);
    let stopped = |rank| C10dError::Stopped { rank, operation: "the rendezvous" };
    // Rank 0, which waits for rank 2.
    let meeting = Meeting::of(3);
    thread::scope(|scope| {
        let first = scope.spawn(|| Liveness::join(&meeting.place(0), PATIENCE, asked));
        let second = meeting.join(1).unwrap();
        ASKED.store(true, Ordering::SeqCst);
        assert_eq!(first.join().unwrap().unwrap_err(), stopped(0));
        let reason = "it was asked to stop".to_owned();
        assert_eq!(awaited(&second), GroupFailure::Aborted { by: 0, reason });
    });
    // Another one, which finds a port that nobody listens at, or one that does not answer.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = silent.local_addr().unwrap().port();
    let free = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    for port in [free, taken] {
        ASKED.store(false, Ordering::SeqCst);
        thread::scope(|scope| {
            let rank = scope.spawn(move || Liveness::join(&place(1, 2, port), PATIENCE, asked));
            if port == taken {
                let (stream, _) = silent.accept().unwrap();
                ASKED.store(true, Ordering::SeqCst);
                assert_eq!(rank.join().unwrap().unwrap_err(), stopped(1));
                drop(stream);
            } else {
                ASKED.store(true, Ordering::SeqCst);
                assert_eq!(rank.join().unwrap().unwrap_err(), stopped(1));
            }
        });
    }
}
