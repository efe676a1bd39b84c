//! Encoded images to arrays of pixels, one by one and in batches.

// N = images, H = height, W = width.

use numpy::{
    IntoPyArray, PyArray1, PyArray3, PyArray4, PyArrayMethods, PyUntypedArrayMethods,
    ndarray::{Array3, Array4},
};
use pfc_image::{ImageSize, Limits, Pixels, decode, decode_rgb, mirror_rgb};
use pyo3::{prelude::*, types::PyAny};
use rayon::prelude::*;

use crate::{failure::Failure, work};

/// Images that are decoded between two looks at whether Ctrl-C was pressed.
const PIECE: usize = 1024;

/// A collection of encoded images, numbered from 0.
pub trait Images: Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// The size of an image. It is that of all of them where the collection has one size.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn size(&self, number: usize) -> Result<ImageSize, Failure>;

    /// Decodes an image that must have `size`, to rows of red, green, blue.
    ///
    /// # Errors
    ///
    /// If it cannot be read or decoded, or has another size.
    fn decode(&self, number: usize, size: ImageSize, rgb: &mut [u8]) -> Result<(), Failure>;
}

/// The order of the axes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[N, H, W, 3]`.
    Nhwc,
    /// `[N, 3, H, W]`.
    Nchw,
}

impl Layout {
    /// The layout of that name.
    ///
    /// # Errors
    ///
    /// For another name.
    pub fn named(name: &str) -> Result<Layout, Failure> {
        match name {
            "nhwc" => Ok(Layout::Nhwc),
            "nchw" => Ok(Layout::Nchw),
            _ => Err(Failure::value(
                format!("there is no layout `{}`", name.escape_debug()),
                "give \"nhwc\" or \"nchw\"",
            )),
        }
    }

    /// The shape of `n` images of `size`.
    pub fn shape(self, n: usize, size: ImageSize) -> [usize; 4] {
        let (height, width) = (size.height.into(), size.width.into());
        match self {
            Layout::Nhwc => [n, height, width, 3],
            Layout::Nchw => [n, 3, height, width],
        }
    }
}

/// How images are put into a batch.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// The size that all images have.
    pub size: ImageSize,
    /// The order of the axes.
    pub layout: Layout,
    /// Threads that decode.
    pub threads: usize,
}

impl Form {
    /// Decodes one image into its place in a batch.
    ///
    /// * `scratch`: room of the caller, which keeps it from call to call
    ///
    /// # Errors
    ///
    /// As [`Images::decode`].
    pub fn put(
        &self,
        images: &impl Images,
        number: usize,
        is_mirrored: bool,
        scratch: &mut Vec<u8>,
        out: &mut [u8],
    ) -> Result<(), Failure> {
        if self.layout == Layout::Nhwc {
            images.decode(number, self.size, out)?;
            if is_mirrored {
                mirror_rgb(out, self.size.width.into());
            }
            return Ok(());
        }
        scratch.resize(out.len(), 0);
        images.decode(number, self.size, scratch)?;
        if is_mirrored {
            mirror_rgb(scratch, self.size.width.into());
        }
        let (red, rest) = out.split_at_mut(out.len() / 3);
        let (green, blue) = rest.split_at_mut(red.len());
        let planes = red.iter_mut().zip(green).zip(blue);
        for (pixel, ((red, green), blue)) in scratch.as_chunks().0.iter().zip(planes) {
            [*red, *green, *blue] = *pixel;
        }
        Ok(())
    }

    /// Decodes images into `out`, on the pool that it is called on. The failure is that of the first
    /// image that has one.
    ///
    /// * `mirrored`: as many as `numbers`, or nothing
    fn put_all(
        &self,
        images: &impl Images,
        numbers: &[usize],
        mirrored: Option<&[bool]>,
        out: &mut [u8],
    ) -> Result<(), Failure> {
        let is_mirrored = |i: usize| mirrored.is_some_and(|mirrored| mirrored[i]);
        let n_bytes = self.size.rgb_bytes();
        let n_a_thread = numbers.len().div_ceil(self.threads.max(1)).max(1);
        let part = |(part, (numbers, out)): (usize, (&[usize], &mut [u8]))| {
            let mut scratch = Vec::new();
            let first = part * n_a_thread;
            for (i, (&number, out)) in numbers.iter().zip(out.chunks_exact_mut(n_bytes)).enumerate()
            {
                self.put(images, number, is_mirrored(first + i), &mut scratch, out)?;
            }
            Ok(())
        };
        if self.threads == 1 {
            return part((0, (numbers, out)));
        }
        let parts = numbers.par_chunks(n_a_thread).zip(out.par_chunks_mut(n_a_thread * n_bytes));
        let results: Vec<Result<(), Failure>> = parts.enumerate().map(part).collect();
        results.into_iter().collect()
    }
}

/// One image, `[H, W, 3]`.
///
/// # Errors
///
/// As [`Images::decode`].
pub fn one<'py>(
    py: Python<'py>,
    images: &impl Images,
    number: usize,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let pixels = work::inline(py, || {
        let size = images.size(number)?;
        let mut rgb = vec![0; size.rgb_bytes()];
        images.decode(number, size, &mut rgb)?;
        array(rgb, [size.height.into(), size.width.into(), 3], Array3::from_shape_vec)
    })?;
    Ok(pixels.into_pyarray(py))
}

/// A batch of images of one size, in a new array or in `out`.
///
/// # Errors
///
/// As [`Images::decode`]; a wrong `out`; whatever the handler of a signal raises.
pub fn batch<'py>(
    py: Python<'py>,
    images: &impl Images,
    numbers: &[usize],
    mirrored: Option<&[bool]>,
    form: Form,
    out: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray4<u8>>> {
    let shape = form.layout.shape(numbers.len(), form.size);
    let n_bytes = form.size.rgb_bytes();
    let fill = |pixels: &mut [u8]| -> PyResult<()> {
        for (i, numbers) in numbers.chunks(PIECE).enumerate() {
            let pixels = &mut pixels[i * PIECE * n_bytes..][..numbers.len() * n_bytes];
            let mirrored = mirrored.map(|mirrored| &mirrored[i * PIECE..][..numbers.len()]);
            let decode = || form.put_all(images, numbers, mirrored, pixels);
            match form.threads {
                1 => work::inline(py, decode)?,
                _ => work::released(py, decode)?,
            }
            py.check_signals()?;
        }
        Ok(())
    };
    let Some(out) = out else {
        let mut pixels = vec![0; numbers.len() * n_bytes];
        fill(&mut pixels)?;
        return Ok(array(pixels, shape, Array4::from_shape_vec)?.into_pyarray(py));
    };
    let out = checked_out(out, shape)?;
    let mut writable = out.try_readwrite().map_err(|error| {
        let hint = "give an array that may be written and that nothing else is writing to";
        PyErr::from(Failure::value(format!("out: {error}"), hint))
    })?;
    let pixels = writable.as_slice_mut().map_err(|_| not_contiguous())?;
    fill(pixels)?;
    drop(writable);
    Ok(out)
}

/// A batch whose size is that of its first image.
///
/// # Errors
///
/// As [`batch`]; for no images at all.
pub fn batch_of_first_size<'py>(
    py: Python<'py>,
    images: &impl Images,
    numbers: &[usize],
    layout: &str,
    threads: usize,
    out: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray4<u8>>> {
    let layout = Layout::named(layout)?;
    let Some(&first) = numbers.first() else {
        let message = "a batch of no images has no size";
        return Err(Failure::value(message, "give one number at least").into());
    };
    let size = work::inline(py, || images.size(first))?;
    let form = Form { size, layout, threads };
    batch(py, images, numbers, None, form, out)
}

fn checked_out<'py>(
    out: Bound<'py, PyAny>,
    shape: [usize; 4],
) -> Result<Bound<'py, PyArray4<u8>>, Failure> {
    let wanted = format!("a NumPy array of uint8 of shape {}", shown(&shape));
    let out = out.cast_into::<PyArray4<u8>>().map_err(|_| {
        Failure::value("out is no array of uint8 with four axes", format!("give {wanted}"))
    })?;
    if out.shape() != shape {
        let found = shown(out.shape());
        return Err(Failure::value(format!("out has the shape {found}"), format!("give {wanted}")));
    }
    if !out.is_c_contiguous() {
        return Err(not_contiguous());
    }
    Ok(out)
}

fn not_contiguous() -> Failure {
    Failure::value("out is not contiguous", "give an array as numpy.empty makes it")
}

fn shown(shape: &[usize]) -> String {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({})", sides.join(", "))
}

/// Pixels in their shape. The room was made by the shape, so that they fit.
fn array<S, A, E>(
    pixels: Vec<u8>,
    shape: S,
    shaped: impl FnOnce(S, Vec<u8>) -> Result<A, E>,
) -> Result<A, Failure> {
    shaped(shape, pixels).map_err(|_| Failure::other("internal error: a shape", "please report it"))
}

/// The size of an encoded image by its content.
///
/// # Errors
///
/// If it cannot be decoded.
pub fn size_of(bytes: &[u8]) -> Result<ImageSize, Failure> {
    size_of_pixels(&decode(bytes, Limits::DEFAULT)?)
}

fn size_of_pixels(pixels: &Pixels) -> Result<ImageSize, Failure> {
    let side = |pixels: u32| {
        u16::try_from(pixels).map_err(|_| {
            let message = format!("an image is {pixels} pixels wide or high");
            Failure::value(message, "sides of up to 65535 pixels are read")
        })
    };
    Ok(ImageSize { width: side(pixels.width)?, height: side(pixels.height)? })
}

/// Decodes an image of any format that must have `size`.
///
/// # Errors
///
/// If it cannot be decoded or has another size.
pub fn decode_sized(bytes: &[u8], size: ImageSize, rgb: &mut [u8]) -> Result<(), Failure> {
    if decode_rgb(bytes, size, rgb).is_ok() {
        return Ok(());
    }
    let pixels = decode(bytes, Limits::DEFAULT)?;
    let found = size_of_pixels(&pixels)?;
    if found != size {
        return Err(Failure::value(
            format!("it is {found} pixels, the first image of the batch {size}"),
            "an array holds images of one size: read them one by one",
        ));
    }
    rgb.copy_from_slice(&pixels.to_rgb());
    Ok(())
}

/// A number that Python gave, counted from the end if it is negative.
///
/// # Errors
///
/// `IndexError` for a number beyond the last.
pub fn number(what: &str, index: i64, len: usize) -> Result<usize, Failure> {
    let from_start = if index < 0 { index.saturating_add_unsigned(len as u64) } else { index };
    match usize::try_from(from_start) {
        Ok(number) if number < len => Ok(number),
        _ => Err(Failure::index(what, index, len)),
    }
}

/// The numbers in a list, an array, a tensor or whatever else NumPy makes an array of.
///
/// # Errors
///
/// For anything but whole numbers of one axis, and as [`number`].
pub fn numbers(what: &str, indices: &Bound<'_, PyAny>, len: usize) -> PyResult<Vec<usize>> {
    let py = indices.py();
    let array = py.import("numpy")?.call_method1("asarray", (indices,))?;
    let kind: String = array.getattr("dtype")?.getattr("kind")?.extract()?;
    let (n_axes, n): (usize, usize) =
        (array.getattr("ndim")?.extract()?, array.getattr("size")?.extract()?);
    if n_axes != 1 || (!matches!(&*kind, "i" | "u") && n > 0) {
        return Err(Failure::value(
            format!("the numbers of {what}s are no list of whole numbers"),
            "give whole numbers in a list or in an array of one axis",
        )
        .into());
    }
    let array = array.call_method1("astype", ("int64",))?;
    let array = array.cast_into::<PyArray1<i64>>()?;
    let array = array.try_readonly()?;
    let given = array.as_array();
    Ok(given.iter().map(|&index| number(what, index, len)).collect::<Result<_, Failure>>()?)
}
