//! Eight devices that do anything, in parts of a mesh that do not hear of each other, and are killed at any moment: when all is
//! whole again they come to one tree, which has all that was published.
//!
//! Killed means: what a device is in the middle of gets no answers any more, all that it has in memory is gone, and it goes on
//! from what is on its disk. The figures of long runs are those of `scripts/apart`.

use std::path::Path;
use std::process::Command;

use super::something::{Pieces, assert_found, something};
use super::*;
use crate::identity::homes;

const DEVICES: u64 = 8;

/// One that is killed now and then.
struct Device {
    number: u8,
    /// The part of the mesh that it hears of.
    part: usize,
    home: Home,
    /// What it has written since its last head, and what is part of one.
    new: Pieces,
    published: Vec<Vec<u8>>,
}

struct World {
    parts: Vec<Mesh>,
    devices: Vec<Device>,
    chance: Chance,
    kills: u64,
    merges: u64,
    /// Bytes of shards that were given up.
    freed: u64,
}

pub(super) fn copy_of(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").args(["-a", "--"]).arg(dir.join(".")).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    copy
}

impl World {
    fn new(seed: u64) -> Self {
        let mesh = Mesh::new(6);
        let begin = |home: &Home| ["x", "y", "x/z"].into_iter().for_each(|dir| home.mkdir(dir));
        let homes = homes(&mesh, DEVICES as u8, begin);
        let device = |(number, home)| Device { number, part: 0, home, new: Pieces::default(), published: Vec::new() };
        let devices = (1..).zip(homes).map(device).collect();
        Self { parts: vec![mesh], devices, chance: Chance(seed), kills: 0, merges: 0, freed: 0 }
    }

    /// It goes on from its disk, in this part.
    fn restart(&mut self, which: usize, part: usize) {
        let device = &mut self.devices[which];
        let dir = copy_of(device.home.dir.path());
        if self.chance.below(4) > 0 {
            // It lies where it did; otherwise it was moved.
            homes::begin(dir.path()).unwrap();
        }
        // What was written and not published may be there, or not; and so may what was taken away.
        device.new.written.clear();
        device.part = part;
        device.home = Home::of(self.parts[part].volume(dir.path(), device.number), dir);
        self.kills += 1;
    }

    fn act(&mut self, which: usize, kill_after: Option<u64>) {
        let part = &self.parts[self.devices[which].part];
        part.stop_after(kill_after);
        let (follows, device) = (self.chance.below(2) == 0, &mut self.devices[which]);
        let synced = run(&device.home.volume, &device.home.vfs, &Meter::new());
        if synced.is_ok() {
            device.published.append(&mut device.new.written);
        }
        let home = &device.home;
        if synced.is_ok() && follows && home.volume.identity.look().is_ok() {
            let followed = home.volume.follow(&home.vfs, &home.volumes, ASKED, &Meter::new());
            self.merges += u64::from(matches!(followed, Ok(Followed::Merged)));
            assert!(followed.is_ok() || kill_after.is_some(), "{followed:?}");
        }
        assert!(synced.is_ok() || kill_after.is_some(), "{synced:?}");
        if synced.is_ok() && self.chance.below(3) == 0 {
            let collected = home.collect();
            assert!(collected.is_ok() || kill_after.is_some(), "{collected:?}");
            self.freed += collected.map_or(0, |(_, released)| released.bytes);
        }
        part.stop_after(None);
        if synced.is_ok() {
            links::check(&home.volume);
        }
        if kill_after.is_some() {
            self.restart(which, self.devices[which].part);
        }
    }

    fn split(&mut self) {
        let other = self.parts[0].split(6);
        self.parts.push(other);
        for which in 0..self.devices.len() {
            if self.chance.below(2) == 0 {
                self.restart(which, 1);
            }
        }
    }

    fn heal(&mut self) {
        if let Some(other) = (self.parts.len() > 1).then(|| self.parts.pop()).flatten() {
            self.parts[0].join(&other);
            let away: Vec<usize> = (0..self.devices.len()).filter(|which| self.devices[*which].part == 1).collect();
            away.into_iter().for_each(|which| self.restart(which, 0));
        }
    }

    fn step(&mut self) {
        let which = self.chance.below(DEVICES) as usize;
        match self.chance.below(40) {
            0 if self.parts.len() == 1 => self.split(),
            0 | 1 => self.heal(),
            2 => self.restart(which, self.devices[which].part),
            3 | 4 => {
                let after = self.chance.below(40);
                self.act(which, Some(after));
            }
            5..=12 => self.act(which, None),
            _ => {
                let device = &mut self.devices[which];
                something(&device.home, &mut self.chance, &mut device.new);
            }
        }
    }

    /// Says how much there was.
    fn end(mut self, seed: u64) -> String {
        self.heal();
        (0..self.devices.len()).for_each(|which| self.restart(which, 0));
        let (mut homes, mut published, mut gone) = (Vec::new(), Vec::new(), BTreeSet::new());
        for device in self.devices {
            homes.push(device.home);
            published.push(device.published);
            gone.extend(device.new.gone);
        }
        let tree = meet(&homes);
        assert_found(&tree, published.iter().flatten(), &gone, seed);
        for home in &homes {
            assert!(home.vfs.fsck(false).unwrap().problems.is_empty(), "seed {seed}");
        }
        // Also who has nothing but the words finds all of it, after everybody has given up what nobody needs.
        let mut freed = self.freed;
        for _ in 0..3 {
            for home in &homes {
                freed += home.collect().unwrap().1.bytes;
                assert_eq!(meet(&homes), tree, "seed {seed}");
            }
        }
        let ninth = Home::new(&self.parts[0], DEVICES as u8 + 1);
        let found = ninth.volume.recover(None, &mut |_| ()).unwrap();
        ninth.vfs.set_root(ninth.volume.id, found.root.inode).unwrap();
        assert_eq!(ninth.tree(), tree, "seed {seed}");
        assert!(freed > 0, "seed {seed}: nothing was ever given up");
        let (kills, merges, files) = (self.kills, self.merges, tree.len());
        let contents = published.iter().flatten().count();
        format!(
            "seed {seed}: {kills} kills, {merges} merges, {freed} bytes given up, {contents} contents in {files} files and \
             directories"
        )
    }
}

fn live(seed: u64, steps: u64) -> String {
    let mut world = World::new(seed);
    (0..steps).for_each(|_| world.step());
    world.end(seed)
}

#[test]
fn eight_devices_that_are_parted_and_killed_come_to_one_tree_with_all_that_was_published() {
    for seed in 0..2 {
        live(seed, 250);
    }
}

/// For `scripts/apart`.
#[test]
#[ignore = "as long as one likes"]
#[expect(clippy::print_stdout, reason = "it says how far it has come")]
fn for_as_long_as_one_likes() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, runs, steps) = (number("HN_SEED", 1), number("HN_RUNS", 20), number("HN_STEPS", 1_000));
    for seed in first..first + runs {
        println!("{}", live(seed, steps));
    }
}
