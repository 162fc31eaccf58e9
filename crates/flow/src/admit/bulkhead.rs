//! Slots by key: one tenant at its limit does not delay another.
//!
//! Owns the slots of each key that is in use, and forgets a key with its last entry and waiter. Keys never share slots, so
//! the sum over all keys is bounded by the number of keys times the limit: where that is more than the machine bears, take
//! [`Slots`](super::Slots) as well, after the bulkhead's. It never holds more keys, or more waiters for one, than it was given.
//!
//! # Choosing a bound
//! `per_key` is what one tenant may have at once: less than the whole. `max_waiting` is what still has a chance to be served
//! in time, about as many. `keys` is how many tenants are served at once; it bounds the memory.
//!
//! # Cancel safety
//! A dropped wait gives its place up, and its key if it was the last.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::budget::{Permit, Share};
use crate::ctx::{Ctx, Stopped};
use crate::tasks::Name;

/// The three bounds. How to choose them: [module](self#choosing-a-bound).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many may be in at once for one key; with zero nobody gets in.
    pub per_key: usize,
    /// How many may wait for one key; those beyond are refused at once.
    pub max_waiting: usize,
    /// How many keys may be in use at once; a new one beyond is refused at once.
    pub keys: usize,
}

/// Why nobody got in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The key is at its limit, and as many wait as may. A later retry may succeed.
    Full,
    /// As many keys are in use as may. A later retry may succeed.
    TooManyKeys,
    /// The context was over, before or meanwhile.
    Stopped(Stopped),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the key is at its limit"),
            Self::TooManyKeys => f.write_str("too many keys are in use"),
            Self::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

/// Slots by key. Cloning shares them.
///
/// ```
/// use forebay_flow::admit::bulkhead::{Bulkhead, Config, Refused};
/// let config = Config { per_key: 1, max_waiting: 0, keys: 100 };
/// let tenants = Bulkhead::new("tenants", config);
/// let _one = tenants.try_enter("a").unwrap();
/// assert_eq!(tenants.try_enter("a").map(drop), Err(Refused::Full));
/// assert!(tenants.try_enter("b").is_ok());
/// ```
pub struct Bulkhead<K: Hash + Eq> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    name: Name,
    config: Config,
    keys: Mutex<HashMap<K, Tenant>>,
}

struct Tenant {
    slots: Share,
    /// Entries and waiters: the key stays as long as there are any.
    users: usize,
}

impl<K: Hash + Eq + Clone> Bulkhead<K> {
    /// No key in use yet.
    #[must_use]
    pub fn new(name: impl Into<Name>, config: Config) -> Self {
        Self { inner: Arc::new(Inner { name: name.into(), config, keys: Mutex::default() }) }
    }

    /// Waits for a place of `key`, in line, until the context is over. A context that is over already takes none.
    ///
    /// # Errors
    /// [`Refused`]: at once when too many wait or too many keys are in use.
    ///
    /// # Cancel safety
    /// A dropped wait gives its place up.
    ///
    /// # Panics
    /// As [`Ctx::run`].
    pub async fn enter(&self, ctx: &Ctx, key: K) -> Result<Entry<K>, Refused> {
        ctx.run(async {
            let Config { per_key, max_waiting, .. } = self.inner.config;
            let (lease, slots) = self.lease(key, per_key.saturating_add(max_waiting))?;
            match slots.acquire(1).await {
                Ok(permit) => Ok(Entry { permit, lease }),
                Err(_) => Err(Refused::Full), // a limit of zero lets nobody in
            }
        })
        .await
        .map_err(Refused::Stopped)?
    }

    /// A place of `key`, if there is one now.
    ///
    /// # Errors
    /// [`Refused::Full`] or [`Refused::TooManyKeys`].
    pub fn try_enter(&self, key: K) -> Result<Entry<K>, Refused> {
        let (lease, slots) = self.lease(key, self.inner.config.per_key)?;
        let permit = slots.try_acquire(1).ok_or(Refused::Full)?;
        Ok(Entry { permit, lease })
    }

    fn lease(&self, key: K, most_users: usize) -> Result<(Lease<K>, Share), Refused> {
        let mut keys = self.inner.keys.lock();
        if !keys.contains_key(&key) && keys.len() >= self.inner.config.keys {
            return Err(Refused::TooManyKeys);
        }
        let users = keys.get(&key).map_or(0, |tenant| tenant.users);
        if users >= most_users {
            return Err(Refused::Full);
        }
        let tenant = keys.entry(key.clone()).or_insert_with(|| Tenant {
            slots: Share::unlisted(self.inner.name.clone(), self.inner.config.per_key as u64),
            users: 0,
        });
        tenant.users += 1;
        let slots = tenant.slots.clone();
        Ok((Lease { inner: Arc::clone(&self.inner), key }, slots))
    }

    /// How many keys are in use.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.inner.keys.lock().len()
    }
}

impl<K: Hash + Eq> Clone for Bulkhead<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Hash + Eq> fmt::Debug for Bulkhead<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.inner.name)
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

/// Keeps the key in use.
struct Lease<K: Hash + Eq> {
    inner: Arc<Inner<K>>,
    key: K,
}

impl<K: Hash + Eq> Drop for Lease<K> {
    fn drop(&mut self) {
        let mut keys = self.inner.keys.lock();
        if let Some(tenant) = keys.get_mut(&self.key) {
            tenant.users -= 1;
            if tenant.users == 0 {
                let gone = keys.remove_entry(&self.key);
                drop(keys);
                drop(gone);
            }
        }
    }
}

/// One place, taken. Dropping it gives the place to the next.
#[must_use = "dropping the entry gives the place up"]
pub struct Entry<K: Hash + Eq> {
    // In this order: the next in line gets the slot, then the key may go.
    #[expect(dead_code, reason = "held for its drop")]
    permit: Permit,
    lease: Lease<K>,
}

impl<K: Hash + Eq> Entry<K> {
    /// Whose place it is.
    #[must_use]
    pub fn key(&self) -> &K {
        &self.lease.key
    }
}

impl<K: Hash + Eq + fmt::Debug> fmt::Debug for Entry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("key", self.key()).finish_non_exhaustive()
    }
}
