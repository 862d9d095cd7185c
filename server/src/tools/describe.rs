//! What a transaction does, for people and as JSON. Values and password hashes are left out unless
//! they are asked for.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use znodefs::{Acl, ErrorCode};

use super::timestamp;
use crate::tree::OwnerKind;
use crate::tree::access::mask_digests;
use crate::txn::{Change, Txn, TxnBody};

/// The paths that a transaction changes.
pub fn changed_paths(txn: &Txn) -> Vec<&str> {
    match &txn.body {
        TxnBody::CloseSession { ephemerals } => ephemerals.iter().map(String::as_str).collect(),
        TxnBody::Change(change) => changed_path(change).into_iter().collect(),
        TxnBody::Multi(changes) => changes.iter().filter_map(changed_path).collect(),
        TxnBody::Reconfig { .. } => vec![crate::tree::CONFIG_PATH],
        TxnBody::Error(_) | TxnBody::MultiError(_) | TxnBody::CreateSession { .. } => Vec::new(),
    }
}

fn changed_path(change: &Change) -> Option<&str> {
    match change {
        Change::Create { path, .. }
        | Change::Delete { path }
        | Change::SetData { path, .. }
        | Change::SetAcl { path, .. } => Some(path),
        Change::Check => None,
    }
}

/// Whether `path` is `prefix` or below it.
pub fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// One line: when, by whom, what.
pub fn text(txn: &Txn, with_data: bool) -> String {
    let mut line = format!("{}  {}", txn.zxid, timestamp::readable(txn.time_ms));
    // Writing to a string cannot fail.
    if txn.session_id.0 != 0 {
        let _ = write!(line, "  session {} xid {}", txn.session_id, txn.xid);
    }
    let _ = write!(line, "  {}", body_text(&txn.body, with_data));
    line
}

fn body_text(body: &TxnBody, with_data: bool) -> String {
    match body {
        TxnBody::Error(code) => format!("failed: {}", error_name(*code)),
        TxnBody::MultiError(codes) => {
            let names: Vec<String> = codes.iter().map(|code| error_name(*code)).collect();
            format!("multi failed: {}", names.join(", "))
        }
        TxnBody::CreateSession { timeout_ms } => format!("session begins, timeout {timeout_ms} ms"),
        TxnBody::CloseSession { ephemerals } if ephemerals.is_empty() => "session ends".to_owned(),
        TxnBody::CloseSession { ephemerals } => {
            format!("session ends with {}", ephemerals.join(" "))
        }
        TxnBody::Change(change) => change_text(change, with_data),
        TxnBody::Multi(changes) => {
            let texts: Vec<String> =
                changes.iter().map(|change| change_text(change, with_data)).collect();
            format!("multi of {}: {}", changes.len(), texts.join("; "))
        }
        TxnBody::Reconfig { members, .. } => {
            format!("reconfig: {}", members.trim_end().replace('\n', ", "))
        }
    }
}

fn change_text(change: &Change, with_data: bool) -> String {
    match change {
        Change::Create { path, data, acl, ephemeral_owner, .. } => {
            let kind = match OwnerKind::from_stored(*ephemeral_owner) {
                OwnerKind::Persistent => String::new(),
                OwnerKind::Ephemeral(session) => format!(" ephemeral of {session}"),
                OwnerKind::Container => " container".to_owned(),
                OwnerKind::Ttl { ttl_ms } => format!(" with a time to live of {ttl_ms} ms"),
            };
            let data = data_text(data.as_deref(), with_data);
            let acl = acl_text(acl, with_data);
            format!("create {path}{kind} {data} acl {acl}")
        }
        Change::Delete { path } => format!("delete {path}"),
        Change::SetData { path, data, version } => {
            format!("set {path} {} version {version}", data_text(data.as_deref(), with_data))
        }
        Change::SetAcl { path, acl, aversion } => {
            format!("setAcl {path} {} aversion {aversion}", acl_text(acl, with_data))
        }
        Change::Check => "check".to_owned(),
    }
}

/// A value's length, or the value itself.
pub fn data_text(data: Option<&[u8]>, with_data: bool) -> String {
    match data {
        None => "null".to_owned(),
        Some(data) if with_data => match std::str::from_utf8(data) {
            Ok(text) => format!("{text:?}"),
            Err(_) => format!("base64:{}", BASE64_STANDARD.encode(data)),
        },
        Some(data) => format!("({} bytes)", data.len()),
    }
}

fn acl_text(acl: &[Acl], with_data: bool) -> String {
    if with_data { Acl::format_list(acl) } else { Acl::format_list(&mask_digests(acl)) }
}

fn error_name(code: i32) -> String {
    match ErrorCode::from_code(code) {
        _ if code == 0 => "ok".to_owned(),
        Some(error) => format!("{error:?}"),
        None => format!("error {code}"),
    }
}

/// A transaction as JSON.
pub fn json(txn: &Txn, with_data: bool) -> Value {
    let mut value = json!({
        "kind": "txn",
        "zxid": txn.zxid.to_string(),
        "time": timestamp::readable(txn.time_ms),
        "time_ms": txn.time_ms,
        "session": txn.session_id.to_string(),
        "xid": txn.xid,
    });
    merge(&mut value, body_json(&txn.body, with_data));
    value
}

/// Adds the fields of one object to another.
pub fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn body_json(body: &TxnBody, with_data: bool) -> Value {
    match body {
        TxnBody::Error(code) => json!({"op": "error", "error": error_name(*code), "code": code}),
        TxnBody::MultiError(codes) => {
            let names: Vec<String> = codes.iter().map(|code| error_name(*code)).collect();
            json!({"op": "multiError", "errors": names, "codes": codes})
        }
        TxnBody::CreateSession { timeout_ms } => {
            json!({"op": "createSession", "timeout_ms": timeout_ms})
        }
        TxnBody::CloseSession { ephemerals } => {
            json!({"op": "closeSession", "ephemerals": ephemerals})
        }
        TxnBody::Change(change) => change_json(change, with_data),
        TxnBody::Multi(changes) => {
            let changes: Vec<Value> =
                changes.iter().map(|change| change_json(change, with_data)).collect();
            json!({"op": "multi", "changes": changes})
        }
        TxnBody::Reconfig { members, .. } => json!({"op": "reconfig", "members": members}),
    }
}

fn change_json(change: &Change, with_data: bool) -> Value {
    match change {
        Change::Create { path, data, acl, ephemeral_owner, .. } => {
            let mut value = json!({"op": "create", "path": path, "acl": acl_text(acl, with_data)});
            merge(&mut value, owner_json(*ephemeral_owner));
            merge(&mut value, data_json(data.as_deref(), with_data));
            value
        }
        Change::Delete { path } => json!({"op": "delete", "path": path}),
        Change::SetData { path, data, version } => {
            let mut value = json!({"op": "setData", "path": path, "version": version});
            merge(&mut value, data_json(data.as_deref(), with_data));
            value
        }
        Change::SetAcl { path, acl, aversion } => json!({
            "op": "setAcl", "path": path, "acl": acl_text(acl, with_data), "aversion": aversion,
        }),
        Change::Check => json!({"op": "check"}),
    }
}

/// What the stored owner says of a znode's kind.
pub fn owner_json(stored: i64) -> Value {
    match OwnerKind::from_stored(stored) {
        OwnerKind::Persistent => json!({}),
        OwnerKind::Ephemeral(session) => json!({"ephemeral_owner": session.to_string()}),
        OwnerKind::Container => json!({"container": true}),
        OwnerKind::Ttl { ttl_ms } => json!({"ttl_ms": ttl_ms}),
    }
}

/// A value's length, null for none, and the value where it is wanted.
pub fn data_json(data: Option<&[u8]>, with_data: bool) -> Value {
    let mut value = json!({"data_length": data.map(<[u8]>::len)});
    if let Some(data) = data
        && with_data
    {
        match std::str::from_utf8(data) {
            Ok(text) => merge(&mut value, json!({"data": text})),
            Err(_) => merge(&mut value, json!({"data_base64": BASE64_STANDARD.encode(data)})),
        }
    }
    value
}
