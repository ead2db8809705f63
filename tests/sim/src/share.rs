//! Operations on what a mesh shares.

use crate::plan::Do;
use crate::rng::Rng;
use crate::said::{self, Clocked, Frame};
use crate::town::{KEYS, STREAMS};
use crate::world::World;

impl World {
    /// One or several requests of one kind, mostly by different clients.
    pub(crate) fn share(&mut self, what: Do, rng: &mut Rng) {
        for _ in 0..=rng.below(4) {
            let client = self.someone(rng);
            let frame = self.sharing(what, client, rng);
            self.later.push((client, frame));
            let at = self.time + rng.below(500);
            let index = self.later.len() - 1;
            self.queue.push(at, crate::world::Event::Later(index));
        }
    }

    fn sharing(&mut self, what: Do, client: usize, rng: &mut Rng) -> Frame {
        let req = self.clients[client].request_id();
        let number = self.oracle.next_message();
        let stream = rng.index(STREAMS.len());
        match what {
            Do::ShareState if rng.chance(250) => said::get_state(rng.index(KEYS.len()), &req),
            Do::ShareState => said::set_state(rng.index(KEYS.len()), number),
            Do::Clock => match rng.below(4) {
                0 => said::clock(Clocked::Pause, &req),
                1 => said::clock(Clocked::Resume, &req),
                _ => said::clock(Clocked::Set(*rng.pick(&[1, 7, 60, 100])), &req),
            },
            _ => match rng.below(10) {
                0 => said::create_stream(stream, &req),
                1..4 => said::subscribe(stream, true, &req),
                4 => said::subscribe(stream, false, &req),
                _ => said::publish(stream, number, &req),
            },
        }
    }
}
