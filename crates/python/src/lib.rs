//! The compiled half of the Python package `pfc`: its module `pfc._pfc`.
//!
//! The other half is `python/pfc`: the errors' classes, what arguments NumPy makes of what users give,
//! what the figures are called, and helpers for the torch that the user has. Nothing here knows torch.
//!
//! * `failure`: errors, first without Python and then as exceptions
//! * `work`: how everything is run: without the interpreter's lock, on threads that survive a fork, with
//!   Ctrl-C, and so that no panic goes on into Python
//! * `images`: encoded images to arrays, the same for all collections; `opened`: where a collection was opened
//! * `order`, `batches`, `dataset`: data sets; `rec`, `bin`: RecordIO and verification packs
//! * `metrics`: figures; `embedder`: ONNX models; `partial_fc`: the head of `pfc.torch.PartialFC`

// What Python sees has Python's docstrings, in which names stand without marks.
#![allow(clippy::doc_markdown)]

mod batches;
mod bin;
mod dataset;
mod embedder;
mod failure;
mod images;
mod metrics;
mod opened;
mod order;
mod partial_fc;
mod rec;
mod work;

/// The compiled half of pfc; import pfc instead.
#[pyo3::pymodule]
mod _pfc {
    #[pymodule_export]
    use crate::batches::Batches;
    #[pymodule_export]
    use crate::bin::Bin;
    #[pymodule_export]
    use crate::dataset::Dataset;
    #[pymodule_export]
    use crate::embedder::Embedder;
    #[pymodule_export]
    use crate::metrics::{ijb, nn, verification};
    #[pymodule_export]
    use crate::partial_fc::{Head, HeadGradient, HeadPass};
    #[pymodule_export]
    use crate::rec::Rec;
}
