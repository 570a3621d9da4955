//! What an HCA reports by itself.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use rdma_sys::{ibv_async_event, ibv_context};

/// An asynchronous event of an HCA (IBA 11.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceEvent {
    /// The HCA failed or was removed: everything on it must be released.
    DeviceFatal,
    /// The port's link came up.
    PortActive(u8),
    /// The port's link went down.
    PortDown(u8),
    /// The port's LID changed: its connections are dead.
    LidChange(u8),
    /// The port's P_Key table changed.
    PKeyChange(u8),
    /// Another subnet manager took over.
    SubnetManagerChange(u8),
    /// The subnet manager lost its state: subscriptions must be renewed.
    ClientReregister(u8),
    /// The port's GID table changed.
    GidChange(u8),
    /// A completion queue overran or failed: its queue pairs are lost.
    CompletionQueueError,
    /// The queue pair failed and says so outside its completion queue.
    QueuePairFatal(u32),
    /// The target sent something the queue pair cannot accept.
    QueuePairRequestError(u32),
    /// The target accessed memory it may not.
    QueuePairAccessError(u32),
    /// Any other event.
    Other {
        /// `enum ibv_event_type`.
        number: u32,
        /// What it is about.
        subject: EventSubject,
    },
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventSubject {
    /// A queue pair, by number.
    QueuePair(u32),
    /// A port, by number.
    Port(u8),
    /// The HCA or something else on it.
    Device,
}

/// What the event union holds for an event type, by `enum ibv_event_type`; unknown types are read as nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Element {
    QueuePair,
    Port,
    None,
}

const fn element(number: u32) -> Element {
    match number {
        1..=7 | 16 => Element::QueuePair,
        9..=13 | 17 | 18 => Element::Port,
        _ => Element::None,
    }
}

const fn decode(number: u32, subject: EventSubject) -> DeviceEvent {
    match (number, subject) {
        (0, _) => DeviceEvent::CompletionQueueError,
        (1, EventSubject::QueuePair(qp)) => DeviceEvent::QueuePairFatal(qp),
        (2, EventSubject::QueuePair(qp)) => DeviceEvent::QueuePairRequestError(qp),
        (3, EventSubject::QueuePair(qp)) => DeviceEvent::QueuePairAccessError(qp),
        (8, _) => DeviceEvent::DeviceFatal,
        (9, EventSubject::Port(port)) => DeviceEvent::PortActive(port),
        (10, EventSubject::Port(port)) => DeviceEvent::PortDown(port),
        (11, EventSubject::Port(port)) => DeviceEvent::LidChange(port),
        (12, EventSubject::Port(port)) => DeviceEvent::PKeyChange(port),
        (13, EventSubject::Port(port)) => DeviceEvent::SubnetManagerChange(port),
        (17, EventSubject::Port(port)) => DeviceEvent::ClientReregister(port),
        (18, EventSubject::Port(port)) => DeviceEvent::GidChange(port),
        (number, subject) => DeviceEvent::Other { number, subject },
    }
}

/// Reads and acknowledges one event; the context's descriptor is non-blocking.
pub(super) fn next(context: NonNull<ibv_context>) -> io::Result<Option<DeviceEvent>> {
    let mut event = MaybeUninit::<ibv_async_event>::zeroed();
    let place = event.as_mut_ptr();
    loop {
        // SAFETY: the context is open, the place is ours. It is filled in when the result is 0.
        if unsafe { rdma_sys::ibv_get_async_event(context.as_ptr(), place) } == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
    // SAFETY: the C enum is an unsigned int, read as one: rdma-sys's Rust enum lacks the values of newer libraries, so
    // no value of that type may be formed. No reference to the event is formed either.
    let number = unsafe { ptr::addr_of!((*place).event_type).cast::<u32>().read() };
    let subject = match element(number) {
        // SAFETY: for these types the union holds a queue pair of this context; ibv_destroy_qp waits for the
        // acknowledgement below, so it is alive.
        Element::QueuePair => EventSubject::QueuePair(unsafe { (*(*place).element.qp).qp_num }),
        // SAFETY: for these types the union holds the port number.
        Element::Port => EventSubject::Port(u8::try_from(unsafe { (*place).element.port_num }).unwrap_or(0)),
        Element::None => EventSubject::Device,
    };
    // SAFETY: the event was just received and is acknowledged once.
    unsafe { rdma_sys::ibv_ack_async_event(place) };
    Ok(Some(decode(number, subject)))
}

#[cfg(test)]
mod tests {
    use rdma_sys::ibv_event_type as kind;

    use super::*;

    #[test]
    fn port_events_are_known() {
        for (number, event) in [
            (kind::IBV_EVENT_PORT_ACTIVE, DeviceEvent::PortActive(2)),
            (kind::IBV_EVENT_PORT_ERR, DeviceEvent::PortDown(2)),
            (kind::IBV_EVENT_LID_CHANGE, DeviceEvent::LidChange(2)),
            (kind::IBV_EVENT_PKEY_CHANGE, DeviceEvent::PKeyChange(2)),
            (kind::IBV_EVENT_SM_CHANGE, DeviceEvent::SubnetManagerChange(2)),
            (kind::IBV_EVENT_CLIENT_REREGISTER, DeviceEvent::ClientReregister(2)),
            (kind::IBV_EVENT_GID_CHANGE, DeviceEvent::GidChange(2)),
        ] {
            assert_eq!(element(number as u32), Element::Port);
            assert_eq!(decode(number as u32, EventSubject::Port(2)), event);
        }
    }

    #[test]
    fn queue_pair_and_device_events_are_known() {
        for number in [
            kind::IBV_EVENT_QP_FATAL,
            kind::IBV_EVENT_QP_REQ_ERR,
            kind::IBV_EVENT_QP_ACCESS_ERR,
            kind::IBV_EVENT_COMM_EST,
            kind::IBV_EVENT_SQ_DRAINED,
            kind::IBV_EVENT_PATH_MIG,
            kind::IBV_EVENT_PATH_MIG_ERR,
            kind::IBV_EVENT_QP_LAST_WQE_REACHED,
        ] {
            assert_eq!(element(number as u32), Element::QueuePair);
        }
        for number in [
            kind::IBV_EVENT_CQ_ERR,
            kind::IBV_EVENT_DEVICE_FATAL,
            kind::IBV_EVENT_SRQ_ERR,
        ] {
            assert_eq!(element(number as u32), Element::None);
        }
        assert_eq!(
            decode(kind::IBV_EVENT_DEVICE_FATAL as u32, EventSubject::Device),
            DeviceEvent::DeviceFatal
        );
        assert_eq!(decode(1, EventSubject::QueuePair(17)), DeviceEvent::QueuePairFatal(17));
    }

    #[test]
    fn unknown_events_are_values() {
        for number in [19, 20, 21, 1000, u32::MAX] {
            let subject = EventSubject::Device;
            assert_eq!(element(number), Element::None);
            assert_eq!(decode(number, subject), DeviceEvent::Other { number, subject });
        }
    }
}
