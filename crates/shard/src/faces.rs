//! A data set in the order of training.

use pfc_image::{ImageError, decode_rgb, mirror_rgb};

use crate::{Dataset, Face, Place, ShardError, Share};

/// Rows for which the system is asked ahead of their use. At 15,000 images a second it is what a
/// disk has 17 ms for; of 10 kB each they are 2.5 MB.
const ROWS_AHEAD: usize = 256;

/// The faces of one rank's share of an epoch, in order; see [`Dataset::faces`].
#[derive(Debug, Clone)]
pub struct Faces<'a> {
    dataset: &'a Dataset,
    share: Share,
    /// Runs ahead of `share`, asking for rows.
    scout: Share,
    /// By how many places it is ahead.
    n_ahead: usize,
    n_ahead_max: usize,
}

/// One face and where in the epoch it comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visit<'a> {
    /// Position, row, and whether to mirror.
    pub place: Place,
    /// The row, borrowed from the memory map.
    pub face: Face<'a>,
}

impl Dataset {
    /// The faces at the places of `share`, in order. Asks the system for rows ahead of their use, so
    /// that a disk or network reads while the caller works.
    ///
    /// Several threads take a share each, say `order.share(start, thread, n_threads)`.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pfc_shard::{Dataset, EpochOrder};
    ///
    /// let dataset = Dataset::open("data".as_ref())?;
    /// let order = EpochOrder::new(dataset.len(), 1, 0);
    /// let mut pixels = vec![0; dataset.manifest().image_size.rgb_bytes()];
    /// for visit in dataset.faces(order.share(0, 0, 1)) {
    ///     let visit = visit?;
    ///     visit.decode_rgb(&mut pixels)?; // mirrored where the place says so
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn faces(&self, share: Share) -> Faces<'_> {
        let scout = share.clone();
        Faces { dataset: self, share, scout, n_ahead: 0, n_ahead_max: ROWS_AHEAD }
    }
}

impl Faces<'_> {
    /// Asks for rows `n` places ahead; 0 never asks, which is best where all is in memory.
    #[must_use]
    pub fn ahead(self, n: usize) -> Self {
        Faces { n_ahead_max: n, ..self }
    }

    fn ask_ahead(&mut self) {
        while self.n_ahead < self.n_ahead_max {
            match self.scout.next() {
                Some(place) => self.dataset.will_need(place.row),
                // Nothing is left to ask for.
                None => self.n_ahead_max = 0,
            }
            self.n_ahead += 1;
        }
    }
}

impl<'a> Iterator for Faces<'a> {
    /// An error is that of its row; the next item goes on behind it.
    type Item = Result<Visit<'a>, ShardError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ask_ahead();
        let place = self.share.next()?;
        self.n_ahead = self.n_ahead.saturating_sub(1);
        Some(self.dataset.get(place.row).map(|face| Visit { place, face }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.share.size_hint()
    }
}

impl ExactSizeIterator for Faces<'_> {}

impl Visit<'_> {
    /// Decodes into `out` as [`decode_rgb`] does, and mirrors left to
    /// right where the place says so.
    ///
    /// # Errors
    ///
    /// [`ImageError`]; `out` then holds unspecified pixels.
    pub fn decode_rgb(&self, out: &mut [u8]) -> Result<(), ImageError> {
        decode_rgb(self.face.image, self.face.size(), out)?;
        if self.place.mirror {
            mirror_rgb(out, self.face.width.into());
        }
        Ok(())
    }
}
