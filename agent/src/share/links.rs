//! Links: whoever has one reads the volume, or writes it, too, and needs nobody's word for it.
//!
//! A link leads to a record of a key of its own, which whoever made it keeps, so nobody who has the link can put anything
//! there. In it is what a member is told: where who has a part in the volume is found, and the epochs. So what is
//! read by a link is believed as by a member: by the signatures of those who may write. Of a link that writes the
//! [bearer](super::bearer) is one of those, and ending the link is taking it off.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use hypernet_core::codec;
use hypernet_core::id::IdentityId;
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::share::epoch::{Epoch, Epochs};
use hypernet_core::share::members::{Change, Role};
use hypernet_core::share::offer::{Link, LinkNotice, Linked, Offer};
use hypernet_core::share::posting;
use hypernet_core::time::Hlc;

use super::ShareError;
use super::hearing::{Ask, Known};
use super::kept::{By, Made, Share};
use super::offers::has_name;
use crate::failure::{Failure, Kind};
use crate::identity::places::{At, put, read};
use crate::keystore::random_secret;
use crate::volume::recover::clock;
use crate::volume::{Volume, damaged};

const HRP: Hrp = Hrp::parse_unchecked("hns");
/// What a link begins with.
const SCHEME: &str = "hn:";
const BYTES: usize = 48;
const CHARS: usize = 87;
/// In milliseconds.
const DAY: u64 = 24 * 3600 * 1000;
/// What the record is called when it cannot be published.
const LINK: &str = "where the link leads";

/// As it is handed on: `hn:hns1…`, in Bech32m, whose checksum finds what is mistyped or cut off.
pub(crate) fn text(link: &Link) -> String {
    let bytes = [&link.signer[..], &link.secret].concat();
    // 48 bytes fit.
    format!("{SCHEME}{}", bech32::encode::<Bech32m>(HRP, &bytes).unwrap_or_default())
}

/// Whether somebody means a link. What is copied without its beginning is one, too.
pub(crate) fn is_link(text: &str) -> bool {
    let begins = |with: &str| text.trim().get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    begins(SCHEME) || begins("hns1") && text.trim().len() > CHARS / 2
}

/// What somebody has pasted or typed.
pub(crate) fn parse(text: &str) -> Result<Link, Failure> {
    let wrong = |why: &str| {
        Failure::new(Kind::Usage, format!("not a link to a shared directory: {why}"))
            .hint("copy all of the line that `hn share --public` printed, which begins with hn:hns1")
    };
    let text = Some(text.trim()).filter(|text| is_link(text)).ok_or_else(|| wrong("it does not begin with hn:"))?;
    let is_whole = text.get(..SCHEME.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(SCHEME));
    let body = if is_whole { &text[SCHEME.len()..] } else { text };
    match body.chars().count() {
        CHARS => {}
        count if count < CHARS => {
            return Err(wrong(&format!("it is cut short: {count} of {CHARS} characters after hn:")));
        }
        _ => return Err(wrong(&format!("it has more than {CHARS} characters after hn:"))),
    }
    let mistyped = || wrong("its checksum does not fit, so a character of it is mistyped");
    let checked = CheckedHrpstring::new::<Bech32m>(body).map_err(|_| mistyped())?;
    let bytes: Vec<u8> = checked.byte_iter().collect();
    let (signer, secret) = bytes.split_at_checked(32).ok_or_else(mistyped)?;
    match (checked.hrp() == HRP && bytes.len() == BYTES, signer.try_into(), secret.try_into()) {
        (true, Ok(signer), Ok(secret)) => Ok(Link { signer, secret }),
        _ => Err(mistyped()),
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    clock(Hlc::default()).millis
}

impl Volume {
    /// Makes a link that reads this volume, or also writes, until a time in milliseconds since 1970. It leads there when this
    /// returns.
    pub(crate) fn make_link(&self, role: Role, until: Option<u64>) -> Result<Link, ShareError> {
        let _turn = self.circle_turn.lock();
        // What a link leads to lies at the places of admins.
        let known = self.hear_as_admin(Ask::All)?;
        let now = clock(self.again(&known).unwrap_or_default());
        let made = Made::new(&random_secret()?, role, until, now);
        let bearer = made.bearer();
        // It is kept before anybody is granted anything by it: where this is broken off, tending goes on.
        self.identity.keystore().change(|mine| mine.change_share(self.id, |share| share.add_link(&made)))?;
        if let Some(bearer) = bearer {
            self.grant_bearer(&bearer)?;
        }
        self.post()?;
        self.put_link(&made)?;
        Ok(made.link())
    }

    /// Takes a link back: what is written from now on is sealed in another epoch, and the link leads nowhere. What was
    /// written by it until now stays.
    pub(crate) fn take_back(&self, link: &Link) -> Result<(), ShareError> {
        let _turn = self.circle_turn.lock();
        let known = self.hear_as_admin(Ask::Soon)?;
        let made = known.share.open_links().find(|made| made.link() == *link);
        let made = made.cloned().ok_or_else(|| ShareError::Link(text(link)))?;
        self.end(&known, &[made], false)?;
        self.post()?;
        Ok(self.put_links()?)
    }

    /// Takes all links back that this identity has made, and all that write, whoever has made them.
    pub(crate) fn take_all_back(&self) -> Result<(), ShareError> {
        let _turn = self.circle_turn.lock();
        let known = self.hear_as_admin(Ask::Soon)?;
        let open: Vec<Made> = known.share.open_links().cloned().collect();
        let bearers: Vec<IdentityId> = open.iter().filter_map(Made::bearer).map(|bearer| bearer.id()).collect();
        let others: Vec<IdentityId> = known.members.links().filter(|id| !bearers.contains(id)).collect();
        if !others.is_empty() {
            self.remove_in_turn(&known, &others)?;
        }
        let ended = self.end(&known, &open, !others.is_empty());
        // Whoever is off by now is off, also where there is no room for the rest.
        self.post()?;
        ended?;
        Ok(self.put_links()?)
    }

    /// Ends those whose time has come, those whose bearer was taken off, and those that this identity has made before it was taken
    /// off itself and came back: they have ended with its part. The bearer of one that has ended, which another
    /// device may have granted its part meanwhile, has none, either. `has_begun`: no link was told of the epoch of now yet.
    pub(super) fn end_links(&self, has_begun: bool) -> Result<(), ShareError> {
        let Some(known) = self.known_share() else { return Ok(()) };
        let now = now();
        let is_over = |made: &&Made| {
            let bearer = made.bearer().map(|bearer| bearer.id());
            let is_in = bearer.is_some_and(|id| known.members.role(&id).is_some());
            let is_off = bearer.is_some_and(|id| known.members.gone.contains_key(&id));
            let is_due = made.until.is_some_and(|until| until <= now) || is_off || self.is_of_before(&known, made);
            if made.is_over { is_in } else { is_due }
        };
        let over: Vec<Made> = known.share.links.iter().filter(is_over).cloned().collect();
        if over.is_empty() { Ok(()) } else { self.end(&known, &over, has_begun) }
    }

    /// Takes off the links of those who bring nobody any more: taking off somebody who has made many is many changes, and may
    /// be broken off between two of them.
    pub(super) fn end_links_of_gone(&self) -> Result<(), ShareError> {
        let Some(known) = self.known_share() else { return Ok(()) };
        let members = &known.members;
        let is_admin = |maker: &IdentityId| members.role(maker) >= Some(Role::Admin);
        let is_over = |link: &IdentityId| !members.brought.get(link).is_some_and(is_admin);
        let over: Vec<IdentityId> = members.links().filter(is_over).collect();
        self.remove_in_turn(&known, &over)
    }

    /// When this identity was given a part again, after it had been taken off. A clock that is more than a day ahead says nothing.
    fn again(&self, known: &Known) -> Option<Hlc> {
        known.members.again(&self.identity.id()).filter(|again| again.millis <= now().saturating_add(DAY))
    }

    /// Whether a link was made before that.
    fn is_of_before(&self, known: &Known, made: &Made) -> bool {
        self.again(known).is_some_and(|again| made.changed < again)
    }

    fn end(&self, known: &Known, over: &[Made], has_begun: bool) -> Result<(), ShareError> {
        let bearers = over.iter().filter_map(Made::bearer).map(|bearer| bearer.id());
        let gone: Vec<IdentityId> = bearers.filter(|id| known.members.role(id).is_some()).collect();
        // The epoch first: where this is broken off the link still leads to what its holder has anyway.
        if !gone.is_empty() {
            self.remove_in_turn(known, &gone)?;
        } else if !has_begun && over.iter().any(|made| made.bearer().is_none()) {
            self.change_members(Change::Rotate)?;
        }
        self.identity.keystore().change(|mine| {
            mine.change_share(self.id, |share| {
                for made in over {
                    share.add_link(&made.over(clock(made.changed)));
                }
            });
        })?;
        Ok(())
    }

    /// Puts up where all links of this volume lead.
    pub(super) fn put_links(&self) -> Result<(), PortError> {
        let Some(share) = self.share() else { return Ok(()) };
        share.links.iter().try_for_each(|made| self.put_link(made))
    }

    fn put_link(&self, made: &Made) -> Result<(), PortError> {
        let Some((notice, is_ended)) = self.notice_of(made) else { return Ok(()) };
        let (place, key) = (Link::place(&made.secret()), made.link().sealing_key());
        let there = self.peers.lookup(place.record_key())?;
        let says = |record: &Record, notice: &LinkNotice| match read(&self.peers, record, &key) {
            Ok(At::Here(bytes)) => bytes == codec::encode(notice),
            _ => false,
        };
        if let Some(record) = there.as_ref().filter(|record| says(record, &notice)) {
            return self.peers.publish(record.clone(), self.peers.keepers(), LINK);
        }
        // Another device of this identity may have taken it back, and begun the epoch that is to be told here. It has said so
        // in the keystore before it told anybody of that.
        let notice = match is_ended {
            true => notice,
            false => {
                self.identity.look()?;
                let share = self.share();
                let made =
                    share.iter().flat_map(|share| &share.links).find(|other| other.link() == made.link()).cloned();
                let Some((notice, _)) = made.and_then(|made| self.notice_of(&made)) else { return Ok(()) };
                notice
            }
        };
        let after = there.map_or(0, |record| record.sequence);
        let record = put(&self.peers, &place, &key, codec::encode(&notice), after)?;
        self.peers.publish(record, self.peers.keepers(), LINK)
    }

    /// What is to be said where a link leads, and whether that is that it has ended.
    fn notice_of(&self, made: &Made) -> Option<(LinkNotice, bool)> {
        let known = self.known_share()?;
        let members = &known.members;
        let bearer = made.bearer().map(|bearer| bearer.id());
        // Somebody else may have taken off whoever has it.
        let is_off = bearer.is_some_and(|bearer| members.gone.contains_key(&bearer));
        if made.is_over || is_off || self.is_of_before(&known, made) {
            return Some((LinkNotice::Ended, true));
        }
        if bearer.is_some_and(|bearer| members.role(&bearer).is_none()) {
            // Another device has made it, and this one has not heard of what it may do yet.
            return None;
        }
        let Known { share, members, .. } = known;
        let mut epochs = Epochs::newest(share.epochs.clone()).epochs;
        // That which counts comes last: it is the one by which is written.
        epochs.sort_by_key(|epoch| (Some(epoch.name()) == members.epoch, epoch.rank()));
        let poster = posting::place(&self.device, &self.id).signer();
        let (volume, begin, root, name, secret) = (self.id, share.begin, share.root, share.name, share.secret);
        let offer = Offer { volume, begin, root, name, role: made.role, secret, poster };
        Some((LinkNotice::Leads(Linked { offer, epochs, until: made.until }.into()), false))
    }

    /// What is said where a link leads.
    fn notice(&self, link: &Link) -> Result<LinkNotice, PortError> {
        let record = self.peers.look_well(link.record_key())?.ok_or_else(|| {
            PortError::NotFound("the mesh has nothing where this link leads, or no peer that has it is there".into())
        })?;
        match read(&self.peers, &record, &link.sealing_key())? {
            At::Here(bytes) => codec::decode(&bytes).map_err(damaged),
            At::Nothing | At::Ended(_) => Err(damaged("this link does not open what it leads to")),
        }
    }

    /// Where a link leads.
    pub(crate) fn follow_link(&self, link: &Link) -> Result<Linked, ShareError> {
        match self.notice(link)? {
            LinkNotice::Leads(linked) if linked.until.is_none_or(|until| until > now()) => {
                has_name(&linked.offer)?;
                Ok(*linked)
            }
            LinkNotice::Leads(_) | LinkNotice::Ended => Err(ShareError::Ended),
        }
    }

    /// Takes in the epochs that the links tell by which a volume was attached. An error where none of them is found, and
    /// nobody else tells this identity anything.
    pub(super) fn hear_links(&self, share: &Share) -> Result<(), PortError> {
        let is_member = |known: Known| known.members.role(&self.identity.id()).is_some();
        let mut heard = self.known_share().is_some_and(is_member);
        let mut failed = None;
        for by in share.by.iter().filter(|by| by.is_open(now())) {
            match self.hear_link(by) {
                Ok(()) => heard = true,
                Err(error) => failed = Some(error),
            }
        }
        failed.filter(|_| !heard).map_or(Ok(()), Err)
    }

    fn hear_link(&self, by: &By) -> Result<(), PortError> {
        let linked = match self.notice(&by.link)? {
            LinkNotice::Leads(linked) => Some(linked),
            LinkNotice::Ended => None,
        };
        let is_over = linked.is_none();
        let until = linked.as_ref().map_or(by.until, |linked| linked.until);
        let by = By { is_over, link: by.link, until };
        let linked = linked.filter(|_| by.is_open(now()));
        let poster = linked.as_ref().map(|linked| linked.offer.poster);
        // Whoever made it may have been taken off since: what it tells is kept once a change that counts names it.
        let told = linked.map(|linked| Epochs::newest(linked.epochs).epochs);
        self.told.lock().insert(by.link.signer, told.unwrap_or_default());
        self.identity
            .keystore()
            .change(|mine| {
                mine.change_share(self.id, |share| {
                    share.add_by(&by);
                    poster.into_iter().for_each(|poster| share.add_poster(poster));
                });
            })
            .map_err(|failure| PortError::Disk(failure.to_string()))
    }

    /// The epochs that the links tell by which a volume was attached.
    pub(super) fn told_by_links(&self, share: &Share) -> Vec<Epoch> {
        let told = self.told.lock();
        share.by.iter().filter_map(|by| told.get(&by.link.signer)).flatten().cloned().collect()
    }

    /// Takes what a link leads to: it is in the keystore when this returns, and can be read.
    pub(crate) fn accept_link(&self, link: Link, linked: Linked) -> Result<Share, ShareError> {
        // What it says of epochs is heard with all else.
        let Linked { offer, until, .. } = linked;
        has_name(&offer)?;
        self.take(Share::offered(offer, Some(By { is_over: false, link, until })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link { signer: [0x5a; 32], secret: [7; 16] }
    }

    #[test]
    fn a_link_is_read_as_it_was_written_and_every_cut_and_slip_is_named() {
        let text = text(&link());
        assert_eq!(text.len(), SCHEME.len() + CHARS);
        for typed in [text.clone(), text.to_uppercase(), format!(" {text}\n"), text[SCHEME.len()..].to_owned()] {
            assert_eq!(parse(&typed).unwrap(), link());
        }
        let says = |typed: &str, what: &str| {
            let failure = parse(typed).unwrap_err();
            assert!(failure.message.contains(what) && failure.hint.is_some(), "{typed}: {failure}");
        };
        for at in SCHEME.len()..text.len() {
            says(&text[..at], "cut short");
            if at >= SCHEME.len() + 4 {
                let mut typed = text.clone().into_bytes();
                typed[at] = if typed[at] == b'q' { b'p' } else { b'q' };
                says(std::str::from_utf8(&typed).unwrap(), "checksum");
            }
        }
        says(&format!("{text}q"), "more than");
        says("https://example.org", "begin with hn:");
        says("", "begin with hn:");
    }

    #[test]
    fn what_is_typed_is_never_a_panic() {
        crate::golden::mutations(text(&link()).as_bytes(), |bytes| {
            if let Ok(parsed) = parse(&String::from_utf8_lossy(bytes)) {
                assert_eq!(parse(&text(&parsed)).unwrap(), parsed);
            }
        });
    }
}
