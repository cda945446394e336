//! `hn status` and `hn peers`.

use std::time::{Duration, Instant};

use hypernet_sdk::api::{
    AuditStatus, Audited, Counted, Depositor, DonorsEvent, HealthBucket, Path, PeerInfo, PlanStatus, ReachStatus,
    Reachability, Safety, Status, Upload, VolumeStatus, Whose,
};
use hypernet_sdk::{Client, ErrorCode, Home};

use super::health::{kept, mending};
use crate::args::peers::Peers;
use crate::error::Failure;
use crate::output::{Output, bar::Bar, table, words};

pub(crate) async fn status(home: Home, out: &mut Output) -> Result<(), Failure> {
    let status = Client::new(home)?.status().await?;
    out.json(&status)?;
    out.line(table::list(rows(&status)))?;
    for warning in &status.warnings {
        if !out.is_json() {
            out.warning(warning);
        }
    }
    Ok(())
}

fn rows(status: &Status) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| rows.push((name.to_owned(), value));
    add(
        "agent",
        format!(
            "hnd {}, process {}, up {}, {} in memory",
            status.version,
            status.pid,
            words::seconds(status.uptime_seconds),
            words::bytes(status.rss_bytes)
        ),
    );
    add("home", status.home.display().to_string());
    if let Some(identity) = &status.identity {
        add("identity", identity.clone());
    }
    add(
        "device",
        match &status.device_id {
            Some(id) => format!("{} ({})", status.device_name, words::short(id)),
            None => format!("{} (stores for others only)", status.device_name),
        },
    );
    if let Some(keystore) = &status.keystore {
        add("keystore", format!("{}, sealed by a {}", keystore.path.display(), keystore.sealed_by.words()));
    }
    add("peer", status.peer.clone());
    add("network", status.network.clone());
    add(
        "peers",
        format!(
            "{} connected, {} of them store for others, {} known",
            words::count(status.peers.connected),
            words::count(status.peers.donors),
            words::count(status.peers.known)
        ),
    );
    if let Some(reach) = &status.reach {
        add("reached", reached(reach));
        if reach.upload.is_some() || reach.download.is_some() {
            let limit =
                |limit: Option<u64>| limit.map_or("any".to_owned(), |bytes| format!("{}/s", words::bytes(bytes)));
            add("line", format!("at most {} out, {} in", limit(reach.upload), limit(reach.download)));
        }
    }
    add(
        "donates",
        format!(
            "{} of {} used, {}, at most {} % for newcomers",
            words::bytes(status.donate.used),
            words::bytes(status.donate.quota),
            words::plural(status.donate.shards, "shard"),
            status.donate.newcomers_percent
        ),
    );
    if let Some(volume) = &status.volume {
        add(
            "mount",
            match &status.mount {
                Some(mount) => format!("{} ({})", mount.dir.display(), mount.profile.word()),
                None => "none".to_owned(),
            },
        );
        rows.extend(volume_rows(volume));
    }
    rows
}

fn reached(reach: &ReachStatus) -> String {
    let mut words = match reach.reachability {
        Reachability::Public => format!("from everywhere, at {}", reach.external.join(", ")),
        Reachability::Private if reach.relays.is_empty() => {
            "by nobody from outside: no peer that could be a relay is connected".to_owned()
        }
        Reachability::Private => {
            format!("over {}, and then by hole punching", words::plural(reach.relays.len() as u64, "relay"))
        }
        Reachability::Unknown => "on this network; whether from outside is not known".to_owned(),
    };
    if reach.hosted > 0 {
        words += &format!("; a relay for {}", words::plural(reach.hosted, "other"));
    }
    match &reach.router {
        Some(says) if reach.reachability != Reachability::Public => format!("{words}; the router: {says}"),
        _ => words,
    }
}

fn volume_rows(volume: &VolumeStatus) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| rows.push((name.to_owned(), value));
    add("volume", volume.id.clone());
    let overhead = match volume.bytes_logical {
        0 => String::new(),
        logical => format!(" ({:.2} x)", volume.bytes_stored as f64 / logical as f64),
    };
    add(
        "on the mesh",
        match volume.counted {
            Counted::Never => "being counted".to_owned(),
            Counted::Now | Counted::Before { .. } => format!(
                "{}, {} stored as {}{overhead}",
                words::plural(volume.segments, "segment"),
                words::bytes(volume.bytes_logical),
                words::bytes(volume.bytes_stored)
            ),
        },
    );
    add(
        "not yet there",
        match volume.dirty_files {
            0 => "nothing".to_owned(),
            files => format!("{}, {}", words::plural(files, "file"), words::bytes(volume.dirty_bytes)),
        },
    );
    if let Some(cache) = volume.cache {
        add("local copies", format!("{} of at most {}", words::bytes(cache.bytes), words::bytes(cache.limit)));
    }
    add("upload", upload(&volume.upload));
    add(
        "last head",
        volume.last_head.map_or_else(
            || "none yet".to_owned(),
            |head| format!("number {}, {} ago", head.sequence, words::seconds(head.age_seconds)),
        ),
    );
    if let Some(plan) = &volume.plan {
        add("new data", format!("any {} of {} shards restore a segment: {}", plan.k, plan.n, plan.words));
        add("expected", expected(plan));
    }
    match volume.counted {
        Counted::Never => add("health", "being counted".to_owned()),
        Counted::Now if volume.health.is_empty() => {}
        counted => add("health", health(&volume.health, counted)),
    }
    if let Some(safety) = volume.safety.as_ref().filter(|safety| safety.segments > 0) {
        add("safety", safe(safety));
        add("to be mended", mending(&volume.repair));
    }
    if let Some(audits) = &volume.audits {
        add("audits", audited(audits));
    }
    if let Some(spare) = volume.spare {
        let more = words::plural(spare.into(), "more peer");
        add("stored data", format!("any {more} may be gone, and all of it can be read"));
    }
    if let Some(until) = volume.unattended_until {
        let day = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(until.min(253_402_300_799)),
        );
        let day = day.to_string();
        let day = day.get(..10).unwrap_or(&day);
        add("unattended", format!("all of it stays until {day} though no device of yours runs"));
    }
    if volume.recovering {
        add("recovery", "not ended; `hn recover` goes on with it".to_owned());
    }
    rows
}

fn safe(safety: &Safety) -> String {
    let mut text = match (safety.lost, safety.least_margin) {
        (0, Some(margin @ 0..)) => {
            let peers = words::plural(u64::from(margin.unsigned_abs()), "peer");
            format!("any {peers} may go for good, and nothing is lost; {} a year against loss", kept(safety))
        }
        (lost, _) => format!("{} LOST, as far as is known", words::plural(lost, "segment")),
    };
    if let Some(readable) = safety.readable {
        text += &format!("; readable {} of the worst hour", words::percent_at_least(readable));
    }
    text + "; `hn health` says of what, and why"
}

fn expected(plan: &PlanStatus) -> String {
    format!(
        "readable {} of the time with peers there {} of it in their worst hour, {} a year against loss, repair \
         due at {} of {} shards",
        words::percent_at_least(plan.readable),
        words::percent(plan.availability),
        words::plural(plan.nines as u64, "nine"),
        plan.threshold,
        plan.n
    )
}

fn upload(upload: &Upload) -> String {
    match upload {
        Upload::Idle => "idle".to_owned(),
        Upload::Held => "held back until `hn sync`".to_owned(),
        Upload::Waiting { reason } => format!("waiting: {reason}"),
        Upload::Stopped { reason } => format!("stopped: {reason}"),
        Upload::Running(progress) => format!(
            "{}: {} of {}, {} of {}",
            progress.phase,
            words::bytes(progress.bytes_done),
            words::bytes(progress.bytes_total),
            words::count(progress.files_done),
            words::plural(progress.files_total, "file")
        ),
    }
}

fn audited(audits: &AuditStatus) -> String {
    let words = |shards: &Audited| {
        let asked = shards.passed + shards.failed();
        let mut text = match shards.failed() {
            0 => format!("{} proven", words::plural(asked, "shard")),
            failed => format!("{} of {} NOT proven", words::count(failed), words::plural(asked, "shard")),
        };
        if shards.unasked > 0 {
            text += &format!(", {} with holders that are away", words::count(shards.unasked));
        }
        text
    };
    match &audits.last {
        None => format!("{} so far; the first round has not ended", words(&audits.now)),
        Some(last) => {
            let mut text =
                format!("{} in the round that ended {} ago", words(&last.shards), words::seconds(last.age_seconds));
            if audits.now.failed() > 0 {
                text += &format!("; since then {}", words(&audits.now));
            }
            text
        }
    }
}

fn health(buckets: &[HealthBucket], counted: Counted) -> String {
    let parts = buckets.iter().map(|bucket| match (bucket.missing, bucket.readable) {
        (0, _) => format!("{} whole", words::plural(bucket.segments, "segment")),
        (missing, true) => {
            format!("{} missing {}", words::count(bucket.segments), words::plural(missing.into(), "shard"))
        }
        (missing, false) => {
            format!(
                "{} missing {}: NOT READABLE now",
                words::count(bucket.segments),
                words::plural(missing.into(), "shard")
            )
        }
    });
    let mut health = parts.collect::<Vec<_>>().join(", ");
    if health.is_empty() {
        health = "no segments".to_owned();
    }
    match counted {
        Counted::Now | Counted::Never => health,
        Counted::Before { seconds } => {
            format!("{health}; counted {} ago, and being counted anew: it may be worse now", words::seconds(seconds))
        }
    }
}

pub(crate) async fn peers(home: Home, args: Peers, out: &mut Output) -> Result<(), Failure> {
    let client = Client::new(home)?;
    if let Some(wanted) = args.wait {
        wait(&client, wanted, Duration::from_secs(args.timeout), out).await?;
    }
    let peers = client.peers().await?;
    out.json(&peers)?;
    if peers.is_empty() {
        return out.line("no peer is known yet; `hn invite` prints the link by which others join");
    }
    out.line(peer_table(&peers))
}

async fn wait(client: &Client, wanted: u64, within: Duration, out: &Output) -> Result<(), Failure> {
    let began = Instant::now();
    let mut bar = Bar::new(out, "peers that store");
    let mut events = client.donors(Some(wanted)).await?;
    // How many are there now is told at once, and heard also by who does not want to wait.
    let mut event = events.next().await?;
    while let Some(DonorsEvent::Progress { donors }) = event {
        bar.count(donors, wanted);
        let next = tokio::time::timeout(within.saturating_sub(began.elapsed()), events.next()).await;
        event = next.map_err(|_| {
            let seconds = within.as_secs();
            Failure::new(
                ErrorCode::TryAgain,
                format!("{donors} of {wanted} peers that store are connected after {seconds} s"),
            )
            .hint("`hn peers` shows who is there")
        })??;
    }
    match event {
        Some(_) => Ok(()),
        None => Err(events.interrupted().into()),
    }
}

fn peer_table(peers: &[PeerInfo]) -> String {
    let unknown = || "-".to_owned();
    let rows = peers.iter().map(|peer| {
        vec![
            words::short(&peer.peer),
            whose(peer),
            path(peer),
            peer.rtt_micros.map_or_else(unknown, |micros| format!("{:.1} ms", micros as f64 / 1e3)),
            peer.free.map_or_else(unknown, words::bytes),
            peer.shards.map_or_else(unknown, words::count),
            peer.availability.map_or_else(unknown, words::percent),
            words::percent(peer.worst_hour),
            why(peer),
        ]
    });
    let columns = ["PEER", "WHOSE", "REACHED", "RTT", "FREE", "OUR SHARDS", "AVAILABLE", "WORST HOUR", "WHY"];
    table::table(&columns, rows.collect(), &[3, 4, 5, 6, 7])
}

/// By whom it is served, and serves: whoever is known is called by name.
fn whose(peer: &PeerInfo) -> String {
    match (peer.whose, &peer.name, peer.depositor) {
        (Some(Whose::Own), ..) => "yours".to_owned(),
        (Some(Whose::Contact), Some(name), _) => name.clone(),
        (Some(Whose::Contact), None, _) => "a contact's".to_owned(),
        (None, _, Some(Depositor::Reciprocal)) => "stores for you".to_owned(),
        (None, _, Some(Depositor::Newcomer)) => "newcomer".to_owned(),
        (None, _, Some(Depositor::Known) | None) => "-".to_owned(),
    }
}

fn path(peer: &PeerInfo) -> String {
    let transport = peer.transport.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    match (peer.connected, peer.path) {
        (false, _) => peer.presence.word().to_owned(),
        (true, None) => "connected".to_owned(),
        (true, Some(Path::Direct)) => format!("direct{transport}"),
        (true, Some(Path::HolePunched)) => format!("hole-punched{transport}"),
        (true, Some(Path::Relayed)) => match &peer.relay {
            Some(relay) => format!("relayed by {}", words::short(relay)),
            None => "relayed".to_owned(),
        },
    }
}

/// What speaks against it comes first: whoever looks at the table looks for that.
fn why(peer: &PeerInfo) -> String {
    let mut parts: Vec<String> = peer.note.iter().cloned().collect();
    if !peer.connected {
        parts.push(match peer.seen_seconds {
            Some(seconds) => format!("last here {} ago", words::seconds(seconds)),
            None => "not met since the agent started".to_owned(),
        });
    }
    parts.extend(peer.why.clone());
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::{AuditRound, Presence};

    use super::*;

    fn peer(connected: bool) -> PeerInfo {
        PeerInfo {
            peer: "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".into(),
            address: Some("/ip4/127.0.0.1/udp/4001/quic-v1".into()),
            connected,
            quota: Some(1 << 30),
            free: connected.then_some(1 << 29),
            shards: Some(12),
            availability: Some(0.985),
            rtt_micros: None,
            presence: if connected { Presence::Here } else { Presence::Suspect },
            away_seconds: if connected { 0 } else { 100_000 },
            worst_hour: 0.5,
            honesty: 1.0,
            bytes_per_second: None,
            young: false,
            subnet: None,
            whose: None,
            name: None,
            operator: None,
            depositor: Some(Depositor::Newcomer),
            holds: 0,
            to_newcomer: false,
            leaving: false,
            note: (!connected).then(|| "faults: 3".to_owned()),
            path: connected.then_some(Path::Direct),
            relay: None,
            transport: connected.then(|| "quic".to_owned()),
            why: Some(
                if connected { "on the same network, dialed by us" } else { "no answer at /ip4/10.0.0.1" }.to_owned(),
            ),
            seen_seconds: (!connected).then_some(70),
            tried_seconds: (!connected).then_some(5),
        }
    }

    #[test]
    fn audits_are_one_line_that_is_green_over_no_shard_that_is_gone() {
        let good = Audited { passed: 12, ..Audited::default() };
        let bad = Audited { passed: 3, lied: 1, missing: 1, unasked: 2, ..Audited::default() };
        let last = |shards| Some(AuditRound { age_seconds: 3 * 86_400, shards });
        let text = |last, now| audited(&AuditStatus { last, now });
        assert_eq!(text(None, Audited::default()), "0 shards proven so far; the first round has not ended");
        assert!(text(last(good), good).starts_with("12 shards proven in the round that ended 3days ago"));
        let found = text(last(good), bad);
        assert!(found.ends_with("; since then 2 of 5 shards NOT proven, 2 with holders that are away"), "{found}");
        assert!(text(last(bad), good).starts_with("2 of 5 shards NOT proven"));
        assert!(text(None, bad).starts_with("2 of 5 shards NOT proven"));
    }

    #[test]
    fn the_table_of_peers_says_what_is_known() {
        let text = peer_table(&[peer(true), peer(false)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].contains("direct (quic)")
                && lines[1].contains("512.00 MiB")
                && lines[1].ends_with("on the same network, dialed by us"),
            "{text}"
        );
        assert!(lines[2].contains("suspect"), "{text}");
        assert!(lines[2].ends_with("faults: 3; last here 1m 10s ago; no answer at /ip4/10.0.0.1"), "{text}");
        let relayed = PeerInfo {
            path: Some(Path::Relayed),
            relay: Some("12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".into()),
            ..peer(true)
        };
        assert!(path(&relayed).starts_with("relayed by "), "{}", path(&relayed));
        assert_eq!(path(&PeerInfo { path: Some(Path::HolePunched), ..peer(true) }), "hole-punched (quic)");
    }

    #[test]
    fn a_peer_is_called_by_whose_it_is() {
        assert_eq!(whose(&peer(true)), "newcomer");
        assert_eq!(whose(&PeerInfo { depositor: Some(Depositor::Reciprocal), ..peer(true) }), "stores for you");
        let of = |whose, name: Option<&str>| PeerInfo {
            whose: Some(whose),
            name: name.map(str::to_owned),
            depositor: Some(Depositor::Known),
            ..peer(true)
        };
        assert_eq!(whose(&of(Whose::Contact, Some("anna"))), "anna");
        assert_eq!(whose(&of(Whose::Own, None)), "yours");
    }

    #[test]
    fn it_is_said_how_this_agent_is_reached() {
        let mut reach = ReachStatus {
            reachability: Reachability::Private,
            external: Vec::new(),
            relays: Vec::new(),
            hosted: 0,
            router: Some("it cannot be asked (no UPnP)".to_owned()),
            upload: None,
            download: None,
        };
        assert!(reached(&reach).starts_with("by nobody from outside"));
        reach.relays = vec!["a".to_owned(), "b".to_owned()];
        let words = "over 2 relays, and then by hole punching; the router: it cannot be asked (no UPnP)";
        assert_eq!(reached(&reach), words);
        reach.reachability = Reachability::Public;
        reach.external = vec!["/ip4/203.0.113.1/udp/4001/quic-v1".to_owned()];
        reach.hosted = 1;
        assert_eq!(reached(&reach), "from everywhere, at /ip4/203.0.113.1/udp/4001/quic-v1; a relay for 1 other");
    }

    #[test]
    fn what_is_expected_is_not_rounded_up() {
        let plan = PlanStatus {
            k: 20,
            n: 50,
            threshold: 41,
            peers: 60,
            availability: 0.75,
            readable: 0.999_999_9,
            nines: 10.97,
            words: String::new(),
        };
        let text = expected(&plan);
        assert!(text.starts_with("readable 99.9999 % of the time with peers there 75"), "{text}");
        assert!(text.ends_with("10 nines a year against loss, repair due at 41 of 50 shards"), "{text}");
    }

    #[test]
    fn health_names_what_cannot_be_read() {
        let buckets = [
            HealthBucket { missing: 0, segments: 5, readable: true },
            HealthBucket { missing: 1, segments: 2, readable: true },
            HealthBucket { missing: 4, segments: 1, readable: false },
        ];
        let text = "5 segments whole, 2 missing 1 shard, 1 missing 4 shards: NOT READABLE now";
        assert_eq!(health(&buckets, Counted::Now), text);
        assert!(health(&[], Counted::Before { seconds: 0 }).starts_with("no segments; counted "));
        let before = health(&buckets, Counted::Before { seconds: 7 });
        assert_eq!(before, format!("{text}; counted 7s ago, and being counted anew: it may be worse now"));
    }
}
