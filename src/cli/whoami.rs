//! `ublk-srp whoami`: the names under which targets know this host.

use std::fmt::Write as _;
use std::net::IpAddr;

use clap::Args;
use serde::Serialize;
use srp_addressing::{Gid, Guid, PortId, TargetOptions, Transport};
use srp_discovery::ports::{self, LinkLayer, Port, Roots, is_link_local};
use srp_discovery::scan::PortSelector;

use super::failure::Failure;
use super::output::Output;
use super::printable::printable;
use crate::rpc::protocol::ErrorKind;

/// Show the names of this host that targets want in an access list, and what to type there
#[derive(Args, Clone, Debug)]
pub(super) struct Whoami {
    /// For this target only, as a line of `discover -c`: its initiator_ext, io_class and dest or dgid count
    #[arg(value_name = "TARGET")]
    target: Option<TargetOptions>,
    /// The names of this RDMA device or port only, such as mlx5_0 or mlx5_0:1
    #[arg(short = 'i', long, value_name = "DEVICE[:PORT]")]
    device: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    ports: Vec<Names>,
}

/// One local port, and what it is called.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Names {
    port: String,
    link_layer: LinkLayer,
    state: String,
    port_guid: String,
    gid: String,
    /// What SRP_LOGIN_REQ carries.
    initiator_port: String,
    /// The names access lists want, by who wants them.
    names: Vec<Name>,
}

/// What is shown for an IP address that is not known.
const IPOIB_ADDRESS: &str = "IPOIB_ADDRESS";

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Name {
    /// The target's software, and how its own port is named there.
    target: &'static str,
    /// What connects.
    login: &'static str,
    /// What belongs into the access list, if this program knows it.
    name: Option<String>,
    /// The line to type on the target.
    line: String,
}

impl Whoami {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let ports = ports::list(&Roots::default()).map_err(|error| Failure::of(ErrorKind::Host, &error))?;
        let selector = self.device.as_deref().map(PortSelector::from);
        let chosen = |port: &&Port| selector.as_ref().is_none_or(|selector| selector.selects(port));
        let names: Vec<Names> = ports
            .iter()
            .filter(chosen)
            .filter_map(|port| names(port, self.target.as_ref()))
            .collect();
        if names.is_empty() {
            let what = match &self.device {
                Some(device) => format!("there is no RDMA port {device} that could log in to this target"),
                None => "this host has no RDMA port that could log in to this target".to_owned(),
            };
            return Err(Failure::new(ErrorKind::NotFound, what).remedy("look at `rdma link`"));
        }
        let report = Report { ports: names };
        output.result(&report, || report.ports.iter().map(text).collect());
        Ok(())
    }
}

/// The names of a port, if it can be the one that logs in to `target`.
fn names(port: &Port, target: Option<&TargetOptions>) -> Option<Names> {
    let infiniband = port.link_layer == LinkLayer::InfiniBand;
    let by_address = match target.map(|target| &target.transport) {
        Some(Transport::InfiniBand { .. }) if !infiniband => return None,
        Some(Transport::InfiniBand { .. }) => false,
        Some(Transport::RdmaCm { .. }) => true,
        // On InfiniBand discovery finds targets by GID.
        None => !infiniband,
    };
    let gid = port.first_gid()?;
    let guid = gid.interface();
    let id = match target {
        Some(target) => target.initiator_port(guid),
        None => PortId::new(0, guid, srp_addressing::IoClass::Rev16a),
    };
    let by_gid = if by_address { "RDMA/CM" } else { "InfiniBand" };
    let mut names = vec![lio_by_gid(id, by_gid)];
    if by_address {
        names.extend(
            sources(port, target)
                .into_iter()
                .flat_map(|source| [lio_by_guid(source.as_deref()), scst(source.as_deref())]),
        );
    } else {
        names.push(Name {
            login: "InfiniBand",
            ..lio_by_guid(Some(&format!("{guid:#}")))
        });
        names.push(Name {
            login: "InfiniBand",
            ..scst(Some(&gid.to_string()))
        });
    }
    Some(Names {
        port: port.name.to_string(),
        link_layer: port.link_layer,
        state: port.state.to_string(),
        port_guid: Guid(guid.0).to_string(),
        gid: gid.to_string(),
        initiator_port: id.to_string(),
        names,
    })
}

/// LIO, where the target's port is named by its GID (`0x` and 32 digits; targetcli knows only these, as `ib.`).
fn lio_by_gid(id: PortId, login: &'static str) -> Name {
    let digits: String = id.0.iter().map(|byte| format!("{byte:02x}")).collect();
    Name {
        target: "LIO, target named by its GID (0x... or, in targetcli, ib....)",
        login,
        name: Some(format!("0x{digits}")),
        line: format!("targetcli /srpt/ib.TARGET_GID/acls create ib.{digits}"),
    }
}

/// LIO, where the target's port is named by its GUID (four groups; made in configfs by hand).
fn lio_by_guid(name: Option<&str>) -> Name {
    let typed = name.unwrap_or(IPOIB_ADDRESS);
    Name {
        target: "LIO, target named by its GUID (xxxx:xxxx:xxxx:xxxx)",
        login: "RDMA/CM",
        name: name.map(str::to_owned),
        line: format!("mkdir /sys/kernel/config/target/srpt/TARGET_GUID/TARGET_GUID/acls/{typed}"),
    }
}

fn scst(name: Option<&str>) -> Name {
    let typed = name.unwrap_or(IPOIB_ADDRESS);
    Name {
        target: "SCST (older releases take the initiator port id instead)",
        login: "RDMA/CM",
        name: name.map(str::to_owned),
        line: format!("scstadmin -add_init {typed} -driver ib_srpt -target TARGET -group GROUP"),
    }
}

/// The addresses that a target may see a login come from; `None` for one that is not known here.
fn sources(port: &Port, target: Option<&TargetOptions>) -> Vec<Option<String>> {
    let (dest, src) = match target.map(|target| &target.transport) {
        Some(Transport::RdmaCm { dest, src }) => (Some(dest.host.ip), src.as_ref().map(|src| src.host.ip)),
        _ => (None, None),
    };
    if let Some(src) = src {
        return vec![Some(written(src))];
    }
    if port.link_layer == LinkLayer::InfiniBand {
        // Its GIDs are no IP addresses: those belong to a network interface above it.
        return vec![None];
    }
    let addresses = port.gids.iter().filter_map(|entry| match address(entry.gid) {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => None,
        other => Some(other),
    });
    let fits = |address: &IpAddr| dest.is_none_or(|dest| dest.is_ipv4() == address.is_ipv4());
    let mut sources: Vec<IpAddr> = addresses.filter(fits).collect();
    let link_local = dest.is_some_and(|dest| matches!(dest, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    if link_local || sources.is_empty() {
        sources = port
            .gids
            .iter()
            .filter(|e| is_link_local(e.gid))
            .map(|e| address(e.gid))
            .collect();
    }
    sources.sort();
    sources.dedup();
    sources.into_iter().map(written).map(Some).collect()
}

fn address(gid: Gid) -> IpAddr {
    std::net::Ipv6Addr::from(gid.0).to_canonical()
}

/// As the kernel writes it: IPv6 in full.
fn written(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => Gid(v6.octets()).to_string(),
    }
}

fn text(names: &Names) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{} ({})", names.port, names.state);
    let _ = writeln!(out, "    port GUID:         {}", names.port_guid);
    let _ = writeln!(out, "    port GID:          {}", names.gid);
    let _ = writeln!(out, "    initiator port id: {}", names.initiator_port);
    for name in &names.names {
        let _ = writeln!(out, "    {}, login by {}:", name.target, name.login);
        let _ = writeln!(out, "        {}", name.name.as_deref().unwrap_or(IPOIB_ADDRESS));
        let _ = writeln!(out, "        # {}", name.line);
    }
    if names.names.iter().any(|name| name.name.is_none()) {
        let _ = writeln!(
            out,
            "    {IPOIB_ADDRESS}: the address of this host that `ip route get` shows as src for the target's address"
        );
    }
    let _ = writeln!(out);
    printable_lines(&out)
}

/// Device names come from the kernel, but not all of what they are made of does.
fn printable_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", printable(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use srp_addressing::PKey;
    use srp_discovery::ports::{GidEntry, GidType, PortName, PortState};

    fn port(link_layer: LinkLayer, gids: &[&str]) -> Port {
        let entry = |(index, gid): (u32, &&str)| GidEntry {
            index,
            gid: gid.parse().unwrap(),
            kind: Some(GidType::RoceV2),
            interface: None,
        };
        Port {
            name: PortName {
                device: "mlx5_0".into(),
                number: 1,
            },
            link_layer,
            state: PortState::Active,
            lid: 1,
            sm_lid: 1,
            sm_sl: 0,
            node_guid: None,
            gids: (0..).zip(gids).map(entry).collect(),
            pkeys: vec![(0, PKey::DEFAULT)],
            umad: None,
        }
    }

    fn infiniband() -> Port {
        port(LinkLayer::InfiniBand, &["fe80::2:c903:e:8acd"])
    }

    fn roce() -> Port {
        port(
            LinkLayer::Ethernet,
            &["fe80::5054:ff:fe5a:1", "::ffff:10.9.0.2", "fd00:5a::2"],
        )
    }

    fn all(port: &Port, target: Option<&str>) -> Vec<String> {
        let target = target.map(|line| line.parse().unwrap());
        names(port, target.as_ref()).map_or_else(Vec::new, |names| {
            let name = |n: Name| n.name.unwrap_or_else(|| "unknown".into());
            names.names.into_iter().map(name).collect()
        })
    }

    #[test]
    fn infiniband_logins() {
        let names = names(&infiniband(), None).unwrap();
        assert_eq!(names.initiator_port, "0x00000000000000000002c903000e8acd");
        let expected = [
            "0x00000000000000000002c903000e8acd",
            "0002:c903:000e:8acd",
            "fe80:0000:0000:0000:0002:c903:000e:8acd",
        ];
        assert_eq!(all(&infiniband(), None), expected);
        assert!(
            names.names[0]
                .line
                .ends_with("create ib.00000000000000000002c903000e8acd")
        );
        assert!(text(&names).contains("        # mkdir /sys/kernel/config/target/srpt/TARGET_GUID/"));
    }

    #[test]
    fn addresses_above_infiniband_are_not_its_gids() {
        let id = "0x00000000000000000002c903000e8acd";
        let line = "id_ext=1,ioc_guid=2,dest=10.9.0.1:5555";
        assert_eq!(all(&infiniband(), Some(line)), [id, "unknown", "unknown"]);
        let names = names(&infiniband(), Some(&line.parse().unwrap())).unwrap();
        assert_eq!(
            serde_json::to_value(&names).unwrap()["names"][1]["name"],
            serde_json::Value::Null
        );
        let text = text(&names);
        assert!(
            !text.contains("acls/fe80") && text.contains("acls/IPOIB_ADDRESS"),
            "{text}"
        );
        assert!(text.contains("`ip route get`"), "{text}");
        let bound = all(&infiniband(), Some(&format!("{line},src=10.9.0.2")));
        assert_eq!(bound, [id, "10.9.0.2", "10.9.0.2"]);
    }

    #[test]
    fn logins_by_address() {
        let id = "0x0000000000000000505400fffe5a0001";
        assert_eq!(
            all(&roce(), None),
            [
                id,
                "10.9.0.2",
                "10.9.0.2",
                "fd00:005a:0000:0000:0000:0000:0000:0002",
                "fd00:005a:0000:0000:0000:0000:0000:0002"
            ]
        );
        let line = |rest: &str| format!("id_ext=1,ioc_guid=2,{rest}");
        let one = |rest: &str| all(&roce(), Some(&line(rest)));
        assert_eq!(one("dest=10.9.0.1:5555"), [id, "10.9.0.2", "10.9.0.2"]);
        let other = "0x0000000000000007505400fffe5a0001";
        assert_eq!(
            one("dest=10.9.0.1:5555,src=10.9.0.9,initiator_ext=7"),
            [other, "10.9.0.9", "10.9.0.9"]
        );
        let old = "0x505400fffe5a00010000000000000000";
        assert_eq!(one("dest=10.9.0.1:5555,io_class=ff00")[0], old);
        let link_local = "fe80:0000:0000:0000:5054:00ff:fe5a:0001";
        assert_eq!(one("dest=[fe80::9%eth0]:5555"), [id, link_local, link_local]);
        assert!(one("dgid=fe80000000000000000000000000abcd,pkey=ffff,service_id=5").is_empty());
    }
}
