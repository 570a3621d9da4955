//! Answers to GetTable (IBA 15.3.3): records one after another, cut into segments on the wire (RMPP, IBA 13.6).
//!
//! The kernel puts segments together for an agent that asks for it; what arrives here is one header and all data.

use zerocopy::FromBytes;

use super::super::header::Mad;
use super::{Rmpp, SA_DATA_LEN, SA_DATA_OFFSET, SaMad};
use crate::mad::MAD_LEN;

/// The records of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    data: Vec<u8>,
    record_len: usize,
}

/// Why an answer is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The RMPP header is not that of data.
    #[error("the answer to a table query is no table (RMPP type {kind}, flags 0x{flags:02x}, status {status})")]
    NotATable {
        /// The type.
        kind: u8,
        /// The flags.
        flags: u8,
        /// The status.
        status: u8,
    },
    /// Only the start of it came.
    #[error("only the first {got} bytes of a longer table came: what carries MADs here does not reassemble them")]
    Cut {
        /// How many bytes of records came.
        got: usize,
    },
    /// Records are shorter than what is read from them.
    #[error("records of {got} bytes are too short, {need} are needed")]
    ShortRecords {
        /// The length by the attribute offset.
        got: usize,
        /// What is needed.
        need: usize,
    },
}

impl Table {
    /// Reads an answer: its first 256 bytes, what came after them, and how many bytes came altogether. Records
    /// must have `need` bytes at least.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn parse(mad: &Mad, tail: &[u8], len: usize, need: usize) -> Result<Self, TableError> {
        let mad = SaMad::from_mad(mad);
        let rmpp = &mad.rmpp;
        if rmpp.kind != Rmpp::DATA || rmpp.flags & Rmpp::ACTIVE == 0 {
            return Err(TableError::NotATable {
                kind: rmpp.kind,
                flags: rmpp.flags & 7,
                status: rmpp.status,
            });
        }
        let came = len.saturating_sub(SA_DATA_OFFSET).min(SA_DATA_LEN + tail.len());
        if rmpp.flags & Rmpp::LAST == 0 && len <= MAD_LEN {
            return Err(TableError::Cut { got: came });
        }
        // A single segment says how much of it counts; of several the kernel has added up the lengths.
        let said = usize::try_from(rmpp.payload.get()).unwrap_or(usize::MAX);
        let counts = match said.checked_sub(SA_DATA_OFFSET - 36) {
            Some(said) if len <= MAD_LEN && said <= SA_DATA_LEN => said.min(came),
            _ => came,
        };
        let mut data = Vec::with_capacity(counts);
        data.extend_from_slice(&mad.data[..counts.min(SA_DATA_LEN)]);
        data.extend_from_slice(&tail[..counts.saturating_sub(SA_DATA_LEN).min(tail.len())]);
        let record_len = usize::from(mad.attribute_offset.get()) * 8;
        match record_len {
            // An empty table has no offset either.
            0 if data.len() < need => Ok(Self {
                data: Vec::new(),
                record_len: need,
            }),
            0 => Ok(Self {
                record_len: data.len(),
                data,
            }),
            short if short < need => Err(TableError::ShortRecords { got: short, need }),
            record_len => Ok(Self { data, record_len }),
        }
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() / self.record_len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records; those too short for an `R` are left out.
    pub fn records<R: FromBytes>(&self) -> impl Iterator<Item = R> {
        self.data
            .chunks_exact(self.record_len)
            .filter_map(|record| Some(R::read_from_prefix(record).ok()?.0))
    }
}
