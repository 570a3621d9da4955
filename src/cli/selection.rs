//! The ports that a scan is told to look through, by device and by umad device.

use srp_discovery::ports::Port;
use srp_discovery::scan::PortSelector;

use super::failure::Failure;
use crate::rpc::protocol::ErrorKind;

pub(super) fn device(text: &str) -> Result<PortSelector, String> {
    named(text).map(PortSelector::from)
}

pub(super) fn umad(text: &str) -> Result<PortSelector, String> {
    named(text).map(PortSelector::umad)
}

fn named(text: &str) -> Result<&str, String> {
    (!text.is_empty())
        .then_some(text)
        .ok_or_else(|| "a name is needed".to_owned())
}

/// The ports named by device and by umad device; named by both, each must be of one of the others.
pub(super) fn selectors(
    devices: &[PortSelector],
    umads: &[PortSelector],
    ports: &[Port],
) -> Result<Vec<PortSelector>, Failure> {
    if devices.is_empty() || umads.is_empty() {
        return Ok(devices.iter().chain(umads).cloned().collect());
    }
    // What does not exist is told when it is looked for.
    let there = |s: &&PortSelector| ports.iter().any(|port| s.selects(port));
    if let Some(missing) = umads.iter().chain(devices).find(|s| !there(s)) {
        return Ok(vec![missing.clone()]);
    }
    let of = |port: &&Port, names: &[PortSelector]| names.iter().any(|name| name.selects(port));
    let list = |names: &[PortSelector]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let disagreement = |what| {
        let remedy = "give either of -d and -i; each finds the other";
        Err(Failure::new(ErrorKind::Usage, what).remedy(remedy))
    };
    if let Some(port) = ports.iter().find(|port| of(port, umads) && !of(port, devices)) {
        let umad = port
            .umad
            .as_ref()
            .map_or_else(String::new, |umad| umad.display().to_string());
        let what = format!("{umad} belongs to port {}, not to {}", port.name, list(devices));
        return disagreement(what);
    }
    let both = |device: &PortSelector| ports.iter().any(|port| device.selects(port) && of(&port, umads));
    if let Some(device) = devices.iter().find(|device| !both(device)) {
        return disagreement(format!("no port of {device} belongs to {}", list(umads)));
    }
    Ok(umads.to_vec())
}

#[cfg(test)]
pub(super) mod samples {
    use std::net::IpAddr;

    use srp_discovery::model::subnet::Subnet;
    use srp_discovery::neighbours::{Neighbour, Neighbours, NeighboursError};
    use srp_discovery::ports::{Port, PortName};

    pub(in crate::cli) fn port(device: &str, number: u32, umad: &str) -> Port {
        Port {
            name: PortName {
                device: device.to_owned(),
                number,
            },
            umad: Some(format!("/dev/infiniband/{umad}").into()),
            ..Subnet::local_port()
        }
    }

    pub(in crate::cli) struct Nobody;

    impl Neighbours for Nobody {
        fn list(&mut self) -> Result<Vec<Neighbour>, NeighboursError> {
            Ok(vec![])
        }

        fn look_for(&mut self, _: &[(IpAddr, Option<String>)]) {}
    }
}

#[cfg(test)]
mod tests {
    use srp_discovery::model::subnet::Subnet;
    use srp_discovery::scan::{ScanOptions, discover_with};

    use super::super::discover::scan_failure;
    use super::super::exit::Exit;
    use super::samples::{Nobody, port};
    use super::*;

    #[test]
    fn ports_named_twice_agree() {
        let ports = [
            port("mlx5_0", 1, "umad0"),
            port("mlx5_0", 2, "umad1"),
            port("mlx5_1", 1, "umad2"),
        ];
        let named = |device: &[&str], umad: &[&str]| {
            let of = |names: &[&str]| names.iter().map(|name| PortSelector::from(*name)).collect::<Vec<_>>();
            let umads: Vec<_> = umad.iter().map(|name| PortSelector::umad(name)).collect();
            let found = selectors(&of(device), &umads, &ports).map_err(|failure| failure.text())?;
            let selected = ports.iter().filter(|port| found.iter().any(|s| s.selects(port)));
            Ok::<_, String>(selected.map(|port| port.name.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(named(&["mlx5_0"], &[]).unwrap(), ["mlx5_0/1", "mlx5_0/2"]);
        assert_eq!(named(&[], &["umad2"]).unwrap(), ["mlx5_1/1"]);
        assert_eq!(named(&["mlx5_0"], &["/dev/infiniband/umad1"]).unwrap(), ["mlx5_0/2"]);
        let error = named(&["mlx5_0:1"], &["umad1"]).unwrap_err();
        assert!(
            error.contains("umad1 belongs to port mlx5_0/2, not to mlx5_0:1"),
            "{error}"
        );
    }

    /// What a scan says that named this umad device, and maybe a device.
    fn refused(ports: &[Port], devices: &[&str], umad: &str) -> (Exit, String) {
        let devices: Vec<_> = devices.iter().map(|name| PortSelector::from(*name)).collect();
        let options = ScanOptions {
            ports: selectors(&devices, &[PortSelector::umad(umad)], ports).unwrap(),
            ..ScanOptions::default()
        };
        let open = |_: &Port| Ok(Subnet::sized(8, 2, true));
        let error = discover_with(ports, &mut Nobody, open, &options, &mut |_| {}).unwrap_err();
        let failure = scan_failure(&error);
        (failure.exit, failure.text())
    }

    #[test]
    fn a_umad_device_that_is_not_there() {
        let mut ports = [port("mlx5_0", 1, "umad0"), port("mlx5_1", 1, "umad2")];
        for devices in [&[][..], &["mlx5_0"]] {
            let (exit, told) = refused(&ports, devices, "umad7");
            assert_eq!(exit, Exit::from(ErrorKind::NotFound));
            let there =
                "no umad device umad7; there are: /dev/infiniband/umad0 (mlx5_0/1), /dev/infiniband/umad2 (mlx5_1/1)";
            assert!(told.contains(there), "{told}");
        }
        // The name of a port is no umad device's.
        assert!(refused(&ports, &[], "mlx5_0").1.contains("no umad device mlx5_0"));
        assert!(refused(&ports, &["mlx4_0"], "umad0").1.contains("no RDMA port mlx4_0"));
        ports.iter_mut().for_each(|port| port.umad = None);
        for devices in [&[][..], &["mlx5_0"]] {
            let (exit, told) = refused(&ports, devices, "/dev/infiniband/umad0");
            assert_eq!(exit, Exit::Host);
            assert!(told.contains("modprobe ib_umad") && told.contains("mlx5_0/1"), "{told}");
        }
    }
}
