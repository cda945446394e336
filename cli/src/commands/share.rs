//! `hn share`, `hn unshare`, `hn shares`, `hn attach` and `hn detach`.

use std::path::Path;

use hypernet_sdk::api::{
    AttachRequest, DetachRequest, MemberInfo, ShareInfo, ShareQuery, ShareRequest, ShareRole, SharesInfo,
    UnshareRequest,
};
use hypernet_sdk::{Client, ErrorCode, Home};
use os_display::Quotable;

use crate::args::{Attach, Detach, Share, Unshare};
use crate::error::Failure;
use crate::output::{Output, table};
use crate::volume_path;

pub(crate) async fn share(home: Home, args: Share, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = volume_path::inside(&status, &args.dir)?;
    if args.with.is_empty() && !args.public {
        let shown = client.share_show(&ShareQuery { path }).await?;
        out.json(&shown)?;
        return show(&shown, out);
    }
    let role = match (args.write, args.admin) {
        (_, true) => ShareRole::Admin,
        (true, false) => ShareRole::Writer,
        (false, false) => ShareRole::Reader,
    };
    if args.public && args.write && !args.with.is_empty() {
        return Err(Failure::new(ErrorCode::Usage, "who is to write: those who are named, or whoever has the link?")
            .hint("share it twice: once with --with and once with --public, each with --write or without"));
    }
    let link_seconds = args.until.map(|until| until.as_secs());
    let link_role = if args.write { ShareRole::Writer } else { ShareRole::Reader };
    let request = ShareRequest { path, with: args.with.clone(), role, link: args.public, link_role, link_seconds };
    let shared = client.share(&request).await?;
    out.json(&shared)?;
    let dir = args.dir.display();
    if !args.with.is_empty() {
        let who = args.with.join(", ");
        out.line(format_args!("{who} {} {dir} from now on", may(role, args.with.len())))?;
        out.note(format_args!("they see it with `hn shares`, and take it with `hn attach`"));
        for name in &args.with {
            let is_unverified = |member: &&MemberInfo| member.name.as_ref() == Some(name) && !member.verified;
            if shared.members.iter().any(|member| is_unverified(&member)) {
                out.note(format_args!(
                    "whoever gave you the address of {name} is believed: `hn contact verify {}` makes sure",
                    name.maybe_quote()
                ));
            }
        }
    }
    if args.public {
        if let Some(link) = made(&shared) {
            out.line(link)?;
        }
        out.note(format_args!(
            "whoever has this link {} {dir}; `hn unshare {} --link LINK` takes it back",
            link_role.words(),
            args.dir.maybe_quote()
        ));
    }
    Ok(())
}

/// The link that was made just now: others may have been made on a device whose clock is ahead.
fn made(shared: &ShareInfo) -> Option<&str> {
    let by_number = |made: &String| shared.links.iter().map(|link| link.link.as_str()).find(|link| link == made);
    shared.made.as_ref().and_then(by_number)
}

fn may(role: ShareRole, count: usize) -> &'static str {
    match (role, count) {
        (ShareRole::Reader, 1) => "may read",
        (ShareRole::Reader, _) => "may all read",
        (ShareRole::Writer, _) => "may read and write",
        (ShareRole::Admin | ShareRole::Owner, _) => "may read, write, and share with others",
    }
}

pub(crate) async fn unshare(home: Home, args: Unshare, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    if args.with.is_empty() && args.link.is_empty() && !args.all_links && !args.rekey {
        return Err(Failure::new(ErrorCode::Usage, "whom is it not to be shared with any more?")
            .hint("--with NAME, --link LINK, or --all-links; `hn share DIR` shows them"));
    }
    let path = volume_path::inside(&status, &args.dir)?;
    let Unshare { with, link: links, all_links, rekey, .. } = args.clone();
    let request = UnshareRequest { path, with, links, all_links, rekey };
    let left = client.unshare(&request).await?;
    out.json(&left)?;
    let dir = args.dir.display();
    if !args.with.is_empty() {
        out.line(format_args!("{} can read nothing that is written to {dir} from now on", args.with.join(", ")))?;
    }
    if args.all_links || !args.link.is_empty() {
        out.line(format_args!(
            "what is written to {dir} from now on is not read by those links, and nothing is taken by them"
        ))?;
    }
    let is_admin = |member: &MemberInfo| !member.you && member.role >= ShareRole::Admin;
    if args.all_links && left.members.iter().any(is_admin) {
        out.note("links that only read, and that another admin has made, are taken back by that admin, or end with their part");
    }
    if left.rekeying {
        out.note(format_args!(
            "what was written before is being sealed anew; `hn share {}` says when that has ended",
            args.dir.maybe_quote()
        ));
    }
    out.note(format_args!("what they had, they may have kept"));
    Ok(())
}

pub(crate) async fn shares(home: Home, out: &mut Output) -> Result<(), Failure> {
    let all = Client::new(home)?.shares().await?;
    out.json(&all)?;
    if all.shares.is_empty() && all.offers.is_empty() {
        out.line("nothing is shared, and no contact offers anything")?;
    } else {
        out.line(shares_table(&all))?;
    }
    for missing in &all.missing {
        out.note(format_args!("{}: {}", missing.name, missing.why));
    }
    for share in all.shares.iter().filter(|share| !share.forks.is_empty()) {
        out.note(format_args!(
            "{}: a device has signed two histories of who may do what: it was put back from a copy, or lies: {}",
            share.name,
            share.forks.join(", ")
        ));
    }
    Ok(())
}

pub(crate) async fn attach(home: Home, args: Attach, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = inside_new(&status, &args.dir)?;
    let attached = client.attach(&AttachRequest { share: args.share, path }).await?;
    out.json(&attached)?;
    let what = attached.role.map_or("reads", ShareRole::words);
    out.line(format_args!("{} is at {}; you: {what}", attached.name, args.dir.display()))
}

pub(crate) async fn detach(home: Home, args: Detach, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = volume_path::inside(&status, &args.dir)?;
    let detached = client.detach(&DetachRequest { path, discard: args.discard }).await?;
    out.json(&detached)?;
    out.line(format_args!("{} is not at {} any more", detached.name, args.dir.display()))?;
    // Of what somebody else has named there nothing may be known.
    if !detached.members.is_empty() {
        out.note(format_args!(
            "`hn attach {} DIR` puts it into your tree again",
            detached.volume.get(..8).unwrap_or_default()
        ));
    }
    Ok(())
}

/// A path that nothing has yet: what is above it is followed.
fn inside_new(status: &hypernet_sdk::api::Status, path: &Path) -> Result<std::path::PathBuf, Failure> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(volume_path::inside(status, parent)?.join(name))
        }
        _ => Err(Failure::new(ErrorCode::Usage, format!("{} cannot be made", path.display()))
            .hint("name a directory that is not there yet, below the mount")),
    }
}

fn show(share: &ShareInfo, out: &mut Output) -> Result<(), Failure> {
    out.line(member_table(share))?;
    if share.rekeying {
        out.note(format_args!("what was written before is being sealed anew"));
    }
    if !share.links.is_empty() {
        let rows = share.links.iter().map(|link| {
            vec![link.link.clone(), link.role.words().to_owned(), link.until.clone().unwrap_or("-".into())]
        });
        out.line(table::table(&["LINK", "MAY", "UNTIL"], rows.collect(), &[]))?;
    }
    Ok(())
}

fn member_table(share: &ShareInfo) -> String {
    let rows = share.members.iter().map(|member| {
        let name = match (member.you, &member.name) {
            (true, _) => "(you)".to_owned(),
            (false, Some(name)) => name.clone(),
            (false, None) if member.is_link => "(link)".to_owned(),
            (false, None) => "-".to_owned(),
        };
        let verified = match member {
            MemberInfo { name: None, is_link: true, link: Some(_), .. } => "whoever has it",
            MemberInfo { name: None, is_link: true, link: None, .. } => "another admin made it",
            MemberInfo { you: true, .. } => "",
            MemberInfo { verified: true, .. } => "verified",
            MemberInfo { name: Some(_), .. } => "NOT verified",
            _ => "no contact",
        };
        let id = member.identity.get(..10).unwrap_or(&member.identity).to_owned();
        vec![name, member.role.words().to_owned(), verified.to_owned(), id]
    });
    table::table(&["WHO", "MAY", "", "IDENTITY"], rows.collect(), &[])
}

fn shares_table(all: &SharesInfo) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for share in &all.shares {
        let at = share.path.as_ref().map_or("-".to_owned(), |path| path.display().to_string());
        let role = match share.role {
            Some(role) => role.words(),
            None if share.members.is_empty() => "not known here yet",
            None => "nothing any more",
        };
        let with = match share.members.iter().filter(|member| !member.you && member.link.is_none()).count() {
            _ if share.by_link => "by a link".to_owned(),
            0 if share.members.is_empty() => "not known here yet".to_owned(),
            0 if !share.links.is_empty() => "whoever has a link".to_owned(),
            0 => "nobody yet".to_owned(),
            1 => "1 other".to_owned(),
            count => format!("{count} others"),
        };
        rows.push(vec![share.name.clone(), at, role.to_owned(), with]);
    }
    for offer in all.offers.iter().filter(|offer| !offer.attached) {
        let by = if offer.verified { "offered".to_owned() } else { "offered, NOT verified".to_owned() };
        let by =
            if offer.share.ends_with(&offer.name) { by } else { format!("{by}, by {} as {}", offer.by, offer.name) };
        rows.push(vec![offer.share.clone(), "-".to_owned(), offer.role.words().to_owned(), by]);
    }
    table::table(&["SHARE", "AT", "YOU", "WITH"], rows, &[])
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::LinkInfo;

    use super::*;

    fn share(name: &str, path: Option<&str>) -> ShareInfo {
        let member = |name: Option<&str>, you, verified| MemberInfo {
            name: name.map(Into::into),
            identity: "0123456789abcdef".into(),
            role: if you { ShareRole::Owner } else { ShareRole::Reader },
            you,
            verified,
            is_link: false,
            link: None,
        };
        ShareInfo {
            volume: "00".into(),
            name: name.into(),
            path: path.map(Into::into),
            role: Some(ShareRole::Owner),
            by_link: false,
            members: vec![member(None, true, false), member(Some("anna"), false, true), member(None, false, false)],
            links: Vec::new(),
            made: None,
            epoch: 1,
            rekeying: false,
            forks: Vec::new(),
        }
    }

    #[test]
    fn who_has_a_part_is_shown_and_who_was_not_verified_stands_out() {
        let text = member_table(&share("photos", Some("/photos")));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("(you)") && lines[1].contains("owner"), "{text}");
        assert!(lines[2].starts_with("anna") && lines[2].contains(" verified ") && !lines[2].contains("NOT"), "{text}");
        assert!(lines[3].starts_with('-') && lines[3].contains("no contact"), "{text}");
    }

    #[test]
    fn whoever_has_a_link_is_shown_as_that_and_not_as_a_stranger() {
        let mut photos = share("photos", Some("/photos"));
        photos.members.truncate(1);
        photos.members.push(MemberInfo {
            name: None,
            identity: "fedcba9876543210".into(),
            role: ShareRole::Writer,
            you: false,
            verified: false,
            is_link: true,
            link: Some("hn:hns1".into()),
        });
        let text = member_table(&photos);
        assert!(text.contains("(link)") && text.contains("reads and writes") && !text.contains("no contact"), "{text}");
        photos.links.push(LinkInfo { link: "hn:hns1".into(), until: None, role: ShareRole::Writer });
        let text = shares_table(&SharesInfo { shares: vec![photos], offers: Vec::new(), missing: Vec::new() });
        assert!(text.contains("whoever has a link"), "{text}");
    }

    #[test]
    fn the_link_that_is_printed_is_the_one_that_was_made() {
        let mut photos = share("photos", None);
        let link = |text: &str| LinkInfo { link: text.into(), until: None, role: ShareRole::Reader };
        photos.links = vec![link("hn:hns1new"), link("hn:hns1old")];
        assert_eq!(made(&photos), None);
        photos.made = Some("hn:hns1new".into());
        assert_eq!(made(&photos), Some("hn:hns1new"));
    }

    #[test]
    fn what_is_here_comes_before_what_is_offered() {
        let offer = |name: &str, attached| hypernet_sdk::api::OfferInfo {
            share: name.into(),
            name: name.rsplit('/').next().unwrap().into(),
            volume: "11".into(),
            by: "anna".into(),
            verified: false,
            role: ShareRole::Writer,
            attached,
        };
        let shares = vec![share("photos", Some("/photos")), share("old", None)];
        let offers = vec![offer("anna/music", false), offer("anna/photos", true)];
        let text = shares_table(&SharesInfo { shares, offers, missing: Vec::new() });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("photos") && lines[1].contains("2 others"), "{text}");
        assert!(lines[3].starts_with("anna/music") && lines[3].contains("offered, NOT verified"), "{text}");
        assert_eq!(lines.len(), 4, "{text}");
    }
}
