//! What peers ask of us.
//!
//! Invariant: a peer has at most [`SERVING_PER_PEER`] requests between their arrival and the last byte of their
//! response, all peers together [`MESH_SERVING_MAX`]; whatever exceeds that is answered with busy at once and never
//! reaches the owner.

use hypernet_core::limits::SERVING_PER_PEER;
use hypernet_core::wire::Refusal;
use libp2p::request_response::{self, InboundRequestId, Message, ResponseChannel};

use super::*;
use crate::codec::{Answer, Asked};

struct Served {
    p2p: P2p,
    /// Until it is answered.
    channel: Option<ResponseChannel<Answer>>,
}

#[derive(Default)]
pub(super) struct Serving {
    count: u64,
    open: HashMap<u64, Served>,
    by_request: HashMap<InboundRequestId, u64>,
    per_peer: HashMap<P2p, usize>,
}

impl Driver {
    pub(super) fn on_shards(&mut self, event: request_response::Event<Asked, Answer>) {
        use request_response::Event;
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => match request {
                Asked::Theirs(Ok(request)) => self.on_request(peer, request_id, request, channel),
                Asked::Theirs(Err(reason)) => {
                    self.misbehaved(&peer, reason);
                    self.answer(channel, Response::Refused(Refusal::Invalid));
                }
                // The codec reads only theirs.
                Asked::Ours { .. } => {}
            },
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.confirm(&peer);
                self.on_answer(&peer, request_id, response);
            }
            Event::OutboundFailure { request_id, error, .. } => self.on_unanswered(request_id, &error),
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                self.on_served(&request_id);
            }
        }
    }

    fn on_request(&mut self, p2p: P2p, id: InboundRequestId, request: Request, channel: ResponseChannel<Answer>) {
        // The protocol's name carries the network, so this peer is one of ours even if identify has yet to say so.
        self.confirm(&p2p);
        let Some(peer) = self.peers.get_mut(&p2p) else { return };
        peer.last_used = Instant::now();
        if let Request::Put { body, .. } = &request {
            peer.received += body.len() as u64;
        }
        let peer = peer.id;
        let serving = self.serving.per_peer.entry(p2p).or_default();
        if *serving >= SERVING_PER_PEER || self.serving.open.len() >= MESH_SERVING_MAX || self.outbox.is_full() {
            return self.answer(channel, Response::Refused(Refusal::Busy));
        }
        *serving += 1;
        self.serving.count += 1;
        let inbound = self.serving.count;
        self.serving.open.insert(inbound, Served { p2p, channel: Some(channel) });
        self.serving.by_request.insert(id, inbound);
        self.outbox.tell(MeshEvent::Request { peer, inbound, request });
    }

    pub(super) fn reply(&mut self, inbound: u64, response: Response) {
        let Some(served) = self.serving.open.get_mut(&inbound) else { return };
        let Some(channel) = served.channel.take() else { return };
        if let (Some(peer), Response::Bytes(body)) = (self.peers.get_mut(&served.p2p), &response) {
            peer.sent += body.len() as u64;
        }
        self.answer(channel, response);
    }

    fn answer(&mut self, channel: ResponseChannel<Answer>, response: Response) {
        // When the peer is gone already, libp2p says so in an event of its own.
        let _ = self.swarm.behaviour_mut().shards.send_response(channel, Ok(response));
    }

    /// libp2p is done with an inbound request, well or badly.
    fn on_served(&mut self, id: &InboundRequestId) {
        let Some(inbound) = self.serving.by_request.remove(id) else { return };
        let Some(served) = self.serving.open.remove(&inbound) else { return };
        if let Some(serving) = self.serving.per_peer.get_mut(&served.p2p) {
            *serving -= 1;
            if *serving == 0 {
                self.serving.per_peer.remove(&served.p2p);
            }
        }
    }
}
