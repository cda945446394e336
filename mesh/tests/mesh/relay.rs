//! What a relay gives to those who keep to nothing: raw clients of libp2p's relay protocol.

use std::time::Duration;

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, relay, yamux};

use crate::net;
use crate::peer::{LIMIT, NETWORK, config};
use crate::rogue::{Raw, RawCodec};

const NAME: &str = "relay::a_relay_gives_no_more_places_and_bytes_than_it_has";
const RAW: StreamProtocol = StreamProtocol::new("/raw/1");
/// More than what connections say of themselves, and less than what is sent before anybody reads.
const CIRCUIT: u64 = 64 << 10;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    relayed: relay::client::Behaviour,
    raw: request_response::Behaviour<RawCodec>,
}

struct Client(Swarm<Behaviour>);

impl Client {
    /// One that is connected to the relay, which is one by now.
    async fn start(seed: u8, relay: &Multiaddr) -> Self {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let network = format!("/hypernet/{}/1", NETWORK.to_base32());
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_quic()
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key, relayed| Behaviour {
                identify: identify::Behaviour::new(identify::Config::new(network, key.public())),
                relayed,
                raw: request_response::Behaviour::with_codec(
                    RawCodec,
                    [(RAW, ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        let mut client = Self(swarm);
        client.0.dial(relay.clone()).unwrap();
        client
            .until(|event| match event {
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { info, .. })) => {
                    info.protocols.contains(&relay::HOP_PROTOCOL_NAME).then_some(())
                }
                _ => None,
            })
            .await;
        client
    }

    async fn until<T>(&mut self, mut wanted: impl FnMut(SwarmEvent<BehaviourEvent>) -> Option<T>) -> T {
        tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(found) = wanted(self.0.select_next_some().await) {
                    return found;
                }
            }
        })
        .await
        .expect("the event comes")
    }

    /// Asks for a place at a relay; whether it got one.
    async fn asks(&mut self, relay: &Multiaddr) -> bool {
        self.0.listen_on(relay.clone().with(Protocol::P2pCircuit)).unwrap();
        self.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Relayed(relay::client::Event::ReservationReqAccepted { .. })) => {
                Some(true)
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                assert!(reason.is_err());
                Some(false)
            }
            _ => None,
        })
        .await
    }

    /// Sends so many bytes to a peer; whether there was an answer, before the connection ended.
    async fn sends(&mut self, to: PeerId, bytes: usize) -> bool {
        let id = self.0.behaviour_mut().raw.send_request(&to, Raw::bytes(vec![7; bytes]));
        self.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Raw(Event::Message {
                message: Message::Response { request_id, .. },
                ..
            })) if request_id == id => Some(true),
            SwarmEvent::Behaviour(BehaviourEvent::Raw(Event::OutboundFailure { request_id, .. }))
                if request_id == id =>
            {
                Some(false)
            }
            _ => None,
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_gives_no_more_places_and_bytes_than_it_has() {
    if !net::is_inside(NAME, &(net::WAN.to_owned() + &net::host("relay", "203.0.113.1"))).await {
        return;
    }
    let mut limits = config(1, NETWORK, "/ip4/0.0.0.0/udp/4001/quic-v1", &[]);
    limits.relay.reservations = 2;
    limits.relay.circuit_bytes = CIRCUIT;
    let mut relay = net::start_on("relay", limits).await;
    let at = relay.peer.at("203.0.113.1").await;
    let mut first = Client::start(11, &at).await;
    let mut second = Client::start(12, &at).await;
    let mut third = Client::start(13, &at).await;
    assert!(first.asks(&at).await && second.asks(&at).await);
    assert!(!third.asks(&at).await, "there are two places");
    assert_eq!(relay.peer.mesh.standing().await.unwrap().hosted, 2);

    let to = *first.0.local_peer_id();
    third.0.dial(at.with(Protocol::P2pCircuit).with(Protocol::P2p(to))).unwrap();
    // It answers whatever comes.
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::Behaviour(BehaviourEvent::Raw(Event::Message {
                message: Message::Request { channel, .. },
                ..
            })) = first.0.select_next_some().await
            {
                let _ = first.0.behaviour_mut().raw.send_response(channel, Raw::bytes(vec![1]));
            }
        }
    });
    third
        .until(|event| {
            matches!(event, SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == to).then_some(())
        })
        .await;
    assert!(third.sends(to, 1 << 10).await);
    assert!(!third.sends(to, 3 * CIRCUIT as usize).await, "a circuit ends with its last byte");
}
