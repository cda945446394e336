//! A year of churn: the very `Node` of ten thousand peers and of those who store with them, hour by hour.
//!
//! The [storm](crate::World) looks at what happens within minutes; here time goes by the hour, and what takes minutes is skipped:
//! greetings come once an hour instead of once a minute, and a donor that nobody asks anything is not stepped. All
//! else is what runs: uploads, reads, audits, renewals and repairs are commands of the node, over the code of
//! [`hypernet_core::erasure`], by the decisions of [`hypernet_core::repair`] and the plans of [`hypernet_core::durability`].
//! When something is due is the agent's affair, and is written down here once more in its simplest form: audits once a week
//! and again when somebody missed is there, renewals of what is half over, a look for repairs four times a day.
//!
//! What happens: peers sleep every day, by the evening of their region; go on holidays and come back; leave for good,
//! alone or with all of their operator; lie, in four ways; and a third of the world is cut off for days.
//!
//! One thread, one source of chance: a seed is a whole history.
//!
//! # What it catches
//! `tests/year.rs` breaks each of these on purpose:
//!
//! | broken | noticed by |
//! |---|---|
//! | nobody mends anything | segments are lost |
//! | a segment is mended when it has no row left to lose | the least rows beyond k, of all looks |
//! | what audits find out is forgotten | rows that count and are with nobody, and how few are made in place of liars' |
//! | leases are not renewed | segments are lost |
//!
//! It found by itself: holders that answer no audit and were believed for ever; rows made once more because their holders were
//! on holiday, and those forgotten when they came back; plans without slack, by which each lost row was made alone; and leases
//! that are renewed at an hour of the day at which their holders never are there.

use crate::random::Random;
use crate::report::Failure;

mod config;
mod lot;
mod mesh;
mod owner;
mod plot;
mod report;
mod survey;
mod walk;

pub use config::{Attack, Sabotage, YearConfig};
pub use plot::plot;
pub use report::YearReport;

use mesh::Mesh;
use owner::Owner;
use report::{Mended, Traffic};
use survey::Survey;

const HOUR: u64 = 3_600_000;
/// Hours until the first upload: peers are not young any more, and it is known when they are there.
const FIRST: u64 = 10 * 24;
/// Hours between two looks for leases that are half over. Once a day would be at the same hour of each, at which some peers
/// never are there: their leases ended.
const RENEW_EVERY: u64 = 5;
/// Hours between two looks for repairs.
const REPAIR_EVERY: u64 = 6;

/// A mesh and its owners, for as long as is wanted.
pub struct Year {
    config: YearConfig,
    seed: u64,
    mesh: Mesh,
    owners: Vec<Owner>,
    mended: Mended,
    survey: Survey,
    put_off: u64,
    lookups: [u64; 4],
}

impl Year {
    /// A year at its start.
    pub fn new(seed: u64, config: YearConfig) -> Self {
        let mesh = Mesh::new(seed, &config);
        let mut random = Random::new(seed ^ 0x6f77_6e65_7273);
        let owner = |number: usize| {
            let mut slots: Vec<usize> = (0..config.peers).collect();
            let known = config.known.min(config.peers);
            for at in 0..known {
                let other = at + random.index(slots.len() - at);
                slots.swap(at, other);
            }
            slots.truncate(known);
            Owner::new(seed, number, slots, [0, 0, 1, 2][random.index(4)])
        };
        let owners = (0..config.owners).map(owner).collect();
        let (mended, survey) = (Mended::default(), Survey::default());
        Self { config, seed, mesh, owners, mended, survey, put_off: 0, lookups: [0; 4] }
    }

    /// Runs all of it. What is lost is told by the report; only what may never be is a failure.
    pub fn run(mut self) -> Result<YearReport, Failure> {
        let hours = self.config.days * 24;
        for hour in 0..hours {
            self.hour(hour).map_err(|what| self.fail(hour, what))?;
        }
        let ended = self.end(hours);
        ended.map_err(|what| self.fail(hours, what))
    }

    fn fail(&self, hour: u64, what: String) -> Failure {
        let days = self.config.days;
        let replay = format!("scripts/sim-year --seed {} --peers {} --days {days}", self.seed, self.config.peers);
        Failure { seed: self.seed, nodes: self.config.peers, at: hour * HOUR, what, replay }
    }

    /// How many segments an owner is to have by then: half of them soon, the others within two thirds of the time.
    fn wanted(&self, hour: u64) -> usize {
        let (all, hours) = (self.config.segments, self.config.days * 24);
        if hour < FIRST {
            return 0;
        }
        let soon = ((hour - FIRST) / 6 + 1).min(all as u64 / 2) as usize;
        let later = (hours * 2 / 3).saturating_sub(FIRST).max(1);
        soon.max((all as u64 * (hour - FIRST) / later).min(all as u64) as usize)
    }

    fn hour(&mut self, hour: u64) -> Result<(), String> {
        let (wanted, config) = (self.wanted(hour), self.config.clone());
        self.mesh.advance(&config, hour);
        self.attack(hour);
        for owner in &mut self.owners {
            let mesh = &mut self.mesh;
            owner.clock = owner.clock.max(hour * HOUR + 1_000);
            owner.look_around(mesh);
            while owner.lots.len() < wanted && owner.connected() > 1 {
                if !owner.upload(mesh, &config)? {
                    self.put_off += 1;
                    break;
                }
            }
            owner.audit(mesh, &config)?;
            if config.sabotage != Sabotage::NoRenewal && (hour + owner.number).is_multiple_of(RENEW_EVERY) {
                owner.renew(mesh)?;
            }
            if config.sabotage != Sabotage::NoRepair && (hour + owner.number).is_multiple_of(REPAIR_EVERY) {
                owner.repair(mesh, &config, &mut self.mended)?;
            }
            owner.settle(mesh);
        }
        if hour % 24 == 12 {
            let found = walk::lookups(&mut self.mesh, self.config.owners);
            self.lookups.iter_mut().zip(found).for_each(|(all, found)| *all += found);
        }
        // Each hour of the day comes as often as any other.
        if hour >= FIRST && hour.is_multiple_of(25) {
            self.survey.look(&self.mesh, &mut self.owners, &config);
        }
        Ok(())
    }

    fn attack(&mut self, hour: u64) {
        if self.config.attack == Attack::Replays {
            self.mesh.replay(hour * HOUR, 20);
        }
        let Attack::Sybils { from, stay } = self.config.attack else { return };
        if hour == from * 24 {
            for owner in 0..self.owners.len() {
                let crowd = self.mesh.crowd(&self.config, self.config.known, (from + stay) * 24);
                self.survey.sybils.extend(crowd.clone().map(|at| self.mesh.donors[at].id));
                self.owners[owner].meet(crowd);
            }
        }
        if hour + 1 == (from + stay) * 24 {
            self.survey.count_sybils(&self.owners);
        }
    }

    fn end(&mut self, hours: u64) -> Result<YearReport, String> {
        let mut report =
            YearReport { size: (self.config.peers, self.config.owners, self.config.days), ..YearReport::default() };
        self.survey.look(&self.mesh, &mut self.owners, &self.config);
        self.survey.fill(&mut report, &self.mesh, &self.owners, &self.config);
        let mut traffic = Traffic::default();
        // What is cut off comes back before all is read once more.
        self.mesh.heal();
        for owner in &mut self.owners {
            owner.clock = owner.clock.max(hours * HOUR);
            owner.look_around(&mut self.mesh);
            report.departures +=
                owner.node.plan().map_or(0.0, |plan| plan.outlook.departures) / self.config.owners as f64;
            for at in 0..owner.lots.len() {
                report.reads.0 += 1;
                report.reads.1 += u64::from(owner.read(&mut self.mesh, at)?);
            }
            owner.settle(&mut self.mesh);
            traffic.merge(&owner.traffic);
            report.trace = report.trace.rotate_left(7) ^ owner.trace;
        }
        report.years = hours.saturating_sub(FIRST) as f64 / (365.0 * 24.0);
        traffic.fill(&mut report);
        self.mended.fill(&mut report);
        report.uploads_put_off = self.put_off;
        report.departed = self.mesh.departed;
        report.blocked.1 = self.mesh.blocks;
        report.lookups = self.lookups;
        report.next_random = self.mesh.random.draw();
        Ok(report)
    }
}
