//! How long a step takes and what its activations take, measured on a small part of one.

use std::time::Instant;

use pfc_cli::units;
use pfc_head::{Head, HeadConfig, Parts, Placement, Solo};
use pfc_model::{
    Backbone, ModelError, allocator::give_back_freed_memory, free_memory, libtorch::guarded,
};
use tch::{Device, Kind, Tensor};

use super::{
    Checked,
    room::{self, Seat},
    set_threads,
};
use crate::{
    TrainError,
    config::Config,
    optim::{BackboneOptimizer, global_norm},
    ranks::Ranks,
    step::gradients::{BackwardInput, Gradients, RecordedForward},
};

/// Images of a measured pass: few, so that it takes seconds at most, and enough for the threads of a CPU, or
/// for a GPU.
const IMAGES_MAX: (usize, usize) = (8, 64);
/// Centres and images of a measured step of the head, whose time grows with their product.
const ROWS_MAX: u64 = 8192;
const BATCH_MAX: u64 = 1024;
/// Passes are repeated until they have taken so long, and the fastest counts.
const ENOUGH_S: f64 = 1.0;
/// A first pass that takes so long is not repeated.
const LONG_S: f64 = 8.0;

/// What a step takes on this machine and the memory of a rank, as sentences for people. It takes some seconds.
///
/// * `seats`: the ranks of this machine; the last one has as many images as any
///
/// # Errors
///
/// [`TrainError::Model`] and [`TrainError::Head`] if the network or the head cannot be run here.
pub(crate) fn of(
    config: &Config,
    checked: &Checked,
    seats: &[Seat],
) -> Result<Vec<String>, TrainError> {
    guarded("time a step", || {
        let Seat { world, .. } = seats[0];
        let device = config.train.device(seats[0].local_rank)?;
        set_threads(config.train.threads)?;
        let plan = &checked.plan;
        let n_images = plan.images_of_rank(0, world);
        let network = Pass::of(config, n_images, device)?;
        let head_s = head_seconds(config, checked, world, device)?;
        let step_s = network.seconds + head_s;
        let [network_text, head_text] = [network.seconds, head_s].map(short);
        let place = if device.is_cuda() { "this GPU" } else { "this CPU" };
        let left_out = match world {
            1 => "verification and saves",
            _ => "collectives, verification and saves",
        };
        let time = format!(
            "a step takes about {} on {place}, {network_text} for the network and {head_text} for \
             the head, measured on a part of one; all {} steps take about {}, {left_out} not \
             counted",
            short(step_s),
            units::count(plan.n_steps()),
            units::duration(step_s * plan.n_steps() as f64),
        );
        let memory = room::describe_network(config, network.activations)?;
        Ok(vec![time, memory])
    })
}

fn short(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

/// Forward and backward pass of a rank's images of a step.
struct Pass {
    seconds: f64,
    /// Bytes that are kept from the forward to the backward pass; `None` where the system does not tell.
    activations: Option<u64>,
}

impl Pass {
    fn of(config: &Config, n_images: usize, device: Device) -> Result<Pass, TrainError> {
        let mut backbone = Backbone::new(&config.model.spec(), device, config.train.seed)?;
        backbone.set_precision(config.model.precision.or_default());
        let optimizer = BackboneOptimizer::new(backbone.named_parameters(), &config.optim);
        let mut gradients = Gradients::new(&Ranks::solo(), &optimizer.named_parameters(), 1 << 20)?;
        let n_micro_batches = config.train.accumulate;
        let in_part = (n_images / n_micro_batches).max(2);
        let n = in_part.min(if device.is_cuda() { IMAGES_MAX.1 } else { IMAGES_MAX.0 });
        let options = (Kind::Float, device);
        let images = Tensor::f_randn([n as i64, 3, 112, 112], options);
        let images = images.map_err(ModelError::torch("draw images"))?;
        let grad_bd = Tensor::f_ones([n as i64, backbone.embedding()], options);
        let grad_bd = grad_bd.map_err(ModelError::torch("make a gradient"))?;
        // What was freed before would be taken again, and not be seen.
        give_back_freed_memory();
        let (mut best_s, mut all_s, mut activations) = (f64::INFINITY, 0.0, None);
        for pass in 0.. {
            let before = taken(device);
            let started = Instant::now();
            let forward = match config.train.recompute {
                0 => RecordedForward::Whole(backbone.forward(&images, true)),
                n_blocks => {
                    RecordedForward::Checkpointed(backbone.forward_checkpointed(&images, n_blocks))
                }
            };
            if pass == 0 {
                activations = before.zip(taken(device)).map(|(a, b)| b.saturating_sub(a));
            }
            let input = BackwardInput { backbone: &backbone, forward, grad_bd: &grad_bd };
            let found = gradients.of(input, &optimizer.parameters())?;
            // A GPU answers when it is done.
            global_norm(&found)?;
            let seconds = started.elapsed().as_secs_f64();
            all_s += seconds;
            // What is made ready once is no part of a step, unless a pass takes long anyway.
            if pass > 0 || seconds > LONG_S {
                best_s = seconds.min(best_s);
            }
            if best_s.is_finite() && all_s > ENOUGH_S || pass > 8 {
                break;
            }
        }
        // Of a batch in parts, each part has a second forward pass, which is a third of the others.
        let again = if n_micro_batches > 1 { 4.0 / 3.0 } else { 1.0 };
        let share = |of: usize| of as f64 / n as f64;
        Ok(Pass {
            seconds: best_s * share(n_images) * again,
            activations: activations.map(|bytes| (bytes as f64 * share(in_part)) as u64),
        })
    }
}

/// Waits until a GPU has done what it was given.
pub(crate) fn wait_for(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Bytes that this process has of the memory in which the device computes.
fn taken(device: Device) -> Option<u64> {
    if device.is_cuda() {
        return free_memory(device).map(|free| u64::MAX - free);
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Seconds that a rank's share of the head takes in a step.
fn head_seconds(
    config: &Config,
    checked: &Checked,
    world: usize,
    device: Device,
) -> Result<f64, TrainError> {
    let whole = config.head_config(checked.source.n_identities());
    let batch_size = checked.plan.batch_size;
    // The classes of the batch are always among those that are used.
    let rows = whole.rows_per_step().max(batch_size.min(whole.classes));
    let rows = rows.div_ceil(world as u64).max(2);
    let (n_rows, n_images) = (rows.min(ROWS_MAX), batch_size.min(BATCH_MAX));
    let centres = match whole.centres {
        Placement::Device => Placement::Device,
        Placement::Host | Placement::File(_) => Placement::Host,
    };
    let part = HeadConfig { classes: n_rows, sample_rate: 1.0, centres, ..whole };
    let mut head = Head::with_parts(&part, Parts::on_device(&part, Box::new(Solo), device)?)?;
    let shape = [n_images as i64, part.dim as i64];
    let drawn = Tensor::f_randn(shape, (Kind::Float, device));
    let embeddings_bd = drawn.map_err(ModelError::torch("draw embeddings"))?;
    let labels: Vec<i64> = (0..n_images).map(|image| (image % n_rows) as i64).collect();
    let mut best_s = f64::INFINITY;
    for step in 1..=3 {
        let started = Instant::now();
        head.step(&embeddings_bd, &labels, step, 0.1)?;
        wait_for(device);
        // The first one draws the centres.
        if step > 1 {
            best_s = started.elapsed().as_secs_f64().min(best_s);
        }
    }
    let share = |part: u64, all: u64| all as f64 / part as f64;
    Ok(best_s * share(n_rows, rows) * share(n_images, batch_size))
}
