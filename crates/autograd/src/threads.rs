//! Loops on the threads of libtorch's operators.

#![allow(unsafe_code)]

use std::{
    any::Any,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, PoisonError},
};

use crate::ffi;

/// Gives each of `items` to `work` and returns the results in their order.
///
/// As many threads work as `tch::get_num_threads` says, each on items that follow one another. Within
/// another such loop the caller does it all.
///
/// # Panics
///
/// If `work` does, with its panic, after all threads have stopped.
pub fn parallel_map<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let places: Vec<Mutex<Place<T, R>>> =
        items.into_iter().map(|item| Mutex::new(Place::Waits(item))).collect();
    parallel_for(places.len(), &|index| {
        let mut place = places[index].lock().unwrap_or_else(PoisonError::into_inner);
        if let Place::Waits(item) = std::mem::replace(&mut *place, Place::Taken) {
            *place = Place::Done(work(item));
        }
    });
    let result = |place: Mutex<Place<T, R>>| match place.into_inner() {
        Ok(Place::Done(result)) => result,
        _ => unreachable!("every item was worked on, or the loop has panicked"),
    };
    places.into_iter().map(result).collect()
}

enum Place<T, R> {
    Waits(T),
    Taken,
    Done(R),
}

/// What the threads of one loop share.
struct Loop<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

fn parallel_for(n: usize, body: &(dyn Fn(usize) + Sync)) {
    let shared = Loop { body, panic: Mutex::new(None) };
    // SAFETY: `shared` outlives the call, which returns when all threads are done with it, and is
    // what `run` expects; it may be shared among threads, as its parts may.
    let result = unsafe {
        let context = (&raw const shared).cast_mut().cast::<c_void>();
        ffi::take(ffi::pfc_autograd_parallel_for(n as i64, context, run))
    };
    if let Some(panic) = shared.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
    if let Err(message) = result {
        panic!("libtorch runs no loop: {message}");
    }
}

unsafe extern "C" fn run(context: *mut c_void, begin: i64, end: i64) {
    // SAFETY: it is the `Loop` of `parallel_for`, which is only read.
    let shared = unsafe { &*context.cast::<Loop<'_>>() };
    let part = || (begin..end).for_each(|index| (shared.body)(index as usize));
    if let Err(panic) = catch_unwind(AssertUnwindSafe(part)) {
        *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_results_keep_their_order() {
        for n in [0, 1, 2, 1000] {
            let mut marks = vec![0; n];
            let squares = parallel_map(marks.iter_mut().enumerate(), |(index, mark)| {
                *mark += 1;
                index * index
            });
            assert_eq!(squares, (0..n).map(|index| index * index).collect::<Vec<_>>());
            assert!(marks.iter().all(|&mark| mark == 1));
        }
    }

    #[test]
    fn as_many_threads_work_as_libtorch_has() {
        let threads = || -> HashSet<_> {
            parallel_map(0..64, |_| std::thread::current().id()).into_iter().collect()
        };
        let before = tch::get_num_threads();
        tch::set_num_threads(1);
        assert_eq!(threads(), HashSet::from([std::thread::current().id()]));
        tch::set_num_threads(2);
        assert_eq!(threads().len(), 2);
        tch::set_num_threads(before);
    }

    #[test]
    fn a_panic_of_one_item_is_that_of_the_loop() {
        let panic = catch_unwind(|| parallel_map(0..64, |i| assert_ne!(i, 40, "not this one")));
        let panic = panic.unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("not this one"));
    }
}
