//! Management datagrams, what a whole scan makes of them, and the rules file.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use srp_addressing::{Gid, Guid, PKey};
use srp_discovery::listing::{LineOptions, ListingOptions, Logins, add_target_line, io_unit};
use srp_discovery::mad::{
    ClassPortInfo, IoControllerProfile, IoUnitInfo, MAD_LEN, Mad, NodeRecord, Notice, PathRecord, PortInfoRecord,
    SaMad, SaStatus, ServiceEntries, Table,
};
use srp_discovery::neighbours::{Neighbour, Neighbours, NeighboursError};
use srp_discovery::ports::{GidEntry, LinkLayer, Port, PortName, PortState};
use srp_discovery::rules::Rules;
use srp_discovery::scan::{ScanOptions, ScanReport, discover_with};
use srp_discovery::transport::{Address, Event, MadTransport, Patience, SendError, Source, TransportError};

pub(crate) fn mad(input: &[u8]) {
    let Ok(mad) = Mad::parse(input) else { return };
    for question in [NodeRecord::all(), PortInfoRecord::with_device_management()] {
        let _ = mad.check_answers(&question).map_err(|error| error.to_string());
    }
    let _ = (mad.status().to_string(), mad.attribute().to_string());
    let _ = ClassPortInfo::from_data(&mad.data).redirect();
    let unit = IoUnitInfo::from_data(&mad.data);
    (0..=u8::MAX).for_each(|slot| drop(unit.slot(slot).to_string()));
    let _ = (
        IoControllerProfile::from_data(&mad.data),
        ServiceEntries::from_data(&mad.data),
    );
    let sa = SaMad::from_mad(mad);
    assert_eq!(SaMad::from_mad(&sa.into_mad()), sa);
    let _ = SaStatus::of(mad.status()).to_string();
    let path: PathRecord = sa.record();
    let _ = (path.sl(), path.pkey(), path.is_routed(), path.destination_guid());
    if let Some(notice) = Notice::of_report(mad) {
        let _ = notice.kind();
        assert!(
            Notice::of_report(&Notice::response(mad)).is_none(),
            "the answer is no report"
        );
    }
    // Its length stands in for the kernel's.
    let tail = input.get(MAD_LEN..).unwrap_or_default();
    for need in [NodeRecord::LEN, PortInfoRecord::LEN] {
        match Table::parse(mad, tail, input.len(), need) {
            Ok(table) => {
                assert!(table.len() * need <= input.len() && table.records::<NodeRecord>().count() <= table.len())
            }
            Err(error) => drop(error.to_string()),
        }
    }
}

struct Nobody;

impl Neighbours for Nobody {
    fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError> {
        Ok(vec![])
    }

    fn look_for(&mut self, _: &[(IpAddr, Option<String>)]) {}
}

/// Answers each question with the next part of the input: two bytes of length, then a datagram, whose transaction is
/// made to fit. Afterwards nobody answers any more.
struct Hostile<'a> {
    input: &'a [u8],
    now: Instant,
    due: VecDeque<Event>,
}

impl MadTransport for Hostile<'_> {
    fn now(&self) -> Instant {
        self.now
    }

    fn send(&mut self, to: &Address, mad: &[u8; MAD_LEN], _: Patience) -> Result<(), SendError> {
        let tid = [mad[12], mad[13], mad[14], mad[15]];
        let next = self.input.split_first_chunk::<2>().and_then(|(len, rest)| {
            let (answer, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            self.input = rest;
            Some(answer.to_vec())
        });
        self.due.push_back(match next {
            Some(mut bytes) => {
                if let Some(place) = bytes.get_mut(12..16) {
                    place.copy_from_slice(&tid);
                }
                let from = Source {
                    lid: to.lid,
                    qpn: to.qpn,
                    gid: to.grh.map(|grh| grh.gid),
                };
                Event::Mad { from, bytes }
            }
            None => Event::Unanswered {
                tid: u32::from_be_bytes(tid),
            },
        });
        Ok(())
    }

    fn respond(&mut self, _: &Address, _: &[u8; MAD_LEN]) -> Result<(), SendError> {
        Ok(())
    }

    fn receive(&mut self, until: Instant) -> Result<Event, TransportError> {
        self.now += Duration::from_millis(1);
        Ok(self.due.pop_front().unwrap_or_else(|| {
            self.now = self.now.max(until);
            Event::Idle
        }))
    }
}

fn port() -> Port {
    Port {
        name: PortName {
            device: "mlx5_0".into(),
            number: 1,
        },
        link_layer: LinkLayer::InfiniBand,
        state: PortState::Active,
        lid: 2,
        sm_lid: 1,
        sm_sl: 0,
        node_guid: None,
        gids: vec![GidEntry {
            index: 0,
            gid: Gid::new(0xfe80_0000_0000_0000, Guid(2)),
            kind: None,
            interface: None,
        }],
        pkeys: vec![(0, PKey::DEFAULT)],
        umad: None,
    }
}

/// What a scan makes of a subnet administration and agents that say whatever the input says.
fn report(input: &[u8]) -> Option<ScanReport> {
    let open = |_: &Port| {
        Ok(Hostile {
            input,
            now: Instant::now(),
            due: VecDeque::new(),
        })
    };
    discover_with(&[port()], &mut Nobody, open, &ScanOptions::default(), &mut |_| {}).ok()
}

pub(crate) fn scan(input: &[u8]) {
    let Some(report) = report(input) else { return };
    let plain = |text: &str| {
        assert!(
            text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)),
            "{text:?}"
        )
    };
    for found in &report.units {
        plain(&io_unit(&found.unit, Logins::of(found), ListingOptions::default()));
    }
    for target in &report.targets {
        if let Ok(line) = add_target_line(target, &LineOptions::default()) {
            plain(&line);
            assert!(line.parse::<srp_addressing::TargetOptions>().is_ok(), "{line}");
        }
    }
    report.problems.iter().for_each(|problem| drop(problem.to_string()));
}

pub(crate) fn rules(input: &[u8]) {
    if let Err((_, error)) = Rules::parse(&String::from_utf8_lossy(input)) {
        let _ = error.to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_lead_all_the_way() {
        for seed in ["by_mask", "by_node", "redirected"] {
            let path = format!("{}/corpus/scan/{seed}", env!("CARGO_MANIFEST_DIR"));
            let report = report(&std::fs::read(path).expect("a seed")).expect("a port");
            assert_eq!(report.targets.len(), 1, "{seed}: {:?}", report.problems);
        }
    }
}
