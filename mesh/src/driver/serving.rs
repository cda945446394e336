//! What peers ask of us.
//!
//! Invariant: a peer has at most [`SERVING_PER_PEER`] requests between their arrival and the last byte of their
//! response, all peers together [`MESH_SERVING_MAX`]; the bodies of those responses are bounded by
//! [`MESH_RESPONSES_PER_PEER`] and [`MESH_RESPONSES`], because a peer that asks and does not read leaves them in our
//! memory. Whatever exceeds that is answered with busy at once and never reaches the owner.

use hypernet_core::limits::{MESH_RESPONSES, MESH_RESPONSES_PER_PEER, SERVING_PER_PEER};
use hypernet_core::wire::Refusal;
use libp2p::request_response::{InboundRequestId, Message, ResponseChannel};

use super::*;
use crate::codec::{Answer, Asked};

/// Whoever asks waits no longer than that for the turn of its answer: it has a deadline.
const LONGEST_TURN: Duration = Duration::from_secs(4);

struct Served {
    p2p: P2p,
    /// Of the response's body: what was asked for, then what it is.
    bytes: usize,
    /// Until it is answered.
    channel: Option<ResponseChannel<Answer>>,
    /// Until it has its turn.
    response: Option<Response>,
}

/// What is being done for one peer.
#[derive(Default)]
struct Load {
    requests: usize,
    /// Of the bodies of responses.
    bytes: usize,
}

impl Load {
    /// Whether a body of `more` bytes may be under way too, where those to all peers are `all`.
    ///
    /// A peer may not hold more than what it leaves to everyone else: then a few that do not read what they asked for
    /// cannot keep a newcomer out, at least not from the small reads that somebody waits for.
    fn takes(&self, all: usize, more: usize) -> bool {
        let (mine, all) = (self.bytes + more, all + more);
        more == 0 || mine <= MESH_RESPONSES_PER_PEER && mine <= MESH_RESPONSES.saturating_sub(all)
    }
}

#[derive(Default)]
pub(super) struct Serving {
    count: u64,
    open: HashMap<u64, Served>,
    by_request: HashMap<InboundRequestId, u64>,
    per_peer: HashMap<P2p, Load>,
    /// Bytes of all bodies of responses.
    bytes: usize,
}

impl Serving {
    /// The body of a response is now known to have `bytes`.
    fn resize(&mut self, inbound: u64, bytes: usize) {
        let Some(served) = self.open.get_mut(&inbound) else { return };
        let before = std::mem::replace(&mut served.bytes, bytes);
        self.bytes = self.bytes - before + bytes;
        if let Some(load) = self.per_peer.get_mut(&served.p2p) {
            load.bytes = load.bytes - before + bytes;
        }
    }
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
                Asked::NoRoom => self.turn_away(&peer, channel),
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
            let bytes = body.len();
            self.used(&p2p, bytes);
        }
        let Some(peer) = self.peers.get(&p2p).map(|peer| peer.id) else { return };
        // A Put travels the other way, and its body has its budget in the codec.
        let bytes = if let Request::Get { len, .. } = &request { *len as usize } else { 0 };
        let serving = &mut self.serving;
        let idle = Load::default();
        let load = serving.per_peer.get(&p2p).unwrap_or(&idle);
        if load.requests >= SERVING_PER_PEER
            || serving.open.len() >= MESH_SERVING_MAX
            || !load.takes(serving.bytes, bytes)
            || self.outbox.is_full()
        {
            return self.turn_away(&p2p, channel);
        }
        let load = serving.per_peer.entry(p2p).or_default();
        load.requests += 1;
        load.bytes += bytes;
        serving.bytes += bytes;
        serving.count += 1;
        let inbound = serving.count;
        self.serving.open.insert(inbound, Served { p2p, bytes, channel: Some(channel), response: None });
        self.serving.by_request.insert(id, inbound);
        self.outbox.tell(MeshEvent::Request { peer, inbound, request });
    }

    /// Whether somebody comes back too often is for the owner to say.
    fn turn_away(&mut self, p2p: &P2p, channel: ResponseChannel<Answer>) {
        if let Some(peer) = peer_id::from_libp2p(p2p) {
            self.outbox.tell_if_room(MeshEvent::TurnedAway { peer });
        }
        self.answer(channel, Response::Refused(Refusal::Busy));
    }

    pub(super) fn reply(&mut self, inbound: u64, response: Response) {
        let bytes = if let Response::Bytes(body) = &response { body.len() } else { 0 };
        let Some(served) = self.serving.open.get_mut(&inbound) else { return };
        let now = Instant::now();
        if bytes > 0 && self.up.wait(now) > LONGEST_TURN {
            // It asks somebody else while there is time.
            return self.reply(inbound, Response::Refused(Refusal::Busy));
        }
        let turn = if bytes > 0 { self.up.take(bytes, now) } else { Duration::ZERO };
        served.response = Some(response);
        self.serving.resize(inbound, bytes);
        if turn.is_zero() {
            self.reply_now(inbound);
        } else {
            self.timers.set(now + turn, Timer::PacedReply(inbound));
        }
    }

    /// An answer has its turn.
    pub(super) fn reply_now(&mut self, inbound: u64) {
        let Some(served) = self.serving.open.get_mut(&inbound) else { return };
        let (Some(channel), Some(response)) = (served.channel.take(), served.response.take()) else { return };
        let p2p = served.p2p;
        if let (Some(peer), Response::Bytes(body)) = (self.peers.get_mut(&p2p), &response) {
            peer.sent += body.len() as u64;
            let bytes = body.len();
            self.used(&p2p, bytes);
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
        self.serving.resize(inbound, 0);
        let Some(served) = self.serving.open.remove(&inbound) else { return };
        if let Some(load) = self.serving.per_peer.get_mut(&served.p2p) {
            load.requests -= 1;
            if load.requests == 0 {
                self.serving.per_peer.remove(&served.p2p);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypernet_core::limits::{IN_FLIGHT_PER_PEER, MIB, READ_BLOCK, WIRE_BODY_MAX};

    fn fill(load: &mut Load, all: &mut usize, body: usize) -> usize {
        let mut bodies = 0;
        while load.takes(*all, body) {
            (load.bytes, *all, bodies) = (load.bytes + body, *all + body, bodies + 1);
        }
        bodies
    }

    #[test]
    fn one_peer_has_what_it_may_ask_for_and_no_number_of_them_has_it_all() {
        let mut all = 0;
        assert_eq!(fill(&mut Load::default(), &mut all, WIRE_BODY_MAX), IN_FLIGHT_PER_PEER);
        for body in [WIRE_BODY_MAX, MIB, MIB, 64 * READ_BLOCK] {
            for _ in 0..3 {
                fill(&mut Load::default(), &mut all, body);
            }
        }
        assert!(all < MESH_RESPONSES);
        assert!(Load::default().takes(all, READ_BLOCK), "a newcomer can read a little with {all} bytes under way");
        assert!(!Load::default().takes(all, WIRE_BODY_MAX));
        assert!(Load::default().takes(all, 0) && Load::default().takes(MESH_RESPONSES, 0));
    }
}
