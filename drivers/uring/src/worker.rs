//! A helper thread that does what would block: jobs in, results out, both bounded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_queue::ArrayQueue;

use crate::event::Event;

struct Shared<J, D> {
    jobs: ArrayQueue<J>,
    done: ArrayQueue<D>,
    stop: AtomicBool,
    event: Arc<Event>,
}

/// A thread that runs one job after another. Jobs not yet run when the worker is dropped are run first.
pub(crate) struct Worker<J, D> {
    shared: Arc<Shared<J, D>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static, D: Send + 'static> Worker<J, D> {
    /// Starts the thread. At most `depth` jobs may be given out and not yet taken back as results.
    pub(crate) fn start(
        depth: usize,
        event: Arc<Event>,
        mut run: impl FnMut(J) -> D + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            jobs: ArrayQueue::new(depth),
            done: ArrayQueue::new(depth),
            stop: AtomicBool::new(false),
            event,
        });
        let far = shared.clone();
        let thread = thread::Builder::new()
            .name("ionian-files".into())
            .spawn(move || {
                loop {
                    while let Some(job) = far.jobs.pop() {
                        let pushed = far.done.push(run(job));
                        assert!(pushed.is_ok(), "no more results than jobs given out");
                        far.event.ring_if_armed();
                    }
                    if far.stop.load(Ordering::Acquire) {
                        return;
                    }
                    // An unpark since the last one, even before this line, makes it return at once.
                    thread::park();
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Gives a job out. The caller keeps to the depth.
    pub(crate) fn push(&self, job: J) {
        let pushed = self.shared.jobs.push(job);
        assert!(pushed.is_ok(), "the caller keeps to the depth");
    }

    /// Makes sure that the thread looks at what was pushed.
    pub(crate) fn kick(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    pub(crate) fn pop(&self) -> Option<D> {
        self.shared.done.pop()
    }

    pub(crate) fn has_results(&self) -> bool {
        !self.shared.done.is_empty()
    }
}

impl<J, D> Drop for Worker<J, D> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread has been reported by its own hook.
            let _ = thread.join();
        }
    }
}

impl<J, D> std::fmt::Debug for Worker<J, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("jobs", &self.shared.jobs.len())
            .finish_non_exhaustive()
    }
}
