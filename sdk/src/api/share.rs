//! Volumes that several people have.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What somebody may do in a volume. Each may also do what those before it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareRole {
    /// Read.
    #[default]
    Reader,
    /// Write.
    Writer,
    /// Bring readers and writers, and take them off.
    Admin,
    /// Bring admins and take them off.
    Owner,
}

impl ShareRole {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reader => "reads",
            Self::Writer => "reads and writes",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// Shares a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRequest {
    /// The directory, from the root of the tree.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// Contacts that get a part in it.
    #[serde(default)]
    pub with: Vec<String>,
    /// What they may do.
    #[serde(default)]
    pub role: ShareRole,
    /// Makes a link to it.
    #[serde(default)]
    pub link: bool,
    /// What whoever has the link may do: read, or also write.
    #[serde(default)]
    pub link_role: ShareRole,
    /// When the link ends: seconds from now.
    #[serde(default)]
    pub link_seconds: Option<u64>,
}

/// Takes that back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnshareRequest {
    /// The directory, from the root of the tree.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// Contacts, or identities, that have no part in it any more.
    #[serde(default)]
    pub with: Vec<String>,
    /// Links that lead nowhere any more.
    #[serde(default)]
    pub links: Vec<String>,
    /// All links.
    #[serde(default)]
    pub all_links: bool,
    /// What was written before is sealed anew as well, in the background.
    #[serde(default)]
    pub rekey: bool,
}

/// Whose shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareQuery {
    /// The directory, from the root of the tree.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
}

/// Somebody who has a part in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// What they are called here, if they are a contact.
    #[serde(default)]
    pub name: Option<String>,
    /// Who it is.
    pub identity: String,
    /// What they may do.
    pub role: ShareRole,
    /// It is oneself.
    pub you: bool,
    /// Two people have compared what their devices showed.
    pub verified: bool,
    /// It is nobody in particular: whoever has a link that writes.
    pub is_link: bool,
    /// That link, where it was made by this identity, or this device came by it.
    #[serde(default)]
    pub link: Option<String>,
}

/// A link to a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// As it is handed on.
    pub link: String,
    /// When it ends, by RFC 3339.
    #[serde(default)]
    pub until: Option<String>,
    /// What whoever has it may do.
    #[serde(default)]
    pub role: ShareRole,
}

/// A volume that several people have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareInfo {
    /// In hex.
    pub volume: String,
    /// What it was called where it was shared.
    pub name: String,
    /// Where its root is in this tree.
    #[serde(default, with = "crate::exact_path::option")]
    pub path: Option<PathBuf>,
    /// What this identity may do; none when it was taken off.
    #[serde(default)]
    pub role: Option<ShareRole>,
    /// It was attached by a link, and nobody has granted it to this identity.
    pub by_link: bool,
    /// Who has a part in it.
    pub members: Vec<MemberInfo>,
    /// Links that were made by this identity.
    pub links: Vec<LinkInfo>,
    /// The one of them that was made just now.
    #[serde(default)]
    pub made: Option<String>,
    /// How often its keys were changed, and once more.
    pub epoch: u32,
    /// What was written before is being sealed anew.
    pub rekeying: bool,
    /// Devices that have signed two histories of who may do what.
    pub forks: Vec<String>,
}

/// Something that a contact offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferInfo {
    /// As `hn attach` takes it.
    pub share: String,
    /// What its owner calls it.
    pub name: String,
    /// In hex.
    pub volume: String,
    /// Which contact.
    pub by: String,
    /// Two people have compared what their devices showed.
    pub verified: bool,
    /// What this identity may do there.
    pub role: ShareRole,
    /// It is in the tree already.
    pub attached: bool,
}

/// All that is shared with this identity, or by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesInfo {
    /// In the tree, or known from another device.
    pub shares: Vec<ShareInfo>,
    /// By contacts.
    pub offers: Vec<OfferInfo>,
    /// Contacts that are not found now, and why.
    pub missing: Vec<MissingContact>,
}

/// A contact that is not found now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingContact {
    /// What they are called here.
    pub name: String,
    /// For people.
    pub why: String,
}

/// Puts what is offered, or what a link leads to, into the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// An offer by its name or number, or a link.
    pub share: String,
    /// Where, from the root of the tree; nothing is there yet.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
}

/// Takes what was attached out of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachRequest {
    /// Where it is, from the root of the tree.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// What was changed in it and is not synced is given up.
    #[serde(default)]
    pub discard: bool,
}
