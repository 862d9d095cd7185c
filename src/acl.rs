//! Access control lists: permissions, identities, and the text form that zkCli uses. No I/O.

use std::fmt;

use base64::Engine;
use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::wire::jute::{Decoder, Encode, WireError, put_ustring};

/// A set of permissions (`ZooDefs.Perms`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Permissions(pub i32);

impl Permissions {
    /// Read data and list children.
    pub const READ: Permissions = Permissions(1);
    /// Set data.
    pub const WRITE: Permissions = Permissions(2);
    /// Create children.
    pub const CREATE: Permissions = Permissions(4);
    /// Delete children.
    pub const DELETE: Permissions = Permissions(8);
    /// Set the ACL.
    pub const ADMIN: Permissions = Permissions(16);
    /// Everything.
    pub const ALL: Permissions = Permissions(31);

    /// Whether any of `wanted` is in this set.
    pub fn intersects(self, wanted: Permissions) -> bool {
        self.0 & wanted.0 != 0
    }

    /// Both sets together.
    pub fn union(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }
}

const LETTERS: [(char, Permissions); 5] = [
    ('c', Permissions::CREATE),
    ('d', Permissions::DELETE),
    ('r', Permissions::READ),
    ('w', Permissions::WRITE),
    ('a', Permissions::ADMIN),
];

impl fmt::Display for Permissions {
    /// zkCli's letters, in zkCli's order: `cdrwa`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, permission) in LETTERS {
            if self.intersects(permission) {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// One entry of an access control list: who may do what (`ACL` with its `Id`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Acl {
    /// What is allowed.
    pub permissions: Permissions,
    /// How the identity is proved: `world`, `digest`, `ip`, `auth`, `x509`, `sasl`.
    pub scheme: String,
    /// Who, in the scheme's own form.
    pub id: String,
}

/// Why a text is not an ACL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{entry}' is not an ACL entry: expected SCHEME:ID:PERMISSIONS with permissions out of cdrwa"
)]
pub struct AclTextError {
    /// The entry that could not be read.
    pub entry: String,
}

impl Acl {
    /// Everybody may do everything (`world:anyone:cdrwa`), the default of every client.
    pub fn open() -> Vec<Acl> {
        vec![Acl::world(Permissions::ALL)]
    }

    /// An entry for everybody.
    pub fn world(permissions: Permissions) -> Acl {
        Acl { permissions, scheme: "world".into(), id: "anyone".into() }
    }

    /// Reads zkCli's form: `SCHEME:ID:PERMISSIONS`, several joined with commas. The id may hold
    /// colons (`digest:user:HASH:rw`).
    pub fn parse_list(text: &str) -> Result<Vec<Acl>, AclTextError> {
        text.split(',').map(|entry| Acl::parse(entry.trim())).collect()
    }

    fn parse(entry: &str) -> Result<Acl, AclTextError> {
        let error = || AclTextError { entry: entry.to_string() };
        let (scheme, rest) = entry.split_once(':').ok_or_else(error)?;
        let (id, letters) = rest.rsplit_once(':').ok_or_else(error)?;
        let mut permissions = Permissions::default();
        for letter in letters.chars() {
            let (_, permission) =
                LETTERS.iter().find(|(known, _)| *known == letter).ok_or_else(error)?;
            permissions = permissions.union(*permission);
        }
        if scheme.is_empty() {
            return Err(error());
        }
        Ok(Acl { permissions, scheme: scheme.into(), id: id.into() })
    }

    /// The text form of a whole list.
    pub fn format_list(list: &[Acl]) -> String {
        list.iter().map(Acl::to_string).collect::<Vec<_>>().join(",")
    }

    /// Reads the record.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Acl, WireError> {
        Ok(Acl {
            permissions: Permissions(decoder.read_int()?),
            scheme: decoder.read_ustring()?.to_string(),
            id: decoder.read_ustring()?.to_string(),
        })
    }

    /// Reads a vector of the record.
    pub fn decode_list(decoder: &mut Decoder<'_>) -> Result<Vec<Acl>, WireError> {
        decoder.read_vector(12, Acl::decode)
    }
}

impl Encode for Acl {
    fn encode(&self, out: &mut BytesMut) {
        out.put_i32(self.permissions.0);
        put_ustring(out, &self.scheme);
        put_ustring(out, &self.id);
    }
}

/// Appends a vector of ACL entries.
pub fn put_acl_list(out: &mut BytesMut, list: &[Acl]) {
    out.put_i32(list.len() as i32);
    for acl in list {
        acl.encode(out);
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.scheme, self.id, self.permissions)
    }
}

/// The digest scheme's id for `user:password`: `user:base64(sha1("user:password"))`.
pub fn digest_id(user_and_password: &str) -> String {
    let user = user_and_password.split_once(':').map_or(user_and_password, |(user, _)| user);
    let hash = Sha1::digest(user_and_password.as_bytes());
    format!("{user}:{}", base64::engine::general_purpose::STANDARD.encode(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_id_matches_the_published_example() {
        // The super user example of ZooKeeper's administrator guide.
        assert_eq!(digest_id("super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
    }

    #[test]
    fn acl_text_round_trips_with_colons_in_the_id() {
        let text = "world:anyone:r,digest:bob:abc=:cdrwa";
        let list = Acl::parse_list(text).unwrap();
        assert_eq!(list[1].id, "bob:abc=");
        assert_eq!(Acl::format_list(&list), text);
        assert!(Acl::parse_list("world:anyone:x").is_err());
        assert!(Acl::parse_list("").is_err());
    }
}
