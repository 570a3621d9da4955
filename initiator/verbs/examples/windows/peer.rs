//! The other side: accepts connections and does to us what it is told to.

use std::io;
use std::net::Ipv4Addr;
use std::ptr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rdma_sys::{
    ibv_access_flags, ibv_post_recv, ibv_post_send, ibv_qp_init_attr, ibv_recv_wr, ibv_send_flags, ibv_send_wr,
    ibv_sge, ibv_wr_opcode, rdma_cm_id,
};
use srp_initiator::wire::MemoryDescriptor;

/// Bytes the peer has to read into or write from.
pub(super) const ROOM: usize = 1 << 16;
/// What the peer writes.
pub(super) const PATTERN: u8 = 0x5c;

/// An access to our memory.
pub(super) struct Order {
    pub(super) write: bool,
    pub(super) memory: MemoryDescriptor,
}

/// What became of an order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done; the bytes read.
    Done(Vec<u8>),
    /// It was refused, with this work completion status.
    Refused(u32),
}

/// A connection as the peer has it; dropping it ends it.
pub(super) struct Peer {
    orders: Sender<Order>,
    outcomes: Receiver<io::Result<Outcome>>,
}

impl Peer {
    pub(super) fn access(&self, write: bool, memory: MemoryDescriptor) -> Result<Outcome, Box<dyn std::error::Error>> {
        self.orders.send(Order { write, memory })?;
        Ok(self.outcomes.recv()??)
    }
}

/// An id of librdmacm that moves to the thread that serves it.
struct Id(*mut rdma_cm_id);

// SAFETY: the id is used by one thread at a time.
unsafe impl Send for Id {}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Listens on a port; each connection comes out as a [`Peer`].
pub(super) fn listen(port: u16) -> io::Result<Receiver<io::Result<Peer>>> {
    let mut listener = ptr::null_mut();
    let mut address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(Ipv4Addr::UNSPECIFIED),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: without an event channel the calls wait for their end; the address is a sockaddr_in and is copied.
    unsafe {
        let space = rdma_sys::rdma_port_space::RDMA_PS_TCP;
        check(rdma_sys::rdma_create_id(
            ptr::null_mut(),
            &mut listener,
            ptr::null_mut(),
            space,
        ))?;
        check(rdma_sys::rdma_bind_addr(listener, ptr::addr_of_mut!(address).cast()))?;
        check(rdma_sys::rdma_listen(listener, 8))?;
    }
    let (peers, accepted) = channel();
    let listener = Id(listener);
    thread::spawn(move || {
        let Id(listener) = { listener };
        loop {
            let mut id = ptr::null_mut();
            // SAFETY: the listener is never destroyed; the place for the id is ours.
            let result = check(unsafe { rdma_sys::rdma_get_request(listener, &mut id) });
            if peers.send(result.map(|()| serve(Id(id)))).is_err() {
                return;
            }
        }
    });
    Ok(accepted)
}

fn serve(id: Id) -> Peer {
    let (orders, incoming) = channel::<Order>();
    let (told, outcomes) = channel();
    thread::spawn(move || {
        let Id(id) = { id };
        let mut memory = vec![PATTERN; ROOM];
        // SAFETY: the id is connected to us and used by this thread alone, and the memory lives longer than its
        // registration.
        unsafe {
            let key = match accept(id, &mut memory) {
                Ok(key) => key,
                Err(error) => {
                    let _ = told.send(Err(error));
                    return;
                }
            };
            for order in incoming {
                let _ = told.send(carry_out(id, key, &mut memory, &order));
            }
            rdma_sys::rdma_disconnect(id);
            rdma_sys::rdma_destroy_qp(id);
            rdma_sys::rdma_destroy_id(id);
        }
    });
    Peer { orders, outcomes }
}

/// Gives the connection a queue pair, receives and registered memory, whose key it returns.
unsafe fn accept(id: *mut rdma_cm_id, memory: &mut [u8]) -> io::Result<u32> {
    // SAFETY: as the caller says; plain integers and pointers may be zero.
    unsafe {
        let mut init: ibv_qp_init_attr = std::mem::zeroed();
        init.qp_type = rdma_sys::ibv_qp_type::IBV_QPT_RC;
        init.cap.max_send_wr = 16;
        init.cap.max_recv_wr = 16;
        init.cap.max_send_sge = 1;
        init.cap.max_recv_sge = 1;
        check(rdma_sys::rdma_create_qp(id, ptr::null_mut(), &mut init))?;
        let access = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0;
        let region = rdma_sys::ibv_reg_mr(
            (*id).pd,
            memory.as_mut_ptr().cast(),
            memory.len(),
            access as libc::c_int,
        );
        if region.is_null() {
            return Err(io::Error::last_os_error());
        }
        let mut entry = ibv_sge {
            addr: memory.as_mut_ptr() as u64,
            length: 256,
            lkey: (*region).lkey,
        };
        for wr_id in 0..8 {
            let mut bad = ptr::null_mut();
            let mut receive = ibv_recv_wr {
                wr_id,
                next: ptr::null_mut(),
                sg_list: &mut entry,
                num_sge: 1,
            };
            check(ibv_post_recv((*id).qp, &mut receive, &mut bad))?;
        }
        check(rdma_sys::rdma_accept(id, ptr::null_mut()))?;
        Ok((*region).lkey)
    }
}

unsafe fn carry_out(id: *mut rdma_cm_id, key: u32, memory: &mut [u8], order: &Order) -> io::Result<Outcome> {
    let fill = if order.write { PATTERN } else { 0 };
    // The first bytes are the receives'.
    let place = &mut memory[256..][..order.memory.len as usize];
    place.fill(fill);
    let mut entry = ibv_sge {
        addr: place.as_mut_ptr() as u64,
        length: order.memory.len,
        lkey: key,
    };
    // SAFETY: as the caller says; plain integers and pointers may be zero.
    unsafe {
        let mut request: ibv_send_wr = std::mem::zeroed();
        request.sg_list = &mut entry;
        request.num_sge = 1;
        request.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
        request.opcode = match order.write {
            true => ibv_wr_opcode::IBV_WR_RDMA_WRITE,
            false => ibv_wr_opcode::IBV_WR_RDMA_READ,
        };
        request.wr.rdma.remote_addr = order.memory.address;
        request.wr.rdma.rkey = order.memory.key;
        let mut bad = ptr::null_mut();
        check(ibv_post_send((*id).qp, &mut request, &mut bad))?;
        let end = Instant::now() + Duration::from_secs(10);
        let mut completion = std::mem::zeroed();
        while rdma_sys::ibv_poll_cq((*id).send_cq, 1, &mut completion) == 0 {
            if Instant::now() > end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(match completion.status {
            0 => Outcome::Done(place.to_vec()),
            status => Outcome::Refused(status),
        })
    }
}
