//! The local socket: HTTP and JSON for `hn` and other programs of this user.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hypernet_core::port::PortError;
use hypernet_core::tree::Content;
use hypernet_fs::vfs::{BRANCHES, MAIN, VfsError};
use hypernet_sdk::api::{self, Empty, path};
use os_display::Quotable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use zeroize::Zeroize;

use crate::agent::{Agent, blocking, port_failure};
use crate::config::Home;
use crate::failure::{Failure, Kind};
use crate::volume::census::Census;
use crate::volume::sync::Engine;
use crate::{health, status};

mod custody;
mod history;
mod people;
mod share;

/// Events of a long operation that wait for a slow reader; the operation waits with them.
const EVENTS: usize = 64;
/// Progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

type Agents = State<Arc<Agent>>;
type Answer<T> = Result<Json<T>, Refused>;

/// A failure as the API tells it.
pub(crate) fn api_error(failure: &Failure) -> api::ApiError {
    let code = match failure.kind {
        Kind::Usage => api::ErrorCode::Usage,
        Kind::Data => api::ErrorCode::Data,
        Kind::NoInput => api::ErrorCode::NoInput,
        Kind::Unavailable => api::ErrorCode::Unavailable,
        Kind::CantCreate => api::ErrorCode::CantCreate,
        Kind::Io => api::ErrorCode::Io,
        Kind::TryAgain => api::ErrorCode::TryAgain,
        Kind::Permission => api::ErrorCode::Permission,
        Kind::Config => api::ErrorCode::Config,
        Kind::System => api::ErrorCode::System,
    };
    api::ApiError { code, message: failure.message.clone(), hint: failure.hint.clone() }
}

/// A failure as an HTTP answer.
struct Refused(Failure);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            Kind::Usage | Kind::Data | Kind::NoInput => StatusCode::BAD_REQUEST,
            Kind::Permission => StatusCode::FORBIDDEN,
            Kind::Config | Kind::CantCreate => StatusCode::CONFLICT,
            Kind::Unavailable | Kind::TryAgain => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Io | Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(api_error(&self.0))).into_response()
    }
}

/// Longest request with a secret in it.
const PRIVATE_MAX: usize = 64 << 10;

/// As [`Json`], for requests with words or a passphrase in them: the bytes that were read are wiped. What the HTTP server
/// has read them into, it has to itself.
struct Private<T>(T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Private<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let wrong =
            |why: &dyn std::fmt::Display| Failure::new(Kind::Usage, format!("the request is not understood: {why}"));
        let bytes = axum::body::to_bytes(request.into_body(), PRIVATE_MAX).await.map_err(|error| wrong(&error))?;
        // What a JSON error says names a place in the text and what was expected, and no text.
        let parsed = serde_json::from_slice(&bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            wrong(&format_args!("line {line}, column {column}"))
        });
        if let Ok(mut bytes) = bytes.try_into_mut() {
            bytes.zeroize();
        }
        Ok(Self(parsed?))
    }
}

/// Binds the socket; one that a dead agent left behind is replaced. The store's lock has made sure that no other agent
/// runs here.
pub(crate) fn bind(home: &Home) -> Result<UnixListener, Failure> {
    let path = home.usable_socket()?;
    let _ = std::fs::remove_file(&path);
    let cannot =
        |error: std::io::Error| Failure::new(Kind::CantCreate, format!("cannot listen on {}: {error}", path.display()));
    let listener = UnixListener::bind(&path).map_err(cannot)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(listener)
}

/// Serves until the task is ended.
pub(crate) async fn serve(agent: Arc<Agent>, listener: UnixListener) {
    let router = Router::new()
        .route(path::STATUS, get(get_status))
        .route(path::HEALTH, post(post_health))
        .route(path::PEERS, get(get_peers))
        .route(path::DONORS, post(post_donors))
        .route(path::SYNC, post(post_sync))
        .route(path::HOLD, post(post_hold))
        .route(path::MOUNT, post(post_mount))
        .route(path::UMOUNT, post(post_umount))
        .route(path::CACHE_DROP, post(post_cache_drop))
        .route(path::FSCK, post(post_fsck))
        .route(path::INVITE, post(post_invite))
        .route(path::RECOVER, post(post_recover))
        .route(path::DEVICES, get(get_devices))
        .route(path::VOLUMES, get(get_volumes))
        .route(path::VOLUMES_MAKE, post(post_volumes_make))
        .route(path::GC, post(post_gc))
        .route(path::DONATE, get(get_donate).post(post_donate))
        .route(path::KEYSTORE_SEAL, post(post_keystore_seal))
        .route(path::DEVICE_REVOKE, post(post_devices_revoke))
        .route(path::DEVICE_RENEW, post(post_devices_renew))
        .route(path::DOWN, post(post_down))
        .merge(history::router())
        .merge(custody::router())
        .merge(people::router())
        .merge(share::router())
        .with_state(agent);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the local socket failed");
    }
}

async fn get_status(State(agent): Agents) -> Answer<api::Status> {
    Ok(Json(status::status(&agent).await?))
}

async fn post_health(State(agent): Agents, Json(request): Json<api::HealthRequest>) -> Answer<api::Health> {
    let finder = agent.clone();
    let find = move || {
        let Some(path) = request.path else { return Ok(None) };
        let volume = finder.own()?.vfs.volume_of(find(&finder, &path)?);
        volume.map(Some).map_err(|error| Failure::new(Kind::Io, format!("{}: {error}", path.quote())))
    };
    let only = blocking(find).await??;
    Ok(Json(health::health(&agent, only).await?))
}

async fn get_peers(State(agent): Agents) -> Answer<Vec<api::PeerInfo>> {
    Ok(Json(status::peers(&agent).await?))
}

async fn get_devices(State(agent): Agents) -> Answer<Vec<api::DeviceInfo>> {
    Ok(Json(blocking(move || agent.devices()).await??))
}

async fn post_devices_revoke(
    State(agent): Agents,
    Private(request): Private<api::RevokeDeviceRequest>,
) -> Answer<api::DeviceRevoked> {
    Ok(Json(blocking(move || agent.revoke_device(&request)).await??))
}

async fn post_devices_renew(
    State(agent): Agents,
    Private(request): Private<api::RenewDeviceRequest>,
) -> Answer<api::DeviceRenewed> {
    Ok(Json(blocking(move || agent.renew_device(&request)).await??))
}

async fn get_volumes(State(agent): Agents) -> Answer<Vec<api::VolumeInfo>> {
    Ok(Json(blocking(move || agent.volumes()).await??))
}

async fn post_gc(State(agent): Agents, Json(request): Json<api::GcRequest>) -> Answer<Vec<api::GcVolume>> {
    Ok(Json(blocking(move || agent.gc(request.dry_run)).await??))
}

async fn post_volumes_make(
    State(agent): Agents,
    Json(request): Json<api::MakeVolumeRequest>,
) -> Answer<api::VolumeInfo> {
    let made = move || agent.make_volume(find(&agent, &request.path)?);
    Ok(Json(blocking(made).await??))
}

async fn get_donate(State(agent): Agents) -> Answer<api::DonateStatus> {
    Ok(Json(agent.donated().await))
}

async fn post_donate(State(agent): Agents, Json(request): Json<api::DonateRequest>) -> Answer<api::DonateStatus> {
    Ok(Json(agent.donate(&request).await?))
}

async fn post_keystore_seal(
    State(agent): Agents,
    Private(request): Private<api::SealRequest>,
) -> Answer<api::KeystoreSealed> {
    Ok(Json(blocking(move || agent.seal_keystore(&request)).await??))
}

async fn post_donors(State(agent): Agents, Json(request): Json<api::DonorsRequest>) -> Response {
    lines(tell_donors(agent.node.donors(), request.wanted))
}

/// How many donors there are, now and whenever that changes, until there are as many as wanted, nobody reads it any more
/// or the agent stops.
fn tell_donors(mut donors: watch::Receiver<usize>, wanted: Option<u64>) -> mpsc::Receiver<Bytes> {
    // A slow reader is told the newest number next, and no old ones.
    let (tell, events) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let there = *donors.borrow_and_update() as u64;
            let is_enough = wanted.is_some_and(|wanted| there >= wanted);
            let event = if is_enough {
                api::DonorsEvent::Done { donors: there }
            } else {
                api::DonorsEvent::Progress { donors: there }
            };
            if tell.send(line(&event)).await.is_err() || is_enough {
                return;
            }
            tokio::select! {
                changed = donors.changed() => if changed.is_err() { return },
                () = tell.closed() => return,
            }
        }
    });
    events
}

async fn post_hold(State(agent): Agents, Json(hold): Json<api::HoldRequest>) -> Answer<Empty> {
    agent.own()?.engines.hold(hold.hold);
    Ok(Json(Empty {}))
}

async fn post_mount(State(agent): Agents, Json(request): Json<api::MountRequest>) -> Answer<api::Mounted> {
    if request.branch.is_some() || request.snapshot.is_some() {
        let dir = request
            .dir
            .clone()
            .ok_or_else(|| Failure::new(Kind::Usage, "no directory was named").hint("hn mount --branch NAME DIR"))?;
        let view = blocking(move || {
            let of = inside(&agent, &request.of)?;
            agent.mount_side(&dir, &api::MountRequest { of, ..request })
        });
        return Ok(Json(status::mounted(view.await??)));
    }
    let dir = request.dir.or_else(|| agent.config.lock().mount.clone()).ok_or_else(|| {
        Failure::new(Kind::Usage, "no directory was named, and none was mounted before").hint("hn mount DIR")
    })?;
    let view = blocking(move || agent.mount(&dir, request.passthrough)).await??;
    Ok(Json(status::mounted(view)))
}

async fn post_umount(State(agent): Agents, Json(request): Json<api::UmountRequest>) -> Answer<Empty> {
    blocking(move || agent.unmount_at(request.dir.as_deref())).await??;
    Ok(Json(Empty {}))
}

/// The path inside the volume that a person means by a path of theirs.
fn inside(agent: &Agent, path: &Path) -> Result<PathBuf, Failure> {
    let below = agent.with_volume().map_or(Ok(None), |own| own.below_mount(path))?;
    let inside = below.unwrap_or_else(|| Path::new("/").join(path.strip_prefix("/").unwrap_or(path)));
    // The uppermost tree is found among the branches, too.
    let main = Path::new("/").join(BRANCHES).join(MAIN);
    Ok(inside.strip_prefix(main).map(|below| Path::new("/").join(below)).unwrap_or(inside))
}

/// The inode at a path of the volume. Blocks: a directory on the way may have to come from the mesh.
fn find(agent: &Agent, path: &Path) -> Result<u64, Failure> {
    let path = inside(agent, path)?;
    agent.own()?.vfs.resolve(&path).map_err(|error| {
        let message = format!("{} in the volume: {error}", path.display());
        match error {
            VfsError::NotFound | VfsError::NotDirectory => {
                Failure::new(Kind::NoInput, message).hint("name a file or directory that is there, or leave it out")
            }
            _ => Failure::new(Kind::Io, message),
        }
    })
}

async fn post_cache_drop(
    State(agent): Agents,
    Json(request): Json<api::CacheDropRequest>,
) -> Result<Response, Refused> {
    agent.own()?;
    let finder = agent.clone();
    let below = blocking(move || request.path.as_deref().map(|path| find(&finder, path)).transpose()).await??;
    let (tell, events) = mpsc::channel(EVENTS);
    tokio::task::spawn_blocking(move || {
        let mut say = |files_done, files_total| {
            let phase = "dropping local copies".to_owned();
            let progress = api::Progress { phase, files_done, files_total, ..Default::default() };
            let _ = tell.try_send(line(&api::CacheDropEvent::Progress(progress)));
        };
        let event = match drop_cache(&agent, below, request.force, &mut say) {
            Ok(dropped) => api::CacheDropEvent::Done(dropped),
            Err(failure) => api::CacheDropEvent::Error(api_error(&failure)),
        };
        let _ = tell.blocking_send(line(&event));
    });
    Ok(lines(events))
}

fn drop_cache(
    agent: &Agent,
    below: Option<u64>,
    force: bool,
    say: &mut dyn FnMut(u64, u64),
) -> Result<api::CacheDropped, Failure> {
    let own = agent.own()?;
    let census = (!force).then(|| Census::new(&own.volume)).transpose().map_err(port_failure)?;
    let mut served = |contents: &[&Content]| match &census {
        Some(census) => own.volume.served(contents, census),
        None => vec![true; contents.len()],
    };
    let dropped = own
        .vfs
        .drop_cache(below, &mut served, say)
        .map_err(|error| Failure::new(Kind::Io, format!("cannot drop the cache: {error}")))?;
    // What came along with other reads is a copy, too.
    own.volume.nearby.lock().clear();
    if below.is_none() {
        match own.volume.drop_nodes(census.as_ref()) {
            // Forgetting takes room, too. They are few, and go with the next one.
            Err(PortError::DiskFull(why)) => tracing::info!(why, "copies of tree nodes stay"),
            other => other.map_err(port_failure)?,
        }
    }
    let why = "fewer of their shards are with peers that are here now than it takes to read them";
    Ok(api::CacheDropped {
        files: dropped.files,
        bytes: dropped.bytes,
        kept_files: dropped.kept_files,
        kept_bytes: dropped.kept_bytes,
        kept_because: (dropped.kept_files > 0).then(|| why.to_owned()),
    })
}

async fn post_invite(State(agent): Agents) -> Answer<api::Invite> {
    Ok(Json(api::Invite { link: agent.invite()?.to_link() }))
}

async fn post_down(State(agent): Agents) -> Answer<Empty> {
    agent.stop.notify_one();
    Ok(Json(Empty {}))
}

fn line(event: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(event).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

fn lines(events: mpsc::Receiver<Bytes>) -> Response {
    let stream = futures::stream::unfold(events, async |mut events| {
        let next = events.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(next), events))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

/// Why a volume cannot be synced, with where it is.
fn placed(agent: &Agent, engine: &Engine, error: PortError) -> PortError {
    let PortError::NoPart(why) = error else { return error };
    let path = agent.own().ok().and_then(|own| {
        let rooted = own.vfs.volumes().into_iter().find(|rooted| rooted.volume == engine.volume())?;
        own.vfs.path(rooted.ino).ok()
    });
    PortError::NoPart(match path {
        Some(path) => format!("{}: {why}", path.quote()),
        None => why,
    })
}

/// Everything is synced whether a path is named or not: a head reaches the whole tree. A path must exist, and how
/// durable it is comes with the report.
async fn post_sync(State(agent): Agents, Json(request): Json<api::SyncRequest>) -> Result<Response, Refused> {
    let own = agent.own()?;
    if !own.engines().is_empty() {
        // What is synced is all of the tree.
        own.start_engines()?;
    }
    let engines = own.engines();
    let Some(mut progress) = engines.first().map(|engine| engine.meter.watch()) else {
        return Err(Failure::new(Kind::TryAgain, "the head of this volume has not been found yet")
            .hint("`hn recover` looks again")
            .into());
    };
    let finder = agent.clone();
    let named = blocking(move || request.path.as_deref().map(|path| find(&finder, path)).transpose()).await??;
    let (tell, events) = mpsc::channel(EVENTS);
    let began = Instant::now();
    let (next, mut meters) = mpsc::channel(1);
    let mut sync = tokio::task::spawn_blocking(move || {
        let mut report = engines[0].sync().map_err(|error| placed(&agent, &engines[0], error));
        for engine in &engines[1..] {
            // Nobody may look at it any more.
            let _ = next.blocking_send(engine.meter.watch());
            // One that fails keeps the others from nothing, and is told.
            let synced = engine.sync().map_err(|error| placed(&agent, engine, error));
            report = report.and_then(|below| Ok(synced?.and(below)));
        }
        let report = report?;
        // One that was removed or changed in the meantime is no failure of the sync.
        let state = named.and_then(|ino| agent.own().ok()?.vfs.state_xattr(ino).ok());
        Ok::<_, PortError>((report, state))
    });
    tokio::spawn(async move {
        let mut tell_at = tokio::time::Instant::now();
        let outcome = loop {
            let changed = async {
                tokio::time::sleep_until(tell_at).await;
                progress.changed().await
            };
            tokio::select! {
                outcome = &mut sync => break outcome,
                Some(meter) = meters.recv() => progress = meter,
                changed = changed => {
                    if changed.is_ok() {
                        let event = api::SyncEvent::Progress(status::progress(&progress.borrow_and_update()));
                        // A reader that went away does not stop the sync.
                        let _ = tell.try_send(line(&event));
                    }
                    tell_at = tokio::time::Instant::now() + TELL_EVERY;
                }
            }
        };
        let event = match outcome {
            Ok(Ok((report, state))) => api::SyncEvent::Done(api::SyncReport {
                files: report.inodes,
                bytes: report.bytes,
                segments: report.segments,
                shards: report.segments * u64::from(report.n),
                bytes_stored: report.bytes_stored,
                head: report.sequence,
                k: report.k.into(),
                n: report.n.into(),
                peers: report.peers.into(),
                millis: began.elapsed().as_millis() as u64,
                state,
            }),
            // Waiting mends none of them.
            Ok(Err(
                error @ (PortError::Superseded(_) | PortError::NoPart(_) | PortError::Damaged(_) | PortError::Newer(_)),
            )) => api::SyncEvent::Error(api_error(&port_failure(error))),
            Ok(Err(error @ PortError::DiskFull(_))) => {
                api::SyncEvent::Error(api_error(&Failure::new(Kind::Io, format!("not durable yet: {error}")).hint(
                    "nothing is lost, and a sync needs some room: delete or move something on the disk of HN_HOME, in \
                     this mount or beside it; `hn cache drop` frees what is durable already",
                )))
            }
            Ok(Err(error)) => api::SyncEvent::Error(api_error(
                &Failure::new(Kind::Unavailable, format!("not durable yet: {error}"))
                    .hint("nothing is lost: it stays on this device and is tried again; `hn status` tells more"),
            )),
            Err(error) => api::SyncEvent::Error(api_error(&Failure::new(Kind::System, error.to_string()))),
        };
        let _ = tell.send(line(&event)).await;
    });
    Ok(lines(events))
}

async fn post_fsck(State(agent): Agents, Json(request): Json<api::FsckRequest>) -> Result<Response, Refused> {
    agent.own()?;
    let (tell, events) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        let say = |phase: &str, files_done, files_total| {
            let progress = api::Progress { phase: phase.to_owned(), files_done, files_total, ..Default::default() };
            let _ = tell.try_send(line(&api::FsckEvent::Progress(progress)));
        };
        let event = match agent.fsck(request, say).await {
            Ok(report) => api::FsckEvent::Done(report),
            Err(failure) => api::FsckEvent::Error(api_error(&failure)),
        };
        let _ = tell.send(line(&event)).await;
    });
    Ok(lines(events))
}

async fn post_recover(
    State(agent): Agents,
    Private(request): Private<api::RecoverRequest>,
) -> Result<Response, Refused> {
    let (tell, events) = mpsc::channel(EVENTS);
    tokio::task::spawn_blocking(move || {
        let mut say = |text| {
            let _ = tell.try_send(line(&api::RecoverEvent::Progress { text }));
        };
        let event = match agent.recover(&request, &mut say) {
            Ok(found) => api::RecoverEvent::Done(found),
            Err(failure) => api::RecoverEvent::Error(api_error(&failure)),
        };
        let _ = tell.blocking_send(line(&event));
    });
    Ok(lines(events))
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::Client;

    use super::*;

    #[tokio::test]
    async fn donors_are_told_until_they_are_there_or_nobody_listens() {
        use api::DonorsEvent::{Done, Progress};
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().into());
        let count = Arc::new(watch::Sender::new(1));
        let counted = count.clone();
        let tell = async move |Json(request): Json<api::DonorsRequest>| {
            lines(tell_donors(counted.subscribe(), request.wanted))
        };
        let router = Router::new().route(path::DONORS, post(tell));
        let listener = bind(&home).unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Client::new(hypernet_sdk::Home::new(dir.path())).unwrap();

        let mut events = client.donors(Some(3)).await.unwrap();
        assert_eq!(events.next().await.unwrap(), Some(Progress { donors: 1 }));
        count.send_replace(2);
        assert_eq!(events.next().await.unwrap(), Some(Progress { donors: 2 }));
        count.send_replace(4);
        assert_eq!(events.next().await.unwrap(), Some(Done { donors: 4 }));
        assert_eq!(events.next().await.unwrap(), None);
        let mut events = client.donors(Some(4)).await.unwrap();
        assert_eq!(events.next().await.unwrap(), Some(Done { donors: 4 }));
        // Whoever names no number goes on, until it goes away; then nothing watches for it any more.
        let mut events = client.donors(None).await.unwrap();
        assert_eq!(events.next().await.unwrap(), Some(Progress { donors: 4 }));
        assert_eq!(count.receiver_count(), 1);
        drop(events);
        count.closed().await;
        server.abort();
    }

    #[tokio::test]
    async fn the_donors_of_an_agent_that_stops_are_told_to_nobody() {
        let (count, donors) = watch::channel(1);
        let mut events = tell_donors(donors, None);
        assert!(events.recv().await.is_some());
        drop(count);
        assert_eq!(events.recv().await, None);
    }
}
