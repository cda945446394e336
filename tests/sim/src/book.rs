//! What the checkers remember: who owns what, what was acknowledged, which commands are open.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hypernet_core::id::{RecordKey, ShardId, VolumeId};
use hypernet_core::key::{Secret, VolumeKeys};
use hypernet_core::node::{CommandId, RequestId};
use hypernet_core::record::Record;
use hypernet_core::seal::{ExtentRef, Kind, Sealer, seal_record};
use hypernet_core::segment::{Coded, Packer, Placement};

use crate::random::Random;

/// Someone who uploads.
pub(crate) struct Owner {
    pub(crate) keys: Arc<VolumeKeys>,
    signer: SigningKey,
    pub(crate) sequence: u64,
    /// The newest record that enough peers took.
    pub(crate) acknowledged: Option<Record>,
}

/// A segment, and what must come back of it.
pub(crate) struct Lot {
    pub(crate) owner: usize,
    pub(crate) coded: Option<Arc<Coded>>,
    pub(crate) contents: Vec<(ExtentRef, u32)>,
    pub(crate) plain: Vec<Bytes>,
    /// Once it was acknowledged.
    pub(crate) placement: Option<Arc<Placement>>,
    pub(crate) k: u8,
    pub(crate) n: u8,
    /// Shards of it that were made to rot.
    pub(crate) rotten: usize,
}

/// A command that has not ended.
pub(crate) struct Task {
    pub(crate) node: usize,
    pub(crate) started: u64,
    pub(crate) deadline: u64,
    pub(crate) kind: TaskKind,
    /// It has to succeed: the storm is over.
    pub(crate) must: bool,
}

/// What a command is about.
#[derive(Clone, Debug)]
pub(crate) enum TaskKind {
    Upload { lot: usize },
    Fetch { lot: usize, extents: Vec<usize> },
    Probe { lot: usize },
    Audit { lot: usize, rows: Vec<u8> },
    Publish { owner: usize, record: Record },
    Republish,
    Lookup { owner: usize },
}

/// Everything that is remembered.
pub(crate) struct Book {
    /// Stands in every plaintext, and nowhere else.
    pub(crate) marker: Vec<u8>,
    pub(crate) owners: Vec<Owner>,
    pub(crate) lots: Vec<Lot>,
    pub(crate) lot_of: BTreeMap<ShardId, usize>,
    pub(crate) tasks: BTreeMap<CommandId, Task>,
    pub(crate) next_command: u64,
    /// Lookups that nodes have under way.
    pub(crate) finding: BTreeMap<(usize, RequestId), RecordKey>,
}

impl Book {
    pub(crate) fn new(random: &mut Random, owners: usize) -> Self {
        let owners = (0..owners).map(|_| {
            let mut secret = || {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(&random.bytes(32));
                bytes
            };
            let (volume, signer) = (secret(), secret());
            let mut id = [0; 16];
            id.copy_from_slice(&volume[..16]);
            Owner {
                keys: Arc::new(VolumeKeys::new(VolumeId(id), 0, Secret::new(secret()))),
                signer: SigningKey::from_bytes(&signer),
                sequence: 0,
                acknowledged: None,
            }
        });
        let owners = owners.collect();
        Self {
            marker: random.bytes(16),
            owners,
            lots: Vec::new(),
            lot_of: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next_command: 1,
            finding: BTreeMap::new(),
        }
    }

    /// Makes a small segment with random contents; gives its number.
    pub(crate) fn make_lot(
        &mut self,
        random: &mut Random,
        owner: usize,
        (k, n, committed): (u8, u8, u8),
    ) -> Result<usize, String> {
        let keys = self.owners[owner].keys.clone();
        let sealer = Sealer::new(&keys);
        let mut packer = Packer::new(k);
        let (mut references, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..random.between(2, 10) {
            let mut bytes = self.marker.clone();
            let len = random.between(600, 12_000) as usize;
            if random.chance(2_000) {
                bytes.resize(len, 7);
                bytes.extend(random.bytes(8));
            } else {
                bytes.extend(random.bytes(len));
            }
            let sealed = sealer.seal(Kind::Content, &bytes).map_err(|error| error.to_string())?;
            references.push(sealed.reference.clone());
            plain.push(Bytes::from(bytes));
            if packer.add(sealed).map_err(|error| error.to_string())?.is_some() {
                return Err("a small segment overflowed".into());
            }
        }
        let packed = packer.finish().ok_or("an empty segment")?;
        let coded = packed.code(k, n, committed, &keys.padding()).map_err(|error| error.to_string())?;
        let contents = references.into_iter().zip(&coded.contents).map(|(extent, at)| (extent, at.offset)).collect();
        let lot = self.lots.len();
        self.lot_of.extend(coded.segment.rows.iter().map(|row| (*row, lot)));
        let coded = Some(Arc::new(coded));
        self.lots.push(Lot { owner, coded, contents, plain, placement: None, k, n, rotten: 0 });
        Ok(lot)
    }

    /// The next record of an owner.
    pub(crate) fn make_record(&mut self, random: &mut Random, owner: usize) -> Result<Record, String> {
        let marker = self.marker.clone();
        let owner = &mut self.owners[owner];
        owner.sequence += 1;
        let plain = [marker, random.bytes(200)].concat();
        let payload = seal_record(&owner.keys.head_key(), b"sim", owner.sequence, &plain);
        let payload = payload.map_err(|error| error.to_string())?;
        Record::sign(&owner.signer, owner.sequence, payload).map_err(|error| error.to_string())
    }

    /// Where an owner's records live.
    pub(crate) fn record_key(&self, owner: usize) -> RecordKey {
        hypernet_core::record::record_key(&self.owners[owner].signer.verifying_key().to_bytes())
    }
}
