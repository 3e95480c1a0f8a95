//! The threads on which an instance's calls run, and their deadlines.
//!
//! A plugin's call blocks, and nothing can stop it but the plugin. So a call that passes its deadline is *abandoned*:
//! its caller gets a timeout, its thread stays in the call with all that the call uses (buffer, handle, instance), and
//! another thread may take its place. There are at most `max_calls` threads for calls, one for scans, one for a watch, and
//! as many more as [`ABANDONED_MAX`]; with that many abandoned calls the pool takes no new ones until some return.
//!
//! A watch has no deadline while it runs, but one from the moment when it is cancelled.
//!
//! Deadlines are looked at by whoever waits: a caller for its own call, and callers in the queue for those that keep
//! them waiting. A call whose caller has gone keeps its place until its deadline; so a client that opens and drops
//! quickly makes no threads.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use recgate_plugin_api::{Error, ErrorCode};
use tokio::sync::{Notify, oneshot};

/// Abandoned calls that make a source unavailable.
pub(super) const ABANDONED_MAX: usize = 8;
/// Calls that may wait for a thread, some hundred bytes each: as many as a thousand sessions that all begin at once.
/// How long they wait is bounded by their deadline.
const QUEUE_MAX: usize = 4096;
/// The longest deadline.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A thread without work for this long ends.
const IDLE: Duration = Duration::from_secs(10);

/// Which threads a call runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Short calls.
    Calls,
    /// Scans: one at a time, so that they never take the threads of reads.
    Scans,
    /// A watch: one at a time, without a deadline until it is cancelled.
    Watch,
}

/// See the module.
pub(super) struct Pool {
    source: Arc<str>,
    timeout: Duration,
    state: Mutex<State>,
    calls_wake: Condvar,
    scans_wake: Condvar,
    watch_wake: Condvar,
}

struct State {
    calls: LaneState,
    scans: LaneState,
    watch: LaneState,
    /// Calls that a thread is in.
    running: HashMap<u64, Arc<Call>>,
    next_number: u64,
    /// How many of `running` are abandoned.
    abandoned: usize,
    /// All threads, abandoned ones included.
    threads: usize,
    /// Threads end when there is nothing left to do.
    closed: bool,
}

struct LaneState {
    queue: VecDeque<Job>,
    /// Threads that aren't in abandoned calls.
    threads: usize,
    idle: usize,
    most: usize,
}

/// What a thread does with a call.
type Body = Box<dyn FnOnce(&Arc<Call>) + Send>;

struct Job {
    call: Arc<Call>,
    run: Body,
}

/// One call, as its thread and its caller see it.
pub(super) struct Call {
    lane: Lane,
    timeout: Duration,
    /// What deadlines count from.
    epoch: Instant,
    /// Milliseconds after `epoch`; `u64::MAX` is none.
    deadline: AtomicU64,
    started: AtomicBool,
    cancelled: AtomicBool,
    abandoned: AtomicBool,
    cancel: Notify,
}

thread_local! {
    /// The source whose pool this thread belongs to.
    static SOURCE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// The source for which this thread makes calls, where it is a thread of a pool.
pub(super) fn current_source() -> Option<Arc<str>> {
    SOURCE.try_with(|source| source.borrow().clone()).ok().flatten()
}

/// How many calls there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Without a watch, which is meant to run.
    pub(super) running: usize,
    pub(super) abandoned: usize,
    pub(super) closed: bool,
}

impl Pool {
    pub(super) fn new(source: Arc<str>, timeout: Duration, max_calls: usize) -> Arc<Self> {
        let lane = |most| LaneState { queue: VecDeque::new(), threads: 0, idle: 0, most };
        Arc::new(Self {
            source,
            timeout: timeout.min(TIMEOUT_MAX),
            state: Mutex::new(State {
                calls: lane(max_calls.max(1)),
                scans: lane(1),
                watch: lane(1),
                running: HashMap::new(),
                next_number: 0,
                abandoned: 0,
                threads: 0,
                closed: false,
            }),
            calls_wake: Condvar::new(),
            scans_wake: Condvar::new(),
            watch_wake: Condvar::new(),
        })
    }

    /// Runs `body` on a thread and waits for its result, at most for the timeout after it began (for a scan: after its
    /// last progress), and at most twice as long for it to begin: calls that hang when it comes have been abandoned, and
    /// replaced, by then. Dropping the future cancels the call.
    pub(super) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        lane: Lane,
        what: &'static str,
        body: impl FnOnce(&Arc<Call>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, mut receiver) = oneshot::channel();
        let run = Box::new(move |call: &Arc<Call>| {
            // A caller that has gone leaves the result to be dropped here.
            let _ = sender.send(body(call));
        });
        let call = self.submit(lane, run)?;
        let _cancel_on_drop = CancelOnDrop { pool: self, call: &call };
        let patience = self.timeout * 2;
        let begin_until = Instant::now() + patience;
        loop {
            let wake = self.next_look(&call, begin_until);
            tokio::select! {
                biased;
                result = &mut receiver => return result.unwrap_or_else(|_| {
                    Err(Error::new(ErrorCode::Unavailable, format!("{what} did not run: the source is closing")))
                }),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            let now = Instant::now();
            if call.is_abandoned() || call.is_late(now) {
                self.reap();
                let message = format!(
                    "{what} made no progress for {:?}; the call is abandoned and keeps its thread until the plugin \
                     returns",
                    self.timeout
                );
                return Err(Error::new(ErrorCode::Timeout, message));
            }
            if !call.started.load(Ordering::Acquire) && now >= begin_until {
                let message = format!("{what} waited {patience:?} for other calls of the source to end");
                return Err(Error::new(ErrorCode::Busy, message));
            }
        }
    }

    /// Runs `body` some time, without a caller who waits: for closing, which must not be refused. The number of such
    /// jobs is bounded by that of open handles.
    pub(super) fn run_later(self: &Arc<Self>, body: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        let call = Call::new(Lane::Calls, self.timeout);
        state.calls.queue.push_back(Job { call, run: Box::new(move |_| body()) });
        self.reap_locked(&mut state);
        if let Err(e) = self.ensure_thread(&mut state, Lane::Calls) {
            tracing::error!(
                source = &*self.source,
                "can't start a thread to close what the plugin has open: {e}"
            );
        }
    }

    /// Runs a last job, then ends all threads.
    pub(super) fn finish(self: &Arc<Self>, body: impl FnOnce() + Send + 'static) {
        self.run_later(body);
        self.close();
    }

    /// Takes no more calls, and cancels those that run.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for call in state.running.values() {
            call.cancel();
        }
        drop(state);
        self.calls_wake.notify_all();
        self.scans_wake.notify_all();
        self.watch_wake.notify_all();
    }

    pub(super) fn load(self: &Arc<Self>) -> Load {
        let mut state = self.lock();
        self.reap_locked(&mut state);
        let counts = |call: &&Arc<Call>| call.lane != Lane::Watch && !call.is_abandoned();
        let running = state.running.values().filter(counts).count();
        Load { running, abandoned: state.abandoned, closed: state.closed }
    }

    fn submit(self: &Arc<Self>, lane: Lane, run: Body) -> Result<Arc<Call>, Error> {
        let call = Call::new(lane, self.timeout);
        let mut state = self.lock();
        self.reap_locked(&mut state);
        let unavailable = |message: String| Err(Error::new(ErrorCode::Unavailable, message));
        if state.closed {
            return unavailable("the source is closing".to_owned());
        }
        if state.abandoned >= ABANDONED_MAX {
            return unavailable(format!(
                "{} calls are past their deadline and have not returned; no more are made until some do",
                state.abandoned
            ));
        }
        if state.lane(lane).queue.len() >= QUEUE_MAX {
            return Err(Error::new(ErrorCode::Busy, format!("{QUEUE_MAX} calls of the source wait already")));
        }
        state.lane(lane).queue.push_back(Job { call: Arc::clone(&call), run });
        if let Err(e) = self.ensure_thread(&mut state, lane) {
            let job = state.lane(lane).queue.pop_back();
            // What a job holds may come back here when it is dropped, so it is dropped without the lock.
            drop(state);
            drop(job);
            return unavailable(format!("can't start a thread: {e}"));
        }
        Ok(call)
    }

    /// Wakes a thread of the lane, or starts one. Fails only where the lane would have none.
    fn ensure_thread(self: &Arc<Self>, state: &mut State, lane: Lane) -> std::io::Result<()> {
        let cap = state.calls.most + state.scans.most + state.watch.most + ABANDONED_MAX;
        let threads = state.threads;
        let this = state.lane(lane);
        self.wake(lane).notify_one();
        if this.queue.len() <= this.idle || this.threads >= this.most || threads >= cap {
            return Ok(());
        }
        let pool = Arc::clone(self);
        // Linux shows 15 bytes of a thread's name.
        let name = format!("rg-{}", self.source);
        let name = name.get(..name.floor_char_boundary(15)).unwrap_or("rg").replace('\0', "");
        match thread::Builder::new().name(name).spawn(move || pool.work(lane)) {
            Ok(_) => {
                this.threads += 1;
                state.threads += 1;
                Ok(())
            }
            Err(_) if this.threads > 0 => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn work(self: Arc<Self>, lane: Lane) {
        SOURCE.set(Some(Arc::clone(&self.source)));
        let mut state = self.lock();
        loop {
            if let Some(job) = state.lane(lane).queue.pop_front() {
                if job.call.cancelled.load(Ordering::Acquire) {
                    drop(state);
                    drop(job);
                    state = self.lock();
                    continue;
                }
                let number = state.next_number;
                state.next_number = number.wrapping_add(1);
                let call = Arc::clone(&job.call);
                state.running.insert(number, Arc::clone(&call));
                call.begin();
                drop(state);
                let run = job.run;
                if catch_unwind(AssertUnwindSafe(|| run(&call))).is_err() {
                    tracing::error!(
                        source = &*self.source,
                        "a call of the plugin ended in a panic of the host"
                    );
                }
                state = self.lock();
                state.running.remove(&number);
                if call.is_abandoned() {
                    state.abandoned = state.abandoned.saturating_sub(1);
                    let this = state.lane(lane);
                    if this.threads >= this.most {
                        // Another thread has taken this one's place.
                        state.threads = state.threads.saturating_sub(1);
                        return;
                    }
                    this.threads += 1;
                }
                continue;
            }
            if state.closed {
                break;
            }
            state.lane(lane).idle += 1;
            let (woken, timeout) =
                self.wake(lane).wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.lane(lane).idle -= 1;
            if timeout.timed_out() && state.lane(lane).queue.is_empty() {
                break;
            }
        }
        state.lane(lane).threads -= 1;
        state.threads -= 1;
    }

    fn reap(self: &Arc<Self>) {
        self.reap_locked(&mut self.lock());
    }

    /// Marks calls that are past their deadline, and gives their places to others.
    fn reap_locked(self: &Arc<Self>, state: &mut State) {
        let now = Instant::now();
        let late: Vec<Arc<Call>> = state
            .running
            .values()
            .filter(|call| !call.is_abandoned() && call.is_late(now))
            .map(Arc::clone)
            .collect();
        let reaped = !late.is_empty();
        for call in late {
            call.abandoned.store(true, Ordering::Release);
            call.cancel();
            state.abandoned += 1;
            let lane = state.lane(call.lane);
            lane.threads = lane.threads.saturating_sub(1);
        }
        // Who waits has been woken for when it was queued, and needs another only where its place has become free.
        for lane in [Lane::Calls, Lane::Scans, Lane::Watch] {
            let this = state.lane(lane);
            if !this.queue.is_empty() && (reaped || this.threads == 0) {
                // Where no thread can be had, those who wait get a timeout.
                let _ = self.ensure_thread(state, lane);
            }
        }
    }

    /// When a waiting caller should look again.
    fn next_look(self: &Arc<Self>, call: &Call, begin_until: Instant) -> Instant {
        let now = Instant::now();
        let mut state = self.lock();
        self.reap_locked(&mut state);
        let far = now + self.timeout;
        let wake = if call.started.load(Ordering::Acquire) {
            call.deadline().unwrap_or(far).min(far)
        } else {
            let others = state.running.values().filter(|other| !other.is_abandoned());
            let earliest = others.filter_map(|other| other.deadline()).min().unwrap_or(far);
            earliest.min(begin_until)
        };
        // Deadlines count in whole milliseconds.
        wake.max(now + Duration::from_millis(1))
    }

    fn wake(&self, lane: Lane) -> &Condvar {
        match lane {
            Lane::Calls => &self.calls_wake,
            Lane::Scans => &self.scans_wake,
            Lane::Watch => &self.watch_wake,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut LaneState {
        match lane {
            Lane::Calls => &mut self.calls,
            Lane::Scans => &mut self.scans,
            Lane::Watch => &mut self.watch,
        }
    }
}

impl Call {
    fn new(lane: Lane, timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            lane,
            timeout,
            epoch: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
            started: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            cancel: Notify::new(),
        })
    }

    /// The plugin has told something: the deadline counts from now.
    pub(super) fn progress(&self) {
        self.deadline.store(self.deadline_from_now(), Ordering::Release);
    }

    fn deadline_from_now(&self) -> u64 {
        u64::try_from((self.epoch.elapsed() + self.timeout).as_millis()).unwrap_or(u64::MAX)
    }

    /// The host keeps the plugin waiting: no deadline until the next [`Call::progress`].
    pub(super) fn pause(&self) {
        self.deadline.store(u64::MAX, Ordering::Release);
    }

    /// Whether the plugin should return: its caller has gone, or its deadline has passed.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.is_late(Instant::now())
    }

    /// Ends when the call is cancelled by its caller.
    pub(super) async fn cancelled(&self) {
        while !self.cancelled.load(Ordering::Acquire) {
            self.cancel.notified().await;
        }
    }

    fn begin(&self) {
        if self.lane != Lane::Watch {
            self.progress();
        }
        self.started.store(true, Ordering::Release);
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        if self.lane == Lane::Watch {
            let deadline = self.deadline_from_now();
            let _ = self.deadline.compare_exchange(u64::MAX, deadline, Ordering::AcqRel, Ordering::Relaxed);
        }
        // Kept for one who begins to wait later; nobody but the call's own thread waits.
        self.cancel.notify_one();
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::Acquire) {
            u64::MAX => None,
            ms => self.epoch.checked_add(Duration::from_millis(ms)),
        }
    }

    fn is_late(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now > deadline)
    }
}

/// Cancels a call whose caller goes, and takes it out of the queue.
struct CancelOnDrop<'a> {
    pool: &'a Pool,
    call: &'a Arc<Call>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.call.cancel();
        if self.call.started.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.pool.lock();
        let queue = &mut state.lane(self.call.lane).queue;
        let place = queue.iter().position(|job| Arc::ptr_eq(&job.call, self.call));
        let job = place.and_then(|place| queue.remove(place));
        // What a job holds may come back to the pool when it is dropped, so it is dropped without the lock.
        drop(state);
        drop(job);
    }
}
