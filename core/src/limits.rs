//! Every capacity in one place, related to one another at compile time.

/// Bytes in a kibibyte.
pub const KIB: usize = 1024;
/// Bytes in a mebibyte.
pub const MIB: usize = 1024 * KIB;

/// Content-defined chunking: no extent but a file's last is smaller.
pub const EXTENT_MIN: usize = 16 * KIB;
/// Content-defined chunking: the average that is aimed at.
pub const EXTENT_AVG: usize = 64 * KIB;
/// Content-defined chunking: no extent is larger.
pub const EXTENT_MAX: usize = 256 * KIB;
/// Files up to this size live inside their directory entry.
pub const INLINE_MAX: usize = 512;

/// Bytes that sealing adds: the Poly1305 tag.
pub const SEAL_OVERHEAD: usize = 16;
/// Plaintext of the largest sealed unit: an extent, a tree node, a catalog page or a manifest.
pub const SEALED_MAX: usize = 1024 * KIB;

/// A tree node aims at this many bytes.
pub const NODE_TARGET: usize = 4 * KIB;
/// A tree node is cut before it grows past this.
pub const NODE_MAX: usize = 256 * KIB;
/// No tree is deeper than this: a deeper one is malformed.
pub const TREE_DEPTH_MAX: usize = 16;

/// Payload of a full segment.
pub const SEGMENT_TARGET: usize = 10 * MIB;
/// Most extents in one segment: all of them stand in one page of the index.
pub const SEGMENT_EXTENTS_MAX: usize = 8_192;
/// Most rows a segment can have: the field is GF(2^8).
pub const ROWS_MAX: usize = 255;
/// Most rows that a plan places, so that the pages of a placement log keep to their length: 20 of them are data at 2.5
/// times.
pub const PLACED_MAX: usize = 50;
/// Largest shard a peer accepts.
pub const SHARD_MAX: usize = 4 * MIB;
/// Reads of shards are padded to this block, so that a holder sees fewer distinct lengths.
pub const READ_BLOCK: usize = 4 * KIB;
/// Bytes of a shard that an audit has its holder prove: a chunk, the least that BLAKE3's tree can.
pub const AUDIT_CHUNK: usize = KIB;
/// The longest proof of one: the chunk, and two hashes for each level of the tree of a shard.
pub const AUDIT_PROOF_MAX: usize = AUDIT_CHUNK + 64 * (SHARD_MAX / AUDIT_CHUNK).ilog2() as usize;
/// Audits of one peer that are answered at once: each reads a whole shard, so that few bytes asked cost many read.
pub const AUDITS_PER_PEER: usize = 4;
/// Extents up to this size never straddle two rows: a small read is one request to one peer.
pub const NO_STRADDLE_MAX: usize = 32 * KIB;

/// Sealed payload of a DHT record.
pub const RECORD_PAYLOAD_MAX: usize = 4 * KIB;
/// Sizes that sealed payloads of records are padded to: most heads and most rosters have the smallest.
pub const RECORD_SIZES: [usize; 2] = [2 * KIB, RECORD_PAYLOAD_MAX];
/// A whole encoded record.
pub const RECORD_MAX: usize = RECORD_PAYLOAD_MAX + 256;
/// Records one peer keeps for the mesh.
pub const RECORDS_HELD_MAX: usize = 4_096;
/// New records one sender may add to a peer per hour.
pub const RECORDS_PER_SENDER_HOUR: u32 = 1_024;
/// When there is not room for all, what one sender brought beyond so many goes before anybody else's.
pub const RECORDS_PER_SENDER_HELD: usize = 256;

/// Times one record may change in an hour, as one keeper sees it; more changes are refused.
pub const RECORD_CHANGES_HOUR: u32 = 3_600;
/// Whoever goes on bringing changes up to here floods.
pub const RECORD_CHANGES_FLOOD: u32 = 2 * RECORD_CHANGES_HOUR;
/// Heads that a device publishes in an hour: it paces itself, so that no keeper ever has a reason to refuse one.
pub const HEADS_HOUR: u32 = 1_800;
/// Heads that it may publish at once, beside those.
pub const HEADS_BURST: u32 = 600;
/// Times within one hour that it may have that burst whole: once, and again when its agent starts, which counts anew.
pub const HEADS_BURSTS: u32 = 3;
/// Peers that one record is handed to: Kademlia's k.
pub const RECORD_KEEPERS_MAX: usize = 20;
/// Records that one peer may ask to be told of when they change.
pub const WATCHES_PER_PEER: usize = 256;
/// Peers that are told of one record.
pub const WATCHERS_PER_RECORD: usize = 64;
/// All that peers want to be told of.
pub const WATCHES_HELD_MAX: usize = 16_384;
/// Records that an agent wants to be told of.
pub const WATCHED_MAX: usize = WATCHES_PER_PEER;
/// Records that are being handed to the peers closest to them.
pub const PUBLISHING_MAX: usize = 256;

/// Header of a wire message (everything but the raw body).
pub const WIRE_HEADER_MAX: usize = 16 * KIB;
/// Raw body of a wire message.
pub const WIRE_BODY_MAX: usize = SHARD_MAX;
/// Ids in one `Have` request.
pub const WIRE_IDS_MAX: usize = 256;
/// Custodians of one owner.
pub const CUSTODIANS_MAX: usize = 8;
/// Volumes, each as one device knows it, that one owner has a custodian look after.
pub const WARDS_MAX: usize = 96;
/// Rows that have moved in one page of a custodian's.
pub const MOVES_PER_PAGE: usize = 8_000;
/// Leases in one `Renew` or `Release` request.
pub const LEASES_AT_ONCE: usize = 1_000;

/// Requests under way to one peer.
pub const IN_FLIGHT_PER_PEER: usize = 8;
/// Bytes of shards on their way to all peers together. Of one peer a shard of the largest size may be, so that a few who take
/// nothing hold nobody else up.
pub const BODIES_IN_FLIGHT: usize = 4 * SHARD_MAX;
/// Requests from one peer that are being served.
pub const SERVING_PER_PEER: usize = 32;
/// Times in ten seconds that a peer may be told that this node is busy, before that counts against it.
pub const BUSY_ANSWERS_MAX: u32 = 1_024;
/// Bytes of shards waiting for peers in a node, beyond which no further segment is taken in.
pub const UPLOAD_WINDOW: usize = 64 * MIB;
/// Commands a node holds at once.
pub const COMMANDS_MAX: usize = 4_096;
/// Peers a node remembers.
pub const PEERS_MAX: usize = 16_384;
/// Peers of which a node is told whose they are.
pub const KNOWN_PEERS_MAX: usize = 4_096;
/// Peers of which a node is told how much they hold for it.
pub const HOLDING_PEERS_MAX: usize = 4_096;
/// Peers of which a donor keeps in mind how much they have brought because they store for it.
pub const RECIPROCALS_MAX: usize = HOLDING_PEERS_MAX;
/// Peers whose conduct is written down for the next start.
pub const STANDINGS_MAX: usize = 4_096;

/// Longest file name in bytes.
pub const NAME_MAX: usize = 255;
/// Longest symlink target in bytes.
pub const SYMLINK_MAX: usize = 4_095;
/// Longest extended attribute name.
pub const XATTR_NAME_MAX: usize = 255;
/// Longest extended attribute value.
pub const XATTR_VALUE_MAX: usize = 64 * KIB;
/// Longest access control list, as an extended attribute: more is not asked for by the kernel.
pub const ACL_MAX: usize = 4 * KIB;
/// All extended attributes of one inode.
pub const XATTRS_TOTAL_MAX: usize = 64 * KIB;

/// Devices in the version vector of a tree that is believed.
pub const VECTOR_MAX: usize = 4_096;
/// Nodes of one level of a tree that are read at once.
pub const TREE_NODES_AT_ONCE: usize = 1 << 20;
/// Items of a tree that are read at once.
pub const TREE_ITEMS_AT_ONCE: usize = 1 << 23;
/// Snapshots in the history of a volume, and names for them.
pub const HISTORY_MAX: usize = 1 << 16;
/// Snapshots that one follows.
pub const SNAPSHOT_PARENTS_MAX: usize = 16;
/// Bytes of the message of a snapshot.
pub const SNAPSHOT_MESSAGE_MAX: usize = 4 * KIB;
/// Bytes of the policy of a volume, as it is written down.
pub const POLICY_TEXT_MAX: usize = 256;
/// Snapshots that one keeps: as many are left for people.
pub const POLICY_KEPT_MAX: u64 = HISTORY_MAX as u64 / 2;
/// Bytes of the name of a tag or a branch.
pub const REVISION_NAME_MAX: usize = 128;
/// Directories that are compared with others at once.
pub const DIFF_DIRECTORIES_AT_ONCE: usize = 1 << 10;
/// Bytes of a file that is compared line by line, and merged.
pub const TEXT_MAX: usize = 4 * MIB;
/// Lines of such a file.
pub const TEXT_LINES_MAX: usize = 1 << 17;
/// Lines of it that are left when what two versions have in common for sure is cut off: they are what the time that it takes depends on.
pub const TEXT_COMPARED_MAX: usize = 1 << 16;
/// Directories of which one is in the other that a path is made of.
pub const PATH_DEPTH_MAX: usize = 1 << 12;
/// Bytes of one: what lies deeper is not looked for.
pub const PATH_MAX: usize = PATH_DEPTH_MAX * NAME_MAX;
/// Bytes of paths that are held at once: a small tree that is deep and wide has any number of them.
pub const PATHS_MAX: usize = 256 * MIB;
/// Second places of directories that are to have one in a tree; more than that are left out of a merge.
pub const SECOND_PLACES_MAX: usize = 1 << 6;
/// Names in these directories.
pub const SECOND_NAMES_MAX: u64 = 1 << 16;
/// Names of one tree that are looked at in a merge.
pub const MERGED_NAMES_MAX: usize = 1 << 22;
/// Trees that one is merged of.
pub const MERGED_MAX: usize = 64;

/// Devices in one roster: with the longest names and numbers that there are they fit into a record.
pub const DEVICES_MAX: usize = 28;
/// Devices up to which one enrols another: the room that is left is for the phrase.
pub const DEVICES_BY_DEVICES_MAX: usize = 24;
/// Longest name of a device in bytes.
pub const DEVICE_NAME_MAX: usize = 32;
/// Changes of a list of devices that are kept.
pub const ROSTER_ENTRIES_MAX: usize = 640;
/// Changes that count up to which devices make some: the room that is left is for the phrase.
pub const ROSTER_ENTRIES_BY_DEVICES_MAX: usize = 512;
/// Changes that one by a device follows.
pub const ROSTER_PREVIOUS_MAX: usize = 8;
/// Changes that one by the phrase follows.
pub const ROSTER_PREVIOUS_BY_PHRASE_MAX: usize = 64;
/// Devices of before that a list which begins anew names.
pub const ROSTER_BEFORE_MAX: usize = 128;
/// Eras of a list of devices whose ways are kept.
pub const ROSTER_ERAS_MAX: usize = 8;
/// A whole list of devices, with all its changes.
pub const ROSTER_MAX: usize = 512 * KIB;
/// The way to an era, sealed for all devices that there may be.
pub const WAY_MAX: usize = 6 * KIB;
/// What a device says of itself.
pub const BEACON_MAX: usize = 256 * KIB;
/// Bytes of a roster log and of the ways beside it.
pub const POSTING_MAX: usize = 1024 * KIB - KIB;
/// Peers that one device vouches for.
pub const PEERS_TOLD_MAX: usize = 4;
/// Those to whom a device tells them: its contacts, and its own identity.
pub const PEERS_TOLD_TO_MAX: usize = 1_024;
/// Identities that have a part in one volume.
pub const MEMBERS_MAX: usize = 2_048;
/// Signed changes of who may do what in one volume.
pub const MEMBER_CHANGES_MAX: usize = 2_048;
/// Of these, so many are for the owner alone, for removals and for an epoch that shuts out whom two have taken off at once: no
/// admin can fill the room in which they are taken off.
pub const MEMBER_CHANGES_KEPT: usize = 256;
/// Changes that one of them follows.
pub const MEMBERS_PREVIOUS_MAX: usize = 16;
/// Identities of which one change says something.
pub const CHANGED_MAX: usize = 1_024;
/// Devices of which a removal names a head that is taken.
pub const ACCEPTED_MAX: usize = 512;
/// Devices of which nobody knows whose they are and of which a removal says what is taken.
pub const TAKEN_MAX: usize = 256;
/// All of them, encoded.
pub const MEMBER_LOG_MAX: usize = 640 * KIB;
/// Of this, so much is for the owner alone, for the same.
pub const MEMBER_LOG_KEPT: usize = 128 * KIB;
/// How many numbers there are for an epoch: the first of them is the first above those of all that it follows.
pub const EPOCH_STEP_MAX: u32 = 64;
/// Epochs that members are told.
pub const EPOCHS_TOLD_MAX: usize = 64;
/// These, encoded.
pub const EPOCHS_MAX: usize = 4 * KIB;
/// What lies at the place of a share: the epochs sealed for all members, and the changes.
pub const SHARE_POSTING_MAX: usize = 1024 * KIB - KIB;
/// What is offered to one identity.
pub const OFFER_BOX_MAX: usize = 64 * KIB;
/// What one device offers to all.
pub const OFFERS_MAX: usize = 1024 * KIB - KIB;
/// Guardians of an identity's words.
pub const GUARDIANS_MAX: usize = 16;
/// What one of them is called, in bytes.
pub const GUARDIAN_NAME_MAX: usize = 64;
/// Sets of shares that are held apart while shares are gathered.
pub const SHARE_SETS_MAX: usize = 16;

/// Changes of a working tree that may wait for a commit; whoever makes more commits first.
pub const FS_PENDING_OPS_MAX: usize = 200_000;
/// Volumes that a working tree may have roots of.
pub const FS_VOLUMES_MAX: usize = 1024;
/// Inodes of a working tree kept in memory.
pub const FS_HOT_INODES_MAX: usize = 400_000;
/// Listings of directories kept for those who go on with them.
pub const FS_LISTINGS_MAX: usize = 32;
/// Backing files kept open at once.
pub const FS_OPEN_BACKING_MAX: usize = 8_192;
/// Up to this many backing files are flushed one by one before a commit; with more the whole disk is.
pub const FS_FLUSH_EACH_MAX: usize = 32;
/// Threads that wait for the network or the disk in place of those that serve the kernel.
pub const FS_WORKERS_MAX: usize = 32;
/// Requests that wait for such a thread.
pub const FS_WORK_QUEUE: usize = 4_096;
/// Files up to this size are fetched whole at the first miss.
pub const FETCH_WHOLE_MAX: usize = 4 * MIB;
/// Read-ahead of a remote file starts here.
pub const READAHEAD_MIN: usize = 256 * KIB;
/// Read-ahead of a remote file grows up to here.
pub const READAHEAD_MAX: usize = 16 * MIB;
/// One prefetch fetches at most this.
pub const PREFETCH_CHUNK: usize = 2 * MIB;
/// Threads that fetch ahead of readers.
pub const PREFETCH_THREADS: usize = 4;
/// Prefetches that wait for such a thread; more are dropped.
pub const PREFETCH_QUEUE: usize = 64;
/// Inode numbers are reserved durably this far ahead: more than can be given out between two commits.
pub const INO_RESERVE: u64 = 1 << 20;

const _: () = {
    assert!(EXTENT_MIN < EXTENT_AVG && EXTENT_AVG < EXTENT_MAX);
    assert!(EXTENT_MAX <= SEALED_MAX && NODE_MAX <= SEALED_MAX);
    assert!(SEALED_MAX + SEAL_OVERHEAD < SEGMENT_TARGET);
    assert!(SHARD_MAX <= WIRE_BODY_MAX);
    assert!(PLACED_MAX + PLACED_MAX / 2 <= ROWS_MAX);
    // What one takes at most, with every number as long as it gets.
    assert!(STANDINGS_MAX <= PEERS_MAX && STANDINGS_MAX * 400 < 2 * MIB);
    assert!(SHARD_MAX.is_multiple_of(READ_BLOCK));
    assert!((SHARD_MAX / AUDIT_CHUNK).is_power_of_two() && READ_BLOCK.is_multiple_of(AUDIT_CHUNK));
    assert!(AUDITS_PER_PEER < SERVING_PER_PEER && AUDITS_PER_PEER <= IN_FLIGHT_PER_PEER);
    assert!(XATTRS_TOTAL_MAX + SYMLINK_MAX + INLINE_MAX + 4 * KIB < NODE_MAX);
    assert!(HEADS_HOUR + HEADS_BURSTS * HEADS_BURST <= RECORD_CHANGES_HOUR);
    assert!(RECORD_CHANGES_HOUR < RECORD_CHANGES_FLOOD);
    assert!(RECORD_MAX <= WIRE_BODY_MAX);
    assert!(RECORDS_PER_SENDER_HELD * RECORD_KEEPERS_MAX > RECORDS_HELD_MAX);
    assert!(RECORD_SIZES[0] < RECORD_SIZES[1] && RECORD_SIZES[1] <= u16::MAX as usize);
    assert!(WIRE_IDS_MAX * 40 < WIRE_HEADER_MAX);
    assert!(FS_PENDING_OPS_MAX as u64 * 2 < INO_RESERVE);
    assert!(TEXT_COMPARED_MAX <= TEXT_LINES_MAX);
    assert!(READAHEAD_MIN <= PREFETCH_CHUNK && PREFETCH_CHUNK <= READAHEAD_MAX);
};

/// Commands waiting for the mesh.
pub const MESH_COMMANDS: usize = 256;
/// Events of the mesh that wait for their reader; beyond it peers are told to come back later.
pub const MESH_EVENTS: usize = 1_024;
/// Requests to peers whose outcome is open; more wait in the command queue.
pub const MESH_SENDS_MAX: usize = 4_096;
/// DHT queries under way; more wait in the command queue.
pub const MESH_QUERIES_MAX: usize = 256;
/// Requests of all peers together that are being served.
pub const MESH_SERVING_MAX: usize = 512;
/// Bodies of responses to one peer, from its request to their last byte: what a node has open that keeps to
/// [`IN_FLIGHT_PER_PEER`], so that only others are ever refused for it.
pub const MESH_RESPONSES_PER_PEER: usize = IN_FLIGHT_PER_PEER * WIRE_BODY_MAX;
/// Bodies of responses to all peers together.
pub const MESH_RESPONSES: usize = 128 * MIB;
/// Streams of the shard protocol on one connection, both directions together.
pub const MESH_STREAMS_PER_CONNECTION: usize = 2 * (IN_FLIGHT_PER_PEER + SERVING_PER_PEER);
/// Bodies that peers sent us and that nobody has finished with, in bytes; more are left in the peers' hands.
pub const MESH_INBOUND_BODIES: usize = 40 * MIB;
/// Those of one peer: what a node has under way that keeps to [`IN_FLIGHT_PER_PEER`], so that only others ever wait
/// for themselves.
pub const MESH_INBOUND_PER_PEER: usize = IN_FLIGHT_PER_PEER * WIRE_BODY_MAX;
/// A body is read into a buffer that starts at this size and grows only with what has arrived.
pub const MESH_BODY_STEP: usize = 64 * KIB;
/// Connected peers; beyond it the one that was idle longest is let go.
pub const MESH_PEERS_KEPT: usize = 512;
/// While fewer peers than this are connected, every one that is found is connected to.
pub const MESH_SMALL: usize = 64;
/// Established connections.
pub const MESH_CONNECTIONS_MAX: usize = 1_024;
/// Established connections to one peer.
pub const MESH_CONNECTIONS_PER_PEER: usize = 4;
/// Connections that are being made, per direction.
pub const MESH_CONNECTIONS_PENDING: usize = 128;
/// Peers remembered that could not be reached.
pub const MESH_ABSENT_MAX: usize = 1_024;
/// Addresses remembered of one peer.
pub const MESH_ADDRS_PER_PEER: usize = 8;
/// Connections that may come in at once from one subnet (a /24 of IPv4, a /56 of IPv6),
pub const MESH_INCOMING_BURST: u32 = 64;
/// and in a minute after that. Somebody who knocks more often is not let in until a minute has passed.
pub const MESH_INCOMING_PER_MINUTE: u32 = 60;
/// Times at once that one peer may have its addresses tried,
pub const MESH_TRIES_BURST: u32 = 8;
/// and in a minute after that.
pub const MESH_TRIES_PER_MINUTE: u32 = 6;
/// The same, of all peers together.
pub const MESH_TRIES_ALL_BURST: u32 = 64;
/// The same, of all peers together.
pub const MESH_TRIES_ALL_PER_MINUTE: u32 = 60;
/// Own addresses, as others see them, that are looked at.
pub const MESH_CANDIDATES_MAX: usize = 64;
/// Own addresses at which others can reach this node that are told.
pub const MESH_EXTERNAL_MAX: usize = 4;
/// Relays at which a node is to be met that nobody can reach otherwise.
pub const MESH_RELAYS_USED: usize = 2;
/// Peers for which a relay has a place at once,
pub const RELAY_RESERVATIONS_MAX: usize = 256;
/// and places of one of them.
pub const RELAY_RESERVATIONS_PER_PEER: usize = 2;
/// Circuits over one relay at once,
pub const RELAY_CIRCUITS_MAX: usize = 64;
/// and those of one peer.
pub const RELAY_CIRCUITS_PER_PEER: usize = 8;
/// Seconds after which a circuit ends.
pub const RELAY_CIRCUIT_SECONDS: u64 = 600;
/// Bytes after which a circuit ends, both directions together.
pub const RELAY_CIRCUIT_BYTES: u64 = 64 * MIB as u64;
/// Places and circuits that one peer may ask for at once,
pub const RELAY_ASKS_BURST: u32 = 16;
/// and how many seconds lie between those after that.
pub const RELAY_ASKS_EVERY_SECONDS: u64 = 20;
/// Distinct answers collected for one record.
pub const MESH_RECORD_ANSWERS_MAX: usize = 64;
/// Last records of one signer that are told of beside the one that is kept.
pub const RECORD_LASTS_MAX: usize = 7;

const _: () = {
    // Whoever takes all that one may leaves room for others.
    assert!(MESH_INBOUND_PER_PEER + 2 * WIRE_BODY_MAX <= MESH_INBOUND_BODIES);
    assert!(MESH_BODY_STEP <= WIRE_BODY_MAX);
    assert!(MESH_RESPONSES_PER_PEER * 2 <= MESH_RESPONSES);
    assert!(MESH_SMALL < MESH_PEERS_KEPT && MESH_PEERS_KEPT < MESH_CONNECTIONS_MAX);
    assert!(RELAY_RESERVATIONS_MAX < MESH_PEERS_KEPT, "who has a place at a relay stays connected to it");
    // Whoever meets over a relay can hand over what one may have under way.
    assert!(2 * (IN_FLIGHT_PER_PEER * WIRE_BODY_MAX) as u64 <= RELAY_CIRCUIT_BYTES);
};

/// Shards and records that wait to be written by a donor's store.
pub const STORE_WRITES_MAX: usize = 4_096;
/// Bytes of shards that wait to be written; beyond it the store says that it is busy.
pub const STORE_WRITE_BYTES_MAX: usize = 32 * MIB;
/// Reads of shards that wait for a thread of the store.
pub const STORE_READS_MAX: usize = 4_096;
/// Requests the store has turned away and not yet answered; each takes up a few words.
pub const STORE_REFUSALS_MAX: usize = 4_096;
/// Threads that read shards.
pub const STORE_READERS: usize = 2;
/// One commit of the store takes in at most this many bytes, so that the first put in it does not wait long.
pub const STORE_BATCH_BYTES: usize = 16 * MIB;
/// One commit of the store takes in at most this many operations.
pub const STORE_BATCH_OPS: usize = 1_024;
/// A pack file is closed when it would grow past this.
pub const PACK_MAX: u64 = 256 * MIB as u64;
/// Pack files kept open at once.
pub const PACKS_OPEN_MAX: usize = 64;
/// Ranges of shards are checked in units of this.
pub const SHARD_CHECK_BLOCK: usize = 64 * KIB;
/// Keys that may hold a lease of one shard.
pub const LEASES_PER_SHARD_MAX: usize = 64;
/// Records kept on disk: twice what a node holds, because expired ones leave the disk later than the node.
pub const RECORDS_STORED_MAX: usize = 2 * RECORDS_HELD_MAX;
/// Connections for reading that a database keeps open while nobody uses them.
pub const DB_READERS_IDLE_MAX: usize = 4;

const _: () = {
    assert!(SHARD_MAX <= STORE_BATCH_BYTES && STORE_BATCH_BYTES <= STORE_WRITE_BYTES_MAX);
    assert!(SHARD_MAX as u64 <= PACK_MAX && PACK_MAX <= u32::MAX as u64);
    assert!(SHARD_CHECK_BLOCK.is_multiple_of(READ_BLOCK));
};
