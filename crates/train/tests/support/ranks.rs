//! A test that runs on several ranks, each a process of its own.

#![allow(dead_code)] // Each test file uses its own part.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use pfc_c10d::{GroupOptions, Node, ProcessGroup, Rendezvous, spawn};

/// Longer than any test takes.
const OPTIONS: GroupOptions =
    GroupOptions { timeout: Duration::from_secs(120), nccl: false, asked_to_stop: || false };

/// Runs `body` on `world` ranks: in the test `name` itself, starts it again once per rank and checks
/// that all succeed; in such a process, runs `body` and ends it. Gives back the words of each rank.
///
/// * `variant`: what to do, for `body` to read from the environment with [`variant`]
#[track_caller]
pub fn on_ranks(
    name: &str,
    variant: &str,
    world: usize,
    body: impl FnOnce(ProcessGroup),
) -> Vec<String> {
    if pfc_testing::is_again(name) {
        let place = Rendezvous::from_env().unwrap().unwrap();
        body(ProcessGroup::join(&place, OPTIONS).unwrap());
        std::process::exit(0);
    }
    // A rank ends without dropping what the test made before it came here: its temporary folders go with
    // this one.
    let scratch = tempfile::tempdir().unwrap();
    let command = |_| {
        let mut command = pfc_testing::again(name);
        command.env("PFC_VARIANT", variant).env("TMPDIR", scratch.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let node = Node { node: 0, n_nodes: 1, local_world: world, master: None };
    let children = spawn(&node, command).unwrap();
    let outputs: Vec<Output> =
        children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for (rank, output) in outputs.iter().enumerate() {
        assert!(output.status.success(), "{variant}, rank {rank}: {}", text(&output.stderr));
    }
    outputs.iter().map(|output| text(&output.stdout)).collect()
}

/// What the starting process asked for.
pub fn variant() -> String {
    std::env::var("PFC_VARIANT").unwrap()
}
