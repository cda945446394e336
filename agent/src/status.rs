//! What `hn status` and `hn peers` show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypernet_core::codec;
use hypernet_core::durability::{K_PREFERRED, Nines, Plan};
use hypernet_core::head::Head;
use hypernet_core::id::{ExtentId, PeerId};
use hypernet_core::node::{PeerView, Presence};
use hypernet_core::segment::{Placement, full_shard_len};
use hypernet_core::tree::Content;
use hypernet_fs::vfs::DurabilityInfo;
use hypernet_sdk::api;
use libp2p::identity::ed25519;

use crate::agent::donate::{depositor, whose};
use crate::agent::mount::MountView;
use crate::agent::{Agent, Own, blocking, port_failure};
use crate::failure::Failure;
use crate::health::{Counted, all_repair, count, safety};
use crate::volume::audit::{Round, Shown};
use crate::volume::heads::Found;
use crate::volume::health::{Counts, SOON, Sight, Tally};
use crate::volume::progress::{Phase, Progress};
use crate::volume::state::Latest;
use crate::volume::sync::Engine;
use crate::volume::write::unix_now;
use crate::volume::{Volume, state};

/// The name under which libp2p and people know a peer.
pub(crate) fn peer_name(peer: &PeerId) -> String {
    match ed25519::PublicKey::try_from_bytes(peer.as_bytes()) {
        Ok(key) => libp2p::identity::PublicKey::from(key).to_peer_id().to_string(),
        Err(_) => peer.to_string(),
    }
}

/// Resident memory of this process.
fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

fn profile(view: &MountView) -> api::MountProfile {
    if view.passthrough { api::MountProfile::Passthrough } else { api::MountProfile::Writeback }
}

pub(crate) fn mounted(view: MountView) -> api::Mounted {
    api::Mounted { profile: profile(&view), dir: view.dir, reason: view.reason }
}

pub(crate) fn progress(progress: &Progress) -> api::Progress {
    let (phase, waiting) = match &progress.phase {
        Phase::Idle => ("idle", None),
        Phase::Uploading => ("uploading", None),
        Phase::Catalog => ("placing the catalog", None),
        Phase::Merging => ("merging what several devices have changed", None),
        Phase::Publishing => ("publishing the head", None),
        Phase::Waiting(why) => ("waiting", Some(why.clone())),
        Phase::Held => ("held", None),
        Phase::Stopped(why) => ("stopped", Some(why.clone())),
    };
    api::Progress {
        phase: phase.to_owned(),
        files_done: progress.files_done,
        files_total: progress.files_total,
        bytes_done: progress.bytes_sealed,
        bytes_total: progress.bytes_total,
        bytes_in_flight: progress.bytes_placing,
        segments_done: progress.segments_placed,
        waiting,
    }
}

pub(crate) fn head_status(head: &Head) -> api::HeadStatus {
    let age_seconds = unix_now().saturating_sub(head.time.millis / 1000);
    api::HeadStatus { sequence: head.sequence, age_seconds }
}

/// That of the main volume, unless it has nothing to say and another one has.
fn upload(own: &Own) -> api::Upload {
    let mut all = own.engines().into_iter().rev().map(|engine| upload_of(&engine));
    let Some(main) = all.next() else {
        return api::Upload::Waiting { reason: "the head of this volume has not been found yet".to_owned() };
    };
    let is_quiet = |upload: &api::Upload| matches!(upload, api::Upload::Idle | api::Upload::Held);
    let other = all.find(|upload| !is_quiet(upload)).filter(|_| is_quiet(&main));
    other.unwrap_or(main)
}

pub(crate) fn upload_of(engine: &Engine) -> api::Upload {
    let now = engine.meter.now();
    match &now.phase {
        Phase::Idle | Phase::Held if engine.is_held() => api::Upload::Held,
        Phase::Idle | Phase::Held => api::Upload::Idle,
        Phase::Waiting(reason) => api::Upload::Waiting { reason: reason.clone() },
        Phase::Stopped(reason) => api::Upload::Stopped { reason: reason.clone() },
        Phase::Uploading | Phase::Merging | Phase::Catalog | Phase::Publishing => api::Upload::Running(progress(&now)),
    }
}

fn plan_status(plan: Plan, peers: usize) -> api::PlanStatus {
    let lost = plan.n - plan.k;
    let mut words = format!("any {lost} of the {} peers that hold a new segment may be gone", plan.n);
    if !plan.meets_target {
        let percent = plan.readable * 100.0;
        words += &format!("; with so few peers data is readable {percent:.2} % of the time instead of 99.99 %");
    }
    if !plan.is_durable() {
        let gone = (1.0 - (-plan.outlook.departures).exp()) * 100.0;
        words += &format!(
            "; if {gone:.0} % of the peers leave for good within a year and nobody joins, {} of what is stored is lost",
            share(plan.nines)
        );
    }
    if !plan.meets_target || !plan.is_durable() {
        words += ": invite more";
    }
    api::PlanStatus {
        k: plan.k.into(),
        n: plan.n.into(),
        threshold: plan.threshold.into(),
        peers: peers as u32,
        availability: plan.outlook.availability,
        readable: plan.readable,
        nines: plan.nines.0,
        words,
    }
}

/// So many nines as people read them.
fn share(nines: Nines) -> String {
    let percent = 100.0 * 10f64.powf(-nines.0);
    match percent {
        0.1.. => format!("{percent:.1} %"),
        _ => format!("one part in 10^{}", nines.whole()),
    }
}

fn presence(presence: Presence) -> api::Presence {
    match presence {
        Presence::Here => api::Presence::Here,
        Presence::Away => api::Presence::Away,
        Presence::Suspect => api::Presence::Suspect,
        Presence::Gone => api::Presence::Gone,
    }
}

pub(crate) async fn look(agent: &Agent) -> Sight {
    agent.node.ask(Sight::of).await.unwrap_or_else(Sight::nobody)
}

/// The peers, the connected ones first.
pub(crate) async fn peers(agent: &Arc<Agent>) -> Result<Vec<api::PeerInfo>, Failure> {
    let view = look(agent).await;
    let counted = match agent.with_volume() {
        Some(own) => count(own, &view, SOON).await,
        None => Counted { counts: Some(Counts::default()), when: api::Counted::Now, trouble: None },
    };
    let round = agent.with_volume().map(|own| own.auditor.view());
    let shard_len = full_shard_len(view.plan.as_ref().map_or(K_PREFERRED, |plan| plan.k)) as u64;
    let links: BTreeMap<PeerId, hypernet_mesh::PeerInfo> =
        agent.mesh.peers().await.into_iter().map(|info| (info.peer, info)).collect();
    let missed: BTreeMap<PeerId, hypernet_mesh::Missed> =
        agent.mesh.missed().await.into_iter().map(|missed| (missed.peer, missed)).collect();
    let mut out: Vec<api::PeerInfo> = view
        .peers
        .into_iter()
        .map(|view| {
            let link = links.get(&view.peer);
            let audited = round.as_ref().and_then(|round| unproven(&round.failing_of(&view.peer)));
            let note = match (view.blocked, view.faults) {
                (true, _) => Some("cut off for a while, for what it did".to_owned()),
                _ if audited.is_some() => None,
                _ if view.distrusted => {
                    Some("lost shards that it held: others get new ones before it for a while".to_owned())
                }
                _ if view.connected && view.to_newcomer && has_less(&view, shard_len) => Some(
                    "keeps the space that it has left for peers that it knows and for those that store for it: this agent is a \
                     newcomer to it"
                        .to_owned(),
                ),
                (false, 0) if view.unanswered > 0 => Some(format!("{} requests unanswered", view.unanswered)),
                (false, 0) => None,
                (false, faults) => Some(format!("faults: {faults}")),
            };
            let note = match (view.leaving, note) {
                (false, note) => note,
                (true, note) => {
                    let leaving = "leaving: it stops storing for others, and what it holds is moved elsewhere";
                    Some(note.map_or_else(|| leaving.to_owned(), |note| format!("{leaving}; {note}")))
                }
            };
            let note = match (note, audited) {
                (Some(note), Some(audited)) => Some(format!("{note}; {audited}")),
                (note, audited) => note.or(audited),
            };
            api::PeerInfo {
                peer: peer_name(&view.peer),
                address: link.and_then(|link| link.addrs.first()).map(ToString::to_string),
                connected: view.connected,
                quota: view.hello.as_ref().map(|hello| hello.donated),
                free: view.hello.as_ref().map(|hello| hello.free),
                shards: counted.counts.as_ref().map(|counts| counts.all.held.get(&view.peer).copied().unwrap_or(0)),
                availability: Some(view.availability),
                rtt_micros: link.and_then(|link| link.rtt).map(|rtt| rtt.as_micros() as u64).or(view.round_trip),
                presence: presence(view.presence),
                away_seconds: view.away_for / 1000,
                worst_hour: view.worst_hour,
                honesty: view.honesty,
                bytes_per_second: view.rate,
                young: view.young,
                subnet: view.subnet.map(|subnet| subnet.to_string()),
                whose: view.acquaintance.map(|one| whose(one.whose)),
                name: agent.acquainted.of(&view.peer).and_then(|person| person.name),
                operator: view.acquaintance.map(|one| one.operator.to_string()),
                depositor: Some(depositor(view.depositor)),
                holds: view.holds,
                to_newcomer: view.to_newcomer,
                leaving: view.leaving,
                note,
                path: link.map(|link| path(link.path)),
                relay: link.and_then(|link| match link.path {
                    hypernet_mesh::Path::Relayed(relay) => relay.as_ref().map(peer_name),
                    hypernet_mesh::Path::Direct | hypernet_mesh::Path::HolePunched => None,
                }),
                transport: link.map(|link| link.transport.as_str().to_owned()),
                why: match (link, missed.get(&view.peer)) {
                    (Some(link), _) => Some(link.why.clone()),
                    (None, Some(missed)) => missed.failed.as_ref().map(|(_, why)| why.clone()),
                    (None, None) => None,
                },
                seen_seconds: missed.get(&view.peer).and_then(|missed| missed.seen).map(|at| at.elapsed().as_secs()),
                tried_seconds: missed
                    .get(&view.peer)
                    .and_then(|missed| missed.failed.as_ref())
                    .map(|(at, _)| at.elapsed().as_secs()),
            }
        })
        .collect();
    out.sort_by(|a, b| (!a.connected, &a.peer).cmp(&(!b.connected, &b.peer)));
    Ok(out)
}

/// Whether it has no room for so many bytes of this agent.
fn has_less(view: &PeerView, bytes: u64) -> bool {
    view.hello.as_ref().is_some_and(|hello| hello.free < bytes)
}

fn path(path: hypernet_mesh::Path) -> api::Path {
    match path {
        hypernet_mesh::Path::Direct => api::Path::Direct,
        hypernet_mesh::Path::HolePunched => api::Path::HolePunched,
        hypernet_mesh::Path::Relayed(_) => api::Path::Relayed,
    }
}

/// How this agent is reached.
fn reach(standing: &hypernet_mesh::Standing, upload: Option<u64>, download: Option<u64>) -> api::ReachStatus {
    use hypernet_mesh::Reachability;
    api::ReachStatus {
        reachability: match standing.reachability {
            Reachability::Unknown => api::Reachability::Unknown,
            Reachability::Public => api::Reachability::Public,
            Reachability::Private => api::Reachability::Private,
        },
        external: standing.external.iter().map(ToString::to_string).collect(),
        relays: standing.relays.iter().map(peer_name).collect(),
        hosted: standing.hosted as u64,
        router: standing.router.map(str::to_owned),
        upload,
        download,
    }
}

/// Everything at once.
pub(crate) async fn status(agent: &Arc<Agent>) -> Result<api::Status, Failure> {
    let view = look(agent).await;
    let donors: Vec<&PeerView> = view
        .peers
        .iter()
        .filter(|peer| peer.connected && peer.hello.as_ref().is_some_and(|hello| hello.donated > 0))
        .collect();
    let donors = donors.len();
    let plan = view.plan.ok().map(|plan| plan_status(plan, donors));
    let looked_at = match agent.with_volume() {
        Some(own) => {
            let counted = count(own, &view, SOON).await;
            let agent = agent.clone();
            blocking(move || agent.with_volume().map(|own| volume(&agent, own, counted, plan))).await?
        }
        None => None,
    };
    let config = agent.config.lock().clone();
    let mut warnings = agent.notes.clone();
    warnings.extend(agent.with_volume().iter().flat_map(|own| own.closed.lock().values().cloned().collect::<Vec<_>>()));
    if let Some((volume, of_volume)) = &looked_at {
        let unreadable: u64 =
            volume.health.iter().filter(|bucket| !bucket.readable).map(|bucket| bucket.segments).sum();
        if unreadable > 0 {
            warnings
                .push(format!("{unreadable} of {} segments cannot be read until more peers are back", volume.segments));
        }
        if let api::Upload::Waiting { reason } = &volume.upload {
            warnings.push(format!("the upload waits: {reason}"));
        }
        if let Err(why) = &view.plan {
            warnings.push(format!("nothing new can be made durable: {why}"));
        }
        warnings.extend_from_slice(of_volume);
    }
    let mount = agent.mount_view().map(|view| api::MountStatus {
        profile: profile(&view),
        dir: view.dir,
        reason: view.reason,
        top: view.top,
    });
    warnings.extend(agent.hidden_mount());
    if let Some(reason) = mount.as_ref().and_then(|mount| mount.reason.as_ref()) {
        warnings.push(format!("mounted in writeback mode: {reason}"));
    }
    warnings.extend(agent.unused_gift());
    warnings.extend(agent.stopped_giving());
    let standing = agent.mesh.standing().await;
    Ok(api::Status {
        reach: standing.as_ref().map(|standing| reach(standing, config.upload, config.download)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        home: agent.home.path().to_owned(),
        uptime_seconds: agent.began.elapsed().as_secs(),
        rss_bytes: rss_bytes(),
        network: config.network,
        peer: peer_name(&agent.mesh.peer_id()),
        device_name: config.device_name,
        listen: agent.mesh.listen_addrs().iter().map(ToString::to_string).collect(),
        identity: agent.with_volume().map(|own| own.volume.identity.id().to_string()),
        device_id: agent.with_volume().map(|own| own.volume.device.id().to_string()),
        keystore: agent.with_volume().map(|own| api::KeystoreStatus {
            path: agent.home.keystore(),
            sealed_by: own.volume.identity.keystore().unlocked_by(),
        }),
        donate: agent.donated().await,
        mount,
        side_mounts: agent.with_volume().map(crate::agent::Own::side_mounts).unwrap_or_default(),
        volume: looked_at.map(|(volume, _)| volume),
        peers: api::PeersStatus {
            known: view.peers.len() as u64,
            connected: view.peers.iter().filter(|peer| peer.connected).count() as u64,
            donors: donors as u64,
        },
        notes: agent.notes.clone(),
        warnings,
    })
}

/// What to know of the heads on the mesh: that of this device, and those that this tree is without.
fn head_warnings(own: &Own, latest: Option<&Latest>) -> Vec<String> {
    let mut warnings = Vec::new();
    for volume in own.volumes.all() {
        if let Err(error) = volume.still_current() {
            warnings.push(port_failure(error).to_string());
        }
        let below = if volume.id == own.volume.id { None } else { state::latest(&volume.db).ok().flatten() };
        let vector = below.as_ref().or(latest).map_or(&[][..], |latest| &latest.root.vector);
        warnings.extend(volume.heads.lock().twice());
        warnings.extend(volume.heads.lock().not_part_of(vector).iter().map(Found::words));
    }
    warnings.dedup();
    warnings
}

/// A volume, and what its owner should know of it. What is damaged is told there: whoever asks must be answered. Blocks.
fn volume(
    agent: &Agent,
    own: &Own,
    counted: Counted,
    plan: Option<api::PlanStatus>,
) -> (api::VolumeStatus, Vec<String>) {
    let counts = counted.counts;
    let repair = counts.as_ref().map(|counts| all_repair(agent, own, counts)).unwrap_or_default();
    let safety = counts.as_ref().map(|counts| safety(&counts.all));
    let tally = counts.map(|counts| counts.all).unwrap_or_default();
    let pending = own.vfs.volumes().into_iter().map(|rooted| own.vfs.pending(rooted.volume));
    let (dirty_files, dirty_bytes) =
        pending.fold((0, 0), |(files, bytes), pending| (files + pending.files, bytes + pending.bytes));
    let latest = state::latest(&own.volume.db).map_err(port_failure);
    let troubles = counted.trouble.iter().chain(latest.as_ref().err());
    let mut troubles: Vec<String> = troubles.map(ToString::to_string).collect();
    troubles.extend(plan.as_ref().and_then(|plan| weak(&tally, plan.n - plan.k, &repair)));
    troubles.extend(gone(&tally));
    troubles.extend(lost(&own.auditor.view()));
    let latest = latest.unwrap_or_default();
    let spare = tally.spare.keys().next().copied().filter(|_| is_readable(&tally));
    let status = api::VolumeStatus {
        id: own.volume.id.to_string(),
        segments: tally.segments,
        bytes_logical: tally.logical,
        bytes_stored: tally.stored,
        counted: counted.when,
        dirty_files,
        dirty_bytes,
        upload: upload(own),
        last_head: latest.as_ref().map(|latest| head_status(&latest.head)),
        plan,
        health: tally
            .health
            .into_iter()
            .map(|((missing, readable), segments)| api::HealthBucket { missing, segments, readable })
            .collect(),
        spare,
        unattended_until: tally.until,
        safety,
        repair,
        audits: Some(audits(&own.auditor.view())),
        cache: own.trimmer.as_ref().map(|trimmer| api::CacheStatus { bytes: own.vfs.cached(), limit: trimmer.limit }),
        recovering: agent.config.lock().recovering,
    };
    (status, [troubles, head_warnings(own, latest.as_ref())].concat())
}

fn audits(round: &Round) -> api::AuditStatus {
    let shown = |shown: &Shown| api::Audited {
        passed: shown.passed,
        lied: shown.lied,
        damaged: shown.damaged,
        missing: shown.missing,
        unasked: shown.unasked,
    };
    let last = round
        .last
        .as_ref()
        .map(|last| api::AuditRound { age_seconds: unix_now().saturating_sub(last.at.0), shards: shown(&last.shown) });
    api::AuditStatus { last, now: shown(&round.shown) }
}

/// What the audits of this round and the last one have found to be gone, and with whom.
fn lost(round: &Round) -> Option<String> {
    let all = round.failing.iter().chain(round.last.iter().flat_map(|last| &last.failing));
    let peers: BTreeSet<PeerId> = all.map(|failing| failing.peer).collect();
    let count = |peer: &PeerId| (round.failing_of(peer).failed(), *peer);
    let mut worst: Vec<(u64, PeerId)> = peers.iter().map(count).collect();
    worst.sort_unstable_by(|a, b| b.cmp(a));
    let (most, peer) = *worst.first()?;
    let shards: u64 = worst.iter().map(|(shards, _)| shards).sum();
    let others = match worst.len() - 1 {
        0 => String::new(),
        others => format!(", the others with {others} more"),
    };
    Some(format!(
        "audits have found {shards} times that a shard is gone or spoiled that its holder acknowledged: {most} of them with peer {}{others}; \
         `hn peers` shows which",
        peer_name(&peer)
    ))
}

/// What a peer has shown when it was to prove what it holds, where that was not all of it.
fn unproven(shown: &Shown) -> Option<String> {
    let parts = [(shown.lied, "not proven"), (shown.damaged, "spoiled"), (shown.missing, "lost")];
    let parts: Vec<String> =
        parts.iter().filter(|(shards, _)| *shards > 0).map(|(shards, what)| format!("{shards} {what}")).collect();
    (!parts.is_empty()).then(|| format!("shards in audits: {}", parts.join(", ")))
}

fn is_readable(tally: &Tally) -> bool {
    tally.health.keys().all(|(_, readable)| *readable)
}

/// What is stored with less to spare than new data gets, and can be read.
fn weak(tally: &Tally, due: u32, repair: &api::RepairStatus) -> Option<String> {
    let (least, _) = tally.spare.iter().next().filter(|(least, _)| **least < due && is_readable(tally))?;
    let weak: u64 = tally.spare.range(..due).map(|(_, segments)| segments).sum();
    Some(format!(
        "{weak} of {} segments can lose fewer peers than new ones, the weakest of them {least} more: shards of theirs are \
         with peers that are not there, or they were stored when fewer peers took shards; {}",
        tally.segments,
        mending(repair)
    ))
}

/// How many are being mended, and when.
fn mending(repair: &api::RepairStatus) -> String {
    if repair.due == 0 {
        return "none has come down to so few shards that it is mended".to_owned();
    }
    let when = match (repair.next_seconds, repair.stopped.as_ref()) {
        (_, Some(why)) => format!(", and something is in the way: {why}"),
        (Some(0), None) => " now".to_owned(),
        (Some(seconds), None) => format!(" in {}", humantime::format_duration(std::time::Duration::from_secs(seconds))),
        (None, None) => String::new(),
    };
    format!("{} are to be mended{when}", repair.due)
}

/// What is lost, or nobody knows where it is.
fn gone(tally: &Tally) -> Vec<String> {
    let mut gone = Vec::new();
    let (lost, damaged) = (tally.lost(), tally.damaged);
    if lost > 0 {
        gone.push(format!(
            "{lost} of {} segments are lost, as far as is known: fewer of their shards are left than it takes to read them; \
             `hn health` says whose",
            tally.segments
        ));
    }
    if damaged > 0 {
        gone.push(format!(
            "{damaged} rows of the local index are damaged: where what they are of is, is not known here"
        ));
    }
    gone
}

/// Tells `getfattr` how durable a file's content is.
pub(crate) struct Describe(pub(crate) Arc<Volume>);

impl DurabilityInfo for Describe {
    fn describe(&self, content: &Content) -> String {
        let extent: ExtentId = match content {
            Content::Extent(extent) => extent.id(),
            Content::Runs { tree, .. } | Content::Directory(tree) => tree.node.id(),
            // Held by the directory's own node, which is durable with the snapshot.
            Content::Empty | Content::Inline(_) | Content::Symlink(_) => return "durable".to_owned(),
        };
        let located = self.0.db.locate_many(&[extent]).ok().and_then(|mut found| found.pop().flatten());
        let placement = located.and_then(|found| codec::decode::<Placement>(&found.descriptor).ok());
        placement.map_or_else(
            || "durable".to_owned(),
            |placement| {
                // Of rows that were made anew for those who are away, they have theirs still.
                let rows = placement.holders.len().min(placement.n.into());
                format!("durable {rows}/{}", placement.n)
            },
        )
    }
}
