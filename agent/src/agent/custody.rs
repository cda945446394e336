//! Custodians of this identity, and what this agent looks after for others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use hypernet_core::custody::Wards;
use hypernet_core::id::PeerId;
use hypernet_core::limits::CUSTODIANS_MAX;
use hypernet_core::name::is_name;
use hypernet_core::node::Command;
use hypernet_core::port::PortError;
use hypernet_core::time::Hlc;
use hypernet_sdk::api;

use super::collect::REPAIRED_AT_ONCE;
use super::{Agent, blocking, port_failure};
use crate::custody::serving::Served;
use crate::custody::{Custodian, NAME_MAX, Ticket, named};
use crate::failure::{Failure, Kind};
use crate::status::peer_name;
use crate::volume::recover::clock;

/// How often custodians are told what has changed, in seconds: each time costs some records and pages.
const TELL_EVERY: u64 = 60;
/// How often it is looked what is to be done for others, and what they have done for this identity.
const LOOK_EVERY: u64 = 600;

/// Looks again and again, until it is aborted.
pub(super) async fn run(agent: Arc<Agent>) {
    let hidden = agent.config.lock().collect_every.map(|seconds| seconds.max(1));
    let (tell, look) = (hidden.unwrap_or(TELL_EVERY), hidden.unwrap_or(LOOK_EVERY));
    let mut told = String::new();
    let mut waited = 0;
    loop {
        let worker = agent.clone();
        let is_due = waited >= look;
        let done = blocking(move || {
            worker.spare_custodians();
            let trouble = worker.tend_custodians(is_due, is_due);
            if is_due {
                worker.serving.tend(REPAIRED_AT_ONCE, look);
            }
            trouble
        });
        let trouble = done.await.unwrap_or_else(|failure| failure.to_string());
        if is_due {
            waited = 0;
        }
        if !trouble.is_empty() && trouble != told {
            tracing::warn!(trouble, "custodians could not be told where segments are; it is tried again");
        }
        told = trouble;
        tokio::time::sleep(Duration::from_secs(tell)).await;
        waited += tell;
    }
}

fn info(custodian: &Custodian) -> api::CustodianInfo {
    api::CustodianInfo {
        id: HEXLOWER.encode(&custodian.tag().0),
        name: custodian.name.clone(),
        peer: peer_name(&custodian.peer),
        since: custodian.changed.millis / 1000,
    }
}

fn served(served: Served) -> api::ServedTicket {
    let Served { id, name, made, volumes, segments, due, lost, mended, moves, looked, trouble } = served;
    api::ServedTicket { id, name, made, volumes, segments, due, lost, mended, moves, looked, trouble }
}

impl Agent {
    fn custodians(&self) -> Vec<Custodian> {
        self.with_volume().map_or_else(Vec::new, |own| named(&own.volume.identity.keystore().keystore().custodians))
    }

    /// Whoever knows where everything is holds nothing of it.
    fn spare_custodians(&self) {
        let peers: BTreeSet<PeerId> = self.custodians().iter().map(|custodian| custodian.peer).collect();
        self.node.run_blocking(Command::Spare(peers));
    }

    /// Tells custodians what has changed; if `looks`, looks at what they look after also where nothing has; and takes in what they
    /// have moved, if `listens`. What went wrong, in words. Blocks.
    fn tend_custodians(&self, looks: bool, listens: bool) -> String {
        let Some(own) = self.with_volume().filter(|_| !self.config.lock().recovering) else { return String::new() };
        let mut troubles = Vec::new();
        for engine in own.engines() {
            let volume = engine.handle();
            let told = volume.entrust(looks).and_then(|troubles| {
                if listens && !engine.is_held() {
                    let taken = volume.hear_custodians(&own.vfs)?;
                    if taken > 0 {
                        tracing::info!(volume = %volume.id.short(), rows = taken, "custodians have made rows anew");
                    }
                }
                Ok(troubles)
            });
            match told {
                Ok(some) => troubles.extend(some.into_iter().map(|(name, error)| format!("{name}: {error}"))),
                Err(error) => troubles.push(error.to_string()),
            }
        }
        troubles.dedup();
        troubles.join("; ")
    }

    /// Both sides of it.
    pub(crate) fn list_custodians(&self) -> api::Custodians {
        api::Custodians {
            mine: self.custodians().iter().map(info).collect(),
            served: self.serving.list().into_iter().map(served).collect(),
        }
    }

    /// Gives out a ticket. Blocks.
    pub(crate) fn offer_custody(&self, request: &api::OfferCustodyRequest) -> Result<api::CustodyOffer, Failure> {
        let (ticket, given) = self.serving.offer(&request.name)?;
        Ok(api::CustodyOffer { ticket: ticket.text(), given: served(given) })
    }

    /// Takes a ticket back. Blocks.
    pub(crate) fn withdraw_custody(&self, request: &api::CustodianRequest) -> Result<api::ServedTicket, Failure> {
        self.serving.withdraw(&request.name).map(served)
    }

    /// Appoints whoever gave out a ticket. Blocks.
    pub(crate) fn add_custodian(&self, request: &api::AddCustodianRequest) -> Result<api::CustodianInfo, Failure> {
        let ticket = Ticket::parse(&request.ticket)?;
        if !is_name(&request.name, NAME_MAX) {
            let why = format!("a custodian's name has between 1 and {NAME_MAX} bytes, and no blanks around it");
            return Err(Failure::new(Kind::Usage, why));
        }
        let own = self.own()?;
        if ticket.peer == self.mesh.peer_id() {
            return Err(Failure::new(
                Kind::Usage,
                "this is a ticket of this very agent: what it knows needs no custodian",
            )
            .hint("run `hn custodian offer` on another machine"));
        }
        let custodian = Custodian::new(&ticket, &request.name, clock(Hlc::default()));
        let tag = custodian.tag();
        own.volume.identity.keystore().change(|keystore| {
            let there = named(&keystore.custodians);
            let failure = |kind, why: String| Err(Failure::new(kind, why).hint("`hn custodian` shows them"));
            if there.iter().any(|other| other.tag() == tag) {
                return failure(Kind::Usage, "whoever gave out this ticket is a custodian already".into());
            }
            if there.iter().any(|other| other.name == request.name) {
                return failure(Kind::Usage, format!("a custodian is called {} already", request.name));
            }
            if there.len() >= CUSTODIANS_MAX {
                return failure(Kind::CantCreate, format!("there are {CUSTODIANS_MAX} custodians: remove one first"));
            }
            keystore.custodians.retain(|other| other.tag() != tag);
            keystore.custodians.push(custodian.clone());
            Ok(())
        })??;
        self.keep_on_the_mesh()?;
        self.spare_custodians();
        let trouble = self.tend_custodians(true, false);
        if !trouble.is_empty() {
            tracing::warn!(trouble, "a custodian is told later where segments are");
        }
        Ok(info(&custodian))
    }

    /// Takes in what a custodian has moved, and has it look after nothing any more. Blocks.
    pub(crate) fn remove_custodian(&self, request: &api::CustodianRequest) -> Result<api::CustodianInfo, Failure> {
        let own = self.own()?;
        let meant = self.custodians().into_iter().find(|one| one.name == request.name || info(one).id == request.name);
        let meant = meant.ok_or_else(|| {
            Failure::new(Kind::NoInput, format!("no custodian is called {}", request.name))
                .hint("`hn custodian` shows them")
        })?;
        for engine in own.engines() {
            // What it has moved is on the mesh for as long as its leases run; taken in now it stays.
            engine.handle().hear_custodians(&own.vfs).map_err(port_failure)?;
        }
        let tag = meant.tag();
        own.volume.identity.keystore().change(|keystore| {
            for one in keystore.custodians.iter_mut().filter(|one| one.tag() == tag) {
                (one.is_removed, one.changed) = (true, clock(one.changed));
            }
        })?;
        self.keep_on_the_mesh()?;
        self.spare_custodians();
        if let Err(error) = self.dismiss(&meant) {
            tracing::warn!(%error, "the custodian does not hear of it, and looks after what it knows until its ticket is withdrawn");
        }
        Ok(info(&meant))
    }

    fn dismiss(&self, custodian: &Custodian) -> Result<(), PortError> {
        let peers = self.own().map_err(|failure| PortError::NotFound(failure.to_string()))?.volume.peers.clone();
        let place = custodian.appointment().wards();
        let after = peers.lookup(place.record_key())?.map_or(0, |record| record.sequence);
        let bytes = hypernet_core::codec::encode(&Wards::default());
        let record = crate::identity::places::put(&peers, &place, &place.sealing_key(), bytes, after)?;
        peers.publish(record, peers.keepers(), "that a custodian is one no more")
    }
}
