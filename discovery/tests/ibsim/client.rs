//! A program attached to a node of ibsim: ibsim's protocol (datagrams on abstract Unix sockets) instead of umad.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use srp_addressing::{Gid, Guid, PKey};
use srp_discovery::mad::{MAD_LEN, Mad};
use srp_discovery::ports::{GidEntry, LinkLayer, Port, PortName, PortState};
use srp_discovery::transport::{Address, Event, MadTransport, Patience, SendError, Source, TransportError};

/// ibsim's `struct sim_ctl`: four numbers and 64 bytes.
pub(crate) const CONTROL_LEN: usize = 16 + 64;
/// ibsim's `struct sim_request`: addresses, status, length, and the MAD.
pub(crate) const PACKET_LEN: usize = 32 + MAD_LEN;
const MAGIC: u32 = 0xdead_beef;

/// What can be asked of ibsim.
#[derive(Clone, Copy)]
pub(crate) enum Control {
    Connect = 1,
    Disconnect = 2,
    NodeInfo = 7,
    PortInfo = 8,
    SetIsSm = 9,
    PKeys = 10,
}

/// A name in the abstract namespace, which ibsim counts with its final zero.
pub(crate) fn name(text: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(format!("{text}\0")).unwrap()
}

pub(crate) fn control_message(client: u32, kind: Control, data: &[u8]) -> [u8; CONTROL_LEN] {
    let mut message = [0; CONTROL_LEN];
    let numbers = [MAGIC, client, kind as u32, data.len() as u32];
    for (place, number) in message.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    message[16..16 + data.len()].copy_from_slice(data);
    message
}

pub(crate) fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A program at a node.
pub(crate) struct Attached {
    control: UnixDatagram,
    pub(crate) data: UnixDatagram,
    id: u32,
}

impl Attached {
    /// Attaches to `node` of the ibsim at `socket`; `requests`: also what is no answer comes here.
    pub(crate) fn new(socket: &str, node: &str, requests: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // ibsim takes it for a process id and makes the name of our socket of it.
        let me = std::process::id() * 100 + NEXT.fetch_add(1, Ordering::Relaxed);
        let control = UnixDatagram::bind_addr(&name(&format!("{socket}:ctl{me}"))).unwrap();
        control.connect_addr(&name(&format!("{socket}:ctl"))).unwrap();
        control.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let data = UnixDatagram::bind_addr(&name(&format!("{socket}:in{me}"))).unwrap();
        let mut attached = Self { control, data, id: 0 };
        let mut info = [0; 44];
        info[..4].copy_from_slice(&me.to_ne_bytes());
        info[8..12].copy_from_slice(&u32::from(requests).to_ne_bytes());
        info[12..12 + node.len()].copy_from_slice(node.as_bytes());
        let answer = attached.ask(Control::Connect, &info).expect("ibsim lets us in");
        attached.id = number(&answer, 0);
        let out = name(&format!("{socket}:out{}", attached.id));
        attached.data.connect_addr(&out).unwrap();
        if requests {
            attached.ask(Control::SetIsSm, &1_u32.to_ne_bytes()).unwrap();
        }
        attached
    }

    pub(crate) fn ask(&self, kind: Control, data: &[u8]) -> Option<[u8; 64]> {
        self.control.send(&control_message(self.id, kind, data)).ok()?;
        let mut answer = [0; CONTROL_LEN];
        self.control.recv(&mut answer).ok()?;
        (number(&answer, 8) != 0).then(|| answer[16..].try_into().unwrap())
    }

    /// The local port as sysfs would show it.
    pub(crate) fn port(&self) -> Port {
        let info = self.ask(Control::PortInfo, &[0; 64]).unwrap();
        let node = self.ask(Control::NodeInfo, &[0; 64]).unwrap();
        let keys = self.ask(Control::PKeys, &[0; 64]).unwrap();
        let half = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let long = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let keys = (0..32).map(|i| (i, PKey(half(&keys, usize::from(i) * 2))));
        Port {
            name: PortName {
                device: "ibsim0".into(),
                number: 1,
            },
            link_layer: LinkLayer::InfiniBand,
            state: match info[32] & 0xf {
                1 => PortState::Down,
                2 => PortState::Init,
                3 => PortState::Armed,
                4 => PortState::Active,
                _ => PortState::Unknown,
            },
            lid: half(&info, 16),
            sm_lid: half(&info, 18),
            sm_sl: 0,
            node_guid: Some(Guid(long(&node, 12))),
            gids: vec![GidEntry {
                index: 0,
                // ibsim counts up: the node, then its ports.
                gid: Gid::new(long(&info, 8), Guid(long(&node, 12) + 1)),
                kind: None,
                interface: None,
            }],
            pkeys: keys.filter(|(_, key)| key.partition() != 0).collect(),
            umad: Some("/dev/infiniband/umad0".into()),
        }
    }

    pub(crate) fn transmit(&self, lid: u16, qpn: u32, mad: &[u8]) -> io::Result<()> {
        let mut packet = [0; PACKET_LEN];
        packet[..4].copy_from_slice(&u32::from(lid.to_be()).to_ne_bytes());
        packet[8..12].copy_from_slice(&qpn.to_be_bytes());
        packet[12..16].copy_from_slice(&1_u32.to_be_bytes());
        packet[24..32].copy_from_slice(&(MAD_LEN as u64).to_be_bytes());
        packet[32..].copy_from_slice(mad);
        self.data.send(&packet).map(|_| ())
    }

    /// Whoever takes requests counts as a subnet manager, and opensm waits for ever for its SMInfo: it gets a refusal.
    fn is_manager_question(&self, packet: &mut [u8; PACKET_LEN]) -> bool {
        let mad = &mut packet[32..];
        let asked = matches!(mad[1], 0x01 | 0x81) && mad[3] == 1 && mad[16..18] == [0x00, 0x20];
        if asked {
            mad[3] = 0x81;
            // The direction bit of directed routes, and "attribute not supported".
            mad[4] = mad[1] & 0x80;
            mad[5] = 0x0c;
            // What came from there goes back there.
            let (to, from) = packet[..8].split_at_mut(4);
            to.swap_with_slice(from);
            let (to, from) = packet[8..16].split_at_mut(4);
            to.swap_with_slice(from);
        }
        asked
    }

    /// What comes within `limit`: from where, whether it is a request of ours that could not be delivered, and the MAD.
    pub(crate) fn receive(&self, limit: Duration) -> Option<(Source, bool, [u8; MAD_LEN])> {
        self.data
            .set_read_timeout(Some(limit.max(Duration::from_millis(1))))
            .unwrap();
        let mut packet = [0; PACKET_LEN];
        let len = self.data.recv(&mut packet).ok()?;
        assert_eq!(len, PACKET_LEN, "what ibsim sends");
        if self.is_manager_question(&mut packet) {
            let _ = self.data.send(&packet);
            return None;
        }
        let from = Source {
            lid: u16::from_be(number(&packet, 4) as u16),
            qpn: u32::from_be(number(&packet, 12)),
            gid: None,
        };
        Some((from, number(&packet, 16) != 0, packet[32..].try_into().unwrap()))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.ask(Control::SetIsSm, &0_u32.to_ne_bytes());
        let _ = self.ask(Control::Disconnect, &[]);
    }
}

struct Pending {
    to: Address,
    mad: [u8; MAD_LEN],
    again: Instant,
    patience: Patience,
}

/// What umad does for its user besides: sending again, and telling when nobody has answered.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) node: Rc<Attached>,
    pending: Rc<RefCell<HashMap<u32, Pending>>>,
}

impl Client {
    pub(crate) fn new(node: Attached) -> Self {
        Self {
            node: Rc::new(node),
            pending: Rc::default(),
        }
    }

    /// Sends again what has waited long enough; the first one that has waited altogether too long.
    fn overdue(&self, now: Instant) -> Option<u32> {
        let mut pending = self.pending.borrow_mut();
        for (tid, waiting) in pending.iter_mut().filter(|(_, waiting)| waiting.again <= now) {
            if waiting.patience.retries == 0 {
                let tid = *tid;
                pending.remove(&tid);
                return Some(tid);
            }
            waiting.patience.retries -= 1;
            waiting.again = now + waiting.patience.timeout;
            let _ = self.node.transmit(waiting.to.lid, waiting.to.qpn, &waiting.mad);
        }
        None
    }
}

impl MadTransport for Client {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], patience: Patience) -> Result<(), SendError> {
        self.respond(to, mad)?;
        let waiting = Pending {
            to: *to,
            mad: *mad,
            again: Instant::now() + patience.timeout,
            patience,
        };
        let tid = Mad::parse(mad).unwrap().tid_low();
        self.pending.borrow_mut().insert(tid, waiting);
        Ok(())
    }

    fn respond(&mut self, to: &Address, mad: &[u8; MAD_LEN]) -> Result<(), SendError> {
        self.node.transmit(to.lid, to.qpn, mad).map_err(|cause| SendError {
            to: to.to_string(),
            cause,
            remedy: "is ibsim running?",
        })
    }

    fn receive(&mut self, until: Instant) -> Result<Event, TransportError> {
        loop {
            let now = Instant::now();
            if let Some(tid) = self.overdue(now) {
                return Ok(Event::Unanswered { tid });
            }
            if now >= until {
                return Ok(Event::Idle);
            }
            let next = self.pending.borrow().values().map(|waiting| waiting.again).min();
            let limit = next.map_or(until, |next| next.min(until)) - now;
            match self.node.receive(limit) {
                // What ibsim could not deliver comes back; like the kernel we try again.
                None | Some((_, true, _)) => {}
                Some((from, false, bytes)) => {
                    self.pending.borrow_mut().remove(&Mad::parse(&bytes).unwrap().tid_low());
                    return Ok(Event::Mad {
                        from,
                        bytes: bytes.to_vec(),
                    });
                }
            }
        }
    }
}
