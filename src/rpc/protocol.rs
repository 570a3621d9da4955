//! What is said on the control socket: JSON-RPC 2.0, one message per line.
//!
//! The daemon serves these methods; the command line is a client like any other.

use serde::{Deserialize, Serialize};

/// Where the daemon listens when nothing else is said.
pub(crate) const DEFAULT_SOCKET: &str = "/run/ublk-srp/control.sock";

/// The method names.
pub(crate) mod method {
    /// [`super::AttachParams`] -> [`super::AttachReport`].
    pub(crate) const ATTACH: &str = "attach";
    /// [`super::DetachParams`] -> [`super::DetachReport`].
    pub(crate) const DETACH: &str = "detach";
    /// Nothing -> [`super::Listing`].
    pub(crate) const LIST: &str = "list";
    /// [`super::ShowParams`] -> [`super::DeviceDetail`].
    pub(crate) const SHOW: &str = "show";
    /// Nothing -> [`super::DaemonStatus`].
    pub(crate) const STATUS: &str = "status";
    /// Nothing -> [`super::KnownTargets`]; an error where the daemon does not watch.
    pub(crate) const TARGETS: &str = "targets";
    /// [`super::ProbeParams`] -> [`super::ProbeReport`].
    pub(crate) const PROBE: &str = "probe";
}

/// Log in to a target and make its disks block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttachParams {
    /// The target, as `add_target` text.
    pub target: String,
    /// Only these LUNs, as `0,3-7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub luns: Option<String>,
    /// Not these LUNs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
    /// Refuse writes, whatever the target allows.
    #[serde(default)]
    pub read_only: bool,
}

/// What an attach came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttachReport {
    /// The session the disks are reached through.
    pub session: SessionInfo,
    /// The block devices made.
    pub devices: Vec<DeviceInfo>,
    /// Logical units that did not become block devices, and why.
    pub skipped: Vec<SkippedLun>,
    /// What the user should know: options without effect, and the like.
    pub warnings: Vec<String>,
}

/// A logical unit that is no block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SkippedLun {
    /// The LUN, as a number where it is one.
    pub lun: String,
    /// What it is, such as "CD/DVD", when it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Vendor and product, when it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Why it was left out.
    pub reason: String,
    /// It was left out because something failed, not because it was asked or no disk.
    #[serde(default)]
    pub failed: bool,
}

/// End block devices. A session ends with its last device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetachParams {
    /// Numbers as in `/dev/ublkbN`; empty with `all`.
    #[serde(default)]
    pub devices: Vec<u32>,
    /// Every device of the daemon.
    #[serde(default)]
    pub all: bool,
    /// Also when it is held, or cannot be flushed.
    #[serde(default)]
    pub force: bool,
}

/// What a detach came to: one entry for each device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DetachReport {
    /// In the order asked for.
    pub devices: Vec<Detached>,
}

/// How one device ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Detached {
    /// As in `/dev/ublkbN`.
    pub number: u32,
    /// It is gone.
    pub detached: bool,
    /// What the user should know, such as a flush that was skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why it is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorData>,
}

/// Everything attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// The block devices, by number.
    pub devices: Vec<DeviceInfo>,
    /// The sessions they are reached through.
    pub sessions: Vec<SessionInfo>,
}

/// A block device in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceInfo {
    /// As in `/dev/ublkbN`.
    pub number: u32,
    /// `/dev/ublkbN`.
    pub path: String,
    /// The LUN, as a number where it is one.
    pub lun: String,
    /// The session, as in [`SessionInfo::id`].
    pub session: u32,
    /// `running` or `lost`.
    pub state: String,
    /// Bytes.
    pub size: u64,
    /// Bytes per logical block.
    pub block_size: u32,
    /// Bytes per physical block.
    pub physical_block_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Vendor, product, revision as INQUIRY gives them.
    pub vendor: String,
    /// See `vendor`.
    pub product: String,
    /// See `vendor`.
    pub revision: String,
    /// Unit serial number (VPD page 80h).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The best designator of VPD page 83h, such as `naa.6001405...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
}

/// A session in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionInfo {
    /// A number of the daemon's.
    pub id: u32,
    /// The target, as canonical `add_target` text.
    pub target: String,
    /// Address and port or GID of the target.
    pub address: String,
    /// Local device and port, such as `rxe0/1`.
    pub local: String,
    /// The initiator port id as an ACL names it: `0x` and 32 hex digits.
    pub initiator_port: String,
    /// `running` or `lost`.
    pub state: String,
    /// Why it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Channels logged in.
    pub channels: u16,
    /// Channels asked for.
    pub channels_wanted: u16,
    /// Requests the target granted per channel.
    pub request_limit: i32,
    /// Logical units seen that are no block devices.
    pub others: Vec<SkippedLun>,
}

/// Which device to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowParams {
    /// As in `/dev/ublkbN`.
    pub device: u32,
}

/// The targets that the daemon's watch knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownTargets {
    /// Every so many seconds everything is scanned, whatever events tell.
    pub period: u64,
    /// Whether targets are attached by themselves, as far as rules allow.
    pub attaches: bool,
    /// The ports watched, by name.
    pub ports: Vec<WatchedPort>,
}

/// A local port that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchedPort {
    /// Device and port, such as `mlx5_0/1`.
    pub port: String,
    /// Its state, such as `ACTIVE`.
    pub state: String,
    /// So many seconds ago everything was scanned; missing before the first scan is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scanned_seconds: Option<u64>,
    /// The targets seen through it.
    pub targets: Vec<KnownTarget>,
}

/// A target that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownTarget {
    /// The target, with the members that `discover --json` shows.
    #[serde(flatten)]
    pub target: serde_json::Map<String, serde_json::Value>,
    /// As `add_target` text, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// So many seconds ago it was found first.
    pub known_seconds: u64,
    /// So many scans in a row have not found it; after two it is gone.
    pub missed: u32,
    /// The session to it, as in [`SessionInfo::id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Somebody has detached it: it is not attached by itself again.
    #[serde(default)]
    pub dismissed: bool,
}

/// Have the sessions to a target port ask whether it is there, as when the subnet manager says that it is not. A
/// session without an answer within a second is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProbeParams {
    /// The port's IP address or GID.
    pub port: String,
}

/// What a probe came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProbeReport {
    /// The sessions to that port that were not lost before.
    pub sessions: Vec<Probed>,
}

/// What a probe of a session came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// As in [`SessionInfo::id`].
    pub session: u32,
    /// The target answered.
    pub alive: bool,
}

/// All about one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceDetail {
    /// The line of `list`.
    #[serde(flatten)]
    pub device: DeviceInfo,
    /// Its session.
    pub session_info: SessionInfo,
    /// Hardware queues of the block device.
    pub queues: u16,
    /// Requests per queue.
    pub queue_depth: u16,
    /// Bytes of the largest request.
    pub max_transfer: u32,
    /// Optimal transfer in bytes, when the unit says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimal_transfer: Option<u32>,
    /// The unit has a volatile write cache.
    pub write_cache: bool,
    /// Forced unit access is passed on.
    pub fua: bool,
    /// The unit is a spinning disk.
    pub rotational: bool,
    /// Figures of each channel.
    pub channels: Vec<ChannelInfo>,
    /// Figures of this device.
    pub counters: Counters,
}

/// A channel, as `show` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelInfo {
    /// The reactor it lives on.
    pub reactor: u32,
    /// Requests the target would take now.
    pub credits: i64,
    /// Commands sent and not finished.
    pub in_flight: u32,
    /// Times a command had to wait for credit.
    pub zero_credit: u64,
    /// Bytes of data buffers in use.
    pub buffer_bytes: u32,
    /// Commands whose data was in several pieces of the buffers.
    pub in_pieces: u64,
    /// ABORT TASK sent: commands that were not answered in time.
    pub aborts: u64,
    /// LOGICAL UNIT RESET sent.
    pub resets: u64,
}

/// What a device has done since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DaemonStatus {
    /// The program's version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Reactor threads.
    pub reactors: u32,
    /// Block devices.
    pub devices: u32,
    /// Sessions.
    pub sessions: u32,
}

/// What kind of failure it was; the client's exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorKind {
    /// The request made no sense: a bad option or value.
    Usage,
    /// This host lacks something: a module, a permission, a device.
    Host,
    /// The target or the way to it: unreachable, refused, not answering.
    Target,
    /// The device is in use.
    Busy,
    /// No such device.
    NotFound,
    /// It exists already.
    Exists,
    /// Anything else.
    Internal,
}

/// The `data` member of a JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorData {
    /// The kind.
    pub kind: ErrorKind,
    /// What went wrong, with its cause.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Who holds a busy device: a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<String>,
}
