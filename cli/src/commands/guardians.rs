//! `hn guardians`, and the part of `hn recover` in which guardians help.

use std::io::{self, IsTerminal};

use hypernet_sdk::api::{
    Gathered, GuardiansInfo, GuardiansList, PhraseInput, SetGuardiansRequest, SharedWordsRequest, Words,
};
use hypernet_sdk::{Client, ErrorCode, Home, SecretText};
use os_display::Quotable;

use crate::args::guardians::{Guardians, GuardiansSet};
use crate::args::{Meet, Recover};
use crate::error::Failure;
use crate::output::{Output, table, words};
use crate::{passphrase, phrase};

use super::meet::{self, Typed};

/// Seconds that each guardian is waited for, and each person: they are called first.
const GATHER_WITHIN: u64 = 600;

pub(crate) async fn guardians(home: Home, command: Guardians, out: &mut Output) -> Result<(), Failure> {
    match command {
        Guardians::Set(args) => set(home, args, out).await,
        Guardians::List => list(home, out).await,
        Guardians::Help { name, code, meet } => help(home, name, code, meet, out).await,
        Guardians::Clear => clear(home, out).await,
    }
}

async fn set(home: Home, args: GuardiansSet, out: &mut Output) -> Result<(), Failure> {
    let GuardiansSet { of, guardians, phrase_stdin, phrase_passphrase } = args;
    if guardians.len() != usize::from(of.count) {
        let named = words::plural(guardians.len() as u64, "guardian");
        return Err(Failure::new(ErrorCode::Usage, format!("{named} named where {} are to be", of.count)).hint(
            format!("{}-of-{} takes {} contacts: `hn contact list` shows them", of.threshold, of.count, of.count),
        ));
    }
    let client = Client::new(home)?;
    // Before somebody types 24 words for nothing.
    let known = client.contacts().await?;
    if let Some(name) = guardians.iter().find(|name| !known.iter().any(|one| [&one.name, &one.address].contains(name)))
    {
        return Err(Failure::new(ErrorCode::Usage, format!("no contact is called {name}"))
            .hint("guardians are contacts: hn contact add ADDRESS --name NAME"));
    }
    let phrase = phrase::ask(phrase_stdin, phrase_passphrase, out)?;
    let request = SetGuardiansRequest { threshold: of.threshold, guardians, phrase };
    let set = client.set_guardians(&request).await?;
    out.json(&set)?;
    out.line(mine(&set))?;
    unverified(&set, out);
    out.note(
        "each of them now runs `hn guardians list` once, and has their share for good; the words themselves are kept nowhere, \
         so keep your paper",
    );
    Ok(())
}

/// Who was believed so far.
fn unverified(set: &GuardiansInfo, out: &Output) {
    for one in set.guardians.iter().filter(|one| !one.verified) {
        out.warning(format_args!(
            "{} is NOT verified: whoever gave you their address has the share; `hn contact verify {}` makes sure",
            one.name,
            one.name.maybe_quote()
        ));
    }
}

fn mine(set: &GuardiansInfo) -> String {
    let rows = set.guardians.iter().map(|one| {
        let verified = if one.verified { "verified" } else { "NOT verified" };
        let share = if one.placed { "on the mesh" } else { "NOT on the mesh yet" };
        vec![one.name.clone(), verified.to_owned(), share.to_owned(), one.address.clone()]
    });
    let more = if set.phrase_passphrase { ", together with the passphrase that only you have" } else { "" };
    format!(
        "any {} of these {} can bring your words back{more}; set {}\n{}",
        set.threshold,
        set.guardians.len(),
        set.set,
        table::table(&["GUARDIAN", "WHAT", "SHARE", "ADDRESS"], rows.collect(), &[])
    )
}

fn held(list: &GuardiansList) -> String {
    let rows = list.held.iter().map(|share| {
        let name = share.name.clone().unwrap_or_else(|| "(no contact)".to_owned());
        let id = share.identity.get(..10).unwrap_or(&share.identity).to_owned();
        vec![name, id, format!("{} of {}", share.threshold, share.count), share.set.clone()]
    });
    format!("you are a guardian of\n{}", table::table(&["WHOM", "ID", "NEEDED", "SET"], rows.collect(), &[]))
}

async fn list(home: Home, out: &mut Output) -> Result<(), Failure> {
    let found = Client::new(home)?.guardians().await?;
    out.json(&found)?;
    match &found.mine {
        Some(set) => {
            out.line(mine(set))?;
            unverified(set, out);
        }
        None => out.line("nobody has shares of your words: `hn guardians set` gives them some")?,
    }
    out.line("")?;
    match found.held.is_empty() {
        true => out.line("you have a share of nobody's words")?,
        false => out.line(held(&found))?,
    }
    found.warnings.iter().for_each(|warning| out.warning(warning));
    Ok(())
}

async fn clear(home: Home, out: &mut Output) -> Result<(), Failure> {
    let cleared = Client::new(home)?.clear_guardians().await?;
    out.json(&cleared)?;
    if !cleared.left.is_empty() {
        out.note(format_args!(
            "the shares of {} are on the mesh still: the agent goes on trying to take them away",
            cleared.left.join(", ")
        ));
    }
    out.note(
        "who has fetched a share already has it: enough of those still give your words, which stay the words of this identity \
         for good",
    );
    out.line(format_args!("{}: guardians no more", cleared.names.join(", ")))
}

async fn help(home: Home, name: String, code: String, how: Meet, out: &mut Output) -> Result<(), Failure> {
    meet::needs_person(how)?;
    let code = meet::code(code, out)?;
    let code = meet::apart(&code).map_or(code.as_str(), |(code, _)| code).to_owned();
    let client = Client::new(home)?;
    out.note(format_args!(
        "whoever shows the code gets your share of the words of {name}: say yes only to somebody whom you see or hear, and know"
    ));
    let events = client.help_to_recover(&meet::request(how, Some(code), Some(name))).await?;
    let helped = meet::run(&client, events, how, "hn recover", out).await?;
    out.line(format_args!("{} has your share of their words now; you have it still", helped.name))
}

fn how(args: &Recover) -> Meet {
    Meet { words_stdin: args.words_stdin, timeout: GATHER_WITHIN }
}

/// That somebody is there to compare, and to write words down; else a failure, before anything is begun.
pub(crate) fn needs_person(args: &Recover) -> Result<(), Failure> {
    meet::needs_person(how(args))?;
    match args.no_confirm {
        true => Ok(()),
        false => phrase::needs_terminal("hn recover --guardians --no-confirm"),
    }
}

/// Meets guardians one after another until their shares give the words, and shows these.
pub(crate) async fn gather(client: &Client, args: &Recover, out: &mut Output) -> Result<PhraseInput, Failure> {
    let how = how(args);
    let mut typed = Typed::default();
    let mut gathered = client.gathered().await?;
    while !gathered.is_enough() {
        out.note(progress(&gathered));
        let events = client.gather_share(&meet::request(how, None, None)).await?;
        let met = meet::run_typed(client, events, how, "hn guardians help YOUR-NAME-THERE", &mut typed, out).await;
        let met = met.map_err(|failure| match failure.code {
            // Whoever may be in between comes first.
            ErrorCode::Data => failure,
            _ if gathered.have.is_empty() => failure,
            _ => failure.hint(
                "run the same command again: the shares that were handed over are here for as long as this agent runs",
            ),
        })?;
        if let Some(refused) = met.refused {
            out.warning(&refused.message);
            if let Some(hint) = refused.hint {
                out.note(hint);
            }
        }
        gathered = client.gathered().await?;
        out.json(&serde_json::json!({ "event": "shares", "have": gathered.have, "needed": gathered.needed }))?;
    }
    out.note(progress(&gathered));
    if let Some(identity) = &gathered.identity {
        out.note(format_args!("they are of the words of identity {identity}"));
    }
    let passphrase = match gathered.phrase_passphrase {
        false => SecretText::default(),
        true if io::stdin().is_terminal() => passphrase::ask("Passphrase of the words: ")?,
        true => passphrase::read_line()?,
    };
    let Words { words } = client.shared_words(&SharedWordsRequest { passphrase: passphrase.clone() }).await?;
    show(&words, args.no_confirm, out)?;
    let line = words.iter().map(SecretText::expose).collect::<Vec<_>>().join(" ");
    Ok(PhraseInput::new(SecretText::new(line), passphrase))
}

fn progress(gathered: &Gathered) -> String {
    match gathered.needed {
        Some(needed) => format!("{} of {needed} shares; {}", gathered.have.len(), gathered.have.join(", ")),
        None => "no share yet: call a guardian, and read them the code".to_owned(),
    }
}

/// They are to be on paper again before anything else happens.
fn show(words: &[SecretText], no_confirm: bool, out: &mut Output) -> Result<(), Failure> {
    if !no_confirm {
        return phrase::confirm(words, "the shares are here for as long as this agent runs", out);
    }
    out.json(&serde_json::json!({ "event": "words", "phrase": words }))?;
    out.line(format_args!(
        "The words that bring everything back; keep them where nobody finds them:\n\n{}\n",
        *phrase::table(words)
    ))
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::{GuardianInfo, HeldShare};

    use super::*;

    #[test]
    fn who_was_not_verified_and_what_is_not_there_stands_out() {
        let one = |name: &str, verified, placed| GuardianInfo {
            name: name.into(),
            address: "hn1abc".into(),
            identity: "00".into(),
            verified,
            placed,
        };
        let guardians = vec![one("anna", true, true), one("ben", false, false)];
        let set = GuardiansInfo { threshold: 2, set: "2026-11-29".into(), phrase_passphrase: true, guardians };
        let text = mine(&set);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("any 2 of these 2") && lines[0].contains("passphrase that only you have"),
            "{text}"
        );
        assert!(lines[2].starts_with("anna") && !lines[2].contains("NOT"), "{text}");
        assert!(lines[3].contains("NOT verified  NOT on the mesh yet  hn1abc"), "{text}");

        let share = HeldShare {
            name: None,
            identity: "0123456789abcdef".repeat(4),
            set: "2026-11-29".into(),
            threshold: 3,
            count: 5,
        };
        let text = held(&GuardiansList { held: vec![share], ..GuardiansList::default() });
        assert!(text.contains("(no contact)  0123456789  3 of 5  2026-11-29"), "{text}");
    }

    #[test]
    fn progress_names_who_has_helped() {
        let gathered = |have: &[&str], needed| Gathered {
            have: have.iter().map(|name| (*name).to_owned()).collect(),
            needed,
            ..Gathered::default()
        };
        assert_eq!(progress(&gathered(&["anna", "ben"], Some(3))), "2 of 3 shares; anna, ben");
        assert!(!gathered(&["anna", "ben"], Some(3)).is_enough() && gathered(&["anna", "ben"], Some(2)).is_enough());
        assert!(progress(&gathered(&[], None)).contains("call a guardian"));
    }
}
