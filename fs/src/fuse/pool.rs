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
    /// Jobs that wait or run. There are as many threads as that, up to the limit: a job never waits for another's
    /// end while a thread could be had.
    load: Arc<AtomicUsize>,
    threads: AtomicUsize,
}

impl Pool {
    pub(super) fn new() -> Self {
        let (jobs, queue) = bounded(FS_WORK_QUEUE);
        Self { jobs, queue, load: Arc::default(), threads: AtomicUsize::new(0) }
    }

    /// Runs a job on a thread that may wait. When too many wait already it is dropped, and with it its reply, which
    /// answers the caller with EIO.
    pub(super) fn run(&self, job: Job) {
        let load = self.load.fetch_add(1, Ordering::SeqCst) + 1;
        if load > self.threads.load(Ordering::SeqCst) {
            self.grow();
        }
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.load.fetch_sub(1, Ordering::SeqCst);
                tracing::warn!("too many requests wait for the mesh or the disk: one was refused");
            }
        }
    }

    fn grow(&self) {
        let number = self.threads.fetch_add(1, Ordering::SeqCst);
        if number >= FS_WORKERS_MAX {
            self.threads.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let (queue, load) = (self.queue.clone(), self.load.clone());
        let work = move || {
            for job in queue {
                super::handler::guarded(job);
                load.fetch_sub(1, Ordering::SeqCst);
            }
        };
        if let Err(error) = std::thread::Builder::new().name(format!("hn-fs-{number}")).spawn(work) {
            self.threads.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%error, "no thread for requests that wait");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn jobs_that_wait_for_one_another_all_run() {
        // Each job ends only when all of them run, whoever hands them in.
        for _ in 0..20 {
            let (pool, barrier) = (Pool::new(), Arc::new(Barrier::new(FS_WORKERS_MAX + 1)));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..FS_WORKERS_MAX / 4 {
                            let barrier = barrier.clone();
                            pool.run(Box::new(move || {
                                barrier.wait();
                            }));
                        }
                    });
                }
            });
            barrier.wait();
        }
    }
}
