//! The longer operations: the list of devices, checking.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::codec;
use hypernet_core::id::{DeviceId, VolumeId};
use hypernet_core::identity::log::Device;
use hypernet_core::node::{Command, Outcome};
use hypernet_core::port::PortError;
use hypernet_core::segment::Placement;
use hypernet_sdk::api;
use os_display::Quotable;

use super::recovery::{keys_of, other_head};
use super::{Agent, Own, blocking, port_failure, store_failure};
use crate::failure::{Failure, Kind};
use crate::keystore::{KeystoreFile, Unlock};
use crate::status::head_status;
use crate::volume::devices::{Listed, RevokeError, Revoked};
use crate::volume::heads::{sequence_of, when};
use crate::volume::reach::Seen;
use crate::volume::sync::Engine;
use crate::volume::{Volume, state};

/// Segments asked for at the same time.
const PROBES: u32 = 16;
/// Problems up to which what the index does not know is listed by name: when all of it is lost that is every file.
const REACH_PROBLEMS_MAX: usize = 1_000;
/// Milliseconds in which the holders of a segment must have answered.
const PROBE_WITHIN: u64 = 15_000;

/// How long a device stays on the list for what it has published to be taken in before.
const TAKES_IN_WITHIN: Duration = Duration::from_secs(5);

/// Volumes in which a device publishes that is to leave the list, and that nobody has entered on this one: this one is to stand on
/// something there, too.
fn enter_with(own: &Own, device: &Device) {
    let until = Instant::now() + TAKES_IN_WITHIN;
    let identity = &own.volume.identity;
    let publishes = |volume: VolumeId| !identity.head_signers(&device.id, &identity.all_keys(volume)).is_empty();
    for rooted in own.vfs.volumes().into_iter().filter(|one| one.is_vacant && publishes(one.volume)) {
        if Instant::now() < until
            && let Err(error) = own.vfs.readdir(rooted.ino, 0)
        {
            tracing::warn!(%error, volume = %rooted.volume.short(), "what another device has published is not found yet");
        }
    }
}

/// Where what a device that is to leave the list has published is part of what this one stands on, and no device that stays has
/// published that, this one does: what leads there is to be this identity's own, and not that of somebody else, who may be
/// taken off tomorrow. What takes longer than that goes on all the same.
fn publish_beside(own: &Own, device: &Device) {
    enter_with(own, device);
    let until = Instant::now() + TAKES_IN_WITHIN;
    let sync = |engine: &Engine| {
        let synced = engine.sync_within(until.saturating_duration_since(Instant::now()));
        synced.unwrap_or_else(|| Err(PortError::Deadline("it takes too long to be waited for".into())))
    };
    let roster = own.volume.identity.roster();
    let stays = |id: &DeviceId| *id != device.id && roster.device(id).is_some();
    let is_to_be = |volume: Arc<Volume>| {
        let Some(latest) = state::latest(&volume.db)? else { return Ok(false) };
        let has_part = sequence_of(&latest.root.vector, &device.id, volume.id) > 0;
        // Who may only read publishes nothing.
        Ok(has_part && !stays(&latest.head.device) && volume.may_write().is_ok())
    };
    // Who holds uploads back has nothing uploaded by this.
    for engine in own.engines().iter().filter(|engine| !engine.is_held()) {
        // What it has published just now is to be here first.
        if let Err(error) = sync(engine) {
            tracing::warn!(%error, "what another device has published is not taken in yet");
        }
        let published = own.volumes.of(engine.volume()).and_then(is_to_be).and_then(|is_to_be| {
            if !is_to_be {
                return Ok(());
            }
            own.vfs.mark_changed(engine.volume()).map_err(|error| PortError::Disk(error.to_string()))?;
            sync(engine).map(drop)
        });
        if let Err(error) = published {
            tracing::warn!(%error, "what another device has published is not published by this one yet");
        }
    }
}

fn not_the_words(text: &str) -> Failure {
    Failure::new(Kind::Usage, text).hint("look at the paper again; nothing was changed")
}

fn named(device: &Device) -> api::NamedDevice {
    api::NamedDevice { name: device.name.clone(), id: device.id.to_string() }
}

impl Agent {
    pub(crate) fn own(&self) -> Result<&Own, Failure> {
        self.with_volume().ok_or_else(|| match self.config.lock().storage_only {
            true => Failure::new(Kind::Config, "this agent only stores for others: it has no volume"),
            false => Failure::new(Kind::TryAgain, "the identity of this agent has not been found yet")
                .hint("`hn recover` looks for it"),
        })
    }

    /// Has something else open the keystore, or that which is to be found. Blocks.
    pub(crate) fn seal_keystore(&self, request: &api::SealRequest) -> Result<api::KeystoreSealed, Failure> {
        let unlock = match (request.by, &request.new) {
            (api::SealedBy::Passphrase, Some(new)) => crate::unlock_with(new)?,
            (api::SealedBy::Passphrase, None) => {
                return Err(Failure::new(Kind::Usage, "the new passphrase is not given"));
            }
            (api::SealedBy::KeyFile, _) => Unlock::KeyFile,
            (api::SealedBy::Keyring, _) => Unlock::Keyring,
        };
        let path = self.home.keystore();
        if self.config.lock().recovering && self.with_volume().is_none() && !path.exists() {
            let keystore = api::KeystoreStatus { sealed_by: unlock.sealed_by(), path };
            *self.unlock.lock() = unlock;
            return Ok(api::KeystoreSealed { keystore, warning: None });
        }
        let file = self.own()?.volume.identity.keystore();
        if file.unlocked_by() == api::SealedBy::Passphrase {
            // Open as it is, the one at the keyboard need not be the one who knows the passphrase.
            let old = request.old.as_ref().ok_or_else(|| {
                Failure::new(Kind::Permission, "the passphrase that opens the keystore now is not given")
            })?;
            KeystoreFile::load(&path, &crate::unlock_with(old)?)?;
        }
        crate::setup::reseal(file, &self.home, &unlock)
    }

    /// The devices of the identity. Blocks.
    pub(crate) fn devices(&self) -> Result<Vec<api::DeviceInfo>, Failure> {
        let listed = self.own()?.volume.devices().map_err(port_failure)?;
        let info = |listed: Listed| api::DeviceInfo {
            name: listed.device.name,
            id: listed.device.id.to_string(),
            enrolled: when(listed.enrolled),
            head: listed.head.map(|head| head_status(&head)),
            this: listed.is_this,
            here: listed.is_here,
        };
        Ok(listed.into_iter().map(info).collect())
    }

    /// Takes a device off the list. Blocks.
    pub(crate) fn revoke_device(&self, request: &api::RevokeDeviceRequest) -> Result<api::DeviceRevoked, Failure> {
        let own = self.own()?;
        let words = request.phrase.as_ref().map(keys_of).transpose()?;
        let others = || {
            let listed = own.volume.identity.keystore().keystore().volumes;
            let mut all: BTreeSet<_> =
                listed.into_iter().chain(own.vfs.volumes().iter().map(|one| one.volume)).collect();
            all.remove(&own.volume.id);
            // In what is closed nothing can be looked for.
            all.retain(|id| !request.force || !own.closed.lock().contains_key(id));
            all.into_iter().map(|id| own.volumes.of(id)).collect()
        };
        // Who is meant turns out below, where nobody is.
        let roster = own.volume.identity.roster();
        if let Ok(device) = roster.named(&request.name) {
            // The words take off a thief, whatever stands in the way.
            match self.vouch_for(own, device) {
                Err(failure) if request.force || words.is_some() => {
                    tracing::warn!(%failure, "what a device has said of others is not vouched for");
                }
                vouched => vouched?,
            }
            publish_beside(own, device);
        }
        let removed = own.volume.revoke_device(&others, &request.name, request.force, words.as_ref()).map_err(|error| {
            let text = error.to_string();
            match error {
                RevokeError::Port(error) => port_failure(error),
                RevokeError::Words => not_the_words(&text),
                RevokeError::Device(_) | RevokeError::This(_) => {
                    Failure::new(Kind::Usage, text).hint("`hn device list` shows them all")
                }
                RevokeError::Only { is_out: true, .. } => Failure::new(Kind::Usage, text).hint(
                    "it was detached: `hn attach` it again by its name or number, `hn sync`, and try again; --force takes the \
                     device off all the same",
                ),
                RevokeError::Only { name, .. } | RevokeError::Unseen(name) => Failure::new(Kind::Usage, text).hint(format!(
                    "look first with `hn recover --device {}` in an empty HN_HOME; --force takes it off all the same",
                    name.maybe_quote()
                )),
            }
        })?;
        self.tend_shares(own);
        let Revoked { device, with, brought, late } = removed;
        Ok(api::DeviceRevoked {
            id: device.id.to_string(),
            name: device.name,
            with: with.iter().map(named).collect(),
            brought: brought.iter().map(named).collect(),
            late: late.as_ref().map(other_head),
        })
    }

    /// Puts the keys of the identity, this device and the way of the words right, by the words. Blocks.
    pub(crate) fn renew_device(&self, request: &api::RenewDeviceRequest) -> Result<api::DeviceRenewed, Failure> {
        let words = keys_of(&request.phrase)?;
        let own = self.own()?;
        let renewed = own.volume.renew(&words).map_err(|error| match error {
            RevokeError::Port(error) => port_failure(error),
            other => not_the_words(&other.to_string()),
        })?;
        self.tend_shares(own);
        Ok(api::DeviceRenewed { back: renewed.is_back, devices: renewed.devices.iter().map(named).collect() })
    }

    /// Checks the databases and the working tree, and if `verify` whether the index knows all of it, and asks the
    /// holders of every segment.
    pub(crate) async fn fsck(
        self: &Arc<Self>,
        request: api::FsckRequest,
        say: impl Fn(&str, u64, u64),
    ) -> Result<api::FsckReport, Failure> {
        let own = self.own()?;
        let mut report = api::FsckReport::default();
        let agent = self.clone();
        let checked = blocking(move || {
            let own = agent.own()?;
            own.tree.check().and_then(|()| own.volume.db.check()).map_err(store_failure)?;
            own.vfs.fsck(request.repair).map_err(|error| Failure::new(Kind::Io, format!("cannot check: {error}")))
        })
        .await??;
        (report.problems, report.repaired) = (checked.problems, checked.mended);
        if !request.verify {
            return Ok(report);
        }
        self.verify_reach(&mut report, |done| say("files", done, done)).await?;
        let mut total = 0;
        for volume in own.volumes.all() {
            total += volume.db.counts().map_err(store_failure)?.segments;
            self.verify_segments(&volume, &mut report, |done| say("segments", done, total)).await?;
        }
        self.verify_catalogs(&mut report, |done| say("segments", done, done.max(total))).await?;
        Ok(report)
    }

    /// Asks the holders of the segments of a volume.
    async fn verify_segments(
        &self,
        volume: &Volume,
        report: &mut api::FsckReport,
        say: impl Fn(u64),
    ) -> Result<(), Failure> {
        let mut at = 0;
        loop {
            let rows = volume.db.own_segments_iter(at, PROBES).map_err(store_failure)?;
            let Some(last) = rows.last() else { return Ok(()) };
            at = last.num;
            let mut probes = Vec::new();
            for row in &rows {
                match codec::decode::<Placement>(&row.descriptor) {
                    Ok(placement) => probes.push(self.probe(Arc::new(placement))),
                    Err(error) => report.problems.push(format!("a row of the local index is damaged: {error}")),
                }
            }
            for (placement, outcome) in futures::future::join_all(probes).await {
                note(report, "segment", &placement, outcome);
            }
            say(report.segments);
        }
    }

    /// Looks whether the index of each volume knows all that its newest snapshot reaches.
    async fn verify_reach(self: &Arc<Self>, report: &mut api::FsckReport, say: impl Fn(u64)) -> Result<(), Failure> {
        let (give, mut take) = tokio::sync::mpsc::channel(PROBES as usize);
        let agent = self.clone();
        let walk = tokio::task::spawn_blocking(move || {
            for volume in agent.own()?.volumes.all() {
                let Some(latest) = state::latest(&volume.db).map_err(port_failure)? else { continue };
                // When nobody takes what is seen any more the check has ended.
                let mut see = |seen| give.blocking_send(seen).is_ok();
                volume.check_reach(&latest.root, &mut see).map_err(port_failure)?;
            }
            Ok::<_, Failure>(())
        });
        let mut more = 0u64;
        while let Some(seen) = take.recv().await {
            match seen {
                Seen::Inodes(done) => say(done),
                Seen::Problem(line) if report.problems.len() < REACH_PROBLEMS_MAX => report.problems.push(line),
                Seen::Problem(_) => more += 1,
            }
        }
        if more > 0 {
            report.problems.push(format!("and {more} more of this kind"));
        }
        walk.await.map_err(|error| Failure::new(Kind::System, error.to_string()))?
    }

    /// Asks the holders of all that the catalogs lie in, the manifest first: without it nothing can be recovered.
    async fn verify_catalogs(self: &Arc<Self>, report: &mut api::FsckReport, say: impl Fn(u64)) -> Result<(), Failure> {
        let (give, mut take) = tokio::sync::mpsc::channel(PROBES as usize);
        let agent = self.clone();
        let walk = tokio::task::spawn_blocking(move || {
            for volume in agent.own()?.volumes.all() {
                let Some(latest) = state::latest(&volume.db).map_err(port_failure)? else { continue };
                // When nobody takes them any more the check has ended.
                let _ = give.blocking_send(Ok(Arc::new(latest.head.manifest_placement)));
                volume.each_catalog_segment(&latest.manifest, true, &mut |found| {
                    let _ = give.blocking_send(found.map(|placement| Arc::new(placement.clone())));
                });
            }
            Ok::<_, Failure>(())
        });
        let mut found = Vec::new();
        while take.recv_many(&mut found, PROBES as usize).await > 0 {
            let mut probes = Vec::new();
            for found in found.drain(..) {
                match found {
                    Ok(placement) => probes.push(self.probe(placement)),
                    Err(error) => report.problems.push(format!("a listing of the catalog cannot be read: {error}")),
                }
            }
            for (placement, outcome) in futures::future::join_all(probes).await {
                note(report, "catalog segment", &placement, outcome);
            }
            say(report.segments);
        }
        walk.await.map_err(|error| Failure::new(Kind::System, error.to_string()))?
    }

    async fn probe(&self, placement: Arc<Placement>) -> (Arc<Placement>, Outcome) {
        let command = Command::Probe { placement: placement.clone(), within: PROBE_WITHIN };
        let mut outcome = self.node.run(command).await;
        if let (Outcome::Probed { held, missing, .. }, Some(own)) = (&mut outcome, self.with_volume()) {
            let id = placement.segment.id();
            if own.volume.lacking.asked(id, &placement, held, missing) {
                // What lies with fewer holders than was thought may be of the catalog, which a sync then looks at anew.
                *own.volume.surveyed.lock() = None;
            }
            // Who could not prove it when asked to is not believed.
            let unproven = own.volume.lacking.unproven(id, &placement, held);
            held.retain(|row| !unproven.contains(row));
            missing.extend(unproven);
        }
        (placement, outcome)
    }
}

fn note(report: &mut api::FsckReport, what: &str, placement: &Placement, outcome: Outcome) {
    report.segments += 1;
    let name = placement.segment.id().short();
    let Outcome::Probed { held, missing, unreachable } = outcome else {
        report.problems.push(format!("{what} {name}: its holders could not be asked"));
        return;
    };
    report.shards += held.len() as u64;
    let (k, n) = (usize::from(placement.segment.k), usize::from(placement.n));
    let readable = held.len() >= k;
    let homeless = n.saturating_sub(held.len() + missing.len() + unreachable.len());
    let mut why = Vec::new();
    for (shards, what) in [
        (missing.len(), "lost or spoiled by their holders"),
        (unreachable.len(), "with holders that do not answer"),
        (homeless, "without a holder"),
    ] {
        if shards > 0 {
            why.push(format!("{shards} {what}"));
        }
    }
    if !why.is_empty() {
        let mut problem = format!("{what} {name}: {} of {n} shards are there, {}", held.len(), why.join(", "));
        if !readable {
            problem += &format!("; it takes {k} to read it");
        }
        report.problems.push(problem);
    }
    let lacking = n.saturating_sub(held.len()) as u32;
    match report.health.iter_mut().find(|bucket| (bucket.missing, bucket.readable) == (lacking, readable)) {
        Some(bucket) => bucket.segments += 1,
        None => report.health.push(api::HealthBucket { missing: lacking, segments: 1, readable }),
    }
    report.health.sort_by_key(|bucket| bucket.missing);
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::ShardId;
    use hypernet_core::segment::Segment;

    use super::*;

    #[test]
    fn every_shard_that_is_not_there_is_accounted_for() {
        let mut report = api::FsckReport::default();
        let rows = (1..=3).map(|i| ShardId([i; 32])).collect();
        let placement = Placement { segment: Segment { k: 2, shard_len: 4096, rows }, n: 3, holders: vec![] };
        note(
            &mut report,
            "segment",
            &placement,
            Outcome::Probed { held: vec![0, 1, 2], missing: vec![], unreachable: vec![] },
        );
        assert_eq!((report.segments, report.shards, report.problems.len()), (1, 3, 0));
        note(
            &mut report,
            "segment",
            &placement,
            Outcome::Probed { held: vec![0, 1], missing: vec![], unreachable: vec![2] },
        );
        assert_eq!((report.segments, report.shards), (2, 5));
        assert!(
            report.problems[0].starts_with("segment ")
                && report.problems[0].ends_with("2 of 3 shards are there, 1 with holders that do not answer")
        );
        note(
            &mut report,
            "segment",
            &placement,
            Outcome::Probed { held: vec![0], missing: vec![1], unreachable: vec![] },
        );
        assert!(report.problems[1].ends_with(
            "1 of 3 shards are there, 1 lost or spoiled by their holders, 1 without a holder; it takes 2 to read it"
        ));
        let health: Vec<_> = report.health.iter().map(|b| (b.missing, b.segments, b.readable)).collect();
        assert_eq!(health, [(0, 1, true), (1, 1, true), (2, 1, false)]);
    }
}
