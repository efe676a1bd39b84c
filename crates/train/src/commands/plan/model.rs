//! Memory, wire and time of a classification head, from its sizes.
//!
//! Counts of buffers are those of the published implementations; they were checked against the
//! memory that these report (see [`super::published`]). Times are rough: they take the share of a
//! card's peak that the published steps reached.

use serde::Serialize;

/// How the head is spread and trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Every rank holds all centres; their gradients are all-reduced.
    DataParallel,
    /// Each rank holds its share of the centres and all logits of it.
    ModelParallel,
    /// Partial FC of 2020: optimizer state of sampled rows alone.
    PfcV1,
    /// Partial FC of 2022: a dense gradient, every row moves in every step.
    PfcV2,
    /// Partial FC in pure half precision, as PLSC's static graph has it.
    PfcHalf,
    /// This program with rows of the given bytes.
    Pfc(Rows),
}

/// What this program keeps of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rows {
    /// Weight and momentum in f32.
    F32,
    /// Both in bf16.
    Bf16,
    /// Weight in bf16 and one number of state.
    RowWise,
}

impl Scheme {
    /// All, the published ones first.
    pub const ALL: [Scheme; 8] = [
        Scheme::DataParallel,
        Scheme::ModelParallel,
        Scheme::PfcV1,
        Scheme::PfcV2,
        Scheme::PfcHalf,
        Scheme::Pfc(Rows::F32),
        Scheme::Pfc(Rows::Bf16),
        Scheme::Pfc(Rows::RowWise),
    ];

    /// As tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::DataParallel => "data parallel",
            Scheme::ModelParallel => "model parallel",
            Scheme::PfcV1 => "Partial FC v1",
            Scheme::PfcV2 => "Partial FC v2",
            Scheme::PfcHalf => "Partial FC, pure fp16",
            Scheme::Pfc(Rows::F32) => "pfc f32",
            Scheme::Pfc(Rows::Bf16) => "pfc bf16",
            Scheme::Pfc(Rows::RowWise) => "pfc bf16, row-wise",
        }
    }

    /// The configuration that makes a run of this program such a scheme; none of other programs' schemes.
    pub fn settings(self) -> Option<&'static str> {
        match self.own_rows()? {
            Rows::F32 => Some(r#"head.weights = "f32", head.state = "f32""#),
            Rows::Bf16 => Some(r#"head.weights = "bf16", head.state = "bf16""#),
            Rows::RowWise => Some(
                r#"head.weights = "bf16", head.optimizer = { name = "row_adagrad" }, head.update = "sparse""#,
            ),
        }
    }

    /// Whether a step uses a share of the centres.
    pub fn samples(self) -> bool {
        !matches!(self, Scheme::DataParallel | Scheme::ModelParallel)
    }

    /// Whether this program runs it.
    pub fn is_ours(self) -> bool {
        self.own_rows().is_some()
    }

    /// What this program keeps of a row under it.
    pub(super) fn own_rows(self) -> Option<Rows> {
        match self {
            Scheme::Pfc(rows) => Some(rows),
            _ => None,
        }
    }
}

/// Sizes of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sizes {
    /// Identities C.
    pub identities: f64,
    /// Ranks k.
    pub ranks: f64,
    /// Images of one rank in a step.
    pub batch: f64,
    /// Width of an embedding.
    pub dim: f64,
    /// Share of the identities in a step, of schemes that sample.
    pub rate: f64,
}

/// What a card can do, as its maker states it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Card {
    /// TFLOP/s in f32.
    pub f32_tflops: f64,
    /// TFLOP/s in bf16 or fp16 with f32 sums.
    pub half_tflops: f64,
    /// GB/s of its memory.
    pub memory_gbs: f64,
    /// GB/s to another rank.
    pub wire_gbs: f64,
}

/// Logits-sized tensors alive at a time in the published implementations: 8 of f32 (products, the
/// clamped and the margined ones, exponentials, probabilities, and gradients of these).
const LOGITS_COPIES: f64 = 8.0;
/// The same of PLSC's fused operator, in half precision.
const LOGITS_COPIES_FUSED: f64 = 3.0;
/// Rows-sized tensors beside weight and momentum: gathered rows, their normalised form, its gradient.
const ROW_COPIES: f64 = 3.0;
/// What data parallelism adds: the gradient's bucket, its flattened copy, the optimizer's temporary.
const BUCKET_COPIES: f64 = 3.0;

/// Shares of a card's peak that the published steps reach.
const COMPUTE_SHARE: f64 = 0.45;
const MEMORY_SHARE: f64 = 0.33;

const F32: f64 = 4.0;
const HALF: f64 = 2.0;
/// Which class a row is of and when it last moved.
const ENTRY: f64 = 32.0;
/// That, and where it lies in memory.
const PLACE: f64 = ENTRY + 4.0;
/// Class and time of a row in a checkpoint.
const SAVED_ENTRY: f64 = 12.0;
/// What a save copies at a time: a share of the rows, within bounds.
const SAVE_SHARE: f64 = 16.0;
const SAVE_BYTES_LEAST: f64 = 16.0 * 1_048_576.0;
const SAVE_BYTES_MOST: f64 = 512.0 * 1_048_576.0;
/// What a step keeps of each row that it uses: the row and its place, in several orders.
const SAMPLED: f64 = 64.0;

impl Sizes {
    /// Identities whose centres one rank holds.
    fn local(&self, scheme: Scheme) -> f64 {
        if scheme == Scheme::DataParallel {
            self.identities
        } else {
            (self.identities / self.ranks).ceil()
        }
    }

    /// The share of those that a step uses.
    fn share(&self, scheme: Scheme) -> f64 {
        if scheme.samples() { self.rate } else { 1.0 }
    }

    /// Images that meet the centres of a rank in a step.
    fn images(&self, scheme: Scheme) -> f64 {
        if scheme == Scheme::DataParallel { self.batch } else { self.batch * self.ranks }
    }

    /// Bytes that one more identity on a rank takes there, all step long or at its peak.
    pub fn bytes_per_identity(&self, scheme: Scheme) -> f64 {
        let (row, share) = (F32 * self.dim, self.share(scheme));
        let logits = F32 * self.images(scheme);
        match scheme {
            Scheme::DataParallel => {
                (2.0 + ROW_COPIES + BUCKET_COPIES) * row + LOGITS_COPIES * logits
            }
            Scheme::ModelParallel | Scheme::PfcV1 => {
                2.0 * row + share * (ROW_COPIES * row + LOGITS_COPIES * logits)
            }
            // A gradient of all rows, and the optimizer's temporary of the same size.
            Scheme::PfcV2 => 4.0 * row + share * (ROW_COPIES * row + LOGITS_COPIES * logits),
            Scheme::PfcHalf => {
                (2.0 * row + share * (ROW_COPIES * row + LOGITS_COPIES_FUSED * logits)) * HALF / F32
            }
            Scheme::Pfc(rows) => self.own_row_bytes(rows) + PLACE + share * SAMPLED,
        }
    }

    /// Bytes of a row of this program, a multiple of 64.
    fn own_row_bytes(&self, rows: Rows) -> f64 {
        (self.unpadded_row_bytes(rows) / 64.0).ceil() * 64.0
    }

    fn unpadded_row_bytes(&self, rows: Rows) -> f64 {
        match rows {
            Rows::F32 => 2.0 * F32 * self.dim,
            Rows::Bf16 => 2.0 * HALF * self.dim,
            Rows::RowWise => HALF * self.dim + F32,
        }
    }

    /// Bytes of the head on one rank at its peak.
    pub fn head_bytes(&self, scheme: Scheme) -> f64 {
        let local = self.local(scheme);
        let mut bytes = local * self.bytes_per_identity(scheme);
        if scheme.is_ours() {
            // Exponentials of the step, up to the configuration's bound; tiles come on top.
            let kept = local * self.rate * self.images(scheme) * F32;
            bytes += kept.min(OWN_CACHE_BYTES) + OWN_TILE_BYTES;
        }
        bytes
    }

    /// Bytes of the host's memory that a save of one rank takes beside its rows; `None` for the programs
    /// of others.
    pub fn save_bytes(&self, scheme: Scheme) -> Option<f64> {
        let rows = scheme.own_rows()?;
        let local = self.local(scheme);
        let held = local * self.own_row_bytes(rows);
        let copied = (held / SAVE_SHARE).clamp(SAVE_BYTES_LEAST, SAVE_BYTES_MOST);
        // And a bit a row.
        Some(copied.min(2.0 * held) + local / 8.0)
    }

    /// Bytes of the centres of all ranks in a checkpoint, where every one has been used.
    pub fn checkpoint_bytes(&self, scheme: Scheme) -> Option<f64> {
        let rows = scheme.own_rows()?;
        Some(self.identities * (self.unpadded_row_bytes(rows) + SAVED_ENTRY))
    }

    /// Bytes of the centres of all ranks in files, where every one has been used: three copies of each,
    /// and what is known of them.
    pub fn files_bytes(&self, scheme: Scheme) -> Option<f64> {
        let rows = scheme.own_rows()?;
        Some(self.identities * (3.0 * self.own_row_bytes(rows) + ENTRY))
    }

    /// The most identities whose head fits into `bytes` a rank.
    pub fn identities_max(&self, scheme: Scheme, bytes: f64) -> f64 {
        let (mut fits, mut too_many) = (0.0, 1e13);
        // 60 halvings leave less than one identity.
        for _ in 0..60 {
            let identities: f64 = (fits + too_many) / 2.0;
            let candidate = Sizes { identities: identities.floor(), ..*self };
            if candidate.head_bytes(scheme) <= bytes {
                fits = identities;
            } else {
                too_many = identities;
            }
        }
        fits.floor()
    }

    /// Bytes that a rank sends in a step for the head.
    pub fn wire_bytes(&self, scheme: Scheme) -> f64 {
        let others = self.ranks - 1.0;
        let labels = 8.0 * others * self.batch;
        if scheme == Scheme::DataParallel {
            // All-reduce of the centres' gradient in a ring.
            return 2.0 * others / self.ranks * self.identities * self.dim * F32;
        }
        let features = others * self.batch * self.dim * F32;
        let sums = if scheme.is_ours() { 3.0 * 8.0 } else { 3.0 * F32 };
        // Features there, their gradients back, and sums of one number a sample each.
        2.0 * features + labels + 2.0 * others / self.ranks * sums * self.batch * self.ranks
    }

    /// Seconds that the head adds to a step.
    pub fn head_seconds(&self, scheme: Scheme, card: &Card) -> f64 {
        let (local, share) = (self.local(scheme), self.share(scheme));
        let rows = local * share;
        let images = self.images(scheme);
        let flop = 6.0 * rows * images * self.dim;
        let (row, logits) = (F32 * self.dim, F32 * images);
        let in_half = scheme == Scheme::PfcHalf || scheme.is_ours();
        let tflops = if in_half { card.half_tflops } else { card.f32_tflops };
        // Each buffer is written and read; an optimizer reads and writes its rows in seven passes,
        // the normalisation takes six.
        let traffic = match scheme {
            Scheme::DataParallel | Scheme::ModelParallel => {
                local * (2.0 * LOGITS_COPIES * logits + 13.0 * row)
            }
            Scheme::PfcV1 => rows * (2.0 * LOGITS_COPIES * logits + 19.0 * row) + 40.0 * local,
            Scheme::PfcV2 => {
                rows * (2.0 * LOGITS_COPIES * logits + 13.0 * row) + local * (9.0 * row + 40.0)
            }
            Scheme::PfcHalf => {
                rows * (2.0 * LOGITS_COPIES_FUSED * logits + 19.0 * row) * HALF / F32
            }
            // Rows are read for the products, read again for the update and written; exponentials
            // are written and read once.
            Scheme::Pfc(kind) => rows * (3.0 * self.own_row_bytes(kind) + 2.0 * HALF * images),
        };
        flop / (COMPUTE_SHARE * tflops * 1e12)
            + traffic / (MEMORY_SHARE * card.memory_gbs * 1e9)
            + self.wire_bytes(scheme) / (card.wire_gbs * 1e9)
    }
}

/// The default of `head.cache_mib`.
const OWN_CACHE_BYTES: f64 = 256.0 * 1_048_576.0;
/// Unit rows, products and gradients of the tiles that threads work on.
const OWN_TILE_BYTES: f64 = 64.0 * 1_048_576.0;

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { identities: 8e6, ranks: 8.0, batch: 128.0, dim: 512.0, rate: 0.1 };

    #[test]
    fn bytes_of_an_identity_are_those_worked_by_hand() {
        let check = |scheme, expected: f64| {
            let found = SIZES.bytes_per_identity(scheme);
            // Tenths are not exact in binary.
            assert!((found - expected).abs() < 1e-9 * expected, "{scheme:?}: {found}");
        };
        // Weight and momentum 4096; of a tenth: three rows of 2048 and eight times 1024 logits.
        check(Scheme::PfcV1, 4096.0 + 614.4 + 3276.8);
        check(Scheme::ModelParallel, 4096.0 + 6144.0 + 32768.0);
        check(Scheme::Pfc(Rows::Bf16), 2048.0 + 36.0 + 6.4);
        check(Scheme::Pfc(Rows::RowWise), 1088.0 + 36.0 + 6.4);
    }

    #[test]
    fn a_head_its_save_and_what_that_leaves_are_those_that_the_head_counts() {
        use pfc_head::{ClassRange, Footprint, HeadConfig, Placement, Storage};
        for storage in [Storage::F32, Storage::Bf16] {
            let config = HeadConfig {
                sample_rate: 0.1,
                weights: storage,
                state: storage,
                ..HeadConfig::new(8_000_000, 512)
            };
            let scheme = match storage {
                Storage::F32 => Scheme::Pfc(Rows::F32),
                Storage::Bf16 => Scheme::Pfc(Rows::Bf16),
            };
            let of = |config: &HeadConfig| {
                Footprint::of(config, ClassRange::of_rank(8_000_000, 0, 8), 1_000_000, 1024)
            };
            let in_memory = of(&config);
            // All of it but the tiles that threads work on.
            let head = SIZES.head_bytes(scheme) - OWN_TILE_BYTES;
            let counted = in_memory.memory + in_memory.step;
            assert!((head - counted as f64).abs() < 1.0, "{scheme:?}: {head}, not {counted}");
            assert_eq!(SIZES.save_bytes(scheme), Some(in_memory.save as f64));
            assert_eq!(SIZES.checkpoint_bytes(scheme), Some(8.0 * in_memory.checkpoint as f64));
            let centres = Placement::File("centres".into());
            let in_files = of(&HeadConfig { centres, ..config });
            assert_eq!(SIZES.files_bytes(scheme), Some(8.0 * in_files.files as f64));
        }
        assert_eq!(SIZES.save_bytes(Scheme::PfcV2), None);
    }

    #[test]
    fn the_wire_carries_features_and_not_centres() {
        // 7 ranks' 128 rows of 2048 bytes, there and back: 2 * 1.75 MiB; labels and sums are small.
        let bytes = SIZES.wire_bytes(Scheme::PfcV1);
        assert!((3_670_016.0..3_710_000.0).contains(&bytes), "{bytes}");
        let more = Sizes { identities: 8e8, ..SIZES };
        assert_eq!(more.wire_bytes(Scheme::PfcV1), bytes);
        let all_reduced = 2.0 * 7.0 / 8.0 * 8e6 * 2048.0;
        assert_eq!(SIZES.wire_bytes(Scheme::DataParallel), all_reduced);
    }

    #[test]
    fn the_most_identities_fit_and_one_more_a_rank_does_not() {
        for scheme in Scheme::ALL {
            let room = 28.0 * 1_073_741_824.0;
            let most = SIZES.identities_max(scheme, room);
            let head = |identities| Sizes { identities, ..SIZES }.head_bytes(scheme);
            assert!(head(most) <= room && head(most + 8.0) > room, "{scheme:?}: {most}");
        }
    }
}
