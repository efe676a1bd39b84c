//! Which network to judge, and where it computes.

use std::path::{Path, PathBuf};

use pfc_durable::DurableError;
use pfc_model::{
    Bf16, ChannelOrder, Choice, Embedder, EmbedderOptions, Emulated, InputOptions, ModelError,
    Precision, Provider, Work,
    libtorch::keep_f32_exact,
    weights::{self, FileKind},
};
use tch::Device;

/// The model under test; flatten it into a command's arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// The model: a checkpoint folder, .onnx, TorchScript, or a state dict as .pth or .safetensors
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// How it is run.
    #[command(flatten)]
    pub options: ModelOptions,
}

/// How a model is run; flatten it into a command's arguments.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct ModelOptions {
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    device: Device,
    /// What of onnxruntime runs an ONNX model: cpu, cuda, tensorrt; or auto, which is cuda where --device is a
    /// GPU, and cpu where onnxruntime has no cuda, which is said
    #[arg(long, value_name = "PROVIDER", default_value = "auto")]
    provider: Provider,
    /// What the network's large layers compute in: f32, as published figures do; bf16; or auto, which
    /// is bf16 where the device has instructions for it
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    precision: Choice<Precision>,
    /// Threads of the network [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Side of the input where an ONNX or TorchScript file leaves it open; or 128x96, height first
    #[arg(long, value_name = "PIXELS", value_parser = InputOptions::parse_size)]
    input_size: Option<[usize; 2]>,
    /// Order of the colours, rgb or bgr; measured in ONNX files where they tell, else rgb
    #[arg(long, value_name = "ORDER")]
    channels: Option<ChannelOrder>,
    /// Subtracted from pixels of 0 to 255; measured in ONNX files, else 127.5
    #[arg(long, value_name = "MEAN[,G,B]", value_parser = InputOptions::parse_mean)]
    mean: Option<[f32; 3]>,
    /// The difference is divided by this; measured in ONNX files, else 127.5
    #[arg(long, value_name = "STD[,G,B]", value_parser = InputOptions::parse_std)]
    std: Option<[f32; 3]>,
    /// The output that is the embedding, of an ONNX file with several; by default told by name and shape
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Show what was measured in an ONNX file to tell what its input wants
    #[arg(long)]
    explain: bool,
    /// Attention heads of a transformer that is none of the named ones
    #[arg(long, value_name = "N")]
    heads: Option<i64>,
    /// Run a TorchScript file, which can do anything that you may, such as write to any of your files
    #[arg(long)]
    trust_code: bool,
}

impl ModelArgs {
    /// Opens the model.
    ///
    /// # Errors
    ///
    /// As [`Embedder::open_with`].
    pub fn open(&self) -> Result<Embedder, ModelError> {
        let ModelOptions { device, provider, precision, threads, heads, trust_code, .. } =
            self.options;
        let (kind, _) = weights::identify(&self.model)?;
        let options = EmbedderOptions {
            device,
            precision: settle(precision, &kind, device),
            provider,
            threads: threads.map(usize::from),
            input: InputOptions {
                size: self.options.input_size,
                channels: self.options.channels,
                mean: self.options.mean,
                std: self.options.std,
            },
            output: self.options.output.clone(),
            heads,
            trust_code,
        };
        if trust_code {
            // What the program prints must not get between the results.
            let failed = DurableError::at("divert", Path::new("standard output"));
            pfc_cli::divert_stdout().map_err(failed)?;
        }
        if device.is_cuda() {
            keep_f32_exact()?;
        }
        let embedder = Embedder::open_with(&self.model, &options)?;
        embedder.notes().iter().for_each(|note| pfc_cli::tell(note));
        embedder.place().iter().for_each(|place| pfc_cli::tell(place));
        match embedder.account() {
            Some(account) => {
                account.lines(self.options.explain).for_each(|line| pfc_cli::tell(&line));
            }
            None if self.options.explain => pfc_cli::tell(&format!(
                "{}: {} {}; its network is known by name and shape, and its input with it",
                self.model.display(),
                embedder.input().formula(),
                embedder.input().channels
            )),
            None => {}
        }
        Ok(embedder)
    }
}

/// The format that `choice` stands for on `device`. What was chosen, or what a format costs that the
/// device emulates, is said on standard error.
fn settle(choice: Choice<Precision>, kind: &FileKind, device: Device) -> Precision {
    if matches!(kind, FileKind::Onnx | FileKind::TorchScript) {
        // Such a file fixes what it computes in, so that there is nothing to choose; the embedder refuses
        // a format that is asked for.
        return choice.or_default();
    }
    match choice {
        Choice::Auto => {
            let bf16 = Bf16::of(device);
            let chosen = if bf16.is_native() { Precision::Bf16 } else { Precision::F32 };
            pfc_cli::tell(&format!("precision: {chosen}, chosen because {}", bf16.why()));
            chosen
        }
        Choice::Given(given) => {
            if let Some(emulated) = Emulated::of(Work::Convolution, given, device) {
                pfc_cli::tell(&cost(given, &emulated));
            }
            given
        }
    }
}

fn cost(given: Precision, Emulated { why, factor }: &Emulated) -> String {
    format!(
        "warning: {given} is emulated here ({why}): {} takes {factor:.1} times as long as in f32. \
         `--precision f32` is faster, and `--precision auto` chooses what is fast here",
        Work::Convolution.name()
    )
}

fn parse_device(text: &str) -> Result<Device, String> {
    match text {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(Device::Cuda)
            .ok_or_else(|| "give cpu, cuda or cuda:N".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_fixes_its_format_leaves_nothing_to_auto() {
        for kind in [FileKind::Onnx, FileKind::TorchScript] {
            assert_eq!(settle(Choice::Auto, &kind, Device::Cpu), Precision::F32);
            // For the embedder to refuse.
            let given = Choice::Given(Precision::Bf16);
            assert_eq!(settle(given, &kind, Device::Cpu), Precision::Bf16);
        }
        let chosen = match Bf16::of(Device::Cpu).is_native() {
            true => Precision::Bf16,
            false => Precision::F32,
        };
        for kind in [FileKind::Checkpoint, FileKind::Torch, FileKind::Safetensors] {
            assert_eq!(settle(Choice::Auto, &kind, Device::Cpu), chosen);
        }
    }

    #[test]
    fn a_format_that_is_emulated_is_said_to_cost_what_was_measured() {
        let emulated = Emulated { why: "f16 is for GPUs".to_owned(), factor: 9.96 };
        assert_eq!(
            cost(Precision::F16, &emulated),
            "warning: f16 is emulated here (f16 is for GPUs): a convolution takes 10.0 times as long \
             as in f32. `--precision f32` is faster, and `--precision auto` chooses what is fast here"
        );
    }

    #[test]
    fn devices_are_named_as_in_pytorch() {
        assert_eq!(parse_device("cuda:3"), Ok(Device::Cuda(3)));
        assert_eq!(parse_device("cpu"), Ok(Device::Cpu));
        assert!(parse_device("cuda:x").is_err() && parse_device("gpu").is_err());
    }
}
