//! Permission bits as a view of the ACL: the mount's own identities are the owner class, everybody
//! (`world:anyone`) is the other class, and the group class is shown like the other. No I/O.
//!
//! The servers have the last word on everything; what is decided here is what is shown, and whether
//! other users of the same mount may go through it.

use znodefs::{Acl, Permissions};

/// What the `w` bit stands for, beside the owner's right to change the ACL.
const WRITE: Permissions =
    Permissions(Permissions::WRITE.0 | Permissions::CREATE.0 | Permissions::DELETE.0);

/// What the two classes may do with a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The mount's own identities.
    pub owner: Permissions,
    /// Everybody.
    pub other: Permissions,
}

/// The identities that a session has proved.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    /// Scheme and id, as in an ACL entry.
    proved: Vec<(String, String)>,
}

impl Identities {
    /// The identities with these schemes and ids.
    pub fn new(proved: Vec<(String, String)>) -> Identities {
        Identities { proved }
    }

    /// Whether there are none: the mount cannot give itself more than it gives everybody.
    pub fn is_empty(&self) -> bool {
        self.proved.is_empty()
    }

    fn is_super(&self) -> bool {
        self.proved.iter().any(|(scheme, _)| scheme == "super")
    }

    /// Whether an entry may be ours. Schemes that nothing was proved for (`ip`, …) may be: only the
    /// servers know our address.
    fn may_match(&self, acl: &Acl) -> bool {
        match acl.scheme.as_str() {
            "world" => true,
            "digest" | "sasl" | "x509" => {
                self.proved.iter().any(|(scheme, id)| *scheme == acl.scheme && *id == acl.id)
            }
            _ => true,
        }
    }

    /// What an ACL lets the two classes do.
    pub fn rights(&self, acl: &[Acl]) -> Rights {
        let all_of = |entries: &mut dyn Iterator<Item = &Acl>| {
            entries.fold(Permissions::default(), |all, acl| all.union(acl.permissions))
        };
        let owner = match self.is_super() {
            true => Permissions::ALL,
            false => all_of(&mut acl.iter().filter(|acl| self.may_match(acl))),
        };
        Rights { owner, other: all_of(&mut acl.iter().filter(|acl| acl.scheme == "world")) }
    }

    /// The ACL of a znode that is created with these permission bits. Without identities it is open
    /// to everybody, the default of every client.
    pub fn acl_of_new(&self, mode: u32) -> Vec<Acl> {
        self.with_mode(&[], mode).unwrap_or_else(Acl::open)
    }

    /// An ACL with more permissions for our own identity, which is among its entries; `None` when it is
    /// not.
    pub fn with_own(&self, acl: &[Acl], more: Permissions) -> Option<Vec<Acl>> {
        let is_ours = |acl: &&mut Acl| {
            self.proved.iter().any(|(scheme, id)| *scheme == acl.scheme && *id == acl.id)
        };
        let mut acl = acl.to_vec();
        let own = acl.iter_mut().find(is_ours)?;
        own.permissions = own.permissions.union(more);
        Some(acl)
    }

    /// An ACL after a chmod: the entries of our own identity and of everybody follow the bits, all
    /// others stay. `None` without identities, or when it stays the same.
    pub fn with_mode(&self, acl: &[Acl], mode: u32) -> Option<Vec<Acl>> {
        let (scheme, id) = self.proved.iter().find(|(scheme, _)| scheme != "super")?;
        let before = self.rights(acl);
        // Whoever changes the ACL can change it back.
        let owner = with_bits(before.owner, mode >> 6).union(Permissions::ADMIN);
        let mut other = with_bits(before.other, mode);
        if !with_bits(Permissions::default(), mode).intersects(Permissions::WRITE) {
            other = Permissions(other.0 & !Permissions::ADMIN.0);
        }
        let is_ours = |acl: &Acl| {
            acl.scheme == "world"
                || self.proved.iter().any(|(scheme, id)| *scheme == acl.scheme && *id == acl.id)
        };
        let mut changed = vec![Acl { permissions: owner, scheme: scheme.clone(), id: id.clone() }];
        if other != Permissions::default() {
            changed.push(Acl::world(other));
        }
        changed.extend(acl.iter().filter(|acl| !is_ours(acl)).cloned());
        (changed != acl).then_some(changed)
    }
}

/// Permissions with the `r` and `w` of one class's three bits.
fn with_bits(permissions: Permissions, bits: u32) -> Permissions {
    let mut permissions = Permissions(permissions.0 & !(Permissions::READ.0 | WRITE.0));
    if bits & 4 != 0 {
        permissions = permissions.union(Permissions::READ);
    }
    if bits & 2 != 0 {
        permissions = permissions.union(WRITE);
    }
    permissions
}

impl Rights {
    /// The permission bits that show these rights. Files are never executable; a directory is
    /// searched by whoever may list it.
    pub fn mode(self, directory: bool) -> u16 {
        let class = |permissions: Permissions| -> u16 {
            let read = permissions.intersects(Permissions::READ);
            let write = if directory {
                permissions.intersects(Permissions::CREATE.union(Permissions::DELETE))
            } else {
                permissions.intersects(Permissions::WRITE)
            };
            u16::from(read) << 2 | u16::from(write) << 1 | u16::from(read && directory)
        };
        let (owner, other) = (class(self.owner), class(self.other));
        owner << 6 | other << 3 | other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bob() -> Identities {
        Identities::new(vec![("digest".into(), "bob:x=".into())])
    }

    fn acl(text: &str) -> Vec<Acl> {
        Acl::parse_list(text).unwrap()
    }

    #[test]
    fn an_open_acl_shows_as_open_to_all() {
        let rights = Identities::default().rights(&Acl::open());
        assert_eq!(rights.mode(false), 0o666);
        assert_eq!(rights.mode(true), 0o777);
    }

    #[test]
    fn own_identity_is_the_owner_and_everybody_the_other() {
        let list = acl("world:anyone:r,digest:bob:x=:cdrwa,digest:eve:y=:cdrwa");
        assert_eq!(bob().rights(&list).mode(false), 0o644);
        assert_eq!(bob().rights(&list).mode(true), 0o755);
        assert_eq!(Identities::default().rights(&list).mode(false), 0o444);
        let ours_alone = acl("digest:bob:x=:r");
        assert_eq!(bob().rights(&ours_alone).mode(false), 0o400);
        assert_eq!(Identities::default().rights(&ours_alone).mode(false), 0);
    }

    #[test]
    fn what_only_servers_can_judge_counts_as_ours() {
        assert_eq!(Identities::default().rights(&acl("ip:10.0.0.0/8:rw")).mode(false), 0o600);
        let root = Identities::new(vec![("super".into(), "".into())]);
        assert_eq!(root.rights(&acl("digest:bob:x=:r")).mode(false), 0o600);
    }

    #[test]
    fn chmod_edits_the_two_classes_and_keeps_the_rest() {
        let before = acl("world:anyone:cdrwa,digest:eve:y=:rw");
        let after = bob().with_mode(&before, 0o640).unwrap();
        assert_eq!(Acl::format_list(&after), "digest:bob:x=:cdrwa,digest:eve:y=:rw");
        let after = bob().with_mode(&before, 0o444).unwrap();
        assert_eq!(Acl::format_list(&after), "digest:bob:x=:ra,world:anyone:r,digest:eve:y=:rw");
        let open = acl("digest:bob:x=:cdrwa,world:anyone:cdrwa");
        assert_eq!(bob().with_mode(&open, 0o666), None, "it already is so");
        assert_eq!(Identities::default().with_mode(&open, 0o600), None);
    }

    #[test]
    fn a_new_znode_has_the_mode_asked_for_where_there_is_an_identity() {
        assert_eq!(Identities::default().acl_of_new(0o600), Acl::open());
        assert_eq!(Acl::format_list(&bob().acl_of_new(0o600)), "digest:bob:x=:cdrwa");
        let shared = bob().acl_of_new(0o644);
        assert_eq!(Acl::format_list(&shared), "digest:bob:x=:cdrwa,world:anyone:r");
    }
}
