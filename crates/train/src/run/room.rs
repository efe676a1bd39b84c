//! Whether memory and disks have room for a run, asked before it begins: a run that is killed for want
//! of memory after hours has wasted them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use pfc_head::{ClassRange, Footprint, Placement};
use pfc_model::{Backbone, free_memory as free_on};
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    config::{Config, OptimizerKind},
    data::{loader::LoaderSpec, plan::StepPlan},
    error::in_units,
    ranks::Ranks,
    run_folder::RunFolder,
};

/// What one rank takes, and what its machine has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Claim {
    /// The same for all ranks of a machine.
    machine: String,
    memory: MemoryClaim,
    /// Where the rank computes on a GPU.
    card: Option<CardClaim>,
    disks: Vec<DiskClaim>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct MemoryClaim {
    /// Centres and their state, and what a step keeps of those that it draws.
    rows: u64,
    /// The network, its optimizer and gradients.
    network: u64,
    /// Images that are made ahead of the steps.
    batches: u64,
    /// What a save takes beside these.
    save: u64,
    /// `None` where the system does not tell.
    free: Option<u64>,
}

/// What a rank takes of a card that no other rank uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct CardClaim {
    rank: usize,
    rows: u64,
    network: u64,
    /// `None` where the card does not tell.
    free: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DiskClaim {
    /// The same for all folders of a file system.
    device: u64,
    path: PathBuf,
    /// Beside what is there already.
    needed: u64,
    free: u64,
}

/// The place of a rank among those of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Number among all.
    pub(crate) rank: usize,
    /// Number on its machine.
    pub(crate) local_rank: usize,
    /// Number of all.
    pub(crate) world: usize,
}

impl Seat {
    /// That of this process.
    pub(crate) fn of(ranks: &Ranks) -> Seat {
        Seat { rank: ranks.rank(), local_rank: ranks.local_rank(), world: ranks.world() }
    }
}

/// Refuses a run that memory, cards or disks have no room for; `train.check_room` turns it off. Every
/// rank calls it, and all come to the same answer.
///
/// Activations are not counted, as nobody knows them before the first step.
///
/// # Errors
///
/// [`TrainError::NoMemory`], [`TrainError::NoCardMemory`], [`TrainError::NoDisk`], [`TrainError::Ranks`].
pub(crate) fn check(
    config: &Config,
    plan: &StepPlan,
    n_identities: u32,
    folder: &RunFolder,
    ranks: &Ranks,
) -> Result<(), TrainError> {
    if !config.train.check_room {
        return Ok(());
    }
    let claim = Claim::of(config, plan, n_identities, folder, Seat::of(ranks))?;
    let claims = ranks.gather(claim)?;
    decide(&claims)
}

/// The same for ranks of this machine that are yet to be started.
///
/// # Errors
///
/// [`TrainError::NoMemory`], [`TrainError::NoCardMemory`], [`TrainError::NoDisk`].
pub(crate) fn check_seats(
    config: &Config,
    plan: &StepPlan,
    n_identities: u32,
    folder: &RunFolder,
    seats: &[Seat],
) -> Result<(), TrainError> {
    if !config.train.check_room {
        return Ok(());
    }
    let claims = seats.iter().map(|seat| Claim::of(config, plan, n_identities, folder, *seat));
    decide(&claims.collect::<Result<Vec<Claim>, TrainError>>()?)
}

/// What the network of a rank takes, for people.
///
/// * `activations`: bytes that a rank keeps between the passes, where that is known
///
/// # Errors
///
/// [`TrainError::Model`].
pub(crate) fn describe_network(
    config: &Config,
    activations: Option<u64>,
) -> Result<String, TrainError> {
    let Network { training, copies, .. } = Network::of(config)?;
    let activations = activations
        .map_or_else(String::new, |bytes| format!(", its activations about {}", in_units(bytes)));
    let free = free_memory().map_or_else(String::new, |free| {
        format!("; {} of this machine's memory are available", in_units(free))
    });
    Ok(format!(
        "a rank's network takes {} with gradients and optimizer{activations}, a save {} more{free}",
        in_units(training),
        in_units(copies)
    ))
}

/// What the centres of a run on one rank take, for people.
pub(crate) fn describe(config: &Config, plan: &StepPlan, n_identities: u32) -> String {
    let all = ClassRange::of_rank(n_identities.into(), 0, 1);
    let head = config.head_config(n_identities);
    let found = Footprint::of(&head, all, plan.n_steps(), plan.batch_size);
    let Footprint { touched, memory, device, save, files, checkpoint, .. } = found;
    let held = match &head.centres {
        Placement::File(folder) => format!("{} in files in {}", in_units(files), folder.display()),
        Placement::Device => {
            let (device, save) = (in_units(device), in_units(save));
            format!("{device} of the device's memory, {save} of the host's for a save")
        }
        Placement::Host => {
            format!("{} of memory, a save {} more", in_units(memory), in_units(save))
        }
    };
    format!(
        "{touched} of {n_identities} centres are going to be used; they take {held}, and {} in a \
         checkpoint",
        in_units(checkpoint)
    )
}

impl Claim {
    fn of(
        config: &Config,
        plan: &StepPlan,
        n_identities: u32,
        folder: &RunFolder,
        seat: Seat,
    ) -> Result<Claim, TrainError> {
        let head = config.head_config(n_identities);
        let range = ClassRange::of_rank(n_identities.into(), seat.rank, seat.world);
        let footprint = Footprint::of(&head, range, plan.n_steps(), plan.batch_size);
        let device = config.train.device(seat.local_rank)?;
        let network = Network::of(config)?;
        // A processor that is the device of the centres has them in the memory of the host.
        let of_device = (footprint.device, network.training);
        let (on_host, on_card) =
            if device.is_cuda() { ((0, 0), of_device) } else { (of_device, (0, 0)) };
        let batches = LoaderSpec::of_run(config, *plan, (seat.rank, seat.world), device);
        let memory = MemoryClaim {
            rows: footprint.memory + footprint.step + on_host.0,
            network: on_host.1,
            batches: batches.size_bytes(),
            save: footprint.save + network.copies,
            free: free_memory(),
        };
        let card = device.is_cuda().then(|| CardClaim {
            rank: seat.rank,
            rows: on_card.0,
            network: on_card.1,
            free: free_on(device),
        });
        let mut disks = Vec::new();
        if let Placement::File(path) = &head.centres {
            let own = format!("-{}-{}-", range.first(), range.ids().end);
            disks.extend(DiskClaim::of(path, footprint.files, |name| name.contains(&own)));
        }
        // Those that are kept, the best, and the one that is being written before an old one goes.
        let best = usize::from(!config.checkpoint.best.is_empty());
        let n_checkpoints = (config.checkpoint.keep + best + 1) as u64;
        let is_first = seat.rank == 0;
        let whole = if is_first { network.saved } else { 0 };
        let needed = n_checkpoints.saturating_mul(footprint.checkpoint + whole);
        let is_own = |_: &str| is_first;
        disks.extend(DiskClaim::of(&folder.checkpoints(), needed, is_own));
        Ok(Claim { machine: machine(), memory, card, disks })
    }
}

/// Bytes of a backbone in training.
struct Network {
    /// Weights, gradients, the optimizer's state, and the mean of the weights if there is one.
    training: u64,
    /// What a save copies to write it in the background.
    copies: u64,
    /// What a checkpoint has of it.
    saved: u64,
}

impl Network {
    fn of(config: &Config) -> Result<Network, TrainError> {
        let weights =
            Backbone::shapes(&config.model.spec())?.n_parameters() * size_of::<f32>() as u64;
        let n_state = match config.optim.optimizer {
            OptimizerKind::Sgd => 1,
            OptimizerKind::Adamw => 2,
        };
        let mean = u64::from(config.optim.ema > 0.0);
        let kept = weights * (1 + n_state + mean);
        let copies = if config.checkpoint.in_background { kept } else { 0 };
        Ok(Network { training: kept + weights, copies, saved: kept })
    }
}

impl DiskClaim {
    /// What a folder still needs of its file system; `None` if the system does not tell.
    ///
    /// * `is_own`: which files in it are counted in `needed`
    fn of(folder: &Path, needed: u64, is_own: impl Fn(&str) -> bool) -> Option<DiskClaim> {
        let there = allocated(folder, &is_own);
        // A folder that is not there yet will be made in one that is.
        let parent =
            folder.ancestors().find(|path| path.is_dir() || path.as_os_str().is_empty())?;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let stat = statvfs(parent).ok()?;
        Some(DiskClaim {
            device: device_of(parent)?,
            path: folder.to_path_buf(),
            needed: needed.saturating_sub(there),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// Bytes that files in a folder, and in folders in it, take on disk.
fn allocated(folder: &Path, is_own: &dyn Fn(&str) -> bool) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => allocated(&entry.path(), is_own),
        Ok(kind) if kind.is_file() && is_own(&entry.file_name().to_string_lossy()) => {
            entry.metadata().map_or(0, |metadata| blocks_of(&metadata))
        }
        _ => 0,
    };
    entries.flatten().map(of_entry).sum()
}

#[cfg(unix)]
fn blocks_of(metadata: &fs::Metadata) -> u64 {
    // In units of 512 bytes, whatever the file system's blocks are.
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn blocks_of(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

#[cfg(unix)]
fn device_of(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|metadata| std::os::unix::fs::MetadataExt::dev(&metadata))
}

#[cfg(not(unix))]
fn device_of(_: &Path) -> Option<u64> {
    Some(0)
}

/// What all ranks of a machine, and no others, have in common.
fn machine() -> String {
    // Containers of one machine have names of their own, and bounds of their own.
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    ["random/boot_id", "hostname"].map(|name| read(name).unwrap_or_default()).concat()
}

/// Bytes that this process can still get: of the machine, and of the group of processes that it is in.
fn free_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.as_deref().and_then(|text| text.lines().find_map(|l| l.strip_prefix("0::/")));
    let root = Path::new("/sys/fs/cgroup");
    let of_groups = Path::new(group.unwrap_or_default()).ancestors();
    let of_groups = of_groups.filter_map(|group| free_of_group(&root.join(group)));
    of_groups.chain(free_of_machine(&meminfo)).min()
}

/// What `/proc/meminfo` says that programs can get, swapping included.
fn free_of_machine(meminfo: &str) -> Option<u64> {
    let of = |key: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(of("MemAvailable")? + of("SwapFree").unwrap_or(0))
}

/// What a control group may still take: its bound less what it has, files that can be dropped left out.
fn free_of_group(folder: &Path) -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
    };
    let bound = number("memory.max")?;
    let used = number("memory.current")?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let droppable = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let droppable = droppable.and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(bound.saturating_sub(used.saturating_sub(droppable)))
}

/// Whether what the ranks of each machine claim together is there, and what each claims of its card.
fn decide(claims: &[Claim]) -> Result<(), TrainError> {
    for CardClaim { rank, rows, network, free } in claims.iter().filter_map(|claim| claim.card) {
        if let Some(free) = free.filter(|free| rows + network > *free) {
            return Err(TrainError::NoCardMemory { rank, rows, network, free });
        }
    }
    let mut machines: BTreeMap<&str, Vec<&Claim>> = BTreeMap::new();
    for claim in claims {
        machines.entry(&claim.machine).or_default().push(claim);
    }
    for claims in machines.into_values() {
        let of =
            |part: fn(&MemoryClaim) -> u64| claims.iter().map(|claim| part(&claim.memory)).sum();
        let (rows, network): (u64, u64) = (of(|memory| memory.rows), of(|memory| memory.network));
        let (batches, save): (u64, u64) = (of(|memory| memory.batches), of(|memory| memory.save));
        let free = claims.iter().filter_map(|claim| claim.memory.free).min();
        if let Some(free) = free.filter(|free| rows + network + batches + save > *free) {
            let n_ranks = claims.len();
            return Err(TrainError::NoMemory { n_ranks, rows, network, batches, save, free });
        }
        let mut disks: BTreeMap<u64, (u64, &DiskClaim)> = BTreeMap::new();
        for disk in claims.iter().flat_map(|claim| &claim.disks) {
            let (needed, largest) = disks.entry(disk.device).or_insert((0, disk));
            *needed += disk.needed;
            if disk.needed > largest.needed {
                *largest = disk;
            }
        }
        let full = disks.into_values().find(|(needed, disk)| *needed > disk.free);
        if let Some((needed, DiskClaim { path, free, .. })) = full {
            return Err(TrainError::NoDisk { path: path.clone(), needed, free: *free });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn claim(machine: &str, rows: u64, free: u64) -> Claim {
        let batches = GIB / 4;
        let memory = MemoryClaim { rows, network: GIB, batches, save: GIB / 2, free: Some(free) };
        Claim { machine: machine.to_owned(), memory, card: None, disks: Vec::new() }
    }

    #[test]
    fn the_ranks_of_a_machine_share_its_memory_and_others_do_not_count() {
        decide(&[claim("a", 4 * GIB, 6 * GIB), claim("b", 4 * GIB, 6 * GIB)]).unwrap();
        let error = decide(&[claim("a", 4 * GIB, 6 * GIB), claim("a", 4 * GIB, 6 * GIB)]);
        let error = error.unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 ranks of one machine take 8.0 GiB for centres, 2.0 GiB for the network, 512 MiB for \
             batches and 1.0 GiB for a save, 11.5 GiB in all, but 6.0 GiB of memory are available"
        );
        assert!(error.hint().unwrap().contains("train.check_room=false"));
        let mut unknown = claim("a", 1 << 60, 0);
        unknown.memory.free = None;
        decide(&[unknown]).unwrap();
    }

    #[test]
    fn what_a_rank_takes_of_its_card_is_compared_with_what_is_free_there() {
        let on_card = |free| {
            let card = CardClaim { rank: 3, rows: 6 * GIB, network: GIB, free };
            Claim { card: Some(card), ..claim("a", 0, 100 * GIB) }
        };
        decide(&[on_card(Some(7 * GIB)), on_card(None)]).unwrap();
        let error = decide(&[on_card(Some(7 * GIB)), on_card(Some(5 * GIB))]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rank 3 takes 6.0 GiB of its card for centres and 1.0 GiB for the network, 7.0 GiB in all, \
             but 5.0 GiB are free there"
        );
        assert!(error.hint().unwrap().contains("train.check_room=false"));
    }

    #[test]
    fn centres_on_a_processor_that_is_their_device_count_as_memory_and_batches_do() {
        let text = "[data]\nsynthetic = { identities = 1000, images = 1000 }\nbatches_ahead = 4\n\
                    [model]\nnetwork = \"r10_w8\"\nembedding = 16\n\
                    [head]\ncentres = \"device\"\n[train]\ndevice = \"cpu\"\nthreads = 1\n";
        let config: Config = toml::from_str(text).unwrap();
        let plan = StepPlan { n_images: 1000, batch_size: 10, epochs: 1, steps: 0, seed: 1 };
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::of_other_rank(dir.path());
        let seat = Seat { rank: 1, local_rank: 1, world: 2 };
        let found = Claim::of(&config, &plan, 1000, &folder, seat).unwrap();
        // Weight and momentum of 16 numbers of 4 bytes, and the time of each row, of half the classes, all of
        // which a step draws: 64 bytes more of each.
        assert_eq!(found.memory.rows, 500 * (2 * 16 * 4 + 4) + 500 * 64);
        // One batch is in the step's hands beside the four ahead; half of each is this rank's.
        assert_eq!(found.memory.batches, 5 * 5 * 112 * 112 * 3 * 4);
        assert_eq!(found.card, None);
    }

    #[test]
    fn folders_of_one_disk_share_its_room() {
        let disk = |device, path: &str, needed| DiskClaim {
            device,
            path: path.into(),
            needed,
            free: 10 * GIB,
        };
        let mut claim = claim("a", 0, 100 * GIB);
        claim.disks = vec![disk(1, "run", 4 * GIB), disk(2, "centres", 7 * GIB)];
        decide(std::slice::from_ref(&claim)).unwrap();
        claim.disks[1].device = 1;
        let error = decide(&[claim]).unwrap_err().to_string();
        let expected =
            "centres: the run needs 11.0 GiB more of this disk, of which 10.0 GiB are free";
        assert_eq!(error, expected);
    }

    #[test]
    fn memory_is_what_machine_and_group_leave() {
        let meminfo = "MemTotal: 100 kB\nMemAvailable:   70 kB\nSwapFree:  5 kB\n";
        assert_eq!(free_of_machine(meminfo), Some(75 * 1024));
        assert_eq!(free_of_machine("MemTotal: 100 kB\n"), None);
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        write("memory.current", "700\n");
        write("memory.stat", "anon 5\ninactive_file 300\n");
        write("memory.max", "max\n");
        assert_eq!(free_of_group(group.path()), None, "there is no bound");
        write("memory.max", "1000\n");
        assert_eq!(free_of_group(group.path()), Some(600));
    }

    #[test]
    fn what_is_in_a_folder_already_is_not_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("centres");
        let needed =
            |is_own: fn(&str) -> bool| DiskClaim::of(&path, 1 << 20, is_own).unwrap().needed;
        assert_eq!(needed(|_| true), 1 << 20, "the folder is not there yet");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("rows-0-9-1"), vec![1; 1 << 16]).unwrap();
        assert!((1..=(1 << 20) - (1 << 16)).contains(&needed(|name| name.contains("-0-9-"))));
        assert_eq!(needed(|name| name.contains("-9-18-")), 1 << 20);
    }
}
