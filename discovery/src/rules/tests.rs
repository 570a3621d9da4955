use proptest::prelude::*;

use super::*;
use crate::ports::{LinkLayer, PortName};
use crate::text::FabricText;

fn target(id_ext: &str, guid: u64) -> Target {
    Target {
        id_ext: id_ext.into(),
        ioc_guid: Guid(guid),
        gid: "fe80::2:c903:e:8ace".parse().unwrap(),
        lid: 4,
        port_guid: Guid(3),
        pkey: PKey(0xffff),
        service_id: ServiceId(guid),
        service_name: FabricText::default(),
        io_class: 0x0100,
        ioc_id: FabricText::default(),
        vendor_id: 0,
        device_id: 0,
        send_size: 8276,
        rdma_size: 65536,
        slot: 1,
        port: PortName {
            device: "mlx5_0".into(),
            number: 1,
        },
        link_layer: LinkLayer::InfiniBand,
        rdma_cm: None,
    }
}

/// The same of the target as of its line.
fn verdict(text: &str) -> Verdict {
    let rules = Rules::parse(text).unwrap();
    let target = target("0002C903000e8acd", 0x0002_c903_000e_8acd);
    let line = crate::listing::add_target_line(&target, &crate::listing::LineOptions::default()).unwrap();
    let verdict = rules.verdict(&target);
    assert_eq!(rules.verdict_on_line(&line.parse().unwrap()), verdict, "{text}");
    verdict
}

fn allow(options: &str) -> Verdict {
    Verdict::Allow(options.to_owned())
}

#[test]
fn the_first_rule_that_matches_counts() {
    let table = [
        ("", allow("")),
        ("# a comment\n\n   \n", allow("")),
        ("d\n", Verdict::Disallow),
        ("disallow", Verdict::Disallow),
        ("D ioc_guid=1\n", allow("")),
        ("a ioc_guid=2c903000e8acd\nd\n", allow("")),
        ("a ioc_guid=1\nd\n", Verdict::Disallow),
        ("d id_ext=2c903000e8acd\n", Verdict::Disallow),
        ("d id_ext=0x0002c903000e8acd,ioc_guid=1\n", allow("")),
        ("d dgid=fe800000000000000002c903000e8ace\r\n", Verdict::Disallow),
        ("d pkey=ffff service_id=2c903000e8acd\n", Verdict::Disallow),
        ("d pkey=7fff\n", allow("")),
        (
            "a queue_size=32,max_cmd_per_lun=16 ch_count=2\n",
            allow("queue_size=32,max_cmd_per_lun=16,ch_count=2"),
        ),
        (
            "allow ioc_guid=2c903000e8acd,tl_retry_count=3,pkey=ffff\n",
            allow("tl_retry_count=3"),
        ),
        (
            "a allow_ext_sg=1\tcmd_sg_entries=255 sg_tablesize=2048 comp_vector=0 max_sect=8192",
            allow("allow_ext_sg=1,cmd_sg_entries=255,sg_tablesize=2048,comp_vector=0,max_sect=8192"),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(verdict(text), expected, "{text:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let table = [
        ("x ioc_guid=1", 1, "begins no rule"),
        (" a", 0, ""),
        ("#\n\na id_ext", 3, "not of the form key=value"),
        ("a iocguid=1", 1, "unknown key \"iocguid\""),
        ("a initiator_ext=1", 1, "cannot stand in a rule"),
        ("a dest=10.0.0.1:5", 1, "cannot stand in a rule"),
        ("d queue_size=1", 1, "does not make"),
        ("a queue_size=0x20", 1, "decimal"),
        ("a queue_size=-1", 1, "decimal"),
        ("a queue_size=", 1, "decimal"),
        ("a tl_retry_count=8", 1, "2 to 7"),
        ("a ioc_guid=xyz", 1, "hex digits"),
        ("a dgid=fe80", 1, "32 hex digits"),
        ("a pkey=12345", 1, "P_Key"),
        ("aid_ext=5", 1, "begins no rule"),
        ("allow\ndisallow pkey=1\nallowed = 3", 3, "not of the form"),
    ];
    for (text, line, words) in table {
        match Rules::parse(text) {
            Ok(_) => assert_eq!(line, 0, "{text:?} is refused"),
            Err((number, error)) => {
                assert_eq!(number, line, "{text:?}: {error}");
                assert!(error.to_string().contains(words), "{text:?}: {error}");
            }
        }
    }
}

#[test]
fn files() {
    let error = Rules::read(Path::new("/nonexistent/srp_daemon.conf")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nonexistent"), "{error}");
    let path = std::env::temp_dir().join(format!("srp-rules-{}", std::process::id()));
    fs::write(&path, "# ok\nb\n").unwrap();
    let error = Rules::read(&path).unwrap_err();
    assert!(error.to_string().contains(", line 2: \"b\" begins no rule"), "{error}");
    fs::remove_file(&path).unwrap();
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "[ad#\\n ,=a-z_0-9]{0,80}", other in "\\PC{0,80}") {
        for text in [text, other] {
            if let Ok(rules) = Rules::parse(&text) {
                let _ = rules.verdict(&target("1", 2));
            }
        }
    }
}
