//! The producing side: an open loop. Every order has its intended time and is sent when that has
//! come, whether or not earlier ones were answered; its latency is counted from the intended time,
//! so a slow broker cannot hide behind a load generator that waits for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::engine::Engine;
use crate::orders::Orders;
use crate::ports::Publisher;
use crate::sink::Sink;

/// Orders due within one tick are sent together; what this delays is part of their latency.
const TICK: Duration = Duration::from_millis(2);

/// Sends the orders from now on and returns when each was acknowledged or given up, with the
/// first reason for giving one up. Of each partition, the first `skip` orders are left out: they
/// are in the broker's log since an earlier run.
pub async fn produce<P: Publisher, S: Sink + 'static>(
    mut orders: Orders,
    mut skip: BTreeMap<i32, u64>,
    publisher: Rc<P>,
    engine: Rc<RefCell<Engine<S>>>,
) -> Option<String> {
    let begun = Instant::now();
    let mut shift = None;
    let mut waiters = Waiters::new(Rc::clone(&engine));
    while let Some(due) = orders.next_due() {
        let shift_known = shift.unwrap_or(due);
        let at = begun + due.saturating_sub(shift_known);
        let now = Instant::now();
        if at > now && shift.is_some() {
            sleep_until(at.max(now + TICK)).await;
            continue;
        }
        let order = orders.next().expect("it is due");
        if let Some(count) = skip.get_mut(&order.partition).filter(|count| **count > 0) {
            *count -= 1;
            continue;
        }
        // The schedule of a continued sale begins with its first order that is still to be sent.
        let shift = *shift.get_or_insert(due);
        let (partition, due) = (order.partition, due.saturating_sub(shift));
        engine.borrow_mut().sent(order.is_poison);
        let acknowledged = publisher.send(order);
        waiters.wait_for(partition, due, acknowledged);
    }
    waiters.finish().await
}

/// One task per partition that waits for its acknowledgements in sequence, which is the sequence
/// in which a broker gives them.
struct Waiters<S, A> {
    engine: Rc<RefCell<Engine<S>>>,
    queues: BTreeMap<i32, mpsc::UnboundedSender<(Duration, A)>>,
    tasks: JoinSet<Option<String>>,
}

impl<S, A> Waiters<S, A>
where
    S: Sink + 'static,
    A: Future<Output = Result<(), String>> + 'static,
{
    fn new(engine: Rc<RefCell<Engine<S>>>) -> Self {
        Self {
            engine,
            queues: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    fn wait_for(&mut self, partition: i32, due: Duration, acknowledged: A) {
        let (engine, tasks) = (&self.engine, &mut self.tasks);
        let queue = self.queues.entry(partition).or_insert_with(|| {
            let (queue, sent) = mpsc::unbounded_channel();
            tasks.spawn_local(wait(partition, sent, Rc::clone(engine)));
            queue
        });
        // The task ends after its queue only.
        let _ = queue.send((due, acknowledged));
    }

    async fn finish(mut self) -> Option<String> {
        self.queues.clear();
        let mut first = None;
        while let Some(ended) = self.tasks.join_next().await {
            let reason = ended.unwrap_or_else(|error| Some(error.to_string()));
            first = first.or(reason);
        }
        first
    }
}

/// Counts the acknowledgements of one partition; returns the first reason for giving an order up.
async fn wait<S: Sink, A: Future<Output = Result<(), String>>>(
    partition: i32,
    mut sent: mpsc::UnboundedReceiver<(Duration, A)>,
    engine: Rc<RefCell<Engine<S>>>,
) -> Option<String> {
    let mut first = None;
    while let Some((due, acknowledged)) = sent.recv().await {
        match acknowledged.await {
            Ok(()) => engine.borrow_mut().acked(partition, due),
            Err(reason) => {
                engine.borrow_mut().failed();
                first.get_or_insert(reason);
            }
        }
    }
    first
}
