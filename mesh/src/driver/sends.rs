//! Our requests to peers.
//!
//! Invariant: a send is in `open` from the command until its one outcome, whoever brings that about: the response,
//! the failure, the deadline, or the end of the mesh. Whatever comes later finds nothing there.

use libp2p::request_response::{OutboundFailure, OutboundRequestId};

use super::*;
use crate::SendError;
use crate::behaviour::LONGEST_REQUEST;
use crate::codec::{Answer, Asked};

struct Send {
    id: u64,
    peer: PeerId,
    p2p: Option<P2p>,
    deadline: Instant,
    timer: timers::Key,
    /// Until it is given to libp2p.
    request: Option<Request>,
}

#[derive(Default)]
pub(super) struct Sends {
    count: u64,
    open: HashMap<u64, Send>,
    /// Sends to peers that are being dialed.
    waiting: HashMap<P2p, Vec<u64>>,
    /// Sends that libp2p has; each leaves when libp2p is done with it, even after its deadline.
    given: HashMap<OutboundRequestId, u64>,
}

impl Sends {
    pub(super) fn len(&self) -> usize {
        self.open.len().max(self.given.len())
    }
}

impl Driver {
    pub(super) fn send(&mut self, peer: PeerId, id: u64, request: Request, deadline: Duration) {
        let turn = Instant::now() + self.turn(&request);
        let deadline = turn + deadline.min(LONGEST_REQUEST);
        self.sends.count += 1;
        let send = self.sends.count;
        let timer = self.timers.set(deadline, Timer::Deadline(send));
        let p2p = peer_id::to_libp2p(&peer);
        self.sends.open.insert(send, Send { id, peer, p2p, deadline, timer, request: Some(request) });
        if turn > Instant::now() {
            self.timers.set(turn, Timer::Paced(send));
        } else {
            self.proceed(send);
        }
    }

    /// How long its bodies wait for their turn, in the direction in which they go.
    fn turn(&mut self, request: &Request) -> Duration {
        match request {
            Request::Put { body, .. } => self.up.take(body.len(), Instant::now()),
            Request::Get { len, .. } => self.down.take(*len as usize),
            _ => Duration::ZERO,
        }
    }

    /// A send has its turn.
    pub(super) fn proceed(&mut self, send: u64) {
        let Some(open) = self.sends.open.get(&send) else { return };
        let Some(p2p) = open.p2p else {
            return self.finish(send, Err(SendError::Unreachable));
        };
        if self.peers.contains_key(&p2p) && !self.waits_for_punch(&p2p) {
            self.give(p2p, send);
        } else if self.dial_peer(p2p) {
            self.sends.waiting.entry(p2p).or_default().push(send);
        } else {
            self.finish(send, Err(SendError::Unreachable));
        }
    }

    /// Hands a send to libp2p.
    fn give(&mut self, p2p: P2p, send: u64) {
        let bytes = match self.sends.open.get(&send).and_then(|open| open.request.as_ref()) {
            Some(Request::Put { body, .. }) => body.len(),
            Some(Request::Get { len, .. }) => *len as usize,
            Some(_) => 0,
            None => return,
        };
        match self.fits(&p2p, bytes) {
            Ok(true) => {}
            Ok(false) => return self.anew(p2p, send),
            Err(limit) => return self.finish(send, Err(SendError::OverLimit { limit })),
        }
        let Some(open) = self.sends.open.get_mut(&send) else { return };
        let Some(request) = open.request.take() else { return };
        if let (Some(peer), Request::Put { body, .. }) = (self.peers.get_mut(&p2p), &request) {
            peer.sent += body.len() as u64;
        }
        let asked = Asked::Ours { request, deadline: open.deadline };
        let request = self.swarm.behaviour_mut().shards.send_request(&p2p, asked);
        self.sends.given.insert(request, send);
    }

    /// The circuit to a peer is used up: it goes over a new one, when nothing is under way on this one any more.
    fn anew(&mut self, p2p: P2p, send: u64) {
        self.sends.waiting.entry(p2p).or_default().push(send);
        let is_busy = |send: &u64| self.sends.open.get(send).is_some_and(|open| open.p2p == Some(p2p));
        if !self.sends.given.values().any(is_busy) {
            let links = self.peers.get(&p2p).map(|peer| peer.links.iter().map(|link| link.id).collect::<Vec<_>>());
            for link in links.unwrap_or_default() {
                self.swarm.close_connection(link);
            }
        }
    }

    /// A peer is connected: what waited for it goes out, unless it waits for hole punching.
    pub(super) fn give_waiting(&mut self, p2p: P2p) {
        if self.waits_for_punch(&p2p) || !self.peers.contains_key(&p2p) {
            return;
        }
        for send in self.sends.waiting.remove(&p2p).unwrap_or_default() {
            self.give(p2p, send);
        }
    }

    pub(super) fn is_waited_for(&self, p2p: &P2p) -> bool {
        self.sends.waiting.contains_key(p2p)
    }

    /// A peer cannot be reached.
    pub(super) fn fail_waiting(&mut self, p2p: &P2p) {
        for send in self.sends.waiting.remove(p2p).unwrap_or_default() {
            self.finish(send, Err(SendError::Unreachable));
        }
    }

    pub(super) fn fail_all_sends(&mut self) {
        let mut open: Vec<u64> = self.sends.open.keys().copied().collect();
        open.sort_unstable();
        for send in open {
            self.finish(send, Err(SendError::Closed));
        }
    }

    pub(super) fn on_deadline(&mut self, send: u64) {
        if let Some(p2p) = self.sends.open.get(&send).and_then(|open| open.p2p)
            && let Some(waiting) = self.sends.waiting.get_mut(&p2p)
        {
            waiting.retain(|other| *other != send);
            if waiting.is_empty() {
                self.sends.waiting.remove(&p2p);
            }
        }
        self.finish(send, Err(SendError::Deadline));
    }

    pub(super) fn on_answer(&mut self, p2p: &P2p, request: OutboundRequestId, answer: Answer) {
        let Some(send) = self.sends.given.remove(&request) else { return };
        if let (Some(peer), Ok(Response::Bytes(body))) = (self.peers.get_mut(p2p), &answer) {
            peer.received += body.len() as u64;
        }
        self.finish(send, answer.map_err(SendError::Malformed));
        self.give_waiting(*p2p);
    }

    pub(super) fn on_unanswered(&mut self, request: OutboundRequestId, failure: &OutboundFailure) {
        let Some(send) = self.sends.given.remove(&request) else { return };
        let error = match failure {
            OutboundFailure::DialFailure => SendError::Unreachable,
            OutboundFailure::Timeout => SendError::Deadline,
            OutboundFailure::Io(error) if error.kind() == io::ErrorKind::TimedOut => SendError::Deadline,
            OutboundFailure::ConnectionClosed | OutboundFailure::Io(_) => SendError::Closed,
            OutboundFailure::UnsupportedProtocols => SendError::Unsupported,
        };
        self.finish(send, Err(error));
    }

    fn finish(&mut self, send: u64, result: Result<Response, SendError>) {
        if let Some(Send { id, peer, timer, .. }) = self.sends.open.remove(&send) {
            self.timers.cancel(timer);
            self.outbox.tell(MeshEvent::Response { id, peer, result });
        }
    }
}
