//! `hn donate`.

use hypernet_sdk::api::{DonateRequest, DonateStatus};
use hypernet_sdk::{Client, Home};

use crate::args::donate::Donate;
use crate::error::Failure;
use crate::output::{Output, table, words};

pub(crate) async fn donate(home: Home, args: &Donate, out: &mut Output) -> Result<(), Failure> {
    let (client, _) = Client::connect(home).await?;
    let Donate { space: quota, newcomers: newcomers_percent } = *args;
    let status = match (quota, newcomers_percent) {
        (None, None) => client.donated().await?,
        _ => client.donate(&DonateRequest { quota, newcomers_percent }).await?,
    };
    out.json(&status)?;
    out.line(donate_table(&status))?;
    let lent = status.shares.iter().any(|share| share.used > share.limit) || status.used > status.quota;
    if lent {
        out.line(
            "more is kept than is given now: nothing more is taken in until leases have ended, and nothing is put out",
        )?;
    }
    Ok(())
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
}
