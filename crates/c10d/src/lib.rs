//! Process groups of libtorch's c10d: the engine that PyTorch itself runs on, without Python.
//!
//! A process learns its place from the environment ([`Rendezvous::from_env`]), joins the others
//! ([`ProcessGroup::join`]) and exchanges tensors with them: Gloo carries those in host memory, NCCL
//! those on CUDA devices. [`Reducer`] sums the gradients of a backward pass while it runs.
//!
//! Every rank of a group has to call the same operations in the same order. A rank that cannot go on
//! says so with [`ProcessGroup::abort`], and the operations of the others then fail with its reason. A
//! rank whose process ends fails them too, with its number. Both take less than a second, also while
//! ranks still meet. A rank that hangs fails them after the group's timeout and is named; a rank whose
//! machine loses power fails them after a minute. Any such failure is final for the group.
//!
//! A wait in which ranks still meet ends within a second when the program is asked to stop
//! ([`GroupOptions::asked_to_stop`]), and the others are told. So does every other wait until
//! [`ProcessGroup::stop_between_operations`] is called.
//!
//! Modules import downwards only: `group` and `reducer` use `liveness`, which uses `rendezvous`.

mod compute;
mod error;
mod ffi;
mod group;
mod liveness;
mod patience;
mod reducer;
mod rendezvous;

pub use compute::{Compute, current_stream};
pub use error::C10dError;
pub use group::{GroupOptions, Pending, ProcessGroup, Reduce, device_id, nccl_available};
pub use reducer::Reducer;
pub use rendezvous::{Node, Rendezvous, spawn};
