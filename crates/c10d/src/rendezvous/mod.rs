//! This process's place among the ranks, and where they meet.

mod agent;
mod local;
mod slurm;

use std::net::IpAddr;

use crate::C10dError;

pub(crate) use agent::Agent;
pub use local::{Node, spawn};

/// This process's place among the ranks, and where they meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// Number of this rank, from 0.
    pub rank: usize,
    /// Number of ranks, at least 1.
    pub world: usize,
    /// Number of this rank on its machine, which is that of its GPU.
    pub local_rank: usize,
    /// Ranks on this machine.
    pub local_world: usize,
    /// Host of rank 0, as all reach it.
    pub host: String,
    /// Port of rank 0.
    pub port: u16,
    /// A socket listening there, inherited by rank 0 from who started it; `None` to open one.
    pub listen_fd: Option<i32>,
    /// Whether rank 0 listens at `port`. False under a `torchrun` whose agent has a store there, in
    /// which rank 0 then says where it listens.
    pub rank_0_serves: bool,
    /// Keeps attempts to meet at one place apart; may be empty.
    pub attempt: String,
    /// Keeps runs that meet at one place apart; may be empty. It goes over the network as it is.
    pub token: String,
}

/// Set by a launcher that hands rank 0 its listening socket.
const LISTEN_FD: &str = "PFC_LISTEN_FD";
/// Set by a launcher, or by whoever starts ranks, to the same text for all ranks of a run.
const TOKEN: &str = "PFC_TOKEN";

type Vars<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Rendezvous {
    /// Reads the place from the environment; `None` if that says nothing of ranks.
    ///
    /// `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` as
    /// `torchrun` sets them come first, then what `srun` sets for the tasks of a step
    /// (`SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`, `SLURM_LOCALID`), with rank 0 on the step's first
    /// node and a port that follows from the job's number. Without `LOCAL_WORLD_SIZE` all ranks are
    /// taken to be on this machine if `MASTER_ADDR` is a loopback address, else each on its own.
    /// The token is `PFC_TOKEN`, else `torchrun`'s run id or the job's number.
    ///
    /// # Errors
    ///
    /// [`C10dError::Environment`] for a variable that is missing beside others or makes no sense.
    pub fn from_env() -> Result<Option<Rendezvous>, C10dError> {
        Rendezvous::from_vars(&|name| std::env::var(name).ok())
    }

    /// As [`from_env`](Rendezvous::from_env), of variables that `vars` looks up.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn from_vars(vars: Vars<'_>) -> Result<Option<Rendezvous>, C10dError> {
        let found = if vars("RANK").is_some() || vars("WORLD_SIZE").is_some() {
            of_torchrun(vars)?
        } else if vars("SLURM_STEP_NUM_TASKS").is_some_and(|n| n != "1") {
            of_slurm(vars)?
        } else {
            return Ok(None);
        };
        let Rendezvous { rank, world, .. } = found;
        if rank >= world {
            let expected = format!("below the number of ranks, {world}");
            return Err(bad("RANK", &rank.to_string(), expected));
        }
        Ok(Some(found))
    }

    /// `host:port`, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether all ranks are on this machine, where they reach each other by the loopback interface.
    pub(crate) fn is_on_one_machine(&self) -> bool {
        self.local_world == self.world || is_loopback(&self.host)
    }

    /// That the ranks did not meet.
    pub(crate) fn refused(&self, cause: String) -> C10dError {
        C10dError::Rendezvous { rank: self.rank, world: self.world, address: self.address(), cause }
    }
}

fn of_torchrun(vars: Vars<'_>) -> Result<Rendezvous, C10dError> {
    let rank = number(vars, "RANK")?;
    let world = number(vars, "WORLD_SIZE")?;
    let or = |name, default| if vars(name).is_some() { number(vars, name) } else { Ok(default) };
    let agent_serves = vars("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
    let host = text(vars, "MASTER_ADDR", "the host of rank 0")?;
    let local_world_default = if is_loopback(&host) { world } else { 1 };
    let token = vars(TOKEN).or_else(|| vars("TORCHELASTIC_RUN_ID"));
    Ok(Rendezvous {
        rank,
        world: at_least_1("WORLD_SIZE", world)?,
        local_rank: or("LOCAL_RANK", rank)?,
        local_world: or("LOCAL_WORLD_SIZE", local_world_default)?,
        host,
        port: number(vars, "MASTER_PORT")?,
        listen_fd: match vars(LISTEN_FD) {
            Some(_) if rank == 0 => Some(number(vars, LISTEN_FD)?),
            _ => None,
        },
        rank_0_serves: !agent_serves,
        attempt: vars("TORCHELASTIC_RESTART_COUNT").unwrap_or_default(),
        token: token.unwrap_or_default(),
    })
}

fn of_slurm(vars: Vars<'_>) -> Result<Rendezvous, C10dError> {
    let world = at_least_1("SLURM_STEP_NUM_TASKS", number(vars, "SLURM_STEP_NUM_TASKS")?)?;
    let nodes = vars("SLURM_STEP_NODELIST").unwrap_or_default();
    let host = match vars("MASTER_ADDR").or_else(|| slurm::first_node(&nodes)) {
        Some(host) => host,
        None => return Err(bad("SLURM_STEP_NODELIST", &nodes, "a list of nodes".to_owned())),
    };
    let port = if vars("MASTER_PORT").is_some() {
        number(vars, "MASTER_PORT")?
    } else {
        // Above the ports that services use and below those that Linux gives to clients.
        let job: u64 = number(vars, "SLURM_JOB_ID")?;
        15_000 + (job % 15_000) as u16
    };
    let node = vars("SLURM_NODEID").and_then(|node| node.parse().ok()).unwrap_or(0);
    let tasks = vars("SLURM_STEP_TASKS_PER_NODE").unwrap_or_default();
    Ok(Rendezvous {
        rank: number(vars, "SLURM_PROCID")?,
        world,
        local_rank: number(vars, "SLURM_LOCALID")?,
        local_world: slurm::tasks_on_node(&tasks, node).unwrap_or(world),
        host,
        port,
        listen_fd: None,
        rank_0_serves: true,
        attempt: vars("SLURM_STEP_ID").unwrap_or_default(),
        token: vars(TOKEN).or_else(|| vars("SLURM_JOB_ID")).unwrap_or_default(),
    })
}

/// Whether it names this machine and no other.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn at_least_1(variable: &'static str, world: usize) -> Result<usize, C10dError> {
    if world == 0 { Err(bad(variable, "0", "1 or more".to_owned())) } else { Ok(world) }
}

fn text(vars: Vars<'_>, variable: &'static str, expected: &str) -> Result<String, C10dError> {
    let value = vars(variable).filter(|value| !value.is_empty());
    value.ok_or_else(|| bad(variable, "", expected.to_owned()))
}

fn number<T: std::str::FromStr>(vars: Vars<'_>, variable: &'static str) -> Result<T, C10dError> {
    let value = vars(variable).unwrap_or_default();
    value.parse().map_err(|_| bad(variable, &value, "a whole number in range".to_owned()))
}

fn bad(variable: &'static str, value: &str, expected: String) -> C10dError {
    C10dError::Environment { variable, value: value.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(vars: &[(&str, &str)]) -> Result<Option<Rendezvous>, C10dError> {
        let find = |name: &str| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Rendezvous::from_vars(&find)
    }

    const TORCHRUN: [(&str, &str); 6] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("MASTER_ADDR", "node1"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn an_environment_without_ranks_is_none() {
        assert_eq!(parse(&[("HOME", "/")]), Ok(None));
        // A shell within an allocation, or a step of one task.
        assert_eq!(parse(&[("SLURM_JOB_ID", "7"), ("SLURM_STEP_NUM_TASKS", "1")]), Ok(None));
    }

    #[test]
    fn what_torchrun_sets_is_taken_as_it_is() {
        let found = parse(&TORCHRUN).unwrap().unwrap();
        assert_eq!((found.rank, found.world), (5, 8));
        assert_eq!((found.local_rank, found.local_world), (1, 4));
        assert_eq!(found.address(), "node1:29500");
        assert!(found.rank_0_serves);
        assert_eq!((found.token.as_str(), found.is_on_one_machine()), ("", false));
        let agent = [&TORCHRUN[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert!(!parse(&agent).unwrap().unwrap().rank_0_serves);
        let known = [&TORCHRUN[..], &[("TORCHELASTIC_RUN_ID", "a"), ("PFC_TOKEN", "b")]].concat();
        assert_eq!(parse(&known[..7]).unwrap().unwrap().token, "a");
        assert_eq!(parse(&known).unwrap().unwrap().token, "b");
    }

    #[test]
    fn ranks_whose_number_on_this_machine_is_unknown_share_it_if_they_meet_on_loopback() {
        for (host, expected) in
            [("localhost", 8), ("127.0.0.1", 8), ("127.1.2.3", 8), ("::1", 8), ("node1", 1)]
        {
            let vars = [("RANK", "5"), ("WORLD_SIZE", "8"), ("MASTER_ADDR", host)];
            let found = parse(&[&vars[..], &[("MASTER_PORT", "29500")]].concat());
            let found = found.unwrap().unwrap();
            assert_eq!(found.local_world, expected, "{host}");
            assert_eq!(found.is_on_one_machine(), expected == 8, "{host}");
        }
    }

    #[test]
    fn what_srun_sets_gives_the_same() {
        let vars = [
            ("SLURM_STEP_NUM_TASKS", "7"),
            ("SLURM_PROCID", "5"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_NODEID", "1"),
            ("SLURM_STEP_TASKS_PER_NODE", "4,3"),
            ("SLURM_STEP_NODELIST", "gpu[003-004]"),
            ("SLURM_JOB_ID", "30007"),
        ];
        let found = parse(&vars).unwrap().unwrap();
        assert_eq!((found.rank, found.world), (5, 7));
        assert_eq!((found.local_rank, found.local_world), (1, 3));
        assert_eq!((found.address().as_str(), found.token.as_str()), ("gpu003:15007", "30007"));
        let own = [&vars[..], &[("MASTER_ADDR", "ib0"), ("MASTER_PORT", "4000")]].concat();
        assert_eq!(parse(&own).unwrap().unwrap().address(), "ib0:4000");
    }

    #[test]
    fn a_variable_that_is_missing_or_makes_no_sense_is_named() {
        #[track_caller]
        fn check(name: &'static str, value: Option<&'static str>, expected: &str) {
            let mut vars: Vec<_> = TORCHRUN.into_iter().filter(|(key, _)| *key != name).collect();
            vars.extend(value.map(|value| (name, value)));
            assert_eq!(parse(&vars).unwrap_err().to_string(), expected);
        }
        check(
            "MASTER_ADDR",
            None,
            "environment variable MASTER_ADDR is ``, but has to be the host of rank 0",
        );
        check(
            "MASTER_PORT",
            Some("70000"),
            "environment variable MASTER_PORT is `70000`, but has to be a whole number in range",
        );
        check(
            "RANK",
            Some("8"),
            "environment variable RANK is `8`, but has to be below the number of ranks, 8",
        );
        check(
            "WORLD_SIZE",
            Some("0"),
            "environment variable WORLD_SIZE is `0`, but has to be 1 or more",
        );
    }
}
