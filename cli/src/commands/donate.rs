//! `hn donate`.

use std::time::Duration;

use hypernet_sdk::api::{DonateRequest, DonateStatus, Leaving};
use hypernet_sdk::{Client, Home};

use crate::args::donate::{Donate, DonateCommand};
use crate::error::Failure;
use crate::output::bar::{Bar, Counting};
use crate::output::{Output, table, words};

/// How often it is asked how much is left.
const ASK_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn donate(home: Home, args: &Donate, out: &mut Output) -> Result<(), Failure> {
    let (client, _) = Client::connect(home).await?;
    let Donate { space: quota, newcomers: newcomers_percent, command } = args;
    let (quota, newcomers_percent) = (*quota, *newcomers_percent);
    let leave = match command {
        None => None,
        Some(DonateCommand::Stop { .. }) => Some(true),
        Some(DonateCommand::Resume) => Some(false),
    };
    let mut status = match (quota, newcomers_percent, leave) {
        (None, None, None) => client.donated().await?,
        _ => client.donate(&DonateRequest { quota, newcomers_percent, leave }).await?,
    };
    if let Some(DonateCommand::Stop { wait: true }) = command {
        status = handed_over(&client, status, out).await?;
    }
    out.json(&status)?;
    out.line(donate_table(&status))?;
    let lent = status.shares.iter().any(|share| share.used > share.limit) || status.used > status.quota;
    if lent && status.leaving.is_none() {
        out.line(
            "more is kept than is given now: nothing more is taken in until leases have ended, and nothing is put out",
        )?;
    }
    for line in status.leaving.iter().flat_map(|leaving| left(&status, leaving)) {
        out.line(line)?;
    }
    Ok(())
}

/// Waits until others have nothing here any more, or somebody takes it back.
async fn handed_over(client: &Client, mut status: DonateStatus, out: &Output) -> Result<DonateStatus, Failure> {
    let mut bar = Bar::new(out, "handing over what others have here");
    while let Some(leaving) = status.leaving.filter(|_| status.shards > 0) {
        let all = leaving.bytes_then.max(status.used);
        bar.message(format!("handing over: {} left", words::plural(status.shards, "shard")));
        bar.count_of(Counting::Bytes, all - status.used, Some(all));
        tokio::time::sleep(ASK_EVERY).await;
        status = client.donated().await?;
    }
    bar.clear();
    Ok(status)
}

/// How far an agent has come that stops storing for others.
fn left(status: &DonateStatus, leaving: &Leaving) -> Vec<String> {
    if status.shards == 0 {
        return vec![
            "everything was handed over: others have nothing here any more, and this agent can go (`hn down`)".into(),
            "what is on the disk still nobody needs; `hn donate resume` would give the space again".into(),
        ];
    }
    let moved = leaving.bytes_then.saturating_sub(status.used);
    let mut lines = vec![format!(
        "it stops storing for others, since {}: {} of {} are elsewhere by now, and {} ({}) are to be moved",
        words::seconds(leaving.for_seconds),
        words::bytes(moved),
        words::bytes(leaving.bytes_then.max(status.used)),
        words::plural(status.shards, "shard"),
        words::bytes(status.used),
    )];
    if let (Some(unheard), Some(ends)) = (leaving.unheard_seconds, leaving.ends_in_seconds) {
        let heard = match unheard / 86_400 {
            0 => "today".to_owned(),
            days => format!("{} ago", words::plural(days, "day")),
        };
        lines.push(format!(
            "those whose they are move them when they are there; some of them were last heard of {heard}. What nobody moves is \
             nobody's when its lease ends, the last one in {}",
            words::plural(ends.div_ceil(86_400), "day")
        ));
    }
    lines
}

fn donate_table(status: &DonateStatus) -> String {
    let row = |who: &str, used: u64, limit: u64| vec![who.to_owned(), words::bytes(used), words::bytes(limit)];
    let mut rows: Vec<Vec<String>> =
        status.shares.iter().map(|share| row(share.depositor.words(), share.used, share.limit)).collect();
    rows.push(row("all", status.used, status.quota));
    table::table(&["FOR", "USED", "AT MOST"], rows, &[1, 2])
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::{Depositor, DonateShare};

    use super::*;

    #[test]
    fn it_says_who_has_how_much() {
        let share = |depositor, used, limit| DonateShare { depositor, used, limit };
        let status = DonateStatus {
            quota: 10 << 30,
            used: 3 << 30,
            shards: 9,
            newcomers_percent: 10,
            leaving: None,
            shares: vec![
                share(Depositor::Known, 2 << 30, 10 << 30),
                share(Depositor::Reciprocal, 0, 4 << 20),
                share(Depositor::Newcomer, 1 << 30, 1 << 30),
            ],
        };
        let text = donate_table(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("own devices and contacts") && lines[1].ends_with("10.00 GiB"), "{text}");
        assert!(lines[3].starts_with("newcomers") && lines[3].contains("1.00 GiB"), "{text}");
        assert!(lines[4].starts_with("all") && lines[4].contains("3.00 GiB"), "{text}");
    }
    #[test]
    fn it_says_how_far_it_is_and_what_stays() {
        let leaving = Leaving {
            for_seconds: 7_260,
            bytes_then: 4 << 30,
            shards_then: 900,
            ends_in_seconds: Some(41 * 86_400 - 5),
            unheard_seconds: Some(50 * 86_400),
        };
        let status = DonateStatus { used: 1 << 30, shards: 1_200, leaving: Some(leaving), ..DonateStatus::default() };
        let text = left(&status, &leaving).join("\n");
        assert!(text.contains("since 2h 1m") && text.contains("3.00 GiB of 4.00 GiB are elsewhere"), "{text}");
        assert!(text.contains("1,200 shards (1.00 GiB) are to be moved"), "{text}");
        assert!(text.contains("last heard of 50 days ago") && text.contains("the last one in 41 days"), "{text}");
        let done = DonateStatus { leaving: Some(leaving), ..DonateStatus::default() };
        assert!(left(&done, &leaving)[0].starts_with("everything was handed over"));
    }
}
