//! Process groups of libtorch's c10d: the engine that PyTorch itself runs on, without Python.
//!
//! A process learns its place from the environment ([`Rendezvous::from_env`]), joins the others
//! ([`ProcessGroup::join`]) and exchanges tensors with them: Gloo carries those in host memory, NCCL
//! those on CUDA devices. [`Reducer`] sums the gradients of a backward pass while it runs.
//!
//! Every rank of a group has to call the same operations in the same order. One that cannot go on
//! says so with [`ProcessGroup::abort`], and the others' operations then fail with its reason; one
//! that ends without a word fails them too, with its number. Both take less than a second, in the
//! middle of the rendezvous too. One that hangs fails them after the group's timeout, and one whose
//! machine loses power after a minute. Any such failure is final for the group.

mod compute;
mod error;
mod ffi;
mod group;
mod liveness;
pub mod local;
mod reducer;
mod rendezvous;
mod slurm;
mod store;

pub use compute::Compute;
pub use error::C10dError;
pub use group::{GroupOptions, Pending, ProcessGroup, Reduce, nccl_available};
pub use reducer::Reducer;
pub use rendezvous::Rendezvous;
