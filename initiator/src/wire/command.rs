//! SRP_CMD (SRP r16a 6.8): one SCSI command and where its data is.

use std::fmt;

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::RawDescriptor;
use super::{MemoryDescriptor, WireError, layout, opcode};
use crate::scsi::{Cdb, Lun};

/// Where immediate data begins in a command IU, as this initiator asks at login: the fixed part, room for 16
/// bytes of additional CDB, and the 4-byte immediate descriptor.
pub const IMMEDIATE_DATA_OFFSET: usize = 68;

const WHAT: &str = "SRP_CMD";
const FIXED: usize = 48;
const INDIRECT_HEADER: usize = 20;
const DESCRIPTOR: usize = 16;

const NO_DATA: u8 = 0;
const DIRECT: u8 = 1;
const INDIRECT: u8 = 2;
const IMMEDIATE: u8 = 3;

/// How a command is ordered among others of its logical unit (SAM-5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TaskAttribute {
    /// In any order.
    #[default]
    Simple,
    /// Before the others.
    HeadOfQueue,
    /// After those before it, before those after it.
    Ordered,
    /// While an auto contingent allegiance is in effect.
    Aca,
}

/// Memory descriptors carried inline in an indirect command.
#[derive(Clone, Copy)]
pub struct Descriptors<'a>(List<'a>);

#[derive(Clone, Copy)]
enum List<'a> {
    Own(&'a [MemoryDescriptor]),
    Received(&'a [RawDescriptor]),
}

impl<'a> Descriptors<'a> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            List::Own(list) => list.len(),
            List::Received(list) => list.len(),
        }
    }

    /// There are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The descriptors, in order.
    pub fn iter(&self) -> impl Iterator<Item = MemoryDescriptor> + use<'a> {
        let (own, received): (&'a [MemoryDescriptor], &'a [RawDescriptor]) = match self.0 {
            List::Own(list) => (list, &[]),
            List::Received(list) => (&[], list),
        };
        own.iter()
            .copied()
            .chain(received.iter().map(|raw| MemoryDescriptor::from(*raw)))
    }
}

impl<'a> From<&'a [MemoryDescriptor]> for Descriptors<'a> {
    fn from(list: &'a [MemoryDescriptor]) -> Self {
        Self(List::Own(list))
    }
}

impl PartialEq for Descriptors<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Descriptors<'_> {}

impl fmt::Debug for Descriptors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The data of a command and how the IU describes it (SRP r16a 5.6). Bidirectional commands do not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// No data.
    None,
    /// DATA-IN into one buffer.
    Read(MemoryDescriptor),
    /// DATA-OUT from one buffer.
    Write(MemoryDescriptor),
    /// DATA-OUT inside the IU (SRP-2), from the offset agreed at login.
    WriteImmediate {
        /// Bytes of data.
        len: u32,
    },
    /// DATA-IN into several buffers.
    ReadIndirect {
        /// Where the table of all descriptors is.
        table: MemoryDescriptor,
        /// Bytes of data.
        total: u32,
        /// The table's first descriptors, in the IU; at most 255.
        inline: Descriptors<'a>,
    },
    /// DATA-OUT from several buffers.
    WriteIndirect {
        /// Where the table of all descriptors is.
        table: MemoryDescriptor,
        /// Bytes of data.
        total: u32,
        /// The table's first descriptors, in the IU; at most 255.
        inline: Descriptors<'a>,
    },
}

/// SRP_CMD: a SCSI command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// Echoed by the response; unique among what is outstanding on the channel.
    pub tag: u64,
    /// The logical unit.
    pub lun: Lun,
    /// Ordering.
    pub attribute: TaskAttribute,
    /// The command.
    pub cdb: Cdb,
    /// Its data.
    pub data: Data<'a>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCommand {
    opcode: u8,
    solicited: u8,
    reserved2: [u8; 3],
    formats: u8,
    data_out_count: u8,
    data_in_count: u8,
    tag: U64,
    reserved16: [u8; 4],
    lun: U64,
    reserved28: u8,
    attribute: u8,
    reserved30: u8,
    additional_cdb: u8,
    cdb: [u8; 16],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawIndirect {
    table: RawDescriptor,
    total: U32,
}

const _: () = assert!(size_of::<RawCommand>() == FIXED);
const _: () = assert!(size_of::<RawIndirect>() == INDIRECT_HEADER);

impl<'a> Command<'a> {
    /// Bytes of a command without its inline descriptors.
    pub const INDIRECT_LEN: usize = FIXED + INDIRECT_HEADER;
    /// Bytes of an inline descriptor.
    pub const DESCRIPTOR_LEN: usize = DESCRIPTOR;

    /// Bytes [`Command::emit`] writes: the whole IU, or for immediate data all of it before the data.
    #[must_use]
    #[inline(always)]
    pub const fn emitted_len(&self) -> usize {
        match self.data {
            Data::None => FIXED,
            Data::Read(_) | Data::Write(_) => FIXED + DESCRIPTOR,
            Data::WriteImmediate { .. } => IMMEDIATE_DATA_OFFSET,
            Data::ReadIndirect { inline, .. } | Data::WriteIndirect { inline, .. } => {
                FIXED + INDIRECT_HEADER + inline.len() * DESCRIPTOR
            }
        }
    }

    /// Writes the IU to the start of `buf` and returns its length.
    ///
    /// For [`Data::WriteImmediate`] that is [`IMMEDIATE_DATA_OFFSET`] and the data must be sent right behind.
    ///
    /// # Errors
    /// When `buf` is too short, or there are more inline descriptors than an IU can count.
    #[inline(always)]
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let (formats, data_out_count, data_in_count) = match self.data {
            Data::None => (NO_DATA, 0, 0),
            // The counts are of indirect descriptors; a direct one counts nothing.
            Data::Read(_) => (DIRECT, 0, 0),
            Data::Write(_) => (DIRECT << 4, 0, 0),
            Data::WriteImmediate { .. } => (IMMEDIATE << 4, 0, 0),
            Data::ReadIndirect { inline, .. } => (INDIRECT, 0, count(&inline)?),
            Data::WriteIndirect { inline, .. } => (INDIRECT << 4, count(&inline)?, 0),
        };
        let len = self.emitted_len();
        let (raw, rest) = layout::place::<RawCommand>(layout::slot(buf, len, WHAT)?, WHAT)?;
        *raw = RawCommand {
            opcode: opcode::COMMAND,
            solicited: 0,
            reserved2: [0; 3],
            formats,
            data_out_count,
            data_in_count,
            tag: self.tag.into(),
            reserved16: [0; 4],
            lun: self.lun.0.into(),
            reserved28: 0,
            attribute: self.attribute.code(),
            reserved30: 0,
            additional_cdb: 0,
            cdb: self.cdb.bytes,
        };
        match self.data {
            Data::None => {}
            Data::Read(buffer) | Data::Write(buffer) => {
                *layout::place::<RawDescriptor>(rest, WHAT)?.0 = buffer.into();
            }
            Data::WriteImmediate { len } => {
                let (descriptor, room) = rest.split_at_mut(4);
                descriptor.copy_from_slice(&len.to_be_bytes());
                room.fill(0);
            }
            Data::ReadIndirect { table, total, inline } | Data::WriteIndirect { table, total, inline } => {
                let (header, list) = rest.split_at_mut(INDIRECT_HEADER);
                let raw = RawIndirect {
                    table: table.into(),
                    total: total.into(),
                };
                header.copy_from_slice(raw.as_bytes());
                for (place, descriptor) in list.chunks_exact_mut(DESCRIPTOR).zip(inline.iter()) {
                    place.copy_from_slice(RawDescriptor::from(descriptor).as_bytes());
                }
            }
        }
        Ok(len)
    }

    /// Reads a received command. An additional CDB is skipped. Whether immediate data was received in full is for
    /// [`immediate_data`] to say.
    ///
    /// # Errors
    /// When the IU ends before its descriptors do, has a reserved format or attribute, or moves data both ways.
    pub fn parse(iu: &'a [u8]) -> Result<Self, WireError> {
        let (raw, rest) = layout::view::<RawCommand>(iu, WHAT, opcode::COMMAND)?;
        let (_, descriptors) = layout::split(rest, usize::from(raw.additional_cdb & !3), "SRP_CMD additional CDB")?;
        let data = match (raw.formats >> 4, raw.formats & 0x0f) {
            (NO_DATA, NO_DATA) => Data::None,
            (NO_DATA, DIRECT) => Data::Read(direct(descriptors)?),
            (DIRECT, NO_DATA) => Data::Write(direct(descriptors)?),
            (IMMEDIATE, NO_DATA) => {
                let (len, _) = layout::prefix::<U32>(descriptors, "SRP_CMD immediate descriptor")?;
                Data::WriteImmediate { len: len.get() }
            }
            (NO_DATA, INDIRECT) => {
                let (table, total, inline) = indirect(descriptors, raw.data_in_count)?;
                Data::ReadIndirect { table, total, inline }
            }
            (INDIRECT, NO_DATA) => {
                let (table, total, inline) = indirect(descriptors, raw.data_out_count)?;
                Data::WriteIndirect { table, total, inline }
            }
            _ => {
                return Err(invalid(
                    "data buffer formats",
                    raw.formats,
                    "reserved, or data both ways",
                ));
            }
        };
        Ok(Self {
            tag: raw.tag.get(),
            lun: Lun(raw.lun.get()),
            attribute: TaskAttribute::from_code(raw.attribute)
                .ok_or_else(|| invalid("task attribute", raw.attribute, "which is reserved"))?,
            cdb: Cdb::from_bytes(raw.cdb),
            data,
        })
    }
}

/// The `len` bytes of immediate data of a received command IU; `offset` is what the login agreed on.
///
/// # Errors
/// When they do not lie within the IU.
pub fn immediate_data(iu: &[u8], offset: usize, len: u32) -> Result<&[u8], WireError> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let end = offset.saturating_add(len);
    iu.get(offset..end).ok_or(WireError::Truncated {
        what: "SRP_CMD immediate data",
        need: end,
        have: iu.len(),
    })
}

impl TaskAttribute {
    const fn code(self) -> u8 {
        match self {
            Self::Simple => 0,
            Self::HeadOfQueue => 1,
            Self::Ordered => 2,
            Self::Aca => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        // The upper bits are reserved.
        match code & 0x07 {
            0 => Some(Self::Simple),
            1 => Some(Self::HeadOfQueue),
            2 => Some(Self::Ordered),
            4 => Some(Self::Aca),
            _ => None,
        }
    }
}

fn count(inline: &Descriptors<'_>) -> Result<u8, WireError> {
    u8::try_from(inline.len()).map_err(|_| WireError::Invalid {
        what: WHAT,
        field: "inline descriptor count",
        value: inline.len() as u64,
        why: "more than the 255 an IU can count",
    })
}

fn direct(descriptors: &[u8]) -> Result<MemoryDescriptor, WireError> {
    let (raw, _) = layout::prefix::<RawDescriptor>(descriptors, "SRP_CMD direct descriptor")?;
    Ok((*raw).into())
}

fn indirect(descriptors: &[u8], count: u8) -> Result<(MemoryDescriptor, u32, Descriptors<'_>), WireError> {
    let (raw, list) = layout::prefix::<RawIndirect>(descriptors, "SRP_CMD indirect descriptor")?;
    let count = usize::from(count);
    let (inline, _) = <[RawDescriptor]>::ref_from_prefix_with_elems(list, count).map_err(|_| WireError::Truncated {
        what: "SRP_CMD inline descriptors",
        need: count * DESCRIPTOR,
        have: list.len(),
    })?;
    Ok((raw.table.into(), raw.total.get(), Descriptors(List::Received(inline))))
}

const fn invalid(field: &'static str, value: u8, why: &'static str) -> WireError {
    WireError::Invalid {
        what: WHAT,
        field,
        value: value as u64,
        why,
    }
}
