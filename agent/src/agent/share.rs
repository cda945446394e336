//! Sharing directories with other people, taking that back, and what others share.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hypernet_core::id::{FileId, IdentityId, VolumeId};
use hypernet_core::identity::log::Device;
use hypernet_core::share::bearer::Bearer;
use hypernet_core::share::members::{Member, MembersError, Refused, Role};
use hypernet_core::share::offer::{Offer, is_name};
use hypernet_core::time::Hlc;
use hypernet_core::tree::FileKind;
use hypernet_fs::vfs::{Caller, ROOT, Rooted, VfsError};
use hypernet_sdk::api;
use os_display::Quotable;

use super::people::contact_failure;
use super::tree::{not_shared, of_tree};
use super::{Agent, Own, port_failure};
use crate::failure::{Failure, Kind};
use crate::people::contact::Contact;
use crate::people::{self, Contacts};
use crate::share::circle::Circle;
use crate::share::granting::{Guest, ShareError};
use crate::share::hearing::{Ask, Known};
use crate::share::kept::{Made, Share};
use crate::share::links;
use crate::share::offers::Offered;
use crate::volume::heads::when;
use crate::volume::recover::clock;
use crate::volume::{Volume, state};

/// How long a directory that was shared is waited for to be on the mesh.
const UPLOADED_WITHIN: Duration = Duration::from_secs(3);
/// Digits of a volume's number that name it.
const NUMBER_MIN: usize = 8;

fn share_failure(error: ShareError) -> Failure {
    let failure = |kind| Failure::new(kind, error.to_string());
    match error {
        ShareError::Port(error) => port_failure(error),
        ShareError::Disk(failure) => failure,
        ShareError::Contact(error) => contact_failure(error),
        ShareError::Members(MembersError::Refused(refused)) => {
            let hint = match refused {
                Refused::Stranger | Refused::Admins | Refused::Owner => "ask its owner, whom `hn share DIR` shows",
                Refused::Device => "`hn recover` in an empty HN_HOME makes another device of this identity",
                Refused::Less => "`hn unshare DIR --with NAME` first, then share it for less",
                Refused::Unknown => "`hn share DIR` shows who has a part in it",
                Refused::Long => "name fewer at once",
                Refused::Number => "another device has changed it meanwhile: try again",
                Refused::Crowded | Refused::Epoch => "`hn share DIR` shows who has a part in it; take somebody off",
            };
            failure(Kind::Permission).hint(hint)
        }
        ShareError::Members(_) => failure(Kind::Data).hint("share what is in it as another directory"),
        ShareError::NotShared => failure(Kind::Usage).hint("`hn share DIR --with NAME` shares it"),
        ShareError::Full => failure(Kind::CantCreate),
        ShareError::Link(_) => failure(Kind::Usage).hint("`hn share DIR` shows the links to it"),
        ShareError::Ended => failure(Kind::NoInput).hint("ask whoever gave it to you for another one"),
        ShareError::Unknown(_) => failure(Kind::Usage).hint("`hn shares` shows what is offered"),
        ShareError::Name(_) => failure(Kind::Data).hint(
            "nothing was attached: whoever sent it means harm, or has a program that is broken; ask them for another one",
        ),
        ShareError::Attached(_) => failure(Kind::Usage).hint("to attach it by another link, `hn detach` it first"),
    }
}

fn role_of(role: api::ShareRole) -> Role {
    match role {
        api::ShareRole::Reader => Role::Reader,
        api::ShareRole::Writer => Role::Writer,
        api::ShareRole::Admin => Role::Admin,
        api::ShareRole::Owner => Role::Owner,
    }
}

fn role_info(role: Role) -> api::ShareRole {
    match role {
        Role::Reader => api::ShareRole::Reader,
        Role::Writer => api::ShareRole::Writer,
        Role::Admin => api::ShareRole::Admin,
        Role::Owner => api::ShareRole::Owner,
    }
}

fn until_info(millis: u64) -> String {
    when(Hlc { millis, counter: 0 })
}

/// The links of which somebody is the bearer who has a part in a volume, as far as they are known here.
fn bearers(share: &Share) -> BTreeMap<IdentityId, String> {
    let made = share.links.iter().map(Made::link).chain(share.by.iter().map(|by| by.link));
    made.map(|link| (Bearer::of(&link).id(), links::text(&link))).collect()
}

fn member_info(
    member: &Member,
    me: IdentityId,
    contacts: &[Contact],
    bearers: &BTreeMap<IdentityId, String>,
) -> api::MemberInfo {
    let contact = contacts.iter().find(|contact| contact.identity == member.identity);
    api::MemberInfo {
        name: contact.map(|contact| contact.name.clone()),
        identity: member.identity.to_string(),
        role: role_info(member.role),
        you: member.identity == me,
        verified: contact.is_some_and(|contact| contact.is_verified),
        is_link: member.is_link,
        link: bearers.get(&member.identity).cloned(),
    }
}

/// What can be attached.
enum Attachable {
    /// Somebody offers it.
    Offered(Offered),
    /// It was attached before, or by another device.
    Kept(Share),
}

impl Attachable {
    fn volume(&self) -> VolumeId {
        match self {
            Self::Offered(offered) => offered.offer.volume,
            Self::Kept(share) => share.volume,
        }
    }
}

impl Own {
    fn contacts(&self) -> Contacts {
        Contacts::of(self.volume.identity.keystore())
    }

    /// A volume that others have a part in, as far as this device has heard. Nothing is opened for it.
    pub(super) fn share_info(&self, share: &Share) -> Result<api::ShareInfo, Failure> {
        let identity = &self.volume.identity;
        let db = self.volume.db.of(share.volume).map_err(|error| port_failure(error.into()))?;
        // What is known of one that is closed cannot be read, and of the others all is shown.
        let is_closed = self.closed.lock().contains_key(&share.volume);
        let circle = if is_closed { None } else { Circle::load(&db, share.volume).map_err(port_failure)? };
        let members = circle.map(|circle| circle.members(&identity.roster()));
        let (me, contacts) = (identity.id(), self.contacts().list());
        let rooted = self.vfs.volumes().into_iter().find(|rooted| rooted.volume == share.volume);
        let role = match rooted.filter(|rooted| !rooted.is_vacant && !is_closed) {
            Some(_) => self.volumes.of(share.volume).map_err(port_failure)?.role(),
            None => members
                .as_ref()
                .and_then(|members| members.role(&me).max(share.role_by_links(members, links::now())))
                .or((!share.by.is_empty()).then_some(Role::Reader)),
        };
        let is_granted = members.as_ref().is_some_and(|members| members.role(&me).is_some());
        let bearers = bearers(share);
        let all = members.iter().flat_map(|members| members.members.values());
        let forks = members.iter().flat_map(|members| &members.forks);
        Ok(api::ShareInfo {
            volume: share.volume.to_string(),
            name: share.name.clone(),
            path: rooted.map(|rooted| self.vfs.path(rooted.ino)).transpose().map_err(|error| of_tree(&error))?,
            role: role.map(role_info),
            by_link: !share.by.is_empty() && !is_granted,
            members: all
                .map(|member| member_info(member, me, &contacts, &bearers))
                // Whoever finds that it was taken off is not told of that by those who did it.
                .filter(|member| !member.you || role.is_some())
                .collect(),
            links: share
                .open_links()
                .map(|made| api::LinkInfo {
                    link: links::text(&made.link()),
                    until: made.until.map(until_info),
                    role: role_info(made.role),
                })
                .collect(),
            made: None,
            epoch: members.as_ref().and_then(|members| members.epoch).map_or(0, |epoch| epoch.number),
            rekeying: state::is_rekeying(&db).map_err(port_failure)?,
            forks: forks.map(|author| author.device.to_string()).collect(),
        })
    }

    fn known_share(&self, volume: &Volume) -> Result<api::ShareInfo, Failure> {
        self.share_info(&volume.share().ok_or_else(|| share_failure(ShareError::NotShared))?)
    }

    /// Whether whoever a directory is shared with would find all that is in it.
    fn may_be_shared(&self, ino: u64) -> Result<(), Failure> {
        let path = |ino: u64| self.vfs.path(ino).map_err(|error| of_tree(&error));
        let top = path(ino)?;
        if self.vfs.getattr(ino).map_err(|error| of_tree(&error))?.kind != FileKind::Directory {
            return Err(Failure::new(Kind::Usage, format!("{} is not a directory", top.display()))
                .hint("put it into a directory, and share that"));
        }
        for rooted in self.vfs.volumes() {
            let inner = path(rooted.ino)?;
            if rooted.ino != ino && inner.starts_with(&top) {
                let text = format!("{} is a volume of its own, which nobody else would find there", inner.display());
                return Err(Failure::new(Kind::Usage, text).hint("share it by itself, from outside of this directory"));
            }
        }
        Ok(())
    }

    /// Of a volume that nobody has entered on this device nothing could be published, and others would find nothing.
    fn find_root(&self, rooted: &Rooted) -> Result<(), Failure> {
        if !rooted.is_vacant {
            return Ok(());
        }
        self.vfs.readdir(rooted.ino, 0).map(drop).map_err(|error| {
            let text = format!("nothing of this volume is found now, so others would find nothing in it: {error}");
            Failure::new(Kind::Unavailable, text)
                .hint("`hn peers` shows who is there; try again when you can look into the directory")
        })
    }

    /// The volume whose root this is.
    fn rooted_at(&self, ino: u64) -> Result<Option<Arc<Volume>>, Failure> {
        let rooted = self.vfs.volumes().into_iter().find(|rooted| rooted.ino == ino);
        rooted.map(|rooted| self.volumes.of(rooted.volume).map_err(port_failure)).transpose()
    }

    fn shared_at(&self, ino: u64) -> Result<Arc<Volume>, Failure> {
        let volume = self.rooted_at(ino)?.filter(|volume| volume.share().is_some());
        volume.ok_or_else(|| share_failure(ShareError::NotShared))
    }

    /// Looks up all of these; the first who is not found is told.
    fn guests(&self, names: &[String]) -> Result<Vec<Guest>, Failure> {
        let contacts = self.contacts();
        let found = names.iter().map(|name| contacts.get(name)).collect::<Result<Vec<_>, _>>();
        let mut all: Vec<Contact> = found.map_err(contact_failure)?;
        all.sort_by_key(|contact| contact.identity);
        all.dedup_by_key(|contact| contact.identity);
        let find = |contact: &Contact| Guest::find(&self.volume, contact.clone());
        people::for_each(&all, Duration::MAX, find).into_iter().map(|found| found.map_err(port_failure)).collect()
    }

    /// What this identity may do in a volume decides whether anything can be changed in it here.
    pub(super) fn set_rights(&self, volume: &Volume) {
        let may_not = volume.share().is_some() && volume.may_write().is_err();
        self.vfs.set_read_only(volume.id, may_not);
    }
}

/// An error where snapshots were taken of what was not shared: whoever gets a part in it would have them all.
fn has_no_past(volume: &Volume) -> Result<(), Failure> {
    let kept = volume.history().map_err(port_failure)?.kept.len();
    if kept == 0 {
        return Ok(());
    }
    let text =
        format!("of this directory {kept} snapshots are kept, and whoever it is shared with would have those, too");
    Err(Failure::new(Kind::Usage, text).hint(
        "`hn snap prune SNAPSHOT… --of DIR` lets go of them (`hn branch NAME --of DIR` keeps them for yourself before that), or \
         share another directory and copy into that what is to be shared",
    ))
}

/// The identities that a person means, among those who have a part in a volume: contacts, or by what is shown of them.
fn members_named(own: &Own, known: &Known, names: &[String]) -> Result<Vec<IdentityId>, Failure> {
    let contacts = own.contacts();
    let named = |name: &String| -> Result<IdentityId, Failure> {
        let unknown = match contacts.get(name) {
            Ok(contact) => return Ok(contact.identity),
            Err(error) => contact_failure(error),
        };
        let begins = |identity: &&IdentityId| name.len() >= NUMBER_MIN && identity.to_string().starts_with(name);
        let mut all = known.members.members.keys().filter(begins);
        match (all.next(), all.next()) {
            (Some(identity), None) => Ok(*identity),
            (Some(_), Some(_)) => {
                Err(Failure::new(Kind::Usage, format!("several who have a part in it begin by {name}"))
                    .hint("give more digits: `hn share DIR --json` has all of them"))
            }
            (None, _) => Err(unknown),
        }
    };
    names.iter().map(named).collect()
}

impl Agent {
    pub(super) fn own_tree(&self) -> Result<&Own, Failure> {
        if self.config.lock().recovering {
            return Err(Failure::new(Kind::TryAgain, "the head of this volume has not been found yet")
                .hint("`hn recover` looks again"));
        }
        self.own()
    }

    /// Who has a part in a directory. Blocks.
    pub(crate) fn share_at(&self, ino: u64) -> Result<api::ShareInfo, Failure> {
        let own = self.own_tree()?;
        let volume = own.shared_at(ino)?;
        if let Err(error) = volume.hear(Ask::All) {
            tracing::warn!(%error, "who has a part in a volume is shown as it was heard last");
        }
        own.set_rights(&volume);
        own.known_share(&volume)
    }

    /// Shares a directory: with contacts, by a link, or so far with nobody. Blocks.
    pub(crate) fn share(&self, ino: u64, request: &api::ShareRequest) -> Result<api::ShareInfo, Failure> {
        let own = self.own_tree()?;
        if ino == ROOT {
            return Err(Failure::new(Kind::Usage, "the whole tree is not shared")
                .hint("name a directory in it: it becomes a volume of its own, where it is"));
        }
        own.may_be_shared(ino)?;
        let guests = own.guests(&request.with)?;
        let name = own.vfs.path(ino).map_err(|error| of_tree(&error))?;
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_name(&name) {
            return Err(Failure::new(Kind::Usage, "this directory has a name that cannot be shown to others")
                .hint("rename it: control characters and signs that turn the direction of writing are not allowed"));
        }
        let volume = match own.rooted_at(ino)? {
            Some(volume) => volume,
            None => {
                self.make_volume(ino)?;
                own.rooted_at(ino)?.ok_or_else(|| Failure::new(Kind::System, "the new volume is gone already"))?
            }
        };
        let rooted = own.vfs.volumes().into_iter().find(|rooted| rooted.volume == volume.id);
        let rooted = rooted.ok_or_else(|| Failure::new(Kind::System, "the volume is gone already"))?;
        if volume.share().is_none() {
            own.find_root(&rooted)?;
            has_no_past(&volume)?;
            // Another device may have done so.
            if let Err(error) = volume.identity.look() {
                tracing::warn!(%error, "whether another device shares this volume already is not known");
            }
            volume.begin_share(rooted.id, &name).map_err(share_failure)?;
            // Whoever it is shared with finds nothing that was published before.
            own.vfs.mark_changed(volume.id).map_err(|error| of_tree(&error))?;
        }
        volume.grant(guests, role_of(request.role)).map_err(share_failure)?;
        let mut made = None;
        if request.link {
            let ends = |seconds: u64| clock(Hlc::default()).millis.saturating_add(seconds.saturating_mul(1000));
            let role = role_of(request.link_role).min(Role::Writer);
            let link = volume.make_link(role, request.link_seconds.map(ends)).map_err(share_failure)?;
            made = Some(links::text(&link));
        }
        self.told_all(own)?;
        // Whoever takes it at once is to find it. It is shared all the same when a donor keeps the upload waiting.
        if let Some(Some(Err(error))) = own.engine_of(volume.id).map(|engine| engine.sync_within(UPLOADED_WITHIN)) {
            tracing::warn!(%error, "a volume is shared, and nobody finds what is in it before it is uploaded");
        }
        Ok(api::ShareInfo { made, ..own.known_share(&volume)? })
    }

    /// Takes back what was shared. Blocks.
    pub(crate) fn unshare(&self, ino: u64, request: &api::UnshareRequest) -> Result<api::ShareInfo, Failure> {
        let own = self.own_tree()?;
        let volume = own.shared_at(ino)?;
        let known = volume.known_share().ok_or_else(|| share_failure(ShareError::NotShared))?;
        if !request.with.is_empty() {
            let gone = members_named(own, &known, &request.with)?;
            volume.remove(&gone).map_err(share_failure)?;
        }
        let over = request.links.iter().map(|text| links::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if request.all_links {
            volume.take_all_back().map_err(share_failure)?;
        } else {
            over.iter().try_for_each(|link| volume.take_back(link)).map_err(share_failure)?;
        }
        if request.rekey {
            if request.with.is_empty() {
                volume.rotate().map_err(share_failure)?;
            }
            volume.begin_rekey().map_err(port_failure)?;
        }
        // The next head is sealed in the new epoch, also when nothing is written.
        own.vfs.mark_changed(volume.id).map_err(|error| of_tree(&error))?;
        self.told_all(own)?;
        own.known_share(&volume)
    }

    /// What has changed is to be on the mesh. Where it cannot now, the agent does it later.
    fn told_all(&self, own: &Own) -> Result<(), Failure> {
        if let Err(error) = own.volume.put_offers() {
            tracing::warn!(%error, "what is offered to others is not on the mesh yet");
        }
        self.keep_on_the_mesh()
    }

    /// What a device that is to leave the list has said of who may do what is to count as before. An error where that is for this
    /// identity to see to, and cannot be done now: what it has granted would be nobody's any more, and nobody would be told.
    pub(super) fn vouch_for(&self, own: &Own, device: &Device) -> Result<(), Failure> {
        for share in own.volume.identity.keystore().keystore().shares {
            let is_admin = |volume: &Arc<Volume>| {
                let known = volume.known_share();
                let role = known.and_then(|known| known.members.role(&volume.identity.id()));
                role.map_or(share.is_own, |role| role >= Role::Admin)
            };
            let volume = own.volumes.of(share.volume);
            let is_ours = volume.as_ref().map_or(share.is_own, is_admin);
            let Err(error) = volume.map_err(Into::into).and_then(|volume| volume.vouch_for(&device.id)) else {
                continue;
            };
            if is_ours {
                let failure = share_failure(error);
                let text = format!(
                    "what {} has said of who may do what in {} would count no more, and cannot be vouched for now: {}",
                    device.name.maybe_quote(),
                    share.name.quote(),
                    failure.message
                );
                return Err(Failure::new(failure.kind, text).hint(
                    "nothing was changed: try again later; --force takes it off all the same, and `hn share DIR --with NAME` \
                     brings back those who are gone then",
                ));
            }
            tracing::warn!(%error, volume = %share.volume.short(), "what a device said of a volume is not vouched for");
        }
        Ok(())
    }

    /// A device of this identity is off its list: it has no part in what comes after in any volume that this one is to look
    /// after. Where the mesh is not to be reached now, each volume is looked after when it is.
    pub(super) fn tend_shares(&self, own: &Own) {
        for share in own.volume.identity.keystore().keystore().shares {
            let tend = |volume: Arc<Volume>| volume.tend().inspect_err(|_| volume.confirm_again());
            let tended = own.volumes.of(share.volume).and_then(tend);
            if let Err(error) = tended {
                tracing::warn!(%error, volume = %share.volume.short(), "the keys of a volume are changed later");
            }
        }
        if let Err(failure) = self.told_all(own) {
            tracing::warn!(%failure, "what has changed is not on the mesh yet");
        }
    }

    /// All that is shared by this identity or with it. Blocks.
    pub(crate) fn shares(&self) -> Result<api::SharesInfo, Failure> {
        let own = self.own_tree()?;
        let kept = own.volume.identity.keystore().keystore().shares;
        let (offers, missing) = own.volume.offers();
        let shares = kept.iter().map(|share| own.share_info(share)).collect::<Result<Vec<_>, _>>()?;
        let attached = |volume: VolumeId| {
            let volume = volume.to_string();
            shares.iter().any(|share| share.volume == volume && share.path.is_some())
        };
        // What has a name in common with another one is named by its number.
        let share = |offered: &Offered| match offers.iter().filter(|other| other.name() == offered.name()).count() {
            1 => offered.name(),
            _ => offered.offer.volume.to_string(),
        };
        let offer = |offered: &Offered| api::OfferInfo {
            share: share(offered),
            name: offered.offer.name.clone(),
            volume: offered.offer.volume.to_string(),
            by: offered.by.name.clone(),
            verified: offered.by.is_verified,
            role: role_info(offered.offer.role),
            attached: attached(offered.offer.volume),
        };
        let offers = offers.iter().filter(|offered| offered.offer.is_sound()).map(offer).collect();
        let missing = missing.into_iter().map(|(name, error)| api::MissingContact { name, why: error.to_string() });
        Ok(api::SharesInfo { offers, missing: missing.collect(), shares })
    }

    /// Puts a volume of somebody else into the tree, in a directory that is there. Blocks.
    pub(crate) fn attach(&self, parent: u64, name: &OsStr, share: &str) -> Result<api::ShareInfo, Failure> {
        let own = self.own_tree()?;
        let above = own.vfs.volume_of(parent).map_err(|error| of_tree(&error))?;
        not_shared(&*own.volumes.of(above).map_err(port_failure)?)?;
        let (volume, taken) = match links::is_link(share) {
            true => {
                let link = links::parse(share)?;
                let linked = own.volume.follow_link(&link).map_err(share_failure)?;
                let volume = self.not_attached(own, linked.offer.volume)?;
                let taken = volume.accept_link(link, linked);
                (volume, taken)
            }
            false => match own.attachable(share)? {
                Attachable::Offered(offered) => {
                    let volume = self.not_attached(own, offered.offer.volume)?;
                    let taken = volume.accept(offered.offer);
                    (volume, taken)
                }
                Attachable::Kept(known) => (self.not_attached(own, known.volume)?, Ok(known)),
            },
        };
        let taken = taken.inspect_err(|_| own.volumes.close(volume.id)).map_err(share_failure)?;
        if !own.volume.identity.keystore().change(|keystore| keystore.add_volume(volume.id))? {
            return Err(Failure::new(Kind::Config, "this identity has as many volumes as it can have"));
        }
        own.set_rights(&volume);
        let was_left =
            own.volume.identity.keystore().keystore().share(volume.id).is_some_and(|share| share.left.is_out);
        own.set_left(volume.id, false)?;
        if own.vfs.volumes().iter().any(|rooted| rooted.volume == volume.id) {
            // It has its place in another one that was attached before.
            self.keep_on_the_mesh()?;
            return own.known_share(&volume);
        }
        let caller =
            Caller { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw(), umask: 0o022 };
        let attached = own.vfs.attach(caller, parent, name.as_bytes(), volume.id, taken.root);
        if attached.is_err() && was_left {
            own.set_left(volume.id, true)?;
        }
        attached.map_err(|error| match error {
            VfsError::Exists => {
                Failure::new(Kind::CantCreate, format!("there is something called {} already", name.display()))
                    .hint("attach it by another name")
            }
            other => of_tree(&other),
        })?;
        self.keep_on_the_mesh()?;
        own.known_share(&volume)
    }

    /// A volume that is to be attached. One that has a place in the tree, in another one, and of which nothing was taken yet is
    /// not.
    fn not_attached(&self, own: &Own, volume: VolumeId) -> Result<Arc<Volume>, Failure> {
        // Before anything is kept of it: what is sealed for one of them would be looked for in the other.
        if let Some(other) = own.volume.identity.keystore().keystore().taken_for(volume) {
            let text =
                format!("the numbers of two volumes are taken for one another: {volume}, and {other}, which you have");
            return Err(Failure::new(Kind::Data, text).hint(
                "nobody gets such numbers by chance: whoever made the later one means ill. It is not attached; who shares the other one \
                 can share what is in it as another directory",
            ));
        }
        let found = || own.volumes.of(volume).map_err(port_failure);
        let Some(share) = own.volume.identity.keystore().keystore().share(volume).cloned() else { return found() };
        if let Some(rooted) = own.vfs.volumes().into_iter().find(|rooted| rooted.volume == volume) {
            let path = own.vfs.path(rooted.ino).map_err(|error| of_tree(&error))?;
            return Err(share_failure(ShareError::Attached(path.display().to_string())));
        }
        let found = found()?;
        if found.role().is_none()
            && let Err(error) = found.hear(Ask::Places)
        {
            tracing::debug!(%error, "who has a part in what is to be attached is not heard now");
        }
        // What somebody else shares is no directory of this tree.
        if found.role().is_none_or(|role| role == Role::Owner)
            && let Some(path) = own.directory_of(share.root)?
        {
            own.volumes.close(volume);
            // In another place what is changed in the directory here would be taken for seen by it.
            return Err(Failure::new(
                Kind::Usage,
                format!("it was shared by a device of yours where it is: as {} it is in your tree already", path.quote()),
            )
            .hint(
                "`hn sync` takes in here that it is shared. If the device that has shared it is gone for good, copy what is in the \
                 directory elsewhere, remove it, and `hn sync`; then attach it",
            ));
        }
        Ok(found)
    }
}

impl Own {
    /// Where the directory with this id is, in any volume of the tree that is this identity's and that something is here of.
    fn directory_of(&self, id: FileId) -> Result<Option<PathBuf>, Failure> {
        for rooted in self.vfs.volumes().into_iter().filter(|rooted| !rooted.is_vacant) {
            let volume = self.volumes.of(rooted.volume).map_err(port_failure)?;
            if volume.share().is_some() && volume.role() != Some(Role::Owner) {
                continue;
            }
            if let Some(path) = volume.find_directory(id).map_err(port_failure)? {
                return Ok(Some(self.vfs.path(rooted.ino).map_err(|error| of_tree(&error))?.join(path)));
            }
        }
        Ok(None)
    }

    /// What is meant by a name: what a contact offers (`anna/photos`), the name alone where only one is called so, of what is
    /// offered and of what was attached before, or the number of a volume.
    fn attachable(&self, share: &str) -> Result<Attachable, Failure> {
        let contacts = self.contacts();
        let by = Path::new(share).components().next().and_then(|first| first.as_os_str().to_str());
        // Whoever is named is asked alone.
        let (all, missing) = match by.map(|by| contacts.get(by)) {
            Some(Ok(contact)) => match self.volume.offered_by(&contact) {
                Ok(all) => (all, Vec::new()),
                Err(error) => (Vec::new(), vec![(contact.name, error)]),
            },
            _ => self.volume.offers(),
        };
        let is_number = |volume: VolumeId| share.len() >= NUMBER_MIN && volume.to_string().starts_with(share);
        let mut so: Vec<&Offered> =
            all.iter().filter(|offered| offered.name() == share || is_number(offered.offer.volume)).collect();
        // Several may offer the same one; who only says so names another beginning.
        let which = |offer: &Offer| (offer.volume, offer.begin, offer.root);
        so.sort_by_key(|offered| which(&offered.offer));
        so.dedup_by_key(|offered| which(&offered.offer));
        match so[..] {
            [found] => return Ok(Attachable::Offered(found.clone())),
            [] => {}
            _ => {
                return Err(Failure::new(Kind::Usage, format!("{share} is the name of several"))
                    .hint("attach one by its number, or as CONTACT/NAME: `hn shares` shows both"));
            }
        }
        let mut offered: Vec<&Offered> = all.iter().filter(|offered| offered.offer.name == share).collect();
        offered.sort_by_key(|offered| which(&offered.offer));
        offered.dedup_by_key(|offered| which(&offered.offer));
        let mut called: Vec<Attachable> = offered.into_iter().cloned().map(Attachable::Offered).collect();
        for kept in self.volume.identity.keystore().keystore().shares {
            let is_offered = called.iter().any(|one| one.volume() == kept.volume);
            if !is_offered && (kept.name == share || is_number(kept.volume)) {
                called.push(Attachable::Kept(kept));
            }
        }
        // What is attached is hardly meant where something else is called so.
        let there = self.vfs.volumes();
        let is_there = |one: &Attachable| there.iter().any(|rooted| rooted.volume == one.volume());
        if !called.iter().all(is_there) {
            called.retain(|one| !is_there(one));
        }
        match (called.pop(), called.len()) {
            (Some(found), 0) => Ok(found),
            (Some(last), _) => {
                let numbers: Vec<String> = called.iter().chain([&last]).map(|one| one.volume().to_string()).collect();
                Err(Failure::new(Kind::Usage, format!("several directories are called {share}")).hint(format!(
                    "attach one by its number ({}), or as CONTACT/NAME: `hn shares` shows them",
                    numbers.join(", ")
                )))
            }
            // Whoever was away when it was asked what they offer has nothing to do with what is known already.
            (None, _) => Err(match missing.into_iter().next() {
                Some((name, error)) => port_failure(error).hint(format!("{name} is not found now: try again later")),
                None => share_failure(ShareError::Unknown(share.to_owned())),
            }),
        }
    }
}
