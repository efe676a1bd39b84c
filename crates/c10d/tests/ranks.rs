//! Exchanges between real processes. Each test starts itself once per rank.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // the ranks report there

use std::{
    os::unix::process::ExitStatusExt,
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use pfc_c10d::{C10dError, GroupOptions, Node, ProcessGroup, Reduce, Reducer, Rendezvous, spawn};
use tch::{Device, Kind, Tensor};

const OPTIONS: GroupOptions =
    GroupOptions { timeout: Duration::from_secs(60), nccl: false, asked_to_stop: || false };

/// What the tensors of exchanges are on: `PFC_TEST_DEVICE`, `cpu` by default or `cuda`.
fn device() -> Device {
    match std::env::var("PFC_TEST_DEVICE").as_deref() {
        Ok("cuda") => Device::Cuda(0),
        Ok("cpu") | Err(_) => Device::Cpu,
        Ok(other) => panic!("PFC_TEST_DEVICE is `{other}`, but has to be `cpu` or `cuda`"),
    }
}
/// Longer than any test takes; shorter than [`OPTIONS`], so that no test passes by a timeout.
const SOON: Duration = Duration::from_secs(30);

/// Runs `body` on `world` ranks, each a process that runs the test `name` again, and gives back how
/// each ended; in such a process, runs `body` and ends it.
fn on_ranks(name: &str, world: usize, body: impl FnOnce(&Rendezvous)) -> Vec<Output> {
    on_ranks_with(name, world, "", body)
}

/// As [`on_ranks`]; `variant` is in the environment variable `PFC_VARIANT` of the ranks.
fn on_ranks_with(
    name: &str,
    world: usize,
    variant: &str,
    body: impl FnOnce(&Rendezvous),
) -> Vec<Output> {
    if pfc_testing::is_again(name) {
        body(&Rendezvous::from_env().unwrap().unwrap());
        std::process::exit(0);
    }
    let command = |_| {
        let mut command = pfc_testing::again(name);
        command.env("PFC_VARIANT", variant).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let node = Node { node: 0, n_nodes: 1, local_world: world, master: None };
    let children = spawn(&node, command).unwrap();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// As [`on_ranks`], where every rank has to succeed.
#[track_caller]
fn check_on_ranks(name: &str, world: usize, body: impl FnOnce(Arc<ProcessGroup>)) {
    let outputs = on_ranks(name, world, |place| {
        let group = Arc::new(ProcessGroup::join(place, OPTIONS).unwrap());
        body(Arc::clone(&group));
        group.barrier().unwrap();
    });
    for (rank, output) in outputs.iter().enumerate() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rank {rank}: {said}");
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

#[test]
fn every_exchange_gives_what_it_says() {
    check_on_ranks("every_exchange_gives_what_it_says", 3, |group| {
        let (rank, world) = (group.rank() as f64, group.world());
        assert_eq!(world, 3);
        let sum = group.all_reduce(Tensor::from_slice(&[rank, 1.0]), Reduce::Sum).unwrap();
        assert_eq!(numbers(&sum), [3.0, 3.0]);
        let max = group.all_reduce(Tensor::from_slice(&[rank, -rank]), Reduce::Max).unwrap();
        assert_eq!(numbers(&max), [2.0, 0.0]);

        let rows = Tensor::from_slice(&[rank, 10.0 + rank]).view([1, 2]);
        let all = group.all_gather(&rows).unwrap();
        assert_eq!(all.size(), [3, 2]);
        assert_eq!(numbers(&all), [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);

        // Rank r gives (r, r + 1, r + 2): the sums of the columns are 3, 6 and 9.
        let parts = Tensor::from_slice(&[rank, rank + 1.0, rank + 2.0]);
        let own = group.reduce_scatter(&parts).unwrap();
        assert_eq!(numbers(&own), [3.0 * (rank + 1.0)]);

        let given = Tensor::from_slice(&[7.0 + rank]);
        let got = group.broadcast(&given, 1).unwrap();
        assert_eq!((numbers(&got), numbers(&given)), (vec![8.0], vec![7.0 + rank]));

        let bytes = group.all_gather_bytes(&vec![b'x'; group.rank()]).unwrap();
        assert_eq!(bytes, [&b""[..], b"x", b"xx"]);
    });
}

/// A group of one rank: all that it exchanges is its own. With `PFC_TEST_DEVICE=cuda` this runs NCCL on
/// a single GPU.
#[test]
fn a_group_of_one_exchanges_with_itself_on_the_device_of_the_tests() {
    let name = "a_group_of_one_exchanges_with_itself_on_the_device_of_the_tests";
    let outputs = on_ranks(name, 1, |place| {
        let device = device();
        let options = GroupOptions { nccl: device.is_cuda(), ..OPTIONS };
        let group = Arc::new(ProcessGroup::join(place, options).unwrap());
        let given = Tensor::from_slice(&[1.0f32, -2.0]).to_device(device);
        let expected = [1.0, -2.0];
        for reduce in [Reduce::Sum, Reduce::Max] {
            let sum = group.all_reduce(given.copy(), reduce).unwrap();
            assert_eq!((numbers(&sum), sum.device()), (expected.to_vec(), device));
        }
        assert_eq!(numbers(&group.all_gather(&given).unwrap()), expected);
        assert_eq!(numbers(&group.reduce_scatter(&given).unwrap()), expected);
        assert_eq!(numbers(&group.broadcast(&given, 0).unwrap()), expected);
        assert_eq!(group.all_gather_bytes(b"alone").unwrap(), [b"alone"]);
        group.check_devices(Some("GPU-0")).unwrap();
        let w = given.copy().set_requires_grad(true);
        let mut reducer = Reducer::new(Arc::clone(&group), &[("w", &w)], 4096).unwrap();
        for _ in 0..2 {
            zero(&[&w]);
            reducer.begin().unwrap();
            reducer.backward(&(&w * 3.0).sum(Kind::Float)).unwrap();
            reducer.finish().unwrap();
            assert_eq!(numbers(&w.grad()), [3.0, 3.0]);
        }
        drop(reducer);
        group.barrier().unwrap();
    });
    let text = String::from_utf8_lossy(&outputs[0].stderr);
    assert!(outputs[0].status.success() && text.is_empty(), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_group_that_is_left_leaves_no_thread_and_no_descriptor_behind() {
    check_on_ranks("a_group_that_is_left_leaves_no_thread_and_no_descriptor_behind", 2, |first| {
        let count = |path| std::fs::read_dir(path).unwrap().count();
        let counts = || [count("/proc/self/fd"), count("/proc/self/task")];
        let mut before = None;
        for _ in 0..4 {
            // Where the ranks of the next group meet.
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let ports = first.all_gather_bytes(&port.port().to_le_bytes()).unwrap();
            let port = u16::from_le_bytes(ports[0][..].try_into().unwrap());
            let place = Rendezvous { port, listen_fd: None, ..first.place().clone() };
            let group = Arc::new(ProcessGroup::join(&place, OPTIONS).unwrap());
            let w = Tensor::ones([9], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let mut reducer = Reducer::new(Arc::clone(&group), &[("w", &w)], 4096).unwrap();
            reducer.begin().unwrap();
            reducer.backward(&w.sum(Kind::Float)).unwrap();
            reducer.finish().unwrap();
            group.barrier().unwrap();
            drop((reducer, group));
            first.barrier().unwrap();
            // The first group made what there is once for all, such as the threads of autograd.
            assert_eq!(counts(), *before.get_or_insert_with(counts));
        }
    });
}

#[test]
fn operations_under_way_end_in_the_order_they_began_in() {
    check_on_ranks("operations_under_way_end_in_the_order_they_began_in", 2, |group| {
        let one = || Tensor::from_slice(&[1i64; 1000]);
        let started: Vec<_> =
            (0..8).map(|_| group.start_all_reduce(one(), Reduce::Sum).unwrap()).collect();
        for pending in started {
            assert_eq!(numbers(&pending.wait().unwrap()), [2.0; 1000]);
        }
    });
}

/// `f(w, u) = Σ w·x + Σ u·x²`: the gradients are x and x², x = 1 + rank.
#[test]
fn the_reducer_sums_gradients_and_leaves_accumulated_ones_to_the_last_pass() {
    let name = "the_reducer_sums_gradients_and_leaves_accumulated_ones_to_the_last_pass";
    check_on_ranks(name, 2, |group| {
        let x = 1.0 + group.rank() as f64;
        let parameter = || Tensor::ones([300, 7], (Kind::Float, Device::Cpu));
        let (w, u) = (parameter().set_requires_grad(true), parameter().set_requires_grad(true));
        let named = [("w", &w), ("u", &u)];
        let mut reducer = Reducer::new(Arc::clone(&group), &named, 4096).unwrap();
        let objective = || (&w * x).sum(Kind::Float) + (&u * (x * x)).sum(Kind::Float);
        for _ in 0..3 {
            zero(&[&w, &u]);
            reducer.begin().unwrap();
            reducer.backward(&objective()).unwrap();
            reducer.finish().unwrap();
            assert_eq!(numbers(&w.grad()), [3.0; 2100]);
            assert_eq!(numbers(&u.grad()), [5.0; 2100]);
        }
        zero(&[&w, &u]);
        objective().backward();
        assert_eq!(numbers(&w.grad()), [x; 2100]);
        reducer.begin().unwrap();
        reducer.backward(&objective()).unwrap();
        reducer.finish().unwrap();
        assert_eq!(numbers(&w.grad()), [6.0; 2100]);
        assert_eq!(numbers(&u.grad()), [10.0; 2100]);
        // In pieces, of which each reaches one parameter.
        for _ in 0..2 {
            zero(&[&w, &u]);
            reducer.begin().unwrap();
            reducer.backward(&(&u * (x * x)).sum(Kind::Float)).unwrap();
            reducer.backward(&(&w * x).sum(Kind::Float)).unwrap();
            reducer.finish().unwrap();
            assert_eq!(numbers(&w.grad()), [3.0; 2100]);
            assert_eq!(numbers(&u.grad()), [5.0; 2100]);
        }
    });
}

#[test]
fn a_pass_that_leaves_parameters_out_fails_with_their_names_on_every_rank() {
    let name = "a_pass_that_leaves_parameters_out_fails_with_their_names_on_every_rank";
    // Whichever is left out, alone in its bucket or with others.
    for (left_out, bucket_bytes) in [(0, 64), (1, 1 << 20), (2, 64)] {
        let outputs = on_ranks_with(name, 2, &format!("{left_out} {bucket_bytes}"), |place| {
            let variant = std::env::var("PFC_VARIANT").unwrap();
            let (left_out, bucket) = variant.split_once(' ').unwrap();
            let left_out: usize = left_out.parse().unwrap();
            let group = Arc::new(ProcessGroup::join(place, OPTIONS).unwrap());
            let tensors: Vec<Tensor> = (0..3)
                .map(|_| Tensor::ones([100], (Kind::Float, Device::Cpu)).set_requires_grad(true))
                .collect();
            let named: Vec<(&str, &Tensor)> = ["a", "b", "c"].into_iter().zip(&tensors).collect();
            let bucket = bucket.parse().unwrap();
            let mut reducer = Reducer::new(Arc::clone(&group), &named, bucket).unwrap();
            let objective = |skipped: Option<usize>| -> Tensor {
                let used = tensors.iter().enumerate().filter(|(i, _)| Some(*i) != skipped);
                used.map(|(_, tensor)| tensor.sum(Kind::Float)).sum()
            };
            for skipped in [None, None, Some(left_out)] {
                zero(&named.iter().map(|(_, tensor)| *tensor).collect::<Vec<_>>());
                reducer.begin().unwrap();
                reducer.backward(&objective(skipped)).unwrap();
                match (reducer.finish(), skipped) {
                    (Ok(()), None) => {
                        for tensor in &tensors {
                            assert_eq!(numbers(&tensor.grad()), [2.0; 100]);
                        }
                    }
                    (Err(error), Some(_)) => report(&error),
                    (result, _) => panic!("{result:?}"),
                }
            }
        });
        let name = ["a", "b", "c"][left_out];
        for output in &outputs {
            let expected = format!("the backward pass gave no gradient to `{name}`");
            assert_eq!(said(output), expected);
            assert!(output.status.success());
        }
    }
}

fn zero(parameters: &[&Tensor]) {
    for parameter in parameters {
        let mut grad = parameter.grad();
        if grad.defined() {
            let _ = grad.zero_();
        }
    }
}

/// What is said of a failed exchange, on standard error between marks.
fn report(error: &C10dError) {
    eprintln!("<<{error}>>");
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let inner = text.split_once("<<").and_then(|(_, rest)| rest.split_once(">>"));
    inner.unwrap_or_else(|| panic!("nothing was reported: {text}")).0.to_owned()
}

#[test]
fn a_rank_that_gives_up_tells_the_others_why() {
    for quitter in [0, 1] {
        let started = Instant::now();
        let (name, variant) = ("a_rank_that_gives_up_tells_the_others_why", quitter.to_string());
        let outputs = on_ranks_with(name, 3, &variant, |place| {
            let quitter: usize = std::env::var("PFC_VARIANT").unwrap().parse().unwrap();
            let group = ProcessGroup::join(place, OPTIONS).unwrap();
            group.barrier().unwrap();
            if place.rank == quitter {
                group.abort("the disk is full");
                return;
            }
            report(&group.barrier().unwrap_err());
        });
        for (rank, output) in outputs.iter().enumerate().filter(|(rank, _)| *rank != quitter) {
            assert_eq!(said(output), format!("rank {quitter} stopped: the disk is full"), "{rank}");
        }
        assert!(started.elapsed() < SOON);
    }
}

#[test]
fn a_rank_that_dies_ends_the_others_waits_with_an_error_that_names_rank_and_operation() {
    let name = "a_rank_that_dies_ends_the_others_waits_with_an_error_that_names_rank_and_operation";
    let started = Instant::now();
    let outputs = on_ranks(name, 3, |place| {
        let group = ProcessGroup::join(place, OPTIONS).unwrap();
        group.barrier().unwrap();
        if place.rank == 2 {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
        }
        let sum = group.all_reduce(Tensor::from_slice(&[1.0]), Reduce::Sum);
        report(&sum.unwrap_err());
    });
    assert_eq!(outputs[2].status.signal(), Some(9));
    for (rank, output) in outputs.iter().enumerate().take(2) {
        let expected = format!("rank 2 is gone: all-reduce on rank {rank} cannot end");
        assert_eq!(said(output), expected);
    }
    assert!(started.elapsed() < SOON);
}

#[cfg(target_os = "linux")]
#[test]
fn a_rank_that_dies_in_the_rendezvous_ends_it_for_the_others() {
    let name = "a_rank_that_dies_in_the_rendezvous_ends_it_for_the_others";
    let started = Instant::now();
    let outputs = on_ranks(name, 3, |place| {
        // There from when rank 1 can be told until rank 2 dies of it; a rank that comes only after
        // rank 0 has ended hears nothing.
        let test = std::os::unix::process::parent_id();
        let told = std::env::temp_dir().join(format!("pfc-ranks-{test}-{}", place.port));
        let rank = place.rank;
        std::thread::spawn(move || {
            while !has_thread("liveness") || rank == 2 && !told.exists() {
                std::thread::yield_now();
            }
            match rank {
                1 => std::fs::write(&told, "").unwrap(),
                2 => {
                    std::fs::remove_file(&told).unwrap();
                    let me = rustix::process::getpid();
                    rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
                }
                _ => {}
            }
        });
        let met = ProcessGroup::join(place, OPTIONS).and_then(|group| {
            loop {
                group.barrier()?;
            }
        });
        let never: Result<std::convert::Infallible, C10dError> = met;
        report(&never.unwrap_err());
    });
    assert_eq!(outputs[2].status.signal(), Some(9));
    for output in &outputs[..2] {
        let said = said(output);
        assert!(said.starts_with("rank 2 is gone: "), "{said}");
    }
    assert!(started.elapsed() < SOON);
}

/// Whether this process has a thread of that name.
fn has_thread(name: &str) -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")));
    names.flatten().any(|found| found.trim() == name)
}

#[test]
fn a_rank_that_never_comes_is_an_error_after_the_timeout() {
    let outputs = on_ranks("a_rank_that_never_comes_is_an_error_after_the_timeout", 1, |place| {
        let place = Rendezvous { world: 2, ..place.clone() };
        let options = GroupOptions {
            timeout: Duration::from_millis(300),
            nccl: false,
            asked_to_stop: || false,
        };
        report(&ProcessGroup::join(&place, options).unwrap_err());
    });
    let said = said(&outputs[0]);
    assert!(said.starts_with("rank 0 of 2 did not meet the others at 127.0.0.1:"), "{said}");
    assert!(said.ends_with(": no word of rank 1 within 0.3 s"), "{said}");
    // libtorch's log is off: nothing of it stands beside the error.
    assert_eq!(String::from_utf8_lossy(&outputs[0].stderr).lines().count(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn too_few_descriptors_are_an_error_that_names_limit_and_need() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let name = "too_few_descriptors_are_an_error_that_names_limit_and_need";
    for limit in [16, 32] {
        let outputs = on_ranks_with(name, 3, &limit.to_string(), |place| {
            let limit = std::env::var("PFC_VARIANT").unwrap().parse().unwrap();
            let both = Rlimit { current: Some(limit), maximum: Some(limit) };
            setrlimit(Resource::Nofile, both).unwrap();
            report(&ProcessGroup::join(place, OPTIONS).unwrap_err());
        });
        for output in &outputs {
            let said = said(output);
            let expected = format!("files and sockets, but this process may have {limit}");
            assert!(said.starts_with("a rank of 3 needs about "), "{said}");
            assert!(said.ends_with(&expected), "{said}");
        }
    }
}

#[test]
fn a_rank_that_hangs_is_named_after_the_timeout() {
    for hanging in [0, 2] {
        let (name, variant) = ("a_rank_that_hangs_is_named_after_the_timeout", hanging.to_string());
        let outputs = on_ranks_with(name, 3, &variant, |place| {
            let hanging: usize = std::env::var("PFC_VARIANT").unwrap().parse().unwrap();
            let options = GroupOptions {
                timeout: Duration::from_millis(1500),
                nccl: false,
                asked_to_stop: || false,
            };
            let group = ProcessGroup::join(place, options).unwrap();
            group.barrier().unwrap();
            if place.rank == hanging {
                // Comes to its next operation only once the others have given up.
                let parent = std::os::unix::process::parent_id();
                let over = std::env::temp_dir().join(format!("pfc-hang-{parent}-{}", place.port));
                while !over.exists() {
                    std::thread::yield_now();
                }
                let _ = std::fs::remove_file(over);
                return;
            }
            report(&group.all_reduce(Tensor::from_slice(&[1.0]), Reduce::Sum).unwrap_err());
            if place.rank == 1 {
                let parent = std::os::unix::process::parent_id();
                let over = std::env::temp_dir().join(format!("pfc-hang-{parent}-{}", place.port));
                std::fs::write(over, "").unwrap();
            }
        });
        for (rank, output) in outputs.iter().enumerate().filter(|(rank, _)| *rank != hanging) {
            let expected = format!(
                "all-reduce on rank {rank} did not end within 1.5 s: rank {hanging} has not come to it"
            );
            assert_eq!(said(output), expected);
        }
    }
}

#[test]
fn a_first_rank_that_is_stopped_is_an_error_after_the_timeout() {
    let name = "a_first_rank_that_is_stopped_is_an_error_after_the_timeout";
    let started = Instant::now();
    let outputs = on_ranks(name, 2, |place| {
        use rustix::process::{Pid, Signal, getpid, kill_process};
        let options = GroupOptions {
            timeout: Duration::from_millis(1500),
            nccl: false,
            asked_to_stop: || false,
        };
        let group = ProcessGroup::join(place, options).unwrap();
        let own = i64::from(getpid().as_raw_nonzero().get());
        let pids = numbers(&group.all_gather(&Tensor::from_slice(&[own])).unwrap());
        if place.rank == 0 {
            kill_process(getpid(), Signal::STOP).unwrap();
            return;
        }
        report(&group.all_reduce(Tensor::from_slice(&[1.0]), Reduce::Sum).unwrap_err());
        kill_process(Pid::from_raw(pids[0] as i32).unwrap(), Signal::KILL).unwrap();
    });
    let expected = "all-reduce on rank 1 did not end within 1.5 s: rank 0 has not come to it";
    assert_eq!(said(&outputs[1]), expected);
    assert!(started.elapsed() < SOON);
}

#[test]
fn a_rank_that_cannot_take_part_says_why_to_those_that_wait_for_it() {
    for quitter in [0, 2] {
        let started = Instant::now();
        let (name, variant) = (
            "a_rank_that_cannot_take_part_says_why_to_those_that_wait_for_it",
            quitter.to_string(),
        );
        let outputs = on_ranks_with(name, 3, &variant, |place| {
            let quitter: usize = std::env::var("PFC_VARIANT").unwrap().parse().unwrap();
            if place.rank == quitter {
                let first = ProcessGroup::decline(place, OPTIONS, "no network is called r51");
                assert_eq!(first, quitter);
                return;
            }
            report(&ProcessGroup::join(place, OPTIONS).unwrap_err());
        });
        for (rank, output) in outputs.iter().enumerate().filter(|(rank, _)| *rank != quitter) {
            let expected = format!("rank {quitter} stopped: no network is called r51");
            assert_eq!(said(output), expected, "{rank}");
        }
        assert!(outputs[quitter].status.success(), "{:?}", outputs[quitter]);
        assert!(started.elapsed() < SOON);
    }
}

#[test]
fn a_wait_ends_when_the_program_is_asked_to_stop_unless_it_does_so_between_operations() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static ASKED: AtomicBool = AtomicBool::new(false);
    let name = "a_wait_ends_when_the_program_is_asked_to_stop_unless_it_does_so_between_operations";
    for variant in ["at once", "between"] {
        let outputs = on_ranks_with(name, 2, variant, |place| {
            let options = GroupOptions {
                timeout: Duration::from_millis(1500),
                nccl: false,
                asked_to_stop: || ASKED.load(Ordering::SeqCst),
            };
            let group = ProcessGroup::join(place, options).unwrap();
            if std::env::var("PFC_VARIANT").unwrap() == "between" {
                group.stop_between_operations();
            }
            group.barrier().unwrap();
            if place.rank == 1 {
                // Comes to no other operation, and ends once rank 0 has given up.
                while !over(place).exists() {
                    std::thread::yield_now();
                }
                std::fs::remove_file(over(place)).unwrap();
                return;
            }
            ASKED.store(true, Ordering::SeqCst);
            report(&group.barrier().unwrap_err());
            std::fs::write(over(place), "").unwrap();
        });
        let expected = match variant {
            "at once" => "rank 0 was asked to stop while it waited in barrier",
            _ => "barrier on rank 0 did not end within 1.5 s: rank 1 has not come to it",
        };
        assert_eq!(said(&outputs[0]), expected);
    }
}

/// A file that is there once one of the ranks of a test has come to its end.
fn over(place: &Rendezvous) -> std::path::PathBuf {
    let parent = std::os::unix::process::parent_id();
    std::env::temp_dir().join(format!("pfc-over-{parent}-{}", place.port))
}
