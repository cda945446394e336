//! What a year comes to.

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

/// What a message is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Greeting,
    Upload,
    Audit,
    Renewal,
    Repair,
    Reading,
}

const DOINGS: usize = 6;

/// Messages, and bytes of shards in them, by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    messages: [u64; DOINGS],
    bytes: [u64; DOINGS],
    /// Shards proven, and not proven, in audits.
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// Honest peers that were cut off.
    pub(super) blocked: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, doing: Doing, bytes: u64) {
        self.messages[doing as usize] += 1;
        self.bytes[doing as usize] += bytes;
    }

    pub(super) fn bytes(&self, doing: Doing) -> u64 {
        self.bytes[doing as usize]
    }

    pub(super) fn fill(&self, report: &mut YearReport) {
        (report.messages, report.bytes) = (self.messages, self.bytes);
        report.repair_bytes = self.bytes(Doing::Repair);
        report.audits = (self.passed, self.failed);
        report.blocked.0 = self.blocked;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for i in 0..DOINGS {
            self.messages[i] += other.messages[i];
            self.bytes[i] += other.bytes[i];
        }
        self.passed += other.passed;
        self.failed += other.failed;
        self.blocked += other.blocked;
    }
}

/// What repairs came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Mended {
    pub(super) times: u64,
    /// Rows that were made.
    pub(super) rows: u64,
    /// Rows in place of those of peers that had left for good,
    pub(super) gone: u64,
    /// of peers that had dropped them or bend what they send,
    pub(super) lied: u64,
    /// and of peers that were only away.
    pub(super) back: u64,
    /// Bytes that it takes at least to make good what had left for good or was dropped.
    pub(super) least: f64,
    /// Bytes that these rows had.
    pub(super) bare: f64,
    /// Repairs that did not come to their end, and bytes that were moved for them.
    pub(super) failed: u64,
    pub(super) wasted: u64,
    /// Looks that found a segment with fewer rows that count than it takes to read it.
    pub(super) hopeless: u64,
}

impl Mended {
    pub(super) fn fill(&self, report: &mut YearReport) {
        report.repairs = [self.times, self.rows, self.gone, self.lied, self.back];
        report.repairs_failed = [self.failed, self.wasted, self.hopeless];
        (report.repair_least, report.repair_bare) = (self.least, self.bare);
    }
}

/// What a year came to: all figures that are printed, and the trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct YearReport {
    /// Peers, owners and days.
    pub size: (usize, usize, u64),
    /// Segments that were acknowledged,
    pub acknowledged: u64,
    /// and lost: fewer than k rows are with anybody, there or not.
    pub lost: u64,
    /// Uploads that found too few peers, and were tried again.
    pub uploads_put_off: u64,
    /// Mean rows that suffice, and that are placed.
    pub code: (f64, f64),
    /// Looks at a segment, and those that found k rows at hand.
    pub looks: u64,
    /// Of them, those at which it could be read.
    pub readable: u64,
    /// The same by hour of the day.
    pub by_hour: [(u64, u64); 24],
    /// What plans said of their worst hour, in the mean: the probability that a segment is not readable.
    pub planned_unreadable: f64,
    /// What plans said of a year: the probability that a segment is lost, in the mean.
    pub planned_lost: f64,
    /// Segments that are lost when nobody mends anything, by the model: the sum of their probabilities, and of what these vary by.
    pub if_unmended: (f64, f64),
    /// Segments that are lost though they are mended, by the model.
    pub if_mended: f64,
    /// Reads of whole segments by the real node in the end, and those that succeeded.
    pub reads: (u64, u64),
    /// Bytes of shards that were stored, in the mean over the time since the first upload.
    pub stored: f64,
    /// Years since the first upload.
    pub years: f64,
    /// Bytes that repair has moved,
    pub repair_bytes: u64,
    /// and at least takes.
    pub repair_least: f64,
    /// Bytes of the rows that were lost and made good.
    pub repair_bare: f64,
    /// Bytes that the model expects repair to move.
    pub repair_expected: f64,
    /// Repairs; rows made; rows of peers gone, of liars, of peers that were only away.
    pub repairs: [u64; 5],
    /// Repairs that were broken off, bytes that were moved for them, and looks that found fewer rows that count than are needed.
    pub repairs_failed: [u64; 3],
    /// Rows that count for their owner at the end and are with nobody, of so many.
    pub phantom: (u64, u64),
    /// The greatest number of such rows in one segment, and the least of rows beyond k that there really were in any.
    pub margin: (u64, i64),
    /// Rows with peers of an attack when they left, the most in one segment, and the most that plans allow to be lost.
    pub sybils: (u64, u64),
    /// Peers that left for good.
    pub departed: u64,
    /// Departures a year as owners have measured them, in the mean.
    pub departures: f64,
    /// Messages of owners: greetings, uploads, audits, renewals, repairs, reads.
    pub messages: [u64; 6],
    /// Bytes of shards and proofs in them.
    pub bytes: [u64; 6],
    /// Shards proven, and not proven.
    pub audits: (u64, u64),
    /// Honest peers that owners cut off, and the other way round.
    pub blocked: (u64, u64),
    /// Lookups in the DHT: how many, rounds of them, peers asked, of which were not there.
    pub lookups: [u64; 4],
    /// Hash over all that happened.
    pub trace: u64,
    /// What chance would have drawn next.
    pub next_random: u64,
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

impl YearReport {
    /// Share of looks at which a segment could be read.
    pub fn availability(&self) -> f64 {
        share(self.readable, self.looks)
    }

    /// The same of the hour of the day in which that was least.
    pub fn worst_hour(&self) -> f64 {
        self.by_hour
            .iter()
            .filter(|(looks, _)| *looks > 0)
            .map(|(looks, good)| share(*good, *looks))
            .fold(1.0, f64::min)
    }

    /// Bytes moved for repair, for each byte stored and year.
    pub fn repair_per_byte_year(&self) -> f64 {
        self.repair_bytes as f64 / (self.stored * self.years).max(1.0)
    }

    /// Bytes moved for repair, by the least that it takes to make good what was lost; 1 where nothing was.
    pub fn repair_ratio(&self) -> f64 {
        if self.repair_least > 0.0 { self.repair_bytes as f64 / self.repair_least } else { 1.0 }
    }

    /// Messages of one owner and day, without greetings.
    pub fn messages_per_owner_day(&self) -> f64 {
        self.messages[1..].iter().sum::<u64>() as f64 / (self.size.1 as f64 * self.size.2 as f64)
    }

    /// Peers asked in one lookup.
    pub fn asked_per_lookup(&self) -> f64 {
        share(self.lookups[2], self.lookups[0])
    }

    /// Rounds of one lookup.
    pub fn rounds_per_lookup(&self) -> f64 {
        share(self.lookups[1], self.lookups[0])
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
        let per_cent = |share: f64| format!("{:.4} %", share * 100.0);
        let per_day = |at: usize| {
            let per = self.messages[at] as f64 / (self.size.1 as f64 * self.size.2 as f64);
            format!("{per:.1}")
        };
        let (peers, owners, days) = self.size;
        let [times, rows, gone, lied, back] = self.repairs;
        let lines = [
            ("peers, owners, days", format!("{peers}, {owners}, {days}")),
            ("peers that left for good", self.departed.to_string()),
            ("segments acknowledged", self.acknowledged.to_string()),
            ("segments lost", self.lost.to_string()),
            ("expected by plans", format!("{:.1e}", self.planned_lost * self.acknowledged as f64 * self.years)),
            ("expected, by who really leaves", format!("{:.1e}", self.if_mended)),
            ("expected if nobody mended", format!("{:.1}", self.if_unmended.0)),
            ("mean k, n", format!("{:.1}, {:.1} ({:.2} times)", self.code.0, self.code.1, self.code.1 / self.code.0)),
            ("readable", per_cent(self.availability())),
            ("readable in the worst hour", per_cent(self.worst_hour())),
            ("planned for the worst hour", per_cent(1.0 - self.planned_unreadable)),
            ("reads of whole segments at the end", format!("{} of {}", self.reads.1, self.reads.0)),
            ("least rows beyond k, ever", self.margin.1.to_string()),
            ("rows that count and are with nobody", format!("{} of {}", self.phantom.0, self.phantom.1)),
            ("the most of them in one segment", self.margin.0.to_string()),
            ("stored, in the mean", mib(self.stored)),
            ("repairs, rows made", format!("{times}, {rows}")),
            ("rows of peers gone, of liars, away", format!("{gone}, {lied}, {back}")),
            ("repairs broken off", self.repairs_failed[0].to_string()),
            ("looks that found too few rows", self.repairs_failed[2].to_string()),
            ("moved by repair", mib(self.repair_bytes as f64)),
            ("for each byte stored and year", format!("{:.3}", self.repair_per_byte_year())),
            ("the least for what was lost", mib(self.repair_least)),
            ("ratio", format!("{:.2}", self.repair_ratio())),
            ("for each byte that was lost", format!("{:.2}", self.repair_bytes as f64 / self.repair_bare.max(1.0))),
            ("expected by the model", mib(self.repair_expected)),
            ("departures a year, as measured", format!("{:.3}", self.departures)),
            ("uploads put off", self.uploads_put_off.to_string()),
            ("shards proven, not proven", format!("{}, {}", self.audits.0, self.audits.1)),
            ("honest peers cut off", self.blocked.0.to_string()),
            ("messages of an owner a day: greetings*", per_day(0)),
            ("uploads", per_day(1)),
            ("audits", per_day(2)),
            ("renewals", per_day(3)),
            ("repairs", per_day(4)),
            ("rounds of a lookup", format!("{:.2}", self.rounds_per_lookup())),
            ("peers asked in a lookup", format!("{:.1}", self.asked_per_lookup())),
            ("of which were not there", format!("{:.1}", share(self.lookups[3], self.lookups[0]))),
        ];
        let mut table = Builder::new();
        for (what, figure) in lines {
            table.push_record([what.to_string(), figure]);
        }
        let mut table = table.build();
        table.with(Style::blank()).modify(Columns::new(1..), Alignment::right());
        format!("{table}\n* one an hour and peer here; the node greets once a minute")
    }
}
