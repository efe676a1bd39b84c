//! ONNX models: their files, and embedding with them through onnxruntime.
//!
//! An [`OnnxModel`] takes aligned 112×112 faces and gives embeddings, whatever size, channel order and
//! normalisation its network wants: these are measured ([`Account`] says how) or stated by the user
//! ([`InputOptions`]). The runtime is a library that is looked for when the first model is opened
//! ([`runtime`]); nothing links against it, and nothing here knows libtorch.

mod account;
mod biases;
mod decide;
mod declared;
mod error;
mod examine;
mod external;
mod faces;
mod file;
mod flat;
pub mod foreign;
mod front;
#[doc(hidden)]
pub mod fuzzing;
mod input;
mod model;
mod nan;
mod network;
mod outputs;
mod pictures;
mod pixels;
pub mod proto;
mod provider;
mod range;
pub mod runtime;
mod statistics;
mod wire;

pub use account::Account;
pub use error::OnnxError;
pub use input::{ChannelOrder, FACE_BYTES, FACE_SIDE, InputOptions, InputSpec, Layout, Origin};
pub use model::{OnnxModel, OpenOptions};
pub use pictures::{DeviceChoice, PICTURE_SIDE_MAX, PictureNetwork, Tensor, has_cuda};
pub use pixels::mirrored;
pub use provider::{Device, Provider};
pub use statistics::{MeasuredInput, Normalisation, measured_input};

/// Keys of the metadata in which exported models state what they want; values are texts.
pub mod metadata {
    /// `RGB` or `BGR`.
    pub const CHANNELS: &str = "pfc.channels";
    /// One number, or three in the order of the channels.
    pub const MEAN: &str = "pfc.mean";
    /// As the mean.
    pub const STD: &str = "pfc.std";
    /// The backbone's name, for people.
    pub const NETWORK: &str = "pfc.network";
}
