use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use bytes::Bytes;
use hypernet_core::audit;
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::limits::{LEASES_PER_SHARD_MAX, RECORDS_STORED_MAX, SHARD_CHECK_BLOCK, SHARD_MAX};
use proptest::prelude::*;

use super::*;

mod quotas;

const QUOTA: u64 = 1 << 30;
const BLOCK: usize = SHARD_CHECK_BLOCK;

struct Bench {
    dir: tempfile::TempDir,
    store: ShardStore,
    quota: u64,
    pack_max: u64,
}

impl Bench {
    fn new(quota: u64, pack_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ShardStore::open_with(dir.path(), Quota::for_all(quota), pack_max).unwrap();
        Self { dir, store, quota, pack_max }
    }

    fn reopen(&mut self) {
        self.store.close();
        self.store = ShardStore::open_with(self.dir.path(), Quota::for_all(self.quota), self.pack_max).unwrap();
    }

    fn start(&self, op: StoreOp) -> crossbeam_channel::Receiver<StoreReply> {
        let (tx, rx) = bounded(1);
        self.store.submit(op, Box::new(move |reply| tx.send(reply).unwrap()));
        rx
    }

    fn run(&self, op: StoreOp) -> StoreReply {
        self.start(op).recv().unwrap()
    }

    fn put(&self, body: &Bytes, key: u8) -> StoreReply {
        self.run(put(body, key, 100))
    }

    fn read(&self, shard: ShardId, offset: u32, len: u32) -> StoreReply {
        self.run(StoreOp::Read { shard, offset, len })
    }

    fn have(&self, shard: ShardId) -> bool {
        self.run(StoreOp::Have { shards: vec![shard] }) == StoreReply::Have(vec![true])
    }

    fn release(&self, shard: ShardId, key: u8) -> StoreReply {
        match self.run(release(shard, key)) {
            StoreReply::Released { used, .. } => StoreReply::Done { used },
            other => other,
        }
    }

    /// The database behind the store's back; the lock file does not stop this process from looking.
    fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(SCHEMA.path(self.dir.path())).unwrap()
    }

    fn at(&self, shard: ShardId) -> (PathBuf, u64) {
        let (pack, offset): (u32, i64) = self
            .sql()
            .query_row("SELECT pack, offset FROM shards WHERE id = ?1", [shard.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        (self.dir.path().join(format!("packs/{pack:06}.pack")), offset as u64)
    }

    fn flip(&self, shard: ShardId, byte: u64) {
        let (path, offset) = self.at(shard);
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut one = [0];
        file.read_exact_at(&mut one, offset + byte).unwrap();
        file.write_all_at(&[one[0] ^ 0xff], offset + byte).unwrap();
    }

    fn packs(&self) -> Vec<PathBuf> {
        let mut packs: Vec<_> =
            std::fs::read_dir(self.dir.path().join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        packs.sort();
        packs
    }
}

fn body(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn id(body: &Bytes) -> ShardId {
    ShardId(*blake3::hash(body).as_bytes())
}

fn put(body: &Bytes, key: u8, expires: u64) -> StoreOp {
    put_for(Depositor::Newcomer, body, key, expires)
}

fn put_for(depositor: Depositor, body: &Bytes, key: u8, expires: u64) -> StoreOp {
    StoreOp::Put { shard: id(body), lease: lease(key, expires), body: body.clone(), depositor }
}

fn renew(leases: Vec<(ShardId, Lease)>) -> StoreOp {
    StoreOp::Renew { leases, depositor: Depositor::Newcomer, most: u64::MAX }
}

fn newcomers(bytes: u64) -> Used {
    Used::by(Depositor::Newcomer, bytes)
}

fn lease(key: u8, expires: u64) -> Lease {
    Lease { key: LeaseKey([key; 32]), expires: UnixSeconds(expires) }
}

fn release(shard: ShardId, key: u8) -> StoreOp {
    StoreOp::Release { leases: vec![(shard, LeaseKey([key; 32]))] }
}

fn done(used: u64) -> StoreReply {
    StoreReply::Done { used: newcomers(used) }
}

fn failed_with(fault: StoreFault) -> StoreReply {
    StoreReply::Failed(fault)
}

// ---- against a model ----

#[derive(Clone, Debug)]
enum Step {
    Put {
        shard: usize,
        key: u8,
    },
    Release {
        shard: usize,
        key: u8,
    },
    Renew {
        shard: usize,
        key: u8,
    },
    /// Several at once, so that they meet in one batch.
    Burst(Vec<(bool, usize, u8)>),
    Read {
        shard: usize,
        offset: u32,
        len: u32,
    },
    Whole {
        shard: usize,
    },
    Flip {
        shard: usize,
        byte: u64,
    },
    Reopen,
}

const LENS: [usize; 6] = [1, 5_000, BLOCK, BLOCK + 1, 3 * BLOCK - 7, 200_000];

fn step() -> impl Strategy<Value = Step> {
    let shard = || 0..LENS.len();
    prop_oneof![
        4 => (shard(), 0..3u8).prop_map(|(shard, key)| Step::Put { shard, key }),
        3 => (shard(), 0..3u8).prop_map(|(shard, key)| Step::Release { shard, key }),
        2 => (shard(), 0..3u8).prop_map(|(shard, key)| Step::Renew { shard, key }),
        2 => prop::collection::vec((any::<bool>(), shard(), 0..2u8), 1..12).prop_map(Step::Burst),
        3 => (shard(), 0..220_000u32, 1..220_000u32).prop_map(|(shard, offset, len)| Step::Read { shard, offset, len }),
        2 => shard().prop_map(|shard| Step::Whole { shard }),
        1 => (shard(), any::<u64>()).prop_map(|(shard, byte)| Step::Flip { shard, byte }),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Held {
    /// Without any it is idle.
    keys: BTreeSet<u8>,
    /// A byte that is wrong on disk.
    flipped: Option<u64>,
    /// A read has found it.
    known: bool,
}

#[derive(Default)]
struct Model {
    shards: BTreeMap<usize, Held>,
}

impl Model {
    fn used(&self) -> u64 {
        self.leased().map(|shard| packs::room(LENS[shard] as u64)).sum()
    }

    fn idle(&self) -> u64 {
        self.shards.keys().map(|shard| packs::room(LENS[*shard] as u64)).sum::<u64>() - self.used()
    }

    fn leased(&self) -> impl Iterator<Item = usize> + '_ {
        self.shards.iter().filter(|(_, held)| !held.keys.is_empty()).map(|(shard, _)| *shard)
    }

    fn change(&mut self, is_put: bool, shard: usize, key: u8) {
        if is_put {
            let held = self.shards.entry(shard).or_default();
            held.keys.insert(key);
            (held.known, held.flipped) = (false, None);
        } else if let Some(held) = self.shards.get_mut(&shard) {
            held.keys.remove(&key);
        }
    }

    /// Whether it is here and as it should be, as far as is known.
    fn renew(&mut self, shard: usize, key: u8) -> bool {
        let Some(held) = self.shards.get_mut(&shard).filter(|held| !held.known) else { return false };
        held.keys.insert(key);
        true
    }

    fn read(&mut self, shard: usize, whole: &Bytes, offset: u32, len: u32) -> StoreReply {
        let Some(held) = self.shards.get_mut(&shard) else { return failed_with(StoreFault::NotFound) };
        let (from, to) = ((offset as usize).min(whole.len()), (offset as usize + len as usize).min(whole.len()));
        let touched = from / BLOCK * BLOCK..to.next_multiple_of(BLOCK);
        let rotten = held.flipped.is_some_and(|byte| from < to && touched.contains(&(byte as usize)));
        held.known |= rotten;
        if rotten { failed_with(StoreFault::Damaged) } else { StoreReply::Bytes(whole.slice(from..to)) }
    }
}

fn check(steps: Vec<Step>) {
    // Packs so small that every few puts start a new one.
    let mut bench = Bench::new(QUOTA, 5 * BLOCK as u64);
    let bodies: Vec<Bytes> = LENS.iter().enumerate().map(|(i, len)| body(i as u64, *len)).collect();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Put { shard, key } => {
                model.change(true, shard, key);
                assert_eq!(bench.put(&bodies[shard], key), done(model.used()));
            }
            Step::Release { shard, key } => {
                model.change(false, shard, key);
                assert_eq!(bench.release(id(&bodies[shard]), key), done(model.used()));
            }
            Step::Renew { shard, key } => {
                let nowhere = (ShardId([7; 32]), lease(key, 100));
                let held = vec![false, model.renew(shard, key)];
                let renew = renew(vec![nowhere, (id(&bodies[shard]), lease(key, 100))]);
                assert_eq!(bench.run(renew), StoreReply::Renewed { used: newcomers(model.used()), held });
            }
            Step::Burst(changes) => {
                let started: Vec<_> = changes
                    .iter()
                    .map(|(is_put, shard, key)| match is_put {
                        true => bench.start(put(&bodies[*shard], *key, 100)),
                        false => bench.start(release(id(&bodies[*shard]), *key)),
                    })
                    .collect();
                for ((is_put, shard, key), reply) in changes.into_iter().zip(started) {
                    let reply = reply.recv().unwrap();
                    assert!(matches!(reply, StoreReply::Done { .. } | StoreReply::Released { .. }));
                    model.change(is_put, shard, key);
                }
            }
            Step::Read { shard, offset, len } => {
                let expected = model.read(shard, &bodies[shard], offset, len);
                assert_eq!(bench.read(id(&bodies[shard]), offset, len), expected);
            }
            Step::Whole { shard } => {
                let expected = model.read(shard, &bodies[shard], 0, SHARD_MAX as u32);
                assert_eq!(bench.read(id(&bodies[shard]), 0, SHARD_MAX as u32), expected);
            }
            Step::Flip { shard, byte } => {
                if let Some(held) = model.shards.get_mut(&shard)
                    && held.flipped.is_none()
                {
                    let byte = byte % LENS[shard] as u64;
                    bench.flip(id(&bodies[shard]), byte);
                    held.flipped = Some(byte);
                }
            }
            Step::Reopen => bench.reopen(),
        }
        assert_eq!((bench.store.used().total(), bench.store.count()), (model.used(), model.leased().count() as u64));
        assert_eq!(bench.store.idle(), model.idle());
        for (i, body) in bodies.iter().enumerate() {
            let is_kept = |held: &Held| !held.known && !held.keys.is_empty();
            assert_eq!(bench.have(id(body)), model.shards.get(&i).is_some_and(is_kept));
        }
    }
    // What is left can be read, and no pack is there for nothing.
    bench.reopen();
    for (i, body) in bodies.iter().enumerate() {
        assert_eq!(bench.read(id(body), 0, SHARD_MAX as u32), model.read(i, body, 0, SHARD_MAX as u32));
    }
    if model.shards.is_empty() {
        assert_eq!(bench.packs(), Vec::<PathBuf>::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..40)) {
        check(steps);
    }
}

// ---- one by one ----

#[test]
fn the_quota_counts_each_shard_once() {
    let mut bench = Bench::new(3 * 4096, QUOTA);
    let bodies: Vec<Bytes> = (0..4).map(|i| body(i, 4096)).collect();
    assert_eq!(bench.put(&bodies[0], 1), done(4096));
    assert_eq!(bench.put(&bodies[0], 1), done(4096));
    assert_eq!(bench.put(&bodies[0], 2), done(4096));
    bench.put(&bodies[1], 1);
    assert_eq!(bench.put(&bodies[2], 1), done(3 * 4096));
    assert_eq!(bench.put(&bodies[3], 1), failed_with(StoreFault::Full));
    // A shard that is there needs no more room.
    assert_eq!(bench.put(&bodies[2], 2), done(3 * 4096));
    assert_eq!(bench.release(id(&bodies[1]), 1), done(2 * 4096));
    assert_eq!(bench.put(&bodies[3], 1), done(3 * 4096));
    // The next start may offer less: what is there stays.
    bench.quota = 0;
    bench.reopen();
    assert_eq!(bench.put(&bodies[1], 1), failed_with(StoreFault::Full));
    assert_eq!(bench.store.count(), 3);
    assert_eq!(bench.store.used(), newcomers(3 * 4096));
}

#[test]
fn a_shard_lives_as_long_as_its_longest_lease() {
    let bench = Bench::new(QUOTA, QUOTA);
    let shard = body(1, 5_000);
    bench.run(put(&shard, 1, 100));
    bench.run(put(&shard, 2, 50));
    // Renewing never makes a lease shorter.
    bench.run(put(&shard, 1, 70));
    let expire = |before| {
        let (tx, rx) = bounded(1);
        bench.store.expire(UnixSeconds(before), Box::new(move |reply| tx.send(reply).unwrap()));
        rx.recv().unwrap()
    };
    expire(99);
    assert!(bench.have(id(&shard)));
    assert_eq!(bench.release(id(&shard), 2), done(2 * 4096));
    assert_eq!(expire(101), done(0));
    // Nobody is to rely on it, and whoever wants it can read it, or have it kept again.
    assert!(!bench.have(id(&shard)));
    assert_eq!(bench.read(id(&shard), 0, 9), StoreReply::Bytes(shard.slice(..9)));
    let renewed = StoreReply::Renewed { used: newcomers(2 * 4096), held: vec![true] };
    assert_eq!(bench.run(renew(vec![(id(&shard), lease(3, 200))])), renewed);
    assert!(bench.have(id(&shard)));
}

#[test]
fn what_nobody_has_a_lease_of_goes_when_its_space_is_needed_and_what_was_given_up_first() {
    let mut bench = Bench::new(4 * 4096, QUOTA);
    let bodies: Vec<Bytes> = (0..8).map(|i| body(i, 4096)).collect();
    for (i, until) in [(0, 20), (1, 10), (2, 90), (3, 90)] {
        bench.run(put(&bodies[i], 1, until));
    }
    let (tx, rx) = bounded(1);
    bench.store.expire(UnixSeconds(50), Box::new(move |reply| tx.send(reply).unwrap()));
    assert_eq!(rx.recv().unwrap(), done(2 * 4096));
    assert_eq!(bench.release(id(&bodies[2]), 1), done(4096));
    let there = |bench: &Bench| -> Vec<usize> {
        (0..8).filter(|i| bench.read(id(&bodies[*i]), 0, 1) != failed_with(StoreFault::NotFound)).collect()
    };
    assert_eq!((there(&bench), bench.store.idle()), (vec![0, 1, 2, 3], 3 * 4096));
    bench.reopen();
    assert_eq!((bench.store.used().total(), bench.store.idle(), bench.store.count()), (4096, 3 * 4096, 1));
    // The one that was given up, then by the end of their leases.
    for (new, left) in [(4, vec![0, 1, 3, 4]), (5, vec![0, 3, 4, 5]), (6, vec![3, 4, 5, 6])] {
        assert!(matches!(bench.run(put(&bodies[new], 1, 90)), StoreReply::Done { .. }));
        assert_eq!(there(&bench), left);
    }
    assert_eq!(bench.run(put(&bodies[7], 1, 90)), failed_with(StoreFault::Full));
    assert_eq!((bench.store.used().total(), bench.store.idle(), bench.store.count()), (4 * 4096, 0, 4));
    // An idle one counts again only where the quota has room for it.
    bench.release(id(&bodies[3]), 1);
    bench.quota = 3 * 4096;
    bench.reopen();
    let renewed = StoreReply::Renewed { used: newcomers(3 * 4096), held: vec![false] };
    assert_eq!(bench.run(renew(vec![(id(&bodies[3]), lease(1, 90))])), renewed);
    assert_eq!(bench.run(put(&bodies[3], 1, 90)), failed_with(StoreFault::Full));
}

#[test]
fn many_leases_end_in_steps_and_none_is_forgotten() {
    let bench = Bench::new(QUOTA, QUOTA);
    let waiting: Vec<_> = (0..1_500).map(|i| bench.start(put(&body(i, 8), 1, 10))).collect();
    waiting.into_iter().for_each(|reply| assert!(matches!(reply.recv(), Ok(StoreReply::Done { .. }))));
    let (tx, rx) = bounded(1);
    bench.store.expire(UnixSeconds(11), Box::new(move |_| tx.send(()).unwrap()));
    rx.recv().unwrap();
    // The second step is under way or done; a put behind it is answered after it.
    let last = body(9_999, 8);
    bench.put(&last, 1);
    bench.put(&last, 2);
    assert_eq!(bench.store.count(), 1);
}

#[test]
fn the_number_of_leases_is_bounded() {
    let bench = Bench::new(QUOTA, QUOTA);
    let shard = body(1, 10);
    for key in 0..LEASES_PER_SHARD_MAX {
        assert_eq!(bench.put(&shard, key as u8), done(4096));
    }
    assert_eq!(bench.put(&shard, 255), failed_with(StoreFault::Full));
    assert_eq!(bench.put(&shard, 0), done(4096));
}

#[test]
fn damage_is_never_served_and_a_put_heals_it() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    let shard = body(1, 1 << 20);
    let len = shard.len() as u32;
    bench.put(&shard, 1);
    bench.flip(id(&shard), 700_000);
    // Blocks that are not touched can be had; the wrong one cannot, nor the whole.
    assert_eq!(bench.read(id(&shard), 4096, 4096), StoreReply::Bytes(shard.slice(4096..8192)));
    assert!(bench.have(id(&shard)));
    assert_eq!(bench.read(id(&shard), 699_000, 4096), failed_with(StoreFault::Damaged));
    assert!(!bench.have(id(&shard)));
    bench.reopen();
    // Nor is it told that it can be had any more; what of it is good still can.
    assert!(!bench.have(id(&shard)));
    assert_eq!(bench.read(id(&shard), 699_000, 4096), failed_with(StoreFault::Damaged));
    assert_eq!(bench.read(id(&shard), 0, len), failed_with(StoreFault::Damaged));
    assert_eq!(bench.read(id(&shard), 4096, 4096), StoreReply::Bytes(shard.slice(4096..8192)));
    assert_eq!(bench.put(&shard, 1), done(1 << 20));
    assert_eq!(bench.read(id(&shard), 0, len), StoreReply::Bytes(shard.clone()));
    assert_eq!(bench.store.count(), 1);
}

#[test]
fn what_is_proven_is_right_and_rot_anywhere_in_the_shard_is_found_by_it() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    let (shard, other) = (body(1, 1 << 20), body(2, 1 << 20));
    bench.put(&shard, 1);
    bench.put(&other, 1);
    let prove = |bench: &Bench, shard: &Bytes, chunk| bench.run(StoreOp::Prove { shard: id(shard), chunk });
    for chunk in [0, 500, 1023] {
        let StoreReply::Bytes(proof) = prove(&bench, &shard, chunk) else { panic!() };
        assert!(audit::verify(&id(&shard), 1 << 20, chunk, &proof));
        assert!(!audit::verify(&id(&other), 1 << 20, chunk, &proof));
    }
    assert_eq!(prove(&bench, &shard, 1024), StoreReply::Bytes(Bytes::new()), "it ends before that");
    assert_eq!(prove(&bench, &body(3, 10), 0), failed_with(StoreFault::NotFound));
    // Far from the chunk that is asked for.
    bench.flip(id(&shard), 700_000);
    assert!(bench.have(id(&shard)), "nobody has looked");
    assert_eq!(prove(&bench, &shard, 0), failed_with(StoreFault::Damaged));
    assert!(!bench.have(id(&shard)) && bench.have(id(&other)), "it was noted");
    assert_eq!(prove(&bench, &shard, 0), failed_with(StoreFault::Damaged));
    bench.put(&shard, 1);
    assert!(matches!(prove(&bench, &shard, 683), StoreReply::Bytes(proof) if !proof.is_empty()));
    // The file ends within the second one.
    let (pack, offset) = bench.at(id(&other));
    std::fs::File::options().write(true).open(pack).unwrap().set_len(offset + 1).unwrap();
    assert_eq!(prove(&bench, &other, 0), failed_with(StoreFault::Damaged));
    bench.reopen();
    assert_eq!(prove(&bench, &other, 0), failed_with(StoreFault::Damaged));
}

#[test]
fn a_put_is_answered_for_bytes_that_are_there_even_when_nobody_has_read_them_since() {
    let bench = Bench::new(QUOTA, QUOTA);
    let (rotten, cut, good) = (body(1, 300_000), body(2, 300_000), body(3, 300_000));
    let room = packs::room(300_000);
    bench.put(&good, 1);
    bench.put(&rotten, 1);
    bench.put(&cut, 1);
    // What is right stays where it is.
    let place = bench.at(id(&good));
    assert_eq!(bench.put(&good, 2), done(3 * room));
    assert_eq!(bench.at(id(&good)), place);

    bench.flip(id(&rotten), 299_999);
    let (pack, offset) = bench.at(id(&cut));
    std::fs::File::options().write(true).open(pack).unwrap().set_len(offset + 1).unwrap();
    // The one that ends too early first: what is written behind it fills the gap with zeros.
    for shard in [&cut, &rotten] {
        let place = bench.at(id(shard));
        assert_eq!(bench.put(shard, 2), done(3 * room));
        assert_ne!(bench.at(id(shard)), place);
    }
    for shard in [&rotten, &cut, &good] {
        assert_eq!(bench.read(id(shard), 0, 300_000), StoreReply::Bytes(shard.clone()));
        assert_eq!(bench.read(id(shard), 200_000, 10), StoreReply::Bytes(shard.slice(200_000..200_010)));
        // The lease that was there before is there still.
        assert_eq!(bench.release(id(shard), 2), done(3 * room));
        assert!(bench.have(id(shard)));
    }
    assert_eq!(bench.store.count(), 3);
}

#[test]
fn short_and_missing_packs_are_damage() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    let (first, second, third) = (body(1, 100_000), body(2, 100_000), body(3, 10));
    bench.put(&first, 1);
    bench.put(&second, 1);
    bench.store.close();
    let pack = bench.packs().remove(0);
    std::fs::File::options().write(true).open(&pack).unwrap().set_len(150_000).unwrap();
    bench.store = ShardStore::open(bench.dir.path(), Quota::for_all(QUOTA)).unwrap();
    // Nobody has to read a lost shard for it to be known.
    assert!(bench.have(id(&first)) && !bench.have(id(&second)));
    assert_eq!(bench.read(id(&first), 0, 100_000), StoreReply::Bytes(first.clone()));
    assert_eq!(bench.read(id(&second), 0, 100_000), failed_with(StoreFault::Damaged));
    // Nothing is written where a lost shard should be.
    bench.put(&third, 1);
    assert_ne!(bench.at(id(&third)).0, pack);
    bench.store.close();
    std::fs::remove_file(&pack).unwrap();
    bench.store = ShardStore::open(bench.dir.path(), Quota::for_all(QUOTA)).unwrap();
    assert!(!bench.have(id(&first)) && bench.have(id(&third)));
    assert_eq!(bench.read(id(&first), 0, 10), failed_with(StoreFault::Damaged));
    assert_eq!(bench.read(id(&third), 0, 10), StoreReply::Bytes(third));
    assert!(matches!(bench.put(&first, 1), StoreReply::Done { .. }));
    assert_eq!(bench.read(id(&first), 0, 100_000), StoreReply::Bytes(first));
}

#[test]
fn a_pack_that_was_away_for_a_start_costs_nothing_but_what_is_known_to_be_wrong() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    let (rotten, good, anew) = (body(1, 100_000), body(2, 100_000), body(3, 100_000));
    for shard in [&rotten, &good, &anew] {
        bench.put(shard, 1);
    }
    bench.flip(id(&rotten), 0);
    assert_eq!(bench.read(id(&rotten), 0, 10), failed_with(StoreFault::Damaged));
    bench.store.close();
    let (pack, aside) = (bench.packs().remove(0), bench.dir.path().join("aside"));
    std::fs::rename(&pack, &aside).unwrap();
    bench.store = ShardStore::open(bench.dir.path(), Quota::for_all(QUOTA)).unwrap();
    for shard in [&rotten, &good, &anew] {
        assert!(!bench.have(id(shard)));
    }
    assert!(matches!(bench.put(&anew, 1), StoreReply::Done { .. }));
    assert!(bench.have(id(&anew)));
    for _ in 0..2 {
        bench.store.close();
        std::fs::rename(&aside, &pack).unwrap();
        bench.store = ShardStore::open(bench.dir.path(), Quota::for_all(QUOTA)).unwrap();
        assert_eq!([&rotten, &good, &anew].map(|shard| bench.have(id(shard))), [false, true, true]);
        for shard in [&good, &anew] {
            assert_eq!(bench.read(id(shard), 0, 100_000), StoreReply::Bytes(shard.clone()));
        }
        bench.store.close();
        std::fs::rename(&pack, &aside).unwrap();
        bench.store = ShardStore::open(bench.dir.path(), Quota::for_all(QUOTA)).unwrap();
        assert_eq!([&rotten, &good, &anew].map(|shard| bench.have(id(shard))), [false, false, true]);
    }
    assert_eq!((bench.store.count(), bench.store.used().total()), (3, 3 * packs::room(100_000)));
}

#[test]
fn bytes_behind_the_last_row_are_dead() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    let shards: Vec<Bytes> = (0..4).map(|i| body(i, 30_000)).collect();
    for (round, shard) in shards.iter().enumerate() {
        bench.put(shard, 1);
        bench.store.close();
        // A put that was cut short: half a body, garbage, or nothing but a longer file; and a pack without a row.
        let pack = bench.packs().remove(0);
        let file = std::fs::File::options().read(true).write(true).open(&pack).unwrap();
        let end = file.metadata().unwrap().len();
        match round {
            0 => file.write_all_at(&body(77, 20_000), end).unwrap(),
            1 => file.write_all_at(&[0xff; 50_000], end + 4096).unwrap(),
            _ => file.set_len(end + (64 << 20)).unwrap(),
        }
        std::fs::write(bench.dir.path().join("packs/000099.pack"), b"never committed").unwrap();
        bench.store = ShardStore::open(bench.dir.path(), Quota::for_all(QUOTA)).unwrap();
        assert_eq!(bench.packs(), std::slice::from_ref(&pack));
        assert_eq!(std::fs::metadata(&pack).unwrap().len(), end);
        for shard in &shards[..=round] {
            assert_eq!(bench.read(id(shard), 0, 30_000), StoreReply::Bytes(shard.clone()));
        }
    }
}

#[test]
fn released_space_goes_back_to_the_disk() {
    let bench = Bench::new(4 << 20, QUOTA);
    let shards: Vec<Bytes> = (0..4).map(|i| body(i, 1 << 20)).collect();
    shards.iter().for_each(|shard| assert!(matches!(bench.put(shard, 1), StoreReply::Done { .. })));
    let blocks = || std::fs::metadata(&bench.packs()[0]).unwrap().blocks() * 512;
    let before = blocks();
    bench.release(id(&shards[1]), 1);
    // Whoever needs it gets it. The hole is punched after the answer's commit and before the answer.
    bench.put(&body(9, 1), 1);
    assert!(blocks() + (1 << 20) <= before + 8192, "{} of {before}", blocks());
    assert_eq!(bench.read(id(&shards[2]), 0, 1 << 20), StoreReply::Bytes(shards[2].clone()));
}

#[test]
fn a_release_that_was_cut_short_is_finished_at_the_next_start() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    let (first, second) = (body(1, 1 << 20), body(2, 1 << 20));
    bench.put(&first, 1);
    bench.put(&second, 1);
    bench.store.close();
    bench
        .sql()
        .execute_batch(&format!(
            "INSERT INTO holes SELECT pack, offset, len FROM shards WHERE hex(id) = '{0}';
             DELETE FROM leases WHERE hex(shard) = '{0}'; DELETE FROM shards WHERE hex(id) = '{0}';",
            id(&first).to_string().to_uppercase()
        ))
        .unwrap();
    let blocks = |bench: &Bench| std::fs::metadata(&bench.packs()[0]).unwrap().blocks() * 512;
    let before = blocks(&bench);
    bench.store = ShardStore::open(bench.dir.path(), Quota::for_all(QUOTA)).unwrap();
    assert!(blocks(&bench) + (1 << 20) <= before);
    assert_eq!(bench.read(id(&second), 0, 1 << 20), StoreReply::Bytes(second));
    assert_eq!(bench.sql().query_row("SELECT count(*) FROM holes", [], |row| row.get::<_, i64>(0)), Ok(0));
}

#[test]
fn packs_without_their_database_are_not_touched() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    bench.put(&body(1, 10), 1);
    bench.store.close();
    let database = SCHEMA.path(bench.dir.path());
    let aside = bench.dir.path().join("aside");
    std::fs::rename(&database, &aside).unwrap();
    for _ in 0..2 {
        let error = ShardStore::open(bench.dir.path(), Quota::for_all(QUOTA)).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    }
    assert_eq!(bench.packs().len(), 1);
    std::fs::rename(&aside, &database).unwrap();
    bench.reopen();
    assert!(bench.have(id(&body(1, 10))));
}

#[test]
fn records_outlive_a_restart_and_are_bounded() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    let key = |i: usize| RecordKey(*blake3::hash(&i.to_be_bytes()).as_bytes());
    let put =
        |bench: &Bench, i: usize, bytes: &[u8]| bench.start(StoreOp::PutRecord { key: key(i), bytes: bytes.to_vec() });
    put(&bench, 1, b"old").recv().unwrap();
    put(&bench, 2, b"other").recv().unwrap();
    assert_eq!(put(&bench, 1, b"new").recv().unwrap(), done(0));
    bench.reopen();
    assert_eq!(bench.store.records().unwrap(), [(key(2), b"other".to_vec()), (key(1), b"new".to_vec())]);
    let (tx, rx) = bounded(1);
    bench.store.forget_record(key(2), Box::new(move |reply| tx.send(reply).unwrap()));
    assert_eq!(rx.recv().unwrap(), done(0));
    assert_eq!(bench.store.records().unwrap(), [(key(1), b"new".to_vec())]);

    for some in (10..10 + RECORDS_STORED_MAX).collect::<Vec<_>>().chunks(1_000) {
        let started: Vec<_> = some.iter().map(|i| put(&bench, *i, &i.to_be_bytes())).collect();
        started.into_iter().for_each(|reply| assert_eq!(reply.recv().unwrap(), done(0)));
    }
    let records = bench.store.records().unwrap();
    assert_eq!(records.len(), RECORDS_STORED_MAX);
    assert!(!records.iter().any(|(held, _)| *held == key(1)), "the oldest makes room");
    bench.reopen();
    assert_eq!(bench.store.records().unwrap().len(), RECORDS_STORED_MAX);
}

#[test]
fn submit_never_blocks_and_the_flood_is_turned_away() {
    let bench = Bench::new(QUOTA, QUOTA);
    // The writer is held up inside an answer, as by a node that has no time.
    let (entered, wait_entered) = bounded(1);
    let (release, wait_release) = bounded::<()>(1);
    let hold = move |_| {
        entered.send(()).unwrap();
        wait_release.recv().unwrap();
    };
    bench.store.submit(put(&body(0, 10), 1, 100), Box::new(hold));
    wait_entered.recv().unwrap();
    let big = body(1, SHARD_MAX);
    let fits = STORE_WRITE_BYTES_MAX / SHARD_MAX;
    let started: Vec<_> = (0..fits + 2).map(|_| bench.start(put(&big, 1, 100))).collect();
    // Those beyond the limit are answered while the writer still stands.
    assert_eq!(started[fits].recv().unwrap(), failed_with(StoreFault::Busy));
    assert_eq!(started[fits + 1].recv().unwrap(), failed_with(StoreFault::Busy));
    // So are reads.
    assert!(bench.have(id(&body(0, 10))));
    release.send(()).unwrap();
    for reply in &started[..fits] {
        assert!(matches!(reply.recv().unwrap(), StoreReply::Done { .. }));
    }
    assert!(matches!(bench.put(&big, 2), StoreReply::Done { .. }));
}

#[test]
fn closing_finishes_what_was_submitted() {
    let mut bench = Bench::new(QUOTA, QUOTA);
    let bodies: Vec<Bytes> = (0..200).map(|i| body(i, 5_000)).collect();
    let started: Vec<_> = bodies.iter().map(|body| bench.start(put(body, 1, 100))).collect();
    bench.store.close();
    for reply in started {
        assert!(matches!(reply.try_recv(), Ok(StoreReply::Done { .. })));
    }
    bench.store.close();
    assert!(bench.start(StoreOp::Have { shards: vec![] }).recv().is_err(), "nothing starts after close");
    bench.reopen();
    assert_eq!(bench.store.count(), 200);
}
