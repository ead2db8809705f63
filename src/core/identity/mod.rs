//! Who somebody is: ed25519 keys, what they sign, and whether a signature holds.
//!
//! Pure: keys are made from seeds the caller brings. No rule about who may do what lives here.

mod keys;
mod resume;
mod sealing;
mod signing;
mod verify;

pub use keys::{KeyPair, Signature};
pub use resume::{Attached, Identity, ResumeKey, Unfit};
pub(crate) use sealing::seal;
pub use signing::{AttestationText, HelloText, InviteText, RequestText, SessionHelloText, digest};
pub use verify::{is_usable, verify};
