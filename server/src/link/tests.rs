//! Links over loopback.

use std::net::Ipv4Addr;

use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::handshake::HandshakeError;
use super::*;
use crate::config::tls::QuorumTlsConfig;
use crate::tls::tests::{self as certificates, Authority, quorum_tls};

const ENSEMBLE: Option<EnsembleId> = Some(EnsembleId([1; 16]));

struct Replica {
    id: ServerId,
    links: LinkSet,
    events: UnboundedReceiver<LinkEvent>,
}

async fn replica(id: u32, ensemble_id: Option<EnsembleId>, waiting_bytes_max: usize) -> Replica {
    replica_with(id, ensemble_id, waiting_bytes_max, None).await
}

async fn replica_with(
    id: u32,
    ensemble_id: Option<EnsembleId>,
    waiting_bytes_max: usize,
    tls: Option<Arc<QuorumTls>>,
) -> Replica {
    let (sender, events) = unbounded_channel();
    let options = LinkOptions {
        own_id: ServerId(id),
        plane: Plane::Quorum,
        waiting_bytes_max,
        frame_length_max: 1 << 20,
        instance: u64::from(id),
        takes_strangers: false,
        tls,
    };
    let sink: LinkSink = Arc::new(move |event| {
        // A test that has ended needs no more events.
        let _ = sender.send(event);
    });
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let links = LinkSet::start(address, options, ensemble_id, sink).unwrap();
    Replica { id: ServerId(id), links, events }
}

fn introduce(replicas: &[&Replica]) {
    let peers: HashMap<_, _> = replicas
        .iter()
        .map(|replica| (replica.id, vec![replica.links.listening().first().to_string()]))
        .collect();
    replicas.iter().for_each(|replica| replica.links.set_peers(peers.clone()));
}

impl Replica {
    async fn next(&mut self) -> LinkEvent {
        let next = self.events.recv();
        tokio::time::timeout(Duration::from_secs(20), next).await.unwrap().unwrap()
    }

    async fn connected(&mut self) {
        assert!(matches!(self.next().await, LinkEvent::Connected { .. }));
    }
}

#[tokio::test]
async fn frames_come_in_order_in_both_directions() {
    let (mut one, mut two) = (replica(1, ENSEMBLE, 1 << 20).await, replica(2, None, 1 << 20).await);
    introduce(&[&one, &two]);
    one.connected().await;
    two.connected().await;
    for number in 0..100u8 {
        assert!(one.links.send(ServerId(2), &[number]));
        assert!(two.links.send(ServerId(1), &[number, number]));
    }
    for number in 0..100u8 {
        let LinkEvent::Message { payload, .. } = two.next().await else { panic!("no message") };
        assert_eq!(payload, [number]);
        let LinkEvent::Message { payload, .. } = one.next().await else { panic!("no message") };
        assert_eq!(payload, [number, number]);
    }
    assert!(!one.links.send(ServerId(3), &[]), "nobody there");
}

#[tokio::test]
async fn a_lost_link_is_told_on_both_sides_and_made_again() {
    let (mut one, mut two) = (replica(1, ENSEMBLE, 1 << 20).await, replica(2, None, 1 << 20).await);
    introduce(&[&one, &two]);
    one.connected().await;
    two.connected().await;
    one.links.disconnect(ServerId(2), "test");
    assert!(matches!(one.next().await, LinkEvent::Lost { reason, .. } if reason == "test"));
    assert!(matches!(two.next().await, LinkEvent::Lost { .. }));
    one.connected().await;
    two.connected().await;
    assert!(two.links.send(ServerId(1), b"again"));
    assert!(matches!(one.next().await, LinkEvent::Message { .. }));
}

/// What each side objects to, in the words that the other side logs.
async fn refusal(own: Hello, theirs: Hello) -> (HandshakeError, HandshakeError) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialler = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        handshake::dial(&mut stream, &theirs).await.unwrap_err()
    };
    let acceptor = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        handshake::accept(&mut stream, &own, |hello| {
            (hello.own_id.0 >= 10).then(|| handshake::not_configured(hello.own_id))
        })
        .await
        .unwrap_err()
    };
    tokio::join!(acceptor, dialler)
}

fn hello(id: u32) -> Hello {
    Hello {
        own_id: ServerId(id),
        plane: Plane::Quorum,
        ensemble_id: ENSEMBLE,
        instance: u64::from(id),
        meant: None,
    }
}

#[tokio::test]
async fn strangers_are_refused_and_told_why() {
    let foreign = Hello { ensemble_id: Some(EnsembleId([2; 16])), ..hello(2) };
    let swapped = Hello { plane: Plane::Election, ..hello(2) };
    let mistaken = Hello { meant: Some(ServerId(3)), ..hello(2) };
    let cases = [
        (foreign, "another ensemble", "ensemble 0202"),
        (swapped, "the wrong port", "ports"),
        (hello(1), "the same id", "two replicas have the id 1"),
        (mistaken, "another one dialled", "replica 1 was reached where replica 3 should be"),
        (hello(77), "not configured", "77 is not in this replica's configuration"),
    ];
    for (theirs, case, words) in cases {
        let (here, there) = refusal(hello(1), theirs).await;
        assert!(here.to_string().contains(words), "{case}: {here}");
        assert!(there.to_string().contains(words), "{case}: {there}");
        assert!(matches!(there, HandshakeError::RefusedByPeer(_)), "{case}");
    }
}

#[tokio::test]
async fn zookeeper_2201_item_32_a_peer_that_does_not_read_costs_bounded_memory_and_then_its_link() {
    let mut one = replica(1, ENSEMBLE, 64 << 10).await;
    let peers = HashMap::from([(ServerId(2), vec![])]);
    one.links.set_peers(peers);
    // A peer that agrees and then never reads.
    let mut stream = TcpStream::connect(one.links.listening().first()).await.unwrap();
    handshake::dial(&mut stream, &hello(2)).await.unwrap();
    one.connected().await;
    let payload = vec![0; 16 << 10];
    // The kernel's buffers take some megabytes first.
    let mut sent = 0;
    while one.links.send(ServerId(2), &payload) {
        sent += 1;
        assert!(sent < 100_000, "no end to what is kept for a peer that does not read");
        tokio::task::yield_now().await;
    }
    let LinkEvent::Lost { reason, .. } = one.next().await else { panic!("link not lost") };
    assert!(reason.contains("too slow"), "{reason}");
}

#[tokio::test]
async fn a_damaged_frame_ends_the_link_and_nothing_else() {
    let mut one = replica(1, ENSEMBLE, 64 << 10).await;
    one.links.set_peers(HashMap::from([(ServerId(2), vec![])]));
    let mut stream = TcpStream::connect(one.links.listening().first()).await.unwrap();
    handshake::dial(&mut stream, &hello(2)).await.unwrap();
    one.connected().await;
    let mut bytes = Vec::new();
    frame::put_frame(&mut bytes, b"proposal");
    *bytes.last_mut().unwrap() ^= 1;
    use tokio::io::AsyncWriteExt;
    stream.write_all(&bytes).await.unwrap();
    let LinkEvent::Lost { reason, .. } = one.next().await else { panic!("link not lost") };
    assert!(reason.contains("checksum"), "{reason}");
    let mut stream = TcpStream::connect(one.links.listening().first()).await.unwrap();
    handshake::dial(&mut stream, &hello(2)).await.unwrap();
    one.connected().await;
}

#[tokio::test]
async fn links_with_tls_carry_frames_of_any_size_in_both_directions() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("one");
    let tls = quorum_tls(directory.path(), &authority, &[&authority], false);
    let mut one = replica_with(1, ENSEMBLE, 4 << 20, Some(Arc::clone(&tls))).await;
    let mut two = replica_with(2, None, 4 << 20, Some(tls)).await;
    introduce(&[&one, &two]);
    one.connected().await;
    two.connected().await;
    for length in [0, 1, 16 << 10, 1 << 20] {
        assert!(one.links.send(ServerId(2), &vec![1; length]));
        assert!(two.links.send(ServerId(1), &vec![2; length]));
        let LinkEvent::Message { payload, .. } = two.next().await else { panic!("no message") };
        assert_eq!(payload, vec![1; length]);
        let LinkEvent::Message { payload, .. } = one.next().await else { panic!("no message") };
        assert_eq!(payload, vec![2; length]);
    }
    one.links.disconnect(ServerId(2), "test");
    assert!(matches!(one.next().await, LinkEvent::Lost { .. }));
    assert!(matches!(two.next().await, LinkEvent::Lost { .. }));
    one.connected().await;
}

/// Why replica 2 with `dialler` gets no link to replica 1 with `acceptor`: what each of them says.
async fn tls_refusal(
    acceptor: Option<Arc<QuorumTls>>,
    dialler: Option<Arc<QuorumTls>>,
) -> (String, String) {
    let endpoint = |id, tls| {
        let options = LinkOptions {
            own_id: ServerId(id),
            plane: Plane::Quorum,
            waiting_bytes_max: 1 << 20,
            frame_length_max: 1 << 20,
            instance: u64::from(id),
            takes_strangers: false,
            tls,
        };
        Endpoint::new(options, ENSEMBLE)
    };
    let (acceptor, dialler) = (endpoint(1, acceptor), endpoint(2, dialler));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = [listener.local_addr().unwrap().to_string()];
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream, |_| None).await.err().expect("a refusal").to_string()
    };
    let dialling = async {
        let error = dialler.dial(ServerId(1), &address).await.err().expect("a refusal");
        assert!(error.is_refusal, "{}", error.reason);
        error.reason
    };
    tokio::join!(accepting, dialling)
}

#[tokio::test]
async fn who_cannot_show_a_trusted_certificate_is_refused_and_both_sides_say_why() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let directories = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [good, foreign, believer, wrong_host] = &directories;
    let good = || Some(quorum_tls(good.path(), &ours, &[&ours], false));
    let foreign = || Some(quorum_tls(foreign.path(), &theirs, &[&theirs], false));
    // Trusts us, and is not trusted.
    let believer = Some(quorum_tls(believer.path(), &theirs, &[&ours, &theirs], false));
    let files =
        certificates::files(wrong_host.path(), &ours.key_store("zoo9.example", |_| {}), &[&ours]);
    let config = QuorumTlsConfig { files, dials: true, takes_plain: false };
    let wrong_host = Some(QuorumTls::load(&config).unwrap());
    let cases = [
        ("foreign dialler", good(), foreign(), "does not trust the authority", "not signed by"),
        ("untrusted dialler", good(), believer, "not signed by", "does not trust the authority"),
        ("plain dialler", good(), None, "speaks no TLS", "demands TLS"),
        ("plain acceptor", None, good(), "speaks TLS", "does not speak TLS"),
        ("another host", wrong_host, good(), "does not accept", "for zoo9.example, not for 127"),
    ];
    for (case, acceptor, dialler, here, there) in cases {
        let (said_here, said_there) = tls_refusal(acceptor, dialler).await;
        assert!(said_here.contains(here), "{case}, acceptor: {said_here}");
        assert!(said_there.contains(there), "{case}, dialler: {said_there}");
    }
}

#[tokio::test]
async fn an_ensemble_goes_over_to_tls_with_unified_ports() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("one");
    let key_store = authority.key_store("127.0.0.1", |_| {});
    let files = certificates::files(directory.path(), &key_store, &[&authority]);
    let tls = |dials| {
        let files = files.clone();
        let config = QuorumTlsConfig { files, dials, takes_plain: true };
        Some(QuorumTls::load(&config).unwrap())
    };
    for dials in [false, true] {
        let mut one = replica_with(1, ENSEMBLE, 1 << 20, tls(true)).await;
        let mut two = replica_with(2, ENSEMBLE, 1 << 20, tls(dials)).await;
        introduce(&[&one, &two]);
        one.connected().await;
        two.connected().await;
    }
}

#[tokio::test]
async fn new_certificates_count_for_the_next_connection_and_useless_ones_are_left() {
    let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = quorum_tls(directories[0].path(), &old, &[&old], true);
    let peer = quorum_tls(directories[1].path(), &new, &[&new], false);
    let (here, _) = tls_refusal(Some(Arc::clone(&tls)), Some(Arc::clone(&peer))).await;
    assert!(here.contains("does not trust"), "{here}");
    // Of no use: the old ones go on.
    let before = Arc::as_ptr(&tls.ends());
    std::fs::write(directories[0].path().join("keyStore"), "rubbish").unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(before, Arc::as_ptr(&tls.ends()));
    // The files of somebody whom the new authority has signed.
    quorum_tls(directories[2].path(), &new, &[&new], false);
    for name in ["trustStore", "keyStore"] {
        std::fs::copy(directories[2].path().join(name), directories[0].path().join(name)).unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while before == Arc::as_ptr(&tls.ends()) {
        assert!(tokio::time::Instant::now() < deadline, "not read again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut one = replica_with(1, ENSEMBLE, 1 << 20, Some(tls)).await;
    let mut two = replica_with(2, ENSEMBLE, 1 << 20, Some(peer)).await;
    introduce(&[&one, &two]);
    one.connected().await;
    two.connected().await;
}
