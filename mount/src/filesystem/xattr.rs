//! Extended attributes: the rest of a znode's stat, and its ACL in zkCli's syntax.

use std::ffi::OsStr;

use fuser::Errno;
use znodefs::{Acl, Stat};

use super::create::told;
use super::{Filesystem, status};
use crate::caller::Caller;

/// Why a well-formed ACL is refused.
const UNKNOWN_TO_SERVERS: &str = "the servers refuse it: a scheme that they do not know, an id that is none in \
    its scheme (a digest's is USER:HASH, see `znode acl --help`), or auth without credentials";

/// What stands before each name.
const PREFIX: &str = "user.znode.";

/// The only attribute that can be set.
const ACL: &str = "acl";

/// What an attribute's name shows of a stat, as text.
fn of_stat(name: &str, stat: &Stat) -> Option<String> {
    Some(match name {
        "ctime" => stat.ctime.to_string(),
        "version" => stat.version.to_string(),
        "cversion" => stat.cversion.to_string(),
        "aversion" => stat.aversion.to_string(),
        "czxid" => stat.czxid.to_string(),
        "mzxid" => stat.mzxid.to_string(),
        "pzxid" => stat.pzxid.to_string(),
        "ephemeral_owner" => stat.ephemeral_owner.to_string(),
        _ => return None,
    })
}

/// Every attribute of every znode.
const NAMES: [&str; 9] =
    ["ctime", "version", "cversion", "aversion", "czxid", "mzxid", "pzxid", "ephemeral_owner", ACL];

impl Filesystem {
    /// Whether an attribute may exist at all. The kernel and ls ask for many that never do, which
    /// needs no server.
    pub fn may_have_xattr(number: u64, name: &OsStr) -> bool {
        !status::is_status(number) && own_name(name).is_some_and(|name| NAMES.contains(&name))
    }

    /// `GETXATTR`: the value as text.
    pub async fn getxattr(&self, number: u64, name: &OsStr) -> Result<String, Errno> {
        if !Filesystem::may_have_xattr(number, name) {
            return Err(Errno::ENODATA);
        }
        self.getattr(number).await?;
        let znode = self.inode(number)?.znode;
        match own_name(name) {
            Some(ACL) => Ok(Acl::format_list(&znode.acl)),
            Some(name) => of_stat(name, &znode.stat).ok_or(Errno::ENODATA),
            None => Err(Errno::ENODATA),
        }
    }

    /// `LISTXATTR`: the names, each ended by a zero byte.
    pub fn listxattr(&self, number: u64) -> Vec<u8> {
        if status::is_status(number) {
            return Vec::new();
        }
        NAMES.iter().flat_map(|name| format!("{PREFIX}{name}\0").into_bytes()).collect()
    }

    /// `SETXATTR`: only the ACL can be set. Everything else is not supported, which is what cp -a
    /// takes for an answer.
    pub async fn setxattr(
        &self,
        caller: Caller,
        number: u64,
        name: &OsStr,
        value: &[u8],
    ) -> Result<(), Errno> {
        if status::is_status(number) || own_name(name) != Some(ACL) {
            return Err(Errno::ENOTSUP);
        }
        self.check_writable()?;
        if !self.is_owner(caller) {
            return Err(Errno::EPERM);
        }
        let inode = self.live_inode(number)?;
        let refused = |reason: &dyn std::fmt::Display| {
            told(&inode.path, &format!("user.znode.acl: {reason}"));
            Errno::EINVAL
        };
        let text = std::str::from_utf8(value).map_err(|_| refused(&"not UTF-8"))?;
        let acl = Acl::parse_list(text.trim()).map_err(|error| refused(&error))?;
        // Any version: the text replaces whatever is there. Twice does no harm.
        loop {
            match self.set_acl(&inode, acl.clone(), -1).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Errno::EINVAL) => return Err(refused(&UNKNOWN_TO_SERVERS)),
                Err(error) => return Err(error),
            }
        }
    }

    /// `REMOVEXATTR`: none can be removed.
    pub fn removexattr(&self, number: u64, name: &OsStr) -> Errno {
        if Filesystem::may_have_xattr(number, name) { Errno::ENOTSUP } else { Errno::ENODATA }
    }
}

fn own_name(name: &OsStr) -> Option<&str> {
    name.to_str()?.strip_prefix(PREFIX)
}
