//! Records in the DHT.
//!
//! Kademlia only says where a record belongs, and looks it up. Records are handed over by the shard protocol, whose
//! answer means that they are verified and on stable storage; Kademlia acknowledges a put before its receiver has looked
//! at it.
//!
//! Invariant: nothing a stranger sends gets into the store: [`Driver::keep_record`] is the only way in, and a peer that
//! puts or provides something by Kademlia breaks the protocol.

use hypernet_core::limits::{MESH_ADDRS_PER_PEER, MESH_RECORD_ANSWERS_MAX, RECORD_MAX};
use libp2p::kad::store::RecordStore;
use libp2p::kad::{
    self, GetClosestPeersError, GetClosestPeersOk, GetRecordOk, InboundRequest, QueryResult, Record,
    RecordKey as KadKey,
};

use super::*;

/// Looking for a record, or for where it belongs, takes no longer, whoever is gone.
const RECORD_STEP_TIMEOUT: Duration = Duration::from_secs(4);

/// What a query of ours is for.
pub(super) enum Query {
    /// Looking up our own neighbourhood, which connects us to it.
    Refresh,
    /// Finding the peers closest to a key.
    Closest { id: u64 },
    /// Asking for a record.
    Get { id: u64, key: RecordKey, records: Vec<Vec<u8>> },
}

fn kad_key(key: &RecordKey) -> KadKey {
    KadKey::new(key.as_bytes())
}

impl Driver {
    pub(super) fn find_closest(&mut self, id: u64, key: &RecordKey) {
        let query = self.swarm.behaviour_mut().kad.get_closest_peers(key.as_bytes().to_vec());
        self.expect(query, Query::Closest { id });
    }

    /// Remembers what a query is for. Peers that are gone keep a query waiting for the timeout of a handshake each, so
    /// each step ends with what has come by then.
    fn expect(&mut self, query: kad::QueryId, purpose: Query) {
        self.queries.insert(query, purpose);
        self.timers.set(Instant::now() + RECORD_STEP_TIMEOUT, Timer::Enough(query));
    }

    /// Ends a query that is still under way; its result is what it has so far.
    pub(super) fn enough(&mut self, query: kad::QueryId) {
        if self.queries.contains_key(&query)
            && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&query)
        {
            query.finish();
        }
    }

    pub(super) fn get_record(&mut self, id: u64, key: RecordKey) {
        let query = self.swarm.behaviour_mut().kad.get_record(kad_key(&key));
        self.expect(query, Query::Get { id, key, records: Vec::new() });
    }

    pub(super) fn keep_record(&mut self, key: RecordKey, bytes: Vec<u8>) {
        let kept = self.swarm.behaviour_mut().kad.store_mut().put(Record::new(kad_key(&key), bytes));
        if let Err(error) = kept {
            warn!(%key, %error, "a record cannot be kept");
        }
    }

    pub(super) fn forget_record(&mut self, key: RecordKey) {
        self.swarm.behaviour_mut().kad.store_mut().remove(&kad_key(&key));
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request: InboundRequest::PutRecord { source, .. } } => {
                self.misbehaved(&source, "put a record by Kademlia".to_owned());
            }
            // Kademlia takes it only from the provider itself.
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                self.misbehaved(&record.provider, "announced itself as a provider by Kademlia".to_owned());
            }
            kad::Event::OutboundQueryProgressed { id, result, step, stats } => {
                self.on_query(id, result, step.last, stats.num_successes() as usize);
            }
            _ => {}
        }
    }

    fn on_query(&mut self, query: kad::QueryId, result: QueryResult, last: bool, answers: usize) {
        if let (Some(Query::Get { key, records, .. }), QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found)))) =
            (self.queries.get_mut(&query), &result)
        {
            let record = &found.record;
            if record.key.as_ref() == key.as_bytes().as_slice()
                && record.value.len() <= RECORD_MAX
                && records.len() < MESH_RECORD_ANSWERS_MAX
                && !records.contains(&record.value)
            {
                records.push(record.value.clone());
            }
        }
        if !last {
            return;
        }
        match (self.queries.remove(&query), result) {
            (Some(Query::Closest { id }), QueryResult::GetClosestPeers(found)) => {
                let (Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. })) = found;
                let mut closest = Vec::new();
                for info in peers.into_iter().filter(|info| info.peer_id != self.me) {
                    let Some(id) = peer_id::from_libp2p(&info.peer_id) else { continue };
                    for addr in info.addrs.iter().take(MESH_ADDRS_PER_PEER).map(|addr| address::split(addr).0) {
                        if address::transport(&addr).is_some() && !self.swarm.is_connected(&info.peer_id) {
                            self.book.add(info.peer_id, addr);
                        }
                    }
                    closest.push(id);
                }
                self.outbox.tell(MeshEvent::Closest { id, peers: closest });
            }
            (Some(Query::Get { id, records, .. }), _) => {
                self.outbox.tell(MeshEvent::RecordFound { id, records, answers });
            }
            (Some(Query::Refresh), _) => self.refresh.running = false,
            // Not a query of ours, or a result of another kind, which libp2p does not send.
            (Some(Query::Closest { id }), _) => self.outbox.tell(MeshEvent::Closest { id, peers: Vec::new() }),
            (None, _) => {}
        }
    }

    /// Looks up our neighbourhood.
    pub(super) fn look_around(&mut self) {
        let me = self.me;
        let query = self.swarm.behaviour_mut().kad.get_closest_peers(me);
        self.queries.insert(query, Query::Refresh);
    }
}
