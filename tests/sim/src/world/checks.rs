//! What must hold at any time, whatever the commands are.

use super::{Manner, World};

/// A request must be answered within this: longer than any disk takes and any node is frozen.
const ANSWER_WITHIN: u64 = 60_000;

impl World {
    /// No plaintext crosses a port.
    pub(super) fn check_sealed(&mut self, at: usize, place: &str, bytes: &[u8]) {
        let marker = &self.book.marker;
        let first = marker[0];
        let found = bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == first)
            .any(|(i, _)| bytes.get(i..i + marker.len()) == Some(marker.as_slice()));
        if found {
            self.violate(|| format!("plaintext of someone is in {place} of node {at}"));
        }
    }

    /// What was acknowledged is on stable storage, whole in k rows at the least, whoever is down.
    pub(super) fn check_recoverable(&mut self) {
        let mut wrong = None;
        for (i, lot) in self.book.lots.iter().enumerate() {
            let Some(placement) = &lot.placement else { continue };
            let mut whole = 0;
            let mut rotten = 0;
            for holder in &placement.holders {
                let Some(host) = self.by_id.get(&holder.peer).map(|i| &self.hosts[*i]) else { continue };
                let shard = &placement.segment.rows[usize::from(holder.row)];
                match host.disk.shards.get(shard) {
                    _ if host.manner != Manner::Honest => {}
                    Some(kept) if kept.damaged => rotten += 1,
                    Some(_) => whole += 1,
                    None => wrong = Some(format!("row {} of segment {i} was acknowledged and is gone", holder.row)),
                }
            }
            if rotten > lot.rotten {
                wrong = Some(format!("{rotten} rows of segment {i} are torn though they were acknowledged"));
            }
            if whole < usize::from(placement.segment.k) {
                wrong = Some(format!("segment {i} was acknowledged and {whole} rows of it are left"));
            }
        }
        if let Some(wrong) = wrong {
            self.violate(|| wrong);
        }
    }

    /// Every command ends within its deadline.
    pub(super) fn check_overdue(&mut self) {
        let overdue = self.book.tasks.values().find(|task| self.now > task.deadline && self.hosts[task.node].up());
        if let Some(overdue) = overdue.map(|task| format!("node {} never ended {:?}", task.node, task.kind)) {
            self.violate(|| overdue);
        }
    }

    /// At the end nothing is open that should have ended.
    pub(super) fn settle(&mut self) {
        self.check_overdue();
        self.check_recoverable();
        if let Some(task) = self.book.tasks.values().next().map(|task| format!("{:?}", task.kind)) {
            self.violate(|| format!("at the end there is still a command: {task}"));
        }
        let forgotten = self.inbound.values().find(|inbound| self.now - inbound.since > ANSWER_WITHIN);
        if let Some(at) = forgotten.map(|inbound| inbound.at) {
            self.violate(|| format!("node {at} forgot to answer a request"));
        }
        let silent = self.hosts.iter().position(|host| {
            host.node.as_ref().is_some_and(|node| node.records_held() != host.kept.len()) || !host.unserved.is_empty()
        });
        if let Some(at) = silent {
            self.violate(|| format!("at the end node {at} serves other records than it holds"));
        }
        let held = self.hosts.iter().filter_map(|host| host.node.as_ref()).map(|node| node.records_held()).max();
        if held.is_some_and(|held| held > hypernet_core::limits::RECORDS_HELD_MAX) {
            self.violate(|| "a node holds more records than it may".into());
        }
    }
}
