//! Work shared by several threads whose results come out in the order of the jobs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::Result;

/// Takes jobs from `next` until there are none left, has each of `workers` do some of them on a thread of its own, and
/// hands the results to `sink`, on the calling thread, in the order of the jobs. At most two results for each worker
/// wait for their turn. With one worker no thread is started.
///
/// The first error, of whichever part, ends it all and is returned.
pub(crate) fn in_order<J: Send, R: Send, W: FnMut(J) -> Result<R> + Send>(
    mut workers: Vec<W>,
    mut next: impl FnMut() -> Result<Option<J>> + Send,
    mut sink: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    if workers.len() <= 1 {
        if let Some(work) = workers.first_mut() {
            while let Some(job) = next()? {
                sink(work(job)?)?;
            }
        }
        return Ok(());
    }
    let window = 2 * workers.len();
    let queue = Queue {
        state: Mutex::new(State {
            next,
            started: 0,
            delivered: 0,
            results: VecDeque::new(),
            ended: false,
            broken: false,
        }),
        space: Condvar::new(),
        ready: Condvar::new(),
        window,
    };
    std::thread::scope(|scope| {
        for work in workers {
            let queue = &queue;
            scope.spawn(move || queue.work(work));
        }
        // Whatever happens, the workers are to end.
        let _end = End(&queue);
        while let Some(result) = queue.take() {
            sink(result?)?;
        }
        Ok(())
    })
}

struct Queue<N, R> {
    state: Mutex<State<N, R>>,
    /// There is room for another job.
    space: Condvar,
    /// The result that is due is there, or no more will be.
    ready: Condvar,
    window: usize,
}

struct State<N, R> {
    next: N,
    /// Jobs handed out, and results taken, so far.
    started: usize,
    delivered: usize,
    /// Results of the jobs from `delivered` on.
    results: VecDeque<Option<Result<R>>>,
    /// No more jobs are handed out.
    ended: bool,
    /// A worker panicked, so that a result will never come.
    broken: bool,
}

impl<N, R> Queue<N, R> {
    fn lock(&self) -> MutexGuard<'_, State<N, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.broken |= std::thread::panicking();
        drop(state);
        self.space.notify_all();
        self.ready.notify_all();
    }

    fn work<J>(&self, mut work: impl FnMut(J) -> Result<R>)
    where
        N: FnMut() -> Result<Option<J>>,
    {
        // A worker that panics must not leave the others waiting.
        let end = End(self);
        loop {
            let mut state = self.lock();
            while !state.ended && state.started >= state.delivered + self.window {
                state = self.space.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.ended {
                break;
            }
            let job = match (state.next)() {
                Ok(Some(job)) => job,
                Ok(None) => break,
                Err(error) => {
                    state.started += 1;
                    state.results.push_back(Some(Err(error)));
                    break;
                }
            };
            let number = state.started;
            state.started += 1;
            state.results.push_back(None);
            drop(state);
            let result = work(job);
            let mut state = self.lock();
            let place = number - state.delivered;
            if let Some(slot) = state.results.get_mut(place) {
                *slot = Some(result);
            }
            if place == 0 {
                self.ready.notify_one();
            }
        }
        drop(end);
    }

    /// The next result, once it is there; nothing after the last one.
    fn take(&self) -> Option<Result<R>> {
        let mut state = self.lock();
        loop {
            match state.results.front_mut().map(Option::take) {
                Some(Some(result)) => {
                    state.results.pop_front();
                    state.delivered += 1;
                    self.space.notify_one();
                    return Some(result);
                }
                None if state.ended => return None,
                // The scope passes the panic on.
                _ if state.broken => return None,
                _ => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

struct End<'a, N, R>(&'a Queue<N, R>);

impl<N, R> Drop for End<'_, N, R> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn run(threads: usize, fails_at: u32) -> (Vec<u32>, Result<()>) {
        let mut jobs = 0..1000u32;
        let worker = |_| {
            move |job: u32| {
                // Some take longer than those that follow them.
                std::hint::black_box((0..(job % 7) * 1000).sum::<u32>());
                if job == fails_at { Err(Error::Invalid("as asked".to_owned())) } else { Ok(job) }
            }
        };
        let mut seen = Vec::new();
        let result = in_order(
            (0..threads).map(worker).collect(),
            || Ok(jobs.next()),
            |job| {
                seen.push(job);
                Ok(())
            },
        );
        (seen, result)
    }

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for threads in [1, 2, 5] {
            let (seen, result) = run(threads, u32::MAX);
            result.unwrap();
            assert!(seen.into_iter().eq(0..1000), "{threads} threads");
        }
    }

    #[test]
    fn an_error_ends_it_after_what_came_before() {
        for threads in [1, 4] {
            let (seen, result) = run(threads, 500);
            assert!(result.is_err());
            assert!(seen.into_iter().eq(0..500), "{threads} threads");
        }
    }

    #[test]
    fn an_error_of_the_source_or_of_the_sink_is_passed_on() {
        let worker = |_| |job: u32| Ok(job);
        let workers = || (0..3).map(worker).collect::<Vec<_>>();
        let mut jobs = 0..100u32;
        let failing = || Error::Invalid("as asked".to_owned());
        assert!(in_order(workers(), || Err::<Option<u32>, _>(failing()), |_| Ok(())).is_err());
        assert!(
            in_order(workers(), || Ok(jobs.next()), |job| if job == 50 { Err(failing()) } else { Ok(()) }).is_err()
        );
    }
}
