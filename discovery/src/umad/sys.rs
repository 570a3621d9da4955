//! The one system call that needs `unsafe`: registering an agent.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl::{Updater, ioctl, opcode};

use crate::mad::{GSI_QP, Method};

/// `struct ib_user_mad_reg_req2` of `<rdma/ib_user_mad.h>`.
#[repr(C)]
struct RegisterAgent {
    id: u32,
    qpn: u32,
    mgmt_class: u8,
    mgmt_class_version: u8,
    reserved1: u16,
    flags: u32,
    method_mask: [u64; 2],
    oui: u32,
    rmpp_version: u8,
    reserved2: [u8; 3],
}

const _: () = assert!(size_of::<RegisterAgent>() == 40);

/// `IB_USER_MAD_REGISTER_AGENT2`, `_IOWR(0x1b, 4, struct ib_user_mad_reg_req2)`.
const REGISTER_AGENT2: rustix::ioctl::Opcode = opcode::read_write::<RegisterAgent>(0x1b, 4);

/// What an agent is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentKind {
    /// The management class.
    pub(super) class: u8,
    /// Its version.
    pub(super) version: u8,
    /// Whether the kernel puts answers in several segments together (RMPP).
    pub(super) tables: bool,
    /// Whether reports of events come to it, which only one agent of a port can ask for.
    pub(super) reports: bool,
}

/// Registers an agent that sends requests and gets their answers, and perhaps reports; the kernel's own agent of that
/// class stays where it is. This form of registration also enables the header that has a P_Key index.
///
/// The agent lives until `device` is closed.
pub(super) fn register_agent(device: impl AsFd, kind: AgentKind) -> Result<u32> {
    let mut method_mask = [0; 2];
    if kind.reports {
        method_mask[0] = 1 << Method::REPORT.0;
    }
    let mut request = RegisterAgent {
        id: 0,
        qpn: GSI_QP,
        mgmt_class: kind.class,
        mgmt_class_version: kind.version,
        reserved1: 0,
        flags: 0,
        method_mask,
        oui: 0,
        rmpp_version: kind.tables.into(),
        reserved2: [0; 3],
    };
    // SAFETY: on a umad device this opcode reads and writes exactly one struct ib_user_mad_reg_req2, whose layout
    // `RegisterAgent` has: the opcode carries its size, so a kernel with another one refuses it. All its fields
    // are integers, so that whatever the kernel writes is valid. On any other file the opcode is unknown.
    unsafe { ioctl(device, Updater::<REGISTER_AGENT2, RegisterAgent>::new(&mut request)) }?;
    Ok(request.id)
}
