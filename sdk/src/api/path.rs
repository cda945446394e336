//! Paths of the API.

/// `GET`: [`Status`](super::Status).
pub const STATUS: &str = "/v1/status";
/// `GET`: list of [`PeerInfo`](super::PeerInfo).
pub const PEERS: &str = "/v1/peers";
/// `POST`: stream of [`DonorsEvent`](super::DonorsEvent).
pub const DONORS: &str = "/v1/donors";
/// `POST`: stream of [`SyncEvent`](super::SyncEvent).
pub const SYNC: &str = "/v1/sync";
/// `POST`: holds the background upload back, or lets it go.
pub const HOLD: &str = "/v1/hold";
/// `POST`: [`Mounted`](super::Mounted).
pub const MOUNT: &str = "/v1/mount";
/// `POST`: unmounts.
pub const UMOUNT: &str = "/v1/umount";
/// `POST`: stream of [`CacheDropEvent`](super::CacheDropEvent).
pub const CACHE_DROP: &str = "/v1/cache/drop";
/// `POST`: [`Health`](super::Health).
pub const HEALTH: &str = "/v1/health";
/// `POST`: stream of [`FsckEvent`](super::FsckEvent).
pub const FSCK: &str = "/v1/fsck";
/// `POST`: [`Invite`](super::Invite).
pub const INVITE: &str = "/v1/invite";
/// `POST`: stream of [`RecoverEvent`](super::RecoverEvent).
pub const RECOVER: &str = "/v1/recover";
/// `GET`: list of [`DeviceInfo`](super::DeviceInfo).
pub const DEVICES: &str = "/v1/devices";
/// `POST`: [`DeviceRevoked`](super::DeviceRevoked).
pub const DEVICE_REVOKE: &str = "/v1/devices/revoke";
/// `POST`: [`DeviceRenewed`](super::DeviceRenewed).
pub const DEVICE_RENEW: &str = "/v1/devices/renew";
/// `POST`: stream of [`PairEvent`](super::PairEvent); a code is shown, and whoever enters it is enrolled.
pub const DEVICES_ADD: &str = "/v1/devices/add";
/// `POST`: stream of [`PairEvent`](super::PairEvent); by the code that a device of the identity shows.
pub const DEVICES_JOIN: &str = "/v1/devices/join";
/// `GET`: [`IdInfo`](super::IdInfo).
pub const ID: &str = "/v1/id";
/// `GET`: list of [`ContactInfo`](super::ContactInfo).
pub const CONTACTS: &str = "/v1/contacts";
/// `POST`: [`ContactInfo`](super::ContactInfo).
pub const CONTACTS_ADD: &str = "/v1/contacts/add";
/// `POST`: [`ContactInfo`](super::ContactInfo).
pub const CONTACTS_REMOVE: &str = "/v1/contacts/remove";
/// `POST`: stream of [`PairEvent`](super::PairEvent).
pub const CONTACTS_VERIFY: &str = "/v1/contacts/verify";
/// `GET`: [`GuardiansList`](super::GuardiansList).
pub const GUARDIANS: &str = "/v1/guardians";
/// `POST`: [`GuardiansInfo`](super::GuardiansInfo).
pub const GUARDIANS_SET: &str = "/v1/guardians/set";
/// `POST`: [`GuardiansCleared`](super::GuardiansCleared).
pub const GUARDIANS_CLEAR: &str = "/v1/guardians/clear";
/// `POST`: stream of [`PairEvent`](super::PairEvent); by the code that the one who recovers shows.
pub const GUARDIANS_HELP: &str = "/v1/guardians/help";
/// `GET`: [`Gathered`](super::Gathered).
pub const RECOVER_SHARES: &str = "/v1/recover/shares";
/// `POST`: stream of [`PairEvent`](super::PairEvent); a code is shown, and a guardian enters it.
pub const RECOVER_GATHER: &str = "/v1/recover/gather";
/// `POST`: [`Words`](super::Words).
pub const RECOVER_WORDS: &str = "/v1/recover/words";
/// `POST`: answers a [`PairEvent::Compare`](super::PairEvent::Compare).
pub const COMPARED: &str = "/v1/compared";
/// `GET`: list of [`VolumeInfo`](super::VolumeInfo).
pub const VOLUMES: &str = "/v1/volumes";
/// `POST`: [`VolumeInfo`](super::VolumeInfo).
pub const VOLUMES_MAKE: &str = "/v1/volumes/make";
/// `GET`: [`Custodians`](super::Custodians).
pub const CUSTODIANS: &str = "/v1/custodians";
/// `POST`: [`CustodianInfo`](super::CustodianInfo).
pub const CUSTODIANS_ADD: &str = "/v1/custodians/add";
/// `POST`: [`CustodianInfo`](super::CustodianInfo).
pub const CUSTODIANS_REMOVE: &str = "/v1/custodians/remove";
/// `POST`: [`CustodyOffer`](super::CustodyOffer).
pub const CUSTODIANS_OFFER: &str = "/v1/custodians/offer";
/// `POST`: [`ServedTicket`](super::ServedTicket).
pub const CUSTODIANS_WITHDRAW: &str = "/v1/custodians/withdraw";
/// `POST`: a list of [`GcVolume`](super::GcVolume).
pub const GC: &str = "/v1/gc";
/// What is given to others (GET), and giving more or less (POST).
pub const DONATE: &str = "/v1/donate";
/// `GET`: [`SharesInfo`](super::SharesInfo).
pub const SHARES: &str = "/v1/shares";
/// `POST`: [`ShareInfo`](super::ShareInfo).
pub const SHARE: &str = "/v1/share";
/// `POST`: [`ShareInfo`](super::ShareInfo); nothing is changed.
pub const SHARE_SHOW: &str = "/v1/share/show";
/// `POST`: [`ShareInfo`](super::ShareInfo).
pub const UNSHARE: &str = "/v1/unshare";
/// `POST`: [`ShareInfo`](super::ShareInfo).
pub const ATTACH: &str = "/v1/attach";
/// See [`DetachRequest`](super::DetachRequest).
pub const DETACH: &str = "/v1/detach";
/// `POST`: [`KeystoreSealed`](super::KeystoreSealed).
pub const KEYSTORE_SEAL: &str = "/v1/keystore/seal";
/// `POST`: stops the agent.
pub const DOWN: &str = "/v1/down";
/// `POST`: [`Snapped`](super::Snapped).
pub const SNAP: &str = "/v1/snap";
/// `POST`: list of [`SnapshotInfo`](super::SnapshotInfo).
pub const SNAP_LOG: &str = "/v1/snap/log";
/// `POST`: [`Shown`](super::Shown).
pub const SNAP_SHOW: &str = "/v1/snap/show";
/// `POST`: [`Verified`](super::Verified).
pub const SNAP_VERIFY: &str = "/v1/snap/verify";
/// `POST`: list of [`ChangeInfo`](super::ChangeInfo).
pub const SNAP_DIFF: &str = "/v1/snap/diff";
/// `POST`: stream of [`HunksEvent`](super::HunksEvent).
pub const SNAP_HUNKS: &str = "/v1/snap/hunks";
/// `POST`: list of [`TagInfo`](super::TagInfo).
pub const SNAP_TAG: &str = "/v1/snap/tag";
/// `POST`: [`Pruned`](super::Pruned).
pub const SNAP_PRUNE: &str = "/v1/snap/prune";
/// Branches: GET.
pub const BRANCHES: &str = "/v1/branches";
/// Making one: POST.
pub const BRANCH: &str = "/v1/branch";
/// Letting go of one: POST.
pub const BRANCH_DROP: &str = "/v1/branch/drop";
/// Showing one in the main mount: POST.
pub const SWITCH: &str = "/v1/switch";
/// Merging one: POST.
pub const MERGE: &str = "/v1/merge";
/// `POST`: list of [`ConflictInfo`](super::ConflictInfo).
pub const CONFLICTS: &str = "/v1/conflicts";
/// `POST`: [`Resolved`](super::Resolved).
pub const RESOLVE: &str = "/v1/conflicts/resolve";
/// `POST`: [`PolicyState`](super::PolicyState).
pub const SNAP_POLICY: &str = "/v1/snap/policy";
