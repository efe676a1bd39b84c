//! What benchmarks are given by name.

use tch::Device;

/// A device by name. A card that is not there is said by libtorch when it is used.
pub(super) fn device(name: &str) -> Result<Device, String> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        other => {
            let index = other.strip_prefix("cuda:").and_then(|index| index.parse().ok());
            index.map(Device::Cuda).ok_or_else(|| "not cpu, cuda or cuda:N".to_owned())
        }
    }
}
