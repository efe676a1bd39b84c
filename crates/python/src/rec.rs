//! `pfc.open_rec`: RecordIO files.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyArray3, PyArray4};
use pfc_image::ImageSize;
use pfc_recordio::{RecordFile, RecordPaths};
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyAny, PyBytes, PyDict},
};
use rayon::prelude::*;

use crate::{
    failure::Failure,
    images::{Images, batch_of_first_size, decode_sized, number, numbers, one, size_of},
    opened::Opened,
    work,
};

/// The face images of a RecordIO file as MXNet and InsightFace write it (train.rec, train.idx);
/// `open_rec` opens one.
///
/// len() is the number of images; rec[i] is (image, label), image an array of uint8 of shape (H, W, 3),
/// red first, and label an int. Images are numbered from 0 in the order of InsightFace's
/// MXFaceDataset: by their keys where the file has records of identities, else as the index has them.
/// Records that hold no image do not count. It can be pickled.
#[pyclass(module = "pfc", subclass, frozen, name = "Rec")]
pub struct Rec {
    records: Arc<RecordFile>,
    opened: Opened,
    labels: PyOnceLock<Py<PyArray1<i64>>>,
}

impl Images for RecordFile {
    fn len(&self) -> usize {
        self.n_images() as usize
    }

    fn size(&self, number: usize) -> Result<ImageSize, Failure> {
        let record = self.image(number as u64)?;
        size_of(&record.image).map_err(|failure| failure.context(&format!("image {number}")))
    }

    fn decode(&self, number: usize, size: ImageSize, rgb: &mut [u8]) -> Result<(), Failure> {
        let record = self.image(number as u64)?;
        decode_sized(&record.image, size, rgb)
            .map_err(|failure| failure.context(&format!("image {number}")))
    }
}

impl Rec {
    fn number(&self, index: i64) -> Result<u64, Failure> {
        Ok(number("image", index, Images::len(&*self.records))? as u64)
    }

    fn label(&self, number: u64) -> Result<i64, Failure> {
        Ok(self.records.image(number)?.label as i64)
    }
}

#[pymethods]
impl Rec {
    #[new]
    #[pyo3(signature = (path, *, threads=None))]
    fn new(py: Python<'_>, path: PathBuf, threads: Option<usize>) -> PyResult<Rec> {
        let opened = Opened::new(path, threads)?;
        let path = &opened.path;
        let records = work::released(py, || match RecordPaths::find(path) {
            Some(paths) => Ok(paths.open()?),
            None => Err(Failure::missing(
                format!("{}: no .rec file, and no folder with train.rec", path.display()),
                "give the train.rec that MXNet wrote, or the folder that holds it",
                path.clone(),
            )),
        })?;
        Ok(Rec { records: Arc::new(records), opened, labels: PyOnceLock::new() })
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<((PathBuf,), Bound<'py, PyDict>)> {
        Ok(((self.opened.path.clone(),), self.opened.named(py)?))
    }

    fn __repr__(&self) -> String {
        format!("<pfc.Rec {}: {} images>", self.opened.path.display(), self.records.n_images())
    }

    fn __len__(&self) -> usize {
        Images::len(&*self.records)
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: i64,
    ) -> PyResult<(Bound<'py, PyArray3<u8>>, i64)> {
        let number = self.number(index)?;
        Ok((one(py, &*self.records, number as usize)?, self.label(number)?))
    }

    /// The label of every image, an array of int64 of shape (len(rec),). It is read once, from every
    /// record's header, and kept.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let labels = self.labels.get_or_try_init(py, || -> PyResult<_> {
            let labels: Vec<i64> = work::released(py, || {
                let labels = (0..self.records.n_images()).into_par_iter().map(|i| self.label(i));
                labels.collect::<Vec<_>>().into_iter().collect()
            })?;
            Ok(labels.into_pyarray(py).unbind())
        })?;
        Ok(labels.bind(py).clone())
    }

    /// The file or folder that it was opened from.
    #[getter]
    fn path(&self) -> PathBuf {
        self.opened.path.clone()
    }

    /// Number of records, those that hold no image included.
    #[getter]
    fn num_records(&self) -> u64 {
        self.records.n_records()
    }

    /// What should be known about the file, a text each; often nothing.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.records.notes().iter().map(ToString::to_string).collect()
    }

    /// The encoded image as the record holds it.
    fn bytes<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Bound<'py, PyBytes>> {
        let record = self.records.image(self.number(index)?).map_err(Failure::from)?;
        Ok(PyBytes::new(py, &record.image))
    }

    /// The key of an image in the index.
    fn key(&self, index: i64) -> PyResult<u64> {
        Ok(self.records.image(self.number(index)?).map_err(Failure::from)?.key)
    }

    /// Any record by its position in the index, 0 to num_records - 1, as (key, labels, content): labels
    /// is a list of floats as they are stored, and content the bytes after the header, often none.
    fn record<'py>(
        &self,
        py: Python<'py>,
        position: u64,
    ) -> PyResult<(u64, Vec<f32>, Bound<'py, PyBytes>)> {
        let record = self.records.record(position).map_err(Failure::from)?;
        let labels = record.header.labels.as_slice().to_vec();
        Ok((record.key, labels, PyBytes::new(py, &record.image)))
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
        let numbers = numbers("image", indices, Images::len(&*self.records))?;
        batch_of_first_size(py, &*self.records, &numbers, layout, self.opened.threads(py)?, out)
    }
}
