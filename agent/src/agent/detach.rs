//! Taking what was attached out of the tree again.
//!
//! Only what is all on the mesh goes, so that attaching it anew brings all of it back; what is kept of the volume beside the
//! tree stays. Other devices of this identity let it go when they move on to a tree without it, and know by the keystore that
//! somebody meant that.

use std::time::{Duration, Instant};

use hypernet_core::id::VolumeId;
use hypernet_core::share::members::Role;
use hypernet_core::time::Hlc;
use hypernet_fs::vfs::{ROOT, Rooted, VfsError};
use hypernet_sdk::api;
use os_display::Quotable;

use super::tree::of_tree;
use super::{Agent, Own, port_failure};
use crate::failure::{Failure, Kind};
use crate::share::hearing::Ask;
use crate::share::kept::{Left, Share};
use crate::volume::recover::clock;
use crate::volume::state;

/// A sync that is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(100);
/// The kernel tells of a file that was closed after the program goes on.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);
/// Open files that are named.
const NAMED_MAX: usize = 3;

impl Agent {
    /// Takes the volume whose root this is out of the tree; `discard`: also with what is only here. Blocks.
    pub(crate) fn detach(&self, ino: u64, discard: bool) -> Result<api::ShareInfo, Failure> {
        let own = self.own_tree()?;
        let (rooted, share) = own.attached_at(ino)?;
        let all: Vec<Rooted> = std::iter::once(rooted).chain(own.vfs.volumes_below([rooted.volume])).collect();
        all.iter().try_for_each(|one| own.may_detach(one, discard))?;
        // What the watcher and the sync have under way would have it back.
        all.iter().for_each(|one| own.engines.end(one.volume));
        let left = own.set_left(rooted.volume, true).and_then(|()| own.let_go(rooted.volume, discard));
        if let Err(failure) = left {
            own.set_left(rooted.volume, false)?;
            for one in all.iter().filter(|one| !one.is_vacant) {
                own.start_engine(own.volumes.of(one.volume).map_err(port_failure)?)?;
            }
            return Err(failure);
        }
        for one in all.iter().filter(|_| discard) {
            // Where it is attached again, they would wait for a head that nobody takes, and nothing be moved on to.
            own.volumes.of(one.volume).and_then(|volume| volume.discard_edits()).map_err(port_failure)?;
        }
        all.iter().for_each(|one| own.volumes.close(one.volume));
        // The other devices of this identity go on from here only when they know that somebody meant it.
        self.keep_on_the_mesh()?;
        match share {
            Some(share) => own.share_info(&share),
            None => Ok(nameless(rooted.volume)),
        }
    }
}

/// A volume of which nothing is known but its number.
fn nameless(volume: VolumeId) -> api::ShareInfo {
    api::ShareInfo {
        volume: volume.to_string(),
        name: format!("volume {}", volume.short()),
        path: None,
        role: None,
        by_link: false,
        members: Vec::new(),
        links: Vec::new(),
        made: None,
        epoch: 0,
        rekeying: false,
        forks: Vec::new(),
    }
}

impl Own {
    /// What was attached there; or named there, by somebody who may write in what this identity shares.
    fn attached_at(&self, ino: u64) -> Result<(Rooted, Option<Share>), Failure> {
        let usage = |what: &str| Failure::new(Kind::Usage, what.to_owned());
        if ino == ROOT {
            return Err(
                usage("the whole tree is not detached").hint("name a directory in it; `hn umount` unmounts the tree")
            );
        }
        let keystore = self.volume.identity.keystore().keystore();
        let all = self.vfs.volumes();
        let rooted = all.iter().copied().find(|rooted| rooted.ino == ino);
        let share = rooted.and_then(|rooted| keystore.share(rooted.volume).cloned());
        let above = rooted.and_then(|rooted| all.iter().copied().find(|other| Some(other.volume) == rooted.above));
        let above = above.filter(|above| keystore.share(above.volume).is_some());
        // Whoever shares the one above says what has a place in it; nobody else takes that from the others.
        let is_owner = |volume: VolumeId| self.volumes.of(volume).is_ok_and(|one| one.role() == Some(Role::Owner));
        let is_ours = above.is_some_and(|above| is_owner(above.volume));
        let is_known = |rooted: &Rooted| share.is_some() || is_ours && !keystore.volumes.contains(&rooted.volume);
        let Some(rooted) = rooted.filter(is_known) else {
            return Err(usage("nothing was attached there").hint("`hn shares` shows what is, and where"));
        };
        if let Some(above) = above.filter(|_| !is_ours) {
            let path = self.vfs.path(above.ino).map_err(|error| of_tree(&error))?;
            return Err(usage("it has its place in another shared directory, and others would find it gone, too")
                .hint(format!("`hn detach` of {} takes both out of your tree", path.quote())));
        }
        // Whether anything of it is this identity's still.
        let volume = self.volumes.of(rooted.volume).map_err(port_failure)?;
        if let Err(error) = volume.hear(Ask::Places) {
            tracing::debug!(%error, "who has a part in what is to be detached is not heard now");
        }
        Ok((rooted, share))
    }

    /// An error where it is this identity's to look after, or something in it is only here, or in use.
    fn may_detach(&self, rooted: &Rooted, discard: bool) -> Result<(), Failure> {
        let path = || self.vfs.path(rooted.ino).map_err(|error| of_tree(&error));
        if let Some(share) = self.volume.identity.keystore().keystore().share(rooted.volume) {
            let role = self.volumes.of(rooted.volume).map_err(port_failure)?.role();
            if role == Some(Role::Owner) {
                let text = format!("{} is yours, and you share it: it stays where it is", path()?.quote());
                return Err(Failure::new(Kind::Usage, text)
                    .hint("`hn unshare DIR --with NAME` and `hn unshare DIR --all-links` take it back from others"));
            }
            // Nobody else ends them, and nobody would look whether one is to end.
            if role >= Some(Role::Admin) && share.open_links().next().is_some() {
                let text = format!("there are links to {} that you have made", path()?.quote());
                return Err(Failure::new(Kind::Usage, text)
                    .hint("`hn unshare DIR --all-links` takes them back; then it can be detached"));
            }
        }
        let pending = self.vfs.pending(rooted.volume).files;
        if self.volumes.of(rooted.volume).map_err(port_failure)?.has_edits() && !discard {
            return Err(Failure::new(Kind::TryAgain, "snapshots of it were taken that are not on the mesh yet")
                .hint("`hn sync` first; where that is refused, `hn detach --discard` gives them up"));
        }
        if pending > 0 && !discard {
            return Err(Failure::new(Kind::TryAgain, format!("{pending} changed files in it are not synced")).hint(
                "`hn sync` first; where that is refused, copy what you have written to a directory of your own, and give \
                 up the rest with `hn detach --discard`",
            ));
        }
        let until = Instant::now() + CLOSES_WITHIN;
        let open = loop {
            let open = self.vfs.open_in(rooted.volume).map_err(|error| of_tree(&error))?;
            if open.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                break open;
            }
            std::thread::sleep(AGAIN);
        };
        let mut names: Vec<String> = open.iter().take(NAMED_MAX).map(|path| path.quote().to_string()).collect();
        if open.len() > NAMED_MAX {
            names.push(format!("and {} more", open.len() - NAMED_MAX));
        }
        Err(Failure::new(Kind::TryAgain, format!("in use by a program: {}", names.join(", "))).hint("close it first"))
    }

    fn let_go(&self, volume: VolumeId, discard: bool) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.vfs.set_leaving(self.vfs.volumes_below([volume]).iter().map(|one| one.volume));
            match self.vfs.detach(volume, discard) {
                Err(VfsError::Busy) if Instant::now() < until => std::thread::sleep(AGAIN),
                Err(VfsError::Busy) => {
                    return Err(Failure::new(Kind::TryAgain, "something in it is in use, or being uploaded")
                        .hint("try again when no program uses it and `hn status` says that nothing is uploaded"));
                }
                other => return other.map_err(|error| of_tree(&error)),
            }
        }
    }

    /// What this device has published of volumes that are out of the tree, or that nobody has entered yet, is found all the
    /// same: whoever shares them need not have seen it.
    pub(super) fn tell_of_shares(&self) -> Result<(), Failure> {
        let identity = &self.volume.identity;
        for share in identity.keystore().keystore().shares {
            let db = self.volume.db.of(share.volume).map_err(|error| port_failure(error.into()))?;
            let last = state::last_signers(&db).map_err(port_failure)?;
            if !last.is_empty() {
                identity.tell(share.volume, last);
            }
        }
        Ok(())
    }

    /// Notes in the keystore whether a volume is out of the tree.
    pub(super) fn set_left(&self, volume: VolumeId, is_out: bool) -> Result<(), Failure> {
        self.volume.identity.keystore().change(|keystore| {
            keystore.change_share(volume, |share| {
                if share.left.is_out != is_out {
                    share.left = Left { changed: clock(share.left.changed.max(Hlc::default())), is_out };
                }
            });
        })
    }
}
