//! Every suffix and every open flag, for each call that creates: what kind of znode it makes, and what the
//! descriptor of a sequential creation reads.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use znodefs::{SessionId, Stat};
use znodefs_tests::{Ensemble, Mount, WireClient, World, on_every_backend, wait_until};

use crate::SOON;

/// What is seen of a znode's kind: the service shows containers and those with a time to live as it shows
/// persistent ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Persistent,
    Ephemeral,
}

fn kind(stat: &Stat) -> Kind {
    if stat.ephemeral_owner == SessionId(0) { Kind::Persistent } else { Kind::Ephemeral }
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a C string, and a descriptor that was opened is nobody else's.
    let descriptor = unsafe { libc::open(path.as_ptr(), flags, 0o666) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

fn mknod(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a C string.
    match unsafe { libc::mknod(path.as_ptr(), libc::S_IFREG | 0o644, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const CREATE: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;

/// The one znode in `/d`: its name, whether it has data, and its kind; then it is removed.
#[track_caller]
fn take(world: &World, what: &str) -> (String, bool, Kind) {
    let mut client = world.client();
    let names = client.children("/d");
    assert_eq!(names.len(), 1, "{what}: {names:?}");
    let path = format!("/d/{}", names[0]);
    let (data, stat) = client.get(&path).unwrap();
    client.delete(&path).unwrap();
    (names[0].clone(), data.is_some(), kind(&stat))
}

/// How each call makes a name with this suffix; `counted` says that a counter is appended.
#[track_caller]
fn each_call(world: &World, suffix: &str, counted: bool, expected: Kind) {
    let path = world.path(&format!("d/n@{suffix}"));
    let check = |call: &str, has_data: bool| {
        let (name, data, made) = take(world, &format!("{call} {suffix}"));
        let digits = name.strip_prefix('n').unwrap_or("?");
        let is_counter = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
        assert!(if counted { is_counter } else { digits.is_empty() }, "{call}: {name}");
        assert_eq!((data, made), (has_data, expected), "{call} {suffix}");
    };
    std::fs::create_dir(&path).unwrap();
    check("mkdir", false);
    mknod(&path).unwrap();
    check("mknod", true);
    for flags in [CREATE, CREATE & !libc::O_EXCL, libc::O_WRONLY | libc::O_CREAT] {
        let file = open(&path, flags).unwrap();
        check("open", true);
        drop(file);
    }
}

fn every_suffix_makes_its_kind_of_znode_with_every_call(world: &World) {
    world.sh("mkdir d").ok();
    let own = std::process::id();
    for (suffix, counted, expected) in [
        ("eph", false, Kind::Ephemeral),
        ("seq", true, Kind::Persistent),
        ("seq,eph", true, Kind::Ephemeral),
        ("eph,seq", true, Kind::Ephemeral),
        ("container", false, Kind::Persistent),
        (&format!("pid={own}"), false, Kind::Ephemeral),
        (&format!("pid={own},seq"), true, Kind::Ephemeral),
        (&format!("seq,eph,pid={own}"), true, Kind::Ephemeral),
    ] {
        each_call(world, suffix, counted, expected);
    }
    for (suffix, counted) in [("fd", false), ("fd,seq", true), ("seq,eph,fd", true)] {
        let path = world.path(&format!("d/n@{suffix}"));
        assert_eq!(std::fs::create_dir(&path).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(mknod(&path).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let file = open(&path, CREATE).unwrap();
        let (name, data, made) = take(world, suffix);
        assert_eq!((name.len() > 1, data, made), (counted, true, Kind::Ephemeral), "{suffix}");
        drop(file);
    }
}

fn every_open_flag_means_its_suffix_but_only_for_an_exclusive_creation(world: &World) {
    world.sh("mkdir d").ok();
    let path = world.path("d/n");
    let flags = [("eph", libc::O_NOATIME), ("seq", libc::O_NONBLOCK), ("fd", libc::O_ASYNC)];
    for chosen in 0..8 {
        let chosen: Vec<_> =
            (0..3).filter(|bit| chosen >> bit & 1 != 0).map(|at| flags[at]).collect();
        let has = |word: &str| chosen.iter().any(|(name, _)| *name == word);
        let asked = chosen.iter().fold(0, |all, (_, flag)| all | flag);
        let what = format!("{chosen:?}");
        let expected = if has("eph") || has("fd") { Kind::Ephemeral } else { Kind::Persistent };
        // The umask of this process takes some bits away, so O_NONBLOCK counts without reading too.
        for access in [libc::O_RDWR, libc::O_WRONLY, libc::O_RDONLY] {
            let file = open(&path, access | libc::O_CREAT | libc::O_EXCL | asked).unwrap();
            let (name, data, made) = take(world, &what);
            assert_eq!((name.len(), data, made), (if has("seq") { 11 } else { 1 }, true, expected));
            drop(file);
        }
        // touch(1) and others open so without meaning anything by it.
        let file = open(&path, libc::O_WRONLY | libc::O_CREAT | asked).unwrap();
        assert_eq!(take(world, &what), ("n".into(), true, Kind::Persistent), "{what}");
        drop(file);
    }
    let file = open(&world.path("d/n@seq"), CREATE | libc::O_NOATIME).unwrap();
    let (name, _, made) = take(world, "a suffix and a flag");
    assert_eq!((name.len(), made), (11, Kind::Ephemeral));
    drop(file);
    let both = open(&world.path("d/n@container"), CREATE | libc::O_NOATIME).unwrap_err();
    assert_eq!(both.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(world.client().children("/d"), [""; 0]);
}

fn the_name_that_was_made_is_read_back_in_parts_and_from_duplicates(world: &World) {
    world.sh("mkdir d").ok();
    for (name, flags) in [("d/n-@seq", CREATE), ("d/n-", CREATE | libc::O_NONBLOCK)] {
        let mut file = open(&world.path(name), flags).unwrap();
        let mut duplicate = file.try_clone().unwrap();
        let mut part = [0; 5];
        file.read_exact(&mut part).unwrap();
        let mut rest = String::new();
        duplicate.read_to_string(&mut rest).unwrap();
        let made = format!("{}{}", std::str::from_utf8(&part).unwrap(), rest);
        let znode = format!("/d/{}", made.strip_suffix('\n').expect("a line"));
        assert_eq!(world.client().data(&znode).as_deref(), Some(&b""[..]), "{znode}");
        assert_eq!(file.read(&mut part).unwrap(), 0, "the end, for both");
        // What is written, through either, starts the value.
        duplicate.write_all(b"one ").unwrap();
        file.write_all(b"two").unwrap();
        drop((file, duplicate));
        assert_eq!(world.client().data(&znode).as_deref(), Some(&b"one two"[..]));
    }
    let mut unread = open(&world.path("d/n-@seq"), CREATE).unwrap();
    unread.write_all(b"value").unwrap();
    drop(unread);
    let mut client = world.client();
    let values = client.children("/d").into_iter().map(|name| client.data(&format!("/d/{name}")));
    assert!(values.flatten().any(|value| &*value == b"value"));
}

fn an_inherited_descriptor_reads_the_name_on(world: &World) {
    let script = "
import os, subprocess
os.mkdir('d'); os.chdir('d')
f = os.open('n-@seq', os.O_RDWR | os.O_CREAT | os.O_EXCL)
child = os.fork()
if child == 0:
    print('child', os.read(f, 4), flush=True); os._exit(0)
os.waitpid(child, 0)
print('parent', os.read(f, 100), flush=True)
subprocess.run(['sh', '-c', f'echo value >&{f}'], pass_fds=[f], check=True)
os.fsync(f)
for call in (lambda: os.lseek(f, 0, 0), lambda: os.pread(f, 1, 0)):
    try: print('no error', call())
    except OSError as error: print(error.errno == 29)
os.close(f)
print(open(os.listdir('.')[0]).read(), end='')";
    let ran = world
        .mount
        .shell()
        .run(std::process::Command::new("/usr/bin/python3").args(["-c", script]));
    let said = ran.ok();
    assert_eq!(said, "child b'n-00'\nparent b'00000000\\n'\nTrue\nTrue\nvalue\n", "{said}");
}

on_every_backend!(
    every_suffix_makes_its_kind_of_znode_with_every_call,
    every_open_flag_means_its_suffix_but_only_for_an_exclusive_creation,
    the_name_that_was_made_is_read_back_in_parts_and_from_duplicates,
    an_inherited_descriptor_reads_the_name_on,
);

#[test]
fn containers_and_times_to_live_end_as_the_service_has_it() {
    let settings = "znode.container.checkIntervalMs=50\nextendedTypesEnabled=true\n";
    let ensemble = Ensemble::start_with(1, 0, settings);
    let mount = Mount::of(&ensemble.address(1), &[]);
    mount.sh("mkdir c@container t@ttl=200ms long@ttl=1h; touch f@ttl=200ms s-@ttl=200ms,seq").ok();
    let mut client = WireClient::connect(&ensemble.address(1));
    for ended in ["/t", "/f", "/s-0000000003"] {
        wait_until(ended, SOON, || client.stat(ended).is_none());
    }
    mount.sh("[ -d c ] && touch c/child && rm c/child").ok();
    wait_until("the container is gone", SOON, || client.stat("/c").is_none());
    assert_eq!(mount.sh("ls").ok(), "long\nzookeeper\n");
}
