//! Threads for requests that wait: for the mesh, or for the disk to sync. They start when they are needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use hypernet_core::limits::{FS_WORK_QUEUE, FS_WORKERS_MAX};

/// A request that waits.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The waiting room and its threads, which end with it.
pub(super) struct Pool {
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    idle: Arc<AtomicUsize>,
    threads: AtomicUsize,
}

impl Pool {
    pub(super) fn new() -> Self {
        let (jobs, queue) = bounded(FS_WORK_QUEUE);
        Self { jobs, queue, idle: Arc::default(), threads: AtomicUsize::new(0) }
    }

    /// Runs a job on a thread that may wait. When too many wait already it is dropped, and with it its reply, which
    /// answers the caller with EIO.
    pub(super) fn run(&self, job: Job) {
        if self.idle.load(Ordering::Acquire) <= self.queue.len() {
            self.grow();
        }
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                tracing::warn!("too many requests wait for the mesh or the disk: one was refused");
            }
        }
    }

    fn grow(&self) {
        let number = self.threads.fetch_add(1, Ordering::Relaxed);
        if number >= FS_WORKERS_MAX {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (queue, idle) = (self.queue.clone(), self.idle.clone());
        idle.fetch_add(1, Ordering::Release);
        let work = move || {
            for job in queue {
                idle.fetch_sub(1, Ordering::AcqRel);
                super::handler::guarded(job);
                idle.fetch_add(1, Ordering::Release);
            }
        };
        if let Err(error) = std::thread::Builder::new().name(format!("hn-fs-{number}")).spawn(work) {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            self.idle.fetch_sub(1, Ordering::Release);
            tracing::warn!(%error, "no thread for requests that wait");
        }
    }
}
