//! What clients ask for.

use super::*;

/// The first may do everything.
pub(super) const CLIENTS: usize = 3;
/// Open files, and open directories, of each client.
pub(super) const SLOTS: usize = 2;

/// A directory and a name in it.
pub(super) type Place = (usize, usize);

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) client: usize,
    pub(super) op: Op,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Open { place: Place, slot: usize, flags: i32 },
    Close(usize),
    Mkdir(Place, u32),
    Symlink(Place),
    Mkfifo(Place),
    Link(Place, Place),
    Unlink(Place),
    Rmdir(Place),
    Rename(Place, Place, RenameFlags),
    Write(usize, u32, u8, u8),
    Append(usize, u8, u8),
    Read(usize, u32, u16),
    Copy((usize, usize, u32), (usize, u32), u16),
    Seek(usize, u32, Whence),
    Fallocate(usize, u32, u16, i32),
    Fsync(usize, bool),
    Truncate(Place, u32),
    Chmod(Place, u32),
    Chown(Place, u32, u32),
    Utimes(Place, SetTime),
    SetXattr(Place, &'static str, u8, XattrFlags),
    RemoveXattr(Place, &'static str),
    OpenDir(usize, usize),
    ReadDir(usize, bool),
    CloseDir(usize),
    SyncDir(usize),
    Forget(usize),
    Restart,
    Kill,
    Power,
    Publish,
    Drop,
    Trim(u32),
    Evict,
    Recover,
}

fn any_op() -> impl Strategy<Value = Op> {
    let place = || (0..6usize, 0..NAMES.len());
    let slot = || 0..SLOTS;
    // Here and there past the extent that the mesh reads at once.
    let at = || prop_oneof![4 => 0..5_000u32, 1 => 60_000..70_000u32];
    let flags = (
        prop::sample::select(vec![libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]),
        prop::sample::select(vec![0, libc::O_CREAT, libc::O_CREAT, libc::O_CREAT | libc::O_EXCL]),
        prop::sample::select(vec![0, 0, 0, libc::O_TRUNC]),
    );
    let (keep, punch, zero) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE);
    let modes = move || prop::sample::select(vec![0, keep, punch | keep, zero, zero | keep, punch]);
    let xattr = || prop::sample::select(vec!["user.a", "user.b", "trusted.t", "security.capability"]);
    let xattr_flags = prop::sample::select(vec![XattrFlags::Set, XattrFlags::Create, XattrFlags::Replace]);
    let time = prop_oneof![
        Just(SetTime::Now),
        Just(SetTime::At(Timespec { seconds: 1_000_000_000, nanos: 123_456_789 })),
        Just(SetTime::At(Timespec { seconds: -5, nanos: 7 })),
    ];
    let bits = || prop::sample::select(vec![0o600, 0o644, 0o4755, 0o2755, 0o2644, 0o6777, 0o1777]);
    let files = prop_oneof![
        14 => (place(), slot(), flags).prop_map(|(place, slot, (access, make, cut))| {
            Op::Open { place, slot, flags: access | make | cut }
        }),
        4 => slot().prop_map(Op::Close),
        10 => (slot(), at(), any::<u8>(), any::<u8>()).prop_map(|(s, at, len, byte)| Op::Write(s, at, len, byte)),
        4 => (slot(), any::<u8>(), any::<u8>()).prop_map(|(s, len, byte)| Op::Append(s, len, byte)),
        6 => (slot(), at(), 0..9_000u16).prop_map(|(s, at, len)| Op::Read(s, at, len)),
        2 => ((0..CLIENTS, slot(), at()), (slot(), at()), 0..9_000u16).prop_map(|(a, b, len)| Op::Copy(a, b, len)),
        2 => (slot(), at(), prop::sample::select(vec![Whence::Data, Whence::Hole]))
            .prop_map(|(s, at, whence)| Op::Seek(s, at, whence)),
        3 => (slot(), at(), 0..9_000u16, modes()).prop_map(|(s, at, len, mode)| Op::Fallocate(s, at, len, mode)),
        2 => (slot(), any::<bool>()).prop_map(|(s, data_only)| Op::Fsync(s, data_only)),
        4 => (place(), at()).prop_map(|(place, size)| Op::Truncate(place, size)),
    ];
    let names = prop_oneof![
        5 => (place(), prop::sample::select(vec![0o755, 0o2755])).prop_map(|(place, mode)| Op::Mkdir(place, mode)),
        1 => place().prop_map(Op::Symlink),
        1 => place().prop_map(Op::Mkfifo),
        3 => (place(), place()).prop_map(|(a, b)| Op::Link(a, b)),
        4 => place().prop_map(Op::Unlink),
        2 => place().prop_map(Op::Rmdir),
        7 => (place(), place(), any_flags()).prop_map(|(a, b, flags)| Op::Rename(a, b, flags)),
        2 => (0..6usize, slot()).prop_map(|(dir, slot)| Op::OpenDir(dir, slot)),
        3 => (slot(), any::<bool>()).prop_map(|(slot, rewind)| Op::ReadDir(slot, rewind)),
        1 => slot().prop_map(Op::CloseDir),
        1 => (0..6usize).prop_map(Op::SyncDir),
    ];
    let attributes = prop_oneof![
        3 => (place(), bits()).prop_map(|(place, mode)| Op::Chmod(place, mode)),
        1 => (place(), 1..4u32, 1..4u32).prop_map(|(place, uid, gid)| Op::Chown(place, uid, gid)),
        2 => (place(), time).prop_map(|(place, time)| Op::Utimes(place, time)),
        4 => (place(), xattr(), any::<u8>(), xattr_flags).prop_map(|(p, name, len, flags)| {
            Op::SetXattr(p, name, len, flags)
        }),
        1 => (place(), xattr()).prop_map(|(place, name)| Op::RemoveXattr(place, name)),
    ];
    let events = prop_oneof![
        4 => (0..8usize).prop_map(Op::Forget),
        1 => Just(Op::Restart),
        1 => Just(Op::Kill),
        1 => Just(Op::Power),
        3 => Just(Op::Publish),
        2 => Just(Op::Drop),
        2 => (0..80_000u32).prop_map(Op::Trim),
        2 => Just(Op::Evict),
        1 => Just(Op::Recover),
    ];
    prop_oneof![10 => files, 7 => names, 3 => attributes, 4 => events]
}

pub(super) fn any_call() -> impl Strategy<Value = Call> {
    (0..CLIENTS, any_op()).prop_map(|(client, op)| Call { client, op })
}
