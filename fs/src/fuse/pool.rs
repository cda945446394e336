//! Threads for requests that wait. They start when they are needed.
//!
//! There is a pool for each thing that is waited for, so that the queue of one is never in the way of another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::limits::{FS_WORK_QUEUE, FS_WORKERS_MAX};
use parking_lot::{Condvar, Mutex};

/// A request that waits. Dropping it answers its caller with EIO.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The waiting room and its threads, which end with it.
pub(super) struct Pool(Arc<Room>);

struct Room {
    /// What is waited for.
    what: &'static str,
    /// How old a job may be when its turn comes; older ones are dropped, whether or not a thread is free.
    within: Option<Duration>,
    state: Mutex<State>,
    /// A job came, or the end.
    came: Condvar,
    /// The oldest job is another one, or the end came.
    oldest: Condvar,
}

#[derive(Default)]
struct State {
    /// Each with the time at which its request arrived, oldest first.
    jobs: VecDeque<(Instant, Job)>,
    threads: usize,
    /// Of these, the ones that have nothing to do.
    idle: usize,
    /// A thread sees to it that jobs grow no older than they may.
    watched: bool,
    over: bool,
}

impl Pool {
    /// A pool for what waits for `what`, in which no job waits longer than `within` for its turn.
    pub(super) fn new(what: &'static str, within: Option<Duration>) -> Self {
        Self(Arc::new(Room { what, within, state: Mutex::default(), came: Condvar::new(), oldest: Condvar::new() }))
    }

    /// Runs a job on a thread that may wait. It is dropped when too many wait already.
    pub(super) fn run(&self, arrived: Instant, job: Job) {
        let room = &self.0;
        let mut state = room.state.lock();
        if state.jobs.len() >= FS_WORK_QUEUE {
            drop(state);
            tracing::warn!(what = room.what, "too many filesystem requests wait: one was refused");
            return drop(job);
        }
        // Nearly always at the end: a request may have waited for something else before.
        let at = state.jobs.partition_point(|(before, _)| *before <= arrived);
        state.jobs.insert(at, (arrived, job));
        if at == 0 {
            room.oldest.notify_one();
        }
        // A job waits for another's end only when no thread can be had.
        if state.jobs.len() <= state.idle {
            room.came.notify_one();
        } else if state.threads < FS_WORKERS_MAX {
            room.start(&mut state, Role::Worker);
        } else if room.within.is_some() && !state.watched {
            room.start(&mut state, Role::Watch);
        }
        if state.threads == 0 {
            let hopeless = std::mem::take(&mut state.jobs);
            drop(state);
            drop(hopeless);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let unheard = {
            let mut state = self.0.state.lock();
            state.over = true;
            std::mem::take(&mut state.jobs)
        };
        self.0.came.notify_all();
        self.0.oldest.notify_all();
        drop(unheard);
    }
}

#[derive(Clone, Copy)]
enum Role {
    Worker,
    Watch,
}

impl Room {
    fn start(self: &Arc<Self>, state: &mut State, role: Role) {
        let (room, number) = (self.clone(), state.threads);
        let (name, work): (_, Job) = match role {
            Role::Worker => (format!("hn-{}-{number}", self.what), Box::new(move || room.work())),
            Role::Watch => (format!("hn-{}-late", self.what), Box::new(move || room.watch())),
        };
        match std::thread::Builder::new().name(name).spawn(work) {
            Ok(_) => match role {
                Role::Worker => state.threads += 1,
                Role::Watch => state.watched = true,
            },
            Err(error) => tracing::warn!(%error, what = self.what, "no thread for requests that wait"),
        }
    }

    fn is_late(&self, arrived: Instant) -> bool {
        self.within.is_some_and(|within| arrived.elapsed() >= within)
    }

    fn work(&self) {
        let mut state = self.state.lock();
        while !state.over {
            let Some((arrived, job)) = state.jobs.pop_front() else {
                state.idle += 1;
                self.came.wait(&mut state);
                state.idle -= 1;
                continue;
            };
            drop(state);
            if self.is_late(arrived) {
                self.refuse(vec![job]);
            } else {
                super::handler::guarded(job);
            }
            state = self.state.lock();
        }
    }

    /// Drops what has waited too long while all threads are busy.
    fn watch(&self) {
        let Some(within) = self.within else { return };
        let mut state = self.state.lock();
        while !state.over {
            match state.jobs.front() {
                None => self.oldest.wait(&mut state),
                Some((arrived, _)) if !self.is_late(*arrived) => {
                    let until = *arrived + within;
                    self.oldest.wait_until(&mut state, until);
                }
                Some(_) => {
                    let late = state.jobs.partition_point(|(arrived, _)| self.is_late(*arrived));
                    let late = state.jobs.drain(..late).map(|(_, job)| job).collect();
                    drop(state);
                    self.refuse(late);
                    state = self.state.lock();
                }
            }
        }
    }

    fn refuse(&self, late: Vec<Job>) {
        tracing::warn!(what = self.what, requests = late.len(), "filesystem requests waited too long for their turn");
        // Each answers its caller.
        super::handler::guarded(|| drop(late));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use crossbeam_channel::{Receiver, RecvError, Sender, bounded};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn jobs_that_wait_for_one_another_all_run() {
        // Each job ends only when all of them run, whoever hands them in.
        for _ in 0..20 {
            let (pool, barrier) = (Pool::new("test", None), Arc::new(Barrier::new(FS_WORKERS_MAX + 1)));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..FS_WORKERS_MAX / 4 {
                            let barrier = barrier.clone();
                            pool.run(
                                Instant::now(),
                                Box::new(move || {
                                    barrier.wait();
                                }),
                            );
                        }
                    });
                }
            });
            barrier.wait();
        }
    }

    /// A pool all of whose threads are busy until the sender is dropped.
    fn busy(within: Duration) -> (Pool, Sender<()>) {
        let pool = Pool::new("test", Some(within));
        let (hold, held) = bounded::<()>(0);
        let (started, start) = bounded(FS_WORKERS_MAX);
        for _ in 0..FS_WORKERS_MAX {
            let (held, started) = (held.clone(), started.clone());
            pool.run(
                Instant::now(),
                Box::new(move || {
                    started.send(()).unwrap();
                    let _ = held.recv();
                }),
            );
        }
        (0..FS_WORKERS_MAX).for_each(|_| start.recv().unwrap());
        (pool, hold)
    }

    /// A job, and what hears of it: a word when it runs, an error when it is dropped.
    fn heard() -> (Job, Receiver<()>) {
        let (tell, hear) = bounded(1);
        (Box::new(move || tell.send(()).unwrap()), hear)
    }

    #[test]
    fn a_job_whose_deadline_passes_in_the_queue_is_dropped_though_no_thread_is_free() {
        let (pool, hold) = busy(HOUR);
        let long_ago = Instant::now().checked_sub(2 * HOUR).unwrap();
        let (in_time, runs) = heard();
        pool.run(Instant::now(), in_time);
        let (late, dropped) = heard();
        pool.run(long_ago, late);
        assert_eq!(dropped.recv(), Err(RecvError));
        drop(hold);
        assert_eq!(runs.recv(), Ok(()), "what still had time ran");
        // And with threads to spare.
        let (late, dropped) = heard();
        pool.run(long_ago, late);
        assert_eq!(dropped.recv(), Err(RecvError));
    }

    #[test]
    fn the_queue_is_bounded() {
        let (pool, hold) = busy(HOUR);
        let mut waiting = Vec::new();
        for _ in 0..FS_WORK_QUEUE {
            let (job, runs) = heard();
            pool.run(Instant::now(), job);
            waiting.push(runs);
        }
        let (job, dropped) = heard();
        pool.run(Instant::now(), job);
        assert_eq!(dropped.recv(), Err(RecvError));
        drop(hold);
        assert!(waiting.iter().all(|runs| runs.recv() == Ok(())));
    }

    #[test]
    fn the_end_of_the_pool_answers_whoever_waits() {
        let (pool, hold) = busy(HOUR);
        let (job, dropped) = heard();
        pool.run(Instant::now(), job);
        drop(pool);
        assert_eq!(dropped.recv(), Err(RecvError));
        drop(hold);
    }

    #[test]
    fn a_job_that_panics_takes_no_thread_with_it() {
        let pool = Pool::new("test", None);
        for _ in 0..2 * FS_WORKERS_MAX {
            pool.run(Instant::now(), Box::new(|| panic!("on purpose")));
        }
        let (job, runs) = heard();
        pool.run(Instant::now(), job);
        assert_eq!(runs.recv(), Ok(()));
    }
}
