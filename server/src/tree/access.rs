//! Who may do what: matching ACL entries with a connection's identities, and bringing the lists
//! that clients send into the form that is stored (`ZooKeeperServer.checkACL`, `fixupACL`). No I/O.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use znodefs::{Acl, ErrorCode, Permissions};

use crate::txn::Identity;

/// The scheme of the identity that every check lets pass.
pub const SUPER_SCHEME: &str = "super";

/// Whether a list lets one of the identities do any of `wanted`. An empty list lets everybody.
pub fn is_allowed(acl: &[Acl], wanted: Permissions, identities: &[Identity]) -> bool {
    if acl.is_empty() {
        return true;
    }
    let grants = |entry: &Acl| {
        entry.permissions.intersects(wanted)
            && (is_everybody(entry) || identities.iter().any(|identity| matches(entry, identity)))
    };
    acl.iter().any(grants) || identities.iter().any(|identity| identity.scheme == SUPER_SCHEME)
}

/// The same as a result: [`ErrorCode::NoAuth`] when it is not allowed.
pub fn check(acl: &[Acl], wanted: Permissions, identities: &[Identity]) -> Result<(), ErrorCode> {
    if is_allowed(acl, wanted, identities) { Ok(()) } else { Err(ErrorCode::NoAuth) }
}

fn is_everybody(entry: &Acl) -> bool {
    entry.scheme == "world" && entry.id == "anyone"
}

fn matches(entry: &Acl, identity: &Identity) -> bool {
    if entry.scheme != identity.scheme {
        return false;
    }
    match entry.scheme.as_str() {
        "ip" => ip_matches(&entry.id, &identity.id),
        "world" | "auth" => false,
        _ => entry.id == identity.id,
    }
}

/// An address with the number of its leading bits that count.
fn parse_network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) => bits.parse().ok().filter(|&bits| bits <= bits_max)?,
        None => bits_max,
    };
    Some((address, bits))
}

fn ip_matches(network: &str, address: &str) -> bool {
    let (Some((network, bits)), Ok(address)) = (parse_network(network), address.parse()) else {
        return false;
    };
    // Both sides are shifted so that only the leading bits are left; by all of them at once a
    // shift is undefined, and a network of no bits holds every address.
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u32::from(network) ^ u32::from(address)).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (u128::from(network) ^ u128::from(address)).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// How long a list may become by `auth` entries, in bytes: many entries times many identities
/// would be far more than any client sends.
const EXPANDED_LENGTH_MAX: usize = 1 << 20;
/// Longer lists are searched for duplicates with the help of a table.
const SHORT_LIST_LENGTH_MAX: usize = 32;

/// About how many bytes a list takes in a transaction.
pub fn encoded_length(acl: &[Acl]) -> usize {
    acl.iter().map(|entry| 12 + entry.scheme.len() + entry.id.len()).sum()
}

/// The list as it is stored: duplicates dropped, `auth` entries replaced by the identities that the
/// connection has proved. [`ErrorCode::InvalidAcl`] when it is empty, names an unknown scheme or a
/// malformed id, or has an `auth` entry for a connection that has proved nothing.
pub fn fixup_acl(acl: &[Acl], identities: &[Identity]) -> Result<Arc<[Acl]>, ErrorCode> {
    if let [entry] = acl
        && is_everybody(entry)
    {
        return Ok(Arc::new([entry.clone()]));
    }
    let mut fixed = Vec::with_capacity(acl.len());
    let mut seen = HashSet::new();
    for (place, entry) in acl.iter().enumerate() {
        let is_new = match acl.len() > SHORT_LIST_LENGTH_MAX {
            true => seen.insert(entry),
            false => !acl[..place].contains(entry),
        };
        if !is_new {
            continue;
        }
        match entry.scheme.as_str() {
            "auth" => expand_auth(entry, identities, &mut fixed)?,
            _ if is_well_formed(entry) => fixed.push(entry.clone()),
            _ => return Err(ErrorCode::InvalidAcl),
        }
    }
    if fixed.is_empty() {
        return Err(ErrorCode::InvalidAcl);
    }
    Ok(fixed.into())
}

fn expand_auth(
    entry: &Acl,
    identities: &[Identity],
    fixed: &mut Vec<Acl>,
) -> Result<(), ErrorCode> {
    // An address is known of everybody and proves nothing; `super` is no scheme of entries.
    let proved = |identity: &&Identity| !matches!(identity.scheme.as_str(), "ip" | SUPER_SCHEME);
    let before = fixed.len();
    let expanded: usize = identities.iter().map(|one| 12 + one.scheme.len() + one.id.len()).sum();
    if encoded_length(fixed).saturating_add(expanded) > EXPANDED_LENGTH_MAX {
        return Err(ErrorCode::InvalidAcl);
    }
    fixed.extend(identities.iter().filter(proved).map(|identity| Acl {
        permissions: entry.permissions,
        scheme: identity.scheme.clone(),
        id: identity.id.clone(),
    }));
    if fixed.len() == before { Err(ErrorCode::InvalidAcl) } else { Ok(()) }
}

fn is_well_formed(entry: &Acl) -> bool {
    match entry.scheme.as_str() {
        "world" => entry.id == "anyone",
        "ip" => parse_network(&entry.id).is_some(),
        "digest" => entry.id.split_once(':').is_some_and(|(_, hash)| {
            // Exactly one colon, something behind it.
            !hash.is_empty() && !hash.contains(':')
        }),
        _ => false,
    }
}

/// The list as `getACL` shows it to who may not administer the znode: digest ids without the hash.
pub fn mask_digests(acl: &[Acl]) -> Vec<Acl> {
    let mask = |entry: &Acl| match entry.id.split_once(':') {
        Some((user, _)) if entry.scheme == "digest" => {
            Acl { id: format!("{user}:x"), ..entry.clone() }
        }
        _ => entry.clone(),
    };
    acl.iter().map(mask).collect()
}

/// The user's name in an identity, as `whoAmI` shows it: nothing that is secret.
pub fn user_name(identity: &Identity) -> &str {
    match identity.scheme.as_str() {
        SUPER_SCHEME => "",
        "digest" => identity.id.split(':').next().unwrap_or_default(),
        _ => &identity.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(scheme: &str, id: &str) -> Identity {
        Identity { scheme: scheme.into(), id: id.into() }
    }

    fn acl(text: &str) -> Vec<Acl> {
        Acl::parse_list(text).unwrap()
    }

    #[test]
    fn the_first_matching_entry_with_any_wanted_bit_grants() {
        let list = acl("world:anyone:r,digest:bob:hash=:rw");
        let bob = [identity("ip", "10.0.0.1"), identity("digest", "bob:hash=")];
        assert!(is_allowed(&list, Permissions::READ, &[]));
        assert!(!is_allowed(&list, Permissions::WRITE, &[]));
        assert!(is_allowed(&list, Permissions::WRITE, &bob));
        assert!(!is_allowed(&list, Permissions::ADMIN, &bob));
        assert!(is_allowed(&list, Permissions::READ.union(Permissions::ADMIN), &[]));
        assert!(is_allowed(&list, Permissions::ADMIN, &[identity("super", "")]));
        assert!(!is_allowed(&list, Permissions::WRITE, &[identity("digest", "bob:other=")]));
    }

    #[test]
    fn ip_entries_match_by_leading_bits_within_one_address_family() {
        let cases = [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "192.168.1.1", true),
            ("fe80::/10", "fe80::1", true),
            ("fe80::/10", "2001::1", false),
            ("::1", "::1", true),
            ("::/0", "127.0.0.1", false),
        ];
        for (network, address, expected) in cases {
            let list =
                [Acl { permissions: Permissions::READ, scheme: "ip".into(), id: network.into() }];
            let allowed = is_allowed(&list, Permissions::READ, &[identity("ip", address)]);
            assert_eq!(allowed, expected, "{network} {address}");
        }
    }

    #[test]
    fn malformed_lists_are_invalid() {
        let lists = [
            "world:nobody:r",
            "ip:10.0.0.0/33:r",
            "ip:10.0.0:r",
            "ip:fe80::/129:r",
            "digest:bob:r",
            "digest:a:b:c:r",
            "kerberos:bob:r",
            "super::r",
            "auth::r",
        ];
        for text in lists {
            let fixed = fixup_acl(&acl(text), &[identity("ip", "10.0.0.1")]);
            assert_eq!(fixed, Err(ErrorCode::InvalidAcl), "{text}");
        }
        assert_eq!(fixup_acl(&[], &[]), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn auth_expands_to_proved_identities_and_duplicates_go() {
        let identities = [
            identity("ip", "10.0.0.1"),
            identity("super", ""),
            identity("digest", "bob:h="),
            identity("digest", "eve:i="),
        ];
        let fixed = fixup_acl(&acl("auth::rw,auth::rw,world:anyone:r"), &identities).unwrap();
        assert_eq!(Acl::format_list(&fixed), "digest:bob:h=:rw,digest:eve:i=:rw,world:anyone:r");
    }

    #[test]
    fn many_auth_entries_and_many_identities_do_not_multiply_without_end() {
        let id = "x".repeat(1000);
        let identities: Vec<_> =
            (0..100).map(|number| identity("digest", &format!("{number}:{id}"))).collect();
        let entries: Vec<Acl> = (1..1000)
            .map(|bits| Acl {
                permissions: Permissions(bits),
                scheme: "auth".into(),
                id: String::new(),
            })
            .collect();
        assert!(fixup_acl(&entries[..5], &identities).is_ok());
        assert_eq!(fixup_acl(&entries, &identities), Err(ErrorCode::InvalidAcl));
        let mut twice = vec![Acl::world(Permissions::READ); 100];
        twice.push(Acl::world(Permissions::WRITE));
        assert_eq!(fixup_acl(&twice, &[]).unwrap().len(), 2);
    }

    #[test]
    fn masked_lists_keep_users_but_no_hashes() {
        let masked = mask_digests(&acl("digest:bob:hash=:rw,ip:::1:r"));
        assert_eq!(Acl::format_list(&masked), "digest:bob:x:rw,ip:::1:r");
        assert_eq!(user_name(&identity("digest", "bob:hash=")), "bob");
        assert_eq!(user_name(&identity("ip", "::1")), "::1");
    }
}
