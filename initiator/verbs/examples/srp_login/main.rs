//! Logs in to an SRP target over RDMA/CM, asks one LUN who it is, and logs out; nothing may be left over then.
//!
//! With `--scratch` it also writes to the LUN and reads it back; with `--load` it keeps 32 reads in flight for two
//! seconds and then fails its own queue pair; with `--watch` it probes for ten seconds and prints what happens.
//!
//! usage: `srp_login IP:PORT ID_EXT IOC_GUID INITIATOR_EXT [LUN] [--scratch] [--load] [--watch] [--retry=N]`

mod session;

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use srp_addressing::{Guid, IoClass, PortId};
use srp_initiator::fabric::Fabric;
use srp_initiator::scsi::Lun;
use srp_initiator::wire::login::{FORMAT_DIRECT, FORMAT_INDIRECT};
use srp_initiator::wire::{LoginReject, LoginRequest, LoginResponse, MultiChannel};
use srp_verbs::cm::{ConnectParams, Event, EventChannel};
use srp_verbs::device::Device;
use srp_verbs::{
    Access, Arena, ChannelParts, CmId, CompletionQueue, Devices, IuRing, ProtectionDomain, QueuePair, QueuePairCaps,
    RejectReason, VerbsFabric,
};

use session::Session;

type Fallible<T> = Result<T, Box<dyn Error>>;

const STEP: Duration = Duration::from_secs(5);
const RESOLVE: Duration = Duration::from_secs(2);
const SLOTS: u16 = 32;
const IU_LEN: u32 = 68 + 8192;

fn hex(text: &str) -> Fallible<u64> {
    Ok(u64::from_str_radix(text.trim_start_matches("0x"), 16)?)
}

/// Waits until one of the descriptors is readable.
fn wait_readable(fd: BorrowedFd<'_>, deadline: Instant) -> Fallible<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: left.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout))? {
        0 => Err("nothing happened in time".into()),
        _ => Ok(()),
    }
}

fn next_event(channel: &EventChannel, id: &CmId) -> Fallible<Event> {
    let deadline = Instant::now() + STEP;
    loop {
        match channel.next_event()? {
            Some((key, event)) if key == id.key() => return Ok(event),
            Some((_, event)) => println!("event of another connection: {event}"),
            None => wait_readable(channel.as_fd(), deadline)?,
        }
    }
}

/// The objects of this process the kernel still knows.
fn leftovers() -> Fallible<Vec<String>> {
    let pid = format!("pid {} ", std::process::id());
    let mut left = Vec::new();
    for kind in ["qp", "mr", "pd", "cq", "cm_id"] {
        let output = std::process::Command::new("rdma")
            .args(["resource", "show", kind])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        left.extend(
            text.lines()
                .filter(|line| line.contains(&pid))
                .map(|line| format!("{kind}: {line}")),
        );
    }
    Ok(left)
}

/// For ten seconds, prints what HCA and connection report, and asks the LUN every second whether it is there.
fn watch(channel: &EventChannel, device: &Device, session: &mut Session) -> Fallible<()> {
    let start = Instant::now();
    let mut probe = start;
    let mut alive = true;
    while start.elapsed() < Duration::from_secs(10) {
        while let Some(event) = device.next_event()? {
            println!("{:?} device: {event:?}", start.elapsed());
        }
        while let Some((_, event)) = channel.next_event()? {
            println!("{:?} connection: {event}", start.elapsed());
        }
        if alive && probe.elapsed() > Duration::from_secs(1) {
            probe = Instant::now();
            if let Err(error) = session.test_unit_ready() {
                println!("{:?} probe, after {:?}: {error}", start.elapsed(), probe.elapsed());
                alive = false;
            }
        }
        let fds = [device.as_fd(), channel.as_fd()];
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 200_000_000,
            }),
        )?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let result = run();
    if let Err(error) = &result {
        println!("error: {error}");
    }
    let left = leftovers().unwrap_or_else(|error| vec![error.to_string()]);
    println!("left over: {left:?}");
    ExitCode::from(u8::from(result.is_err() || !left.is_empty()))
}

fn run() -> Fallible<()> {
    let (options, words): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    let [destination, id_ext, ioc_guid, initiator_ext, rest @ ..] = &words[..] else {
        return Err(
            "usage: srp_login IP:PORT ID_EXT IOC_GUID INITIATOR_EXT [LUN] [--scratch] [--load] [--watch] [--retry=N]"
                .into(),
        );
    };
    let destination: SocketAddr = destination.parse()?;
    let target_port = PortId::new(hex(id_ext)?, Guid(hex(ioc_guid)?), IoClass::Rev16a);
    let lun = Lun::from_index(rest.first().map_or(Ok(0), |text| text.parse())?);

    let channel = EventChannel::new()?;
    let mut id = channel.create_id(srp_verbs::cm::PortSpace::Ip)?;
    id.resolve_address(None, &destination.into(), RESOLVE)?;
    match next_event(&channel, &id)? {
        Event::AddressResolved => {}
        other => return Err(other.to_string().into()),
    }
    let port = id.local_port().ok_or("no local port")?;
    println!(
        "{:?} from {:?} by {} port {} gid {}",
        destination,
        id.local_address(),
        port.device,
        port.port,
        port.gid
    );
    id.resolve_route(RESOLVE)?;
    match next_event(&channel, &id)? {
        Event::RouteResolved => {}
        other => return Err(other.to_string().into()),
    }

    let devices = Devices::new();
    let device = devices.of(&id)?;
    println!("{} {}: {:?}", device.name(), device.guid(), device.limits());
    let domain = ProtectionDomain::new(&device)?;
    let queue = CompletionQueue::new(&device, CompletionQueue::DEFAULT_DEPTH, 0)?;
    let caps = QueuePairCaps {
        sends: SLOTS.into(),
        receives: SLOTS.into(),
        max_inline: 128,
    };
    let queue_pair = QueuePair::create(&id, &domain, &queue, caps)?;
    println!(
        "queue pair {}, inline {}",
        queue_pair.number(),
        queue_pair.caps().max_inline
    );

    let guid = device.gid(port.port, 0)?.interface();
    let login = LoginRequest {
        tag: 0x5001,
        max_it_iu_len: IU_LEN,
        buffer_formats: FORMAT_DIRECT | FORMAT_INDIRECT,
        multichannel: MultiChannel::Single,
        immediate_data_offset: Some(68),
        initiator_port: PortId::new(hex(initiator_ext)?, guid, IoClass::Rev16a),
        target_port,
    };
    id.set_ack_timeout(14)?;
    let private_data = login.encode_rdma_cm();
    let mut params = ConnectParams::new(&private_data);
    if let Some(count) = options.iter().find_map(|option| option.strip_prefix("--retry=")) {
        params.retry_count = count.parse()?;
    }
    id.connect(&queue_pair, &params)?;
    let event = next_event(&channel, &id)?;
    let reply = match event {
        Event::ConnectResponse(reply) => reply,
        Event::Rejected {
            reason: RejectReason::Consumer,
            private_data,
        } => {
            let words = match LoginReject::parse(&private_data) {
                Ok(reject) => format!("{}; {}", reject.reason, reject.reason.remedy()),
                Err(error) => error.to_string(),
            };
            return Err(format!("{event}: {words}").into());
        }
        other => return Err(other.to_string().into()),
    };
    let response = LoginResponse::parse(&reply.private_data)?;
    println!("{reply:?}\n{response:?}");

    let sends = IuRing::new(&domain, SLOTS, IU_LEN)?;
    let receives = IuRing::new(&domain, SLOTS, response.max_ti_iu_len)?;
    let mut parts = ChannelParts::new(queue_pair, sends, receives)?;
    let reads = parts.add_region(Arena::new(&domain, 256 << 10, Access::ReadData)?)?;
    let writes = parts.add_region(Arena::new(&domain, 64 << 10, Access::WriteData)?)?;
    id.establish(parts.queue_pair_mut())?;
    println!("{:?}", parts.queue_pair().transport_timeout());

    let mut fabric = VerbsFabric::new();
    let token = fabric.attach(&queue);
    let qp = fabric.adopt(parts)?;
    for slot in 0..SLOTS {
        fabric.post_receive(qp, slot);
    }
    fabric.flush();
    let mut session = Session {
        fabric,
        qp,
        reads,
        writes,
        lun,
        next_tag: 1 << 16,
        sleeps: 0,
    };
    session.inquiry()?;
    if options.iter().any(|option| option == "--scratch") {
        session.scratch(response.immediate_data)?;
    }
    if options.iter().any(|option| option == "--load") {
        session.load(Duration::from_secs(2))?;
    }

    if options.iter().any(|option| option == "--watch") {
        watch(&channel, &device, &mut session)?;
    }

    id.disconnect()?;
    println!("logout: {}", next_event(&channel, &id)?);
    println!("before: {} objects", leftovers()?.len());
    let parts = session.fabric.release(qp).ok_or("the channel is gone")?;
    parts.destroy()?;
    drop(session.fabric.detach(token));
    drop((session, queue, domain, device, devices, id, channel));
    Ok(())
}
