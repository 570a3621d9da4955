//! The methods of the control socket.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use srp_addressing::Gid;
use srp_discovery::ports::gid_of;

use super::failure::failure;
use super::known::{Tables, not_watching};
use super::registry::{Registry, Standing};
use crate::rpc::protocol::{ErrorData, ErrorKind, ProbeParams, method};
use crate::rpc::server::Handler;

/// The methods of the control socket.
pub(crate) struct Methods {
    pub(crate) registry: Arc<Registry>,
    /// What is known about targets, when ports are watched.
    pub(crate) known: Option<Arc<Tables>>,
}

impl Handler for Methods {
    async fn call(&self, name: &str, params: Value) -> Result<Value, ErrorData> {
        let registry = &self.registry;
        match name {
            method::ATTACH => answer(registry.attach_as_wanted(parse(params)?).await?),
            method::DETACH => answer(registry.detach(&parse(params)?).await?),
            method::LIST => answer(registry.list()),
            method::SHOW => answer(registry.show(&parse(params)?).await?),
            method::STATUS => answer(registry.status()),
            method::TARGETS => match &self.known {
                Some(known) => answer(known.report(
                    |target| registry.session_to(target),
                    |target| registry.standing(target) == Standing::Dismissed,
                )),
                None => Err(not_watching()),
            },
            method::PROBE => answer(
                registry
                    .probe(port_gid(&parse(params)?)?, "a probe was asked for")
                    .await,
            ),
            other => Err(failure(ErrorKind::Usage, format!("there is no method {other:?}"))),
        }
    }
}

/// The GID that is meant.
fn port_gid(params: &ProbeParams) -> Result<Gid, ErrorData> {
    if let Ok(address) = params.port.parse::<IpAddr>() {
        return Ok(gid_of(address));
    }
    params.port.parse().map_err(|error: srp_addressing::ParseGidError| {
        failure(
            ErrorKind::Usage,
            format!("port: {error}; the address or GID of a target port is wanted"),
        )
    })
}

fn parse<T: serde::de::DeserializeOwned>(params: Value) -> Result<T, ErrorData> {
    serde_json::from_value(params).map_err(|error| failure(ErrorKind::Usage, format!("parameters: {error}")))
}

fn answer<T: serde::Serialize>(value: T) -> Result<Value, ErrorData> {
    serde_json::to_value(value).map_err(|error| failure(ErrorKind::Internal, format!("answer: {error}")))
}
