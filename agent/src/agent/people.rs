//! Other people and other devices: who this is, whom it knows, and meeting them by a code.
//!
//! A device joins in this order, so that nothing is half done wherever it ends:
//!
//! 1. People have compared; the new device has signed its own entry, and the one that is listed has checked it.
//! 2. The listed one signs a change of the list and hands it over, sealed for the new device, with the keystore. It keeps
//!    nothing of it: as far as it and the mesh know nothing has happened.
//! 3. The new device writes down what makes it one, the keystore last, and only then puts the list on the mesh.
//!
//! So what ends before the keystore is written is begun again with another code, and whatever ends after it goes on by
//! itself: as with a recovery, which it is from then on.

use std::sync::Arc;
use std::time::Duration;

use hypernet_core::codec;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::proof::Proof;
use hypernet_core::key::DeviceKeys;
use hypernet_core::name::filtered;
use hypernet_core::port::PortError;
use hypernet_sdk::api;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Agent, port_failure};
use crate::failure::{Failure, Kind};
use crate::identity::arrival::{self, Arrived, Newcomer};
use crate::identity::known::listed;
use crate::invite::Invite;
use crate::keystore::random_secret;
use crate::pairing::code::Code;
use crate::pairing::emoji::Picture;
use crate::pairing::message::{NAME_MAX, Reason, Topic};
use crate::pairing::sas::{Pairing, Refused};
use crate::pairing::{Answer, Meeting, PairingError, Person, parcel};
use crate::peers::Peers;
use crate::people::contact::Contact;
use crate::people::guardians::Guardianship;
use crate::people::{self, ContactError, Contacts, address};
use crate::volume::state;

/// Addresses of other peers in an invite: whoever uses it later may find this agent gone.
const INVITE_OTHERS: usize = 8;
/// Addresses in a link that is to become a picture.
const PAIR_ADDRESSES: usize = 3;
/// Seconds that a person is waited for, at most.
const TIMEOUT_MAX: u64 = 3600;

/// What the person here is to compare, and what they say of it.
pub(crate) struct Seat {
    picture: Mutex<Option<Picture>>,
    answer: Mutex<Answer>,
}

/// The one meeting that an agent may have at a time.
#[derive(Default)]
pub(crate) struct Table(Mutex<Option<Arc<Seat>>>);

impl Table {
    pub(super) fn sit_down(&self) -> Result<Seated<'_>, Failure> {
        let mut there = self.0.lock();
        if there.is_some() {
            return Err(Failure::new(Kind::TryAgain, "this agent is meeting somebody already")
                .hint("finish that one first, or break it off with Ctrl-C where it was begun"));
        }
        let seat = Arc::new(Seat { picture: Mutex::new(None), answer: Mutex::new(Answer::NotYet) });
        *there = Some(seat.clone());
        Ok(Seated { table: self, seat })
    }

    /// The person here has compared: these are the words that the other side shows.
    pub(crate) fn compared(&self, words: &[String]) -> Result<(), Failure> {
        let seat = self.0.lock().clone();
        let picture = seat.as_ref().and_then(|seat| *seat.picture.lock());
        let (Some(seat), Some(picture)) = (seat, picture) else {
            return Err(Failure::new(Kind::Usage, "there is nothing to compare now"));
        };
        let is_same = picture.is_told_by(words);
        *seat.answer.lock() = if is_same { Answer::Same } else { Answer::Different };
        Ok(())
    }
}

pub(super) struct Seated<'a> {
    table: &'a Table,
    seat: Arc<Seat>,
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        *self.table.0.lock() = None;
    }
}

/// Whom a meeting's events go to. Who does not listen any more has broken it off.
pub(crate) type Tell = mpsc::Sender<api::PairEvent>;

/// The person at this agent's socket.
pub(super) struct Here {
    seat: Arc<Seat>,
    tell: Tell,
    /// What the other side calls itself.
    pub(super) met: String,
}

impl Here {
    pub(super) fn new(seated: &Seated<'_>, tell: Tell) -> Self {
        Self { seat: seated.seat.clone(), tell, met: String::new() }
    }

    fn tell(&self, event: api::PairEvent) {
        let _ = self.tell.blocking_send(event);
    }

    pub(super) fn say(&self, text: &str) {
        self.tell(api::PairEvent::Progress { text: text.to_owned() });
    }
}

impl Person for Here {
    fn met(&mut self, name: &str) {
        let name = filtered(name, NAME_MAX);
        self.met.clone_from(&name);
        self.tell(api::PairEvent::Met { name });
    }

    fn compare(&mut self, picture: Picture) {
        *self.seat.picture.lock() = Some(picture);
        self.tell(api::PairEvent::Compare { emoji: picture.emoji(), words: picture.words() });
    }

    fn answer(&mut self) -> Answer {
        if self.tell.is_closed() { Answer::Gone } else { *self.seat.answer.lock() }
    }
}

/// What a failed meeting means, and what to do.
pub(super) fn failed(error: PairingError) -> Failure {
    let failure = |kind| Failure::new(kind, error.to_string());
    let again = "begin again with another code: each is good for one attempt";
    let between = "do not go on over this network until you know why; nothing was handed over";
    match &error {
        PairingError::Nobody => {
            failure(Kind::Unavailable).hint("look at the code on the other device, or have it show another one")
        }
        PairingError::Expired | PairingError::Silent | PairingError::NotCompared | PairingError::Broken => {
            failure(Kind::TryAgain).hint(again)
        }
        PairingError::Used => failure(Kind::Usage).hint(again),
        PairingError::Different => failure(Kind::Data).hint(between),
        PairingError::Refused(Refused::Cancelled(Reason::Different | Reason::Refused | Reason::Identity)) => {
            failure(Kind::Data).hint(between)
        }
        PairingError::Refused(Refused::Cancelled(Reason::Share)) => failure(Kind::Data).hint(
            "they need another guardian's share; if yours was damaged here, a device of yours that has it may help instead",
        ),
        PairingError::Refused(Refused::Cancelled(_)) => failure(Kind::TryAgain).hint(again),
        PairingError::Refused(Refused::Topic(_)) => failure(Kind::Usage).hint(again),
        PairingError::Refused(_) => failure(Kind::Data).hint(again),
        PairingError::Port(_) => match error {
            PairingError::Port(error) => port_failure(error),
            other => Failure::new(Kind::System, other.to_string()),
        },
    }
}

/// A contact that is not there, or not changed.
pub(super) fn contact_failure(error: ContactError) -> Failure {
    let failure = |kind| Failure::new(kind, error.to_string());
    match error {
        ContactError::Disk(failure) => failure,
        ContactError::Unknown(_) | ContactError::Ambiguous(..) => {
            failure(Kind::Usage).hint("`hn contact list` shows them all")
        }
        ContactError::Name => failure(Kind::Usage).hint("for example --name anna"),
        ContactError::Taken(_) => failure(Kind::Data).hint(
            "ask them, not by the mesh, which address is theirs; `hn contact remove` first if it is to be replaced, or \
             add this one by another name",
        ),
        ContactError::Known(_) => {
            failure(Kind::Usage).hint("`hn contact remove` first if they are to be called otherwise")
        }
        ContactError::Own => failure(Kind::Usage).hint("others add it; you add theirs, which `hn id` prints there"),
        ContactError::Full => failure(Kind::CantCreate).hint("hn contact remove NAME"),
    }
}

fn contact_info(contact: &Contact, guardians: &Guardianship) -> api::ContactInfo {
    api::ContactInfo {
        name: contact.name.clone(),
        address: address::text(&contact.address()),
        identity: contact.identity.to_string(),
        verified: contact.is_verified,
        share: guardians.of(&contact.identity).is_some(),
    }
}

pub(super) fn within(request: &api::PairRequest) -> Duration {
    Duration::from_secs(request.timeout_seconds.clamp(1, TIMEOUT_MAX))
}

impl Agent {
    /// By which others come to this mesh: its own addresses, those that are not this machine itself first, and some of
    /// others.
    pub(crate) fn invite(&self) -> Result<Invite, Failure> {
        let network = self.config.lock().network()?;
        let mut via = self.mesh.listen_addrs();
        let is_local = |text: &str| text.contains("/127.") || text.contains("/ip6/::1");
        via.sort_by_key(|addr| {
            let text = addr.to_string();
            (is_local(&text), text)
        });
        let known = self.memory.lock();
        via.extend(known.others(INVITE_OTHERS).filter_map(|addr| addr.parse::<libp2p::Multiaddr>().ok()));
        Ok(Invite { network, via })
    }

    /// Who this is.
    pub(crate) fn id(&self) -> Result<api::IdInfo, Failure> {
        let identity = &self.own()?.volume.identity;
        Ok(api::IdInfo { address: address::text(&identity.address()), identity: identity.id().to_string() })
    }

    pub(super) fn contacts(&self) -> Result<Contacts, Failure> {
        Ok(Contacts::of(self.own()?.volume.identity.keystore()))
    }

    pub(super) fn guardianship(&self) -> Result<Guardianship, Failure> {
        Ok(self.own()?.volume.identity.keystore().keystore().guardians)
    }

    /// Whom this identity knows.
    pub(crate) fn list_contacts(&self) -> Result<Vec<api::ContactInfo>, Failure> {
        let guardians = self.guardianship()?;
        Ok(self.contacts()?.list().iter().map(|contact| contact_info(contact, &guardians)).collect())
    }

    /// Looks somebody up and keeps them. Blocks.
    pub(crate) fn add_contact(&self, request: &api::AddContactRequest) -> Result<api::ContactInfo, Failure> {
        let contacts = self.contacts()?;
        let address = address::parse(&request.address)?;
        let identity = people::identity_at(self.own()?.volume.identity.peers(), &address).map_err(port_failure)?;
        let added = contacts.add(&request.name, identity, address).map_err(contact_failure)?;
        self.keep_on_the_mesh()?;
        Ok(contact_info(&added, &self.guardianship()?))
    }

    /// Forgets somebody. Blocks.
    pub(crate) fn remove_contact(&self, request: &api::ContactRequest) -> Result<api::ContactInfo, Failure> {
        let removed = self.contacts()?.remove(&request.name).map_err(contact_failure)?;
        self.keep_on_the_mesh()?;
        Ok(contact_info(&removed, &self.guardianship()?))
    }

    /// The keystore has changed: the mesh is to have it. Where it cannot now, the agent does it later: it looks
    /// after that every ten minutes.
    pub(super) fn keep_on_the_mesh(&self) -> Result<(), Failure> {
        let own = self.own()?;
        // What a recovery has not found yet says nothing of where its heads are.
        let told = if self.config.lock().recovering { Ok(()) } else { own.volume.tell() };
        if let Err(error) = told.and_then(|()| own.volume.identity.confirm()) {
            tracing::warn!(%error, "the keystore has changed, and is not on the mesh yet");
        }
        // A contact may be among what has changed.
        self.acquainted.look();
        Ok(())
    }

    /// Waits for a new device, and enrols it. Blocks.
    pub(crate) fn add_device(&self, request: &api::PairRequest, tell: Tell) -> Result<api::Paired, Failure> {
        let seated = self.pairings.sit_down()?;
        let volume = &self.own()?.volume;
        if state::latest(&volume.db).map_err(port_failure)?.is_none() {
            return Err(Failure::new(Kind::Config, "nothing was synced yet that another device could begin with")
                .hint("`hn sync` first, then try again"));
        }
        let identity = &volume.identity;
        identity.still_listed().map_err(port_failure)?;
        let mut here = Here::new(&seated, tell);
        let (code, transaction) = (Code::random()?, random_bytes()?);
        let pairing = Pairing::shows(Topic::Device, "", transaction);
        let mut meeting = Meeting::begin(identity.peers(), &code, pairing, within(request));
        self.show(&code, request, &here)?;
        meeting.compare(&mut here).map_err(failed)?;
        here.say("waiting until it is confirmed on the new device");
        let first = meeting.attempt(Reason::Failed, |meeting| {
            meeting.pairing.is_same()?;
            meeting.pairing.vouch(identity.id().as_bytes().to_vec())
        });
        first.map_err(|error| failed(error.into()))?;
        let vouched = meeting.vouched(&mut here).map_err(failed)?;
        here.say("handing over the keystore");
        let device = meeting.attempt(Reason::Failed, |meeting| {
            let device = codec::decode::<Newcomer>(&vouched).map_err(crate::volume::damaged)?.device;
            let arrived = identity.enrol_listed(device.clone())?;
            let sent = parcel::send(identity.peers(), &code, &device.recipient, &arrived)?;
            meeting.pairing.done(sent.to_vec()).map_err(crate::volume::damaged)?;
            Ok::<_, PortError>(device)
        });
        let device = device.map_err(port_failure)?;
        meeting.done(&mut here).map_err(|error| match error {
            PairingError::Silent => {
                Failure::new(Kind::TryAgain, "the new device has all that it needs, and has not said so")
                    .hint("`hn device list` shows whether it came onto the list; if not, begin again with another code")
            }
            error => failed(error),
        })?;
        // So that whoever asks next sees it; it is there whether this device hears of it now or later.
        if let Err(error) = identity.look() {
            tracing::info!(%error, "the new device is not on the list that the mesh has yet");
        }
        Ok(api::Paired::with(device.name, device.id.to_string()))
    }

    /// Comes onto the list of devices of whoever shows the code. Blocks.
    pub(crate) fn join_identity(&self, request: &api::PairRequest, tell: Tell) -> Result<api::Paired, Failure> {
        if !self.config.lock().recovering {
            return Err(Failure::new(Kind::Config, "this agent has its state and joins nobody")
                .hint("joining begins in an empty HN_HOME: `hn device join`"));
        }
        let seated = self.pairings.sit_down()?;
        let mut here = Here::new(&seated, tell);
        let _alone = self.alone(&mut |text| here.say(&text));
        self.open_found()?;
        if let Some(own) = self.with_volume() {
            // What a crash after the keystore was written has left.
            return Ok(api::Paired::with(self.name(), own.volume.device.id().to_string()));
        }
        let code = code_of(request)?;
        let (peers, name) = (Arc::new(Peers::new(self.node.clone())), self.name());
        let device = DeviceKeys::new(random_secret()?);
        let mut meeting = Meeting::begin(&peers, &code, Pairing::enters(Topic::Device, &name), within(request));
        here.say("looking for the other device");
        meeting.compare(&mut here).map_err(failed)?;
        here.say("waiting until it is confirmed on the other device");
        let vouched = meeting.vouched(&mut here).map_err(failed)?;
        let identity = meeting.attempt(Reason::Failed, |meeting| {
            let identity =
                IdentityId::from_slice(&vouched).ok_or_else(|| crate::volume::damaged("it names no identity"))?;
            let device = listed(&identity, &device, &name).map_err(crate::volume::damaged)?;
            meeting.pairing.vouch(codec::encode(&Newcomer { device })).map_err(crate::volume::damaged)?;
            Ok::<_, PortError>(identity)
        });
        let identity = identity.map_err(port_failure)?;
        here.say("waiting for the keystore");
        let sent = meeting.done(&mut here).map_err(failed)?;
        let arrived = meeting.attempt(Reason::Failed, |_| -> Result<Arrived, PortError> {
            let arrived = parcel::receive(&peers, &code, &device, identity, &sent)?;
            arrival::is_sound(&arrived, identity, &device)?;
            Ok(arrived)
        });
        let settled = meeting.attempt(Reason::Failed, |_| self.settle_down(arrived.map_err(port_failure)?, &device));
        settled?;
        here.say("coming onto the list of devices");
        let confirmed = self.own()?.volume.identity.confirm();
        // All that makes this a device is written down: whatever is missing of the rest it does by itself.
        meeting.pairing.done(Vec::new()).map_err(|error| failed(error.into()))?;
        meeting.leave_last();
        confirmed.map_err(|error| self.not_yet(error))?;
        Ok(api::Paired::with(name, device.id().to_string()))
    }

    /// Makes sure of a contact, together with them: without a code this side shows one. Blocks.
    pub(crate) fn verify_contact(&self, request: &api::PairRequest, tell: Tell) -> Result<api::Paired, Failure> {
        let own = self.own()?;
        let identity = &own.volume.identity;
        let name = request.contact.as_deref().unwrap_or_default();
        let contact = self.contacts()?.get(name).map_err(contact_failure)?;
        let code = request.code.as_ref().map(|_| code_of(request)).transpose()?;
        let seated = self.pairings.sit_down()?;
        let mut here = Here::new(&seated, tell);
        // Before anybody is kept waiting: it takes the list of devices of theirs, and this one's must be good there.
        identity.still_listed().map_err(port_failure)?;
        let is_first = code.is_none();
        let (code, pairing) = match code {
            Some(code) => (code, Pairing::enters(Topic::Contact, &self.name())),
            None => (Code::random()?, Pairing::shows(Topic::Contact, &self.name(), random_bytes()?)),
        };
        let mut meeting = Meeting::begin(identity.peers(), &code, pairing, within(request));
        if is_first {
            self.show(&code, request, &here)?;
        }
        meeting.compare(&mut here).map_err(failed)?;
        here.say("waiting until it is confirmed on the other side");
        let meeting_hash = meeting.pairing.transcript();
        let proof = codec::encode(&Proof::sign(identity.id(), &own.volume.device, &meeting_hash));
        let vouch =
            |meeting: &mut Meeting<'_>| meeting.pairing.vouch(proof.clone()).map_err(|error| failed(error.into()));
        if is_first {
            meeting.attempt(Reason::Failed, |meeting| {
                meeting.pairing.is_same().map_err(|error| failed(error.into()))?;
                vouch(meeting)
            })?;
        }
        let vouched = meeting.vouched(&mut here).map_err(failed)?;
        here.say("looking for their list of devices");
        let is_them = meeting.attempt(Reason::Failed, |_| {
            let theirs = codec::decode::<Proof>(&vouched).map_err(crate::volume::damaged)?;
            people::is_them(identity, &contact, &theirs, &meeting_hash)
        });
        if !is_them.map_err(port_failure)? {
            return meeting.attempt(Reason::Identity, |_| {
                Err(Failure::new(
                    Kind::Data,
                    format!("the key of {name} has CHANGED, or this is NOT {name}: nothing was marked"),
                )
                .hint(format!(
                    "compare what `hn id` prints there with the address that `hn contact list` has of {name}"
                )))
            });
        }
        // Done on both sides only when each has found the other: who has shown the code says so first.
        if !is_first {
            meeting.attempt(Reason::Failed, vouch)?;
            meeting.done(&mut here).map_err(failed)?;
        }
        meeting.pairing.done(Vec::new()).map_err(|error| failed(error.into()))?;
        if is_first {
            meeting.done(&mut here).map_err(failed)?;
        }
        meeting.leave_last();
        self.contacts()?.verified(&contact).map_err(contact_failure)?;
        self.keep_on_the_mesh()?;
        Ok(api::Paired::with(contact.name, contact.identity.to_string()))
    }

    pub(super) fn name(&self) -> String {
        self.config.lock().device_name.clone()
    }

    pub(super) fn show(&self, code: &Code, request: &api::PairRequest, here: &Here) -> Result<(), Failure> {
        let mut invite = self.invite()?;
        invite.via.truncate(PAIR_ADDRESSES);
        let seconds = within(request).as_secs();
        here.tell(api::PairEvent::Code { code: code.text(), link: code.link(&invite.to_link()), seconds });
        Ok(())
    }
}

pub(super) fn code_of(request: &api::PairRequest) -> Result<Code, Failure> {
    let code = request.code.as_deref().ok_or_else(|| {
        Failure::new(Kind::Usage, "there is no code").hint("give the one that the other device shows")
    })?;
    Code::parse(code)
}

pub(super) fn random_bytes() -> Result<[u8; 16], Failure> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&random_secret()?.expose()[..16]);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_meeting_at_a_time_and_the_words_are_those_of_the_picture() {
        let table = Table::default();
        assert!(table.compared(&[]).is_err());
        let seated = table.sit_down().unwrap();
        assert_eq!(table.sit_down().map(drop).unwrap_err().kind, Kind::TryAgain);
        assert!(table.compared(&[]).is_err(), "nothing is shown yet");
        let picture = Picture::new([1, 2, 3, 4, 5, 6, 7]);
        *seated.seat.picture.lock() = Some(picture);
        table.compared(&picture.words()).unwrap();
        assert_eq!(*seated.seat.answer.lock(), Answer::Same);
        table.compared(&[]).unwrap();
        assert_eq!(*seated.seat.answer.lock(), Answer::Different);
        drop(seated);
        assert!(table.sit_down().is_ok());
    }

    #[test]
    fn somebody_in_between_is_not_a_reason_to_try_again() {
        let reason = |reason| failed(PairingError::Refused(Refused::Cancelled(reason)));
        for failure in [failed(PairingError::Different), reason(Reason::Different), reason(Reason::Identity)] {
            assert_eq!(failure.kind, Kind::Data);
            assert!(failure.hint.unwrap().contains("do not go on"));
        }
        assert_eq!(reason(Reason::Person).kind, Kind::TryAgain);
        assert_eq!(failed(PairingError::Nobody).kind, Kind::Unavailable);
    }
}
