//! Guardians of the words: setting them, being one, and putting the words together again from their shares.
//!
//! The words are given for a moment, to be split; neither they nor a share in plain is kept by the one whose words they are.
//! Shares that are gathered on a bare machine are in memory only, for as long as its agent runs: whoever handed one over has
//! it still.

use hypernet_core::codec;
use hypernet_core::id::ShareSetId;
use hypernet_core::identity::share::{Share, ShareError, Taken, Terms, split};
use hypernet_core::limits::GUARDIAN_NAME_MAX;
use hypernet_core::name::filtered;
use hypernet_core::record::Record;
use hypernet_sdk::{SecretText, api};
use os_display::Quotable;

use super::people::{Here, Tell, code_of, contact_failure, failed, random_bytes, within};
use super::recovery::words_of;
use super::{Agent, port_failure};
use crate::failure::{Failure, Kind};
use crate::identity::SHARE;
use crate::keystore::random_secret;
use crate::pairing::code::Code;
use crate::pairing::message::{Reason, Topic};
use crate::pairing::sas::Pairing;
use crate::pairing::{Meeting, handover};
use crate::peers::Peers;
use crate::people::address;
use crate::people::contact::Contact;
use crate::people::guardians::{Guardian, Guardians, look_for_shares};
use crate::volume::damaged;
use crate::volume::heads::when;

/// Words that cannot be shared as was asked.
fn share_failure(error: &ShareError) -> Failure {
    Failure::new(Kind::Usage, error.to_string()).hint("for example: hn guardians set 2-of-3 anna ben carl")
}

/// Whose words a guardian helps to bring back.
enum Ward {
    Contact(Contact),
    /// Somebody who is no contact any more, and whose share is here.
    Held(Box<Share>),
}

fn nothing_for_me(name: &str) -> Failure {
    Failure::new(Kind::NoInput, format!("{name} has put no share of their words on the mesh for you, or took it back"))
        .hint("they name you in `hn guardians set`; the mesh may also not have answered: `hn peers` shows who is there")
}

impl Agent {
    /// Gives each guardian a share of the words. Blocks.
    pub(crate) fn set_guardians(&self, request: &api::SetGuardiansRequest) -> Result<api::GuardiansInfo, Failure> {
        let identity = &self.own()?.volume.identity;
        let named = self.named(&request.guardians)?;
        let words = words_of(request.phrase.words())?;
        let passphrase = request.phrase.passphrase();
        if words.keys(passphrase).id() != identity.id() {
            let what = "these words, with this passphrase or without, are not those of this identity";
            return Err(Failure::new(Kind::Usage, what)
                .hint("nothing was changed; --phrase-passphrase asks for a passphrase that belongs to them"));
        }
        let before = identity.keystore().keystore().guardians.mine;
        let made = Guardians::next(before.as_ref());
        let terms = Terms { set: ShareSetId(random_bytes()?), made, threshold: request.threshold };
        let whom: Vec<_> = named.iter().map(|contact| (contact.identity, contact.name.clone())).collect();
        // The system has just given random bytes: it goes on to.
        let random = getrandom::rand_core::UnwrapErr(getrandom::SysRng);
        let shares = split(&words, passphrase, &terms, &whom, random).map_err(|error| share_failure(&error))?;
        // All are found before anything changes.
        let sealed = named.iter().zip(&shares).map(|(contact, share)| Guardian::with(identity, contact, share));
        let guardians: Vec<Guardian> = sealed.collect::<Result<_, _>>().map_err(port_failure)?;
        let set = Guardians::new(made, terms.threshold, !passphrase.is_empty(), guardians, before.as_ref());
        identity.keystore().change(|keystore| keystore.guardians.mine = Some(set.clone()))?;
        let info = self.guardians_info(&set)?;
        self.keep_on_the_mesh()?;
        Ok(info)
    }

    /// Contacts by their names; each once.
    fn named(&self, names: &[String]) -> Result<Vec<Contact>, Failure> {
        let contacts = self.contacts()?;
        let mut named: Vec<Contact> = Vec::with_capacity(names.len());
        for name in names {
            let found = contacts.get(name).map_err(|error| {
                contact_failure(error).hint("guardians are contacts: hn contact add ADDRESS --name NAME")
            })?;
            if named.iter().any(|other| other.identity == found.identity) {
                return Err(Failure::new(Kind::Usage, format!("{} is named twice", found.name))
                    .hint("each guardian has one share"));
            }
            named.push(found);
        }
        Ok(named)
    }

    /// Puts the shares of a set where the guardians find them, and says whose are there.
    fn put_shares(&self, set: &Guardians) -> Result<Vec<bool>, Failure> {
        let identity = &self.own()?.volume.identity;
        let records = set.records(&identity.address()).map_err(|error| port_failure(damaged(error)))?;
        let records: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
        let peers = identity.peers();
        Ok(peers.publish_all(records, peers.keepers(), SHARE).iter().map(Result::is_ok).collect())
    }

    fn guardians_info(&self, set: &Guardians) -> Result<api::GuardiansInfo, Failure> {
        let contacts = self.contacts()?.list();
        let placed = self.put_shares(set)?;
        let info = |(one, placed): (&Guardian, bool)| api::GuardianInfo {
            name: one.name.clone(),
            address: address::text(&one.address()),
            identity: one.identity.to_string(),
            verified: contacts.iter().any(|contact| contact.identity == one.identity && contact.is_verified),
            placed,
        };
        Ok(api::GuardiansInfo {
            threshold: set.threshold,
            set: when(set.changed),
            phrase_passphrase: set.has_passphrase,
            guardians: set.current().zip(placed).map(info).collect(),
        })
    }

    /// Who has shares of the words, and whose shares are here. Fetches those that are not. Blocks.
    pub(crate) fn list_guardians(&self) -> Result<api::GuardiansList, Failure> {
        let identity = &self.own()?.volume.identity;
        let contacts = self.contacts()?.list();
        let mut warnings = Vec::new();
        let keystore = identity.keystore().keystore();
        match look_for_shares(identity.peers(), &keystore, &identity.address(), &contacts) {
            Ok(found) => {
                let (shares, errors): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
                warnings.extend(errors.into_iter().filter_map(Result::err).map(|error| error.to_string()));
                self.hold(shares.into_iter().flatten().flatten().collect())?;
            }
            Err(error) => warnings.push(format!("whether there are new shares cannot be said: {error}")),
        }
        let guardians = identity.keystore().keystore().guardians;
        let held = guardians.held.iter().map(|share| api::HeldShare {
            name: contacts.iter().find(|one| one.identity == share.identity).map(|one| one.name.clone()),
            identity: share.identity.to_string(),
            set: when(share.made),
            threshold: share.threshold,
            count: share.count,
        });
        let held = held.collect();
        let mine = guardians.mine.filter(|set| set.current().next().is_some());
        let mine = mine.map(|set| self.guardians_info(&set)).transpose()?;
        Ok(api::GuardiansList { mine, held, warnings })
    }

    /// Keeps shares of others' words.
    fn hold(&self, shares: Vec<Share>) -> Result<(), Failure> {
        let file = self.own()?.volume.identity.keystore();
        let before = file.keystore();
        if shares.iter().all(|share| before.guardians.held.contains(share)) {
            return Ok(());
        }
        let me = before.identity;
        file.change(|keystore| {
            for share in &shares {
                keystore.guardians.hold(share, &me);
            }
        })?;
        self.keep_on_the_mesh()
    }

    /// Takes the guardians back. Blocks.
    pub(crate) fn clear_guardians(&self) -> Result<api::GuardiansCleared, Failure> {
        let file = self.own()?.volume.identity.keystore();
        let before = file.keystore().guardians.mine.filter(|set| set.current().next().is_some());
        let before = before.ok_or_else(|| {
            Failure::new(Kind::Usage, "no guardians are set").hint("hn guardians set 2-of-3 anna ben carl")
        })?;
        let set = before.taken_back(Guardians::next(Some(&before)));
        file.change(|keystore| keystore.guardians.mine = Some(set.clone()))?;
        let records = set.records(&self.own()?.volume.identity.address());
        let records = records.map_err(|error| port_failure(damaged(error)))?;
        let left = records.iter().zip(self.put_shares(&set)?).filter(|(_, placed)| !placed);
        let left: Vec<_> = left.map(|((one, _), _)| one.identity).collect();
        self.keep_on_the_mesh()?;
        let names = |wanted: &dyn Fn(&Guardian) -> bool| {
            before.current().filter(|one| wanted(one)).map(|one| one.name.clone()).collect()
        };
        Ok(api::GuardiansCleared { names: names(&|_| true), left: names(&|one| left.contains(&one.identity)) })
    }

    /// The share of a contact's words: the newest that the mesh has, or that which is here.
    fn share_of(&self, contact: &Contact) -> Result<Share, Failure> {
        let identity = &self.own()?.volume.identity;
        let keystore = identity.keystore().keystore();
        let found = look_for_shares(identity.peers(), &keystore, &identity.address(), std::slice::from_ref(contact));
        let mut trouble = None;
        match found.map(|mut found| found.pop()) {
            Ok(Some(Ok(Some(share)))) => self.hold(vec![share])?,
            Ok(Some(Err(error))) | Err(error) => trouble = Some(error),
            Ok(_) => {}
        }
        match (identity.keystore().keystore().guardians.of(&contact.identity), trouble) {
            (Some(share), trouble) => {
                if let Some(error) = trouble {
                    tracing::warn!(%error, "the share that is here is given");
                }
                Ok(share.clone())
            }
            (None, Some(error)) => Err(port_failure(error)),
            (None, None) => Err(nothing_for_me(&contact.name)),
        }
    }

    /// Who is meant: a contact, by name or address, or whoever has a share here, by the beginning of their id.
    fn ward(&self, name: &str) -> Result<Ward, Failure> {
        let contacts = self.contacts()?;
        let unknown = match contacts.get(name) {
            Ok(contact) => return Ok(Ward::Contact(contact)),
            Err(error) => error,
        };
        let guardians = self.guardianship()?;
        match guardians.of_id(name).as_slice() {
            [share] => Ok(match contacts.list().into_iter().find(|one| one.identity == share.identity) {
                Some(contact) => Ward::Contact(contact),
                None => Ward::Held(Box::new(Share::clone(share))),
            }),
            [] => Err(contact_failure(unknown).hint(
                "`hn contact list` shows contacts, and `hn guardians list` whose shares are here: an id that is shown there does in \
                 place of a name",
            )),
            several => Err(Failure::new(
                Kind::Usage,
                format!("shares of {} identities are here whose ids begin with {name}", several.len()),
            )
            .hint("give more of the id: `hn guardians list --json` has the whole of each")),
        }
    }

    /// A guardian's part in a recovery: hands the share of somebody's words over to whoever shows the code. Blocks.
    pub(crate) fn help_to_recover(&self, request: &api::PairRequest, tell: Tell) -> Result<api::Paired, Failure> {
        let own = self.own()?;
        let name = request.contact.as_deref().unwrap_or_default();
        let ward = self.ward(name)?;
        let code = code_of(request)?;
        let seated = self.pairings.sit_down()?;
        let mut here = Here::new(&seated, tell);
        here.say("looking for the share");
        // Before anybody is kept waiting.
        let (name, share) = match ward {
            Ward::Contact(contact) => (contact.name.clone(), self.share_of(&contact)?),
            Ward::Held(share) => (share.identity.short(), *share),
        };
        let pairing = Pairing::enters(Topic::Share, &self.name());
        let mut meeting = Meeting::begin(own.volume.identity.peers(), &code, pairing, within(request));
        here.say("looking for the other side");
        meeting.compare(&mut here).map_err(failed)?;
        here.say("waiting until it is confirmed there");
        handover::give(&mut meeting, &mut here, &share).map_err(failed)?;
        Ok(api::Paired::with(name, share.identity.to_string()))
    }

    fn still_gathers(&self) -> Result<(), Failure> {
        if self.config.lock().recovering && self.with_volume().is_none() {
            return Ok(());
        }
        Err(Failure::new(Kind::Config, "this agent has its identity and gathers no shares")
            .hint("recovering begins in an empty HN_HOME: `hn recover --guardians`"))
    }

    /// Shows a code, and takes the share of the guardian who enters it. Blocks.
    pub(crate) fn gather_share(&self, request: &api::PairRequest, tell: Tell) -> Result<api::Paired, Failure> {
        self.still_gathers()?;
        let seated = self.pairings.sit_down()?;
        let mut here = Here::new(&seated, tell);
        let (peers, key) = (Peers::new(self.node.clone()), random_secret()?);
        let (code, transaction) = (Code::random()?, random_bytes()?);
        let pairing = Pairing::shows(Topic::Share, "", transaction);
        let mut meeting = Meeting::begin(&peers, &code, pairing, within(request));
        self.show(&code, request, &here)?;
        meeting.compare(&mut here).map_err(failed)?;
        here.say("waiting until it is confirmed on the guardian's side");
        let plain = handover::receive(&mut meeting, &mut here, &key).map_err(failed)?;
        let (name, id, taken) = self.take_share(&plain, &here.met);
        let refused = match taken {
            Ok(apart) => {
                handover::taken(&mut meeting).map_err(failed)?;
                apart
            }
            Err(refused) => meeting.attempt(Reason::Share, |_| Err::<(), _>(refused)).err(),
        };
        let refused = refused.as_ref().map(crate::server::api_error);
        Ok(api::Paired { name, id, refused })
    }

    /// Takes a share in: from whom it is, and why it is of no use, or is held apart.
    fn take_share(&self, plain: &[u8], met: &str) -> (String, String, Result<Option<Failure>, Failure>) {
        let by = met.maybe_quote();
        let another =
            "nothing is lost: go on with another guardian, and ask this one, not by the mesh, where it is from";
        let refused = |text: String| Failure::new(Kind::Data, text).hint(another);
        let share = match codec::decode::<Share>(plain) {
            Ok(share) => share,
            Err(error) => {
                let failure = refused(format!("what {by} has handed over is no share of any words: {error}"));
                return (met.to_owned(), String::new(), Err(failure));
            }
        };
        let (name, id) = (share.name.clone(), share.guardian.to_string());
        // Until it is known to be signed, what it says is only what it says.
        let shown = filtered(&name, GUARDIAN_NAME_MAX);
        let whose = share.identity.short();
        let taken = match self.shares.lock().take(share) {
            Ok(Taken::Fits | Taken::Known) => Ok(None),
            Ok(Taken::OtherSet) => Ok(Some(refused(format!(
                "the share of {shown} is not one of the set of those before: the words were shared anew in between. It is \
                 held apart"
            )))),
            Ok(Taken::OtherIdentity) => Ok(Some(refused(format!(
                "the share of {shown} is not one of the set of those before: it is of the words of another identity, \
                 {whose}. It is held apart"
            )))),
            Err(ShareError::Forged) => Err(refused(format!(
                "the share of {shown}, handed over by {by}, is not one of this set: {}",
                ShareError::Forged
            ))),
            Err(error) => Err(refused(format!("the share of {shown} is refused: {error}"))),
        };
        (shown, id, taken)
    }

    /// How far the gathering of shares has come.
    pub(crate) fn gathered(&self) -> Result<api::Gathered, Failure> {
        self.still_gathers()?;
        let shares = self.shares.lock();
        let set = shares.gathered();
        let first = set.first();
        Ok(api::Gathered {
            have: set.iter().map(|share| share.name.clone()).collect(),
            needed: first.map(|share| share.threshold),
            identity: first.map(|share| share.identity.to_string()),
            phrase_passphrase: first.is_some_and(|share| share.has_passphrase),
        })
    }

    /// The words that the shares give.
    pub(crate) fn shared_words(&self, request: &api::SharedWordsRequest) -> Result<api::Words, Failure> {
        self.still_gathers()?;
        let shares = self.shares.lock();
        let words = shares.words(request.passphrase.expose()).map_err(|error| match error {
            ShareError::TooFew { .. } => {
                Failure::new(Kind::TryAgain, error.to_string()).hint("hn recover --guardians gathers the others")
            }
            ShareError::Words if shares.gathered().iter().any(|share| share.has_passphrase) => {
                Failure::new(Kind::Usage, "this is not the passphrase that belongs to the words")
                    .hint("run the same command again: the shares are here for as long as this agent runs")
            }
            error => Failure::new(Kind::Data, error.to_string()),
        })?;
        Ok(api::Words { words: words.words().map(SecretText::from).collect() })
    }
}
