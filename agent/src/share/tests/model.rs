//! Eight devices of four people share one volume, and a ninth of somebody who comes by links alone; they write, take each other off, are parted and come together again, at
//! random and against a model: nobody reads what was written by whoever knew that they were taken off, and whatever
//! somebody wrote who was allowed to is found by all who have a part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypernet_core::head::Head;
use hypernet_core::id::{DeviceId, FileId, IdentityId};
use hypernet_core::share::bearer::Bearer;
use hypernet_core::share::members::{Members, Role};
use hypernet_core::share::offer::{Link, Offer};

use super::super::granting::Guest;
use super::super::hearing::Ask;
use super::super::kept::Made;
use super::SHARED;
use crate::people::Contacts;
use crate::volume::double::{Mesh, publish};
use crate::volume::{Volume, state};

const PEOPLE: u8 = 4;
/// Who has no part but by a link that writes.
const STRANGER: u8 = PEOPLE;
const SEEDS: u64 = 12;
const STEPS: usize = 40;

/// Always the same numbers for one seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// One of two devices of one of four people.
struct Device {
    home: tempfile::TempDir,
    who: u8,
    which: u8,
    main: Arc<Volume>,
    volume: Arc<Volume>,
}

impl Device {
    fn open(mesh: &Mesh, home: tempfile::TempDir, who: u8, which: u8) -> Self {
        let main = mesh.device_of(home.path(), who, which);
        let volume = Arc::new(Volume::below(&main, SHARED).unwrap());
        Self { home, who, which, main, volume }
    }

    fn id(&self) -> DeviceId {
        self.main.device.id()
    }

    fn identity(&self) -> IdentityId {
        self.main.identity.id()
    }

    /// Hears of all that the mesh has now, as an agent does before it publishes anything.
    fn hear(&self) {
        if self.volume.share().is_some() {
            let _ = self.volume.hear(Ask::All);
        }
        let _ = self.main.identity.confirm();
        if self.volume.share().is_some() {
            let _ = self.volume.tend();
            let _ = self.volume.hear(Ask::All);
        }
    }

    fn role(&self) -> Option<Role> {
        let known = self.volume.known_share()?;
        role_of(&known.members, self.who, self.identity(), &known.share.by.iter().map(|by| by.link).collect::<Vec<_>>())
    }
}

/// What somebody may do, who has taken these links.
fn role_of(members: &Members, who: u8, identity: IdentityId, links: &[Link]) -> Option<Role> {
    match who {
        STRANGER => links.iter().filter_map(|link| members.role(&Bearer::of(link).id())).max(),
        _ => members.role(&identity),
    }
}

/// What somebody published, and who had been taken off as far as they knew.
struct Written {
    by: DeviceId,
    who: u8,
    sequence: u64,
    not_for: BTreeSet<u8>,
}

struct World {
    /// Two parts while the mesh is parted; devices of even places are in the first.
    meshes: Vec<Mesh>,
    devices: Vec<Device>,
    written: Vec<Written>,
    removals: usize,
    chance: Chance,
    offer: Option<Offer>,
    /// That the stranger has taken.
    links: Vec<Link>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mesh = Mesh::new(6);
        let mut devices: Vec<Device> = Vec::new();
        for which in 0..2 {
            for who in 0..PEOPLE {
                devices.push(Device::open(&mesh, tempfile::tempdir().unwrap(), who, which));
            }
        }
        devices.push(Device::open(&mesh, tempfile::tempdir().unwrap(), STRANGER, 0));
        for one in &devices {
            one.main.look_around().unwrap();
        }
        for one in devices.iter().take(PEOPLE.into()) {
            for other in devices.iter().take(PEOPLE.into()).filter(|other| other.who != one.who) {
                let (id, address) = (other.identity(), other.main.identity.address());
                Contacts::of(one.main.identity.keystore()).add(&format!("p{}", other.who), id, address).unwrap();
            }
            one.main.identity.confirm().unwrap();
        }
        devices.iter().for_each(|one| drop(one.main.identity.confirm().unwrap()));
        let (meshes, written, links) = (vec![mesh], Vec::new(), Vec::new());
        let world = Self { meshes, devices, written, removals: 0, chance: Chance(seed), offer: None, links };
        let owner = &world.devices[0];
        owner.volume.begin_share(FileId([5; 16]), "book").unwrap();
        owner.volume.post().unwrap();
        owner.main.identity.confirm().unwrap();
        world.devices[usize::from(PEOPLE)].hear();
        let share = owner.volume.share().unwrap();
        let poster = hypernet_core::share::posting::place(&owner.main.device, &SHARED).signer();
        let (begin, root, name, secret) = (share.begin, share.root, share.name.clone(), share.secret.clone());
        let offer = Offer { volume: SHARED, begin, root, name, role: Role::Reader, secret, poster };
        Self { offer: Some(offer), ..world }
    }

    /// One of those who may do that, as far as they know, if anybody may.
    fn any(&mut self, role: Role) -> Option<usize> {
        let may = |device: &Device| device.role() >= Some(role);
        let may: Vec<usize> = (0..self.devices.len()).filter(|place| may(&self.devices[*place])).collect();
        if may.is_empty() { None } else { Some(may[self.chance.below(may.len())]) }
    }

    fn grant(&mut self) {
        let (Some(one), whom) = (self.any(Role::Admin), self.chance.below(PEOPLE.into()) as u8) else { return };
        let role = [Role::Reader, Role::Writer, Role::Writer, Role::Admin][self.chance.below(4)];
        let device = &self.devices[one];
        device.hear();
        if device.who == whom || device.role() < Some(Role::Admin) {
            return;
        }
        let contact = Contacts::of(device.main.identity.keystore()).get(&format!("p{whom}")).unwrap();
        let Ok(guest) = Guest::find(&device.volume, contact) else { return };
        // What may not be granted, or not by them, is refused.
        if device.volume.grant(vec![guest], role).is_ok() {
            // Whoever is granted it has all that came before, also when they are taken off again.
            self.written.iter_mut().for_each(|written| _ = written.not_for.remove(&whom));
            let offer = self.offer.clone().unwrap();
            let parted = self.meshes.len() > 1;
            for other in self.devices.iter().enumerate().filter(|(_, other)| other.who == whom) {
                if other.1.volume.share().is_none() && (!parted || other.0 % 2 == one % 2) {
                    let _ = other.1.volume.accept(offer.clone());
                }
            }
        }
    }

    fn remove(&mut self) {
        let (Some(one), whom) = (self.any(Role::Admin), self.chance.below(PEOPLE.into()) as u8) else { return };
        let device = &self.devices[one];
        device.hear();
        if device.role() < Some(Role::Admin) || device.who == whom {
            return;
        }
        let identity = self.devices[usize::from(whom)].identity();
        self.removals += usize::from(device.volume.remove(&[identity]).is_ok());
    }

    /// Somebody makes a link that writes, and the stranger takes it, unless they are parted.
    fn link(&mut self) {
        let Some(one) = self.any(Role::Admin) else { return };
        let (device, stranger) = (&self.devices[one], self.devices.len() - 1);
        device.hear();
        let parted = self.meshes.len() > 1 && one % 2 != stranger % 2;
        if parted || device.role() < Some(Role::Admin) {
            return;
        }
        let Ok(link) = device.volume.make_link(Role::Writer, None) else { return };
        let theirs = &self.devices[stranger].volume;
        if theirs.follow_link(&link).is_ok_and(|linked| theirs.accept_link(link, linked).is_ok()) {
            self.links.push(link);
            self.written.iter_mut().for_each(|written| _ = written.not_for.remove(&STRANGER));
        }
    }

    /// Somebody takes back a link that was made by them, on whichever of their devices.
    fn unlink(&mut self) {
        let Some(one) = self.any(Role::Admin) else { return };
        let device = &self.devices[one];
        device.hear();
        let made = device.volume.share().and_then(|share| share.open_links().next().map(Made::link));
        let Some(link) = made.filter(|_| device.role() >= Some(Role::Admin)) else { return };
        self.removals += usize::from(device.volume.take_back(&link).is_ok());
    }

    fn write(&mut self) {
        let Some(one) = self.any(Role::Writer) else { return };
        let device = &self.devices[one];
        device.hear();
        let volume = &device.volume;
        if volume.share().is_none() || volume.may_write().is_err() || volume.seal_off().is_err() {
            return;
        }
        let known = device.volume.known_share().unwrap();
        let gone = (0..=STRANGER).filter(|who| self.role_in(&known.members, *who).is_none());
        let not_for = gone.collect();
        // It counts when the mesh has taken it, and not before.
        if publish(&device.volume, 1).is_ok() {
            let sequence = state::next_sequence(&device.volume.db, &device.id()).unwrap() - 1;
            self.written.push(Written { by: device.id(), who: device.who, sequence, not_for });
        }
    }

    fn role_in(&self, members: &Members, who: u8) -> Option<Role> {
        let identity = if who == STRANGER { IdentityId([0; 32]) } else { self.identity(who) };
        role_of(members, who, identity, &self.links)
    }

    fn identity(&self, who: u8) -> IdentityId {
        self.devices[usize::from(who)].identity()
    }

    /// The agents stop, and come back on another part of the mesh, or on all of it.
    fn restart(&mut self) {
        for (place, device) in std::mem::take(&mut self.devices).into_iter().enumerate() {
            let Device { home, who, which, main, volume } = device;
            drop((main, volume));
            let mesh = &self.meshes[place % self.meshes.len()];
            self.devices.push(Device::open(mesh, home, who, which));
        }
    }

    fn part(&mut self) {
        if self.meshes.len() == 1 {
            let other = self.meshes[0].split(6);
            self.meshes.push(other);
            self.restart();
        }
    }

    fn heal(&mut self) {
        if let Some(other) = self.meshes.pop().filter(|_| !self.meshes.is_empty()) {
            self.meshes[0].join(&other);
            self.restart();
        } else {
            unreachable!("there is always one");
        }
    }

    /// Devices whose people have a part in it as the owner knows, and who have taken it. Others may not know that they have
    /// none any more.
    fn members(&self) -> impl Iterator<Item = &Device> {
        let truth = self.devices[0].volume.known_share().unwrap().members;
        let is_in = move |one: &Device| self.role_in(&truth, one.who).is_some();
        self.devices.iter().filter(move |one| is_in(one) && one.volume.share().is_some())
    }

    fn is_parted(&self) -> bool {
        self.meshes.len() > 1
    }

    fn step(&mut self) {
        match self.chance.below(20) {
            0..=4 => self.grant(),
            5 => self.remove(),
            6..=12 => self.write(),
            13 => self.part(),
            14 | 15 => self.link(),
            16 => self.unlink(),
            _ if self.is_parted() => self.heal(),
            _ => {}
        }
    }

    /// Nothing that was written by somebody who knew that they were taken off opens with any key that they have.
    fn nobody_reads_what_is_not_for_them(&self) {
        let records: Vec<_> = self.meshes.iter().flat_map(Mesh::all_records).collect();
        for device in &self.devices {
            let keys = device.main.identity.all_keys(SHARED);
            let opened = |by: &DeviceId| -> BTreeSet<u64> {
                let opens = |record| keys.iter().find_map(|keys| Head::open(record, by, keys).ok());
                records.iter().filter_map(opens).map(|head| head.sequence).collect()
            };
            let mut by_device: BTreeMap<DeviceId, BTreeSet<u64>> = BTreeMap::new();
            for written in self.written.iter().filter(|written| written.not_for.contains(&device.who)) {
                let opened = by_device.entry(written.by).or_insert_with(|| opened(&written.by));
                let back = device.role().is_some();
                let (by, number) = (written.who, written.sequence);
                assert!(back || !opened.contains(&number), "{} reads {number} of {by}", device.who);
            }
        }
    }

    /// Whoever has a part in it finds the newest that each writer has published.
    fn what_was_written_is_found(&self) {
        for device in self.members() {
            let known = device.volume.known_share().unwrap();
            let survey = device.volume.find_heads(&device.volume.publishers().listed).unwrap();
            let mut newest: BTreeMap<DeviceId, u64> = BTreeMap::new();
            for written in &self.written {
                let writes = self.role_in(&known.members, written.who) >= Some(Role::Writer);
                if writes {
                    let newest = newest.entry(written.by).or_default();
                    *newest = written.sequence.max(*newest);
                }
            }
            for (by, sequence) in newest {
                let found = survey.found.iter().find(|found| found.head.device == by).map(|found| found.head.sequence);
                assert_eq!(found, Some(sequence), "{} of device {} as {} sees it", sequence, by.short(), device.who);
            }
        }
    }

    fn all_agree(&self) {
        let seen = self.members().map(|device| {
            let members = device.volume.known_share().unwrap().members;
            (members.members, members.epoch)
        });
        let mut seen: Vec<_> = seen.collect();
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
    }
}

#[test]
fn eight_devices_of_four_people_and_one_of_a_stranger_share_one_volume() {
    let (mut by_others, mut by_links, mut removals, mut shared) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
            world.nobody_reads_what_is_not_for_them();
        }
        if world.is_parted() {
            world.heal();
        }
        // Some may have to begin an epoch that all have heard of, and the others hear of that.
        for _ in 0..3 {
            world.devices.iter().for_each(Device::hear);
        }
        let left = world.members().count();
        by_others += world.written.iter().filter(|written| written.who > 0).count();
        by_links += world.written.iter().filter(|written| written.who == STRANGER).count();
        removals += world.removals;
        shared += usize::from(left > 2);
        world.all_agree();
        world.what_was_written_is_found();
        world.nobody_reads_what_is_not_for_them();
    }
    // What never happens shows nothing.
    let seen = [by_others, by_links, removals, shared];
    assert!(by_others > 40 && by_links > 10 && removals > 5 && shared > 3, "{seen:?}");
}
