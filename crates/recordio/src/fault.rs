//! What can be wrong with the bytes of a record.

use std::fmt;

/// Bytes of one record's payload at most: its length has 29 bits.
pub const PAYLOAD_BYTES_MAX: u64 = (1 << 29) - 1;

/// What is wrong with the bytes at one place of a `.rec` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The magic is not there.
    NoMagic {
        /// The bytes in its place.
        found: [u8; 4],
    },
    /// The file ends before a whole magic and length.
    FrameCut {
        /// Bytes that are left of the file.
        left: u64,
    },
    /// The file ends before a payload and its padding do.
    PayloadCut {
        /// Bytes of payload and padding.
        needed: u64,
        /// Bytes that are left of the file.
        left: u64,
    },
    /// A middle or last part, or an unknown kind, where a record should begin.
    NoRecordStart {
        /// The kind, 0–7.
        kind: u8,
    },
    /// A split record goes on with something other than its next part.
    NoNextPart {
        /// The kind, 0–7.
        kind: u8,
    },
    /// The parts of a record add up to more than a record can hold.
    TooLong {
        /// Bytes of the parts so far.
        bytes: u64,
    },
    /// A payload shorter than a header.
    NoHeader {
        /// Bytes of the payload.
        bytes: u64,
    },
    /// A payload shorter than the labels that its header announces.
    LabelsCut {
        /// Labels announced.
        n_labels: u32,
        /// Bytes of the payload after the header.
        left: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoMagic { found: [a, b, c, d] } => write!(
                f,
                "no record begins here: expected the bytes 0a 23 d7 ce, found \
                 {a:02x} {b:02x} {c:02x} {d:02x}"
            ),
            Fault::FrameCut { left } => {
                write!(f, "the file ends {left} bytes into the 8 that begin a record or part")
            }
            Fault::PayloadCut { needed, left } => {
                write!(f, "a payload of {needed} bytes with its padding, but {left} are left")
            }
            Fault::NoRecordStart { kind } => {
                write!(f, "a record begins with kind 0 or 1, found kind {kind}")
            }
            Fault::NoNextPart { kind } => {
                write!(f, "a split record goes on with kind 2 or 3, found kind {kind}")
            }
            Fault::TooLong { bytes } => write!(
                f,
                "the parts of this record have {bytes} bytes, the limit is {PAYLOAD_BYTES_MAX}"
            ),
            Fault::NoHeader { bytes } => {
                write!(f, "a payload of {bytes} bytes cannot hold the header's 24")
            }
            Fault::LabelsCut { n_labels, left } => write!(
                f,
                "the header announces {n_labels} labels of 4 bytes, but {left} bytes follow it"
            ),
        }
    }
}
