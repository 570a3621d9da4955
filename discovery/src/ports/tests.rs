use std::fs;
use std::path::Path;

use super::*;

/// A directory that goes away with the test.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("srp-discovery-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn roots(&self) -> Roots {
        Roots {
            sys: self.0.join("sys"),
            dev: "/dev".into(),
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rxe(tree: &Tree) {
    let port = "sys/class/infiniband/rxe0/ports/1";
    tree.put("sys/class/infiniband/rxe0/node_guid", "5054:00ff:fe12:3456\n");
    tree.put(&format!("{port}/state"), "4: ACTIVE\n");
    tree.put(&format!("{port}/link_layer"), "Ethernet\n");
    tree.put(&format!("{port}/lid"), "0x0\n");
    tree.put(&format!("{port}/sm_lid"), "0x0\n");
    let gids = [
        "fe80:0000:0000:0000:5054:00ff:fe12:3456",
        "0000:0000:0000:0000:0000:ffff:0a09:0001",
        "0000:0000:0000:0000:0000:0000:0000:0000",
        "fd00:0000:0000:0000:0000:0000:0000:0001",
    ];
    for (i, gid) in gids.iter().enumerate() {
        tree.put(&format!("{port}/gids/{i}"), &format!("{gid}\n"));
        if i != 2 {
            tree.put(&format!("{port}/gid_attrs/types/{i}"), "RoCE v2\n");
            tree.put(&format!("{port}/gid_attrs/ndevs/{i}"), "eth9\n");
        }
    }
    tree.put(&format!("{port}/gids/10"), "not a gid\n");
    tree.put(&format!("{port}/pkeys/0"), "0xffff\n");
    tree.put("sys/class/infiniband_mad/abi_version", "5\n");
    tree.put("sys/class/infiniband_mad/umad3/ibdev", "rxe0\n");
    tree.put("sys/class/infiniband_mad/umad3/port", "1\n");
}

#[test]
fn a_roce_port() {
    let tree = Tree::new("roce");
    rxe(&tree);
    let ports = list(&tree.roots()).unwrap();
    let [port] = &ports[..] else { panic!("{ports:?}") };
    assert_eq!(port.name.to_string(), "rxe0/1");
    assert_eq!(
        (port.link_layer, port.state, port.lid),
        (LinkLayer::Ethernet, PortState::Active, 0)
    );
    assert_eq!(port.node_guid, Some(Guid(0x5054_00ff_fe12_3456)));
    assert_eq!(port.gids.iter().map(|e| e.index).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(port.gids[0].kind, Some(GidType::RoceV2));
    assert_eq!(port.interfaces(), ["eth9"]);
    assert_eq!(port.default_pkey(), Some((0, PKey::DEFAULT)));
    assert_eq!(port.umad.as_deref(), Some(Path::new("/dev/infiniband/umad3")));
    assert_eq!(port.entry_of("10.9.0.1".parse().unwrap()).unwrap().index, 1);
    assert_eq!(port.link_local_on(Some("eth9")).unwrap().index, 0);
    assert_eq!(port.link_local_on(Some("eth0")), None);
}

#[test]
fn where_to_send_from() {
    let tree = Tree::new("source");
    rxe(&tree);
    let port = list(&tree.roots()).unwrap().remove(0);
    let from = |gid: &str, interface| port.roce_source_for(gid.parse().unwrap(), interface);
    assert_eq!(from("fe80::1", None), Some(0));
    assert_eq!(from("fe80::1", Some("eth9")), Some(0));
    assert_eq!(from("fe80::1", Some("eth0")), None);
    assert_eq!(from("fd00::2", None), Some(3));
    assert_eq!(from("2001:db8::2", None), Some(3), "routed");
}

#[test]
fn a_port_without_umad_and_one_of_infiniband() {
    let tree = Tree::new("ib");
    let port = "sys/class/infiniband/mlx5_0/ports/2";
    tree.put(&format!("{port}/state"), "2: INIT\n");
    tree.put(&format!("{port}/link_layer"), "InfiniBand\n");
    tree.put(&format!("{port}/lid"), "0xc\n");
    tree.put(&format!("{port}/sm_lid"), "0x1\n");
    tree.put(&format!("{port}/sm_sl"), "3\n");
    tree.put(&format!("{port}/pkeys/0"), "0x7fff\n");
    tree.put(&format!("{port}/pkeys/1"), "0x0000\n");
    tree.put(&format!("{port}/pkeys/2"), "0x8001\n");
    fs::create_dir_all(tree.0.join("sys/class/infiniband/gone0")).unwrap();
    let ports = list(&tree.roots()).unwrap();
    let [port] = &ports[..] else { panic!("{ports:?}") };
    assert_eq!((port.link_layer, port.state), (LinkLayer::InfiniBand, PortState::Init));
    assert_eq!((port.lid, port.sm_lid, port.sm_sl, port.umad.clone()), (12, 1, 3, None));
    assert_eq!(
        [PKey(0x7fff), PKey(1), PKey(0xffff), PKey(5)].map(|key| port.pkey_index(key)),
        [Some(0), Some(2), Some(0), None]
    );
    assert_eq!(port.pkeys, [(0, PKey(0x7fff)), (2, PKey(0x8001))]);
    assert_eq!(port.default_pkey(), Some((0, PKey(0x7fff))));
}

#[test]
fn no_rdma_at_all() {
    let tree = Tree::new("none");
    let error = list(&tree.roots()).unwrap_err();
    assert!(error.to_string().contains("modprobe rdma_rxe"), "{error}");
}

#[test]
fn gids_of_addresses() {
    let mac = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
    assert_eq!(link_local_of_mac(mac), "fe80::5054:ff:fe12:3456".parse().unwrap());
    let mapped = gid_of("10.9.0.1".parse().unwrap());
    assert!(is_ipv4_mapped(mapped) && !is_link_local(mapped));
    assert!(is_link_local("fe80::1".parse().unwrap()));
}
