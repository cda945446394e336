//! Mounting and unmounting, and small questions about addresses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypernet_core::id::PeerId;
use hypernet_core::id::VolumeId;
use hypernet_fs::fuse::{self, MountHandle, MountOptions, Passthrough, Profile};
use hypernet_fs::past::Snapshots;
use hypernet_fs::tree::Tree;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::{Agent, Own};
use crate::config::{Config, Home};
use crate::failure::{Failure, Kind};
use crate::volumes::Reader;

/// A mount of this agent's volume.
pub(crate) struct Mounted {
    pub(crate) dir: PathBuf,
    handle: MountHandle,
    /// Why it is not in the faster of the two profiles.
    reason: Option<String>,
}

/// What can be told of it.
#[derive(Clone, Debug)]
pub(crate) struct MountView {
    pub(crate) dir: PathBuf,
    pub(crate) passthrough: bool,
    pub(crate) reason: Option<String>,
    /// The root of the tree that it shows, from the uppermost one.
    pub(crate) top: PathBuf,
}

impl Mounted {
    /// Why nothing is mounted, and nothing can be.
    fn out_of_sight(&self) -> String {
        format!(
            "what was mounted on {} was unmounted while programs used it, and they still do: nothing is mounted",
            self.dir.display()
        )
    }

    /// The root of the tree that it shows.
    pub(super) fn top(&self) -> u64 {
        self.handle.top()
    }

    /// Shows the tree with this root from now on. Blocks.
    pub(super) fn switch(&self, top: u64) -> Result<(), Failure> {
        self.handle.switch(top).map_err(|error| super::tree::of_tree(&error))
    }

    fn view(&self, own: &Own) -> MountView {
        MountView {
            top: own.place_of(self.top()),
            dir: self.dir.clone(),
            passthrough: self.handle.profile() == Profile::Passthrough,
            reason: self.reason.clone(),
        }
    }
}

/// Makes the directory itself and none above it: a path that was mistyped should not become a row of directories.
pub(super) fn make_mount_point(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir(dir).map_err(|error| match (error.kind(), dir.parent()) {
        (std::io::ErrorKind::NotFound, Some(parent)) if !parent.exists() => Failure::new(
            Kind::CantCreate,
            format!("cannot create {}: there is no directory {}", dir.display(), parent.display()),
        )
        .hint("make it first (`mkdir -p`), or mount where there is one: hn up --mount ~/hypernet"),
        _ => Failure::new(Kind::CantCreate, format!("cannot create {}: {error}", dir.display()))
            .hint("name a directory of your own: hn up --mount ~/hypernet"),
    })
}

/// Clears away the mount that an agent of this directory has left, unless it is alive. Returns where it was.
pub(crate) fn clear_left(home: &Home) -> Result<Option<PathBuf>, Failure> {
    let Some(dir) = Config::load(home)?.mount else { return Ok(None) };
    match fuse::clear_stale(&dir) {
        Ok(cleared) => Ok(Some(dir).filter(|_| cleared)),
        Err(error) => Err(Failure::new(
            Kind::TryAgain,
            format!("the mount of an agent that died stays on {}: {error}", dir.display()),
        )
        .hint("leave the directory in all shells, then try again")),
    }
}

impl Agent {
    /// Mounts the volume; a mount that died with an earlier agent is cleared away first. Blocks.
    pub(crate) fn mount(&self, dir: &Path, passthrough: bool) -> Result<MountView, Failure> {
        if self.config.lock().recovering {
            return Err(Failure::new(Kind::TryAgain, "the head of this volume has not been found yet")
                .hint("`hn recover` looks for it again"));
        }
        let own = self.own()?;
        let mut mounted = own.mount.lock();
        if let Some(there) = mounted.as_ref() {
            if there.handle.wait_for(std::time::Duration::ZERO) {
                *mounted = None; // somebody unmounted it from outside
            } else if !there.handle.is_in_sight() {
                return Err(Failure::new(Kind::TryAgain, there.out_of_sight()).hint(
                    "it can be mounted again when they have closed what they have open; `hn down` ends it at once",
                ));
            } else if there.dir == dir {
                return Ok(there.view(own));
            } else {
                return Err(Failure::new(Kind::CantCreate, format!("already mounted on {}", there.dir.display()))
                    .hint("`hn umount` first"));
            }
        }
        let failed = |error: fuse::MountError| Failure::new(Kind::CantCreate, error.to_string());
        fuse::clear_stale(dir).map_err(failed)?;
        if !dir.exists() {
            make_mount_point(dir)?;
        }
        let wanted = if passthrough { Passthrough::Auto } else { Passthrough::Off };
        let snapshots: Arc<dyn Snapshots> = Arc::new(Reader(own.volumes.clone()));
        let options = MountOptions { passthrough: wanted, ..MountOptions::default() };
        let shown = self.config.lock().shown.as_deref().and_then(VolumeId::from_hex);
        let tree = Tree::new(own.vfs.clone(), Some(snapshots), own.shown(shown));
        let handle = fuse::mount_tree(Arc::new(tree), own.kernels.clone(), dir, options).map_err(failed)?;
        let reason = match (handle.profile(), passthrough) {
            (Profile::Passthrough, _) => None,
            (Profile::Writeback, false) => Some("passthrough was switched off".to_owned()),
            (Profile::Writeback, true) => {
                Some("passthrough needs root (CAP_SYS_ADMIN) and Linux 6.9 or newer".to_owned())
            }
        };
        let made = Mounted { dir: handle.dir().to_owned(), handle, reason };
        let view = made.view(own);
        *mounted = Some(made);
        drop(mounted);
        let mut config = self.config.lock();
        if config.mount.as_ref() != Some(&view.dir) {
            config.mount = Some(view.dir.clone());
            config.save(&self.home)?;
        }
        Ok(view)
    }

    /// Clears away what an agent that died left mounted where this one is not to mount.
    pub(super) async fn clear_last_mount(&self, dir: Option<&Path>) {
        let last = self.config.lock().mount.clone();
        let Some(last) = last.filter(|last| self.with_volume().is_some() && Some(last.as_path()) != dir) else {
            return;
        };
        match super::blocking(move || fuse::clear_stale(&last).map(|cleared| (last, cleared))).await {
            Ok(Ok((last, true))) => {
                tracing::info!(dir = %last.display(), "the mount of an agent that died is cleared away")
            }
            Ok(Ok((_, false))) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the mount of an agent that died stays"),
            Err(failure) => tracing::warn!(%failure, "the mount of an agent that died stays"),
        }
    }

    /// Unmounts what is mounted there, or all. Blocks.
    pub(crate) fn unmount_at(&self, dir: Option<&Path>) -> Result<(), Failure> {
        let side = self.unmount_sides(dir)?;
        let is_main = |dir: &Path| self.mount_view().is_some_and(|view| view.dir == dir);
        match dir {
            Some(dir) if !side && !is_main(dir) => {
                Err(Failure::new(Kind::Usage, format!("nothing of this agent is mounted on {}", dir.display()))
                    .hint("`hn status` shows what is mounted, and where"))
            }
            Some(_) if side => Ok(()),
            _ => self.unmount(),
        }
    }

    /// Unmounts. Blocks.
    pub(crate) fn unmount(&self) -> Result<(), Failure> {
        let Some(own) = self.with_volume() else { return Ok(()) };
        let mut mounted = own.mount.lock();
        if let Some(there) = mounted.as_ref() {
            there.handle.unmount().map_err(|error| {
                Failure::new(Kind::TryAgain, format!("cannot unmount {}: {error}", there.dir.display()))
                    .hint("leave the directory in all shells and close its files, then try again")
            })?;
            *mounted = None;
        }
        Ok(())
    }

    /// Unmounts whatever the users of the mount do; true when none is left. Those that are left get ENOTCONN, but what
    /// they have open in passthrough they can still write to.
    pub(super) fn unmount_at_exit(&self) -> bool {
        let sides = self.unmount_sides(None);
        let Err(failure) = sides.and_then(|_| self.unmount()) else { return true };
        tracing::warn!(%failure, "the mount is in use: it is detached, and the next start looks for what was written");
        if let Some(own) = self.with_volume() {
            if let Err(error) = own.vfs.flush_kernel() {
                tracing::error!(%error, "the kernel could not write all that programs have written");
            }
            for side in own.sides.lock().drain(..) {
                side.detach();
            }
            if let Some(there) = own.mount.lock().take()
                && let Err(error) = there.handle.detach()
            {
                tracing::warn!(%error, "the mount stays until its users let go of it");
            }
        }
        false
    }

    /// What is mounted now.
    pub(crate) fn mount_view(&self) -> Option<MountView> {
        let own = self.with_volume()?;
        let mounted = own.mount.lock();
        mounted.as_ref().filter(|there| there.handle.is_in_sight()).map(|there| there.view(own))
    }

    /// What is to be known of a mount that nobody finds any more and that lives on all the same.
    pub(crate) fn hidden_mount(&self) -> Option<String> {
        let own = self.with_volume()?;
        let mounted = own.mount.lock();
        let lives = |there: &&Mounted| !there.handle.wait_for(std::time::Duration::ZERO);
        mounted.as_ref().filter(lives).filter(|there| !there.handle.is_in_sight()).map(Mounted::out_of_sight)
    }
}

/// Whether a multiaddress ends in a peer's name.
pub(crate) fn names_a_peer(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::P2p(_)))
}

/// The peer that a multiaddress ends in.
pub(crate) fn peer_named(addr: &Multiaddr) -> Option<PeerId> {
    // Over a relay there are two, and the last one is the one that is meant.
    let peer = addr.iter().filter_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).last()?;
    // Ids of Ed25519 keys are the key itself.
    let key = libp2p::identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    Some(PeerId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The address with the port left to the kernel.
pub(crate) fn without_port(addr: &str) -> String {
    let Ok(parsed) = addr.parse::<Multiaddr>() else { return addr.to_owned() };
    parsed
        .iter()
        .map(|part| match part {
            Protocol::Udp(_) => Protocol::Udp(0),
            Protocol::Tcp(_) => Protocol::Tcp(0),
            other => other,
        })
        .collect::<Multiaddr>()
        .to_string()
}

fn port(addr: &Multiaddr) -> Option<(bool, u16)> {
    addr.iter().find_map(|part| match part {
        Protocol::Udp(port) => Some((true, port)),
        Protocol::Tcp(port) => Some((false, port)),
        _ => None,
    })
}

fn is_ip4(addr: &Multiaddr) -> bool {
    matches!(addr.iter().next(), Some(Protocol::Ip4(_)))
}

/// The listen addresses of the configuration, with the ports that the kernel gave: a wildcard address stays one.
pub(crate) fn keep_ports(configured: &[String], listening: &[Multiaddr]) -> Vec<String> {
    configured
        .iter()
        .map(|text| {
            let Ok(addr) = text.parse::<Multiaddr>() else { return text.clone() };
            let Some((is_udp, 0)) = port(&addr) else { return text.clone() };
            let given = listening
                .iter()
                .filter(|real| is_ip4(real) == is_ip4(&addr))
                .filter_map(port)
                .find(|(udp, _)| *udp == is_udp);
            match given {
                Some((_, given)) => addr
                    .iter()
                    .map(|part| match part {
                        Protocol::Udp(_) => Protocol::Udp(given),
                        Protocol::Tcp(_) => Protocol::Tcp(given),
                        other => other,
                    })
                    .collect::<Multiaddr>()
                    .to_string(),
                None => text.clone(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_kernel_are_kept() {
        let configured = ["/ip4/0.0.0.0/udp/0/quic-v1".to_owned(), "/ip4/0.0.0.0/tcp/0".to_owned()];
        let listening: Vec<Multiaddr> =
            vec!["/ip4/127.0.0.1/tcp/5".parse().unwrap(), "/ip4/127.0.0.1/udp/6/quic-v1".parse().unwrap()];
        let kept = keep_ports(&configured, &listening);
        assert_eq!(kept, ["/ip4/0.0.0.0/udp/6/quic-v1", "/ip4/0.0.0.0/tcp/5"]);
        assert_eq!(without_port(&kept[0]), configured[0]);
        assert_eq!(keep_ports(&kept, &[]), kept);
    }
}
