//! The sessions of the kernel's own initiator, ib_srp: a login between the same two ports would end one.
//!
//! What ib_srp tells of a session is all but its `initiator_ext`, so that whether two ports are the same is only known
//! where ours was chosen to be another one.

use std::fs;
use std::path::Path;

use srp_addressing::{Guid, TargetOptions};

use super::failure::failure;
use super::login::LocalEnd;
use super::snapshot::acl_name;
use crate::rpc::protocol::{ErrorData, ErrorKind};

/// A session of ib_srp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelSession {
    /// The SCSI host, such as `host3`.
    host: String,
    /// Its remote port, such as `port-3:1`, unless it is just going.
    remote_port: Option<String>,
}

/// Refuses a target that ib_srp is logged in to through the same local port, where the login says no `initiator_ext`.
///
/// # Errors
/// Who holds it, and what to do.
pub(crate) fn check(target: &TargetOptions, local: &LocalEnd) -> Result<(), ErrorData> {
    refuse(target, local, session(Path::new("/sys"), target, local))
}

fn refuse(target: &TargetOptions, local: &LocalEnd, found: Option<KernelSession>) -> Result<(), ErrorData> {
    let (None, Some(kernel)) = (target.initiator_ext, found) else {
        return Ok(());
    };
    let (host, device, port) = (kernel.host, &local.device, local.port);
    let ours = acl_name(target.initiator_port(local.port_gid.interface()));
    let theirs = acl_name(target.target_port());
    let message = format!(
        "the kernel's ib_srp ({host}) is logged in to this target through {device}/{port}: a login as initiator port \
         {ours} to target port {theirs} would end that session, unless it has an initiator_ext"
    );
    let end = match kernel.remote_port {
        Some(remote_port) => format!("end it (`echo 1 > /sys/class/srp_remote_ports/{remote_port}/delete`)"),
        None => "wait until it has ended".to_owned(),
    };
    Err(failure(ErrorKind::Exists, message).remedy(format!(
        "{end}, or give this login an initiator_ext other than the kernel's, which is 0 unless its add_target line \
         said otherwise; the target's access list must have it"
    )))
}

/// The session of ib_srp to a target's port through a local port.
fn session(sys: &Path, target: &TargetOptions, local: &LocalEnd) -> Option<KernelSession> {
    let hosts = fs::read_dir(sys.join("class/scsi_host")).ok()?;
    let mut names: Vec<String> = hosts
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let host = names.into_iter().find(|name| {
        let folder = sys.join("class/scsi_host").join(name);
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let is = |name: &str, wanted: &str| read(name).is_some_and(|text| text.trim_end() == wanted);
        let number = |name: &str| {
            let text = read(name)?;
            u64::from_str_radix(text.trim_end().strip_prefix("0x")?, 16).ok()
        };
        is("proc_name", "ib_srp")
            && number("id_ext") == Some(target.id_ext)
            && number("ioc_guid").map(Guid) == Some(target.ioc_guid)
            && is("local_ib_device", &local.device)
            && is("local_ib_port", &local.port.to_string())
    })?;
    let prefix = format!("port-{}:", host.trim_start_matches("host"));
    let remote_ports = fs::read_dir(sys.join("class/srp_remote_ports")).into_iter().flatten();
    let remote_port = remote_ports
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with(&prefix));
    Some(KernelSession { host, remote_port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::scratch::Scratch;
    use std::path::PathBuf;

    fn target(more: &str) -> TargetOptions {
        let line = "id_ext=00000000000000a1,ioc_guid=00000000000000a2,dest=10.9.0.1:5555";
        format!("{line}{more}").parse().unwrap()
    }

    fn local(device: &str, port: u8) -> LocalEnd {
        LocalEnd {
            device: device.to_owned(),
            port,
            port_gid: "fe80::5054:ff:fe5a:1".parse().unwrap(),
            address: None,
        }
    }

    fn write(sys: &Path, path: &str, text: &str) {
        let path = sys.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A host with a disk controller, and ib_srp logged in to two targets.
    fn sysfs(scratch: &Scratch) -> PathBuf {
        let sys = scratch.path("sys");
        write(&sys, "class/scsi_host/host0/proc_name", "ahci\n");
        for (host, id_ext, device) in [("host12", "0xa1", "rxe0"), ("host3", "0x00000000000000b1", "rxe1")] {
            let entries = [
                ("proc_name", "ib_srp"),
                ("id_ext", id_ext),
                ("ioc_guid", "0x00000000000000a2"),
                ("local_ib_device", device),
                ("local_ib_port", "1"),
            ];
            for (name, text) in entries {
                write(&sys, &format!("class/scsi_host/{host}/{name}"), &format!("{text}\n"));
            }
        }
        write(&sys, "class/srp_remote_ports/port-1:2/state", "running\n");
        write(&sys, "class/srp_remote_ports/port-12:1/state", "running\n");
        sys
    }

    #[test]
    fn whose_session_it_is() {
        let scratch = Scratch::new();
        let sys = sysfs(&scratch);
        let found = session(&sys, &target(""), &local("rxe0", 1));
        let wanted = KernelSession {
            host: "host12".to_owned(),
            remote_port: Some("port-12:1".to_owned()),
        };
        assert_eq!(found, Some(wanted));
        // Through another port it is another initiator port.
        assert_eq!(session(&sys, &target(""), &local("rxe0", 2)), None);
        assert_eq!(session(&sys, &target(""), &local("rxe1", 1)), None);
        assert_eq!(session(&sys, &target(",id_ext=b1"), &local("rxe0", 1)), None);
        let other = session(&sys, &target(",id_ext=b1"), &local("rxe1", 1)).unwrap();
        assert_eq!((other.host.as_str(), other.remote_port), ("host3", None));
        assert_eq!(session(&scratch.path("none"), &target(""), &local("rxe0", 1)), None);
    }

    #[test]
    fn what_is_refused() {
        let kernel = || {
            Some(KernelSession {
                host: "host12".to_owned(),
                remote_port: Some("port-12:1".to_owned()),
            })
        };
        let end = local("rxe0", 1);
        let error = refuse(&target(""), &end, kernel()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Exists);
        for told in [
            "host12",
            "rxe0/1",
            "0x0000000000000000505400fffe5a0001",
            "0x00000000000000a100000000000000a2",
        ] {
            assert!(error.message.contains(told), "{}", error.message);
        }
        let remedy = error.remedy.unwrap();
        assert!(remedy.contains("/sys/class/srp_remote_ports/port-12:1/delete") && remedy.contains("initiator_ext"));
        // Chosen by somebody who knows.
        for chosen in [",initiator_ext=1", ",initiator_ext=0"] {
            assert_eq!(refuse(&target(chosen), &end, kernel()), Ok(()));
        }
        assert_eq!(refuse(&target(""), &end, None), Ok(()));
    }
}
