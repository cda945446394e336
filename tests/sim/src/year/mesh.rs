//! The peers that store for others: the very node for each, a shelf of shards, a habit of when it is there, and a day on which
//! it leaves for good. Whoever leaves is followed by a newcomer with another name.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hypernet_core::audit;
use hypernet_core::id::{PeerId, ShardId};
use hypernet_core::lease::{Lease, LeaseKey, LeaseToken};
use hypernet_core::limits::AUDIT_PROOF_MAX;
use hypernet_core::node::{Effect, InboundId, Input, Node, NodeConfig, Now, SendFault};
use hypernet_core::placement::Subnet;
use hypernet_core::port::{StoreFault, StoreOp, StoreReply};
use hypernet_core::quota::{Depositor, Quota, Used};
use hypernet_core::time::{Instant, UnixSeconds};
use hypernet_core::wire::{Request, Response};

use super::config::YearConfig;
use crate::random::Random;

/// Wall clock at the start: a midnight.
pub(super) const EPOCH: u64 = 1_700_006_400;
/// Machines of one operator.
const OPERATOR: usize = 10;
/// What everybody gives: more than is ever taken.
const DONATED: u64 = 1 << 40;
/// Leases that somebody remembers who has overheard them.
const OVERHEARD: usize = 4_096;
/// Parts of the world: where it is evening at different times.
const REGIONS: u64 = 3;

/// The two clocks at so many milliseconds.
pub(super) fn clocks(mono: u64) -> Now {
    Now { mono: Instant(mono), unix: UnixSeconds(EPOCH + mono / 1_000) }
}

/// How a peer treats what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Honest,
    /// It drops everything, and makes up what it is asked for.
    Inventor,
    /// It drops everything, and owns up to it.
    Dropper,
    /// It drops everything, and answers nothing but whether it is there, and that it takes more.
    Mute,
    /// It keeps everything, and bends what it sends.
    Bender,
}

/// A shard on a shelf, and the leases of it. When the last is over or has expired it is gone at once: stricter than a real one.
struct Kept {
    body: Bytes,
    leases: BTreeMap<LeaseKey, UnixSeconds>,
}

impl Kept {
    fn is_leased(&self, now: UnixSeconds) -> bool {
        self.leases.values().any(|until| *until > now)
    }

    /// A lease only ever comes to run longer.
    fn lease(&mut self, lease: &Lease) {
        let until = self.leases.entry(lease.key).or_insert(lease.expires);
        *until = lease.expires.max(*until);
    }
}

pub(super) struct Donor {
    pub(super) id: PeerId,
    /// Counts who has had this place.
    pub(super) generation: u32,
    pub(super) subnet: Option<Subnet>,
    pub(super) region: u64,
    pub(super) manner: Manner,
    pub(super) up: bool,
    node: Node,
    shelf: BTreeMap<ShardId, Kept>,
    /// Bytes of each of them.
    shard_len: u64,
    /// Share of the day that it is there.
    share: f64,
    clock: u64,
    /// The hour in which it leaves.
    leaves: u64,
    /// It is away until then.
    back: u64,
    /// Milliseconds there and back.
    pub(super) round_trip: u64,
    /// With whom it shares an operator, and so the end.
    fellow: Option<usize>,
    /// Nobody follows it.
    last: bool,
}

impl Donor {
    /// Whether it has this shard, and would give it to whoever reads.
    pub(super) fn serves(&self, shard: &ShardId, now: UnixSeconds) -> bool {
        self.is_honest() && self.has(shard, now)
    }

    /// Whether it has this shard, whatever it does with it.
    pub(super) fn has(&self, shard: &ShardId, now: UnixSeconds) -> bool {
        self.shelf.get(shard).is_some_and(|kept| kept.is_leased(now))
    }

    pub(super) fn is_honest(&self) -> bool {
        self.manner == Manner::Honest
    }

    /// What it keeps, as it is told: here nobody knows anybody.
    fn told(&self) -> Used {
        Used::by(Depositor::Newcomer, self.used())
    }

    fn commit(&mut self, op: StoreOp, now: UnixSeconds) -> StoreReply {
        let keeps = matches!(self.manner, Manner::Honest | Manner::Bender);
        match op {
            StoreOp::Put { shard, lease, body, .. } => {
                if keeps {
                    let kept = self.shelf.entry(shard).or_insert_with(|| Kept { body, leases: BTreeMap::new() });
                    kept.lease(&lease);
                }
                StoreReply::Done { used: self.told() }
            }
            StoreOp::Read { shard, offset, len } => match self.held(&shard, now) {
                None => StoreReply::Failed(StoreFault::NotFound),
                Some(body) => {
                    let end = (offset as usize).saturating_add(len as usize).min(body.len());
                    StoreReply::Bytes(body.slice((offset as usize).min(end)..end))
                }
            },
            StoreOp::Prove { shard, chunk } => match self.held(&shard, now) {
                None => StoreReply::Failed(StoreFault::NotFound),
                Some(body) => StoreReply::Bytes(audit::prove(&body, chunk).unwrap_or_default().into()),
            },
            StoreOp::Have { shards } => {
                StoreReply::Have(shards.iter().map(|shard| self.held(shard, now).is_some()).collect())
            }
            StoreOp::Renew { leases, .. } => {
                let mut held = Vec::with_capacity(leases.len());
                for (shard, lease) in leases {
                    let kept = self.shelf.get_mut(&shard).filter(|kept| kept.is_leased(now));
                    held.push(kept.is_some());
                    if let Some(kept) = kept {
                        kept.lease(&lease);
                    }
                }
                StoreReply::Renewed { used: self.told(), held }
            }
            StoreOp::Release { leases } => {
                let before = self.used();
                for (shard, key) in leases {
                    if let Some(kept) = self.shelf.get_mut(&shard) {
                        kept.leases.remove(&key);
                        if kept.leases.is_empty() {
                            self.shelf.remove(&shard);
                        }
                    }
                }
                let freed = Used::by(Depositor::Newcomer, before.saturating_sub(self.used()));
                StoreReply::Released { used: self.told(), freed }
            }
            // Records are the storm's affair.
            StoreOp::PutRecord { .. } => StoreReply::Done { used: self.told() },
        }
    }

    fn used(&self) -> u64 {
        self.shelf.len() as u64 * self.shard_len
    }

    fn held(&self, shard: &ShardId, now: UnixSeconds) -> Option<Bytes> {
        self.shelf.get(shard).filter(|kept| kept.is_leased(now)).map(|kept| kept.body.clone())
    }
}

/// All peers.
pub(super) struct Mesh {
    pub(super) donors: Vec<Donor>,
    by_id: BTreeMap<PeerId, usize>,
    pub(super) random: Random,
    seed: u64,
    born: u64,
    pub(super) hour: u64,
    inbound: u64,
    /// The part of the world that is cut off, and until which hour.
    cut: Option<(u64, u64)>,
    /// Peers that have left for good.
    pub(super) departed: u64,
    /// Leases that somebody has overheard, with their holders, the newest last.
    overheard: VecDeque<(PeerId, ShardId, Lease)>,
    /// Peers that refused to deal with an owner any more, though it did nothing wrong.
    pub(super) blocks: u64,
}

/// Well mixed bits of a number.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Whether something happens now that happens so many times a year, looked at each hour.
fn happens(random: &mut Random, a_year: f64) -> bool {
    random.fraction() < a_year / (365.0 * 24.0)
}

impl Mesh {
    pub(super) fn new(seed: u64, config: &YearConfig) -> Self {
        let mut mesh = Self {
            donors: Vec::with_capacity(config.peers),
            by_id: BTreeMap::new(),
            random: Random::new(seed),
            seed,
            born: 0,
            hour: 0,
            inbound: 0,
            cut: None,
            departed: 0,
            overheard: VecDeque::new(),
            blocks: 0,
        };
        let grouped = (config.peers as f64 * config.operators) as usize / OPERATOR * OPERATOR;
        for at in 0..config.peers {
            let fellow = if at < grouped && at % OPERATOR > 0 { Some(at - 1) } else { None };
            mesh.seat(config, fellow);
        }
        mesh
    }

    /// A peer comes; with the operator, the subnet and the end of a fellow, if it has one.
    fn seat(&mut self, config: &YearConfig, fellow: Option<usize>) {
        let manner = if self.random.fraction() < config.liars {
            [Manner::Inventor, Manner::Dropper, Manner::Mute, Manner::Bender][self.random.index(4)]
        } else {
            Manner::Honest
        };
        let (low, high) = config.availability;
        let share = low + (high - low) * self.random.fraction();
        let donor = self.newcomer(config, manner, share, fellow);
        self.by_id.insert(donor.id, self.donors.len());
        self.donors.push(donor);
    }

    fn newcomer(&mut self, config: &YearConfig, manner: Manner, share: f64, fellow: Option<usize>) -> Donor {
        self.born += 1;
        let born = self.born;
        let id = PeerId(*blake3::hash(&[self.seed.to_be_bytes(), born.to_be_bytes()].concat()).as_bytes());
        let shared = fellow.map(|at| &self.donors[at]).map(|fellow| (fellow.subnet, fellow.leaves, fellow.region));
        let (subnet, leaves, region) = shared.unwrap_or_else(|| {
            let [.., a, b, c] = born.to_be_bytes();
            // Half of the world lives in one region.
            let region = [0, 0, 1, 2][self.random.index(4)];
            let hours = -self.random.fraction().ln() / config.departures().max(1e-12) * 365.0 * 24.0;
            (Subnet::v4([20 + a, b, c, 1]), self.hour.saturating_add(1 + hours as u64), region)
        });
        Donor {
            id,
            generation: 0,
            subnet,
            region,
            manner,
            up: false,
            node: Node::new(NodeConfig::new(id, |_, key| key.0, Quota::for_all(DONATED), Used::default())),
            shelf: BTreeMap::new(),
            shard_len: config.shard_len.into(),
            fellow,
            share,
            clock: 0,
            leaves,
            back: 0,
            round_trip: self.random.between(10, 300),
            last: false,
        }
    }

    /// Peers that come at once and leave at once, each with a subnet of its own.
    pub(super) fn crowd(&mut self, config: &YearConfig, many: usize, leave: u64) -> std::ops::Range<usize> {
        let from = self.donors.len();
        for _ in 0..many {
            let mut donor = self.newcomer(config, Manner::Honest, 1.0, None);
            (donor.leaves, donor.last) = (leave, true);
            self.by_id.insert(donor.id, self.donors.len());
            self.donors.push(donor);
        }
        from..self.donors.len()
    }

    /// An hour begins: some leave for good, some are there, some are not.
    pub(super) fn advance(&mut self, config: &YearConfig, hour: u64) {
        self.hour = hour;
        if self.cut.is_none_or(|(_, until)| until <= hour) {
            let region = self.random.below(REGIONS);
            let cut = happens(&mut self.random, config.partitions);
            self.cut = cut.then(|| (region, hour + self.random.between(24, 72)));
        }
        for at in 0..self.donors.len() {
            if self.donors[at].leaves <= hour {
                self.replace(config, at);
            }
            let holiday = happens(&mut self.random, config.holidays);
            let away = self.random.between(24, 14 * 24);
            let donor = &mut self.donors[at];
            if holiday && donor.back <= hour {
                donor.back = hour + away;
            }
            donor.up = donor.back <= hour && !(donor.last && donor.leaves <= hour) && is_awake(donor, at as u64, hour);
        }
    }

    /// A peer leaves for good, and somebody else comes in its place: with the same habits and manners, so that their shares stay.
    fn replace(&mut self, config: &YearConfig, at: usize) {
        let (id, last, share) = (self.donors[at].id, self.donors[at].last, self.donors[at].share);
        if self.by_id.remove(&id).is_none() {
            return;
        }
        self.departed += 1;
        self.donors[at].shelf.clear();
        if last {
            return;
        }
        // Its fellows leave in the same hour, those before it first.
        let fellow = self.donors[at].fellow;
        let manner = self.donors[at].manner;
        let generation = self.donors[at].generation + 1;
        let mut donor = self.newcomer(config, manner, share, fellow);
        donor.generation = generation;
        self.by_id.insert(donor.id, at);
        self.donors[at] = donor;
    }

    pub(super) fn of(&self, id: &PeerId) -> Option<&Donor> {
        self.by_id.get(id).map(|at| &self.donors[*at])
    }

    /// Whether somebody in a region reaches a peer.
    pub(super) fn reaches(&self, region: u64, donor: &Donor) -> bool {
        donor.up && (region == donor.region || self.cut.is_none_or(|(cut, _)| region != cut && donor.region != cut))
    }

    /// Brings a request to a peer: its answer, and after how many milliseconds that is there.
    pub(super) fn deliver(
        &mut self,
        from: &PeerId,
        region: u64,
        to: &PeerId,
        request: Request,
        now: u64,
        within: u64,
    ) -> (u64, Result<Response, SendFault>) {
        let Some(at) = self.by_id.get(to).copied() else { return (3_000.min(within), Err(SendFault::Unreachable)) };
        if !self.reaches(region, &self.donors[at]) {
            return (3_000.min(within), Err(SendFault::Unreachable));
        }
        let is_greeting = matches!(request, Request::Hello(_));
        let is_put = matches!(request, Request::Put { .. });
        let donor = &mut self.donors[at];
        if donor.manner == Manner::Mute && !is_greeting && !is_put {
            return (within, Err(SendFault::Deadline));
        }
        donor.clock = donor.clock.max(now);
        match &request {
            Request::Put { shard, lease, .. } => self.overheard.push_back((*to, *shard, lease.clone())),
            Request::Renew { leases } => {
                self.overheard.extend(leases.iter().map(|(shard, lease)| (*to, *shard, lease.clone())));
            }
            _ => {}
        }
        while self.overheard.len() > OVERHEARD {
            self.overheard.pop_front();
        }
        let clocks = clocks(donor.clock);
        self.inbound += 1;
        let inbound = InboundId(self.inbound);
        let mut effects = donor.node.step(clocks, Input::Request { peer: *from, inbound, request });
        let mut answer = None;
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Reply { response, .. } => answer = Some(response),
                Effect::Store { id, op } => {
                    let reply = donor.commit(op, clocks.unix);
                    effects.extend(donor.node.step(clocks, Input::Stored { id, reply }));
                }
                Effect::Block { .. } => self.blocks += 1,
                _ => {}
            }
        }
        let after = donor.round_trip;
        match answer {
            Some(answer) => (after, Ok(self.bend(at, answer))),
            None => (within, Err(SendFault::Deadline)),
        }
    }

    /// No part of the world is cut off any more.
    pub(super) fn heal(&mut self) {
        self.cut = None;
    }

    /// Somebody who has overheard leases says them again, and gives up what was leased by all that it knows.
    pub(super) fn replay(&mut self, now: u64, times: usize) {
        let thief = PeerId([0x77; 32]);
        for _ in 0..times {
            if self.overheard.is_empty() {
                return;
            }
            let at = self.random.index(self.overheard.len());
            let (holder, shard, lease) = self.overheard[at].clone();
            let token = LeaseToken(lease.key.0);
            let blocks = self.blocks;
            for request in
                [Request::Renew { leases: vec![(shard, lease)] }, Request::Release { tokens: vec![(shard, token)] }]
            {
                // Whatever comes of it.
                let _answer = self.deliver(&thief, 0, &holder, request, now, 10_000);
            }
            // Whoever will have nothing to do with it is right.
            self.blocks = blocks;
        }
    }

    fn bend(&mut self, at: usize, answer: Response) -> Response {
        match (self.donors[at].manner, answer) {
            (Manner::Inventor, Response::Refused(_)) => Response::Bytes(self.random.bytes(AUDIT_PROOF_MAX).into()),
            (Manner::Inventor, Response::Have(bits)) => Response::Have(vec![0xff; bits.len()]),
            (Manner::Bender, Response::Bytes(bytes)) if !bytes.is_empty() => {
                let mut bent = bytes.to_vec();
                let at = self.random.index(bent.len());
                bent[at] ^= 1;
                Response::Bytes(bent.into())
            }
            (_, answer) => answer,
        }
    }
}

/// Whether it is awake: around the evening of its region, each day a little earlier or later.
fn is_awake(donor: &Donor, at: u64, hour: u64) -> bool {
    let local = hour + 24 - donor.region * 8;
    let (day, of_day) = (local / 24, (local % 24) as f64);
    let bits = mix(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (day << 1) ^ u64::from(donor.generation).rotate_left(40));
    let late = (bits % 1_000) as f64 / 1_000.0 * 6.0 - 3.0;
    let long = donor.share * 24.0;
    // From so long before six in the evening to as long after it.
    let since = (of_day - (18.0 + late - long / 2.0)).rem_euclid(24.0);
    since < long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_there_for_their_share_of_the_day_and_leave_as_often_as_is_said() {
        let config = YearConfig { holidays: 0.0, ..YearConfig::mixed(1_000) };
        let mut mesh = Mesh::new(1, &config);
        let (mut up, mut by_hour) = (0u64, [0u64; 24]);
        for hour in 0..365 * 24 {
            mesh.advance(&config, hour);
            let there = mesh.donors.iter().filter(|donor| donor.up).count() as u64;
            up += there;
            by_hour[(hour % 24) as usize] += there;
        }
        let mean = up as f64 / (365.0 * 24.0 * 1_000.0);
        assert!((0.57..0.63).contains(&mean), "{mean}");
        let (worst, best) = (by_hour.iter().min().unwrap(), by_hour.iter().max().unwrap());
        assert!(*worst as f64 > 0.25 * 365_000.0 && (*best as f64) < 0.95 * 365_000.0 && best > worst);
        // Operators leave in tens, so this varies by more than a binomial does.
        assert!((150..300).contains(&mesh.departed), "{}", mesh.departed);
    }
}
