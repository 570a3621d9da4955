//! Whether a call has the method and the parameters that the protocol knows.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::protocol::{AttachParams, DetachParams, ProbeParams, ShowParams, method};

/// What a look at a call's method and parameters says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Params {
    Good,
    NoSuchMethod,
    Bad(String),
}

/// The parameters of a method without any.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Params {
    pub(super) fn check(method: &str, params: &Value) -> Self {
        match method {
            method::ATTACH => Self::of::<AttachParams>(params),
            method::DETACH => Self::of::<DetachParams>(params),
            method::SHOW => Self::of::<ShowParams>(params),
            method::PROBE => Self::of::<ProbeParams>(params),
            method::LIST | method::STATUS | method::TARGETS if params.is_null() => Self::Good,
            method::LIST | method::STATUS | method::TARGETS => Self::of::<Nothing>(params),
            _ => Self::NoSuchMethod,
        }
    }

    fn of<T: DeserializeOwned>(params: &Value) -> Self {
        if !params.is_object() {
            return Self::Bad("the parameters are passed by name, in an object".to_owned());
        }
        match T::deserialize(params) {
            Ok(_) => Self::Good,
            Err(error) => Self::Bad(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn checks() {
        let good = [
            ("list", Value::Null),
            ("status", json!({})),
            ("targets", Value::Null),
            ("show", json!({"device": 0})),
            ("attach", json!({"target": "x"})),
            ("detach", json!({"all": true})),
            ("probe", json!({"port": "10.0.0.1"})),
        ];
        for (method, params) in good {
            assert_eq!(Params::check(method, &params), Params::Good, "{method}");
        }
        let bad = [
            ("list", json!({"x": 1})),
            ("show", Value::Null),
            ("probe", json!({})),
            ("show", json!([1])),
            ("show", json!({"device": -1})),
            ("attach", json!({"target": "x", "lun": "0"})),
            ("detach", json!({"devices": ["0"]})),
        ];
        for (method, params) in bad {
            assert!(
                matches!(Params::check(method, &params), Params::Bad(_)),
                "{method} {params}"
            );
        }
        assert_eq!(Params::check("reboot", &Value::Null), Params::NoSuchMethod);
    }
}
