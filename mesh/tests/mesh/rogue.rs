//! A peer that speaks libp2p but sends whatever bytes it likes on the shard protocol.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use hypernet_core::id::{NetworkId, PeerId};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, Codec, Event, Message, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder};

#[derive(Clone)]
struct RawCodec {
    bytes: Vec<u8>,
}

impl Codec for RawCodec {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = ();

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()> {
        io.read(&mut [0; 1]).await.map(|_| ())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()> {
        io.read(&mut [0; 1]).await.map(|_| ())
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        (): (),
    ) -> io::Result<()> {
        io.write_all(&self.bytes).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        (): (),
    ) -> io::Result<()> {
        io.write_all(&self.bytes).await
    }
}

/// See the module.
pub(crate) struct Rogue {
    swarm: Swarm<request_response::Behaviour<RawCodec>>,
    id: PeerId,
}

impl Rogue {
    /// One that sends `bytes` for every message.
    pub(crate) fn start(seed: u8, network: NetworkId, bytes: Vec<u8>) -> Self {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let id = PeerId(key.public().try_into_ed25519().unwrap().to_bytes());
        let name = format!("/hypernet/{}/shard/1", network.to_base32());
        let protocol = StreamProtocol::try_from_owned(name).unwrap();
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_quic()
            .with_behaviour(|_| {
                let config = request_response::Config::default();
                request_response::Behaviour::with_codec(RawCodec { bytes }, [(protocol, ProtocolSupport::Full)], config)
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(60)))
            .build();
        Self { swarm, id }
    }

    /// Who it is.
    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    /// Listens; where.
    pub(crate) async fn listen(&mut self) -> Multiaddr {
        self.swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = self.swarm.select_next_some().await {
                return address.with_p2p(*self.swarm.local_peer_id()).unwrap();
            }
        }
    }

    /// Sends its bytes as a request, until it is dropped.
    pub(crate) async fn ask(mut self, addr: Multiaddr) {
        self.swarm.dial(addr).unwrap();
        loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } = self.swarm.select_next_some().await {
                self.swarm.behaviour_mut().send_request(&peer_id, ());
            }
        }
    }

    /// Sends its bytes as the answer to everything, until it is dropped.
    pub(crate) async fn answer(mut self) {
        loop {
            if let SwarmEvent::Behaviour(Event::Message { message: Message::Request { channel, .. }, .. }) =
                self.swarm.select_next_some().await
            {
                let _ = self.swarm.behaviour_mut().send_response(channel, ());
            }
        }
    }
}
