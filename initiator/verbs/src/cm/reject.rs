//! Why a connection was rejected (IBA 12.6.7.2).

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $words:literal, $remedy:literal;)*) => {
        /// The reason code of a CM REJ message (IBA 12.6.7.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RejectReason {
            $(#[doc = concat!($words, ".")] $name,)*
            /// A code this crate does not know; iWARP reports negative errno values here.
            Other(i32),
        }

        impl RejectReason {
            /// The reason a CM event's status stands for.
            pub const fn from_code(code: i32) -> Self {
                match code {
                    $($code => Self::$name,)*
                    other => Self::Other(other),
                }
            }

            /// The number on the wire.
            pub const fn code(self) -> i32 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(code) => code,
                }
            }

            /// What the reason says, in words.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                    Self::Other(code) if code == -libc::ECONNREFUSED => "connection refused",
                    Self::Other(code) if code == -libc::ETIMEDOUT => "connection timed out",
                    Self::Other(_) => "a reason this program does not know",
                }
            }

            /// What an administrator can do about it; empty when nothing in particular.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)*
                    Self::Other(code) if code == -libc::ECONNREFUSED => "nobody listens on that address and port",
                    Self::Other(_) => "",
                }
            }
        }
    };
}

reasons! {
    NoQueuePair = 1, "the target has no queue pair left", "log out unused sessions or ask for fewer channels";
    NoEndToEndContext = 2, "the target has no end-to-end context left", "";
    NoResources = 3, "the target has no resources left",
        "some arrays limit channels per port: ask for fewer channels, or log out unused initiators";
    Timeout = 4, "the target gave up waiting", "the fabric loses or delays messages: check link errors and congestion";
    Unsupported = 5, "the target does not support the request", "";
    InvalidCommunicationId = 6, "invalid communication id", "a stale connection is being cleaned up: try again";
    InvalidCommunicationInstance = 7, "invalid communication instance",
        "a stale connection is being cleaned up: try again";
    InvalidServiceId = 8, "nobody listens there (invalid service id)",
        "check the port or service id; on LIO set rdma_cm_port, and for native InfiniBand enable the target";
    InvalidServiceType = 9, "invalid transport service type", "";
    StaleConnection = 10, "stale connection",
        "the target still holds an older connection with this queue pair number: try again in some seconds";
    NoReliableDatagramChannel = 11, "the reliable datagram channel does not exist", "";
    GidRejected = 12, "the target does not accept the primary port GID", "the address moved: discover again";
    LidRejected = 13, "the target does not accept the primary port LID", "the address moved: discover again";
    InvalidServiceLevel = 14, "invalid primary service level", "check the subnet manager's QoS settings";
    InvalidTrafficClass = 15, "invalid primary traffic class", "";
    InvalidHopLimit = 16, "invalid primary hop limit", "";
    InvalidPacketRate = 17, "invalid primary packet rate", "";
    AlternateGidRejected = 18, "the target does not accept the alternate port GID", "";
    AlternateLidRejected = 19, "the target does not accept the alternate port LID", "";
    InvalidAlternateServiceLevel = 20, "invalid alternate service level", "";
    InvalidAlternateTrafficClass = 21, "invalid alternate traffic class", "";
    InvalidAlternateHopLimit = 22, "invalid alternate hop limit", "";
    InvalidAlternatePacketRate = 23, "invalid alternate packet rate", "";
    PortAndCmRedirect = 24, "the target redirects to another port and connection manager",
        "use the address that discovery shows now; redirects cannot be followed from userspace";
    PortRedirect = 25, "the target redirects to another port",
        "use the address that discovery shows now; redirects cannot be followed from userspace";
    InvalidPathMtu = 26, "invalid path MTU", "check the MTU of both ports and of the switch";
    InsufficientResponderResources = 27, "insufficient responder resources", "";
    Consumer = 28, "the target's SRP service refused (its reason is in SRP_LOGIN_REJ)", "";
    RnrRetryRejected = 29, "the target does not accept the RNR retry count", "";
    DuplicateCommunicationId = 30, "duplicate local communication id", "try again";
    InvalidClassVersion = 31, "invalid class version", "";
    InvalidFlowLabel = 32, "invalid primary flow label", "";
    InvalidAlternateFlowLabel = 33, "invalid alternate flow label", "";
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CM reason {})", self.words(), self.code())?;
        match self.remedy() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_standard_round_trip_and_have_words() {
        for code in 1..=33 {
            let reason = RejectReason::from_code(code);
            assert!(!matches!(reason, RejectReason::Other(_)), "{code}");
            assert_eq!(reason.code(), code);
            assert!(!reason.words().is_empty());
        }
        assert_eq!(RejectReason::from_code(8), RejectReason::InvalidServiceId);
        assert_eq!(RejectReason::from_code(10), RejectReason::StaleConnection);
        assert_eq!(RejectReason::from_code(28), RejectReason::Consumer);
    }

    #[test]
    fn unknown_codes_are_kept() {
        for code in [0, 34, 35, 1000, -1, i32::MIN, i32::MAX] {
            assert_eq!(RejectReason::from_code(code), RejectReason::Other(code));
            assert_eq!(RejectReason::Other(code).code(), code);
        }
        assert!(RejectReason::Other(-libc::ECONNREFUSED).to_string().contains("refused"));
    }

    #[test]
    fn display_names_reason_number_and_remedy() {
        let text = RejectReason::InvalidServiceId.to_string();
        assert!(
            text.contains("nobody listens") && text.contains("8") && text.contains("rdma_cm_port"),
            "{text}"
        );
    }
}
