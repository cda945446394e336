//! Custodians: who keeps segments whole while the devices of an identity are off.

use serde::{Deserialize, Serialize};

/// Appoints a custodian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddCustodianRequest {
    /// What it has given out: one line that begins with hnc1.
    pub ticket: String,
    /// What to call it.
    pub name: String,
}

/// Names a custodian, or a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustodianRequest {
    /// Its name or its id; of a ticket the beginning of the id is enough.
    pub name: String,
}

/// Gives out a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferCustodyRequest {
    /// For whom it is.
    pub name: String,
}

/// A custodian of this identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustodianInfo {
    /// By which both sides name the appointment, in hex.
    pub id: String,
    /// What it is called here.
    pub name: String,
    /// Which peer it is.
    pub peer: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// A ticket that was given out here, and what is looked after by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedTicket {
    /// By which both sides name the appointment, in hex.
    pub id: String,
    /// For whom it is.
    pub name: String,
    /// When it was given out, in seconds since 1970.
    pub made: u64,
    /// Volumes that are looked after.
    pub volumes: u64,
    /// Segments in them.
    pub segments: u64,
    /// Segments of which rows are to be made anew, and were not.
    pub due: u64,
    /// Segments of which fewer rows are left than it takes to read them.
    pub lost: u64,
    /// Segments that were mended since the start of this agent.
    pub mended: u64,
    /// Rows that have moved, which the owner's devices have not taken in yet.
    pub moves: u64,
    /// When all of it was last looked at, in seconds since 1970.
    pub looked: Option<u64>,
    /// What was in the way.
    pub trouble: Option<String>,
}

/// A ticket that was given out now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustodyOffer {
    /// It, for one owner: whoever has it can have this agent work for them.
    pub ticket: String,
    /// What is shown of it.
    pub given: ServedTicket,
}

/// Both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custodians {
    /// Who looks after what this identity has stored.
    pub mine: Vec<CustodianInfo>,
    /// What is looked after here for others.
    pub served: Vec<ServedTicket>,
}
