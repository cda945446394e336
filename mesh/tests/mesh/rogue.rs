//! A peer that speaks libp2p but keeps to nothing above it: it sends whatever bytes it likes on the protocols of a mesh,
//! and says what it likes about records and peers.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use hypernet_core::id::{NetworkId, PeerId, RecordKey};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, RecordStore};
use libp2p::kad::{self, GetProvidersOk, QueryResult, Quorum, Record};
use libp2p::request_response::{self, Codec, Event, Message, OutboundFailure, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};

/// No answer of interest is longer.
const ANSWER_MAX: u64 = 64 << 10;
/// Larger than what meshes take, so that it can send that.
const KAD_PACKET: usize = 1 << 20;

/// What it sends on a stream.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    bytes: Vec<u8>,
    /// Leaves the stream open and silent instead of ending it.
    hold: bool,
}

impl Raw {
    /// These bytes, and the end.
    pub(crate) fn bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, hold: false }
    }

    /// These bytes, and then nothing.
    pub(crate) fn stalled(bytes: Vec<u8>) -> Self {
        Self { bytes, hold: true }
    }

    async fn write<T: AsyncWrite + Unpin + Send>(self, io: &mut T) -> io::Result<()> {
        io.write_all(&self.bytes).await?;
        io.flush().await?;
        if self.hold {
            futures::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Protocol = StreamProtocol;
    type Request = Raw;
    type Response = Raw;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Raw> {
        io.read(&mut [0; 1]).await.map(|_| Raw::bytes(Vec::new()))
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Raw> {
        let mut bytes = Vec::new();
        io.take(ANSWER_MAX).read_to_end(&mut bytes).await?;
        Ok(Raw::bytes(bytes))
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        raw: Raw,
    ) -> io::Result<()> {
        raw.write(io).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        raw: Raw,
    ) -> io::Result<()> {
        raw.write(io).await
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    shards: request_response::Behaviour<RawCodec>,
    /// Raw bytes where Kademlia's messages are expected.
    raw_kad: request_response::Behaviour<RawCodec>,
}

/// See the module.
pub(crate) struct Rogue {
    swarm: Swarm<Behaviour>,
    id: PeerId,
    /// What it answers to everything.
    answer: Raw,
    /// Times its Kademlia was asked something.
    asked: usize,
}

/// Where it sends raw bytes.
#[derive(Clone, Copy)]
pub(crate) enum On {
    Shards,
    Kad,
}

impl Rogue {
    /// One that answers every request with `answer`.
    pub(crate) fn start(seed: u8, network: NetworkId, answer: Raw) -> Self {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let (id, me) = (id_of(seed), key.public().to_peer_id());
        let network = network.to_base32();
        let name = |what| StreamProtocol::try_from_owned(format!("/hypernet/{network}/{what}/1")).unwrap();
        let raw = |what, support| {
            let config = request_response::Config::default()
                .with_max_concurrent_streams(1_000)
                .with_request_timeout(Duration::from_secs(60));
            request_response::Behaviour::with_codec(RawCodec, [(name(what), support)], config)
        };
        let mut config = kad::Config::new(name("kad"));
        // It knows whom it was told of, and nobody else.
        config.set_kbucket_inserts(kad::BucketInserts::Manual).set_periodic_bootstrap_interval(None);
        config.set_max_packet_size(KAD_PACKET);
        let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), config);
        kad.set_mode(Some(kad::Mode::Server));
        let identify = identify::Config::new(format!("/hypernet/{network}/1"), key.public());
        let behaviour = Behaviour {
            identify: identify::Behaviour::new(identify.with_cache_size(0)),
            kad,
            shards: raw("shard", ProtocolSupport::Full),
            raw_kad: raw("kad", ProtocolSupport::Outbound),
        };
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_quic()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        Self { swarm, id, answer, asked: 0 }
    }

    /// Who it is.
    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    /// Listens; where.
    pub(crate) async fn listen(&mut self) -> Multiaddr {
        self.swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
        let me = *self.swarm.local_peer_id();
        self.until(|event| match event {
            SwarmEvent::NewListenAddr { address, .. } => Some(address.clone().with_p2p(me).unwrap()),
            _ => None,
        })
        .await
    }

    /// Is connected to a mesh, of which its Kademlia knows then.
    pub(crate) async fn join(&mut self, addr: &Multiaddr) -> libp2p::PeerId {
        let Some(libp2p::multiaddr::Protocol::P2p(peer)) = addr.iter().last() else { panic!("{addr} names no peer") };
        self.swarm.dial(addr.clone()).unwrap();
        self.until(|event| match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => (*peer_id == peer).then_some(()),
            _ => None,
        })
        .await;
        peer
    }

    /// Sends bytes and says what came back.
    pub(crate) async fn ask(&mut self, peer: libp2p::PeerId, on: On, raw: Raw) -> Result<Vec<u8>, OutboundFailure> {
        let behaviour = self.swarm.behaviour_mut();
        let id = match on {
            On::Shards => behaviour.shards.send_request(&peer, raw),
            On::Kad => behaviour.raw_kad.send_request(&peer, raw),
        };
        self.until(|event| match (on, event) {
            (On::Shards, SwarmEvent::Behaviour(BehaviourEvent::Shards(event)))
            | (On::Kad, SwarmEvent::Behaviour(BehaviourEvent::RawKad(event))) => outcome(id, event),
            _ => None,
        })
        .await
    }

    /// Sends bytes and leaves it at that.
    pub(crate) fn send(&mut self, peer: libp2p::PeerId, raw: Raw) {
        self.swarm.behaviour_mut().shards.send_request(&peer, raw);
    }

    /// Puts a record at a mesh; whether it was acknowledged.
    pub(crate) async fn put(&mut self, peer: libp2p::PeerId, key: &[u8], value: Vec<u8>) -> bool {
        let record = Record::new(key.to_vec(), value);
        let query = self.swarm.behaviour_mut().kad.put_record_to(record, [peer].into_iter(), Quorum::One);
        match self.result(query).await {
            QueryResult::PutRecord(put) => put.is_ok(),
            other => panic!("{other:?}"),
        }
    }

    /// Says that it provides what lies under a key, until it is dropped: nobody acknowledges that.
    pub(crate) async fn provide(&mut self, addr: &Multiaddr, key: RecordKey) {
        self.know(addr.clone());
        let query = self.swarm.behaviour_mut().kad.start_providing(kad::RecordKey::new(key.as_bytes())).unwrap();
        assert!(matches!(self.result(query).await, QueryResult::StartProviding(Ok(_))));
        self.until(|_| None::<()>).await;
    }

    /// Who else is said to provide what lies under a key.
    pub(crate) async fn providers(&mut self, addr: &Multiaddr, key: RecordKey) -> usize {
        self.know(addr.clone());
        let query = self.swarm.behaviour_mut().kad.get_providers(kad::RecordKey::new(key.as_bytes()));
        match self.result(query).await {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => providers.len(),
            QueryResult::GetProviders(Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { .. })) => 0,
            other => panic!("{other:?}"),
        }
    }

    /// Names this peer, with `/p2p`, to everyone who asks it for peers.
    pub(crate) fn know(&mut self, addr: Multiaddr) {
        let Some(libp2p::multiaddr::Protocol::P2p(peer)) = addr.iter().last() else { panic!("{addr} names no peer") };
        self.swarm.behaviour_mut().kad.add_address(&peer, addr);
    }

    /// Answers with this record.
    pub(crate) fn serve(&mut self, key: RecordKey, bytes: Vec<u8>) {
        self.swarm.behaviour_mut().kad.store_mut().put(Record::new(key.as_bytes().to_vec(), bytes)).unwrap();
    }

    /// Goes on, until it is dropped.
    pub(crate) async fn run(mut self) {
        self.until(|_| None::<()>).await;
    }

    /// Goes on for as long as this takes. In between it stands still, with open connections, as a process can.
    pub(crate) async fn run_while<T>(&mut self, something: impl Future<Output = T>) -> T {
        tokio::select! {
            done = something => done,
            () = self.until(|_| None::<()>) => unreachable!("it goes on"),
        }
    }

    /// Times that its Kademlia was asked something, as far as it has noticed.
    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    async fn result(&mut self, query: kad::QueryId) -> QueryResult {
        self.until(|event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, .. }))
                if *id == query =>
            {
                Some(result.clone())
            }
            _ => None,
        })
        .await
    }

    async fn until<T>(&mut self, wanted: impl Fn(&SwarmEvent<BehaviourEvent>) -> Option<T>) -> T {
        loop {
            let event = self.swarm.select_next_some().await;
            let asked = matches!(event, SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::InboundRequest { .. })));
            self.asked += usize::from(asked);
            if let Some(found) = wanted(&event) {
                return found;
            }
            if let SwarmEvent::Behaviour(BehaviourEvent::Shards(Event::Message {
                message: Message::Request { channel, .. },
                ..
            })) = event
            {
                let _ = self.swarm.behaviour_mut().shards.send_response(channel, self.answer.clone());
            }
        }
    }
}

/// Who has this seed.
pub(crate) fn id_of(seed: u8) -> PeerId {
    PeerId(Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().try_into_ed25519().unwrap().to_bytes())
}

fn outcome(
    wanted: request_response::OutboundRequestId,
    event: &Event<Raw, Raw>,
) -> Option<Result<Vec<u8>, OutboundFailure>> {
    match event {
        Event::Message { message: Message::Response { request_id, response }, .. } if *request_id == wanted => {
            Some(Ok(response.bytes.clone()))
        }
        Event::OutboundFailure { request_id, error, .. } if *request_id == wanted => {
            Some(Err(OutboundFailure::Io(io::Error::other(error.to_string()))))
        }
        _ => None,
    }
}
