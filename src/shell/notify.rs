//! A wake-up within one loop: no thread, no allocation, one waiter.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Remembers one notification until it is waited for. Waiting may be given up at any time.
#[derive(Default)]
pub(super) struct Notify {
    set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Notify {
    /// Lets the waiter, or the next one, go on.
    pub(super) fn notify(&self) {
        self.set.set(true);
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Whether there is a notification that nobody has waited for.
    pub(super) fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Returns once notified since the last return.
    pub(super) async fn wait(&self) {
        poll_fn(|cx| {
            if self.set.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
