//! Keys and what is signed with them. Keys are the same in every run, so that making them is paid
//! for once per thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use holdfast_core::identity::{AttestationText, HelloText, KeyPair, SessionHelloText};
use holdfast_core::ids::PubKey;
use holdfast_core::time::Wall;

thread_local! {
    static PAIRS: RefCell<BTreeMap<u16, Rc<Pair>>> = const { RefCell::new(BTreeMap::new()) };
    static ATTESTATIONS: RefCell<BTreeMap<(u16, u16, i64), Rc<str>>> =
        const { RefCell::new(BTreeMap::new()) };
}

/// A key pair and its public half in hex.
pub(crate) struct Pair {
    pair: KeyPair,
    /// The public half.
    pub(crate) key: PubKey,
    /// In hex.
    pub(crate) hex: String,
}

/// The pair of a number.
pub(crate) fn pair(number: u16) -> Rc<Pair> {
    PAIRS.with_borrow_mut(|pairs| {
        let made = pairs.entry(number).or_insert_with(|| {
            let mut seed = [0x5a; 32];
            seed[..2].copy_from_slice(&number.to_le_bytes());
            let pair = KeyPair::from_seed(seed);
            let key = pair.public();
            Rc::new(Pair {
                pair,
                key,
                hex: key.to_string(),
            })
        });
        Rc::clone(made)
    })
}

/// The public key of a number.
pub(crate) fn key(number: u16) -> PubKey {
    pair(number).key
}

/// The signature of a `hello`.
pub(crate) fn sign_hello(member: u16, mesh_id: &str, member_id: &str, timestamp: i64) -> String {
    let pair = pair(member);
    let text = HelloText {
        mesh_id,
        member_id,
        pubkey: &pair.hex,
        timestamp: Wall(timestamp),
    };
    pair.pair.sign(text.text().as_bytes()).to_string()
}

/// The signature of a `session_hello`.
pub(crate) fn sign_session(session: u16, mesh_id: &str, member: u16, timestamp: i64) -> String {
    let (own, parent) = (pair(session), pair(member));
    let text = SessionHelloText {
        mesh_id,
        parent_pubkey: &parent.hex,
        session_pubkey: &own.hex,
        timestamp: Wall(timestamp),
    };
    own.pair.sign(text.text().as_bytes()).to_string()
}

/// The member's signature under the session's key.
pub(crate) fn attest(member: u16, session: u16, expires_at: i64) -> Rc<str> {
    ATTESTATIONS.with_borrow_mut(|known| {
        let made = known
            .entry((member, session, expires_at))
            .or_insert_with(|| {
                let (parent, own) = (pair(member), pair(session));
                let text = AttestationText {
                    parent_pubkey: &parent.hex,
                    session_pubkey: &own.hex,
                    expires_at: Wall(expires_at),
                };
                parent.pair.sign(text.text().as_bytes()).to_string().into()
            });
        Rc::clone(made)
    })
}
