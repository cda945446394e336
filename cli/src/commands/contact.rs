//! `hn id` and `hn contact`.

use std::io::{self, IsTerminal};

use hypernet_sdk::api::{AddContactRequest, ContactInfo};
use hypernet_sdk::{Client, Home};
use os_display::Quotable;

use crate::args::{Contact, Id, Meet};
use crate::error::Failure;
use crate::output::{Output, qr, table};

use super::meet;

pub(crate) async fn id(home: Home, args: &Id, out: &mut Output) -> Result<(), Failure> {
    let id = Client::new(home)?.id().await?;
    out.json(&id)?;
    out.line(&id.address)?;
    // In capitals it is a smaller picture, and reads as the same.
    match qr::lines(&id.address.to_uppercase()) {
        Some(picture) if args.qr => out.line(picture),
        Some(picture) if io::stdout().is_terminal() => out.line(qr::coloured(&picture)),
        _ => Ok(()),
    }
}

pub(crate) async fn contact(home: Home, command: Contact, out: &mut Output) -> Result<(), Failure> {
    let client = Client::new(home)?;
    match command {
        Contact::Add { address, name } => {
            let added = client.add_contact(&AddContactRequest { address, name }).await?;
            out.json(&added)?;
            out.line(format_args!("{} is a contact", added.name))?;
            if !added.verified {
                out.note(format_args!(
                    "whoever gave you the address is believed so far: `hn contact verify {}` makes sure",
                    added.name.maybe_quote()
                ));
            }
            Ok(())
        }
        Contact::List => {
            let contacts = client.contacts().await?;
            out.json(&contacts)?;
            match contacts.is_empty() {
                true => out.line("no contact was added yet"),
                false => out.line(contact_table(&contacts)),
            }
        }
        Contact::Remove { name } => {
            let removed = client.remove_contact(&name).await?;
            out.json(&removed)?;
            if removed.share {
                out.warning(format_args!(
                    "a share of their words stays here: `hn guardians help {}` hands it over",
                    removed.identity.get(..10).unwrap_or(&removed.identity)
                ));
            }
            out.line(format_args!("{} is no contact any more", removed.name))
        }
        Contact::Verify { name, code, meet } => verify(&client, name, code, meet, out).await,
    }
}

async fn verify(
    client: &Client,
    name: String,
    code: Option<String>,
    how: Meet,
    out: &mut Output,
) -> Result<(), Failure> {
    meet::needs_person(how)?;
    let code = code.map(|code| meet::code(code, out)).transpose()?;
    let code = code.map(|code| meet::apart(&code).map_or(code.clone(), |(code, _)| code.to_owned()));
    let events = client.verify_contact(&meet::request(how, code, Some(name))).await?;
    let verified = meet::run(client, events, how, "hn contact verify YOUR-NAME-THERE", out).await?;
    out.line(format_args!("{} is verified", verified.name))
}

fn contact_table(contacts: &[ContactInfo]) -> String {
    let rows = contacts.iter().map(|contact| {
        let verified = if contact.verified { "verified" } else { "NOT verified" };
        vec![contact.name.clone(), verified.to_owned(), contact.address.clone()]
    });
    table::table(&["CONTACT", "WHAT", "ADDRESS"], rows.collect(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_verified_stands_out() {
        let contact = |name: &str, verified| ContactInfo {
            name: name.into(),
            address: "hn1abc".into(),
            identity: "00".into(),
            verified,
            share: false,
        };
        let text = contact_table(&[contact("anna", true), contact("bob", false)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("anna") && lines[1].contains(" verified") && !lines[1].contains("NOT"), "{text}");
        assert!(lines[2].starts_with("bob") && lines[2].contains("NOT verified  hn1abc"), "{text}");
    }
}
