//! The listing for people, as `ibsrpdm` prints it.

use std::fmt::Write as _;

use crate::device_management::{IoController, IoUnit};
use crate::mad::SlotState;
use crate::ports::LinkLayer;
use crate::scan::FoundUnit;
use crate::targets::{RdmaCm, is_srp_service, is_usable};

/// What the listing contains besides the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListingOptions {
    /// The state of every slot, as `srp_daemon -v` shows it.
    pub slots: bool,
    /// Controllers that another slot has shown already, as `ibsrpdm` shows them.
    pub repeated: bool,
}

/// How the targets of a unit take logins, as far as the listing tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logins<'a> {
    /// As the services say; `ibsrpdm` knows no other.
    #[default]
    ByService,
    /// By RDMA/CM, where the caller says.
    RdmaCm(&'a RdmaCm),
    /// By RDMA/CM, and nobody has said where.
    RdmaCmUnknown,
}

impl<'a> Logins<'a> {
    /// Those of a unit that was found.
    #[must_use]
    pub fn of(found: &'a FoundUnit) -> Self {
        match (&found.rdma_cm, found.link_layer) {
            (Some(rdma_cm), _) => Self::RdmaCm(rdma_cm),
            (None, LinkLayer::Ethernet) => Self::RdmaCmUnknown,
            (None, _) => Self::ByService,
        }
    }
}

/// The listing of one I/O unit. For RDMA/CM logins a line below the services shows where they go, or what to add;
/// `ibsrpdm` knows no such line, nor a unit that has it.
#[must_use]
pub fn io_unit(unit: &IoUnit, logins: Logins<'_>, options: ListingOptions) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_unit(&mut out, unit, logins, options);
    out
}

fn write_unit(out: &mut String, unit: &IoUnit, logins: Logins<'_>, options: ListingOptions) -> std::fmt::Result {
    writeln!(out, "IO Unit Info:")?;
    writeln!(out, "    port LID:        {:04x}", unit.lid)?;
    writeln!(out, "    port GID:        {}", unit.gid.to_hex())?;
    writeln!(out, "    change ID:       {:04x}", unit.change_id)?;
    writeln!(out, "    max controllers: 0x{:02x}", unit.max_controllers)?;
    if options.slots {
        for slot in &unit.slots {
            writeln!(out, "    controller[{:3}]: {}", slot.number, slot.state)?;
        }
    }
    for slot in unit
        .slots
        .iter()
        .filter(|s| s.state == SlotState::Present && (options.repeated || s.same_as.is_none()))
    {
        writeln!(out)?;
        if let Some(Ok(controller)) = &slot.controller {
            write_controller(out, slot.number, controller, logins)?;
        }
    }
    writeln!(out)
}

fn write_controller(out: &mut String, slot: u8, controller: &IoController, logins: Logins<'_>) -> std::fmt::Result {
    writeln!(out, "    controller[{slot:3}]")?;
    writeln!(out, "        GUID:      {}", controller.guid)?;
    writeln!(out, "        vendor ID: {:06x}", controller.vendor_id)?;
    writeln!(out, "        device ID: {:06x}", controller.device_id)?;
    writeln!(out, "        IO class : {:04x}", controller.io_class)?;
    writeln!(
        out,
        "        Maximum size of Send Messages in bytes: {}",
        // Signed, as ibsrpdm has it.
        controller.send_size.cast_signed()
    )?;
    writeln!(out, "        ID:        {}", controller.id)?;
    writeln!(out, "        service entries: {}", controller.service_entries)?;
    let services = &controller.services;
    for service in services.iter().filter(|service| is_srp_service(&service.name)) {
        writeln!(
            out,
            "            service[{:3}]: {} / {}",
            service.index, service.id, service.name
        )?;
    }
    match logins {
        _ if !services.iter().any(|service| is_usable(&service.name)) => {}
        Logins::ByService => {}
        Logins::RdmaCm(rdma_cm) => {
            writeln!(
                out,
                "        RDMA/CM:   {rdma_cm} (port as given, targets do not announce it)"
            )?;
        }
        Logins::RdmaCmUnknown => {
            writeln!(
                out,
                "        RDMA/CM:   port not known, targets do not announce it: add --rdma-cm-port N"
            )?;
        }
    }
    Ok(())
}
