//! `hn health`.

use hypernet_sdk::api::{Counted, Health, HealthRequest, HealthState, MarginBucket, RepairStatus, Safety};
use hypernet_sdk::{Client, ErrorCode, Home};

use crate::args;
use crate::error::Failure;
use crate::output::{Output, table, words};
use crate::volume_path;

pub(crate) async fn health(home: Home, args: args::health::Health, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = args.path.as_deref().map(|path| volume_path::inside(&status, path)).transpose()?;
    let health = client.health(&HealthRequest { path }).await?;
    out.json(&health)?;
    out.line(health_table(&health))?;
    for line in remarks(&health, args.verbose) {
        out.line(line)?;
    }
    check(&health)
}

fn state(state: HealthState) -> &'static str {
    match state {
        HealthState::Empty => "empty",
        HealthState::Well => "well",
        HealthState::Acknowledged => "well, not proven",
        HealthState::Worn => "to be mended",
        HealthState::Local => "ONLY HERE",
        HealthState::Unknown => "not known",
        HealthState::Unreadable => "NOT READABLE",
        HealthState::Lost => "LOST",
    }
}

fn health_table(health: &Health) -> String {
    let rows = health.volumes.iter().map(|volume| {
        let safety = volume.safety.as_ref();
        vec![
            volume.name.clone(),
            state(volume.state).to_owned(),
            safety.map_or_else(unknown, |safety| words::count(safety.segments)),
            safety.map_or_else(unknown, least),
            safety.and_then(|safety| safety.readable).map_or_else(unknown, words::percent_at_least),
            safety.map_or_else(unknown, kept),
            words::bytes(volume.waiting_bytes),
            match volume.repair.due {
                0 => words::count(0),
                due => format!("{} ({})", words::count(due), words::bytes(volume.repair.due_bytes)),
            },
            eta(&volume.repair),
        ]
    });
    let columns =
        ["VOLUME", "STATE", "SEGMENTS", "LEAST MARGIN", "READABLE", "KEPT A YEAR", "WAITING", "TO MEND", "ETA"];
    table::table(&columns, rows.collect(), &[2, 3, 4, 5, 6, 7, 8])
}

fn unknown() -> String {
    "-".to_owned()
}

/// The least margin of its segments.
pub(super) fn least(safety: &Safety) -> String {
    match safety.least_margin {
        None => unknown(),
        Some(margin @ 0..) => words::plural(u64::from(margin.unsigned_abs()), "peer"),
        Some(margin) => format!("{} missing", words::plural(u64::from(margin.unsigned_abs()), "shard")),
    }
}

/// How sure it is that nothing of it is lost within a year.
pub(super) fn kept(safety: &Safety) -> String {
    match (safety.lost, safety.nines) {
        (0, None) => unknown(),
        (0, Some(nines)) => words::plural(nines.max(0.0) as u64, "nine"),
        (lost, _) => format!("{} lost", words::count(lost)),
    }
}

fn eta(repair: &RepairStatus) -> String {
    match (repair.due, repair.eta_seconds) {
        (0, _) | (_, None) => unknown(),
        (_, Some(seconds)) => words::seconds(seconds),
    }
}

/// What is being mended, when, and what is in the way.
pub(super) fn mending(repair: &RepairStatus) -> String {
    if repair.due == 0 {
        return match repair.mended {
            0 => "nothing".to_owned(),
            mended => format!("nothing; the last look has mended {}", words::plural(mended, "segment")),
        };
    }
    let mut text = format!("{}, {} of shards", words::plural(repair.due, "segment"), words::bytes(repair.due_bytes));
    match repair.next_seconds {
        Some(0) => text += "; it is being looked at",
        Some(seconds) => text += &format!("; the next look is in {}", words::seconds(seconds)),
        None => {}
    }
    if let Some(seconds) = repair.eta_seconds {
        text += &format!("; all is mended in about {}", words::seconds(seconds));
    }
    if repair.mended > 0 {
        text += &format!("; the last look has mended {}", words::count(repair.mended));
    }
    if let Some(why) = &repair.stopped {
        text += &format!("; in the way: {why}");
    }
    text
}

fn histogram(buckets: &[MarginBucket]) -> String {
    let parts = buckets.iter().map(|bucket| {
        let segments = words::plural(bucket.segments, "segment");
        match bucket.margin {
            margin @ 0.. => format!("{segments}: any {}", words::plural(u64::from(margin.unsigned_abs()), "peer")),
            margin => {
                let missing = words::plural(u64::from(margin.unsigned_abs()), "shard");
                format!("{segments} LOST: {missing} missing")
            }
        }
    });
    format!("may go for good: {}", parts.collect::<Vec<_>>().join(", "))
}

/// What the table does not say.
fn remarks(health: &Health, verbose: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(why) = &health.trouble {
        lines.push(format!("nothing could be counted: {why}"));
    }
    if let Counted::Before { seconds } = health.counted {
        lines.push(format!("counted {} ago, and being counted anew: it may be worse now", words::seconds(seconds)));
    }
    for volume in &health.volumes {
        let name = &volume.name;
        lines.extend(volume.reasons.iter().map(|why| format!("{name}: {why}")));
        if volume.repair.due > 0 {
            lines.push(format!("{name}: to be mended: {}", mending(&volume.repair)));
        }
        let buckets = volume.safety.as_ref().map_or(&[][..], |safety| &safety.margins);
        if !buckets.is_empty() && (verbose || health.volumes.len() == 1) {
            lines.push(format!("{name}: {}", histogram(buckets)));
        }
    }
    lines
}

/// What is not well is told by the exit code, too.
fn check(health: &Health) -> Result<(), Failure> {
    let worst = health.volumes.iter().map(|volume| volume.state).max().unwrap_or_default();
    let named = |wanted| {
        let names = health.volumes.iter().filter(|volume| volume.state == wanted).map(|volume| volume.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    match worst {
        HealthState::Lost => {
            Err(Failure::new(ErrorCode::Data, format!("segments are lost, as far as is known: {}", named(worst))).hint(
                "what a peer has taken along comes back with it; what is on this device still, `hn sync` uploads anew",
            ))
        }
        HealthState::Unreadable => {
            Err(Failure::new(ErrorCode::Unavailable, format!("segments cannot be read now: {}", named(worst)))
                .hint("`hn peers` shows who is not there"))
        }
        HealthState::Unknown => Err(not_known(&named(worst))),
        _ if health.counted != Counted::Now => Err(not_known(&named(worst))),
        HealthState::Local => Err(Failure::new(
            ErrorCode::TryAgain,
            format!("nothing of what was written is on the mesh: {}", named(worst)),
        )
        .hint("`hn sync` returns when it is")),
        HealthState::Worn | HealthState::Acknowledged | HealthState::Well | HealthState::Empty => Ok(()),
    }
}

fn not_known(of: &str) -> Failure {
    Failure::new(ErrorCode::TryAgain, format!("it is not known how healthy this is now: {of}"))
        .hint("it is being counted: ask again in a while; `hn fsck` looks for what is damaged on this device")
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::VolumeHealth;

    use super::*;

    fn volume(state: HealthState) -> VolumeHealth {
        let margins = vec![MarginBucket { margin: 1, segments: 2 }, MarginBucket { margin: 4, segments: 1_000 }];
        let safety = Safety {
            segments: 1_002,
            margins,
            least_margin: Some(1),
            readable: Some(0.999_999_9),
            nines: Some(10.97),
            ..Safety::default()
        };
        let repair = RepairStatus {
            due: 2,
            due_bytes: 3 << 20,
            next_seconds: Some(70),
            stopped: Some("no peer has room".to_owned()),
            ..RepairStatus::default()
        };
        VolumeHealth { name: "/".to_owned(), state, safety: Some(safety), repair, ..VolumeHealth::default() }
    }

    fn of(volumes: &[VolumeHealth]) -> Health {
        Health { volumes: volumes.to_vec(), ..Health::default() }
    }

    #[test]
    fn the_table_rounds_nothing_up() {
        let text = health_table(&of(&[volume(HealthState::Worn)]));
        let line = text.lines().nth(1).unwrap();
        for part in ["to be mended", "1,002", "1 peer", "99.9999 %", "10 nines", "2 (3.00 MiB)"] {
            assert!(line.contains(part), "{part}: {text}");
        }
        assert!(line.ends_with('-'), "nothing was measured, so nothing is said of how long it takes: {text}");
        let unknown = VolumeHealth { safety: None, ..volume(HealthState::Unknown) };
        assert!(health_table(&of(&[unknown])).contains("not known"));
        let lines = remarks(&of(&[volume(HealthState::Worn)]), false);
        assert!(
            lines.iter().any(|line| line == "/: may go for good: 2 segments: any 1 peer, 1,000 segments: any 4 peers"),
            "{lines:?}"
        );
        assert!(lines.iter().any(|line| line.ends_with("next look is in 1m 10s; in the way: no peer has room")));
    }

    #[test]
    fn what_is_not_well_has_an_exit_code_and_a_count_of_before_is_none_of_now() {
        let code = |volumes: &[VolumeHealth], counted| {
            check(&Health { counted, ..of(volumes) }).map_err(|failure| failure.exit_code())
        };
        for (state, told) in [
            (HealthState::Empty, Ok(())),
            (HealthState::Well, Ok(())),
            (HealthState::Acknowledged, Ok(())),
            (HealthState::Worn, Ok(())),
            (HealthState::Local, Err(75)),
            (HealthState::Unknown, Err(75)),
            (HealthState::Unreadable, Err(69)),
            (HealthState::Lost, Err(65)),
        ] {
            let all = [volume(HealthState::Well), volume(state)];
            assert_eq!(code(&all, Counted::Now), told, "{state:?}");
            let before = code(&all, Counted::Before { seconds: 1 });
            assert_eq!(before, if told == Err(65) || told == Err(69) { told } else { Err(75) }, "{state:?}");
        }
        let before = remarks(&Health { counted: Counted::Before { seconds: 7 }, ..of(&[]) }, false);
        assert!(before[0].starts_with("counted 7s ago"), "{before:?}");
        let failure = check(&of(&[volume(HealthState::Lost)])).unwrap_err();
        assert!(failure.message.ends_with(": /"), "{failure:?}");
    }

    #[test]
    fn a_lost_segment_is_named_wherever_it_is_told() {
        let mut one = volume(HealthState::Lost);
        let safety = one.safety.as_mut().unwrap();
        (safety.lost, safety.least_margin) = (1, Some(-2));
        safety.margins.insert(0, MarginBucket { margin: -2, segments: 1 });
        let text = health_table(&of(&[one.clone()]));
        assert!(text.contains("LOST") && text.contains("2 shards missing") && text.contains("1 lost"), "{text}");
        assert!(remarks(&of(&[one]), true).iter().any(|line| line.contains("1 segment LOST: 2 shards missing")));
    }
}
