//! Operations on clients: what people and programs do.

use holdfast_core::input::Closing;
use holdfast_core::rows::{Priority, Status};
use serde_json::json;

use crate::client::Parting;
use crate::keys;
use crate::link::Up;
use crate::oracle::Violation;
use crate::plan::Do;
use crate::rng::Rng;
use crate::said::{self, Frame, Said, SendSaid, TaskAsked, Whom};
use crate::town::{GROUPS, KEYS};
use crate::world::World;

impl World {
    /// Does one operation of the plan.
    pub(crate) fn operate(&mut self, index: usize) -> Result<(), Violation> {
        let plan = std::rc::Rc::clone(&self.plan);
        let operation = &plan.operations[index];
        let mut rng = Rng::new(operation.seed);
        let (time, what) = (self.time, operation.what);
        self.trace
            .line(|| format!("{time:>9} ** operation {index} {what:?}"));
        match what {
            Do::Kill
            | Do::KillOften
            | Do::Stop
            | Do::Stall
            | Do::WallStep
            | Do::DiskFails
            | Do::DiskSlow
            | Do::DiskCrowded
            | Do::AdminPut
            | Do::Hook => {
                return self.operate_broker(what, &mut rng);
            }
            Do::Send | Do::Volley | Do::Flood | Do::Bulk => self.send_some(what, &mut rng),
            Do::FalsePong => self.pong_falsely(&mut rng),
            Do::SendAbsent => self.send_absent(&mut rng),
            Do::Resend => self.send_again(&mut rng),
            Do::Absence => self.absence(&mut rng),
            Do::ShareState | Do::Stream | Do::Clock => self.share(what, &mut rng),
            Do::Watch | Do::Schedule | Do::Mcp => self.own(what, &mut rng),
            Do::SetStatus
            | Do::Show
            | Do::AskSomething
            | Do::HelloAgain
            | Do::FalseAck
            | Do::Goodbye
            | Do::Kick
            | Do::Ban => self.request(what, &mut rng),
            Do::CloseClean | Do::CutOff | Do::HalfOpen | Do::Relaunch | Do::Pause | Do::Leave => {
                self.disturb(what, &mut rng);
            }
            Do::Rivals
            | Do::OneShot
            | Do::ForeignClaim
            | Do::SameSessionId
            | Do::ReplayHello
            | Do::BadHello
            | Do::Hostile => self.intrude(what, &mut rng),
        }
        Ok(())
    }

    /// One of those who want to be there.
    pub(crate) fn someone(&self, rng: &mut Rng) -> usize {
        rng.index(self.plan.personas.len())
    }

    pub(crate) fn target(&self, rng: &mut Rng, sender: usize) -> String {
        let town = &self.plan.town;
        let mesh = town.members[self.clients[sender].persona.who.member].mesh;
        let peers: Vec<usize> = (0..self.plan.personas.len())
            .filter(|n| town.members[self.plan.personas[*n].who.member].mesh == mesh)
            .collect();
        let peer = &self.plan.personas[*rng.pick(&peers)].who;
        match rng.weighted(&[50, 25, 8, 3, 8, 2, 2, 2]) {
            0 => peer
                .session_key()
                .unwrap_or_else(|| town.member_key(peer.member))
                .to_string(),
            1 => town.member_key(peer.member).to_string(),
            2 => "*".into(),
            3 => "@all".into(),
            4 => format!("@{}", rng.pick(&GROUPS)),
            5 => "@nobody".into(),
            6 => keys::key(900).to_string(),
            _ => "#topic".into(),
        }
    }

    /// A new message.
    pub(crate) fn message(
        &mut self,
        rng: &mut Rng,
        target: String,
        priority: Priority,
        padding: usize,
    ) -> Frame {
        let number = self.oracle.next_message();
        let client_id = rng.chance(700).then(|| format!("c{number}"));
        SendSaid {
            number,
            target,
            priority,
            client_id,
        }
        .frame(padding)
    }

    pub(crate) fn send_some(&mut self, what: Do, rng: &mut Rng) {
        let sender = self.someone(rng);
        let (count, padding, spread) = match what {
            Do::Volley => (rng.between(2, 12), 0, rng.below(400)),
            Do::Flood => (*rng.pick(&[270, 300, 600, 1_150]), 0, 50),
            Do::Bulk => (rng.between(3, 14), 100_000, 100),
            _ => (1, 0, 0),
        };
        let target = match what {
            Do::Bulk => "*".to_owned(),
            Do::Flood => {
                let peer = self.someone(rng);
                let who = &self.plan.personas[peer].who;
                let member_key = self.plan.town.member_key(who.member);
                who.session_key().unwrap_or(member_key).to_string()
            }
            _ => self.target(rng, sender),
        };
        let mixed = rng.chance(500);
        let first = [Priority::Now, Priority::Next, Priority::Low][rng.index(3)];
        for n in 0..count {
            let priority = if mixed {
                [Priority::Now, Priority::Next, Priority::Low][rng.index(3)]
            } else {
                first
            };
            let frame = self.message(rng, target.clone(), priority, padding);
            self.later.push((sender, frame));
            let at = self.time + n * spread / count;
            let index = self.later.len() - 1;
            self.queue.push(at, crate::world::Event::Later(index));
        }
    }

    pub(crate) fn request(&mut self, what: Do, rng: &mut Rng) {
        let client = self.someone(rng);
        let req = self.clients[client].request_id();
        let frame = match what {
            Do::SetStatus => {
                said::status([Status::Idle, Status::Working, Status::Dnd][rng.index(3)])
            }
            Do::Show => match rng.below(4) {
                0 => said::visible(rng.chance(500), &req),
                1 => said::group(false, GROUPS[rng.index(GROUPS.len())]),
                _ => said::group(true, GROUPS[rng.index(GROUPS.len())]),
            },
            Do::AskSomething => {
                // More at once than the store looks up for one connection.
                let lists = if rng.chance(200) { 7 } else { 0 };
                for _ in 0..lists {
                    let req = self.clients[client].request_id();
                    self.say(client, said::task(TaskAsked::List, &req));
                }
                self.question(rng, &req)
            }
            Do::HelloAgain => self.hello_of(if rng.chance(700) {
                client
            } else {
                self.someone(rng)
            }),
            Do::FalseAck => {
                let (id, client_id) = self.oracle.some_message(rng.next());
                said::ack(id.as_deref(), client_id.as_deref().or(Some("nonsense")))
            }
            Do::Goodbye => said::goodbye(),
            Do::Kick => {
                let whom = match rng.below(6) {
                    0 => Whom::All,
                    1 => Whom::Stale(rng.below(3_000)),
                    2 => Whom::Target("nobody of that name".into()),
                    3 => Whom::Target(
                        keys::pair(u16::try_from(rng.below(4)).unwrap_or(0))
                            .hex
                            .clone(),
                    ),
                    _ => Whom::Target(format!("client {}", self.someone(rng))),
                };
                said::kick(rng.chance(600), whom, &req)
            }
            _ => {
                let name = rng.pick(&self.plan.town.members).name.clone();
                let ban = said::ban(true, &name, &req);
                let unban = said::ban(false, &name, &self.clients[client].request_id());
                let after = self.time + rng.below(8_000);
                // Only who may ban lifts it; others try.
                self.later.push((client, unban));
                self.queue
                    .push(after, crate::world::Event::Later(self.later.len() - 1));
                ban
            }
        };
        self.say(client, frame);
    }

    pub(crate) fn question(&self, rng: &mut Rng, req: &str) -> Frame {
        let (id, _) = self.oracle.some_message(rng.next());
        let id = id.unwrap_or_else(|| "0".repeat(20));
        match rng.below(12) {
            0 | 1 => said::plain(json!({"type": "list_peers"}), Some("peers_list"), req),
            2 | 3 => {
                let value = json!({"type": "message_status", "messageId": id});
                said::plain(value, Some("message_status_result"), req)
            }
            4 => said::plain(json!({"type": "list_bans"}), Some("list_bans_result"), req),
            5 => said::plain(json!({"type": "set_summary", "summary": "busy"}), None, req),
            6 => said::plain(
                json!({"type": "set_stats", "stats": {"messagesIn": 3}}),
                None,
                req,
            ),
            7 => said::plain(
                json!({"type": "set_profile", "title": "t"}),
                Some("ack"),
                req,
            ),
            8 => said::task(TaskAsked::Create, req),
            9 | 10 => {
                let id = self.oracle.tasks.some(rng.next()).unwrap_or("none");
                said::task(TaskAsked::Claim(id.to_owned()), req)
            }
            11 if rng.chance(500) => said::task(TaskAsked::List, req),
            _ => said::get_state(rng.index(KEYS.len()), req),
        }
    }

    /// Pongs with watermarks of other sockets, of the future, or once more; some of them as the
    /// first thing on the next socket.
    fn pong_falsely(&mut self, rng: &mut Rng) {
        let client = self.someone(rng);
        let links = self.links.iter().filter(|link| link.client == client);
        let mut known: Vec<u64> = links.flat_map(|link| link.watermarks.clone()).collect();
        let last = known.last().copied().unwrap_or(0);
        known.extend([last + 1_000_000, u64::MAX, 0]);
        let picked: Vec<u64> = (0..3).map(|_| *rng.pick(&known)).collect();
        if rng.chance(500) {
            self.clients[client].stale = picked;
            let parted = [Parting::Cut, Parting::Vanish][rng.index(2)];
            self.part(client, parted);
            return self.connect_in(client, rng.below(700));
        }
        let joined = self.clients[client].joined;
        for watermark in picked.into_iter().filter(|_| joined) {
            if let Some(link) = self.clients[client].link {
                let mut payload = watermark.to_be_bytes().to_vec();
                payload.truncate(if rng.chance(150) { 7 } else { 8 });
                self.send_up(link, Up::Pong(payload));
            }
        }
    }

    /// Some of what was sent is sent once more, or twice.
    fn send_again(&mut self, rng: &mut Rng) {
        let named = |frame: &Frame| match &frame.said {
            Said::Send(said) => said.client_id.is_some(),
            _ => false,
        };
        let sent = self.later.iter().filter(|(_, frame)| named(frame));
        let sent: Vec<(usize, Frame)> = sent.cloned().collect();
        if sent.is_empty() {
            return;
        }
        let first = rng.index(sent.len());
        let count = 1 + rng.index(6);
        for (sender, frame) in sent.into_iter().skip(first).take(count) {
            for _ in 0..=rng.index(2) {
                self.say(sender, frame.clone());
            }
        }
    }

    /// A message to a key that was there once, or to a member who is away.
    fn send_absent(&mut self, rng: &mut Rng) {
        let sender = self.someone(rng);
        let other = rng.index(self.clients.len());
        let who = self.clients[other].persona.who.clone();
        let member_key = self.plan.town.member_key(who.member);
        let key = who.session_key().filter(|_| rng.chance(700));
        if rng.chance(300) && !self.clients[other].extra {
            // It goes, and is back when its mail is there.
            self.say(other, said::goodbye());
            self.clients[other].paused_until = self.time + 1;
        }
        let target = key.unwrap_or(member_key).to_string();
        let frame = self.message(rng, target, Priority::Next, 0);
        self.later.push((sender, frame));
        let at = self.time + rng.below(600);
        let index = self.later.len() - 1;
        self.queue.push(at, crate::world::Event::Later(index));
    }

    /// A client goes, others speak, come and go, and it is back within its grace.
    fn absence(&mut self, rng: &mut Rng) {
        let client = self.someone(rng);
        let grace = self.plan.swarm.config.grace.0;
        let how = [Parting::Clean, Parting::Cut, Parting::Vanish][rng.index(3)];
        self.part(client, how);
        let back = rng.below(grace);
        self.connect_in(client, back);
        for _ in 0..rng.between(1, 8) {
            let other = self.someone(rng);
            let at = self.time + rng.below(back + 200);
            let frame = match rng.below(10) {
                0 => said::goodbye(),
                1 | 2 => said::visible(rng.chance(500), &self.clients[other].request_id()),
                3 => {
                    let number = u16::try_from(self.clients.len() % 300).unwrap_or(0);
                    let persona = self.plan.personas[other].clone();
                    self.one_shot(persona, number, rng);
                    continue;
                }
                _ => {
                    let target = ["*", "@all", "@ops", "@dev"][rng.index(4)];
                    self.message(rng, target.to_owned(), Priority::Next, 0)
                }
            };
            self.later.push((other, frame));
            let index = self.later.len() - 1;
            self.queue.push(at, crate::world::Event::Later(index));
        }
    }

    pub(crate) fn disturb(&mut self, what: Do, rng: &mut Rng) {
        let client = self.someone(rng);
        let grace = self.plan.swarm.config.grace.0;
        match what {
            Do::CloseClean => self.part(client, Parting::Clean),
            Do::CutOff => self.part(client, Parting::Cut),
            Do::HalfOpen => {
                let how = if rng.chance(500) {
                    Parting::Vanish
                } else {
                    Parting::Blackout
                };
                self.part(client, how);
                if how == Parting::Blackout {
                    return;
                }
            }
            Do::Relaunch => return self.relaunch(client, rng),
            Do::Pause => {
                let times = [50, 700, grace / 2, grace, grace * 2, 40_000, 3_600_000];
                let length = times[rng.weighted(&[3, 3, 3, 2, 2, 1, 1])];
                self.clients[client].paused_until = self.time + 1 + rng.below(length * 2);
                return;
            }
            _ => {
                let how = [Parting::Clean, Parting::Cut, Parting::Vanish][rng.index(3)];
                self.part(client, how);
                let times = [
                    grace.saturating_sub(1),
                    grace,
                    grace + 1,
                    grace * 3,
                    grace * 20,
                ];
                return self.connect_in(client, *rng.pick(&times));
            }
        }
        if rng.chance(300) {
            // At once, so that the old socket's end and the new hello race.
            self.connect_in(client, rng.below(3));
        } else {
            self.come_back(client);
        }
    }

    /// The new socket is opened before, while or after the old one is closed, or the old one is
    /// never closed.
    pub(crate) fn relaunch(&mut self, client: usize, rng: &mut Rng) {
        let Some(old) = self.clients[client].link else {
            return self.connect_in(client, 0);
        };
        if rng.chance(200) {
            // An old socket's goodbye means nothing.
            self.links[old].up_stall = self.time + rng.below(2_000);
            self.send_up(old, Up::Frame(said::goodbye()));
        }
        if rng.chance(300) {
            self.part(client, Parting::Clean);
            return self.connect(client);
        }
        let net = self.plan.swarm.net;
        self.links[old].used = false;
        self.clients[client].link = None;
        self.connect(client);
        match rng.below(3) {
            0 => {
                let stall = self.time + rng.below(2_000);
                self.links[old].up_stall = stall;
                self.send_up(old, Up::End(Closing::Clean));
            }
            1 => {
                self.links[old].up_stall = self.time + rng.below(2_000);
                self.send_up(old, Up::Ping);
                self.send_up(old, Up::End(Closing::Abrupt));
            }
            _ => self.links[old].cut_up(&net),
        }
        self.links[old].up_cut = true;
        self.links[old].cut_down(&net);
    }
}
