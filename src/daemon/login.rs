//! The login of one channel: from the target's address to a queue pair that a reactor serves.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use srp_addressing::Gid;
use srp_initiator::fabric::Exposure;
use srp_initiator::session::{Fence, Granted, LoginError, LoginParameters, SessionKey, SlotPlan, reject_reason};
use srp_initiator::wire::login::{LoginRejectReason, MultiChannel};
use srp_verbs::cm::{Address, CmError, ConnectParams, PortSpace};
use srp_verbs::completion_queue::CompletionQueueError;
use srp_verbs::device::{Device, DeviceError, Devices};
use srp_verbs::fabric::{ChannelParts, IuRing, PartsError};
use srp_verbs::memory::{Access, Arena, MemoryError, MemoryWindow, ProtectionDomain};
use srp_verbs::queue_pair::{QueuePair, QueuePairCaps};
use tokio::sync::oneshot;
use tokio::time::Instant;
use ublk_frontend::backend::AreaId;
use ublk_frontend::reactor::AddAreaError;

use super::channel::{Channel, watch_connection};
use super::connection::{ConnectError, Connection, ConnectionManager};
use super::reactors::{Reactor, Reactors};
use crate::backend::{Arena as ReactorArena, Message, NewChannel};

/// A login, from the first packet to the first command, takes at most this.
const LOGIN_LIMIT: Duration = Duration::from_secs(15);
/// 4.096 us x 2^14 = 67 ms: with 8 tries a dead path shows within some seconds.
const ACK_TIMEOUT: u8 = 14;

/// What all channels of a session share.
#[derive(Clone)]
pub(crate) struct SessionGround {
    pub(crate) key: SessionKey,
    pub(crate) address: Address,
    pub(crate) source: Option<Address>,
    pub(crate) retry_count: u8,
    pub(crate) queue_size: u16,
    pub(crate) exposure: Exposure,
    pub(crate) fence: Fence,
    pub(crate) max_transfer: u32,
    /// How many pieces the data of a command may be in.
    pub(crate) descriptors: u16,
    pub(crate) arena_len: u32,
    /// Bytes of the largest write to send within its command; 0 once the target has refused IUs of that length.
    pub(crate) immediate_data: u32,
    pub(crate) domain: Option<Arc<ProtectionDomain>>,
}

/// Where a connection leaves this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalEnd {
    pub(crate) device: String,
    pub(crate) port: u8,
    /// GID 0 of the port, whose lower half is the port GUID that initiator port ids are made of.
    pub(crate) port_gid: Gid,
    pub(crate) address: Option<SocketAddr>,
}

/// Why a channel did not come into service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelSetupError {
    /// Connecting failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The answer to the login cannot be worked with.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The HCA does not do what is needed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No completion queue.
    #[error(transparent)]
    CompletionQueue(#[from] CompletionQueueError),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The parts do not make a channel.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// A buffer cannot be shared with the reactor.
    #[error("a data buffer cannot be shared with its reactor: {0}")]
    Share(std::io::Error),
    /// The reactor could not map a buffer.
    #[error(transparent)]
    Area(#[from] AddAreaError),
    /// The connection leaves through no RDMA device.
    #[error("the way to {0} leads through no RDMA device")]
    NoDevice(Address),
    /// The reactor is gone.
    #[error(transparent)]
    Reactor(#[from] ublk_frontend::reactor::Gone),
}

impl ChannelSetupError {
    /// The target takes no command IUs as long as those that were asked for (LOGIN_REJ 0x00010002).
    pub(crate) fn iu_too_long(&self) -> bool {
        match self {
            Self::Connect(ConnectError::Consumer { private_data }) => {
                reject_reason(private_data) == Ok(LoginRejectReason::IuTooLong)
            }
            _ => false,
        }
    }
}

impl From<CmError> for ChannelSetupError {
    fn from(error: CmError) -> Self {
        Self::Connect(ConnectError::Cm(error))
    }
}

/// A connection that is resolved and not connected yet.
pub(crate) struct Resolved {
    connection: Connection,
    device: Arc<Device>,
    pub(crate) local: LocalEnd,
    /// The target port's GID, where it is known.
    pub(crate) peer: Option<Gid>,
    deadline: Instant,
}

/// Finds the way to the target, and by it the HCA port and its name.
pub(crate) async fn resolve(
    manager: &ConnectionManager,
    devices: &Devices,
    ground: &SessionGround,
) -> Result<Resolved, ChannelSetupError> {
    let deadline = Instant::now() + LOGIN_LIMIT;
    let mut connection = manager.open(PortSpace::of(&ground.address))?;
    connection.resolve(ground.source, ground.address, deadline).await?;
    let port = connection
        .id
        .local_port()
        .ok_or(ChannelSetupError::NoDevice(ground.address))?;
    let device = devices.of(&connection.id)?;
    let port_gid = device.gid(port.port, 0)?;
    let address = connection.id.local_address();
    let peer = connection.id.peer_gid();
    let local = LocalEnd {
        device: port.device,
        port: port.port,
        port_gid,
        address,
    };
    Ok(Resolved {
        connection,
        device,
        local,
        peer,
        deadline,
    })
}

impl Resolved {
    /// Logs in at the target. What there is until it has answered may be dropped at any time.
    pub(crate) async fn connect(
        self,
        ground: &mut SessionGround,
        parameters: &LoginParameters,
        multichannel: MultiChannel,
        reactors: &Reactors,
        reactor: Reactor,
    ) -> Result<Accepted, ChannelSetupError> {
        let Self {
            mut connection,
            device,
            deadline,
            ..
        } = self;
        let domain = match &ground.domain {
            Some(domain) if Arc::ptr_eq(domain.device(), &device) => Arc::clone(domain),
            _ => Arc::clone(ground.domain.insert(ProtectionDomain::new(&device)?)),
        };
        // The target may grant more or less; a queue pair of the size wished for holds either.
        let most = SlotPlan::new(i32::from(ground.queue_size) + 1, ground.queue_size);
        let caps = QueuePairCaps {
            sends: most.send_work(ground.exposure),
            receives: most.receives.into(),
            max_inline: 128,
        };
        let queue_pair = reactors.queue_pair(reactor.index, &device, caps.sends.max(caps.receives), |queue| {
            QueuePair::create(&connection.id, &domain, queue, caps).map_err(ChannelSetupError::from)
        })?;
        // What the HCA lacks is said before the target is troubled. Behind the queue pair, as a process's objects are
        // destroyed by the kernel last first: windows keep the queue pair they are open on.
        let windows = match ground.exposure {
            Exposure::Pool => Vec::new(),
            Exposure::Window => windows(&domain, &most)?,
        };
        if let Err(error) = connection.id.set_ack_timeout(ACK_TIMEOUT) {
            tracing::debug!(%error, "the fabric's own acknowledgement timeout applies");
        }
        let request = login_request(parameters, multichannel, &ground.address);
        let mut connect = ConnectParams::new(&request);
        connect.retry_count = ground.retry_count;
        connection.id.connect(&queue_pair, &connect)?;
        let (private_data, ours_to_establish) = connection.answer(deadline).await?;
        let granted = parameters.accept(&private_data)?;
        Ok(Accepted {
            connection,
            domain,
            queue_pair,
            windows,
            ours_to_establish,
            granted,
            send_slot: parameters.send_slot_len(&granted),
            reactor,
        })
    }
}

/// A connection whose login the target has accepted.
pub(crate) struct Accepted {
    connection: Connection,
    domain: Arc<ProtectionDomain>,
    queue_pair: QueuePair,
    windows: Vec<MemoryWindow>,
    ours_to_establish: bool,
    granted: Granted,
    /// Bytes of a send slot.
    send_slot: u32,
    reactor: Reactor,
}

impl Accepted {
    /// Hands the channel to its reactor. To be waited for to its end, else buffers stay with the reactor.
    pub(crate) async fn serve(
        self,
        ground: &SessionGround,
        serial: u32,
        lost: impl FnOnce(String) + Send + 'static,
    ) -> Result<Channel, ChannelSetupError> {
        let Self {
            mut connection,
            domain,
            mut queue_pair,
            mut windows,
            ours_to_establish,
            granted,
            send_slot,
            reactor,
        } = self;
        let (read_access, write_access) = match ground.exposure {
            Exposure::Pool => (Access::ReadData, Access::WriteData),
            Exposure::Window => (Access::ReadWindows, Access::WriteWindows),
        };
        let plan = SlotPlan::new(granted.request_limit, ground.queue_size);
        // Immediate data is sent from its buffer, behind the IU in its slot.
        let sends = IuRing::new(&domain, plan.sends, send_slot)?;
        let receives = IuRing::new(&domain, plan.receives, granted.max_ti_iu_len)?;
        let len = ground.arena_len;
        windows.truncate(plan.commands.into());
        let read = Arena::new(&domain, len as usize, read_access)?;
        let write = Arena::new(&domain, len as usize, write_access)?;
        if ours_to_establish {
            connection.id.establish(&mut queue_pair)?;
        }
        let read_area = map(&reactor, &read).await?;
        let write_area = match map(&reactor, &write).await {
            Ok(area) => area,
            Err(error) => {
                reactor.remove_area(read_area).await;
                return Err(error);
            }
        };
        let place = |region, area| ReactorArena { region, len, area };
        let added = async {
            let mut parts = ChannelParts::new(queue_pair, sends, receives)?.with_windows(windows)?;
            let read_region = parts.add_region(read)?;
            let write_region = parts.add_region(write)?;
            let channel = |reply| {
                Message::AddChannel(Box::new(NewChannel {
                    parts,
                    session: ground.key,
                    granted,
                    plan,
                    exposure: ground.exposure,
                    fence: ground.fence,
                    max_transfer: ground.max_transfer,
                    descriptors: ground.descriptors,
                    read_arena: place(read_region, read_area),
                    write_arena: place(write_region, write_area),
                    reply,
                }))
            };
            Ok::<_, ChannelSetupError>(reactor.ask(channel).await?)
        };
        let qp = match added.await {
            Ok(qp) => qp,
            Err(error) => {
                // Who tries again for ever must not leave something behind each time.
                for area in [read_area, write_area] {
                    reactor.remove_area(area).await;
                }
                return Err(error);
            }
        };
        let (watch, ended) = oneshot::channel();
        let connection = tokio::spawn(watch_connection(connection, ended, lost));
        Ok(Channel {
            serial,
            failed: false,
            flush_by: None,
            reactor,
            qp,
            granted,
            plan,
            areas: [read_area, write_area],
            watch,
            connection,
        })
    }
}

/// A memory window for each command of a channel.
fn windows(domain: &Arc<ProtectionDomain>, plan: &SlotPlan) -> Result<Vec<MemoryWindow>, MemoryError> {
    (0..plan.commands).map(|_| MemoryWindow::new(domain)).collect()
}

/// The private data of a login: by IP address the form that leaves room for the header of such a connection, by GID the
/// SRP_LOGIN_REQ of the standard.
pub(crate) fn login_request(parameters: &LoginParameters, multichannel: MultiChannel, address: &Address) -> Vec<u8> {
    let request = parameters.request(multichannel);
    if address.is_ip() {
        request.encode_rdma_cm().to_vec()
    } else {
        request.encode().to_vec()
    }
}

/// Makes an arena known to a reactor. (No borrow of the arena is held while waiting: it is not `Sync`.)
fn map(reactor: &Reactor, arena: &Arena) -> impl Future<Output = Result<AreaId, ChannelSetupError>> + use<> {
    let memfd = arena.as_fd().try_clone_to_owned().map_err(ChannelSetupError::Share);
    let (reactor, len) = (reactor.clone(), arena.len() as u64);
    async move { Ok(reactor.add_area(&memfd?, len).await?) }
}
