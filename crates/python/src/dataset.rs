//! `pfc.Dataset`.

use std::{path::PathBuf, sync::Arc};

use numpy::{IntoPyArray, PyArray1, PyArray3, PyArray4};
use pfc_findings::{Reading, View};
use pfc_image::ImageSize;
use pfc_shard::EpochOrder;
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyAny, PyBytes, PyDict, PyList, PyTuple},
};
use rayon::prelude::*;

use crate::{
    batches::{Batches, Job},
    failure::Failure,
    images::{Form, Images, Layout, batch, number, numbers, one},
    opened::Opened,
    order::{Order, Plan, Rank},
    work,
};

/// The image and the label of a row.
type Item<'py> = (Bound<'py, PyArray3<u8>>, i64);

/// A data set that `pfc-ingest pack` wrote, as decisions beside it leave it.
///
/// Rows are numbered from 0 and labels from 0 without gaps; rows that cleaning left out are not
/// there. It is map-style, as torch.utils.data.DataLoader and DistributedSampler take it: len(), and
/// ds[i] for (image, label), image an array of uint8 of shape (H, W, 3), red first, and label an int.
/// Opening maps the files and reads nothing of them: it takes milliseconds. It can be pickled; the
/// copy opens the folder again.
///
/// path: the folder with dataset.json.
/// as_packed: read it as it was packed, whatever was decided. Otherwise, where decisions change
/// anything, a DecisionsWarning says what.
/// threads: that decode a batch; one per core by default, and one in a worker process (as those of a
/// DataLoader), where the processes share the cores.
///
/// Raises PfcFileNotFoundError if there is no data set, PfcValueError if it is damaged.
#[pyclass(module = "pfc", subclass, frozen, name = "Dataset")]
pub struct Dataset {
    view: Arc<View>,
    opened: Opened,
    as_packed: bool,
    labels: PyOnceLock<Py<PyArray1<i64>>>,
    names: PyOnceLock<Py<PyTuple>>,
}

impl Images for View {
    fn len(&self) -> usize {
        View::len(self) as usize
    }

    fn size(&self, _: usize) -> Result<ImageSize, Failure> {
        Ok(self.manifest().image_size)
    }

    fn decode(&self, number: usize, _: ImageSize, rgb: &mut [u8]) -> Result<(), Failure> {
        let place = number as u64;
        Ok(self.get(place)?.decode(self.row(place), rgb)?)
    }
}

impl Dataset {
    fn number(&self, index: i64) -> Result<usize, Failure> {
        number("row", index, Images::len(&*self.view))
    }

    fn form(&self, py: Python<'_>, layout: &str) -> PyResult<Form> {
        let (size, layout) = (self.view.manifest().image_size, Layout::named(layout)?);
        Ok(Form { size, layout, threads: self.opened.threads(py)? })
    }

    fn training_order(&self, seed: u64, epoch: u64) -> EpochOrder {
        EpochOrder::new(self.view.len(), seed, epoch)
    }

    /// What `of` says of each of a rank's positions from `start` to `stop`.
    fn along<T: Send>(
        &self,
        py: Python<'_>,
        (seed, epoch): (u64, u64),
        rank: Rank,
        (start, stop): (u64, Option<u64>),
        of: impl Fn(&EpochOrder, u64) -> T + Sync,
    ) -> PyResult<Vec<T>> {
        let order = self.training_order(seed, epoch);
        let stop = stop.unwrap_or(u64::MAX).min(rank.share(order.len()));
        let item = |k: u64| of(&order, rank.position(k));
        work::released(py, || Ok((start.min(stop)..stop).into_par_iter().map(item).collect()))
    }
}

#[pymethods]
impl Dataset {
    #[new]
    #[pyo3(
        signature = (path, as_packed=false, *, threads=None, is_copy=false),
        text_signature = "(path, as_packed=False, *, threads=None)"
    )]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        as_packed: bool,
        threads: Option<usize>,
        is_copy: bool,
    ) -> PyResult<Dataset> {
        let opened = Opened::new(path, threads)?;
        let reading = Reading::from_switch(as_packed);
        let view = work::released(py, || Ok(View::open(&opened.path, reading)?))?;
        // Of a copy, as in a worker, it was said before.
        if let Some(notice) = view.notice("as_packed=True")
            && !is_copy
        {
            let text = format!("{}: {notice}", opened.path.display());
            let category = py.import("pfc._errors")?.getattr("DecisionsWarning")?;
            py.import("warnings")?.call_method1("warn", (text, category, 1))?;
        }
        let (labels, names) = (PyOnceLock::new(), PyOnceLock::new());
        Ok(Dataset { view: Arc::new(view), opened, as_packed, labels, names })
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<((PathBuf, bool), Bound<'py, PyDict>)> {
        let named = self.opened.named(py)?;
        named.set_item("is_copy", true)?;
        Ok(((self.opened.path.clone(), self.as_packed), named))
    }

    fn __repr__(&self) -> String {
        let (n, n_classes) = (self.view.len(), self.view.n_identities());
        format!("<pfc.Dataset {}: {n} images, {n_classes} classes>", self.opened.path.display())
    }

    fn __len__(&self) -> usize {
        Images::len(&*self.view)
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Item<'py>> {
        let number = self.number(index)?;
        let image = one(py, &*self.view, number)?;
        let face = self.view.get(number as u64).map_err(Failure::from)?;
        Ok((image, face.label.into()))
    }

    /// The items of several rows at once, which a DataLoader asks for: a list of (image, label), the
    /// images being parts of one array that threads decode.
    fn __getitems__<'py>(
        &self,
        py: Python<'py>,
        indices: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let numbers = numbers("row", indices, Images::len(&*self.view))?;
        let images = batch(py, &*self.view, &numbers, None, self.form(py, "nhwc")?, None)?;
        let items = PyList::empty(py);
        for (i, &number) in numbers.iter().enumerate() {
            let label = self.view.get(number as u64).map_err(Failure::from)?.label;
            items.append((images.get_item(i)?, label))?;
        }
        Ok(items)
    }

    /// The label of every row, an array of int64 of shape (len(ds),) that cannot be written. It is
    /// read once, 4 bytes a row, and kept, 8 bytes a row.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let labels = self.labels.get_or_try_init(py, || -> PyResult<_> {
            let labels = work::released(py, || {
                let labels = self.view.labels()?;
                Ok(labels.into_par_iter().map(i64::from).collect::<Vec<i64>>())
            })?;
            let labels = labels.into_pyarray(py);
            labels.call_method1("setflags", (false,))?;
            Ok(labels.unbind())
        })?;
        Ok(labels.bind(py).clone())
    }

    /// Number of classes (people); every label is below it.
    #[getter]
    fn num_classes(&self) -> u32 {
        self.view.n_identities()
    }

    /// The name of each class, a tuple of num_classes texts; of people that were joined the first.
    #[getter]
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let names = self.names.get_or_try_init(py, || -> PyResult<_> {
            let people = self.view.people();
            let names = (0..people.len()).map(|label| people.name(label));
            Ok(PyTuple::new(py, names.collect::<Vec<&str>>())?.unbind())
        })?;
        Ok(names.bind(py).clone())
    }

    /// Height and width of every image in pixels.
    #[getter]
    fn image_size(&self) -> (u16, u16) {
        let ImageSize { width, height } = self.view.manifest().image_size;
        (height, width)
    }

    /// The folder that it was opened from.
    #[getter]
    fn path(&self) -> PathBuf {
        self.opened.path.clone()
    }

    /// Whether it is read as it was packed.
    #[getter]
    fn as_packed(&self) -> bool {
        self.as_packed
    }

    /// The encoded image of a row, a whole JPEG file.
    fn bytes<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Bound<'py, PyBytes>> {
        let face = self.view.get(self.number(index)? as u64).map_err(Failure::from)?;
        Ok(PyBytes::new(py, face.image))
    }

    /// Where the image of a row came from: a path below what was packed, or the key of a record.
    fn source(&self, index: i64) -> PyResult<String> {
        let face = self.view.get(self.number(index)? as u64).map_err(Failure::from)?;
        Ok(face.source.to_owned())
    }

    /// The number of a row in the data set as it was packed, which `pfc-ingest show --rows` takes.
    fn row(&self, index: i64) -> PyResult<u64> {
        Ok(self.view.row(self.number(index)? as u64))
    }

    /// Decodes several images in threads, while other Python threads run.
    ///
    /// indices: N whole numbers, in a list, an array or a tensor; negative ones count from the end.
    /// out: a contiguous array of uint8 to decode into; by default a new one.
    /// layout: "nhwc" for the shape (N, H, W, 3), "nchw" for (N, 3, H, W).
    /// mirror: N booleans; where true, the image is mirrored left to right.
    ///
    /// Returns the array, out if it was given. What it holds after an exception is not specified.
    #[pyo3(signature = (indices, out=None, *, layout="nhwc", mirror=None))]
    fn batch<'py>(
        &self,
        py: Python<'py>,
        indices: &Bound<'py, PyAny>,
        out: Option<Bound<'py, PyAny>>,
        layout: &str,
        mirror: Option<Vec<bool>>,
    ) -> PyResult<Bound<'py, PyArray4<u8>>> {
        let numbers = numbers("row", indices, Images::len(&*self.view))?;
        if let Some(mirror) = &mirror
            && mirror.len() != numbers.len()
        {
            let message = format!("mirror has {} values for {} rows", mirror.len(), numbers.len());
            return Err(Failure::value(message, "give one boolean a row").into());
        }
        let form = self.form(py, layout)?;
        batch(py, &*self.view, &numbers, mirror.as_deref(), form, out)
    }

    /// The rows in the order in which pfc-train visits them: an array of int64.
    ///
    /// Position p of an epoch is the same row for every number of ranks; rank takes the positions
    /// rank, rank + world, rank + 2 * world, ….
    ///
    /// seed, epoch: whole numbers from 0 below 2**64; epochs count from 0.
    /// rank, world: this process and how many there are.
    /// start, stop: which of the rank's rows, as in a slice of the whole, for orders too long to hold:
    /// 8 bytes a row, and some 50 ns of one core.
    #[pyo3(signature = (seed, epoch, rank=0, world=1, *, start=0, stop=None))]
    #[allow(clippy::too_many_arguments)]
    fn order<'py>(
        &self,
        py: Python<'py>,
        seed: u64,
        epoch: u64,
        rank: u64,
        world: u64,
        start: u64,
        stop: Option<u64>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let row = |order: &EpochOrder, position| order.row_at(position) as i64;
        let rank = Rank::new(rank, world)?;
        let rows = self.along(py, (seed, epoch), rank, (start, stop), row)?;
        Ok(rows.into_pyarray(py))
    }

    /// Whether pfc-train mirrors the image at each place of `order`: an array of bool.
    #[pyo3(signature = (seed, epoch, rank=0, world=1, *, start=0, stop=None))]
    #[allow(clippy::too_many_arguments)]
    fn mirrors<'py>(
        &self,
        py: Python<'py>,
        seed: u64,
        epoch: u64,
        rank: u64,
        world: u64,
        start: u64,
        stop: Option<u64>,
    ) -> PyResult<Bound<'py, PyArray1<bool>>> {
        let is_mirrored = |order: &EpochOrder, position| order.mirrors(position);
        let rank = Rank::new(rank, world)?;
        let mirrors = self.along(py, (seed, epoch), rank, (start, stop), is_mirrored)?;
        Ok(mirrors.into_pyarray(py))
    }

    /// Iterates over batches that threads decode ahead of their use, as (images, labels).
    ///
    /// batch_size: images of a batch on this rank. Batch b of all ranks together is step b of a run of
    /// pfc-train with a batch size of batch_size * world.
    /// seed: of the order and of mirroring; None reads the rows as they are stored.
    /// epoch, rank, world: as in `order`.
    /// drop_last: leave out what does not fill a batch on every rank, so that all ranks have as many
    /// batches, as collective operations need it. Otherwise a rank may have one more than another.
    /// mirror: mirror half of the images, those that pfc-train mirrors; needs a seed.
    /// layout: "nhwc" for images of shape (N, H, W, 3), "nchw" for (N, 3, H, W).
    /// start: the first batch, from 0, to go on from there.
    /// ahead: batches that wait to be taken, at most; one more per thread is being made.
    #[pyo3(signature = (batch_size, *, seed=None, epoch=0, rank=0, world=1, drop_last=false,
        mirror=false, layout="nhwc", start=0, ahead=4))]
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)]
    fn batches(
        &self,
        py: Python<'_>,
        batch_size: u64,
        seed: Option<u64>,
        epoch: u64,
        rank: u64,
        world: u64,
        drop_last: bool,
        mirror: bool,
        layout: &str,
        start: u64,
        ahead: usize,
    ) -> PyResult<Batches> {
        if batch_size == 0 {
            return Err(Failure::value("batches of 0 images", "give a size of 1 or more").into());
        }
        let order = match seed {
            Some(seed) => Order::Training(self.training_order(seed, epoch)),
            None if mirror => {
                let message = "mirror without a seed, which decides what is mirrored";
                return Err(Failure::value(message, "give seed=").into());
            }
            None => Order::Stored(self.view.len()),
        };
        let plan = Plan { order, rank: Rank::new(rank, world)?, batch_size, drop_last };
        let form = self.form(py, layout)?;
        let job = Job { view: Arc::clone(&self.view), plan, form, mirror };
        Ok(Batches::start(&job, start, ahead)?)
    }
}
