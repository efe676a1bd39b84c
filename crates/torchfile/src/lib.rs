//! PyTorch's state dict files: what `torch.save(model.state_dict(), path)` writes.
//!
//! [`StateFile`] reads both formats, the zip archive of PyTorch 1.6 and later and the older bare
//! pickles, and runs nothing in them: a whitelist names the instructions and callables that are
//! known. [`StateWriter`] writes archives that `torch.load` reads with `weights_only=True`: a state dict, or
//! a larger [`Object`] such as a trainer's checkpoint.
//!
//! Memory is bounded by the file: a pickle by 64 MiB, a tensor by its storage, all tensors together by
//! four times the file.

mod archive;
mod dtype;
mod error;
mod global;
mod layout;
mod legacy;
mod machine;
mod object;
mod state_dict;
mod state_file;
mod value;
mod writer;

pub use dtype::Dtype;
pub use error::TorchFileError;
pub use object::{Object, StateEntry};
pub use state_file::{StateFile, TensorInfo, is_torchscript};
pub use writer::StateWriter;
