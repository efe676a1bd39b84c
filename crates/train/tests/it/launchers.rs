//! Ranks that others start: `torchrun`, and `srun` by the variables that it sets.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use crate::support::run::{
    PATIENCE, Setup, as_strs, check_gone, check_same, checkpoint, program, sets, signal, wait_for,
};

/// 36 images make 4 batches of 9 an epoch, 12 steps in all.
fn setup() -> (Setup, PathBuf) {
    let setup = Setup::new(6);
    let ours = setup.out("ours");
    let settings = settings();
    setup.finish(&ours, &[&as_strs(&settings)[..], &["--nproc-per-node", "2"]].concat());
    (setup, ours)
}

fn settings() -> Vec<String> {
    sets(&["train.batch_size=9", "train.timeout_s=120"])
}

/// `PFC_TORCHRUN`, else that of the environment that `scripts/bench-train` makes.
fn torchrun() -> Option<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let given = std::env::var_os("PFC_TORCHRUN").map(PathBuf::from);
    let found = given.unwrap_or_else(|| checkout.join(".venv/train/bin/torchrun"));
    if found.exists() {
        return Some(found);
    }
    pfc_testing::skip(&format!("{} is not there; PFC_TORCHRUN names another", found.display()));
    None
}

#[test]
fn ranks_that_torchrun_starts_do_what_ours_do() {
    let Some(torchrun) = torchrun() else { return };
    let (setup, ours) = setup();
    let theirs = setup.out("theirs");
    let mut command = Command::new(torchrun);
    command.args(["--standalone", "--nproc-per-node", "2", "--no-python", program()]);
    command.args(setup.arguments(&theirs, &as_strs(&settings())));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("among 2 ranks"), "{said}");
    check_same(&theirs, &ours);
}

/// The tasks of a job step on this machine.
fn srun(setup: &Setup, out: &Path, world: usize, more: &[&str]) -> Vec<Child> {
    // Free now; a port that follows from a job's number might be another test's.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let task = |rank: usize| {
        let own = settings();
        let mut command = setup.command(out, &[&as_strs(&own)[..], more].concat());
        command
            .env("SLURM_JOB_ID", "4711")
            .env("SLURM_STEP_ID", "0")
            .env("SLURM_STEP_NUM_TASKS", world.to_string())
            .env("SLURM_STEP_TASKS_PER_NODE", world.to_string())
            .env("SLURM_STEP_NODELIST", "localhost")
            .env("SLURM_NODEID", "0")
            .env("SLURM_PROCID", rank.to_string())
            .env("SLURM_LOCALID", rank.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string());
        command.spawn().unwrap()
    };
    (0..world).map(task).collect()
}

fn ended(tasks: Vec<Child>) -> Vec<Output> {
    tasks.into_iter().map(|task| task.wait_with_output().unwrap()).collect()
}

#[test]
fn tasks_that_srun_starts_do_what_ours_do_and_end_with_one_that_is_killed() {
    let (setup, ours) = setup();
    let theirs = setup.out("theirs");
    let mut tasks = srun(&setup, &theirs, 2, &[]);
    assert!(wait_for(&checkpoint(&theirs, 3), &mut tasks[0]));
    tasks[1].kill().unwrap();
    let pids: Vec<u32> = tasks.iter().map(Child::id).collect();
    let outputs = ended(tasks);
    let said = String::from_utf8_lossy(&outputs[0].stderr);
    assert_eq!(outputs[0].status.code(), Some(2), "{said}");
    assert!(said.contains("rank 0"), "{said}");
    check_gone(&pids);

    for output in ended(srun(&setup, &theirs, 2, &["--resume"])) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    check_same(&theirs, &ours);
}

/// Two machines of one rank each, which are both this one: what each is given.
fn nodes(setup: &Setup, out: &Path, more: &[&str]) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let master = format!("127.0.0.1:{port}");
    let start = |node: &str| {
        let own = ["--nnodes", "2", "--node-rank", node, "--master", master.as_str()];
        let ranks = ["--nproc-per-node", "1"];
        let settings = settings();
        let all = [&as_strs(&settings)[..], &own, &ranks, more].concat();
        setup.command(out, &all).spawn().unwrap()
    };
    ["0", "1"].map(start).into()
}

#[test]
fn machines_that_are_told_where_to_meet_do_what_one_with_as_many_ranks_does() {
    let (setup, ours) = setup();
    let theirs = setup.out("theirs");
    for output in ended(nodes(&setup, &theirs, &[])) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    check_same(&theirs, &ours);
}

#[test]
fn a_signal_ends_a_rank_that_waits_for_the_others_at_once() {
    let setup = Setup::new(6);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let master = format!("127.0.0.1:{port}");
    let own = ["--nnodes", "2", "--node-rank", "0", "--master", master.as_str()];
    let settings = settings();
    let all = [&as_strs(&settings)[..], &own, &["--nproc-per-node", "1"]].concat();
    let mut rank = setup.command(&setup.out("run"), &all).spawn().unwrap();
    // Whoever is no rank is sent away, which shows that it waits.
    let started = Instant::now();
    while !is_answered(&master) {
        assert!(started.elapsed() < PATIENCE && rank.try_wait().unwrap().is_none());
        thread::yield_now();
    }
    signal(rank.id(), "TERM");
    let asked = Instant::now();
    let output = rank.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(60), "half of the timeout: {said}");
}

/// Whether something at this address reads a line and ends the connection.
fn is_answered(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"a stranger\n");
    stream.read_to_end(&mut Vec::new()).is_ok()
}

#[test]
fn machines_that_differ_say_how_and_end_long_before_the_timeout() {
    let setup = Setup::new(6);
    let mut started = 0;
    let mut check = |second: &[&str], expected: &[&str]| {
        started += 1;
        let out = setup.out(&format!("run-{started}"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let master = format!("127.0.0.1:{port}");
        let start = |node: &str, more: &[&str]| {
            let settings = settings();
            let own = ["--nnodes", "2", "--node-rank", node, "--master", master.as_str()];
            let ranks = if more.contains(&"--nproc-per-node") {
                &[][..]
            } else {
                &["--nproc-per-node", "1"]
            };
            let all = [&as_strs(&settings)[..], &own, ranks, more].concat();
            setup.command(&out, &all).spawn().unwrap()
        };
        let outputs = ended(vec![start("0", &[]), start("1", second)]);
        let said: Vec<_> = outputs
            .iter()
            .map(|output| {
                assert_eq!(output.status.code(), Some(2), "{output:?}");
                String::from_utf8_lossy(&output.stderr).into_owned()
            })
            .collect();
        assert!(
            expected.iter().all(|text| said.iter().any(|said| said.contains(text))),
            "{said:?}"
        );
    };
    check(&["--nproc-per-node", "2"], &["was started as one of 4 ranks, but rank 0 as one of 2"]);
    check(
        &["--set=model.network=mbf"],
        &["rank 1 was started differently from rank 0: model.network"],
    );
    check(&["--set=optim.lr=0.5"], &["rank 1 was started differently from rank 0: optim.lr"]);
    let data = setup.out("other");
    crate::support::write_dataset(&data, 5, 7);
    let set = format!("--set=data.path={}", data.display());
    let difference = format!(
        "rank 1 was started differently from rank 0: its data.path, {}, holds 35 images of 5 \
         identities, checksum ",
        data.display()
    );
    check(&[&set], &[&difference, ", not 36 images of 6 identities, checksum "]);
}

#[test]
fn a_machine_that_cannot_take_part_says_why_on_every_machine_long_before_the_timeout() {
    let setup = Setup::new(6);
    for (fault, expected) in [
        ("train.epochs=0", "train.epochs is 0, but has to be from 1 to 1000000"),
        ("optim.lrr=1", "--set optim.lrr=1: unknown key `optim.lrr`"),
        ("train.timeout_s=nan", "train.timeout_s is NaN, but has to be above 0"),
        ("data.path=absent", "absent: no data set here"),
    ] {
        for faulty in [0, 1] {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let master = format!("127.0.0.1:{port}");
            let start = |node: usize| {
                let mut all = settings();
                if node == faulty {
                    all.push(format!("--set={fault}"));
                }
                let node = node.to_string();
                let own = ["--nnodes", "2", "--node-rank", node.as_str(), "--master"];
                let all = [&as_strs(&all)[..], &own, &[master.as_str()]].concat();
                setup.command(&setup.out("run"), &all).spawn().unwrap()
            };
            for (node, output) in ended(vec![start(0), start(1)]).iter().enumerate() {
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(2), "{said}");
                assert!(said.contains(expected), "{said}");
                let is_told = said.contains(&format!("rank {faulty} stopped: "));
                assert_eq!(is_told, node != faulty, "{said}");
            }
        }
    }
    assert!(!setup.out("run").join("config.toml").exists());
}

/// Whether a process has a thread of that name.
#[cfg(target_os = "linux")]
fn has_thread(pid: u32, name: &str) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let names = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("comm")));
    names.flatten().any(|found| found.trim() == name)
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_ranks_that_wait_for_those_of_another_machine_with_its_exit_code() {
    use crate::support::run::{PATIENCE, ranks_of, signal};
    let setup = Setup::new(6);
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let master = format!("127.0.0.1:{port}");
        let own = ["--nnodes", "2", "--node-rank", "0", "--master", master.as_str()];
        // Far longer than a test may take.
        let all = [&["--set=train.timeout_s=3600", "--nproc-per-node", "2"][..], &own].concat();
        let launcher = setup.command(&setup.out("run"), &all).spawn().unwrap();
        let started = Instant::now();
        // Rank 0 is there and waits for the ranks of machine 1.
        while !ranks_of(&launcher).iter().any(|&pid| has_thread(pid, "liveness")) {
            assert!(started.elapsed() < PATIENCE, "the ranks never came to meet");
            thread::yield_now();
        }
        signal(launcher.id(), name);
        let output = launcher.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("stopping once what is being written is whole"), "{said}");
        assert!(said.contains("stopped before the first step"), "{said}");
        assert!(!said.contains("error: "), "{said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn whichever_rank_is_killed_the_others_say_so_and_end_long_before_the_timeout() {
    let setup = Setup::new(6);
    for killed in [0, 2] {
        let out = setup.out(&format!("without-{killed}"));
        let mut tasks = srun(&setup, &out, 3, &["--set=train.epochs=100000"]);
        assert!(wait_for(&checkpoint(&out, 3), &mut tasks[0]));
        tasks[killed].kill().unwrap();
        // It gives them a minute, half the timeout.
        check_gone(&tasks.iter().map(Child::id).collect::<Vec<_>>());
        for (rank, output) in ended(tasks).iter().enumerate().filter(|(rank, _)| *rank != killed) {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(&format!("rank {killed} is gone: ")), "{said}");
            assert!(said.contains(&format!(" on rank {rank} cannot end")), "{said}");
            assert!(said.contains("step "), "{said}");
        }
    }
}
