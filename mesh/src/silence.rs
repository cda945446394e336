//! Of whom nothing is heard, as far as this node can tell.
//!
//! Whoever was asked something and has said nothing for [`SILENT_AFTER`] is silent, whether a connection to it is up or is
//! being made: a process that stands still, or was killed a moment ago, has open connections for as long as nobody misses
//! it. Nobody waits for a silent peer. It is still asked, though, once at a time, so that it is heard as soon as it is back.
//!
//! Invariants: any word of a peer ends its silence. When nothing is heard of anybody it is this node that is cut off, or has
//! itself stood still: then nobody is silent, and all are waited for as if they had just been asked.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use hypernet_core::limits::MESH_ABSENT_MAX;
use libp2p::PeerId;
use tokio::time::Instant;

/// Many times what an answer from the other end of the world takes.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// When this node looks that much later than it meant to, it has stood still and cannot have heard anybody.
const STOOD_STILL: Duration = Duration::from_millis(500);

/// How to ask a peer something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// And wait for its answer.
    Wait,
    /// And not wait: it is silent.
    Try,
    /// Not at all: it is silent, and there is something that it can answer already.
    Spare,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Silence {
    /// Since when a word of them is waited for.
    asked: HashMap<PeerId, Instant>,
    silent: HashSet<PeerId>,
    connected: HashSet<PeerId>,
}

impl Silence {
    /// Something is to be asked.
    pub(crate) fn ask(&mut self, peer: PeerId, now: Instant) -> Ask {
        let was_asked = self.asked.contains_key(&peer);
        if !was_asked {
            bound(self.asked.len(), || self.asked.clear());
            self.asked.insert(peer, now);
        }
        match (self.silent.contains(&peer), was_asked) {
            (false, _) => Ask::Wait,
            (true, false) => Ask::Try,
            (true, true) => Ask::Spare,
        }
    }

    /// It said something.
    pub(crate) fn heard(&mut self, peer: &PeerId) {
        self.asked.remove(peer);
        self.silent.remove(peer);
    }

    /// It will not answer what it was asked.
    pub(crate) fn unanswered(&mut self, peer: &PeerId) {
        self.asked.remove(peer);
    }

    pub(crate) fn connected(&mut self, peer: PeerId) {
        self.connected.insert(peer);
        self.heard(&peer);
    }

    pub(crate) fn disconnected(&mut self, peer: &PeerId) {
        self.connected.remove(peer);
        self.asked.remove(peer);
    }

    /// It could not be reached.
    pub(crate) fn absent(&mut self, peer: PeerId) {
        bound(self.silent.len(), || self.silent.clear());
        self.silent.insert(peer);
    }

    pub(crate) fn is_silent(&self, peer: &PeerId) -> bool {
        self.silent.contains(peer)
    }

    /// What was heard says nothing of the peers when it was this node that was cut off.
    pub(crate) fn forget(&mut self) {
        self.silent.clear();
    }

    /// When to look again, if ever.
    pub(crate) fn next(&self) -> Option<Instant> {
        let waited = self.asked.iter().filter(|(peer, _)| !self.silent.contains(*peer));
        waited.map(|(_, since)| *since + SILENT_AFTER).min()
    }

    /// Who is silent from now on; it was to be asked at `due`.
    pub(crate) fn look(&mut self, due: Instant, now: Instant) -> Vec<PeerId> {
        let waited = self.asked.iter().filter(|(peer, _)| !self.silent.contains(*peer));
        let overdue = waited.filter(|(_, since)| **since + SILENT_AFTER <= now).map(|(peer, _)| *peer);
        let (here, dialed): (Vec<_>, Vec<_>) = overdue.partition(|peer| self.connected.contains(peer));
        let stood_still = now.saturating_duration_since(due) >= STOOD_STILL;
        let is_heard = |peer: &PeerId| !self.silent.contains(peer) && !here.contains(peer);
        let cut_off = !here.is_empty() && !self.connected.iter().any(is_heard);
        if stood_still || cut_off {
            self.silent.retain(|peer| !self.connected.contains(peer));
            self.asked.values_mut().for_each(|since| *since = now);
            return Vec::new();
        }
        for peer in &dialed {
            // It is not reached yet; whoever wants it next has it dialed.
            self.asked.remove(peer);
        }
        let new = [here, dialed].concat();
        new.iter().for_each(|peer| self.absent(*peer));
        new
    }
}

/// Each that is forgotten is waited for once more.
fn bound(len: usize, clear: impl FnOnce()) {
    if len >= MESH_ABSENT_MAX {
        clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: Duration = Duration::from_millis(100);

    fn peers<const N: usize>() -> [PeerId; N] {
        std::array::from_fn(|_| PeerId::random())
    }

    #[test]
    fn who_says_nothing_is_waited_for_once_and_heard_when_it_speaks() {
        let (start, [quiet, other]) = (Instant::now(), peers());
        let mut silence = Silence::default();
        silence.connected(quiet);
        silence.connected(other);
        assert_eq!(silence.next(), None);
        assert_eq!((silence.ask(quiet, start), silence.ask(other, start)), (Ask::Wait, Ask::Wait));
        assert_eq!(silence.ask(quiet, start + LITTLE), Ask::Wait, "it may answer yet");
        silence.heard(&other);
        let due = start + SILENT_AFTER;
        assert_eq!(silence.next(), Some(due));
        assert_eq!(silence.look(due - LITTLE, due - LITTLE), []);
        assert_eq!(silence.look(due, due), [quiet]);
        assert_eq!(silence.next(), None);
        assert_eq!(silence.ask(quiet, due), Ask::Spare, "what it was asked first it can still answer");
        silence.unanswered(&quiet);
        assert_eq!((silence.ask(quiet, due), silence.ask(quiet, due)), (Ask::Try, Ask::Spare));
        // It is gone for good, and then back.
        silence.disconnected(&quiet);
        assert!(silence.is_silent(&quiet));
        silence.connected(quiet);
        assert_eq!(silence.ask(quiet, due), Ask::Wait);
    }

    #[test]
    fn who_hears_nobody_waits_for_all_of_them() {
        let (start, [one, two, dialed]) = (Instant::now(), peers());
        let mut silence = Silence::default();
        silence.connected(one);
        silence.connected(two);
        silence.ask(one, start);
        silence.ask(two, start + LITTLE);
        let due = start + SILENT_AFTER;
        assert_eq!(silence.look(due, due), [one]);
        assert_eq!(silence.look(due + LITTLE, due + LITTLE), [], "nobody is left to be heard");
        assert!(!silence.is_silent(&one));
        let again = due + LITTLE + SILENT_AFTER;
        assert_eq!(silence.next(), Some(again));
        silence.heard(&two);
        assert_eq!(silence.look(again, again), [one]);
        // Whoever is being dialed says nothing of the connections.
        silence.ask(dialed, again);
        assert_eq!(silence.look(again + SILENT_AFTER, again + SILENT_AFTER), [dialed]);
        assert_eq!(silence.ask(dialed, again), Ask::Try);
    }

    #[test]
    fn who_has_stood_still_blames_nobody() {
        let (start, [one, two]) = (Instant::now(), peers());
        let mut silence = Silence::default();
        silence.connected(one);
        silence.connected(two);
        silence.ask(one, start);
        let (due, woken) = (start + SILENT_AFTER, start + SILENT_AFTER + STOOD_STILL);
        assert_eq!(silence.look(due, woken), []);
        assert_eq!(silence.next(), Some(woken + SILENT_AFTER));
        assert_eq!(silence.look(woken + SILENT_AFTER, woken + SILENT_AFTER), [one]);
    }

    #[test]
    fn any_number_of_peers_is_remembered_in_little_room() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        for _ in 0..3 * MESH_ABSENT_MAX {
            let [peer] = peers();
            silence.ask(peer, start);
            silence.absent(peer);
            assert_eq!(silence.ask(peer, start), Ask::Spare);
        }
        assert!(silence.asked.len() <= MESH_ABSENT_MAX && silence.silent.len() <= MESH_ABSENT_MAX);
    }
}
