//! How a rank finds rank 0, and how rank 0 lets itself be found, each with a deadline of its own.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt;

use super::{
    protocol::{FromFirst, Hello, REASON_MAX, ToFirst},
    shared::send_line,
};
use crate::{
    C10dError, ffi,
    patience::{Patience, SLICE},
    rendezvous::{Agent, Rendezvous},
};

/// Where rank 0 listens, in the store of `torchrun`'s agent.
const PORT: &str = "liveness";
/// How long rank 0 tries to open a port that may still be in use by a run that is about to end.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// Silence after which the system asks whether the other machine is still there. The connection is idle
/// for as long as all goes well, and firewalls forget idle ones.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Questions without an answer, and the time between them, until it counts as gone.
const KEEPALIVE_PROBES: (u32, Duration) = (3, Duration::from_secs(10));
/// How long a line may take to be sent before the connection counts as lost.
const SEND: Duration = Duration::from_secs(10);

/// Opens the socket at which rank 0 is found.
pub(super) fn listen(place: &Rendezvous, patience: Patience) -> Result<TcpListener, C10dError> {
    let refused = |error: io::Error| place.refused(format!("rank 0 cannot listen there: {error}"));
    let listener = match place.listen_fd {
        Some(fd) => ffi::adopt_listener(fd).map_err(refused)?,
        None if place.rank_0_serves => {
            let deadline = patience.deadline.min(Instant::now() + PORT_PATIENCE);
            bind(place, place.port, Patience { deadline, ..patience }).map_err(refused)?
        }
        None => bind(place, 0, patience).map_err(refused)?,
    };
    listener.set_nonblocking(true).map_err(refused)?;
    if !place.rank_0_serves {
        let port = listener.local_addr().map_err(refused)?.port();
        Agent::open(place, patience)?.set(PORT, &port.to_string(), patience)?;
    }
    Ok(listener)
}

/// On the loopback interface alone where all ranks reach it there.
fn bind(place: &Rendezvous, port: u16, patience: Patience) -> io::Result<TcpListener> {
    loop {
        let bound = if place.is_on_one_machine() {
            TcpListener::bind((loopback(place), port))
        } else {
            // Takes IPv4 too, unless the system has no IPv6 at all.
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
                .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        };
        match bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !patience.is_over() => {
                thread::sleep(PAUSE);
            }
            bound => return bound,
        }
    }
}

fn loopback(place: &Rendezvous) -> IpAddr {
    let given = place.host.parse::<IpAddr>().ok().filter(IpAddr::is_loopback);
    given.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A connection with rank 0, which has let this rank in.
pub(super) fn find_first(place: &Rendezvous, patience: Patience) -> Result<TcpStream, C10dError> {
    let port = if place.rank_0_serves {
        place.port
    } else {
        let port = Agent::open(place, patience)?.get(PORT, patience)?;
        port.parse().map_err(|_| place.refused(format!("rank 0 listens at port `{port}`")))?
    };
    let started = Instant::now();
    let addresses = addresses(place, port, patience)?;
    loop {
        patience.check(place.rank)?;
        let mut cause = String::new();
        for address in &addresses {
            match try_first(place, *address, patience)? {
                Ok(stream) => return Ok(stream),
                Err(error) => cause = format!("{address}: {error}"),
            }
        }
        if patience.left() <= PAUSE {
            let seconds = started.elapsed().as_secs_f64();
            let text = format!("rank 0 was not found there within {seconds:.1} s: {cause}");
            return Err(place.refused(text));
        }
        thread::sleep(PAUSE);
    }
}

/// The name server is asked in a thread, as it may take longer than the deadline.
fn addresses(
    place: &Rendezvous,
    port: u16,
    patience: Patience,
) -> Result<Vec<SocketAddr>, C10dError> {
    if place.is_on_one_machine() {
        return Ok(vec![(loopback(place), port).into()]);
    }
    let (host, (give, found)) = (place.host.clone(), mpsc::channel());
    let look_up = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Nobody may be waiting any more.
        let _ = give.send(found);
    };
    let thread = thread::Builder::new().name("look-up".to_owned()).spawn(look_up);
    thread.map_err(|error| place.refused(format!("no thread to look the host up: {error}")))?;
    match patience.receive(place.rank, &found)? {
        Some(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Some(Ok(_)) => Err(place.refused("the host has no address".to_owned())),
        Some(Err(error)) => Err(place.refused(format!("the host has no address: {error}"))),
        None => Err(place.refused("the name server does not answer".to_owned())),
    }
}

/// One attempt. What may be otherwise a moment later is the inner error.
fn try_first(
    place: &Rendezvous,
    address: SocketAddr,
    patience: Patience,
) -> Result<io::Result<TcpStream>, C10dError> {
    let connected =
        connected(place, address, patience)?.and_then(|stream| prepare(&stream).map(|()| stream));
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(error)),
    };
    send_line(&stream, &ToFirst::Hello(Hello::of(place)).line());
    // The socket may be open long before rank 0 is: its launcher has made it. So all the time that there
    // is may go by until an answer comes.
    let said = read_line(&stream, patience);
    patience.check(place.rank)?;
    let said = match said {
        Ok(said) => said,
        Err(error) if is_timeout(&error) => {
            return Err(place.refused(format!(
                "{address} accepts connections but does not answer: another program than rank 0 has \
                 this port, or rank 0 hangs"
            )));
        }
        Err(error) => return Ok(Err(error)),
    };
    let news = match FromFirst::parse(&said) {
        Some(FromFirst::Welcome) => {
            return Ok(stream.set_read_timeout(None).map(|()| stream));
        }
        Some(FromFirst::Refused(reason)) => return Err(place.refused(reason)),
        _ if said.is_empty() => {
            let text = "the connection was closed without an answer";
            return Ok(Err(io::Error::other(text)));
        }
        _ => said,
    };
    let shown: String = news.chars().take(60).collect();
    Err(place
        .refused(format!("{address} answers {shown:?}: another program than rank 0 has this port")))
}

/// A connection. It is waited for in a thread, as a machine that is not there yet may let many seconds go
/// by without an answer.
fn connected(
    place: &Rendezvous,
    address: SocketAddr,
    patience: Patience,
) -> Result<io::Result<TcpStream>, C10dError> {
    let timeout = patience.left().clamp(Duration::from_millis(1), ATTEMPT);
    let (give, connected) = mpsc::channel();
    let connect = move || {
        // Nobody may be waiting any more.
        let _ = give.send(TcpStream::connect_timeout(&address, timeout));
    };
    let thread = thread::Builder::new().name("connect".to_owned()).spawn(connect);
    thread.map_err(|error| place.refused(format!("no thread to connect in: {error}")))?;
    let connected = patience.receive(place.rank, &connected)?;
    Ok(connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())))
}

/// The first line, one byte at a time: what follows is for others to read. Empty if nothing comes.
fn read_line(mut stream: &TcpStream, patience: Patience) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < REASON_MAX + 64 {
        if patience.is_over() {
            // Half a line is an answer too.
            match line.is_empty() {
                true => return Err(io::ErrorKind::TimedOut.into()),
                false => break,
            }
        }
        stream.set_read_timeout(Some(patience.left().clamp(Duration::from_millis(1), SLICE)))?;
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted || is_timeout(&error) => {}
            Err(error) if line.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Lines go out at once, never hold a rank up for long, and a machine that loses power is noticed.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(SEND))?;
    let (n_probes, apart) = KEEPALIVE_PROBES;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, apart)?;
    sockopt::set_tcp_keepcnt(stream, n_probes)?;
    Ok(())
}
