//! What the fuzzer and the corpus test feed: one function per decoder of bytes that come from somewhere else.
//!
//! No input may panic, loop, or allocate beyond its own size class; and what is accepted means the same when it is
//! written out and read again. The fuzzer (`fuzz/libfuzzer`), the corpus test and the soak call the same functions
//! by way of [`TARGETS`]. A new decoder gets a function, a line there, a file and an entry in `libfuzzer` and a few seeds in
//! `fuzz/corpus`.
#![forbid(unsafe_code)]

mod discovery;
mod scsi;
mod session;
mod text;
mod wire;

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its fuzz target and of its folder of seeds.
    pub name: &'static str,
    /// Feeds it one input. Panics when a rule is broken.
    pub run: fn(&[u8]),
}

/// Every decoder there is.
pub const TARGETS: &[Target] = &[
    Target {
        name: "from_target",
        run: wire::from_target,
    },
    Target {
        name: "from_initiator",
        run: wire::from_initiator,
    },
    Target {
        name: "login_request",
        run: wire::login_request,
    },
    Target {
        name: "login_response",
        run: wire::login_response,
    },
    Target {
        name: "sense",
        run: scsi::sense,
    },
    Target {
        name: "inquiry",
        run: scsi::inquiry,
    },
    Target {
        name: "vpd",
        run: scsi::vpd,
    },
    Target {
        name: "capacity",
        run: scsi::capacity,
    },
    Target {
        name: "mode",
        run: scsi::mode,
    },
    Target {
        name: "report_luns",
        run: scsi::report_luns,
    },
    Target {
        name: "add_target",
        run: text::add_target,
    },
    Target {
        name: "names",
        run: text::names,
    },
    Target {
        name: "mad",
        run: discovery::mad,
    },
    Target {
        name: "scan",
        run: discovery::scan,
    },
    Target {
        name: "rules",
        run: discovery::rules,
    },
    Target {
        name: "configuration",
        run: text::configuration,
    },
    Target {
        name: "session",
        run: session::hostile,
    },
];

/// Feeds a decoder by name.
///
/// # Panics
/// When there is none of that name, or the decoder breaks a rule.
pub fn run(name: &str, input: &[u8]) {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => (target.run)(input),
        None => panic!("no decoder is called {name}"),
    }
}
