//! Which changes of a list of devices count.
//!
//! Who may say what must not depend on who was heard first, nor on times that a device could name as it likes. So there
//! is an order of precedence: the phrase before all; then the devices that the phrase has enrolled, the newest of them
//! first, since whoever has just come back by the words does so because another one was lost; then those that these have
//! enrolled, and so on.
//!
//! - Changes that were made at once all count, but for revocations of one another.
//! - Revocations are heard in the order of precedence of their authors. One is *accepted* unless its author has been
//!   revoked by one that was accepted before and had not heard of it.
//! - Of what a revoked device has signed *counts* only what its revocation follows. It comes back by the phrase alone,
//!   which also has the last word where a device revokes one of which it has not heard that the phrase has enrolled it.
//! - Whoever was enrolled by a change that does not count is not on the list, and nothing that they signed counts. Nor
//!   does such a change give anybody precedence: of each level the revocations are heard before the next one is ranked.
//!
//! So nobody gets stuck when two devices revoke each other; a stolen device can fight the revocation by one that comes
//! after it, but not one by the phrase or by a device that was recovered since; and nothing that it says to have signed
//! earlier undoes what it was revoked by.
//!
//! Of the eras, that one counts whose author had heard of the most revocations, of those none that another one of them
//! follows, and of several that were begun at once that of the author who comes first.
//!
//! The phrase can begin a list anew: then only what follows the newest such beginning *stands*.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Author, Change, Device, Entry, NewEra, Roster};
use crate::causal::{self, Follows, Numbers};
use crate::id::{DeviceId, EntryId, IdentityId};
use crate::limits::{
    DEVICE_NAME_MAX, DEVICES_MAX, ROSTER_BEFORE_MAX, ROSTER_ENTRIES_MAX, ROSTER_ERAS_MAX,
    ROSTER_PREVIOUS_BY_PHRASE_MAX, ROSTER_PREVIOUS_MAX,
};

use crate::time::Hlc;

/// Eras of one author whose ways are kept.
const ERAS_OF_ONE: usize = 2;

/// What a set of changes comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) roster: Roster,
    /// That which counts first.
    pub(super) eras: Vec<NewEra>,
    /// What a new change follows, by importance.
    pub(super) tips: Vec<EntryId>,
    /// How many changes count.
    pub(super) counting: usize,
    /// What there is room for, and can be followed back to the beginning.
    pub(super) kept: BTreeSet<EntryId>,
    /// When those on the list came onto it.
    pub(super) enrolled: BTreeMap<DeviceId, Hlc>,
}

/// Whether a device can be called so.
pub(super) fn is_name(name: &str) -> bool {
    crate::name::is_name(name, DEVICE_NAME_MAX)
}

/// Changes that one by this author follows, at most.
pub(super) fn previous_max(author: &Author) -> usize {
    match author {
        Author::Phrase => ROSTER_PREVIOUS_BY_PHRASE_MAX,
        Author::Device(_) => ROSTER_PREVIOUS_MAX,
    }
}

type Standing<'a> = causal::Standing<'a, Entry>;

/// Where the newest list begins.
fn beginning(all: &BTreeMap<EntryId, Entry>) -> Option<EntryId> {
    let begins = |entry: &Entry| {
        let enrols = entry.change.enrols().is_some();
        entry.previous.is_empty() && entry.author == Author::Phrase && enrols && entry.era.is_some()
    };
    let found = all.iter().filter(|(_, entry)| begins(entry)).max_by_key(|(id, entry)| (entry.time, **id));
    found.map(|(id, _)| *id)
}

/// All that can be followed back to where the newest list begins.
fn standing(all: &BTreeMap<EntryId, Entry>) -> Vec<Standing<'_>> {
    causal::standing(all, beginning(all), may_stand)
}

impl Follows for Entry {
    fn previous(&self) -> &[EntryId] {
        &self.previous
    }
}

/// Whether a change is one that its author could sign after these.
fn may_stand(entry: &Entry, before: &Numbers, found: &[Standing<'_>]) -> bool {
    let by_phrase = entry.author == Author::Phrase;
    let is_sound = match &entry.change {
        Change::Enrol(device) => is_name(&device.name) && (entry.era.is_none() || by_phrase),
        Change::Begin(device, others) => {
            is_name(&device.name) && entry.previous.is_empty() && others.len() <= ROSTER_BEFORE_MAX
        }
        Change::Revoke(_) | Change::Rotate => entry.era.is_some(),
    };
    let is_enrolled = match &entry.author {
        Author::Phrase => true,
        Author::Device(id) => {
            let enrols = |one: &Standing<'_>| one.entry.change.enrols().is_some_and(|device| device.id == *id);
            found.iter().enumerate().any(|(number, one)| before.contains(number) && enrols(one))
        }
    };
    // Whoever was revoked has the eras of before.
    let begins_again = found
        .iter()
        .enumerate()
        .any(|(number, one)| entry.era.is_some() && before.contains(number) && one.entry.era == entry.era);
    is_sound && is_enrolled && !begins_again && entry.previous.len() <= previous_max(&entry.author)
}

/// What counts of changes once some revocations are accepted. Changes are named by their numbers.
struct Court<'a> {
    all: Vec<Standing<'a>>,
    /// By whom they enrol.
    enrolments: BTreeMap<DeviceId, Vec<usize>>,
    /// Precedence of whom each enrolment has made an author. Those that never counted have none.
    ranks: BTreeMap<usize, usize>,
    /// By whom they revoke.
    accepted: BTreeMap<DeviceId, Vec<usize>>,
    /// As far as it has been worked out since the last one was accepted.
    counts: Vec<Option<bool>>,
}

impl<'a> Court<'a> {
    fn new(all: Vec<Standing<'a>>) -> Self {
        let mut enrolments: BTreeMap<DeviceId, Vec<usize>> = BTreeMap::new();
        for (number, one) in all.iter().enumerate() {
            if let Some(device) = one.entry.change.enrols() {
                enrolments.entry(device.id).or_default().push(number);
            }
        }
        let counts = vec![None; all.len()];
        let mut court = Self { all, enrolments, ranks: BTreeMap::new(), accepted: BTreeMap::new(), counts };
        court.hear_all();
        court
    }

    /// Ranks those whom the phrase has enrolled and hears their revocations, then those whom they have, and so on.
    fn hear_all(&mut self) {
        let mut heard: BTreeSet<usize> = BTreeSet::new();
        loop {
            let revocations: Vec<usize> = self.numbers(|court, number| {
                matches!(court.all[number].entry.change, Change::Revoke(_)) && court.rank(number).is_some()
            });
            let mut revocations: Vec<usize> = revocations.into_iter().filter(|one| heard.insert(*one)).collect();
            revocations.sort_by_cached_key(|number| self.precedence(*number));
            for number in revocations {
                if let Change::Revoke(whom) = self.all[number].entry.change
                    && self.counts(number)
                {
                    self.accepted.entry(whom).or_default().push(number);
                    self.counts.fill(None);
                }
            }
            let new = self.numbers(|court, number| {
                let enrols = court.all[number].entry.change.enrols().is_some();
                enrols && !court.ranks.contains_key(&number) && court.rank(number).is_some()
            });
            let mut new: Vec<usize> = new.into_iter().filter(|number| self.counts(*number)).collect();
            if new.is_empty() {
                return;
            }
            new.sort_by_cached_key(|number| {
                let one = &self.all[*number];
                // Of devices a time says nothing.
                let time = if self.is_by_phrase(*number) { Some(Reverse(one.entry.time)) } else { None };
                (self.rank(*number), time, one.id)
            });
            for number in new {
                self.ranks.insert(number, self.ranks.len() + 1);
            }
        }
    }

    fn numbers(&self, is: impl Fn(&Self, usize) -> bool) -> Vec<usize> {
        (0..self.all.len()).filter(|number| is(self, *number)).collect()
    }

    /// Precedence of the author of a change when it was made: the lowest comes first.
    fn rank(&self, number: usize) -> Option<usize> {
        match &self.all[number].entry.author {
            Author::Phrase => Some(0),
            Author::Device(id) => {
                let before = self.enrolments.get(id)?.iter().filter(|one| self.follows(number, **one));
                before.filter_map(|one| self.ranks.get(one).copied()).min()
            }
        }
    }

    /// The order in which changes are looked at: of one author, each after what it follows.
    fn precedence(&self, number: usize) -> (usize, usize, EntryId) {
        (self.rank(number).unwrap_or(usize::MAX), self.all[number].before.len(), self.all[number].id)
    }

    fn is_by_phrase(&self, number: usize) -> bool {
        self.all[number].entry.author == Author::Phrase
    }

    fn follows(&self, number: usize, before: usize) -> bool {
        self.all[number].before.contains(before)
    }

    /// Whether its author was on the list, as far as what is accepted says.
    fn counts(&mut self, number: usize) -> bool {
        if let Some(counts) = self.counts[number] {
            return counts;
        }
        let counts = match self.all[number].entry.author {
            Author::Phrase => true,
            Author::Device(author) => {
                let enrolments = self.enrolments.get(&author).cloned().unwrap_or_default();
                !self.is_void(number, &author)
                    && enrolments.into_iter().any(|one| self.follows(number, one) && self.counts(one))
            }
        };
        self.counts[number] = Some(counts);
        counts
    }

    /// Whether its author was revoked by one that this is not known to be earlier than, and has not come back before it.
    fn is_void(&self, number: usize, author: &DeviceId) -> bool {
        self.revocations(author).iter().any(|revocation| {
            let back = |one: &usize| self.brings_back(*one, *revocation) && self.follows(number, *one);
            !self.follows(*revocation, number) && !self.enrolments[author].iter().any(back)
        })
    }

    /// Whether an enrolment by the phrase brings back whom this has revoked.
    fn brings_back(&self, enrolment: usize, revocation: usize) -> bool {
        let unheard = !self.is_by_phrase(revocation) && !self.follows(revocation, enrolment);
        self.is_by_phrase(enrolment) && (self.follows(enrolment, revocation) || unheard)
    }

    fn revocations(&self, whom: &DeviceId) -> &[usize] {
        self.accepted.get(whom).map_or(&[], Vec::as_slice)
    }

    fn is_accepted(&self, number: usize) -> bool {
        self.accepted.values().flatten().any(|accepted| *accepted == number)
    }

    /// How a device is enrolled by those who come first: among those that count, if any does. And whether it is listed.
    fn device(&mut self, id: &DeviceId) -> Option<(bool, usize)> {
        let enrolments = self.enrolments.get(id)?.clone();
        let stays = |revocation: &usize| !enrolments.iter().any(|one| self.brings_back(*one, *revocation));
        let is_revoked = self.revocations(id).iter().any(stays);
        let counting: Vec<usize> = enrolments.iter().copied().filter(|one| self.counts(*one)).collect();
        let is_listed = !counting.is_empty() && !is_revoked;
        let those = if counting.is_empty() { enrolments } else { counting };
        let first = |number: &usize| {
            let one = &self.all[*number];
            (self.ranks.get(number).copied().unwrap_or(usize::MAX), one.id)
        };
        Some((is_listed, those.into_iter().min_by_key(first)?))
    }

    /// Those on the list, and all others that were enrolled; each in the order of their enrolments.
    fn devices(&mut self) -> (Vec<Device>, Vec<Device>) {
        let ids: Vec<DeviceId> = self.enrolments.keys().copied().collect();
        let mut found: Vec<(bool, usize)> = ids.iter().filter_map(|id| self.device(id)).collect();
        found.sort_by_key(|(_, number)| self.ranks.get(number).copied().unwrap_or(usize::MAX));
        let (mut listed, mut gone): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut tags = BTreeSet::new();
        for (is_listed, number) in found {
            let Some(device) = self.all[number].entry.change.enrols() else { continue };
            if is_listed && listed.len() < DEVICES_MAX && tags.insert(device.id.tag()) {
                listed.push(number);
            } else {
                gone.push(number);
            }
        }
        let in_order = |mut numbers: Vec<usize>| -> Vec<Device> {
            numbers.sort_unstable();
            numbers.into_iter().filter_map(|number| self.all[number].entry.change.enrols().cloned()).collect()
        };
        let (listed, gone) = (in_order(listed), in_order(gone));
        // Of a list that has begun anew: those of before come first.
        let known = |id: &DeviceId| listed.iter().chain(&gone).any(|other| other.id == *id);
        let before = self.all.iter().filter_map(|one| match &one.entry.change {
            Change::Begin(_, others) => Some(others),
            Change::Enrol(_) | Change::Revoke(_) | Change::Rotate => None,
        });
        let before: Vec<Device> = before.flatten().filter(|device| !known(&device.id)).cloned().collect();
        (listed, before.into_iter().chain(gone).collect())
    }

    /// Changes that begin an era which may be used: that which counts first. And whether its author had heard of all
    /// revocations.
    fn eras(&mut self) -> (Vec<NewEra>, bool) {
        let accepted: Vec<usize> = self.accepted.values().flatten().copied().collect();
        let heard = |court: &Self, number: usize| {
            accepted.iter().filter(|one| **one == number || court.follows(number, **one)).count()
        };
        let begin = self.numbers(|court, number| court.all[number].entry.era.is_some());
        let mut begin: Vec<usize> = begin.into_iter().filter(|number| self.counts(*number)).collect();
        let most = begin.iter().map(|number| heard(self, *number)).max().unwrap_or(0);
        let best: Vec<usize> = begin.iter().copied().filter(|number| heard(self, *number) == most).collect();
        let last = best.iter().filter(|number| !best.iter().any(|other| self.follows(*other, **number)));
        let first = last.copied().min_by_key(|number| (self.rank(*number), self.all[*number].id));
        begin.sort_by_cached_key(|number| {
            (self.rank(*number), Reverse(self.all[*number].before.len()), self.all[*number].id)
        });
        let mut eras: Vec<NewEra> = Vec::new();
        let mut of_one: BTreeMap<Option<usize>, usize> = BTreeMap::new();
        for number in first.into_iter().chain(begin) {
            let Some(era) = self.all[number].entry.era.filter(|era| !eras.contains(era)) else { continue };
            let count = of_one.entry(self.rank(number)).or_default();
            if eras.len() < ROSTER_ERAS_MAX && *count < ERAS_OF_ONE {
                *count += 1;
                eras.push(era);
            }
        }
        (eras, most == accepted.len())
    }

    /// What matters most of what there is, each with all that it follows, as long as there is room.
    fn kept(&self, counting: &BTreeSet<usize>) -> BTreeSet<EntryId> {
        let mut order = self.numbers(|_, _| true);
        order.sort_by_cached_key(|number| {
            (!self.is_accepted(*number), !counting.contains(number), self.precedence(*number))
        });
        let mut kept = Numbers::default();
        for number in order {
            let mut more = kept.clone();
            more.insert(number);
            more.extend(&self.all[number].before);
            if more.len() <= ROSTER_ENTRIES_MAX {
                kept = more;
            }
        }
        self.all.iter().enumerate().filter(|(number, _)| kept.contains(*number)).map(|(_, one)| one.id).collect()
    }
}

/// Works out what a set of changes comes to.
pub(super) fn resolve(identity: IdentityId, entries: &BTreeMap<EntryId, Entry>) -> Outcome {
    let mut court = Court::new(standing(entries));
    let (devices, gone) = court.devices();
    let (eras, is_sealed_off) = court.eras();
    let numbers = 0..court.all.len();
    let counting: BTreeSet<usize> =
        numbers.filter(|number| court.counts(*number) || court.is_accepted(*number)).collect();
    let is_last = |number: &usize| !counting.iter().any(|other| court.follows(*other, *number));
    let mut tips: Vec<usize> = counting.iter().copied().filter(is_last).collect();
    // Whoever follows no more than there is room for follows what has been revoked.
    tips.sort_by_cached_key(|number| (!court.is_accepted(*number), court.precedence(*number)));
    let tips = tips.into_iter().map(|number| court.all[number].id).collect();
    let kept = court.kept(&counting);
    let enrolled = devices.iter().filter_map(|device| {
        let counting = court.enrolments[&device.id].iter().filter(|number| counting.contains(number));
        Some((device.id, counting.map(|number| court.all[*number].entry.time).max()?))
    });
    let enrolled = enrolled.collect();
    let roster = Roster { identity, devices, gone, era: eras.first().copied(), is_sealed_off };
    Outcome { roster, eras, tips, counting: counting.len(), kept, enrolled }
}
