//! `hn policy`: snapshots that are taken and go by themselves.

use hypernet_sdk::api::{PolicyInfo, PolicyRequest, PolicyState};
use hypernet_sdk::{Client, ErrorCode, Home};
use os_display::Quotable;

use super::history::{date, place, short};
use crate::args::history::Policy;
use crate::error::Failure;
use crate::output::{Output, words};

const HOW: &str = "`hn policy --hourly 24 --daily 7 --weekly 4` sets one";

/// What is to be the policy, if anything was said of it.
fn wanted(args: &Policy) -> Option<PolicyInfo> {
    let Policy { last, hourly, daily, weekly, monthly, yearly, .. } = *args;
    let is_said = [last, hourly, daily, weekly, monthly, yearly].iter().any(Option::is_some);
    let count = |count: Option<u32>| count.unwrap_or(0);
    is_said.then(|| PolicyInfo {
        last: count(last),
        hourly: count(hourly),
        daily: count(daily),
        weekly: count(weekly),
        monthly: count(monthly),
        yearly: count(yearly),
    })
}

/// As it is written in the attribute.
fn text(policy: PolicyInfo) -> String {
    let PolicyInfo { last, hourly, daily, weekly, monthly, yearly } = policy;
    let kinds = [
        ("last", last),
        ("hourly", hourly),
        ("daily", daily),
        ("weekly", weekly),
        ("monthly", monthly),
        ("yearly", yearly),
    ];
    let said = kinds.into_iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{kind}={count}"));
    said.collect::<Vec<_>>().join(" ")
}

/// When the next one is taken.
fn next(state: &PolicyState, now: u64) -> Option<String> {
    let next = state.next_ms?;
    let when = if next <= now {
        "as soon as something has changed".to_owned()
    } else {
        format!("{}, or when something has changed after that", date(next))
    };
    let who = if state.here { "" } else { ", by a device that may write here" };
    Some(format!("next: {when}{who}"))
}

fn lines(state: &PolicyState, now: u64) -> Vec<String> {
    let volume = state.volume.maybe_quote();
    let mut lines = vec![match state.policy {
        Some(policy) => format!("policy of {volume}: {}", text(policy)),
        None => format!("policy of {volume}: none, so no snapshots are taken by themselves"),
    }];
    if let Some(last) = &state.last {
        let kept = words::plural(state.automatic, "snapshot");
        lines.push(format!("last: {} {} ({kept} of this kind)", short(&last.id), date(last.time_ms)));
    }
    lines.extend(next(state, now));
    lines
}

pub(crate) async fn policy(home: Home, args: Policy, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = place(&status, args.dir.as_deref())?;
    let state = client.policy(&PolicyRequest { path, set: wanted(&args), off: args.off }).await?;
    if let Some(wrong) = &state.wrong {
        let what = format!(
            "no snapshots are taken by themselves of {}: what is written as its policy is none, {wrong}",
            state.volume.maybe_quote()
        );
        return Err(Failure::new(ErrorCode::Data, what).hint(format!("{HOW}, `hn policy --off` takes it away")));
    }
    out.json(&state)?;
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    for line in lines(&state, now) {
        out.line(line)?;
    }
    if state.policy.is_none() && !args.off {
        out.note(HOW);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::SnapshotInfo;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn state() -> PolicyState {
        PolicyState {
            volume: "/".into(),
            policy: Some(PolicyInfo { hourly: 24, weekly: 4, ..PolicyInfo::default() }),
            wrong: None,
            last: None,
            next_ms: Some(0),
            automatic: 0,
            here: true,
        }
    }

    #[test]
    fn what_is_kept_and_when_the_next_one_comes_is_told() {
        assert_eq!(lines(&state(), NOW), ["policy of /: hourly=24 weekly=4", "next: as soon as something has changed"]);
        let last = SnapshotInfo {
            id: "0123456789abcdef".repeat(4),
            time_ms: NOW,
            author: "laptop".into(),
            author_id: "ab".repeat(32),
            message: "hourly".into(),
            parents: vec![],
            tags: vec![],
            automatic: true,
            command: false,
            waiting: false,
        };
        let later = PolicyState { last: Some(last), next_ms: Some(NOW + 1), automatic: 3, here: false, ..state() };
        let [_, last, next] = &lines(&later, NOW)[..] else { panic!() };
        assert!(
            last.starts_with("last: 0123456789ab 2023-11-1") && last.ends_with("(3 snapshots of this kind)"),
            "{last}"
        );
        assert!(next.starts_with("next: 2023-11-1") && next.ends_with("by a device that may write here"), "{next}");
        let none = PolicyState { policy: None, next_ms: None, ..state() };
        assert_eq!(lines(&none, NOW), ["policy of /: none, so no snapshots are taken by themselves"]);
    }

    #[test]
    fn what_is_not_named_is_not_kept() {
        let args = |last, daily| Policy {
            dir: None,
            last,
            hourly: None,
            daily,
            weekly: None,
            monthly: None,
            yearly: None,
            off: false,
        };
        assert_eq!(wanted(&args(None, None)), None);
        assert_eq!(wanted(&args(Some(0), Some(7))), Some(PolicyInfo { daily: 7, ..PolicyInfo::default() }));
    }
}
