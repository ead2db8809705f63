//! Members and settings that were changed over HTTP.

use super::missed::three;
use super::*;
use crate::ids::Ticket;
use crate::input::{Answer, Ask, Edited};
use crate::rows::AuditRow;

impl World {
    fn edit(&mut self, edited: Edited) -> bool {
        let ticket = Ticket(77);
        let ask = Ask::Edited(Box::new(edited));
        self.input(Input::Ask { ticket, ask });
        matches!(
            self.fx.last(),
            Some(Effect::Answer {
                answer: Answer::Edited(true),
                ..
            })
        )
    }

    fn last_audit(&self) -> AuditRow {
        let audits = self.persisted().filter_map(|(op, _)| match op {
            StoreOp::Audit(row) => Some((**row).clone()),
            _ => None,
        });
        audits.last().unwrap()
    }
}

#[test]
fn a_members_sessions_are_told_of_its_new_profile() {
    let (mut w, alice, bob, _) = three();
    let sibling = w.join(member(2, None, "b2"));
    w.close(bob, Closing::Abrupt);
    let changes = json!({"displayName": "bobby"});
    let edited = Edited {
        mesh_id: MESH.into(),
        member_id: Some("member-2".into()),
        by: Some("member-1".into()),
        changes: changes.clone(),
    };
    assert!(w.edit(edited.clone()));
    let push = w.frames(sibling).pop().unwrap();
    assert_eq!(
        (&push["subtype"], &push["event"]),
        (&json!("system"), &json!("profile_updated"))
    );
    assert_eq!(
        push["eventData"],
        json!({"memberId": "member-2", "changes": changes})
    );
    assert!(!w.events(alice).contains(&"profile_updated".to_owned()));
    let again = w.join(launched(2, 21, "b"));
    assert_eq!(w.events(again), ["profile_updated"]);
    let audits = w.persisted().filter(|(op, _)| {
        matches!(op, StoreOp::Audit(row) if row.event_type == "member_updated"
            && row.actor_display_name.as_deref() == Some("alice")
            && row.payload == json!({"memberId": "member-2", "changes": changes}))
    });
    assert_eq!(audits.count(), 1);
    assert!(!w.edit(Edited {
        mesh_id: "elsewhere".into(),
        ..edited
    }));
}

#[test]
fn new_settings_are_audited_and_told_nobody() {
    let (mut w, alice, ..) = three();
    let before = w.frames(alice).len();
    assert!(w.edit(Edited {
        mesh_id: MESH.into(),
        member_id: None,
        by: None,
        changes: json!({"selfEditable": {"groups": false}}),
    }));
    let audit = w.last_audit();
    assert_eq!(
        (audit.event_type, audit.actor_member_id),
        ("settings_updated", None)
    );
    assert_eq!(audit.payload, json!({"selfEditable": {"groups": false}}));
    assert_eq!(w.frames(alice).len(), before);
}
