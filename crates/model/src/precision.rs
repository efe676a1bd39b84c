//! What the large layers compute in, and how `auto` chooses it for a device.

use std::{fmt, str::FromStr, time::Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::IntoDeserializer};
use tch::{Device, Kind, Tensor};

/// What the large layers compute in. Parameters, statistics and the embedding are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point throughout.
    #[default]
    F32,
    /// Convolutions and the activations between them in bf16.
    Bf16,
    /// The same in f16, as the reference's `fp16` has it: gradients need a loss scale. It is meant for
    /// GPUs; on CPUs without f16 arithmetic it is ten times slower than f32.
    F16,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Precision, String> {
        match name {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            "f16" => Ok(Precision::F16),
            _ => Err(format!("precision `{name}` is none of `f32`, `bf16` and `f16`")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        })
    }
}

/// A number format as a user asks for it: by name, or `auto`, which leaves it to the device.
///
/// `P` is the type of the formats: [`Precision`], or that of the head. In configuration files it is
/// a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice<P> {
    /// bf16 where the device computes in it, else f32.
    #[default]
    Auto,
    /// This one.
    Given(P),
}

impl<P: Copy + Default> Choice<P> {
    /// The format that was given. `auto` that nothing has settled yet counts as the default, f32.
    pub fn or_default(self) -> P {
        match self {
            Choice::Auto => P::default(),
            Choice::Given(precision) => precision,
        }
    }
}

impl<P: Serialize> Serialize for Choice<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Choice::Auto => serializer.serialize_str("auto"),
            Choice::Given(precision) => precision.serialize(serializer),
        }
    }
}

impl<'de, P: Deserialize<'de>> Deserialize<'de> for Choice<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Choice<P>, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "auto" {
            return Ok(Choice::Auto);
        }
        let given = P::deserialize(name.into_deserializer());
        given.map(Choice::Given).map_err(|error: serde::de::value::Error| {
            serde::de::Error::custom(format!("{error}; or `auto`"))
        })
    }
}

impl<P: FromStr<Err = String>> FromStr for Choice<P> {
    type Err = String;

    fn from_str(name: &str) -> Result<Choice<P>, String> {
        if name == "auto" {
            return Ok(Choice::Auto);
        }
        name.parse().map(Choice::Given).map_err(|error| format!("{error}, nor `auto`"))
    }
}

/// How a device computes in bf16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bf16 {
    /// With instructions of its own: about twice as fast as f32, or faster.
    Native {
        /// What has them, for example `this processor has AVX512-BF16`.
        why: String,
    },
    /// By converting to f32 and back: several times slower than f32.
    Emulated {
        /// What is missing.
        why: String,
    },
}

impl Bf16 {
    /// Asks `device`. The environment variables `ONEDNN_MAX_CPU_ISA` and `DNNL_MAX_CPU_ISA`, which
    /// forbid instructions to libtorch's kernels, are respected.
    pub fn of(device: Device) -> Bf16 {
        match device {
            Device::Cuda(index) => of_cuda(index),
            _ => of_cpu(),
        }
    }

    /// Whether bf16 has instructions of its own.
    pub fn is_native(&self) -> bool {
        matches!(self, Bf16::Native { .. })
    }

    /// The reason, as part of a sentence.
    pub fn why(&self) -> &str {
        match self {
            Bf16::Native { why } | Bf16::Emulated { why } => why,
        }
    }
}

fn of_cpu() -> Bf16 {
    let caps = ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"];
    let cap = caps.iter().find_map(|name| std::env::var(name).ok().map(|isa| (*name, isa)));
    match cap {
        Some((name, isa)) if !isa_has_bf16(&isa) => {
            Bf16::Emulated { why: format!("{name}={isa} forbids the instructions for bf16") }
        }
        _ => of_processor(),
    }
}

/// Whether a value of `ONEDNN_MAX_CPU_ISA` allows instructions for bf16. The names are oneDNN's; one
/// that it does not know has no effect there, nor here.
fn isa_has_bf16(isa: &str) -> bool {
    const WITHOUT: [&str; 7] =
        ["SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"];
    !WITHOUT.iter().any(|name| name.eq_ignore_ascii_case(isa))
}

#[cfg(target_arch = "x86_64")]
fn of_processor() -> Bf16 {
    // Processors with AMX-BF16 have AVX512-BF16 as well.
    if std::is_x86_feature_detected!("avx512bf16") {
        Bf16::Native { why: "this processor has AVX512-BF16".to_owned() }
    } else {
        Bf16::Emulated { why: "this processor has no AVX512-BF16".to_owned() }
    }
}

#[cfg(target_arch = "aarch64")]
fn of_processor() -> Bf16 {
    if std::arch::is_aarch64_feature_detected!("bf16") {
        Bf16::Native { why: "this processor has the BF16 extension".to_owned() }
    } else {
        Bf16::Emulated { why: "this processor has no BF16 extension".to_owned() }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn of_processor() -> Bf16 {
    Bf16::Emulated { why: "instructions for bf16 are not known on this processor".to_owned() }
}

/// Cards of compute capability 8.0 (Ampere) and above multiply bf16 matrices.
#[cfg(feature = "cuda")]
fn of_cuda(index: usize) -> Bf16 {
    let context = cudarc::driver::CudaContext::new(index);
    match context.and_then(|context| context.compute_capability()) {
        Ok((major, minor)) if major >= 8 => {
            Bf16::Native { why: format!("the card has compute capability {major}.{minor}") }
        }
        Ok((major, minor)) => Bf16::Emulated {
            why: format!("the card has compute capability {major}.{minor}, and bf16 needs 8.0"),
        },
        Err(error) => Bf16::Emulated { why: format!("the card does not tell what it is: {error}") },
    }
}

#[cfg(not(feature = "cuda"))]
fn of_cuda(_: usize) -> Bf16 {
    Bf16::Emulated { why: "this build has no CUDA to ask the card".to_owned() }
}

/// Something to measure a number format with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A 3x3 convolution over `[4, 32, 28, 28]`, forward and backward.
    Convolution,
    /// The product of `[64, 512]` and `[512, 1024]`.
    Product,
}

impl Work {
    /// For messages: `a convolution`, `a matrix product`.
    pub fn name(self) -> &'static str {
        match self {
            Work::Convolution => "a convolution",
            Work::Product => "a matrix product",
        }
    }

    fn run(self, kind: Kind, device: Device) {
        let input = |shape: &[i64]| Tensor::ones(shape, (kind, device));
        let result = match self {
            Work::Convolution => {
                let x = input(&[4, 32, 28, 28]).set_requires_grad(true);
                let weight = input(&[32, 32, 3, 3]).set_requires_grad(true);
                let y = x.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
                y.sum(Kind::Float).backward();
                x.grad()
            }
            Work::Product => input(&[64, 512]).matmul(&input(&[512, 1024])),
        };
        // Reading a number waits for the device.
        let _ = result.flatten(0, -1).double_value(&[0]);
    }

    /// Mean time of a run, after some that allocate and prepare kernels.
    fn seconds(self, kind: Kind, device: Device) -> f64 {
        (0..N_WARM_UP).for_each(|_| self.run(kind, device));
        let clock = Clock::of(device);
        let (begun, mut n_runs) = (clock.now(), 0);
        loop {
            self.run(kind, device);
            n_runs += 1;
            let taken = clock.now() - begun;
            if n_runs == RUNS_MAX || n_runs >= RUNS_MIN && taken >= MEASURED_S {
                return taken / f64::from(n_runs);
            }
        }
    }
}

/// Runs before those that are timed.
const N_WARM_UP: usize = 2;
/// The least and the most runs that are timed.
const RUNS_MIN: u32 = 3;
const RUNS_MAX: u32 = 10_000;
/// Seconds that they take together, unless they are few: many ticks of the system's clock.
const MEASURED_S: f64 = 0.06;

/// What runs are timed by.
enum Clock {
    /// The time that this thread had a processor: other programs do not count.
    OfThread,
    /// The time on the wall.
    Wall(Instant),
}

impl Clock {
    fn of(device: Device) -> Clock {
        match cpu_seconds().filter(|_| !device.is_cuda()) {
            Some(_) => Clock::OfThread,
            None => Clock::Wall(Instant::now()),
        }
    }

    fn now(&self) -> f64 {
        match self {
            Clock::OfThread => cpu_seconds().unwrap_or_default(),
            Clock::Wall(begun) => begun.elapsed().as_secs_f64(),
        }
    }
}

/// Seconds that this thread has had a processor; `None` where the system does not tell.
fn cpu_seconds() -> Option<f64> {
    // Linux brings the count up to date when the thread gives way.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
    (nanoseconds > 0).then_some(nanoseconds as f64 * 1e-9)
}

/// How many times longer `work` takes in `precision` than in f32 on `device`, measured now: some
/// 0.2 s on a CPU.
///
/// A CPU is measured on one thread, by the time that the thread computes, so that the figure is the same
/// on a busy machine; it holds for several threads too, as each has its share of either work.
pub fn slowdown(work: Work, precision: Precision, device: Device) -> f64 {
    let kind = match precision {
        Precision::F32 => return 1.0,
        Precision::Bf16 => Kind::BFloat16,
        Precision::F16 => Kind::Half,
    };
    let n_threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let factor = work.seconds(kind, device) / work.seconds(Kind::Float, device);
    tch::set_num_threads(n_threads);
    factor
}

/// A number format that a device has no instructions for.
#[derive(Debug, Clone, PartialEq)]
pub struct Emulated {
    /// What is missing, as part of a sentence.
    pub why: String,
    /// How many times longer than f32 it takes, measured now.
    pub factor: f64,
}

impl Emulated {
    /// Whether `device` emulates `precision`, and what that costs `work`; `None` also where it takes about
    /// as long as f32, so that nobody needs to be warned.
    pub fn of(work: Work, precision: Precision, device: Device) -> Option<Emulated> {
        let why = match precision {
            Precision::F32 => return None,
            Precision::Bf16 => match Bf16::of(device) {
                Bf16::Native { .. } => return None,
                Bf16::Emulated { why } => why,
            },
            // GPUs that libtorch supports compute in f16; of its kernels for CPUs few do.
            Precision::F16 if device.is_cuda() => return None,
            Precision::F16 => "f16 is for GPUs".to_owned(),
        };
        let factor = slowdown(work, precision, device);
        is_worth_a_warning(factor).then_some(Emulated { why, factor })
    }
}

/// Whether a format is slower than f32 by more than a measurement may be off.
fn is_worth_a_warning(factor: f64) -> bool {
    factor >= 1.25
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_and_written_by_name() {
        for (text, choice) in [
            ("\"auto\"", Choice::Auto),
            ("\"f32\"", Choice::Given(Precision::F32)),
            ("\"bf16\"", Choice::Given(Precision::Bf16)),
        ] {
            assert_eq!(serde_json::from_str::<Choice<Precision>>(text).unwrap(), choice);
            assert_eq!(serde_json::to_string(&choice).unwrap(), text);
            assert_eq!(text.trim_matches('"').parse(), Ok(choice));
        }
        let error = serde_json::from_str::<Choice<Precision>>("\"f64\"").unwrap_err().to_string();
        assert!(error.contains("`bf16`") && error.contains("`auto`"), "{error}");
    }

    #[test]
    fn a_cap_below_bf16_is_told_from_one_above() {
        for isa in ["AVX2", "avx512_core", "AVX512_CORE_VNNI", "SSE41"] {
            assert!(!isa_has_bf16(isa), "{isa}");
        }
        for isa in ["AVX512_CORE_BF16", "AVX512_CORE_AMX", "ALL", "DEFAULT"] {
            assert!(isa_has_bf16(isa), "{isa}");
        }
    }

    #[test]
    fn a_format_that_takes_about_as_long_as_f32_is_worth_no_warning() {
        for (factor, expected) in [(0.9, false), (1.04, false), (1.2, false), (1.3, true)] {
            assert_eq!(is_worth_a_warning(factor), expected, "{factor}");
        }
        for device in [Device::Cpu, Device::Cuda(0)] {
            assert_eq!(Emulated::of(Work::Product, Precision::F32, device), None);
        }
        assert_eq!(Emulated::of(Work::Convolution, Precision::F16, Device::Cuda(0)), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn time_of_a_thread_is_that_which_it_computes_and_not_that_for_which_it_waits() {
        let clock = Clock::of(Device::Cpu);
        assert!(matches!(clock, Clock::OfThread));
        let (before, started) = (clock.now(), Instant::now());
        // It ends as soon as 20 ms were computed, however long other programs hold it up.
        while clock.now() - before < 0.02 {}
        // A tick of the system's clock is 10 ms at the most.
        assert!(clock.now() - before <= started.elapsed().as_secs_f64() + 0.01);
        let before = clock.now();
        std::thread::spawn(|| Work::Product.run(Kind::Float, Device::Cpu)).join().unwrap();
        assert!(clock.now() - before < 0.02);
    }

    #[test]
    fn the_number_of_threads_is_as_before_a_measurement() {
        let before = tch::get_num_threads();
        slowdown(Work::Product, Precision::Bf16, Device::Cpu);
        assert_eq!(tch::get_num_threads(), before);
    }

    #[test]
    fn f32_is_as_fast_as_itself() {
        for work in [Work::Convolution, Work::Product] {
            assert_eq!(slowdown(work, Precision::F32, Device::Cpu), 1.0);
            assert!(slowdown(work, Precision::Bf16, Device::Cpu) > 0.0);
        }
    }
}
