//! What HTTP routes want of the store, done by a thread that may wait for the disk: a loop never
//! does. One piece of work after the other, each with its answer brought back to the loop that
//! asked.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::boot::Notice;
use super::control::Control;
use super::http::reply::Reply;
use super::limits::{CLERK_TIMEOUT, ERRANDS_MAX};
use super::loop_thread::Tripwire;
use super::message::Message;
use super::notify::Notify;
use super::reactor::{Loop, Reactor};

/// What is to be done.
type Work = Box<dyn FnOnce(&Control) -> Reply + Send>;

/// One piece of work, and where its answer goes.
pub(super) struct Order {
    work: Work,
    index: u16,
    ticket: u64,
}

/// An answer that is awaited.
#[derive(Default)]
pub(super) struct Errand {
    reply: RefCell<Option<Reply>>,
    done: Notify,
}

/// Starts the thread, which ends when it is [dismissed](super::shared::Shared::dismiss_clerk).
///
/// # Errors
/// If there is no thread to be had.
pub(super) fn start(control: Control, notify: Sender<Notice>) -> io::Result<JoinHandle<()>> {
    let (sender, orders) = sync_channel(ERRANDS_MAX);
    control.employ_clerk(sender);
    let thread = thread::Builder::new().name("clerk".to_owned());
    thread.spawn(move || {
        let _tripwire = Tripwire(notify);
        serve(&control, &orders);
    })
}

fn serve(control: &Control, orders: &Receiver<Order>) {
    for order in orders {
        let ticket = order.ticket;
        let reply = (order.work)(control);
        control.replied(order.index, Message::Replied { ticket, reply });
    }
}

/// Has work done, and waits for its answer.
pub(super) async fn ask(
    lp: &Rc<Loop>,
    work: impl FnOnce(&Control) -> Reply + Send + 'static,
) -> Reply {
    let errand = Rc::new(Errand::default());
    let order = lp.turn(|reactor| reactor.order(&errand, Box::new(work)));
    let ticket = order.ticket;
    let taken = lp.shared.order(order);
    if taken {
        let span = Duration::from_millis(CLERK_TIMEOUT.0);
        monoio::time::timeout(span, errand.done.wait()).await.ok();
    }
    lp.turn(|reactor| reactor.errands.remove(&ticket));
    match errand.reply.take() {
        Some(reply) => reply,
        None if taken => Reply::failure(500, "the database did not answer in time; try again"),
        None => Reply::failure(503, "too many requests wait for the database; try again"),
    }
}

impl Reactor {
    fn order(&mut self, errand: &Rc<Errand>, work: Work) -> Order {
        let ticket = self.mint_ticket();
        self.errands.insert(ticket, Rc::clone(errand));
        Order {
            work,
            index: self.index,
            ticket,
        }
    }

    /// The clerk has answered; the request may have been given up.
    pub(super) fn replied(&self, ticket: u64, reply: Reply) {
        if let Some(errand) = self.errands.get(&ticket) {
            *errand.reply.borrow_mut() = Some(reply);
            errand.done.notify();
        }
    }
}
