//! How a connection proves who it is: the schemes `digest` and `ip`, and the superuser. No I/O.

use std::net::IpAddr;

use znodefs::ErrorCode;
use znodefs::acl::digest_id;
use znodefs::wire::response::ClientInfo;

use crate::txn::Identity;

/// The identity that every connection has: its address.
pub fn ip_identity(address: IpAddr) -> Identity {
    Identity { scheme: "ip".into(), id: address.to_canonical().to_string() }
}

/// The identities that an `auth` request proves. A digest always proves itself: that it is known to an
/// ACL is what matters.
pub fn authenticate(
    scheme: &str,
    credential: &[u8],
    peer: IpAddr,
    super_digest: Option<&str>,
) -> Result<Vec<Identity>, ErrorCode> {
    match scheme {
        "ip" => Ok(vec![ip_identity(peer)]),
        "digest" => {
            let id = digest_id(&String::from_utf8_lossy(credential));
            let mut identities = Vec::with_capacity(2);
            if super_digest == Some(id.as_str()) {
                identities.push(Identity { scheme: "super".into(), id: String::new() });
            }
            identities.push(Identity { scheme: "digest".into(), id });
            Ok(identities)
        }
        _ => Err(ErrorCode::AuthFailed),
    }
}

/// An identity as `whoAmI` tells it: without the digest.
pub fn client_info(identity: &Identity) -> ClientInfo {
    let user = match identity.scheme.as_str() {
        "digest" => identity.id.split_once(':').map_or("", |(user, _)| user),
        _ => &identity.id,
    };
    ClientInfo { scheme: identity.scheme.clone(), user: user.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn digest_proves_itself_and_the_configured_one_is_super() {
        let super_digest = Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        let proved = authenticate("digest", b"super:test", PEER, super_digest).unwrap();
        assert_eq!(proved[0].scheme, "super");
        assert_eq!(proved[1].id, "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        let proved = authenticate("digest", b"super:wrong", PEER, super_digest).unwrap();
        assert_eq!(proved.len(), 1);
        assert_eq!(authenticate("digest", b"super:test", PEER, None).unwrap().len(), 1);
    }

    #[test]
    fn unknown_schemes_fail() {
        for scheme in ["world", "sasl", "x509", "auth", ""] {
            let failed = authenticate(scheme, b"a:b", PEER, None).unwrap_err();
            assert_eq!(failed, ErrorCode::AuthFailed);
        }
    }

    #[test]
    fn who_am_i_never_tells_a_digest() {
        let identity = Identity { scheme: "digest".into(), id: "bob:secret=".into() };
        assert_eq!(client_info(&identity).user, "bob");
        assert_eq!(client_info(&ip_identity("::ffff:1.2.3.4".parse().unwrap())).user, "1.2.3.4");
    }
}
