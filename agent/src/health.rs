//! What `hn health` tells of each volume, and `hn status` of all of them: what was counted, and why it is so.
//!
//! Nothing here is better than what is known: what holders have acknowledged and none has proven is called that, a count of before
//! says of when it is, and how long a repair takes is told by how long the last ones took, or not at all.

use std::sync::Arc;
use std::time::Duration;

use hypernet_core::durability::Nines;
use hypernet_core::id::{PeerId, VolumeId};
use hypernet_fs::vfs::{ROOT, Rooted};
use hypernet_sdk::api::{self, HealthState, Proven};
use os_display::Quotable;

use crate::agent::collect::REPAIRED_AT_ONCE;
use crate::agent::{Agent, Own, blocking, port_failure};
use crate::failure::Failure;
use crate::status::{look, peer_name, upload_of};
use crate::volume::Volume;
use crate::volume::audit::Round;
use crate::volume::health::{Cause, Counts, Sight, Tally, Weakest};
use crate::volume::mending::Mending;
use crate::volume::write::unix_now;

/// How long a count of now is waited for: whoever asks for the health of a volume wants that, and no other one.
const PATIENCE: Duration = Duration::from_secs(60);

/// All volumes, or the one.
pub(crate) async fn health(agent: &Arc<Agent>, only: Option<VolumeId>) -> Result<api::Health, Failure> {
    let own = agent.own()?;
    let sight = look(agent).await;
    let counted = count(own, &sight, PATIENCE).await;
    let agent = agent.clone();
    blocking(move || {
        let own = agent.own()?;
        let (when, trouble) = (counted.when, counted.trouble.as_ref().map(ToString::to_string));
        Ok(api::Health { counted: when, trouble, volumes: volumes(&agent, own, &sight, counted.counts.as_ref(), only) })
    })
    .await?
}

/// The segments of all volumes, as they are told.
pub(crate) struct Counted {
    /// None before the first count.
    pub(crate) counts: Option<Counts>,
    pub(crate) when: api::Counted,
    pub(crate) trouble: Option<Failure>,
}

/// The count of now, or the last one.
pub(crate) async fn count(own: &Own, sight: &Sight, within: Duration) -> Counted {
    let Some(told) = own.counter.count(&own.volume, sight, within).await else {
        return Counted { counts: None, when: api::Counted::Never, trouble: None };
    };
    let when = told.ago.map_or(api::Counted::Now, |ago| api::Counted::Before { seconds: ago.as_secs() });
    match told.count.counts.clone() {
        Ok(counts) => Counted { counts: Some(counts), when, trouble: None },
        Err(error) => Counted { counts: None, when: api::Counted::Never, trouble: Some(port_failure(error)) },
    }
}

/// Each that has something in it, or its root in the tree.
fn volumes(
    agent: &Agent,
    own: &Own,
    sight: &Sight,
    counts: Option<&Counts>,
    only: Option<VolumeId>,
) -> Vec<api::VolumeHealth> {
    let rooted = own.vfs.volumes();
    let mut all: Vec<VolumeId> = rooted.iter().map(|root| root.volume).collect();
    let stored = counts.iter().flat_map(|counts| &counts.of).filter(|(_, tally)| tally.segments + tally.damaged > 0);
    all.extend(stored.map(|(id, _)| *id));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|id| seen.insert(*id) && only.is_none_or(|only| only == *id));
    let none = Tally::default();
    let audits = own.auditor.view();
    all.into_iter()
        .map(|id| {
            let tally = counts.map(|counts| counts.of.get(&id).unwrap_or(&none));
            volume(agent, own, sight, (id, &rooted), tally, &audits)
        })
        .collect()
}

fn volume(
    agent: &Agent,
    own: &Own,
    sight: &Sight,
    (id, rooted): (VolumeId, &[Rooted]),
    tally: Option<&Tally>,
    audits: &Round,
) -> api::VolumeHealth {
    let pending = own.vfs.pending(id);
    let proven = proven(audits, &id);
    let repair = repair(agent, own, &id, tally.unwrap_or(&Tally::default()));
    let mut state = tally.map_or(HealthState::Unknown, |tally| state(tally, pending.files, proven));
    let mut reasons = tally.map_or_else(Vec::new, |tally| reasons(tally, sight, proven));
    let is_vacant = rooted.iter().any(|root| root.volume == id && root.is_vacant && root.ino != ROOT);
    if state < HealthState::Unknown && (agent.config.lock().recovering || is_vacant) {
        state = HealthState::Unknown;
        reasons.insert(
            0,
            "its head was not found yet on this device: what is told is no more than what is here".to_owned(),
        );
    }
    api::VolumeHealth {
        id: id.to_string(),
        name: name(own, rooted, &id),
        state,
        safety: tally.map(safety),
        waiting_files: pending.files,
        waiting_bytes: pending.bytes,
        upload: own.engine_of(id).map(|engine| upload_of(&engine)),
        repair,
        proven,
        reasons,
    }
}

fn name(own: &Own, rooted: &[Rooted], id: &VolumeId) -> String {
    let root = rooted.iter().find(|root| root.volume == *id);
    if let Some(path) = root.and_then(|root| own.vfs.path(root.ino).ok()) {
        return path.to_str().map_or_else(|| path.quote().to_string(), str::to_owned);
    }
    let keystore = own.volume.identity.keystore().keystore();
    match keystore.branches.iter().find(|branch| branch.volume == *id) {
        Some(branch) => format!("branch {}", branch.name),
        None => format!("{} (not in the tree)", id.short()),
    }
}

/// What is to be mended in a volume, and how that goes.
fn repair(agent: &Agent, own: &Own, id: &VolumeId, tally: &Tally) -> api::RepairStatus {
    let open: Option<Arc<Volume>> = own.volumes.all().into_iter().find(|volume| volume.id == *id);
    let mending = open.map(|volume| volume.mending.lock().clone()).unwrap_or_default();
    let held = match own.engine_of(*id) {
        None => Some("the volume is not open on this device".to_owned()),
        Some(engine) => engine.is_held().then(|| "what is uploaded is held back until `hn sync`".to_owned()),
    };
    // Before the first look there is one soon after the start.
    let since = mending.last.as_ref().map_or_else(|| agent.began.elapsed(), |last| last.at.elapsed());
    let every = agent.looks_every();
    told(tally, &mending, held, every.saturating_sub(since), every)
}

/// `held`: why this device mends nothing for now.
pub(crate) fn told(
    tally: &Tally,
    mending: &Mending,
    held: Option<String>,
    next: Duration,
    every: Duration,
) -> api::RepairStatus {
    let found = mending.last.as_ref().and_then(|last| last.found.as_ref().ok());
    let is_due = tally.due > 0;
    let is_held = held.is_some();
    let takes = || mending.takes(tally.due_bytes, next, every, REPAIRED_AT_ONCE);
    api::RepairStatus {
        due: tally.due,
        due_bytes: tally.due_bytes,
        due_catalog: tally.due_catalog,
        mended: found.map_or(0, |found| found.mended),
        mended_bytes: found.map_or(0, |found| found.bytes),
        looked_seconds: mending.last.as_ref().map(|last| last.at.elapsed().as_secs()),
        next_seconds: (!is_held).then_some(next.as_secs()),
        stopped: held.or_else(|| mending.last.as_ref().and_then(|last| last.stopped().cloned())).filter(|_| is_due),
        eta_seconds: takes().filter(|_| is_due && !is_held).map(|time| time.as_secs()),
    }
}

/// That of all volumes together, which are mended one after the other.
pub(crate) fn all_repair(agent: &Agent, own: &Own, counts: &Counts) -> api::RepairStatus {
    let each = counts.of.iter().map(|(id, tally)| repair(agent, own, id, tally));
    each.filter(|repair| repair.due + repair.mended > 0).fold(api::RepairStatus::default(), and)
}

fn and(all: api::RepairStatus, one: api::RepairStatus) -> api::RepairStatus {
    let all_due = |status: &api::RepairStatus| status.due > 0;
    let eta = match (all_due(&all), all_due(&one)) {
        (true, true) => all.eta_seconds.zip(one.eta_seconds).map(|(all, one)| all.max(one)),
        (true, false) => all.eta_seconds,
        (false, _) => one.eta_seconds,
    };
    let first = |all: Option<u64>, one: Option<u64>| all.into_iter().chain(one).min();
    api::RepairStatus {
        due: all.due + one.due,
        due_bytes: all.due_bytes + one.due_bytes,
        due_catalog: all.due_catalog + one.due_catalog,
        mended: all.mended + one.mended,
        mended_bytes: all.mended_bytes + one.mended_bytes,
        looked_seconds: first(all.looked_seconds, one.looked_seconds),
        next_seconds: first(all.next_seconds, one.next_seconds),
        stopped: all.stopped.or(one.stopped),
        eta_seconds: eta,
    }
}

/// How safe what was counted is.
pub(crate) fn safety(tally: &Tally) -> api::Safety {
    let is_there = tally.segments > 0;
    let first = |margins: &std::collections::BTreeMap<i32, u64>| margins.keys().next().copied();
    let (lost, least_margin) = (tally.lost(), first(&tally.margins));
    let margins = tally.margins.iter().map(|(margin, segments)| (*margin, *segments));
    api::Safety {
        segments: tally.segments,
        margins: margins.map(|(margin, segments)| api::MarginBucket { margin, segments }).collect(),
        lost,
        unreadable: tally.unreadable_now(),
        least_margin,
        least_domains: first(&tally.domains),
        readable: is_there.then_some(if lost > 0 { 0.0 } else { 1.0 - tally.unreadable.0 }),
        nines: is_there.then(|| if lost > 0 { 0.0 } else { Nines::of(tally.losing.0).0 }),
        expected_lost: tally.losing.1,
    }
}

pub(crate) fn state(tally: &Tally, waiting: u64, proven: Proven) -> HealthState {
    if tally.lost() > 0 {
        HealthState::Lost
    } else if tally.unreadable_now() > 0 {
        HealthState::Unreadable
    } else if tally.damaged > 0 {
        HealthState::Unknown
    } else if tally.segments == 0 {
        if waiting > 0 { HealthState::Local } else { HealthState::Empty }
    } else if tally.due > 0 {
        HealthState::Worn
    } else {
        match proven {
            Proven::Round { .. } => HealthState::Well,
            Proven::Never | Proven::Partly { .. } => HealthState::Acknowledged,
        }
    }
}

/// When holders of a volume have last proven what they have.
pub(crate) fn proven(audits: &Round, id: &VolumeId) -> Proven {
    let Some(answered) = audits.answered(id) else { return Proven::Never };
    let seconds = unix_now().saturating_sub(answered.last.0);
    // A round goes through all that is there, and what is newer has its turn in the next one.
    match audits.last.as_ref().is_some_and(|last| answered.first <= last.at) {
        true => Proven::Round { seconds, unanswered: audits.unanswered(id) },
        false => Proven::Partly { seconds },
    }
}

/// Why it is so, the worst first.
pub(crate) fn reasons(tally: &Tally, sight: &Sight, proven: Proven) -> Vec<String> {
    let mut reasons = Vec::new();
    if tally.segments == 0 {
        reasons.push("nothing of it is on the mesh".to_owned());
    }
    if let Some(weakest) = &tally.weakest {
        reasons.push(weakest_words(weakest));
    }
    if tally.damaged > 0 {
        let damaged = tally.damaged;
        reasons.push(format!(
            "{damaged} rows of this device's index are damaged: where what they are of is, is not known"
        ));
    }
    let unreadable = tally.unreadable_now().saturating_sub(tally.lost());
    if unreadable > 0 {
        reasons.push(format!("{unreadable} segments cannot be read until more peers are back"));
    }
    for (cause, peers) in &tally.causes {
        reasons.push(cause_words(*cause, peers.values().sum(), peers.keys().next(), peers.len()));
    }
    if tally.homeless > 0 {
        reasons.push(format!("{} shards are with nobody: fewer peers took some than was planned", tally.homeless));
    }
    if tally.crowded > 0 {
        reasons.push(format!("of {} segments one peer has several shards: it takes all of them along", tally.crowded));
    }
    let (margin, domains) = (tally.margins.keys().next(), tally.domains.keys().next());
    if let (Some(margin), Some(domains)) = (margin, domains)
        && domains < margin
    {
        let weak: u64 = tally.domains.range(..margin).map(|(_, segments)| segments).sum();
        let survive = match domains {
            0.. => format!("{domains} subnets"),
            _ => "no subnet at all".to_owned(),
        };
        reasons.push(format!("{weak} segments lie with few subnets: the weakest outlives the loss of {survive}"));
    }
    if tally.unlisted > 0 {
        reasons.push(format!(
            "{} listings of the catalog are not on this device: what they list is not counted",
            tally.unlisted
        ));
    }
    if let Err(why) = &sight.plan
        && tally.segments > 0
    {
        reasons.push(format!("nothing can be mended: {why}"));
    }
    if tally.segments > 0 {
        match proven {
            Proven::Never => reasons.push(
                "no holder has been asked to prove anything yet: this is what they acknowledged when they took it"
                    .to_owned(),
            ),
            Proven::Partly { .. } => {
                reasons.push(
                    "the first round of audits has not gone through all of it: the rest is what holders acknowledged"
                        .to_owned(),
                );
            }
            Proven::Round { unanswered: 0, .. } => {}
            Proven::Round { unanswered, .. } => reasons.push(format!(
                "{unanswered} peers were away at their turn to prove what they have, and are asked when they are back"
            )),
        }
    }
    reasons
}

fn weakest_words(weakest: &Weakest) -> String {
    let Weakest { margin, k, rows, peers, there, is_catalog, .. } = weakest;
    let of = if *is_catalog { " (of the catalog)" } else { "" };
    let few = if *margin <= 1 { "few peers: " } else { "" };
    let percent = (there * 1000.0).floor() / 10.0;
    match margin {
        0.. => format!(
            "{few}any {k} of the {rows} shards of the weakest segment{of} restore it, and the {peers} peers that have them are there \
             {percent} % of their worst hour"
        ),
        _ => format!(
            "lost, as far as is known: of the weakest segment{of} {rows} shards count, and it takes {k} to read it"
        ),
    }
}

fn cause_words(cause: Cause, rows: u64, first: Option<&PeerId>, peers: usize) -> String {
    let with = match (peers, first) {
        (1, Some(peer)) => format!("peer {}", peer_name(peer)),
        _ => format!("{peers} peers"),
    };
    match cause {
        Cause::Unproven => format!("{rows} shards do not count: {with} could not prove to have them"),
        Cause::Lacking => format!("{rows} shards do not count: {with} lost or spoiled them, by their own word"),
        Cause::Gone => format!("{rows} shards do not count: {with} must be taken to be gone for good"),
        Cause::Leaving => {
            format!(
                "{rows} shards do not count: {with} stops storing for others, and has them until they are elsewhere"
            )
        }
        Cause::Suspect => format!("{rows} shards are with {with} away for more than a day"),
        Cause::Away => format!("{rows} shards are with {with} not there now"),
        Cause::Unmet => format!("{rows} shards are with {with} that this device has not met"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_mended_one_after_the_other_and_what_is_not_known_of_one_is_not_of_all() {
        let one = api::RepairStatus {
            due: 2,
            due_bytes: 10,
            mended: 1,
            next_seconds: Some(60),
            eta_seconds: Some(70),
            ..api::RepairStatus::default()
        };
        let other = api::RepairStatus { next_seconds: Some(5), eta_seconds: None, ..one.clone() };
        let both = and(one.clone(), other.clone());
        assert_eq!((both.due, both.due_bytes, both.mended), (4, 20, 2));
        assert_eq!((both.next_seconds, both.eta_seconds), (Some(5), None));
        let quiet = api::RepairStatus { due: 0, ..other };
        assert_eq!(and(one.clone(), quiet.clone()).eta_seconds, Some(70));
        assert_eq!(and(quiet, one).eta_seconds, Some(70));
    }

    #[test]
    fn a_volume_is_what_the_worst_of_it_is() {
        let round = Proven::Round { seconds: 1, unanswered: 0 };
        let whole = Tally { segments: 2, ..Tally::default() };
        assert_eq!(state(&whole, 0, round), HealthState::Well);
        // Only a round that has gone through all of it is a proof of all of it.
        assert_eq!(state(&whole, 9, Proven::Partly { seconds: 1 }), HealthState::Acknowledged);
        assert_eq!(state(&whole, 0, Proven::Never), HealthState::Acknowledged);
        let worn = Tally { due: 1, ..whole };
        assert_eq!(state(&worn, 0, round), HealthState::Worn);
        let damaged = Tally { damaged: 1, ..worn };
        assert_eq!(state(&damaged, 0, round), HealthState::Unknown);
        let mut unreadable = damaged;
        unreadable.health.insert((3, false), 1);
        assert_eq!(state(&unreadable, 0, round), HealthState::Unreadable);
        unreadable.margins.insert(-1, 1);
        assert_eq!(state(&unreadable, 0, round), HealthState::Lost);
        assert_eq!(state(&Tally::default(), 0, Proven::Never), HealthState::Empty);
        assert_eq!(state(&Tally::default(), 1, round), HealthState::Local);
        // An index of which nothing can be read is not an empty volume.
        assert_eq!(state(&Tally { damaged: 1, ..Tally::default() }, 0, round), HealthState::Unknown);
    }
}
