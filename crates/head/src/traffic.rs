//! What a step hands to the device of its centres, and how often it waits for it.
//!
//! Counted whatever the device is, so that a CPU shows what a GPU would be asked for: there, a copy to the
//! host waits for all that was handed over before, and the GPU idles until more comes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tch::{Device, Kind, TchError, Tensor};

static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static TO_DEVICE: AtomicU64 = AtomicU64::new(0);
static TO_HOST: AtomicU64 = AtomicU64::new(0);

/// Since the process began, over all heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Products, and passes over rows or exponentials; what several kernels do one after the other counts
    /// as one where the head's own kernels do it at once.
    pub operations: u64,
    /// Copies to the device, for which nobody waits.
    pub to_device: u64,
    /// Copies to the host for which the host waits, and so does what would come after them.
    pub to_host: u64,
}

impl Traffic {
    /// What there was until now.
    #[must_use]
    pub fn now() -> Traffic {
        let [operations, to_device, to_host] =
            [&OPERATIONS, &TO_DEVICE, &TO_HOST].map(|count| count.load(Relaxed));
        Traffic { operations, to_device, to_host }
    }

    /// What there has been since `before`.
    #[must_use]
    pub fn since(self, before: Traffic) -> Traffic {
        Traffic {
            operations: self.operations - before.operations,
            to_device: self.to_device - before.to_device,
            to_host: self.to_host - before.to_host,
        }
    }
}

/// Counts work that is handed over.
pub(crate) fn hand_over(n_operations: u64) {
    OPERATIONS.fetch_add(n_operations, Relaxed);
}

/// Counts a copy to the host that is made elsewhere.
pub(crate) fn wait() {
    TO_HOST.fetch_add(1, Relaxed);
}

/// Copies a tensor of the host to a device.
pub(crate) fn to_device(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    TO_DEVICE.fetch_add(1, Relaxed);
    if !device.is_cuda() || tensor.device() != Device::Cpu {
        return tensor.f_to_device(device);
    }
    // From memory that the card reads by itself; libtorch gives it to nobody before it has.
    let pinned = tensor.f_contiguous()?.f_pin_memory(device)?;
    pinned.f_to_dtype_layout((pinned.kind(), device), true, false)
}

/// Copies numbers to a device.
pub(crate) fn upload<T: tch::kind::Element>(
    values: &[T],
    device: Device,
) -> Result<Tensor, TchError> {
    to_device(&Tensor::f_from_slice(values)?, device)
}

/// Copies a tensor of a device to the host, in f32.
pub(crate) fn to_host(tensor: &Tensor) -> Result<Tensor, TchError> {
    to_host_as_it_is(tensor)?.f_to_kind(Kind::Float)
}

/// Copies a tensor of a device to the host.
pub(crate) fn to_host_as_it_is(tensor: &Tensor) -> Result<Tensor, TchError> {
    wait();
    tensor.f_to_device(Device::Cpu)
}
