use super::*;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use srp_discovery::mad::MAD_LEN;
use srp_discovery::model::subnet::Subnet;
use srp_discovery::transport::{Address, Event, Patience, SendError, TransportError};
use tokio::sync::mpsc::UnboundedReceiver;

#[test]
fn what_happens_to_other_ports_does_not_count() {
    let after = |events: &[DeviceEvent]| {
        let mut happened = Happened::default();
        events.iter().for_each(|event| happened.take(event, 1));
        (happened.port, happened.reregister, happened.gone)
    };
    assert_eq!(
        after(&[DeviceEvent::PortDown(2), DeviceEvent::ClientReregister(2)]),
        (false, false, false)
    );
    assert_eq!(
        after(&[DeviceEvent::PortDown(1), DeviceEvent::PortActive(2)]),
        (true, false, false)
    );
    assert_eq!(
        after(&[DeviceEvent::SubnetManagerChange(1), DeviceEvent::LidChange(1)]),
        (true, true, false)
    );
    assert_eq!(after(&[DeviceEvent::DeviceFatal]), (false, false, true));
}

/// A port of an HCA that can be pulled out: what becomes of it, by one of three ways of seeing that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pulled {
    No,
    /// The MAD device fails.
    Mad,
    /// The HCA tells it.
    Event,
    /// The port is not there when it is looked for.
    Listing,
}

/// The modelled subnet through that port.
struct Plugged {
    subnet: Subnet,
    pulled: Arc<Mutex<Pulled>>,
}

fn pulled(state: &Mutex<Pulled>) -> Pulled {
    *state.lock().unwrap()
}

impl MadTransport for Plugged {
    fn now(&self) -> Instant {
        self.subnet.now()
    }

    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], patience: Patience) -> Result<(), SendError> {
        self.subnet.send(to, mad, patience)
    }

    fn respond(&mut self, to: &Address, mad: &[u8; MAD_LEN]) -> Result<(), SendError> {
        self.subnet.respond(to, mad)
    }

    fn receive(&mut self, until: Instant) -> Result<Event, TransportError> {
        if pulled(&self.pulled) == Pulled::Mad {
            let cause = std::io::Error::from_raw_os_error(libc::ENODEV);
            return Err(TransportError { cause });
        }
        let event = self.subnet.receive(until)?;
        if event == Event::Idle {
            // Its clock runs ahead; not too far while the test looks on.
            thread::sleep(Duration::from_millis(1));
        }
        Ok(event)
    }
}

/// A share whose events come out at the other end.
fn share() -> (Share, UnboundedReceiver<WatchEvent>) {
    let (events, told) = mpsc::unbounded_channel();
    let period = Duration::from_secs(60);
    let share = Share {
        period,
        stop: Arc::default(),
        events,
        known: Arc::new(Tables::new(period, false)),
    };
    (share, told)
}

/// Waits for what the watch tells until `enough`, and returns the targets that appeared and vanished.
fn until(told: &mut UnboundedReceiver<WatchEvent>, enough: impl Fn(&WatchEvent) -> bool) -> (usize, usize) {
    let (mut appeared, mut vanished) = (0, 0);
    loop {
        let event = told.blocking_recv().unwrap();
        appeared += usize::from(matches!(event, WatchEvent::Appeared(_)));
        vanished += usize::from(matches!(event, WatchEvent::Vanished(_)));
        if enough(&event) {
            return (appeared, vanished);
        }
    }
}

#[test]
fn an_hca_goes_and_comes_back() {
    let (share, mut told) = share();
    let state = Arc::new(Mutex::new(Pulled::No));
    let (ended, ends): (Sender<()>, Receiver<()>) = channel();
    let mut ports = Ports::default();
    let port = Subnet::local_port();
    let mut start = |port: &Port| {
        let transport = Plugged {
            subnet: Subnet::sized(8, 2, true),
            pulled: Arc::clone(&state),
        };
        let (port, share, state, ended) = (port.clone(), share.clone(), Arc::clone(&state), ended.clone());
        Ok(thread::spawn(move || {
            let events = Arc::clone(&state);
            let look = move |seen: &mut Happened| seen.gone |= pulled(&events) == Pulled::Event;
            let listed = port.clone();
            let list = move || {
                let is_there = pulled(&state) != Pulled::Listing;
                is_there.then(|| listed.clone()).into_iter().collect()
            };
            watch_port(port, transport, look, list, &share);
            ended.send(()).unwrap();
        }))
    };
    let scanned = |event: &WatchEvent| matches!(event, WatchEvent::Scanned(2));
    for way in [Pulled::Mad, Pulled::Event, Pulled::Listing] {
        ports.look(vec![port.clone()], &mut start);
        assert_eq!(until(&mut told, scanned), (2, 0), "{way:?}");
        ports.look(vec![port.clone()], &mut start);
        assert_eq!(ports.watched.len(), 1, "it is watched already");
        *state.lock().unwrap() = way;
        ends.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(share.known.report(|_| None, |_| false).ports, [], "{way:?}");
        let mut gone = 0;
        while let Ok(event) = told.try_recv() {
            gone += usize::from(matches!(event, WatchEvent::Vanished(_)));
        }
        assert_eq!(gone, 2, "{way:?}");
        ports.watched.values().for_each(|thread| while !thread.is_finished() {});
        ports.look(Vec::new(), &mut start);
        assert!(ports.watched.is_empty(), "{way:?}");
        *state.lock().unwrap() = Pulled::No;
    }
    ports.look(vec![port], &mut start);
    assert_eq!(until(&mut told, scanned), (2, 0));
    let known = || share.known.report(|_| None, |_| false).ports[0].targets.len();
    // Written down when what was told has been.
    while known() != 2 {
        thread::sleep(Duration::from_millis(1));
    }
    share.stop.store(true, Ordering::Relaxed);
    ends.recv_timeout(Duration::from_secs(20)).unwrap();
    let left = std::iter::from_fn(|| told.try_recv().ok());
    let vanished = left.filter(|event| matches!(event, WatchEvent::Vanished(_)));
    assert_eq!(vanished.count(), 0, "its end takes nothing away");
}

#[test]
fn a_port_that_cannot_be_watched_is_tried_again() {
    let mut ports = Ports::default();
    let port = Subnet::local_port();
    let roce = Port {
        link_layer: LinkLayer::Ethernet,
        name: PortName {
            device: "rxe0".into(),
            number: 1,
        },
        ..port.clone()
    };
    let mut tried = Vec::new();
    for _ in 0..3 {
        ports.look(vec![port.clone(), roce.clone()], |port| {
            tried.push(port.name.clone());
            Err("no permission".to_owned())
        });
    }
    assert_eq!(tried, vec![port.name.clone(); 3]);
    assert_eq!(ports.complaints[&port.name], "no permission", "said once");
    ports.look(Vec::new(), |_| unreachable!());
    assert!(ports.complaints.is_empty(), "and anew for one that has come back");
    ports.look(vec![port.clone()], |_| Ok(thread::spawn(|| {})));
    assert!(ports.watched.contains_key(&port.name));
}

#[test]
fn without_reports_there_are_scans() {
    let port = Subnet::local_port();
    let taken = |_: &Port| {
        Err(OpenError::Register {
            path: "/dev/infiniband/umad0".into(),
            what: "subnet administration",
            cause: std::io::Error::from_raw_os_error(libc::EINVAL),
        })
    };
    let missing = |port: &Port| {
        let port = port.name.to_string();
        Err(OpenError::NoModule { port })
    };
    assert_eq!(opened(&port, |_| Ok(1), |_| Ok(2)).unwrap(), 1);
    assert_eq!(opened(&port, taken, |_| Ok(2)).unwrap(), 2);
    let none = opened::<u8>(&port, missing, |_| Ok(2));
    assert!(
        matches!(none, Err(OpenError::NoModule { .. })),
        "not for any other reason"
    );
    assert!(matches!(
        opened::<u8>(&port, taken, taken),
        Err(OpenError::Register { .. })
    ));
}
