//! Ranks on this machine, started by this process.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::AsRawFd,
    process::{Child, Command},
};

use rustix::io::{FdFlags, fcntl_setfd};

use super::{LISTEN_FD, TOKEN};

/// The ranks that one machine of a run has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Number of this machine, from 0.
    pub node: usize,
    /// Number of machines, at least 1.
    pub n_nodes: usize,
    /// Ranks on this machine, as on every other.
    pub local_world: usize,
    /// Host and port at which the ranks of several machines meet, both of machine 0. Without them the
    /// ranks of one machine meet at a port of the loopback interface that is free.
    pub master: Option<(String, u16)>,
}

/// Starts the ranks of one machine as processes.
///
/// The ranks find their place in the environment ([`Rendezvous::from_env`](crate::Rendezvous)). Without
/// a `master` they meet at a socket that is opened here and that rank 0 inherits, so that no port is
/// ever guessed, and share a token that nobody else knows.
///
/// * `command`: what to start as the rank of the given number on this machine
///
/// # Errors
///
/// The system's reason not to open a socket or start a process; those already started are killed.
pub fn spawn(node: &Node, mut command: impl FnMut(usize) -> Command) -> io::Result<Vec<Child>> {
    let mut meeting = Meeting::of(node)?;
    let mut children = Vec::with_capacity(node.local_world);
    for local_rank in 0..node.local_world {
        let rank = node.node * node.local_world + local_rank;
        let mut command = command(local_rank);
        command
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", local_rank.to_string())
            .env("WORLD_SIZE", (node.n_nodes * node.local_world).to_string())
            .env("LOCAL_WORLD_SIZE", node.local_world.to_string())
            .env("MASTER_ADDR", &meeting.host)
            .env("MASTER_PORT", meeting.port.to_string())
            .env_remove("TORCHELASTIC_USE_AGENT_STORE")
            .env_remove("TORCHELASTIC_RESTART_COUNT")
            .env_remove(LISTEN_FD);
        if let Some(token) = &meeting.token {
            command.env(TOKEN, token);
        }
        // Rank 0 alone keeps it: with a copy elsewhere, nobody would notice that rank 0 is gone.
        let inherited = meeting.listener.take();
        if let Some(listener) = &inherited {
            command.env(LISTEN_FD, listener.as_raw_fd().to_string());
        }
        match command.spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                for child in &mut children {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                return Err(error);
            }
        }
    }
    Ok(children)
}

/// Where the ranks meet, and the socket of rank 0 if it is opened here.
struct Meeting {
    host: String,
    port: u16,
    listener: Option<TcpListener>,
    token: Option<String>,
}

impl Meeting {
    fn of(node: &Node) -> io::Result<Meeting> {
        if let Some((host, port)) = &node.master {
            // Set by whoever starts the launchers, or left out.
            let (host, port) = (host.clone(), *port);
            return Ok(Meeting { host, port, listener: None, token: None });
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        fcntl_setfd(&listener, FdFlags::empty())?;
        let own = || format!("{:016x}", RandomState::new().hash_one(port));
        let token = env::var(TOKEN).unwrap_or_else(|_| own() + &own());
        let (listener, token) = (Some(listener), Some(token));
        Ok(Meeting { host: "127.0.0.1".to_owned(), port, listener, token })
    }
}
