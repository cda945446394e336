//! What the owner has yet to hear.
//!
//! Invariant: outcomes are never dropped (they are bounded by the open commands); news are, beyond [`MESH_EVENTS`].

use hypernet_core::limits::{MESH_EVENTS, MESH_SENDS_MAX};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::debug;

use super::VecDeque;
use crate::MeshEvent;

/// At this many events nothing that could add to them is taken in any more.
const JAMMED: usize = MESH_EVENTS + MESH_SENDS_MAX;

pub(super) struct Outbox {
    waiting: VecDeque<MeshEvent>,
    to: mpsc::Sender<MeshEvent>,
}

impl Outbox {
    pub(super) fn new(to: mpsc::Sender<MeshEvent>) -> Self {
        Self { waiting: VecDeque::new(), to }
    }

    /// Tells what must be told.
    pub(super) fn tell(&mut self, event: MeshEvent) {
        self.waiting.push_back(event);
    }

    /// Tells what will be repeated, or can be missed, unless there is too much to tell.
    pub(super) fn tell_if_room(&mut self, event: MeshEvent) {
        if self.is_full() {
            debug!("the events are not read fast enough; one was dropped");
        } else {
            self.tell(event);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nothing that can be refused should be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MESH_EVENTS
    }

    /// Nothing at all should be taken in.
    pub(super) fn is_jammed(&self) -> bool {
        self.waiting.len() >= JAMMED
    }

    /// Hands over what there is room for; `false` when nobody listens any more.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            match self.to.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        !self.to.is_closed()
    }

    /// Waits until there is room for one.
    pub(super) async fn room(&self) {
        // An error means that nobody listens, which the next flush finds out.
        let _ = self.to.reserve().await;
    }

    /// Waits until nobody listens.
    pub(super) async fn closed(&self) {
        self.to.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypernet_core::id::PeerId;

    fn event(n: u64) -> MeshEvent {
        MeshEvent::Closest { id: n, peers: Vec::new() }
    }

    #[test]
    fn outcomes_wait_in_order_and_news_are_dropped_when_there_is_too_much() {
        let (to, mut from) = mpsc::channel(2);
        let mut outbox = Outbox::new(to);
        for n in 0..MESH_EVENTS as u64 {
            outbox.tell(event(n));
        }
        assert!(outbox.is_full() && !outbox.is_jammed());
        outbox.tell_if_room(MeshEvent::Disconnected { peer: PeerId([0; 32]) });
        outbox.tell(event(MESH_EVENTS as u64));
        let mut heard = Vec::new();
        while !outbox.is_empty() {
            assert!(outbox.flush());
            while let Ok(event) = from.try_recv() {
                heard.push(event);
            }
        }
        assert_eq!(heard, (0..=MESH_EVENTS as u64).map(event).collect::<Vec<_>>());
        drop(from);
        assert!(!outbox.flush());
    }
}
