//! How a peer has behaved so far, as this node has seen it itself: nothing here is a peer's own word.
//!
//! Time is counted by a watch of its own, which runs only while this node is connected to anybody: what a peer does
//! while nobody here could have seen it counts neither for nor against it, and a laptop that was closed for a month does
//! not find that everyone has gone. Availability is kept for each hour of the day (UTC), because home machines sleep at
//! the same hours together: what a plan has to count on is the worst of them. Of each such hour about two weeks count.
//!
//! Invariants: what is kept of a peer has one size; and what is written down for the next start is checked when it
//! comes back, as if a stranger had written it.

use minicbor::{Decode, Encode};

use super::Now;
use super::peers::Fault;
use crate::durability::DEPARTURES_PRIOR;
use crate::id::PeerId;
use crate::limits::{MIB, STANDINGS_MAX};
use crate::time::{Instant, UnixSeconds};

const HOUR: u64 = 3_600_000;
const HOURS: usize = 24;
/// Of each hour of the day so much counts: that of two weeks. What is older fades by as much as comes in.
const WINDOW: u32 = 14 * HOUR as u32;
/// What is assumed of a peer until it was watched: 19 hours there and one not, a mean of 0.95.
const PRIOR_ONLINE: f64 = 19.0 * HOUR as f64;
const PRIOR: f64 = 20.0 * HOUR as f64;
/// An hour of the day is taken to be as all others are until it was watched for much longer than this.
const PRIOR_HOUR: f64 = 2.0 * HOUR as f64;
/// Peers are young until they were met so long ago,
const YOUNG_SECONDS: u64 = 7 * UnixSeconds::DAY;
/// and were there for so long in all. Whoever makes up many peers at once has to keep all of them going for as long.
const YOUNG_PRESENT: u64 = 24 * HOUR;
/// Answers and faults that count: beyond them both fade.
const CONDUCT_MAX: u32 = 2_048;
/// Answers without a fault that every peer is taken to have given.
const CONDUCT_PRIOR: f64 = 8.0;
/// Years of a peer that the assumed rate of departures weighs as much as.
const DEPARTURES_YEARS: f64 = 10.0;
/// Years of peers that count.
const DEPARTURES_WINDOW: u64 = 200 * YEAR;
const YEAR: u64 = 365 * 24 * HOUR;
/// An average of round trips moves by one in so many towards each new one.
const ROUND_TRIPS: u64 = 8;

/// Whether a peer is there, and what its absence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// A connection is up.
    Here,
    /// It is not there, as home machines are every day: its shards count.
    Away,
    /// It is away for longer than its grace: its shards count, and nothing new is placed on it.
    Suspect,
    /// It is taken to be gone for good: its shards are to be replaced. It may come back, and they count again at once.
    Gone,
}

/// One hour of the day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Hour {
    /// Milliseconds that the peer was there,
    #[n(0)]
    pub online: u32,
    /// of so many that it was watched.
    #[n(1)]
    pub watched: u32,
}

impl Hour {
    fn add(&mut self, millis: u64, online: bool) {
        let millis = millis.min(WINDOW.into()) as u32;
        self.watched += millis;
        self.online += if online { millis } else { 0 };
        if self.watched > WINDOW {
            self.online = (u64::from(self.online) * u64::from(WINDOW) / u64::from(self.watched)) as u32;
            self.watched = WINDOW;
        }
    }
}

/// What is kept of one peer, also over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Standing {
    /// Who.
    #[n(0)]
    pub peer: PeerId,
    /// When it was first met, by the wall clock.
    #[n(1)]
    pub met: UnixSeconds,
    /// When it was last there, by the watch.
    #[n(2)]
    pub seen: u64,
    /// Milliseconds that it was there, in all.
    #[n(3)]
    pub present: u64,
    /// By hour of the day (UTC).
    #[n(4)]
    pub hours: [Hour; HOURS],
    /// Answers without a fault, lately,
    #[n(5)]
    pub good: u32,
    /// and faults, by weight.
    #[n(6)]
    pub bad: u32,
    /// Microseconds of a round trip with a small request, smoothed.
    #[n(7)]
    pub round_trip: Option<u64>,
    /// Bytes per second that it sends, smoothed.
    #[n(8)]
    pub rate: Option<u64>,
    /// It counts among those that have left for good.
    #[n(9)]
    pub departed: bool,
    /// It has said last that it stops storing for others.
    #[n(10)]
    pub leaving: bool,
}

/// All that a node knows of its peers' conduct, for its next start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Standings {
    /// Milliseconds that the watch has run.
    #[n(0)]
    pub watched: u64,
    /// Peers that were known for long and have left for good, lately,
    #[n(1)]
    pub departed: u32,
    /// and how long all such peers were watched together, in milliseconds.
    #[n(2)]
    pub peer_time: u64,
    /// One for each peer, those that were there longest first.
    #[n(3)]
    pub peers: Vec<Standing>,
}
crate::format!(Standings, tag = 0x6f, version = 1, max = 2 * MIB, name = "standings of peers");

impl Standing {
    pub(super) fn new(peer: PeerId, now: Now, watch: &Watch) -> Self {
        Self {
            peer,
            met: now.unix,
            seen: watch.at(now.mono),
            present: 0,
            hours: [Hour::default(); HOURS],
            good: 0,
            bad: 0,
            round_trip: None,
            rate: None,
            departed: false,
            leaving: false,
        }
    }

    /// Time has passed, all of it in this hour of the day.
    fn pass(&mut self, millis: u64, unix: UnixSeconds, online: bool) {
        self.hours[hour_of_day(unix)].add(millis, online);
        self.present = self.present.saturating_add(if online { millis } else { 0 });
    }

    /// Share of the time watched that it was there, with the prior.
    pub(super) fn availability(&self) -> f64 {
        let (online, watched) = self.hours.iter().fold((0.0, 0.0), |(online, watched), hour| {
            (online + f64::from(hour.online), watched + f64::from(hour.watched))
        });
        (PRIOR_ONLINE + online) / (PRIOR + watched)
    }

    /// The same in each hour of the day.
    pub(super) fn by_hour(&self) -> [f64; HOURS] {
        let all = self.availability();
        self.hours.map(|hour| (PRIOR_HOUR * all + f64::from(hour.online)) / (PRIOR_HOUR + f64::from(hour.watched)))
    }

    /// Whether it is known too little for much to be entrusted to it.
    pub(super) fn is_young(&self, unix: UnixSeconds) -> bool {
        self.present < YOUNG_PRESENT || unix.0 < self.met.0.saturating_add(YOUNG_SECONDS)
    }

    /// Share of what it did that was without a fault, lately, with the prior.
    pub(super) fn honesty(&self) -> f64 {
        let good = CONDUCT_PRIOR + f64::from(self.good);
        good / (good + f64::from(self.bad))
    }

    fn conduct(&mut self, good: u32, bad: u32) {
        self.good = self.good.saturating_add(good);
        self.bad = self.bad.saturating_add(bad);
        while self.good > CONDUCT_MAX || self.bad > CONDUCT_MAX {
            (self.good, self.bad) = (self.good / 2, self.bad / 2);
        }
    }

    /// It has answered, and nothing was wrong with it so far.
    pub(super) fn answered(&mut self) {
        self.conduct(1, 0);
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.conduct(
            0,
            match fault {
                Fault::Flood => 1,
                Fault::Nonsense | Fault::Damaged => 4,
                Fault::Lost => 16,
                Fault::Lie => 64,
            },
        );
    }

    pub(super) fn round_trip(&mut self, millis: u64) {
        let micros = millis.saturating_mul(1_000);
        self.round_trip = Some(
            self.round_trip.map_or(micros, |before| (before * (ROUND_TRIPS - 1)).saturating_add(micros) / ROUND_TRIPS),
        );
    }

    /// How gladly shards are placed on it, from 0 to 1: whether it is there, what it did, and how far it is away.
    pub(super) fn quality(&self) -> f64 {
        // Half a second there and back makes it half as welcome.
        let near = 500_000.0 / (500_000.0 + self.round_trip.unwrap_or(0) as f64);
        self.availability() * self.honesty() * near
    }

    /// Whether it can be: checked before it is believed.
    fn is_sound(&self, watched: u64) -> bool {
        let sound = |hour: &Hour| hour.online <= hour.watched && hour.watched <= WINDOW;
        self.seen <= watched
            && self.present <= watched
            && self.hours.iter().all(sound)
            && self.good <= CONDUCT_MAX
            && self.bad <= CONDUCT_MAX
            // A day for a round trip and a terabyte in a second are none.
            && self.round_trip.is_none_or(|micros| micros < 24 * HOUR * 1_000)
            && self.rate.is_none_or(|rate| rate < 1 << 40)
    }
}

fn hour_of_day(unix: UnixSeconds) -> usize {
    (unix.0 / 3_600 % HOURS as u64) as usize
}

/// The time that this node has spent among others.
#[derive(Default)]
pub(super) struct Watch {
    /// Until `since`.
    before: u64,
    /// Since when it is connected to anybody.
    since: Option<Instant>,
    /// Peers that it is connected to.
    connected: usize,
    /// The hour that was booked last.
    booked: u64,
    departed: u32,
    peer_time: u64,
}

impl Watch {
    /// How long it has run.
    pub(super) fn at(&self, mono: Instant) -> u64 {
        self.before.saturating_add(self.since.map_or(0, |since| mono.since(since)))
    }

    pub(super) fn joined(&mut self, mono: Instant) {
        self.connected += 1;
        self.since = self.since.or(Some(mono));
    }

    pub(super) fn left(&mut self, mono: Instant) {
        self.connected = self.connected.saturating_sub(1);
        if self.connected == 0 {
            self.before = self.at(mono);
            self.since = None;
        }
    }

    /// Whether an hour of the wall clock has begun since this was last asked.
    pub(super) fn is_new_hour(&mut self, unix: UnixSeconds) -> bool {
        let hour = unix.0 / 3_600;
        std::mem::replace(&mut self.booked, hour) != hour
    }

    /// Peers leave at this rate, for each that is there and each year, as far as one has seen.
    pub(super) fn departures(&self) -> f64 {
        let years = self.peer_time as f64 / YEAR as f64;
        (DEPARTURES_PRIOR * DEPARTURES_YEARS + f64::from(self.departed)) / (DEPARTURES_YEARS + years)
    }

    pub(super) fn restore(&mut self, all: &Standings) {
        self.before = all.watched;
        self.departed = all.departed;
        self.peer_time = all.peer_time.min(DEPARTURES_WINDOW);
    }
}

/// One peer's standing, and how much of the watch's time is in it.
pub(super) struct Record {
    pub(super) is: Standing,
    booked: u64,
}

impl Record {
    pub(super) fn new(peer: PeerId, now: Now, watch: &Watch) -> Self {
        Self { is: Standing::new(peer, now, watch), booked: watch.at(now.mono) }
    }

    /// What was written down before, if it can be.
    pub(super) fn restore(standing: &Standing, watched: u64) -> Option<Self> {
        standing.is_sound(watched).then(|| Self { is: standing.clone(), booked: watched })
    }

    /// Books the time since this was last done, in which the peer was there or was not. To be done before that changes,
    /// and each hour.
    pub(super) fn book(&mut self, now: Now, watch: &mut Watch, online: bool) {
        let at = watch.at(now.mono);
        let passed = at.saturating_sub(self.booked);
        self.booked = at;
        self.is.pass(passed, now.unix, online);
        if online {
            self.is.seen = at;
        }
        if !self.is.is_young(now.unix) && !self.is.departed {
            watch.peer_time = watch.peer_time.saturating_add(passed);
            if watch.peer_time > DEPARTURES_WINDOW {
                (watch.peer_time, watch.departed) = (watch.peer_time / 2, watch.departed / 2);
            }
        }
    }

    /// As of now, with what is not booked yet.
    pub(super) fn now(&self, now: Now, watch: &Watch, online: bool) -> Standing {
        let mut standing = self.is.clone();
        let at = watch.at(now.mono);
        standing.pass(at.saturating_sub(self.booked), now.unix, online);
        standing.seen = if online { at } else { standing.seen };
        standing
    }

    /// Milliseconds of the watch that it has not been there.
    pub(super) fn away_for(&self, now: Now, watch: &Watch, online: bool) -> u64 {
        if online { 0 } else { watch.at(now.mono).saturating_sub(self.is.seen) }
    }

    /// Counts it among those that have left, or no more.
    pub(super) fn count(&mut self, unix: UnixSeconds, watch: &mut Watch, gone: bool) {
        if gone && !self.is.departed && !self.is.is_young(unix) {
            self.is.departed = true;
            watch.departed = watch.departed.saturating_add(1);
        } else if !gone && self.is.departed {
            self.is.departed = false;
            watch.departed = watch.departed.saturating_sub(1);
        }
    }
}

/// All of them for the next start: of as many peers as may be, those that were there longest.
pub(super) fn written(watch: &Watch, mono: Instant, peers: impl Iterator<Item = Standing>) -> Standings {
    let mut peers: Vec<Standing> = peers.filter(|standing| standing.present > 0).collect();
    peers.sort_unstable_by_key(|standing| (std::cmp::Reverse(standing.present), standing.peer));
    peers.truncate(STANDINGS_MAX);
    Standings { watched: watch.at(mono), departed: watch.departed, peer_time: watch.peer_time, peers }
}
