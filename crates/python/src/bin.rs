//! `pfc.open_bin`: verification packs.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyArray3, PyArray4};
use pfc_binpack::Pack;
use pfc_image::ImageSize;
use pyo3::{
    prelude::*,
    types::{PyAny, PyBytes, PyDict},
};

use crate::{
    failure::Failure,
    images::{Images, batch_of_first_size, decode_sized, number, numbers, one, size_of},
    opened::Opened,
    work,
};

/// A verification pack as InsightFace publishes them (lfw.bin, cfp_fp.bin, agedb_30.bin); `open_bin`
/// opens one.
///
/// It holds 2 * P images; images 2 * i and 2 * i + 1 are pair i, and issame[i] says whether they show
/// one person. len() is the number of images; pack[i] is an array of uint8 of shape (H, W, 3), red
/// first. Nothing in the pickle is run. The encoded images are in memory, 70 MB for lfw.bin.
#[pyclass(module = "pfc", subclass, frozen, name = "Bin")]
#[derive(Debug)]
pub struct Bin {
    pack: Arc<Pack>,
    opened: Opened,
}

impl Images for Pack {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn size(&self, number: usize) -> Result<ImageSize, Failure> {
        size_of(&self.images[number]).map_err(|failure| failure.context(&format!("image {number}")))
    }

    fn decode(&self, number: usize, size: ImageSize, rgb: &mut [u8]) -> Result<(), Failure> {
        decode_sized(&self.images[number], size, rgb)
            .map_err(|failure| failure.context(&format!("image {number}")))
    }
}

#[pymethods]
impl Bin {
    #[new]
    #[pyo3(signature = (path, *, threads=None))]
    fn new(py: Python<'_>, path: PathBuf, threads: Option<usize>) -> PyResult<Bin> {
        let opened = Opened::new(path, threads)?;
        let pack = work::inline(py, || Ok(Pack::read(&opened.path)?))?;
        Ok(Bin { pack: Arc::new(pack), opened })
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<((PathBuf,), Bound<'py, PyDict>)> {
        Ok(((self.opened.path.clone(),), self.opened.named(py)?))
    }

    fn __repr__(&self) -> String {
        format!("<pfc.Bin {}: {} pairs>", self.opened.path.display(), self.pack.same.len())
    }

    fn __len__(&self) -> usize {
        self.pack.images.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Bound<'py, PyArray3<u8>>> {
        one(py, &*self.pack, number("image", index, self.pack.images.len())?)
    }

    /// Whether each pair shows one person: an array of bool of shape (P,).
    #[getter]
    fn issame<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.pack.same.clone().into_pyarray(py)
    }

    /// The file that it was opened from.
    #[getter]
    fn path(&self) -> PathBuf {
        self.opened.path.clone()
    }

    /// The encoded image, JPEG or PNG as a rule.
    fn bytes<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Bound<'py, PyBytes>> {
        let number = number("image", index, self.pack.images.len())?;
        Ok(PyBytes::new(py, &self.pack.images[number]))
    }

    /// Decodes several images of one size in threads; see Dataset.batch.
    #[pyo3(signature = (indices, out=None, *, layout="nhwc"))]
    fn batch<'py>(
        &self,
        py: Python<'py>,
        indices: &Bound<'py, PyAny>,
        out: Option<Bound<'py, PyAny>>,
        layout: &str,
    ) -> PyResult<Bound<'py, PyArray4<u8>>> {
        let numbers = numbers("image", indices, self.pack.images.len())?;
        batch_of_first_size(py, &*self.pack, &numbers, layout, self.opened.threads(py)?, out)
    }

    /// All images of the pack, which have one size: an array of uint8 of shape (2 * P, H, W, 3), or
    /// (2 * P, 3, H, W) with layout="nchw". Of 12,000 faces of 112x112 it takes 450 MB.
    #[pyo3(signature = (out=None, *, layout="nhwc"))]
    fn images<'py>(
        &self,
        py: Python<'py>,
        out: Option<Bound<'py, PyAny>>,
        layout: &str,
    ) -> PyResult<Bound<'py, PyArray4<u8>>> {
        let numbers: Vec<usize> = (0..self.pack.images.len()).collect();
        batch_of_first_size(py, &*self.pack, &numbers, layout, self.opened.threads(py)?, out)
    }
}
