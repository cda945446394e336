//! Readers, a writer, a sync and a cache without room, all at one file.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::*;

const BLOCK: u64 = 4_096;
/// Too much to be fetched at once.
const BLOCKS: u64 = (5 << 20) / BLOCK + 3;
const ROUNDS: u64 = 40;

/// Numbers without a pattern, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// How often a block has been written to: begun, and returned.
#[derive(Default)]
struct Writes {
    begun: AtomicU64,
    done: AtomicU64,
}

struct File {
    bed: Bed,
    ino: u64,
    blocks: Vec<Writes>,
    /// Shared by whoever has it open: all of it leaves only when nobody has.
    open: RwLock<()>,
}

impl File {
    fn number(&self, block: u64) -> u64 {
        let mut bytes = [0; 8];
        assert_eq!(self.bed.vfs.read(self.ino, block * BLOCK, &mut bytes).unwrap(), bytes.len());
        u64::from_be_bytes(bytes)
    }

    /// A block has what was written to it last, or what is being written.
    fn check(&self, block: u64) {
        let writes = &self.blocks[block as usize];
        let done = writes.done.load(Ordering::SeqCst);
        let found = self.number(block);
        let begun = writes.begun.load(Ordering::SeqCst);
        assert!((done..=begun).contains(&found), "block {block} has write {found}, not one of {done} to {begun}");
    }

    fn read(&self, mut numbers: Numbers, goes_on: &AtomicBool) {
        while goes_on.load(Ordering::SeqCst) {
            let _open = self.open.read();
            self.bed.vfs.open_file(ME, self.ino, RO, false).unwrap();
            // Here and there in a row, so that some is fetched ahead.
            for start in std::iter::repeat_with(|| numbers.below(BLOCKS)).take(10) {
                (start..BLOCKS.min(start + 10)).for_each(|block| self.check(block));
            }
            self.bed.vfs.release(self.ino, RO).unwrap();
        }
    }

    fn write(&self, mut numbers: Numbers, goes_on: &AtomicBool) {
        while goes_on.load(Ordering::SeqCst) {
            if numbers.below(4) > 0 {
                // All of it comes for a writer: readers are to meet parts of it as well.
                std::thread::yield_now();
                continue;
            }
            let _open = self.open.read();
            self.bed.vfs.open_file(ME, self.ino, RW, false).unwrap();
            for block in std::iter::repeat_with(|| numbers.below(BLOCKS)).take(5) {
                let writes = &self.blocks[block as usize];
                let number = writes.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let bytes = number.to_be_bytes().repeat(BLOCK as usize / 8);
                self.bed.vfs.write(self.ino, block * BLOCK, &bytes, false).unwrap();
                writes.done.store(number, Ordering::SeqCst);
            }
            self.bed.vfs.release(self.ino, RW).unwrap();
        }
    }

    /// What is published leaves: all of it while nobody has it open, and parts at any time.
    fn evict(&self, mut numbers: Numbers) {
        for _ in 0..ROUNDS {
            self.bed.publish();
            let nobody = self.open.write();
            self.bed.publish();
            self.bed.drop_cache(None).unwrap();
            drop(nobody);
            for _ in 0..5 {
                self.bed.trim(numbers.below(BLOCKS * BLOCK));
            }
        }
    }
}

#[test]
fn a_block_has_what_was_written_to_it_last_whoever_fetches_and_evicts() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", &vec![0; (BLOCKS * BLOCK) as usize]);
    // No holes: each block is to be fetched.
    bed.overwrite(
        ino,
        0,
        &0u64.to_be_bytes().into_iter().chain([1; BLOCK as usize - 8]).collect::<Vec<_>>().repeat(BLOCKS as usize),
    );
    let file = File { bed, ino, blocks: (0..BLOCKS).map(|_| Writes::default()).collect(), open: RwLock::default() };
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (file, goes_on) = (&file, &goes_on);
        let others = [1, 2, 3].map(|seed| scope.spawn(move || file.read(Numbers(seed), goes_on)));
        let writer = scope.spawn(move || file.write(Numbers(4), goes_on));
        let evicted = scope.spawn(move || file.evict(Numbers(5))).join();
        goes_on.store(false, Ordering::SeqCst);
        others.into_iter().chain([writer]).for_each(|other| other.join().unwrap());
        evicted.unwrap();
    });
    file.bed.publish();
    file.bed.drop_cache(None).unwrap();
    (0..BLOCKS).for_each(|block| file.check(block));
    file.bed.assert_sound();
    assert!(file.bed.remote.reads() as u64 > ROUNDS, "next to nothing was evicted");
}

/// By a sync, a cache that is trimmed, the commit thread: all look for mappings that are gone.
#[test]
fn a_handle_is_closed_once_whoever_looks_whether_it_may_be() {
    let bed = Bed::new();
    let files: Vec<u64> = (0..3).map(|n| bed.file(ROOT, &format!("{n}"), b"")).collect();
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (bed, goes_on) = (&bed, &goes_on);
        for _ in 0..3 {
            scope.spawn(move || {
                while goes_on.load(Ordering::SeqCst) {
                    bed.vfs.let_go().unwrap();
                }
            });
        }
        let writers: Vec<_> = files
            .iter()
            .map(|ino| {
                scope.spawn(move || {
                    for size in 1..=20_000 {
                        let passed = bed.vfs.open_file(ME, *ino, RW, true).unwrap().passthrough.unwrap();
                        passed.write_all_at(b"x", size - 1).unwrap();
                        assert_eq!(bed.stat(*ino).size, size, "it is open, and nobody looks what is written to it");
                        drop(passed);
                        bed.vfs.release_passed_through(*ino, RW).unwrap();
                    }
                })
            })
            .collect();
        let done: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        goes_on.store(false, Ordering::SeqCst);
        done.into_iter().for_each(|done| done.unwrap());
    });
    bed.vfs.let_go().unwrap();
    for ino in files {
        assert_eq!(bed.vfs.release(ino, RW), Err(VfsError::BadHandle));
    }
}
