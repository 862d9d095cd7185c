//! Replies: header and record of every operation. No I/O.

use bytes::{BufMut, Bytes, BytesMut};

use super::error_code::ErrorCode;
use super::jute::{Decoder, Encode, WireError, put_buffer, put_ustring, put_ustrings};
use super::op_code::OpCode;
use super::request::put_multi_header;
use crate::acl::{Acl, put_acl_list};
use crate::stat::Stat;
use crate::zxid::Zxid;

/// What stands before every reply but the first of a connection (`ReplyHeader`, 16 bytes). With an
/// error no record follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's number.
    pub xid: i32,
    /// The last transaction this replica had applied when it answered.
    pub zxid: Zxid,
    /// The error; 0 is success.
    pub error: i32,
}

impl ReplyHeader {
    /// Reads the record.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<ReplyHeader, WireError> {
        Ok(ReplyHeader {
            xid: decoder.read_int()?,
            zxid: Zxid(decoder.read_long()?),
            error: decoder.read_int()?,
        })
    }
}

impl Encode for ReplyHeader {
    fn encode(&self, out: &mut BytesMut) {
        out.put_i32(self.xid);
        out.put_i64(self.zxid.0);
        out.put_i32(self.error);
    }
}

/// An identity as `whoAmI` shows it (`ClientInfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The authentication scheme.
    pub scheme: String,
    /// The user, without any secret.
    pub user: String,
}

/// A reply's record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the records' own.
pub enum Response {
    /// Nothing follows the header.
    Empty,
    /// `create` and `sync`.
    Path(String),
    /// `create2`, `createContainer`, `createTTL`.
    Created { path: String, stat: Stat },
    /// `exists`, `setData`, `setACL`.
    Stat(Stat),
    /// `getData`.
    Data { data: Option<Bytes>, stat: Stat },
    /// `getACL`.
    Acl { acl: Vec<Acl>, stat: Stat },
    /// `getChildren` and `getEphemerals`.
    Names(Vec<String>),
    /// `getChildren2`.
    Children { names: Vec<String>, stat: Stat },
    /// `multi` and `multiRead`.
    Multi(Vec<MultiResult>),
    /// `addWatch`'s error (always 0) and `getAllChildrenNumber`.
    Number(i32),
    /// `whoAmI`.
    WhoAmI(Vec<ClientInfo>),
    /// `sasl`.
    Token(Bytes),
}

/// What one operation of a multi or multiRead came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiResult {
    /// It succeeded; the record is that of the operation alone.
    Ok(OpCode, Response),
    /// It failed, or was undone: 0 before the failed operation, -2 behind it.
    Error(i32),
}

impl Response {
    /// Reads the record that answers an opcode.
    pub fn decode(op_code: OpCode, decoder: &mut Decoder<'_>) -> Result<Response, WireError> {
        Ok(match op_code {
            OpCode::Create | OpCode::Sync => Response::Path(decoder.read_ustring()?.to_string()),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => Response::Created {
                path: decoder.read_ustring()?.to_string(),
                stat: Stat::decode(decoder)?,
            },
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => {
                Response::Stat(Stat::decode(decoder)?)
            }
            OpCode::GetData | OpCode::Reconfig => {
                Response::Data { data: decoder.read_buffer()?, stat: Stat::decode(decoder)? }
            }
            OpCode::GetAcl => {
                Response::Acl { acl: Acl::decode_list(decoder)?, stat: Stat::decode(decoder)? }
            }
            OpCode::GetChildren | OpCode::GetEphemerals => Response::Names(decode_names(decoder)?),
            OpCode::GetChildren2 => {
                Response::Children { names: decode_names(decoder)?, stat: Stat::decode(decoder)? }
            }
            OpCode::Multi | OpCode::MultiRead => Response::Multi(decode_results(decoder)?),
            OpCode::AddWatch | OpCode::GetAllChildrenNumber => {
                Response::Number(decoder.read_int()?)
            }
            OpCode::WhoAmI => Response::WhoAmI(decoder.read_vector(8, |decoder| {
                Ok(ClientInfo {
                    scheme: decoder.read_ustring()?.to_string(),
                    user: decoder.read_ustring()?.to_string(),
                })
            })?),
            OpCode::Sasl => Response::Token(decoder.read_buffer()?.unwrap_or_default()),
            OpCode::Delete
            | OpCode::Check
            | OpCode::Ping
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::DeleteContainer
            | OpCode::CreateSession
            | OpCode::CloseSession => Response::Empty,
        })
    }
}

fn decode_names(decoder: &mut Decoder<'_>) -> Result<Vec<String>, WireError> {
    decoder.read_vector(4, |decoder| Ok(decoder.read_ustring()?.to_string()))
}

fn decode_results(decoder: &mut Decoder<'_>) -> Result<Vec<MultiResult>, WireError> {
    let mut results = Vec::new();
    loop {
        let code = decoder.read_int()?;
        let done = decoder.read_boolean()?;
        let _error = decoder.read_int()?;
        if done {
            return Ok(results);
        }
        if code == -1 {
            results.push(MultiResult::Error(decoder.read_int()?));
            continue;
        }
        let op_code = OpCode::from_code(code).ok_or(WireError::UnknownOpCode(code))?;
        results.push(MultiResult::Ok(op_code, Response::decode(op_code, decoder)?));
    }
}

impl Encode for Response {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Response::Empty => {}
            Response::Path(path) => put_ustring(out, path),
            Response::Created { path, stat } => {
                put_ustring(out, path);
                stat.encode(out);
            }
            Response::Stat(stat) => stat.encode(out),
            Response::Data { data, stat } => {
                put_buffer(out, data.as_deref());
                stat.encode(out);
            }
            Response::Acl { acl, stat } => {
                put_acl_list(out, acl);
                stat.encode(out);
            }
            Response::Names(names) => put_ustrings(out, names),
            Response::Children { names, stat } => {
                put_ustrings(out, names);
                stat.encode(out);
            }
            Response::Multi(results) => {
                for result in results {
                    result.encode(out);
                }
                put_multi_header(out, -1, true, -1);
            }
            Response::Number(number) => out.put_i32(*number),
            Response::WhoAmI(identities) => {
                out.put_i32(identities.len() as i32);
                for identity in identities {
                    put_ustring(out, &identity.scheme);
                    put_ustring(out, &identity.user);
                }
            }
            Response::Token(token) => put_buffer(out, Some(token)),
        }
    }
}

impl Encode for MultiResult {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            MultiResult::Ok(op_code, response) => {
                put_multi_header(out, *op_code as i32, false, 0);
                response.encode(out);
            }
            MultiResult::Error(error) => {
                put_multi_header(out, -1, false, *error);
                out.put_i32(*error);
            }
        }
    }
}

/// Appends one whole reply frame that carries only an error.
pub fn put_error_reply(out: &mut BytesMut, xid: i32, zxid: Zxid, error: ErrorCode) {
    super::put_frame(out, |out| ReplyHeader { xid, zxid, error: error.code() }.encode(out));
}
