//! Random operations and questions over few ids, so that they meet.

use holdfast_core::identity::KeyPair;
use holdfast_core::ids::{Position, PubKey, Seq, WatchId};
use holdfast_core::mint::Mint;
use holdfast_core::rows::{
    AuditRow, Group, MemberRow, MessageRow, NewTopic, NotifyOn, Origin, PeerRole, PeerStateRow,
    PresenceRow, Priority, Restart, ScheduleRow, ServerRow, StateRow, Stats, Status, StatusSource,
    StoreOp, StoreQuery, StreamRow, Told, TopicChange, TopicKeyRow, TopicMemberRow, TopicRole,
    TopicRow, Visibility, WatchMode, WatchRow,
};
use holdfast_core::time::{Millis, Wall};

/// Numbers (SplitMix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)) % bound
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        self.coin().then_some(value)
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()].clone()
    }
}

/// See the module.
pub(crate) struct Maker {
    pub(crate) chance: Chance,
    mint: Mint,
    members: Vec<MemberRow>,
    now: i64,
    /// The first sequence of this boot.
    pub(crate) first: u64,
    /// Streams made.
    streams: i64,
}

impl Maker {
    pub(crate) fn new(seed: u64, members: Vec<MemberRow>, now: i64) -> Self {
        Self {
            chance: Chance(seed),
            mint: Mint::new([1; 32]),
            members,
            now,
            first: 0,
            streams: 0,
        }
    }

    fn key(&mut self) -> PubKey {
        let number = self.chance.pick(&[1, 2, 3, 4]);
        KeyPair::from_seed([number; 32]).public()
    }

    fn maybe_key(&mut self) -> Option<PubKey> {
        let key = self.key();
        self.chance.maybe(key)
    }

    fn member(&mut self) -> MemberRow {
        self.chance.pick(&self.members)
    }

    /// A presence: where it began, and its id.
    fn who(&mut self) -> (Position, String) {
        let number = self.chance.below(6);
        (Position(1 << 40 | number), format!("presence-{number}"))
    }

    fn seq(&mut self) -> Seq {
        Seq(self.first + self.chance.below(60))
    }

    fn position(&mut self) -> Position {
        Position(self.chance.below(1 << 40))
    }

    fn maybe_position(&mut self) -> Option<Position> {
        let position = self.position();
        self.chance.maybe(position)
    }

    fn wall(&mut self) -> Wall {
        Wall(self.now + i64::try_from(self.chance.below(100_000)).unwrap())
    }

    fn maybe_wall(&mut self) -> Option<Wall> {
        let wall = self.wall();
        self.chance.maybe(wall)
    }

    fn groups(&mut self) -> Vec<Group> {
        let count = self.chance.below(3);
        let name = |n: u64| format!("it's/{n}").into();
        (0..count)
            .map(|n| Group {
                name: name(n),
                role: self.chance.maybe("lead".into()),
            })
            .collect()
    }

    fn presence(&mut self) -> PresenceRow {
        let (began, id) = self.who();
        // It never changes its member.
        let member = self.members[usize::try_from(began.0).unwrap() % self.members.len()].clone();
        PresenceRow {
            id,
            mesh_id: member.mesh_id,
            member_id: member.id,
            session_id: format!("session-{}", self.chance.below(3)),
            session_pubkey: self.maybe_key(),
            role: self
                .chance
                .pick(&[PeerRole::Session, PeerRole::ControlPlane]),
            display_name: "na\"me".into(),
            pid: i64::try_from(self.chance.below(1 << 40)).unwrap(),
            cwd: "/srv".into(),
            hostname: self.chance.maybe("host".into()),
            peer_type: self.chance.maybe("ai".into()),
            channel: self.chance.maybe("c".into()),
            model: self.chance.maybe("m".into()),
            status: self
                .chance
                .pick(&[Status::Idle, Status::Working, Status::Dnd]),
            status_source: self.chance.pick(&[
                StatusSource::Jsonl,
                StatusSource::Manual,
                StatusSource::Hook,
            ]),
            status_at: self.wall(),
            summary: self.chance.maybe("s".into()),
            groups: self.groups(),
            visible: self.chance.coin(),
            profile: "{}".into(),
            connected_at: self.wall(),
            last_ping_at: self.wall(),
            lease_until: self.maybe_wall(),
            generation: u32::try_from(self.chance.below(1 << 31)).unwrap(),
            attested_until: self.maybe_wall(),
            boot_epochs: self.chance.pick(&[0, 1, 2, 3]),
            grace: self.chance.maybe(Millis(5)),
            began,
            joined: self.maybe_position(),
            shown: self.maybe_position(),
            cursor: self.position(),
            heard: self.position(),
            known: self.position(),
        }
    }

    fn message(&mut self) -> MessageRow {
        let member = self.member();
        // Sequences repeat now and then, and are refused.
        let seq = self.seq();
        let key = self.key().to_string();
        let client_id = format!("c{}", self.chance.below(20));
        let delivered = self.chance.below(5) == 0;
        let target_spec = self
            .chance
            .pick(&["*".into(), "@group".into(), key.clone(), key]);
        // No two are at one place.
        let position = (target_spec.len() < 10).then_some(Position(seq.0 * 2));
        MessageRow {
            seq,
            id: self.mint.message_id(seq),
            mesh_id: member.mesh_id,
            sender_member_id: member.id,
            sender_member_pubkey: member.pubkey,
            sender_session_pubkey: self.maybe_key(),
            sender_name: "n".into(),
            target_spec,
            priority: self
                .chance
                .pick(&[Priority::Now, Priority::Next, Priority::Low]),
            nonce: "n".into(),
            ciphertext: "c".into(),
            created_at: self.wall(),
            delivered_at: self.maybe_wall().filter(|_| delivered),
            client_message_id: self.chance.maybe(client_id),
            request_fingerprint: self.chance.maybe("f".into()),
            reply_to_id: self.chance.maybe("r".into()),
            position,
            deferred: self.chance.coin(),
            origin: self
                .chance
                .pick(&[Origin::Sent, Origin::Scheduled, Origin::Reminder]),
            post: None,
        }
    }

    fn insert(&mut self) -> StoreOp {
        StoreOp::MessageInsert(Box::new(self.message()))
    }

    /// Few ids, so that some are put twice, and refused.
    fn schedule_id(&mut self) -> String {
        format!("s{}", self.chance.below(6))
    }

    fn schedule(&mut self) -> StoreOp {
        let member = self.member();
        StoreOp::SchedulePut(Box::new(ScheduleRow {
            id: self.schedule_id(),
            mesh_id: member.mesh_id,
            member_id: member.id,
            presence_id: "p".into(),
            session_pubkey: self.maybe_key(),
            sender_name: "n".into(),
            to: "*".into(),
            target_spec: "*".into(),
            message: "m".into(),
            deliver_at: self.wall(),
            cron: self.chance.maybe("* * * * *".into()),
            reminder: self.chance.coin(),
            fired_count: 0,
            created_at: self.wall(),
        }))
    }

    fn server(&mut self) -> StoreOp {
        let member = self.member();
        let name = format!("v{}", self.chance.below(4));
        if self.chance.below(3) == 0 {
            let mesh_id = member.mesh_id;
            return StoreOp::ServerRemoved { mesh_id, name };
        }
        StoreOp::ServerPut(Box::new(ServerRow {
            mesh_id: member.mesh_id,
            name,
            member_id: member.id,
            role: self
                .chance
                .pick(&[PeerRole::Session, PeerRole::ControlPlane]),
            session_pubkey: self.maybe_key(),
            host: self.maybe_position(),
            offline_since: self.maybe_wall(),
            hosted_by: "h".into(),
            description: "d".into(),
            tools: "[]".into(),
            persistent: self.chance.coin(),
            told: (self.position(), self.wall()),
        }))
    }

    fn fired(&mut self) -> StoreOp {
        let sent = match self.insert() {
            StoreOp::MessageInsert(row) => Some(row),
            _ => None,
        };
        StoreOp::ScheduleFired {
            id: self.schedule_id(),
            sent: sent.filter(|_| self.chance.coin()),
            next: self.maybe_wall(),
        }
    }

    fn peer_state(&mut self) -> StoreOp {
        let member = self.member();
        StoreOp::PeerStatePut(Box::new(PeerStateRow {
            mesh_id: member.mesh_id,
            member_id: member.id,
            groups: self.groups(),
            profile: "{}".into(),
            visible: self.chance.coin(),
            last_summary: self.chance.maybe("s".into()),
            last_display_name: self.chance.maybe("n".into()),
            stats: Stats::default(),
            last_seen_at: self.wall(),
        }))
    }

    /// Of few topics, so that they meet, and names are taken.
    fn topic(&mut self) -> StoreOp {
        let (member, number) = (self.member(), self.chance.below(5));
        let membership = TopicMemberRow {
            mesh_id: member.mesh_id.clone(),
            topic_id: format!("t{number}"),
            member_id: member.id.clone(),
            role: self.chance.pick(&[TopicRole::Lead, TopicRole::Member]),
            joined_at: self.wall(),
            last_read_at: self.maybe_wall(),
        };
        let change = match self.chance.below(3) {
            0 => TopicChange::Created(Box::new(NewTopic {
                topic: TopicRow {
                    id: membership.topic_id.clone(),
                    mesh_id: member.mesh_id,
                    name: format!("n{}", self.chance.below(4)),
                    description: self.chance.maybe("d".into()),
                    visibility: self.chance.pick(&[Visibility::Public, Visibility::Dm]),
                    created_by: member.id,
                    created_at: self.wall(),
                },
                lead: membership.clone(),
                key: self.chance.maybe(TopicKeyRow {
                    topic_id: membership.topic_id,
                    member_id: membership.member_id,
                    ..TopicKeyRow::default()
                }),
            })),
            1 => TopicChange::MemberPut(membership),
            _ => TopicChange::MemberGone {
                mesh_id: membership.mesh_id,
                topic_id: membership.topic_id,
                member_id: membership.member_id,
            },
        };
        StoreOp::Topic(Box::new(change))
    }

    fn acked(&mut self) -> StoreOp {
        let (seq, name) = (self.seq(), format!("c{}", self.chance.below(20)));
        StoreOp::MessageAcked {
            mesh_id: self.member().mesh_id,
            seq: self.chance.maybe(seq),
            client_message_id: self.chance.maybe(name),
            keys: vec![self.key(), self.key()],
            at: self.wall(),
        }
    }

    /// What a start grants.
    pub(crate) fn restart(&mut self) -> StoreOp {
        let mut span = |most| Millis(self.chance.below(most));
        let (grace, max_grace) = (span(50_000), span(100_000));
        StoreOp::Restarted(Restart {
            grace,
            max_grace,
            restart_grace: span(50_000),
            at: self.wall(),
            heard: self.position(),
        })
    }

    fn name(&mut self) -> String {
        format!("it's {}", self.chance.below(4))
    }

    fn state(&mut self) -> StoreOp {
        let (member, value) = (self.member(), self.chance.below(100));
        let audit = AuditRow {
            mesh_id: member.mesh_id.clone(),
            event_type: "state_set",
            actor_member_id: None,
            actor_display_name: None,
            payload: serde_json::json!({ "value": value }),
            created_at: self.wall(),
        };
        let row = StateRow {
            mesh_id: member.mesh_id,
            key: self.name(),
            value: value.to_string(),
            updated_by: member.display_name,
            updated_at: self.wall(),
            setter: self.position(),
            position: self.position(),
        };
        StoreOp::StateSet {
            row: Box::new(row),
            audit: Box::new(audit),
        }
    }

    fn stream(&mut self) -> StoreOp {
        self.streams += 1;
        let member = self.member();
        StoreOp::StreamCreate(Box::new(StreamRow {
            id: format!("stream-{}", self.streams),
            mesh_id: member.mesh_id,
            name: self.name(),
            created_by: member.display_name,
            created_at: Wall(self.now + self.streams),
        }))
    }

    fn watch_id(&mut self) -> WatchId {
        WatchId(self.chance.pick(&[1, 2, 3]))
    }

    fn watch(&mut self) -> StoreOp {
        let notify_on = [NotifyOn::Change, NotifyOn::Match("a:b".into())];
        StoreOp::WatchPut(Box::new(WatchRow {
            began: self.who().0,
            id: self.watch_id(),
            mesh_id: self.member().mesh_id,
            url: "http://example.com/".to_owned(),
            mode: self.chance.pick(&[WatchMode::Hash, WatchMode::Status]),
            extract: self.chance.maybe("a".to_owned()),
            interval: Millis(5000 + self.chance.below(9)),
            notify_on: self.chance.pick(&notify_on),
            headers: self
                .chance
                .pick(&[vec![], vec![("a".to_owned(), "b".to_owned())]]),
            label: self.chance.maybe("l".to_owned()),
            value: self.chance.pick(&["", "a", "b"]).to_owned(),
            created_at: self.wall(),
        }))
    }

    /// The next operation.
    pub(crate) fn op(&mut self) -> StoreOp {
        let ((began, id), at) = (self.who(), self.wall());
        match self.chance.below(23) {
            16 => self.state(),
            17 => StoreOp::Subscribed {
                began,
                id,
                stream: self.name(),
                subscribed: self.chance.below(3) > 0,
            },
            18 => self.stream(),
            19 => self.topic(),
            20 | 21 => self.watch(),
            22 => StoreOp::WatchRemoved {
                began,
                id: self.watch_id(),
            },
            0 | 1 => StoreOp::PresencePut(Box::new(self.presence())),
            2 => StoreOp::PresenceGrace {
                began,
                id,
                until: at,
                last_ping_at: self.wall(),
                cursor: self.position(),
                heard: self.position(),
                known: self.position(),
            },
            3 => StoreOp::PresenceEnd {
                began,
                id,
                at,
                ended: self.position(),
            },
            4 => {
                let at = self.position();
                let told = self.chance.pick(&[Told::Join(at), Told::Leave(at)]);
                StoreOp::PresenceTold { began, id, told }
            }
            9 => StoreOp::PresenceCursor {
                began,
                id,
                cursor: self.position(),
            },
            5 => StoreOp::MessageDelivered {
                seq: self.seq(),
                at,
            },
            6 => self.acked(),
            7 => self.peer_state(),
            8 => StoreOp::MemberRevoked {
                id: self.member().id,
                at: self.maybe_wall(),
            },
            10 => self.schedule(),
            11 => StoreOp::ScheduleCancelled {
                id: self.schedule_id(),
            },
            12 => self.fired(),
            13 => self.server(),
            _ => self.insert(),
        }
    }

    /// The next question.
    pub(crate) fn query(&mut self) -> StoreQuery {
        match self.chance.below(8) {
            0 | 1 => return StoreQuery::Message { seq: self.seq() },
            2 => {
                let member = self.member();
                return StoreQuery::Sent {
                    mesh_id: member.mesh_id,
                    sender_member_id: member.id,
                    client_message_id: format!("c{}", self.chance.below(20)),
                };
            }
            _ => {}
        }
        let after = self.seq();
        StoreQuery::Mailbox {
            mesh_id: self.member().mesh_id,
            target: self.key(),
            after: self.chance.pick(&[Seq(0), after]),
            limit: self.chance.pick(&[1, 2, 3, 5]),
        }
    }
}
