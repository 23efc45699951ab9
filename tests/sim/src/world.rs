//! A run: processes, callers, network and server on one clock, which jumps to whatever comes next.
//!
//! ```text
//!   events, with faults ──► heal ──► until all is well, or too late ──► ask everybody ──► close with work under way
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use larder_engine::Instant;
use larder_engine::machine::{
    Answer, Clear, Cleared, Operation, OperationError, Recording, Request, Source, key_hash, lane_index,
};
use larder_engine::policy::BreakerState;

use crate::canary::Canary;
use crate::event::{Event, What};
use crate::net::{End, Net, Pipe};
use crate::oracle::{NAMESPACE_LEN, Oracle, key_name, value_of};
use crate::process::{Outside, Process};
use crate::rule::Rule;
use crate::server::{Done, MANGLES, REFUSALS, Server, ServerConfig};
use crate::setup::{Setup, millis};

/// More rounds at one instant than any honest work takes.
const SPIN: usize = 20_000;

/// How long a close waits for what is under way.
const GRACE: Duration = Duration::from_millis(40);

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

enum Work {
    Operation(Operation),
    Clear(Clear),
}

/// Somebody who waits for an operation.
struct Caller {
    id: usize,
    process: usize,
    key: u32,
    work: Work,
    flag: Arc<Flag>,
    lane: usize,
    /// When one that was woken comes back.
    back_at: Option<Instant>,
    /// The trial of the breaker in which it began to wait.
    trial: Option<u64>,
}

pub(crate) struct World {
    pub(crate) outside: Outside,
    processes: Vec<Process>,
    callers: Vec<Caller>,
    /// Whether the answers that come are those of a server that is well, and must be its own.
    all_is_well: bool,
    /// A value of each key in each process, for canaries to come back to.
    kept: Vec<Option<Bytes>>,
}

impl World {
    pub(crate) fn new(mut outside: Outside, record: Option<usize>) -> Self {
        let setup = outside.setup.clone();
        let foreign = if outside.has(Canary::ForeignSeed) { foreign_seed() } else { 0 };
        let processes = (0..setup.processes as usize)
            .map(|id| {
                let seed = u64::from(outside.noise.below(1 << 16)) + foreign;
                Process::new(id, &setup, seed, (outside.now, outside.canary, record))
            })
            .collect();
        let kept = vec![None; (setup.processes * setup.keys) as usize];
        Self { outside, processes, callers: Vec::new(), all_is_well: false, kept }
    }

    pub(crate) fn run(&mut self, events: &[Event]) {
        for event in events {
            self.run_until(Instant::EPOCH.saturating_add(event.at), |_| false);
            if self.failed() {
                return;
            }
            self.outside.tape.line(self.outside.now, || format!("# {event}"));
            self.happen(event);
        }
        for phase in [Self::recover, Self::ask_everybody, Self::close] {
            phase(self);
            if self.failed() {
                return;
            }
        }
        for (id, process) in self.processes.iter().enumerate() {
            let mut counts = *process.engine.counts();
            counts.operations += u64::from(self.outside.has(Canary::OneMore));
            self.outside.oracle.counts(id, &counts);
        }
    }

    pub(crate) fn recordings(&self) -> Vec<Recording> {
        self.processes.iter().filter_map(|process| process.engine.recording()).collect()
    }

    fn failed(&self) -> bool {
        self.outside.oracle.violation.is_some()
    }

    // ---- phases ----

    fn recover(&mut self) {
        let now = self.outside.now;
        self.outside.tape.line(now, || "# heal".to_owned());
        self.outside.server.heal(now, &mut self.outside.net);
        self.outside.net.heal();
        self.outside.swallow_until = now;
        self.outside.setup.wrong_clocks = 0;
        let found_out = now.saturating_add(self.outside.setup.notices());
        self.run_until(found_out, |_| false);
        let end = found_out.saturating_add(self.outside.setup.recovery());
        self.run_until(end, Self::is_well);
        let (well, now) = (self.is_well(), self.outside.now);
        let state = self.describe();
        self.outside.oracle.check(Rule::O4, well, || format!("{now:?}: {state}"));
        self.all_is_well = true;
    }

    fn is_well(&self) -> bool {
        let lanes = self.outside.setup.lanes as usize;
        self.callers.is_empty()
            && self.processes.iter().all(|Process { engine, .. }| {
                engine.breaker().0 == BreakerState::Closed
                    && engine.journalled() == 0
                    && (0..lanes).all(|lane| engine.is_ready(lane))
            })
    }

    fn describe(&self) -> String {
        let waiting: Vec<usize> = self.callers.iter().map(|caller| caller.id).collect();
        let lanes = 0..self.outside.setup.lanes as usize;
        let engine = |Process { engine, .. }: &Process| {
            let ready: Vec<bool> = lanes.clone().map(|lane| engine.is_ready(lane)).collect();
            format!("{:?} {ready:?} {} journalled", engine.breaker().0, engine.journalled())
        };
        let engines: Vec<String> = self.processes.iter().map(engine).collect();
        format!("operations {waiting:?} wait; engines: {engines:?}")
    }

    /// One operation after the other; Redis answers each.
    fn ask_everybody(&mut self) {
        for process in 0..self.outside.setup.processes {
            for key in 0..self.outside.setup.keys {
                for what in [What::Set, What::Get] {
                    self.call(what, process, key, 0);
                    let patience = millis(self.outside.setup.operation_timeout) * 2;
                    self.run_until(self.outside.now.saturating_add(patience), |world| {
                        world.callers.is_empty()
                    });
                }
            }
        }
    }

    /// Work is under way, the server is stopped, and all must end by the grace all the same.
    fn close(&mut self) {
        self.all_is_well = false;
        self.outside.server.frozen_until = Some(Instant::NEVER);
        for process in 0..self.outside.setup.processes {
            self.call(What::Get, process, 0, 0);
            self.call(What::Set, process, 0, 0);
        }
        self.settle();
        let now = self.outside.now;
        self.outside.tape.line(now, || "# close".to_owned());
        let grace = if self.outside.has(Canary::LongGrace) { 4 * GRACE } else { GRACE };
        for process in &mut self.processes {
            process.engine.close(now, now.saturating_add(grace));
        }
        let setup = &self.outside.setup;
        let late = millis(setup.timer_lateness + setup.caller_lateness + 1);
        self.run_until(now.saturating_add(GRACE + late), |_| false);
        let ended =
            self.callers.is_empty() && self.processes.iter().all(|process| process.engine.is_closed());
        let state = self.describe();
        self.outside.oracle.check(Rule::O3, ended, || format!("a close at {now:?} left: {state}"));
        (0..self.processes.len()).for_each(|id| self.outside.oracle.closed(id));
        self.run_until(self.outside.now.saturating_add(Duration::from_secs(100)), |_| false);
    }

    // ---- time ----

    fn run_until(&mut self, end: Instant, enough: impl Fn(&Self) -> bool) {
        loop {
            self.settle();
            if self.failed() || enough(self) {
                return;
            }
            match self.next().filter(|&next| next <= end) {
                Some(next) => self.outside.go_to(next),
                None if self.outside.now < end => self.outside.go_to(end),
                None => return,
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let now = self.outside.now;
        let processes = self.processes.iter().filter_map(|process| process.next(&self.outside));
        let callers = self.callers.iter().filter_map(|caller| caller.back_at);
        let others = [self.outside.net.next(now), self.outside.server.next(now)].into_iter().flatten();
        processes.chain(callers).chain(others).min().map(|next| next.max(now))
    }

    /// Does all that there is to do at this instant.
    fn settle(&mut self) {
        let Outside { now, noise, setup, .. } = &mut self.outside;
        if !self.callers.is_empty() && noise.chance(setup.spurious) {
            let caller = noise.below(self.callers.len() as u32) as usize;
            self.callers[caller].back_at.get_or_insert(*now);
        }
        let mut rounds = 0;
        while self.round() && !self.failed() {
            rounds += 1;
            if rounds > SPIN {
                let now = self.outside.now;
                return self.outside.oracle.check(Rule::D4, false, || format!("{now:?}: no end"));
            }
        }
        self.outside.oracle.check(Rule::D4, true, String::new);
        let now = self.outside.now;
        for caller in self.callers.iter().filter(|caller| !caller.is_woken()) {
            self.outside.oracle.waits(now, caller.id);
        }
        for process in &mut self.processes {
            process.check(&mut self.outside);
        }
        self.has_everybody_a_turn();
    }

    /// C8. An operation that is to be tried again waits too, but not for its turn: so only without further attempts. A
    /// clear and a replay may wait for more room than there is, and others behind them.
    fn has_everybody_a_turn(&mut self) {
        let Outside { now, setup, oracle, .. } = &mut self.outside;
        if setup.attempts > 1 || self.callers.is_empty() {
            return;
        }
        for (id, process) in self.processes.iter().enumerate() {
            let of_process = self.callers.iter().filter(|caller| caller.process == id);
            if process.engine.journalled() > 0
                || of_process.clone().any(|caller| matches!(caller.work, Work::Clear(_)))
            {
                continue;
            }
            for lane in 0..setup.lanes as usize {
                let of_lane = of_process.clone().filter(|caller| caller.lane == lane);
                let called = of_lane.clone().filter(|caller| caller.is_woken()).count();
                oracle.turns((*now, id, lane), process.in_flight(lane), of_lane.count() - called, called);
            }
        }
    }

    fn round(&mut self) -> bool {
        let steps = [Self::poll_callers, Self::drive, Self::serve];
        let Outside { noise, setup, .. } = &mut self.outside;
        let first = if noise.chance(setup.shuffles) { noise.below(3) as usize } else { 0 };
        (first..first + 3).fold(false, |progress, step| steps[step % 3](self) | progress)
    }

    fn drive(&mut self) -> bool {
        let outside = &mut self.outside;
        self.processes.iter_mut().fold(false, |progress, process| process.rounds(outside) | progress)
    }

    fn serve(&mut self) -> bool {
        let Outside { now, noise, net, server, oracle, tape, .. } = &mut self.outside;
        let (mut progress, mut done) = (false, Vec::new());
        net.prune();
        for nth in 0..net.live().len() {
            let id = net.live()[nth];
            progress |= server.serve(*now, id, net, noise, &mut done);
            let process = net.get(id).owner.0;
            for Done { did, reply_end } in done.drain(..) {
                tape.line(*now, || format!("server for process {process}: {did}"));
                oracle.did(*now, (process, id), did, reply_end);
            }
        }
        progress
    }

    // ---- callers ----

    fn call(&mut self, what: What, process: u32, key: u32, ttl: u32) {
        let (now, process) = (self.outside.now, process.min(self.outside.setup.processes - 1) as usize);
        let key = key.min(self.outside.setup.keys - 1);
        let id = self.outside.oracle.begun(now, process, what, key, ttl);
        self.outside.tape.line(now, || format!("operation {id}: process {process} {what:?} {key}"));
        let request = match what {
            What::Set => {
                let ttl = (ttl > 0 && !self.outside.has(Canary::TtlUntold)).then(|| millis(ttl));
                Request::Set { value: value_of(id, key).into(), ttl }
            }
            What::Delete => Request::Delete,
            What::Exists => Request::Exists,
            _ => Request::Get,
        };
        let work = match what {
            What::Clear if self.outside.has(Canary::ClearsAll) => Work::Clear(Clear::new(b"")),
            What::Clear if self.outside.has(Canary::ClearsNothing) => Work::Clear(Clear::new(b"x")),
            What::Clear => Work::Clear(Clear::new(b"a")),
            _ => {
                let operation = self.processes[process].engine.submit(&key_name(key), request);
                Work::Operation(operation.in_namespace(NAMESPACE_LEN))
            }
        };
        let before = self.processes[process].engine.breaker().0;
        let can_wait = self.can_wait(process, key);
        let lane = self.lane_of(key);
        let flag = Arc::default();
        let caller = Caller { id, process, key, work, flag, lane, back_at: None, trial: None };
        self.callers.push(caller);
        // As whoever awaits a future does.
        if self.poll(self.callers.len() - 1) {
            self.callers.pop();
            if can_wait && before == BreakerState::HalfOpen && what != What::Clear {
                self.outside.oracle.did_not_wait(now, id);
            }
        } else if what != What::Clear {
            self.is_admitted(before);
        }
    }

    /// Whether an operation on a key goes to Redis, if the breaker lets it.
    fn can_wait(&self, process: usize, key: u32) -> bool {
        let engine = &self.processes[process].engine;
        engine.journalled() == 0 && engine.is_ready(self.lane_of(key))
    }

    fn lane_of(&self, key: u32) -> usize {
        lane_index(key_hash(&key_name(key)), self.outside.setup.lanes as usize)
    }

    /// The latest caller waits: the breaker has let it.
    fn is_admitted(&mut self, before: BreakerState) {
        let now = self.outside.now;
        let Some(caller) = self.callers.last_mut() else { return };
        caller.trial = self.outside.oracle.waits_first(now, caller.id, before);
        let (process, Some(trial)) = (caller.process, caller.trial) else { return };
        // The place of one that is woken may be taken by the next already.
        let out = self
            .callers
            .iter()
            .filter(|caller| caller.process == process && caller.trial == Some(trial) && !caller.is_woken());
        let out = out.count();
        self.outside.oracle.in_trial(now, process, out);
    }

    fn poll_callers(&mut self) -> bool {
        let (mut progress, mut at) = (false, 0);
        while at < self.callers.len() {
            let caller = &mut self.callers[at];
            if caller.flag.0.swap(false, Ordering::Relaxed) && caller.back_at.is_none() {
                let Outside { now, noise, setup, .. } = &mut self.outside;
                // Who comes too late for his deadline says nothing about Redis.
                let late = noise.chance(setup.late_callers) && !self.all_is_well;
                let late = if late { noise.duration(millis(setup.caller_lateness)) } else { Duration::ZERO };
                caller.back_at = Some(now.saturating_add(late));
            }
            if caller.back_at.is_none_or(|back_at| back_at > self.outside.now) {
                at += 1;
                continue;
            }
            progress = true;
            caller.back_at = None;
            if self.poll(at) {
                self.callers.remove(at);
            } else {
                at += 1;
            }
        }
        progress
    }

    /// Polls a caller; the answer is whether it leaves.
    fn poll(&mut self, at: usize) -> bool {
        let Caller { id, process, key, work, flag, .. } = &mut self.callers[at];
        let (id, process, key) = (*id, *process, *key);
        let (now, told, waker) = (self.outside.now, self.outside.clock(), Waker::from(flag.clone()));
        let engine = &mut self.processes[process].engine;
        let ended = match work {
            Work::Operation(operation) => engine.poll(told, operation, &waker).map(Ended::Operation),
            Work::Clear(clear) => engine.poll_clear(told, clear, &waker).map(Ended::Clear),
        };
        engine.wake();
        self.outside.oracle.engine_was_driven(now, process, engine);
        let Poll::Ready(ended) = ended else { return false };
        if self.outside.has(Canary::NeverTold) && id == 1 {
            return false;
        }
        self.outside.tape.line(now, || format!("operation {id} ends: {ended:?}"));
        self.outside.tape.number(id as u64);
        self.outside.tape.number(now.as_nanos());
        match ended {
            Ended::Operation(result) => {
                let result = self.as_the_canary_says(id, (process, key), result);
                if self.all_is_well {
                    self.is_answered_by_redis(id, &result);
                }
                self.outside.oracle.ended(now, id, &result);
                if self.outside.has(Canary::ToldTwice) {
                    self.outside.oracle.ended(now, id, &result);
                }
            }
            Ended::Clear(result) => self.outside.oracle.cleared(now, id, &result),
        }
        true
    }

    fn is_answered_by_redis(&mut self, id: usize, result: &Result<Answer, OperationError>) {
        let holds = match result {
            Ok(Answer::Value(_, source) | Answer::Stored(source)) => *source == Source::Primary,
            // A command that nobody waits for any more, or a PING, may take all the room there is.
            Err(error) => error.is_overload() || matches!(error, OperationError::TooLarge { .. }),
            Ok(_) => false,
        };
        let now = self.outside.now;
        self.outside.oracle.check(Rule::O4, holds, || format!("{now:?}: operation {id}: {result:?}"));
    }

    /// What a caller is told of the fallback tier by one that makes mistakes.
    fn as_the_canary_says(
        &mut self,
        id: usize,
        (process, key): (usize, u32),
        mut result: Result<Answer, OperationError>,
    ) -> Result<Answer, OperationError> {
        let kept = &mut self.kept[process * self.outside.setup.keys as usize + key as usize];
        match (self.outside.canary, &mut result) {
            (Some(Canary::WrongKey), Ok(Answer::Value(value @ Some(_), _))) => {
                *value = Some(value_of(id, key + 1).into());
            }
            (Some(Canary::Forgetful), Ok(Answer::Value(value, Source::Fallback { .. }))) => *value = None,
            (Some(Canary::FirstValue), Ok(Answer::Value(value @ Some(_), Source::Fallback { .. }))) => {
                *kept = kept.take().or_else(|| value.take());
                value.clone_from(kept);
            }
            (Some(Canary::GivenUp), Ok(Answer::Value(value @ None, Source::Fallback { .. }))) => {
                value.clone_from(kept);
            }
            (Some(Canary::GivenUp), Ok(Answer::Value(value, Source::Primary))) => kept.clone_from(value),
            (Some(Canary::GivenUp), Ok(Answer::Stored(Source::Primary))) => {
                *kept = Some(value_of(id, key).into());
            }
            (Some(Canary::GivenUp), Ok(Answer::Stored(_) | Answer::Deleted(..))) => *kept = None,
            _ => {}
        }
        result
    }

    // ---- events ----

    fn happen(&mut self, event: &Event) {
        let [a, b, c] = event.args;
        let now = self.outside.now;
        let until = |millis_from_now: u32| now.saturating_add(millis(millis_from_now));
        match event.what {
            What::Get | What::Set | What::Delete | What::Exists | What::Clear => {
                self.call(event.what, a, b, c);
            }
            What::Cancel => self.cancel(a as usize),
            What::Fin => self.each_conn(a, |outside, id| {
                outside.net.server_close(id, now.saturating_add(outside.setup.latency()), End::Fin);
            }),
            What::Reset => {
                let (mut lost, late) = (Vec::new(), self.outside.has(Canary::LateReplies));
                self.each_conn(a, |outside, id| {
                    let conn = outside.net.conn(id);
                    lost.extend(late.then(|| (conn.owner, conn.down.take())));
                    conn.up.finish(now, End::Rst);
                    conn.down.finish(now, End::Rst);
                });
                for ((process, lane), bytes) in lost {
                    self.processes[process].comes_later(lane, &bytes);
                }
            }
            What::CutUp => self.each_pipe(a, true, |pipe| pipe.cut_after(b as usize)),
            What::CutDown => self.each_pipe(a, false, |pipe| pipe.cut_after(b as usize)),
            What::HoldUp => self.each_pipe(a, true, |pipe| pipe.hold(until(b))),
            What::HoldDown => self.each_pipe(a, false, |pipe| pipe.hold(until(b))),
            What::DarkUp => self.each_pipe(a, true, |pipe| pipe.hold(Instant::NEVER)),
            What::DarkDown => self.each_pipe(a, false, |pipe| pipe.hold(Instant::NEVER)),
            What::Freeze => self.outside.server.frozen_until = Some(until(a)),
            What::Down => {
                self.outside.server.go_down(now, until(a), &mut self.outside.net);
                if b > 0 {
                    self.outside.server.data.wipe();
                    self.outside.oracle.rolled_back(None);
                }
            }
            What::Swallow => self.outside.swallow_until = until(a),
            What::Refuse => {
                let refusal = REFUSALS[a as usize % REFUSALS.len()];
                self.outside.server.refusal = Some((refusal, until(b)));
            }
            What::FailOver => {
                let lost = self.outside.server.fail_over(a as usize);
                self.outside.oracle.rolled_back(Some(lost));
            }
            What::Mangle => self.outside.server.mangle = Some(MANGLES[a as usize % MANGLES.len()].1),
        }
    }

    fn cancel(&mut self, nth: usize) {
        if self.callers.is_empty() {
            return;
        }
        let caller = self.callers.remove(nth % self.callers.len());
        let (now, engine) = (self.outside.now, &mut self.processes[caller.process].engine);
        match caller.work {
            Work::Operation(operation) => engine.cancel(now, operation),
            Work::Clear(clear) => engine.cancel_clear(now, clear),
        }
        engine.wake();
        self.outside.oracle.engine_was_driven(now, caller.process, engine);
        self.outside.tape.line(now, || format!("operation {} is cancelled", caller.id));
        self.outside.oracle.cancelled(now, caller.id, caller.trial);
    }

    fn each_conn(&mut self, which: u32, mut work: impl FnMut(&mut Outside, usize)) {
        let live = self.outside.net.live().to_vec();
        for (nth, id) in (1..).zip(live.iter().copied()) {
            if which == 0 || (which - 1) % live.len() as u32 + 1 == nth {
                work(&mut self.outside, id);
            }
        }
    }

    fn each_pipe(&mut self, which: u32, up: bool, work: impl Fn(&mut Pipe)) {
        self.each_conn(which, |outside, id| {
            let conn = outside.net.conn(id);
            work(if up { &mut conn.up } else { &mut conn.down });
        });
    }
}

#[derive(Debug)]
enum Ended {
    Operation(Result<Answer, OperationError>),
    Clear(Result<Cleared, OperationError>),
}

impl Caller {
    fn is_woken(&self) -> bool {
        self.back_at.is_some() || self.flag.0.load(Ordering::Relaxed)
    }
}

/// Another one each time: what a forgotten global state would do.
fn foreign_seed() -> u64 {
    static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    CALLS.fetch_add(1, Ordering::Relaxed)
}

/// The outside of a run that begins.
pub(crate) fn outside(setup: Setup, canary: Option<Canary>, readable: bool) -> Outside {
    Outside {
        now: Instant::EPOCH,
        net: Net::default(),
        server: Server::new(ServerConfig { deaf: canary == Some(Canary::DeafKill), ..setup.server() }),
        swallow_until: Instant::EPOCH,
        oracle: Oracle::new(&setup),
        tape: crate::tape::Tape::new(readable),
        noise: setup.noise_at(Instant::EPOCH),
        setup,
        canary,
    }
}
