//! What an entry's `user_data` says.
//!
//! ```text
//! 63      56 55      48 47                     16 15        0
//! +---------+----------+-------------------------+-----------+
//! |  kind   |    0     |  handle (slot, gener.)  |    tag    |
//! +---------+----------+-------------------------+-----------+
//! ```
//!
//! `handle` is a queue's for commands and copies, the copy's own for one of another reactor's request, a watch's for
//! polls. A slot is given back only after the last
//! completion that names it, and its next user has another generation: a stale completion finds nobody.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ticket {
    /// A FETCH or COMMIT of a tag.
    Command { queue: u32, tag: u16 },
    /// A copy between a request and an area.
    Copy { queue: u32, tag: u16 },
    /// A copy for a request of another reactor.
    Foreign { copy: u32 },
    /// A poll of a watched descriptor.
    Watch { watch: u32 },
    /// The poll of the mailbox's eventfd.
    Doorbell,
    /// An entry whose completion says nothing (the removal of a poll).
    Silent,
}

const COMMAND: u64 = 1;
const COPY: u64 = 2;
const WATCH: u64 = 3;
const DOORBELL: u64 = 4;
const SILENT: u64 = 5;
const FOREIGN: u64 = 6;

impl Ticket {
    pub(crate) const fn encode(self) -> u64 {
        match self {
            Self::Command { queue, tag } => pack(COMMAND, queue, tag),
            Self::Copy { queue, tag } => pack(COPY, queue, tag),
            Self::Foreign { copy } => pack(FOREIGN, copy, 0),
            Self::Watch { watch } => pack(WATCH, watch, 0),
            Self::Doorbell => pack(DOORBELL, 0, 0),
            Self::Silent => pack(SILENT, 0, 0),
        }
    }

    pub(crate) const fn decode(user_data: u64) -> Option<Self> {
        let handle = (user_data >> 16) as u32;
        let tag = user_data as u16;
        Some(match user_data >> 56 {
            COMMAND => Self::Command { queue: handle, tag },
            COPY => Self::Copy { queue: handle, tag },
            FOREIGN => Self::Foreign { copy: handle },
            WATCH => Self::Watch { watch: handle },
            DOORBELL => Self::Doorbell,
            SILENT => Self::Silent,
            _ => return None,
        })
    }
}

const fn pack(kind: u64, handle: u32, tag: u16) -> u64 {
    kind << 56 | (handle as u64) << 16 | tag as u64
}

#[cfg(test)]
mod tests {
    use super::Ticket;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn says_what_was_put_in(handle: u32, tag: u16) {
            for ticket in [
                Ticket::Command { queue: handle, tag },
                Ticket::Copy { queue: handle, tag },
                Ticket::Foreign { copy: handle },
                Ticket::Watch { watch: handle },
                Ticket::Doorbell,
                Ticket::Silent,
            ] {
                prop_assert_eq!(Ticket::decode(ticket.encode()), Some(ticket));
            }
        }
    }

    #[test]
    fn refuses_what_nobody_wrote() {
        assert_eq!(Ticket::decode(0), None);
        assert_eq!(Ticket::decode(u64::MAX), None);
    }
}
