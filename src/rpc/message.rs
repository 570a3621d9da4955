//! JSON-RPC 2.0 messages: what a line means, and what is answered.

use serde_json::{Map, Value, json};

use super::protocol::ErrorData;

/// The version member of every message.
pub(super) const VERSION: &str = "2.0";

/// Codes of JSON-RPC 2.0, and the one for what the daemon itself refuses.
pub(super) mod code {
    pub(crate) const PARSE_ERROR: i64 = -32700;
    pub(crate) const INVALID_REQUEST: i64 = -32600;
    pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
    pub(crate) const INVALID_PARAMS: i64 = -32602;
    pub(crate) const INTERNAL_ERROR: i64 = -32603;
    pub(crate) const APPLICATION: i64 = -32000;
}

/// Requests a batch may carry.
const MAX_BATCH: usize = 64;

/// Why a call has no result, as the wire tells it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<ErrorData>,
}

impl RpcError {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    fn to_value(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = &self.data {
            error["data"] = json!(data);
        }
        error
    }
}

impl From<ErrorData> for RpcError {
    fn from(data: ErrorData) -> Self {
        Self {
            code: code::APPLICATION,
            message: data.message.clone(),
            data: Some(data),
        }
    }
}

/// A call that is well formed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// `None` for a notification, which gets no answer.
    pub(super) id: Option<Value>,
    pub(super) method: String,
    /// An object, an array, or null where there are none.
    pub(super) params: Value,
}

/// One member of a message: a request, or what to answer in its place.
pub(super) type Item = Result<Request, Value>;

/// A line taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Incoming {
    Single(Item),
    Batch(Vec<Item>),
}

impl Incoming {
    pub(super) fn parse(line: &[u8]) -> Self {
        let refused = |code, text: String| Self::Single(Err(failure(Value::Null, &RpcError::new(code, text))));
        match serde_json::from_slice(line) {
            Err(error) => refused(code::PARSE_ERROR, format!("this is not JSON: {error}")),
            Ok(Value::Array(items)) if items.is_empty() => {
                refused(code::INVALID_REQUEST, "the batch is empty".to_owned())
            }
            Ok(Value::Array(items)) if items.len() > MAX_BATCH => refused(
                code::INVALID_REQUEST,
                format!("the batch has {} requests; at most {MAX_BATCH} are taken", items.len()),
            ),
            Ok(Value::Array(items)) => Self::Batch(items.into_iter().map(request).collect()),
            Ok(value) => Self::Single(request(value)),
        }
    }
}

fn request(value: Value) -> Item {
    let Value::Object(mut members) = value else {
        return Err(invalid(Value::Null, "a request is a JSON object"));
    };
    let id = members.remove("id");
    // What cannot be an id cannot be answered under it.
    let known_id = match &id {
        None | Some(Value::Null | Value::String(_) | Value::Number(_)) => id.clone().unwrap_or_default(),
        Some(_) => {
            return Err(invalid(Value::Null, "\"id\" must be a string, a number or null"));
        }
    };
    if members.get("jsonrpc").and_then(Value::as_str) != Some(VERSION) {
        return Err(invalid(known_id, "\"jsonrpc\" must be \"2.0\""));
    }
    let Some(Value::String(method)) = members.remove("method") else {
        return Err(invalid(known_id, "\"method\" must be a string"));
    };
    let params = members.remove("params").unwrap_or_default();
    if !matches!(params, Value::Null | Value::Object(_) | Value::Array(_)) {
        return Err(invalid(known_id, "\"params\" must be an object"));
    }
    Ok(Request { id, method, params })
}

fn invalid(id: Value, text: &str) -> Value {
    failure(id, &RpcError::new(code::INVALID_REQUEST, text))
}

/// The answer to a call that failed.
pub(super) fn failure(id: Value, error: &RpcError) -> Value {
    json!({ "jsonrpc": VERSION, "id": id, "error": error.to_value() })
}

/// The answer to a call, or none to a notification.
pub(super) fn answer(id: Option<Value>, outcome: Result<Value, RpcError>) -> Option<Value> {
    let id = id?;
    Some(match outcome {
        Ok(result) => json!({ "jsonrpc": VERSION, "id": id, "result": result }),
        Err(error) => failure(id, &error),
    })
}

/// The line of a request, newline included.
pub(super) fn request_line(id: u64, method: &str, params: Value) -> Vec<u8> {
    let mut message = Map::new();
    message.insert("jsonrpc".to_owned(), json!(VERSION));
    message.insert("id".to_owned(), json!(id));
    message.insert("method".to_owned(), json!(method));
    if !params.is_null() {
        message.insert("params".to_owned(), params);
    }
    line(&Value::Object(message))
}

/// A message as a line, newline included.
pub(super) fn line(message: &Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(item: &Item) -> i64 {
        item.as_ref().unwrap_err()["error"]["code"].as_i64().unwrap()
    }

    fn single(text: &str) -> Item {
        match Incoming::parse(text.as_bytes()) {
            Incoming::Single(item) => item,
            Incoming::Batch(_) => panic!("a batch: {text}"),
        }
    }

    #[test]
    fn requests() {
        let request = single(r#"{"jsonrpc":"2.0","id":"a","method":"show","params":{"device":1}}"#).unwrap();
        assert_eq!(request.id, Some(json!("a")));
        assert_eq!(request.params, json!({"device": 1}));
        let notification = single(r#"{"jsonrpc":"2.0","method":"list"}"#).unwrap();
        assert_eq!((notification.id, notification.params), (None, Value::Null));
        // An id of null is an id: it wants an answer.
        let null = single(r#"{"jsonrpc":"2.0","id":null,"method":"list"}"#).unwrap();
        assert_eq!(null.id, Some(Value::Null));
    }

    #[test]
    fn refusals() {
        for (text, code, id) in [
            ("{", -32700, Value::Null),
            ("\u{1b}[2J", -32700, Value::Null),
            ("7", -32600, Value::Null),
            ("[]", -32600, Value::Null),
            (r#"{"id":1,"method":"list"}"#, -32600, json!(1)),
            (r#"{"jsonrpc":"1.0","id":1,"method":"list"}"#, -32600, json!(1)),
            (r#"{"jsonrpc":"2.0","id":1}"#, -32600, json!(1)),
            (r#"{"jsonrpc":"2.0","id":1,"method":3}"#, -32600, json!(1)),
            (r#"{"jsonrpc":"2.0","id":[],"method":"list"}"#, -32600, Value::Null),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"list","params":3}"#,
                -32600,
                json!(1),
            ),
        ] {
            let item = single(text);
            assert_eq!(code_of(&item), code, "{text}");
            assert_eq!(item.unwrap_err()["id"], id, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(code_of(&single(&deep)), -32700);
        let long = format!("[{}1]", "1,".repeat(64));
        assert_eq!(code_of(&single(&long)), -32600);
        assert_eq!(code_of(&Incoming::parse(b"\xff\xfe").into_single()), -32700);
    }

    impl Incoming {
        fn into_single(self) -> Item {
            match self {
                Self::Single(item) => item,
                Self::Batch(_) => panic!("a batch"),
            }
        }
    }

    #[test]
    fn batches() {
        let text = r#"[{"jsonrpc":"2.0","id":1,"method":"list"}, 5]"#;
        let Incoming::Batch(items) = Incoming::parse(text.as_bytes()) else {
            panic!("no batch")
        };
        assert_eq!(items.len(), 2);
        assert!(items[0].is_ok());
        assert_eq!(code_of(&items[1]), -32600);
    }

    #[test]
    fn answers() {
        assert_eq!(answer(None, Ok(json!(1))), None);
        assert_eq!(
            answer(Some(json!(4)), Ok(Value::Null)),
            Some(json!({"jsonrpc": "2.0", "id": 4, "result": null}))
        );
        assert_eq!(
            request_line(3, "list", Value::Null),
            b"{\"id\":3,\"jsonrpc\":\"2.0\",\"method\":\"list\"}\n"
        );
    }
}
