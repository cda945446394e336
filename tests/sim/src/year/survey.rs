//! What there really is, whatever owners think: looks at every segment, once a day at any hour.

use std::collections::BTreeSet;

use hypernet_core::durability::{Outlook, readable};
use hypernet_core::id::PeerId;
use hypernet_core::node::Presence;
use hypernet_core::segment::Holder;

use super::config::YearConfig;
use super::lot::Lot;
use super::mesh::{Mesh, clocks};
use super::owner::Owner;
use super::report::YearReport;

/// Who is gone, as an owner thinks.
struct Known(BTreeSet<PeerId>);

impl Known {
    fn of(owner: &Owner) -> Self {
        let gone = owner.node.peers().into_iter().filter(|view| view.presence == Presence::Gone);
        Self(gone.map(|view| view.peer).collect())
    }

    /// Whether a row counts for it.
    fn counts(&self, lot: &Lot, holder: &Holder) -> bool {
        !lot.lacking.contains(&holder.row) && !self.0.contains(&holder.peer)
    }
}

#[derive(Default)]
pub(super) struct Survey {
    looks: u64,
    readable: u64,
    by_hour: [(u64, u64); 24],
    stored: f64,
    times: u64,
    lost: u64,
    least: Option<i64>,
    /// Peers of an attack.
    pub(super) sybils: BTreeSet<PeerId>,
    with_sybils: (u64, u64),
}

impl Survey {
    /// Looks at all segments.
    pub(super) fn look(&mut self, mesh: &Mesh, owners: &mut [Owner], config: &YearConfig) {
        let now = clocks(mesh.hour * 3_600_000).unix;
        let of_day = (mesh.hour % 24) as usize;
        self.times += 1;
        for owner in owners {
            let region = owner.region;
            for lot in owner.lots.iter_mut().filter(|lot| !lot.lost) {
                let segment = &lot.placement.segment;
                let (mut kept, mut at_hand) = (0u8, 0u8);
                for holder in &lot.placement.holders {
                    let Some(donor) = mesh.of(&holder.peer) else { continue };
                    if donor.serves(&segment.rows[usize::from(holder.row)], now) {
                        kept += 1;
                        at_hand += u8::from(mesh.reaches(region, donor));
                    }
                }
                let is_readable = at_hand >= segment.k;
                self.looks += 1;
                self.readable += u64::from(is_readable);
                let hour = &mut self.by_hour[of_day];
                *hour = (hour.0 + 1, hour.1 + u64::from(is_readable));
                self.stored += f64::from(kept) * f64::from(config.shard_len);
                let beyond = i64::from(kept) - i64::from(segment.k);
                self.least = Some(self.least.map_or(beyond, |least| least.min(beyond)));
                if beyond < 0 {
                    lot.lost = true;
                    self.lost += 1;
                }
            }
        }
    }

    /// How many rows are with the peers of an attack.
    pub(super) fn count_sybils(&mut self, owners: &[Owner]) {
        for lot in owners.iter().flat_map(|owner| &owner.lots) {
            let with = lot.placement.holders.iter().filter(|holder| self.sybils.contains(&holder.peer)).count() as u64;
            let may = u64::from(lot.placement.n - lot.placement.segment.k);
            if with > self.with_sybils.0 {
                self.with_sybils = (with, may);
            }
        }
    }

    /// The figures that it has found.
    pub(super) fn fill(&self, report: &mut YearReport, mesh: &Mesh, owners: &[Owner], config: &YearConfig) {
        let now = clocks(mesh.hour * 3_600_000).unix;
        let lots = || owners.iter().flat_map(|owner| &owner.lots);
        let all = lots().count();
        let mean = |of: &dyn Fn(&Lot) -> f64| lots().map(of).sum::<f64>() / all.max(1) as f64;
        report.acknowledged = all as u64;
        report.lost = self.lost;
        (report.looks, report.readable, report.by_hour) = (self.looks, self.readable, self.by_hour);
        report.stored = self.stored / self.times.max(1) as f64;
        report.code = (mean(&|lot| lot.placement.segment.k.into()), mean(&|lot| lot.placement.n.into()));
        report.planned_unreadable = mean(&|lot| lot.plan.map_or(0.0, |plan| 1.0 - plan.readable));
        report.planned_lost =
            mean(&|lot| lot.plan.map_or(0.0, |plan| plan.outlook.lost(plan.k, plan.n, plan.threshold)));
        report.sybils = self.with_sybils;
        report.margin.1 = self.least.unwrap_or(0);
        let views: Vec<Known> = owners.iter().map(Known::of).collect();
        for (lot, known) in
            owners.iter().zip(&views).flat_map(|(owner, known)| owner.lots.iter().map(move |lot| (lot, known)))
        {
            let counted = || lot.placement.holders.iter().filter(|holder| known.counts(lot, holder));
            let is_there = |holder: &&Holder| {
                let row = &lot.placement.segment.rows[usize::from(holder.row)];
                mesh.of(&holder.peer).is_some_and(|donor| donor.serves(row, now))
            };
            let (count, there) = (counted().count() as u64, counted().filter(is_there).count() as u64);
            report.phantom = (report.phantom.0 + count - there, report.phantom.1 + count);
            report.margin.0 = report.margin.0.max(count - there);
            // By the model: each row is with a peer that has left with this probability, and a week and a day until that is made good.
            let age = mesh.hour.saturating_sub(lot.since / 3_600_000) as f64 / (365.0 * 24.0);
            let (few, many) = (lot.placement.segment.k, lot.placement.n);
            let lost = 1.0 - readable(few, many, (-config.departures() * age).exp());
            report.if_unmended = (report.if_unmended.0 + lost, report.if_unmended.1 + lost * (1.0 - lost));
            let outlook = Outlook { departures: config.departures(), ..Outlook::of(config.peers, 1.0) };
            report.if_mended += 1.0 - (1.0 - outlook.lost_meanwhile(few, many, lot.threshold)).powf(age);
            // By the model: a repair each time that n has come down to the threshold.
            let (k, n, r) =
                (f64::from(lot.placement.segment.k), lot.placement.n, lot.threshold.min(lot.placement.n - 1));
            let round: f64 = (r + 1..=n).map(|rows| 1.0 / (f64::from(rows) * config.departures().max(1e-12))).sum();
            report.repair_expected += (k + f64::from(n - r)) * f64::from(config.shard_len) / round;
        }
        // Segments are there for a part of the year.
        let share = self.stored
            / self.times.max(1) as f64
            / (mean(&|lot| lot.placement.n.into()) * all as f64 * f64::from(config.shard_len)).max(1.0);
        report.repair_expected *= share * (config.days as f64 - 10.0).max(0.0) / 365.0;
    }
}
