//! Between a program and ibsim: what hardware would say and ibsim does not.
//!
//! ibsim's channel adapters never have IsDeviceManagementSupported in their PortInfo: on its way to the program
//! (opensm) that of the ports in [`WITH_BIT`] gets it here. And umad does two things that ibsim's stand-in for it does
//! not: it fills in the RMPP header of a table, and it gives a request back that nobody has answered, for which opensm
//! would otherwise wait for ever. Nothing else is touched.

use std::collections::HashMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use srp_discovery::mad::{IS_DEVICE_MANAGEMENT_SUPPORTED, MAD_LEN, Rmpp};

use super::client::{CONTROL_LEN, Control, PACKET_LEN, control_message, name, number};

/// The ports of the switch behind which are the adapters that say they have an agent.
const WITH_BIT: [u8; 2] = [2, 3];

const TICK: Duration = Duration::from_millis(50);
/// When a request comes back unanswered, and the status it then has.
const UNANSWERED: Duration = Duration::from_secs(1);
const TIMED_OUT: u32 = 110;

/// Requests of the program by transaction, and when they went out.
type Open = Arc<Mutex<HashMap<u32, (Instant, [u8; PACKET_LEN])>>>;

/// Relays for one program, which it ends together with its connection to ibsim.
pub(crate) struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Is `front` to the program what `back` is to everybody else.
    pub(crate) fn new(front: &str, back: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let control = UnixDatagram::bind_addr(&name(&format!("{front}:ctl"))).unwrap();
        control.set_read_timeout(Some(TICK)).unwrap();
        let (front, back, stopped) = (front.to_owned(), back.to_owned(), Arc::clone(&stop));
        let thread = thread::spawn(move || serve(&control, &front, &back, &stopped));
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(control: &UnixDatagram, front: &str, back: &str, stop: &Arc<AtomicBool>) {
    let mut to_ibsim: Option<(UnixDatagram, u32)> = None;
    let mut pumps = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut message = [0; CONTROL_LEN];
        let Ok((_, from)) = control.recv_from(&mut message) else {
            continue;
        };
        let is_connect = number(&message, 8) == Control::Connect as u32;
        let id = number(&message, 16);
        let data_in = is_connect.then(|| {
            let ctl = UnixDatagram::bind_addr(&name(&format!("{back}:ctl{id}"))).unwrap();
            ctl.connect_addr(&name(&format!("{back}:ctl"))).unwrap();
            to_ibsim = Some((ctl, 0));
            UnixDatagram::bind_addr(&name(&format!("{back}:in{id}"))).unwrap()
        });
        let Some((ctl, client)) = &mut to_ibsim else { continue };
        ctl.send(&message).unwrap();
        ctl.recv(&mut message).unwrap();
        if let Some(ours) = data_in {
            *client = number(&message, 16);
            ours.connect_addr(&name(&format!("{back}:out{client}"))).unwrap();
            let theirs = UnixDatagram::bind_addr(&name(&format!("{front}:out{client}"))).unwrap();
            theirs.connect_addr(&name(&format!("{front}:in{id}"))).unwrap();
            let open = Open::default();
            let (out, into) = (theirs.try_clone().unwrap(), ours.try_clone().unwrap());
            let asked = Arc::clone(&open);
            pumps.push(pump(out, into, stop, move |packet| {
                complete_table(packet);
                if !is_answer(packet) {
                    asked
                        .lock()
                        .unwrap()
                        .insert(transaction(packet), (Instant::now(), *packet));
                }
            }));
            let returns = theirs.try_clone().unwrap();
            let late = Arc::clone(&open);
            pumps.push(pump(ours, theirs, stop, move |packet| {
                set_bit(packet);
                if is_answer(packet) || number(packet, 16) != 0 {
                    open.lock().unwrap().remove(&transaction(packet));
                }
            }));
            let stop = Arc::clone(stop);
            pumps.push(thread::spawn(move || give_back(&late, &returns, &stop)));
        }
        let back_to = std::os::unix::net::SocketAddr::from_abstract_name(from.as_abstract_name().unwrap()).unwrap();
        control.send_to_addr(&message, &back_to).unwrap();
    }
    // A program that was killed has not said goodbye; the port is no SM's any more either.
    if let Some((ctl, client)) = to_ibsim {
        for (kind, data) in [(Control::SetIsSm, [0; 4].as_slice()), (Control::Disconnect, &[])] {
            let _ = ctl.send(&control_message(client, kind, data));
            let _ = ctl.recv(&mut [0; CONTROL_LEN]);
        }
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn pump(
    from: UnixDatagram,
    to: UnixDatagram,
    stop: &Arc<AtomicBool>,
    mut look: impl FnMut(&mut [u8; PACKET_LEN]) + Send + 'static,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    from.set_read_timeout(Some(TICK)).unwrap();
    thread::spawn(move || {
        let mut packet = [0; PACKET_LEN];
        while !stop.load(Ordering::Relaxed) {
            if from.recv(&mut packet).is_ok_and(|len| len == PACKET_LEN) {
                look(&mut packet);
                let _ = to.send(&packet);
            }
        }
    })
}

fn give_back(open: &Open, to: &UnixDatagram, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(TICK);
        let mut open = open.lock().unwrap();
        open.retain(|_, (since, packet)| {
            let waits = since.elapsed() < UNANSWERED;
            if !waits {
                packet[16..20].copy_from_slice(&TIMED_OUT.to_be_bytes());
                let _ = to.send(packet);
            }
            waits
        });
    }
}

/// Whether nothing is expected back: answers, and the repression of traps.
fn is_answer(packet: &[u8; PACKET_LEN]) -> bool {
    packet[35] & 0x80 != 0 || packet[35] == 0x07
}

fn transaction(packet: &[u8; PACKET_LEN]) -> u32 {
    u32::from_be_bytes(packet[44..48].try_into().unwrap())
}

fn set_bit(packet: &mut [u8; PACKET_LEN]) {
    let mad = &mut packet[32..];
    // The answer to a question that went by a directed route, whose last hop tells whose PortInfo it is.
    let is_port_info = mad[1] == 0x81 && mad[3] == 0x81 && mad[16..18] == [0x00, 0x15];
    let last_hop = mad[128 + usize::from(mad[7]).min(63)];
    if is_port_info && WITH_BIT.contains(&last_hop) {
        // PortInfo is at 64, its capabilities 20 bytes further.
        let mut capabilities = u32::from_be_bytes(mad[84..88].try_into().unwrap());
        capabilities |= IS_DEVICE_MANAGEMENT_SUPPORTED;
        mad[84..88].copy_from_slice(&capabilities.to_be_bytes());
    }
}

fn complete_table(packet: &mut [u8; PACKET_LEN]) {
    let len = u64::from_be_bytes(packet[24..32].try_into().unwrap()) as usize;
    let mad = &mut packet[32..];
    let is_table = mad[1] == 0x03 && mad[3] == 0x92 && mad[26] & Rmpp::ACTIVE != 0;
    if is_table {
        (mad[24], mad[25]) = (1, Rmpp::DATA);
        mad[26] |= Rmpp::FIRST;
        // What fills the datagram was cut, most likely.
        if len < MAD_LEN {
            mad[26] |= Rmpp::LAST;
        }
        mad[28..32].copy_from_slice(&1_u32.to_be_bytes());
        mad[32..36].copy_from_slice(&((len - 36) as u32).to_be_bytes());
    }
}
