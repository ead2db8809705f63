//! Questions that concern every mesh: put to each loop, answers gathered.
//!
//! A task of a loop asks through [`ask_all`] or [`ask_one`]; a thread asks through `Control`. A
//! loop whose lane is full, or that does not answer in time, is left out.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::limits::ASK_TIMEOUT;
use super::message::{Asker, Message};
use super::notify::Notify;
use super::reactor::{Loop, Reactor};
use crate::core::ids::Ticket;
use crate::core::input::{Answer, Ask, Input};

/// Answers to one question, one place per loop.
pub(super) struct Gather {
    answers: RefCell<Vec<Option<Answer>>>,
    missing: Cell<usize>,
    complete: Notify,
}

impl Gather {
    fn put(&self, from: u16, answer: Answer) {
        if let Some(place) = self.answers.borrow_mut().get_mut(usize::from(from)) {
            *place = Some(answer);
        }
        self.one_less();
    }

    fn one_less(&self) {
        self.missing.set(self.missing.get().saturating_sub(1));
        if self.missing.get() == 0 {
            self.complete.notify();
        }
    }
}

/// Asks every loop; the answers by loop.
pub(super) async fn ask_all(lp: &Rc<Loop>, ask: Ask) -> Vec<Option<Answer>> {
    let count = lp.shared.lanes.len();
    gather(lp, ask, 0..count).await
}

/// Asks one loop.
pub(super) async fn ask_one(lp: &Rc<Loop>, shard: usize, ask: Ask) -> Option<Answer> {
    gather(lp, ask, shard..shard + 1)
        .await
        .into_iter()
        .flatten()
        .next()
}

async fn gather(lp: &Rc<Loop>, ask: Ask, shards: std::ops::Range<usize>) -> Vec<Option<Answer>> {
    let gather = Rc::new(Gather {
        answers: RefCell::new(vec![None; lp.shared.lanes.len()]),
        missing: Cell::new(shards.len()),
        complete: Notify::default(),
    });
    let ticket = lp.turn(|reactor| reactor.put_question(&gather, &ask, shards));
    if gather.missing.get() > 0 {
        let span = Duration::from_millis(ASK_TIMEOUT.0);
        monoio::time::timeout(span, gather.complete.wait())
            .await
            .ok();
    }
    lp.turn(|reactor| reactor.gathers.remove(&ticket));
    gather.answers.take()
}

impl Reactor {
    fn put_question(
        &mut self,
        gather: &Rc<Gather>,
        ask: &Ask,
        shards: std::ops::Range<usize>,
    ) -> u64 {
        let ticket = self.mint_ticket();
        self.gathers.insert(ticket, Rc::clone(gather));
        for shard in shards {
            let asker = Asker::Loop {
                index: self.index,
                ticket,
            };
            if shard == usize::from(self.index) {
                self.ask(ask.clone(), asker);
                continue;
            }
            let message = Message::Ask {
                ask: ask.clone(),
                asker,
            };
            let lane = self.shared.lanes.get(shard);
            if lane.is_none_or(|lane| lane.offer(message).is_err()) {
                gather.one_less();
            }
        }
        ticket
    }

    /// A name for something that this loop waits for.
    pub(super) fn mint_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Puts a question to this loop's shard.
    pub(super) fn ask(&mut self, ask: Ask, asker: Asker) {
        let ticket = self.mint_ticket();
        self.asked.insert(ticket, asker);
        self.drive(Input::Ask {
            ticket: Ticket(ticket),
            ask,
        });
    }

    /// The shard's answer, to whoever asked.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        match self.asked.remove(&ticket.0) {
            Some(Asker::Loop { index, ticket }) if index == self.index => {
                self.answered(ticket, index, answer);
            }
            Some(Asker::Loop { index, ticket }) => {
                let message = Message::Answer {
                    ticket,
                    from: self.index,
                    answer,
                };
                if let Some(lane) = self.shared.lanes.get(usize::from(index)) {
                    // Refused only by a loop that has ended, and its askers with it.
                    lane.deliver(message).ok();
                }
            }
            Some(Asker::Thread(waiting)) => {
                // It may have given up.
                waiting.send((self.index, answer)).ok();
            }
            None => {}
        }
    }

    /// A loop's answer to a task of this one.
    pub(super) fn answered(&self, ticket: u64, from: u16, answer: Answer) {
        if let Some(gather) = self.gathers.get(&ticket) {
            gather.put(from, answer);
        }
    }
}
