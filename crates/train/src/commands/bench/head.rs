//! `pfc-train bench head`.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    thread::JoinHandle,
    time::Instant,
};

use anyhow::Context;
use clap::ValueEnum;
use pfc_cli::{Format, Outcome, Progress, interrupt, print_json, tell};
use pfc_durable::{AtomicDir, DurableError};
use pfc_head::{
    CentreOptimizer, Communicator, Head, HeadConfig, HeadError, LocalMember, Parts, Placement,
    ProductPrecision, RowLayout, Solo, Storage, Timings, Update, shards,
};
use pfc_model::{Emulated, Precision, Work, allocator, memory_in_use, tensors::TensorFile};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{
    machine::{folder_mib, status_mib},
    names::device,
};
use crate::{TrainError, data::plan::mix, run::estimate::wait_for};

pub(super) const EXAMPLES: &str = "\
Examples:
  pfc-train bench head --identities 1M --rate 0.1 --precision bf16
  pfc-train bench head --identities 10M --rows 100K --json
  pfc-train bench head --identities 20M --rows 100K --weights bf16 --state bf16
  pfc-train bench head --identities 100M --rows 100K --weights bf16 --state bf16 \\
      --file /data/centres --checkpoint-every 5 --steps 20
  pfc-train bench head --identities 100M --rows 100K --weights bf16 --state bf16 \\
      --file /data/centres --checkpoint-every 5 --steps 20 --resume
  pfc-train bench head --identities 1M --device cuda --precision bf16";

#[derive(Debug, clap::Args)]
pub struct HeadArgs {
    /// Number of identities; K, M and B stand for thousands, millions and billions
    #[arg(long, value_name = "N", default_value = "1M")]
    identities: Count,
    /// Share of the identities that a step uses
    #[arg(long, value_name = "R", default_value_t = 0.1, conflicts_with = "rows", value_parser = pfc_cli::number::within(0.0..=1.0f64))]
    rate: f64,
    /// Identities that a step uses, instead of a share
    #[arg(long, value_name = "N")]
    rows: Option<Count>,
    /// Embeddings in a step, all ranks together
    #[arg(long, value_name = "N", default_value_t = 128)]
    batch: usize,
    /// Width of an embedding
    #[arg(long, value_name = "N", default_value_t = 512)]
    dim: usize,
    /// Number format of the matrix products
    #[arg(long, value_enum, default_value_t = Number::F32)]
    precision: Number,
    /// Which centres a step moves
    #[arg(long, value_enum, default_value_t = Rule::Dense)]
    update: Rule,
    /// What moves them; other than SGD only with sparse updates
    #[arg(long, value_enum, default_value_t = OptimizerName::Sgd)]
    optimizer: OptimizerName,
    /// Number format that the centres are kept in
    #[arg(long, value_enum, default_value_t = Number::F32)]
    weights: Number,
    /// Number format that the optimizer's state is kept in
    #[arg(long, value_enum, default_value_t = Number::F32)]
    state: Number,
    /// Keep the centres in files in this folder instead of memory
    #[arg(long, value_name = "DIR")]
    file: Option<PathBuf>,
    /// Keep the centres on a device and compute there: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", conflicts_with = "file", value_parser = device)]
    device: Option<Device>,
    /// Leave the centres in memory or in files and compute products on a device: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", conflicts_with = "device", value_parser = device)]
    products: Option<Device>,
    /// Ranks, each a thread of this process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    ranks: u16,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 5)]
    steps: u64,
    /// Steps before that: the first use of a row costs more, as it also gets its initial value, and on a
    /// GPU so do the first steps of all [default: 3, or 20 on a GPU]
    #[arg(long, value_name = "N")]
    warm_up: Option<u64>,
    /// Touch every centre before the timed steps, as a long run has
    #[arg(long, conflicts_with = "resume")]
    touch_all: bool,
    /// Rows of centres worked on at a time
    #[arg(long, value_name = "N", default_value_t = HeadConfig::new(1, 1).tile_rows)]
    tile_rows: usize,
    /// Save after every so many steps, the warm-up counted; needs one rank
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<u64>,
    /// Folder to save in [default: that of --file, or a temporary one]
    #[arg(long, value_name = "DIR", requires = "checkpoint_every")]
    save_to: Option<PathBuf>,
    /// Go on from the last save, as after a crash
    #[arg(long, requires = "checkpoint_every")]
    resume: bool,
    #[command(flatten)]
    format: Format,
}

/// A number of identities, such as `360232`, `100K`, `2.5M` or `1B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Count, String> {
        let (digits, factor) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
            Some(b'b' | b'B') => (&text[..text.len() - 1], 1e9),
            _ => (text, 1.0),
        };
        let count = digits.parse::<f64>().ok().map(|n| n * factor);
        match count {
            Some(n) if (1.0..=9e15).contains(&n) && n.fract() == 0.0 => Ok(Count(n as u64)),
            _ => Err("not a whole number of 1 or more, such as 360232, 100K or 2.5M".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Number {
    F32,
    Bf16,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rule {
    /// Every one, lazily
    Dense,
    /// Those that the step uses
    Sparse,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OptimizerName {
    Sgd,
    Adamw,
    /// Adagrad with one number of state a centre
    RowAdagrad,
}

impl From<Number> for Storage {
    fn from(number: Number) -> Storage {
        match number {
            Number::F32 => Storage::F32,
            Number::Bf16 => Storage::Bf16,
        }
    }
}

impl HeadArgs {
    /// Where products are computed, and where the centres are if they are on a device.
    fn device(&self) -> Device {
        self.device.or(self.products).unwrap_or(Device::Cpu)
    }

    /// What products in a format cost that the device emulates, measured now.
    fn warning(&self) -> Option<String> {
        let precision = match self.precision {
            Number::F32 => Precision::F32,
            Number::Bf16 => Precision::Bf16,
        };
        let Emulated { why, factor } = Emulated::of(Work::Product, precision, self.device())?;
        Some(format!(
            "warning: {precision} is emulated here ({why}): a matrix product takes {factor:.1} times as long \
             as in f32"
        ))
    }

    fn warm_up(&self) -> u64 {
        self.warm_up.unwrap_or(if self.device().is_cuda() { 20 } else { 3 })
    }

    fn config(&self) -> HeadConfig {
        let plain = HeadConfig::new(self.identities.0, self.dim);
        HeadConfig {
            // The half makes up for rounding: the product is cut off to a whole number.
            sample_rate: self.rows.map_or(self.rate, |rows| {
                ((rows.0 as f64 + 0.5) / self.identities.0 as f64).min(1.0)
            }),
            precision: match self.precision {
                Number::F32 => ProductPrecision::F32,
                Number::Bf16 => ProductPrecision::Bf16,
            },
            update: match self.update {
                Rule::Dense => Update::Dense,
                Rule::Sparse => Update::Sparse,
            },
            optimizer: match self.optimizer {
                OptimizerName::Sgd => CentreOptimizer::Sgd,
                OptimizerName::Adamw => {
                    CentreOptimizer::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8 }
                }
                OptimizerName::RowAdagrad => CentreOptimizer::RowAdagrad { eps: 1e-8 },
            },
            weights: self.weights.into(),
            state: self.state.into(),
            centres: match (&self.file, self.device) {
                (Some(folder), _) => Placement::File(folder.clone()),
                (None, Some(_)) => Placement::Device,
                (None, None) => Placement::Host,
            },
            tile_rows: self.tile_rows,
            ..plain
        }
    }
}

/// The result of `--json`.
#[derive(Debug, Serialize)]
struct HeadBench {
    config: HeadConfig,
    rows_per_step: u64,
    batch: usize,
    ranks: u16,
    threads: i32,
    /// From nothing, or from the last save, to the first step.
    start_ms: f64,
    /// Number of the first timed step.
    first_step: u64,
    step_ms: Vec<f64>,
    losses: Vec<f64>,
    median_step_ms: f64,
    /// Means over the timed steps, of the slowest rank; none on a GPU, which works while the host, whose
    /// clock this is, goes on.
    phases_ms: Option<Timings>,
    product_gflops: Option<f64>,
    /// What does the work on rows, and why it is not the head's own kernels.
    operations: String,
    /// Memory that is in use on the GPU after the last step, by whichever process.
    gpu_mib: Option<f64>,
    save_ms: Vec<f64>,
    /// Bytes that a centre and its optimizer state take.
    centre_bytes: usize,
    /// The most that was in memory before the first save.
    peak_before_save_mib: Option<f64>,
    /// What was in memory and in no file before the first save.
    anonymous_before_save_mib: Option<f64>,
    /// The most that was in memory at a time; of a file on disk, the part in use counts.
    peak_mib: Option<f64>,
    /// What is in memory now and in no file.
    anonymous_mib: Option<f64>,
    disk_mib: Option<f64>,
}

/// What one rank saw.
#[derive(Debug, Default)]
struct Seen {
    first_step: u64,
    start_ms: f64,
    step_ms: Vec<f64>,
    losses: Vec<f64>,
    timings: Timings,
    save_ms: Vec<f64>,
    peak_before_save_mib: Option<f64>,
    anonymous_before_save_mib: Option<f64>,
    anonymous_mib: Option<f64>,
    operations: String,
    gpu_mib: Option<f64>,
}

pub(super) fn run(args: &HeadArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let config = args.config();
    config.validate().map_err(TrainError::from)?;
    if args.checkpoint_every.is_some() && args.ranks > 1 {
        let hint = "leave out `--ranks`; `pfc-train run` saves any number of them";
        return Err(pfc_cli::Hinted::new("only one rank can be saved here", hint).into());
    }
    if args.ranks > 1 {
        // They wait for each other in every step, and have nothing that would be left behind.
        interrupt::end_at_once();
    }
    if !quiet && let Some(warning) = args.warning() {
        tell(&warning);
    }
    let pool = Pool::new(args);
    let progress = Progress::new("head", "steps", args.warm_up() + args.steps, quiet);
    let of_ranks = if args.ranks == 1 {
        vec![run_rank(args, &config, Box::new(Solo), &pool, &progress)]
    } else {
        std::thread::scope(|scope| {
            let start = |member| {
                let (config, pool, progress) = (&config, &pool, &progress);
                scope.spawn(move || run_rank(args, config, Box::new(member), pool, progress))
            };
            let ranks: Vec<_> =
                LocalMember::group(args.ranks.into()).into_iter().map(start).collect();
            ranks.into_iter().map(|rank| rank.join().expect("a rank does not panic")).collect()
        })
    };
    progress.finish();
    let of_ranks = of_ranks
        .into_iter()
        .collect::<Result<Vec<Seen>, TrainError>>()
        .context("cannot time the head")?;
    if let Some(signal) = interrupt::signal() {
        return Ok(Outcome::Stopped(signal));
    }
    let report = report(args, config, of_ranks)?;
    if args.format.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(Outcome::Clean)
}

/// Random embeddings and labels, a function of the step.
struct Pool {
    /// `[2 B, D]`: a step takes B rows in a row.
    values_nd: Vec<f32>,
    dim: usize,
    batch: usize,
    identities: u64,
}

impl Pool {
    fn new(args: &HeadArgs) -> Pool {
        tch::manual_seed(1);
        let shape = [2 * args.batch as i64, args.dim as i64];
        let drawn = Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let mut values_nd = vec![0.0; 2 * args.batch * args.dim];
        drawn.copy_data(&mut values_nd, 2 * args.batch * args.dim);
        Pool { values_nd, dim: args.dim, batch: args.batch, identities: args.identities.0 }
    }

    /// The share of one rank in the batch of `step`.
    fn batch(&self, step: u64, (rank, world): (usize, usize)) -> (Tensor, Vec<i64>) {
        let (first, end) = (rank * self.batch / world, (rank + 1) * self.batch / world);
        let start = step as usize % (self.batch + 1) + first;
        let values = &self.values_nd[start * self.dim..][..(end - first) * self.dim];
        let embeddings_bd = Tensor::from_slice(values).view([-1, self.dim as i64]);
        let label = |i: usize| (mix(step << 20 ^ i as u64) % self.identities) as i64;
        (embeddings_bd, (first..end).map(label).collect())
    }
}

fn run_rank(
    args: &HeadArgs,
    config: &HeadConfig,
    comm: Box<dyn Communicator>,
    pool: &Pool,
    progress: &Progress,
) -> Result<Seen, TrainError> {
    let started = Instant::now();
    let place = (comm.rank(), comm.world());
    let (device, warm_up) = (args.device(), args.warm_up());
    let mut head = Head::with_parts(config, Parts::on_device(config, comm, device)?)?;
    let mut saver = Saver::new(args)?;
    let mut step = match &saver {
        Some(saver) if args.resume => load(&mut head, args.file.as_deref(), &saver.path)?,
        _ => 0,
    };
    let mut seen = Seen { start_ms: elapsed_ms(started), ..Seen::default() };
    seen.first_step = step.max(warm_up);
    seen.operations = head.operations().to_owned();
    while step < warm_up + args.steps && !interrupt::requested() {
        if args.touch_all && step == seen.first_step {
            head.touch_all()?;
        }
        let (embeddings_bd, labels) = pool.batch(step, place);
        let embeddings_bd = embeddings_bd.to_device(device);
        wait_for(device);
        let started = Instant::now();
        let output = head.step(&embeddings_bd, &labels, step, 0.1)?;
        wait_for(device);
        if step >= seen.first_step {
            seen.step_ms.push(elapsed_ms(started));
            seen.losses.push(output.loss);
            seen.timings += output.timings;
        }
        step += 1;
        if place.0 == 0 {
            progress.add(1);
        }
        let due = args.checkpoint_every.is_some_and(|every| step.is_multiple_of(every.max(1)));
        if let Some(saver) = saver.as_mut().filter(|_| due) {
            let started = Instant::now();
            saver.settle(&mut head)?;
            if seen.save_ms.is_empty() {
                seen.peak_before_save_mib = status_mib("VmHWM");
                seen.anonymous_before_save_mib = status_mib("RssAnon");
            }
            saver.begin(&mut head, step)?;
            seen.save_ms.push(elapsed_ms(started));
        }
    }
    if let Some(saver) = &mut saver {
        saver.settle(&mut head)?;
    }
    // While the head is still there.
    seen.gpu_mib = memory_in_use(device).map(|bytes| bytes as f64 / f64::from(1 << 20));
    seen.anonymous_mib = status_mib("RssAnon");
    Ok(seen)
}

const STEP: &str = "bench.step";

/// Saves as a run does: while the steps go on, or on the spot where centres are in files.
struct Saver {
    path: PathBuf,
    writing: Option<JoinHandle<Result<(), TrainError>>>,
    /// Goes when dropped.
    _folder: Option<tempfile::TempDir>,
}

impl Saver {
    /// `None` if nothing is to be saved.
    fn new(args: &HeadArgs) -> Result<Option<Saver>, TrainError> {
        if args.checkpoint_every.is_none() {
            return Ok(None);
        }
        let named = args.save_to.as_ref().or(args.file.as_ref());
        let temporary = match named {
            Some(_) => None,
            None => {
                let folder = tempfile::tempdir();
                Some(folder.map_err(TrainError::io("create a folder in", &std::env::temp_dir()))?)
            }
        };
        let folder = named.map(PathBuf::as_path).or(temporary.as_ref().map(|folder| folder.path()));
        let path = folder.unwrap_or(Path::new("")).join("bench.ckpt");
        Ok(Some(Saver { path, writing: None, _folder: temporary }))
    }

    fn begin(&mut self, head: &mut Head, step: u64) -> Result<(), TrainError> {
        let mut centres = head.begin_save(false)?;
        centres.tensors.push((STEP.to_owned(), Tensor::from_slice(&[step as i64])));
        let in_files = centres.rows.is_none();
        let path = self.path.clone();
        let write = move || {
            let folder = AtomicDir::create(&path)?;
            shards::write(folder.path(), (0, 1), centres)?;
            let name = shards::name_of(0, 1);
            if path.exists() {
                folder.commit_over(|entry| entry.path == name)?;
            } else {
                folder.commit()?;
            }
            Ok(())
        };
        self.writing = Some(std::thread::spawn(write));
        if in_files {
            self.settle(head)?;
            head.checkpointed()?;
        }
        Ok(())
    }

    /// Waits for the save that is under way.
    fn settle(&mut self, head: &mut Head) -> Result<(), TrainError> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let handed_over = head.finish_save();
        writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        // The copies of rows are written and gone.
        allocator::give_back_freed_memory();
        Ok(handed_over?)
    }
}

fn load(head: &mut Head, folder: Option<&Path>, path: &Path) -> Result<u64, TrainError> {
    let mut file = TensorFile::open(&path.join(shards::name_of(0, 1)))?;
    let step = file.read(STEP)?;
    head.load(&mut [Box::new(shards::Saved(file))], folder)?;
    Ok(step.int64_value(&[0]) as u64)
}

fn elapsed_ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn report(
    args: &HeadArgs,
    config: HeadConfig,
    mut of_ranks: Vec<Seen>,
) -> Result<HeadBench, TrainError> {
    of_ranks.sort_by(|a, b| a.timings.total_ms().total_cmp(&b.timings.total_ms()));
    let Seen {
        first_step,
        start_ms,
        step_ms,
        losses,
        timings,
        save_ms,
        peak_before_save_mib,
        anonymous_before_save_mib,
        anonymous_mib,
        operations,
        gpu_mib,
    } = of_ranks.pop().unwrap_or_default();
    let mut phases_ms = timings;
    phases_ms /= step_ms.len().max(1) as f64;
    let phases_ms = (!args.device().is_cuda()).then_some(phases_ms);
    let mut sorted = step_ms.clone();
    sorted.sort_by(f64::total_cmp);
    let rows_per_step = config.rows_per_step();
    let rows_of_rank = rows_per_step as f64 / f64::from(args.ranks);
    let flop = 6.0 * rows_of_rank * args.batch as f64 * args.dim as f64;
    let disk_mib = args.file.as_deref().map(|folder| {
        folder_mib(folder).map_err(|e| HeadError::from(DurableError::at("read", folder)(e)))
    });
    Ok(HeadBench {
        rows_per_step,
        batch: args.batch,
        ranks: args.ranks,
        threads: tch::get_num_threads(),
        start_ms,
        first_step,
        median_step_ms: sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN),
        step_ms,
        losses,
        product_gflops: phases_ms.map(|phases| flop / phases.product_ms / 1e6),
        phases_ms,
        operations,
        gpu_mib,
        save_ms,
        centre_bytes: RowLayout::of_config(&config).size_bytes(),
        config,
        peak_before_save_mib,
        anonymous_before_save_mib,
        peak_mib: status_mib("VmHWM"),
        anonymous_mib,
        disk_mib: disk_mib.transpose()?,
    })
}

fn print(report: &HeadBench) -> std::io::Result<()> {
    let mut table = pfc_cli::table(["phase", "ms per step", "share"]);
    let mean = report.step_ms.iter().sum::<f64>() / report.step_ms.len().max(1) as f64;
    let mut lines = Vec::new();
    if let Some(phases) = report.phases_ms {
        lines.extend([
            ("sample", phases.sample_ms),
            ("gather and normalise", phases.gather_ms),
            ("products", phases.product_ms),
            ("exponentials", phases.softmax_ms),
            ("update", phases.update_ms),
            ("communication", phases.communication_ms),
            ("other", (mean - phases.total_ms()).max(0.0)),
        ]);
    }
    lines.extend([("all, mean", mean), ("all, median", report.median_step_ms)]);
    for (phase, ms) in lines {
        table.add_row([phase.to_owned(), format!("{ms:.2}"), format!("{:.0}%", 100.0 * ms / mean)]);
    }
    pfc_cli::print_table(&table)?;
    let mib = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |mib| format!("{mib:.0}"));
    let mut facts = pfc_cli::table(["", ""]);
    for (name, value) in [
        ("identities", report.config.classes.to_string()),
        ("rows per step", report.rows_per_step.to_string()),
        ("bytes of a centre", report.centre_bytes.to_string()),
        ("rows are moved by", report.operations.clone()),
        ("products, GFLOP/s", mib(report.product_gflops)),
        ("start, ms", format!("{:.1}", report.start_ms)),
        ("memory before the first save, at its peak, MiB", mib(report.peak_before_save_mib)),
        ("memory at its peak, MiB", mib(report.peak_mib)),
        ("anonymous memory at the end, MiB", mib(report.anonymous_mib)),
        ("in use on the GPU, MiB", mib(report.gpu_mib)),
        ("disk, MiB", mib(report.disk_mib)),
    ] {
        if value != "?" {
            facts.add_row([name.to_owned(), value]);
        }
    }
    if !report.save_ms.is_empty() {
        let longest = report.save_ms.iter().copied().fold(0.0, f64::max);
        let value = format!("{} of up to {longest:.0} ms", report.save_ms.len());
        facts.add_row(["steps held up by saves".to_owned(), value]);
    }
    pfc_cli::print_table(&facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_as_people_say_them() {
        let parsed = |text: &str| text.parse::<Count>().map(|count| count.0);
        assert_eq!(parsed("360232"), Ok(360_232));
        assert_eq!(parsed("100K"), Ok(100_000));
        assert_eq!(parsed("2.5M"), Ok(2_500_000));
        assert_eq!(parsed("1b"), Ok(1_000_000_000));
        for wrong in ["", "0", "-1", "1.5", "M", "1e99", "nan", "ten"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranks_share_one_batch() {
        let values_nd = (0..20u8).map(f32::from).collect();
        let pool = Pool { values_nd, dim: 1, batch: 10, identities: 7 };
        let (whole, labels) = pool.batch(5, (0, 1));
        let parts: Vec<_> = (0..3).map(|rank| pool.batch(5, (rank, 3))).collect();
        let rows: Vec<Tensor> = parts.iter().map(|(rows, _)| rows.shallow_clone()).collect();
        assert_eq!(Tensor::cat(&rows, 0), whole);
        assert_eq!(parts.into_iter().flat_map(|(_, labels)| labels).collect::<Vec<_>>(), labels);
    }
}
