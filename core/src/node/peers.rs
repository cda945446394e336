//! What a node knows of its peers: who is there, what they offer, how they behaved, and what is under way to each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::acquainted::Acquainted;
use super::donor::Donor;
use super::planning::{self, NoPlan, plan_for, room};
use super::standing::{self, Presence, Record, Standings, Watch};
use super::{Context, Destination, Effect, Payer, RequestId, SendFault, Timer, Waiter};
use crate::durability::Plan;
use crate::id::PeerId;
use crate::limits::{BUSY_ANSWERS_MAX, IN_FLIGHT_PER_PEER, KIB, PEERS_MAX, SHARD_MAX};
use crate::placement::{Candidate, Subnet};
use crate::port::StoreOp;
use crate::quota::Depositor;
use crate::time::Instant;
use crate::wire::{Hello, Refusal, Request, Response};

mod line;
mod view;

use line::{Line, SLOWEST};
pub use view::PeerView;

/// How often a peer is asked what it offers.
const HELLO_EVERY: u64 = 60_000;
/// A peer that did not answer in time is asked last for so long, and for twice as long each time in a row,
const SLOW_FOR: u64 = 10_000;
/// up to this.
const SLOW_MAX: u64 = 300_000;
/// A peer that could not be reached is not asked again for so long, unless it connects: whoever reads many files that
/// cannot be had waits once, not for each of them.
const ABSENT_FOR: u64 = 3_000;
/// A peer that says that it has not what it acknowledged is trusted with nothing new for so long, while others suffice.
/// It is not cut off: it owned up to it, and may well hold what others need.
const DISTRUST_LOST: u64 = 300_000;
/// What is there and spoiled is what disks do.
const DISTRUST_DAMAGED: u64 = 30_000;
/// A peer that sent what does not verify knew better: who keeps shards looks at them before it answers.
const DISTRUST_LIED: u64 = 24 * 3_600_000;
/// A peer that does it again soon after is distrusted for twice as long, up to this: whoever has lost a disk must be able
/// to come back with a new one.
const DISTRUST_MAX: u64 = 3_600_000;
/// Standing from which a peer is cut off.
const BLOCK_AT: u32 = 100;
/// The first block; each further one doubles.
const BLOCK_FIRST: u64 = 30_000;
/// The longest block.
const BLOCK_MAX: u64 = 24 * 3_600_000;
/// A request with no more than this is as soon there as an empty one.
const SMALL: u64 = 16 * KIB as u64;
/// Shorter answers say more of the way there and back than of the rate.
const RATE_SAMPLE: usize = 128 * KIB;
/// No line is faster than that, whatever a clock says.
const RATE_MAX: u64 = 1 << 39;
/// A rate that was measured longer ago is not known any more.
const RATE_AGE: u64 = 300_000;
/// The longest that an answer is waited for before others are asked as well, however slow its peer is known to be.
const PATIENCE_MAX: u64 = 8_000;
/// Whoever says that it is busy is sent nothing for so long.
pub(super) const BUSY_PAUSE: u64 = 200;
/// In so many milliseconds
const BUSY_WINDOW: u64 = 10_000;

/// whoever keeps to that pause is told so at most half as often as would be a fault.
const _: () = assert!(IN_FLIGHT_PER_PEER as u64 * (BUSY_WINDOW / BUSY_PAUSE + 1) * 2 < BUSY_ANSWERS_MAX as u64);

/// A donor without room is asked at most this often whether it has some by now, while something waits for it.
const ROOM_EVERY: u64 = 5_000;

/// The longest that a donor which serves others first is left alone, whatever it says.
const NEWCOMERS_WAIT_MAX: u64 = 3_600_000;

/// Whoever did not take so many shards in a row that it was sent
const DECLINED_MAX: u32 = 3;
/// counts for no plan for so long: it may say that it has room and have none, or no will.
const DECLINED_FOR: u64 = 60_000;

/// Whoever went away so often,
const LOSSES_MAX: u32 = 2;
/// no longer ago than this each time,
const LOSS_AGE: u64 = 600_000;
/// counts for plans only when it has stayed for so long: what is placed on it would have to be placed again.
const STEADY_AFTER: u64 = 60_000;

/// Whoever has said twice that it stops storing for others, and then that it goes on, gets nothing new for so long, and for twice
/// as long each time: it could have all that it is given moved away again.
const RETURN_FIRST: u64 = 600_000;
/// up to this.
const RETURN_MAX: u64 = 24 * 3_600_000;

/// What a peer did wrong, by weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Sent what breaks the protocol.
    Nonsense,
    /// Sent bytes that do not verify.
    Lie,
    /// Says itself that it has not what it acknowledged, though the lease runs.
    Lost,
    /// Says itself that what it acknowledged is spoiled, or does not say whether it is spoiled or lost.
    Damaged,
    /// Sent more than it may.
    Flood,
}

impl Fault {
    /// How much of it is too much to go on talking.
    fn weight(self) -> u32 {
        match self {
            Self::Lost | Self::Damaged => 0,
            Self::Flood => 10,
            Self::Nonsense => 25,
            Self::Lie => 34,
        }
    }

    /// How long it shows that shards are badly kept there.
    fn distrust(self) -> u64 {
        match self {
            Self::Lost => DISTRUST_LOST,
            Self::Damaged => DISTRUST_DAMAGED,
            Self::Lie => DISTRUST_LIED,
            Self::Flood | Self::Nonsense => 0,
        }
    }
}

/// A request that is under way to a peer.
struct Flight {
    since: Instant,
    /// Bytes that travel with or because of it.
    weight: u64,
    /// And those of its own body.
    body: u64,
    /// What the peer had sent in all until then.
    delivered: u64,
}

pub(super) struct Peer {
    connected: bool,
    standing: Record,
    subnet: Option<Subnet>,
    hello: Option<Hello>,
    pub(super) free: u64,
    /// It is asked for more than that from then on, once somebody needs it.
    ask_room_at: Instant,
    flights: BTreeMap<RequestId, Flight>,
    queue: VecDeque<(Request, Waiter)>,
    /// It is busy: nothing is sent until then.
    hold_until: Instant,
    /// Bytes it has sent in answers.
    delivered: u64,
    /// Bytes per second that it sends, and when that was measured.
    rate: Option<(u64, Instant)>,
    /// How often it was told that this node is busy, since when.
    turned_away: (Instant, u32),
    serving: usize,
    faults: u32,
    blocks: u32,
    pub(super) blocked_until: Instant,
    /// New shards go to others until then, and for how long that was.
    distrusted: (Instant, u64),
    slow_until: Instant,
    absent_until: Instant,
    /// How often it went away, and when it did last.
    losses: (u32, Instant),
    /// How many shards in a row it was sent and did not take, and when the last of them was.
    declined: (u32, Instant),
    /// How often it has taken back that it stops storing for others, and until when it is given nothing for that.
    returns: (u32, Instant),
    /// Requests in a row that it did not answer.
    silent: u32,
    answered: u64,
    unanswered: u64,
    changed: Instant,
}

impl Peer {
    fn new(standing: Record, now: Instant) -> Self {
        Self {
            connected: false,
            standing,
            subnet: None,
            hello: None,
            free: 0,
            ask_room_at: Instant(0),
            flights: BTreeMap::new(),
            queue: VecDeque::new(),
            hold_until: Instant(0),
            delivered: 0,
            rate: None,
            turned_away: (Instant(0), 0),
            serving: 0,
            faults: 0,
            blocks: 0,
            blocked_until: Instant(0),
            distrusted: (Instant(0), 0),
            slow_until: Instant(0),
            absent_until: Instant(0),
            losses: (0, Instant(0)),
            declined: (0, Instant(0)),
            returns: (0, Instant(0)),
            silent: 0,
            answered: 0,
            unanswered: 0,
            changed: now,
        }
    }

    fn presence(&self, context: &Context, watch: &Watch) -> Presence {
        let config = &context.config;
        match self.standing.away_for(context.now, watch, self.connected) {
            _ if self.connected => Presence::Here,
            away if away < config.grace => Presence::Away,
            away if away < config.gone_after => Presence::Suspect,
            _ => Presence::Gone,
        }
    }

    /// Whether it is there and stores for others.
    pub(super) fn is_donor(&self) -> bool {
        self.connected && !self.is_leaving() && self.hello.as_ref().is_some_and(|hello| hello.donated > 0)
    }

    /// Whether it has said that it stops storing for others.
    fn is_leaving(&self) -> bool {
        self.standing.is.leaving
    }

    /// Whether something may be placed on it, as far as that depends on whether it stays.
    fn stays(&self, now: Instant) -> bool {
        !self.is_leaving() && self.returns.1 <= now
    }

    /// It says whether it stops storing for others.
    fn leave(&mut self, leaving: bool, now: Instant) {
        if self.is_leaving() && !leaving {
            let (times, _) = self.returns;
            let millis = times.checked_sub(1).map_or(0, |again| (RETURN_FIRST << again.min(16)).min(RETURN_MAX));
            self.returns = (times.saturating_add(1), now.after(millis));
        }
        self.standing.is.leaving = leaving;
        if leaving {
            self.free = 0;
        }
    }

    /// Bytes that are under way or wait for their turn.
    fn load(&self) -> u64 {
        let waiting = self.queue.iter().map(|(request, _)| request.weight() as u64);
        self.flights.values().map(|flight| flight.weight).chain(waiting).sum()
    }

    /// Whether a plan can count on it to take shards.
    pub(super) fn takes_shards(&self, now: Instant) -> bool {
        let (times, last) = self.declined;
        let declines = times >= DECLINED_MAX && now.since(last) < DECLINED_FOR;
        self.connected && self.blocked_until <= now && self.stays(now) && self.free >= room() && !declines
    }

    /// Whether it is likely to be there in a moment, having come and gone less than others do or stayed for a while.
    fn is_steady(&self, now: Instant) -> bool {
        let (losses, last) = self.losses;
        losses < LOSSES_MAX || now.since(last) >= LOSS_AGE || now.since(self.changed) >= STEADY_AFTER
    }

    /// Whether it has room for others that it does not give to this node.
    pub(super) fn to_newcomer(&self) -> bool {
        self.hello.as_ref().is_some_and(|hello| hello.to_newcomer)
    }

    fn is_distrusted(&self, now: Instant) -> bool {
        self.distrusted.0 > now
    }

    /// It has lost something: it starts afresh when it did not for as long as it was distrusted before. What comes to
    /// light while it is distrusted is most likely the same misfortune, and only makes it last.
    fn distrust(&mut self, millis: u64, now: Instant) {
        let (until, before) = self.distrusted;
        let millis = match now.since(until) {
            _ if until > now => millis.max(before),
            since if since < before => millis.max((2 * before).min(DISTRUST_MAX)),
            _ => millis,
        };
        self.distrusted = (until.max(now.after(millis)), millis);
    }

    fn rate(&self, now: Instant) -> Option<u64> {
        self.rate.filter(|(_, at)| now.since(*at) < RATE_AGE).map(|(rate, _)| rate)
    }

    /// An answer has come. Several share the line, so what came with it since it was asked for counts, too.
    fn measure(&mut self, flight: &Flight, bytes: usize, now: Instant) {
        self.delivered += bytes as u64;
        if bytes >= RATE_SAMPLE {
            let sample = (self.delivered - flight.delivered).saturating_mul(1000) / now.since(flight.since).max(1);
            let smooth = |before: Option<u64>| before.map_or(sample, |rate| (3 * rate + sample) / 4);
            self.rate = Some((smooth(self.rate(now)), now));
            self.standing.is.rate = Some(smooth(self.standing.is.rate).min(RATE_MAX));
        } else if flight.weight <= SMALL {
            self.standing.is.round_trip(now.since(flight.since));
        }
    }

    /// Sends what waits, as far as it may. What carries nothing overtakes bodies for which the line has no room.
    fn release(&mut self, context: &mut Context, id: PeerId, line: &mut Line) {
        while self.flights.len() < IN_FLIGHT_PER_PEER && self.hold_until <= context.now.mono {
            let out: u64 = self.flights.values().map(|flight| flight.body).sum();
            let may_go = |body: u64| line.has_room(body) && (body == 0 || out == 0 || out + body <= SHARD_MAX as u64);
            let next = self.queue.iter().position(|(request, _)| may_go(request.body_len() as u64));
            let Some((request, waiter)) = next.and_then(|at| self.queue.remove(at)) else {
                if !self.queue.is_empty() {
                    line.wait(id);
                }
                return;
            };
            let (weight, body) = (request.weight() as u64, request.body_len() as u64);
            // Those before it share the line.
            let load: u64 = self.flights.values().map(|flight| flight.weight).sum();
            let request_id = line.emit(context, id, request, waiter, load + weight);
            let flight = Flight { since: context.now.mono, weight, body, delivered: self.delivered };
            self.flights.insert(request_id, flight);
        }
    }
}

/// All peers.
#[derive(Default)]
pub(super) struct Peers {
    watch: Watch,
    /// Who is connected is never forgotten, so what is counted in `donors` stays here.
    known: BTreeMap<PeerId, Peer>,
    /// Those of them that are donors,
    donors: usize,
    /// and when one last came or went.
    donors_changed: Instant,
    /// Who is to get no shards.
    spared: BTreeSet<PeerId>,
    line: Line,
    /// Whom the agent knows.
    pub(super) acquainted: Acquainted,
}

impl Peers {
    fn entry(&mut self, context: &Context, peer: PeerId) -> &mut Peer {
        if self.known.len() >= PEERS_MAX && !self.known.contains_key(&peer) {
            // Forget someone who is gone and has nothing under way; with all of them busy the map grows by those.
            let idle = self.known.iter().filter(|(_, p)| !p.connected && p.flights.is_empty() && p.queue.is_empty());
            // Who has hardly been there comes back under another name as easily.
            let idle = idle.min_by_key(|(_, p)| p.standing.is.present).map(|(id, _)| *id);
            if let Some(idle) = idle {
                self.known.remove(&idle);
            }
        }
        let (now, watch) = (context.now, &self.watch);
        self.known.entry(peer).or_insert_with(|| Peer::new(Record::new(peer, now, watch), now.mono))
    }

    /// What an earlier run has written down.
    pub(super) fn restore(&mut self, context: &Context, standings: &Standings) {
        self.watch.restore(standings);
        for standing in standings.peers.iter().filter(|standing| standing.peer != context.config.me) {
            if let Some(record) = Record::restore(standing, standings.watched) {
                self.known.entry(standing.peer).or_insert_with(|| Peer::new(record, context.now.mono));
            }
        }
    }

    /// What the next run is to know.
    pub(super) fn standings(&self, context: &Context) -> Standings {
        let all = self.known.values().map(|peer| peer.standing.now(context.now, &self.watch, peer.connected));
        standing::written(&self.watch, context.now.mono, all)
    }

    /// An hour of the day ends for all at once; and who has been away for too long has left.
    pub(super) fn book_hours(&mut self, context: &Context) {
        if !self.watch.is_new_hour(context.now.unix) {
            return;
        }
        for peer in self.known.values_mut() {
            peer.standing.book(context.now, &mut self.watch, peer.connected);
            let gone = peer.presence(context, &self.watch) == Presence::Gone;
            // Whoever has handed over what it held takes nothing along.
            peer.standing.count(context.now.unix, &mut self.watch, gone && !peer.is_leaving());
        }
    }

    /// The address that a peer was seen at.
    pub(super) fn seen_at(&mut self, context: &Context, id: PeerId, subnet: Option<Subnet>) {
        if id != context.config.me {
            self.entry(context, id).subnet = subnet;
        }
    }

    /// Changes what is known of a peer, and keeps count of the donors.
    fn change(&mut self, context: &Context, id: PeerId, change: impl FnOnce(&mut Peer)) {
        let peer = self.entry(context, id);
        let was_donor = peer.is_donor();
        change(peer);
        let is_donor = peer.is_donor();
        if is_donor != was_donor {
            self.donors = if is_donor { self.donors + 1 } else { self.donors.saturating_sub(1) };
            self.donors_changed = context.now.mono;
        }
    }

    pub(super) fn connected(&mut self, context: &mut Context, donor: &Donor, id: PeerId) {
        if id == context.config.me {
            return;
        }
        let now = context.now.mono;
        if !self.is_connected(&id) {
            self.watch.joined(now);
            self.book(context, id, false);
        }
        self.change(context, id, |peer| {
            if !peer.connected {
                peer.connected = true;
                peer.changed = now;
                peer.slow_until = Instant(0);
                peer.absent_until = Instant(0);
            }
        });
        self.greet(context, donor, id);
    }

    pub(super) fn disconnected(&mut self, context: &Context, id: PeerId) {
        let now = context.now.mono;
        if self.is_connected(&id) {
            self.book(context, id, true);
            self.watch.left(now);
            self.change(context, id, |peer| {
                peer.connected = false;
                peer.changed = now;
                let (losses, last) = peer.losses;
                let lately = losses > 0 && now.since(last) < LOSS_AGE;
                peer.losses = (if lately { losses.saturating_add(1) } else { 1 }, now);
            });
        }
    }

    /// Books the time until now, before a peer comes or goes. Whoever comes back has not left.
    fn book(&mut self, context: &Context, id: PeerId, connected: bool) {
        self.entry(context, id);
        if let Some(peer) = self.known.get_mut(&id) {
            peer.standing.book(context.now, &mut self.watch, connected);
            peer.standing.count(context.now.unix, &mut self.watch, false);
        }
    }

    pub(super) fn is_connected(&self, id: &PeerId) -> bool {
        self.known.get(id).is_some_and(|peer| peer.connected)
    }

    /// Asks what it offers, now and again later while it stays.
    pub(super) fn greet(&mut self, context: &mut Context, donor: &Donor, id: PeerId) {
        if self.is_connected(&id) {
            context.arm(Timer::Hello(id), HELLO_EVERY);
            let hello = donor.hello(self, &id, context.now.mono);
            self.send(context, id, Request::Hello(hello), Waiter::Hello);
        }
    }

    pub(super) fn hello(&mut self, context: &Context, id: PeerId, hello: Hello) {
        let now = context.now.mono;
        self.change(context, id, |peer| {
            peer.free = hello.free;
            peer.leave(hello.leaving, now);
            peer.hello = Some(hello);
        });
    }

    /// Tells all who are there what this node offers from now on.
    pub(super) fn greet_all(&mut self, context: &mut Context, donor: &Donor) {
        let there: Vec<PeerId> = self.known.iter().filter(|(_, peer)| peer.connected).map(|(id, _)| *id).collect();
        there.into_iter().for_each(|id| self.greet(context, donor, id));
    }

    /// Asks the donors without `room` what they have by now, unless that was done a moment ago; says how many were asked.
    pub(super) fn ask_room(&mut self, context: &mut Context, donor: &Donor, room: u64, waiter: Waiter) -> usize {
        let now = context.now.mono;
        let full =
            |peer: &Peer| peer.is_donor() && peer.blocked_until <= now && peer.free < room && peer.ask_room_at <= now;
        let full: Vec<PeerId> = self.known.iter().filter(|(_, peer)| full(peer)).map(|(id, _)| *id).collect();
        for id in &full {
            self.entry(context, *id).ask_room_at = now.after(ROOM_EVERY);
            let hello = donor.hello(self, id, now);
            self.send(context, *id, Request::Hello(hello), waiter);
        }
        full.len()
    }

    /// As [`Self::ask_room`], for what a plan needs.
    pub(super) fn ask_room_to_plan(&mut self, context: &mut Context, donor: &Donor, waiter: Waiter) -> usize {
        self.ask_room(context, donor, room(), waiter)
    }

    /// What the agent has found out of whose peers are, in place of what it had. Who has become somebody else to this node is
    /// told so.
    pub(super) fn acquaint(&mut self, context: &mut Context, donor: &Donor, acquainted: Acquainted) {
        let before = std::mem::replace(&mut self.acquainted, acquainted);
        let has_changed = |id: &PeerId| {
            let (was, is) = (before.of(id).is_some(), self.acquainted.of(id).is_some());
            was != is || (!is && before.held_by(id) == 0) != (self.acquainted.held_by(id) == 0)
        };
        let changed: Vec<PeerId> =
            self.known.iter().filter(|(id, peer)| peer.connected && has_changed(id)).map(|(id, _)| *id).collect();
        for id in changed {
            self.greet(context, donor, id);
        }
    }

    /// Whether nothing new is entrusted to a peer for now.
    pub(super) fn is_distrusted(&self, id: &PeerId, now: Instant) -> bool {
        self.known.get(id).is_some_and(|peer| peer.is_distrusted(now))
    }

    /// Donors that are connected.
    pub(super) fn donors(&self) -> usize {
        self.donors
    }

    /// Milliseconds since a donor last came or went.
    pub(super) fn settled_for(&self, context: &Context) -> u64 {
        context.now.mono.since(self.donors_changed)
    }

    /// Sends now, or as soon as fewer requests are under way to this peer and it is not busy. What a node holds itself it
    /// asks its own store for: it may hold a row of what it reads.
    pub(super) fn send(&mut self, context: &mut Context, id: PeerId, request: Request, waiter: Waiter) {
        if id == context.config.me {
            match request {
                Request::Get { shard, offset, len } => context.store(waiter, StoreOp::Read { shard, offset, len }),
                Request::Have { shards } => context.store(waiter, StoreOp::Have { shards }),
                Request::Renew { leases } => {
                    let (depositor, most) = (Depositor::Known, u64::MAX);
                    context.store(waiter, StoreOp::Renew { leases, depositor, most });
                }
                Request::Release { tokens } => {
                    let leases = tokens.into_iter().map(|(shard, token)| (shard, token.key())).collect();
                    context.store(waiter, StoreOp::Release { leases });
                }
                Request::Audit { shard, chunk } => context.store(waiter, StoreOp::Prove { shard, chunk }),
                // Nobody greets itself, and neither candidates nor the closest peers name the node itself.
                Request::Hello(_) | Request::Put { .. } | Request::Record { .. } | Request::Watch { .. } => {}
            }
            return;
        }
        self.entry(context, id).queue.push_back((request, waiter));
        self.resume(context, id);
    }

    /// It is not busy any more, as far as one knows.
    pub(super) fn resume(&mut self, context: &mut Context, id: PeerId) {
        if let Some(peer) = self.known.get_mut(&id) {
            peer.release(context, id, &mut self.line);
        }
    }

    /// Books the outcome of a request, and sends what waited for it.
    pub(super) fn answered(
        &mut self,
        context: &mut Context,
        id: PeerId,
        request: RequestId,
        result: &Result<Response, SendFault>,
    ) {
        let now = context.now.mono;
        let peer = self.entry(context, id);
        let flight = peer.flights.remove(&request);
        let body = flight.as_ref().map_or(0, |flight| flight.body);
        match (flight, result) {
            (Some(flight), Ok(Response::Bytes(bytes))) => peer.measure(&flight, bytes.len(), now),
            // What it has to write down first says more of its disk.
            (Some(flight), Ok(Response::Hello(_) | Response::Have(_))) => {
                peer.standing.is.round_trip(now.since(flight.since));
            }
            _ => {}
        }
        // Whoever only says what it offers has done nothing yet.
        if matches!(result, Ok(answer) if !matches!(answer, Response::Refused(_) | Response::Hello(_))) {
            peer.standing.is.answered();
        }
        if *result == Ok(Response::Refused(Refusal::Busy)) {
            peer.hold_until = now.after(BUSY_PAUSE);
            context.arm(Timer::Resume(id), BUSY_PAUSE);
        }
        match result {
            Ok(_) => {
                peer.answered += 1;
                peer.silent = 0;
                peer.slow_until = Instant(0);
            }
            Err(_) => {
                peer.unanswered += 1;
                peer.slow_until = now.after((SLOW_FOR << peer.silent.min(8)).min(SLOW_MAX));
                peer.silent = peer.silent.saturating_add(1);
                if !peer.connected {
                    peer.absent_until = now.after(ABSENT_FOR);
                }
            }
        }
        let in_time = match result {
            Ok(Response::Refused(_)) | Err(SendFault::Malformed(_) | SendFault::Unreachable) => None,
            Ok(_) => Some(true),
            Err(SendFault::Deadline) => Some(false),
        };
        self.line.end(body, in_time, now);
        self.resume(context, id);
        if body > 0 {
            for id in self.line.waiting() {
                self.resume(context, id);
            }
        }
        match result {
            Err(SendFault::Malformed(_)) => self.fault(context, id, Fault::Nonsense),
            Ok(Response::Refused(Refusal::Full)) => self.entry(context, id).free = 0,
            Ok(Response::Refused(Refusal::Leaving)) => self.change(context, id, |peer| peer.leave(true, now)),
            // It may well go on taking in what others bring: that says nothing against it.
            Ok(Response::Refused(Refusal::NewcomersFull(seconds))) => {
                let peer = self.entry(context, id);
                peer.free = 0;
                peer.ask_room_at = now.after((u64::from(*seconds) * 1_000).clamp(ROOM_EVERY, NEWCOMERS_WAIT_MAX));
                if let Some(hello) = &mut peer.hello {
                    hello.to_newcomer = true;
                }
            }
            Ok(Response::Refused(Refusal::Invalid)) => self.fault(context, id, Fault::Nonsense),
            _ => {}
        }
    }

    /// Requests still queued that nobody waits for any more go first.
    pub(super) fn forget(&mut self, wanted: impl Fn(&Waiter) -> bool) {
        for peer in self.known.values_mut() {
            peer.queue.retain(|(_, waiter)| wanted(waiter));
        }
    }

    pub(super) fn fault(&mut self, context: &mut Context, id: PeerId, fault: Fault) {
        if id == context.config.me {
            // Its own disk is at fault; cutting oneself off would help nobody.
            return;
        }
        let now = context.now.mono;
        let peer = self.entry(context, id);
        peer.standing.is.fault(fault);
        if fault.distrust() > 0 {
            peer.distrust(fault.distrust(), now);
        }
        peer.faults = peer.faults.saturating_add(fault.weight());
        if peer.faults >= BLOCK_AT && peer.blocked_until <= now {
            let millis = (BLOCK_FIRST << peer.blocks.min(16)).min(BLOCK_MAX);
            peer.blocks += 1;
            // A second chance after the block, but not a third.
            peer.faults = BLOCK_AT / 2;
            peer.blocked_until = now.after(millis);
            context.effects.push(Effect::Block { peer: id, millis });
        }
    }

    /// A peer was told that this node is busy. Whoever hears that waits; whoever does not is a burden on all others.
    pub(super) fn turned_away(&mut self, context: &mut Context, id: PeerId) {
        let now = context.now.mono;
        let (since, count) = &mut self.entry(context, id).turned_away;
        if now.since(*since) >= BUSY_WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count > BUSY_ANSWERS_MAX {
            self.fault(context, id, Fault::Flood);
        }
    }

    /// How long the last request sent to a peer may take before others are asked as well: the longer the more is under
    /// way, by the rate at which this peer is known to send.
    pub(super) fn patience(&self, context: &Context, id: &PeerId) -> u64 {
        let base = context.config.patience;
        let Some(peer) = self.known.get(id) else { return base };
        let Some(rate) = peer.rate(context.now.mono) else { return base };
        let expected = peer.load().saturating_mul(1000) / rate.max(1);
        base.saturating_add(expected + expected / 2).min(base.max(PATIENCE_MAX))
    }

    /// Marks a peer that keeps someone waiting: it is asked last for a while.
    pub(super) fn slow(&mut self, context: &Context, id: PeerId) {
        if id == context.config.me {
            return;
        }
        let until = context.now.mono.after(SLOW_FOR);
        self.entry(context, id).slow_until = until;
    }

    /// How gladly a peer is asked for something: 0 gladly, 1 though it may not have it, 2 because it must be, `None` not
    /// now. An answer that says no is soon there; one that does not come is waited for.
    pub(super) fn reluctance(&self, context: &Context, id: &PeerId) -> Option<u8> {
        let now = context.now.mono;
        match self.known.get(id) {
            _ if *id == context.config.me => Some(0),
            Some(peer) if peer.blocked_until > now || peer.absent_until > now => None,
            // One that crawls would use up the patience that it is due.
            Some(peer) if peer.rate(now).is_some_and(|rate| rate < SLOWEST * 1000) => Some(2),
            Some(peer) if peer.connected && peer.slow_until <= now => Some(u8::from(peer.is_distrusted(now))),
            Some(_) | None => Some(2),
        }
    }

    /// One more request of this peer is being served; false when it has too many.
    pub(super) fn serve(&mut self, context: &Context, id: PeerId, limit: usize) -> bool {
        let peer = self.entry(context, id);
        let may = peer.serving < limit;
        peer.serving += usize::from(may);
        may
    }

    pub(super) fn served(&mut self, id: &PeerId) {
        if let Some(peer) = self.known.get_mut(id) {
            peer.serving = peer.serving.saturating_sub(1);
        }
    }

    /// These are to get no shards from now on, and no others.
    pub(super) fn spare(&mut self, peers: BTreeSet<PeerId>) {
        self.spared = peers;
    }

    /// Those who may get shards.
    pub(super) fn unspared(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.known.iter().filter(|(id, _)| !self.spared.contains(id))
    }

    /// Peers that may take a shard.
    pub(super) fn candidates(&self, context: &Context) -> Vec<Candidate> {
        let now = context.now.mono;
        self.unspared()
            .filter(|(_, peer)| {
                peer.connected && peer.blocked_until <= now && peer.slow_until <= now && peer.stays(now)
            })
            .map(|(id, peer)| self.candidate(context, id, peer))
            .collect()
    }

    /// Those of these peers that are known, whether or not they are there.
    pub(super) fn holding(&self, context: &Context, ids: &BTreeSet<PeerId>) -> Vec<Candidate> {
        ids.iter().filter_map(|id| self.known.get(id).map(|peer| self.candidate(context, id, peer))).collect()
    }

    fn candidate(&self, context: &Context, id: &PeerId, peer: &Peer) -> Candidate {
        let now = context.now;
        Candidate {
            peer: *id,
            free: peer.free,
            trusted: !peer.is_distrusted(now.mono) && peer.is_steady(now.mono),
            young: peer.standing.is.is_young(now.unix),
            quality: peer.standing.now(now, &self.watch, peer.connected).quality(),
            subnet: peer.subnet,
            operator: self.acquainted.of(id).map(|one| one.operator),
        }
    }

    /// A shard is on its way there.
    pub(super) fn reserve(&mut self, id: &PeerId, bytes: u64) {
        if let Some(peer) = self.known.get_mut(id) {
            peer.free = peer.free.saturating_sub(bytes);
        }
    }

    /// The plan for the donors that are there: for those that stay and are trusted, unless they are too few for what is
    /// aimed at. A shard on somebody who lost some is better than none; `cautious`, for what could not be placed, leaves
    /// out who comes and goes also where that makes the plan a weaker one.
    pub(super) fn plan(&self, context: &Context, cautious: bool) -> Result<Plan, NoPlan> {
        let now = context.now.mono;
        let all: Vec<&Peer> = self.unspared().map(|(_, peer)| peer).filter(|peer| peer.takes_shards(now)).collect();
        let steady: Vec<&Peer> = all.iter().copied().filter(|peer| peer.is_steady(now)).collect();
        let trusted: Vec<&Peer> = steady.iter().copied().filter(|peer| !peer.is_distrusted(now)).collect();
        let departures = self.watch.departures();
        let of = |peer: &&Peer| {
            let by_hour = peer.standing.now(context.now, &self.watch, peer.connected).by_hour();
            planning::Donor { free: peer.free, by_hour }
        };
        let plan_for = |donors: &[&Peer]| plan_for(donors.iter().map(of).collect(), departures);
        let good = |donors: &[&Peer]| plan_for(donors).filter(|plan| plan.meets_target);
        let found = good(&trusted).or_else(|| good(&steady)).or_else(|| good(&all).filter(|_| !cautious));
        found.or_else(|| plan_for(&steady)).or_else(|| plan_for(&all)).ok_or_else(|| self.no_plan(context))
    }

    /// It took a shard that it was sent, or did not.
    pub(super) fn took(&mut self, context: &Context, id: PeerId, taken: bool) {
        let now = context.now.mono;
        let declined = &mut self.entry(context, id).declined;
        *declined = if taken { (0, now) } else { (declined.0.saturating_add(1), now) };
    }

    pub(super) fn departures(&self) -> f64 {
        self.watch.departures()
    }
}
