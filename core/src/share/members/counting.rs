//! Which changes of who may do what count.
//!
//! Who may say what must not depend on who was heard first, nor on times. So there are two steps of authority:
//!
//! - The owner's changes all count. They alone say who is admin, so no two admins can take off one another.
//! - An admin's change counts if it follows the owner's grant, and unless a removal of that admin says otherwise: of what
//!   somebody signed who was taken off counts only what the removal follows.
//! - What a device signed that is on the list of its identity no more counts only where a change that counts follows it,
//!   of a device that still is: of the owner, or of that identity. So whoever takes a device off signs a change after it.
//!
//! Of a grant and a removal of the same member, of which neither follows the other, the removal counts: whoever takes
//! somebody off relies on it, and whoever brought them finds that they are gone and can say so again. Of the grants that are
//! left the one that gives the most counts, in whatever order they were heard: whoever published by it was allowed to, and
//! what they published is refused by nobody. To have less somebody is taken off first, and a removal names what is taken.
//!
//! Of the epochs, that one counts whose author had heard of the most removals, of those none that another one of them
//! follows, of several begun at once that of the owner before those of admins, and then that of the lowest hash. Each has a
//! number a little above all that it follows, so that nobody can use the numbers up: a change with another one does not stand.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Accepted, Author, Change, Entry, Log, Member, Members, NewEpoch, Role};
use crate::causal::{self, Follows, Numbers};
use crate::id::{DeviceId, DeviceTag, EntryId, IdentityId};
use crate::limits::{ACCEPTED_MAX, CHANGED_MAX, EPOCH_STEP_MAX, MEMBERS_MAX, MEMBERS_PREVIOUS_MAX, TAKEN_MAX};

impl Follows for Entry {
    fn previous(&self) -> &[EntryId] {
        &self.previous
    }
}

type Standing<'a> = causal::Standing<'a, Entry>;

/// Whether an epoch can have this number, where `next` is the first above those of all that it follows.
pub(super) fn goes_on(number: u32, next: u32) -> bool {
    number.checked_sub(next).is_some_and(|step| step < EPOCH_STEP_MAX)
}

/// The first number above those of the epochs that begin with changes that stand. These are too few to use the numbers up.
fn next_epoch<'a>(followed: impl Iterator<Item = &'a Entry>) -> u32 {
    followed.filter_map(|entry| entry.epoch).map(|epoch| epoch.number + 1).max().unwrap_or(0)
}

/// Whether a change says no more than one may.
pub(super) fn is_short(change: &Change) -> bool {
    match change {
        Change::Grant(members) => members.len() <= CHANGED_MAX,
        Change::Remove(gone, accepted, taken) => {
            gone.len() <= CHANGED_MAX && accepted.len() <= ACCEPTED_MAX && taken.len() <= TAKEN_MAX
        }
        Change::Begin(_) | Change::Rotate => true,
    }
}

/// Whether a change is one that could be signed after these.
fn may_stand(entry: &Entry, before: &Numbers, found: &[Standing<'_>]) -> bool {
    let is_sound = match &entry.change {
        Change::Begin(_) => found.is_empty() && entry.previous.is_empty(),
        Change::Grant(members) => members.iter().all(|member| member.role < Role::Owner),
        Change::Remove(..) | Change::Rotate => true,
    };
    let begins_epoch = !matches!(entry.change, Change::Grant(_));
    let is_first = found.is_empty();
    let next =
        || next_epoch((0..found.len()).filter(|number| before.contains(*number)).map(|number| found[number].entry));
    is_sound
        && is_short(&entry.change)
        && entry.epoch.is_some() == begins_epoch
        && entry.epoch.is_none_or(|epoch| goes_on(epoch.number, next()))
        && entry.previous.is_empty() == is_first
        && entry.previous.len() <= MEMBERS_PREVIOUS_MAX
}

struct Court<'a> {
    all: Vec<Standing<'a>>,
    owner: IdentityId,
    counts: Vec<bool>,
}

/// A grant or removal of one member that counts, by its number.
#[derive(Default)]
struct Of<'a> {
    grants: Vec<(usize, &'a Member)>,
    removals: Vec<usize>,
}

impl<'a> Court<'a> {
    fn author(&self, number: usize) -> &'a Author {
        &self.all[number].entry.author
    }

    fn follows(&self, number: usize, before: usize) -> bool {
        self.all[number].before.contains(before)
    }

    fn is_owners(&self, number: usize) -> bool {
        self.author(number).identity == self.owner
    }

    /// Works out what counts: first what the owner says, then what admins do.
    fn hear(&mut self, is_listed: &dyn Fn(&Author) -> bool) {
        let listed: Vec<bool> = self.all.iter().map(|one| is_listed(&one.entry.author)).collect();
        // Backwards: what follows a change stands after it.
        for number in (0..self.all.len()).rev() {
            let vouched = |later: usize| self.counts[later] && self.follows(later, number);
            self.counts[number] =
                self.is_owners(number) && (number == 0 || listed[number] || (number + 1..self.all.len()).any(vouched));
        }
        let admins = self.of(true);
        for number in (0..self.all.len()).rev().filter(|number| !self.is_owners(*number)).collect::<Vec<_>>() {
            let author = self.author(number);
            let vouched = |later: usize| {
                let by = self.author(later).identity;
                self.counts[later] && (by == self.owner || by == author.identity) && self.follows(later, number)
            };
            let is_vouched = listed[number] || (number + 1..self.all.len()).any(vouched);
            let is_admin = admins.get(&author.identity).is_some_and(|of| self.was_admin(of, number));
            self.counts[number] = is_vouched && is_admin;
        }
    }

    /// Whether a change follows a grant of the admin's part which no removal, as far as it did not know of it, takes back.
    fn was_admin(&self, of: &Of<'_>, number: usize) -> bool {
        let granted = |grant: usize| {
            let void = |removal: &usize| !self.follows(*removal, number) && !self.follows(grant, *removal);
            self.follows(number, grant) && !of.removals.iter().any(void)
        };
        of.grants.iter().any(|(grant, member)| member.role == Role::Admin && granted(*grant))
    }

    /// What counts of each member: of the owner's changes alone, or of all.
    fn of(&self, owners: bool) -> BTreeMap<IdentityId, Of<'a>> {
        let mut all: BTreeMap<IdentityId, Of<'a>> = BTreeMap::new();
        for (number, one) in self.all.iter().enumerate() {
            if !self.counts[number] || owners && !self.is_owners(number) {
                continue;
            }
            match &one.entry.change {
                Change::Grant(members) => {
                    for member in members.iter().filter(|member| member.identity != self.owner) {
                        all.entry(member.identity).or_default().grants.push((number, member));
                    }
                }
                Change::Remove(gone, ..) => {
                    gone.iter().for_each(|identity| all.entry(*identity).or_default().removals.push(number));
                }
                Change::Begin(_) | Change::Rotate => {}
            }
        }
        all
    }

    /// Grants that no removal takes back, and which none of the others follows that gives as much.
    fn standing_grants(&self, of: &Of<'a>) -> Vec<(usize, &'a Member)> {
        let stays = |grant: usize| of.removals.iter().all(|removal| self.follows(grant, *removal));
        let stay: Vec<_> = of.grants.iter().filter(|(grant, _)| stays(*grant)).collect();
        let is_last = |(number, member): &(usize, &Member)| {
            !stay.iter().any(|(other, next)| next.role >= member.role && self.follows(*other, *number))
        };
        stay.iter().map(|one| **one).filter(is_last).collect()
    }

    /// Without what admins say of admins, and who they make one.
    fn only_what_they_may(&self, all: &mut BTreeMap<IdentityId, Of<'a>>) {
        let of_owner = self.of(true);
        for (identity, of) in all.iter_mut() {
            let granted = of_owner.get(identity).map(|of| self.standing_grants(of)).unwrap_or_default();
            let is_admin = granted.iter().any(|(_, member)| member.role == Role::Admin);
            of.grants.retain(|(number, member)| self.is_owners(*number) || !is_admin && member.role < Role::Admin);
            of.removals.retain(|number| self.is_owners(*number) || !is_admin);
        }
    }

    fn epoch(&self) -> (Option<NewEpoch>, bool) {
        let numbers = |is: &dyn Fn(&Entry) -> bool| -> Vec<usize> {
            (0..self.all.len()).filter(|number| self.counts[*number] && is(self.all[*number].entry)).collect()
        };
        let removals = numbers(&|entry| matches!(entry.change, Change::Remove(..)));
        let begin = numbers(&|entry| entry.epoch.is_some());
        let heard =
            |number: usize| removals.iter().filter(|one| **one == number || self.follows(number, **one)).count();
        let most = begin.iter().map(|number| heard(*number)).max().unwrap_or(0);
        let best: Vec<usize> = begin.into_iter().filter(|number| heard(*number) == most).collect();
        let is_last = |number: &&usize| !best.iter().any(|other| self.follows(*other, **number));
        let first = best.iter().filter(is_last).min_by_key(|number| (!self.is_owners(**number), self.all[**number].id));
        (first.and_then(|number| self.all[*number].entry.epoch), most == removals.len())
    }

    /// Devices of which two changes stand, neither of which follows the other.
    fn forks(&self) -> Vec<Author> {
        let mut last: BTreeMap<Author, usize> = BTreeMap::new();
        let mut forks = BTreeSet::new();
        for number in 0..self.all.len() {
            let author = *self.author(number);
            if let Some(before) = last.insert(author, number)
                && !self.follows(number, before)
            {
                forks.insert(author);
            }
        }
        forks.into_iter().collect()
    }

    /// What a new change follows: all that counts, as far as there is room. Last the number of the epoch that would begin with
    /// it.
    fn tips(&self) -> (Vec<EntryId>, u32) {
        let numbers: Vec<usize> = (0..self.all.len()).filter(|number| self.counts[*number]).collect();
        let is_last = |number: &&usize| !numbers.iter().any(|other| self.follows(*other, **number));
        let tips: Vec<usize> = numbers.iter().filter(is_last).take(MEMBERS_PREVIOUS_MAX).copied().collect();
        let is_followed = |number: usize| tips.iter().any(|tip| *tip == number || self.follows(*tip, number));
        let followed = (0..self.all.len()).filter(|number| is_followed(*number)).map(|number| self.all[number].entry);
        let next = next_epoch(followed);
        (tips.into_iter().map(|number| self.all[number].id).collect(), next)
    }
}

fn court<'a>(log: &'a Log, is_listed: &dyn Fn(&Author) -> bool) -> Court<'a> {
    let all = causal::standing(&log.entries, Some(log.begin), may_stand);
    // There is one, or it would not be a log.
    let owner = log.owner().map_or(IdentityId([0; 32]), |owner| owner.identity);
    let counts = vec![false; all.len()];
    let mut court = Court { all, owner, counts };
    court.hear(is_listed);
    court
}

/// Changes that do not count whichever of these devices are listed, that nothing which counts follows, and that no such device
/// of those who are admins now has signed.
pub(super) fn idle(log: &Log, may_be_listed: &dyn Fn(&Author) -> bool) -> BTreeSet<EntryId> {
    let court = court(log, may_be_listed);
    let of = court.of(true);
    let admin = |of: &Of<'_>| court.standing_grants(of).iter().any(|(_, member)| member.role == Role::Admin);
    let has_part = |identity: &IdentityId| *identity == court.owner || of.get(identity).is_some_and(admin);
    let is_admin = |author: &Author| has_part(&author.identity) && may_be_listed(author);
    let mut kept = Numbers::default();
    for number in 0..court.all.len() {
        if court.counts[number] || is_admin(court.author(number)) {
            kept.insert(number);
            kept.extend(&court.all[number].before);
        }
    }
    let standing: BTreeSet<EntryId> = court.all.iter().map(|one| one.id).collect();
    let idle = court.all.iter().enumerate().filter(|(number, _)| !kept.contains(*number)).map(|(_, one)| one.id);
    // What does not stand may do so once more was heard.
    let lost = log.entries.iter().filter(|(id, entry)| !standing.contains(*id) && !is_admin(&entry.author));
    idle.chain(lost.map(|(id, _)| *id)).collect()
}

/// All changes: those that stand in the order in which they do, then the others.
pub(super) fn in_order(log: &Log) -> Vec<EntryId> {
    let standing = causal::standing(&log.entries, Some(log.begin), may_stand);
    let mut order: Vec<EntryId> = standing.iter().map(|one| one.id).collect();
    let found: BTreeSet<EntryId> = order.iter().copied().collect();
    order.extend(log.entries.keys().filter(|id| !found.contains(*id)));
    order
}

/// Works out what changes come to.
pub(super) fn resolve(log: &Log, is_listed: &dyn Fn(&Author) -> bool) -> Members {
    let court = court(log, is_listed);
    let mut of = court.of(false);
    court.only_what_they_may(&mut of);
    let mut members: BTreeMap<IdentityId, Member> = log.owner().into_iter().map(|one| (one.identity, one)).collect();
    let (mut gone, mut brought, mut wrote) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut again = BTreeMap::new();
    let granted = |of: &Of<'_>| {
        let most = court.standing_grants(of).into_iter().min_by_key(|(_, member)| Reverse(member.role));
        most.map(|(number, member)| (number, *member))
    };
    let mut all: Vec<_> = of.iter().map(|(identity, of)| (identity, of, granted(of))).collect();
    // However many somebody brings, those who may do more have their part, which can be taken from them.
    all.sort_by_key(|(.., granted)| Reverse(granted.map(|(_, member)| member.role)));
    for (identity, of, granted) in all {
        if of.grants.iter().any(|(_, member)| member.role >= Role::Writer) {
            wrote.insert(*identity);
        }
        match granted {
            Some((number, member)) if members.len() < MEMBERS_MAX => {
                members.insert(*identity, member);
                brought.insert(*identity, court.author(number).identity);
                if !of.removals.is_empty() {
                    again.insert(*identity, court.all[number].entry.time);
                }
            }
            _ => {
                let last = of.grants.last().map(|(_, member)| **member);
                gone.extend(last.map(|member| (*identity, member)));
            }
        }
    }
    wrote.retain(|identity| members.get(identity).is_none_or(|member| member.role < Role::Writer));
    let (accepted, taken) = accepted(&court);
    let (epoch, is_sealed_off) = court.epoch();
    let counting = court.all.iter().zip(&court.counts).filter(|(_, counts)| **counts);
    let epochs = counting.filter_map(|(one, _)| one.entry.epoch).collect();
    let (forks, (tips, next_epoch)) = (court.forks(), court.tips());
    Members {
        members,
        gone,
        wrote,
        brought,
        again,
        accepted,
        taken,
        epoch,
        epochs,
        next_epoch,
        is_sealed_off,
        forks,
        tips,
    }
}

/// Of several removals at once the one that takes the most: nothing that somebody was allowed to write is refused.
fn accepted(court: &Court<'_>) -> (BTreeMap<DeviceId, Accepted>, BTreeMap<DeviceTag, u64>) {
    let mut all: BTreeMap<DeviceId, Accepted> = BTreeMap::new();
    let mut taken: BTreeMap<DeviceTag, u64> = BTreeMap::new();
    for (number, one) in court.all.iter().enumerate().filter(|(number, _)| court.counts[*number]) {
        let Change::Remove(_, heads, dots) = &one.entry.change else { continue };
        debug_assert!(court.counts[number]);
        for head in heads {
            let best = all.entry(head.device).or_insert(*head);
            *best = (*best).max(*head);
        }
        for dot in dots {
            let best = taken.entry(dot.device).or_default();
            *best = dot.sequence.max(*best);
        }
    }
    (all, taken)
}
