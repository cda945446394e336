//! When to sync: soon after something changed, at once when someone asks, and again after a failure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use hypernet_core::id::{RecordKey, VolumeId};
use hypernet_core::port::PortError;
use hypernet_fs::panics;
use hypernet_fs::vfs::{ROOT, Rooted, Vfs};
use parking_lot::{Condvar, Mutex};

use super::super::collect::{Collected, Released};
use super::super::follow::{Asked, Followed};
use super::super::handing::LetGo;
use super::super::heads::LOOK_EVERY;
use super::super::leases::Renewed;
use super::super::progress::{Meter, Phase};
use super::super::repair::Repaired;
use super::pace::Pace;
use super::{Report, Volume, run};
use crate::share::hearing::Ask;
use crate::volumes::Volumes;

/// A change is uploaded when nothing more has changed for this long,
const SETTLE: Duration = Duration::from_secs(2);
/// or when it has waited for this long.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// A sync that failed is tried again after this, and after twice as long each time,
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// up to this.
const RETRY_MAX: Duration = Duration::from_secs(120);
/// After how long what could not be taken over from another volume is tried once more, the second time: each try is a head.
const ADOPT_FIRST: Duration = Duration::from_secs(60);
/// The longest time between two such tries.
const ADOPT_MAX: Duration = Duration::from_secs(3600);
/// How often it is looked whether another device has gone on from what is here.
const FOLLOW_EVERY: Duration = Duration::from_secs(15);
/// How often it is looked at most, where others say that there is something.
const HEAR_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked then whether there are other devices.
const LOOK_FOR_DEVICES_EVERY: Duration = Duration::from_secs(60);
/// The loop looks up at least this often.
const LOOK_UP: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Control {
    /// Syncs asked for, and when the last one was.
    asked: u64,
    asked_at: Option<Instant>,
    /// The number of `asked` when the newest sync that ended began.
    answered: u64,
    outcome: Option<Result<Report, PortError>>,
    held: bool,
    stopping: bool,
}

impl Control {
    /// How the sync ended that was asked for by this number, or that none will come.
    fn outcome_of(&self, ticket: u64) -> Option<Result<Report, PortError>> {
        if self.stopping {
            return Some(Err(PortError::Unreachable(
                "the agent is stopping; what is local stays and is synced later".into(),
            )));
        }
        self.outcome.clone().filter(|_| self.answered >= ticket)
    }
}

/// The number of the last change, since when nothing has changed after it, and since when something waits: kept over what else is
/// done meanwhile, or that would have it wait for ever.
type Settling = Option<(u64, Instant, Instant)>;

/// What the worker is to do next.
enum Due {
    Sync,
    Look,
    Follow,
    Stop,
}

/// Runs a sync; a panic in it is its failure and not the end of the thread that everybody waits for. What a sync leaves
/// behind at any point is what a crash may leave behind, and its cut ends as it unwinds.
fn guarded(work: impl FnOnce() -> Result<Report, PortError>) -> Result<Report, PortError> {
    panics::caught(work).unwrap_or_else(|text| {
        tracing::error!(text, "a sync panicked");
        Err(PortError::Unreachable(format!("the sync failed where it should not have, please report it: {text}")))
    })
}

/// One for each volume of the tree that has a head, or may have its first one.
pub(crate) struct Engines {
    tree: OnceLock<(Arc<Vfs>, Weak<Volumes>)>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    all: BTreeMap<VolumeId, Arc<Engine>>,
    held: bool,
    stopped: bool,
}

impl Engines {
    /// None yet. `held`: as [`Engine::start`].
    pub(crate) fn new(held: bool) -> Self {
        Self { tree: OnceLock::new(), running: Mutex::new(Running { held, ..Running::default() }) }
    }

    /// The tree, which cannot be there before what it is read by, and that.
    pub(crate) fn set_tree(&self, vfs: &Arc<Vfs>, volumes: &Arc<Volumes>) {
        let _ = self.tree.set((vfs.clone(), Arc::downgrade(volumes)));
    }

    /// Starts the one of a volume, unless it runs.
    pub(crate) fn start(&self, volume: Arc<Volume>) -> std::io::Result<()> {
        let (vfs, volumes) = self.tree.get().ok_or_else(|| std::io::Error::other("there is no tree yet"))?;
        let mut running = self.running.lock();
        let Running { all, held, stopped } = &mut *running;
        if let Entry::Vacant(place) = all.entry(volume.id)
            && !*stopped
        {
            place.insert(Engine::start(volume, vfs.clone(), volumes.clone(), *held)?);
        }
        Ok(())
    }

    /// Ends that of a volume that goes from the tree.
    pub(crate) fn end(&self, volume: VolumeId) {
        if let Some(engine) = self.running.lock().all.remove(&volume) {
            engine.stop();
        }
    }

    /// Holds all uploads back, also those that are yet to begin, or lets them go on.
    pub(crate) fn hold(&self, held: bool) {
        let mut running = self.running.lock();
        running.held = held;
        running.all.values().for_each(|engine| engine.hold(held));
    }

    /// Ends them all; none begins any more.
    pub(crate) fn stop(&self) {
        let mut running = self.running.lock();
        running.stopped = true;
        running.all.values().for_each(|engine| engine.stop());
    }

    /// Those that run, each before that of the volume above it, and branches last.
    pub(crate) fn all(&self) -> Vec<Arc<Engine>> {
        let volumes = self.tree.get().map_or_else(Vec::new, |(vfs, _)| vfs.volumes());
        let running = self.running.lock();
        let is_branch = |rooted: &&Rooted| rooted.above.is_none() && rooted.ino != ROOT;
        let (branches, others): (Vec<&Rooted>, Vec<&Rooted>) = volumes.iter().partition(is_branch);
        others.into_iter().rev().chain(branches).filter_map(|rooted| running.all.get(&rooted.volume).cloned()).collect()
    }
}

/// Runs syncs on a thread of its own.
pub(crate) struct Engine {
    volume: Arc<Volume>,
    vfs: Arc<Vfs>,
    volumes: Weak<Volumes>,
    pub(crate) meter: Meter,
    control: Mutex<Control>,
    changed: Condvar,
}

impl Engine {
    /// Starts the thread.
    pub(crate) fn start(
        volume: Arc<Volume>,
        vfs: Arc<Vfs>,
        volumes: Weak<Volumes>,
        held: bool,
    ) -> std::io::Result<Arc<Self>> {
        let control = Mutex::new(Control { held, ..Control::default() });
        let engine = Arc::new(Self { volume, vfs, volumes, meter: Meter::new(), control, changed: Condvar::new() });
        let (worker, watcher) = (engine.clone(), engine.clone());
        std::thread::Builder::new().name("hn-sync".into()).spawn(move || worker.work())?;
        std::thread::Builder::new().name("hn-sync-watch".into()).spawn(move || watcher.watch())?;
        Ok(engine)
    }

    /// Wakes the worker when something changes.
    fn watch(&self) {
        let mut seq = 0;
        while !self.control.lock().stopping {
            let now = self.vfs.wait_change(seq, LOOK_UP);
            if now != seq {
                seq = now;
                self.changed.notify_all();
            }
            // Changes come in bursts; one look a burst is enough.
            self.pause(SETTLE / 4);
        }
    }

    fn pause(&self, time: Duration) {
        let mut control = self.control.lock();
        let until = Instant::now() + time;
        while !control.stopping && !self.changed.wait_until(&mut control, until).timed_out() {}
    }

    /// Waits until there is something to do.
    fn wait(&self, settled: &mut Settling, retry_at: Option<Instant>, look_at: Instant, follow_at: Instant) -> Due {
        loop {
            let (held, asked) = {
                let control = self.control.lock();
                if control.stopping {
                    return Due::Stop;
                }
                (control.held, control.asked > control.answered)
            };
            if asked {
                *settled = None;
                return Due::Sync;
            }
            let now = Instant::now();
            let pending = self.vfs.pending(self.volume.id);
            let waits = pending.files > 0 || self.volume.has_edits();
            if !waits {
                *settled = None;
            }
            // However often others publish.
            let news_at = follow_at - FOLLOW_EVERY + HEAR_EVERY;
            let mut wake = if news_at > now { news_at } else { now + LOOK_UP };
            let stopped = self.volume.still_current().err();
            let may_not = if waits { self.volume.may_write().err() } else { None };
            if let Some(error) = &stopped {
                self.meter.update(|progress| progress.phase = Phase::Stopped(error.to_string()));
            } else if look_at <= now {
                return Due::Look;
            } else if let Some(error) = may_not {
                self.meter.update(|progress| progress.phase = Phase::Stopped(error.to_string()));
            } else if (!waits || self.volume.may_follow(&self.vfs).unwrap_or(false))
                && (follow_at <= now && (self.has_others() || self.volume.is_rekeying())
                    || news_at <= now && self.volume.take_news())
            {
                return Due::Follow;
            } else if held {
                self.meter.update(|progress| progress.phase = Phase::Held);
            } else if waits && !self.volume.may_be_published(&self.vfs).unwrap_or(true) {
                let why = "a volume that begins in this one has no head yet".to_owned();
                self.meter.update(|progress| progress.phase = Phase::Waiting(why));
                wake = now + SETTLE;
            } else if waits && retry_at.is_none_or(|at| at <= now) {
                let (seq, quiet_since, first) = settled.unwrap_or((pending.seq, now, now));
                let quiet_since = if seq == pending.seq { quiet_since } else { now };
                *settled = Some((pending.seq, quiet_since, first));
                let due = (quiet_since + SETTLE).min(first + SETTLE_MAX);
                if due <= now {
                    *settled = None;
                    return Due::Sync;
                }
                wake = due;
            } else if let Some(at) = retry_at.filter(|at| *at > now && waits) {
                wake = at;
            }
            let mut control = self.control.lock();
            if !control.stopping && control.asked == control.answered {
                // Where it is past already, there is something in the way of it.
                let follow_at = if follow_at > now { follow_at } else { now + SETTLE };
                let until = if stopped.is_some() { wake } else { wake.min(look_at).min(follow_at) };
                self.changed.wait_until(&mut control, until);
            }
        }
    }

    /// Waits until another head may be published; false when the engine is to stop.
    fn take_turn(&self, pace: &Pace) -> bool {
        let wait = pace.wait(Instant::now());
        if !wait.is_zero() && (self.vfs.pending(self.volume.id).files > 0 || self.volume.has_edits()) {
            let why =
                format!("so many syncs came so soon after one another that the next waits {} s", wait.as_secs() + 1);
            self.meter.update(|progress| progress.phase = Phase::Waiting(why));
            self.pause(wait);
        }
        !self.control.lock().stopping
    }

    /// Asks for the heads on the mesh, so that what is wrong with them is known before something is written; says when to
    /// ask again.
    fn look(&self) -> Instant {
        let failed = match panics::caught(|| self.volume.look_around()) {
            Ok(Ok(())) => {
                self.set_rights();
                return Instant::now() + LOOK_EVERY;
            }
            Ok(Err(error)) => error.to_string(),
            Err(text) => text,
        };
        tracing::debug!(failed, "cannot look for heads yet");
        Instant::now() + LOOK_UP
    }

    /// Whether anybody else may have published something here.
    fn has_others(&self) -> bool {
        self.volume.has_others()
    }

    /// Nothing can be changed in the tree that nobody would take.
    fn set_rights(&self) {
        self.vfs.set_read_only(self.volume.id, self.volume.may_write().is_err());
    }

    /// When it is looked again by itself: soon, where only something in use was in the way.
    fn follows_at(&self) -> Instant {
        let later = Instant::now() + FOLLOW_EVERY;
        self.volume.in_use_until().map_or(later, |until| until.clamp(later - FOLLOW_EVERY, later))
    }

    /// Moves on to what other devices have published.
    fn follow(&self, pace: &mut Pace, asked_at: Option<Instant>) {
        let is_asked = asked_at.is_some();
        let Some(volumes) = self.volumes.upgrade() else { return };
        let publishes = pace.wait(Instant::now()).is_zero() && (is_asked || !self.is_held());
        let followed = panics::caught(|| {
            // Who came onto the list, or publishes here for the first time, is found by that only.
            let age = asked_at.map_or(LOOK_FOR_DEVICES_EVERY, |at| at.elapsed());
            if let Err(error) = self.volume.identity.look_within(age) {
                tracing::debug!(%error, "cannot look for the devices of this identity yet");
            }
            self.volume.hear(Ask::Places)?;
            if self.volume.has_begun_again()? {
                self.volume.tend()?;
            }
            self.set_rights();
            let _turn = self.volume.turn.lock();
            self.volume.follow(&self.vfs, &volumes, Asked { publishes, by_somebody: is_asked }, &self.meter)
        });
        if matches!(self.volume.is_asked(), Ok(true))
            && let Err(error) = self.vfs.mark_changed(self.volume.id)
        {
            tracing::warn!(%error, "another device waits for a head of this one");
        }
        match followed {
            Ok(Ok(Followed::Nothing | Followed::MovedOn)) => {}
            Ok(Ok(Followed::Merged)) => pace.published(Instant::now()),
            Ok(Err(error)) => tracing::info!(%error, "cannot take in what others have published yet"),
            Err(text) => tracing::error!(text, "taking in what others have published panicked"),
        }
    }

    /// Has the next head take over what the last one could not of what the volume was begun from, though nobody writes there; whether
    /// there is some.
    fn tries_again_to_adopt(&self) -> bool {
        let is_left = self.volume.is_still_adopting().unwrap_or(false);
        if is_left && let Err(error) = self.vfs.mark_changed(self.volume.id) {
            tracing::warn!(%error, "what a volume was begun from is taken over later");
        }
        is_left
    }

    /// Seals anew what was written before, for as long as there is nothing else to do.
    fn rekey(&self) {
        loop {
            let busy = {
                let control = self.control.lock();
                control.stopping || control.asked > control.answered
            };
            let stretch = || {
                let _turn = self.volume.turn.lock();
                self.volume.rekey(&self.vfs, &self.meter)
            };
            match panics::caught(stretch) {
                Ok(Ok(true)) if !busy => {}
                Ok(Ok(_)) => break,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "what was written before cannot be sealed anew yet");
                    break;
                }
                Err(text) => {
                    tracing::error!(text, "sealing anew what was written before panicked");
                    break;
                }
            }
        }
        self.meter.update(|progress| progress.phase = Phase::Idle);
    }

    fn work(&self) {
        let mut backoff = RETRY_FIRST;
        let (mut adopt_at, mut adopt_after) = (None, ADOPT_FIRST);
        let mut retry_at = None;
        let mut look_at = Instant::now();
        let mut follow_at = Instant::now() + FOLLOW_EVERY;
        let mut pace = Pace::default();
        let mut settled = None;
        // What a crash has left under way.
        let under_way = || {
            let _turn = self.volume.turn.lock();
            self.volume.end_following(&self.vfs, &self.meter)
        };
        match panics::caught(under_way) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "moving on to what another device has published is ended later"),
            Err(text) => tracing::error!(text, "moving on to what another device has published panicked"),
        }
        loop {
            match self.wait(&mut settled, retry_at, look_at, follow_at) {
                Due::Stop => break,
                Due::Look => {
                    look_at = self.look();
                    let now = Instant::now();
                    if adopt_at.is_none_or(|at| at <= now) && self.tries_again_to_adopt() {
                        adopt_at = Some(now + adopt_after);
                        adopt_after = (adopt_after * 2).min(ADOPT_MAX);
                    }
                    continue;
                }
                Due::Follow => {
                    self.follow(&mut pace, None);
                    self.rekey();
                    follow_at = self.follows_at();
                    continue;
                }
                Due::Sync => {}
            }
            if !self.take_turn(&pace) {
                break;
            }
            let (began, asked_at) = {
                let control = self.control.lock();
                (control.asked, control.asked_at.filter(|_| control.asked > control.answered))
            };
            let outcome = guarded(|| {
                let _turn = self.volume.turn.lock();
                run(&self.volume, &self.vfs, &self.meter)
            });
            if outcome.is_ok() && (asked_at.is_some() || self.has_others() || self.volume.has_splits()) {
                // Whoever asks for it also wants to see what others have, and a device may have come that nobody has told of here.
                self.follow(&mut pace, asked_at);
                follow_at = self.follows_at();
            }
            if !matches!(outcome, Ok(Report { sequence: 0, .. })) {
                pace.published(Instant::now());
            }
            match &outcome {
                Ok(report) => {
                    if report.sequence > 0 {
                        let Report { sequence: head, inodes, bytes, n, peers, .. } = *report;
                        tracing::info!(head, inodes, bytes, n, peers, "durable");
                    }
                    (backoff, retry_at) = (RETRY_FIRST, None);
                    self.meter.update(|progress| {
                        progress.phase = Phase::Idle;
                        progress.completed += 1;
                        progress.error = None;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot sync yet");
                    retry_at = Some(Instant::now() + backoff);
                    backoff = (backoff * 2).min(RETRY_MAX);
                    self.meter.update(|progress| {
                        progress.phase = Phase::Waiting(error.to_string());
                        progress.failed += 1;
                        progress.error = Some(error.to_string());
                    });
                }
            }
            let mut control = self.control.lock();
            control.answered = control.answered.max(began);
            control.outcome = Some(outcome);
            drop(control);
            self.changed.notify_all();
        }
        self.changed.notify_all();
    }

    /// Gives back the space of what nothing reaches any more; `dry`: only says what that would be. What is found is let go of by
    /// the next head, which is published when this returns, and given up `grace` seconds after that at the earliest.
    pub(crate) fn collect(&self, dry: bool, grace: u64) -> Result<(Collected, Released), PortError> {
        let collect = || {
            let _turn = self.volume.turn.lock();
            self.volume.collect(&self.vfs, &self.meter, dry)
        };
        let collected = panics::caught(collect).unwrap_or_else(|text| Err(PortError::Disk(text)))?;
        if dry {
            return Ok((collected, Released::default()));
        }
        if self.volume.has_dropped()? {
            self.sync()?;
        }
        let release = || {
            let _turn = self.volume.turn.lock();
            self.volume.release(&self.vfs, grace)
        };
        let released = panics::caught(release).unwrap_or_else(|text| Err(PortError::Disk(text)))?;
        Ok((collected, released))
    }

    /// Mends segments of which too few rows are left, until so many bytes were placed.
    pub(crate) fn repair(&self, bytes: u64) -> Result<Repaired, PortError> {
        let repair = || self.volume.repair(&self.vfs, bytes);
        panics::caught(repair).unwrap_or_else(|text| Err(PortError::Disk(text)))
    }

    /// Gives up leases with peers that stop storing for others, of what is elsewhere by now.
    pub(crate) fn let_go(&self, grace: u64) -> Result<LetGo, PortError> {
        let let_go = || {
            let _turn = self.volume.turn.lock();
            self.volume.let_go(&self.vfs, grace)
        };
        panics::caught(let_go).unwrap_or_else(|text| Err(PortError::Disk(text)))
    }

    /// Whether leases are to be taken at once, because somebody was taken off who has some.
    pub(crate) fn has_lost_devices(&self) -> bool {
        self.volume.has_lost_devices().unwrap_or(false)
    }

    /// Has what this device has placed kept for longer.
    pub(crate) fn renew(&self) -> Result<Renewed, PortError> {
        let renew = || {
            let _turn = self.volume.turn.lock();
            self.volume.renew_leases()
        };
        panics::caught(renew).unwrap_or_else(|text| Err(PortError::Disk(text)))
    }

    /// Where heads of others are that it follows.
    pub(crate) fn places(&self) -> Vec<RecordKey> {
        self.volume.heads.lock().places().to_vec()
    }

    /// One of them has changed: it is looked at once.
    pub(crate) fn hear(&self) {
        self.volume.tell_news();
        self.changed.notify_all();
    }

    /// Whose uploads it does.
    pub(crate) fn volume(&self) -> VolumeId {
        self.volume.id
    }

    /// The volume itself.
    pub(crate) fn handle(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Makes everything durable that is in the working tree now; waits for a sync that began after this call.
    pub(crate) fn sync(&self) -> Result<Report, PortError> {
        self.outcome(self.begin())
    }

    /// Asks for a sync; [its outcome](Self::outcome) goes by this number.
    pub(crate) fn begin(&self) -> u64 {
        self.ask(&mut self.control.lock())
    }

    /// Waits for a sync that was asked for.
    pub(crate) fn outcome(&self, ticket: u64) -> Result<Report, PortError> {
        let mut control = self.control.lock();
        loop {
            if let Some(outcome) = control.outcome_of(ticket) {
                return outcome;
            }
            self.changed.wait(&mut control);
        }
    }

    /// The same for whoever waits no longer than that; it goes on all the same. None where it does.
    pub(crate) fn sync_within(&self, patience: Duration) -> Option<Result<Report, PortError>> {
        let until = Instant::now() + patience;
        let mut control = self.control.lock();
        let ticket = self.ask(&mut control);
        loop {
            let outcome = control.outcome_of(ticket);
            if outcome.is_some() || self.changed.wait_until(&mut control, until).timed_out() {
                return outcome;
            }
        }
    }

    fn ask(&self, control: &mut Control) -> u64 {
        control.asked += 1;
        control.asked_at = Some(Instant::now());
        self.changed.notify_all();
        control.asked
    }

    /// Holds the background upload back, or lets it go on. A sync that is asked for runs all the same.
    pub(crate) fn hold(&self, held: bool) {
        self.control.lock().held = held;
        self.changed.notify_all();
        if !held {
            self.meter.update(|progress| {
                if progress.phase == Phase::Held {
                    progress.phase = Phase::Idle;
                }
            });
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.control.lock().held
    }

    /// Ends the threads; a sync under way ends at its next failure or with the process.
    pub(crate) fn stop(&self) {
        self.control.lock().stopping = true;
        self.changed.notify_all();
    }
}
