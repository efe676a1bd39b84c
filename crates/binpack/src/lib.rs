//! `InsightFace`'s verification packs: `.bin` files that hold a pickled `(images, issame)`.
//!
//! Images are encoded (JPEG or PNG), as byte strings or numpy arrays; images 2i and 2i+1 are pair i.
//! [`Pack`] reads every pickle dialect such files come in, and runs nothing in them: a whitelist
//! names the instructions and callables that are known. [`PackWriter`] writes packs that Python's
//! own `pickle` loads.

mod error;
mod machine;
mod numpy;
mod pack;
pub mod pickle;
mod value;
mod writer;

pub use error::PackError;
pub use pack::Pack;
pub use writer::{Dialect, PackWriter};
