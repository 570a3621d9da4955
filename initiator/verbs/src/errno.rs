//! What the C libraries say went wrong, and what an administrator can do about it.

use std::io;

/// The result of a call that returns -1 and sets errno.
pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The result of a verb that returns an errno value (libibverbs) or, in some old providers, -1 with errno set.
pub(crate) fn check_value(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        value if value > 0 => Err(io::Error::from_raw_os_error(value)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The result of a call that returns a null pointer and sets errno.
pub(crate) fn check_pointer<T>(pointer: *mut T) -> io::Result<std::ptr::NonNull<T>> {
    std::ptr::NonNull::new(pointer).ok_or_else(io::Error::last_os_error)
}

/// What to do about an error of opening or using an RDMA character device.
pub(crate) fn remedy(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; run as root, or give the user access to /dev/infiniband/*",
        Some(libc::ENOMEM) => {
            "; raise the limit on locked memory (LimitMEMLOCK=infinity for a systemd unit, ulimit -l for a shell) \
             or the HCA is out of resources"
        }
        Some(libc::ENODEV | libc::EIO) => "; the HCA was removed or its driver was reset",
        Some(libc::EMFILE | libc::ENFILE) => "; raise the limit on open files (LimitNOFILE)",
        _ => "",
    }
}

/// What to do about an error of the connection manager; empty when nothing is known.
pub(crate) fn cm_remedy(errno: i32) -> &'static str {
    match errno {
        libc::ENODEV => "no RDMA device owns the local address: check `rdma link` and `ip route get` for the target",
        libc::EADDRNOTAVAIL => "the local address is not configured on this host",
        libc::ENETUNREACH | libc::EHOSTUNREACH => "no route to the target: check `ip route get` and `ip neigh`",
        libc::ETIMEDOUT => {
            "the target did not answer: check cabling, VLAN, MTU and firewall (RoCE v2 is UDP port 4791)"
        }
        libc::ECONNREFUSED => "nobody listens on that address and port",
        libc::EADDRINUSE => "the local port is in use",
        libc::EAFNOSUPPORT => "local and target address are of different families",
        libc::EPERM | libc::EACCES => "run as root, or give the user access to /dev/infiniband/rdma_cm",
        libc::EINVAL => "the connection is not in a state that allows this",
        _ => "",
    }
}
