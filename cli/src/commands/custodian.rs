//! `hn custodian`.

use hypernet_sdk::api::{
    AddCustodianRequest, CustodianInfo, CustodianRequest, Custodians, OfferCustodyRequest, ServedTicket,
};
use hypernet_sdk::{Client, Home};

use crate::args::custodian::{Custodian, CustodianCommand};
use crate::error::Failure;
use crate::output::{Output, table, words};

/// Digits of an id that are shown.
const ID_SHOWN: usize = 10;

pub(crate) async fn custodian(home: Home, args: Custodian, out: &mut Output) -> Result<(), Failure> {
    let (client, _) = Client::connect(home).await?;
    match args.command.unwrap_or(CustodianCommand::List) {
        CustodianCommand::Add { ticket, name } => {
            let added = client.add_custodian(&AddCustodianRequest { ticket, name }).await?;
            out.json(&added)?;
            out.line(format_args!("{} looks after your files from now on; `hn custodian` shows it", added.name))
        }
        CustodianCommand::Remove { name } => {
            let removed = client.remove_custodian(&CustodianRequest { name }).await?;
            out.json(&removed)?;
            out.line(format_args!("{} is no custodian any more", removed.name))
        }
        CustodianCommand::Offer { name } => {
            let offer = client.offer_custody(&OfferCustodyRequest { name }).await?;
            out.json(&offer)?;
            out.note(format_args!(
                "for {} alone, who runs: hn custodian add TICKET --name NAME; whoever else gets it can have this agent \
                 work for them",
                offer.given.name
            ));
            out.line(&offer.ticket)
        }
        CustodianCommand::Withdraw { name } => {
            let withdrawn = client.withdraw_custody(&CustodianRequest { name }).await?;
            out.json(&withdrawn)?;
            out.line(format_args!("nothing is looked after for {} any more", withdrawn.name))
        }
        CustodianCommand::List => {
            let all = client.custodians().await?;
            out.json(&all)?;
            list(&all).into_iter().try_for_each(|line| out.line(line))
        }
    }
}

fn id(id: &str) -> String {
    id.get(..ID_SHOWN).unwrap_or(id).to_owned()
}

fn mine(all: &[CustodianInfo]) -> String {
    let rows = all.iter().map(|one| vec![one.name.clone(), id(&one.id), words::short(&one.peer)]);
    table::table(&["CUSTODIAN", "ID", "PEER"], rows.collect(), &[])
}

fn served(all: &[ServedTicket]) -> String {
    let rows = all.iter().map(|one| {
        vec![
            one.name.clone(),
            id(&one.id),
            words::count(one.volumes),
            words::count(one.segments),
            words::count(one.due),
            words::count(one.lost),
            words::count(one.mended),
            words::count(one.moves),
        ]
    });
    let columns = ["FOR", "ID", "VOLUMES", "SEGMENTS", "TO MEND", "LOST", "MENDED", "ROWS MOVED"];
    table::table(&columns, rows.collect(), &[2, 3, 4, 5, 6, 7])
}

fn list(all: &Custodians) -> Vec<String> {
    let mut lines = Vec::new();
    match all.mine.as_slice() {
        // Whoever only serves has no files.
        [] if !all.served.is_empty() => {}
        [] => lines.push(
            "nobody looks after your files while your devices are off: `hn custodian add` appoints somebody".into(),
        ),
        some => lines.push(mine(some)),
    }
    if !all.served.is_empty() {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push("looked after here".into());
        lines.push(served(&all.served));
        lines.extend(all.served.iter().filter_map(|one| {
            let trouble = one.trouble.as_ref()?;
            Some(format!("{}: {trouble}", one.name))
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_shown_and_what_is_in_the_way() {
        assert!(list(&Custodians::default())[0].contains("hn custodian add"));
        let mine = CustodianInfo {
            id: "0123456789abcdef".into(),
            name: "nas".into(),
            peer: "12D3KooWabcdefghijkl".into(),
            since: 1,
        };
        let served = ServedTicket {
            id: "fedcba9876543210".into(),
            name: "anna".into(),
            segments: 1_200,
            lost: 2,
            trouble: Some("no peer has room".into()),
            ..ServedTicket::default()
        };
        let text = list(&Custodians { mine: vec![mine], served: vec![served] }).join("\n");
        assert!(text.contains("nas") && text.contains("0123456789") && !text.contains("0123456789a"), "{text}");
        assert!(text.contains("1,200") && text.contains("anna: no peer has room"), "{text}");
    }
}
