//! What lock-free code is written on: std's atomics, or the model checker's, or std's with helgrind told what they order.
//!
//! Owns nothing. The normal build sees std's types and nothing else. Under `cfg(loom)` every access is a step that loom
//! permutes; under `cfg(helgrind)` an acquire that follows a release is an edge in helgrind's graph, which knows locks
//! only and would call each such handover a race.

#[cfg(not(any(loom, helgrind)))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};

#[cfg(helgrind)]
pub(crate) use self::annotated::{AtomicU8, AtomicU64, AtomicUsize, Mutex};
#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{Ordering, fence},
};

#[cfg(loom)]
pub(crate) use self::modelled::Mutex;
#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(not(any(loom, helgrind)))]
pub(crate) use parking_lot::Mutex;

/// std's cell with loom's access by closure, so that one text serves both.
#[cfg(not(loom))]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// loom's mutex in parking_lot's clothes.
#[cfg(loom)]
mod modelled {
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

/// Atomics that tell helgrind what they order. x86-64 only, as valgrind's requests are.
#[cfg(helgrind)]
#[expect(dead_code, reason = "each width has every method; not each is used of each")]
mod annotated {
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::{self, Ordering};

    // Of `VG_USERREQ__HG_…` in valgrind/helgrind.h.
    const TOOL: usize = 0x4847_0000;
    const SEND: usize = TOOL + 289;
    const RECEIVE: usize = TOOL + 290;
    const UNTRACK: usize = TOOL + 295;

    fn request(what: usize, address: usize, len: usize) {
        let args = [what, address, len, 0, 0, 0];
        let mut _answer = 0_usize;
        // SAFETY: outside of valgrind the four rotations add up to 128 bits and the exchange is with itself: nothing
        // changes. Under valgrind the sequence is a request that reads `args`, which outlives it.
        unsafe {
            std::arch::asm!(
                "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
                in("rax") &raw const args,
                inout("rdx") _answer,
            );
        }
    }

    macro_rules! annotated {
        ($name:ident, $value:ty) => {
            #[derive(Debug)]
            pub struct $name(atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }

                fn at(&self) -> usize {
                    &raw const self.0 as usize
                }

                /// Accesses of the atomic itself are never a race. Untracked at each one: the value may have moved.
                fn untrack(&self) {
                    request(UNTRACK, self.at(), size_of::<$value>());
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.untrack();
                    let value = self.0.load(order);
                    if order != Ordering::Relaxed {
                        request(RECEIVE, self.at(), 0);
                    }
                    value
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.untrack();
                    if order != Ordering::Relaxed {
                        request(SEND, self.at(), 0);
                    }
                    self.0.store(value, order);
                }

                pub(crate) fn compare_exchange(
                    &self,
                    old: $value,
                    new: $value,
                    ok: Ordering,
                    failed: Ordering,
                ) -> Result<$value, $value> {
                    self.untrack();
                    request(SEND, self.at(), 0);
                    let result = self.0.compare_exchange(old, new, ok, failed);
                    request(RECEIVE, self.at(), 0);
                    result
                }

                pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    self.untrack();
                    request(SEND, self.at(), 0);
                    let old = self.0.fetch_add(value, order);
                    request(RECEIVE, self.at(), 0);
                    old
                }

                pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    self.fetch_add(value.wrapping_neg(), order)
                }
            }
        };
    }

    /// parking_lot's mutex, whose unlocking helgrind is told of.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    pub struct Guard<'a, T> {
        at: usize,
        guard: parking_lot::MutexGuard<'a, T>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> Guard<'_, T> {
            self.locked(self.0.lock())
        }

        pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
            self.0.try_lock().map(|guard| self.locked(guard))
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner()
        }

        fn locked<'a>(&self, guard: parking_lot::MutexGuard<'a, T>) -> Guard<'a, T> {
            let at = &raw const self.0 as usize;
            request(RECEIVE, at, 0);
            Guard { at, guard }
        }
    }

    impl<T> Drop for Guard<'_, T> {
        fn drop(&mut self) {
            request(SEND, self.at, 0);
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.guard
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.guard
        }
    }

    annotated!(AtomicU8, u8);
    annotated!(AtomicU64, u64);
    annotated!(AtomicUsize, usize);
}
