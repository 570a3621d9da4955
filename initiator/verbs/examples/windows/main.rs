//! Shows what a memory window lets through on the HCA at hand: which direction, over which queue pair, and for how
//! long. A peer in this process, behind the same port, tries everything else too.
//!
//! usage: `windows ADDRESS`, an IPv4 address of an RDMA port of this host

mod peer;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use srp_initiator::fabric::{Completion, Extent, Fabric, QueuePairId, RegionId, RemoteAccess, WorkKind};
use srp_initiator::wire::MemoryDescriptor;
use srp_verbs::cm::{ConnectParams, Event, EventChannel, PortSpace};
use srp_verbs::{
    Access, Arena, ChannelParts, CmId, CompletionQueue, Devices, IuRing, MemoryWindow, ProtectionDomain, QueuePair,
    QueuePairCaps, VerbsFabric,
};

use peer::{Outcome, PATTERN, Peer};

type Fallible<T> = Result<T, Box<dyn Error>>;

const STEP: Duration = Duration::from_secs(10);
const PORT: u16 = 7471;
const ARENA: usize = 1 << 16;
const LEN: u32 = 8192;
const OURS: u8 = 0xa7;
/// IBV_WC_REM_ACCESS_ERR.
const REFUSED: Outcome = Outcome::Refused(10);

/// This host's side: one protection domain, as a session has.
struct Host {
    channel: EventChannel,
    address: SocketAddr,
    peers: Receiver<std::io::Result<Peer>>,
    fabric: VerbsFabric,
    queue: Arc<CompletionQueue>,
    domain: Arc<ProtectionDomain>,
}

/// A connection with one window.
struct Connection {
    // The order of the fields is the order of destruction.
    peer: Peer,
    qp: QueuePairId,
    reads: RegionId,
    writes: RegionId,
    _id: CmId,
}

fn event(channel: &EventChannel, id: &CmId) -> Fallible<Event> {
    let deadline = Instant::now() + STEP;
    loop {
        match channel.next_event()? {
            Some((key, event)) if key == id.key() => return Ok(event),
            Some(_) => {}
            None => {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = Timespec {
                    tv_sec: left.as_secs() as i64,
                    tv_nsec: left.subsec_nanos().into(),
                };
                let mut fds = [PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN)];
                if poll(&mut fds, Some(&timeout))? == 0 {
                    return Err("no connection event in time".into());
                }
            }
        }
    }
}

fn resolved(channel: &EventChannel, address: &SocketAddr) -> Fallible<CmId> {
    let mut id = channel.create_id(PortSpace::Ip)?;
    id.resolve_address(None, &(*address).into(), STEP)?;
    match event(channel, &id)? {
        Event::AddressResolved => id.resolve_route(STEP)?,
        other => return Err(other.to_string().into()),
    }
    match event(channel, &id)? {
        Event::RouteResolved => Ok(id),
        other => Err(other.to_string().into()),
    }
}

impl Host {
    fn new(ip: IpAddr) -> Fallible<Self> {
        let peers = peer::listen(PORT)?;
        let channel = EventChannel::new()?;
        let address = SocketAddr::new(ip, PORT);
        let id = resolved(&channel, &address)?;
        let device = Devices::new().of(&id)?;
        println!("{}: {:?}", device.name(), device.limits());
        let domain = ProtectionDomain::new(&device)?;
        let queue = CompletionQueue::new(&device, 256, 0)?;
        let mut fabric = VerbsFabric::new();
        fabric.attach(&queue);
        Ok(Self {
            channel,
            address,
            peers,
            fabric,
            queue,
            domain,
        })
    }

    fn connect(&mut self) -> Fallible<Connection> {
        let mut id = resolved(&self.channel, &self.address)?;
        let caps = QueuePairCaps {
            sends: 16,
            receives: 4,
            max_inline: 0,
        };
        let queue_pair = QueuePair::create(&id, &self.domain, &self.queue, caps)?;
        id.connect(&queue_pair, &ConnectParams::new(&[]))?;
        let peer = self.peers.recv_timeout(STEP)??;
        match event(&self.channel, &id)? {
            Event::ConnectResponse(_) => {}
            other => return Err(other.to_string().into()),
        }
        let ring = || IuRing::new(&self.domain, 2, 64);
        let windows = vec![MemoryWindow::new(&self.domain)?, MemoryWindow::new(&self.domain)?];
        let mut parts = ChannelParts::new(queue_pair, ring()?, ring()?)?.with_windows(windows)?;
        let mut arena = |access| -> Fallible<RegionId> {
            let mut arena = Arena::new(&self.domain, ARENA, access)?;
            arena.copy_in(0, &[OURS; ARENA])?;
            Ok(parts.add_region(arena)?)
        };
        let (reads, writes) = (arena(Access::ReadWindows)?, arena(Access::WriteWindows)?);
        id.establish(parts.queue_pair_mut())?;
        let qp = self.fabric.adopt(parts)?;
        Ok(Connection {
            peer,
            qp,
            reads,
            writes,
            _id: id,
        })
    }

    /// The next completion of a kind.
    fn completion(&mut self, qp: QueuePairId, kind: WorkKind) -> Fallible<Completion> {
        let deadline = Instant::now() + STEP;
        let mut out = Vec::with_capacity(16);
        while Instant::now() < deadline {
            self.fabric.poll(&mut out);
            if let Some(found) = out.iter().find(|found| found.qp == qp && found.kind == kind) {
                return Ok(*found);
            }
            out.clear();
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(format!("no completion of {kind:?}").into())
    }

    /// Opens a connection's window on some bytes and waits until that is done, which the SEND behind it says.
    fn open(&mut self, to: &Connection, region: RegionId, access: RemoteAccess) -> Fallible<MemoryDescriptor> {
        let extent = Extent {
            region,
            offset: 4096,
            len: LEN,
        };
        let memory = self.fabric.describe_window(to.qp, 0, extent);
        self.fabric.post_bind(to.qp, 0, extent, access);
        self.fabric.post_send(to.qp, 0, 16, None);
        self.fabric.flush();
        self.completion(to.qp, WorkKind::Send)?.result?;
        Ok(memory)
    }

    fn close(&mut self, to: &Connection) -> Fallible<()> {
        self.fabric.post_invalidate(to.qp, 0);
        self.fabric.flush();
        self.completion(to.qp, WorkKind::Invalidate)?.result?;
        Ok(())
    }

    /// What an arena holds where the window is, and around it.
    fn bytes(&self, of: &Connection, region: RegionId, offset: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.fabric.copy_out(of.qp, Extent { region, offset, len }, &mut bytes);
        bytes
    }

    fn end(&mut self, connection: Connection) -> Fallible<()> {
        let parts = self.fabric.release(connection.qp).ok_or("the channel is gone")?;
        parts.destroy()?;
        Ok(())
    }
}

fn expect(what: &str, found: Outcome, wanted: &Outcome) -> Fallible<()> {
    let text = match &found {
        Outcome::Done(_) => "done".to_owned(),
        Outcome::Refused(status) => format!("refused, status {status}"),
    };
    println!("{what}: {text}");
    if found == *wanted {
        Ok(())
    } else {
        Err(format!("{what}: something else was expected").into())
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible<()> {
    let ip = std::env::args().nth(1).ok_or("usage: windows ADDRESS")?.parse()?;
    let mut host = Host::new(ip)?;
    let done = |byte: u8| Outcome::Done(vec![byte; LEN as usize]);

    let a = host.connect()?;
    let memory = host.open(&a, a.reads, RemoteAccess::Write)?;
    expect(
        "a window for writing, written",
        a.peer.access(true, memory)?,
        &done(PATTERN),
    )?;
    let around = host.bytes(&a, a.reads, 4095, LEN + 2);
    if around[0] != OURS || around[1..=LEN as usize] != vec![PATTERN; LEN as usize] || around[LEN as usize + 1] != OURS
    {
        return Err("the bytes written are not those of the window".into());
    }
    host.close(&a)?;
    expect("a closed window, written", a.peer.access(true, memory)?, &REFUSED)?;
    host.end(a)?;

    let a = host.connect()?;
    let memory = host.open(&a, a.writes, RemoteAccess::Read)?;
    expect("a window for reading, read", a.peer.access(false, memory)?, &done(OURS))?;
    expect("a window for reading, written", a.peer.access(true, memory)?, &REFUSED)?;
    host.end(a)?;

    let a = host.connect()?;
    let memory = host.open(&a, a.reads, RemoteAccess::Write)?;
    expect("a window for writing, read", a.peer.access(false, memory)?, &REFUSED)?;
    host.end(a)?;

    let (a, b) = (host.connect()?, host.connect()?);
    let memory = host.open(&a, a.reads, RemoteAccess::Write)?;
    expect(
        "a window of another queue pair, written",
        b.peer.access(true, memory)?,
        &REFUSED,
    )?;
    expect(
        "the same over its own, written",
        a.peer.access(true, memory)?,
        &done(PATTERN),
    )?;
    host.end(b)?;
    host.end(a)?;

    let a = host.connect()?;
    let old = host.open(&a, a.writes, RemoteAccess::Read)?;
    host.close(&a)?;
    let new = host.open(&a, a.writes, RemoteAccess::Read)?;
    expect("a window opened again, read", a.peer.access(false, new)?, &done(OURS))?;
    expect("the same under its old key", a.peer.access(false, old)?, &REFUSED)?;
    host.end(a)?;

    let a = host.connect()?;
    let extent = Extent {
        region: a.writes,
        offset: 0,
        len: LEN,
    };
    let arena = host.fabric.describe(a.qp, extent);
    expect(
        "the arena under its own key, read",
        a.peer.access(false, arena)?,
        &REFUSED,
    )?;
    host.end(a)?;

    let a = host.connect()?;
    let extent = Extent {
        region: a.writes,
        offset: 0,
        len: LEN,
    };
    host.fabric.post_bind(a.qp, 0, extent, RemoteAccess::Write);
    host.fabric.flush();
    let failed = host.completion(a.qp, WorkKind::Bind)?.result;
    // Soft-RoCE says that it was flushed, as everything is from then on.
    match failed {
        Err(error) => println!("a window for writing in memory for reading: not opened, {error}"),
        Ok(_) => return Err("a window for writing was opened in memory for reading".into()),
    }
    host.end(a)?;

    // For the record: the standard has it refused, soft-RoCE does not look.
    let a = host.connect()?;
    let memory = host.open(&a, a.writes, RemoteAccess::Read)?;
    let beyond = MemoryDescriptor { len: LEN + 1, ..memory };
    let found = match a.peer.access(false, beyond)? {
        Outcome::Done(_) => "done",
        Outcome::Refused(_) => "refused",
    };
    println!("one byte beyond a window, read: {found}");
    host.end(a)?;
    Ok(())
}
