//! What a state dict's pickle may import.

use crate::Dtype;

/// A name that may be imported, with a meaning written here. Nothing is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: a view of a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: a tensor that learns.
    RebuildParameter,
    /// `torch.Size`: a tuple.
    Size,
    /// `torch.device`, of no interest here.
    Device,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
}

impl Global {
    pub(crate) fn named(module: &str, name: &str) -> Option<Global> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
                Some(Global::RebuildTensor)
            }
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
            ("torch", "Size") => Some(Global::Size),
            ("torch", "device") => Some(Global::Device),
            ("torch", storage) => Dtype::of_storage(storage).map(Global::Storage),
            _ => None,
        }
    }
}
