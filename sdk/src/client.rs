//! A typed client of the agent's socket.
//!
//! Every call has a deadline. Long operations answer with [`Events`]; a stream that is silent for a while is not taken
//! for a dead agent, because a sync that waits for peers has nothing to say: the client then asks for the status, and
//! gives up only when that is not answered either.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::api::{self, ApiError, ErrorCode, path};
use crate::home::{Home, SocketPathTooLong};

/// A status or a list is answered from memory.
const SHORT: Duration = Duration::from_secs(15);
/// Mounting and unmounting touch the disk and the kernel.
const LONG: Duration = Duration::from_secs(180);
/// All of a volume is looked at.
const GC: Duration = Duration::from_secs(3600);
/// A stream that is silent for this long makes the client ask whether the agent is there.
const SILENCE: Duration = Duration::from_secs(20);
/// No event is longer; a fsck report lists at most as many problems as fit.
const LINE_MAX: usize = 16 << 20;
/// Longest body of a plain answer.
const BODY_MAX: usize = 64 << 20;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody serves the socket.
    #[error("the agent is not running (home: {})", home.display())]
    NotRunning {
        /// The agent's directory.
        home: PathBuf,
        /// Whether an agent is set up there at all.
        set_up: bool,
    },
    /// The socket belongs to someone else.
    #[error("not allowed to talk to the agent at {}", socket.display())]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
    },
    /// The directory's name is too long for a socket in it.
    #[error(transparent)]
    SocketPathTooLong(#[from] SocketPathTooLong),
    /// The agent answered with a failure.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The request could not be made, so the agent was not asked.
    #[error("the request `{request}` cannot be made: {why}")]
    Request {
        /// Which call.
        request: &'static str,
        /// Why not.
        why: String,
    },
    /// It did not answer in time.
    #[error("the agent did not answer `{request}` within {} s", after.as_secs())]
    Timeout {
        /// Which call.
        request: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// It stopped while it was answering.
    #[error("the agent stopped before `{request}` ended")]
    Interrupted {
        /// Which call.
        request: &'static str,
    },
    /// The answer is not understood.
    #[error("the agent's answer to `{request}` is not understood: {why}")]
    Protocol {
        /// Which call.
        request: &'static str,
        /// Why not.
        why: String,
    },
    /// The local HTTP client cannot be made.
    #[error("cannot prepare the connection to the agent: {0}")]
    Setup(String),
}

impl Error {
    /// Its kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotRunning { set_up: false, .. } | Self::SocketPathTooLong(_) => ErrorCode::Config,
            Self::NotRunning { set_up: true, .. } | Self::Interrupted { .. } => ErrorCode::Unavailable,
            Self::NotAllowed { .. } => ErrorCode::Permission,
            Self::Api(error) => error.code,
            Self::Timeout { .. } => ErrorCode::TryAgain,
            Self::Protocol { .. } => ErrorCode::Data,
            Self::Setup(_) => ErrorCode::System,
            Self::Request { .. } => ErrorCode::Internal,
        }
    }
}

/// A connection to one agent.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    home: Home,
}

impl Client {
    /// Of the agent in this directory. Makes no request yet.
    pub fn new(home: Home) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .unix_socket(home.usable_socket()?)
            .connect_timeout(SHORT)
            .build()
            .map_err(|error| Error::Setup(error.to_string()))?;
        Ok(Self { http, home })
    }

    /// As [`Self::new`], and makes sure that the agent answers.
    pub async fn connect(home: Home) -> Result<(Self, api::Status), Error> {
        let client = Self::new(home)?;
        let status = client.status().await?;
        Ok((client, status))
    }

    /// The agent's directory.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<api::Status, Error> {
        self.call(Method::GET, path::STATUS, None::<&api::Empty>, SHORT).await
    }

    /// `GET /v1/peers`.
    pub async fn peers(&self) -> Result<Vec<api::PeerInfo>, Error> {
        self.call(Method::GET, path::PEERS, None::<&api::Empty>, SHORT).await
    }

    /// Tells how many peers that store are connected, at once and at each change, until there are as many as wanted.
    pub async fn donors(&self, wanted: Option<u64>) -> Result<Events<api::DonorsEvent>, Error> {
        self.stream(path::DONORS, &api::DonorsRequest { wanted }).await
    }

    /// Makes everything durable, and tells how durable one path is.
    pub async fn sync(&self, path: Option<&Path>) -> Result<Events<api::SyncEvent>, Error> {
        self.stream(path::SYNC, &api::SyncRequest { path: path.map(Path::to_path_buf) }).await
    }

    /// Holds the background upload back, or lets it go.
    pub async fn hold(&self, hold: bool) -> Result<(), Error> {
        self.post(path::HOLD, &api::HoldRequest { hold }, SHORT).await.map(|_: api::Empty| ())
    }

    /// Mounts.
    pub async fn mount(&self, dir: Option<&Path>, passthrough: bool) -> Result<api::Mounted, Error> {
        let dir = dir.map(Path::to_path_buf);
        self.mount_as(&api::MountRequest { dir, passthrough, ..api::MountRequest::default() }).await
    }

    /// The same of a branch or a snapshot.
    pub async fn mount_as(&self, request: &api::MountRequest) -> Result<api::Mounted, Error> {
        self.post(path::MOUNT, request, LONG).await
    }

    /// Shows another tree in the main mount.
    pub async fn switch(&self, request: &api::SwitchRequest) -> Result<api::Switched, Error> {
        self.post(path::SWITCH, request, LONG).await
    }

    /// Unmounts what is mounted there, or all.
    pub async fn umount(&self, dir: Option<&Path>) -> Result<(), Error> {
        self.post(path::UMOUNT, &api::UmountRequest { dir: dir.map(Path::to_path_buf) }, LONG)
            .await
            .map(|_: api::Empty| ())
    }

    /// Evicts clean data.
    pub async fn cache_drop(&self, request: &api::CacheDropRequest) -> Result<Events<api::CacheDropEvent>, Error> {
        self.stream(path::CACHE_DROP, request).await
    }

    /// Checks the volume.
    pub async fn fsck(&self, request: api::FsckRequest) -> Result<Events<api::FsckEvent>, Error> {
        self.stream(path::FSCK, &request).await
    }

    /// Makes an invite link.
    pub async fn invite(&self) -> Result<api::Invite, Error> {
        self.post(path::INVITE, &api::Empty {}, SHORT).await
    }

    /// Finds the identity, and the newest head or that of one device, and makes that this device's tree.
    pub async fn recover(&self, request: &api::RecoverRequest) -> Result<Events<api::RecoverEvent>, Error> {
        self.stream(path::RECOVER, request).await
    }

    /// The devices of this identity.
    pub async fn devices(&self) -> Result<Vec<api::DeviceInfo>, Error> {
        self.call(Method::GET, path::DEVICES, None::<&api::Empty>, LONG).await
    }

    /// Takes a device off the list.
    pub async fn revoke_device(&self, request: &api::RevokeDeviceRequest) -> Result<api::DeviceRevoked, Error> {
        self.post(path::DEVICE_REVOKE, request, LONG).await
    }

    /// Puts the keys, the device that is asked and the way of the words right, by the words.
    pub async fn renew_device(&self, request: &api::RenewDeviceRequest) -> Result<api::DeviceRenewed, Error> {
        self.post(path::DEVICE_RENEW, request, LONG).await
    }

    /// Shows a code, and enrols the device that enters it.
    pub async fn add_device(&self, request: &api::PairRequest) -> Result<Events<api::PairEvent>, Error> {
        self.stream(path::DEVICES_ADD, request).await
    }

    /// Comes onto the list of devices of whoever shows the code.
    pub async fn join_identity(&self, request: &api::PairRequest) -> Result<Events<api::PairEvent>, Error> {
        self.stream(path::DEVICES_JOIN, request).await
    }

    /// Who this is.
    pub async fn id(&self) -> Result<api::IdInfo, Error> {
        self.call(Method::GET, path::ID, None::<&api::Empty>, SHORT).await
    }

    /// Whom this identity knows.
    pub async fn contacts(&self) -> Result<Vec<api::ContactInfo>, Error> {
        self.call(Method::GET, path::CONTACTS, None::<&api::Empty>, SHORT).await
    }

    /// Adds a contact.
    pub async fn add_contact(&self, request: &api::AddContactRequest) -> Result<api::ContactInfo, Error> {
        self.post(path::CONTACTS_ADD, request, LONG).await
    }

    /// Removes a contact.
    pub async fn remove_contact(&self, name: &str) -> Result<api::ContactInfo, Error> {
        self.post(path::CONTACTS_REMOVE, &api::ContactRequest { name: name.to_owned() }, LONG).await
    }

    /// Makes sure of a contact, together with them.
    pub async fn verify_contact(&self, request: &api::PairRequest) -> Result<Events<api::PairEvent>, Error> {
        self.stream(path::CONTACTS_VERIFY, request).await
    }

    /// The guardians of this identity's words, and for whom this identity is one.
    pub async fn guardians(&self) -> Result<api::GuardiansList, Error> {
        self.call(Method::GET, path::GUARDIANS, None::<&api::Empty>, LONG).await
    }

    /// Gives each guardian a share of the words.
    pub async fn set_guardians(&self, request: &api::SetGuardiansRequest) -> Result<api::GuardiansInfo, Error> {
        self.post(path::GUARDIANS_SET, request, LONG).await
    }

    /// Takes the guardians back.
    pub async fn clear_guardians(&self) -> Result<api::GuardiansCleared, Error> {
        self.post(path::GUARDIANS_CLEAR, &api::Empty {}, LONG).await
    }

    /// Hands a share of somebody's words over to them, together with them.
    pub async fn help_to_recover(&self, request: &api::PairRequest) -> Result<Events<api::PairEvent>, Error> {
        self.stream(path::GUARDIANS_HELP, request).await
    }

    /// Shows a code, and takes the share of the guardian who enters it.
    pub async fn gather_share(&self, request: &api::PairRequest) -> Result<Events<api::PairEvent>, Error> {
        self.stream(path::RECOVER_GATHER, request).await
    }

    /// The shares that were taken so far.
    pub async fn gathered(&self) -> Result<api::Gathered, Error> {
        self.call(Method::GET, path::RECOVER_SHARES, None::<&api::Empty>, SHORT).await
    }

    /// The words that they give.
    pub async fn shared_words(&self, request: &api::SharedWordsRequest) -> Result<api::Words, Error> {
        self.post(path::RECOVER_WORDS, request, SHORT).await
    }

    /// Says what the other side of a meeting shows: none where it is not the same.
    pub async fn compared(&self, words: Vec<String>) -> Result<(), Error> {
        self.post(path::COMPARED, &api::ComparedRequest { words }, SHORT).await.map(|_: api::Empty| ())
    }

    /// The volumes of the tree.
    pub async fn volumes(&self) -> Result<Vec<api::VolumeInfo>, Error> {
        self.call(Method::GET, path::VOLUMES, None::<&api::Empty>, LONG).await
    }

    /// Who looks after what is stored, and what is looked after there for others.
    pub async fn custodians(&self) -> Result<api::Custodians, Error> {
        self.call(Method::GET, path::CUSTODIANS, None::<&api::Empty>, SHORT).await
    }

    /// Appoints whoever has given out a ticket.
    pub async fn add_custodian(&self, request: &api::AddCustodianRequest) -> Result<api::CustodianInfo, Error> {
        self.post(path::CUSTODIANS_ADD, request, LONG).await
    }

    /// Takes in what a custodian has moved, and has it look after nothing any more.
    pub async fn remove_custodian(&self, request: &api::CustodianRequest) -> Result<api::CustodianInfo, Error> {
        self.post(path::CUSTODIANS_REMOVE, request, LONG).await
    }

    /// Gives out a ticket.
    pub async fn offer_custody(&self, request: &api::OfferCustodyRequest) -> Result<api::CustodyOffer, Error> {
        self.post(path::CUSTODIANS_OFFER, request, SHORT).await
    }

    /// Takes a ticket back.
    pub async fn withdraw_custody(&self, request: &api::CustodianRequest) -> Result<api::ServedTicket, Error> {
        self.post(path::CUSTODIANS_WITHDRAW, request, LONG).await
    }

    /// How healthy the volumes are.
    pub async fn health(&self, request: &api::HealthRequest) -> Result<api::Health, Error> {
        self.post(path::HEALTH, request, LONG).await
    }

    /// Gives back the space of what nothing reaches any more.
    pub async fn gc(&self, request: &api::GcRequest) -> Result<Vec<api::GcVolume>, Error> {
        self.post(path::GC, request, GC).await
    }

    /// What is given to others, and who has it.
    pub async fn donated(&self) -> Result<api::DonateStatus, Error> {
        self.call(Method::GET, path::DONATE, None::<&api::Empty>, SHORT).await
    }

    /// Gives more or less to others from now on.
    pub async fn donate(&self, request: &api::DonateRequest) -> Result<api::DonateStatus, Error> {
        self.post(path::DONATE, request, SHORT).await
    }

    /// Makes a directory a volume of its own.
    pub async fn make_volume(&self, request: &api::MakeVolumeRequest) -> Result<api::VolumeInfo, Error> {
        self.post(path::VOLUMES_MAKE, request, LONG).await
    }

    /// What is shared by this identity or with it.
    pub async fn shares(&self) -> Result<api::SharesInfo, Error> {
        self.call(Method::GET, path::SHARES, None::<&api::Empty>, LONG).await
    }

    /// Shares a directory.
    pub async fn share(&self, request: &api::ShareRequest) -> Result<api::ShareInfo, Error> {
        self.post(path::SHARE, request, LONG).await
    }

    /// Who has a part in a directory.
    pub async fn share_show(&self, request: &api::ShareQuery) -> Result<api::ShareInfo, Error> {
        self.post(path::SHARE_SHOW, request, LONG).await
    }

    /// Takes back what was shared.
    pub async fn unshare(&self, request: &api::UnshareRequest) -> Result<api::ShareInfo, Error> {
        self.post(path::UNSHARE, request, LONG).await
    }

    /// Puts what somebody shares into the tree.
    pub async fn attach(&self, request: &api::AttachRequest) -> Result<api::ShareInfo, Error> {
        self.post(path::ATTACH, request, LONG).await
    }

    /// Takes what was attached out of the tree.
    pub async fn detach(&self, request: &api::DetachRequest) -> Result<api::ShareInfo, Error> {
        self.post(path::DETACH, request, LONG).await
    }

    /// Takes a snapshot.
    pub async fn snap(&self, request: &api::SnapRequest) -> Result<api::Snapped, Error> {
        self.post(path::SNAP, request, LONG).await
    }

    /// The snapshots that are kept, the newest first.
    pub async fn snapshots(&self, request: &api::LogRequest) -> Result<Vec<api::SnapshotInfo>, Error> {
        self.post(path::SNAP_LOG, request, LONG).await
    }

    /// The snapshot that is meant.
    pub async fn snapshot(&self, of: api::RevisionRequest) -> Result<api::SnapshotInfo, Error> {
        Ok(self.meant(of).await?.snapshot)
    }

    /// The snapshot that is meant, and the one before it; nothing is compared.
    pub async fn meant(&self, of: api::RevisionRequest) -> Result<api::Shown, Error> {
        self.post(path::SNAP_SHOW, &api::ShowRequest { of, alone: true }, LONG).await
    }

    /// A snapshot, and what it has changed.
    pub async fn show(&self, of: api::RevisionRequest) -> Result<api::Shown, Error> {
        self.post(path::SNAP_SHOW, &api::ShowRequest { of, alone: false }, LONG).await
    }

    /// What can be proven of a snapshot.
    pub async fn verify(&self, request: &api::RevisionRequest) -> Result<api::Verified, Error> {
        self.post(path::SNAP_VERIFY, request, LONG).await
    }

    /// What has changed from one snapshot to another.
    pub async fn diff(&self, request: &api::DiffRequest) -> Result<Vec<api::ChangeInfo>, Error> {
        self.post(path::SNAP_DIFF, request, LONG).await
    }

    /// The same, with what has changed in files.
    pub async fn hunks(&self, request: &api::HunksRequest) -> Result<Events<api::HunksEvent>, Error> {
        self.stream(path::SNAP_HUNKS, request).await
    }

    /// Names of snapshots, after a change.
    pub async fn tag(&self, request: &api::TagRequest) -> Result<Vec<api::TagInfo>, Error> {
        self.post(path::SNAP_TAG, request, LONG).await
    }

    /// Lets go of snapshots.
    pub async fn prune(&self, request: &api::PruneRequest) -> Result<api::Pruned, Error> {
        self.post(path::SNAP_PRUNE, request, LONG).await
    }

    /// The branches of all volumes.
    pub async fn branches(&self) -> Result<Vec<api::BranchInfo>, Error> {
        self.call(Method::GET, path::BRANCHES, None::<&api::Empty>, LONG).await
    }

    /// Makes a branch.
    pub async fn make_branch(&self, request: &api::BranchRequest) -> Result<api::BranchInfo, Error> {
        self.post(path::BRANCH, request, LONG).await
    }

    /// Lets go of a branch.
    pub async fn drop_branch(&self, request: &api::DropBranchRequest) -> Result<api::BranchInfo, Error> {
        self.post(path::BRANCH_DROP, request, LONG).await
    }

    /// Merges a branch.
    pub async fn merge(&self, request: &api::MergeRequest) -> Result<api::MergedInfo, Error> {
        self.post(path::MERGE, request, LONG).await
    }

    /// Versions that are kept beside others.
    pub async fn conflicts(&self, request: &api::ConflictsRequest) -> Result<Vec<api::ConflictInfo>, Error> {
        self.post(path::CONFLICTS, request, LONG).await
    }

    /// Settles which of them stays.
    pub async fn resolve(&self, request: &api::ResolveRequest) -> Result<api::Resolved, Error> {
        self.post(path::RESOLVE, request, LONG).await
    }

    /// The policy of a volume, after a change.
    pub async fn policy(&self, request: &api::PolicyRequest) -> Result<api::PolicyState, Error> {
        self.post(path::SNAP_POLICY, request, LONG).await
    }

    /// Has something else open the keystore.
    pub async fn seal_keystore(&self, request: &api::SealRequest) -> Result<api::KeystoreSealed, Error> {
        self.post(path::KEYSTORE_SEAL, request, LONG).await
    }

    /// Asks the agent to stop. It is still stopping when this returns.
    pub async fn down(&self) -> Result<(), Error> {
        self.post(path::DOWN, &api::Empty {}, SHORT).await.map(|_: api::Empty| ())
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, Error> {
        self.call(Method::POST, path, Some(body), within).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &'static str,
        body: Option<&impl Serialize>,
        within: Duration,
    ) -> Result<T, Error> {
        let answer = async {
            let response = self.send(method, path, body).await?;
            let bytes = self.read_body(path, response).await?;
            serde_json::from_slice(&bytes).map_err(|error| Error::Protocol { request: path, why: error.to_string() })
        };
        tokio::time::timeout(within, answer).await.map_err(|_| Error::Timeout { request: path, after: within })?
    }

    async fn stream<T: DeserializeOwned>(&self, path: &'static str, body: &impl Serialize) -> Result<Events<T>, Error> {
        let response = tokio::time::timeout(LONG, self.send(Method::POST, path, Some(body)))
            .await
            .map_err(|_| Error::Timeout { request: path, after: LONG })??;
        Ok(Events {
            client: self.clone(),
            request: path,
            response,
            lines: Lines::default(),
            ended: false,
            events: PhantomData,
        })
    }

    /// Sends a request and turns an answer that says no into an error.
    async fn send(&self, method: Method, path: &'static str, body: Option<&impl Serialize>) -> Result<Response, Error> {
        // The host is never resolved: the client speaks to its socket only.
        let mut request = self.http.request(method, format!("http://hnd{path}"));
        if let Some(body) = body {
            let text =
                serde_json::to_vec(body).map_err(|error| Error::Request { request: path, why: error.to_string() })?;
            // It may have words or a passphrase in it: what is sent is wiped when it has gone.
            let text = bytes::Bytes::from_owner(Zeroizing::new(text));
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(text);
        }
        let response = request.send().await.map_err(|error| self.transport(path, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.read_body(path, response).await?;
        Err(match serde_json::from_slice::<ApiError>(&bytes) {
            Ok(error) => Error::Api(error),
            Err(_) if status == StatusCode::NOT_FOUND => Error::Protocol {
                request: path,
                why: "it does not know this call; hn and hnd differ in version".into(),
            },
            Err(_) => Error::Protocol { request: path, why: format!("HTTP status {status}") },
        })
    }

    async fn read_body(&self, request: &'static str, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(request, &error))? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(Error::Protocol { request, why: "it is too long".into() });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport(&self, request: &'static str, error: &reqwest::Error) -> Error {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut kind = None;
        let mut innermost = String::new();
        while let Some(error) = cause {
            innermost = error.to_string();
            kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind).or(kind);
            cause = error.source();
        }
        match kind {
            Some(std::io::ErrorKind::PermissionDenied) => Error::NotAllowed { socket: self.home.socket() },
            _ if error.is_connect() => {
                Error::NotRunning { home: self.home.path().to_path_buf(), set_up: self.home.is_set_up() }
            }
            _ if error.is_builder() => Error::Request { request, why: innermost },
            _ => Error::Interrupted { request },
        }
    }
}

/// Lines of NDJSON out of chunks, with bounded memory.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
}

impl Lines {
    /// Takes a chunk in; false when a line is longer than any event.
    fn push(&mut self, mut chunk: &[u8]) -> bool {
        while let Some(at) = chunk.iter().position(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(&chunk[..at]);
            chunk = &chunk[at + 1..];
            let line = std::mem::take(&mut self.partial);
            if !line.iter().all(u8::is_ascii_whitespace) {
                self.ready.push_back(line);
            }
        }
        self.partial.extend_from_slice(chunk);
        self.partial.len() <= LINE_MAX
    }
}

/// Events of a long operation, in order.
#[derive(Debug)]
pub struct Events<T> {
    client: Client,
    request: &'static str,
    response: Response,
    lines: Lines,
    ended: bool,
    events: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Events<T> {
    /// The next event; none after the last one.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(line) = self.lines.ready.pop_front() {
                let event = serde_json::from_slice(&line);
                return event
                    .map(Some)
                    .map_err(|error| Error::Protocol { request: self.request, why: error.to_string() });
            }
            if self.ended {
                return Ok(None);
            }
            match tokio::time::timeout(SILENCE, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    if !self.lines.push(&chunk) {
                        return Err(Error::Protocol { request: self.request, why: "an event is too long".into() });
                    }
                }
                Ok(Ok(None)) => {
                    self.ended = true;
                    self.lines.push(b"\n");
                }
                Ok(Err(_)) => return Err(Error::Interrupted { request: self.request }),
                Err(_) => {
                    self.client.status().await?;
                }
            }
        }
    }

    /// What to say when the stream ended without its last event.
    pub fn interrupted(&self) -> Error {
        Error::Interrupted { request: self.request }
    }
}

#[cfg(test)]
mod tests;
