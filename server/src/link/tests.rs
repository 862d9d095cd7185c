//! Links over loopback.

use std::net::Ipv4Addr;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::handshake::{HandshakeError, Hello};
use super::*;

const ENSEMBLE: Option<EnsembleId> = Some(EnsembleId([1; 16]));

struct Replica {
    id: ServerId,
    links: LinkSet,
    events: UnboundedReceiver<LinkEvent>,
}

async fn replica(id: u32, ensemble_id: Option<EnsembleId>, waiting_bytes_max: usize) -> Replica {
    let (sender, events) = unbounded_channel();
    let options = LinkOptions {
        own_id: ServerId(id),
        plane: Plane::Quorum,
        waiting_bytes_max,
        frame_length_max: 1 << 20,
    };
    let sink: LinkSink = Arc::new(move |event| {
        // A test that has ended needs no more events.
        let _ = sender.send(event);
    });
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let links = LinkSet::start(address, options, ensemble_id, sink).await.unwrap();
    Replica { id: ServerId(id), links, events }
}

fn introduce(replicas: &[&Replica]) {
    let peers: HashMap<_, _> = replicas
        .iter()
        .map(|replica| (replica.id, vec![replica.links.local_address().to_string()]))
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
async fn refusal(
    own: Hello,
    theirs: Hello,
    expected: ServerId,
) -> (HandshakeError, HandshakeError) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialler = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        handshake::dial(&mut stream, &theirs, expected).await.unwrap_err()
    };
    let acceptor = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        handshake::accept(&mut stream, &own, |peer| peer.0 < 10).await.unwrap_err()
    };
    tokio::join!(acceptor, dialler)
}

fn hello(id: u32) -> Hello {
    Hello { own_id: ServerId(id), plane: Plane::Quorum, ensemble_id: ENSEMBLE }
}

#[tokio::test]
async fn strangers_are_refused_and_told_why() {
    let foreign = Hello { ensemble_id: Some(EnsembleId([2; 16])), ..hello(2) };
    let swapped = Hello { plane: Plane::Election, ..hello(2) };
    let cases = [
        (foreign, "another ensemble", "ensemble 0202"),
        (swapped, "the wrong port", "ports"),
        (hello(1), "the same id", "two replicas have the id 1"),
        (hello(77), "not configured", "77 is not in this replica's configuration"),
    ];
    for (theirs, case, words) in cases {
        let (here, there) = refusal(hello(1), theirs, ServerId(1)).await;
        assert!(here.to_string().contains(words), "{case}: {here}");
        assert!(there.to_string().contains(words), "{case}: {there}");
        assert!(matches!(there, HandshakeError::RefusedByPeer(_)), "{case}");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_bounded_memory_and_then_its_link() {
    let mut one = replica(1, ENSEMBLE, 64 << 10).await;
    let peers = HashMap::from([(ServerId(2), vec![])]);
    one.links.set_peers(peers);
    // A peer that agrees and then never reads.
    let mut stream = TcpStream::connect(one.links.local_address()).await.unwrap();
    handshake::dial(&mut stream, &hello(2), ServerId(1)).await.unwrap();
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
    let mut stream = TcpStream::connect(one.links.local_address()).await.unwrap();
    handshake::dial(&mut stream, &hello(2), ServerId(1)).await.unwrap();
    one.connected().await;
    let mut bytes = Vec::new();
    frame::put_frame(&mut bytes, b"proposal");
    *bytes.last_mut().unwrap() ^= 1;
    use tokio::io::AsyncWriteExt;
    stream.write_all(&bytes).await.unwrap();
    let LinkEvent::Lost { reason, .. } = one.next().await else { panic!("link not lost") };
    assert!(reason.contains("checksum"), "{reason}");
    let mut stream = TcpStream::connect(one.links.local_address()).await.unwrap();
    handshake::dial(&mut stream, &hello(2), ServerId(1)).await.unwrap();
    one.connected().await;
}
