//! Which network to judge, and where it computes.

use std::path::PathBuf;

use pfc_model::{Embedder, EmbedderOptions, ModelError, Precision};
use tch::Device;

/// The model under test; flatten it into a command's arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// Checkpoint folder of the model
    #[arg(long, value_name = "RUN.ckpt")]
    pub model: PathBuf,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    pub device: Device,
    /// What the network's large layers compute in: f32, as published figures do, or the faster bf16
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    pub precision: Precision,
}

impl ModelArgs {
    /// Opens the model.
    ///
    /// # Errors
    ///
    /// As [`Embedder::open_with`].
    pub fn open(&self) -> Result<Embedder, ModelError> {
        let (device, precision) = (self.device, self.precision);
        let options = EmbedderOptions { device, precision, ..EmbedderOptions::default() };
        Embedder::open_with(&self.model, &options)
    }
}

pub(super) fn parse_device(text: &str) -> Result<Device, String> {
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
    fn devices_are_named_as_in_pytorch() {
        assert_eq!(parse_device("cuda:3"), Ok(Device::Cuda(3)));
        assert_eq!(parse_device("cpu"), Ok(Device::Cpu));
        assert!(parse_device("cuda:x").is_err() && parse_device("gpu").is_err());
    }
}
