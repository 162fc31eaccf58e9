//! A context's list of members under loom: every order of the steps of those who come and go.
//!
//! Owns nothing. Checked: when nobody lives any more the list is empty, so that a context which its ended tasks kept alive
//! goes with the last of them; exactly one of those who end is told that it was the last; and a walk sees who lives all
//! the time exactly once. A list is swept from the first that ended on, and walked one by one.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::members::{Member, Members, Walk};

struct Item {
    id: u64,
    ended: AtomicBool,
}

impl Member for Item {
    fn id(&self) -> u64 {
        self.id
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn taken_off(_: Arc<Self>) {}
}

fn enter(members: &Members<Item>, id: u64) -> Arc<Item> {
    let item = Arc::new(Item { id, ended: AtomicBool::new(false) });
    members.one_more();
    members.enter(Arc::clone(&item));
    item
}

/// Whether it was the last.
fn end(members: &Members<Item>, item: &Item) -> bool {
    item.ended.store(true, Ordering::Release);
    members.leave()
}

fn walk(members: &Members<Item>) -> Vec<u64> {
    let (mut walk, mut seen) = (Walk::default(), Vec::new());
    while let Some(some) = walk.next(members) {
        seen.extend(some.iter().map(|item| item.id));
    }
    seen
}

#[test]
fn the_list_is_empty_once_nobody_lives() {
    loom::model(|| {
        let members = Arc::new(Members::new());
        let first = enter(&members, 1);
        let other = {
            let members = Arc::clone(&members);
            thread::spawn(move || end(&members, &enter(&members, 2)))
        };
        let last = end(&members, &first);
        let other_last = other.join().unwrap();
        assert!(last || other_last);
        assert_eq!(members.live(), 0);
        assert!(members.is_empty());
    });
}

#[test]
fn one_that_lived_below_may_be_the_last() {
    loom::model(|| {
        let members = Arc::new(Members::new());
        members.one_more();
        let other = {
            let members = Arc::clone(&members);
            thread::spawn(move || end(&members, &enter(&members, 1)))
        };
        let last = members.one_less();
        let other_last = other.join().unwrap();
        assert!(last || other_last);
        assert!(members.is_empty());
    });
}

#[test]
fn a_walk_sees_who_stays_once() {
    loom::model(|| {
        let members = Arc::new(Members::new());
        let gone = enter(&members, 1);
        let stays = enter(&members, 2);
        let other = {
            let members = Arc::clone(&members);
            thread::spawn(move || {
                end(&members, &gone);
                end(&members, &enter(&members, 3));
            })
        };
        let seen = walk(&members);
        assert_eq!(seen.iter().filter(|id| **id == stays.id).count(), 1, "{seen:?}");
        other.join().unwrap();
        assert_eq!(walk(&members), [stays.id]);
    });
}
