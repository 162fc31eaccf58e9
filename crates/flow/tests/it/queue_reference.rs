//! The queue beside a reference that is plain enough to be believed: random operations, one thread, a paused clock.
//!
//! The reference is one list of what was accepted or stands in line, in order. All that the low-water rule may change is
//! *when* those in line are let in, so what it may not change is checked after each operation: order, room, counts.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_flow::queue::{Bound, Builder, Full, Receiver, Sender, Submit, SubmitError};

/// A number and what it weighs.
type Item = (u64, usize);

/// What stands between the senders and the receiver, oldest first.
struct Reference {
    full: Full,
    limit: usize,
    all: VecDeque<Item>,
    closed: bool,
    dropped: u64,
    rejected: u64,
}

impl Reference {
    fn weight(&self) -> usize {
        self.all.iter().map(|item| item.1).sum()
    }

    /// What a submit that does not wait must say; what it drops is dropped.
    fn try_submit(&mut self, item: Item) -> Result<(), SubmitError<Item>> {
        if self.closed {
            return Err(SubmitError::Closed(item));
        }
        if item.1 > self.limit {
            self.rejected += 1;
            return Err(SubmitError::TooHeavy(item));
        }
        // Whoever is in line and fits goes first, so there is room if it is enough for all of them and this one.
        while self.full == Full::DropOldest && self.weight() + item.1 > self.limit {
            self.all.pop_front();
            self.dropped += 1;
        }
        if self.weight() + item.1 <= self.limit {
            self.all.push_back(item);
            return Ok(());
        }
        if self.full == Full::DropNewest {
            self.dropped += 1;
            return Ok(());
        }
        self.rejected += 1;
        Err(SubmitError::Full(item))
    }

    /// Whether `item` and all before it have room.
    fn has_room(&self, item: Item) -> bool {
        let at = self.all.iter().position(|other| *other == item).unwrap();
        self.all.iter().take(at + 1).map(|item| item.1).sum::<usize>() <= self.limit
    }

    /// Of the dropped, those that had been accepted.
    fn dropped_inside(&self) -> u64 {
        if self.full == Full::DropOldest { self.dropped } else { 0 }
    }

    fn take_out(&mut self, item: Item) {
        self.all.retain(|other| *other != item);
    }
}

struct Trial<'a> {
    random: fastrand::Rng,
    tx: &'a Sender<Item>,
    rx: &'a Receiver<Item>,
    reference: Reference,
    waiting: Vec<(Item, Pin<Box<Submit<'a, Item>>>)>,
    next: u64,
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

impl Trial<'_> {
    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..20 => self.try_submit(),
            20..45 => self.submit(),
            45..50 => self.poll_one(),
            50..55 => self.give_up_one(),
            55..85 => self.receive(),
            85..95 => self.receive_many(),
            95 if self.random.u32(0..20) == 0 => self.close(),
            _ => {}
        }
        self.check();
    }

    fn item(&mut self) -> Item {
        self.next += 1;
        let heaviest = (self.reference.limit / 3).max(1) + usize::from(self.random.u32(0..9) == 0);
        (self.next, self.random.usize(1..=heaviest))
    }

    fn try_submit(&mut self) {
        let item = self.item();
        let said = self.tx.try_submit(item);
        // Those it let in before itself are awake, and end when polled.
        assert_eq!(said, self.reference.try_submit(item), "{item:?}");
    }

    fn submit(&mut self) {
        if self.reference.full != Full::Block {
            return self.try_submit();
        }
        let item = self.item();
        let mut submit = Box::pin(self.tx.submit(item));
        match poll(submit.as_mut()) {
            Poll::Pending => {
                assert!(!self.reference.closed && item.1 <= self.reference.limit);
                let line = self.tx.info().waiters;
                self.reference.all.push_back(item);
                assert!(line > 1 || !self.reference.has_room(item), "nobody before it, and room");
                self.waiting.push((item, submit));
            }
            Poll::Ready(said) => assert_eq!(said, self.reference.try_submit(item), "{item:?}"),
        }
    }

    fn poll_one(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let at = self.random.usize(..self.waiting.len());
        let (item, submit) = &mut self.waiting[at];
        let item = *item;
        match poll(submit.as_mut()) {
            Poll::Ready(Ok(())) => {} // received already, or with room
            Poll::Ready(Err(SubmitError::Closed(back))) => {
                assert!(self.reference.closed && back == item);
                self.reference.take_out(item);
            }
            Poll::Ready(Err(other)) => panic!("{other:?} after a wait"),
            Poll::Pending => {
                assert!(
                    !self.reference.closed && !self.reference.has_room(item),
                    "room for {item:?}"
                );
                return;
            }
        }
        drop(self.waiting.swap_remove(at));
    }

    fn give_up_one(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let at = self.random.usize(..self.waiting.len());
        let (item, mut submit) = self.waiting.swap_remove(at);
        if let Some(back) = submit.take_back() {
            assert_eq!(back, item);
            assert!(self.reference.all.contains(&item), "it cannot come back and be received");
            self.reference.take_out(item);
        }
    }

    fn receive(&mut self) {
        let got = self.rx.try_recv();
        if got.is_none() {
            assert_eq!(self.tx.info().items, 0);
            assert!(
                self.reference.closed || self.reference.all.is_empty(),
                "none waits at an empty queue"
            );
            return;
        }
        assert_eq!(got, self.reference.all.pop_front());
    }

    fn receive_many(&mut self) {
        let most = self.random.usize(1..40);
        let mut batch = Vec::new();
        let there = self.tx.info().items;
        let mut receive = Box::pin(self.rx.recv_many(&mut batch, most));
        let polled = poll(receive.as_mut());
        drop(receive);
        if there > 0 {
            assert_eq!(polled, Poll::Ready(batch.len()));
            assert!(batch.len() >= there.min(most) && batch.len() <= most);
        }
        for got in batch {
            assert_eq!(Some(got), self.reference.all.pop_front());
        }
    }

    fn close(&mut self) {
        self.tx.close();
        self.reference.closed = true;
    }

    fn check(&mut self) {
        let info = self.tx.info();
        let all = &self.reference.all;
        assert!(info.depth as usize <= self.reference.limit);
        if !self.reference.closed {
            assert_eq!(info.items + info.waiters, all.len(), "each is in the queue or in line");
        }
        let inside: usize = all.iter().take(info.items).map(|item| item.1).sum();
        assert_eq!(info.depth as usize, inside, "and those in it are the oldest");
        assert_eq!(
            (info.dropped, info.rejected),
            (self.reference.dropped, self.reference.rejected)
        );
        assert_eq!(info.sent, info.received + info.items as u64 + self.reference.dropped_inside());
        let in_line = all.iter().skip(info.items).map(|item| item.1);
        if let Some(first) = in_line.clone().next()
            && !self.reference.closed
        {
            let free = self.reference.limit - inside;
            let small = self.reference.limit < 8;
            assert!(free < first || (!small && free < self.reference.limit / 4), "the rule");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_sequence_of_operations_does_what_the_reference_says() {
    let base = fastrand::u64(..);
    println!("seed {base}");
    for trial in 0..300 {
        let seed = base.wrapping_add(trial);
        let mut random = fastrand::Rng::with_seed(seed);
        let full = [Full::Block, Full::Block, Full::Reject, Full::DropNewest, Full::DropOldest]
            [random.usize(..5)];
        let limit = [1, 2, 7, 8, 9, 64, 100][random.usize(..7)];
        println!("trial seed {seed}, {full:?}, bound {limit}");
        let (tx, rx) = Builder::new("reference", Bound::bytes(limit), full)
            .weigher(|item: &Item| item.1)
            .build();
        let reference =
            Reference { full, limit, all: VecDeque::new(), closed: false, dropped: 0, rejected: 0 };
        let mut trial = Trial { random, tx: &tx, rx: &rx, reference, waiting: Vec::new(), next: 0 };
        for step in 0..400 {
            trial.step();
            if step % 16 == 0 {
                tokio::time::advance(Duration::from_micros(700)).await;
            }
        }
    }
}
