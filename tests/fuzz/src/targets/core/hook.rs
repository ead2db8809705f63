//! Status hooks against sessions that are there.

use std::cmp::Reverse;

use holdfast::shell::decoders::Posted;
use holdfast_core::effect::Effect;
use holdfast_core::ids::Ticket;
use holdfast_core::input::{Answer, Ask, HookCandidate, Input, PeerView};
use holdfast_core::rows::Status;
use serde_json::Value;

use super::story::{Cause, Story};
use super::world::SHARDS;

impl Story {
    /// Does what the broker does with a hook's body (protocol.md §2.3).
    pub(super) fn hook(&mut self, body: &[u8]) {
        let Some(posted) = Posted::parse(body) else {
            assert!(
                serde_json::from_slice::<Value>(body).is_err(),
                "it was JSON"
            );
            return;
        };
        check_posted(&posted, body);
        let status = posted.status.as_deref().and_then(Status::parse);
        let (Some(cwd), Some(status)) = (posted.cwd, status) else {
            return;
        };
        let pid = posted.pid;
        let found = (0..SHARDS).filter_map(|shard| {
            let cwd = cwd.clone();
            let Answer::HookCandidate(found) = self.ask(shard, Ask::HookFind { cwd, pid }) else {
                panic!("another answer to a hook");
            };
            Some((shard, found?))
        });
        let found: Vec<(usize, HookCandidate)> = found.collect();
        let in_directory = self.peers().into_iter().filter(|peer| peer.cwd == cwd);
        let in_directory: Vec<PeerView> = in_directory.collect();
        assert_eq!(
            found.is_empty(),
            in_directory.is_empty(),
            "sessions in {cwd:?}"
        );
        let best = found
            .into_iter()
            .min_by_key(|(_, of)| Reverse((of.exact, of.connected_at)));
        let Some((shard, candidate)) = best else {
            for shard in 0..SHARDS {
                let (cwd, pid) = (cwd.clone(), pid.unwrap_or(0));
                self.ask(shard, Ask::HookPend { cwd, pid, status });
            }
            return;
        };
        self.apply(shard, &candidate, status, &in_directory);
    }

    fn apply(&mut self, shard: usize, to: &HookCandidate, status: Status, there: &[PeerView]) {
        let (slot, presence_id) = (to.slot, to.presence_id.clone());
        let before = there.iter().find(|peer| peer.presence_id == presence_id);
        let before = before.expect("a hook finds who is in its directory").status;
        let ask = Ask::HookApply {
            slot,
            presence_id: presence_id.clone(),
            status,
        };
        let done = self.ask(shard, ask);
        assert!(matches!(done, Answer::HookDone(true)), "{done:?}");
        let after = self
            .peers()
            .into_iter()
            .find(|p| p.presence_id == presence_id);
        let after = after.map(|peer| peer.status);
        // A hook never leaves dnd.
        let expected = if before == "dnd" {
            before
        } else {
            status.name()
        };
        assert_eq!(after, Some(expected));
    }

    /// Everybody present, in both meshes.
    fn peers(&mut self) -> Vec<PeerView> {
        let homes = [(0, "mesh-b"), (1, "mesh-a")];
        let peers = homes.into_iter().flat_map(|(shard, mesh)| {
            let mesh = mesh.to_owned();
            let Answer::Peers(Some(peers)) = self.ask(shard, Ask::Peers { mesh }) else {
                panic!("another answer to who is there");
            };
            peers
        });
        peers.collect()
    }

    /// Puts a question to a shard and carries out what follows.
    pub(super) fn ask(&mut self, shard: usize, ask: Ask) -> Answer {
        let ticket = Ticket(0);
        let mut fx = self.call(shard, Input::Ask { ticket, ask });
        let place = fx
            .iter()
            .position(|effect| matches!(effect, Effect::Answer { .. }));
        let answer = place.map(|place| fx.remove(place));
        self.carry_out(shard, fx, Cause::Event);
        match answer {
            Some(Effect::Answer { answer, .. }) => answer,
            other => panic!("no answer but {other:?}"),
        }
    }
}

/// The fields are those a plain reader finds.
fn check_posted(posted: &Posted, body: &[u8]) {
    let value: Value = serde_json::from_slice(body).expect("what was read is JSON");
    let text = |name: &str| {
        let text = value[name].as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned)
    };
    assert_eq!(posted.cwd, text("cwd"));
    assert_eq!(posted.status, text("status"));
    assert_eq!(posted.pid, value["pid"].as_i64());
}
