//! What a daemon might say, for tests of how it is shown.

use crate::rpc::protocol::{ChannelInfo, Counters, DeviceDetail, DeviceInfo, SessionInfo};

pub(super) fn device() -> DeviceInfo {
    DeviceInfo {
        number: 0,
        path: "/dev/ublkb0".to_owned(),
        lun: "0".to_owned(),
        session: 1,
        state: "running".to_owned(),
        size: 1 << 30,
        block_size: 512,
        physical_block_size: 4096,
        read_only: false,
        vendor: "LIO-ORG".to_owned(),
        product: "disk0".to_owned(),
        revision: "4.0".to_owned(),
        serial: Some("d0c1a55e".to_owned()),
        identifier: Some("naa.6001405d0c1a55e7".to_owned()),
    }
}

pub(crate) fn session() -> SessionInfo {
    SessionInfo {
        id: 1,
        target: "id_ext=0000000000000001,ioc_guid=0000000000000001,dest=10.0.0.1:5555".to_owned(),
        address: "10.0.0.1:5555".to_owned(),
        local: "rxe0/1".to_owned(),
        initiator_port: "0x00000000000000005054000000000001".to_owned(),
        state: "running".to_owned(),
        reason: None,
        channels: 2,
        channels_wanted: 4,
        request_limit: 128,
        others: Vec::new(),
    }
}

pub(super) fn detail() -> DeviceDetail {
    let channel = ChannelInfo {
        reactor: 0,
        credits: 127,
        in_flight: 0,
        zero_credit: 2,
        buffer_bytes: 8192,
        in_pieces: 3,
        aborts: 1,
        resets: 0,
    };
    DeviceDetail {
        device: device(),
        session_info: session(),
        queues: 2,
        queue_depth: 64,
        max_transfer: 1 << 20,
        optimal_transfer: None,
        write_cache: true,
        fua: true,
        rotational: false,
        channels: vec![channel.clone(), ChannelInfo { reactor: 1, ..channel }],
        counters: Counters {
            reads: 7,
            read_bytes: 28672,
            writes: 2,
            written_bytes: 8192,
            flushes: 1,
            errors: 0,
        },
    }
}
