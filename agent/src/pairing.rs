//! Meeting somebody by a code: both sides leave word at places that follow from it, until each has all that it came for.
//!
//! - `code`: what one person reads to the other, and the places;
//! - `message`: what is said;
//! - `sas`: in which order, and what must fit;
//! - `emoji`: what people compare;
//! - `parcel`: what a new device is given;
//! - `handover`: how a guardian gives a share of the words.
//!
//! Invariant: nothing here waits for ever, and nothing that a stranger does is believed. Who does not have the code finds no
//! place; who has it can spoil one meeting, and cannot be taken for the other person.

use std::time::{Duration, Instant};

use hypernet_core::codec;
use hypernet_core::identity::place::{Notice, Place};
use hypernet_core::port::PortError;
use thiserror::Error;

use crate::identity::places::{At, read_here};
use crate::peers::Peers;
use crate::volume::damaged;

pub(crate) mod code;
pub(crate) mod emoji;
pub(crate) mod handover;
pub(crate) mod message;
pub(crate) mod parcel;
pub(crate) mod sas;
#[cfg(test)]
mod tests;

use code::Code;
use emoji::Picture;
use message::{Message, Reason, Said};
use sas::{Event, Pairing, Refused, Role};

/// How often it is looked for word of the other side.
const LOOK_EVERY: Duration = Duration::from_millis(800);
/// Whoever has shown a code was there before it: whoever enters it looks for them this long, at most.
const FOUND_WITHIN: Duration = Duration::from_secs(60);
/// Times that a last word is tried to be left.
const LAST_TRIES: u32 = 3;

/// Why nobody was met.
#[derive(Debug, Error)]
pub(crate) enum PairingError {
    /// Nobody waits at the code.
    #[error("nobody waits with this code: it is mistyped, has expired, or is of another mesh")]
    Nobody,
    /// Nobody entered it in time.
    #[error("nobody has entered the code: it has expired")]
    Expired,
    /// It was entered before.
    #[error("this code was entered before, here or somewhere else: each is good for one attempt")]
    Used,
    /// The other side has not gone on.
    #[error("the other side was not heard of any more")]
    Silent,
    /// Not in time, or the person here did not answer.
    #[error("nobody here has compared what is shown in time")]
    NotCompared,
    /// The person here has broken it off.
    #[error("it was broken off here")]
    Broken,
    /// It looks different.
    #[error(
        "what the two sides show is NOT the same: somebody may be in between, and nothing was handed over or believed"
    )]
    Different,
    /// What came is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The mesh did not do its part.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl PairingError {
    /// What the other side is told.
    fn reason(&self) -> Reason {
        match self {
            Self::Nobody | Self::Expired | Self::Silent | Self::NotCompared => Reason::TooLong,
            Self::Broken | Self::Used => Reason::Person,
            Self::Different => Reason::Different,
            Self::Refused(_) => Reason::Refused,
            Self::Port(_) => Reason::Failed,
        }
    }
}

/// What the person here has said of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing yet.
    NotYet,
    /// They are the same.
    Same,
    /// They are not.
    Different,
    /// It is over, and the pictures do not matter any more.
    Gone,
}

/// The person here.
pub(crate) trait Person {
    /// Somebody is there, who calls themselves so.
    fn met(&mut self, name: &str);
    /// Shows pictures.
    fn compare(&mut self, picture: Picture);
    /// What they have said of them by now.
    fn answer(&mut self) -> Answer;
}

/// A meeting under way.
pub(crate) struct Meeting<'a> {
    peers: &'a Peers,
    mine: Place,
    theirs: Place,
    pub(crate) pairing: Pairing,
    /// Messages that are on the mesh.
    left: usize,
    /// Some of them may be.
    tried: bool,
    within: Duration,
    until: Instant,
    ended: bool,
}

impl<'a> Meeting<'a> {
    /// Begins one. `within` is what each of finding somebody and of comparing may take.
    pub(crate) fn begin(peers: &'a Peers, code: &Code, pairing: Pairing, within: Duration) -> Self {
        let role = pairing.role();
        let other = match role {
            Role::Shows => Role::Enters,
            Role::Enters => Role::Shows,
        };
        let (mine, theirs) = (code.place(role), code.place(other));
        Self {
            peers,
            mine,
            theirs,
            pairing,
            left: 0,
            tried: false,
            within,
            until: Instant::now() + within,
            ended: false,
        }
    }

    /// Leaves word that somebody waits, or finds whoever does; returns once people have compared, and both say that it is
    /// the same as far as this side knows.
    pub(crate) fn compare(&mut self, person: &mut dyn Person) -> Result<(), PairingError> {
        let found = self.try_to_compare(person);
        self.or_cancel(found)
    }

    fn try_to_compare(&mut self, person: &mut dyn Person) -> Result<(), PairingError> {
        if self.pairing.role() == Role::Enters {
            self.until = Instant::now() + self.within.min(FOUND_WITHIN);
        }
        let (mut met, mut shown) = (false, false);
        loop {
            match person.answer() {
                Answer::Gone => return Err(PairingError::Broken),
                Answer::Different => return Err(PairingError::Different),
                Answer::Same if shown => return Ok(()),
                Answer::Same | Answer::NotYet => {}
            }
            for event in self.look()? {
                match event {
                    Event::Met(name) => person.met(&name),
                    Event::Compare(picture) => {
                        shown = true;
                        self.until = Instant::now() + self.within;
                        person.compare(picture);
                    }
                    Event::Vouched(_) | Event::Done(_) => return Err(Refused::Order.into()),
                }
            }
            if !met && !self.pairing.has_heard_nothing() {
                met = true;
                self.until = Instant::now() + self.within;
            }
            self.wait(match (met, shown, self.pairing.role()) {
                (_, true, _) => PairingError::NotCompared,
                (true, ..) => PairingError::Silent,
                (false, _, Role::Enters) => PairingError::Nobody,
                (false, _, Role::Shows) => PairingError::Expired,
            })?;
        }
    }

    /// The person has compared: returns what the other side vouches for, once its person has, too. Whoever has shown the
    /// code vouches first.
    pub(crate) fn vouched(&mut self, person: &mut dyn Person) -> Result<Vec<u8>, PairingError> {
        let events = self.pairing.is_same();
        let found = self.next(events.map_err(Into::into), person, |event| match event {
            Event::Vouched(what) => Some(what),
            _ => None,
        });
        self.or_cancel(found)
    }

    /// Returns what the other side says at last.
    pub(crate) fn done(&mut self, person: &mut dyn Person) -> Result<Vec<u8>, PairingError> {
        let found = self.next(Ok(Vec::new()), person, |event| match event {
            Event::Done(what) => Some(what),
            _ => None,
        });
        self.or_cancel(found)
    }

    /// Goes on until something is among what happens.
    fn next(
        &mut self,
        begun: Result<Vec<Event>, PairingError>,
        person: &mut dyn Person,
        wanted: impl Fn(Event) -> Option<Vec<u8>>,
    ) -> Result<Vec<u8>, PairingError> {
        self.until = Instant::now() + self.within;
        let mut events = begun?;
        loop {
            if let Some(what) = events.into_iter().find_map(&wanted) {
                return Ok(what);
            }
            if person.answer() == Answer::Gone {
                return Err(PairingError::Broken);
            }
            events = self.look()?;
            if events.is_empty() {
                self.wait(PairingError::Silent)?;
            }
        }
    }

    /// Does something for the meeting; when it fails the other side is told.
    pub(crate) fn attempt<T, E>(
        &mut self,
        reason: Reason,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let done = work(self);
        if done.is_err() {
            self.cancel(reason);
        }
        done
    }

    fn or_cancel<T>(&mut self, found: Result<T, PairingError>) -> Result<T, PairingError> {
        if let Err(error) = &found {
            match error {
                // They know.
                PairingError::Refused(Refused::Cancelled(_)) => self.ended = true,
                error => self.cancel(error.reason()),
            }
        }
        found
    }

    fn cancel(&mut self, reason: Reason) {
        if !self.ended && !self.pairing.said().0.is_empty() {
            self.pairing.cancel(reason);
            self.leave_last();
        }
        self.ended = true;
    }

    /// Leaves the last word. Whoever does not hear of it waits until the deadline.
    pub(crate) fn leave_last(&mut self) {
        for _ in 0..LAST_TRIES {
            match self.leave() {
                Ok(()) => break,
                Err(error) => tracing::info!(%error, "the last word of a meeting is not on the mesh yet"),
            }
        }
        self.ended = true;
    }

    fn wait(&self, late: PairingError) -> Result<(), PairingError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late);
        }
        std::thread::sleep(LOOK_EVERY.min(left));
        Ok(())
    }

    /// Leaves what is new of this side's, and takes in what is new of the other's. A mesh that does not answer is asked
    /// again.
    fn look(&mut self) -> Result<Vec<Event>, PairingError> {
        let mut events = Vec::new();
        if let Err(error) = self.look_in(&mut events) {
            match error {
                PairingError::Port(error @ (PortError::Unreachable(_) | PortError::Deadline(_))) => {
                    tracing::debug!(%error, "a meeting waits for the mesh");
                }
                error => return Err(error),
            }
        }
        Ok(events)
    }

    fn look_in(&mut self, events: &mut Vec<Event>) -> Result<(), PairingError> {
        self.leave()?;
        let Some(record) = self.peers.lookup(self.theirs.record_key())? else { return Ok(()) };
        let At::Here(bytes) = read_here(&record, &self.theirs.sealing_key())? else { return Ok(()) };
        let said: Said = codec::decode(&bytes).map_err(damaged)?;
        events.extend(self.pairing.hear(&said)?);
        if !self.tried && self.pairing.role() == Role::Enters && !self.pairing.said().0.is_empty() {
            // Nothing of this side's is there yet: what is there is of somebody else, or of an attempt before.
            if self.peers.lookup(self.mine.record_key())?.is_some() {
                self.ended = true;
                return Err(PairingError::Used);
            }
        }
        self.leave()
    }

    fn leave(&mut self) -> Result<(), PairingError> {
        let said = self.pairing.said();
        let count = said.0.len();
        if count == self.left {
            return Ok(());
        }
        let here = Notice::Here(codec::encode(&said));
        let record = here.publish(&self.mine, &self.mine.sealing_key(), count as u64).map_err(damaged)?;
        self.tried = true;
        self.peers.publish(record, 1, "word for the other side")?;
        self.left = count;
        Ok(())
    }
}

impl Drop for Meeting<'_> {
    fn drop(&mut self) {
        let is_over = matches!(self.pairing.said().0.last(), Some(Message::Done { .. }));
        if !is_over {
            self.cancel(Reason::Failed);
        }
    }
}
