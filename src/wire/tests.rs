//! Properties of every record: what is encoded is decoded, and no bytes whatever make a decoder
//! panic or allocate more than a fixed multiple of the frame.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::request::{CreateRequest, put_request, put_request_below};
use super::response::ClientInfo;
use super::*;
use crate::acl::{Acl, Permissions};
use crate::stat::Stat;
use crate::zxid::{SessionId, Zxid};

/// Counts what the current thread allocates.
struct CountingAllocator;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a plain thread-local
// number without a destructor, so that counting neither allocates nor runs after its thread.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get().saturating_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Bytes that this thread allocates during `action`.
fn allocated_during(action: impl FnOnce()) -> usize {
    let before = ALLOCATED.get();
    action();
    ALLOCATED.get() - before
}

/// How many bytes a decoder may allocate for each of the frame's: the smallest record of a multi
/// has 17 bytes and becomes an operation of somewhat over 100, in a vector that grows by doubling.
const ALLOCATION_FACTOR_MAX: usize = 64;
const ALLOCATION_BASE_MAX: usize = 4096;

const OP_CODES: &[i32] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 100, 101, 102, 103,
    104, 105, 106, 107, -10, -11,
];

fn op_code() -> impl Strategy<Value = OpCode> {
    proptest::sample::select(OP_CODES).prop_map(|code| OpCode::from_code(code).unwrap())
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    option::of(vec(any::<u8>(), 0..40).prop_map(Bytes::from))
}

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn acl() -> impl Strategy<Value = Vec<Acl>> {
    let entry = (any::<i32>(), text(), text()).prop_map(|(permissions, scheme, id)| Acl {
        permissions: Permissions(permissions),
        scheme,
        id,
    });
    vec(entry, 0..4)
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(longs, ints)| Stat {
        czxid: Zxid(longs[0]),
        mzxid: Zxid(longs[1]),
        ctime: longs[2],
        mtime: longs[3],
        version: ints[0],
        cversion: ints[1],
        aversion: ints[2],
        ephemeral_owner: SessionId(longs[4]),
        data_length: ints[3],
        num_children: ints[4],
        pzxid: Zxid(longs[5]),
    })
}

/// The parts that requests are made of, owned.
#[derive(Clone, Debug)]
struct Parts {
    path: String,
    data: Option<Bytes>,
    acl: Vec<Acl>,
    number: i32,
    long: i64,
    flag: bool,
    names: Vec<String>,
    inner: Vec<OpCode>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let inner = proptest::sample::select(&[1, 2, 5, 13, 15, 19, 21][..]);
    let inner = vec(inner.prop_map(|code| OpCode::from_code(code).unwrap()), 0..4);
    (text(), data(), acl(), any::<i32>(), any::<i64>(), any::<bool>(), vec(text(), 0..5), inner)
        .prop_map(|(path, data, acl, number, long, flag, names, inner)| Parts {
            path,
            data,
            acl,
            number,
            long,
            flag,
            names,
            inner,
        })
}

/// The request with this opcode; `None` for opcodes that have no record.
fn request(op_code: OpCode, parts: &Parts) -> Option<Request<'_>> {
    let path = parts.path.as_str();
    let Parts { data, acl, number, long, flag, inner, .. } = parts.clone();
    let token = data.clone().unwrap_or_default();
    let sets = || WatchSets {
        relative_zxid: Zxid(long),
        data: parts.names.iter().map(String::as_str).collect(),
        exists: vec![path],
        children: parts.names.iter().skip(1).map(String::as_str).collect(),
        ..WatchSets::default()
    };
    Some(match op_code {
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
            let ttl_ms = if op_code == OpCode::CreateTtl { long } else { 0 };
            Request::Create(CreateRequest { op_code, path, data, acl, flags: number, ttl_ms })
        }
        OpCode::Delete => Request::Delete { path, version: number },
        OpCode::Exists => Request::Exists { path, watch: flag },
        OpCode::GetData => Request::GetData { path, watch: flag },
        OpCode::SetData => Request::SetData { path, data, version: number },
        OpCode::GetAcl => Request::GetAcl { path },
        OpCode::SetAcl => Request::SetAcl { path, acl, version: number },
        OpCode::GetChildren => Request::GetChildren { path, watch: flag },
        OpCode::GetChildren2 => Request::GetChildren2 { path, watch: flag },
        OpCode::Sync => Request::Sync { path },
        OpCode::Ping => Request::Ping,
        OpCode::Check => Request::Check { path, version: number },
        OpCode::Multi => {
            Request::Multi(inner.into_iter().filter_map(|code| request(code, parts)).collect())
        }
        OpCode::MultiRead => Request::MultiRead(vec![
            Request::GetData { path, watch: flag },
            Request::GetChildren { path, watch: flag },
        ]),
        OpCode::Reconfig => Request::Reconfig {
            joining: Some(path),
            leaving: Some(""),
            new_members: flag.then_some(path),
            current_config_id: long,
        },
        OpCode::CheckWatches => Request::CheckWatches { path, watcher_type: number },
        OpCode::RemoveWatches => Request::RemoveWatches { path, watcher_type: number },
        OpCode::AddWatch => Request::AddWatch { path, mode: number },
        OpCode::Auth => Request::Auth { scheme: path, credential: token },
        OpCode::SetWatches => Request::SetWatches(sets()),
        OpCode::SetWatches2 => {
            Request::SetWatches2(WatchSets { persistent: vec!["/", path], ..sets() })
        }
        OpCode::Sasl => Request::Sasl { token },
        OpCode::GetEphemerals => Request::GetEphemerals { prefix_path: path },
        OpCode::GetAllChildrenNumber => Request::GetAllChildrenNumber { path },
        OpCode::WhoAmI => Request::WhoAmI,
        OpCode::CloseSession => Request::CloseSession,
        OpCode::CreateSession | OpCode::DeleteContainer => return None,
    })
}

/// The reply that an opcode is answered with.
fn response(op_code: OpCode, parts: &Parts, stat: Stat) -> Response {
    let Parts { path, data, acl, number, names, inner, .. } = parts.clone();
    match op_code {
        OpCode::Create | OpCode::Sync => Response::Path(path),
        OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
            Response::Created { path, stat }
        }
        OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Response::Stat(stat),
        OpCode::GetData | OpCode::Reconfig => Response::Data { data, stat },
        OpCode::GetAcl => Response::Acl { acl, stat },
        OpCode::GetChildren | OpCode::GetEphemerals => Response::Names(names),
        OpCode::GetChildren2 => Response::Children { names, stat },
        OpCode::Multi | OpCode::MultiRead => {
            let results = inner.iter().map(|code| match parts.flag {
                true => MultiResult::Ok(*code, response(*code, parts, stat)),
                false => MultiResult::Error(number),
            });
            Response::Multi(results.collect())
        }
        OpCode::AddWatch | OpCode::GetAllChildrenNumber => Response::Number(number),
        OpCode::WhoAmI => {
            let identity = |user: String| ClientInfo { scheme: path.clone(), user };
            Response::WhoAmI(names.into_iter().map(identity).collect())
        }
        OpCode::Sasl => Response::Token(data.unwrap_or_default()),
        _ => Response::Empty,
    }
}

fn encoded(record: &impl Encode) -> Bytes {
    let mut out = BytesMut::new();
    record.encode(&mut out);
    out.freeze()
}

/// Runs every decoder over the bytes; the results do not matter.
fn decode_everything(bytes: &Bytes) {
    for &code in OP_CODES {
        let op_code = OpCode::from_code(code).unwrap();
        let _ = Request::decode(op_code, &mut Decoder::new(bytes));
        let _ = Response::decode(op_code, &mut Decoder::new(bytes));
    }
    let _ = ConnectRequest::decode(&mut Decoder::new(bytes));
    let _ = ConnectResponse::decode(&mut Decoder::new(bytes));
    let _ = RequestHeader::decode(&mut Decoder::new(bytes));
    let _ = ReplyHeader::decode(&mut Decoder::new(bytes));
    let _ = WatchedEvent::decode(Zxid(1), &mut Decoder::new(bytes));
    let _ = Stat::decode(&mut Decoder::new(bytes));
    let _ = Acl::decode_list(&mut Decoder::new(bytes));
}

/// Bytes with many fields that look like lengths, counts and opcodes.
fn hostile_bytes() -> impl Strategy<Value = Bytes> {
    let field = prop_oneof![
        any::<i32>().prop_map(|int| int.to_be_bytes().to_vec()),
        (-3..30i32).prop_map(|int| int.to_be_bytes().to_vec()),
        Just(i32::MAX.to_be_bytes().to_vec()),
        vec(any::<u8>(), 0..9),
    ];
    vec(field, 0..30).prop_map(|fields| Bytes::from(fields.concat()))
}

fn assert_allocates_little(bytes: &Bytes, decoders: usize) -> Result<(), TestCaseError> {
    let allocated = allocated_during(|| decode_everything(bytes));
    let most = decoders * (bytes.len() * ALLOCATION_FACTOR_MAX + ALLOCATION_BASE_MAX);
    prop_assert!(allocated <= most, "{allocated} bytes for a frame of {}", bytes.len());
    Ok(())
}

proptest! {
    #[test]
    fn every_request_is_decoded_as_it_was_encoded(op_code in op_code(), parts in parts()) {
        let Some(request) = request(op_code, &parts) else { return Ok(()) };
        let bytes = encoded(&request);
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(Request::decode(op_code, &mut decoder), Ok(request));
        prop_assert_eq!(decoder.remaining(), 0);
    }

    #[test]
    fn every_reply_is_decoded_as_it_was_encoded(
        op_code in op_code(), parts in parts(), stat in stat(),
    ) {
        let response = response(op_code, &parts, stat);
        let bytes = encoded(&response);
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(Response::decode(op_code, &mut decoder), Ok(response));
        prop_assert_eq!(decoder.remaining(), 0);
    }

    #[test]
    fn the_records_that_open_a_connection_are_decoded_as_they_were_encoded(
        longs in any::<[i64; 2]>(), timeout_ms in any::<i32>(), password in data(),
        read_only in option::of(any::<bool>()),
    ) {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(longs[0]),
            timeout_ms,
            session_id: SessionId(longs[1]),
            password: password.clone(),
            read_only,
        };
        let bytes = encoded(&request);
        prop_assert_eq!(ConnectRequest::decode(&mut Decoder::new(&bytes)), Ok(request));
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms,
            session_id: SessionId(longs[1]),
            password: password.unwrap_or_default(),
            read_only,
        };
        let bytes = encoded(&response);
        prop_assert_eq!(ConnectResponse::decode(&mut Decoder::new(&bytes)), Ok(response));
    }

    #[test]
    fn headers_and_events_are_decoded_as_they_were_encoded(
        ints in any::<[i32; 3]>(), zxid in any::<i64>(), path in text(),
    ) {
        let header = RequestHeader { xid: ints[0], op_code: ints[1] };
        let bytes = encoded(&header);
        prop_assert_eq!(RequestHeader::decode(&mut Decoder::new(&bytes)), Ok(header));
        let header = ReplyHeader { xid: ints[0], zxid: Zxid(zxid), error: ints[1] };
        let bytes = encoded(&header);
        prop_assert_eq!(ReplyHeader::decode(&mut Decoder::new(&bytes)), Ok(header));
        let event = WatchedEvent {
            zxid: (zxid > 0).then_some(Zxid(zxid)),
            event_type: EventType::from_code(ints[0]),
            state: KeeperState(ints[1]),
            path,
        };
        let bytes = encoded(&event);
        prop_assert_eq!(WatchedEvent::decode(Zxid(zxid), &mut Decoder::new(&bytes)), Ok(event));
    }

    #[test]
    fn a_chroot_stands_before_every_path(op_code in op_code(), parts in parts()) {
        let parts = Parts { path: format!("/{}", parts.path), ..parts };
        let below = Parts {
            path: if parts.path == "/" { "/root".into() } else { format!("/root{}", parts.path) },
            ..parts.clone()
        };
        // Credentials and members are no paths; watch sets name theirs in full; a sequential
        // creation directly below the root has a path of its own.
        use OpCode::*;
        let is_exempt = matches!(op_code, Auth | Reconfig | SetWatches | SetWatches2);
        prop_assume!(!is_exempt && parts.path != "/");
        let Some(request_below) = request(op_code, &below) else { return Ok(()) };
        let Some(request) = request(op_code, &parts) else { return Ok(()) };
        let (mut expected, mut actual) = (BytesMut::new(), BytesMut::new());
        put_request(&mut expected, 5, &request_below);
        put_request_below(&mut actual, 5, "/root", &request);
        prop_assert_eq!(expected, actual);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic_or_allocate_much(bytes in hostile_bytes()) {
        assert_allocates_little(&bytes, 2 * OP_CODES.len() + 7)?;
    }

    #[test]
    fn no_damage_to_a_record_makes_a_decoder_panic_or_allocate_much(
        op_code in op_code(), parts in parts(), stat in stat(),
        position in any::<proptest::sample::Index>(), value in any::<u8>(),
        length in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = encoded(&response(op_code, &parts, stat)).to_vec();
        if let Some(request) = request(op_code, &parts) {
            bytes.extend_from_slice(&encoded(&request));
        }
        if !bytes.is_empty() {
            let position = position.index(bytes.len());
            bytes[position] = value;
            bytes.truncate(length.index(bytes.len()) + 1);
        }
        assert_allocates_little(&Bytes::from(bytes), 2 * OP_CODES.len() + 7)?;
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut(
        payloads in vec(vec(any::<u8>(), 0..50), 0..6), cuts in vec(1..20usize, 1..30),
    ) {
        let mut sent = BytesMut::new();
        for payload in &payloads {
            put_frame(&mut sent, |out| out.extend_from_slice(payload));
        }
        let (mut input, mut taken) = (BytesMut::new(), Vec::new());
        let mut cuts = cuts.iter().cycle();
        while !sent.is_empty() {
            // The cycle of a list that is not empty never ends.
            let cut = (*cuts.next().unwrap()).min(sent.len());
            input.extend_from_slice(&sent.split_to(cut));
            while let Some(frame) = take_frame(&mut input, 50).unwrap() {
                taken.push(frame.to_vec());
            }
        }
        prop_assert_eq!(taken, payloads);
    }

    #[test]
    fn an_announced_length_alone_makes_nobody_allocate_it(length in 1_000_000..i32::MAX) {
        let mut input = BytesMut::from(&length.to_be_bytes()[..]);
        let allocated = allocated_during(|| drop(take_frame(&mut input, 0xf_ffff)));
        prop_assert!(allocated <= (1 << 21), "{allocated}");
    }
}
