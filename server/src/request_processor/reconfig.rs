//! From a `reconfig` request to the transaction that changes the ensemble, in ZooKeeper's order of
//! checks (`PrepRequestProcessor`, `OpCode.reconfig`). No I/O. What the transaction does to the
//! protocol between the replicas is in `zab::reconfiguration`.

use bytes::Bytes;
use tracing::{info, warn};
use znodefs::{ErrorCode, Permissions, SessionId, Zxid};

use super::{Context, EpochUsedUp, RequestProcessor};
use crate::config::ensemble::{
    Member, MemberRole, ServerId, conflict, member_lines, parse_line, parse_members,
};
use crate::tree::{CONFIG_PATH, access};
use crate::txn::{Txn, TxnBody, TxnOrigin};

/// What a leader knows of its ensemble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnsembleView {
    /// The members of the committed configuration.
    pub members: Vec<Member>,
    /// Its version.
    pub version: Zxid,
    /// Whether another one is proposed and not committed.
    pub changes: bool,
    /// The leader and the learners that have everything, members or not.
    pub synced: Vec<ServerId>,
    /// Whether an ensemble of one would stand alone at its next start (`standaloneEnabled`).
    pub standalone_enabled: bool,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reconfiguration<'a> {
    pub joining: Option<&'a str>,
    pub leaving: Option<&'a str>,
    pub new_members: Option<&'a str>,
    pub current_config_id: i64,
}

impl RequestProcessor {
    /// Tells a leader's request processor of the ensemble; a replica alone has none.
    pub fn set_ensemble(&mut self, view: EnsembleView) {
        self.ensemble = Some(view);
    }

    pub(super) fn reconfig(
        &mut self,
        context: &Context<'_>,
        request: Reconfiguration<'_>,
    ) -> Result<TxnBody, ErrorCode> {
        if !self.options.reconfig_enabled {
            return Err(ErrorCode::ReconfigDisabled);
        }
        self.sessions.check(context.tree, context.session_id, context.owner)?;
        let view = self.ensemble.as_ref().ok_or(ErrorCode::Unimplemented)?;
        if view.changes || self.reconfiguring.is_some() {
            return Err(ErrorCode::ReconfigInProgress);
        }
        let expected = request.current_config_id;
        if expected != -1 && Zxid(expected) != view.version {
            return Err(ErrorCode::BadVersion);
        }
        let members = view.changed(&request).map_err(|reason| {
            warn!("reconfiguration refused: {reason}");
            ErrorCode::BadArguments
        })?;
        let missing = view.missing(&members);
        if !missing.is_empty() {
            let missing = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            warn!(
                "reconfiguration refused: no quorum of the new configuration is connected and up to \
                 date; server {missing} is not"
            );
            return Err(ErrorCode::NewConfigNoQuorum);
        }
        let node = self.node(context, CONFIG_PATH)?;
        access::check(&node.acl, Permissions::WRITE, context.identities)?;
        let lines = member_lines(&members);
        info!("reconfiguration {} is proposed: {}", context.zxid, lines.trim().replace('\n', ", "));
        self.reconfiguring = Some(context.zxid);
        Ok(body(lines, context.zxid))
    }

    /// The transaction that makes the configuration of the files a part of the replicated state, as
    /// the first leader of an ensemble proposes it.
    pub fn prepare_configuration(&mut self, lines: &str, time_ms: i64) -> Result<Txn, EpochUsedUp> {
        let zxid = self.next_zxid()?;
        self.reconfiguring = Some(zxid);
        let (session_id, origin) = (SessionId(0), TxnOrigin::default());
        let body = body(lines.to_string(), zxid);
        Ok(Txn { zxid, session_id, xid: 0, origin, time_ms, body })
    }
}

fn body(members: String, version: Zxid) -> TxnBody {
    let data = Bytes::from(format!("{members}version={:x}", version.0));
    TxnBody::Reconfig { members, data }
}

impl EnsembleView {
    /// The members after a change; an error says what is wrong with it.
    fn changed(&self, request: &Reconfiguration<'_>) -> Result<Vec<Member>, String> {
        let mut members = match request.new_members {
            Some(text) => parse_members(text)?,
            None => self.changed_in_part(request.joining, request.leaving)?,
        };
        members.sort_by_key(|member| member.server_id);
        if let Some(conflict) = conflict(&members) {
            return Err(conflict);
        }
        let voters = voters(&members).count();
        if voters == 0 {
            return Err("no participant would be left".into());
        }
        if voters == 1 && self.standalone_enabled {
            return Err("only one participant would be left, and with standaloneEnabled=true it \
                        would stand alone at its next start"
                .into());
        }
        Ok(members)
    }

    fn changed_in_part(
        &self,
        joining: Option<&str>,
        leaving: Option<&str>,
    ) -> Result<Vec<Member>, String> {
        let mut members = self.members.clone();
        for text in parts(leaving) {
            let number = text.parse::<u8>();
            let id = number.map_err(|_| format!("'{text}' leaves: expected a number"))?;
            members.retain(|member| member.server_id != ServerId(id));
        }
        let mut joined: Vec<ServerId> = Vec::new();
        for text in parts(joining) {
            let member = parse_line(text)?;
            if member.client_address.is_none() {
                return Err(format!("'{text}': it has no ;CLIENT_PORT"));
            }
            if joined.contains(&member.server_id) {
                return Err(format!("server.{} joins twice", member.server_id));
            }
            joined.push(member.server_id);
            members.retain(|other| other.server_id != member.server_id);
            members.push(member);
        }
        Ok(members)
    }

    /// Which voters are not up to date, when too few are for a quorum.
    fn missing(&self, members: &[Member]) -> Vec<ServerId> {
        let missing: Vec<ServerId> =
            voters(members).filter(|id| !self.synced.contains(id)).collect();
        let count = voters(members).count();
        if count - missing.len() > count / 2 { Vec::new() } else { missing }
    }
}

fn voters(members: &[Member]) -> impl Iterator<Item = ServerId> {
    members
        .iter()
        .filter(|member| member.role == MemberRole::Participant)
        .map(|member| member.server_id)
}

fn parts(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty())
}
