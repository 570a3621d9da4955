//! Takes the native way (AF_IB) to a target port as far as it leads, and prints a line for each step: what a port can do
//! that has no InfiniBand fabric behind it, such as a soft-RoCE port, is found out by trying.
//!
//! usage: `native_way SOURCE_GID|- DESTINATION_GID PKEY SERVICE_ID`

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use srp_verbs::cm::{Address, CmError, CmId, Event, EventChannel, PortSpace};

type Fallible<T> = Result<T, Box<dyn Error>>;

const STEP: Duration = Duration::from_secs(5);
const RESOLVE: Duration = Duration::from_secs(2);

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
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [source, destination, pkey, service] = &words[..] else {
        return Err("usage: native_way SOURCE_GID|- DESTINATION_GID PKEY SERVICE_ID".into());
    };
    let pkey = pkey.parse()?;
    let destination = Address::InfiniBand {
        gid: destination.parse()?,
        pkey,
        service: Some(service.parse()?),
    };
    let source = match source.as_str() {
        "-" => None,
        gid => Some(Address::InfiniBand {
            gid: gid.parse()?,
            pkey,
            service: None,
        }),
    };
    let channel = EventChannel::new()?;
    let mut id = channel.create_id(PortSpace::InfiniBand)?;
    if let Err(error) = id.resolve_address(source.as_ref(), &destination, RESOLVE) {
        println!("address: refused: {}", cause(&error));
        return Ok(());
    }
    match next_event(&channel, &id)? {
        Event::AddressResolved => match id.local_port() {
            Some(port) => println!("address: resolved, by {}/{}, from {}", port.device, port.port, port.gid),
            None => println!("address: resolved, by no device"),
        },
        other => {
            println!("address: {other:?}");
            return Ok(());
        }
    }
    if let Err(error) = id.resolve_route(RESOLVE) {
        println!("route: refused: {}", cause(&error));
        return Ok(());
    }
    match next_event(&channel, &id)? {
        Event::RouteResolved => println!("route: resolved"),
        other => println!("route: {other:?}"),
    }
    Ok(())
}

fn cause(error: &CmError) -> String {
    match error {
        CmError::ResolveAddress { cause, .. } | CmError::ResolveRoute(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

fn next_event(channel: &EventChannel, id: &CmId) -> Fallible<Event> {
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
                if poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&timeout))? == 0 {
                    return Err("nothing happened in time".into());
                }
            }
        }
    }
}
