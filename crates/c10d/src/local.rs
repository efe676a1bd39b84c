//! Ranks on this machine, started by this process.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::AsRawFd,
    process::{Child, Command},
};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::rendezvous::LISTEN_FD;

/// Starts `world` processes as ranks of one group on this machine.
///
/// The ranks find their place in the environment ([`Rendezvous::from_env`](crate::Rendezvous)). They
/// meet at a socket that is opened here and that rank 0 inherits, so that no port is ever guessed.
///
/// * `command`: what to start as the rank of the given number
///
/// # Errors
///
/// The system's reason not to open a socket or start a process; those already started are killed.
pub fn spawn(world: usize, mut command: impl FnMut(usize) -> Command) -> io::Result<Vec<Child>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    // Rank 0 alone inherits it: with a copy elsewhere, nobody would notice that rank 0 is gone.
    fcntl_setfd(&listener, FdFlags::empty())?;
    let mut listener = Some(listener);
    let mut children = Vec::with_capacity(world);
    for rank in 0..world {
        let mut command = command(rank);
        command
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", world.to_string())
            .env("LOCAL_WORLD_SIZE", world.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env_remove("TORCHELASTIC_USE_AGENT_STORE")
            .env_remove("TORCHELASTIC_RESTART_COUNT")
            .env_remove(LISTEN_FD);
        let inherited = listener.take();
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
