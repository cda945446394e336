//! The line out of this node: how much of what it stores on others is under way at once, and how long a request is waited for.
//!
//! All peers share it: what is sent to thirteen of them at once over the line of a home takes thirteen times as long to reach each. So
//! no more is begun than a slow line carries before the peers' patience ends, and the time that a body gets is that of all bodies
//! that are under way.

use std::collections::VecDeque;

use super::{Context, Destination, Effect, Instant, Payer, PeerId, Request, RequestId, Waiter};
use crate::limits::{BODIES_IN_FLIGHT, MIB};

/// A request that carries nothing.
const WITHIN_SMALL: u64 = 10_000;
/// Slowest transfer from or to one peer that is waited for, bytes per millisecond.
pub(super) const SLOWEST: u64 = 128;
/// Slowest line that all bodies together are given time for, bytes per millisecond: half a megabit a second.
const SLOWEST_LINE: u64 = 64;
/// Bodies may take so many times as long as the line has lately needed for as much.
const SLACK: u64 = 8;
/// What the line carries is known when so many bytes were taken in by peers.
const SAMPLE: u64 = MIB as u64;

/// What is under way to all peers, and what the line has carried.
#[derive(Default)]
pub(super) struct Line {
    /// Bytes of bodies.
    out: u64,
    /// Whoever is to be sent one when there is room, each once.
    waiting: VecDeque<PeerId>,
    /// Bytes that were taken in, since when; time in which nothing was under way does not count.
    taken: (u64, Instant),
    /// Bytes per millisecond.
    rate: Option<u64>,
}

impl Line {
    /// Whether a body may go out now. One may always.
    pub(super) fn has_room(&self, body: u64) -> bool {
        body == 0 || self.out == 0 || self.out + body <= BODIES_IN_FLIGHT as u64
    }

    /// This one is told when there is room.
    pub(super) fn wait(&mut self, peer: PeerId) {
        if !self.waiting.contains(&peer) {
            self.waiting.push_back(peer);
        }
    }

    /// Those who wait, who will say so again if they still do.
    pub(super) fn waiting(&mut self) -> VecDeque<PeerId> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn begin(&mut self, body: u64, now: Instant) {
        if self.out == 0 {
            self.taken = (0, now);
        }
        self.out += body;
    }

    /// It has come, or has not by its deadline; `None` where that says nothing of the line.
    pub(super) fn end(&mut self, body: u64, in_time: Option<bool>, now: Instant) {
        self.out = self.out.saturating_sub(body);
        match in_time {
            Some(true) => self.taken.0 += body,
            // Whatever it carried before, it does not now.
            Some(false) => self.rate = self.rate.map(|rate| rate / 2),
            None => {}
        }
        let (taken, since) = self.taken;
        if taken >= SAMPLE {
            let sample = taken / now.since(since).max(1);
            self.rate = Some(self.rate.map_or(sample, |rate| (3 * rate + sample) / 4));
            self.taken = (0, now);
        }
    }

    /// How long a request may take with a body of that size, when so many bytes travel to or from its peer.
    fn within(&self, body: u64, load: u64) -> u64 {
        let rate = self.rate.unwrap_or(0) / SLACK;
        let shared = if body == 0 { 0 } else { self.out / rate.max(SLOWEST_LINE) };
        WITHIN_SMALL + load / SLOWEST + shared
    }

    /// Sends a request that has come when `load` bytes have, its own among them.
    pub(super) fn emit(
        &mut self,
        context: &mut Context,
        peer: PeerId,
        request: Request,
        waiter: Waiter,
        load: u64,
    ) -> RequestId {
        let body = request.body_len() as u64;
        self.begin(body, context.now.mono);
        let within = self.within(body, load);
        let id = context.request_id(Some(peer), waiter);
        context.effects.push(Effect::Send { to: Destination::Peer(peer), id, request, within, payer: payer(waiter) });
        id
    }
}

/// For whose sake something is asked.
fn payer(waiter: Waiter) -> Payer {
    match waiter {
        Waiter::Upload(..)
        | Waiter::Fetch(..)
        | Waiter::Probe(..)
        | Waiter::Copy(_)
        | Waiter::Lease(_)
        | Waiter::GivenUp
        | Waiter::Audit(..)
        | Waiter::Lookup(..)
        | Waiter::Room(_)
        | Waiter::Watched(_)
        | Waiter::Watching(_) => Payer::Owner,
        Waiter::Hello
        | Waiter::Served(_)
        | Waiter::RecordKept(..)
        | Waiter::Closest(_)
        | Waiter::Handed(_)
        | Waiter::Told(_) => Payer::Donor,
    }
}
