//! The `-o` options of a mount: what is understood, what is accepted and left alone, what is
//! refused.
//!
//! Pure: text in, [`Options`] out; account names are looked up through [`Accounts`]. Whether a file
//! named here exists, or a mountpoint will take the mount, is not decided here.

use std::path::PathBuf;
use std::time::Duration;

/// How long a mount waits for the first server to answer when `connect_timeout` is not given.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The session timeout that is asked of the server when `timeout` is not given.
pub const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest time an option may name: a day. Longer is surely milliseconds given as seconds.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Who besides the mounting user may enter the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Only the user that mounted (the kernel's default for FUSE).
    #[default]
    Owner,
    /// That user and root (`allow_root`).
    OwnerAndRoot,
    /// Everybody, as the permission bits say (`allow_other`).
    Everyone,
}

/// Every option that changes what a mount does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `ro`: the mount's handlers refuse every change with EROFS.
    pub read_only: bool,
    /// `allow_other`, `allow_root`.
    pub access: Access,
    /// `uid=`: the reported owner; the mounting user's when absent.
    pub uid: Option<u32>,
    /// `gid=`: the reported group; the mounting user's when absent.
    pub gid: Option<u32>,
    /// `umask=`: permission bits that are taken away from what is reported (0 to 0o777).
    pub umask: Option<u32>,
    /// `fsname=`: the source shown in /proc/mounts; the server list when absent.
    pub fsname: Option<String>,
    /// `subtype=`: the type shown in /proc/mounts is `fuse.` and this.
    pub subtype: String,
    /// `nonempty`: mount over a directory that has entries.
    pub allow_nonempty: bool,
    /// `strict_chmod`: EPERM for a chmod that cannot be kept.
    pub strict_chmod: bool,
    /// `noexec`: the kernel refuses to run programs from the mount.
    pub no_exec: bool,
    /// `timeout=`, `session_timeout=`: the session timeout asked of the server.
    pub session_timeout: Duration,
    /// `connect_timeout=`: how long to wait for the first server to answer.
    pub connect_timeout: Duration,
    /// `credentials=`: a file of `digest:user:password` lines.
    pub credentials: Option<PathBuf>,
    /// `log=`: where log lines go instead of standard error or syslog.
    pub log_file: Option<PathBuf>,
    /// `nocache`: nothing that servers have answered is kept.
    pub no_cache: bool,
    /// `cache_size=`: how many bytes of values the mount keeps at most; its default when absent.
    pub cache_size: Option<usize>,
    /// `debug`: log every decision.
    pub debug: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            read_only: false,
            access: Access::default(),
            uid: None,
            gid: None,
            umask: None,
            fsname: None,
            subtype: String::from("znodefs"),
            allow_nonempty: false,
            strict_chmod: false,
            no_exec: false,
            session_timeout: SESSION_TIMEOUT_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            credentials: None,
            log_file: None,
            no_cache: false,
            cache_size: None,
            debug: false,
        }
    }
}

/// Turns account names into numbers; the tests have their own.
pub trait Accounts {
    /// The user id of `name`, when there is such a user.
    fn uid(&self, name: &str) -> Option<u32>;
    /// The group id of `name`, when there is such a group.
    fn gid(&self, name: &str) -> Option<u32>;
}

/// The system's own user and group database.
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn uid(&self, name: &str) -> Option<u32> {
        let user = nix::unistd::User::from_name(name).ok()??;
        Some(user.uid.as_raw())
    }

    fn gid(&self, name: &str) -> Option<u32> {
        let group = nix::unistd::Group::from_name(name).ok()??;
        Some(group.gid.as_raw())
    }
}

/// Why an option list was refused. Each message names the option and the way out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionError {
    /// Not one of ours, and not one that every mount accepts.
    #[error("unknown mount option {name:?}{}", suggestion(.nearest))]
    Unknown {
        /// The option as it was written.
        name: String,
        /// Known options that look like it.
        nearest: Vec<&'static str>,
    },
    /// `uid=` without a value.
    #[error("mount option {name} needs a value: {name}={example}")]
    ValueMissing {
        /// The option's usual spelling.
        name: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// `ro=yes`.
    #[error("mount option {name} takes no value, but was given {value:?}: write {name} alone")]
    ValueUnexpected {
        /// The option's usual spelling.
        name: &'static str,
        /// What stood after the equals sign.
        value: String,
    },
    /// A value that cannot be read.
    #[error("mount option {name}={value}: {reason}")]
    BadValue {
        /// The option's usual spelling.
        name: &'static str,
        /// What stood after the equals sign.
        value: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// An option that asks for something a mount of this kind cannot do.
    #[error("mount option {name} is not possible here: {reason}")]
    Refused {
        /// The option's usual spelling.
        name: &'static str,
        /// Why, and what to do instead.
        reason: &'static str,
    },
}

fn suggestion(nearest: &[&str]) -> String {
    match nearest {
        [] => String::from(" (znode-mount --help lists the options)"),
        [only] => format!(": did you mean {only}?"),
        [first, rest @ ..] => format!(": did you mean {first} or {}?", rest.join(" or ")),
    }
}

/// Options with an effect, in the order of the help; the source of suggestions too.
const KNOWN: &[&str] = &[
    "ro",
    "rw",
    "allow_other",
    "allow_root",
    "default_permissions",
    "uid",
    "gid",
    "umask",
    "auto_unmount",
    "fsname",
    "subtype",
    "nonempty",
    "strict_chmod",
    "timeout",
    "session_timeout",
    "connect_timeout",
    "credentials",
    "log",
    "noexec",
    "nocache",
    "cache_size",
    "debug",
];

/// Options that mount(8), fstab and libfuse users write and that change nothing here: they belong
/// to mount(8) or systemd, are what this mount does anyway (`nosuid`, `nodev`, `direct_io`), or
/// tune a cache it does not have.
const IGNORED: &[&str] = &[
    "_netdev",
    "async",
    "atime",
    "attr_timeout",
    "auto",
    "auto_cache",
    "big_writes",
    "blksize",
    "comment",
    "defaults",
    "dev",
    "diratime",
    "direct_io",
    "dirsync",
    "entry_timeout",
    "exec",
    "group",
    "hard_remove",
    "intr",
    "iversion",
    "kernel_cache",
    "large_read",
    "lazytime",
    "loud",
    "max_background",
    "max_read",
    "max_readahead",
    "max_write",
    "negative_timeout",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "owner",
    "readdir_ino",
    "relatime",
    "silent",
    "strictatime",
    "suid",
    "sync",
    "use_ino",
    "user",
    "users",
];

impl Options {
    /// Adds one `-o` argument: options separated by commas, a comma inside a value written `\,`.
    ///
    /// Later options win over earlier ones. `_` and `-` in names are alike.
    ///
    /// # Errors
    /// The first option that is unknown or has a value that cannot be read.
    pub fn add(&mut self, list: &str, accounts: &dyn Accounts) -> Result<(), OptionError> {
        for item in split_list(list) {
            if !item.is_empty() {
                self.add_one(&item, accounts)?;
            }
        }
        Ok(())
    }

    /// As [`Options::add`]; when `sloppy`, an option that nobody knows is passed over (`mount -s`).
    ///
    /// # Errors
    /// As [`Options::add`], but for unknown options when `sloppy`.
    pub fn add_sloppy(
        &mut self,
        list: &str,
        sloppy: bool,
        accounts: &dyn Accounts,
    ) -> Result<(), OptionError> {
        for item in split_list(list) {
            match self.add(&item.replace(',', "\\,"), accounts) {
                Err(OptionError::Unknown { .. }) if sloppy => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn add_one(&mut self, item: &str, accounts: &dyn Accounts) -> Result<(), OptionError> {
        let (written, value) = match item.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (item, None),
        };
        let name = written.trim().to_ascii_lowercase().replace('-', "_");
        // fstab's extension space: x-systemd.automount, X-mount.mkdir and the like are for others
        // to act on.
        if name.starts_with("x_") || IGNORED.contains(&name.as_str()) {
            return Ok(());
        }
        let Some(&known) = KNOWN.iter().find(|known| **known == name) else {
            return Err(refused_or_unknown(&name, written));
        };
        match value {
            Some(value) => self.set_value(known, value, accounts),
            None => self.set_flag(known),
        }
    }

    fn set_flag(&mut self, name: &'static str) -> Result<(), OptionError> {
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.access = Access::Everyone,
            "allow_root" => self.access = Access::OwnerAndRoot,
            // The handlers always check permissions; the kernel's own check would stand in the way
            // of replayed events, so it is never asked for. A guard process always unmounts after a
            // crash.
            "default_permissions" | "auto_unmount" => {}
            "nonempty" => self.allow_nonempty = true,
            "strict_chmod" => self.strict_chmod = true,
            "noexec" => self.no_exec = true,
            "nocache" => self.no_cache = true,
            "debug" => self.debug = true,
            _ => return Err(OptionError::ValueMissing { name, example: example_of(name) }),
        }
        Ok(())
    }

    fn set_value(
        &mut self,
        name: &'static str,
        value: &str,
        accounts: &dyn Accounts,
    ) -> Result<(), OptionError> {
        let bad = |reason: String| OptionError::BadValue { name, value: value.to_owned(), reason };
        if value.is_empty() {
            return Err(OptionError::ValueMissing { name, example: example_of(name) });
        }
        match name {
            "uid" => {
                let uid = account(value, |user| accounts.uid(user));
                self.uid = Some(uid.ok_or_else(|| bad(String::from("there is no such user")))?);
            }
            "gid" => {
                let gid = account(value, |group| accounts.gid(group));
                self.gid = Some(gid.ok_or_else(|| bad(String::from("there is no such group")))?);
            }
            "umask" => self.umask = Some(octal_mask(value).map_err(bad)?),
            "fsname" => self.fsname = Some(one_line(value).map_err(bad)?),
            "subtype" => self.subtype = type_name(value).map_err(bad)?,
            "timeout" | "session_timeout" => self.session_timeout = seconds(value).map_err(bad)?,
            "connect_timeout" => self.connect_timeout = seconds(value).map_err(bad)?,
            "credentials" => self.credentials = Some(PathBuf::from(value)),
            "cache_size" => self.cache_size = Some(bytes(value).map_err(bad)?),
            "log" => self.log_file = Some(PathBuf::from(value)),
            _ => return Err(OptionError::ValueUnexpected { name, value: value.to_owned() }),
        }
        Ok(())
    }
}

fn refused_or_unknown(name: &str, written: &str) -> OptionError {
    match name {
        "remount" => OptionError::Refused {
            name: "remount",
            reason: "unmount it and mount it again with the new options",
        },
        "bind" | "rbind" | "move" => OptionError::Refused {
            name: "bind",
            reason: "that is for mount --bind on a mount that exists already",
        },
        _ => OptionError::Unknown { name: written.to_owned(), nearest: nearest(name) },
    }
}

/// Up to two known names within a third of the letters, nearest first.
fn nearest(name: &str) -> Vec<&'static str> {
    let mut candidates: Vec<(usize, &'static str)> = KNOWN
        .iter()
        .chain(IGNORED)
        .map(|known| (strsim::damerau_levenshtein(name, known), *known))
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3).min(3) && *distance < 4)
        .filter(|(distance, known)| *distance < known.len())
        .collect();
    candidates.sort_unstable();
    candidates.into_iter().take(2).map(|(_, known)| known).collect()
}

fn example_of(name: &str) -> &'static str {
    match name {
        "uid" | "gid" => "1000",
        "umask" => "022",
        "fsname" => "tree",
        "subtype" => "znodefs",
        "credentials" => "/etc/znodefs/credentials",
        "cache_size" => "64M",
        "log" => "/var/log/znode-mount.log",
        _ => "30",
    }
}

fn split_list(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        let last = items.len() - 1;
        match character {
            '\\' if characters.peek() == Some(&',') => {
                characters.next();
                items[last].push(',');
            }
            ',' => items.push(String::new()),
            other => items[last].push(other),
        }
    }
    items
}

/// A number stands for itself (but u32::MAX is the kernel's "no change"), anything else is a name.
fn account(value: &str, by_name: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    match value.parse::<u32>() {
        Ok(u32::MAX) => None,
        Ok(number) => Some(number),
        Err(_) => by_name(value),
    }
}

fn octal_mask(value: &str) -> Result<u32, String> {
    match u32::from_str_radix(value, 8) {
        Ok(mask) if mask <= 0o777 => Ok(mask),
        _ => Err(String::from("not an octal permission mask from 000 to 777, as in umask=022")),
    }
}

fn one_line(value: &str) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err(String::from("control characters cannot be shown in /proc/mounts"));
    }
    Ok(value.to_owned())
}

fn type_name(value: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if value.chars().all(fits) {
        Ok(value.to_owned())
    } else {
        Err(String::from("a file system type has only letters, digits, _ and -"))
    }
}

/// Seconds, or a number with `ms`, `s`, `m` or `h`; the units that znodes' `@ttl=` takes too.
fn seconds(value: &str) -> Result<Duration, String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds_per_unit = match &value[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let milliseconds =
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(milliseconds_per_unit));
    match milliseconds.map(Duration::from_millis) {
        Some(time) if !time.is_zero() && time <= TIMEOUT_MAX => Ok(time),
        _ => Err(String::from("not a time from 1ms to 24h, as in 30 (seconds), 500ms or 2m")),
    }
}

/// Bytes, or a number with `K`, `M` or `G`.
fn bytes(value: &str) -> Result<usize, String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match value[digits.len()..].to_ascii_uppercase().as_str() {
        "" => Some(1),
        "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        _ => None,
    };
    let size = digits.parse::<usize>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    size.ok_or_else(|| String::from("not a number of bytes, as in 64M, 512K or 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestAccounts;

    impl Accounts for TestAccounts {
        fn uid(&self, name: &str) -> Option<u32> {
            (name == "alice").then_some(1001)
        }

        fn gid(&self, name: &str) -> Option<u32> {
            (name == "staff").then_some(50)
        }
    }

    fn parse(list: &str) -> Result<Options, OptionError> {
        let mut options = Options::default();
        options.add(list, &TestAccounts)?;
        Ok(options)
    }

    fn message(list: &str) -> String {
        parse(list).expect_err(list).to_string()
    }

    #[test]
    fn the_usual_options_take_effect() {
        let options =
            parse("ro,allow_other,uid=alice,gid=50,umask=027,fsname=tree,subtype=zk").unwrap();
        assert!(options.read_only);
        assert_eq!(options.access, Access::Everyone);
        assert_eq!((options.uid, options.gid, options.umask), (Some(1001), Some(50), Some(0o027)));
        assert_eq!(options.fsname.as_deref(), Some("tree"));
        assert_eq!(options.subtype, "zk");
    }

    #[test]
    fn an_empty_list_changes_nothing() {
        assert_eq!(parse("").unwrap(), Options::default());
        assert_eq!(parse(",,").unwrap(), Options::default());
    }

    #[test]
    fn underscore_and_hyphen_are_alike() {
        assert_eq!(parse("allow-root").unwrap().access, Access::OwnerAndRoot);
        assert_eq!(parse("session-timeout=5").unwrap().session_timeout, Duration::from_secs(5));
    }

    #[test]
    fn the_later_option_wins() {
        assert!(!parse("ro,rw").unwrap().read_only);
        assert_eq!(parse("allow_other,allow_root").unwrap().access, Access::OwnerAndRoot);
    }

    #[test]
    fn what_fstab_and_systemd_write_is_accepted_and_changes_nothing() {
        let list = "defaults,_netdev,nofail,noauto,user,users,nouser,x-systemd.automount,\
                    x-systemd.idle-timeout=60,X-mount.mkdir=0755,nosuid,suid,nodev,dev,exec,noatime,\
                    relatime,async,sync,max_read=131072,auto_unmount,default_permissions";
        assert_eq!(parse(list).unwrap(), Options::default());
    }

    #[test]
    fn an_unknown_option_names_the_nearest_known_one() {
        assert_eq!(
            message("alow_other"),
            "unknown mount option \"alow_other\": did you mean allow_other?"
        );
        assert_eq!(
            message("nonemtpy"),
            "unknown mount option \"nonemtpy\": did you mean nonempty?"
        );
        assert_eq!(
            message("zzzzzz"),
            "unknown mount option \"zzzzzz\" (znode-mount --help lists the options)"
        );
    }

    #[test]
    fn values_are_required_where_they_belong_and_refused_elsewhere() {
        assert_eq!(message("uid"), "mount option uid needs a value: uid=1000");
        assert_eq!(message("umask="), "mount option umask needs a value: umask=022");
        assert_eq!(
            message("ro=yes"),
            "mount option ro takes no value, but was given \"yes\": write ro alone"
        );
    }

    #[test]
    fn values_that_cannot_be_read_say_what_would_be_right() {
        assert_eq!(message("uid=nosuch"), "mount option uid=nosuch: there is no such user");
        assert_eq!(
            message("gid=4294967295"),
            "mount option gid=4294967295: there is no such group"
        );
        for list in ["umask=9", "umask=1777", "umask=-1"] {
            assert!(message(list).contains("octal"), "{list}");
        }
        for list in [
            "timeout=0",
            "timeout=abc",
            "timeout=25h",
            "timeout=5d",
            "timeout=99999999999999999999",
        ] {
            assert!(message(list).contains("not a time"), "{list}");
        }
        assert!(message("subtype=a,subtype=a/b").contains("letters"));
        assert!(message("remount").contains("mount it again"));
    }

    #[test]
    fn the_cache_has_a_size_and_can_be_switched_off() {
        assert_eq!(parse("").unwrap().cache_size, None);
        for (text, size) in [("0", 0), ("512K", 512 << 10), ("64m", 64 << 20), ("1G", 1 << 30)] {
            assert_eq!(parse(&format!("cache-size={text}")).unwrap().cache_size, Some(size));
        }
        for text in ["x", "1T", "-1", "99999999999999999999"] {
            let error = parse(&format!("cache_size={text}")).unwrap_err().to_string();
            assert!(error.contains("64M"), "{error}");
        }
        assert!(parse("nocache").unwrap().no_cache && !parse("rw").unwrap().no_cache);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse("timeout=500ms").unwrap().session_timeout, Duration::from_millis(500));
        assert_eq!(parse("connect_timeout=2m").unwrap().connect_timeout, Duration::from_secs(120));
    }

    #[test]
    fn a_comma_can_be_escaped() {
        assert_eq!(parse("fsname=a:1\\,b:2,ro").unwrap().fsname.as_deref(), Some("a:1,b:2"));
    }
}
